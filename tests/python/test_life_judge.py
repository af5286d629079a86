"""Proves that what breaks a limit by little is noticed, by servers that break one each."""

from __future__ import annotations

import contextlib

from harness.life.servers import Gunicorn
from lives import loading

SABOTAGE = {
    "": set(),
    "a region each": {"rate", "counts", "slots", "connections"},
    "one slot more": {"slots", "connections"},
    "a larger burst": {"rate"},
    "a count lost": {"counts"},
    "a slot leaked": {"slots"},
}


def test_a_limit_that_is_broken_is_noticed() -> None:
    with contextlib.ExitStack() as stack:
        runs = {}
        for sabotage in SABOTAGE:
            server = Gunicorn(preload=False, environment={"LIFE_SABOTAGE": sabotage})
            # All of them at once.
            server.bears = (50, 30)
            stack.enter_context(server)
            runs[sabotage] = stack.enter_context(loading(server))
        for run in runs.values():
            run.server.until(lambda r=run: len(r.pids()) == 2, "answer by every worker")
            run.load.more(60)
        stack.close()
    noticed = {
        name: {each.partition(":")[0] for each in run.verdict()} for name, run in runs.items()
    }
    assert noticed == SABOTAGE
