"""Taking a connection and giving it back."""

from __future__ import annotations

import threading
from itertools import cycle, islice
from typing import Any

from benchmarks.contenders import Pool
from benchmarks.sections import Sample, Subject, Verdict
from benchmarks.timing import SINGLES, Turns, batch_size, clock

TITLE = "Connection pool: one connection taken and given back"
UNIT = "ns"
CASES = ("1 endpoint", "10 endpoints", "8 threads, 10 endpoints")
CONTENDERS = ("ours", "published", "litellm", "python", "python_reference")

LIMIT = 10
THREADS = 8
TURNS = 50


def endpoints(count: int, kind: str) -> list[str]:
    """Names of endpoints."""
    return [f"https://{kind}-{number}.example.com/v1" for number in range(count)]


def subject(contender: Any, case: str) -> Subject:
    """A contender ready for a case."""
    pool = contender.pool(LIMIT)
    if case == CASES[2]:
        return _Threads(pool)
    return _OneThread(pool, endpoints(1 if case == CASES[0] else 10, "pool"))


def burst(pool: Pool, endpoint: str, count: int) -> list[Any]:
    """Take `count` connections and give none back."""
    taken = [pool.take(endpoint) for _ in range(count)]
    return [connection for connection in taken if connection is not None]


def verdict(pool: Pool, out: int, asked: int) -> Verdict:
    """What was given out, beside the limit."""
    if pool.limit is None:
        return Verdict(None, None, "hands everybody the same client; no limit here")
    return Verdict(out, pool.limit, f"{{value:.0f}} of {asked} at once, limit {{right:.0f}}")


class _OneThread:
    def __init__(self, pool: Pool, names: list[str]) -> None:
        self._pool = pool
        self._turns = Turns(pool.take, pool.give)
        self._names = cycle(names)
        self._size = batch_size(self._turns, self._next)

    def _next(self, count: int) -> list[str]:
        return list(islice(self._names, count))

    def sample(self, count: int) -> Sample:
        means, singles, odd = [], [], 0
        for _ in range(count):
            names = self._next(self._size)
            taken, last = self._turns.many(names)
            odd += last is None
            means.append(taken / len(names))
            singles += map(float, self._turns.each(self._next(SINGLES)))
        return Sample(means, singles, odd)

    def check(self) -> Verdict:
        asked = 5 * LIMIT
        taken = burst(self._pool, endpoints(1, "full")[0], asked)
        for connection in taken:
            self._pool.give(connection)
        return verdict(self._pool, len(taken), asked)


class _Threads:
    """Threads that take turns at the same endpoints, all at once; the time is that of all together."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.sample(5)

    def _together(self, work: Any) -> float:
        gate = threading.Barrier(THREADS + 1)
        ends: list[int] = []

        def run(number: int) -> None:
            gate.wait()
            work(number)
            ends.append(clock())

        threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        gate.wait()
        start = clock()
        for thread in threads:
            thread.join()
        return max(ends) - start

    def sample(self, count: int) -> Sample:
        names = endpoints(10, "threads")
        turns = Turns(self._pool.take, self._pool.give)
        lasts: list[Any] = []

        def work(number: int) -> None:
            own = [names[(number + turn) % len(names)] for turn in range(TURNS)]
            lasts.append(turns.many(own)[1])

        means = [self._together(work) / (THREADS * TURNS) for _ in range(count)]
        return Sample(means, odd=sum(last is None for last in lasts))

    def check(self) -> Verdict:
        name = endpoints(1, "full-threads")[0]
        taken: list[Any] = []
        self._together(lambda number: taken.extend(burst(self._pool, name, 5)))
        for connection in taken:
            self._pool.give(connection)
        return verdict(self._pool, len(taken), 5 * THREADS)
