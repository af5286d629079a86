"""Turning the seams in LiteLLM on and off, and telling which are on."""

from __future__ import annotations

from typing import Any

from fast_litellm import _native
from fast_litellm._config import flag
from fast_litellm._features import any_breaker_open, configure
from fast_litellm._log import logger

#: What works with a region and without.
_COMPONENTS = ("tokens", "connection_pool", "rate_limiter", "router")
#: Why nothing is applied; empty while something is.
_refusal = "apply_acceleration() has not been called"


def apply_acceleration() -> bool:
    """Create the region and arm every seam; called by the import.

    Seams are applied when the LiteLLM modules they concern are loaded; `get_patch_status` tells which
    are. Calling it again after `remove_acceleration` arms them again.

    Returns:
        True when the seams are armed or applied; False when acceleration is switched off
        (`FAST_LITELLM_ENABLED=false`), the extension is missing or no region can be had.

    Raises:
        ConfigError: an environment variable or the file of features has a malformed value.
        OutOfRangeError: an environment variable is out of range.
    """
    global _refusal
    if _refusal:
        configure()
    if not flag("FAST_LITELLM_ENABLED", default=True):
        _refusal = "FAST_LITELLM_ENABLED is false"
        return False
    if not _native.RUST_ACCELERATION_AVAILABLE:
        _refusal = "the extension is not available"
        return False
    from fast_litellm._region import process_region
    from fast_litellm.integrations import gunicorn, litellm

    try:
        region = process_region()
    except _native.RegionError as error:
        _refusal = f"no shared region: {error}"
        logger().error("limits are NOT shared between workers: %s", error)
        return False
    _refusal = ""
    gunicorn.arm(region)
    litellm.arm(region)
    return True


def remove_acceleration() -> None:
    """Put LiteLLM and gunicorn back as they were. The region and limiters of your own stay."""
    global _refusal
    if not _native.RUST_ACCELERATION_AVAILABLE:
        return
    from fast_litellm.integrations import gunicorn, litellm

    litellm.disarm()
    gunicorn.disarm()
    _refusal = "remove_acceleration() was called"


def get_patch_status() -> dict[str, Any]:
    """Tell what is patched in this process.

    Returns:
        `applied` (bool: at least one seam is armed or applied), `components` (list of the components
        that have such a seam: "rate_limiting", "routing", "token_counting", "connection_pooling"),
        `seams` (dict by name, `component` or `component.part`: `state` is "applied", "armed" (waiting for
        LiteLLM to load) or "not_applied", with the `reason`; that of an applied one says if it is rolled
        out to a part of the traffic, or at rest because its breaker is open), and `reason` (str: why
        nothing is applied, else empty).
    """
    seams: dict[str, dict[str, str]] = {}
    if _native.RUST_ACCELERATION_AVAILABLE and not _refusal:
        from fast_litellm.integrations import litellm

        seams = litellm.status()
    on = (name for name, seam in seams.items() if seam["state"] != "not_applied")
    components = list(dict.fromkeys(name.partition(".")[0] for name in on))
    return {
        "applied": bool(components),
        "components": components,
        "seams": seams,
        "reason": _refusal,
    }


def health_check() -> dict[str, Any]:
    """Tell whether this process shares its limits.

    Returns:
        `status` ("ok"; "degraded" when the extension or the region is missing, when other workers use a
        region that this one cannot, or while the breaker of a feature that is switched on is open, so
        that limits are not shared), `rust_available` (bool),
        `components` (list of str: "core", which is the shared region, where there is one), and with a
        region `region` (dict: `backing`, `size` in bytes) and `fallbacks` (int: operations done without
        it, over all workers).
    """
    region = _native.default_region()
    if region is None:
        healthy = _native.RUST_ACCELERATION_AVAILABLE and not _refusal.startswith(
            "no shared region"
        )
        return {
            "status": "ok" if healthy else "degraded",
            "rust_available": _native.RUST_ACCELERATION_AVAILABLE,
            "components": list(_COMPONENTS),
        }
    from fast_litellm._region import is_apart

    return {
        "status": "degraded" if is_apart(region) or any_breaker_open() else "ok",
        "rust_available": True,
        "components": ["core", *_COMPONENTS],
        "region": {"backing": region.backing, "size": region.size},
        "fallbacks": region.fallback_count(),
    }
