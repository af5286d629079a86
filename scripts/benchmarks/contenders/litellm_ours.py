"""LiteLLM's limiter with fast_litellm's seams: what a worker runs that imports it."""

from __future__ import annotations

import os

from benchmarks.contenders import Limiter
from benchmarks.contenders.litellm import _limiter
from benchmarks.contenders.litellm import version as litellm_version
from benchmarks.contenders.ours import ROOM
from benchmarks.limiters import accelerate, make_handler


def version() -> str:
    """Version of LiteLLM."""
    import fast_litellm  # noqa: F401  # before LiteLLM, as documented

    return litellm_version()


def limiter(per_minute: int, burst: int) -> Limiter:
    """The proxy's limiter, counting in the region."""
    accelerate()
    return _limiter(make_handler(), per_minute)


def limiter_for(keys: int) -> Limiter:
    """The same, in a region with room for `keys`."""
    os.environ["FAST_LITELLM_SHM_KEYS"] = str(ROOM if keys <= ROOM // 4 else keys * 3)
    accelerate()
    made = _limiter(make_handler(), 1)
    made.inherits = True
    return made
