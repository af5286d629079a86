"""Memory of a limiter that has seen many keys, from a fresh process each time."""

from __future__ import annotations

import tracemalloc
from typing import Any

from benchmarks.memory import resident
from benchmarks.sections import Sample, Subject, Verdict
from benchmarks.sections.rate import operation

TITLE = "Memory per unique key of a rate limiter: growth of PSS, the shared region included"
UNIT = "bytes"
CASES = ("1,000 keys", "10,000 keys", "100,000 keys", "1,000 keys 50 times, as tracemalloc sees it")
CONTENDERS = (
    "ours",
    "ours_fitted",
    "published",
    "litellm_ours",
    "litellm",
    "litellm_roomy",
    "python",
    "python_reference",
)
#: Every sample has a process of its own, and so many of them take the place of `--iterations`.
FRESH = True
SAMPLES = 3
#: Cases that not all take part in.
PART = {CASES[3]: ("ours", "published", "python", "python_reference")}

#: Keys that are asked again afterwards.
ASKED_AGAIN = 1_000


def subject(contender: Any, case: str) -> Subject:
    """A contender ready for a case."""
    keys = int(case.split()[0].replace(",", ""))
    return _Keys(contender, keys, traced="tracemalloc" in case)


def name_of(number: int) -> str:
    """A key of 48 characters."""
    return f"sk-{number:045}"


class _Keys:
    def __init__(self, contender: Any, keys: int, traced: bool) -> None:
        self._contender = contender
        self._keys = keys
        self._traced = traced
        # Everything is loaded before the first reading: what is sought is what keys cost.
        warm = contender.limiter_for(self._keys)
        operation(warm).many([f"warm-{number}" for number in range(10)])
        self._limiter: Any = None

    def sample(self, count: int) -> Sample:
        if self._traced:
            return Sample([self._trace() / self._keys])
        before = resident()
        self._limiter = self._contender.limiter_for(self._keys)
        made = resident()
        self._ask_all()
        after = resident()
        grown = after.pss - before.pss
        if self._limiter.inherits:
            grown += before.region
        notes = {
            "rss_bytes": after.rss - before.rss,
            "region_bytes": after.region - (0 if self._limiter.inherits else before.region),
            "pss_bytes": grown,
            "made_bytes": grown - (after.pss - made.pss),
        }
        return Sample([grown / self._keys], notes=notes)

    def _trace(self) -> float:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        self._limiter = self._contender.limiter_for(self._keys)
        for _ in range(50):
            self._ask_all()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        return grown

    def _ask_all(self) -> None:
        # A list of all names would be memory, too.
        operation(self._limiter).many(name_of(number) for number in range(self._keys))

    def check(self) -> Verdict:
        step = max(1, self._keys // ASKED_AGAIN)
        asked = [name_of(number) for number in range(0, self._keys, step)]
        if self._limiter.known is not None:
            known = self._limiter.known(asked)
        else:
            ask = operation(self._limiter)
            answers = (ask.many([name])[1] for name in asked)
            known = sum(not self._limiter.allowed(answer) for answer in answers)
        return Verdict(known, len(asked), "knows {value:.0f} of {right:.0f} keys again")
