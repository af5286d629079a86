"""LiteLLM: where its limiter would use Redis, it finds the region instead.

Each seam has a probe, is applied or left untouched as a whole, tells why, and can be undone.
"""

from __future__ import annotations

from fast_litellm import _native
from fast_litellm.integrations.litellm.limiter import LimiterSeam

_seams: dict[str, LimiterSeam] = {}


def arm(region: _native.Region) -> None:
    """Apply every seam when LiteLLM's module for it is loaded. Idempotent."""
    for seam in (LimiterSeam(region),):
        if seam.name not in _seams:
            _seams[seam.name] = seam
            seam.arm()


def disarm() -> None:
    """Put LiteLLM back as it was."""
    while _seams:
        _, seam = _seams.popitem()
        seam.disarm()


def status() -> dict[str, dict[str, str]]:
    """State and reason of every seam of this process, by name."""
    return {name: {"state": seam.state, "reason": seam.reason} for name, seam in _seams.items()}


def breaker_open() -> bool:
    """Whether a seam has been switched off for all workers because of its errors."""
    return any(seam.open for seam in _seams.values())
