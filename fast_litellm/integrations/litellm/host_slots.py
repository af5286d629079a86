"""Connections to one host over all workers: each has a slot in the region, and whoever finds none waits.

Slots are leases, so those of a dead worker are free. Nothing wakes a process when another one frees a
slot: the event loop in which somebody waits asks again, after a few milliseconds, for the first of them.
"""

from __future__ import annotations

import asyncio
import gc
import uuid
import weakref
from collections import deque
from typing import Protocol

from fast_litellm import _native
from fast_litellm._native import FAULTS
from fast_litellm.integrations.litellm.debts import Debts
from fast_litellm.integrations.litellm.seam import Breaker

#: How soon somebody who waits asks again, seconds: at first, and after several times.
_FIRST_S, _LONGEST_S = 0.002, 0.02
#: The same where it is the turn of others.
_YIELDING_S = 0.04
#: How often a loop with idle connections asks whether others wait for them, seconds.
_LOOK_S = 0.1
#: More event loops than ever wait for one host.
_MANY = 1_000_000


class Pool(Protocol):
    """What keeps idle connections."""

    def close_idle(self, host: str, most: int) -> int:
        """Close at most so many idle connections to a host; returns how many were."""

    def has_idle(self, host: str) -> bool:
        """Whether there is an idle connection to a host."""

    def abandon(self) -> None:
        """Let go of all connections, of a loop that is closed."""


class Given(Protocol):
    """What a waiter is given: a slot, or a connection that has one."""

    def release(self) -> None:
        """Give it back unused."""


class Slot:
    """One counted connection. It is given back when it is released, or when nobody has it any more."""

    __slots__ = ("_host", "_id")

    def __init__(self, host: Host, slot_id: str) -> None:
        self._host = host
        #: Empty = it is not counted, or no longer.
        self._id = slot_id

    def release(self) -> None:
        """Give it back, and serve those that wait in this event loop. Does nothing the second time."""
        self._end()
        self._host.freed()

    def follow(self, closed: asyncio.Future[None] | None) -> None:
        """Give it back when this future is done, the end of a connection; None = it has ended."""
        if closed is None:
            self.release()
        else:
            closed.add_done_callback(self._closed)

    def _closed(self, closed: asyncio.Future[None]) -> None:
        if not closed.cancelled():
            # Asyncio complains of an exception that nobody has looked at.
            closed.exception()
        self.release()

    def _end(self) -> None:
        slot_id, self._id = self._id, ""
        if slot_id:
            self._host.end(slot_id)

    def __del__(self) -> None:
        # A loop that ends with open connections tells nobody; this may be another thread, too.
        self._end()


class Waiter:
    """A caller that waits for a slot, or for a connection of one pool and key."""

    __slots__ = ("future", "key", "pool")

    def __init__(self, future: asyncio.Future[Given], pool: Pool, key: object) -> None:
        self.future = future
        self.pool = pool
        self.key = key

    def can_use(self, pool: Pool, key: object) -> bool:
        """Whether a connection of that pool and key is one for it."""
        return self.pool is pool and self.key == key


