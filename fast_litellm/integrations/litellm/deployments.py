"""The deployments seam: what a Router knows of its deployments, known to all workers.

A Router keeps cooldowns, failure counts and usage in caches of its worker's own. This seam takes the
caches of every new Router and keeps the keys that concern deployments in the region. It tells them by
their names, and leaves everything else, and every rule about them, to LiteLLM.
"""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from types import ModuleType
from typing import Any, TypeAlias

from fast_litellm import _native
from fast_litellm._native import FAULTS
from fast_litellm._timing import Timing
from fast_litellm.integrations.litellm import _compat
from fast_litellm.integrations.litellm.feed import Feed
from fast_litellm.integrations.litellm.mirror import LOCAL, is_mirror, mirror_of, original_of
from fast_litellm.integrations.litellm.router_keys import (
    Key,
    Keys,
    Shared,
    Unit,
    unit_of_deployment,
)
from fast_litellm.integrations.litellm.seam import Breaker, Seam, logger
from fast_litellm.integrations.litellm.usage_maps import UsageMaps

#: Number of this feature's breaker in the region.
FEATURE = 0
#: Deployments whose group is remembered.
_MAX_GROUPS = 10_000
#: A cache that was replaced: whose, under which name, and by what.
_Replaced: TypeAlias = tuple[weakref.ref[Any], str, weakref.ref[Any]]


class Routing:
    """What the routing seams share: the region's parts, and one breaker.

    Attributes:
        shares_caches: whether a Router's caches are in the region.
    """

    def __init__(self, region: _native.Region) -> None:
        self.region = region
        self.breaker = Breaker(
            region, FEATURE, "router", "this worker knows of it alone, if anybody"
        )
        counters = _native.LimiterScripts(region)
        deployments = _native.Deployments(region)
        self.shared = Shared(
            counters, deployments, _native.Board(region), UsageMaps(counters, deployments)
        )
        self.keys = Keys(self.shared)
        self.shares_caches = False
        self._caches: list[weakref.ref[Any]] = []
        self._routers: list[weakref.ref[Any]] = []
        #: Groups of deployments, by id.
        self._groups: dict[str, str] = {}

    def met(self, router_cache: Any) -> None:
        """Remember the cache of a Router."""
        self._caches = [ref for ref in self._caches if ref() is not None]
        self._caches.append(weakref.ref(router_cache))

    def met_router(self, router: Any) -> None:
        """Remember a Router, which knows the groups of its deployments."""
        self._routers = [ref for ref in self._routers if ref() is not None]
        self._routers.append(weakref.ref(router))

    def covers(self, unit: Unit) -> bool:
        """Whether what belongs to a unit is in the region, as the breaker has seen last."""
        if not self.breaker.partial:
            return self.breaker.percent > 0
        return self.breaker.covers(self._group_of(unit) if unit.deployments else unit.name)

    def covers_deployment(self, deployment: str) -> bool:
        """Whether what is known of a deployment is in the region, as the breaker has seen last."""
        return not self.breaker.partial or self.covers(unit_of_deployment(deployment))

    def _group_of(self, unit: Unit) -> str:
        """The model group of a deployment; of one that no Router knows, itself."""
        first = unit.deployments[0]
        group = self._groups.get(first)
        if group is None:
            routers = [router for ref in self._routers if (router := ref()) is not None]
            found = (
                _compat.group_in(router, deployment)
                for deployment in unit.deployments
                for router in routers
            )
            group = next(filter(None, found), None)
            if group is None:
                return unit.name
            if len(self._groups) >= _MAX_GROUPS:
                self._groups = {}
            self._groups[first] = group
        return group

    @property
    def has_redis(self) -> bool:
        """Whether a Router of this process has Redis by now."""
        caches = (ref() for ref in self._caches)
        return any(cache is not None and _compat.cache_has_redis(cache) for cache in caches)


class _RouterCache:
    """The source of one Router's caches: nothing is kept once the Router has Redis."""

    def __init__(self, seam: DeploymentsSeam, cache: Any) -> None:
        self._seam = seam
        self._cache = cache

    def _find(self, key: object) -> Key | None:
        return self._seam.routing.keys.find(key)

    def keeps(self, key: object) -> bool:
        """Whether the region has this key."""
        known = self._find(key)
        return known is not None and self._usable() and self._seam.routing.covers(known.unit)

    def _has_redis(self) -> bool:
        has_redis = _compat.cache_has_redis(self._cache)
        if has_redis and self._seam.state == "applied":
            # A Router gets its Redis after it has been made.
            self._seam.stand_back()
        return has_redis

    def _usable(self) -> bool:
        if not self._seam.active or self._has_redis():
            return False
        if self._seam.routing.breaker.open:
            # This worker goes by what it knows alone, and that must not go unseen, unless it is wanted.
            if self._seam.routing.breaker.tripped:
                self._seam.routing.region.count_fallback()
            return False
        return True

    def failed(self, operation: str, error: BaseException) -> None:
        """Count it."""
        self._seam.routing.breaker.failed(operation, error)

    def _known(self, key: str) -> Key:
        found = self._find(key)
        if found is None:
            raise KeyError(key)
        return found

    def value(self, key: str) -> Any:
        """Read a key."""
        return self._known(key).read()

    def values(self, keys: list[Any]) -> list[Any]:
        """Read keys: a Router asks for the cooldowns of all its deployments at every request."""
        if not self._usable():
            return [LOCAL] * len(keys)
        find, covers = self._seam.routing.keys.find, self._seam.routing.covers
        return [
            LOCAL if (known := find(key)) is None or not covers(known.unit) else known.read()
            for key in keys
        ]

    def write(self, key: str, value: Any, ttl_s: float) -> bool:
        """Write a key."""
        return self._known(key).write(value, ttl_s)

    def add(self, key: str, amount: float, ttl_s: int) -> float:
        """Add to a key."""
        return self._known(key).add(amount, ttl_s)

    def forget(self, key: str) -> None:
        """Remove a key."""
        self._known(key).forget()


