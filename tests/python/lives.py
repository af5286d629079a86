"""What tests of a server's life share: a load across an event, and what must hold after it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.life import remains
from harness.life.client import Answer, Client, Holders, Load
from harness.life.judge import judge
from harness.life.servers import LifeServer
from support import until

_keys = itertools.count(1)

BEFORE, AFTER = 60, 60
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
    #: Who has answered by now.
    before: set[int] = field(default_factory=set)

    @property
    def answers(self) -> list[Answer]:
        """All that has come so far."""
        return self.load.answers

    def pids(self) -> set[int]:
        """The processes that have answered."""
        return {answer.pid for answer in self.answers if not answer.fault}

    def count(self) -> int:
        """The highest number that was given."""
        return max(answer.count for answer in self.answers if not answer.fault)


@contextlib.contextmanager
def under_load(
    server: LifeServer, *, per_second: int = 100, ms: int = 30, counted_before: int = 0, name: str = ""
) -> Iterator[Run]:
    """Have requests sent to a server before, during and after the body, and judge their answers."""
    name = name or key()
    with Client(server.port) as client:
        with Load(client, name, per_second=per_second, ms=ms) as load:
            run = Run(server, client, load, name)
            load.more(BEFORE)
            run.before = run.pids()
            yield run
            load.more(AFTER)
        wrong = judge(load.answers, server.limits, counted_before=counted_before)
        assert wrong == [], server.log_text()[-3000:]


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
        assert remains.leases(_any(server), name) == []


@contextlib.contextmanager
def holding(server: LifeServer, client: Client, name: str, count: int = 0) -> Iterator[list[Answer]]:
    """Requests hold slots of a key for the time of the body; what they answered is in the list afterwards."""
    count = count or server.limits.slots
    answers: list[Answer] = []
    holders = Holders(client, name, count, server.directory)
    try:
        until(lambda: sum(remains.held(_any(server), name).values()) == count, "hold all slots")
        yield answers
    finally:
        answers += holders.let_go()


def nothing_of_the_dead_is_held(server: LifeServer) -> None:
    """Slots of the dead are free soon, without anybody asking for them."""
    until(lambda: not remains.dead_leases(_any(server)), "free what the dead held")


def one_region(server: LifeServer, workers: int) -> None:
    """There is one region, and so many processes are in it at least."""
    found = remains.regions(server.region_name)
    assert len(found) == 1, found
    assert found[0]["alive"] >= workers, found


def ends_without_trace(server: LifeServer, *, kept: Path | None = None) -> None:
    """Ended as its supervisor would, it leaves no process, no region and no file."""
    files = remains.open_files(server.processes())
    directory = server.directory
    before = remains.files_below(directory)
    assert server.end() == []
    assert remains.regions(server.region_name) == []
    left = {name for name in files if Path(name).exists()}
    assert left - {str(server.log_path), str(kept)} == set()
    assert remains.files_below(directory) <= before
    assert list((directory / "tmp").iterdir()) == []


def _any(server: LifeServer) -> int:
    """A process that uses the server's region."""
    found = remains.regions(server.region_name)
    assert len(found) == 1, (found, server.log_text()[-3000:])
    return int(found[0]["pids"][0])
