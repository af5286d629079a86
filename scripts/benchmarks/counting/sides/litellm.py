"""LiteLLM's `token_counter`, in a process that never saw fast_litellm."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders.litellm import version as version
from benchmarks.counting.sides import MODELS, Way


def ways(encoding: str, vocabulary: str) -> dict[str, Way]:
    """By a model of the encoding."""
    return {"litellm": token_counter(encoding)}


def token_counter(encoding: str) -> Way:
    """LiteLLM's function; it cuts longer texts into pieces, which changes the count a little."""
    import litellm

    count: Any = litellm.token_counter
    model = MODELS[encoding]
    return Way("token_counter", lambda text: count(model=model, text=text))
