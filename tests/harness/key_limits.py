"""Scenarios about the limits of keys and users, and of the proxy as a whole.

They make up new keys each time, so that they can follow each other on one proxy.
"""

from __future__ import annotations

import time

from . import load
from .kills import Slots
from .kills import kill_holder as kill_a_holder
from .load import Burst
from .proxy import FakeBackend, Proxy
from .results import CONCURRENCY, SETTLE_S, Result, counted, merged, new_key, unique
from .setups import GLOBAL_PARALLEL


def rpm(proxy: Proxy, backend: FakeBackend) -> Result:
    """A key of 20 requests a minute, asked for 200."""
    backend.reset()
    return _admission(proxy, load.burst(proxy.base_url, [new_key("r20")], 200, CONCURRENCY))


def user_rpm(proxy: Proxy, backend: FakeBackend) -> Result:
    """A user of 20 requests a minute over five keys, asked for 200."""
    backend.reset()
    user = f"u{unique().upper()}"
    keys = [new_key(user, "ur20") for _ in range(5)]
    return _admission(proxy, load.burst(proxy.base_url, keys, 200, CONCURRENCY))


def tpm(proxy: Proxy, backend: FakeBackend) -> Result:
    """A key of 900 tokens a minute, asked for 200 answers of 30 tokens.

    LiteLLM reserves its estimate before the call and settles the difference after it. The estimate
    is 10 tokens of prompt and `max_tokens`, here 24 in all: 6 short of the answer, so that the
    result shows whether the difference arrives. If it never did, 37 would get through. As the
    requests in flight are not settled yet, an exact limiter lets through 30 to 32.
    """
    backend.reset()
    burst = load.burst(proxy.base_url, [new_key("t900")], 200, 8, max_tokens=14)
    return _admission(proxy, burst)


def parallel(proxy: Proxy, backend: FakeBackend) -> Result:
    """A key of 5 requests at a time, asked for 100 at once, plain and then streamed."""
    plain = _parallel(proxy, backend, stream=False)
    streamed = _parallel(proxy, backend, stream=True)
    return {
        "peak": plain["peak"],
        "after": plain["after"],
        "stream_peak": streamed["peak"],
        "stream_after": streamed["after"],
        **merged(proxy, plain["burst"], streamed["burst"]),
    }


def many_keys(proxy: Proxy, backend: FakeBackend) -> Result:
    """150 keys of 3 requests a minute each, each asked for 8 in turn."""
    backend.reset()
    keys = [new_key("r3") for _ in range(150)]
    return _admission(proxy, load.burst(proxy.base_url, keys, 8 * len(keys), CONCURRENCY))


def kill_holder(proxy: Proxy, backend: FakeBackend) -> Result:
    """A key of 5 requests at a time; a worker dies while it holds some of the 5."""
    return kill_a_holder(proxy, backend, Slots(5, new_key("p5")))


def global_parallel(proxy: Proxy, backend: FakeBackend) -> Result:
    """A proxy of so many requests at a time over all keys, asked for 100 at once by 20 keys."""
    backend.reset()
    backend.configure(latency=2.0)
    keys = [new_key() for _ in range(20)]
    burst = load.burst(proxy.base_url, keys, 100, 100)
    peak = backend.stats()["peak"]
    time.sleep(SETTLE_S)
    after = load.burst(proxy.base_url, keys, GLOBAL_PARALLEL, GLOBAL_PARALLEL)
    return {"peak": peak, "after": after.admitted, **counted(burst)}


def _admission(proxy: Proxy, burst: Burst) -> Result:
    return {"admitted": burst.admitted, **merged(proxy, burst)}


def _parallel(proxy: Proxy, backend: FakeBackend, *, stream: bool) -> Result:
    backend.reset()
    backend.configure(latency=1.0)
    key = new_key("p5")
    burst = load.burst(proxy.base_url, [key], 100, 100, stream=stream)
    peak = backend.stats()["peak"]
    time.sleep(SETTLE_S)
    after = load.burst(proxy.base_url, [key], 5, 5, stream=stream)
    return {"peak": peak, "after": after.admitted, "burst": burst}
