"""Proves that LiteLLM's limiter counts in the region once patched, and is itself when it cannot be."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import os
import time
import uuid
import warnings
from collections.abc import Callable, Coroutine
from types import ModuleType
from typing import Any, TypeVar

import pytest

import fast_litellm
from fast_litellm import OutOfRangeError, UnavailableError, _native
from fast_litellm._native import PanicException
from support import Forked, forked, in_fork, region, run_python, until

pytest.importorskip("litellm")

MODULE = "litellm.proxy.hooks.parallel_request_limiter_v3"
CLASS = "_PROXY_MaxParallelRequestsHandler_v3"
FEATURE = 2
MAX_ERRORS = 10

T = TypeVar("T")


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """LiteLLM's limiter, unpatched. Every test patches it in a forked child of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("litellm.proxy.utils")
        return importlib.import_module(MODULE)


def accelerate() -> dict[str, str]:
    """Switch on what the test process has switched off; the state of the limiter's seam."""
    warnings.simplefilter("ignore")
    os.environ.pop("FAST_LITELLM_ENABLED", None)
    os.environ["FAST_LITELLM_RUST_ROUTING"] = "false"
    os.environ["FAST_LITELLM_RUST_TOKEN_COUNTING"] = "false"
    assert fast_litellm.apply_acceleration() is True
    return seam_status()


def seam_status() -> dict[str, str]:
    status: dict[str, str] = fast_litellm.get_patch_status()["seams"]["rate_limiting"]
    return status


def seam() -> Any:
    from fast_litellm.integrations import litellm

    return litellm._seams["rate_limiting"]


def new_handler(module: ModuleType, redis: object = None) -> Any:
    from litellm.caching.caching import DualCache
    from litellm.proxy.utils import InternalUsageCache

    cache = InternalUsageCache(DualCache(redis_cache=redis))  # type: ignore[arg-type]
    handler = getattr(module, CLASS)(internal_usage_cache=cache)
    # Asked after a failed script; the answer is in the proxy's settings, of which there are none here.
    handler._fail_closed_resolver = lambda: False
    return handler


def accelerated(module: ModuleType) -> Any:
    accelerate()
    return new_handler(module)


def memory(handler: Any) -> Any:
    return handler.internal_usage_cache.dual_cache.in_memory_cache


def script_values(handler: Any) -> list[Any]:
    return [value for name, value in vars(handler).items() if name.endswith("_script")]


def descriptor(value: str, **limits: int) -> dict[str, Any]:
    return {"key": "api_key", "value": value, "rate_limit": {**limits, "window_size": 3600}}


def run(work: Coroutine[Any, Any, T]) -> T:
    """One request: like the proxy's, it has a context of its own."""
    return asyncio.run(work)


def admitted(handler: Any, limits: dict[str, Any], slot_id: str | None = None) -> bool:
    response = run(
        handler.should_rate_limit([limits], parallel_slot_id=slot_id or uuid.uuid4().hex)
    )
    return bool(response["overall_code"] == "OK")


def count_admitted(handler: Any, tries: int, limits: dict[str, Any]) -> int:
    return sum(admitted(handler, limits) for _ in range(tries))


def reserved(handler: Any, limits: dict[str, Any], tokens: int) -> bool:
    response = run(handler.atomic_check_and_increment_by_n([limits], [{"tokens": tokens}]))
    return bool(response["overall_code"] == "OK")


# Applied


@in_fork
def test_every_script_of_a_new_handler_is_answered_from_the_region(module: ModuleType) -> None:
    original = getattr(module, CLASS).__init__
    assert accelerate() == {"state": "applied", "reason": ""}
    handler = new_handler(module)
    assert getattr(module, CLASS).__init__ is not original
    assert len(script_values(handler)) >= 7
    assert all(callable(script) for script in script_values(handler))
    assert isinstance(
        memory(handler), importlib.import_module("litellm.caching.in_memory_cache").InMemoryCache
    )
    assert fast_litellm.get_patch_status()["components"] == ["rate_limiting"]
    assert fast_litellm.health_check()["status"] == "ok"


