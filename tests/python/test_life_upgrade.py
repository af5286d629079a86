"""Proves that two masters of one server share all while both live (SIGUSR2), whichever of them stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from harness.life.servers import Gunicorn, children
from lives import (
    AFTER,
    Run,
    can_be_filled,
    ends_without_trace,
    holding,
    key,
    nothing_of_the_dead_is_held,
    one_region,
    under_load,
)

GUNICORNS: dict[str, Callable[[], Gunicorn]] = {
    "preload-uvicorn": Gunicorn,
    "preload-gthread": lambda: Gunicorn("gthread"),
    "no-preload-uvicorn": lambda: Gunicorn(preload=False),
}


def both_serve(run: Run, server: Gunicorn, second: int) -> None:
    """The workers of both masters answer, out of one region, and all slots are there once."""
    workers = [pid for pid in server.worker_pids() if pid != second]
    for served in (workers, children(second)):
        run.load.more(10, of=served)
    one_region(server, 2 * server.workers)
    can_be_filled(server)


def end(server: Gunicorn, master: int, number: int = signal.SIGTERM) -> None:
    """End one of two masters and its workers."""
    ending = [master, *(pid for pid in children(master) if pid not in (server.master_pid, master))]
    if master == server.master_pid:
        # Its child is the master that stays.
        ending = [pid for pid in ending if not children(pid) or pid == master]
    os.kill(master, number)

    def gone() -> bool:
        server.poll()
        return not set(ending) & set(server.processes())

    server.until(gone, "end a master")


@pytest.mark.parametrize("start", ["preload-uvicorn", "no-preload-uvicorn"])
def test_the_new_master_goes_on_where_the_old_one_ends(start: str) -> None:
    with GUNICORNS[start]() as server:
        with under_load(server) as run:
            second = server.upgrade()
            both_serve(run, server, second)
            end(server, server.master_pid)
            server.master_pid = second
            run.load.more(AFTER, of=server.worker_pids())
            # It is a master like any other by now.
            before_reload = run.pids()
            # Without the region in the master it lasts as long as the old workers, here until new ones
            # have it.
            with holding(server, run.client, key()):
                old = server.worker_pids()
                os.kill(server.master_pid, signal.SIGHUP)
                server.until(lambda: run.pids() - before_reload, "answer by a new worker")
            run.load.more(AFTER, of=server.replaced(old))
        nothing_of_the_dead_is_held(server)
        one_region(server, server.workers)
        can_be_filled(server)
        ends_without_trace(server)


@pytest.mark.parametrize(
    ("start", "number"),
    [
        ("no-preload-uvicorn", signal.SIGTERM),
        # Workers of uvicorn's class do not look after their master.
        ("preload-gthread", signal.SIGKILL),
    ],
)
def test_the_old_master_goes_on_when_the_new_one_is_taken_back(start: str, number: int) -> None:
    with GUNICORNS[start]() as server:
        with under_load(server) as run:
            second = server.upgrade()
            both_serve(run, server, second)
            end(server, second, number)
            run.load.more(AFTER, of=server.worker_pids())
        nothing_of_the_dead_is_held(server)
        one_region(server, server.workers)
        can_be_filled(server)


@pytest.mark.parametrize("preload", [True, False])
def test_an_old_master_without_workers_can_come_back_or_end(*, preload: bool) -> None:
    """SIGWINCH takes the workers of a daemon away, SIGHUP gives it new ones."""
    # A real daemon would leave the test's process group.
    daemon = (
        "def when_ready(server):\n    server.cfg.set('daemon', True)\n\non_reload = when_ready\n"
    )
    with Gunicorn(preload=preload, configuration=daemon) as server:
        first = server.master_pid

        def workers() -> list[int]:
            return [pid for pid in children(first) if pid != second]

        with under_load(server) as run:
            second = server.upgrade()
            run.load.more(10, of=children(second))
            os.kill(first, signal.SIGWINCH)
            server.until(lambda: not workers(), "end the old workers")
            run.load.more(AFTER, of=children(second))
            os.kill(first, signal.SIGHUP)
            server.until(lambda: len(workers()) == server.workers, "start workers again")
            run.load.more(10, of=workers())
            end(server, second, signal.SIGQUIT)
            run.load.more(AFTER, of=workers())
            second = server.upgrade()
            run.load.more(10, of=children(second))
            os.kill(first, signal.SIGWINCH)
            server.until(lambda: not workers(), "end the old workers")
            end(server, first, signal.SIGQUIT)
            server.master_pid = second
            run.load.more(AFTER, of=server.worker_pids())
        nothing_of_the_dead_is_held(server)
        one_region(server, server.workers)
        can_be_filled(server)
        ends_without_trace(server)
