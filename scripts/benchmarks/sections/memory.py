"""Memory of a limiter that has seen many keys, from a fresh process each time."""

from __future__ import annotations

import multiprocessing
import tracemalloc
from typing import Any

from benchmarks.memory import resident
from benchmarks.sections import Sample, Subject, Verdict
from benchmarks.sections.processes import PROCESSES, forked
from benchmarks.sections.rate import operation

TITLE = "Memory per unique key of a rate limiter: growth of PSS, the shared region included"
UNIT = "bytes"
TOGETHER = "10,000 keys, in each of 4 processes"
TRACED = "1,000 keys 50 times, as tracemalloc sees it"
CASES = ("1,000 keys", "10,000 keys", "100,000 keys", TOGETHER, TRACED)
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
#: Those that take long to start, and have one.
ONCE = ("litellm_ours", "litellm", "litellm_roomy")
#: Cases that not all take part in: a fork of LiteLLM copies more of LiteLLM than keys need.
PART = {
    TOGETHER: ("ours", "ours_fitted", "published", "python", "python_reference"),
    TRACED: ("ours", "published", "python", "python_reference"),
}

#: Keys that are asked again afterwards.
ASKED_AGAIN = 1_000


def subject(contender: Any, case: str) -> Subject:
    """A contender ready for a case."""
    keys = int(case.split()[0].replace(",", ""))
    kind = {TOGETHER: _Together, TRACED: _Traced}.get(case, _Keys)
    return kind(contender, keys)


def name_of(number: int) -> str:
    """A key of 48 characters."""
    return f"sk-{number:045}"


class _Keys:
    def __init__(self, contender: Any, keys: int) -> None:
        self._contender = contender
        self._keys = keys
        # Everything is loaded before the first reading: what is sought is what keys cost.
        warm = contender.limiter_for(self._keys)
        operation(warm).many([f"warm-{number}" for number in range(10)])
        self._limiter: Any = None

    def _ask_all(self) -> None:
        # A list of all names would be memory, too.
        operation(self._limiter).many(name_of(number) for number in range(self._keys))

    def _ask(self) -> int:
        """Ask about all keys; returns the growth that this process does not see of itself, in bytes."""
        self._ask_all()
        return 0

    def sample(self, count: int) -> Sample:
        before = resident()
        self._limiter = self._contender.limiter_for(self._keys)
        made = resident()
        others = self._ask()
        after = resident()
        inherited = before.region if self._limiter.inherits else 0
        made_bytes = made.pss - before.pss + inherited
        grown = after.pss - before.pss + inherited + others
        notes = {
            "rss_bytes": after.rss - before.rss + inherited,
            "region_bytes": after.region - before.region + inherited,
            "made_bytes": made_bytes,
            "pss_bytes": grown,
        }
        return Sample([grown / self._keys], notes=notes)

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


class _Together(_Keys):
    """Forked processes that all see all keys; the limiter was made before them."""

    def _ask(self) -> int:
        barrier = multiprocessing.get_context("fork").Barrier(PROCESSES)

        def work() -> int:
            before = resident()
            self._ask_all()
            # Everybody's pages have to be there while they are shared out.
            barrier.wait()
            grown = resident().pss - before.pss
            barrier.wait()
            return grown

        return sum(forked(work)[1])

    def sample(self, count: int) -> Sample:
        sample = super().sample(count)
        # Not of this process: it has touched next to nothing.
        del sample.notes["region_bytes"], sample.notes["rss_bytes"]
        return sample

    def check(self) -> Verdict:
        verdict = super().check()
        verdict.says = "another process " + verdict.says
        return verdict


class _Traced(_Keys):
    """What Python itself has allocated, which is how the reference's figure was found."""

    def sample(self, count: int) -> Sample:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        self._limiter = self._contender.limiter_for(self._keys)
        for _ in range(50):
            self._ask_all()
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        return Sample([grown / self._keys])
