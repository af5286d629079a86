"""tiktoken, as it comes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version as version_of
from typing import Any

from benchmarks.counting.sides import Way


def version() -> str:
    """Version of the package."""
    import tiktoken  # noqa: F401  # it has to load

    return version_of("tiktoken")


def ways(encoding: str, vocabulary: str) -> dict[str, Way]:
    """As programs count with it, and as LiteLLM calls it."""
    import tiktoken

    made = tiktoken.get_encoding(encoding)
    return {
        "tiktoken": Way("count", made.encode_ordinary, True, made.encode_ordinary),
        "tiktoken_encode": as_litellm(made.encode),
    }


def as_litellm(encode: Callable[..., list[int]]) -> Way:
    """The ids as LiteLLM asks for them: special tokens are text like any other."""

    def ids(text: str) -> list[int]:
        return encode(text, disallowed_special=())

    return Way("ids", ids, True, ids)


def batches(encoding: str) -> dict[str, Any]:
    """Its own batch, which has ids only; a count is their number."""
    import tiktoken

    encode = tiktoken.get_encoding(encoding).encode_ordinary_batch

    def ids(texts: list[str], threads: int) -> list[list[int]]:
        return encode(texts, num_threads=threads)

    return {"count": lambda texts, threads: list(map(len, ids(texts, threads))), "ids": ids}
