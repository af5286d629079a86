"""Features: which of them are used, for what part of the traffic, and how they stand with all workers.

A process uses a feature as it is configured to (`_feature_config`), unless the feature's switch in the
region has been moved: that one counts for all workers. Its breaker, in the region too, has the last word.
"""

from __future__ import annotations

from typing import Any

from fast_litellm import _native
from fast_litellm._config import breaker_rest_s
from fast_litellm._feature_config import NAMES, WHOLE, Setting, load, parse

#: Parts that traffic is divided into.
BUCKETS = 10_000

_settings: dict[str, Setting] | None = None
#: Features whose seams were left out of this process: no switch brings them back before a restart.
_left_out: set[str] = set()


def configure() -> dict[str, Setting]:
    """Read this process's configuration anew.

    Raises:
        ConfigError: a file or a variable cannot be understood.
    """
    global _settings
    breaker_rest_s()
    _settings = load()
    return _settings


def own(name: str) -> Setting:
    """What this process's configuration says of a feature.

    Raises:
        ConfigError: a file or a variable cannot be understood.
    """
    return (configure() if _settings is None else _settings)[name]


def bucket(name: str, request_id: str) -> int:
    """The part of a feature's traffic that an id belongs to, 0 to 9,999.

    It is `sha256(f"{name}:{request_id}")`, its first eight bytes as a big-endian number modulo 10,000:
    the same in every worker, run and machine. A feature that is used for `p` percent is used for the
    parts below `100 * p`, so that a larger percentage only adds ids.
    """
    # Importing it takes longer than the rest of the package.
    from hashlib import sha256

    text = f"{name}:{request_id}".encode(errors="surrogatepass")
    return int.from_bytes(sha256(text).digest()[:8], "big") % BUCKETS


def in_rollout(name: str, request_id: str, percent: int) -> bool:
    """Whether `percent` percent of a feature's traffic include an id."""
    if percent >= 100:
        return True
    return percent > 0 and bucket(name, request_id) * 100 < percent * BUCKETS


def is_enabled(feature_name: str, request_id: str | None = None) -> bool:
    """Tell whether a feature is to be used, for this request.

    A feature that is rolled out to a part of the traffic is used for the same ids in all workers; without
    an id it is then not used. In LiteLLM the id is what state belongs to: for `rust_rate_limiting` the
    limit's subject (`api_key:<hash>`, `team:<id>`), for `rust_routing` the model group.

    Returns:
        False while it is switched off, while its breaker is open, and for ids beyond its percentage.

    Raises:
        ValueError: there is no such feature. It would never be used, and nobody would see why.
        TypeError: `request_id` is neither a str nor None.
        ConfigError: a file or a variable cannot be understood.
    """
    number = _number(feature_name)
    if request_id is not None and not isinstance(request_id, str):
        raise TypeError(f"request_id must be a str or None, not {type(request_id).__name__}")
    percent = _used(feature_name, _current(feature_name))
    if percent == 0 or (percent < 100 and request_id is None):
        return False
    region = _native.default_region()
    if region is not None and region.feature_standing(number)["breaker"] != "closed":
        return False
    return request_id is None or in_rollout(feature_name, request_id, percent)


def get_feature_status() -> dict[str, dict[str, Any]]:
    """Tell how all features stand.

    Returns:
        By feature: `enabled` (bool: it is used now, for some part of the traffic at least),
        `rollout_percentage` (int, 0 to 100), `state` ("enabled", "disabled", "canary" or "rollout"),
        `source` (str: who says so: "default", the path of a file, the name of a variable, or
        "set_feature"), `breaker` ("closed", "open", or "half_open": one worker may try it), `errors`
        and `error_count` (int, the same: recent errors over all workers), `errors_total` (int: since the
        region was created) and `note` (str: why it is not used here; else empty).

    Raises:
        ConfigError: a file or a variable cannot be understood.
    """
    return {name: _status(name) for name in NAMES}


