"""Proves that a feature used for a part of the traffic keeps every limit and every deployment whole."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import uuid
import warnings
from collections.abc import Coroutine
from types import ModuleType
from typing import Any, TypeVar

import pytest

import fast_litellm
from fast_litellm import _features
from support import Forked, Worker, forked, in_fork, region, until

litellm = pytest.importorskip("litellm")

MODULE = "litellm.proxy.hooks.parallel_request_limiter_v3"
CLASS = "_PROXY_MaxParallelRequestsHandler_v3"
LIMITER, ROUTING = "rust_rate_limiting", "rust_routing"
HALF = "rollout:50"

T = TypeVar("T")


@pytest.fixture(scope="module", autouse=True)
def module() -> ModuleType:
    """LiteLLM, unpatched. Every test patches it in a forked child of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("litellm.proxy.utils")
        importlib.import_module("litellm.router")
        for name in ("cooldown_cache", "client_initalization_utils"):
            importlib.import_module(f"litellm.router_utils.{name}")
        return importlib.import_module(MODULE)


def accelerate(**variables: str) -> None:
    warnings.simplefilter("ignore")
    os.environ.pop("FAST_LITELLM_ENABLED", None)
    os.environ.update(variables)
    assert fast_litellm.apply_acceleration() is True


def new_handler(module: ModuleType) -> Any:
    from litellm.caching.caching import DualCache
    from litellm.proxy.utils import InternalUsageCache

    handler = getattr(module, CLASS)(internal_usage_cache=InternalUsageCache(DualCache()))
    handler._fail_closed_resolver = lambda: False
    return handler


def limited(module: ModuleType, value: str = HALF) -> Any:
    accelerate(FAST_LITELLM_RUST_RATE_LIMITING=value)
    return new_handler(module)


def seam() -> Any:
    from fast_litellm.integrations import litellm as integration

    return integration._seams["rate_limiting"]


def switch(feature: str, value: bool | str | None) -> None:
    """Move a switch, and have this process see it."""
    percent = fast_litellm.set_feature(feature, value)["rollout_percentage"]
    breaker = seam()._breaker if feature == LIMITER else routing().breaker
    until(lambda: (breaker.open, breaker.percent)[1] == percent, "follow the switch", 1.0)


def side(inside: bool, kind: str = "api_key", percent: int = 50) -> dict[str, Any]:
    """A limit's key and value of a subject inside or outside a rollout."""
    while True:
        value = uuid.uuid4().hex
        if _features.in_rollout(LIMITER, f"{kind}:{value}", percent) is inside:
            return {"key": kind, "value": value}


def limit(subject: dict[str, Any], **limits: int) -> dict[str, Any]:
    return {**subject, "rate_limit": {**limits, "window_size": 3600}}


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def admitted(handler: Any, *limits: dict[str, Any], slot_id: str | None = None) -> bool:
    answer = run(
        handler.should_rate_limit(list(limits), parallel_slot_id=slot_id or uuid.uuid4().hex)
    )
    assert len(answer["statuses"]) >= 1
    return bool(answer["overall_code"] == "OK")


def count_admitted(handler: Any, tries: int, *limits: dict[str, Any]) -> int:
    return sum(admitted(handler, *limits) for _ in range(tries))


def memory(handler: Any) -> Any:
    return handler.internal_usage_cache.dual_cache.in_memory_cache


def key_of(subject: dict[str, Any], part: str) -> str:
    return f"{{{subject['key']}:{subject['value']}}}:{part}"


def counted(handler: Any, subject: dict[str, Any], part: str) -> int:
    """What is counted where the subject is: in the region, or in this worker's memory."""
    value = memory(handler).get_cache(key_of(subject, part))
    return len(value) if isinstance(value, dict) else int(value or 0)


def in_region(subject: dict[str, Any], part: str) -> int:
    return int(seam()._scripts.value(key_of(subject, part)) or 0)


# The limiter


@in_fork
def test_a_subject_is_with_the_region_or_with_each_worker(module: ModuleType) -> None:
    handler = limited(module)
    ours, theirs = side(True), side(False)
    limits = [limit(each, requests_per_unit=20) for each in (ours, theirs)]
    for subject, total in zip(limits, (20, 4 * 20), strict=True):
        workers = [Forked(lambda s=subject: count_admitted(handler, 30, s)) for _ in range(4)]
        assert sum(worker.result() for worker in workers) == total
    assert (in_region(ours, "requests") > 0, in_region(theirs, "requests")) == (True, 0)
    assert fast_litellm.is_enabled(LIMITER, f"api_key:{ours['value']}")
    assert not fast_litellm.is_enabled(LIMITER, f"api_key:{theirs['value']}")
    status = fast_litellm.get_patch_status()["seams"]["rate_limiting"]
    assert status == {"state": "applied", "reason": "rolled out to 50%"}
    assert region().fallback_count() == 0


