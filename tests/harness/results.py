"""What scenarios report, and how they come by it.

Every result has `unexpected`, the replies that a scenario does not provoke, and `within_window`: a burst
that outlasts the window of its limit is let through more often than the limit says, and its numbers mean
nothing.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import Any

from .load import Burst
from .proxy import Proxy

Result = dict[str, Any]

CONCURRENCY = 20
"""Enough to keep several workers busy at once, and no more than the machine can serve."""

SETTLE_S = 1.0
"""LiteLLM gives slots back, and notes how a call went, in callbacks that may run after the answer."""

MINUTE_S = 60.0


def unique() -> str:
    """A name that nobody has had yet."""
    return uuid.uuid4().hex[:12]


def new_key(*limits: str) -> str:
    """A key with the limits that its parts say, see `proxy.AUTH_MODULE`."""
    return "-".join(("sk", *limits, unique()))


def merged(proxy: Proxy, *bursts: Burst) -> Result:
    """What all results have, of bursts against limits with a window of their own."""
    return {
        **counted(*bursts),
        "within_window": max(burst.elapsed_s for burst in bursts) < proxy.window_seconds,
    }


def counted(*bursts: Burst) -> Result:
    """What all results have, of bursts against something that has no window."""
    return {
        "statuses": dict(sum((burst.statuses for burst in bursts), Counter[int]())),
        "unexpected": [reply for burst in bursts for reply in burst.unexpected],
        "elapsed_s": round(sum(burst.elapsed_s for burst in bursts), 2),
        "within_window": True,
    }


def minute() -> int:
    """The calendar minute."""
    return int(time.time() // MINUTE_S)


def wait_for_minute(seconds: float) -> int:
    """Wait until so many seconds of a calendar minute are left; returns which minute it is."""
    left = MINUTE_S - time.time() % MINUTE_S
    if left < seconds:
        time.sleep(left + 0.1)
    return minute()