@in_fork
def test_litellm_finds_the_parameters_it_looks_for(module: ModuleType) -> None:
    handler_class = getattr(module, CLASS)
    before = inspect.getfullargspec(handler_class), inspect.signature(handler_class)
    checks = inspect.signature(handler_class.should_rate_limit)
    accelerate()
    assert (inspect.getfullargspec(handler_class), inspect.signature(handler_class)) == before
    assert "internal_usage_cache" in inspect.getfullargspec(handler_class).args
    assert inspect.signature(handler_class.should_rate_limit) == checks
    assert asyncio.iscoroutinefunction(handler_class.should_rate_limit)


@in_fork
def test_the_scripts_take_what_litellm_passes(module: ModuleType) -> None:
    handler = accelerated(module)
    keys = ["{api_key:x}:window", "{api_key:x}:requests"]

    async def call() -> list[Any]:
        hit = await handler.batch_rate_limiter_script(keys=keys, args=(int(time.time()), 60))
        slot = await handler.parallel_acquire_script(
            keys=["{api_key:x}:max_parallel_requests"], args=[2, 3600, "id"]
        )
        return [hit[1], slot]

    assert run(call()) == [1, [0, 1]]


@in_fork
def test_forked_workers_admit_exactly_the_requests_per_window(module: ModuleType) -> None:
    handler = accelerated(module)
    limits = descriptor("rpm", requests_per_unit=20)
    workers = [Forked(lambda: count_admitted(handler, 30, limits)) for _ in range(4)]
    assert sum(worker.result() for worker in workers) == 20
    assert not admitted(handler, limits)
    assert admitted(handler, descriptor("other", requests_per_unit=20))


@in_fork
def test_forked_workers_reserve_exactly_the_tokens_per_window(module: ModuleType) -> None:
    handler = accelerated(module)
    limits = descriptor("tpm", tokens_per_unit=900)

    def reserve() -> int:
        return sum(reserved(handler, limits, 30) for _ in range(30))

    workers = [Forked(reserve) for _ in range(4)]
    assert sum(worker.result() for worker in workers) == 30
    # Unused tokens that one worker gives back can be had by another.
    forked(
        lambda: run(
            handler.internal_usage_cache.async_increment_cache(
                key="{api_key:tpm}:tokens", value=-60, ttl=60, litellm_parent_otel_span=None
            )
        )
    )
    assert sum(reserved(handler, limits, 30) for _ in range(5)) == 2


@in_fork
def test_forked_workers_hold_exactly_the_parallel_requests(module: ModuleType) -> None:
    handler = accelerated(module)
    limits = descriptor("parallel", max_parallel_requests=5)
    key = "{api_key:parallel}:max_parallel_requests"

    def hold_and_release() -> tuple[int, int]:
        ids = [uuid.uuid4().hex for _ in range(20)]
        held = [slot_id for slot_id in ids if admitted(handler, limits, slot_id)]
        most = max(0, int(memory(handler).get_cache(key) or 0))
        for slot_id in held:
            run(
                handler._release_parallel_request_slots({"slot_id": slot_id, "counter_keys": [key]})
            )
        return len(held), most

    workers = [Forked(hold_and_release) for _ in range(4)]
    for held, most in [worker.result() for worker in workers]:
        assert held <= 20
        assert most <= 5
    ids = [uuid.uuid4().hex for _ in range(9)]
    assert sum(admitted(handler, limits, slot_id) for slot_id in ids) == 5
    # Slots of a worker that is gone without a word come back.
    assert forked(lambda: count_admitted(handler, 3, limits)) == 0
    run(handler._release_parallel_request_slots({"slot_id": ids[0], "counter_keys": [key]}))
    assert forked(lambda: count_admitted(handler, 3, limits)) == 1
    until(lambda: admitted(handler, limits), "free the dead worker's slot", timeout_s=1.0)