@pytest.mark.parametrize(("ours_rpm", "theirs_rpm"), [(3, 9), (9, 3)])
@in_fork
def test_of_limits_on_both_sides_the_lower_one_decides_and_no_refusal_is_charged(
    module: ModuleType, ours_rpm: int, theirs_rpm: int
) -> None:
    handler = limited(module)
    ours, theirs = side(True), side(False, "team")
    limits = [limit(ours, requests_per_unit=ours_rpm), limit(theirs, requests_per_unit=theirs_rpm)]
    assert count_admitted(handler, 8, *limits) == 3
    # LiteLLM, too, charges the request that finds a limit just used up.
    assert 3 <= in_region(ours, "requests") <= 4
    assert 3 <= counted(handler, theirs, "requests") <= 4
    assert in_region(theirs, "requests") == 0


@in_fork
def test_refusals_of_limits_on_both_sides_are_shown_once(module: ModuleType) -> None:
    handler = limited(module)
    # A name that inspectors show as it is.
    names = (f"k{n}" for n in range(100))
    value = next(name for name in names if _features.in_rollout(LIMITER, f"api_key:{name}", 50))
    ours, theirs = {"key": "api_key", "value": value}, side(False)
    limits = [limit(ours, requests_per_unit=2), limit(theirs, requests_per_unit=50)]
    assert count_admitted(handler, 5, *limits) == 2
    shown = {entry["key"]: entry for entry in json.loads(region().inspect())["limits"]}
    entry = shown[f"api_key:{ours['value']}"]
    assert (entry["allowed"], entry["denied"]) == (2, 3)


@pytest.mark.parametrize(("ours_slots", "theirs_slots"), [(1, 5), (5, 1), (2, 2)])
@in_fork
def test_slots_on_both_sides_are_taken_together_and_given_back(
    module: ModuleType, ours_slots: int, theirs_slots: int
) -> None:
    handler = limited(module)
    ours, theirs = side(True), side(False, "team")
    limits = [
        limit(ours, max_parallel_requests=ours_slots),
        limit(theirs, max_parallel_requests=theirs_slots),
    ]
    keys = [key_of(each, "max_parallel_requests") for each in (ours, theirs)]
    most = min(ours_slots, theirs_slots)
    for _ in range(3):
        ids = [uuid.uuid4().hex for _ in range(6)]
        held = [slot for slot in ids if admitted(handler, *limits, slot_id=slot)]
        assert len(held) == most
        assert in_region(ours, "max_parallel_requests") == most
        assert counted(handler, theirs, "max_parallel_requests") == most
        for slot in ids:
            run(handler._release_parallel_request_slots({"slot_id": slot, "counter_keys": keys}))
        assert in_region(ours, "max_parallel_requests") == 0
        assert counted(handler, theirs, "max_parallel_requests") == 0


@in_fork
def test_a_slot_is_given_back_when_the_other_side_has_none_or_fails(module: ModuleType) -> None:
    handler = limited(module)
    ours, theirs = side(True), side(False, "team")
    limits = [limit(each, max_parallel_requests=2) for each in (ours, theirs)]
    assert count_admitted(handler, 2, limits[0]) == 2

    async def free(keys: list[str], args: list[Any]) -> list[int]:
        return [0] * len(keys)

    # As if they had been taken just after they were looked at.
    handler.parallel_count_script = free
    assert count_admitted(handler, 3, *limits) == 0
    assert counted(handler, theirs, "max_parallel_requests") == 0

    def fail(*_: object) -> None:
        raise RuntimeError("injected")

    handler.parallel_acquire_script._method = fail
    handler._fail_closed_resolver = lambda: True
    with pytest.raises(Exception, match=r".*"):
        admitted(handler, limit(side(True), max_parallel_requests=2), limits[1])
    assert counted(handler, theirs, "max_parallel_requests") == 0


