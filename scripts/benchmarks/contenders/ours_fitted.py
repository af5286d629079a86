"""fast_litellm with `FAST_LITELLM_SHM_KEYS` chosen for the keys that come: half as many again."""

from __future__ import annotations

from benchmarks.contenders import Limiter
from benchmarks.contenders.ours import limiter_with_room, version

__all__ = ["limiter_for", "version"]


def limiter_for(keys: int) -> Limiter:
    """A limiter of one request a minute in such a region."""
    return limiter_with_room(keys * 3 // 2)
