"""Proves that workers which are replaced, added or taken away under load change no limit."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from harness.life.judge import Limits
from harness.life.servers import Gunicorn
from lives import AFTER, can_be_filled, nothing_of_the_dead_is_held, one_region, under_load

GUNICORNS: dict[str, Callable[[], Gunicorn]] = {
    "preload-uvicorn": Gunicorn,
    "preload-gthread": lambda: Gunicorn("gthread"),
    "no-preload-uvicorn": lambda: Gunicorn(preload=False),
}


@pytest.fixture(scope="module", params=GUNICORNS)
def server(request: pytest.FixtureRequest) -> Iterator[Gunicorn]:
    """One that lives through all that follows."""
    with GUNICORNS[request.param]() as server:
        yield server


def check(server: Gunicorn) -> None:
    """What holds whenever things have calmed down."""
    nothing_of_the_dead_is_held(server)
    one_region(server, server.workers)
    can_be_filled(server)


def test_a_reload_keeps_what_was_counted(server: Gunicorn) -> None:
    with under_load(server) as run:
        old = server.worker_pids()
        new = server.reload()
        run.load.more(AFTER, of=new)
    assert not set(old) & set(new)
    check(server)


def test_reloads_in_quick_succession(server: Gunicorn) -> None:
    with under_load(server) as run:
        old = server.worker_pids()
        for _ in range(4):
            os.kill(server.master_pid, signal.SIGHUP)
            time.sleep(0.1)  # a reload begins before the one before is over
        new = server.replaced(old)
        run.load.more(AFTER, of=new)
    check(server)


def test_workers_are_added_and_taken_away(server: Gunicorn) -> None:
    with under_load(server) as run:
        old = server.worker_pids()
        os.kill(server.master_pid, signal.SIGTTIN)
        server.until(lambda: len(server.worker_pids()) == server.workers + 1, "add a worker")
        [added] = set(server.worker_pids()) - set(old)
        run.load.more(10, of=[added])
        os.kill(server.master_pid, signal.SIGTTOU)
        server.until(lambda: len(server.worker_pids()) == server.workers, "take one away")
    check(server)


@pytest.mark.parametrize("worker_class", ["uvicorn.workers.UvicornWorker", "gthread"])
def test_workers_that_end_after_some_requests(worker_class: str) -> None:
    recycling = ["--max-requests", "40", "--max-requests-jitter", "10"]
    with Gunicorn(worker_class, arguments=recycling) as server:
        with under_load(server) as run:
            server.until(lambda: len(run.pids()) >= 6, "recycle its workers")
        server.until(lambda: len(server.worker_pids()) == server.workers, "replace the last")
        check(server)


def test_limits_that_were_changed_hold_after_a_reload() -> None:
    limits = Limits(slots=2)
    with Gunicorn(preload=False, limits=limits) as server:
        can_be_filled(server, "key:changed")
        for slots in (4, 1):
            server.configure(f"raw_env = ['LIFE_SLOTS={slots}']\n")
            server.reload()
            server.limits = Limits(slots=slots)
            can_be_filled(server, "key:changed")
