"""The load of a soak: streams of requests against one limit each, and what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp

from harness.load import Reply

from .journal import Journal
from .oracles import ADMITTED, LOST, REFUSED, Judgement, Limit, Seen

MOST_OUTSTANDING = 30
"""Requests of one stream that wait for an answer; a stopped worker must not pile up thousands."""

NEAR_S = 10.0
"""A lost answer is explained by a disturbance between this long before it was sent and its end."""

Send = Callable[[aiohttp.ClientSession], Awaitable[Reply]]


@dataclass
class Answers:
    """What came back, of all streams, since the last report."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class Stream:
    """Requests against one limit.

    Attributes:
        kind: what the limit is called in reports; streams of one kind are added up.
        holds: whether requests are long, so that their latency says nothing.
    """

    def __init__(
        self,
        kind: str,
        send: Send,
        limit: Limit | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        holds: bool = False,
    ) -> None:
        self.kind = kind
        self.holds = holds
        self._send = send
        self._limit = limit
        self._clock = clock
        self._seen: list[Seen] = []
        self._pending: dict[int, float] = {}
        self._number = 0
        self._found = Judgement()
        self.paused = False

    @property
    def outstanding(self) -> int:
        """How many requests wait for an answer."""
        return len(self._pending)

    async def once(self, load: Load) -> str:
        """Send one request; returns its outcome."""
        self._number += 1
        ticket, sent, begun = self._number, self._clock(), time.monotonic()
        self._pending[ticket] = sent
        outcome = LOST
        try:
            reply = await self._send(load.client)
            outcome = load.count(reply, begun, self)
        finally:
            del self._pending[ticket]
            if self._limit is not None:
                self._seen.append(Seen(sent, self._clock(), outcome))
        return outcome

    def judge(self) -> Judgement:
        """What the judge says of all that was seen."""
        if self._limit is None:
            return Judgement()
        now = self._clock()
        pending = [Seen(sent, now, LOST) for sent in self._pending.values()]
        self._found = self._found.worst(self._limit.judge([*self._seen, *pending], now))
        before = now - self._limit.memory_s
        self._seen = [each for each in self._seen if each.answered > before]
        return self._found


class Load:
    """All streams, and the tasks that feed them."""

    def __init__(self, client: aiohttp.ClientSession, rng: random.Random, journal: Journal) -> None:
        self.client = client
        self.answers = Answers()
        self._rng = rng
        self._journal = journal
        self._streams: list[Stream] = []
        self._ended: dict[str, Judgement] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._feeders: set[asyncio.Task[None]] = set()

    def open(
        self,
        stream: Stream,
        per_second: float,
        seconds: float | None = None,
        linger_s: float = 0.0,
    ) -> None:
        """Feed a stream at random instants, for so long or until all ends.

        It is judged for the last time when it has rested for `linger_s`: so long its last window may be.
        """
        self._streams.append(stream)
        self._feed(self._feed_open(stream, per_second, seconds, linger_s))

    def closed(self, stream: Stream, clients: int, pause_s: float) -> None:
        """Feed a stream by clients that wait for their answer, and a moment if they are refused."""
        self._streams.append(stream)
        for _ in range(clients):
            self._feed(self._feed_closed(stream, pause_s))

    def count(self, reply: Reply, begun: float, stream: Stream) -> str:
        """Count an answer; returns what it means."""
        now = time.monotonic()
        outcome = {200: ADMITTED, 429: REFUSED}.get(reply.status, LOST)
        self.answers.outcomes[outcome] += 1
        if outcome != LOST:
            if not stream.holds:
                self.answers.seconds.append(now - begun)
            return outcome
        text = f"{stream.kind}: {reply.status}: {reply.body[:300]}"
        if reply.status:
            self.answers.faults.append(text)
        elif not self._journal.disturbed_between(begun - NEAR_S, now):
            self.answers.unexplained.append(text)
        self._journal.note("lost", status=reply.status, of=stream.kind, why=reply.body[:300])
        return outcome

    def judge(self) -> dict[str, Judgement]:
        """The judgement of each kind of limit, of streams that have ended too."""
        found = dict(self._ended)
        for stream in self._streams:
            if stream._limit is not None:
                _add(found, stream)
        return found

    def take_answers(self) -> Answers:
        """The answers since the last time."""
        answers, self.answers = self.answers, Answers()
        return answers

    async def end(self) -> None:
        """Send nothing more, and wait for what is on its way."""
        for task in self._feeders:
            task.cancel()
        await asyncio.gather(*self._feeders, return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _feed(self, feeder: Awaitable[None]) -> None:
        task = asyncio.ensure_future(feeder)
        self._feeders.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._feeders.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.answers.faults.append(f"the load broke down: {task.exception()!r}")

    async def _send(self, stream: Stream) -> None:
        await stream.once(self)

    async def _feed_open(
        self, stream: Stream, per_second: float, seconds: float | None, linger_s: float
    ) -> None:
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            if stream.outstanding < MOST_OUTSTANDING and not stream.paused:
                task = asyncio.ensure_future(self._send(stream))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(self._rng.expovariate(per_second))
        await asyncio.sleep(linger_s)
        while stream.outstanding:
            await asyncio.sleep(0.05)
        # Nothing more will be said of it.
        self._streams.remove(stream)
        _add(self._ended, stream)

    async def _feed_closed(self, stream: Stream, pause_s: float) -> None:
        while True:
            if stream.paused:
                await asyncio.sleep(0.02)
                continue
            request = asyncio.ensure_future(self._send(stream))
            self._tasks.add(request)
            request.add_done_callback(self._tasks.discard)
            with contextlib.suppress(Exception):
                # The end of this feeder is not to be the end of its request.
                await asyncio.shield(request)
            await asyncio.sleep(self._rng.random() * 2 * pause_s)


def _add(found: dict[str, Judgement], stream: Stream) -> None:
    judgement = stream.judge()
    if stream.kind in found:
        judgement = found[stream.kind].plus(judgement)
    found[stream.kind] = judgement
