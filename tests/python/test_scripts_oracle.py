"""Proves that the eight native scripts answer what LiteLLM's own Lua texts answer in Redis."""

from __future__ import annotations

import ast
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fast_litellm._rust import LimiterScripts, OutOfRangeError, Region
from harness.proxy import RedisServer
from support import until

LONG_S = 36_000
"""A window that no test outlasts."""

SUBJECTS = ("{api_key:a}", "{user:b}", "{model_per_key:c:gpt:4}")
PARTS = ("requests", "tokens")

Reply = list[Any]


def script_texts() -> dict[str, str]:
    """The Lua texts of the installed LiteLLM by method name, read without importing all of LiteLLM."""
    package = importlib.util.find_spec("litellm")
    if package is None or not package.submodule_search_locations:
        pytest.skip("LiteLLM is not installed")
    folder = Path(package.submodule_search_locations[0])
    source = (folder / "proxy/hooks/parallel_request_limiter_v3.py").read_text()
    texts = {}
    for node in ast.parse(source).body:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(node, ast.Assign):
            target = node.targets[0]
        if isinstance(target, ast.Name) and target.id.endswith("_SCRIPT"):
            texts[target.id.removesuffix("_SCRIPT").lower()] = ast.literal_eval(node.value)
    # Older versions read without a script, in the way in which the newer ones do with one.
    texts.setdefault("batch_counter_read", "return redis.call('MGET', unpack(KEYS))")
    return texts


class Oracle:
    """LiteLLM's scripts in Redis."""

    def __init__(self, client: Any, texts: dict[str, str]) -> None:
        self.client = client
        self._scripts = {name: client.register_script(text) for name, text in texts.items()}

    def __call__(self, method: str, keys: Sequence[str], args: Sequence[object]) -> Reply:
        return list(self._scripts[method](keys=keys, args=args))


class Native:
    """The same scripts in a region of their own."""

    def __init__(self) -> None:
        self.region = Region.create("oracle", keys=1024, lease_chunks=64, workers=4)
        self._scripts = LimiterScripts(self.region)

    def __call__(self, method: str, keys: Sequence[str], args: Sequence[object]) -> Reply:
        return list(getattr(self._scripts, method)(keys, args))


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    redis = pytest.importorskip("redis")
    if RedisServer.is_available():
        with RedisServer() as server:
            client = redis.Redis.from_url(server.url, decode_responses=True)
            yield Oracle(client, script_texts())
            client.close()
        return
    fakeredis = pytest.importorskip("fakeredis", reason="neither redis-server nor fakeredis")
    pytest.importorskip("lupa", reason="fakeredis runs no scripts without lupa")
    client = fakeredis.FakeRedis(decode_responses=True)
    yield Oracle(client, script_texts())
    client.close()


@pytest.fixture
def both(oracle: Oracle) -> Pair:
    return Pair(oracle)


