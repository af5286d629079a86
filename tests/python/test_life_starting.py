"""Proves that limits are exact, and all is gone in the end, in every way to start servers and pools."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.life.judge import Limits
from harness.life.servers import Granian, Gunicorn, LifeServer, Uvicorn
from lives import can_be_filled, ends_without_trace, one_region, under_load

Start = Callable[[], LifeServer]

STARTS: dict[str, Start] = {
    "preload-uvicorn": Gunicorn,
    "preload-gthread": lambda: Gunicorn("gthread"),
    # A worker that holds a slot answers nobody else.
    "preload-sync": lambda: Gunicorn("sync", workers=3, limits=Limits(slots=2)),
    "no-preload-uvicorn": lambda: Gunicorn(preload=False),
    "no-preload-gthread": lambda: Gunicorn("gthread", preload=False),
    "no-preload-sync": lambda: Gunicorn("sync", preload=False, workers=3, limits=Limits(slots=2)),
    "uvicorn-workers": lambda: Uvicorn(workers=2),
    "uvicorn-alone": lambda: Uvicorn(workers=1),
    "granian": lambda: Granian(workers=2),
}


@pytest.mark.parametrize("start", STARTS)
def test_workers_share_exact_limits_and_leave_nothing(start: str) -> None:
    with STARTS[start]() as server:
        with under_load(server) as run:
            one_region(server, server.workers)
            run.load.more(100)
        assert len(run.pids()) == server.workers, "not every worker was asked"
        can_be_filled(server)
        ends_without_trace(server)
