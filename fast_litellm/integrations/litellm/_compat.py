"""The only file that knows LiteLLM's private names.

Probes answer why a seam cannot be applied, in words for `get_patch_status`; an empty answer means that
everything it needs is there, with the meaning it had when it was written.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from fast_litellm import _log

if TYPE_CHECKING:
    from fast_litellm.integrations.litellm.feed import Feed

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


def _probe_version() -> str:
    if not _too_old(version()):
        return ""
    oldest = ".".join(map(str, OLDEST))
    return f"LiteLLM {version()} is older than {oldest}, the oldest supported"


def _probe_methods(owner: Any, methods: dict[str, tuple[str, ...]]) -> str:
    """Which of these methods, or of their parameters, a class does not have; empty = it has all."""
    for name, parameters in methods.items():
        method = getattr(owner, name, None)
        if not callable(method):
            return f"{owner.__name__} has no {name}"
        missing = set(parameters) - set(inspect.signature(method).parameters)
        if missing:
            return f"{owner.__name__}.{name} takes no {', '.join(sorted(missing))}"
    return ""


def probe_limiter(module: ModuleType) -> str:
    """Why the limiter seam cannot be applied to this module; empty = it can."""
    reason = _probe_version()
    if reason:
        return reason
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
    try:
        cache = getattr(importlib.import_module(CACHE_MODULE), CACHE_CLASS)
    except (ImportError, AttributeError) as error:
        return f"{CACHE_MODULE}.{CACHE_CLASS} cannot be had: {error}"
    return _probe_methods(
        cache,
        {
            "get_cache": ("key",),
            "set_cache": ("key", "value"),
            "increment_cache": ("key", "value"),
            "delete_cache": ("key",),
        },
    )


def in_memory_cache_class() -> Any:
    """LiteLLM's `InMemoryCache`."""
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


#: Methods whose work can be divided among limits, and the parameters by which it is.
SPLIT_METHODS = {
    CHECK_METHOD: (CHECK_PARAMETER, "read_only", "parallel_slot_id"),
    "atomic_check_and_increment_by_n": ("descriptors", "increments"),
    "async_increment_tokens_with_ttl_preservation": ("pipeline_operations",),
    "async_increment_reservation_aware_tokens": ("pipeline_operations",),
    "_release_parallel_request_slots": ("acquisition",),
    "create_rate_limit_keys": ("key", "value", "rate_limit_type"),
}


def probe_split(handler_class: Any) -> str:
    """Why limits cannot be divided between the region and LiteLLM's own memory; empty = they can."""
    return _probe_methods(handler_class, SPLIT_METHODS)


def in_memory_twin(handler: Any) -> Any:
    """The same limiter, with the same memory, without a place to share its counters in."""
    twin = object.__new__(type(handler))
    twin.__dict__.update(handler.__dict__)
    for script in script_attributes(handler):
        setattr(twin, script.attribute, None)
    return twin


def subject_of(descriptor: Any) -> str:
    """What a limit belongs to, e.g. `api_key:<hash>`."""
    return f"{descriptor['key']}:{descriptor['value']}"


def gauges_of(handler: Any, descriptors: list[Any]) -> list[str]:
    """Keys of the slots that these limits count."""
    return [
        handler.create_rate_limit_keys(each["key"], each["value"], "max_parallel_requests")
        for each in descriptors
        if (each.get("rate_limit") or {}).get("max_parallel_requests") is not None
    ]


def charges_of(handler: Any, descriptors: list[Any], increments: list[Any]) -> dict[str, int]:
    """What charging these limits so much has added, by the counter's key."""
    charges: dict[str, int] = {}
    for each, increment in zip(descriptors, increments, strict=True):
        limits = each.get("rate_limit") or {}
        for kind in ("requests", "tokens"):
            amount = int(increment.get(kind, 0) or 0)
            if limits.get(f"{kind}_per_unit") is not None and amount > 0:
                charges[handler.create_rate_limit_keys(each["key"], each["value"], kind)] = amount
    return charges


