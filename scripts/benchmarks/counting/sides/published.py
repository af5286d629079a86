"""fast-litellm as published on the package index, in an environment of its own."""

from __future__ import annotations

from benchmarks.contenders.published import version as version
from benchmarks.counting.sides import MODELS, Way


def ways(encoding: str, vocabulary: str) -> dict[str, Way]:
    """By a model of the encoding."""
    from fast_litellm import SimpleTokenCounter

    count, model = SimpleTokenCounter().count_tokens, MODELS[encoding]
    return {"published": Way("count", lambda text: count(text, model))}
