"""Proves what a restart keeps: nothing without a file, everything with one, unless that is stale."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.life.servers import Gunicorn, LifeServer, StartError, Uvicorn
from layout_document import LayoutDocument
from lives import (
    AFTER,
    can_be_filled,
    ends_without_trace,
    holding,
    key,
    loading,
    now,
    one_region,
    under_load,
)

HEADER = LayoutDocument.load().records["Header"].fields


@pytest.fixture
def path() -> Iterator[Path]:
    """A place on tmpfs for a region."""
    path = Path(f"/dev/shm/fast-litellm-life-{uuid.uuid4().hex}")
    yield path
    path.unlink(missing_ok=True)


def set_word(path: Path, name: str, change: int) -> None:
    """Change a word of a region's header."""
    with path.open("r+b") as file:
        file.seek(HEADER[name].offset)
        [value] = struct.unpack("<Q", file.read(8))
        file.seek(HEADER[name].offset)
        file.write(struct.pack("<Q", value ^ change))


def test_without_a_file_a_restart_begins_anew() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Gunicorn())
        with loading(server) as run:
            ends_without_trace(server)
            ended = now()
            second = stack.enter_context(Gunicorn(port=server.port))
        assert run.verdict(end=ended) == []
        assert run.verdict(begin=ended) == []
        can_be_filled(second)


@pytest.mark.parametrize(
    ("how", "preload"),
    [("ended", False), ("killed", True)],
    ids=["ended-no-preload", "killed-preload"],
)
def test_with_a_file_a_restart_goes_on(path: Path, how: str, preload: bool) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Gunicorn(preload=preload, shm=path))
        name = key()
        with under_load(server) as run:
            if how == "ended":
                ends_without_trace(server, kept=path)
            else:
                with holding(server, run.client, name):
                    processes = server.processes()
                    for pid in processes:
                        os.kill(pid, signal.SIGKILL)
                    server.until(lambda: not _ended(server, processes), "die")
            assert path.exists()
            second = stack.enter_context(Gunicorn(preload=preload, shm=path, port=server.port))
            run.load.more(AFTER)
        one_region(second, second.workers)
        can_be_filled(second, name)
        ends_without_trace(second, kept=path)
        assert path.stat().st_mode & 0o7777 == 0o600


def _ended(server: LifeServer, processes: list[int]) -> set[int]:
    server.poll()
    return set(processes) & set(server.processes())


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("boot_id_high", "another boot"),
        ("pid_namespace", "another pid namespace"),
        ("version", "layout"),
    ],
)
def test_a_stale_file_is_made_anew_by_whoever_is_first(path: Path, word: str, reason: str) -> None:
    """Two workers find it at once: both serve out of the one that one of them made."""
    with Uvicorn(workers=1, shm=path) as server:
        can_be_filled(server)
        ends_without_trace(server, kept=path)
    set_word(path, word, 1 << 32)
    inode = path.stat().st_ino
    with Gunicorn(preload=False, shm=path) as server:
        with under_load(server):
            one_region(server, server.workers)
            assert path.stat().st_ino != inode
        said = [line for line in server.log_text().splitlines() if "made anew" in line]
        assert len(said) == 1
        assert str(path) in said[0]
        assert reason in said[0]
        can_be_filled(server)
        ends_without_trace(server, kept=path)


def test_a_file_that_does_not_fit_but_is_in_use_is_refused(path: Path) -> None:
    with Gunicorn(shm=path) as server:
        with under_load(server):
            set_word(path, "version", 1 << 32)
            with pytest.raises(StartError) as raised, Uvicorn(workers=1, shm=path):
                pass
            for said in ("in use", str(path), "limits are NOT shared", "choose another path"):
                assert said in str(raised.value)
            set_word(path, "version", 1 << 32)
            with Uvicorn(workers=1, shm=path):
                pass
        can_be_filled(server)
        ends_without_trace(server, kept=path)
