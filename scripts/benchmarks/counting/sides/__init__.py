"""Who counts. Each module here is one process, and has the ways of one package.

A module has `version()` and `ways(encoding, vocabulary)`; what it does not have, it lacks or refuses with
`AbsentError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

#: What is done: a count, the ids as a list, or LiteLLM's whole `token_counter`.
OPERATIONS = ("count", "ids", "token_counter")

#: A model of each encoding, for those who are asked by model.
MODELS = {"cl100k_base": "gpt-4", "o200k_base": "gpt-4o"}


@dataclass
class Way:
    """One way to count.

    Attributes:
        operation: one of `OPERATIONS`.
        call: from a text to the count, or to something of that length.
        sized: it is the length that is wanted.
        ids: from a text to the ids; None = there are none to be had.
    """

    operation: str
    call: Callable[[str], Any]
    sized: bool = False
    ids: Callable[[str], list[int]] | None = None

    def count(self, text: str) -> int:
        """Tokens of a text."""
        answer = self.call(text)
        return len(answer) if self.sized else answer


def module_of(side: str) -> Any:
    """The module of a side."""
    return import_module(f"benchmarks.counting.sides.{side}")