@in_fork
def test_a_read_only_check_charges_nothing(module: ModuleType) -> None:
    handler = accelerated(module)
    limits = descriptor("look", requests_per_unit=2, max_parallel_requests=2)
    look = lambda: run(handler.should_rate_limit([limits], read_only=True))["overall_code"]  # noqa: E731
    assert [look() for _ in range(5)] == ["OK"] * 5
    assert count_admitted(handler, 2, limits) == 2
    assert forked(look) == "OVER_LIMIT"


# The in-memory tier


@in_fork
def test_reads_of_limiter_keys_are_live(module: ModuleType) -> None:
    handler = accelerated(module)
    cache = memory(handler)
    assert cache.get_cache("{api_key:k}:requests") is None
    forked(lambda: count_admitted(handler, 3, descriptor("k", requests_per_unit=9)))
    assert cache.get_cache("{api_key:k}:requests") == 3
    assert abs(int(cache.get_cache("{api_key:k}:window")) - time.time()) < 60
    keys = ["{api_key:k}:requests", "{api_key:none}:requests"]
    assert run(cache.async_batch_get_cache(keys)) == cache.batch_get_cache(keys) == [3, None]
    assert "{api_key:k}:requests" not in cache.cache_dict


@in_fork
def test_copies_of_limiter_keys_are_dropped(module: ModuleType) -> None:
    handler = accelerated(module)
    cache = memory(handler)
    for key in ("{api_key:k}:window", "{api_key:k}:requests", "{a:b}:max_parallel_requests"):
        cache.set_cache(key, 99, ttl=60)
        run(cache.async_set_cache(key, 99))
        run(cache.async_set_cache_pipeline([(key, 99)]))
        assert cache.get_cache(key) is None
        assert key not in cache.cache_dict


@in_fork
def test_all_other_keys_are_litellms_own(module: ModuleType) -> None:
    handler = accelerated(module)
    cache = memory(handler)
    for key in (
        "spend",
        "{api_key:k}:other",
        "api_key:k:requests",
        "{x",
        ":requests",
        "{a}:requests:x",
    ):
        cache.set_cache(key, {"a": 1}, ttl=60)
        assert cache.get_cache(key) == {"a": 1} == cache.cache_dict[key]
        cache.delete_cache(key)
        assert cache.get_cache(key) is None
        assert cache.increment_cache(key, 2.5) == 2.5
        assert forked(lambda key=key: cache.increment_cache(key, 1)) == 3.5
        assert cache.get_cache(key) == 2.5


@in_fork
def test_increments_of_limiter_keys_lose_nothing(module: ModuleType) -> None:
    handler = accelerated(module)
    cache = memory(handler)
    key = "{api_key:k}:tokens"

    def add() -> None:
        for _ in range(200):
            cache.increment_cache(key, 3, ttl=600)

    for worker in [Forked(add) for _ in range(4)]:
        worker.result()
    assert cache.get_cache(key) == 2400
    assert run(cache.async_increment(key, -400)) == 2000
    assert run(handler.internal_usage_cache.dual_cache.async_increment_cache(key, 1)) == 2001


@in_fork
def test_deleted_limiter_keys_start_over_everywhere(module: ModuleType) -> None:
    handler = accelerated(module)
    cache = memory(handler)
    limits = descriptor("k", requests_per_unit=2)
    assert count_admitted(handler, 3, limits) == 2
    cache.delete_cache("{api_key:k}:window")
    assert cache.get_cache("{api_key:k}:requests") is None
    assert forked(lambda: count_admitted(handler, 3, limits)) == 2


# Stood back and taken away


class FakeRedis:
    """As much of LiteLLM's Redis cache as the limiter touches when it is made."""

    def __init__(self) -> None:
        self.registered: list[str] = []

    def async_register_script(self, script: str) -> Callable[..., object]:
        self.registered.append(script)
        return lambda **_: []


@in_fork
def test_with_redis_the_seam_stands_back(module: ModuleType) -> None:
    accelerate()
    redis = FakeRedis()
    handler = new_handler(module, redis)
    assert len(redis.registered) >= len(script_values(handler)) >= 7
    in_memory = importlib.import_module("litellm.caching.in_memory_cache")
    assert type(memory(handler)) is in_memory.InMemoryCache
    assert all(inspect.isfunction(script) for script in script_values(handler))
    assert seam_status()["state"] == "not_applied"
    assert "Redis" in seam_status()["reason"]
    assert fast_litellm.get_patch_status()["applied"] is False


