"""Proves on real LiteLLM proxies that limits hold over all workers, or that LiteLLM is left alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("litellm")
pytest.importorskip("gunicorn")

from fl_shm import fl_shm
from harness import load
from harness.deployments import connections
from harness.proxy import FakeBackend, Proxy, RedisServer
from harness.scenarios import measure, warm_up
from harness.setups import (
    ALLOWED_FAILS,
    CONNECTIONS,
    GLOBAL_PARALLEL,
    PARALLEL,
    PROVIDER_KEY,
    RPM,
)
from secret_traces import traces

pytestmark = [pytest.mark.proxy, pytest.mark.timeout(300)]

OTHER_VERSIONS = ("1.104.0", "1.109.1")

ON, OFF = ({"FAST_LITELLM_ENABLED": value} for value in ("true", "false"))


@pytest.fixture(scope="module")
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as backend:
        yield backend


def running(proxy: Proxy) -> Iterator[Proxy]:
    """A proxy that has served something in each of its workers."""
    with proxy:
        warm_up(proxy)
        yield proxy


def measured(proxy: Proxy, backend: FakeBackend, scenario: str) -> dict[str, Any]:
    """What a scenario measured, once it is known to mean something."""
    result = measure(scenario, proxy, backend)
    assert result["unexpected"] == []
    assert result["within_window"], f"took {result['elapsed_s']} s, longer than the limits' window"
    return result


def key_of(*limits: str) -> str:
    return "-".join(("sk", *limits, uuid.uuid4().hex[:12]))


def check_slots_of_a_dead_worker(result: dict[str, Any]) -> None:
    assert result["admitted_when_full"] == 0
    assert result["freed_after_s"] is not None, "never freed"
    # An answer may take a busy machine longer.
    assert result["refused_until_s"] < 1.0
    assert result["refilled"] == result["killed_held"] > 0


def check_parallel(result: dict[str, Any]) -> None:
    assert max(result["peak"], result["stream_peak"]) <= 5
    assert (result["after"], result["stream_after"]) == (5, 5)
    assert set(result["statuses"]) <= {200, 429}


def check_parallel_of_a_deployment(result: dict[str, Any]) -> None:
    assert max(result["peak"], result["stream_peak"]) <= PARALLEL
    assert (result["after"], result["stream_after"]) == (PARALLEL, PARALLEL)
    assert set(result["statuses"]) <= {200, 429}


def regions_of(pid: int) -> list[str]:
    """The regions that a process holds open."""
    names = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            names.append(os.readlink(descriptor))
        except OSError:  # closed since it was listed
            continue
    return [name for name in names if "fl-shm" in name]


def dumped(proxy: Proxy) -> tuple[bytes, str]:
    """All bytes of a proxy's region, as `fl-shm dump` writes them, and what is read in them."""
    path = proxy.directory / "dump"
    done = fl_shm("dump", path, "--pid", proxy.master_pid)
    assert done.returncode == 0, done.stderr
    return path.read_bytes(), fl_shm("inspect", "--json", "--file", path).stdout


@pytest.fixture(scope="class")
def accelerated(backend: FakeBackend) -> Iterator[Proxy]:
    yield from running(Proxy(backend.url, accelerate=True, extra_env=ON))


