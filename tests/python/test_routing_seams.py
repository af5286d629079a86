"""Proves that what LiteLLM's Router knows of deployments is known to all workers, or left alone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import inspect
import operator
import os
import time
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any

import pytest

import fast_litellm
from fast_litellm import _native
from support import Forked, forked, in_fork, region, run_python, until

litellm = pytest.importorskip("litellm")

COOLDOWN = "litellm.router_utils.cooldown_cache"
SLOTS = "litellm.router_utils.client_initalization_utils"
LATENCY = "litellm.router_strategy.lowest_latency"
COST = "litellm.router_strategy.lowest_cost"
SEAMS = {
    "routing.deployments": COOLDOWN,
    "routing.slots": SLOTS,
    "routing.latency": LATENCY,
    "routing.cost": COST,
}
FEATURE = 0
MAX_ERRORS = 10
GROUP = "gpt"


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """LiteLLM's modules, unpatched. Every test patches them in a forked child of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("litellm.router")
        for module in SEAMS.values():
            importlib.import_module(module)


def accelerate() -> dict[str, dict[str, str]]:
    warnings.simplefilter("ignore")
    os.environ.pop("FAST_LITELLM_ENABLED", None)
    assert fast_litellm.apply_acceleration() is True
    return status()


def status() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = fast_litellm.get_patch_status()["seams"]
    return found


def deployment(id_: str, **params: Any) -> dict[str, Any]:
    return {
        "model_name": GROUP,
        "litellm_params": {"model": "openai/gpt", "api_key": "k", **params},
        "model_info": {"id": id_},
    }


def new_router(*ids: str, **settings: Any) -> Any:
    return litellm.Router(model_list=[deployment(id_) for id_ in ids or ("a", "b")], **settings)


def accelerated(*ids: str, **settings: Any) -> Any:
    states = {name: seam["state"] for name, seam in accelerate().items() if name in SEAMS}
    assert set(states.values()) == {"applied"}, states
    return new_router(*ids, **settings)


def cooled_down(router: Any) -> dict[str, Any]:
    ids = router.get_model_ids()
    return dict(router.cooldown_cache.get_active_cooldowns(model_ids=ids, parent_otel_span=None))


def call(id_: str, number: str = "1", **more: Any) -> dict[str, Any]:
    """What LiteLLM tells its loggers of a call."""
    return {
        "litellm_call_id": number,
        "litellm_params": {"model_info": {"id": id_}, "metadata": {"model_group": GROUP}},
        **more,
    }


def our_logger() -> Any:
    (ours,) = [c for c in litellm.callbacks if type(c).__name__ == "FastLitellmFeed"]
    return ours


def answer(tokens: int = 10) -> Any:
    return litellm.ModelResponse(
        usage=litellm.Usage(prompt_tokens=0, completion_tokens=tokens, total_tokens=tokens)
    )


def tier(router: Any) -> Any:
    return router.cache.in_memory_cache


# Applied


@in_fork
def test_every_routing_seam_is_applied_and_listed() -> None:
    accelerated()
    components = fast_litellm.get_patch_status()["components"]
    assert components == ["rate_limiting", "routing", "token_counting"]


@in_fork
def test_the_switch_leaves_all_of_them_alone() -> None:
    os.environ["FAST_LITELLM_RUST_ROUTING"] = "false"
    accelerate()
    for name in SEAMS:
        reason = "FAST_LITELLM_RUST_ROUTING is false"
        assert status()[name] == {"state": "not_applied", "reason": reason}
    # Armed, or applied if another test has loaded its module.
    assert status()["rate_limiting"]["state"] != "not_applied"
    router = new_router()
    assert type(tier(router)).__mro__[0].__module__ == "litellm.caching.in_memory_cache"


def test_the_seams_are_applied_when_litellm_loads() -> None:
    """The way it happens in a proxy: fast_litellm first, LiteLLM later."""
    done = run_python(
        """
        import warnings
        warnings.simplefilter("ignore")
        import fast_litellm
        seams = lambda: [
            seam["state"] for name, seam in fast_litellm.get_patch_status()["seams"].items()
            if name.startswith("routing.") and name != "routing.health_checks"
        ]
        print(*seams())
        import litellm
        litellm.Router(model_list=[])
        print(*seams())
        """
    )
    assert done.stdout.split() == ["armed"] * 4 + ["applied"] * 4


@in_fork
def test_litellm_finds_the_parameters_it_looks_for() -> None:
    owner = importlib.import_module(COOLDOWN).CooldownCache
    before = inspect.signature(owner), inspect.getfullargspec(owner.__init__)
    accelerate()
    assert (inspect.signature(owner), inspect.getfullargspec(owner.__init__)) == before


# Cooldowns


@in_fork
def test_a_cooldown_is_known_to_all_workers_with_its_cause() -> None:
    router = accelerated()
    began = time.time()

    def fail() -> None:
        router.cooldown_cache.add_deployment_to_cooldown("a", ValueError("too much"), 429, 30.0)

    forked(fail)
    known = cooled_down(router)
    assert set(known) == {"a"}
    value = known["a"]
    assert value["exception_received"] == "too much"
    assert value["status_code"] == "429"
    assert value["cooldown_time"] == 30.0
    assert abs(value["timestamp"] - began) < 5
    asynchronous = asyncio.run(
        router.cooldown_cache.async_get_active_cooldowns(["a", "b"], parent_otel_span=None)
    )
    assert [id_ for id_, _ in asynchronous] == ["a"]
    assert router.cooldown_cache.get_min_cooldown(["a", "b"], parent_otel_span=None) == 30.0


@in_fork
def test_a_cooldown_is_known_whatever_the_provider_said() -> None:
    router = accelerated()
    cool_down = router.cooldown_cache.add_deployment_to_cooldown
    for id_, text in (("a", "half a pair: \ud83d"), ("b", "\0" + "x" * 100_000)):
        forked(lambda id_=id_, text=text: cool_down(id_, ValueError(text), 429, 30.0))
    assert set(cooled_down(router)) == {"a", "b"}
    assert cooled_down(router)["a"]["exception_received"] == "half a pair: ?"


@in_fork
def test_a_cooldown_ends_by_itself() -> None:
    router = accelerated()
    router.cooldown_cache.add_deployment_to_cooldown("a", ValueError("x"), 500, 0.2)
    assert set(cooled_down(router)) == {"a"}
    until(lambda: not cooled_down(router), "end")


