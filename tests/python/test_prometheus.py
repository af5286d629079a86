"""Proves that Prometheus gets the region's numbers, once, whichever worker and registry it asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fast_litellm
from fast_litellm import Leader, SimpleRateLimiter, _fallback_monitor
from fast_litellm._metrics import families, of_region
from fast_litellm._rust import Deployments, Monitor, PanicException, Region
from monitored import use
from support import Forked, forked, run_python

prometheus_client = pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from fast_litellm import prometheus  # noqa: E402

Numbers = dict[str, dict[tuple[tuple[str, str], ...], float]]


@pytest.fixture
def monitored(region: Region, monkeypatch: pytest.MonkeyPatch) -> Region:
    """A region that the package exports."""
    use(monkeypatch, Monitor(region), region)
    return region


@pytest.fixture
def registry() -> Iterator[Any]:
    """A registry of this test's."""
    yield prometheus_client.CollectorRegistry()
    prometheus.leave_multiprocess()


def text() -> str:
    return fast_litellm.export_performance_data(format="prometheus")


def parsed(exported: str) -> Numbers:
    """Values by name and labels; each once, under a family that was declared once."""
    found: Numbers = {}
    declared = set()
    for family in text_string_to_metric_families(exported):
        assert family.name not in declared
        declared.add(family.name)
        assert family.type != "unknown"
        assert family.documentation
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found.setdefault(sample.name, {}), (sample.name, labels)
            found[sample.name][labels] = sample.value
    return found


def one(found: Numbers, name: str, **labels: str) -> float:
    return found[f"fast_litellm_{name}"][tuple(sorted(labels.items()))]


def furnish(region: Region) -> None:
    """Something of everything."""
    limiter = SimpleRateLimiter(60, burst=2, region=region)
    for _ in range(5):
        limiter.is_allowed("sk-0123456789abcdef0123456789")
    deployments = Deployments(region)
    deployments.succeeded("gpt-a", latency_s=0.25, first_token_s=0.125)
    deployments.failed("gpt-a", status=500)
    deployments.cool_down("gpt-b", 30.0, status=429)
    furnish.kept = [deployments.depart("gpt-a"), deployments.depart("gpt-a")]  # type: ignore[attr-defined]
    leader = Leader("job", region=region)
    assert leader.acquire()
    for _ in range(10):
        region.feature_error(2)
    for ms in (0.001, 0.01, 0.5, 2.0, 86_400_000.0):
        fast_litellm.record_performance("rust_x", "check", ms, ms < 1, 100, 7)


# Text


def test_everything_is_exported_and_parses(monitored: Region) -> None:
    furnish(monitored)
    found = parsed(text())
    assert one(found, "limiter_checks_total", result="allowed") == 2
    assert one(found, "limiter_checks_total", result="denied") == 3
    assert one(found, "limiter_keys") == 1
    assert one(found, "workers", state="alive") == 1
    assert one(found, "workers", state="dead") == 0
    # Two calls in flight, and the leader's.
    assert one(found, "leases_held") == 3
    assert one(found, "deployment_in_flight", deployment="gpt-a") == 2
    assert one(found, "deployment_successes_total", deployment="gpt-a") == 1
    assert one(found, "deployment_failures_total", deployment="gpt-a") == 1
    assert one(found, "deployment_latency_seconds", deployment="gpt-a") == pytest.approx(0.25)
    assert one(found, "deployment_first_token_seconds", deployment="gpt-a") == pytest.approx(0.125)
    assert 29 < one(found, "deployment_cooldown_seconds", deployment="gpt-b") <= 30
    assert one(found, "deployment_cooldown_seconds", deployment="gpt-a") == 0
    assert one(found, "feature_errors_total", feature="rust_rate_limiting") == 10
    assert one(found, "feature_breaker_open", feature="rust_rate_limiting") == 1
    assert one(found, "feature_breaker_open", feature="rust_routing") == 0
    assert one(found, "fallbacks_total") == 10
    assert one(found, "cooldowns_total") == 1
    assert one(found, "operation_errors_total", component="rust_x", operation="check") == 2
    assert one(found, "operation_input_bytes_total", component="rust_x", operation="check") == 500
    assert one(found, "region_bytes") == monitored.size
    assert "sk-0123" not in text()


def test_histograms_are_cumulative_and_in_seconds(monitored: Region) -> None:
    furnish(monitored)
    found = parsed(text())
    name = "fast_litellm_operation_duration_seconds"
    labels = {"component": "rust_x", "operation": "check"}
    buckets = {dict(key)["le"]: value for key, value in found[f"{name}_bucket"].items()}
    bounds = [float(bound) for bound in buckets]
    assert bounds == sorted(bounds)
    assert list(buckets)[-1] == "+Inf"
    assert list(buckets.values()) == sorted(buckets.values())
    # A bound has what is not above it: of 1 us, 10 us, 0.5 ms, 2 ms and a day.
    below = {bound: value for bound, value in zip(bounds, buckets.values(), strict=True)}
    assert [
        max(v for b, v in below.items() if b < limit) for limit in (1e-6, 1e-5, 1e-3, 1.0, 700)
    ] == [
        0,
        1,
        3,
        4,
        4,
    ]
    assert buckets["+Inf"] == one(found, "operation_duration_seconds_count", **labels) == 5
    total = one(found, "operation_duration_seconds_sum", **labels)
    assert total == pytest.approx(86_400 + 0.002511)