class TestAccelerated:
    """The installed LiteLLM with fast_litellm."""

    def test_requests_per_minute_of_a_key(self, accelerated: Proxy, backend: FakeBackend) -> None:
        assert measured(accelerated, backend, "rpm")["statuses"] == {200: 20, 429: 180}

    def test_requests_per_minute_of_a_user(self, accelerated: Proxy, backend: FakeBackend) -> None:
        assert measured(accelerated, backend, "user_rpm")["statuses"] == {200: 20, 429: 180}

    def test_tokens_per_minute_of_a_key(self, accelerated: Proxy, backend: FakeBackend) -> None:
        # Requests in flight are charged an estimate that is too low; see the scenario.
        assert 28 <= measured(accelerated, backend, "tpm")["admitted"] <= 32

    def test_parallel_requests_of_a_key(self, accelerated: Proxy, backend: FakeBackend) -> None:
        check_parallel(measured(accelerated, backend, "parallel"))

    def test_many_keys(self, accelerated: Proxy, backend: FakeBackend) -> None:
        assert measured(accelerated, backend, "many_keys")["admitted"] == 450

    def test_connections_to_a_provider_have_no_bound_of_ours(
        self, accelerated: Proxy, backend: FakeBackend
    ) -> None:
        result = connections(accelerated, backend)
        assert result["statuses"] == {200: 100}
        assert result["peak"] > 4 * CONNECTIONS

    def test_slots_of_a_killed_worker(self, accelerated: Proxy, backend: FakeBackend) -> None:
        check_slots_of_a_dead_worker(measured(accelerated, backend, "kill_holder"))

    def test_counters_outlive_a_restart_of_all_workers(
        self, accelerated: Proxy, backend: FakeBackend
    ) -> None:
        backend.reset()
        key = key_of("r20")
        before = load.burst(accelerated.base_url, [key], 30, 10)
        accelerated.hup()
        after = load.burst(accelerated.base_url, [key], 30, 10)
        assert before.unexpected + after.unexpected == []
        assert (before.admitted, after.admitted) == (20, 0)

    def test_all_workers_use_one_region(self, accelerated: Proxy) -> None:
        (region,) = set(regions_of(accelerated.master_pid))
        assert [regions_of(pid) for pid in accelerated.worker_pids()] == [
            [region]
        ] * accelerated.workers

    def test_nothing_went_wrong_on_the_way(self, accelerated: Proxy) -> None:
        log = accelerated.log_text()
        assert "Traceback" not in log
        assert "NOT shared" not in log

    # From here on each test may put the proxy on another configuration, so those with the same one
    # stay together.

    def test_requests_per_minute_of_a_deployment(
        self, accelerated: Proxy, backend: FakeBackend
    ) -> None:
        assert measured(accelerated, backend, "deployment_rpm")["reached"] == RPM

    def test_cooldown_of_a_deployment(self, accelerated: Proxy, backend: FakeBackend) -> None:
        assert 1 <= measured(accelerated, backend, "cooldown")["hits"] <= 2

    def test_cooldown_of_a_failing_deployment(
        self, accelerated: Proxy, backend: FakeBackend
    ) -> None:
        # LiteLLM judges no deployment by fewer than five requests.
        assert 5 <= measured(accelerated, backend, "failing")["hits"] <= 6

    def test_no_secret_is_in_the_region(self, accelerated: Proxy, backend: FakeBackend) -> None:
        """After the failures above, whose texts quote the key of the provider and the prompt."""
        key, user = "sk-r5-u{}-Kx83vQz7LmT0wYb5RnCd", "Us3r9GhJ2kPqXw6Zt1Na"
        key = key.format(user)
        prompt = "My passphrase is correct-horse-battery-staple-93."
        content = "It opens the vault of Winterthur."
        master = json.loads((accelerated.directory / "config.yaml").read_text())
        backend.reset()
        backend.configure(content=content, latency=0.3)
        secrets = [key, user, prompt, content, load.PROMPT, PROVIDER_KEY]
        secrets.append(master["general_settings"]["master_key"])
        statuses = []
        for stream in (False, True):
            burst = load.burst(accelerated.base_url, [key], 4, 4, stream=stream, prompt=prompt)
            statuses.append(burst.statuses)
        assert sum(statuses, Counter()) == {200: 5, 429: 3}
        data, shown = dumped(accelerated)
        # They have all been there, where names and texts are stored.
        report = json.loads(shown)
        assert any(limit["key"].startswith("api_key:") for limit in report["limits"])
        assert any(deployment.get("cooldown_text") for deployment in report["deployments"])
        data += shown.encode()
        assert [(secret, traces(data, secret)) for secret in secrets if traces(data, secret)] == []

    def test_slots_of_a_killed_caller(self, accelerated: Proxy, backend: FakeBackend) -> None:
        check_slots_of_a_dead_worker(measured(accelerated, backend, "kill_caller"))

    def test_parallel_requests_of_a_deployment(
        self, accelerated: Proxy, backend: FakeBackend
    ) -> None:
        check_parallel_of_a_deployment(measured(accelerated, backend, "deployment_parallel"))

    def test_allowed_fails(self, accelerated: Proxy, backend: FakeBackend) -> None:
        hits = measured(accelerated, backend, "allowed_fails")["hits"]
        assert ALLOWED_FAILS + 1 <= hits <= ALLOWED_FAILS + 2

    def test_least_busy_routing(self, accelerated: Proxy, backend: FakeBackend) -> None:
        assert measured(accelerated, backend, "least_busy")["in_flight"] == [2] * 6

    def test_latency_based_routing(self, accelerated: Proxy, backend: FakeBackend) -> None:
        result = measured(accelerated, backend, "latency")
        assert result["warm_up_hits"] == 1
        assert result["hits"] <= 6

    def test_usage_based_routing(self, accelerated: Proxy, backend: FakeBackend) -> None:
        assert RPM - 1 <= measured(accelerated, backend, "usage_v2")["reached"] <= RPM

    def test_background_health_checks(self, accelerated: Proxy, backend: FakeBackend) -> None:
        result = measured(accelerated, backend, "health_checks")
        assert 0.6 <= result["probes_per_interval"] <= 1.4
        assert result["disagreed_s"] is not None, "some worker never learned it"
        assert result["disagreed_s"] < 1.0

    def test_parallel_requests_of_the_proxy(self, accelerated: Proxy, backend: FakeBackend) -> None:
        result = measured(accelerated, backend, "global_parallel")
        assert result["peak"] <= GLOBAL_PARALLEL
        assert result["after"] == GLOBAL_PARALLEL

    def test_nothing_was_given_up_on_the_way(self, accelerated: Proxy) -> None:
        log = accelerated.log_text()
        assert not re.search(r"NOT (shared|known)|per worker only|breaker is open", log)


