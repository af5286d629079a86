"""Proves that what is measured is summed up truly, and that what is said of it follows from it.

Each test that can runs twice: on a region, and on the plain Python that stands in where there is none.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fast_litellm
from fast_litellm import _fallback_monitor, _monitor
from fast_litellm._comparison import compared
from fast_litellm._histogram import BUCKETS, Series, bucket_of, merged, upper_ns
from fast_litellm._recommendations import of_region, of_series
from fast_litellm._rust import Monitor, Region
from monitored import use
from support import Forked, run_python

Calls = list[tuple[str, int, bool, int, int]]

DURATIONS = st.one_of(
    st.integers(0, 1_000), st.integers(0, 10**9), st.integers(0, 10**12), st.just(86_400 * 10**9)
)
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),
        DURATIONS,
        st.booleans(),
        st.integers(0, 2**40),
        st.integers(0, 2**40),
    ),
    max_size=40,
)


@pytest.fixture(params=["region", "alone"])
def monitor(request: pytest.FixtureRequest, region: Region, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The monitor that the package uses: of a region of its own, or of this process."""
    on_region = request.param == "region"
    ours: Any = Monitor(region) if on_region else _fallback_monitor.Monitor()
    return use(monkeypatch, ours, region if on_region else None)


def record(component: str, operation: str, *durations_ms: float, **more: Any) -> None:
    for ms in durations_ms:
        fast_litellm.record_performance(component, operation, ms, **more)


def series_of(
    component: str, operation: str, *durations_ns: int, errors: int = 0, repeat: int = 1
) -> Series:
    counts = [0] * BUCKETS
    for ns in durations_ns:
        counts[bucket_of(ns)] += repeat
    total, longest = sum(durations_ns) * repeat, max(durations_ns, default=0)
    return Series(component, operation, errors, total, longest, 0, 0, counts)


# Recording


def test_what_is_recorded_is_summed_up(monitor: Any) -> None:
    record("rate_limiter", "check", 1.0, 3.0, input_size=10, output_size=4)
    record("rate_limiter", "check", 2.0, success=False)
    record("rate_limiter", "peek", 4.0, success=None)
    record("router", "choose", 0)
    stats = fast_litellm.get_performance_stats()
    assert list(stats) == ["rate_limiter", "router"]
    check = stats["rate_limiter"]["operations"]["check"]
    assert check["count"] == check["total_calls"] == 3
    assert check["errors"] == check["error_count"] == 1
    assert check["success_rate"] == pytest.approx(2 / 3)
    assert check["avg_ms"] == check["average_duration_ms"] == 2.0
    assert (check["max_ms"], check["total_ms"]) == (3.0, 6.0)
    assert 2.0 <= check["p50_ms"] <= 2.5
    assert check["p99_ms"] == 3.0
    assert check["throughput_ops"] == pytest.approx(500.0)
    assert (check["input_bytes"], check["output_bytes"]) == (20, 8)
    both = stats["rate_limiter"]
    assert (both["count"], both["errors"], both["max_ms"], both["total_ms"]) == (4, 1, 4.0, 10.0)
    assert stats["router"]["operations"]["choose"]["throughput_ops"] is None
    assert fast_litellm.get_performance_stats("router") == {"router": stats["router"]}
    assert fast_litellm.get_performance_stats("unheard") == {}


