"""Timing fast_litellm's own operations in Python code: now and then, and never in their way."""

from __future__ import annotations

import time

from fast_litellm import _native
from fast_litellm._log import logger


class Timing:
    """Times operations that share a region.

    Args:
        region: what they are measured in.
    """

    def __init__(self, region: _native.Region) -> None:
        self._monitor = _native.Monitor(region)
        #: Numbers of series by name; None = there is no room.
        self._series: dict[str, int | None] = {}

    def begin(self) -> int:
        """When an operation begins (`time.perf_counter_ns`); 0 = this one is not timed."""
        try:
            return time.perf_counter_ns() if self._monitor.due() else 0
        except _native.FAULTS as error:  # the operation is to be done, measured or not
            logger().debug("an operation is not measured: %s", error)
            return 0

    def end(self, began: int, name: str, failed: bool = False) -> None:
        """Record an operation that has ended; nothing if it was not timed.

        Args:
            began: what `begin` returned.
            name: `component.operation`, one of a few.
            failed: whether it is to be counted as failed.
        """
        if not began:
            return
        ns = time.perf_counter_ns() - began
        try:
            if name not in self._series:
                self._series[name] = self._monitor.series(name)
            series = self._series[name]
            if series is not None:
                self._monitor.record(series, ns, failed)
        except _native.FAULTS as error:  # the operation itself is done
            logger().debug("%s was not measured: %s", name, error)
