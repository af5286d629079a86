"""LiteLLM's `token_counter` with the seam applied."""

from __future__ import annotations

import os

from benchmarks.contenders import AbsentError
from benchmarks.contenders.litellm import version as version_of
from benchmarks.counting.sides import Way
from benchmarks.counting.sides.litellm import token_counter


def version() -> str:
    """Version of LiteLLM."""
    import fast_litellm

    os.environ["FAST_LITELLM_ENABLED"] = "true"
    fast_litellm.apply_acceleration()
    return version_of()


def ways(encoding: str, vocabulary: str) -> dict[str, Way]:
    """By a model of the encoding."""
    import tiktoken

    from fast_litellm import _rust

    way = token_counter(encoding)
    way.call("a")
    core = tiktoken.get_encoding(encoding)._core_bpe
    if not isinstance(core, getattr(_rust, "CoreBPE", ())):
        raise AbsentError(f"the seam is not applied: LiteLLM counts with {type(core).__module__}")
    return {"litellm_ours": way}