@pytest.mark.parametrize(("ours_tpm", "theirs_tpm"), [(100, 900), (900, 100)])
@in_fork
def test_reservations_on_both_sides_are_made_together_and_settled_where_they_are(
    module: ModuleType, ours_tpm: int, theirs_tpm: int
) -> None:
    handler = limited(module)
    ours, theirs = side(True), side(False, "team")
    limits = [limit(ours, tokens_per_unit=ours_tpm), limit(theirs, tokens_per_unit=theirs_tpm)]

    def reserve() -> bool:
        answer = run(
            handler.atomic_check_and_increment_by_n(limits, [{"tokens": 30}, {"tokens": 30}])
        )
        return bool(answer["overall_code"] == "OK")

    assert [reserve() for _ in range(5)] == [True, True, True, False, False]
    # What was refused is charged to neither.
    assert (in_region(ours, "tokens"), counted(handler, theirs, "tokens")) == (90, 90)
    settle = [
        {"key": key_of(each, "tokens"), "increment_value": -40, "ttl": 3600}
        for each in (ours, theirs)
    ]
    run(handler.async_increment_tokens_with_ttl_preservation(pipeline_operations=settle))
    assert (in_region(ours, "tokens"), counted(handler, theirs, "tokens")) == (50, 50)
    assert in_region(theirs, "tokens") == 0


@in_fork
def test_a_failing_region_costs_the_other_side_nothing(module: ModuleType) -> None:
    handler = limited(module)
    ours, theirs = side(True), side(False, "team")
    limits = [limit(ours, tokens_per_unit=90), limit(theirs, tokens_per_unit=90)]

    def fail(*_: object) -> None:
        raise RuntimeError("injected")

    handler.check_and_increment_by_n_script._method = fail
    handler._fail_closed_resolver = lambda: True
    for _ in range(3):
        with pytest.raises(Exception, match=r".*") as refused:
            run(handler.atomic_check_and_increment_by_n(limits, [{"tokens": 30}, {"tokens": 30}]))
        assert type(refused.value).__name__ == "RateLimitUnverifiableError"
    assert counted(handler, theirs, "tokens") == 0
    handler._fail_closed_resolver = lambda: False
    for _ in range(3):
        answer = run(
            handler.atomic_check_and_increment_by_n(limits, [{"tokens": 30}, {"tokens": 30}])
        )
        assert answer["overall_code"] == "OK"
    assert counted(handler, theirs, "tokens") == 90
    assert in_region(ours, "tokens") == 0


@in_fork
def test_what_is_held_is_given_back_where_it_is_held_whatever_the_switch_says(
    module: ModuleType,
) -> None:
    handler = limited(module, "true")
    subject = side(True)
    limits = limit(subject, max_parallel_requests=2)
    key = key_of(subject, "max_parallel_requests")

    def release(slot: str) -> None:
        run(handler._release_parallel_request_slots({"slot_id": slot, "counter_keys": [key]}))

    assert admitted(handler, limits, slot_id="shared")
    switch(LIMITER, False)
    assert fast_litellm.get_patch_status()["seams"]["rate_limiting"] == {
        "state": "not_applied",
        "reason": "switched off for all workers with set_feature",
    }
    # In its own memory, as LiteLLM does; a limit of what is switched off is no fallback.
    assert admitted(handler, limits, slot_id="own")
    assert region().fallback_count() == 0
    release("shared")
    assert in_region(subject, "max_parallel_requests") == 0
    # Which has not touched what this worker holds alone.
    assert counted(handler, subject, "max_parallel_requests") == 1
    switch(LIMITER, HALF)
    assert admitted(handler, limits, slot_id="again")
    assert in_region(subject, "max_parallel_requests") == 1
    release("own")
    switch(LIMITER, True)
    release("again")
    assert in_region(subject, "max_parallel_requests") == 0
    switch(LIMITER, False)
    # Nothing was left behind in either place.
    assert counted(handler, subject, "max_parallel_requests") == 0
    assert count_admitted(handler, 5, limits) == 2


@in_fork
def test_workers_follow_the_switch_from_a_little_to_all_and_back(module: ModuleType) -> None:
    handler = limited(module, "rollout:5")
    subjects = [side(True, percent=5), side(False, percent=5)]
    limits = [limit(each, requests_per_unit=4) for each in subjects]

    class Following:
        def admitted_at(self, percent: int) -> list[int]:
            until(lambda: (seam().open, seam()._breaker.percent)[1] == percent, "follow")
            return [count_admitted(handler, 6, each) for each in limits]

    worker = Worker(Following())
    seen = worker.call("admitted_at", 5)
    for value, percent in ((True, 100), (False, 0)):
        fast_litellm.set_feature(LIMITER, value)
        seen += worker.call("admitted_at", percent)
    worker.end()
    fast_litellm.set_feature(LIMITER, None)
    # What the region had counted it still has when it is asked for all; what the worker had counted, it
    # still has when it is alone again.
    assert seen == [4, 4, 0, 4, 4, 0]


# The Router


def routing() -> Any:
    from fast_litellm.integrations import litellm as integration

    return integration._shared_routing


