"""Counting the tokens of a text."""

from __future__ import annotations

import random
from typing import Any

from benchmarks.sections import Sample, Subject, Verdict
from benchmarks.timing import BATCH_NS, SINGLES, Calls, batch_size

TITLE = "Token counting: one text, for gpt-4"
UNIT = "ns"
LENGTHS = (20, 200, 2_000, 20_000, 200_000)
CASES = tuple(f"{length:,} characters" for length in LENGTHS)
CONTENDERS = ("ours", "published", "litellm", "python")
#: Whose count is right.
JUDGE = "python"

_SOURCE = """
the of and to in is that for it as was with be by on not he his but at are this have from language model
tokens throughput deployment information understanding responsibility Rust Python HTTP JSON it's 42 1,000
3.14 (see) "quoted" naïve Übung e-mail end.
"""
_WORDS = _SOURCE.split()


def text_of(length: int) -> str:
    """So many characters of words that look like a text; the same each time."""
    draw = random.Random(length)
    words: list[str] = []
    size = 0
    while size < length:
        words.append(draw.choice(_WORDS))
        size += len(words[-1]) + 1
    return " ".join(words)[:length]


def subject(contender: Any, case: str) -> Subject:
    """A contender ready for a case."""
    return _Counts(contender.counter(), text_of(int(case.split()[0].replace(",", ""))))


class _Counts:
    def __init__(self, count: Any, text: str) -> None:
        self._count = count
        self._text = text
        self._calls = Calls(count)
        # The first call loads the encoding.
        count(text)
        self._size = batch_size(self._calls, lambda size: [text] * size)

    def sample(self, count: int) -> Sample:
        means, singles = [], []
        for _ in range(count):
            taken, _ = self._calls.many([self._text] * self._size)
            means.append(taken / self._size)
            few = min(SINGLES, max(1, int(BATCH_NS / means[-1])))
            singles += map(float, self._calls.each([self._text] * few))
        return Sample(means, singles)

    def check(self) -> Verdict:
        return Verdict(self._count(self._text), None, "{value:.0f} tokens, right is {right:.0f}")
