"""One model's deployments, and how LiteLLM and fast_litellm choose among them; also for `bench.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

MODEL = "gpt"

#: A choice: from a list of deployments to one of them.
Choose = Callable[[list[dict[str, Any]]], Any]

#: Calls that stay in flight while routers choose.
HELD: list[Any] = []


def models_of(count: int) -> list[dict[str, Any]]:
    """A model's deployments, with all that a strategy may go by."""
    return [
        {
            "model_name": MODEL,
            "litellm_params": {
                "model": f"openai/gpt-{number}",
                "api_key": "sk-bench",
                "rpm": 10_000_000 + number,
                "input_cost_per_token": 1e-6 * (number + 1),
                "output_cost_per_token": 2e-6,
            },
            "model_info": {"id": f"deployment-{number}"},
        }
        for number in range(count)
    ]


def uneven_models() -> list[dict[str, Any]]:
    """Two deployments, of which the first one has nine times the second one's quota."""
    models = models_of(2)
    for model, rpm in zip(models, (9_000, 1_000), strict=True):
        model["litellm_params"]["rpm"] = rpm
    return models


def in_flight(number: int) -> int:
    """Calls in flight to the deployment of that number."""
    return number % 3


def latency_s(number: int) -> float:
    """Average latency of the deployment of that number, seconds."""
    return 0.1 + number / 1_000


def our_choices(models: list[dict[str, Any]]) -> dict[str, Choose]:
    """By strategy: our router, for which all deployments were used."""
    from fast_litellm._rust import AdvancedRouter, Region

    region = Region.create("bench")
    router = AdvancedRouter(region=region)
    for number, model in enumerate(models):
        for _ in range(in_flight(number)):
            call = router.start(model)
            assert call is not None
            HELD.append(call)
        call = router.start(model)
        assert call is not None
        call.success(latency_s=latency_s(number))

    def ours(strategy: str) -> Choose:
        pick = AdvancedRouter(strategy, region=region).get_available_deployment
        return lambda models: pick(models, MODEL)

    strategies = ("simple_shuffle", "least_busy", "latency_based", "cost_based")
    return {strategy: ours(strategy) for strategy in strategies}


def litellm_choices(models: list[dict[str, Any]]) -> dict[str, Choose]:
    """By strategy: LiteLLM's code of that strategy alone, for which all deployments were used.

    Its router has chosen the deployments of the model and left out those that are cooled down before;
    ours does both in the same call.
    """
    from litellm.caching.caching import DualCache
    from litellm.router_strategy.least_busy import LeastBusyLoggingHandler
    from litellm.router_strategy.lowest_cost import LowestCostLoggingHandler
    from litellm.router_strategy.lowest_latency import LowestLatencyLoggingHandler
    from litellm.router_strategy.simple_shuffle import simple_shuffle

    busy = LeastBusyLoggingHandler(DualCache())
    fast = LowestLatencyLoggingHandler(DualCache())
    cheap = LowestCostLoggingHandler(DualCache())
    used: dict[str, Any] = {}
    for number, model in enumerate(models):
        name = model["model_info"]["id"]
        key = f"{MODEL}_request_count:{name}"
        busy.router_cache.set_cache(key, in_flight(number), local_only=True)
        used[name] = {"latency": [latency_s(number)] * 10}
    fast.router_cache.set_cache(f"{MODEL}_map", used)
    loop = asyncio.new_event_loop()
    return {
        "simple_shuffle": lambda models: simple_shuffle(lambda _: None, models, MODEL, None),
        "least_busy": lambda models: busy.get_available_deployments(MODEL, models),
        "latency_based": lambda models: fast.get_available_deployments(MODEL, models),
        # It exists as a coroutine only.
        "cost_based": lambda models: loop.run_until_complete(
            cheap.async_get_available_deployments(MODEL, models)
        ),
    }