@in_fork
def test_the_first_429_cools_a_deployment_down_for_all() -> None:
    router = accelerated()
    error = litellm.RateLimitError("slow down", llm_provider="openai", model="gpt")

    async def fail() -> None:
        from litellm.router_utils.cooldown_handlers import _set_cooldown_deployments

        _set_cooldown_deployments(router, error, 429, "a", 30.0)
        await asyncio.sleep(0)

    forked(lambda: asyncio.run(fail()))
    assert set(cooled_down(router)) == {"a"}


@in_fork
def test_failures_of_all_workers_count_together() -> None:
    from litellm.router_utils.cooldown_handlers import _should_cooldown_deployment

    router = accelerated()
    error = litellm.InternalServerError("broken", llm_provider="openai", model="gpt")
    from litellm.router_utils.router_callbacks import track_deployment_metrics as metrics

    def fail() -> bool:
        metrics.increment_deployment_failures_for_current_minute(router, "a")
        return bool(_should_cooldown_deployment(router, "a", 500, error))

    # LiteLLM's rule: more than half of at least five failed.
    assert [forked(fail) for _ in range(5)] == [False] * 4 + [True]
    assert metrics.get_deployment_failures_for_current_minute(router, "a") == 5
    assert metrics.get_deployment_successes_for_current_minute(router, "a") == 0


@in_fork
def test_allowed_fails_are_counted_over_all_workers() -> None:
    from litellm.router_utils.cooldown_handlers import _should_cooldown_deployment

    router = accelerated(allowed_fails=2, cooldown_time=30)
    error = litellm.InternalServerError("broken", llm_provider="openai", model="gpt")
    fail = lambda: bool(_should_cooldown_deployment(router, "a", 500, error))  # noqa: E731
    assert [forked(fail) for _ in range(3)] == [False, False, True]


# Counters


@pytest.mark.parametrize(
    ("key", "kept"),
    [
        ("id:gpt:rpm:12-34", True),
        ("id:gpt:tpm:12-34", True),
        ("global_router:id:gpt:tpm:12-34", True),
        ("id:gpt:itpm:12-34", True),
        ("deployment:id:allowed_fails:Timeout", True),
        ("id:fails", True),
        ("deployment_affinity:v1:x", False),
        ("deployment:0f:prompt_caching", False),
        ("id_max_parallel_requests_client", False),
    ],
)
@in_fork
def test_counters_are_shared_and_nothing_else(key: str, kept: bool) -> None:
    router = accelerated()
    assert tier(router).get_cache(key) is None
    assert forked(lambda: tier(router).increment_cache(key, 2, ttl=60)) == 2
    assert tier(router).increment_cache(key, 3, ttl=60) == (5 if kept else 3)
    assert router.cache.get_cache(key) == (5 if kept else 3)
    tier(router).delete_cache(key)
    assert tier(router).get_cache(key) is None


@pytest.mark.parametrize(
    "session", ["site_map", "x_request_count:a", "1:fails", "1:tpm:12-34", "deployment:a:cooldown"]
)
@pytest.mark.parametrize(
    "key", ["deployment_affinity:v1:session:gpt:u:", "complexity_router_session_affinity:v1:gpt:u:"]
)
@in_fork
def test_a_session_keeps_its_deployment_whatever_the_client_calls_it(
    key: str, session: str
) -> None:
    router = accelerated()
    pins: list[Any] = [{"model_id": "a"}, {"a": {}}, "a", 7]
    for pin in pins:
        tier(router).delete_cache(key + session)
        asyncio.run(router.cache.async_set_cache(key + session, pin, ttl=60))
        assert asyncio.run(router.cache.async_get_cache(key + session)) == pin
        assert forked(lambda: tier(router).set_cache(key + session, "other", ttl=60)) is None
        assert tier(router).get_cache(key + session) == pin


@in_fork
def test_keys_are_found_while_another_thread_forgets_them() -> None:
    from fast_litellm.integrations.litellm.router_keys import Keys

    accelerated()
    keys = Keys(None)  # type: ignore[arg-type]  # keys that are no kind need nothing

    class Forgotten(dict[str, Any]):
        """Another thread comes between any look and the next."""

        def __contains__(self, key: object) -> bool:
            found = super().__contains__(key)
            keys._known = {}
            return found

        def get(self, key: str, default: Any = None) -> Any:
            found = super().get(key, default)
            keys._known = {}
            return found

    keys._known = Forgotten(other=None)
    assert keys.find("other") is None


@in_fork
def test_a_counter_lives_from_its_first_addition() -> None:
    router = accelerated()
    add = lambda: tier(router).increment_cache("id:fails", 1, ttl=1)  # noqa: E731
    assert add() == 1
    # Were it to live from its latest addition, it would never start again.
    until(lambda: add() == 1, "expire")


@in_fork
def test_a_counter_can_be_set() -> None:
    router = accelerated()
    router.cache.set_cache("id:gpt:tpm:12-34", 7, ttl=60)
    assert forked(lambda: router.cache.get_cache("id:gpt:tpm:12-34")) == 7


@in_fork
def test_maps_of_the_older_usage_strategy_stay_in_memory() -> None:
    """Its keys look like counters, but hold dicts."""
    router = accelerated()
    router.cache.set_cache("gpt:tpm:12-34", {"a": 5}, ttl=60)
    assert router.cache.get_cache("gpt:tpm:12-34") == {"a": 5}
    assert forked(lambda: router.cache.get_cache("gpt:tpm:12-34")) == {"a": 5}  # inherited
    assert forked(lambda: router.cache.set_cache("gpt:rpm:12-34", {"a": 5}, ttl=60)) is None
    assert router.cache.get_cache("gpt:rpm:12-34") is None


@in_fork
def test_money_is_counted_to_the_millionth() -> None:
    router = accelerated()
    key = "provider_spend:openai:1d"
    router.cache.set_cache(key, 0.5, ttl=60)
    forked(lambda: tier(router).increment_cache(key, 0.000123, ttl=60))
    assert router.cache.get_cache(key) == 0.500123
    now = time.time()
    forked(lambda: router.cache.set_cache("provider_budget_start_time:openai", now, ttl=60))
    assert abs(float(router.cache.get_cache("provider_budget_start_time:openai")) - now) <= 1