def test_nothing_is_said_of_nothing(monitor: Any) -> None:
    assert fast_litellm.get_performance_stats() == {}
    assert fast_litellm.get_recommendations() == []
    assert fast_litellm.export_performance_data() == "{}"
    compared_none = fast_litellm.compare_implementations("rust_x", "python_x")
    assert compared_none["rust_avg_ms"] is compared_none["speedup"] is None
    assert compared_none["recommendation"] == "insufficient_data"


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("", "x", 1.0), ValueError, "component is empty"),
        (("x", "", 1.0), ValueError, "operation is empty"),
        (("a.b", "x", 1.0), ValueError, "component='a.b' has a '.'"),
        (("a", "x y", 1.0), ValueError, "has a ' '"),
        (("a", "é", 1.0), ValueError, "has a 'é'"),
        (("a", "x\n", 1.0), ValueError, "ASCII letters"),
        (("a", "=1+1", 1.0), ValueError, "has a '='"),
        (("a" * 44, "b" * 44, 1.0), ValueError, "88 characters: use at most 87"),
        (("a" * 100, "b", 1.0), ValueError, "component has 100 characters"),
        ((None, "x", 1.0), TypeError, "component must be a str"),
        ((["a"], "x", 1.0), TypeError, "component must be a str"),
        (("a", b"x", 1.0), TypeError, "operation must be a str"),
        (("a", "x", -0.001), ValueError, "from 0 to 86,400,000"),
        (("a", "x", math.nan), ValueError, "duration_ms=nan"),
        (("a", "x", math.inf), ValueError, "duration_ms=inf"),
        (("a", "x", 86_400_001), ValueError, "milliseconds"),
        (("a", "x", 10**400), ValueError, "milliseconds"),
        (("a", "x", "1"), TypeError, "duration_ms must be a number, not str"),
        (("a", "x", None), TypeError, "duration_ms must be a number"),
        (("a", "x", True), TypeError, "duration_ms must be a number, not bool"),
        (("a", "x", 1j), TypeError, "duration_ms must be a number, not complex"),
        (("a", "x", 1, 1), TypeError, "success must be a bool or None"),
        (("a", "x", 1, True, -1), ValueError, "input_size=-1"),
        (("a", "x", 1, True, 2**63), ValueError, "input_size"),
        (("a", "x", 1, True, 1.5), TypeError, "input_size must be an int"),
        (("a", "x", 1, True, 0, "9"), TypeError, "output_size must be an int"),
        (("a", "x", 1, True, 0, False), TypeError, "output_size must be an int"),
    ],
)
def test_what_cannot_be_is_refused_and_not_recorded(
    monitor: Any, arguments: tuple[Any, ...], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=None) as caught:
        fast_litellm.record_performance(*arguments)
    assert says in str(caught.value)
    assert fast_litellm.get_performance_stats() == {}
    # Nor once the name is known.
    record("a", "x", 1.0)
    if arguments[:2] == ("a", "x"):
        with pytest.raises(error):
            fast_litellm.record_performance(*arguments)
        assert fast_litellm.get_performance_stats()["a"]["count"] == 1


def test_names_may_be_as_long_as_they_are_shown(monitor: Any) -> None:
    # What looks like a secret elsewhere: these are names of code.
    component, operation = (
        "python_connection_pool_of_the_second_kind",
        "get.available/deployment-x:y",
    )
    record(component, operation, 1.0)
    record("c" * 43, "o" * 44, 1.0)
    stats = fast_litellm.get_performance_stats()
    assert list(stats[component]["operations"]) == [operation]
    assert list(stats["c" * 43]["operations"]) == ["o" * 44]


@pytest.mark.parametrize("name", ["get_performance_stats", "export_performance_data"])
def test_a_component_is_a_str(monitor: Any, name: str) -> None:
    with pytest.raises(TypeError, match="component must be a str or None, not int"):
        getattr(fast_litellm, name)(3)
    with pytest.raises(TypeError, match="python_component must be a str"):
        fast_litellm.compare_implementations("rust_x", None)  # type: ignore[arg-type]


def test_a_pair_without_room_is_counted_and_logged_once(
    region: Region, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(monkeypatch, Monitor(region), region)
    with caplog.at_level(logging.ERROR, "fast_litellm"):
        for number in range(70):
            record("component", f"operation-{number}", 1.0)
        record("component", "operation-0", 1.0)
    assert fast_litellm.get_performance_stats()["component"]["count"] == 65
    assert region.limiter_stats()["table_full"] == 6
    assert [line.message for line in caplog.records] == [
        "component.operation-64 is NOT measured: there is no room for another pair of component and "
        "operation; use names that do not vary"
    ]
    (full,) = fast_litellm.get_recommendations()
    assert (full["component"], full["kind"], full["measured"]) == (
        "region",
        "table_full",
        {"table_full": 6},
    )


def test_a_pair_without_room_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, _fallback_monitor.Monitor())
    for number in range(70):
        record("component", f"operation-{number}", 1.0)
    assert fast_litellm.get_performance_stats()["component"]["count"] == 64


# Truth


