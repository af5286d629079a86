"""LiteLLM: where it would use Redis, or its worker's memory, it finds the region instead.

Each seam has a probe, is applied or left untouched as a whole, tells why, and can be undone. What a seam
needs is imported when LiteLLM loads the module it concerns, so that arming costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from fast_litellm import _features, _native, _post_import
from fast_litellm._config import max_connections_per_host

if TYPE_CHECKING:
    from fast_litellm.integrations.litellm.deployments import Routing
    from fast_litellm.integrations.litellm.seam import Seam


class _Place(NamedTuple):
    """Where a seam goes: its name, the module whose loading applies it, and what makes it."""

    name: str
    module: str
    make: Callable[[_native.Region], Seam]


def _limiter(region: _native.Region) -> Seam:
    from fast_litellm.integrations.litellm.limiter import LimiterSeam

    return LimiterSeam(region)


def _deployments(region: _native.Region) -> Seam:
    from fast_litellm.integrations.litellm.deployments import DeploymentsSeam

    return DeploymentsSeam(_routing(region))


def _slots(region: _native.Region) -> Seam:
    from fast_litellm.integrations.litellm.deployment_slots import SlotsSeam

    return SlotsSeam(_routing(region))


def _latency(region: _native.Region) -> Seam:
    from fast_litellm.integrations.litellm import _compat
    from fast_litellm.integrations.litellm.usage_routing import StrategySeam

    return StrategySeam(_routing(region), _compat.LATENCY)


def _cost(region: _native.Region) -> Seam:
    from fast_litellm.integrations.litellm import _compat
    from fast_litellm.integrations.litellm.usage_routing import StrategySeam

    return StrategySeam(_routing(region), _compat.COST)


def _health_checks(region: _native.Region) -> Seam:
    from fast_litellm.integrations.litellm.health_checks import HealthCheckSeam

    return HealthCheckSeam(_routing(region))


def _token_counting(region: _native.Region) -> Seam:
    from fast_litellm.integrations.litellm.token_counting import TokenCountingSeam

    return TokenCountingSeam(region)


def _connections(region: _native.Region) -> Seam:
    from fast_litellm.integrations.litellm.connection_guard import ConnectionGuardSeam

    return ConnectionGuardSeam(region, max_connections_per_host() or 0)


#: A seam that is there if it is asked for.
_GUARD = "connection_pooling.guard"
#: By the feature that they are; a component is a seam's name up to its first point.
_PLACES: dict[str, tuple[_Place, ...]] = {
    "rust_rate_limiting": (
        _Place("rate_limiting", "litellm.proxy.hooks.parallel_request_limiter_v3", _limiter),
    ),
    "rust_routing": (
        _Place("routing.deployments", "litellm.router_utils.cooldown_cache", _deployments),
        _Place("routing.slots", "litellm.router_utils.client_initalization_utils", _slots),
        _Place("routing.latency", "litellm.router_strategy.lowest_latency", _latency),
        _Place("routing.cost", "litellm.router_strategy.lowest_cost", _cost),
        _Place("routing.health_checks", "litellm.proxy.proxy_server", _health_checks),
    ),
    "rust_token_counting": (
        # LiteLLM asks it for all encodings, and so does everybody else.
        _Place("token_counting", "tiktoken.registry", _token_counting),
    ),
    "rust_connection_pool": (
        _Place(_GUARD, "litellm.llms.custom_httpx.aiohttp_transport", _connections),
    ),
}
#: The module whose loading applies the limiter seam.
LIMITER_MODULE = _PLACES["rust_rate_limiting"][0].module

_region: _native.Region | None = None
_shared_routing: Routing | None = None
#: Seams whose module has been loaded, by name.
_seams: dict[str, Seam] = {}
#: Removed seams by name, whose instances the next ones take up.
_removed: dict[str, Seam] = {}
_waiting: dict[str, dict[str, str]] = {}


def _routing(region: _native.Region) -> Routing:
    """What the routing seams share, made with the first of them."""
    global _shared_routing
    if _shared_routing is None:
        from fast_litellm.integrations.litellm.deployments import Routing

        _shared_routing = Routing(region)
    return _shared_routing


def arm(region: _native.Region) -> None:
    """Apply every seam when LiteLLM's module for it is loaded. Idempotent."""
    global _region
    if _region is not None:
        return
    settings = {feature: _features.own(feature) for feature in _PLACES}
    bounded = max_connections_per_host() is not None
    _region = region
    for feature, places in _PLACES.items():
        _features.leave_out(feature, settings[feature].percent == 0)
        for place in places:
            if place.name == _GUARD and not bounded:
                continue
            if settings[feature].percent:
                reason = f"LiteLLM has not loaded {place.module} yet"
                _waiting[place.name] = {"state": "armed", "reason": reason}
                _post_import.when_imported(place.module, _hook(place))
            else:
                _waiting[place.name] = {"state": "not_applied", "reason": settings[feature].off}


def disarm() -> None:
    """Put LiteLLM back as it was."""
    global _region, _shared_routing
    for places in _PLACES.values():
        for place in places:
            if place.name not in _waiting:
                continue
            _post_import.forget(place.module)
            _waiting[place.name] = {"state": "not_applied", "reason": "removed"}
    for seam in reversed(_seams.values()):
        seam.remove()
    _removed.update(_seams)
    _seams.clear()
    _region = _shared_routing = None


def status() -> dict[str, dict[str, str]]:
    """State and reason of every seam of this process, by name."""
    features = _features.get_feature_status()
    return {
        place.name: _status(place.name, features[feature])
        for feature, places in _PLACES.items()
        for place in places
        if place.name in _waiting
    }


def _status(name: str, feature: dict[str, Any]) -> dict[str, str]:
    seam = _seams.get(name)
    found = {"state": seam.state, "reason": seam.reason} if seam else dict(_waiting[name])
    if found["state"] == "not_applied":
        return found
    closed = feature["breaker"] == "closed"
    if feature["rollout_percentage"] == 0 or (closed and not feature["enabled"]):
        return {"state": "not_applied", "reason": feature["note"]}
    if found["state"] == "applied":
        if not closed:
            found["reason"] = feature["note"]
        elif feature["rollout_percentage"] < 100:
            found["reason"] = f"rolled out to {feature['rollout_percentage']}%"
    return found


def _hook(place: _Place) -> Callable[[ModuleType], None]:
    def apply(module: ModuleType) -> None:
        if _region is None:
            return
        # Loaded a second time, the module has new classes for the same seam.
        seam = _seams.get(place.name)
        if seam is None:
            seam = _seams[place.name] = place.make(_region)
        seam.apply(module)
        removed = _removed.pop(place.name, None)
        if removed is not None:
            seam.adopt_from(removed)

    return apply
