"""What tests of a server's life share: a load across an event, and what must hold after it."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.life import remains
from harness.life.client import Answer, Client, Holders, Load
from harness.life.judge import judge
from harness.life.servers import LifeServer
from support import until

_keys = itertools.count(1)

BEFORE, AFTER = 30, 30
"""Answers before an event, and after it."""


def key() -> str:
    """A key that nobody has used."""
    return f"key:k{next(_keys)}"


@dataclass
class Run:
    """A load on one server."""

    server: LifeServer
    client: Client
    load: Load
    key: str

    def pids(self) -> set[int]:
        """The processes that have answered by now."""
        return {answer.pid for answer in self.load.answers if not answer.fault}

    def count(self) -> int:
        """The highest number that was given by now."""
        return max(answer.count for answer in self.load.answers if not answer.fault)

    def verdict(
        self, *, of: Sequence[int] = (), begin: float = 0.0, end: float = float("inf")
    ) -> list[str]:
        """What was wrong with those sent between two instants, or answered by some processes."""
        part = [answer for answer in self.load.answers if begin <= answer.sent < end]
        if of:
            part = [answer for answer in part if answer.fault or answer.pid in of]
        return judge(part, self.server.limits)


@contextlib.contextmanager
def loading(server: LifeServer, name: str = "") -> Iterator[Run]:
    """Have requests sent to a server before, during and after the body."""
    name = name or key()
    per_second, ms = server.bears
    with Client(server.port) as client, Load(client, name, per_second=per_second, ms=ms) as load:
        load.more(BEFORE)
        yield Run(server, client, load, name)
        load.more(AFTER)


@contextlib.contextmanager
def under_load(server: LifeServer, *, name: str = "") -> Iterator[Run]:
    """The same, and judge the answers: whatever happened, one region has counted all of them."""
    with loading(server, name) as run:
        yield run
    wrong = run.verdict()
    assert wrong == [], server.log_text()[-3000:]


@contextlib.contextmanager
def holding(
    server: LifeServer, client: Client, name: str, count: int = 0
) -> Iterator[list[Answer]]:
    """Requests take slots of a key until all are held; what they answered is in the list afterwards."""
    answers: list[Answer] = []
    holders = Holders(client, name, count or server.limits.slots, server.directory)
    try:
        until(
            lambda: sum(remains.held(server.region_name, name).values()) == server.limits.slots,
            "hold all slots",
        )
        yield answers
    finally:
        answers += holders.let_go()


def can_be_filled(server: LifeServer, name: str = "") -> None:
    """All slots and connections of a key can be had, no more, and are free again afterwards."""
    name = name or key()
    with Client(server.port) as client:
        with holding(server, client, name) as holders:
            for _ in range(3):
                answer = client.use(name)
                assert (answer.fault, answer.slot, answer.connection) == ("", False, False)
        assert len(holders) == server.limits.slots
        assert all(answer.slot and answer.connection for answer in holders), holders
        assert remains.leases(server.region_name, name) == []


def nothing_of_the_dead_is_held(server: LifeServer) -> None:
    """Slots of the dead are free soon, without anybody asking for them."""
    until(lambda: not remains.dead_leases(server.region_name), "free what the dead held")


def one_region(server: LifeServer, workers: int) -> None:
    """There is one region, and so many processes are in it at least."""

    def there() -> bool:
        found = remains.regions(server.region_name)
        assert len(found) == 1, (found, server.log_text()[-3000:])
        return bool(found[0]["alive"] >= workers)

    # Not all of them may have imported it when one answers.
    server.until(there, f"have {workers} processes in its region")


def ends_without_trace(server: LifeServer, *, kept: Path | None = None) -> None:
    """Ended as its supervisor would, it leaves no process, no region and no file."""
    files = remains.open_files(server.processes())
    before = remains.files_below(server.directory)
    assert server.end() == []
    left_nothing(server, files, before, kept=kept)


def left_nothing(
    server: LifeServer, files: set[str], before: set[str], *, kept: Path | None = None
) -> None:
    """Nobody uses its region, and of the files that it used and those around it none is left."""
    assert remains.regions(server.region_name) == []
    left = {name for name in files if Path(name).exists()}
    assert left - {str(server.log_path), str(kept)} == set()
    assert remains.files_below(server.directory) <= before
    assert list((server.directory / "tmp").iterdir()) == []


def now() -> float:
    """The instant, by the clock of all answers."""
    return time.monotonic()
