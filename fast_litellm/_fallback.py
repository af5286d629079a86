"""Plain Python in place of the extension: the same limiter, within one process.

There is no region here, so nothing is shared between workers and LiteLLM is left alone.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import threading
import time
from typing import Any, ClassVar, NoReturn

from fast_litellm._fallback_errors import (
    OutOfRangeError,
    PanicException,
    RegionError,
    UnavailableError,
)
from fast_litellm._fallback_monitor import Monitor, due, set_sampling, timed
from fast_litellm._fallback_pool import SimpleConnectionPool
from fast_litellm._fallback_router import AdvancedRouter, Call
from fast_litellm._fallback_tokens import TokenCounter

try:
    VERSION = importlib.metadata.version("fast-litellm")
except importlib.metadata.PackageNotFoundError:
    VERSION = "0.0.0"

_MAX_PER_MINUTE = 60_000_000
_MAX_BURST = 2**32 - 1
_YEAR_US = 365 * 86_400 * 1_000_000
_IDLE_SWEEP = 100_000
#: Series of the checks that are timed.
_CHECK = "python_rate_limiter.check_rate_limit"

__all__ = [
    "VERSION",
    "AdvancedRouter",
    "Call",
    "LimiterScripts",
    "Monitor",
    "OutOfRangeError",
    "PanicException",
    "Region",
    "RegionError",
    "SimpleConnectionPool",
    "SimpleRateLimiter",
    "TokenCounter",
    "UnavailableError",
    "default_region",
    "limiter_stats",
    "set_default_region",
    "set_sampling",
]


def _no_region(*_args: object, **_kwargs: object) -> NoReturn:
    raise RegionError("there is no shared region without fast_litellm's extension")


class Region:
    """Stands for a class that needs the extension."""

    __init__ = _no_region
    create = staticmethod(_no_region)
    open = staticmethod(_no_region)


class LimiterScripts:
    """Stands for a class that needs the extension."""

    __init__ = _no_region


class Deployments:
    """Stands for a class that needs the extension."""

    __init__ = _no_region


class Flight:
    """Stands for a class that needs the extension."""

    __init__ = _no_region


class Board:
    """Stands for a class that needs the extension."""

    __init__ = _no_region


class Leader:
    """Leadership of a job within this process, which is all there is: it leads what it asks for."""

    _terms: ClassVar[dict[str, tuple[int, float]]] = {}
    _numbers: ClassVar[dict[str, int]] = {}

    def __init__(self, job: str, *, ttl_s: float = 30.0, region: object = None) -> None:
        if not isinstance(job, str):
            raise TypeError(f"job must be a str, not {type(job).__name__}")
        if region is not None:
            _no_region()
        if not 1.0 <= ttl_s <= 31_536_000.0:
            raise OutOfRangeError(f"ttl_s={ttl_s}: use 1 to 31,536,000")
        self._job = job

    def acquire(self) -> bool:
        """Lead, or go on leading."""
        if self._job not in self._terms:
            self._numbers[self._job] = self._numbers.get(self._job, 0) + 1
            self._terms[self._job] = (self._numbers[self._job], time.monotonic())
        return True

    @property
    def leads(self) -> bool:
        """Whether this process leads now."""
        return self._job in self._terms

    @property
    def term_number(self) -> int | None:
        """Number of the leadership; None = this process does not lead."""
        return self._terms[self._job][0] if self.leads else None

    def release(self) -> bool:
        """Stop leading. False = this process did not lead."""
        return self._terms.pop(self._job, None) is not None

    def holder(self) -> tuple[int, int] | None:
        """Process id of whoever leads, and for how many seconds; None = nobody."""
        held = self._terms.get(self._job)
        return None if held is None else (os.getpid(), int(time.monotonic() - held[1]))


def default_region() -> None:
    """There is never a region."""
    return


def set_default_region(region: object) -> NoReturn:
    """Refuse: there is no region to set."""
    _no_region(region)


class _Quota:
    """Arrival times of one rate's keys, shared by all limiters of that rate, burst and name."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.arrivals: dict[str, float] = {}
        self.allowed = 0
        self.denied = 0

    def forget_idle(self, now: float) -> None:
        """Drop keys whose quota is full again; they are indistinguishable from unknown ones."""
        if len(self.arrivals) >= _IDLE_SWEEP:
            self.arrivals = {key: tat for key, tat in self.arrivals.items() if tat > now}


