"""Plain Python in place of the extension's connection pool, within one process."""

from __future__ import annotations

import itertools
import math
import os
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from fast_litellm._fallback_errors import OutOfRangeError, RegionError
from fast_litellm._fallback_router import _classify

_MOST = 65_535
_LONGEST_S = 31_536_000
#: From so many on, endpoints without connections are forgotten; the region has room for so many.
_ENDPOINTS = 512
_THRESHOLD, _REST_S, _MEMORY_S = 3, 30, 300
_SECRET_LEN, _SHOWN, _ID_SHOWN = 20, 6, 120
_LONG, _SHORT = (f"(0|[1-9a-f][0-9a-f]{{0,{more}}})" for more in (7, 3))
_ID = re.compile(rf"#{_LONG}\.{_SHORT}\.{_LONG}\.{_SHORT}", re.ASCII)
_COUNTS = ("created", "reused", "refused", "expired", "taken_over", "stale_returns")


@dataclass
class _Connection:
    generation: int
    made_s: float
    used_s: float
    use: int = 0
    idle: bool = False


@dataclass
class _Endpoint:
    shown: str
    number: int
    slots: dict[int, _Connection] = field(default_factory=dict)
    failures_in_a_row: int = 0
    failed_s: float = 0.0
    failures: int = 0
    last_failure: tuple[str, int] | None = None

    def failing(self, now: float) -> int:
        """Failures in a row that are not yet forgotten."""
        return self.failures_in_a_row if now - self.failed_s < _MEMORY_S else 0

    def is_healthy(self, now: float) -> bool:
        return self.failing(now) < _THRESHOLD or now - self.failed_s >= _REST_S