@in_fork
def test_a_notice_is_parsed_once() -> None:
    import json

    router = accelerated()
    key = "litellm:health_check:deployment_health_state"
    states = {f"d{n}": {"is_healthy": False, "timestamp": 1.5, "reason": "x"} for n in range(500)}
    forked(lambda: router.cache.set_cache(key, states, ttl=60))
    parsed = []
    loads = json.loads
    json.loads = lambda text, **kw: parsed.append(text) or loads(text, **kw)  # type: ignore[func-returns-value]
    assert [router.cache.get_cache(key) == states for _ in range(5)] == [True] * 5
    assert len([text for text in parsed if isinstance(text, bytes)]) == 1
    json.loads = loads
    forked(lambda: router.cache.set_cache(key, {"a": {}}, ttl=60))
    assert router.cache.get_cache(key) == {"a": {}}
    router.cache.delete_cache(key)
    assert router.cache.get_cache(key) is None


@in_fork
def test_a_providers_budget_is_used_up_by_all_workers_together() -> None:
    from litellm.router_strategy.budget_limiter import RouterBudgetLimiting

    router = accelerated()
    budgets = {"openai": {"budget_limit": 1.0, "time_period": "1d"}}

    async def spend(cost: float) -> None:
        limiter = RouterBudgetLimiting(router.cache, budgets)
        config = limiter._get_budget_config_for_provider("openai")
        await limiter._increment_spend_for_key(
            config, "provider_spend:openai:1d", "provider_budget_start_time:openai", cost
        )

    async def left() -> list[Any]:
        limiter = RouterBudgetLimiting(router.cache, budgets)
        return list(await limiter.async_filter_deployments("gpt", router.model_list, None, {}))

    for _ in range(3):
        assert len(asyncio.run(left())) == 2
        forked(lambda: asyncio.run(spend(0.4)))
    # LiteLLM's own refusal: the provider's 1.2 of 1.0 are spent.
    with pytest.raises(ValueError, match="budget"):
        asyncio.run(left())


# Slots


def new_limit(slots: int = 2) -> Any:
    return importlib.import_module(SLOTS).MaxParallelRequestsLimit(slots, "a", GROUP)


def taken(limit: Any) -> bool:
    try:
        limit.acquire()
    except litellm.RateLimitError as error:
        return "max_parallel_requests=2" not in str(error)
    return True


@in_fork
def test_slots_of_a_deployment_are_those_of_all_workers() -> None:
    accelerate()
    limit = new_limit()

    def hold() -> None:
        assert taken(new_limit())
        time.sleep(60)

    holder = Forked(hold)
    until(lambda: region_slots("a") == 1, "take a slot")
    assert [taken(limit) for _ in range(3)] == [True, False, False]
    assert limit.in_flight == 1
    limit.release()
    assert limit.in_flight == 0
    # The dead hold nothing.
    holder.kill()
    assert taken(limit)
    until(lambda: taken(limit), "free the dead worker's slot")
    assert not taken(limit)
    with contextlib.ExitStack() as stack:
        limit.release()
        stack.enter_context(limit)
        assert not taken(limit)
    assert taken(limit)


def region_slots(id_: str) -> int:
    scripts = _native.LimiterScripts(region())
    return scripts.value(f"{{deployment:{id_}}}:max_parallel_requests") or 0


@in_fork
def test_an_object_made_anew_knows_the_calls_under_way() -> None:
    """LiteLLM forgets the object after ten minutes, or when its cache is full."""
    accelerate()
    assert taken(new_limit())
    assert taken(new_limit())
    assert not taken(new_limit())


@in_fork
def test_slots_taken_before_the_seam_are_given_back_to_where_they_were() -> None:
    limit = new_limit()
    limit.acquire()
    accelerate()
    assert taken(limit)
    limit.release()
    limit.release()
    assert (limit.in_flight, region_slots("a")) == (0, 0)


@in_fork
def test_slots_held_when_the_seam_is_removed_are_free_for_other_workers() -> None:
    accelerate()
    limit = new_limit()
    limit.acquire()
    limit.acquire()
    assert region_slots("a") == 2
    fast_litellm.remove_acceleration()
    scripts = _native.LimiterScripts(region())
    assert not scripts.value("{deployment:a}:max_parallel_requests")
    limit.release()
    limit.release()
    assert limit.in_flight == 0


# Calls


@in_fork
def test_calls_are_counted_from_begin_to_end() -> None:
    accelerated()
    deployments = _native.Deployments(region())
    logger = our_logger()
    start = datetime.now()

    def three_calls() -> None:
        for number in "123":
            logger.log_pre_api_call("gpt", [], call("a", number))
        time.sleep(60)

    worker = Forked(three_calls)
    logger.log_pre_api_call("gpt", [], call("a"))
    until(lambda: deployments.in_flight("a") == 4, "begin")
    end = start + timedelta(seconds=2)
    asyncio.run(logger.async_log_success_event(call("a"), answer(), start, end))
    # Loggers may be told twice.
    logger.log_success_event(call("a"), answer(), start, end)
    assert deployments.in_flight("a") == 3
    shown = shown_deployment("a")
    assert (shown["successes"], shown["latency_us"]) == (1, 2_000_000)
    worker.kill()
    region().reap()
    assert deployments.in_flight("a") == 0


def shown_deployment(id_: str) -> dict[str, Any]:
    import json

    report = json.loads(region().inspect())
    (found,) = [one for one in report["deployments"] if one["deployment"] == f"{GROUP}:{id_}"]
    return dict(found)


@in_fork
def test_calls_end_by_whatever_name_litellm_passes_its_arguments() -> None:
    """It names all of them, and reports those of synchronous calls to methods of their own."""
    accelerated()
    logger = our_logger()
    deployments = _native.Deployments(region())
    end: dict[str, Any] = {"response_obj": None, "start_time": 0.0, "end_time": 1.0}
    for tell in (logger.log_success_event, logger.log_failure_event):
        logger.log_pre_api_call(model="gpt", messages=[], kwargs=call("a"))
        tell(kwargs=call("a"), **end)
        assert deployments.in_flight("a") == 0
    for tell in (logger.async_log_success_event, logger.async_log_failure_event):
        logger.log_pre_api_call(model="gpt", messages=[], kwargs=call("a"))
        asyncio.run(tell(kwargs=call("a"), **end))
        assert deployments.in_flight("a") == 0
    shown = shown_deployment("a")
    assert (shown["successes"], shown["failures"]) == (2, 2)