@given(calls=CALLS)
def test_numbers_are_those_of_the_calls(calls: Calls) -> None:
    """On both monitors, against sums and sorted lists; they agree in every bucket."""
    region = Region.create("test", keys=1024, lease_chunks=64, workers=32)
    with pytest.MonkeyPatch.context() as monkeypatch:
        snapshots = []
        for monitor in (Monitor(region), _fallback_monitor.Monitor()):
            use(monkeypatch, monitor)
            for operation, ns, success, given_bytes, gave in calls:
                fast_litellm.record_performance(
                    "c", operation, ns / 1e6, success, given_bytes, gave
                )
            snapshots.append(_monitor.all_series())
            check_stats(calls)
    region.leave()
    assert snapshots[0] == snapshots[1]
    reported = {each["series"]: each for each in json.loads(region.inspect())["series"]}
    for series in snapshots[0]:
        report = reported[series.name]
        assert (series.quantile_ns(0.5), series.quantile_ns(0.99)) == (
            report["p50_ns"],
            report["p99_ns"],
        )
        assert (series.calls, int(series.mean_ns or 0)) == (report["count"], report["mean_ns"])


def check_stats(calls: Calls) -> None:
    stats = fast_litellm.get_performance_stats("c")
    assert bool(stats) == bool(calls)
    if not calls:
        return
    check_numbers(stats["c"], calls)
    operations = stats["c"]["operations"]
    assert set(operations) == {call[0] for call in calls}
    for operation, numbers in operations.items():
        check_numbers(numbers, [call for call in calls if call[0] == operation])


def check_numbers(numbers: dict[str, Any], calls: Calls) -> None:
    durations = sorted(call[1] for call in calls)
    count = len(calls)
    assert numbers["count"] == count
    assert numbers["errors"] == sum(not call[2] for call in calls)
    assert numbers["success_rate"] == pytest.approx(sum(call[2] for call in calls) / count)
    assert numbers["total_ms"] == pytest.approx(sum(durations) / 1e6)
    assert numbers["avg_ms"] == pytest.approx(sum(durations) / count / 1e6)
    assert numbers["max_ms"] == durations[-1] / 1e6
    assert numbers["input_bytes"] == sum(call[3] for call in calls)
    assert numbers["output_bytes"] == sum(call[4] for call in calls)
    for part in (50, 95, 99):
        true_ns = durations[max(math.ceil(part / 100 * count), 1) - 1]
        said_ns = round(numbers[f"p{part}_ms"] * 1e6)
        # From 7 * 2^37 ns on there is one bucket.
        most = 1.25 * true_ns if true_ns < 7 << 37 else durations[-1]
        assert true_ns <= said_ns <= max(most, 159), (part, true_ns, said_ns)


def test_buckets_are_those_of_the_region(region: Region) -> None:
    monitor = Monitor(region)
    edges = {0, 1, 127, 2**64 - 1} | {upper_ns(n) + d for n in range(BUCKETS) for d in (-1, 0, 1)}
    number = monitor.series("c.o")
    assert number is not None
    before = [0] * BUCKETS
    for ns in sorted(edges):
        monitor.record(number, ns)
        ((*_, counts),) = monitor.snapshot()
        assert [n for n in range(BUCKETS) if counts[n] != before[n]] == [bucket_of(ns)], ns
        before = counts


def test_workers_add_up(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Monitor(region), region)

    def work(number: int) -> None:
        for _ in range(500):
            record("shared", "operation", 0.5 * number, input_size=number)
        record(f"own_{number}", "operation", 1.0, success=False)

    def worker(number: int) -> Forked[None]:
        return Forked(lambda: work(number))

    for forked in [worker(number) for number in (1, 2, 3, 4)]:
        forked.result()
    stats = fast_litellm.get_performance_stats()
    shared = stats.pop("shared")
    assert (shared["count"], shared["total_ms"], shared["max_ms"]) == (2_000, 2_500.0, 2.0)
    assert shared["input_bytes"] == 5_000
    assert 1.0 <= shared["p50_ms"] <= 1.25
    assert [(name, each["errors"]) for name, each in stats.items()] == [
        (f"own_{number}", 1) for number in (1, 2, 3, 4)
    ]


# Comparing


