"""Proves that a worker that dies under load, or a master, takes nothing with it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

import pytest

from harness.life import remains
from harness.life.judge import Limits
from harness.life.servers import Granian, Gunicorn, LifeServer, Uvicorn
from lives import (
    AFTER,
    can_be_filled,
    ends_without_trace,
    holding,
    key,
    left_nothing,
    loading,
    nothing_of_the_dead_is_held,
    now,
    one_region,
    region_pid,
    under_load,
)
from support import until

SERVERS: dict[str, Callable[[], LifeServer]] = {
    "preload-uvicorn": Gunicorn,
    "preload-gthread": lambda: Gunicorn("gthread"),
    "preload-sync": lambda: Gunicorn("sync", workers=3, limits=Limits(slots=2)),
    "no-preload-uvicorn": lambda: Gunicorn(preload=False),
    "uvicorn-workers": lambda: Uvicorn(workers=2),
    "granian": lambda: Granian(workers=2),
}


@pytest.mark.parametrize("start", SERVERS)
def test_what_a_killed_worker_held_is_free_again(start: str) -> None:
    """SIGKILL is what the kernel sends, too, when memory runs out."""
    with SERVERS[start]() as server:
        with under_load(server) as run:
            name, old = key(), server.worker_pids()
            with holding(server, run.client, name) as answers:
                held = remains.held(region_pid(server), name)
                victim = max(held, key=lambda pid: held[pid])
                os.kill(victim, signal.SIGKILL)
                until(lambda: run.client.use(name).slot, "free what the dead held")
                with holding(server, run.client, name, held[victim]) as others:
                    assert not run.client.use(name).slot
            assert sum(1 for answer in answers if answer.fault) == held[victim]
            assert all(answer.slot and answer.connection for answer in others)
            server.until(
                lambda: len(server.worker_pids()) == server.workers, "replace the dead worker"
            )
            run.load.more(AFTER, of=sorted(set(server.worker_pids()) - set(old)))
        nothing_of_the_dead_is_held(server)
        one_region(server, server.workers)
        can_be_filled(server, name)
        ends_without_trace(server)


@pytest.mark.parametrize("deaf", [False, True], ids=["aborted", "killed"])
def test_what_a_worker_that_hangs_held_is_free_again(deaf: bool) -> None:
    with Gunicorn(timeout_s=3) as server:
        with under_load(server) as run:
            name, old = key(), server.worker_pids()
            with holding(server, run.client, name):
                hanging = run.client.begin_hang(deaf=deaf)
                server.until(lambda: set(old) - set(server.worker_pids()), "end the worker")
            with pytest.raises((OSError, EOFError)):
                hanging.result(10)
            [dead] = set(old) - set(server.worker_pids())
            server.until(
                lambda: len(server.worker_pids()) == server.workers, "replace the dead worker"
            )
            run.load.more(AFTER, of=sorted(set(server.worker_pids()) - set(old)))
        how = "SIGKILL" if deaf else "SIGABRT"
        assert f"Worker (pid:{dead}) was sent {how}!" in server.log_text()
        nothing_of_the_dead_is_held(server)
        can_be_filled(server, name)


@pytest.mark.parametrize("worker_class", ["gthread", "sync"])
def test_workers_of_a_killed_master_end_and_another_can_start(worker_class: str) -> None:
    options = {"workers": 3, "limits": Limits(slots=2)}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Gunicorn(worker_class, **options))
        with loading(server) as run:
            files = remains.open_files(server.processes())
            os.kill(server.master_pid, signal.SIGKILL)
            server.poll()
            server.until(lambda: not server.processes(), "end its workers")
            gone = now()
            left_nothing(server, files, remains.files_below(server.directory))
            second = stack.enter_context(Gunicorn(worker_class, port=server.port, **options))
        one_region(second, second.workers)
        can_be_filled(second)
        ends_without_trace(second)
        # The region ended with its last process: all begins anew.
        assert run.verdict(end=gone) == []
        assert run.verdict(begin=gone) == []


def test_uvicorns_workers_outlive_a_killed_master_and_stay_exact() -> None:
    """They do not look after their master: whoever kills it has to end them, as systemd does."""
    with Gunicorn() as server:
        files = remains.open_files(server.processes())
        with under_load(server) as run:
            orphans = server.worker_pids()
            os.kill(server.master_pid, signal.SIGKILL)
            server.poll()
            run.load.more(AFTER, of=orphans)
        can_be_filled(server)
        before = remains.files_below(server.directory)
        for pid in orphans:
            os.kill(pid, signal.SIGTERM)
        server.until(lambda: not server.processes(), "end")
        left_nothing(server, files, before)