def test_of_one_component_only_its_operations(monitored: Region) -> None:
    furnish(monitored)
    fast_litellm.record_performance("other", "x", 1.0)
    found = parsed(fast_litellm.export_performance_data("rust_x", "prometheus"))
    assert all(name.startswith("fast_litellm_operation_") for name in found)
    assert {dict(key)["component"] for key in found["fast_litellm_operation_errors_total"]} == {
        "rust_x"
    }


def test_labels_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = _fallback_monitor.Monitor()
    use(monkeypatch, monitor)
    strange = 'back\\slash "quote"\nline'
    number = monitor.series(f"{strange}.{strange}")
    assert number is not None
    monitor.record(number, 5)
    found = parsed(text())
    assert one(found, "operation_errors_total", component=strange, operation=strange) == 0


def test_deployments_of_one_name_are_told_apart(monitored: Region) -> None:
    deployments = Deployments(monitored)
    for number in range(3):
        # Secrets of one beginning are shown alike.
        deployments.failed(f"sk-abc{number:030d}", status=500)
    found = parsed(text())["fast_litellm_deployment_failures_total"]
    assert sorted(dict(key)["deployment"] for key in found) == [
        "sk-abc..",
        "sk-abc..#2",
        "sk-abc..#3",
    ]


def test_a_deployment_that_is_called_like_a_numbered_one_is_told_apart(monitored: Region) -> None:
    deployments = Deployments(monitored)
    for name in ("a?b#2", "a\nb", "a?b"):
        deployments.failed(name, status=500)
    found = parsed(text())["fast_litellm_deployment_failures_total"]
    assert sorted(dict(key)["deployment"] for key in found) == ["a?b", "a?b#2", "a?b#3"]


def test_what_later_versions_report_is_exported(monitored: Region) -> None:
    overview = json.loads(Monitor(monitored).overview())
    overview["stats"]["pool_refused"] = 3
    overview["features"] = [
        {
            "feature": 4,
            "name": "batch",
            "breaker": "open",
            "errors": 1,
            "errors_total": 2,
            "last_s": 0,
        }
    ]
    found = {family.name: family.samples for family in of_region(overview)}
    assert found["fast_litellm_pool_refused"][0].value == 3
    assert found["fast_litellm_feature_breaker_open"][-1][1:] == ({"feature": "batch"}, 1)


# Registries


def test_a_registry_serves_what_the_text_says(monitored: Region, registry: Any) -> None:
    furnish(monitored)
    prometheus.register(registry)
    served = parsed(prometheus_client.generate_latest(registry).decode())
    exported = parsed(text())
    for moving in ("fast_litellm_region_age_seconds", "fast_litellm_deployment_cooldown_seconds"):
        assert served.pop(moving).keys() == exported.pop(moving).keys()
    assert served == exported


