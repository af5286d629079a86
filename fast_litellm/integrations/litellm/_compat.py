"""The only file that knows LiteLLM's private names.

Probes answer why a seam cannot be applied, in words for `get_patch_status`; an empty answer means that
everything it needs is there, with the meaning it had when it was written.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import re
from dataclasses import dataclass
from types import ModuleType
from typing import Any

LIMITER_CLASS = "_PROXY_MaxParallelRequestsHandler_v3"
#: Method that sees every limit before it is checked, and its first parameter.
CHECK_METHOD = "should_rate_limit"
CHECK_PARAMETER = "descriptors"
#: Parameter that callers pass by name and look for with `inspect.getfullargspec`.
CACHE_PARAMETER = "internal_usage_cache"
CACHE_MODULE = "litellm.caching.in_memory_cache"
CACHE_CLASS = "InMemoryCache"

#: Before this version a concurrency slot had no id of its own.
OLDEST = (1, 104)


@dataclass(frozen=True)
class Script:
    """One of the limiter's Redis scripts and our answer to it.

    Attributes:
        attribute: where the handler keeps the callable.
        constant: name of the script's text in the module.
        sha256: the text we answer; any other text means something we do not know.
        method: name of the method of `LimiterScripts`.
        optional: absent in some supported versions.
        gives_back: returns what another script took.
    """

    attribute: str
    constant: str
    sha256: str
    method: str
    optional: bool = False
    gives_back: bool = False


#: The script that releases concurrency slots.
RELEASE_ATTRIBUTE = "parallel_release_script"

SCRIPTS = (
    Script(
        "batch_rate_limiter_script",
        "BATCH_RATE_LIMITER_SCRIPT",
        "4311e91efa4cd8d9272bed1117ca3b12158520a82282968913f65bed7ffd9054",
        "batch_rate_limiter",
    ),
    Script(
        "batch_counter_read_script",
        "BATCH_COUNTER_READ_SCRIPT",
        "47575531dea9984ad90016c826e8695722bb4c5ce287806dc747f2226973b4ea",
        "batch_counter_read",
        optional=True,
    ),
    Script(
        "check_and_increment_by_n_script",
        "CHECK_AND_INCREMENT_BY_N_SCRIPT",
        "02bc716ee9995d599ff1f145d2790f07f8f604164b6a4ab21da9f110323fa92d",
        "check_and_increment_by_n",
    ),
    Script(
        "window_guarded_token_increment_script",
        "WINDOW_GUARDED_TOKEN_INCREMENT_SCRIPT",
        "adb3f46e029469cd4d14dbbfee0a5a1e4ceac95c301ad048395d89d3ba40e907",
        "window_guarded_token_increment",
        gives_back=True,
    ),
    Script(
        "token_increment_script",
        "TOKEN_INCREMENT_SCRIPT",
        "60cf06a6e076cd0140d5b0cecc3681aaffc1657ee180d2411df9660172211817",
        "token_increment",
    ),
    Script(
        "parallel_acquire_script",
        "PARALLEL_ACQUIRE_SCRIPT",
        "0bea688805a4f0d92abb097cd31570442e7698881e50df5773441342daa0c48e",
        "parallel_acquire",
    ),
    Script(
        RELEASE_ATTRIBUTE,
        "PARALLEL_RELEASE_SCRIPT",
        "b962542d6da577bb578c3aaf7a3b5f2a76bbe8ea039ce5597303d6cbcf8316b2",
        "parallel_release",
        gives_back=True,
    ),
    Script(
        "parallel_count_script",
        "PARALLEL_COUNT_SCRIPT",
        "529e25bcff0d531076afeeb19e64673e0bcc6a34101aac9067e9120edbc66cf6",
        "parallel_count",
    ),
)


def version() -> str:
    """LiteLLM's version, or "unknown"."""
    try:
        return importlib.metadata.version("litellm")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _too_old(text: str) -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", text)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) < OLDEST


def digest(script: str) -> str:
    """Fingerprint of a script's text."""
    return hashlib.sha256(script.encode()).hexdigest()


