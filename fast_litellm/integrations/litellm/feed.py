"""Tells the region about every call to a deployment: when it begins, and how it ended.

LiteLLM calls its loggers before a provider is asked and after it has answered or failed. What is counted
here is what all workers see of a deployment: calls in flight, latency, time to the first token, results.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from fast_litellm import _native
from fast_litellm._native import FAULTS
from fast_litellm._timing import Timing
from fast_litellm.integrations.litellm import _compat
from fast_litellm.integrations.litellm.seam import Breaker

#: After so many seconds a call whose end was never told is no longer counted.
_FORGOTTEN_S = 3_600.0
#: Deployments remembered to have been introduced.
_MAX_INTRODUCED = 10_000


class _Call:
    """A call in flight."""

    __slots__ = ("began_at", "flight", "owner")

    def __init__(self, flight: _native.Flight) -> None:
        self.began_at = time.monotonic()
        self.flight = flight
        self.owner: weakref.ref[Any] | None = None

    def end(self) -> None:
        """Count it no more."""
        # Its callback knows this call.
        self.owner = None
        self.flight.end()


class Feed:
    """Counts calls by deployment. Its methods are called by a logger of LiteLLM's and never raise.

    Args:
        deployments: where.
        breaker: the feature's.
        covers: whether calls to a deployment are counted.
        timing: what measures its own operations.
    """

    def __init__(
        self,
        deployments: _native.Deployments,
        breaker: Breaker,
        covers: Callable[[str], bool],
        timing: Timing,
    ) -> None:
        self.active = True
        self._timing = timing
        self._covers = covers
        self._deployments = deployments
        self._breaker = breaker
        #: Deployments whose group inspectors are told.
        self._introduced: set[str] = set()
        #: By call and deployment, oldest first.
        self._calls: dict[tuple[str, str], list[_Call]] = {}

    def began(self, call: dict[str, Any], owner: Any = None) -> None:
        """Count a call as in flight: until its end is told, or until `owner` is gone.

        Of a call that is cancelled, or whose answer nobody reads to its end, no end is told.
        """
        began = self._timing.begin()
        try:
            key = _compat.call_and_deployment(call)
            if key is None or not self.active or self._breaker.open or not self._covers(key[1]):
                return
            self._forget_old()
            if key[1] not in self._introduced:
                self._introduce(key[1], _compat.group_of(call))
            begun = _Call(self._deployments.depart(key[1]))
            self._calls.setdefault(key, []).append(begun)
            if owner is not None:
                begun.owner = weakref.ref(owner, functools.partial(self._lost, key, begun))
            self._timing.end(began, "rust_router.begin_call")
            self._breaker.succeeded()
        except FAULTS as error:  # counted; the call goes on
            self._timing.end(began, "rust_router.begin_call", failed=True)
            self._breaker.failed("begin of a call", error)

    def succeeded(self, call: dict[str, Any], start: Any, end: Any) -> None:
        """Count the success of a call that is in flight."""
        began = self._timing.begin()
        try:
            key = _compat.call_and_deployment(call)
            if key is None or not self._ended(key):
                return
            first_token = _compat.first_token_at(call)
            self._deployments.succeeded(
                key[1],
                latency_s=_seconds(start, end),
                first_token_s=None if first_token is None else _seconds(start, first_token),
            )
            self._timing.end(began, "rust_router.end_call")
        except FAULTS as error:  # counted; the call is over
            self._timing.end(began, "rust_router.end_call", failed=True)
            self._breaker.failed("end of a call", error)

    def failed(self, call: dict[str, Any]) -> None:
        """Count the failure of a call that is in flight."""
        began = self._timing.begin()
        try:
            key = _compat.call_and_deployment(call)
            if key is None or not self._ended(key):
                return
            status, kind = _compat.failure_of(call)
            self._deployments.failed(key[1], status=status, kind=kind)
            self._timing.end(began, "rust_router.end_call")
        except FAULTS as error:  # counted; the call is over
            self._timing.end(began, "rust_router.end_call", failed=True)
            self._breaker.failed("end of a call", error)

    def stop(self) -> None:
        """Count nothing any more; calls in flight are not counted either."""
        self.active = False
        self._calls.clear()

    def _ended(self, key: tuple[str, str]) -> bool:
        """End a call's flight; False = it was never counted, or has ended: loggers may be told twice."""
        calls = self._calls.get(key)
        try:
            begun = calls.pop(0) if calls else None
        except IndexError:
            # The garbage collector came between, and has ended it.
            begun = None
        if not calls:
            self._calls.pop(key, None)
        if begun is None:
            return False
        begun.end()
        return True

    def _introduce(self, deployment: str, group: str) -> None:
        """Have inspectors show the deployment's group: an id may be a hash that says nothing."""
        if len(self._introduced) >= _MAX_INTRODUCED:
            self._introduced.clear()
        self._introduced.add(deployment)
        if group:
            self._deployments.introduce(deployment, f"{group}:{deployment}")

    def _lost(self, key: tuple[str, str], begun: _Call, _owner: object) -> None:
        """End a call whose end nobody will tell. Called by the garbage collector, anywhere."""
        calls = self._calls.get(key)
        try:
            if calls is not None:
                calls.remove(begun)
        except ValueError:
            return
        if not calls:
            self._calls.pop(key, None)
        begun.end()

    def _forget_old(self) -> None:
        """Give back the flights of calls whose end was not told."""
        oldest_allowed = time.monotonic() - _FORGOTTEN_S
        while self._calls:
            try:
                key = next(iter(self._calls))
            except (RuntimeError, StopIteration):
                # Another thread has changed it; the next call will do.
                return
            calls = self._calls.get(key)
            if not calls or calls[0].began_at > oldest_allowed:
                return
            for begun in self._calls.pop(key, ()):
                begun.end()


def _seconds(start: Any, end: Any) -> float | None:
    if isinstance(start, datetime) and isinstance(end, datetime):
        elapsed: Any = end - start
    elif isinstance(start, (int, float)) and isinstance(end, (int, float)):
        elapsed = end - start
    else:
        return None
    seconds = elapsed.total_seconds() if isinstance(elapsed, timedelta) else float(elapsed)
    return max(0.0, seconds)