def begin(id_: str, number: str) -> Any:
    """Begin a call the way LiteLLM does; returns what it keeps of it meanwhile."""
    from litellm.litellm_core_utils.litellm_logging import Logging

    litellm.input_callback = [our_logger()]
    now = datetime.now()
    begun = Logging("gpt", [], False, "acompletion", now, number, number)
    begun.model_call_details.update(call(id_, number))
    begun.litellm_params = begun.model_call_details["litellm_params"]
    begun.pre_call(input="", api_key="")
    return begun


@in_fork
def test_a_call_whose_end_is_never_told_ends_when_litellm_drops_it() -> None:
    """Nothing is told of one that is cancelled, or whose stream is not read to its end."""
    accelerated()
    deployments = _native.Deployments(region())
    logger = our_logger()
    calls = [begin("a", "1"), begin("a", "1"), begin("a", "2")]
    assert deployments.in_flight("a") == 3
    # A try that is told to have failed when the next has begun already.
    logger.log_failure_event(calls[0].model_call_details, None, 0, 1)
    assert deployments.in_flight("a") == 2
    for left in (1, 0, 0):
        calls.pop()
        gc.collect()
        assert deployments.in_flight("a") == left
    assert not logger_feed()._calls
    assert region().feature_errors(FEATURE) == 0


def logger_feed() -> Any:
    from fast_litellm.integrations import litellm as integration

    seam: Any = integration._seams["routing.deployments"]
    return seam.feed


@in_fork
def test_calls_are_counted_among_as_many_callbacks_as_litellm_allows() -> None:
    litellm.callbacks[:] = [f"callback-{n}" for n in range(litellm.constants.MAX_CALLBACKS)]
    accelerated()
    our_logger()


@in_fork
def test_calls_are_counted_after_the_callbacks_were_set_anew() -> None:
    accelerated()
    ours = our_logger()
    litellm.callbacks = ["another"]
    new_router()
    assert litellm.callbacks == ["another", ours]
    new_router()
    assert our_logger() is ours


@in_fork
def test_failures_are_told_apart() -> None:
    accelerated()
    logger = our_logger()
    errors = [
        litellm.RateLimitError("x", llm_provider="openai", model="gpt"),
        litellm.Timeout("x", llm_provider="openai", model="gpt"),
        litellm.APIConnectionError("x", llm_provider="openai", model="gpt"),
    ]
    for error in errors:
        logger.log_pre_api_call("gpt", [], call("a"))
        asyncio.run(logger.async_log_failure_event(call("a", exception=error), None, None, None))
    shown = shown_deployment("a")
    assert shown["failures"] == 3
    assert shown["last_failure"] == "connection"


@in_fork
def test_a_call_that_goes_to_no_deployment_is_not_counted() -> None:
    accelerated()
    logger = our_logger()
    for params in ({}, None, {"model_info": None}, {"model_info": {}}):
        logger.log_pre_api_call("gpt", [], {"litellm_call_id": "1", "litellm_params": params})
        logger.log_success_event({"litellm_call_id": "1", "litellm_params": params}, None, 0, 1)
    assert region().feature_errors(FEATURE) == 0


@in_fork
def test_least_busy_reads_the_calls_of_all_workers() -> None:
    router = accelerated("a", "b", routing_strategy="least-busy")
    logger = our_logger()
    forked_calls = Forked(
        lambda: [logger.log_pre_api_call("gpt", [], call("a", n)) for n in "12"] and time.sleep(60)
    )
    until(lambda: _native.Deployments(region()).in_flight("a") == 2, "begin")
    # LiteLLM's own additions change nothing: the call is counted already.
    assert tier(router).increment_cache(f"{GROUP}_request_count:a", 1) == 2
    picked = {
        asyncio.run(router.async_get_available_deployment(GROUP, {}, messages=[]))["model_info"][
            "id"
        ]
        for _ in range(5)
    }
    assert picked == {"b"}
    forked_calls.kill()


# Maps


def succeed(handler: Any, id_: str, seconds: float, tokens: int = 10) -> None:
    start = datetime.now()
    asyncio.run(
        handler.async_log_success_event(
            call(id_), answer(tokens), start, start + timedelta(seconds=seconds)
        )
    )


def begin_early_in_a_minute() -> None:
    """So that LiteLLM, which counts by the calendar's minute, counts what is to come in one."""
    until(lambda: time.time() % 60 < 45, "have a new minute", 20.0)


@in_fork
def test_latencies_of_all_workers_are_one_list() -> None:
    router = accelerated("a", "b", routing_strategy="latency-based-routing")
    handler = router.lowestlatency_logger
    begin_early_in_a_minute()
    for seconds in (1.0, 2.0):
        forked(lambda seconds=seconds: succeed(handler, "a", seconds))
    forked(lambda: succeed(handler, "b", 5.0))
    # As many seconds for each token.
    picked = asyncio.run(
        handler.async_get_available_deployments(GROUP, router.model_list, messages=[])
    )
    assert picked["model_info"]["id"] == "a"
    known = router.cache.get_cache(f"{GROUP}_map")
    name = "latency_normalized" if "latency_normalized" in known["a"] else "latency"
    assert known["a"][name] == [0.1, 0.2]
    assert known["b"][name] == [0.5]
    (minute,) = [key for key in known["a"] if key[:2] == "20"]
    assert known["a"][minute] == {"tpm": 20, "rpm": 2}


@in_fork
def test_no_more_latencies_are_kept_than_the_strategy_wants() -> None:
    router = accelerated(
        "a",
        routing_strategy="latency-based-routing",
        routing_strategy_args={"max_latency_list_size": 3},
    )
    handler = router.lowestlatency_logger
    pick = lambda: handler.get_available_deployments(GROUP, router.model_list, messages=[])  # noqa: E731
    pick()
    for seconds in (1.0, 2.0, 3.0, 4.0, 5.0):
        succeed(handler, "a", seconds)
    pick()
    known = router.cache.get_cache(f"{GROUP}_map")["a"]
    assert next(iter(known.values())) == [0.3, 0.4, 0.5]