@pytest.fixture(scope="class", params=OTHER_VERSIONS)
def other_version(request: pytest.FixtureRequest, backend: FakeBackend) -> Iterator[Proxy]:
    variable = f"FAST_LITELLM_TEST_PYTHON_{request.param.replace('.', '_')}"
    python = os.environ.get(variable)
    if python is None:
        pytest.skip(f"{variable} names no interpreter")
    code = "import importlib.metadata as m; print(m.version('litellm'), m.version('fast-litellm'))"
    done = subprocess.run([python, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == request.param
    yield from running(Proxy(backend.url, accelerate=True, python=python, extra_env=ON))


class TestOtherVersions:
    """Other LiteLLM versions, each in an environment of its own that has fast_litellm too."""

    def test_requests_per_minute_of_a_key(self, other_version: Proxy, backend: FakeBackend) -> None:
        assert measured(other_version, backend, "rpm")["statuses"] == {200: 20, 429: 180}

    def test_parallel_requests_of_a_key(self, other_version: Proxy, backend: FakeBackend) -> None:
        check_parallel(measured(other_version, backend, "parallel"))

    def test_slots_of_a_killed_worker(self, other_version: Proxy, backend: FakeBackend) -> None:
        check_slots_of_a_dead_worker(measured(other_version, backend, "kill_holder"))

    def test_requests_per_minute_of_a_deployment(
        self, other_version: Proxy, backend: FakeBackend
    ) -> None:
        assert measured(other_version, backend, "deployment_rpm")["reached"] == RPM

    def test_parallel_requests_of_a_deployment(
        self, other_version: Proxy, backend: FakeBackend
    ) -> None:
        check_parallel_of_a_deployment(measured(other_version, backend, "deployment_parallel"))

    def test_cooldown_of_a_deployment(self, other_version: Proxy, backend: FakeBackend) -> None:
        assert 1 <= measured(other_version, backend, "cooldown")["hits"] <= 2


@pytest.fixture(scope="class")
def guarded(backend: FakeBackend) -> Iterator[Proxy]:
    bounded = {**ON, "FAST_LITELLM_MAX_CONNECTIONS_PER_HOST": str(CONNECTIONS)}
    with Proxy(backend.url, accelerate=True, extra_env=bounded) as proxy:
        yield proxy


class TestConnectionGuard:
    """The proxy with a bound on its connections."""

    def test_connections_to_a_provider(self, guarded: Proxy, backend: FakeBackend) -> None:
        result = connections(guarded, backend)
        assert result["statuses"] == {200: 100}
        assert 4 < result["peak"] <= CONNECTIONS
        assert not re.search(r"NOT bounded|per worker only|Traceback", guarded.log_text())


@pytest.fixture(scope="class")
def switched_off(backend: FakeBackend) -> Iterator[Proxy]:
    yield from running(Proxy(backend.url, accelerate=True, extra_env=OFF))


class TestSwitchedOff:
    """The proxy with fast_litellm imported, but switched off."""

    def test_it_limits_as_litellm_does(self, switched_off: Proxy, backend: FakeBackend) -> None:
        result = measured(switched_off, backend, "rpm")
        # Every worker admits 20 of those it happens to get.
        assert 20 < result["admitted"] <= 20 * switched_off.workers
        assert set(result["statuses"]) == {200, 429}

    def test_there_is_no_region(self, switched_off: Proxy) -> None:
        for pid in [switched_off.master_pid, *switched_off.worker_pids()]:
            assert regions_of(pid) == []


class LoudProxy(Proxy):
    """A proxy that shows all that fast_litellm logs."""

    def prepare(self) -> None:
        super().prepare()
        app = self.directory / "app.py"
        app.write_text(
            "import logging\n"
            "logging.getLogger('fast_litellm').setLevel('INFO')\n"
            "logging.getLogger('fast_litellm').addHandler(logging.StreamHandler())\n"
            + app.read_text()
        )


@pytest.fixture(scope="class")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as redis:
        yield redis


@pytest.fixture(scope="class")
def with_redis(backend: FakeBackend, redis: RedisServer) -> Iterator[Proxy]:
    yield from running(LoudProxy(backend.url, accelerate=True, redis_url=redis.url, extra_env=ON))


@pytest.mark.skipif(not RedisServer.is_available(), reason="there is no redis-server on the PATH")
class TestWithRedis:
    """The proxy with fast_litellm and a Redis, which LiteLLM then counts in."""

    def test_it_stands_back_and_says_so(self, with_redis: Proxy) -> None:
        assert "Redis is configured: LiteLLM's limiter counts there" in with_redis.log_text()
        assert "Redis is configured: LiteLLM's Router counts there" in with_redis.log_text()

    def test_the_counts_are_those_of_redis(
        self, with_redis: Proxy, backend: FakeBackend, redis: RedisServer
    ) -> None:
        assert measured(with_redis, backend, "rpm")["admitted"] == 20
        client = pytest.importorskip("redis").Redis.from_url(redis.url, decode_responses=True)
        counts = [int(client.get(key)) for key in client.keys("{api_key:*}:requests")]
        client.close()
        assert max(counts) >= 20

    def test_the_region_is_not_used(self, with_redis: Proxy) -> None:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "fast_litellm",
                "inspect",
                "--json",
                "--pid",
                str(with_redis.master_pid),
            ],
            cwd="/",
            capture_output=True,
            text=True,
            check=True,
        )
        report = json.loads(done.stdout)
        assert report["stats"]["window_charged"] == report["stats"]["lease_acquired"] == 0
        assert report["limits"] == []

    def test_requests_of_a_deployment_are_counted_in_redis(
        self, with_redis: Proxy, backend: FakeBackend, redis: RedisServer
    ) -> None:
        assert measured(with_redis, backend, "deployment_rpm")["reached"] == RPM
        client = pytest.importorskip("redis").Redis.from_url(redis.url, decode_responses=True)
        counts = [int(client.get(key)) for key in client.keys("limited-*:rpm:*")]
        client.close()
        assert counts == [300]

    def test_what_redis_does_not_share_is_not_shared(
        self, with_redis: Proxy, backend: FakeBackend
    ) -> None:
        # LiteLLM counts the failures of a deployment in each worker, with Redis as without.
        assert measured(with_redis, backend, "failing")["hits"] > 6
