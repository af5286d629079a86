"""LiteLLM's own limiter with memory for all keys; a worker's forgets keys beyond its 200 items."""

from __future__ import annotations

from benchmarks.contenders import Limiter
from benchmarks.contenders.litellm import _limiter, version
from benchmarks.limiters import make_handler

__all__ = ["limiter_for", "version"]


def limiter_for(keys: int) -> Limiter:
    """A limiter of one request a minute that keeps up to `keys` keys."""
    return _limiter(make_handler(room=10 * keys), 1)
