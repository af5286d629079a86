"""A soak from start to verdict."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.load import session
from harness.proxy import FakeBackend

from .disturbances import Disturbances
from .journal import Journal
from .oracles import ADMITTED, REFUSED, Judgement
from .plans import LiteLlmPlan, Probe, SmallPlan
from .report import Check, Minute, memory_of, region_check, rows_check, service_check
from .servers import LiteLlm, Small, Upgradable, adopt_orphans
from .traffic import Load
from .watch import Look, Watch


@dataclass(frozen=True)
class Settings:
    """What the command line asks for.

    Attributes:
        minute_s: how often something is reported and new keys are used.
        pace: how many times as fast as usual the server is disturbed.
    """

    app: str
    minutes: float
    seed: int
    workers: int
    window_s: int
    minute_s: float
    upgrades: bool
    pace: float
    sabotage: str
    events: Path | None


@dataclass
class Outcome:
    """All that a soak found."""

    minutes: list[Minute] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(check.ok for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """The outcome as data."""
        return {
            "ok": self.ok,
            "checks": [vars(check) for check in self.checks],
            "minutes": [minute.as_json() for minute in self.minutes],
        }


def run(settings: Settings, say: Callable[[str], None]) -> Outcome:
    """Run a soak."""
    adopt_orphans()
    journal = Journal(settings.events)
    with contextlib.closing(journal), _serving(settings) as (server, plan):
        say(
            f"{server!r}: {settings.workers} workers, region {server.region_name}, seed {settings.seed}"
        )
        soak = Soak(settings, server, plan, journal, say)
        asyncio.run(soak.run())
        soak.end()
    return soak.outcome


@contextlib.contextmanager
def _serving(settings: Settings) -> Iterator[tuple[Upgradable, SmallPlan | LiteLlmPlan]]:
    with contextlib.ExitStack() as stack:
        server: Upgradable
        plan: SmallPlan | LiteLlmPlan
        if settings.app == "small":
            small = Small(settings.workers, settings.sabotage)
            server, plan = small, SmallPlan(small, settings.window_s)
        else:
            backend = stack.enter_context(FakeBackend())
            litellm = LiteLlm(backend.url, settings.workers, settings.window_s)
            server, plan = litellm, LiteLlmPlan(litellm, backend, settings.window_s)
        stack.enter_context(server)
        yield server, plan


class Soak:
    """One run: load, disturbances, a watch, and a report each minute."""

    def __init__(
        self,
        settings: Settings,
        server: Upgradable,
        plan: SmallPlan | LiteLlmPlan,
        journal: Journal,
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._server = server
        self._plan = plan
        self._journal = journal
        self._say = say
        self._watch = Watch(server)
        self._disturbances = Disturbances(
            server,
            settings.seed,
            plan.pace.times(settings.pace),
            journal,
            upgrades=settings.upgrades,
        )
        self._probes = Judgement()
        self._said: dict[str, Judgement] = {}
        self.outcome = Outcome()

    async def run(self) -> None:
        """Everything that needs the server."""
        begun = time.monotonic()
        end = begun + 60 * self._settings.minutes
        async with session() as client:
            load = Load(client, random.Random(f"load {self._settings.seed}"), self._journal)
            probe = self._plan.begin(load)
            tasks = [
                asyncio.ensure_future(each)
                for each in (
                    self._disturbances.deaths(),
                    self._disturbances.changes(),
                    self._look_on(),
                )
            ]
            number, reported = 0, begun
            while time.monotonic() < end:
                number += 1
                minute_s = min(self._settings.minute_s, end - time.monotonic())
                self._plan.begin_minute(load, minute_s)
                await asyncio.sleep(minute_s * 0.8)
                await self._probe(load, probe)
                over = min(end, begun + number * self._settings.minute_s)
                await asyncio.sleep(over - time.monotonic())
                for task in tasks:
                    if task.done():
                        task.result()
                await self._report(load, number, reported)
                reported = time.monotonic()
            await self._settle(load, tasks)
            await self._report(load, number + 1, reported)

    async def _look_on(self) -> None:
        while True:
            await asyncio.to_thread(self._watch.look)
            await asyncio.sleep(self._settings.minute_s / 15)

    async def _probe(self, load: Load, probe: Probe) -> None:
        """Empty a limit of slots and fill it up, while nobody is stopped or killed."""
        async with self._disturbances.lock:
            probe.stream.paused = True
            try:
                await self._until(lambda: not probe.stream.outstanding, 30)
                # Requests of other streams hold slots of other limits, but not for long.
                await asyncio.sleep(1.1)
                await self._until_no_leases(lambda look: look.old_leases)
                outcomes = await asyncio.gather(
                    *(probe.stream.once(load) for _ in range(probe.limit))
                )
            finally:
                probe.stream.paused = False
        admitted, refused = outcomes.count(ADMITTED), outcomes.count(REFUSED)
        lost = probe.limit - admitted - refused
        found = Judgement(1, admitted, probe.limit, probe.limit - lost, under=refused)
        if refused:
            found.notes.append(f"all slots were free, and {refused} of {probe.limit} were refused")
        self._probes = self._probes.plus(found)
        self._journal.note("probe", admitted=admitted, refused=refused, lost=lost)

    async def _until_no_leases(self, count: Callable[[Look], int]) -> int:
        deadline = time.monotonic() + self._plan.settle_s
        while True:
            look = await asyncio.to_thread(self._watch.look)
            if not count(look) or time.monotonic() > deadline:
                return count(look)
            await asyncio.sleep(0.1)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    async def _report(self, load: Load, number: int, since: float) -> None:
        judged = load.judge()
        judged["slots, emptied"] = self._probes
        new = {kind: each.since(self._said.get(kind, Judgement())) for kind, each in judged.items()}
        self._said = judged
        minute = Minute(
            number,
            self._journal.seconds(),
            max(0.001, time.monotonic() - since),
            new,
            load.take_answers(),
            await asyncio.to_thread(self._watch.look),
            {kind: n for kind, n in self._journal.counts.items() if kind not in ("lost", "probe")},
            self._disturbances.generation,
        )
        self.outcome.minutes.append(minute)
        self._say(minute.text())

    async def _settle(self, load: Load, tasks: list[asyncio.Task[None]]) -> None:
        """End the disturbances and the load, and see that nothing stays held."""
        # A worker that is stopped goes on, and an upgrade comes to its end, when they are cancelled.
        async with self._disturbances.lock:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await load.end()
        self._held_at_end = await self._until_no_leases(lambda look: look.leases)

    def end(self) -> None:
        """Stop the server and come to a verdict."""
        watch, minutes = self._watch, self.outcome.minutes
        self._server.end()
        processes, files = self._server.processes(), self._server.files()
        judged = self._said
        over = sum(each.over for each in judged.values())
        under = sum(each.under for each in judged.values())
        leaked = sum(watch.leaked.values())
        unexplained = [text for minute in minutes for text in minute.answers.unexplained]
        faults = [text for minute in minutes for text in minute.answers.faults]
        shown = sum(each.admitted for each in judged.values())
        allowed = sum(each.allowed for each in judged.values())
        failures = self._disturbances.failures
        # A third of those that one limit has.
        windows = int(20 * self._settings.minutes / self._settings.window_s)
        masters = 2 if self._settings.upgrades else 1
        self.outcome.checks = [
            Check("over-admitted", over == 0, f"{over} ({shown} admitted, {allowed} allowed)"),
            Check("under-admitted", under == 0, str(under)),
            Check(
                "leaked leases",
                leaked == 0 and self._held_at_end == 0,
                f"{leaked} of dead owners, {self._held_at_end} held at the end",
            ),
            region_check(watch, expected=1),
            # Old and new workers of both masters at a reload, and some that died just now.
            rows_check(watch.looks, masters * (2 * self._settings.workers + 4) + 8),
            Check("leftover processes", not processes, ", ".join(map(str, processes)) or "none"),
            Check("leftover files", not files, ", ".join(files) or "none"),
            # The last one is what was left to be answered.
            service_check(minutes[:-1], judged, windows),
            Check("faults", not faults, f"{len(faults)} {'; '.join(faults[:3])}"),
            Check(
                "answers lost without cause",
                not unexplained,
                f"{len(unexplained)} {unexplained[:3]}",
            ),
            Check(
                "reloads and upgrades", not failures, "; ".join(failures) or "all came to their end"
            ),
        ]
        growths = memory_of(watch.looks)
        self.outcome.checks += [each.check() for each in growths]
        if not growths:
            self._say("memory: too few looks to tell whether it grows")
        self._say("verdict")
        for check in self.outcome.checks:
            self._say(check.text())


def say(text: str) -> None:
    """Print at once, also into a file."""
    print(text, flush=True)
