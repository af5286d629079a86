"""Measurements in plain Python, within one process; the extension's are over all workers."""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from fast_litellm._histogram import BUCKETS, bucket_of

_MAX_SERIES = 64

T = TypeVar("T")


class _Series:
    __slots__ = ("counts", "errors", "input_bytes", "max_ns", "name", "output_bytes", "sum_ns")

    def __init__(self, name: str) -> None:
        self.name = name
        self.errors = self.sum_ns = self.max_ns = self.input_bytes = self.output_bytes = 0
        self.counts = [0] * BUCKETS


class Monitor:
    """The measurements of this process."""

    def __init__(self, region: object = None) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._series: list[_Series] = []

    def unlock(self) -> None:
        """Start with a lock of one's own: a thread that held it when its process forked is not here."""
        self._lock = threading.Lock()

    def series(self, name: str) -> int | None:
        """Number of the series of that name; None = there is no room for another."""
        with self._lock:
            number = self._numbers.get(name)
            if number is None and len(self._series) < _MAX_SERIES:
                number = self._numbers[name] = len(self._series)
                self._series.append(_Series(name))
            return number

    def record(
        self,
        series: int,
        ns: int,
        failed: bool = False,
        input_bytes: int = 0,
        output_bytes: int = 0,
    ) -> None:
        """Add a duration to a series."""
        found = self._series[series]
        with self._lock:
            found.counts[bucket_of(ns)] += 1
            found.sum_ns += ns
            found.max_ns = max(found.max_ns, ns)
            found.errors += failed
            found.input_bytes += input_bytes
            found.output_bytes += output_bytes

    @staticmethod
    def due() -> bool:
        """Whether the caller's operation is to be timed; see `set_sampling`."""
        return due()

    def snapshot(self) -> list[tuple[str, int, int, int, int, int, list[int]]]:
        """All series."""
        with self._lock:
            return [
                (
                    each.name,
                    each.errors,
                    each.sum_ns,
                    each.max_ns,
                    each.input_bytes,
                    each.output_bytes,
                    list(each.counts),
                )
                for each in self._series
            ]

    def overview(self) -> str:
        """What is known of a region, as a JSON text: there is none."""
        return json.dumps({})


_process_monitor = Monitor()
os.register_at_fork(after_in_child=_process_monitor.unlock)

#: One in how many operations is timed, 0 = none; None = the environment has not been asked.
_one_in: int | None = None
#: Operations until the next that is timed.
_left = 0


def process_monitor() -> Monitor:
    """The one of this process."""
    return _process_monitor


def set_sampling(one_in: int) -> None:
    """Time one in `one_in` operations; 0 = none."""
    global _one_in, _left
    _one_in, _left = one_in, 0


def due() -> bool:
    """Whether the caller's operation is to be timed: the first, and then one in so many."""
    global _left
    # Threads may lose a step here, which does not matter.
    left = _left
    if left > 0:
        _left = left - 1
        return False
    return _draw()


def _draw() -> bool:
    """Draw the distance to the next operation that is timed, so that no rhythm of the callers' is met."""
    global _one_in, _left
    if _one_in is None:
        _one_in = _configured()
    _left = random.randrange(2 * _one_in - 1) if _one_in else 2**32
    return _one_in > 0


def _configured() -> int:
    # Not above: where the extension is missing, the settings' errors come from this package's fallback.
    from fast_litellm._config import performance_sampling
    from fast_litellm._log import logger
    from fast_litellm.errors import ConfigError

    try:
        return performance_sampling()
    except ConfigError as error:
        logger().error("nothing is timed: %s", error)
        return 0


def timed(name: str, operation: Callable[[str | None], T], argument: str | None) -> T:
    """Do something, and add the time that it took to a series of this process's."""
    began, failed = time.perf_counter_ns(), True
    try:
        done = operation(argument)
        failed = False
        return done
    finally:
        series = _process_monitor.series(name)
        if series is not None:
            _process_monitor.record(series, time.perf_counter_ns() - began, failed)
