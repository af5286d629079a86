"""Asking a rate limiter about a request."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

from benchmarks.contenders import ONE_KEY, Limiter
from benchmarks.sections import Sample, Subject, Verdict
from benchmarks.timing import SINGLES, Awaits, Calls, Operation, batch_size

TITLE = "Rate limit: one request checked and explained"
UNIT = "ns"
CASES = ("one key, admitted", "1,000 keys in turn, admitted", "one key, refused")
CONTENDERS = ("ours", "published", "litellm_ours", "litellm", "python", "python_reference")

#: Never reached.
PLENTY = 60_000_000
#: What the correctness is checked with.
RATE, BURST = 6, 6
KEYS = 1_000


def operation(limiter: Limiter) -> Operation:
    """How its check is called."""
    return Awaits(limiter.check) if limiter.awaited else Calls(limiter.check)


def subject(contender: Any, case: str) -> Subject:
    """A contender ready for a case."""
    if case == CASES[2]:
        return _Checks(contender, contender.limiter(1, 1), admitted=False)
    limiter = contender.limiter(PLENTY, PLENTY // 10)
    return _Checks(contender, limiter, admitted=True, keys=KEYS if case == CASES[1] else 1)


def admitted(limiter: Limiter, keys: list[str], requests: int) -> int:
    """How many of `requests` requests of each key are admitted, at once and in turn."""
    ask = operation(limiter)
    passes = (ask.many([key])[1] for _ in range(requests) for key in keys)
    return sum(bool(limiter.allowed(answer)) for answer in passes)


class _Checks:
    def __init__(self, contender: Any, limiter: Limiter, *, admitted: bool, keys: int = 1) -> None:
        self._contender = contender
        self._limiter = limiter
        self._admitted = admitted
        self._keys = keys
        self._operation = operation(limiter)
        self._sets = 0
        self._names = self._new_names()
        if not admitted:
            self._operation.many([ONE_KEY] * 50)
        self._size = batch_size(self._operation, self._next)

    def _new_names(self) -> Any:
        if self._keys == 1:
            return cycle([ONE_KEY])
        self._sets += 1
        self._used = 1
        names = [f"user-{self._sets:03}-{number:036}" for number in range(self._keys)]
        # Making room for a key is not what is timed.
        self._operation.many(names)
        return cycle(names)

    def _next(self, count: int) -> list[str]:
        if self._keys > 1:
            self._used += 1 + count // self._keys
            limit = self._limiter.uses
            if limit is not None and self._used > limit:
                self._names = self._new_names()
                self._used += 1 + count // self._keys
        return list(islice(self._names, count))

    def sample(self, count: int) -> Sample:
        means, singles, odd = [], [], 0
        for _ in range(count):
            names = self._next(self._size)
            taken, last = self._operation.many(names)
            odd += bool(self._limiter.allowed(last)) is not self._admitted
            means.append(taken / len(names))
            singles += map(float, self._operation.each(self._next(SINGLES)))
            if self._limiter.renew is not None and self._admitted:
                self._limiter.renew()
        return Sample(means, singles, odd)

    def check(self) -> Verdict:
        keys = [f"checked-{self._admitted}-{self._keys}-{number}" for number in range(self._keys)]
        limiter = self._contender.limiter(RATE, BURST)
        right = limiter.burst * self._keys
        asked = 2 * limiter.burst if self._keys > 1 else 100
        # More than the burst that any contender has of its own.
        asked = max(asked, 30)
        value = admitted(limiter, keys, asked)
        says = f"admits {{value:.0f}} of {asked * self._keys}, right is {{right:.0f}}"
        return Verdict(value, right, says)
