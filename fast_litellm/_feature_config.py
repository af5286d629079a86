"""What a process's own configuration says of each feature: packaged file, own file, environment.

The later one wins, feature by feature. What cannot be understood is refused, not skipped: it would put a
feature on another share of the traffic than was meant.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, NamedTuple

from fast_litellm._config import FALSE, TRUE, flag
from fast_litellm.errors import ConfigError

#: Features in the order of their numbers in the region.
NAMES = (
    "rust_routing",
    "rust_token_counting",
    "rust_rate_limiting",
    "rust_connection_pool",
    "batch_token_counting",
)
#: Features that are used for all or for none: a part of them is none.
WHOLE = frozenset({"rust_connection_pool"})
#: What a canary is without a percentage.
CANARY_PERCENT = 10
PACKAGED = os.path.join(os.path.dirname(__file__), "feature_flags.json")
_KEYS = ("enabled", "rollout_percentage", "deployment_type")
_FORMS = "use true, false, canary:10 or rollout:50"


class Setting(NamedTuple):
    """How a feature is configured.

    Attributes:
        state: "enabled", "disabled", "canary" or "rollout".
        percent: 0 to 100: of what it is used for.
        source: who says so: "default", a file's path, a variable's name, or "set_feature".
        off: why it is off, in words; empty while it is not.
    """

    state: str
    percent: int
    source: str
    off: str = ""


def variable(name: str) -> str:
    """The environment variable of a feature."""
    return f"FAST_LITELLM_{name.upper()}"


def load() -> dict[str, Setting]:
    """Read everything anew: the setting of each feature.

    Raises:
        ConfigError: a file or a variable cannot be understood.
    """
    if not flag("FAST_LITELLM_ENABLED", default=True):
        off = "FAST_LITELLM_ENABLED is false"
        return {name: Setting("disabled", 0, "FAST_LITELLM_ENABLED", off) for name in NAMES}
    enabled = Setting("enabled", 100, "default")
    settings = dict.fromkeys(NAMES, enabled)
    if os.path.exists(PACKAGED):
        settings |= _read(PACKAGED, "default")
    named = os.environ.get("FAST_LITELLM_FEATURE_CONFIG", "").strip()
    if named:
        settings |= _read(named, named)
    for name in NAMES:
        raw = os.environ.get(variable(name), "").strip()
        if raw:
            state, percent = parse(raw, variable(name))
            said = "false" if state == "disabled" else raw
            off = f"{variable(name)} is {said}" if percent == 0 else ""
            settings[name] = Setting(state, percent, variable(name), off)
    return settings


def parse(raw: str, where: str) -> tuple[str, int]:
    """State and percentage of a text like `true`, `canary:10` or `rollout:50`.

    Raises:
        ConfigError: it is none; `where` is whose value it is.
    """
    text = raw.strip().lower()
    if text in TRUE:
        return "enabled", 100
    if text in FALSE:
        return "disabled", 0
    kind, colon, number = (part.strip() for part in text.partition(":"))
    if kind == "canary" and not colon:
        return kind, CANARY_PERCENT
    if kind in ("canary", "rollout") and number.isascii() and number.isdecimal():
        percent = int(number)
        if percent <= 100:
            return kind, percent
        raise ConfigError(f"{where}={raw!r}: a percentage is a whole number from 0 to 100")
    raise ConfigError(f"{where}={raw!r} is not understood: {_FORMS}")


def _read(path: str, source: str) -> dict[str, Setting]:
    import json

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ConfigError(f"{path}: {key!r} is there twice: keep one of them")
            found[key] = value
        return found

    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file, object_pairs_hook=once)
    except OSError as error:
        raise ConfigError(
            f"FAST_LITELLM_FEATURE_CONFIG: {path} cannot be read ({error.strerror})"
        ) from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is not JSON: {error}") from None
    features = document.get("features") if isinstance(document, dict) else None
    if not isinstance(features, dict):
        raise ConfigError(f'{path} has no features: write {{"features": {{"<name>": {{...}}}}}}')
    for key in document:
        if key != "features":
            _warn(f"{path}: {key!r} is not known and changes nothing")
    settings = {}
    for name, entry in features.items():
        if name in NAMES:
            settings[name] = _setting(entry, f"{path}: {name}", source)
        else:
            # A file may serve several versions.
            _warn(
                f"{path}: {name!r} is no feature and changes nothing: they are {', '.join(NAMES)}"
            )
    return settings


def _setting(entry: Any, where: str, source: str) -> Setting:
    if not isinstance(entry, dict):
        raise ConfigError(f'{where} is {entry!r}: write an object, e.g. {{"enabled": true}}')
    for key, value in entry.items():
        if key not in _KEYS:
            raise ConfigError(f"{where}.{key}={value!r} is not known: use {', '.join(_KEYS)}")
    enabled = entry.get("enabled", True)
    if not isinstance(enabled, bool):
        raise ConfigError(f"{where}.enabled={enabled!r}: use true or false, without quotes")
    kind = entry.get("deployment_type")
    if kind not in (None, "canary"):
        raise ConfigError(f'{where}.deployment_type={kind!r}: use "canary" or leave it out')
    percent = entry.get("rollout_percentage")
    if percent is None:
        percent = CANARY_PERCENT if kind else 100 if enabled else 0
    elif isinstance(percent, bool) or not isinstance(percent, int) or not 0 <= percent <= 100:
        raise ConfigError(f"{where}.rollout_percentage={percent!r}: use a whole number, 0 to 100")
    elif percent == 100 and not enabled:
        raise ConfigError(
            f"{where}: enabled=false contradicts rollout_percentage=100: leave one of them out"
        )
    off = f"{where} is off" if percent == 0 else ""
    if kind:
        return Setting("canary", percent, source, off)
    if percent in (0, 100):
        return Setting("enabled" if percent else "disabled", percent, source, off)
    return Setting("rollout", percent, source)


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