def test_like_is_compared_with_like() -> None:
    # Rust did the slow operation more often: its average over all would be the larger one.
    rust = [
        series_of("rust_x", "fast", 1_000, repeat=50),
        series_of("rust_x", "slow", 90_000, repeat=950),
    ]
    python = [
        series_of("python_x", "fast", 2_000, repeat=950),
        series_of("python_x", "slow", 180_000, repeat=50),
        series_of("python_x", "alone", 5, repeat=900),
    ]
    found = compared(rust, python)
    assert found["operations"] == ["fast", "slow"]
    assert (found["rust_count"], found["python_count"]) == (1_000, 1_000)
    assert found["rust_avg_ms"] == pytest.approx((1_000 + 90_000) / 2 / 1e6)
    assert found["speedup"] == pytest.approx(2.0)
    assert found["recommendation"] == "use_rust"


def test_operations_measured_too_seldom_are_left_out_if_there_are_others() -> None:
    rust = [series_of("r", "a", 100, repeat=30), series_of("r", "b", 900_000, repeat=29)]
    python = [series_of("p", "a", 50, repeat=30), series_of("p", "b", 1, repeat=5_000)]
    found = compared(rust, python)
    assert (found["operations"], found["recommendation"]) == (["a"], "use_python")
    assert found["speedup"] == pytest.approx(0.5)
    found = compared(rust[1:], python[1:])
    assert (found["operations"], found["recommendation"]) == (["b"], "insufficient_data")
    assert found["rust_avg_ms"] == pytest.approx(0.9)


def test_what_has_nothing_in_common_is_compared_as_a_whole() -> None:
    found = compared(
        [series_of("r", "a", 300, repeat=40)], [series_of("p", "b", 100, 500, repeat=20)]
    )
    assert (found["operations"], found["recommendation"]) == ([], "no_difference")
    assert (found["rust_avg_ms"], found["python_avg_ms"]) == (0.0003, 0.0003)


@pytest.mark.parametrize(
    ("rust_ns", "python_ns", "recommendation"),
    [
        (100, 104, "no_difference"),
        (100, 106, "use_rust"),
        (106, 100, "use_python"),
        (0, 9, "use_rust"),
    ],
)
def test_small_differences_are_none(rust_ns: int, python_ns: int, recommendation: str) -> None:
    found = compared(
        [series_of("r", "a", rust_ns, repeat=30)], [series_of("p", "a", python_ns, repeat=30)]
    )
    assert found["recommendation"] == recommendation
    assert (found["speedup"] is None) == (rust_ns == 0)


def test_one_side_alone_is_shown(monitor: Any) -> None:
    record("rust_x", "check", *[0.5] * 40)
    found = fast_litellm.compare_implementations("rust_x", "python_x")
    assert (found["rust_avg_ms"], found["python_avg_ms"], found["speedup"]) == (0.5, None, None)
    assert (found["rust_count"], found["recommendation"]) == (40, "insufficient_data")


def test_the_documented_comparison(monitor: Any) -> None:
    record("rust_rate_limiter", "check", *[0.5] * 30)
    record("python_rate_limiter", "check", *[1.2] * 30)
    found = fast_litellm.compare_implementations("rust_rate_limiter", "python_rate_limiter")
    assert found["speedup"] == pytest.approx(2.4)
    assert found["recommendation"] == "use_rust"


# Recommending


def kinds(series: list[Series]) -> list[tuple[str, str | None, str]]:
    return [(each["component"], each["operation"], each["kind"]) for each in of_series(series)]


def test_what_python_does_faster_is_said() -> None:
    rust = series_of("rust_x", "a", 200, repeat=30)
    assert kinds([series_of("python_x", "a", 100, repeat=30), rust]) == [
        ("rust_x", None, "use_python")
    ]
    assert kinds([series_of("python_x", "a", 300, repeat=30), rust]) == []
    assert kinds([series_of("python_y", "a", 100, repeat=30), rust]) == []
    assert kinds([series_of("python_x", "a", 100, repeat=29), rust]) == []


def test_errors_and_slow_tails_are_said_from_a_hundred_on() -> None:
    def failing(errors: int, calls: int) -> list[tuple[str, str | None, str]]:
        return kinds([series_of("c", "o", 1_000, errors=errors, repeat=calls)])

    assert failing(6, 100) == [("c", "o", "errors")]
    assert failing(5, 100) == failing(99, 99) == []

    def tail(slow_ns: int, usual_ns: int) -> list[tuple[str, str | None, str]]:
        usual, slow = (
            series_of("c", "o", usual_ns, repeat=97),
            series_of("c", "o", slow_ns, repeat=3),
        )
        return kinds([merged("c", [usual, slow])._replace(operation="o")])

    assert tail(20_000_000, 1_000_000) == [("c", "o", "slow_tail")]
    assert tail(5_000_000, 1_000_000) == []
    # A machine's hiccups among fast operations.
    assert tail(900_000, 1_000) == []