_quotas: dict[tuple[int, int, str], _Quota] = {}


class SimpleRateLimiter:
    """The limiter of the extension, within one process; see there."""

    def __init__(
        self,
        requests_per_minute: int = 60,
        *,
        burst: int | None = None,
        name: str = "",
        region: object = None,
    ) -> None:
        for number in (requests_per_minute, *(() if burst is None else (burst,))):
            if not isinstance(number, int):
                raise TypeError(
                    f"'{type(number).__name__}' object cannot be interpreted as an integer"
                )
        if burst is None:
            burst = max(max(requests_per_minute, 0) // 10, min(requests_per_minute, 5))
        if region is not None:
            _no_region()
        if (
            not 1 <= requests_per_minute <= _MAX_PER_MINUTE
            or not 1 <= burst <= _MAX_BURST
            or -(-60_000_000 // requests_per_minute) * burst > _YEAR_US
        ):
            raise OutOfRangeError(
                f"requests_per_minute={requests_per_minute} with burst={burst}: use a rate of 1 to "
                f"{_MAX_PER_MINUTE} and a burst of at least 1 that the rate earns within a year"
            )
        self._interval = 60 / requests_per_minute
        self._rate = requests_per_minute
        self._burst = burst
        self._quota = _quotas.setdefault((requests_per_minute, burst, name), _Quota())

    @property
    def requests_per_minute(self) -> int:
        """Requests per minute."""
        return self._rate

    @property
    def burst(self) -> int:
        """Requests that may arrive at once."""
        return self._burst

    def _ahead(self, key: str | None, now: float) -> tuple[str, float]:
        if key is None:
            key = "default"
        if not isinstance(key, str):
            raise TypeError(f"key must be a str or None, not {type(key).__name__}")
        return key, max(self._quota.arrivals.get(key, now), now)

    def check(self, key: str | None = None) -> dict[str, Any]:
        """Charge one request to `key` and explain the answer."""
        return timed(_CHECK, self._check, key) if due() else self._check(key)

    def _check(self, key: str | None) -> dict[str, Any]:
        tolerance = self._interval * self._burst
        with self._quota.lock:
            now = time.monotonic()
            key, tat = self._ahead(key, now)
            wait = tat + self._interval - (now + tolerance)
            # A microsecond of tolerance keeps rounding from refusing what is due.
            if wait > 1e-6:
                self._quota.denied += 1
                return {
                    "allowed": False,
                    "reason": "rate_limited",
                    "remaining_requests": 0,
                    "retry_after_ms": math.ceil(wait * 1000),
                }
            self._quota.forget_idle(now)
            self._quota.arrivals[key] = tat + self._interval
            self._quota.allowed += 1
            left = int((-wait + 1e-6) / self._interval)
        return {
            "allowed": True,
            "reason": "ok",
            "remaining_requests": left,
            "retry_after_ms": None,
        }

    def is_allowed(self, key: str | None = None) -> bool:
        """Charge one request to `key` and tell whether it is admitted."""
        return bool(self.check(key)["allowed"])

    def get_remaining(self, key: str | None = None) -> int:
        """Requests that `key` could make right now."""
        now = time.monotonic()
        _, tat = self._ahead(key, now)
        return int((self._interval * self._burst - (tat - now) + 1e-6) / self._interval)

    def get_stats(self) -> dict[str, int]:
        """What this rate has seen in this process."""
        quota = self._quota
        return {
            "requests_per_minute": self._rate,
            "burst": self._burst,
            "total_checks": quota.allowed + quota.denied,
            "allowed_count": quota.allowed,
            "denied_count": quota.denied,
            "active_keys": len(quota.arrivals),
        }


def limiter_stats() -> dict[str, int]:
    """Sum of all limiters of this process."""
    quotas = list(_quotas.values())
    allowed = sum(quota.allowed for quota in quotas)
    denied = sum(quota.denied for quota in quotas)
    return {
        "total_checks": allowed + denied,
        "allowed_count": allowed,
        "denied_count": denied,
        "active_keys": sum(len(quota.arrivals) for quota in quotas),
    }