@in_fork
def test_a_strategy_looks_no_further_back_than_its_ttl() -> None:
    """Else a deployment that timed out once is avoided for longer than the user wants."""
    settings: dict[str, Any] = {"routing_strategy": "latency-based-routing"}
    router = accelerated("a", routing_strategy_args={"ttl": 1}, **settings)
    handler = router.lowestlatency_logger
    pick = lambda handler: handler.get_available_deployments(GROUP, router.model_list, messages=[])  # noqa: E731
    pick(handler)
    start = datetime.now()
    our_logger().log_pre_api_call("gpt", [], call("a"))
    first_token: dict[str, Any] = {
        "stream": True,
        "completion_start_time": start + timedelta(seconds=1),
    }
    our_logger().log_success_event(call("a", **first_token), None, start, start)
    timeout = litellm.Timeout("x", llm_provider="openai", model="gpt")
    asyncio.run(handler.async_log_failure_event(call("a", exception=timeout), None, None, None))
    known = router.cache.get_cache(f"{GROUP}_map")["a"]
    assert sorted(known.values()) == [[1.0], [1000.0]]
    until(lambda: not router.cache.get_cache(f"{GROUP}_map"), "forget", timeout_s=4)
    other = new_router("a", **settings)
    pick(other.lowestlatency_logger)
    assert sorted(router.cache.get_cache(f"{GROUP}_map")["a"].values()) == [[1.0], [1000.0]]


@in_fork
def test_every_group_has_as_many_latencies_as_its_own_strategy_wants() -> None:
    accelerated()
    from litellm.router_strategy.lowest_cost import LowestCostLoggingHandler
    from litellm.router_strategy.lowest_latency import LowestLatencyLoggingHandler

    router = new_router("a")
    wanted = {"few": 3, "more": 12}
    handlers = {
        group: LowestLatencyLoggingHandler(router.cache, {"max_latency_list_size": wanted[group]})
        for group in wanted
    }
    for n in range(14):
        _native.Deployments(region()).scored("a", float(n + 1))
    for group, handler in handlers.items():
        handler.get_available_deployments(group, router.model_list, messages=[])
    costs = LowestCostLoggingHandler(router.cache)
    asyncio.run(costs.async_get_available_deployments("few", router.model_list, messages=[]))
    for group, most in wanted.items():
        (latencies,) = router.cache.get_cache(f"{group}_map")["a"].values()
        assert len(latencies) == most


@in_fork
def test_costs_count_the_usage_of_all_workers() -> None:
    router = accelerated("a", "b", routing_strategy="cost-based-routing")
    handler = router.lowestcost_logger
    begin_early_in_a_minute()
    for _ in range(3):
        forked(lambda: succeed(handler, "a", 1.0))
    picked = asyncio.run(
        handler.async_get_available_deployments(GROUP, router.model_list, messages=[])
    )
    assert picked is not None
    known = router.cache.get_cache(f"cost_map:{GROUP}")
    ((_, counts),) = known["a"].items()
    assert counts == {"tpm": 30, "rpm": 3}


@pytest.mark.parametrize(
    "value", [7, "text", ["a"], {"a": 1}, {"a": {"b": [1]}}, {"a": {"b": {"rpm": 1, "c": 2}}}]
)
@in_fork
def test_what_somebody_else_keeps_under_the_name_of_a_map_stays_with_the_worker(value: Any) -> None:
    router = accelerated(routing_strategy="latency-based-routing")
    router.cache.set_cache("tenant_map", value, ttl=60)
    assert router.cache.get_cache("tenant_map") == value
    assert forked(lambda: router.cache.set_cache("tenant_map", "other", ttl=60)) is None
    assert router.cache.get_cache("tenant_map") == value


@in_fork
def test_a_map_is_read_while_another_thread_learns_of_a_deployment() -> None:
    from fast_litellm.integrations import litellm as integration

    router = accelerated("a", "b", routing_strategy="latency-based-routing")
    succeed(router.lowestlatency_logger, "a", 1.0)
    assert integration._shared_routing is not None
    maps = integration._shared_routing.shared.maps
    inner, more = maps._deployments, iter(range(100))

    class Learning:
        """Another thread learns of a deployment whenever one is asked about."""

        def __getattr__(self, name: str) -> Any:
            maps.learn(f"{GROUP}_map", [f"new-{next(more)}"])
            return getattr(inner, name)

    maps._deployments = Learning()  # type: ignore[assignment]
    assert "a" in router.cache.get_cache(f"{GROUP}_map")
    assert region().feature_errors(FEATURE) == 0


# Health checks


def proxy_module(rounds: list[int], seconds: float = 0.0, interval_s: int = 1) -> ModuleType:
    """What of LiteLLM's proxy the seam needs: importing that takes half a minute."""
    module = types.ModuleType("litellm.proxy.proxy_server")
    code = """
redis_usage_cache = None

async def _run_direct_health_check_with_instrumentation(models, details, concurrency, context):
    rounds.append(1)
    await asyncio.sleep(seconds)
    return [{"model": str(len(rounds))}], [{"model": bad}], {"id": ValueError("x")}

def _write_health_state_to_router_cache(healthy, unhealthy, exceptions):
    written.append((healthy, exceptions))

async def _run_background_health_check():
    result = await _run_direct_health_check_with_instrumentation([], True, None, {})
    _write_health_state_to_router_cache(*result)
    return result
"""
    vars(module).update(rounds=rounds, written=[], asyncio=asyncio, seconds=seconds, bad="bad")
    vars(module).update(health_check_interval=interval_s)
    exec(code, vars(module))  # it is ours
    return module


def health_seam(module: ModuleType, shares_caches: bool = True) -> Any:
    from fast_litellm.integrations.litellm.deployments import Routing
    from fast_litellm.integrations.litellm.health_checks import HealthCheckSeam

    routing = Routing(region())
    routing.shares_caches = shares_caches
    seam = HealthCheckSeam(routing)
    seam.apply(module)
    assert (seam.state, seam.reason) == ("applied", "")
    return seam


