"""The strategies' seam: latency- and cost-based routing read what all workers have measured.

Both strategies keep a map of their group in the Router's cache. To put it together one must know which
deployments a group has; this seam tells that when a strategy is asked to pick one of them.
"""

from __future__ import annotations

import functools
import inspect
from types import ModuleType
from typing import Any

from fast_litellm._native import FAULTS
from fast_litellm.integrations.litellm import _compat
from fast_litellm.integrations.litellm.deployments import Routing
from fast_litellm.integrations.litellm.seam import Seam, logger


class StrategySeam(Seam):
    """Patches how a strategy picks.

    Args:
        routing: the region's parts.
        strategy: which strategy it is.
    """

    missing = "a routing strategy knows its own worker's calls only"

    def __init__(self, routing: Routing, strategy: _compat.Strategy) -> None:
        super().__init__()
        self._routing = routing
        self._maps = routing.shared.maps
        self._strategy = strategy

    def _probe(self, module: ModuleType) -> str:
        return _compat.probe_strategy(module, self._strategy)

    def _install(self, module: ModuleType) -> None:
        handler_class = getattr(module, self._strategy.handler)
        if self._patched(handler_class):
            return
        if self._strategy.latencies:
            self._maps.latencies_are_called(_compat.latency_list(module))
        for name in self._strategy.methods:
            if name in vars(handler_class):
                self._patch(handler_class, name, self._learning(vars(handler_class)[name]))
        logger.info("LiteLLM %s: %s is shared", _compat.version(), self._strategy.name)

    def _learning(self, original: Any) -> Any:
        seam = self
        if inspect.iscoroutinefunction(original):

            @functools.wraps(original)
            async def async_pick(
                self: Any, model_group: str, healthy_deployments: Any, *args: Any, **kw: Any
            ) -> Any:
                if seam.active:
                    seam._learn(self, model_group, healthy_deployments)
                return await original(self, model_group, healthy_deployments, *args, **kw)

            return async_pick

        @functools.wraps(original)
        def pick(
            self: Any, model_group: str, healthy_deployments: Any, *args: Any, **kw: Any
        ) -> Any:
            if seam.active:
                seam._learn(self, model_group, healthy_deployments)
            return original(self, model_group, healthy_deployments, *args, **kw)

        return pick

    def _learn(self, handler: Any, group: str, deployments: Any) -> None:
        try:
            key = self._strategy.key.format(group=group)
            ids = [_compat.deployment_id(deployment) for deployment in deployments]
            wanted = _compat.samples_of(handler), _compat.max_age_of(handler)
            self._maps.learn(key, ids, *wanted)
        except FAULTS as error:  # counted; the strategy picks by what it knows
            self._routing.breaker.failed("deployments of a group", error)