class Host:
    """A host as one event loop sees it.

    Attributes:
        name: `host:port`.
        pools: which may have idle connections to it.
    """

    def __init__(self, slots: HostSlots, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.pools: weakref.WeakSet[Pool] = weakref.WeakSet()
        self._slots = slots
        # Whoever knows hosts by their loop must not keep the loop.
        self._loop = weakref.ref(loop)
        self._key = f"{{connections:{name}}}:max_parallel_requests"
        self._waits_key = f"{{connection_waits:{name}}}:max_parallel_requests"
        self._held: set[str] = set()
        self._waiters: deque[Waiter] = deque()
        #: The slot that tells other workers that somebody waits here; empty = there is none.
        self._wait_id = ""
        self._delay_s = _FIRST_S
        self._poll_timer: asyncio.TimerHandle | None = None
        self._look_timer: asyncio.TimerHandle | None = None

    # Slots

    def take(self) -> Slot | None:
        """Take a slot; None = there is none, or it is the turn of others that wait, here or elsewhere.

        Where the region cannot count, the slot is one that is not counted.
        """
        if self._first() is not None or self._has_its_share():
            return None
        return self._take()

    def _take(self) -> Slot | None:
        slots = self._slots
        if not slots.counts():
            return Slot(self, "")
        slot_id = uuid.uuid4().hex
        try:
            # Without a time to live: a connection may be open for hours, and the dead are found without.
            reply = slots.scripts.parallel_acquire([self._key], [slots.limit, 0, slot_id])
        except FAULTS as error:  # counted; LiteLLM connects as it would without us
            slots.breaker.failed("slot of a connection", error)
            return Slot(self, "")
        if reply[0] != 0:
            return None
        self._held.add(slot_id)
        return Slot(self, slot_id)

    def end(self, slot_id: str) -> None:
        """Give a slot back. Any thread may."""
        self._held.discard(slot_id)
        self._slots.give_back(self._key, slot_id)

    def freed(self) -> None:
        """A slot has been given back: who waits here may have it, unless it is the others' turn."""
        if self._waiters and not self._has_its_share():
            self._serve()

    # Waiting

    async def wait(self, pool: Pool, key: object, *, first: bool = False) -> Given:
        """Wait in line for a slot, or for a connection of that pool and key that is free.

        Args:
            pool: whose connections the caller can use.
            key: which of them.
            first: at the head of the line.
        """
        loop = asyncio.get_running_loop()
        waiter = Waiter(loop.create_future(), pool, key)
        if first:
            self._waiters.appendleft(waiter)
        else:
            self._waiters.append(waiter)
        try:
            self._begin_waiting()
        except FAULTS as error:  # counted; the caller connects as it would without us
            self._slots.breaker.failed("wait for a connection", error)
            self._waiters.remove(waiter)
            return Slot(self, "")
        try:
            return await waiter.future
        except BaseException:
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                # Cancelled after it was served: somebody else may need it.
                future.result().release()
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            if not self._waiters:
                self._end_waiting()

    def next_for(self, pool: Pool, key: object) -> Waiter | None:
        """The first in line, taken out of it, if it can use a connection of that pool and key."""
        first = self._first()
        if first is None or not first.can_use(pool, key):
            return None
        return self._waiters.popleft()

    def cancel(self, pool: Pool) -> None:
        """Cancel those that wait for a pool that is closed, as aiohttp does with its own."""
        for waiter in self._waiters:
            if waiter.pool is pool:
                waiter.future.cancel()

    def _first(self) -> Waiter | None:
        while self._waiters and self._waiters[0].future.done():
            self._waiters.popleft()
        return self._waiters[0] if self._waiters else None

    def _begin_waiting(self) -> None:
        if not self._wait_id and self._slots.counts():
            slot_id = uuid.uuid4().hex
            try:
                self._slots.scripts.parallel_acquire([self._waits_key], [_MANY, 0, slot_id])
                self._wait_id = slot_id
            except FAULTS as error:  # others keep their idle connections until they expire
                self._slots.breaker.failed("wait for a connection", error)
        self._slots.abandon_closed()
        # A connection that the caller cannot use, of another client, may be idle here.
        self._close_idle(1)
        self._poll_later()

    def _end_waiting(self) -> None:
        slot_id, self._wait_id = self._wait_id, ""
        if slot_id:
            self._slots.give_back(self._waits_key, slot_id)
        self._delay_s = _FIRST_S
        if self._poll_timer is not None:
            self._poll_timer.cancel()
            self._poll_timer = None

    def _serve(self) -> None:
        """Give slots to those that wait, in order, as long as there are any."""
        while (waiter := self._first()) is not None:
            slot = self._take()
            if slot is None:
                return
            self._waiters.popleft()
            self._delay_s = _FIRST_S
            waiter.future.set_result(slot)

    def _poll_later(self) -> None:
        loop = self._loop()
        if self._poll_timer is not None or loop is None:
            return
        delay_s = _YIELDING_S if self._has_its_share() else self._delay_s
        self._poll_timer = loop.call_later(delay_s, self._poll)
        self._delay_s = min(2 * self._delay_s, _LONGEST_S)

    def _poll(self) -> None:
        self._poll_timer = None
        self._serve()
        if self._waiters:
            self._poll_later()

    # What other workers need

    def keeps(self, pool: Pool, key: object) -> bool:
        """Whether a connection that is free is kept, for the first in line or idle; else it is closed."""
        others, first = self._others(), self._first()
        if others and (first is None or len(self._held) > self._share(others)):
            return False
        return first is None or first.can_use(pool, key)

    def watch(self) -> None:
        """Close idle connections as soon as other workers wait."""
        loop = self._loop()
        if self._look_timer is None and loop is not None and not loop.is_closed():
            self._look_timer = loop.call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        self._look_timer = None
        if others := self._others():
            self._close_idle(others)
        if any(self._slots.active and pool.has_idle(self.name) for pool in list(self.pools)):
            self.watch()

    def _close_idle(self, most: int) -> None:
        for pool in list(self.pools):
            if most > 0 and self._slots.active:
                most -= pool.close_idle(self.name, most)

    def _others(self) -> int:
        """How many other event loops, here or in other workers, have somebody who waits."""
        slots, mine = self._slots, bool(self._wait_id)
        if not slots.active or slots.breaker.open:
            return 0
        try:
            waiting = slots.scripts.value(self._waits_key, 0) or 0
            if waiting > mine:
                # That may be a dead one's; this looks.
                (waiting,) = slots.scripts.parallel_count([self._waits_key], [0])
        except FAULTS as error:  # counted; idle connections then stay until they expire
            slots.breaker.failed("look at who waits for a connection", error)
            return 0
        return max(0, waiting - mine)

    def _share(self, others: int) -> int:
        """How many connections this loop may keep while it waits, and others do.

        Rounded down, so that all keep less than there are, and nobody waits for ever.
        """
        return self._slots.limit // (others + 1)

    def _has_its_share(self) -> bool:
        others = self._others()
        return others > 0 and len(self._held) >= self._share(others)


class HostSlots:
    """All hosts as this process sees them.

    Attributes:
        limit: connections that may be open to one host, over all workers.
        active: False = nothing is counted any more.
    """

    def __init__(self, region: _native.Region, limit: int, breaker: Breaker) -> None:
        self.limit = limit
        self.active = True
        self.breaker = breaker
        self.scripts = _native.LimiterScripts(region)
        #: Slots whose release has failed.
        self._debts = Debts(lambda keys, ids: self.scripts.parallel_release(keys, ids))
        self._region = region
        self._hosts: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, weakref.WeakValueDictionary[str, Host]
        ] = weakref.WeakKeyDictionary()

    def host(self, name: str, loop: asyncio.AbstractEventLoop) -> Host:
        """A host in an event loop."""
        hosts = self._hosts.setdefault(loop, weakref.WeakValueDictionary())
        host = hosts.get(name)
        if host is None:
            host = hosts[name] = Host(self, name, loop)
        return host

    def known(self, name: str, loop: asyncio.AbstractEventLoop) -> Host | None:
        """The same, if it has a connection, or somebody waits for one."""
        hosts = self._hosts.get(loop)
        return None if hosts is None else hosts.get(name)

    def cancel(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel those that wait for a pool that is closed."""
        for host in list(self._hosts.get(loop, {}).values()):
            host.cancel(pool)

    def abandon_closed(self) -> None:
        """Free what closed loops have left open, as in a program that runs one after the other."""
        closed = [loop for loop in list(self._hosts) if self.active and loop.is_closed()]
        for loop in closed:
            for host in list(self._hosts.pop(loop).values()):
                for pool in list(host.pools):
                    pool.abandon()
        if closed:
            # A closed loop closes no connection; its sockets are closed when Python collects them.
            gc.collect()

    def counts(self) -> bool:
        """Whether connections are counted. What is not counted is told."""
        if self.active and self.breaker.open:
            # What is switched off is wanted.
            if self.breaker.tripped:
                self.uncounted()
            return False
        self._debts.settle()
        return self.active

    def uncounted(self) -> None:
        """Count a connection that has no slot."""
        self._region.count_fallback()

    def give_back(self, key: str, slot_id: str) -> None:
        """Release a slot of the region."""
        try:
            self.scripts.parallel_release([key], [slot_id])
        except FAULTS as error:  # counted; it is tried again with the next wish
            self._debts.owe([key], [slot_id])
            self.breaker.failed("end of a connection's slot", error)