def reset_errors(feature_name: str | None = None) -> None:
    """Forget a feature's errors, or those of all, in all workers: an open breaker closes at once.

    Raises:
        ValueError: there is no such feature.
    """
    numbers = range(len(NAMES)) if feature_name is None else (_number(feature_name),)
    region = _native.default_region()
    if region is not None:
        for number in numbers:
            region.reset_feature(number)


def set_feature(feature_name: str, value: bool | str | None) -> dict[str, Any]:
    """Move a feature's switch for all workers, now.

    Args:
        feature_name: which.
        value: True, False or what its variable takes ("canary:10", "rollout:50"); None = each process
            follows its own configuration again. The switch keeps the percentage, not its kind: a canary
            is shown as a rollout.

    Returns:
        Its status, as `get_feature_status` has it. A process that was started with the feature off has
        left LiteLLM as it is, and goes on so until it is started anew; `note` tells that of this process.

    Raises:
        ValueError: there is no such feature.
        ConfigError: `value` cannot be understood.
        TypeError: `value` is neither a bool nor a str nor None: is 1 on, or one percent?
        RegionError: no region exists and none can be created.
    """
    number = _number(feature_name)
    percent: int | None = None
    if isinstance(value, bool):
        percent = 100 if value else 0
    elif isinstance(value, str):
        percent = parse(value, feature_name)[1]
    elif value is not None:
        raise TypeError(
            f"value must be a bool, a str like 'rollout:25' or None, not {type(value).__name__}"
        )
    if not _native.RUST_ACCELERATION_AVAILABLE:
        raise _native.RegionError(
            "there is no switch for all workers without fast_litellm's extension: use the environment"
        )
    from fast_litellm._region import process_region

    process_region().set_feature_switch(number, percent)
    return _status(feature_name)


def leave_out(name: str, out: bool) -> None:
    """Remember whether a feature's seams were left out of this process."""
    (_left_out.add if out else _left_out.discard)(name)


def any_breaker_open() -> bool:
    """Whether the breaker of a feature that is switched on keeps it from being used.

    One that may be tried does not count: whoever gets no requests while this is so would never try it.
    """
    region = _native.default_region()
    return region is not None and any(
        region.feature_standing(number, breaker_rest_s())["breaker"] == "open"
        and _used(name, _current(name)) > 0
        for number, name in enumerate(NAMES)
    )


def _number(name: str) -> int:
    if name in NAMES:
        return NAMES.index(name)
    raise ValueError(f"{name!r} is no feature: they are {', '.join(NAMES)}")


def _current(name: str) -> Setting:
    setting = own(name)
    region = _native.default_region()
    if region is None or setting.source == "FAST_LITELLM_ENABLED":
        return setting
    percent = region.feature_switch(NAMES.index(name))
    if percent is None:
        return setting
    state = {0: "disabled", 100: "enabled"}.get(percent, "rollout")
    off = "switched off for all workers with set_feature" if percent == 0 else ""
    return Setting(state, percent, "set_feature", off)


def _used(name: str, setting: Setting) -> int:
    """Percent of the traffic that a feature is used for, breakers apart."""
    return 0 if name in WHOLE and setting.percent < 100 else setting.percent


def _status(name: str) -> dict[str, Any]:
    setting = _current(name)
    used = _used(name, setting)
    region = _native.default_region()
    standing = {"breaker": "closed", "errors": 0, "errors_total": 0}
    if region is not None:
        standing = region.feature_standing(NAMES.index(name), breaker_rest_s())
    note = setting.off
    if used < setting.percent:
        note = f"it is used for all or for none: {setting.percent}% is none"
    if standing["breaker"] != "closed" and used:
        note = "its breaker is open"
    if setting.percent and name in _left_out:
        note = "this process was started with it off: LiteLLM is left as it is here until a restart"
    return {
        "enabled": used > 0 and standing["breaker"] == "closed",
        "errors": standing["errors"],
        "error_count": standing["errors"],
        "rollout_percentage": setting.percent,
        "state": setting.state,
        "breaker": standing["breaker"],
        "errors_total": standing["errors_total"],
        "source": setting.source,
        "note": note,
    }
