"""Proves that the pool without the extension keeps connections, pools and threads apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fast_litellm import _fallback_pool
from fast_litellm._rust import Region, SimpleConnectionPool
from support import forked

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