def test_the_regions_own_trouble_is_said(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Monitor(region), region)
    region.feature_error(0)
    for _ in range(10):
        region.feature_error(2)
    region.count_fallback()
    found = fast_litellm.get_recommendations()
    assert [(each["component"], each["kind"]) for each in found] == [
        ("rust_routing", "feature_errors"),
        ("rust_rate_limiting", "breaker_open"),
        ("region", "fallbacks"),
    ]
    assert found[1]["measured"]["errors"] == 10
    assert found[2]["measured"] == {"fallbacks": 12}
    assert fast_litellm.get_recommendations() == found
    region.reset_feature(2)
    assert [each["kind"] for each in fast_litellm.get_recommendations()][1] == "feature_errors"


def test_counters_of_other_versions_are_understood() -> None:
    (found,) = of_region({"stats": {"pool_refused": 3, "new_counter": 9, "admitted": 5}})
    assert (found["kind"], found["message"].partition(" ")[0]) == ("pool_refused", "3")
    named = {
        "feature": 9,
        "name": "nine",
        "breaker": "open",
        "errors": 1,
        "errors_total": 1,
        "last_s": 0,
    }
    (found,) = of_region({"features": [named]})
    assert (found["component"], found["kind"]) == ("nine", "breaker_open")


# Exporting


def test_json_is_what_the_stats_are(monitor: Any) -> None:
    record("b", "x", 1.0, 2.0, input_size=7)
    record("a", "y", 0)
    for component in (None, "a", "c"):
        stats = fast_litellm.get_performance_stats(component)
        assert json.loads(fast_litellm.export_performance_data(component)) == stats
        assert json.loads(fast_litellm.export_performance_data(component, None)) == stats  # type: ignore[arg-type]


def test_csv_has_a_line_for_each_operation(monitor: Any) -> None:
    record("b", "x", 1.0, 2.0, success=False, input_size=7)
    record("a", "y", 0)
    record("-1", "y", 3)
    lines = list(csv.DictReader(io.StringIO(fast_litellm.export_performance_data(format="csv"))))
    assert [(line["component"], line["operation"]) for line in lines] == [
        ("'-1", "y"),
        ("a", "y"),
        ("b", "x"),
    ]
    numbers = fast_litellm.get_performance_stats()["b"]["operations"]["x"]
    assert {name: float(lines[2][name]) for name in lines[2] if name in numbers} == {
        name: pytest.approx(numbers[name]) for name in lines[2] if name in numbers
    }
    assert lines[1]["throughput_ops"] == ""
    only = fast_litellm.export_performance_data("a", "csv").splitlines()
    assert len(only) == 2


def test_csv_is_quoted_whatever_the_region_says(monkeypatch: pytest.MonkeyPatch) -> None:
    strange = 'quote " comma , line\nbreak'
    monitor = _fallback_monitor.Monitor()
    use(monkeypatch, monitor)
    for name in (f"{strange}.{strange}", "=cmd.@x"):
        number = monitor.series(name)
        assert number is not None
        monitor.record(number, 5)
    lines = list(
        csv.reader(io.StringIO(fast_litellm.export_performance_data(format="csv"), newline=""))
    )
    assert [line[:2] for line in lines[1:]] == [["'=cmd", "'@x"], [strange, strange]]


@pytest.mark.parametrize("unknown", ["xml", "", "JSON", 7])
def test_other_formats_are_refused(monitor: Any, unknown: Any) -> None:
    with pytest.raises(ValueError, match="use one of json, csv, prometheus"):
        fast_litellm.export_performance_data(format=unknown)


# What is timed by itself


def stats_of(code: str, **environment: str) -> Any:
    program = f"""
import json, fast_litellm
{code}
print(json.dumps(fast_litellm.get_performance_stats()))
"""
    return json.loads(run_python(program, env=environment).stdout)


THOUSAND = 'for i in range(1000): fast_litellm.check_rate_limit(f"user_{i}")'
CHOICES = """
models = [{"model_name": "m", "litellm_params": {"model": "x"}}]
for _ in range(100): fast_litellm.get_available_deployment(models, "m")
"""


