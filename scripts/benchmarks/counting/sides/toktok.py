"""toktok."""

from __future__ import annotations

from importlib.metadata import version as version_of
from typing import Any

from benchmarks.counting.sides import Way


def version() -> str:
    """Version of the package."""
    return version_of("toktok-rs")


def ways(encoding: str, vocabulary: str) -> dict[str, Way]:
    """Its count, which makes no ids, and its list."""
    from toktok import _encoding

    made = _encoding(encoding)
    return {
        "toktok": Way("count", made.count, False, made.encode_ordinary),
        "toktok_list": Way("ids", made.encode_ordinary, True, made.encode_ordinary),
    }


def batches(encoding: str) -> dict[str, Any]:
    """Its own batches."""
    from toktok import _encoding

    made = _encoding(encoding)
    return {
        "count": made.count_batch,
        "ids": lambda texts, threads: made.encode_batch(texts, threads),
    }