@in_fork
def test_one_worker_checks_and_all_know() -> None:
    accelerate()

    all_begin, begin = os.pipe()

    def worker() -> tuple[int, list[Any], list[Any]]:
        os.close(begin)
        rounds: list[int] = []
        module = proxy_module(rounds, seconds=0.2)
        health_seam(module)
        assert os.read(all_begin, 1) == b""
        results = []
        for _ in range(3):
            healthy, unhealthy, _ = asyncio.run(module._run_background_health_check())
            results.append((healthy, unhealthy))
            time.sleep(0.5)
        return len(rounds), results, module.written

    workers = [Forked(worker) for _ in range(3)]
    os.close(begin)
    seen = [worker.result() for worker in workers]
    os.close(all_begin)
    counts = sorted(count for count, *_ in seen)
    # The leader that ends first leaves its last round to whoever still waits for one.
    assert counts[0] == 0
    assert sum(counts) <= 5
    (leader,) = [one for one in seen if one[0] == 3]
    assert leader[1] == [([{"model": n}], [{"model": "bad"}]) for n in "123"]
    for count, results, written in seen:
        assert len(written) == count
        if count == 0:
            assert set(map(str, results)) <= set(map(str, leader[1]))


@in_fork
def test_a_worker_that_looks_late_shows_what_is_known_and_waits_for_the_next() -> None:
    accelerate()
    module = proxy_module([], interval_s=4)
    health_seam(module)

    def lead() -> None:
        module = proxy_module([], interval_s=4)
        health_seam(module)
        for _ in range(3):
            asyncio.run(module._run_background_health_check())
            time.sleep(4.2)

    leader = Forked(lead)
    until(lambda: _native.Board(region()).read("litellm:health_check") is not None, "publish")
    time.sleep(2.8)
    vars(module)["health_check_results"] = results = {}
    healthy, _, _ = asyncio.run(module._run_background_health_check())
    assert results["healthy_endpoints"] == [{"model": "1"}]
    assert results["unhealthy_count"] == 1
    assert healthy == [{"model": "2"}]
    assert module.rounds == []
    leader.kill()


@in_fork
def test_what_the_leader_writes_to_its_own_memory_the_others_write_too() -> None:
    accelerate()

    def lead() -> None:
        module = proxy_module([], interval_s=60)
        health_seam(module, shares_caches=False)
        asyncio.run(module._run_background_health_check())
        time.sleep(60)

    leader = Forked(lead)
    until(lambda: _native.Board(region()).read("litellm:health_check") is not None, "publish")
    rounds: list[int] = []
    module = proxy_module(rounds, interval_s=60)
    health_seam(module, shares_caches=False)
    asyncio.run(module._run_background_health_check())
    assert (len(rounds), len(module.written)) == (0, 1)
    leader.kill()


@in_fork
def test_only_adopted_caches_are_shared() -> None:
    from fast_litellm.integrations import litellm as integration

    accelerate()
    routing = integration._shared_routing
    assert routing is not None
    assert not routing.shares_caches
    new_router()
    assert routing.shares_caches
    fast_litellm.remove_acceleration()
    assert not routing.shares_caches


@in_fork
def test_a_dead_leader_is_followed_at_once() -> None:
    accelerate()

    def lead() -> None:
        module = proxy_module([], seconds=60)
        health_seam(module)
        asyncio.run(module._run_background_health_check())

    leader = Forked(lead)
    watch = _native.Leader("litellm:health_check", region=region())
    until(lambda: watch.holder() is not None, "lead")
    leader.kill()
    rounds: list[int] = []
    module = proxy_module(rounds)
    health_seam(module)
    began = time.monotonic()
    asyncio.run(module._run_background_health_check())
    assert len(rounds) == 1
    assert time.monotonic() - began < 2


@in_fork
def test_a_leader_leads_on_when_the_interval_becomes_longer() -> None:
    accelerate()

    def lead() -> None:
        module = proxy_module([])
        vars(module)["health_check_interval"] = 60
        health_seam(module)
        asyncio.run(module._run_background_health_check())
        time.sleep(60)

    leader = Forked(lead)
    watch = _native.Leader("litellm:health_check", region=region())
    until(lambda: watch.holder() is not None, "lead")
    seam = health_seam(proxy_module([]))
    assert not seam._leads(1.0)
    # Longer than three of the short intervals, and the whole seconds that the region counts in.
    time.sleep(5.1)
    assert not seam._leads(60.0)
    leader.kill()


@pytest.mark.parametrize("change", ["removed", "redis", "breaker"])
@in_fork
def test_whoever_waits_for_a_leader_sees_that_it_need_not(change: str) -> None:
    accelerate()

    def lead() -> None:
        module = proxy_module([], seconds=60)
        health_seam(module)
        asyncio.run(module._run_background_health_check())

    leader = Forked(lead)
    watch = _native.Leader("litellm:health_check", region=region())
    until(lambda: watch.holder() is not None, "lead")
    rounds: list[int] = []
    module = proxy_module(rounds)
    seam = health_seam(module)

    async def wait() -> None:
        waiting = asyncio.ensure_future(module._run_background_health_check())
        await asyncio.sleep(0.6)
        assert not rounds
        if change == "removed":
            seam.remove()
        elif change == "redis":
            vars(module)["redis_usage_cache"] = object()
        else:
            for _ in range(MAX_ERRORS):
                region().feature_error(FEATURE)
        await asyncio.wait_for(waiting, 5)

    asyncio.run(wait())
    assert len(rounds) == 1
    leader.kill()


class Unwritable:
    """A board on which nothing can be published."""

    def __getattr__(self, name: str) -> Any:
        raise fast_litellm.UnavailableError("full")


@pytest.mark.parametrize("cause", ["the result", "the board"])
@in_fork
def test_nobody_waits_for_a_leader_that_cannot_publish(cause: str) -> None:
    accelerate()

    def lead() -> None:
        rounds: list[int] = []
        module = proxy_module(rounds)
        seam = health_seam(module)
        if cause == "the result":
            vars(module)["bad"] = {("no", "text"): 1}
        else:
            seam._board = Unwritable()
        while True:
            asyncio.run(module._run_background_health_check())
            time.sleep(0.5)

    leader = Forked(lead)
    until(lambda: region().fallback_count() > 0, "try to publish")
    rounds: list[int] = []
    module = proxy_module(rounds)
    health_seam(module)
    asyncio.run(asyncio.wait_for(module._run_background_health_check(), 8))
    assert len(rounds) == 1
    assert len(module.written) == 1
    leader.kill()