class Pair:
    """Redis and a region with the same history. Every call goes to both and must get one answer.

    The one thing that may differ is the number by which a window is called: Redis and the region read
    their clocks one after the other, so that a second may begin in between. `starts` holds both names
    of each subject's present window.
    """

    def __init__(self, oracle: Oracle) -> None:
        oracle.client.flushdb()
        self.oracle, self.native = oracle, Native()
        self.starts: dict[str, tuple[int, int]] = {}

    def same(self, method: str, keys: Sequence[str], args: Sequence[object] = ()) -> Reply:
        """Call both with the same arguments and compare the replies as they are."""
        expected, found = self.oracle(method, keys, args), self.native(method, keys, args)
        assert found == expected, f"{method} {keys} {args}"
        return expected

    def hit(self, pairs: Sequence[tuple[str, str]], size_s: int = LONG_S) -> Reply:
        """BATCH_RATE_LIMITER: counts, without the window starts."""
        # `now` is the caller's; the region goes by its own clock and ignores it.
        args = (int(time.time()), size_s)
        keys = keys_of(pairs)
        expected = self.oracle("batch_rate_limiter", keys, args)
        found = self.native("batch_rate_limiter", keys, args)
        assert [type(value) for value in found] == [type(value) for value in expected]
        for (subject, _), theirs, ours in zip(pairs, expected[::2], found[::2], strict=True):
            self._note(subject, int(theirs), int(ours))
        assert found[1::2] == expected[1::2]
        return expected[1::2]

    def ask(self, asks: Sequence[tuple[str, str, int, int]], size_s: int = LONG_S) -> Reply:
        """CHECK_AND_INCREMENT_BY_N of (subject, part, limit, amount): the counts or the refusal."""
        args = [value for ask in asks for value in (*ask[2:], size_s, size_s)]
        keys = keys_of([ask[:2] for ask in asks])
        expected = self.oracle("check_and_increment_by_n", keys, args)
        found = self.native("check_and_increment_by_n", keys, args)
        if expected[0] == 1:
            assert found == expected
            return expected
        for ask, theirs, ours in zip(asks, expected[2::2], found[2::2], strict=True):
            self._note(ask[0], theirs, ours)
        assert [found[0], *found[1::2]] == [expected[0], *expected[1::2]]
        return [0, *expected[1::2]]

    def guarded(self, steps: Sequence[tuple[str, str, str, int]]) -> Reply:
        """WINDOW_GUARDED_TOKEN_INCREMENT of (subject, part, start, amount); `start` is a format."""

        def args(side: int) -> list[object]:
            return [
                value
                for subject, _, start, amount in steps
                for value in (start.format(self.starts.get(subject, (1, 1))[side]), amount, LONG_S)
            ]

        keys = keys_of([step[:2] for step in steps])
        expected = self.oracle("window_guarded_token_increment", keys, args(0))
        found = self.native("window_guarded_token_increment", keys, args(1))
        assert found == expected, f"{steps} with {self.starts}"
        return expected

    def read(self, keys: Sequence[str]) -> Reply:
        """BATCH_COUNTER_READ; window starts are compared by which window they name."""
        expected = self.oracle("batch_counter_read", keys, [])
        found = self.native("batch_counter_read", keys, [])
        for key, theirs, ours in zip(keys, expected, found, strict=True):
            if key.endswith(":window") and theirs is not None:
                assert (int(theirs), int(ours)) == self.starts[key.removesuffix(":window")]
                assert type(theirs) is type(ours)
            else:
                assert ours == theirs, key
        return expected

    def at_most_all(self, key: str, amount: int) -> int:
        """Not below zero: that is an intended difference, which has a test of its own."""
        return max(amount, -int(self.oracle.client.get(key) or 0))

    def _note(self, subject: str, theirs: int, ours: int) -> None:
        # Same window as before on both sides, or a new one on both sides.
        if self.starts.get(subject) == (theirs, ours):
            return
        assert abs(theirs - ours) <= 1
        before = self.starts.get(subject)
        assert before is None or (theirs > before[0] and ours > before[1])
        self.starts[subject] = (theirs, ours)