@in_fork
def test_removing_leaves_everything_as_it_was(module: ModuleType) -> None:
    handler_class = getattr(module, CLASS)
    before = dict(vars(handler_class))
    handler = accelerated(module)
    memory(handler).set_cache("kept", 1)
    limits = descriptor("k", requests_per_unit=3)
    assert count_admitted(handler, 2, limits) == 2
    fast_litellm.remove_acceleration()
    assert dict(vars(handler_class)) == before
    assert script_values(handler) == [None] * len(script_values(handler))
    in_memory = importlib.import_module("litellm.caching.in_memory_cache")
    assert type(memory(handler)) is in_memory.InMemoryCache
    assert memory(handler).get_cache("kept") == 1
    status = fast_litellm.get_patch_status()
    assert (status["applied"], status["seams"]) == (False, {})
    assert "remove_acceleration" in status["reason"]
    # From here on every process counts for itself, as LiteLLM does.
    assert forked(lambda: count_admitted(handler, 5, limits)) == 3
    assert count_admitted(handler, 5, limits) == 3
    assert all(script is None for script in script_values(new_handler(module)))
    fast_litellm.remove_acceleration()


@in_fork
def test_it_can_be_applied_again(module: ModuleType) -> None:
    first = accelerated(module)
    limits = descriptor("k", requests_per_unit=4)
    assert count_admitted(first, 1, limits) == 1
    for _ in range(3):
        fast_litellm.remove_acceleration()
        assert accelerate() == {"state": "applied", "reason": ""}
    handler = new_handler(module)
    # The region has kept what was counted before.
    assert forked(lambda: count_admitted(handler, 2, limits)) == 2
    assert count_admitted(handler, 5, limits) == 1
    fast_litellm.remove_acceleration()
    assert "fast_litellm" not in repr(vars(getattr(module, CLASS)))


@in_fork
def test_applying_again_takes_up_the_handlers_that_exist(module: ModuleType) -> None:
    """Otherwise the status says that limits are shared, while the proxy's only limiter counts alone."""
    handler = accelerated(module)
    limits = descriptor("k", requests_per_unit=4)
    fast_litellm.remove_acceleration()
    assert accelerate()["state"] == "applied"
    assert forked(lambda: count_admitted(handler, 9, limits)) == 4
    assert count_admitted(handler, 9, limits) == 0


@in_fork
def test_applying_twice_changes_nothing(module: ModuleType) -> None:
    handler = accelerated(module)
    init = getattr(module, CLASS).__init__
    assert accelerate()["state"] == "applied"
    assert getattr(module, CLASS).__init__ is init
    assert admitted(handler, descriptor("k", requests_per_unit=1))


@in_fork
def test_every_refusal_is_counted_for_inspectors(module: ModuleType) -> None:
    """Most are decided from a value that LiteLLM reads, without asking a script."""
    handler = accelerated(module)
    assert count_admitted(handler, 9, descriptor("k", requests_per_unit=3)) == 3
    limits = json.loads(region().inspect())["limits"]
    (entry,) = [limit for limit in limits if limit["key"] == "api_key:k"]
    assert (entry["allowed"], entry["denied"]) == (3, 6)
    assert entry["requests"]["limit"] == 3


# Not applied


def unknown_script(module: ModuleType) -> None:
    module.BRAND_NEW_SCRIPT = "return 1"  # type: ignore[attr-defined]


def changed_script(module: ModuleType) -> None:
    module.PARALLEL_ACQUIRE_SCRIPT += "\n"


def missing_script(module: ModuleType) -> None:
    del module.TOKEN_INCREMENT_SCRIPT


def missing_class(module: ModuleType) -> None:
    delattr(module, CLASS)


def no_class(module: ModuleType) -> None:
    setattr(module, CLASS, lambda internal_usage_cache: None)


