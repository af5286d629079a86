"""A small application, WSGI and ASGI, that uses every kind of limit and says what it was told.

Its limits come from LIFE_SLOTS, LIFE_RATE and LIFE_BURST. LIFE_SABOTAGE makes it break one of them, so
that those who judge it can be judged. It runs from the directory that it was copied to.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import time
from urllib.parse import parse_qsl

# An application that has much else to import first.
time.sleep(float(os.environ.get("LIFE_IMPORTS_S", "0")))
while not os.path.exists(os.environ.get("LIFE_IMPORTS_AFTER", "/")):
    time.sleep(0.005)

import fast_litellm  # noqa: E402
from fast_litellm import SimpleConnectionPool, SimpleRateLimiter  # noqa: E402
from fast_litellm._native import LimiterScripts, Region, default_region  # noqa: E402

SABOTAGE = os.environ.get("LIFE_SABOTAGE", "")
SLOTS = int(os.environ["LIFE_SLOTS"]) + (SABOTAGE == "one slot more")
WINDOW_S = SLOT_TTL_S = 3_600
#: How long a request waits to be let go, at most.
HELD_S = 30.0

_region = default_region()
if _region is None:
    raise RuntimeError(f"there is no region: {fast_litellm.get_patch_status()['reason']}")
if SABOTAGE == "a region each":
    _region = Region.create("apart", keys=1024, lease_chunks=64)
_limiter = SimpleRateLimiter(
    int(os.environ["LIFE_RATE"]),
    burst=int(os.environ["LIFE_BURST"])
    + 3 * ((SABOTAGE == "a larger burst") - (SABOTAGE == "a smaller burst")),
    region=_region,
)
_scripts = LimiterScripts(_region)
_pools = {}
_numbers = itertools.count()
_leaked = []


class Use:
    """What one request takes of each limit, and when.

    `times` has the instants before and after all was taken, and before and after all was given back.
    """

    def __init__(self, key):
        pool = _pools.get(key) or _pools.setdefault(
            key, SimpleConnectionPool(key, max_per_endpoint=SLOTS, max_total=SLOTS, region=_region)
        )
        self._pool = pool
        self._gauge = f"{{{key}}}:max_parallel_requests"
        number = next(_numbers)
        self._slot = f"{os.getpid()}-{number}"
        self.times = [time.monotonic()]
        self.rate = _limiter.is_allowed(key)
        window = [f"{{{key}}}:window", f"{{{key}}}:requests"]
        if SABOTAGE == "a count lost" and number % 20 == 10:
            _scripts.batch_rate_limiter(window, [0, WINDOW_S])
        self.count = int(_scripts.batch_rate_limiter(window, [0, WINDOW_S])[1])
        acquired = _scripts.parallel_acquire([self._gauge], [SLOTS, SLOT_TTL_S, self._slot])
        self.slot = acquired[0] == 0
        self._connection = pool.get_connection("https://provider.example")
        self._leaks = SABOTAGE == "a slot leaked" and number > 10 and self.slot and not _leaked
        if self._leaks:
            _leaked.append(self._slot)
        self.times.append(time.monotonic())

    @property
    def holds(self):
        """Whether there is anything to give back."""
        return self.slot or self._connection is not None

    def end(self):
        """Give back what is held; returns the answer."""
        self.times.append(time.monotonic())
        if self.slot and not self._leaks:
            _scripts.parallel_release([self._gauge], [self._slot])
        if self._connection is not None:
            self._pool.return_connection(self._connection)
        self.times.append(time.monotonic())
        return {
            "pid": os.getpid(),
            "times": self.times,
            "rate": self.rate,
            "count": self.count,
            "slot": self.slot,
            "connection": self._connection is not None,
        }


def use_for(key, ms=0, until=""):
    """Use the limits for so many milliseconds, or until there is a file."""
    use = Use(key)
    if use.holds:
        time.sleep(int(ms) / 1000)
        deadline = time.monotonic() + HELD_S
        while until and not os.path.exists(until) and time.monotonic() < deadline:
            time.sleep(0.005)
    return use.end()


async def use_for_async(key, ms=0, until=""):
    """The same without keeping the event loop."""
    use = Use(key)
    try:
        if use.holds:
            await asyncio.sleep(int(ms) / 1000)
            deadline = time.monotonic() + HELD_S
            while until and not os.path.exists(until) and time.monotonic() < deadline:
                await asyncio.sleep(0.005)
    finally:
        # A worker that is told to end cancels what it has not answered.
        answer = use.end()
    return answer


def hang(deaf=""):
    """Do nothing for long; `deaf` to SIGABRT if it says so."""
    if deaf:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGABRT})
    time.sleep(HELD_S)


def wsgi(environ, start_response):
    """Serve by WSGI."""
    path, query = environ["PATH_INFO"], dict(parse_qsl(environ["QUERY_STRING"]))
    if path == "/use":
        answer = use_for(**query)
    elif path == "/hang":
        hang(**query)
        answer = {}
    else:
        answer = {"pid": os.getpid()}
    body = json.dumps(answer).encode()
    start_response("200 OK", [("content-length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    """Serve by ASGI."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    query = dict(parse_qsl(scope["query_string"].decode()))
    if scope["path"] == "/use":
        answer = await use_for_async(**query)
    elif scope["path"] == "/hang":
        # Keeps the event loop, so that the master hears nothing of this worker any more.
        hang(**query)
        answer = {}
    else:
        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        answer = {"pid": os.getpid(), "loop": loop}
    body = json.dumps(answer).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
