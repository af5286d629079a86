"""gigatoken, the fastest exact one there is. It keeps what it has met: pieces and their ids."""

from __future__ import annotations

from importlib.metadata import version as version_of

from benchmarks.counting.sides import Way


def version() -> str:
    """Version of the package."""
    return version_of("gigatoken")


def ways(encoding: str, vocabulary: str) -> dict[str, Way]:
    """An array of ids, which is how it counts, and a list."""
    from gigatoken import Tokenizer

    made = Tokenizer.from_tiktoken(vocabulary, encoding.removesuffix("_base"), {})
    # Without the Python around it.
    encode, encode_all = made.backend.encode, made.backend.encode_batch_list

    def ids(text: str) -> list[int]:
        found: list[int] = encode_all([text], parallel=False)[0]
        return found

    return {
        "gigatoken": Way("count", encode, True, ids),
        "gigatoken_list": Way("ids", ids, True, ids),
    }