class DeploymentsSeam(Seam):
    """Patches the cooldown cache's class, whose constructor gets every Router's caches."""

    missing = "deployments are NOT known to all workers"

    def __init__(self, routing: Routing) -> None:
        super().__init__()
        self.routing = routing
        self.feed = Feed(
            routing.shared.deployments,
            routing.breaker,
            routing.covers_deployment,
            Timing(routing.region),
        )
        self._logger: Any = None
        #: A proxy makes Routers again and again: those that are gone must not be kept by this.
        self._replaced: list[_Replaced] = []
        self._routers: list[weakref.ref[Any]] = []

    def adopt_from(self, removed: DeploymentsSeam) -> None:
        """Take the Routers up that a removed seam has let go."""
        left, removed._routers = removed._routers, []
        for ref in left:
            cooldowns = ref()
            if cooldowns is not None and self.state == "applied":
                self._adopt(cooldowns)

    def remove(self) -> None:
        """Put the class and the caches of its instances back as they were."""
        super().remove()
        self.routing.shares_caches = False
        self.feed.stop()
        if self._logger is not None:
            _compat.remove_logger(self._logger)
            self._logger = None
        self._put_back(self._replaced)
        self._replaced = []

    def _probe(self, module: ModuleType) -> str:
        return _compat.probe_cooldown_cache(module)

    def _install(self, module: ModuleType) -> None:
        cooldown_cache = _compat.cooldown_cache_class(module)
        if self._patched(cooldown_cache):
            return
        original = cooldown_cache.__init__
        seam = self

        @functools.wraps(original)
        def __init__(  # noqa: N807  # it becomes one
            self: Any, *args: Any, **kwargs: Any
        ) -> None:
            original(self, *args, **kwargs)
            if seam.active:
                router = _compat.router_of(sys._getframe(1))
                if router is not None:
                    seam.routing.met_router(router)
                seam._adopt(self)

        __init__.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
        self._patch(cooldown_cache, "__init__", __init__)
        logger.info("LiteLLM %s: deployments are known to all workers", _compat.version())

    def stand_back(self) -> None:
        """Leave a Router that has Redis alone."""
        self.not_applied("Redis is configured: LiteLLM's Router counts there")
        logger.info("deployments: %s", self.reason)

    def _adopt(self, cooldowns: Any) -> None:
        """Keep a new Router's keys in the region."""
        replaced: list[_Replaced] = []
        try:
            router_cache = _compat.router_cache(cooldowns)
            self.routing.met(router_cache)
            if _compat.cache_has_redis(router_cache):
                self.stand_back()
                return
            source = _RouterCache(self, router_cache)
            for owner, name in _compat.memory_tiers(cooldowns):
                self._replace(owner, name, source, replaced)
            if self._logger is None:
                self._logger = _compat.add_logger(self.feed)
            _compat.keep_logger(self._logger)
            self._replaced = [kept for kept in self._replaced if kept[0]() is not None]
            self._replaced += replaced
            self._routers = [ref for ref in self._routers if ref() is not None]
            self._routers.append(weakref.ref(cooldowns))
            self.state, self.reason = "applied", ""
            self.routing.shares_caches = True
        except FAULTS as error:  # LiteLLM's constructor must not fail because of us
            self._put_back(replaced)
            self.not_applied(f"{type(error).__name__}: {error}")
            logger.exception("%s: a router was left as it is", self.missing)

    def _replace(
        self,
        owner: Any,
        name: str,
        source: _RouterCache,
        replaced: list[_Replaced],
    ) -> None:
        original = getattr(owner, name)
        if is_mirror(original):
            return
        mirror = mirror_of(original, source)
        setattr(owner, name, mirror)
        replaced.append((weakref.ref(owner), name, weakref.ref(mirror)))

    @staticmethod
    def _put_back(replaced: list[_Replaced]) -> None:
        for owner_ref, name, mirror_ref in reversed(replaced):
            owner, mirror = owner_ref(), mirror_ref()
            if mirror is not None and getattr(owner, name, None) is mirror:
                setattr(owner, name, original_of(mirror))