@in_fork
def test_with_redis_or_a_broken_region_every_worker_checks() -> None:
    accelerate()
    rounds: list[int] = []
    module = proxy_module(rounds)
    seam = health_seam(module)
    vars(module)["redis_usage_cache"] = object()
    asyncio.run(module._run_background_health_check())
    vars(module)["redis_usage_cache"] = None
    seam._leads = lambda interval: 1 / 0
    asyncio.run(module._run_background_health_check())
    assert len(rounds) == 2
    assert len(module.written) == 2
    assert region().feature_errors(FEATURE) == 1


# Left alone


@in_fork
def test_a_router_with_redis_is_left_alone() -> None:
    accelerate()
    from litellm.caching.caching import DualCache

    cache = DualCache(redis_cache=types.SimpleNamespace())  # type: ignore[arg-type]
    before = cache.in_memory_cache
    importlib.import_module(COOLDOWN).CooldownCache(cache=cache, default_cooldown_time=5)
    assert cache.in_memory_cache is before
    assert status()["routing.deployments"]["state"] == "not_applied"
    assert "Redis" in status()["routing.deployments"]["reason"]


@in_fork
def test_a_router_that_gets_redis_later_is_left_alone_from_then_on() -> None:
    router = accelerated()
    tier(router).increment_cache("a:fails", 5)
    router.cache.redis_cache = types.SimpleNamespace()
    assert tier(router).get_cache("a:fails") is None
    assert tier(router).increment_cache("a:fails", 1) == 1
    assert "Redis" in status()["routing.deployments"]["reason"]


@in_fork
def test_slots_are_left_alone_once_a_router_has_redis() -> None:
    router = accelerated()
    assert taken(new_limit())
    router.cache.redis_cache = types.SimpleNamespace()
    limit = new_limit()
    assert [taken(limit) for _ in range(3)] == [True, True, False]
    assert region_slots("a") == 1
    assert "Redis" in status()["routing.slots"]["reason"]


@in_fork
def test_removing_puts_everything_back() -> None:
    owners = {
        COOLDOWN: ("CooldownCache", "__init__"),
        SLOTS: ("MaxParallelRequestsLimit", "acquire"),
        LATENCY: ("LowestLatencyLoggingHandler", "async_get_available_deployments"),
        COST: ("LowestCostLoggingHandler", "async_get_available_deployments"),
    }

    def originals() -> list[Any]:
        return [
            vars(getattr(importlib.import_module(module), owner))[name]
            for module, (owner, name) in owners.items()
        ]

    before = originals()
    callbacks = list(litellm.callbacks)
    router = accelerated()
    assert not any(map(operator.is_, originals(), before))
    tier(router).increment_cache("a:fails", 5)
    fast_litellm.remove_acceleration()
    assert all(map(operator.is_, originals(), before))
    assert type(tier(router)).__module__ == "litellm.caching.in_memory_cache"
    assert litellm.callbacks == callbacks
    assert tier(router).get_cache("a:fails") is None
    assert new_limit().acquire() is None


@in_fork
def test_routers_are_taken_up_again_when_the_seams_are() -> None:
    router = accelerated()
    tier(router).increment_cache("a:fails", 5)
    fast_litellm.remove_acceleration()
    accelerate()
    assert tier(router).get_cache("a:fails") == 5
    assert forked(lambda: tier(router).increment_cache("a:fails", 1)) == 6
    assert tier(router).get_cache("a:fails") == 6
    our_logger()
    fast_litellm.remove_acceleration()
    assert tier(router).get_cache("a:fails") is None


@in_fork
def test_a_router_that_is_gone_is_gone() -> None:
    """A proxy makes one for each request that brings its own configuration."""
    from fast_litellm.integrations import litellm as integration

    accelerated()
    owner = importlib.import_module(COOLDOWN).CooldownCache
    from litellm.caching.caching import DualCache

    caches = []
    for _ in range(10):
        cooldowns = owner(cache=DualCache(), default_cooldown_time=5)
        cooldowns.cache.set_cache("large", "x" * 1000)
        caches.append(weakref.ref(cooldowns.cache))
        del cooldowns
    gc.collect()
    assert [cache() for cache in caches] == [None] * 10
    owner(cache=DualCache(), default_cooldown_time=5)
    seam: Any = integration._seams["routing.deployments"]
    assert len(seam._replaced) <= 6


def no_class(name: str) -> Callable[[ModuleType], None]:
    return lambda module: delattr(module, name)


def no_method(owner: str, name: str) -> Callable[[ModuleType], None]:
    return lambda module: delattr(getattr(module, owner), name)


def other_method(owner: str, name: str) -> Callable[[ModuleType], None]:
    def damage(module: ModuleType) -> None:
        setattr(getattr(module, owner), name, lambda self, renamed=None, also=None: None)

    return damage


def other_keys(module: ModuleType) -> None:
    module.CooldownCache.get_cooldown_cache_key = staticmethod(lambda id_: f"cooldown:{id_}")


def awaited_slots(module: ModuleType) -> None:
    async def acquire(self: Any) -> None: ...

    module.MaxParallelRequestsLimit.acquire = acquire


def no_in_flight(module: ModuleType) -> None:
    module.MaxParallelRequestsLimit.__init__ = (
        lambda self, max_parallel_requests, model_id, model_group: None
    )


def other_cache(module: ModuleType) -> None:
    del importlib.import_module("litellm.caching.in_memory_cache").InMemoryCache.increment_cache


def older_version(module: ModuleType) -> None:
    import importlib.metadata as metadata

    metadata.version = lambda name: "1.103.9"


DAMAGE = [
    ("routing.deployments", no_class("CooldownCache"), "CooldownCache"),
    ("routing.deployments", other_method("CooldownCache", "__init__"), "cache"),
    ("routing.deployments", no_method("CooldownCache", "get_active_cooldowns"), "get_active"),
    ("routing.deployments", other_keys, "keys"),
    ("routing.deployments", other_cache, "increment_cache"),
    ("routing.deployments", older_version, "1.103.9"),
    ("routing.slots", no_class("MaxParallelRequestsLimit"), "MaxParallelRequestsLimit"),
    ("routing.slots", no_method("MaxParallelRequestsLimit", "release"), "release"),
    ("routing.slots", other_method("MaxParallelRequestsLimit", "__init__"), "model_id"),
    ("routing.slots", awaited_slots, "acquire"),
    ("routing.slots", no_in_flight, "counts otherwise"),
    ("routing.latency", no_class("LowestLatencyLoggingHandler"), "LowestLatency"),
    (
        "routing.latency",
        other_method("LowestLatencyLoggingHandler", "get_available_deployments"),
        "other arguments",
    ),
    ("routing.cost", no_class("LowestCostLoggingHandler"), "LowestCost"),
    (
        "routing.cost",
        no_method("LowestCostLoggingHandler", "async_get_available_deployments"),
        "picks otherwise",
    ),
]