def test_registering_twice_serves_once(monitored: Region, registry: Any) -> None:
    first = prometheus.register(registry)
    assert prometheus.register(registry) is first
    parsed(prometheus_client.generate_latest(registry).decode())
    registry.unregister(first)
    assert b"fast_litellm" not in prometheus_client.generate_latest(registry)
    prometheus.register(registry)
    assert b"fast_litellm" in prometheus_client.generate_latest(registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(prometheus.RegionCollector())


def test_metrics_can_be_asked_for_by_name(monitored: Region, registry: Any) -> None:
    prometheus.register(registry)
    names = ["fast_litellm_workers", "fast_litellm_fallbacks_total"]
    served = prometheus_client.generate_latest(registry.restricted_registry(names)).decode()
    assert sorted(parsed(served)) == sorted(names)


def test_the_global_registry_is_the_default(monitored: Region) -> None:
    collector = prometheus.register()
    try:
        assert b"fast_litellm_workers" in prometheus_client.generate_latest()
    finally:
        prometheus_client.REGISTRY.unregister(collector)


@pytest.mark.parametrize("kind", [RuntimeError, PanicException])
def test_other_metrics_are_served_when_the_region_is_away(
    kind: type[BaseException],
    monitored: Region,
    registry: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    prometheus_client.Counter("others", "Others.", registry=registry).inc()
    prometheus.register(registry)

    def broken() -> None:
        raise kind("away")

    monkeypatch.setattr(prometheus, "families", broken)
    assert "others_total" in parsed(prometheus_client.generate_latest(registry).decode())
    assert f"the region's metrics are missing: {kind.__name__}: away" in caplog.text


def test_every_worker_gives_the_same_numbers(monitored: Region, registry: Any) -> None:
    prometheus.register(registry)

    def scrape() -> Numbers:
        found = parsed(prometheus_client.generate_latest(registry).decode())
        found.pop("fast_litellm_region_age_seconds")
        return found

    def work() -> Numbers:
        for _ in range(100):
            fast_litellm.record_performance("shared", "x", 1.0)
        return {}

    workers = [Forked(work) for _ in range(4)]
    for worker in workers:
        worker.result()
    monitored.reap()
    (here, there) = scrape(), forked(scrape)
    assert one(here, "operation_duration_seconds_count", component="shared", operation="x") == 400
    for found in (here, there):
        # Who asks is there itself.
        found.pop("fast_litellm_workers")
        found.pop("fast_litellm_registrations_total")
    assert here == there


# Several processes' metrics in one directory, as under LiteLLM

MULTIPROCESS = """
import json, os
import fast_litellm, fast_litellm.prometheus
from prometheus_client import CollectorRegistry, Counter, generate_latest, multiprocess

others = Counter("others", "Others.")

def work():
    child = os.fork()
    if child == 0:
        others.inc()
        fast_litellm.record_performance("shared", "x", 1.0)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

for _ in range(3): work()

def scrape(registry):
    lines = generate_latest(registry).decode().splitlines()
    wanted = ("others_total ", "fast_litellm_operation_duration_seconds_count")
    print(json.dumps([line for line in lines if line.startswith(wanted)]))
"""
SERVED = [
    "others_total 3.0",
    'fast_litellm_operation_duration_seconds_count{component="shared",operation="x"} 3.0',
]


@pytest.mark.parametrize(
    ("make", "served"),
    [
        ("registry = fast_litellm.prometheus.multiprocess_registry()", SERVED),
        (
            "registry = CollectorRegistry()\nmultiprocess.MultiProcessCollector(registry)\n"
            "fast_litellm.prometheus.register(registry)",
            SERVED,
        ),
        (
            "fast_litellm.prometheus.join_multiprocess()\nfast_litellm.prometheus.join_multiprocess()\n"
            "registry = CollectorRegistry()\nmultiprocess.MultiProcessCollector(registry)",
            SERVED,
        ),
        (
            "original = multiprocess.MultiProcessCollector.__init__\n"
            "fast_litellm.prometheus.join_multiprocess()\nfast_litellm.prometheus.join_multiprocess()\n"
            "fast_litellm.prometheus.leave_multiprocess()\n"
            "assert multiprocess.MultiProcessCollector.__init__ is original\n"
            "registry = CollectorRegistry()\nmultiprocess.MultiProcessCollector(registry)",
            SERVED[:1],
        ),
    ],
)
def test_in_multiprocess_mode_the_region_is_served_once_and_not_written(
    tmp_path: Path, make: str, served: list[str]
) -> None:
    program = f"""{MULTIPROCESS}
{make}
scrape(registry)
os.fork() or (scrape(registry), os._exit(0))
os.wait()
"""
    done = run_python(program, env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)})
    here, there = (sorted(json.loads(line)) for line in done.stdout.splitlines())
    assert here == there == sorted(served)
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"others" in written
    assert b"fast_litellm" not in written


def test_without_prometheus_client_it_says_what_to_do() -> None:
    code = """
import sys
sys.modules["prometheus_client"] = None
import fast_litellm
try: import fast_litellm.prometheus
except ImportError as error: print(error)
print(len(fast_litellm.export_performance_data(format="prometheus")) > 1000)
"""
    says, exported = run_python(code).stdout.splitlines()
    assert "pip install prometheus-client" in says
    assert "fast_litellm.asgi" in says
    assert exported == "True"


def test_importing_the_package_does_not_import_prometheus_client() -> None:
    done = run_python("import sys, fast_litellm\nprint('prometheus_client' in sys.modules)")
    assert done.stdout == "False\n"


def test_without_the_extension_there_are_operations_and_limiters() -> None:
    code = """
import sys, warnings
sys.modules["fast_litellm._rust"] = None
warnings.simplefilter("ignore")
import fast_litellm, fast_litellm.prometheus
from prometheus_client import CollectorRegistry, generate_latest
fast_litellm.check_rate_limit("a")
registry = CollectorRegistry()
fast_litellm.prometheus.register(registry)
print(generate_latest(registry).decode())
"""
    found = parsed(run_python(code).stdout)
    assert one(found, "limiter_checks_total", result="allowed") == 1
    (timed,) = found["fast_litellm_operation_errors_total"]
    assert dict(timed) == {"component": "python_rate_limiter", "operation": "check_rate_limit"}


def test_families_are_named_as_prometheus_wants(monitored: Region) -> None:
    assert all(
        family.name.startswith("fast_litellm_") and not family.name.endswith(("_total", "_ms"))
        for family in families()
    )
