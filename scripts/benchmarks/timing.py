"""Times of one operation: the mean of many in a row, and single ones for the tail."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

clock = time.perf_counter_ns

#: How long a batch should take, nanoseconds.
BATCH_NS = 500_000
MAX_BATCH = 1_000
#: Single operations of a sample.
SINGLES = 20


class Operation(Protocol):
    """Something to time."""

    def many(self, arguments: Iterable[Any]) -> tuple[int, Any]:
        """Nanoseconds of one operation for each argument, and the last answer."""

    def each(self, arguments: Iterable[Any]) -> list[int]:
        """Nanoseconds of each operation, the clock's own included."""


class Calls:
    """Calls of a function with one argument. The loop is part of the time: about 10 ns."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def many(self, arguments: Iterable[Any]) -> tuple[int, Any]:
        """See `Operation`."""
        function, answer = self._function, None
        start = clock()
        for argument in arguments:
            answer = function(argument)
        return clock() - start, answer

    def each(self, arguments: Iterable[Any]) -> list[int]:
        """See `Operation`."""
        function, times = self._function, []
        for argument in arguments:
            start = clock()
            function(argument)
            times.append(clock() - start)
        return times


class Turns:
    """A thing taken and given back."""

    def __init__(self, take: Callable[[Any], Any], give: Callable[[Any], object]) -> None:
        self._take = take
        self._give = give

    def many(self, arguments: Iterable[Any]) -> tuple[int, Any]:
        """See `Operation`."""
        take, give, taken = self._take, self._give, None
        start = clock()
        for argument in arguments:
            taken = take(argument)
            give(taken)
        return clock() - start, taken

    def each(self, arguments: Iterable[Any]) -> list[int]:
        """See `Operation`."""
        take, give, times = self._take, self._give, []
        for argument in arguments:
            start = clock()
            give(take(argument))
            times.append(clock() - start)
        return times


class Awaits:
    """Awaited calls of a coroutine function, in one event loop that goes on between them."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self._loop = asyncio.new_event_loop()

    def many(self, arguments: Iterable[Any]) -> tuple[int, Any]:
        """See `Operation`."""

        async def run() -> tuple[int, Any]:
            function, answer = self._function, None
            start = clock()
            for argument in arguments:
                answer = await function(argument)
            return clock() - start, answer

        return self._loop.run_until_complete(run())

    def each(self, arguments: Iterable[Any]) -> list[int]:
        """See `Operation`."""

        async def run() -> list[int]:
            function, times = self._function, []
            for argument in arguments:
                start = clock()
                await function(argument)
                times.append(clock() - start)
            return times

        return self._loop.run_until_complete(run())


def batch_size(operation: Operation, arguments: Callable[[int], Sequence[Any]]) -> int:
    """How many operations take about `BATCH_NS`, once they are warm."""
    size = 1
    while True:
        # The first ones load and allocate; the quickest of some is what the others will be like.
        taken = max(1, min(operation.many(arguments(size))[0] for _ in range(5)))
        if taken >= BATCH_NS // 4 or size >= MAX_BATCH:
            return max(1, min(MAX_BATCH, size * BATCH_NS // taken))
        size = min(size * 4, MAX_BATCH)


def clock_cost() -> float:
    """Nanoseconds between two readings of the clock with nothing in between."""
    times = []
    for _ in range(2_000):
        start = clock()
        times.append(clock() - start)
    return statistics.median(times)