class _Shared:
    """What all pools of one name in this process have in common, used by one thread at a time.

    A finalizer or a signal handler may use it while its thread does: it reads what is there, gets no
    connection, and what it gives back is given back when the thread is done.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.depth = 0
        self.late: deque[Callable[[], None]] = deque()
        self.endpoints: dict[str, _Endpoint] = {}
        self.numbered: dict[int, _Endpoint] = {}
        self.numbers = itertools.count()
        self.room = _ENDPOINTS
        self.counts = dict.fromkeys(_COUNTS, 0)

    def __enter__(self) -> bool:
        """Whether this thread is using it already."""
        self.lock.acquire()
        self.depth += 1
        self._settle()
        return self.depth > 1

    def __exit__(self, *_: object) -> None:
        self._settle()
        self.depth -= 1
        self.lock.release()

    def do_or_leave(self, what: Callable[[], None]) -> None:
        """Do something now, or as soon as what this thread is doing is done."""
        with self as nested:
            if nested:
                self.late.append(what)
            else:
                what()

    def _settle(self) -> None:
        while self.depth == 1 and self.late:
            self.late.popleft()()

    def find(self, number: int) -> _Endpoint | None:
        return self.numbered.get(number)

    def add(self, name: str, now: float) -> _Endpoint:
        """A new endpoint; where there are many, those that say nothing any more are forgotten."""
        if len(self.endpoints) >= self.room:
            for old, endpoint in list(self.endpoints.items()):
                if not endpoint.slots and not endpoint.failing(now):
                    del self.endpoints[old], self.numbered[endpoint.number]
            # What cannot be forgotten is not looked at again for each that comes.
            self.room = max(_ENDPOINTS, 2 * len(self.endpoints))
        number = next(self.numbers) & 0xFFFFFFFF
        added = self.endpoints[name] = self.numbered[number] = _Endpoint(_redact(name), number)
        return added

    def total(self) -> int:
        return sum(len(endpoint.slots) for endpoint in self.endpoints.values())


def _from_anywhere() -> itertools.count[int]:
    return itertools.count(int.from_bytes(os.urandom(4), "big"))


_pools: dict[str, _Shared] = {}
#: Of all pools, and of each process others: an id of one ends nothing of another.
_generations = _from_anywhere()


def _forget() -> None:
    """Begin anew: a child of a fork holds nothing of what its parent does, and no lock of it."""
    global _generations
    _pools.clear()
    _generations = _from_anywhere()


os.register_at_fork(after_in_child=_forget)


def _redact(endpoint: str) -> str:
    scheme, found, rest = endpoint.partition("://")
    if not found:
        scheme, rest = "", endpoint
    rest = re.split(r"[?#;]", rest, maxsplit=1)[0].rpartition("@")[2]

    def part(text: str) -> str:
        longest = max(map(len, re.split(r"[^A-Za-z0-9_-]", text)))
        hide = (text.startswith("sk-") or longest >= _SECRET_LEN) and len(text) > _SHOWN
        return f"{text[:_SHOWN]}.." if hide else text

    shown = "/".join(".".join(map(part, segment.split("."))) for segment in rest.split("/"))
    shown = "".join(c if c.isprintable() else "?" for c in shown)
    return f"{part(scheme)}://{shown}" if found else shown


def _text(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    return value


def _limit(name: str, value: int) -> int:
    if not isinstance(value, int):
        raise TypeError(f"'{type(value).__name__}' object cannot be interpreted as an integer")
    if not 1 <= value <= _MOST:
        raise OutOfRangeError(f"{name}={value}: use 1 to 65,535")
    return value


def _seconds(name: str, value: float) -> float:
    if not 0 <= value <= _LONGEST_S:
        raise OutOfRangeError(f"{name}={value}: use 0 (without end) to 31,536,000 seconds")
    return math.ceil(value) or math.inf


class SimpleConnectionPool:
    """The pool of the extension, within one process; see there."""

    def __init__(
        self,
        pool_name: str = "default",
        *,
        max_per_endpoint: int | None = None,
        max_total: int | None = None,
        idle_timeout_s: float | None = None,
        max_age_s: float | None = None,
        region: object = None,
    ) -> None:
        if region is not None:
            raise RegionError("there is no shared region without fast_litellm's extension")
        # Its errors come from where this module is imported by.
        from fast_litellm._config import PoolSettings

        configured = PoolSettings.from_environment()

        def chosen(name: str, given: Any) -> Any:
            return getattr(configured, name) if given is None else given

        self._name = _text("pool_name", pool_name)
        self._most_each = _limit("max_per_endpoint", chosen("max_per_endpoint", max_per_endpoint))
        self._most = _limit("max_total", chosen("max_total", max_total))
        self._idle_s = _seconds("idle_timeout_s", chosen("idle_timeout_s", idle_timeout_s))
        self._age_s = _seconds("max_age_s", chosen("max_age_s", max_age_s))

    @property
    def pool_name(self) -> str:
        """Name of the pool."""
        return self._name

    @property
    def _shared(self) -> _Shared:
        found = _pools.get(self._name)
        return _pools.setdefault(self._name, _Shared()) if found is None else found

    def _is_over(self, connection: _Connection, now: float) -> bool:
        too_idle = connection.idle and now - connection.used_s > self._idle_s
        return too_idle or now - connection.made_s > self._age_s

    def _sweep(self, shared: _Shared, now: float) -> None:
        for endpoint in shared.endpoints.values():
            for slot, connection in list(endpoint.slots.items()):
                if connection.idle and self._is_over(connection, now):
                    del endpoint.slots[slot]
                    shared.counts["expired"] += 1

    def get_connection(self, endpoint: str) -> str | None:
        """Hand out a connection, or None when as many as may be are in use."""
        name, shared = _text("endpoint", endpoint), self._shared
        with shared as nested:
            if nested:
                shared.counts["refused"] += 1
                return None
            now = time.monotonic()
            self._sweep(shared, now)
            found = shared.endpoints.get(name)
            if found is None:
                found = shared.add(name, now)
            every = shared.endpoints.values()
            fits = self._fit(shared, [found], self._most_each)
            fits = fits and self._fit(shared, every, self._most)
            idle = [slot for slot, each in found.slots.items() if each.idle and fits]
            if idle:
                slot = max(idle, key=lambda slot: found.slots[slot].used_s)
                connection = found.slots[slot]
                connection.idle, connection.used_s = False, now
                shared.counts["reused"] += 1
            elif (
                not fits
                or len(found.slots) >= self._most_each
                or not self._fit(shared, every, self._most, more=1)
            ):
                shared.counts["refused"] += 1
                return None
            else:
                slot = next(n for n in range(self._most_each) if n not in found.slots)
                generation = next(_generations) & 0xFFFFFFFF
                connection = found.slots[slot] = _Connection(generation, now, now)
                shared.counts["created"] += 1
            path = (found.number, slot, connection.generation, connection.use)
        return f"{found.shown}#" + ".".join(f"{part:x}" for part in path)

    @staticmethod
    def _fit(shared: _Shared, endpoints: Iterable[_Endpoint], most: int, more: int = 0) -> bool:
        """Close idle connections, the least recently used first, until there is room for `more`.

        There may be too many where a limit was lowered. False = too many are in use: none is closed.
        """
        too_many = sum(len(endpoint.slots) for endpoint in endpoints) + more - most
        if too_many <= 0:
            return True
        idle = sorted(
            (
                (each.used_s, endpoint.number, slot, endpoint)
                for endpoint in endpoints
                for slot, each in endpoint.slots.items()
                if each.idle
            ),
            key=lambda each: each[:3],
        )
        if len(idle) < too_many + 1 - more:
            return False
        for *_, slot, endpoint in idle[:too_many]:
            del endpoint.slots[slot]
            shared.counts["taken_over"] += 1
        return True

    def _parse(self, connection_id: str) -> tuple[int, int, int, int]:
        text = _text("connection_id", connection_id)
        found = _ID.fullmatch(text, max(text.rfind("#"), 0))
        if found is None:
            raise ValueError(
                f'connection_id="{_redact(text)[:_ID_SHOWN]}" is no id: '
                "pass one as get_connection returned it"
            )
        record, slot, generation, use = (int(part, 16) for part in found.groups())
        return record, slot, generation, use

    def _find(
        self, shared: _Shared, path: tuple[int, int, int, int]
    ) -> tuple[_Endpoint, _Connection] | None:
        """Find a connection in its latest use, or after it."""
        number, slot, generation, use = path
        endpoint = shared.find(number)
        connection = endpoint.slots.get(slot) if endpoint else None
        if endpoint is None or connection is None or connection.generation != generation:
            return None
        latest = connection.use - 1 if connection.idle else connection.use
        return (endpoint, connection) if latest & 0xFFFF == use else None

    def _tell(self, endpoint: _Endpoint, failure: tuple[str, int] | None) -> None:
        now = time.monotonic()
        if failure is None:
            endpoint.failures_in_a_row = 0
            return
        endpoint.failures_in_a_row = endpoint.failing(now) + 1
        endpoint.failed_s = now
        endpoint.failures += 1
        endpoint.last_failure = failure

    def return_connection(
        self,
        connection_id: str,
        success: bool | None = None,
        error: BaseException | str | None = None,
    ) -> None:
        """Give a connection back; one that was given back before is left alone."""
        path, shared = self._parse(connection_id), self._shared
        # Before: what an error says of itself may use the pool.
        failure = _classify(None, error) if success is False else None

        def give_back() -> None:
            self._give_back(shared, path, success, failure)

        shared.do_or_leave(give_back)

    def _give_back(
        self,
        shared: _Shared,
        path: tuple[int, int, int, int],
        success: bool | None,
        failure: tuple[str, int] | None,
    ) -> None:
        found = self._find(shared, path)
        if found is None:
            shared.counts["stale_returns"] += 1
            return
        endpoint, connection = found
        if success is not None:
            self._tell(endpoint, failure)
        now = time.monotonic()
        if success is False:
            del endpoint.slots[path[1]]
        elif connection.idle:
            shared.counts["stale_returns"] += 1
        elif self._is_over(connection, now):
            del endpoint.slots[path[1]]
            shared.counts["expired"] += 1
        else:
            connection.idle, connection.used_s = True, now
            connection.use = connection.use + 1 & 0xFFFF

    def remove_connection(self, connection_id: str) -> None:
        """Take a connection out of the pool, in use or idle."""
        path, shared = self._parse(connection_id), self._shared

        def remove() -> None:
            found = self._find(shared, path)
            if found is None:
                shared.counts["stale_returns"] += 1
            else:
                del found[0].slots[path[1]]

        shared.do_or_leave(remove)

    def report(
        self, connection_id: str, success: bool, error: BaseException | str | None = None
    ) -> bool:
        """Tell how the endpoint of a connection behaved. False = the connection is gone."""
        path, shared = self._parse(connection_id), self._shared
        failure = None if success else _classify(None, error)
        with shared:
            found = self._find(shared, path)
            if found is not None:
                self._tell(found[0], failure)
        return found is not None

    def health_check(self, connection_id: str) -> bool:
        """Whether a connection is there, its time is not over, and its endpoint is healthy."""
        path, shared = self._parse(connection_id), self._shared
        with shared:
            now = time.monotonic()
            found = self._find(shared, path)
            return (
                found is not None and not self._is_over(found[1], now) and found[0].is_healthy(now)
            )

    def cleanup(self) -> None:
        """Close idle connections whose time is over."""
        shared = self._shared
        with shared as nested:
            if not nested:
                self._sweep(shared, time.monotonic())

    def get_stats(self) -> dict[str, Any]:
        """What the pool is like in this process."""
        shared = self._shared
        with shared:
            now = time.monotonic()
            endpoints: dict[str, dict[str, Any]] = {}
            times: Counter[str] = Counter()
            for endpoint in shared.endpoints.values():
                idle = sum(each.idle for each in endpoint.slots.values())
                last = endpoint.last_failure
                name = shown = endpoint.shown
                times[shown] += 1
                if times[shown] > 1:
                    name = f"{shown} ({times[shown]})"
                while name in endpoints:
                    times[shown] += 1
                    name = f"{shown} ({times[shown]})"
                endpoints[name] = {
                    "active": len(endpoint.slots) - idle,
                    "idle": idle,
                    "total": len(endpoint.slots),
                    "healthy": endpoint.is_healthy(now),
                    "failures_in_a_row": endpoint.failing(now),
                    "failures": endpoint.failures,
                    "last_failure": last
                    and {
                        "kind": last[0],
                        "status": last[1] or None,
                        "age_s": int(now - endpoint.failed_s),
                    },
                }
            idle = sum(endpoint["idle"] for endpoint in endpoints.values())
            return {
                "total_connections": shared.total(),
                "active_connections": shared.total() - idle,
                "idle_connections": idle,
                "max_total_connections": self._most,
                "max_connections_per_endpoint": self._most_each,
                "endpoints": endpoints,
                **shared.counts,
            }
