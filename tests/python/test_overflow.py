"""Proves what becomes of keys without room: idle ones make it; where none is idle, the policy decides."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fast_litellm._rust import (
    LimiterScripts,
    OutOfRangeError,
    Region,
    SimpleRateLimiter,
    UnavailableError,
)
from layout_document import LayoutDocument
from region_reader import RegionReader
from support import Forked, Worker, forked, run_python, until

KEYS = 1000
BUCKETS = 1504
"""Half as many buckets again, in groups of eight."""
DAY_S = 86_400
NO_ROOM = {
    "allowed": False,
    "reason": "table_full",
    "remaining_requests": 0,
    "retry_after_ms": 1000,
}


def make(overflow: str = "deny") -> Region:
    return Region.create(
        "overflow", keys=KEYS, lease_chunks=64, workers=16, deployments=64, overflow=overflow
    )


def report_of(region: Region) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(region.inspect())
    return report


def stats_of(region: Region) -> dict[str, int]:
    stats: dict[str, int] = report_of(region)["stats"]
    return stats


def admit(scripts: LimiterScripts, subject: str, limit: int, size_s: int = DAY_S) -> bool:
    """Charge one request to a window of its own."""
    keys = [f"{{{subject}}}:window", f"{{{subject}}}:requests"]
    return scripts.check_and_increment_by_n(keys, [limit, 1, size_s, size_s])[0] == 0


def acquire(scripts: LimiterScripts, subject: str, limit: int, slot_id: str) -> bool:
    key = f"{{{subject}}}:max_parallel_requests"
    return scripts.parallel_acquire([key], [limit, DAY_S, slot_id])[0] == 0


@contextmanager
def policy(region: Region, overflow: str) -> Iterator[None]:
    before = region.overflow
    region.overflow = overflow
    yield
    region.overflow = before


def fill(region: Region) -> None:
    """Put a key that is in use into every bucket."""
    scripts = LimiterScripts(region)
    with policy(region, "deny"):
        for n in range(50 * BUCKETS):
            with suppress(UnavailableError):
                admit(scripts, f"filler:{n}", 5)
            if n % 100 == 0 and report_of(region)["header"]["keys"] == BUCKETS:
                return
    raise AssertionError("the table does not become full")


@pytest.fixture
def full() -> Iterator[Region]:
    """A region in which every bucket is in use for a day."""
    region = make()
    fill(region)
    yield region
    region.leave()


# No room


def test_deny_refuses_and_counts_it(full: Region) -> None:
    assert full.overflow == "deny"
    limiter, scripts = SimpleRateLimiter(1, burst=3, region=full), LimiterScripts(full)
    before = stats_of(full)
    assert [limiter.check(key) for key in ("a", "b", "a")] == [NO_ROOM] * 3
    assert limiter.is_allowed("c") is False
    for work in (
        lambda: admit(scripts, "user:a", 5),
        lambda: acquire(scripts, "user:a", 5, "s"),
        lambda: scripts.add("spend:a", 1, DAY_S),
    ):
        with pytest.raises(UnavailableError, match=r"no room.*raise FAST_LITELLM_SHM_KEYS"):
            work()
    assert scripts.value("{user:a}:requests") is None
    after = stats_of(full)
    for counter in ("table_full", "overflow_denied"):
        assert after[counter] - before[counter] == 7
    assert (after["overflow_shared"], after["overflow_local"]) == (0, 0)
    # What has room goes on, exactly.
    assert [admit(scripts, "filler:0", 5) for _ in range(6)] == [True] * 4 + [False] * 2


def test_shared_keys_have_one_quota_together_over_all_processes(full: Region) -> None:
    full.overflow = "shared"
    limiter = SimpleRateLimiter(1, burst=5, region=full)

    def admitted(keys: str) -> int:
        return sum(limiter.is_allowed(key) for key in keys)

    with Worker(limiter) as other:
        assert admitted("ab") == 2
        assert [other.call("is_allowed", key) for key in "ac"] == [True, True]
        assert admitted("def") == 1
        assert other.call("is_allowed", "g") is False
        assert other.call("get_remaining", "anything") == limiter.get_remaining("a") == 0
    # Another limiter's keys share among themselves.
    assert forked(lambda: SimpleRateLimiter(1, burst=2, region=full).is_allowed("a")) is True
    assert SimpleRateLimiter(1, burst=2, region=full).get_remaining("b") == 1
    stats = stats_of(full)
    assert stats["overflow_shared"] == stats["table_full"] - stats["overflow_denied"] > 0
    shown = [limit for limit in report_of(full)["limits"] if limit["key"] == "(keys without room)"]
    assert sorted(limit["requests"]["used"] for limit in shown) == [1, 5]


def test_shared_windows_and_slots_hold_together_over_all_processes(full: Region) -> None:
    full.overflow = "shared"
    scripts = LimiterScripts(full)

    def child() -> list[bool]:
        own = LimiterScripts(full)
        slots = [acquire(own, f"user:{n}", 4, f"child-{n}") for n in range(3)]
        return [admit(own, f"user:{n}", 5) for n in range(3)] + slots

    assert [admit(scripts, f"team:{n}", 5) for n in range(2)] == [True, True]
    assert [acquire(scripts, f"team:{n}", 4, f"slot-{n}") for n in range(2)] == [True, True]
    assert forked(child) == [True, True, True, True, True, False]
    assert admit(scripts, "user:x", 5) is False
    key = "{user:x}:max_parallel_requests"
    # The child is gone, and so are its slots.
    assert full.reap() == 1
    assert scripts.parallel_count([key], [DAY_S]) == [2]
    assert scripts.parallel_release(["{team:0}:max_parallel_requests"], ["slot-0"]) == [1]


def test_local_keys_have_a_quota_in_each_process(full: Region) -> None:
    full.overflow = "local"
    limiter, scripts = SimpleRateLimiter(1, burst=3, region=full), LimiterScripts(full)

    def child() -> list[int]:
        limits = [sum(limiter.is_allowed(key) for _ in range(9)) for key in ("a", "b")]
        own = LimiterScripts(full)
        return [*limits, sum(admit(own, "user:u", 4) for _ in range(9))]

    assert [Forked(child).result() for _ in range(2)] == [[3, 3, 4]] * 2
    assert sum(limiter.is_allowed("a") for _ in range(9)) == 3
    assert sum(admit(scripts, "user:u", 4) for _ in range(9)) == 4
    assert scripts.value("{user:u}:requests") == 4
    stats = stats_of(full)
    assert stats["overflow_local"] == stats["table_full"] - stats["overflow_denied"] > 0
    # Nothing of it is in the region.
    assert not [limit for limit in report_of(full)["limits"] if limit["key"] in ("a", "user:u")]


def test_slots_of_a_key_without_room_stay_below_the_limit_in_a_process(full: Region) -> None:
    full.overflow = "local"
    scripts = LimiterScripts(full)
    assert [acquire(scripts, "user:u", 2, f"slot-{n}") for n in range(3)] == [True, True, False]
    key = "{user:u}:max_parallel_requests"
    assert scripts.parallel_release([key], ["slot-0"]) == [1]
    assert acquire(scripts, "user:u", 2, "slot-3") is True
    assert scripts.parallel_release([key, key], ["slot-1", "slot-3"])[-1] == 0


# The setting


def test_the_policy_is_everybodys_and_can_be_changed(region: Region) -> None:
    with Worker(_Policy(region)) as other:
        assert other.call("get") == region.overflow == "deny"
        region.overflow = "shared"
        assert other.call("get") == "shared"
        other.call("set", "local")
        assert region.overflow == "local"
        assert json.loads(region.inspect())["header"]["keys"] == 0


class _Policy:
    def __init__(self, region: Region) -> None:
        self._region = region

    def get(self) -> str:
        return self._region.overflow

    def set(self, overflow: str) -> None:
        self._region.overflow = overflow


@pytest.mark.parametrize("overflow", ["deny", "shared", "local"])
def test_the_policy_comes_from_the_environment(overflow: str) -> None:
    done = run_python(
        "from fast_litellm import _native; print(_native.default_region().overflow)",
        env={"FAST_LITELLM_SHM_OVERFLOW": f" {overflow} "},
    )
    assert done.stdout == f"{overflow}\n"


@pytest.mark.parametrize("overflow", ["", "evict", "Deny", "deny,shared", "\0"])
def test_an_unknown_policy_is_named_with_the_remedy_and_changes_nothing(
    region: Region, overflow: str
) -> None:
    def assign() -> None:
        region.overflow = overflow

    for work in (assign, lambda: make(overflow)):
        with pytest.raises(OutOfRangeError, match="use deny, shared or local") as raised:
            work()
        assert f"FAST_LITELLM_SHM_OVERFLOW={overflow} " in str(raised.value)
    assert region.overflow == "deny"


@pytest.mark.parametrize("overflow", [None, 1, b"deny"])
def test_a_policy_that_is_no_text_is_a_type_error(region: Region, overflow: Any) -> None:
    with pytest.raises(TypeError, match="'str'"):
        region.overflow = overflow
    assert region.overflow == "deny"


# Making room


def test_idle_keys_make_room_and_totals_never_go_back() -> None:
    region = make()
    limiter = SimpleRateLimiter(60_000, burst=1, region=region)
    seen = 0
    for n in range(10 * BUCKETS):
        # A key is idle again a millisecond after it was charged.
        until(lambda n=n: limiter.is_allowed(f"key-{n}"), "find room")
        if n % 500 == 0:
            stats = limiter.get_stats()
            assert stats["total_checks"] >= seen
            assert stats["allowed_count"] == n + 1
            seen = stats["total_checks"]
    stats, counters = limiter.get_stats(), stats_of(region)
    assert stats["allowed_count"] == 10 * BUCKETS
    assert stats["active_keys"] <= BUCKETS
    # All the others were given up, each once; the limiter's tally is a key, too.
    assert counters["keys_reclaimed"] == 10 * BUCKETS - stats["active_keys"]
    assert counters["table_full"] == counters["overflow_denied"]
    # Their names are gone as well: every key that is shown is one of those that stand.
    limits = report_of(region)["limits"]
    assert len(limits) == stats["active_keys"] == len({limit["key"] for limit in limits})


def test_totals_of_each_rate_are_kept_apart() -> None:
    region = make()
    fast = SimpleRateLimiter(60_000, burst=1, region=region)
    faster = SimpleRateLimiter(120_000, burst=1, region=region)
    for n in range(2 * BUCKETS):
        until(lambda n=n: fast.is_allowed(f"a{n}"), "find room")
        until(lambda n=n: faster.is_allowed(f"b{n}"), "find room")
    assert fast.get_stats()["allowed_count"] == 2 * BUCKETS
    assert faster.get_stats()["allowed_count"] == 2 * BUCKETS
    assert region.limiter_stats()["allowed_count"] == 4 * BUCKETS


def counted_in_free_buckets(name: str) -> int:
    path = next(
        fd for fd in Path("/proc/self/fd").iterdir() if fd.exists() and name in os.readlink(fd)
    )
    with RegionReader.map(path, LayoutDocument.load()) as reader:
        return reader.admissions_in_free_buckets()


def test_children_that_make_room_at_once_lose_no_admission() -> None:
    region = Region.create("tallies", keys=KEYS, lease_chunks=64, workers=16)
    limiter = SimpleRateLimiter(60_000, burst=1, region=region)

    def churn(number: int) -> int:
        return sum(limiter.is_allowed(f"{number}-{n}") for n in range(5 * BUCKETS))

    children = [Forked(lambda number=number: churn(number)) for number in range(3)]
    admitted = sum(child.result() for child in children)
    assert stats_of(region)["keys_reclaimed"] > 0
    # A new key is refused only for want of room, and then it is counted as that.
    stats = limiter.get_stats()
    assert admitted + stats_of(region)["overflow_denied"] == 15 * BUCKETS
    assert stats["denied_count"] == 0
    # A count may stand in a bucket that is free at the moment; it is counted again with its next key.
    total = region.limiter_stats()["allowed_count"]
    assert total + counted_in_free_buckets("tallies") == admitted
    # Of two that give up one key, the later one may see it without its limits, which the other has just
    # cleared. What was counted in between is then the region's and no limiter's: very little.
    assert total - admitted // 100 <= stats["allowed_count"] <= total


def test_what_is_owed_or_held_is_never_given_up() -> None:
    region = make()
    scripts = LimiterScripts(region)
    slow = SimpleRateLimiter(1, burst=3, region=region)
    assert [slow.is_allowed("owes") for _ in range(4)] == [True, True, True, False]
    assert [admit(scripts, "user:open", 2) for _ in range(3)] == [True, True, False]
    assert acquire(scripts, "user:holds", 1, "slot")
    assert scripts.add("spend:alive", 7, DAY_S) == 7
    for n in range(KEYS):
        assert admit(scripts, f"filler:{n}", 5, size_s=1)
    until(lambda: scripts.value(f"{{filler:{n}}}:window") is None, "end the windows")
    crowd(SimpleRateLimiter(1, burst=9, region=region).is_allowed)
    assert stats_of(region)["keys_reclaimed"] > KEYS - 100
    assert slow.get_remaining("owes") == 0
    assert scripts.value("{user:open}:requests") == 2
    assert scripts.value("spend:alive") == 7
    assert scripts.holds_slot("{user:holds}:max_parallel_requests", "slot")
    assert acquire(scripts, "user:holds", 1, "another") is False
    assert scripts.parallel_release(["{user:holds}:max_parallel_requests"], ["slot"]) == [0]


def crowd(use: Callable[[str], bool]) -> None:
    """Use more keys than there is room for."""
    used = [use(f"crowd-{n}") for n in range(3 * BUCKETS)]
    assert used.count(True) > KEYS
    assert used.count(False) > BUCKETS