def group(inside: bool) -> str:
    while True:
        name = f"gpt-{uuid.uuid4().hex[:6]}"
        if _features.in_rollout(ROUTING, name, 50) is inside:
            return name


def routed(*groups: str, **settings: Any) -> Any:
    accelerate(FAST_LITELLM_RUST_ROUTING=HALF)
    return litellm.Router(
        model_list=[
            {
                "model_name": name,
                "litellm_params": {"model": "openai/gpt", "api_key": "k"},
                "model_info": {"id": f"{name}:{n}"},
            }
            for name in groups
            for n in range(2)
        ],
        **settings,
    )


@in_fork
def test_a_group_is_with_the_region_or_with_each_worker() -> None:
    ours, theirs = group(True), group(False)
    router = routed(ours, theirs, routing_strategy="latency-based-routing")
    tier = router.cache.in_memory_cache
    ids = [f"{name}:{n}" for name in (ours, theirs) for n in range(2)]
    minute = "12-30"

    def elsewhere() -> None:
        for id_ in ids:
            router.cooldown_cache.add_deployment_to_cooldown(id_, ValueError("x"), 429, 30.0)
            for key in (f"{id_}:fails", f"{id_}:openai/gpt:x:rpm:{minute}"):
                tier.increment_cache(key, 3, ttl=60)
            tier.increment_cache(f"deployment:{id_}:allowed_fails", 2, ttl=60)
            tier.increment_cache(f"deployment_spend:{id_}:1d", 0.5, ttl=60)
        assert router.cooldown_cache.get_active_cooldowns(ids, parent_otel_span=None)

    forked(elsewhere)
    found = router.cooldown_cache.get_active_cooldowns(ids, parent_otel_span=None)
    assert {id_ for id_, _ in found} == set(ids[:2])
    for id_ in ids:
        shared = id_ in ids[:2]
        for key, value in {
            f"{id_}:fails": 3,
            f"{id_}:openai/gpt:x:rpm:{minute}": 3,
            f"deployment:{id_}:allowed_fails": 2,
            f"deployment_spend:{id_}:1d": 0.5,
        }.items():
            assert tier.get_cache(key) == (value if shared else None), key
            # One that is alone counts alone.
            assert tier.increment_cache(key, 1) == (value + 1 if shared else 1), key
    assert fast_litellm.is_enabled(ROUTING, ours)
    assert not fast_litellm.is_enabled(ROUTING, theirs)
    assert fast_litellm.get_patch_status()["seams"]["routing.deployments"]["state"] == "applied"


@in_fork
def test_calls_and_slots_of_a_group_are_counted_on_one_side() -> None:
    limit_class = importlib.import_module(
        "litellm.router_utils.client_initalization_utils"
    ).MaxParallelRequestsLimit
    ours, theirs = group(True), group(False)
    routed(ours, theirs)
    feed = next(c for c in litellm.callbacks if type(c).__name__ == "FastLitellmFeed")
    for name in (ours, theirs):
        feed.log_pre_api_call(
            name,
            [],
            {
                "litellm_call_id": name,
                "litellm_params": {"model_info": {"id": f"{name}:0"}},
            },
        )
    deployments = routing().shared.deployments
    assert [deployments.in_flight(f"{name}:0") for name in (ours, theirs)] == [1, 0]

    def take(name: str) -> int:
        slots = limit_class(max_parallel_requests=3, model_id=f"{name}:0", model_group=name)
        taken = 0
        for _ in range(5):
            try:
                slots.acquire()
                taken += 1
            except Exception:  # noqa: BLE001  # none is left
                break
        return taken

    assert [take(ours), take(theirs)] == [3, 3]
    assert [forked(lambda n=name: take(n)) for name in (ours, theirs)] == [0, 3]


@in_fork
def test_a_routers_state_follows_the_switch() -> None:
    ours, theirs = group(True), group(False)
    router = routed(ours, theirs)
    tier = router.cache.in_memory_cache
    fails = f"{theirs}:0:fails"
    forked(lambda: tier.increment_cache(fails, 5, ttl=60))
    assert tier.get_cache(fails) is None
    switch(ROUTING, True)
    forked(lambda: tier.increment_cache(fails, 5, ttl=60))
    assert tier.get_cache(fails) == 5
    before = region().fallback_count()
    switch(ROUTING, False)
    assert tier.get_cache(fails) is None
    assert tier.get_cache(f"{ours}:0:fails") is None
    assert region().fallback_count() == before
    states = fast_litellm.get_patch_status()["seams"]
    assert states["routing.deployments"]["state"] == "not_applied"
    assert fast_litellm.health_check()["status"] == "ok"
