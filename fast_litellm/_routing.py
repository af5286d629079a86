"""Choosing among deployments, for programs of your own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from fast_litellm import _native

AdvancedRouter = _native.AdvancedRouter
Call = _native.Call


@lru_cache(maxsize=16)
def _router(strategy: str) -> _native.AdvancedRouter:
    return AdvancedRouter(strategy)


def get_available_deployment(
    model_list: Iterable[dict[str, Any]],
    model: str,
    blocked_models: Iterable[str] | None = None,
    context: object = None,
    settings: Mapping[str, Any] | str | None = None,
) -> dict[str, Any] | None:
    """Choose a deployment of a model that is not cooled down.

    The choice is that of an `AdvancedRouter`, whose calls and cooldowns it therefore knows.

    Args:
        model_list: deployments as in a LiteLLM `model_list`.
        model: the `model_name` that is wanted.
        blocked_models: deployments with such a `model_name`, `litellm_params.model` or id are left out.
        context: what is known of the request. Of a mapping, `blocked_models` are left out as well;
            anything else is ignored.
        settings: a strategy, or a mapping with `strategy` (or `routing_strategy`, as LiteLLM calls it);
            what else it has is ignored. Default: `simple_shuffle`.

    Returns:
        The dict of the list; None when no deployment of that name is left.

    Raises:
        ValueError: a deployment lacks something, or no such strategy.
        TypeError: a value of another type than described.
        RegionError: no region exists and none can be created.
    """
    blocked = blocked_models
    if isinstance(context, Mapping) and context.get("blocked_models") is not None:
        also = context["blocked_models"]
        if isinstance(also, str) or isinstance(blocked, str):
            raise TypeError("blocked_models must be a list of strings, not a str")
        blocked = [*(blocked or ()), *also]
    return _router(_strategy(settings)).get_available_deployment(model_list, model, blocked)


def _strategy(settings: Mapping[str, Any] | str | None) -> str:
    strategy: object = settings
    if isinstance(settings, Mapping):
        strategy = settings.get("strategy", settings.get("routing_strategy"))
    if strategy is None:
        return "simple_shuffle"
    if not isinstance(strategy, str):
        found = type(strategy).__name__
        raise TypeError(f"settings must be a strategy or a mapping with one, not {found}")
    return strategy
