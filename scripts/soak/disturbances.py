"""What happens to the server: workers that die and stop, reloads, upgrades, more and fewer workers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import astuple, dataclass

from harness.proxy import is_alive

from .journal import Journal
from .servers import Upgradable

BOOT_S = 150.0


@dataclass(frozen=True)
class Pace:
    """Mean seconds between disturbances of each kind, and what else depends on how fast a server boots.

    Attributes:
        deaths_s: between workers that are killed, aborted, ended or stopped.
        changes_s: between reloads, upgrades, and changes of the number of workers.
        both_s: how long at most two masters run beside each other, once both are ready.
        stopped_s: how long at most a worker is stopped.
    """

    deaths_s: float
    changes_s: float
    both_s: float
    stopped_s: float

    def times(self, factor: float) -> Pace:
        """The same, so many times as fast."""
        return Pace(*(seconds / factor for seconds in astuple(self)))


def open_files(pid: int) -> int:
    """How many files and sockets a process has open: more while it answers requests."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


class Disturbances:
    """Does things to a server at random instants, the same ones for the same seed."""

    def __init__(
        self, server: Upgradable, seed: int, pace: Pace, journal: Journal, *, upgrades: bool
    ) -> None:
        self._server = server
        self._deaths = random.Random(f"deaths {seed}")
        self._changes = random.Random(f"changes {seed}")
        self._pace = pace
        self._journal = journal
        self._upgrades = upgrades
        self.lock = asyncio.Lock()
        """Held while a worker is stopped or killed, and by whoever needs that none is."""
        self.failures: list[str] = []
        self.generation = 1

    async def deaths(self) -> None:
        """Kill and stop workers, for ever."""
        kinds: dict[str, tuple[int, Callable[[int], Awaitable[None]]]] = {
            "kill": (6, self._kill),
            "kill while stopped": (2, self._kill_stopped),
            "abort": (2, self._abort),
            "terminate": (2, self._terminate),
            "stop": (2, self._stop),
        }
        weights = [weight for weight, _ in kinds.values()]
        while True:
            await asyncio.sleep(self._deaths.expovariate(1 / self._pace.deaths_s))
            kind = self._deaths.choices(list(kinds), weights)[0]
            lot, busy = self._deaths.random(), self._deaths.random() < 0.5
            async with self.lock:
                workers = self._server.all_workers()
                if len(workers) < 2:
                    continue
                victim = workers[int(lot * len(workers))]
                if busy:
                    victim = max(workers, key=open_files)
                self._journal.note(kind, disturbs=True, pid=victim, of=len(workers))
                with contextlib.suppress(ProcessLookupError):
                    await kinds[kind][1](victim)

    async def changes(self) -> None:
        """Reload, upgrade, and change the number of workers, for ever."""
        kinds: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
            "reload": (3, self._reload),
            "more workers": (1, self._more),
            "fewer workers": (1, self._fewer),
        }
        if self._upgrades:
            kinds["upgrade"] = (3, self._upgrade)
            kinds["failed upgrade"] = (1, self._failed_upgrade)
        weights = [weight for weight, _ in kinds.values()]
        while True:
            await asyncio.sleep(self._changes.expovariate(1 / self._pace.changes_s))
            kind = self._changes.choices(list(kinds), weights)[0]
            await kinds[kind][1]()

    # Workers

    async def _kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    async def _kill_stopped(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(self._deaths.random() * self._pace.stopped_s / 2)
        self._journal.note("kill", disturbs=True, pid=pid, stopped=True)
        os.kill(pid, signal.SIGKILL)

    async def _abort(self, pid: int) -> None:
        os.kill(pid, signal.SIGABRT)

    async def _terminate(self, pid: int) -> None:
        os.kill(pid, signal.SIGTERM)

    async def _stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep((0.2 + 0.8 * self._deaths.random()) * self._pace.stopped_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._journal.note("continue", disturbs=True, pid=pid)

    # Masters

    async def _reload(self) -> None:
        master = self._server.master()
        old = set(self._server.all_workers())
        self._journal.note("reload", disturbs=True, pid=master)
        os.kill(master, signal.SIGHUP)
        if await self._until(lambda: not old & set(self._server.all_workers()), "end old workers"):
            self._journal.note("reloaded", disturbs=True)

    async def _more(self) -> None:
        self._journal.note("more workers")
        os.kill(self._server.master(), signal.SIGTTIN)

    async def _fewer(self) -> None:
        # The last two stay: one may be killed at any time.
        if len(self._server.all_workers()) > 2:
            self._journal.note("fewer workers", disturbs=True)
            os.kill(self._server.master(), signal.SIGTTOU)

    async def _begin_upgrade(self, kind: str) -> tuple[int, int] | None:
        """Both masters, once all workers of the new one are there."""
        old = self._server.master()
        boots = self._server.boots()
        # Until it has become another program it looks like a worker, and might be killed as one.
        async with self.lock:
            self._journal.note(kind, pid=old)
            os.kill(old, signal.SIGUSR2)
            await self._until(lambda: self._server.new_master() is not None, "start a new master")
        new = self._server.new_master()
        # Deaths meanwhile only add to the boots.
        ready = boots + self._server.workers
        if new is None or not await self._until(
            lambda: self._server.boots() >= ready or not is_alive(new), "boot its new workers"
        ):
            return None
        if not is_alive(new):
            self._fail(f"the new master {new} ended by itself")
            return None
        self._journal.note("both masters", old=old, new=new)
        await asyncio.sleep(self._changes.random() * self._pace.both_s)
        return old, new

    async def _upgrade(self) -> None:
        both = await self._begin_upgrade("upgrade")
        if both is not None:
            old, new = both
            self._journal.note("old master ends", disturbs=True, pid=old)
            os.kill(old, signal.SIGTERM)
            promoted = await self._until(
                lambda: not is_alive(old) and self._server.pid_in_file() == new,
                "hand over to its new master",
            )
            if promoted:
                self.generation += 1
                self._journal.note("upgraded", disturbs=True, pid=new)

    async def _failed_upgrade(self) -> None:
        both = await self._begin_upgrade("failed upgrade")
        if both is not None:
            _, new = both
            self._journal.note("new master ends", disturbs=True, pid=new)
            os.kill(new, signal.SIGTERM)
            if await self._until(lambda: not is_alive(new), "end its new master"):
                self._journal.note("rolled back", disturbs=True)

    async def _until(self, condition: Callable[[], bool], what: str) -> bool:
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline:
            self._server.reap_orphans()
            if condition():
                return True
            await asyncio.sleep(0.1)
        self._fail(f"the server did not {what} within {BOOT_S:.0f} s")
        return False

    def _fail(self, what: str) -> None:
        self.failures.append(what)
        self._journal.note("failure", what=what)