def test_some_of_a_thousand_checks_are_timed() -> None:
    stats = stats_of(THOUSAND)
    assert list(stats) == ["rust_rate_limiter"]
    # 20 on average; the distances are always the same ones.
    assert 10 <= stats["rust_rate_limiter"]["operations"]["check_rate_limit"]["count"] <= 40


def test_all_or_none_are_timed_on_demand() -> None:
    every = stats_of(THOUSAND + CHOICES, FAST_LITELLM_PERFORMANCE_SAMPLING="1")
    assert {name: each["count"] for name, each in every.items()} == {
        "rust_rate_limiter": 1_000,
        "rust_router": 100,
    }
    assert stats_of(THOUSAND + CHOICES, FAST_LITELLM_PERFORMANCE_SAMPLING="0") == {}


@pytest.mark.parametrize("value", ["2", "-0.1", "nan", "often"])
def test_a_part_that_cannot_be_is_refused(value: str) -> None:
    done = run_python(
        "import fast_litellm", env={"FAST_LITELLM_PERFORMANCE_SAMPLING": value}, check=False
    )
    assert done.returncode == 1
    assert f"FAST_LITELLM_PERFORMANCE_SAMPLING={value!r}" in done.stderr


def test_a_decision_that_fails_is_timed_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
limiter = fast_litellm.SimpleRateLimiter()
for key in (1, "a", "a"):
    try: limiter.check(key)
    except TypeError: pass
"""
    stats = stats_of(code, FAST_LITELLM_PERFORMANCE_SAMPLING="1")["rust_rate_limiter"]
    assert (stats["count"], stats["errors"]) == (3, 1)


# Without the extension, and without a region

WITHOUT_EXTENSION = """
import sys, warnings
sys.modules["fast_litellm._rust"] = None
warnings.simplefilter("ignore")
"""


def test_without_the_extension_all_of_it_works_within_the_process() -> None:
    code = f"""{WITHOUT_EXTENSION}
import json, os, fast_litellm
{THOUSAND}
for ms in range(40):
    fast_litellm.record_performance("rust_x", "o", ms + 1)
    fast_litellm.record_performance("python_x", "o", 1)
print(json.dumps([
    fast_litellm.RUST_ACCELERATION_AVAILABLE,
    {{name: each["count"] for name, each in fast_litellm.get_performance_stats().items()}},
    fast_litellm.compare_implementations("rust_x", "python_x")["recommendation"],
    [each["kind"] for each in fast_litellm.get_recommendations()],
    fast_litellm.export_performance_data(format="prometheus").count("_bucket"),
    fast_litellm.export_performance_data(format="csv").count("rust_x"),
]))
child = os.fork()
if child == 0:
    fast_litellm.record_performance("rust_x", "o", 1)
    os._exit(0 if fast_litellm.get_performance_stats()["rust_x"]["count"] == 41 else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    available, counts, recommended, recommendations, buckets, lines = json.loads(
        run_python(code).stdout.splitlines()[0]
    )
    assert available is False
    assert 5 <= counts.pop("python_rate_limiter") <= 60
    assert counts == {"python_x": 40, "rust_x": 40}
    assert (recommended, recommendations) == ("use_python", ["use_python"])
    assert (buckets, lines) == (3 * 33, 1)


@pytest.mark.parametrize(("part", "counted"), [("1", 1000), ("0", 0), ("often", 0)])
def test_without_the_extension_the_part_that_is_timed_can_be_set(part: str, counted: int) -> None:
    code = f"""{WITHOUT_EXTENSION}
import fast_litellm
{THOUSAND}
print(sum(each["count"] for each in fast_litellm.get_performance_stats().values()))
"""
    environment = {"FAST_LITELLM_PERFORMANCE_SAMPLING": part, "FAST_LITELLM_ENABLED": "false"}
    done = run_python(code, env=environment)
    assert int(done.stdout) == counted


def test_without_a_region_measurements_stay_in_the_process() -> None:
    code = """
import fast_litellm
fast_litellm.record_performance("c", "o", 2.0)
print(fast_litellm.get_performance_stats()["c"]["avg_ms"], fast_litellm.get_recommendations())
"""
    done = run_python(code, env={"FAST_LITELLM_SHM": "/nowhere/at/all"})
    assert done.stdout.split(maxsplit=1) == ["2.0", "[]\n"]
    assert "measurements are NOT shared between workers" in done.stderr