def probe_limiter(module: ModuleType) -> str:
    """Why the limiter seam cannot be applied to this module; empty = it can."""
    if _too_old(version()):
        oldest = ".".join(map(str, OLDEST))
        return f"LiteLLM {version()} is older than {oldest}, the oldest supported"
    handler = getattr(module, LIMITER_CLASS, None)
    if not inspect.isclass(handler):
        return f"{module.__name__} has no class {LIMITER_CLASS}"
    if CACHE_PARAMETER not in inspect.signature(handler.__init__).parameters:
        return f"{LIMITER_CLASS} takes no {CACHE_PARAMETER}"
    return _probe_scripts(module) or _probe_cache()


def _probe_scripts(module: ModuleType) -> str:
    known = {script.constant for script in SCRIPTS}
    for name, text in vars(module).items():
        if name.endswith("_SCRIPT") and isinstance(text, str) and name not in known:
            return f"LiteLLM {version()} has a limiter script that is not known here: {name}"
    for script in SCRIPTS:
        text = getattr(module, script.constant, None)
        if text is None and script.optional:
            continue
        if not isinstance(text, str):
            return f"{module.__name__} has no {script.constant}"
        if digest(text) != script.sha256:
            return f"LiteLLM {version()} has changed {script.constant}"
    return ""


def _probe_cache() -> str:
    import importlib

    try:
        cache = getattr(importlib.import_module(CACHE_MODULE), CACHE_CLASS)
    except (ImportError, AttributeError) as error:
        return f"{CACHE_MODULE}.{CACHE_CLASS} cannot be had: {error}"
    for name, parameters in {
        "get_cache": ("key",),
        "set_cache": ("key", "value"),
        "increment_cache": ("key", "value"),
        "delete_cache": ("key",),
    }.items():
        method = getattr(cache, name, None)
        if method is None:
            return f"{CACHE_CLASS} has no {name}"
        missing = set(parameters) - set(inspect.signature(method).parameters)
        if missing:
            return f"{CACHE_CLASS}.{name} takes no {', '.join(sorted(missing))}"
    return ""


def in_memory_cache_class() -> Any:
    """LiteLLM's `InMemoryCache`."""
    import importlib

    return getattr(importlib.import_module(CACHE_MODULE), CACHE_CLASS)


def handler_class(module: ModuleType) -> Any:
    """The limiter's class."""
    return getattr(module, LIMITER_CLASS)


def dual_cache(handler: Any) -> Any:
    """The handler's two-tier cache."""
    return getattr(handler, CACHE_PARAMETER).dual_cache


def has_redis(handler: Any) -> bool:
    """Whether the handler counts in Redis."""
    return dual_cache(handler).redis_cache is not None


def script_attributes(handler: Any) -> list[Script]:
    """The scripts that this handler has a place for."""
    return [script for script in SCRIPTS if hasattr(handler, script.attribute)]


def check_method(handler_class: Any) -> Any:
    """The method that is told all limits of a request, or None where it is not as it was."""
    method = getattr(handler_class, CHECK_METHOD, None)
    if method is None or CHECK_PARAMETER not in inspect.signature(method).parameters:
        return None
    return method


def limits_of(descriptors: Any) -> list[tuple[str, int, int]]:
    """Subject, requests and tokens per window (0 = none) of each descriptor."""
    found = []
    for descriptor in descriptors:
        limits = descriptor.get("rate_limit") or {}
        requests, tokens = limits.get("requests_per_unit"), limits.get("tokens_per_unit")
        if requests is not None or tokens is not None:
            subject = f"{{{descriptor['key']}:{descriptor['value']}}}"
            found.append((subject, int(requests or 0), int(tokens or 0)))
    return found


def refused_subjects(descriptors: Any, answer: Any) -> list[str]:
    """Subjects that a check has refused."""
    if answer["overall_code"] != "OVER_LIMIT":
        return []
    refused = [
        (status["descriptor_key"], status.get("descriptor_value"))
        for status in answer["statuses"]
        if status["code"] == "OVER_LIMIT"
    ]
    return [
        f"{{{descriptor['key']}:{descriptor['value']}}}"
        for descriptor in descriptors
        # Concurrency limits are refused without the value; a request has one descriptor of a key then.
        if (descriptor["key"], descriptor["value"]) in refused
        or (descriptor["key"], None) in refused
    ]


def only_reads(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a check was asked to change nothing."""
    return bool(kwargs.get("read_only", args[1] if len(args) > 1 else False))
