"""LiteLLM: where its limiter would use Redis, it finds the region instead.

Each seam has a probe, is applied or left untouched as a whole, tells why, and can be undone. What a seam
needs is imported when LiteLLM loads the module it concerns, so that arming costs next to nothing.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from fast_litellm import _native, _post_import
from fast_litellm._config import flag

if TYPE_CHECKING:
    from fast_litellm.integrations.litellm.limiter import LimiterSeam

#: Module whose loading applies the limiter seam.
LIMITER_MODULE = "litellm.proxy.hooks.parallel_request_limiter_v3"

_RATE_LIMITING = "rate_limiting"

_region: _native.Region | None = None
_limiter: LimiterSeam | None = None
#: Limiters that a removed seam let go, to be taken up again.
_left: list[Any] = []
_waiting = {"state": "not_applied", "reason": "not armed"}


def arm(region: _native.Region) -> None:
    """Apply every seam when LiteLLM's module for it is loaded. Idempotent."""
    global _region, _waiting
    if _region is not None:
        return
    if not flag("FAST_LITELLM_RUST_RATE_LIMITING", default=True):
        _waiting = {"state": "not_applied", "reason": "FAST_LITELLM_RUST_RATE_LIMITING is false"}
        return
    _region = region
    _waiting = {"state": "armed", "reason": "LiteLLM's limiter has not been loaded yet"}
    _post_import.when_imported(LIMITER_MODULE, _apply_limiter)


def disarm() -> None:
    """Put LiteLLM back as it was."""
    global _region, _limiter, _waiting
    _post_import.forget(LIMITER_MODULE)
    if _limiter is not None:
        _left[:] = _limiter.remove()
    _region = _limiter = None
    _waiting = {"state": "not_applied", "reason": "removed"}


def status() -> dict[str, dict[str, str]]:
    """State and reason of every seam of this process, by name."""
    if _limiter is None:
        return {_RATE_LIMITING: dict(_waiting)}
    return {_RATE_LIMITING: {"state": _limiter.state, "reason": _limiter.reason}}


def breaker_open() -> bool:
    """Whether a seam has been switched off for all workers because of its errors."""
    return _limiter is not None and _limiter.open


def _apply_limiter(module: ModuleType) -> None:
    global _limiter
    from fast_litellm.integrations.litellm.limiter import LimiterSeam

    if _region is not None:
        # Loaded a second time, the module has a new class for the same seam.
        _limiter = _limiter or LimiterSeam(_region)
        _limiter.apply(module, _left)
        _left.clear()
