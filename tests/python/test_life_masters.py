"""Proves that a master that dies takes nothing with it."""

from __future__ import annotations

import contextlib
import os
import signal

from harness.life import remains
from harness.life.servers import Gunicorn
from lives import (
    AFTER,
    can_be_filled,
    ends_without_trace,
    left_nothing,
    loading,
    now,
    one_region,
    under_load,
)


def test_workers_of_a_killed_master_end_and_another_can_start() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Gunicorn("gthread"))
        with loading(server) as run:
            files = remains.open_files(server.processes())
            os.kill(server.master_pid, signal.SIGKILL)
            server.poll()
            server.until(lambda: not server.processes(), "end its workers")
            gone = now()
            left_nothing(server, files, remains.files_below(server.directory))
            second = stack.enter_context(Gunicorn("gthread", port=server.port))
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