def other_constructor(module: ModuleType) -> None:
    class Handler:
        def __init__(self, cache: object) -> None:
            self.cache = cache

    setattr(module, CLASS, Handler)


def older_version(module: ModuleType) -> None:
    import importlib.metadata as metadata

    metadata.version = lambda name: "1.103.9"


def other_cache(module: ModuleType) -> None:
    del importlib.import_module("litellm.caching.in_memory_cache").InMemoryCache.increment_cache


def broken_probe(module: ModuleType) -> None:
    from fast_litellm.integrations.litellm import _compat

    def probe(module: ModuleType) -> str:
        raise ZeroDivisionError("surprise")

    _compat.probe_limiter = probe


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (changed_script, "PARALLEL_ACQUIRE_SCRIPT"),
        (missing_script, "TOKEN_INCREMENT_SCRIPT"),
        (unknown_script, "BRAND_NEW_SCRIPT"),
        (missing_class, CLASS),
        (no_class, CLASS),
        (other_constructor, "internal_usage_cache"),
        (older_version, "1.103.9"),
        (other_cache, "increment_cache"),
        (broken_probe, "surprise"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
@in_fork
def test_a_litellm_that_is_not_known_is_left_alone(
    module: ModuleType, damage: Callable[[ModuleType], None], named: str
) -> None:
    damage(module)
    before = dict(vars(getattr(module, CLASS, object)))
    status = accelerate()
    assert status["state"] == "not_applied"
    assert named in status["reason"]
    assert fast_litellm.get_patch_status()["applied"] is False
    assert dict(vars(getattr(module, CLASS, object))) == before
    if damage in (changed_script, unknown_script, older_version, broken_probe):
        handler = new_handler(module)
        assert script_values(handler) == [None] * len(script_values(handler))
        assert count_admitted(handler, 5, descriptor("k", requests_per_unit=3)) == 3


@in_fork
def test_a_handler_that_cannot_be_taken_up_is_left_as_it_was(module: ModuleType) -> None:
    accelerate()
    seam()._fill = lambda handler: 1 / 0
    handler = new_handler(module)
    assert seam_status()["state"] == "not_applied"
    assert "ZeroDivisionError" in seam_status()["reason"]
    assert script_values(handler) == [None] * len(script_values(handler))
    assert count_admitted(handler, 5, descriptor("k", requests_per_unit=3)) == 3
    assert count_admitted(handler, 5, descriptor("k", max_parallel_requests=3)) == 3
    in_memory = importlib.import_module("litellm.caching.in_memory_cache")
    assert type(memory(handler)) is in_memory.InMemoryCache


def test_the_seam_is_applied_when_litellm_loads_its_limiter() -> None:
    """The way it happens in a proxy: fast_litellm first, LiteLLM later."""
    done = run_python(
        f"""
        import warnings
        warnings.simplefilter("ignore")
        import sys, fast_litellm
        print(fast_litellm.get_patch_status()["seams"]["rate_limiting"]["state"])
        import {MODULE} as module
        print(fast_litellm.get_patch_status()["seams"]["rate_limiting"]["state"])
        print(type(module.__loader__).__name__, module.__loader__ is module.__spec__.loader)
        print(hasattr(module.{CLASS}.__init__, "__wrapped__"))
        """
    )
    assert done.stdout.split() == ["armed", "applied", "SourceFileLoader", "True", "True"]


# Faults


def break_scripts(handler: Any, error: Exception) -> None:
    """From here on the region fails whenever this process's handler asks it to write."""

    def fail(*_: object, **__: object) -> None:
        raise error

    for script in script_values(handler):
        script._method = fail


class BrokenReads:
    """A region that cannot even be read."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("damaged")


FAULTS = {
    "requests": (descriptor("k", requests_per_unit=3), 3),
    "tokens": (descriptor("k", tokens_per_unit=3), 3),
    "parallel": (descriptor("k", max_parallel_requests=3), 3),
    "both": (descriptor("k", requests_per_unit=9, max_parallel_requests=3), 3),
}


@pytest.mark.parametrize("kind", FAULTS)
@in_fork
def test_a_request_that_the_region_fails_is_decided_by_litellm(
    module: ModuleType, kind: str
) -> None:
    handler = accelerated(module)
    limits, allowed = FAULTS[kind]
    break_scripts(handler, RuntimeError("injected"))
    assert count_admitted(handler, 6, limits) == allowed
    errors = region().feature_errors(FEATURE)
    assert errors >= 3
    assert region().fallback_count() == errors
    # Nothing of it has reached the region.
    assert forked(lambda: memory(handler).get_cache("{api_key:k}:requests")) is None


@in_fork
def test_a_failed_reservation_is_decided_by_litellm(module: ModuleType) -> None:
    handler = accelerated(module)
    break_scripts(handler, RuntimeError("injected"))
    limits = descriptor("k", tokens_per_unit=90)
    assert sum(reserved(handler, limits, 30) for _ in range(6)) == 3
    assert region().feature_errors(FEATURE) == 6


@in_fork
def test_a_region_that_cannot_be_read_harms_nobody(module: ModuleType) -> None:
    handler = accelerated(module)
    break_scripts(handler, RuntimeError("injected"))
    seam()._scripts = BrokenReads()
    for number, (limits, allowed) in enumerate(FAULTS.values()):
        limits = {**limits, "value": f"k{number}"}
        assert count_admitted(handler, 6, limits) == allowed
    cache = memory(handler)
    for key in ("{api_key:z}:tokens", "other"):
        assert cache.increment_cache(key, 2) == 2
        assert cache.get_cache(key) == 2
        cache.delete_cache(key)
        assert cache.get_cache(key) is None


@pytest.mark.parametrize(
    "error", [UnavailableError("no room"), OutOfRangeError("senseless"), TypeError("senseless")]
)
@in_fork
def test_what_one_request_cannot_have_switches_nothing_off(
    module: ModuleType, error: Exception
) -> None:
    handler = accelerated(module)
    break_scripts(handler, error)
    assert count_admitted(handler, 3 * MAX_ERRORS, descriptor("k", requests_per_unit=3)) == 3
    assert region().feature_errors(FEATURE) == 0
    assert region().fallback_count() >= 3
    assert seam().open is False
    assert fast_litellm.health_check()["fallbacks"] >= 3


@in_fork
def test_the_tables_can_really_be_full(module: ModuleType) -> None:
    os.environ["FAST_LITELLM_SHM_KEYS"] = "1024"
    handler = accelerated(module)
    # Half as many buckets again as keys were asked for: those surely find room, more than that may.
    keys, buckets = 1024, 1024 + 1024 // 2
    for n in range(keys):
        assert admitted(handler, descriptor(str(n), requests_per_unit=3))
    assert region().fallback_count() == 0
    for n in range(keys, buckets + 500):
        assert admitted(handler, descriptor(str(n), requests_per_unit=3))
    assert region().fallback_count() >= 500
    assert region().feature_errors(FEATURE) == 0
    # Known keys stay exact, the others are limited by each worker.
    assert count_admitted(handler, 5, descriptor("0", requests_per_unit=3)) == 2
    assert count_admitted(handler, 5, descriptor("new", requests_per_unit=3)) <= 3


@in_fork
def test_after_ten_errors_the_breaker_opens_for_every_process(module: ModuleType) -> None:
    handler = accelerated(module)
    limits = descriptor("k", requests_per_unit=3)
    assert count_admitted(handler, 1, limits) == 1

    def make_errors(count: int) -> int:
        break_scripts(handler, RuntimeError("injected"))
        for n in range(count):
            admitted(handler, descriptor(f"e{n}", requests_per_unit=99))
        return int(region().feature_errors(FEATURE))

    assert forked(lambda: make_errors(MAX_ERRORS - 1)) == MAX_ERRORS - 1
    time.sleep(0.3)
    assert seam().open is False
    assert count_admitted(handler, 1, limits) == 1
    assert forked(lambda: make_errors(1)) == MAX_ERRORS
    # This process, which has seen no error itself, learns of it within a moment.
    until(lambda: seam().open, "open the breaker", timeout_s=1.0)
    assert forked(lambda: seam().open) is True
    assert fast_litellm.health_check()["status"] == "degraded"
    # What was taken from the region can still be given back to it.
    assert all(script.gives_back for script in script_values(handler) if script is not None)
    assert script_values(handler).count(None) >= 5
    # LiteLLM counts alone now, and no error is added.
    assert count_admitted(handler, 6, limits) == 3
    assert new_handler(module).internal_usage_cache is not None
    assert region().feature_errors(FEATURE) == MAX_ERRORS
    # Reset by the operator, the region takes over again, with what it had counted.
    region().reset_feature(FEATURE)
    until(lambda: not seam().open, "close the breaker", timeout_s=1.0)
    assert fast_litellm.health_check()["status"] == "ok"
    assert count_admitted(handler, 6, limits) == 1


@in_fork
def test_what_was_taken_is_given_back_while_the_breaker_is_open(module: ModuleType) -> None:
    handler = accelerated(module)
    limits = descriptor("k", max_parallel_requests=2, requests_per_unit=9)
    window, requests, gauge = (
        f"{{api_key:k}}:{part}" for part in ("window", "requests", "max_parallel_requests")
    )
    assert all(admitted(handler, limits, slot_id) for slot_id in ("a", "b"))
    start = memory(handler).get_cache(window)
    for _ in range(MAX_ERRORS):
        region().feature_error(FEATURE)
    until(lambda: seam().open, "open the breaker", timeout_s=1.0)
    release = handler._release_parallel_request_slots
    run(release({"slot_id": "a", "counter_keys": [gauge]}))
    refund = handler.window_guarded_token_increment_script
    assert run(refund(keys=[window, requests], args=[str(start), -1, 60])) == [1, 1]
    # LiteLLM has learnt from the reply that one is held; its own slots come and go on top of that.
    assert admitted(handler, limits, "c")
    assert not admitted(handler, limits, "d")
    run(release({"slot_id": "c", "counter_keys": [gauge]}))
    assert memory(handler).get_cache(gauge) == 1
    region().reset_feature(FEATURE)
    until(lambda: not seam().open, "close the breaker", timeout_s=1.0)
    assert (memory(handler).get_cache(gauge), memory(handler).get_cache(requests)) == (1, 1)


@in_fork
def test_a_slot_that_cannot_be_looked_for_is_given_back_while_the_breaker_is_open(
    module: ModuleType,
) -> None:
    handler = accelerated(module)
    gauge = "{api_key:k}:max_parallel_requests"
    assert admitted(handler, descriptor("k", max_parallel_requests=1), "a")
    for _ in range(MAX_ERRORS):
        region().feature_error(FEATURE)
    until(lambda: seam().open, "open the breaker", timeout_s=1.0)

    class Broken:
        def holds_slot(self, *_args: object) -> bool:
            raise PanicException("injected")

        def __getattr__(self, name: str) -> Any:
            return getattr(whole, name)

    whole = seam()._scripts
    seam()._scripts = Broken()
    # It takes no request with it, nor does the slot stay taken.
    run(handler._release_parallel_request_slots({"slot_id": "a", "counter_keys": [gauge]}))
    assert not whole.holds_slot(gauge, "a")


@in_fork
def test_a_handler_made_while_the_breaker_is_open_counts_alone(module: ModuleType) -> None:
    accelerate()
    for _ in range(MAX_ERRORS):
        region().feature_error(FEATURE)
    handler = new_handler(module)
    limits = descriptor("k", requests_per_unit=3)
    assert count_admitted(handler, 6, limits) == 3
    assert region().feature_errors(FEATURE) == MAX_ERRORS
    assert forked(lambda: count_admitted(handler, 6, descriptor("j", requests_per_unit=3))) == 3
    assert memory(handler).get_cache("{api_key:j}:requests") is None


@in_fork
def test_a_failed_request_stays_without_the_region_to_its_end(module: ModuleType) -> None:
    """A slot that LiteLLM acquired in its own memory must be released there too."""
    handler = accelerated(module)
    key = "{api_key:k}:max_parallel_requests"
    limits = descriptor("k", max_parallel_requests=1)
    acquire = handler.parallel_acquire_script._method

    async def request(broken: bool) -> str:
        if broken:
            break_scripts(handler, RuntimeError("injected"))
        response = await handler.should_rate_limit([limits], parallel_slot_id="id")
        seam()._fill(handler)
        await handler._release_parallel_request_slots({"slot_id": "id", "counter_keys": [key]})
        return str(response["overall_code"])

    for broken in (True, True, False, True):
        assert run(request(broken)) == "OK"
    assert acquire([key], [1, 3600, "after"])[0] == 0


# gunicorn


@in_fork
def test_gunicorns_hooks_can_be_named_in_its_configuration() -> None:
    from fast_litellm.integrations.gunicorn import child_exit, worker_exit

    child_exit(None, None)
    worker_exit(None, None)
    accelerate()
    scripts = _native.LimiterScripts(region())
    gauge = ["{api_key:k}:max_parallel_requests"]
    held = lambda: json.loads(region().inspect())["leases"]  # noqa: E731

    def acquire() -> None:
        scripts.parallel_acquire(gauge, [5, 3600, "x"])

    acquire()
    forked(acquire)
    assert len(held()) == 2
    worker_exit(None, None)
    assert [lease["owner"] for lease in held()] == ["dead"]
    child_exit(None, None)
    assert held() == []


@in_fork
@pytest.mark.parametrize("kind", [RuntimeError, _native.PanicException])
def test_gunicorns_master_survives_faults_and_they_are_counted(
    kind: type[BaseException], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    arbiter = pytest.importorskip("gunicorn.arbiter").Arbiter
    monkeypatch.setattr(arbiter, "reap_workers", lambda self: "answer")
    from fast_litellm import gunicorn

    accelerate()
    mine = region()

    class Broken:
        def __getattr__(self, name: str) -> object:
            if name == "count_fallback":
                return mine.count_fallback
            raise kind(f"injected into {name}")

    monkeypatch.setattr(_native, "default_region", Broken)
    caplog.clear()
    assert arbiter.reap_workers(object()) == "answer"
    for hook in (gunicorn.child_exit, gunicorn.worker_exit):
        hook(None, None)
    # Its log fails here.
    gunicorn.when_ready(None)
    assert mine.fallback_count() == 4
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 4


@in_fork
def test_gunicorns_master_reaps_after_every_round() -> None:
    arbiter = pytest.importorskip("gunicorn.arbiter").Arbiter
    original = arbiter.reap_workers
    rounds = []
    arbiter.reap_workers = lambda self: rounds.append("waited") or "answer"
    theirs = arbiter.reap_workers
    accelerate()
    scripts = _native.LimiterScripts(region())
    gauge = ["{api_key:k}:max_parallel_requests"]
    forked(lambda: scripts.parallel_acquire(gauge, [5, 3600, "x"]))
    held = lambda: json.loads(region().inspect())["leases"]  # noqa: E731
    assert [lease["owner"] for lease in held()] == ["dead"]
    assert arbiter.reap_workers(object()) == "answer"
    assert rounds == ["waited"]
    assert held() == []
    fast_litellm.remove_acceleration()
    assert arbiter.reap_workers is theirs
    assert theirs is not original


@pytest.mark.parametrize(
    ("value", "limit"),
    [(10, 10), ("10", 10), (10.0, 10), (None, None), ("ten", None), (2.5, None), (True, None)],
)
def test_a_limit_of_all_requests_is_a_whole_number_or_said_to_be_none(
    value: object,
    limit: int | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from types import SimpleNamespace

    from fast_litellm.integrations.litellm import _compat

    proxy = SimpleNamespace(general_settings={"global_max_parallel_requests": value})
    monkeypatch.setitem(_compat.sys.modules, "litellm.proxy.proxy_server", proxy)
    _compat._warn_of_limit.cache_clear()
    for _ in range(2):
        assert _compat.limit_of_all_requests() == limit
    complaints = [record for record in caplog.records if "NOT enforced" in record.message]
    assert len(complaints) == (limit is None and value is not None)
