"""What each server of a soak is asked: limits that live as long as the run, and new ones each minute."""

from __future__ import annotations

import time
from dataclasses import dataclass

import aiohttp

from harness.load import Reply, complete
from harness.proxy import FakeBackend
from harness.results import new_key, unique

from .disturbances import Pace
from .oracles import CalendarMinute, Quota, Slots, Window
from .servers import LIMITED, MINUTE_LIMIT, SLOW, LiteLlm, Small
from .traffic import Load, Send, Stream

TOKENS, ESTIMATE, TOKEN_LIMIT = 30, 24, 900
"""What an answer of the fake provider costs, what LiteLLM reserves for it, and a limit of tokens."""


@dataclass
class Probe:
    """A limit of slots that is emptied once a minute, and must then admit exactly its number.

    Attributes:
        stream: who uses the limit otherwise.
        send: one request that holds a slot.
        limit: how many may.
    """

    stream: Stream
    send: Send
    limit: int


class SmallPlan:
    """Requests to the small service.

    Attributes:
        settle_s: how long answered requests, or those of a worker that died, may go on holding slots.
    """

    pace = Pace(deaths_s=0.6, changes_s=12.0, both_s=4.0, stopped_s=3.0)
    settle_s = 3.0
    new_each_minute = 4

    def __init__(self, server: Small, window_s: int) -> None:
        self._url = f"http://127.0.0.1:{server.port}"
        self._window_s = window_s

    def begin(self, load: Load) -> Probe:
        """Start the streams that last."""
        load.open(Stream("no limit", self._post("free"), None), 40)
        load.open(self._window("window, lasting", 40), 40 / self._window_s * 3)
        load.open(self._quota("quota, lasting", 120, 10), 6)
        limit, hold_s = 4, 0.3
        send = self._post("slots", limit, int(1000 * hold_s), unique())
        judge = Slots(limit, hold_s, late_s=self.pace.stopped_s + 2)
        slots = Stream("slots, lasting", send, judge, holds=True)
        load.closed(slots, clients=7, pause_s=0.05)
        return Probe(slots, send, limit)

    def begin_minute(self, load: Load, seconds: float) -> None:
        """Start the streams of a minute that is so long."""
        for _ in range(self.new_each_minute):
            window = self._window("window, new keys", 20)
            load.open(window, 20 / self._window_s * 3, seconds, linger_s=self._window_s)
            load.open(self._quota("quota, new keys", 60, 5), 3, seconds)

    def _window(self, kind: str, limit: int) -> Stream:
        send = self._post("window", limit, self._window_s, unique())
        return Stream(kind, send, Window(limit, self._window_s))

    def _quota(self, kind: str, per_minute: int, burst: int) -> Stream:
        send = self._post("quota", per_minute, burst, unique())
        return Stream(kind, send, Quota(per_minute, burst))

    def _post(self, *path: object) -> Send:
        url = "/".join((self._url, *map(str, path)))

        async def send(client: aiohttp.ClientSession) -> Reply:
            try:
                # A GET would be sent once more when its connection breaks, and counted as one.
                async with client.post(url) as response:
                    return Reply(response.status, await response.text())
            except (aiohttp.ClientError, TimeoutError) as error:
                return Reply(0, repr(error))

        return send


class LiteLlmPlan:
    """Requests to LiteLLM's proxy."""

    pace = Pace(deaths_s=12.0, changes_s=50.0, both_s=15.0, stopped_s=6.0)
    settle_s = 15.0
    new_each_minute = 2

    def __init__(self, server: LiteLlm, backend: FakeBackend, window_s: int) -> None:
        self._url = server.base_url
        self._backend = backend
        self._window_s = window_s

    def begin(self, load: Load) -> Probe:
        """Start the streams that last."""
        hold_s = 0.8
        self._backend.configure(SLOW, latency=hold_s)
        load.open(Stream("no limit", self._ask(new_key()), None), 4)
        load.open(self._window("key rpm, lasting", 30), 120 / self._window_s)
        tokens = Window(TOKEN_LIMIT // TOKENS, self._window_s, extra=unsettled)
        ask = self._ask(new_key(f"t{TOKEN_LIMIT}"), max_tokens=ESTIMATE - 10)
        load.open(Stream("key tpm, lasting", ask, tokens), 90 / self._window_s)
        limited = self._ask(new_key(), model=LIMITED)
        minute = CalendarMinute(MINUTE_LIMIT)
        load.open(Stream("deployment rpm", limited, minute, clock=time.time), 1.5)
        limit = 4
        send = self._ask(new_key(f"p{limit}"), model=SLOW)
        slots = Stream(
            "key parallel", send, Slots(limit, hold_s, late_s=self.pace.stopped_s + 3), holds=True
        )
        load.closed(slots, clients=6, pause_s=0.4)
        return Probe(slots, send, limit)

    def begin_minute(self, load: Load, seconds: float) -> None:
        """Start the streams of a minute that is so long."""
        for _ in range(self.new_each_minute):
            window = self._window("key rpm, new keys", 20)
            load.open(window, 60 / self._window_s, seconds, linger_s=self._window_s)

    def _window(self, kind: str, limit: int) -> Stream:
        return Stream(kind, self._ask(new_key(f"r{limit}")), Window(limit, self._window_s))

    def _ask(self, key: str, **request: object) -> Send:
        async def send(client: aiohttp.ClientSession) -> Reply:
            return await complete(client, self._url, key, **request)

        return send


def unsettled(lost: int) -> int:
    """How many more answers a limit of tokens may let through while some are not settled.

    An answer counts with its estimate until it is settled, a lost one for ever; six may be on their way.
    """
    missing = (TOKENS - ESTIMATE) * (lost + 6)
    return 1 + -(-missing // TOKENS)