@pytest.mark.parametrize(
    ("seam", "damage", "named"), DAMAGE, ids=[f"{name}-{n}" for n, (name, *_) in enumerate(DAMAGE)]
)
@in_fork
def test_a_litellm_that_is_not_known_is_left_alone(
    seam: str, damage: Callable[[ModuleType], None], named: str
) -> None:
    module = importlib.import_module(SEAMS[seam])
    damage(module)

    def contents() -> dict[str, Any]:
        return {
            name: dict(vars(value)) if inspect.isclass(value) else value
            for name, value in vars(module).items()
        }

    before = contents()
    state = accelerate()[seam]
    assert state["state"] == "not_applied"
    assert named in state["reason"]
    assert contents() == before


def test_a_proxy_that_checks_health_otherwise_is_left_alone() -> None:
    from fast_litellm.integrations.litellm import _compat

    module = proxy_module([])
    assert _compat.probe_health_checks(module) == ""
    for damage, named in (
        (lambda module: delattr(module, _compat.HEALTH_CHECK), _compat.HEALTH_CHECK),
        (lambda module: setattr(module, _compat.HEALTH_CHECK, print), _compat.HEALTH_CHECK),
        (
            lambda module: setattr(module, "_run_background_health_check", lambda: None),
            "does not call",
        ),
    ):
        module = proxy_module([])
        damage(module)
        assert named in _compat.probe_health_checks(module)


# Faults


class Broken:
    """A part of a region that fails whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("damaged")


@contextlib.contextmanager
def broken_region() -> Iterator[None]:
    """Every part that the routing seams use fails."""
    from fast_litellm.integrations import litellm as integration
    from fast_litellm.integrations.litellm.router_keys import Keys, Shared

    routing = integration._shared_routing
    assert routing is not None
    broken: Any = Broken()
    routing.shared = Shared(broken, broken, broken, broken)
    routing.keys = Keys(routing.shared)
    seams: Any = integration._seams
    seams["routing.slots"]._scripts = broken
    seams["routing.deployments"].feed._deployments = broken
    seams["routing.latency"]._maps = broken
    yield


@in_fork
def test_a_router_goes_on_without_the_region() -> None:
    router = accelerated("a", "b", routing_strategy="latency-based-routing")
    with broken_region():
        router.cooldown_cache.add_deployment_to_cooldown("a", ValueError("x"), 429, 30.0)
        assert set(cooled_down(router)) == {"a"}
        assert tier(router).increment_cache("a:fails", 2) == 2
        assert tier(router).get_cache("a:fails") == 2
        limit = new_limit()
        assert [taken(limit) for _ in range(3)] == [True, True, False]
        limit.release()
        assert limit.in_flight == 1
        our_logger().log_pre_api_call("gpt", [], call("a"))
        our_logger().log_success_event(call("a"), answer(), 0, 1)
        succeed(router.lowestlatency_logger, "a", 1.0)
        handler = router.lowestlatency_logger
        assert handler.get_available_deployments(GROUP, router.model_list, messages=[])
    assert region().feature_errors(FEATURE) >= 5
    assert region().fallback_count() >= 5


@in_fork
def test_after_ten_errors_every_worker_counts_alone() -> None:
    router = accelerated()
    assert tier(router).increment_cache("a:fails", 1) == 1

    def make_errors() -> None:
        with broken_region():
            for _ in range(MAX_ERRORS):
                tier(router).increment_cache("b:fails", 1)

    forked(make_errors)
    time.sleep(0.3)
    before = region().fallback_count()
    assert tier(router).increment_cache("a:fails", 1) == 1
    assert region().fallback_count() > before
    assert fast_litellm.health_check()["status"] == "degraded"
    assert region().feature_errors(FEATURE) == MAX_ERRORS


@in_fork
def test_a_senseless_argument_is_no_reason_to_count_alone() -> None:
    """`cooldown_time: .inf` in a configuration reaches the counters of failures."""
    router = accelerated()
    for _ in range(2 * MAX_ERRORS):
        assert tier(router).increment_cache("deployment:a:allowed_fails", 1, ttl=float("inf"))
        tier(router).set_cache("a:fails", 1, ttl=float("inf"))
    assert region().feature_errors(FEATURE) == 0
    assert region().fallback_count() >= 4 * MAX_ERRORS


@in_fork
def test_what_the_region_has_no_room_for_stays_with_the_worker() -> None:
    os.environ["FAST_LITELLM_SHM_DEPLOYMENTS"] = "64"
    router = accelerated()
    for n in range(150):
        router.cooldown_cache.add_deployment_to_cooldown(f"d{n}", ValueError("x"), 429, 30.0)
    known = router.cooldown_cache.get_active_cooldowns(
        [f"d{n}" for n in range(150)], parent_otel_span=None
    )
    assert len(known) == 150
    assert region().feature_errors(FEATURE) == 0
    assert region().fallback_count() >= 150 - 128


@in_fork
def test_latencies_that_the_region_has_no_room_for_stay_with_the_worker() -> None:
    os.environ["FAST_LITELLM_SHM_DEPLOYMENTS"] = "64"
    router = accelerated("a", "b", routing_strategy="latency-based-routing")
    handler = router.lowestlatency_logger
    succeed(handler, "a", 1.0)
    deployments = _native.Deployments(region())
    for n in range(500):
        with contextlib.suppress(fast_litellm.UnavailableError):
            deployments.scored(f"d{n}", 1.0)
    name = next(iter(router.cache.get_cache(f"{GROUP}_map")["a"]))
    for seconds in (2.0, 4.0):
        succeed(handler, "b", seconds)
    assert router.cache.get_cache(f"{GROUP}_map")["a"][name] == [0.1]
    assert router.cache.get_cache(f"{GROUP}_map")["b"][name] == [0.2, 0.4]
    picked = {
        handler.get_available_deployments(GROUP, router.model_list, messages=[])["model_info"]["id"]
        for _ in range(5)
    }
    assert picked == {"a"}
