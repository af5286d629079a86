"""Proves that servers side by side share what they are told to share, and nothing by accident."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from pathlib import Path

from harness.life import remains
from harness.life.judge import judge
from harness.life.servers import Gunicorn, LifeServer, Uvicorn
from lives import can_be_filled, ends_without_trace, key, loading, under_load

NAME = {"FAST_LITELLM_SHM_NAME": f"life-neighbours-{uuid.uuid4().hex[:8]}"}

KINDS: list[Callable[[], LifeServer]] = [
    lambda: Gunicorn(environment=NAME),
    lambda: Gunicorn(preload=False, environment=NAME),
    lambda: Uvicorn(workers=2, environment=NAME),
    lambda: Uvicorn(workers=1, environment=NAME),
]


def test_servers_that_one_process_started_share_nothing_by_accident() -> None:
    """Their regions have the same name, too."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(kind()) for kind in KINDS]
        name = key()
        runs = [stack.enter_context(under_load(server, name=name)) for server in servers]
        found = remains.regions(NAME["FAST_LITELLM_SHM_NAME"])
        assert len(found) == len(servers)
        for server in servers:
            pids = set(server.processes())
            assert [set(each["pids"]) <= pids for each in found].count(True) == 1
        assert all(run.count() > 0 for run in runs)


def test_servers_that_are_told_to_share_a_file_do() -> None:
    path = Path(f"/dev/shm/fast-litellm-life-{uuid.uuid4().hex}")
    try:
        with Gunicorn(shm=path) as one, Uvicorn(workers=2, shm=path) as other:
            name = key()
            with loading(one, name) as here, loading(other, name) as there:
                here.load.more(100)
            assert here.pids().isdisjoint(there.pids())
            wrong = judge([*here.load.answers, *there.load.answers], one.limits)
            assert wrong == []
            can_be_filled(one, name)
            assert one.end() == []
            # The other one goes on.
            can_be_filled(other, name)
            ends_without_trace(other, kept=path)
    finally:
        path.unlink(missing_ok=True)
