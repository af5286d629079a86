"""Proves that what breaks a limit by little is noticed, by servers that break one each."""

from __future__ import annotations

import contextlib

from harness.life.client import Client, Load
from harness.life.judge import judge
from harness.life.servers import Gunicorn
from lives import key

SABOTAGE = {
    "": set(),
    "a region each": {"rate", "counts", "slots", "connections"},
    "one slot more": {"slots", "connections"},
    "a larger burst": {"rate"},
    "a smaller burst": {"rate"},
    "a count lost": {"counts"},
    "a slot leaked": {"slots"},
}


def test_a_limit_that_is_broken_is_noticed() -> None:
    noticed = {}
    with contextlib.ExitStack() as stack:
        servers = {
            sabotage: stack.enter_context(
                Gunicorn(preload=False, environment={"LIFE_SABOTAGE": sabotage})
            )
            for sabotage in SABOTAGE
        }
        clients = {each: stack.enter_context(Client(servers[each].port)) for each in SABOTAGE}
        with contextlib.ExitStack() as loading:
            loads = {
                each: loading.enter_context(Load(client, key(), per_second=50, ms=30))
                for each, client in clients.items()
            }
            for load in loads.values():
                load.more(100 - len(load.answers))
        for sabotage, load in loads.items():
            assert len({answer.pid for answer in load.answers}) == 2, "not every worker was asked"
            wrong = judge(load.answers, servers[sabotage].limits)
            noticed[sabotage] = {each.partition(":")[0] for each in wrong}
    assert noticed == SABOTAGE