def is_refusal(answer: Any) -> bool:
    """Whether a check has refused."""
    return bool(answer["overall_code"] == "OVER_LIMIT")


def both_answers(first: Any, second: Any) -> Any:
    """The answer to two checks of which neither refused."""
    answer = {**first, **second, "statuses": [*first["statuses"], *second["statuses"]]}
    windows = [
        each["reservation_windows"] for each in (first, second) if each.get("reservation_windows")
    ]
    if windows:
        answer["reservation_windows"] = frozenset().union(*windows)
    return answer


def is_local_reservation(operation: Any) -> bool:
    """Whether an adjustment belongs to a reservation in LiteLLM's own memory."""
    return bool(operation.get("reservation_backend") == "local")


def is_of_a_window(operation: Any) -> bool:
    """Whether an adjustment names the window that it belongs to."""
    named = (operation.get("window_key"), operation.get("expected_window_start"))
    return None not in named


def only_reads(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a check was asked to change nothing."""
    return bool(kwargs.get("read_only", args[1] if len(args) > 1 else False))


# The Router's caches

COOLDOWN_CLASS = "CooldownCache"
_LOGGER_MODULE = "litellm.integrations.custom_logger"


def probe_cooldown_cache(module: ModuleType) -> str:
    """Why a Router's caches cannot be had from this module; empty = they can."""
    reason = _probe_version() or _probe_cache()
    if reason:
        return reason
    owner = getattr(module, COOLDOWN_CLASS, None)
    if not inspect.isclass(owner):
        return f"{module.__name__} has no class {COOLDOWN_CLASS}"
    reason = _probe_methods(
        owner,
        {
            "__init__": ("cache",),
            "add_deployment_to_cooldown": ("model_id", "cooldown_time"),
            "async_get_active_cooldowns": ("model_ids",),
            "get_active_cooldowns": ("model_ids",),
        },
    )
    if reason:
        return reason
    key_of = getattr(owner, "get_cooldown_cache_key", None)
    if key_of is None or key_of("x") != "deployment:x:cooldown":
        return f"{COOLDOWN_CLASS} calls its keys otherwise"
    return _probe_logger()


def _probe_logger() -> str:
    try:
        logger = importlib.import_module(_LOGGER_MODULE).CustomLogger
    except (ImportError, AttributeError) as error:
        return f"{_LOGGER_MODULE}.CustomLogger cannot be had: {error}"
    ends = ("kwargs", "response_obj", "start_time", "end_time")
    return _probe_methods(
        logger,
        {
            "log_pre_api_call": ("model", "messages", "kwargs"),
            "log_success_event": ends,
            "log_failure_event": ends,
            "async_log_success_event": ends,
            "async_log_failure_event": ends,
        },
    )


def cooldown_cache_class(module: ModuleType) -> Any:
    """The class whose constructor gets every Router's cache."""
    return getattr(module, COOLDOWN_CLASS)


def router_cache(cooldowns: Any) -> Any:
    """The Router's two-tier cache."""
    return cooldowns.cache


def router_of(frame: FrameType) -> Any:
    """The Router that makes a cooldown cache; None = it is made by something else."""
    # The cache is not told of it.
    caller = frame.f_locals.get("self")
    return caller if hasattr(caller, "model_id_to_deployment_index_map") else None


def group_in(router: Any, deployment: str) -> str | None:
    """The model group of a Router's deployment; None = it has none of that id."""
    try:
        position = router.model_id_to_deployment_index_map.get(deployment)
        entry = None if position is None else router.model_list[position]
        # The list may have changed under us.
        known = entry is not None and entry["model_info"]["id"] == deployment
        return str(entry["model_name"]) if known else None  # type: ignore[index]
    except (AttributeError, IndexError, KeyError, TypeError):
        return None


def cache_has_redis(cache: Any) -> bool:
    """Whether a two-tier cache has Redis now; it may get it later than it is made."""
    return cache.redis_cache is not None


def memory_tiers(cooldowns: Any) -> Iterator[tuple[Any, str]]:
    """Whose attributes hold a Router's in-memory caches."""
    yield cooldowns.cache, "in_memory_cache"
    store = getattr(cooldowns, "_cooldown_store", None)
    if store is not None:
        yield store, "in_memory_cache"
    if hasattr(cooldowns, "in_memory_cache"):
        yield cooldowns, "in_memory_cache"


# Calls, as loggers see them


def add_logger(feed: Feed) -> Any:
    """Let LiteLLM tell `feed` about calls; returns what `remove_logger` takes."""
    base: Any = importlib.import_module(_LOGGER_MODULE).CustomLogger

    class FastLitellmFeed(base):  # type: ignore[misc]
        """Passes on which deployment is called, and how that ends."""

        def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
            feed.began(kwargs, _call_of(sys._getframe(1)))

        def log_success_event(
            self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
        ) -> None:
            feed.succeeded(kwargs, start_time, end_time)

        def log_failure_event(
            self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
        ) -> None:
            feed.failed(kwargs)

        async def async_log_success_event(
            self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
        ) -> None:
            feed.succeeded(kwargs, start_time, end_time)

        async def async_log_failure_event(
            self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
        ) -> None:
            feed.failed(kwargs)

    logger = FastLitellmFeed()
    keep_logger(logger)
    return logger


def _call_of(frame: FrameType) -> Any:
    """The object that lives as long as a call does; None = it is not known."""
    # It is not among the arguments of a logger, but it is what calls it.
    caller = frame.f_locals.get("self")
    return caller if getattr(caller, "litellm_call_id", None) is not None else None


def keep_logger(logger: Any) -> None:
    """See to it that LiteLLM has the logger: whoever sets `litellm.callbacks` anew drops it."""
    callbacks = getattr(importlib.import_module("litellm"), "callbacks", None)
    # LiteLLM's own way to add one refuses, without telling, where there are many already.
    if isinstance(callbacks, list) and not any(one is logger for one in callbacks):
        callbacks.append(logger)
    if isinstance(callbacks, list) and any(one is _idle_logger for one in callbacks):
        remove_logger(_idle_logger)


_idle_logger: Any = None


def idle_logger() -> Any:
    """A logger that does nothing, for a configuration whose loading is what matters.

    LiteLLM calls each one it has a dozen times for a request: with the first Router this one goes.
    """
    global _idle_logger
    if _idle_logger is None:
        base: Any = importlib.import_module(_LOGGER_MODULE).CustomLogger
        _idle_logger = type("FastLitellmCallback", (base,), {})()
    return _idle_logger


def remove_logger(logger: Any) -> None:
    """Undo `add_logger`."""
    litellm = sys.modules.get("litellm")
    for name in (
        "callbacks",
        "input_callback",
        "success_callback",
        "failure_callback",
        "_async_success_callback",
        "_async_failure_callback",
        "_async_input_callback",
    ):
        callbacks = getattr(litellm, name, None)
        if isinstance(callbacks, list):
            callbacks[:] = [callback for callback in callbacks if callback is not logger]


def call_and_deployment(call: dict[str, Any]) -> tuple[str, str] | None:
    """Ids of a call and of the deployment that it goes to; None = it goes to none of a Router's."""
    params = call.get("litellm_params")
    if not isinstance(params, dict):
        return None
    info = params.get("model_info")
    deployment = info.get("id") if isinstance(info, dict) else None
    if deployment is None:
        return None
    return str(call.get("litellm_call_id") or params.get("litellm_call_id")), str(deployment)


def group_of(call: dict[str, Any]) -> str:
    """The model group that a call was made for; empty = none is known."""
    params = call.get("litellm_params") or {}
    for name in ("metadata", "litellm_metadata"):
        metadata = params.get(name)
        group = metadata.get("model_group") if isinstance(metadata, dict) else None
        if isinstance(group, str):
            return group
    return ""


def first_token_at(call: dict[str, Any]) -> Any:
    """When the first token of a streamed answer came; None = it was not streamed."""
    return call.get("completion_start_time") if call.get("stream") is True else None


def failure_of(call: dict[str, Any]) -> tuple[int, str]:
    """HTTP status (0 = none) and kind ("timeout", "connection" or empty) of a call's failure."""
    exception = call.get("exception")
    text = str(getattr(exception, "status_code", ""))
    status = int(text) if text.isdecimal() else 0
    name = type(exception).__name__
    if "Timeout" in name:
        return status, "timeout"
    if "Connection" in name:
        return status, "connection"
    return status, ""


# Slots of deployments

SLOTS_CLASS = "MaxParallelRequestsLimit"


def probe_deployment_slots(module: ModuleType) -> str:
    """Why the slots of deployments cannot be shared; empty = they can."""
    reason = _probe_version()
    if reason:
        return reason
    owner = getattr(module, SLOTS_CLASS, None)
    if not inspect.isclass(owner):
        return f"{module.__name__} has no class {SLOTS_CLASS}"
    make: Any = owner
    constructor = {"__init__": ("max_parallel_requests", "model_id", "model_group")}
    reason = _probe_methods(owner, {**constructor, "acquire": (), "release": ()})
    if reason:
        return reason
    for name in ("acquire", "release"):
        if name not in vars(owner) or inspect.iscoroutinefunction(vars(owner)[name]):
            return f"{SLOTS_CLASS}.{name} is not what it was"
    made = make(max_parallel_requests=1, model_id="id", model_group="group")
    if not all(hasattr(made, name) for name in ("in_flight", "max_parallel_requests", "model_id")):
        return f"{SLOTS_CLASS} counts otherwise"
    return ""


def deployment_slots_class(module: ModuleType) -> Any:
    """The class whose objects count a deployment's calls."""
    return getattr(module, SLOTS_CLASS)


def deployment_of(limit: Any) -> str:
    """Id of the deployment whose calls an object counts."""
    return str(limit.model_id)


def slots_of(limit: Any) -> int:
    """How many calls a deployment may have at once."""
    return int(limit.max_parallel_requests)


def full_deployment(limit: Any) -> Any:
    """What LiteLLM takes for the same deployment with all slots in use."""
    return SimpleNamespace(
        in_flight=limit.max_parallel_requests,
        max_parallel_requests=limit.max_parallel_requests,
        model_id=limit.model_id,
        model_group=getattr(limit, "model_group", ""),
    )


# Strategies


@dataclass(frozen=True)
class Strategy:
    """A routing strategy that keeps a map of its group.

    Attributes:
        name: what it is called in the log.
        module: where it is.
        handler: name of its class.
        key: name of the map in the Router's cache; `{group}` is the model group.
        methods: how it is asked to pick, those that it has.
        latencies: whether its map has latencies.
    """

    name: str
    module: str
    handler: str
    key: str
    methods: tuple[str, ...]
    latencies: bool


_PICK = ("get_available_deployments", "async_get_available_deployments")

LATENCY = Strategy(
    "latency-based routing",
    "litellm.router_strategy.lowest_latency",
    "LowestLatencyLoggingHandler",
    "{group}_map",
    _PICK,
    latencies=True,
)
COST = Strategy(
    "cost-based routing",
    "litellm.router_strategy.lowest_cost",
    "LowestCostLoggingHandler",
    "cost_map:{group}",
    _PICK,
    latencies=False,
)


def probe_strategy(module: ModuleType, strategy: Strategy) -> str:
    """Why a strategy's map cannot be shared; empty = it can."""
    reason = _probe_version()
    if reason:
        return reason
    handler = getattr(module, strategy.handler, None)
    if not inspect.isclass(handler):
        return f"{module.__name__} has no class {strategy.handler}"
    methods = [name for name in strategy.methods if name in vars(handler)]
    if not methods:
        return f"{strategy.handler} picks otherwise"
    for name in methods:
        parameters = list(inspect.signature(vars(handler)[name]).parameters)
        if parameters[1:3] != ["model_group", "healthy_deployments"]:
            return f"{strategy.handler}.{name} takes other arguments"
    source = inspect.getsource(handler)
    map_name = strategy.key.replace("{group}", "{model_group}")
    if f'f"{map_name}"' not in source:
        return f"{strategy.handler} keeps its map under another name"
    if strategy.latencies and '"time_to_first_token_seconds"' not in source:
        return f"{strategy.handler} keeps other lists"
    return ""


def latency_list(module: ModuleType) -> str:
    """What this version calls the list of latencies in the map."""
    source = inspect.getsource(getattr(module, LATENCY.handler))
    return "latency_normalized" if '"latency_normalized"' in source else "latency"


def deployment_id(deployment: Any) -> str:
    """Id of a deployment in a Router's list."""
    return str(deployment["model_info"]["id"])


def samples_of(handler: Any) -> int:
    """How many latencies a strategy keeps of each deployment."""
    return int(getattr(getattr(handler, "routing_args", None), "max_latency_list_size", 10))


def max_age_of(handler: Any) -> float:
    """How many seconds a strategy looks back."""
    return float(getattr(getattr(handler, "routing_args", None), "ttl", 3_600))


# Health checks

HEALTH_CHECK = "_run_direct_health_check_with_instrumentation"
WRITE_HEALTH = "_write_health_state_to_router_cache"
_HEALTH_LOOP = "_run_background_health_check"


def probe_health_checks(module: ModuleType) -> str:
    """Why background health checks cannot be led by one worker; empty = they can."""
    reason = _probe_version()
    if reason:
        return reason
    check = vars(module).get(HEALTH_CHECK)
    if not inspect.iscoroutinefunction(check):
        return f"{module.__name__} has no {HEALTH_CHECK}"
    loop = vars(module).get(_HEALTH_LOOP)
    if loop is None or HEALTH_CHECK not in loop.__code__.co_names:
        return f"{_HEALTH_LOOP} does not call {HEALTH_CHECK}"
    return ""


def show_health(module: ModuleType, healthy: list[Any], unhealthy: list[Any]) -> None:
    """Have the proxy answer with this result, as its loop does after each round."""
    results = getattr(module, "health_check_results", None)
    if isinstance(results, dict):
        results["healthy_endpoints"] = healthy
        results["unhealthy_endpoints"] = unhealthy
        results["healthy_count"] = len(healthy)
        results["unhealthy_count"] = len(unhealthy)


def health_check_interval(module: ModuleType) -> float | None:
    """Seconds between two rounds; None = there are none, or Redis has a worker lead already."""
    interval = getattr(module, "health_check_interval", None)
    if not isinstance(interval, int) or interval <= 0:
        return None
    if getattr(module, "redis_usage_cache", None) is not None:
        return None
    return float(interval)


# The limit of all requests

DESCRIPTORS_METHOD = "create_rate_limit_descriptors"
#: What the limit of all requests belongs to.
ALL_REQUESTS = "global:proxy"
_PROXY_MODULE = "litellm.proxy.proxy_server"


def descriptors_method(handler_class: Any) -> Any:
    """The method that lists the limits of a request, or None where it is not as it was."""
    return vars(handler_class).get(DESCRIPTORS_METHOD)


def limit_of_all_requests() -> int | None:
    """The proxy's `global_max_parallel_requests`; None = none is set."""
    settings = getattr(sys.modules.get(_PROXY_MODULE), "general_settings", None)
    if not isinstance(settings, Mapping):
        return None
    limit = settings.get("global_max_parallel_requests")
    if limit is None:
        return None
    try:
        whole = int(limit)
        if isinstance(limit, bool) or whole != float(limit):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        _warn_of_limit(repr(limit))
        return None
    return whole


@functools.lru_cache(maxsize=8)
def _warn_of_limit(value: str) -> None:
    _log.logger().error(
        "general_settings.global_max_parallel_requests=%s is no whole number: it is NOT enforced",
        value,
    )


def descriptor_of_all_requests(handler: Any, limit: int) -> dict[str, Any]:
    """The limit of all requests, as the limiter takes others."""
    key, _, value = ALL_REQUESTS.partition(":")
    return {
        "key": key,
        "value": value,
        "rate_limit": {
            "requests_per_unit": None,
            "tokens_per_unit": None,
            "max_parallel_requests": limit,
            "window_size": getattr(handler, "window_size", 60),
        },
    }


# Connections to providers

_TRANSPORT_CLASS = "LiteLLMAiohttpTransport"
#: Method that sends each request, and its parameter for the session that it is sent by.
SEND_METHOD, SESSION_PARAMETER = "_make_aiohttp_request", "client_session"
#: Method that makes a session, for callers that send by themselves.
SESSION_METHOD = "_rebuild_session"
_CLIENT_MODULE = "litellm.llms.custom_httpx.http_handler"
_CLIENT_CLASS = "AsyncHTTPHandler"
#: Function that is called for each asynchronous client that is not to use aiohttp.
HTTPX_METHOD = "_create_httpx_transport"


def probe_transport(module: ModuleType) -> str:
    """Why the sessions of LiteLLM's clients cannot be had; empty = they can."""
    reason = _probe_version()
    if reason:
        return reason
    owner = getattr(module, _TRANSPORT_CLASS, None)
    if not inspect.isclass(owner):
        return f"{module.__name__} has no class {_TRANSPORT_CLASS}"
    for name in (SEND_METHOD, SESSION_METHOD):
        if name not in vars(owner):
            return f"{_TRANSPORT_CLASS} has no {name}"
    if list(inspect.signature(getattr(owner, SEND_METHOD)).parameters)[1] != SESSION_PARAMETER:
        return f"{_TRANSPORT_CLASS}.{SEND_METHOD} does not begin with {SESSION_PARAMETER}"
    client = getattr(sys.modules.get(_CLIENT_MODULE), _CLIENT_CLASS, None)
    if not isinstance(getattr(client, "__dict__", {}).get(HTTPX_METHOD), staticmethod):
        return f"{_CLIENT_MODULE} has no static {_CLIENT_CLASS}.{HTTPX_METHOD}"
    return ""


def transport_class(module: ModuleType) -> Any:
    """The class that sends the requests of LiteLLM's asynchronous clients by aiohttp."""
    return getattr(module, _TRANSPORT_CLASS)


def client_class() -> Any:
    """The class that chooses between aiohttp and httpx."""
    return getattr(sys.modules[_CLIENT_MODULE], _CLIENT_CLASS)


# Encodings of tiktoken's that LiteLLM keeps


@dataclass(frozen=True)
class Keeper:
    """A name under which LiteLLM keeps an encoding that it has got from tiktoken.

    Attributes:
        module: the module that has it.
        name: what it is called there.
        asks_again: whether LiteLLM gets it again when it is gone.
        absent: whether it is gone when the name is, or else when it is None.
    """

    module: str
    name: str
    asks_again: bool = True
    absent: bool = True

    def keep(self, encoding: Any) -> None:
        """Keep another one."""
        vars(sys.modules[self.module])[self.name] = encoding

    def forget(self) -> None:
        """Keep none, as before LiteLLM has asked for one."""
        names = vars(sys.modules[self.module])
        if self.absent:
            names.pop(self.name, None)
        else:
            names[self.name] = None


_KEEPERS = (
    # It asks when it is loaded, and is imported from wherever it is needed.
    Keeper("litellm.litellm_core_utils.default_encoding", "encoding", asks_again=False),
    Keeper("litellm.main", "encoding"),
    Keeper("litellm.main", "_encoding_cache", absent=False),
    Keeper("litellm", "encoding"),
    # Where `litellm.encoding` is remembered.
    Keeper("litellm.utils", "encoding"),
)


def kept_encodings() -> list[tuple[Keeper, Any]]:
    """Where LiteLLM keeps something, and what; modules that are not loaded keep nothing."""
    return [
        (keeper, vars(module)[keeper.name])
        for keeper in _KEEPERS
        for module in (sys.modules.get(keeper.module),)
        if module is not None and vars(module).get(keeper.name) is not None
    ]


def counts_natively() -> bool:
    """Whether LiteLLM has its own extension make encodings; tiktoken is then not asked."""
    catalog = sys.modules.get("litellm.rust_bridge.catalog")
    if catalog is None:
        return False
    try:
        context = catalog.RouteContext(catalog.Route.TOKENIZER, provider="tiktoken")
        return bool(catalog.decision(context) is not catalog.Decision.PYTHON)
    except (AttributeError, TypeError, ValueError):
        return False


# Who is an admin

_AUTH_MODULE, _AUTH_FUNCTION = "litellm.proxy.auth.user_api_key_auth", "user_api_key_auth"
_TYPES_MODULE, _ROLES_CLASS = "litellm.proxy._types", "LitellmUserRoles"
_PROXY_MODULE = "litellm.proxy.proxy_server"


def probe_admin() -> str:
    """Why LiteLLM cannot be asked who is an admin; empty = it can."""
    reason = _probe_version() or _probe_authentication()
    if reason:
        return reason
    proxy = sys.modules.get(_PROXY_MODULE)
    if proxy is None:
        return f"{_PROXY_MODULE} is not loaded"
    # Without one every request is let through, as whoever LiteLLM likes.
    if not getattr(proxy, "master_key", None):
        return "the proxy has no master key"
    return ""


@functools.cache
def _probe_authentication() -> str:
    try:
        authenticate = getattr(importlib.import_module(_AUTH_MODULE), _AUTH_FUNCTION)
        roles = getattr(importlib.import_module(_TYPES_MODULE), _ROLES_CLASS)
        requests = importlib.import_module("starlette.requests")
    except (ImportError, AttributeError) as error:
        return f"{_AUTH_MODULE}.{_AUTH_FUNCTION} cannot be had: {error}"
    if not hasattr(roles, "PROXY_ADMIN") or not hasattr(requests, "Request"):
        return f"{_ROLES_CLASS} has no PROXY_ADMIN"
    first, *others = inspect.signature(authenticate).parameters.values()
    if first.name != "request":
        return f"{_AUTH_FUNCTION} does not begin with request"
    for each in others:
        # FastAPI fills these in from a header each; here they are filled in likewise.
        if not hasattr(getattr(each.default, "dependency", None), "model"):
            return f"{_AUTH_FUNCTION} takes {each.name}, which is no header"
    return ""


async def ask_for_admin(scope: Mapping[str, Any]) -> bool | tuple[int, str]:
    """Have LiteLLM authenticate a request; True = it is a proxy admin's, else a status and a reason."""
    authenticate = getattr(importlib.import_module(_AUTH_MODULE), _AUTH_FUNCTION)
    admin = getattr(importlib.import_module(_TYPES_MODULE), _ROLES_CLASS).PROXY_ADMIN
    request = importlib.import_module("starlette.requests").Request(
        # What LiteLLM notes about a request belongs to this one only.
        {**scope, "state": {}},
        _nothing_more,
    )
    _, *headers = inspect.signature(authenticate).parameters.values()
    given = {each.name: await each.default.dependency(request) for each in headers}
    if not any(given.values()):
        # LiteLLM would log it as an attempt.
        return 401, "the key of a proxy admin is needed"
    try:
        user = await authenticate(request, **given)
    except Exception as error:  # noqa: BLE001  # LiteLLM refuses by several of its own
        return _refusal(error)
    # A key of an admin that LiteLLM remembers it lets through even if the key has been blocked since.
    if user.user_role == admin and not user.blocked:
        return True
    return 403, "that key is not a proxy admin's"


def _refusal(error: Exception) -> tuple[int, str]:
    """What an exception of LiteLLM's authentication means; its text may have parts of the key."""
    status = str(getattr(error, "status_code", None) or getattr(error, "code", None))
    if status == "403":
        return 403, "that key is not a proxy admin's"
    if re.fullmatch(r"4\d\d", status):
        return 401, "LiteLLM does not accept that key"
    return 503, f"LiteLLM's authentication failed: {type(error).__name__}"


async def _nothing_more() -> dict[str, Any]:
    """The body of a request that has none."""
    return {"type": "http.request", "body": b"", "more_body": False}
