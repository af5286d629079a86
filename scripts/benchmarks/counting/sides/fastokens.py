"""fastokens."""

from __future__ import annotations

from importlib.metadata import version as version_of

from benchmarks.counting.sides import Way


def version() -> str:
    """Version of the package."""
    return version_of("fastokens")


def ways(encoding: str, vocabulary: str) -> dict[str, Way]:
    """An encoding object, which is how it counts, and its list."""
    from fastokens import Tokenizer

    made = Tokenizer.from_tiktoken(vocabulary, encoding=encoding, special_tokens={})
    encode = made.encode_ordinary

    def ids(text: str) -> list[int]:
        found: list[int] = encode(text).ids
        return found

    return {
        "fastokens": Way("count", encode, True, ids),
        "fastokens_list": Way("ids", ids, True, ids),
    }
