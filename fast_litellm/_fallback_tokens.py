"""Plain Python in place of the extension's token counter: tiktoken's own, where it is installed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from fast_litellm._fallback_errors import OutOfRangeError, UnavailableError


@lru_cache(maxsize=64)
def _encoding(model: str | None) -> Any:
    try:
        import tiktoken
    except ImportError as error:
        raise UnavailableError(
            "tokens cannot be counted without fast_litellm's extension: install a wheel for this "
            "platform, or the package tiktoken"
        ) from error
    for name in (model, model and model.rpartition("/")[2]):
        if name:
            try:
                return tiktoken.encoding_for_model(name)
            except KeyError:
                continue
    return tiktoken.get_encoding("cl100k_base")


class TokenCounter:
    """The counter of the extension, by tiktoken; see there."""

    def __init__(self, model_max_tokens: int = 4_096) -> None:
        if not isinstance(model_max_tokens, int):
            kind = type(model_max_tokens).__name__
            raise TypeError(f"'{kind}' object cannot be interpreted as an integer")
        if model_max_tokens < 1:
            raise OutOfRangeError(f"model_max_tokens={model_max_tokens}: use at least 1")
        self._model_max_tokens = model_max_tokens

    @property
    def model_max_tokens(self) -> int:
        """Tokens that an input may have where nothing is known of the model."""
        return self._model_max_tokens

    def count_tokens(self, text: str, model: str | None = None) -> int:
        """Tokens of a text."""
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, not {type(text).__name__}")
        return len(_encoding(model).encode_ordinary(text))

    def count_tokens_batch(
        self, texts: Iterable[str], model: str | None = None, *, threads: int | None = None
    ) -> list[int]:
        """Tokens of each text."""
        if isinstance(texts, str):
            raise TypeError("texts must be a list of str, not a str")
        return [self.count_tokens(text, model) for text in texts]
