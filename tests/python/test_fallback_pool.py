"""Proves that the pool without the extension keeps connections, pools and threads apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fast_litellm import _fallback_pool
from fast_litellm._rust import Region, SimpleConnectionPool, UnavailableError
from support import forked, run_python

Make = Callable[..., Any]


@pytest.fixture(params=["native", "fallback"])
def make(request: pytest.FixtureRequest, region: Region, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a pool: the extension's in a region of its own, or the one in plain Python."""
    if request.param == "native":
        return lambda *args, **kwargs: SimpleConnectionPool(*args, region=region, **kwargs)
    monkeypatch.setattr(_fallback_pool, "_pools", {})
    return _fallback_pool.SimpleConnectionPool


def test_an_id_of_another_pool_ends_nothing(make: Make) -> None:
    one, other = make("one"), make("other")
    theirs, mine = one.get_connection("x"), other.get_connection("x")
    assert not other.report(theirs, False)
    other.remove_connection(theirs)
    stats = other.get_stats()
    assert (stats["active_connections"], stats["stale_returns"]) == (1, 1)
    assert other.health_check(mine)


def test_an_id_of_the_parent_ends_nothing_of_its_child(make: Make) -> None:
    pool = make("one")
    held = [pool.get_connection("x") for _ in range(3)]

    def child() -> tuple[int, int]:
        for _ in held:
            pool.get_connection("x")
        active = pool.get_stats()["active_connections"]
        for each in held:
            pool.remove_connection(each)
        stats = pool.get_stats()
        return active - stats["active_connections"], stats["stale_returns"]

    assert forked(child) == (0, 3)


@pytest.mark.parametrize(("limits", "endpoint"), [((1, 9), "x"), ((9, 1), "x"), ((9, 1), "y")])
def test_a_limit_that_is_lowered_holds(make: Make, limits: tuple[int, int], endpoint: str) -> None:
    wide = make("one", max_per_endpoint=3, max_total=9)
    for each in [wide.get_connection("x") for _ in range(3)]:
        wide.return_connection(each)
    narrow = make("one", max_per_endpoint=limits[0], max_total=limits[1])
    assert narrow.get_connection(endpoint) is not None
    assert narrow.get_connection(endpoint) is None
    stats = narrow.get_stats()
    assert stats["active_connections"] == 1
    assert stats["total_connections"] <= limits[1]


def test_idle_connections_are_not_closed_in_vain(make: Make) -> None:
    wide = make("one", max_per_endpoint=3, max_total=9)
    held = [wide.get_connection("x") for _ in range(3)]
    wide.return_connection(held[0])
    narrow = make("one", max_per_endpoint=2, max_total=9)
    assert narrow.get_connection("x") is None
    assert wide.get_stats()["idle_connections"] == 1


def test_endpoints_that_look_alike_are_all_told(make: Make) -> None:
    pool = make("one")
    names = ["a?1", "a?2", "a (2)", "ab", "a?3"]
    assert all(pool.get_connection(each) for each in names)
    endpoints = pool.get_stats()["endpoints"]
    assert sum(endpoint["total"] for endpoint in endpoints.values()) == 5
    assert len(endpoints) == 5
    assert {"a", "a (2)", "a (3)", "ab"} < set(endpoints)


REENTRANT = """
import sys; sys.modules['fast_litellm._rust'] = None
import faulthandler; faulthandler.dump_traceback_later(20, exit=True)
import gc, warnings
warnings.simplefilter("ignore")
from fast_litellm import SimpleConnectionPool
pool = SimpleConnectionPool("p", max_per_endpoint=50, max_total=90)
"""


def test_an_error_that_uses_the_pool_is_told() -> None:
    done = run_python(
        REENTRANT
        + """
class Told(Exception):
    def __str__(self):
        return f"status 503 of {pool.get_stats()['total_connections']}"
a, b = pool.get_connection("x"), pool.get_connection("x")
print(pool.report(a, False, Told()))
pool.return_connection(b, False, Told())
print(pool.get_stats()["endpoints"]["x"]["last_failure"]["status"])"""
    )
    assert done.stdout.split() == ["True", "503"]


def test_what_is_collected_gives_its_connection_back() -> None:
    done = run_python(
        REENTRANT
        + """
class Holder:
    def __init__(self):
        self.id, self.me = pool.get_connection("x"), self
    def __del__(self):
        if self.id:
            (pool.return_connection if id(self) % 32 else pool.remove_connection)(self.id)
            pool.cleanup()
            pool.get_stats()
gc.set_threshold(1)
for _ in range(2_000):
    Holder()
    pool.get_connection("y")
    pool.cleanup()
gc.collect()
stats = pool.get_stats()
print(stats["endpoints"]["x"]["active"], stats["stale_returns"], stats["created"] > 40)"""
    )
    assert done.stdout.split() == ["0", "0", "True"]


def test_a_signal_handler_may_use_the_pool() -> None:
    done = run_python(
        REENTRANT
        + """
import signal, time
seen = []
def handle(*_):
    again = pool.get_connection("x")
    if again:
        pool.return_connection(again)
    seen.append(pool.get_stats()["total_connections"])
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
while len(seen) < 100:
    pool.return_connection(pool.get_connection("x"))
signal.setitimer(signal.ITIMER_REAL, 0)
stats = pool.get_stats()
print(stats["active_connections"], stats["stale_returns"])"""
    )
    assert done.stdout.split() == ["0", "0"]


def test_endpoints_that_nobody_needs_are_forgotten(make: Make) -> None:
    pool = make("one")
    held = pool.get_connection("held")
    failing = pool.get_connection("failing")
    assert pool.report(failing, False)
    pool.remove_connection(failing)
    for number in range(2_000):
        pool.remove_connection(pool.get_connection(f"h{number}"))
    stats = pool.get_stats()
    assert len(stats["endpoints"]) <= 512
    assert {"held", "failing"} < set(stats["endpoints"])
    assert pool.health_check(held)
    assert (stats["refused"], stats["stale_returns"]) == (0, 0)


def test_a_region_without_room_for_a_pool_says_so(region: Region) -> None:
    def make_many() -> None:
        for number in range(600):
            SimpleConnectionPool(f"p{number}", region=region)

    with pytest.raises(UnavailableError, match="no room for another pool"):
        make_many()
