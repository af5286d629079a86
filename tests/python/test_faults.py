"""Proves with faults in a real proxy under load that they cost no answer, no limit and no restart."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("litellm")
pytest.importorskip("gunicorn")

from fast_litellm import _native
from harness import load
from harness.faults import LIMITER, ROUTER, Faults
from harness.load import Burst
from harness.proxy import FakeBackend, Proxy
from harness.scenarios import warm_up
from harness.setups import PARALLEL, SETUPS
from support import until

pytestmark = [pytest.mark.proxy, pytest.mark.timeout(180)]

REST_S = 1
THRESHOLD = 10
#: Numbers of the features in the region, and what the log calls them.
FEATURES = {LIMITER: (2, "rate limiter"), ROUTER: (0, "router")}


class Faulty:
    """A proxy whose native operations fail on demand, and its region as an operator sees it."""

    def __init__(self, proxy: Proxy, backend: FakeBackend, path: Path) -> None:
        self.proxy = proxy
        self.backend = backend
        self.faults = Faults(proxy.directory)
        self.region = _native.Region.open(path)

    def burst(self, key: str, n: int, model: str = "fake", concurrency: int = 25) -> Burst:
        """Requests of which none fails otherwise than by a limit, and each reaches the provider once."""
        before = self.hits(model)
        burst = load.burst(self.proxy.base_url, [key], n, concurrency, model=model)
        assert burst.unexpected == []
        assert sum(burst.statuses.values()) == n
        assert self.hits(model) - before == burst.admitted
        return burst

    def hits(self, model: str) -> int:
        return int(self.backend.stats(model)["total"])

    def standing(self, who: str) -> str:
        return str(self.region.feature_standing(FEATURES[who][0], REST_S)["breaker"])

    def errors(self, who: str) -> int:
        return int(self.region.feature_standing(FEATURES[who][0], REST_S)["errors_total"])

    def reset(self, who: str) -> None:
        self.region.reset_feature(FEATURES[who][0])

    def events(self, who: str) -> list[tuple[str, int]]:
        """Breaker events of the feature, the latest first: what, and by a probe (0) or by hand (1)."""
        return [
            (event["event"], event["b"])
            for event in json.loads(self.region.inspect())["events"]
            if event["event"].startswith("breaker") and event["a"] == FEATURES[who][0]
        ]

    def slots(self) -> int:
        """Slots of keys and deployments that are held; calls in flight are others."""
        leases = json.loads(self.region.inspect())["leases"]
        mine = ("api_key:", "deployment:")
        return sum(lease["held"] for lease in leases if lease["key"].startswith(mine))

    def lines(self, who: str, what: str) -> int:
        return self.proxy.log_text().count(f"the {FEATURES[who][1]}{what}")


@pytest.fixture(scope="module")
def faulty() -> Iterator[Faulty]:
    path = Path(f"/dev/shm/fl-faults-{uuid.uuid4().hex}")
    env = {
        "FAST_LITELLM_ENABLED": "true",
        "FAST_LITELLM_SHM": str(path),
        "FAST_LITELLM_BREAKER_REST_S": str(REST_S),
    }
    try:
        with (
            FakeBackend() as backend,
            Proxy(
                backend.url,
                accelerate=True,
                setup=SETUPS["deployments"],
                extra_env=env,
                extra_args=("--graceful-timeout", "1"),
                with_faults=True,
            ) as proxy,
        ):
            warm_up(proxy)
            yield Faulty(proxy, backend, path)
    finally:
        path.unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def mended(faulty: Faulty) -> Iterator[None]:
    for who in FEATURES:
        faulty.reset(who)
    time.sleep(0.3)
    yield
    faulty.faults.none()


def key_of(*limits: str) -> str:
    return "-".join(("sk", *limits, uuid.uuid4().hex[:12]))


@pytest.mark.parametrize("kind", ["Foreign", "PanicException"])
def test_a_limit_with_some_faults_is_kept_but_for_them(faulty: Faulty, kind: str) -> None:
    before = faulty.errors(LIMITER)
    faulty.faults.inject(LIMITER, every=9, most=THRESHOLD - 1, kind=kind)
    burst = faulty.burst(key_of("r40"), 100)
    raised = faulty.faults.raised()
    assert 2 <= raised < THRESHOLD
    assert faulty.errors(LIMITER) - before == raised
    # A call that failed charged nothing, so the region admits all it has; and the worker decides the
    # request of each such call by itself, which admits that one at most.
    assert 40 <= burst.admitted <= 40 + raised
    assert faulty.standing(LIMITER) == "closed"


def test_a_charge_whose_answer_is_lost_is_not_made_twice(faulty: Faulty) -> None:
    faulty.faults.inject(
        LIMITER, every=3, most=THRESHOLD - 1, after=True, only="batch_rate_limiter"
    )
    burst = faulty.burst(key_of("r40"), 100)
    raised = faulty.faults.raised()
    assert 2 <= raised < THRESHOLD
    # The region has charged those requests, and the worker has decided them: each once.
    assert 40 - raised <= burst.admitted <= 40 + raised
    assert faulty.standing(LIMITER) == "closed"


@pytest.mark.parametrize("only", [None, "parallel_release"])
def test_slots_of_a_key_with_some_faults_all_come_back(faulty: Faulty, only: str | None) -> None:
    faulty.backend.configure("fake", latency=0.15)
    # Each worker counts its own calls, and of five slots there may be no more than two releases in each.
    faulty.faults.inject(LIMITER, every=1 if only else 7, most=THRESHOLD - 1, only=only)
    key = key_of("p5")
    faulty.burst(key, 40)
    raised = faulty.faults.raised()
    assert raised >= 2
    assert faulty.backend.stats("fake")["peak"] <= 5 + raised
    faulty.faults.none()
    faulty.backend.reset()

    def all_are_free() -> bool:
        # Whoever owes a release makes it when it is asked next.
        faulty.burst(key_of("p5"), 8)
        return faulty.slots() == 0

    until(all_are_free, "free all slots", timeout_s=10.0)


def opened(faulty: Faulty, who: str, model: str, limits: str) -> Burst:
    """All calls fail, until all workers have seen the breaker open."""
    logged = faulty.lines(who, "'s breaker is open")
    events = len(faulty.events(who))
    faulty.faults.inject(who)
    burst = faulty.burst(key_of(limits), 80, model)
    assert faulty.standing(who) != "closed"
    assert faulty.events(who)[0] == ("breaker_opened", THRESHOLD)
    assert len(faulty.events(who)) == events + 1

    def all_have_seen_it() -> bool:
        faulty.burst(key_of("r99"), 8, model)
        return faulty.lines(who, "'s breaker is open") >= logged + faulty.proxy.workers

    until(all_have_seen_it, "open in all workers", timeout_s=10.0)
    return burst


def test_all_faults_open_the_limiters_breaker_and_a_reset_closes_it(faulty: Faulty) -> None:
    burst = opened(faulty, LIMITER, "fake", "r10")
    # Each worker limits by itself, as LiteLLM does.
    assert 10 <= burst.admitted <= 10 * faulty.proxy.workers
    faulty.faults.none()
    faulty.reset(LIMITER)
    assert faulty.events(LIMITER)[0] == ("breaker_closed", 1)
    time.sleep(0.3)
    assert faulty.burst(key_of("r20"), 80).admitted == 20


def test_the_limiter_heals_by_a_probe(faulty: Faulty) -> None:
    opened(faulty, LIMITER, "fake", "r10")
    # While the fault lasts, a probe a rest fails, and nobody is told of it.
    began, errors = time.monotonic(), faulty.errors(LIMITER)
    while time.monotonic() - began < 1.5 * REST_S or faulty.errors(LIMITER) == errors:
        faulty.burst(key_of("r99"), 4)
    assert faulty.standing(LIMITER) != "closed"
    # A worker that has the probe may fail in a few calls of one request.
    assert 1 <= faulty.errors(LIMITER) - errors <= 8
    faulty.faults.none()

    def is_closed() -> bool:
        faulty.burst(key_of("r99"), 4)
        return faulty.standing(LIMITER) == "closed"

    until(is_closed, "heal", timeout_s=10.0)
    assert faulty.events(LIMITER)[0] == ("breaker_closed", 0)
    time.sleep(0.3)
    assert faulty.burst(key_of("r20"), 80).admitted == 20


@pytest.mark.parametrize(
    ("kind", "only"), [("PanicException", None), ("RuntimeError", "parallel_release")]
)
def test_slots_of_a_deployment_with_some_faults_all_come_back(
    faulty: Faulty, kind: str, only: str | None
) -> None:
    faulty.backend.reset()
    faulty.backend.configure("narrow", latency=0.15)
    faulty.faults.inject(ROUTER, every=2 if only else 11, most=THRESHOLD - 1, kind=kind, only=only)
    faulty.burst(key_of(), 40, "narrow", concurrency=20)
    raised = faulty.faults.raised()
    assert raised >= 2
    assert faulty.backend.stats("narrow")["peak"] <= PARALLEL + raised
    faulty.faults.none()
    faulty.backend.reset()

    def all_are_free() -> bool:
        faulty.burst(key_of(), 8, "narrow")
        return faulty.slots() == 0

    until(all_are_free, "free all slots", timeout_s=10.0)


def test_all_faults_open_the_routers_breaker_and_it_heals(faulty: Faulty) -> None:
    burst = opened(faulty, ROUTER, "fake", "r99")
    assert burst.admitted == 80
    faulty.faults.none()

    def is_closed() -> bool:
        faulty.burst(key_of("r99"), 4)
        return faulty.standing(ROUTER) == "closed"

    until(is_closed, "heal", timeout_s=10.0)
    assert faulty.events(ROUTER)[0] == ("breaker_closed", 0)
    log = faulty.proxy.log_text()
    assert "Exception in ASGI application" not in log
    assert os.path.exists(f"/proc/{faulty.proxy.master_pid}")
    assert faulty.proxy.boots() == faulty.proxy.workers
