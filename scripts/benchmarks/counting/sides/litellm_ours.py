"""LiteLLM's `token_counter` with the seam applied."""

from __future__ import annotations

from benchmarks.contenders.litellm import version as version_of
from benchmarks.counting.sides import Way, ours_encoding
from benchmarks.counting.sides.litellm import token_counter


def version() -> str:
    """Version of LiteLLM."""
    ours_encoding.version()
    return version_of()


def ways(encoding: str, vocabulary: str) -> dict[str, Way]:
    """By a model of the encoding."""
    way = token_counter(encoding)
    way.call("a")
    ours_encoding.applied(encoding)
    return {"litellm_ours": way}
