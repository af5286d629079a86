"""Proves what the rate limiter promises: its answers, its errors, who shares a quota, and the rate."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fast_litellm
from fast_litellm import OutOfRangeError, SimpleRateLimiter
from fast_litellm._rust import Region
from support import Forked, forked, in_fork, run_python

CLOCK_MONOTONIC_COARSE = 6

BUCKETS = 1024 + 1024 // 2
"""Buckets of the region that the tests use."""

OK = {"allowed": True, "reason": "ok", "retry_after_ms": None}

HOSTILE_KEYS = [
    "",
    "\0",
    "a\0b",
    "x" * 10_000,
    "\ud800",
    "\udfff\ud800",
    "\U0010ffff",
    "é",
    "a:b/{c}",
]


def admitted(limiter: SimpleRateLimiter, tries: int, key: str | None = "k") -> int:
    return sum(limiter.is_allowed(key) for _ in range(tries))


# Answers


def test_check_explains_its_answer(region: Region) -> None:
    limiter = SimpleRateLimiter(1, burst=2, region=region)
    assert (limiter.requests_per_minute, limiter.burst) == (1, 2)
    assert limiter.get_remaining("k") == 2
    assert limiter.check("k") == {**OK, "remaining_requests": 1}
    assert limiter.get_remaining("k") == 1
    assert limiter.check("k") == {**OK, "remaining_requests": 0}
    refused = limiter.check("k")
    wait_ms = refused.pop("retry_after_ms")
    assert refused == {"allowed": False, "reason": "rate_limited", "remaining_requests": 0}
    assert 59_000 < wait_ms <= 60_000
    assert limiter.is_allowed("k") is False
    assert limiter.get_remaining("k") == 0
    assert limiter.get_stats() == {
        "requests_per_minute": 1,
        "burst": 2,
        "total_checks": 4,
        "allowed_count": 2,
        "denied_count": 2,
        "active_keys": 1,
    }


@pytest.mark.parametrize(
    ("rate", "burst"), [(1, 1), (3, 3), (5, 5), (49, 5), (50, 5), (60, 6), (6000, 600)]
)
def test_the_default_burst_is_a_tenth_but_at_least_five(
    region: Region, rate: int, burst: int
) -> None:
    limiter = SimpleRateLimiter(rate, region=region)
    assert limiter.burst == burst
    assert admitted(limiter, burst) == burst


def test_a_quota_fills_up_again(region: Region) -> None:
    limiter = SimpleRateLimiter(600, burst=2, region=region)  # one every 100 ms
    assert admitted(limiter, 3) == 2
    time.sleep(limiter.check("k")["retry_after_ms"] / 1000 + 0.02)
    assert limiter.is_allowed("k")


@in_fork
def test_the_modules_functions_use_the_regions_default_limiter() -> None:
    assert fast_litellm.check_rate_limit("a") == {**OK, "remaining_requests": 5}
    assert admitted(SimpleRateLimiter(), 20, "a") == 5
    assert fast_litellm.check_rate_limit("a")["reason"] == "rate_limited"
    assert SimpleRateLimiter().is_allowed("b")
    assert fast_litellm.get_rate_limit_stats() == {
        "total_checks": 23,
        "allowed_count": 7,
        "denied_count": 16,
        "active_keys": 2,
        "table_full": 0,
        "contended": 0,
    }


def test_no_key_is_the_key_named_default(region: Region) -> None:
    limiter = SimpleRateLimiter(60, burst=3, region=region)
    assert limiter.is_allowed()
    assert limiter.is_allowed(None)
    assert limiter.is_allowed("default")
    assert not limiter.is_allowed()
    assert (
        limiter.get_remaining()
        == limiter.get_remaining(None)
        == limiter.get_remaining("default")
        == 0
    )


def test_health_and_patch_status_of_a_live_process() -> None:
    done = run_python(
        """
        import json, fast_litellm
        print(json.dumps([fast_litellm.health_check(), fast_litellm.get_patch_status()]))
        """
    )
    assert done.stderr == ""
    health, status = json.loads(done.stdout)
    assert health.pop("region").keys() == {"backing", "size"}
    assert health == {
        "status": "ok",
        "rust_available": True,
        "components": ["core", "tokens", "connection_pool", "rate_limiter", "router"],
        "fallbacks": 0,
    }
    reasons = [seam.pop("reason") for seam in status["seams"].values()]
    assert all("has not loaded" in reason for reason in reasons)
    armed = ("deployments", "slots", "latency", "cost", "health_checks")
    assert status == {
        "applied": True,
        "components": ["rate_limiting", "routing", "token_counting"],
        "seams": {
            "rate_limiting": {"state": "armed"},
            "token_counting": {"state": "armed"},
            **{f"routing.{name}": {"state": "armed"} for name in armed},
        },
        "reason": "",
    }


# Keys


def test_any_text_is_a_key_of_its_own(region: Region) -> None:
    limiter = SimpleRateLimiter(60, burst=2, region=region)
    for key in HOSTILE_KEYS:
        assert limiter.get_remaining(key) == 2, ascii(key)[:30]
        assert limiter.check(key) == {**OK, "remaining_requests": 1}
        assert limiter.is_allowed(key)
        assert not limiter.is_allowed(key)
    assert limiter.get_stats()["active_keys"] == len(HOSTILE_KEYS)
    assert region.inspect()


@pytest.mark.parametrize("key", [5, 1.5, b"k", [], object(), ("k",), True])
@pytest.mark.parametrize("method", ["check", "is_allowed", "get_remaining"])
def test_anything_but_a_text_is_a_type_error(region: Region, method: str, key: object) -> None:
    limiter: Any = SimpleRateLimiter(60, region=region)
    with pytest.raises(TypeError, match=f"str.*{type(key).__name__}"):
        getattr(limiter, method)(key)
    assert limiter.get_stats()["total_checks"] == 0


@in_fork
def test_check_rate_limit_takes_texts_only() -> None:
    for key in (5, b"k", None):
        with pytest.raises(TypeError, match=f"str.*{type(key).__name__}"):
            fast_litellm.check_rate_limit(key)  # type: ignore[arg-type]


@settings(max_examples=50)
@given(st.lists(st.text(st.characters(), max_size=20), unique=True, min_size=2, max_size=10))
def test_different_texts_never_share(keys: list[str]) -> None:
    region = Region.create("keys", keys=1024, lease_chunks=64, workers=4)
    limiter = SimpleRateLimiter(1, burst=1, region=region)
    assert all(limiter.is_allowed(key) for key in keys)
    assert not any(limiter.is_allowed(key) for key in keys)


def test_a_known_hash_seed_lets_nobody_share() -> None:
    """With it a client could make up keys of one hash."""
    done = run_python(
        """
        import fast_litellm
        limiter = fast_litellm.SimpleRateLimiter(60, burst=2)
        print([limiter.is_allowed(key) for key in "aabbab"], limiter.get_stats()["active_keys"])
        """,
        env={"PYTHONHASHSEED": "0"},
    )
    assert done.stdout == "[True, True, True, True, False, False] 2\n"


# Rates


@pytest.mark.parametrize(
    "rate", [0, -1, -(2**40), 60_000_001, 2**31, 2**32 + 60, 2**63, 2**64 + 60]
)
def test_a_rate_out_of_range_is_named_with_the_remedy(region: Region, rate: int) -> None:
    with pytest.raises(OutOfRangeError, match=rf"(?s){rate}.*use a rate of 1 to 60000000"):
        SimpleRateLimiter(rate, region=region)


@pytest.mark.parametrize("burst", [0, -1, 2**31, 2**32 + 1, 2**63])
def test_a_burst_out_of_range_is_named_with_the_remedy(region: Region, burst: int) -> None:
    with pytest.raises(OutOfRangeError, match=rf"(?s)burst={burst}.*burst of at least 1"):
        SimpleRateLimiter(60, burst=burst, region=region)


def test_the_ends_of_the_range_work(region: Region) -> None:
    fastest = SimpleRateLimiter(60_000_000, region=region)
    assert fastest.burst == 6_000_000
    assert admitted(fastest, 1000) == 1000
    assert admitted(SimpleRateLimiter(1, region=region), 5) == 1
    year_of_burst = 365 * 24 * 60
    assert (
        SimpleRateLimiter(1, burst=year_of_burst, region=region).get_remaining("k") == year_of_burst
    )
    with pytest.raises(OutOfRangeError, match="year"):
        SimpleRateLimiter(1, burst=year_of_burst + 1, region=region)


@pytest.mark.parametrize("rate", [1.5, "60", None])
def test_a_rate_that_is_no_whole_number_is_a_type_error(region: Region, rate: Any) -> None:
    with pytest.raises(TypeError, match=type(rate).__name__):
        SimpleRateLimiter(rate, region=region)


# Sharing


def test_only_limiters_of_one_rate_burst_and_name_share(region: Region) -> None:
    kinds = [
        {"requests_per_minute": 60, "burst": 4},
        {"requests_per_minute": 61, "burst": 4},
        {"requests_per_minute": 60, "burst": 5},
        {"requests_per_minute": 60, "burst": 4, "name": "a"},
        {"requests_per_minute": 60, "burst": 4, "name": "b"},
    ]
    for kind in kinds:
        first, second = (SimpleRateLimiter(**kind, region=region) for _ in range(2))  # type: ignore[arg-type]
        assert first.is_allowed("k")
        assert second.get_remaining("k") == kind["burst"] - 1
        assert admitted(second, 20) == kind["burst"] - 1
        assert not first.is_allowed("k")


def test_regions_share_nothing(region: Region) -> None:
    other = Region.create("other", keys=1024, lease_chunks=64, workers=4)
    assert admitted(SimpleRateLimiter(1, burst=3, region=region), 5) == 3
    assert admitted(SimpleRateLimiter(1, burst=3, region=other), 5) == 3


def test_a_quota_is_shared_over_forks(region: Region) -> None:
    limiter = SimpleRateLimiter(1, burst=10, region=region)
    assert admitted(limiter, 2) == 2
    # An inherited limiter and one made in the child are the same.
    assert forked(lambda: admitted(limiter, 3)) == 3
    assert forked(lambda: admitted(SimpleRateLimiter(1, burst=10, region=region), 4)) == 4
    assert admitted(limiter, 5) == 1
    assert limiter.get_stats()["total_checks"] == 14


def test_children_at_once_never_pass_the_burst(region: Region) -> None:
    limiter = SimpleRateLimiter(1, burst=500, region=region)
    children = [Forked(lambda: admitted(limiter, 400)) for _ in range(4)]
    assert sum(child.result() for child in children) == 500


def test_threads_at_once_never_pass_the_burst(region: Region) -> None:
    limiter = SimpleRateLimiter(1, burst=500, region=region)
    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(lambda _: admitted(limiter, 100), range(8))) == 500


# Full table


def test_a_full_table_refuses_new_keys_and_counts_it(region: Region) -> None:
    # Slow enough that no key is idle again before the test is over: an idle one would make room.
    limiter = SimpleRateLimiter(1, burst=100, region=region)
    answers = [limiter.check(f"key-{n}") for n in range(3000)]
    refused = [answer for answer in answers if not answer["allowed"]]
    # As many keys as were asked for find room, and never more than there are buckets.
    assert all(answer["allowed"] for answer in answers[:1024])
    assert len(refused) >= 3000 - BUCKETS
    assert all(
        answer
        == {
            "allowed": False,
            "reason": "table_full",
            "remaining_requests": 0,
            "retry_after_ms": 1000,
        }
        for answer in refused
    )
    assert region.limiter_stats()["table_full"] == len(refused)
    # Keys that are in the table go on; the others stay out, whichever way they ask.
    new = next(f"key-{n}" for n, answer in enumerate(answers) if not answer["allowed"])
    assert limiter.is_allowed("key-0")
    assert limiter.is_allowed(new) is False
    assert region.limiter_stats()["table_full"] == len(refused) + 1


# The rate


class Model:
    """GCRA on paper: when the next request would be due, known to within what a clock can be read.

    Between `before` and `after` lies the reading on which the limiter decided, whether it goes by the
    fine clock or by the kernel's coarse one.
    """

    SLACK_S = 5e-6

    def __init__(self, rate: int, burst: int) -> None:
        self.interval = 60 / rate
        self.tolerance = self.interval * burst
        self.due_low = self.due_high = 0.0

    def expect(self, allowed: bool, before: float, after: float) -> None:
        room_low = before + self.tolerance - self.interval - max(self.due_high, before)
        room_high = after + self.tolerance - self.interval - max(self.due_low, after)
        if room_low > self.SLACK_S:
            assert allowed, f"refused with {room_low} s of room"
        if room_high < -self.SLACK_S:
            assert not allowed, f"admitted {-room_high} s too early"
        if allowed:
            self.due_low = max(self.due_low, before) + self.interval
            self.due_high = max(self.due_high, after) + self.interval


def read_before() -> float:
    return time.clock_gettime(CLOCK_MONOTONIC_COARSE)


@settings(max_examples=60)
@given(
    rate=st.sampled_from([600, 6_000, 60_000]),
    burst=st.integers(1, 6),
    steps=st.lists(st.sampled_from(["a", "a", "a", "b", 0.001, 0.004, 0.012]), max_size=40),
)
def test_decisions_follow_the_model(rate: int, burst: int, steps: Sequence[str | float]) -> None:
    region = Region.create("model", keys=1024, lease_chunks=64, workers=4)
    limiter = SimpleRateLimiter(rate, burst=burst, region=region)
    models = {key: Model(rate, burst) for key in ("a", "b")}
    for step in steps:
        if isinstance(step, float):
            time.sleep(step)
            continue
        before = read_before()
        answer = limiter.check(step)
        models[step].expect(answer["allowed"], before, time.monotonic())
        assert 0 <= answer["remaining_requests"] < burst
        if not answer["allowed"]:
            assert 0 < answer["retry_after_ms"] <= models[step].interval * 1000 + 1


def test_the_rate_is_never_exceeded(region: Region) -> None:
    limiter = SimpleRateLimiter(60_000, burst=100, region=region)
    start, got, unused_s = read_before(), 0, 0.0
    before = start
    while before - start < 0.3:
        got += limiter.is_allowed("k")
        now = time.monotonic()
        # As long as nobody asks, no more than the burst is kept.
        unused_s += max(0.0, now - before - 0.1)
        before = now
    elapsed = before - start
    assert got <= 100 + 1000 * elapsed + 1
    # And what is due is given to whoever asks often enough.
    assert got >= 100 + 1000 * (elapsed - unused_s) - 10
