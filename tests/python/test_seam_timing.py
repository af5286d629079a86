"""Proves that LiteLLM's checks and calls are timed under the name of what has decided them."""

from __future__ import annotations

import asyncio
import importlib
import os
import uuid
import warnings
from types import ModuleType
from typing import Any

import pytest

import fast_litellm
from fast_litellm import _features, _native
from fast_litellm._native import PanicException
from support import in_fork

pytest.importorskip("litellm")

MODULE = "litellm.proxy.hooks.parallel_request_limiter_v3"
CLASS = "_PROXY_MaxParallelRequestsHandler_v3"
FEATURE = 2


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """LiteLLM's limiter, unpatched. Every test patches it in a forked child of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("litellm.proxy.utils")
        return importlib.import_module(MODULE)


def accelerated(module: ModuleType, sampling: str = "1") -> Any:
    from litellm.caching.caching import DualCache
    from litellm.proxy.utils import InternalUsageCache

    warnings.simplefilter("ignore")
    os.environ.pop("FAST_LITELLM_ENABLED", None)
    os.environ["FAST_LITELLM_RUST_ROUTING"] = "false"
    os.environ["FAST_LITELLM_PERFORMANCE_SAMPLING"] = sampling
    assert fast_litellm.apply_acceleration() is True
    cache = InternalUsageCache(DualCache())
    return getattr(module, CLASS)(internal_usage_cache=cache)


def seam() -> Any:
    from fast_litellm.integrations import litellm

    return litellm._seams["rate_limiting"]


def check(handler: Any, times: int = 1, **more: Any) -> None:
    limits = {
        "key": "api_key",
        "value": "x",
        "rate_limit": {"requests_per_unit": 3, "window_size": 60},
    }
    for _ in range(times):
        slot = uuid.uuid4().hex
        asyncio.run(handler.should_rate_limit([limits], parallel_slot_id=slot, **more))


def counts() -> dict[str, tuple[int, int]]:
    stats = fast_litellm.get_performance_stats()
    return {
        f"{component}.{name}": (each["count"], each["errors"])
        for component, numbers in stats.items()
        for name, each in numbers["operations"].items()
    }


@in_fork
def test_checks_are_timed_under_what_decides_them(module: ModuleType) -> None:
    handler = accelerated(module)
    check(handler, 10)
    # Refusals are decisions, and reads are none.
    check(handler, 5, read_only=True)
    assert counts() == {"rust_rate_limiter.check": (10, 0)}
    region = _native.default_region()
    assert region is not None
    for _ in range(10):
        region.feature_error(FEATURE)
    seam()._breaker._looked_at = 0.0
    check(handler, 4)
    assert counts() == {"rust_rate_limiter.check": (10, 0), "python_rate_limiter.check": (4, 0)}
    found = fast_litellm.compare_implementations("rust_rate_limiter", "python_rate_limiter")
    assert (found["operations"], found["rust_count"], found["python_count"]) == (["check"], 10, 4)


@in_fork
def test_a_check_that_the_region_fails_is_python(module: ModuleType) -> None:
    handler = accelerated(module)
    handler._fail_closed_resolver = lambda: False

    def broken(*_args: object) -> None:
        raise RuntimeError("the region is away")

    for name, script in vars(handler).items():
        if name.endswith("_script"):
            script._method = broken
    check(handler, 2)
    assert counts() == {"python_rate_limiter.check": (2, 0)}


@in_fork
def test_a_check_that_raises_has_failed_and_raises(module: ModuleType) -> None:
    handler = accelerated(module)
    with pytest.raises(TypeError):
        asyncio.run(handler.should_rate_limit([{"key": 1}], no_such_argument=True))
    assert counts() == {"rust_rate_limiter.check": (1, 1)}


@in_fork
def test_a_limiter_that_is_not_ours_is_not_timed(module: ModuleType) -> None:
    handler = accelerated(module)
    others = getattr(module, CLASS)(internal_usage_cache=handler.internal_usage_cache)
    seam()._handlers = [ref for ref in seam()._handlers if ref() is not others]
    check(others, 3)
    assert counts() == {}
    fast_litellm.remove_acceleration()
    check(handler, 3)
    assert counts() == {}


@in_fork
def test_nothing_is_timed_if_nothing_is_to_be(module: ModuleType) -> None:
    handler = accelerated(module, sampling="0")
    check(handler, 3)
    assert counts() == {}


@in_fork
def test_a_full_directory_of_series_is_in_nobodys_way(module: ModuleType) -> None:
    handler = accelerated(module)
    for number in range(64):
        fast_litellm.record_performance("full", str(number), 1.0)
    check(handler, 3)
    assert not any("rate_limiter" in name for name in counts())


@pytest.mark.parametrize("kind", [RuntimeError, PanicException])
@in_fork
def test_what_cannot_be_measured_is_done(kind: type[BaseException], module: ModuleType) -> None:
    handler = accelerated(module)

    class Broken:
        due = staticmethod(lambda: True)

        def series(self, name: str) -> int:
            raise kind(name)

    seam()._timing._monitor = Broken()
    check(handler, 3)

    def undecided() -> bool:
        raise kind

    seam()._timing._monitor.due = undecided
    check(handler, 3)
    assert counts() == {}


@in_fork
def test_the_bookkeeping_of_calls_is_timed() -> None:
    from fast_litellm._timing import Timing
    from fast_litellm.integrations.litellm.feed import Feed
    from fast_litellm.integrations.litellm.seam import Breaker

    # Which the test process has switched off.
    os.environ.pop("FAST_LITELLM_ENABLED", None)
    _features.configure()
    region = _native.Region.create("test", keys=1024, lease_chunks=64, workers=32)
    _native.set_default_region(region)
    _native.set_sampling(1)
    breaker = Breaker(region, 0, "router", "nothing")
    feed = Feed(_native.Deployments(region), breaker, lambda _: True, Timing(region))
    call = {
        "litellm_call_id": "1",
        "litellm_params": {"model_info": {"id": "a"}, "metadata": {"model_info": {"id": "a"}}},
        "model_info": {"id": "a"},
    }
    feed.began(call)
    feed.succeeded(call, 1.0, 2.0)
    feed.began(call)
    feed.failed(call)
    # No call of a deployment.
    feed.began({})
    assert counts() == {"rust_router.begin_call": (2, 0), "rust_router.end_call": (2, 0)}
    _native.set_sampling(0)
    feed.began(call)
    assert counts()["rust_router.begin_call"] == (2, 0)