def keys_of(pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [key for subject, part in pairs for key in (f"{subject}:window", f"{subject}:{part}")]


subjects = st.sampled_from(SUBJECTS)
counters = st.tuples(subjects, st.sampled_from(PARTS))
counter_keys = counters.map(":".join) | st.sampled_from(["spend:team", "{odd}:other", "x"])
gauge_keys = subjects.map("{}:max_parallel_requests".format)
any_keys = counter_keys | subjects.map("{}:window".format) | gauge_keys
amounts = st.integers(-5, 20) | st.sampled_from([0, 1, 10**6])
slot_ids = st.sampled_from(["a", "b", "c", "d", "é", ""])
ttls = st.sampled_from([0, LONG_S])
gauge_limits = st.integers(0, 4) | st.just(-1)

Step = Callable[[Pair], object]


def batches(items: st.SearchStrategy[Any], key: Callable[[Any], object] | None = None) -> Any:
    """One to three of the items; with `key`, no two of the same key."""
    return st.lists(items, min_size=1, max_size=3, unique_by=key)


hits = batches(counters).map(lambda pairs: lambda both: both.hit(pairs))
# A counter twice in one call is an intended difference; it has a test of its own.
asks = batches(
    st.tuples(subjects, st.sampled_from(PARTS), st.integers(-1, 12), st.integers(0, 5)),
    key=lambda ask: ask[:2],
).map(lambda asked: lambda both: both.ask(asked))
guards = batches(
    st.tuples(
        subjects,
        st.sampled_from(PARTS),
        st.sampled_from(["{}", "{}", "{}", "1{}", "{}.0", " {}", "", "x", "-1", "0"]),
        amounts,
    ),
    key=lambda step: step[:2],
).map(
    lambda steps: (
        lambda both: both.guarded(
            [(*step[:3], both.at_most_all(":".join(step[:2]), step[3])) for step in steps]
        )
    )
)
increments = batches(st.tuples(counter_keys, amounts, ttls), key=lambda item: item[0]).map(
    lambda items: (
        lambda both: both.same(
            "token_increment",
            [key for key, *_ in items],
            [x for key, n, ttl in items for x in (both.at_most_all(key, n), ttl)],
        )
    )
)
reads = batches(any_keys).map(lambda keys: lambda both: both.read(keys))
releases = batches(st.tuples(gauge_keys, slot_ids)).map(
    lambda items: (
        lambda both: both.same("parallel_release", [i[0] for i in items], [i[1] for i in items])
    )
)
gauge_counts = batches(gauge_keys).map(
    lambda keys: lambda both: both.same("parallel_count", keys, [LONG_S] * len(keys))
)


@st.composite
def acquires(draw: st.DrawFn) -> Step:
    """Slots under one to three keys at once. Ids are new: LiteLLM makes one up for every request."""
    wanted = draw(batches(st.tuples(gauge_keys, gauge_limits), key=lambda item: item[0]))
    slot_id = draw(slot_ids)

    def step(both: Pair) -> None:
        both.same("parallel_release", [key for key, _ in wanted], [slot_id] * len(wanted))
        args = [value for _, limit in wanted for value in (limit, LONG_S, slot_id)]
        both.same("parallel_acquire", [key for key, _ in wanted], args)

    return step


@settings(max_examples=200)
@given(st.lists(st.one_of(hits, asks, guards, increments, reads), min_size=1, max_size=25))
def test_any_history_of_counters(oracle: Oracle, steps: list[Step]) -> None:
    both = Pair(oracle)
    for step in steps:
        step(both)
    both.read([f"{subject}:{part}" for subject in SUBJECTS for part in ("window", *PARTS)])


@settings(max_examples=200)
@given(
    st.lists(st.one_of(acquires(), releases, gauge_counts, hits, reads), min_size=1, max_size=25)
)
def test_any_history_of_slots(oracle: Oracle, steps: list[Step]) -> None:
    both = Pair(oracle)
    for step in steps:
        step(both)
    keys = [f"{subject}:max_parallel_requests" for subject in SUBJECTS]
    both.same("parallel_count", keys, [LONG_S] * len(keys))


KEY, OTHER = SUBJECTS[:2]
GAUGE, OTHER_GAUGE = (f"{subject}:max_parallel_requests" for subject in SUBJECTS[:2])


def test_arguments_may_be_texts(both: Pair) -> None:
    """As they are when they come from a Redis client's queue."""
    assert both.same("token_increment", ["x"], ["3", "100"]) == ["3"]
    assert both.same("parallel_acquire", [GAUGE], ["1", str(LONG_S), "a"]) == [0, 1]
    assert both.same("parallel_acquire", [GAUGE], ["1", str(LONG_S), "b"]) == [1, 1, 1, 1]
    assert both.same("parallel_count", [GAUGE], [str(LONG_S)]) == [1]
    found = both.native(
        "check_and_increment_by_n", keys_of([(KEY, "tokens")]), ["9", "4", "60", "60"]
    )
    assert found[:2] == [0, 4]


@pytest.mark.parametrize("start", ["0{}", "+{}"])
def test_a_window_start_is_compared_as_text(both: Pair, start: str) -> None:
    both.hit([(KEY, "requests")])
    assert both.guarded([(KEY, "requests", start, 1)]) == [0, 1]


def test_a_refusal_takes_nothing(both: Pair) -> None:
    both.same("parallel_acquire", [OTHER_GAUGE], [1, LONG_S, "a"])
    asked = [5, LONG_S, "b", 1, LONG_S, "b"]
    assert both.same("parallel_acquire", [GAUGE, OTHER_GAUGE], asked) == [1, 2, 1, 1]
    assert both.same("parallel_count", [GAUGE, OTHER_GAUGE], [LONG_S] * 2) == [0, 1]
    both.hit([(KEY, "requests")])
    refused = [(OTHER, "tokens", 10, 3), (KEY, "requests", 1, 1)]
    assert both.ask(refused) == [1, 2, 1, 1]
    assert both.read(keys_of([(OTHER, "tokens")])) == [None, None]


@pytest.mark.parametrize("opens", PARTS)
@pytest.mark.parametrize("script", ["batch", "check"])
def test_the_first_window_drops_what_was_counted_before_it(
    both: Pair, script: str, opens: str
) -> None:
    tokens, requests = (f"{KEY}:{part}" for part in ("tokens", "requests"))
    assert both.same("token_increment", [tokens, requests], [7, LONG_S, 8, 0]) == ["7", "8"]
    if script == "batch":
        assert both.hit([(KEY, opens)]) == [1]
    else:
        assert both.ask([(KEY, opens, 1, 1)]) == [0, 1]
    expected = {"tokens": [None, "1"], "requests": ["1", None]}[opens]
    assert both.read([requests, tokens]) == expected


# Intended differences


def test_difference_a_counter_asked_twice_is_checked_cumulatively(both: Pair) -> None:
    """Redis checks both before it adds either, and so lets the sum pass the limit."""
    keys, args = keys_of([(KEY, "tokens")] * 2), [10, 6, 60, 60] * 2
    expected = both.oracle("check_and_increment_by_n", keys, args)
    # In a new window the second SET even overwrites the first.
    assert expected[:2] + expected[3:4] == [0, 6, 6]
    assert both.native("check_and_increment_by_n", keys, args) == [1, 2, 6, 10]
    assert both.native("batch_counter_read", keys, [])[1] in ("0", None)
    expected = both.oracle("check_and_increment_by_n", keys, [10, 2, 60, 60] * 2)
    assert expected[:2] + expected[3:4] == [0, 8, 10]


def test_difference_the_callers_clock_is_ignored(both: Pair) -> None:
    """Redis opens BATCH's windows at the `now` it is told; the region goes by its own clock."""
    keys = keys_of([(KEY, "requests")])
    assert both.oracle("batch_rate_limiter", keys, [1_000, 60])[0] == "1000"
    start = int(both.native("batch_rate_limiter", keys, [1_000, 60])[0])
    assert abs(start - time.time()) <= 2


def test_difference_tokens_end_with_their_window(both: Pair) -> None:
    """In Redis they have an expiry of their own, and are dropped by the next reset only."""
    tokens = f"{KEY}:tokens"
    begin_early_in_a_second()
    both.hit([(KEY, "requests")], size_s=1)
    both.same("token_increment", [tokens], [7, 100])
    wait_for_end_of_window(both, KEY)
    assert both.oracle("batch_counter_read", [tokens], []) == ["7"]
    assert both.native("batch_counter_read", [tokens], []) == [None]
    both.hit([(KEY, "requests")], size_s=100)
    assert both.read([tokens]) == [None]


def test_difference_a_slot_that_is_held_already_is_kept(both: Pair) -> None:
    """In Redis the same id once more takes no second slot either, but does find the gauge full."""
    args = [2, LONG_S, "a"]
    assert both.same("parallel_acquire", [GAUGE], args) == [0, 1]
    assert both.same("parallel_acquire", [GAUGE], args) == [0, 1]
    assert both.oracle("parallel_acquire", [GAUGE], [1, LONG_S, "a"]) == [1, 1, 1, 1]
    assert both.native("parallel_acquire", [GAUGE], [1, LONG_S, "a"]) == [0, 1]
    assert both.same("parallel_count", [GAUGE], [LONG_S]) == [1]


@pytest.mark.parametrize("amount", [0.5, "1.25"])
def test_difference_fractions_are_rounded_up(both: Pair, amount: float | str) -> None:
    """Counters are whole numbers here; LiteLLM counts in whole tokens anyway."""
    assert float(both.oracle("token_increment", ["x"], [amount, 0])[0]) == float(amount)
    assert both.native("token_increment", ["x"], [amount, 0]) == [str(int(float(amount)) + 1)]


def test_difference_taking_back_too_much_gives_no_credit(both: Pair) -> None:
    """Redis counts below zero, and would admit that much more."""
    both.hit([(KEY, "requests")])
    keys, start = keys_of([(KEY, "requests")]), both.starts[KEY]
    for side, name, counts in ((both.oracle, start[0], [-4, -7]), (both.native, start[1], [0, 0])):
        assert side("window_guarded_token_increment", keys, [name, -5, 60]) == [1, counts[0]]
        assert side("token_increment", keys[1:], [-3, 60]) == [str(counts[1])]


def test_difference_keys_of_two_subjects_are_refused(both: Pair) -> None:
    """A counter belongs to its own subject's window; LiteLLM never asks for anything else."""
    keys = [f"{KEY}:window", f"{OTHER}:requests"]
    assert both.oracle("batch_rate_limiter", keys, [int(time.time()), 60])[1] == 1
    with pytest.raises(OutOfRangeError):
        both.native("batch_rate_limiter", keys, [0, 60])


# Time


def begin_early_in_a_second() -> None:
    """So that the steps to come fall into one window, even into one of a second."""
    while time.time() % 1 > 0.5:
        time.sleep(0.01)


def wait_for_end_of_window(both: Pair, *keys: str) -> None:
    """Wait until both sides agree that the windows are over."""
    windows = [f"{key}:window" for key in keys]

    def over() -> bool:
        redis, region = (
            side("batch_counter_read", windows, []) for side in (both.oracle, both.native)
        )
        return set(redis + region) == {None}

    until(over, "end the windows", timeout_s=10)


def test_a_window_is_over_after_its_size(both: Pair) -> None:
    for count in (1, 2, 3):
        assert both.hit([(KEY, "requests"), (KEY, "tokens")], size_s=2) == [count, count]
    assert both.ask([(KEY, "tokens", 3, 1)], size_s=2) == [1, 1, 3, 3]
    wait_for_end_of_window(both, KEY)
    old = dict(both.starts)
    both.read(keys_of([(KEY, "requests"), (KEY, "tokens")]))
    assert both.ask([(KEY, "tokens", 3, 3), (KEY, "requests", 3, 1)], size_s=60) == [0, 3, 1]
    assert both.starts != old
    # What was charged to the old window is given back to nobody.
    new, both.starts = both.starts, old
    assert both.guarded([(KEY, "tokens", "{}", -3), (KEY, "requests", "{}", -1)]) == [0, 3, 0, 1]
    both.starts = new
    assert both.guarded([(KEY, "tokens", "{}", -2), (KEY, "requests", "{}", 5)]) == [1, 1, 1, 6]


@pytest.mark.parametrize("opens", PARTS)
def test_a_new_window_drops_both_counters(both: Pair, opens: str) -> None:
    """Also the one that did not open it."""
    begin_early_in_a_second()
    both.hit([(KEY, "requests"), (KEY, "tokens")], size_s=1)
    both.hit([(OTHER, "requests"), (OTHER, "tokens")], size_s=1)
    wait_for_end_of_window(both, KEY, OTHER)
    assert both.hit([(KEY, opens)], size_s=60) == [1]
    assert both.ask([(OTHER, opens, 5, 2)], size_s=60) == [0, 2]
    both.read([f"{subject}:{part}" for subject in (KEY, OTHER) for part in PARTS])
    assert both.ask([(KEY, "tokens", 5, 5 - (opens == "tokens"))])[0] == 0


def test_a_guarded_increment_after_the_end_changes_nothing(both: Pair) -> None:
    begin_early_in_a_second()
    both.hit([(KEY, "requests")], size_s=1)
    wait_for_end_of_window(both, KEY)
    assert both.guarded([(KEY, "requests", "{}", 3), (KEY, "tokens", "{}", 3)]) == [0, 0, 0, 0]
    both.read([f"{KEY}:{part}" for part in PARTS])


def test_counters_without_a_window_expire(both: Pair) -> None:
    keys = ["spend:team", f"{KEY}:tokens"]
    assert both.same("token_increment", keys, [7, 2, 8, 2]) == ["7", "8"]
    # An addition does not prolong its life.
    until(
        lambda: both.native("batch_counter_read", keys, []) == [None, None], "expire in the region"
    )
    until(lambda: both.oracle("batch_counter_read", keys, []) == [None, None], "expire in Redis")
    assert both.same("token_increment", keys, [1, 100, 1, 100]) == ["1", "1"]


def test_an_abandoned_slot_is_taken_over_after_its_time(both: Pair) -> None:
    keys, args = [GAUGE], [1, 2, "a"]
    assert both.same("parallel_acquire", keys, args) == [0, 1]
    assert both.same("parallel_acquire", keys, [1, 2, "b"]) == [1, 1, 1, 1]

    def taken_over(side: Callable[[str, Sequence[str], Sequence[object]], Reply]) -> bool:
        return side("parallel_acquire", keys, [1, 2, "b"]) == [0, 1]

    until(lambda: taken_over(both.native), "expire in the region")
    until(lambda: taken_over(both.oracle), "expire in Redis")
    # The old holder's release frees nobody else's slot.
    assert both.same("parallel_release", keys, ["a"]) == [1]
    assert both.same("parallel_release", keys, ["b"]) == [0]


def test_a_count_leaves_out_slots_past_their_time(both: Pair) -> None:
    """Also while there is room."""
    both.same("parallel_acquire", [GAUGE], [5, 1, "a"])
    until(lambda: both.oracle("parallel_count", [GAUGE], [1]) == [0], "expire in Redis")
    until(lambda: both.native("parallel_count", [GAUGE], [1]) == [0], "expire in the region", 3)
