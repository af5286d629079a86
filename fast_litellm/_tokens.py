"""Counting tokens, and what they cost, for programs of your own."""

from __future__ import annotations

from collections.abc import Iterable

from fast_litellm import _native
from fast_litellm._features import is_enabled


class SimpleTokenCounter(_native.TokenCounter):
    """Counts tokens exactly as tiktoken does, and knows what they cost.

    Args:
        model_max_tokens: tokens that an input may have where LiteLLM knows no limit of the model.

    Raises:
        OutOfRangeError (a ValueError): `model_max_tokens` is below 1.
    """

    def count_tokens_batch(
        self, texts: Iterable[str], model: str | None = None, *, threads: int | None = None
    ) -> list[int]:
        """Tokens of each text, as `count_tokens` counts them; long batches by several threads.

        Args:
            texts: a list of str.
            model: as for `count_tokens`.
            threads: at most so many. Default: one for each core. Where the feature
                `batch_token_counting` is not enabled it is one, whatever is asked for.

        Raises:
            TypeError: `texts` is a str, or has something else than str.
        """
        if not is_enabled("batch_token_counting"):
            threads = 1
        return super().count_tokens_batch(texts, model, threads=threads)

    def estimate_cost(self, input_tokens: int, output_tokens: int, model: str) -> float:
        """Price of a call in US dollars, by LiteLLM's list of prices.

        Args:
            input_tokens: tokens of the input, 0 or more.
            output_tokens: tokens of the answer, 0 or more.
            model: a name of LiteLLM's list, with or without its provider.

        Raises:
            UnknownModelError (a ValueError): the list has no such model, or it is
                not paid by the token.
            ValueError: a negative number of tokens.
        """
        from fast_litellm import _model_prices

        return _model_prices.cost_of(model, input_tokens, output_tokens)

    def get_model_limits(self, model: str) -> dict[str, int | None]:
        """Most tokens that a model takes and gives, by LiteLLM's list.

        Returns:
            `context_window` and `max_input_tokens` (tokens of an input), `max_output_tokens` and
            `max_tokens` (tokens of an answer); None = the list does not say.

        Raises:
            UnknownModelError (a ValueError): the list has no such model.
        """
        from fast_litellm import _model_prices

        return _model_prices.limits_of(model)

    def validate_input(self, text: str, model: str) -> bool:
        """Whether a text fits into a model's input.

        The limit is `context_window` of `get_model_limits`; where the list says none, or has no such
        model, `model_max_tokens`.

        Raises:
            TypeError: `text` or `model` is not a str.
        """
        from fast_litellm import _model_prices
        from fast_litellm.errors import UnknownModelError

        try:
            limit = _model_prices.limits_of(model)["context_window"]
        except UnknownModelError:
            limit = None
        return self.count_tokens(text, model) <= (limit or self.model_max_tokens)
