"""The rate limiter seam: the scripts that LiteLLM would run in Redis, answered from the region.

With Redis, LiteLLM's limiter keeps its counters and slots there and talks to them through eight small
scripts; without Redis the places for them are empty and every worker counts alone. This seam fills the
places. Everything else about the limiter, from descriptors to headers, stays LiteLLM's.
"""

from __future__ import annotations

import functools
import inspect
import time
import weakref
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from fast_litellm import _native
from fast_litellm._native import FAULTS
from fast_litellm._timing import Timing
from fast_litellm.integrations.litellm import _compat
from fast_litellm.integrations.litellm.debts import Debts
from fast_litellm.integrations.litellm.limit_split import (
    DIVIDED,
    Split,
    subject_of_key,
    without_region,
)
from fast_litellm.integrations.litellm.mirror import LOCAL, is_mirror, mirror_of
from fast_litellm.integrations.litellm.seam import Breaker, Seam, logger

#: Number of this feature's breaker in the region.
FEATURE = 2
#: Subjects whose limits this process remembers to have noted.
_MAX_NOTED = 10_000
#: What ends a key that the limiter keeps in the region.
_ENDINGS = ("}:window", "}:requests", "}:tokens", "}:max_parallel_requests")
#: How long at most a request goes on without the region after an operation failed, seconds.
_WITHOUT_REGION_S = 5.0


class _Script:
    """One script of the limiter: same arguments, same reply as in Redis.

    What was taken from the region must be given back to it whatever has happened since, so scripts that
    give back run even in requests that go on without the region, and while the breaker is open.
    """

    __slots__ = ("_method", "_name", "_seam", "gives_back")

    def __init__(self, seam: LimiterSeam, name: str, method: Any, gives_back: bool) -> None:
        self._seam = seam
        self._name = name
        self._method = method
        self.gives_back = gives_back

    async def __call__(
        self, keys: Sequence[str], args: Sequence[Any] = (), client: Any = None
    ) -> list[Any]:
        if not self._seam.usable() and not (
            self.gives_back and self._seam.owes(self._name, keys, args)
        ):
            raise RuntimeError("fast_litellm: this request is limited per worker only")
        try:
            reply: list[Any] = self._method(keys, args)
        except FAULTS as error:
            # LiteLLM catches this and decides the same request from its own memory.
            self._seam.failed(self._name, error)
            if self._name == _compat.RELEASE_ATTRIBUTE:
                self._seam.debts.owe(keys, args)
            if isinstance(error, Exception):
                raise
            raise RuntimeError(f"fast_litellm: {self._name} failed") from error
        self._seam.succeeded()
        return reply


class LimiterSeam(Seam):
    """Patches the limiter's class so that every instance without Redis uses the region.

    Attributes:
        debts: slots whose release has failed.
    """

    def __init__(self, region: _native.Region) -> None:
        super().__init__()
        self._region = region
        self._scripts = _native.LimiterScripts(region)
        self.debts = Debts(lambda keys, ids: self._scripts.parallel_release(keys, ids))
        self._breaker = Breaker(
            region,
            FEATURE,
            "rate limiter",
            "this request is limited per worker only",
            self._switch,
        )
        self._caches: list[tuple[weakref.ref[Any], Any, Any]] = []
        self._noted: dict[str, tuple[int, int]] = {}
        self._handlers: list[weakref.ref[Any]] = []
        #: Whether a limiter of this process may hold something of the region's limits in its own memory.
        self._divided = False
        self._timing = Timing(region)

    def remove(self) -> None:
        """Put the class, its instances and their caches back as they were."""
        super().remove()
        for handler in self._live_handlers():
            self._clear(handler)
        for ref, mirror, original in self._caches:
            cache = ref()
            if cache is not None and cache.in_memory_cache is mirror:
                cache.in_memory_cache = original
        self._caches = []

    def adopt_from(self, removed: LimiterSeam) -> None:
        """Take the instances up that a removed seam has let go."""
        left, removed._handlers = removed._live_handlers(), []
        for handler in left:
            self._adopt(handler)

    @property
    def open(self) -> bool:
        """Whether the region is not used at all: the limiter counts per worker, as LiteLLM does."""
        return self._breaker.open

    # Which limits are in the region

    def divides(self, handler: Any) -> bool:
        """Whether limits of this limiter are divided now."""
        if not self.active or self.open or not self._breaker.partial:
            return False
        self._divided = True
        return self._is_ours(handler)

    def has_divided(self, handler: Any) -> bool:
        """Whether some may be held in its own memory from a time when they were, or the region failed."""
        return self._divided and self.active and self._is_ours(handler)

    def covers(self, subject: str) -> bool:
        """Whether the limits of a subject are in the region."""
        return self._breaker.covers(subject)

    def refused(self, descriptors: Sequence[Any], answer: Any) -> None:
        """Note that limits in the region have refused, where only a look was taken at them."""
        self._end(descriptors, answer)

    def holds(self, key: str, slot_id: str) -> bool:
        """Whether a slot is held in the region."""
        try:
            return self._scripts.holds_slot(key, slot_id)
        except FAULTS as error:  # counted; its release is tried there
            self._breaker.failed("search for a slot", error)
            return True

    def give_back(self, key: str, slot_id: str) -> None:
        """Release a slot in the region."""
        try:
            self._scripts.parallel_release([key], [slot_id])
        except FAULTS as error:  # counted; it is tried again
            self.debts.owe([key], [slot_id])
            self._breaker.failed("release of a slot", error)

    def _switch(self, is_open: bool) -> None:
        self._divided = True
        # Without scripts LiteLLM counts in its own memory at once, instead of after each failure.
        for handler in self._live_handlers():
            if is_open:
                self._clear(handler, keep_giving_back=True)
            else:
                self._fill(handler)

    # Source of the in-memory tier

    def usable(self) -> bool:
        """Whether the region answers for this request."""
        return not (without_region.get() > time.monotonic() or self.open)

    def owes(self, script: str, keys: Sequence[str], args: Sequence[Any]) -> bool:
        """Whether a script that gives back has something to give back to the region."""
        if script != _compat.RELEASE_ATTRIBUTE:
            # Window refunds name their window; the region ignores those of a window it does not have.
            return True
        try:
            return any(map(self._scripts.holds_slot, keys, args))
        except FAULTS as error:  # counted; the release is tried
            self._breaker.failed("search for a slot", error)
            return True

    def succeeded(self) -> None:
        """Tell that the region has answered."""
        self._breaker.succeeded()

    def failed(self, operation: str, error: BaseException) -> None:
        """Count an operation the region could not do, and decide this request without it."""
        self._divided = True
        without_region.set(time.monotonic() + _WITHOUT_REGION_S)
        self._breaker.failed(operation, error)

    def keeps(self, key: object) -> bool:
        """Whether a key is the limiter's, and the region answers for this request."""
        # Looked at first, because a limiter that is switched off is asked as often.
        return (
            self._breaker.percent > 0
            and isinstance(key, str)
            and key.startswith("{")
            and key.endswith(_ENDINGS)
            and self.usable()
            and (not self._breaker.partial or self.covers(subject_of_key(key)))
        )

    def value(self, key: str) -> int | None:
        """Read a key: a window's start, a counter, or the slots held."""
        return self._scripts.value(key)

    def values(self, keys: list[Any]) -> list[Any]:
        """Read keys."""
        return [self.value(key) if self.keeps(key) else LOCAL for key in keys]

    def write(self, key: str, value: Any, ttl_s: float) -> bool:
        """Drop a copy: the region already holds the value."""
        return True

    def add(self, key: str, amount: float, ttl_s: int) -> int:
        """Add to a counter."""
        return self._scripts.add(key, amount, ttl_s)

    def forget(self, key: str) -> None:
        """Remove a key."""
        self._scripts.forget(key)

    # Patching

    def _probe(self, module: ModuleType) -> str:
        return _compat.probe_limiter(module)

    def _install(self, module: ModuleType) -> None:
        self._patch_class(_compat.handler_class(module))
        logger.info("LiteLLM %s: the rate limiter counts in the shared region", _compat.version())

    def _patch_class(self, handler_class: Any) -> None:
        original = handler_class.__init__
        seam = self
        if self._patched(handler_class):
            return

        @functools.wraps(original)
        def __init__(  # noqa: N807  # it becomes one
            self: Any, internal_usage_cache: Any, *args: Any, **kwargs: Any
        ) -> None:
            original(self, internal_usage_cache, *args, **kwargs)
            if seam.active:
                seam._adopt(self)

        # LiteLLM looks the parameters up by name before it calls.
        __init__.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
        self._patch(handler_class, "__init__", __init__)
        self._patch_check(handler_class)
        self._patch_descriptors(handler_class)
        self._divide(handler_class)

    def _divide(self, handler_class: Any) -> None:
        """Let each limit be in the region or not, for a rollout to a part of them."""
        reason = _compat.probe_split(handler_class)
        if reason:
            logger.info("the rate limiter cannot be rolled out to a part: %s", reason)
            self._breaker.whole = True
            return
        split = Split(self)
        for name in DIVIDED:
            self._patch(handler_class, name, split.wrap(name, vars(handler_class)[name]))

    def _patch_check(self, handler_class: Any) -> None:
        """See each check before it begins.

        It starts afresh whatever failed before it, is counted if it has to do without the region, and
        its limits are noted, so that inspectors can show used *of what*: the scripts are not told the
        limits of unconditional hits. A version without the method is no reason to leave the seam out.
        """
        original = _compat.check_method(handler_class)
        if original is None:
            return
        seam = self

        @functools.wraps(original)
        async def should_rate_limit(self: Any, descriptors: Any, *args: Any, **kwargs: Any) -> Any:
            ours = seam.active and seam._begin(self, descriptors)
            reads = _compat.only_reads(args, kwargs)
            began = 0 if reads else seam._timing.begin()
            try:
                answer = await original(self, descriptors, *args, **kwargs)
            except Exception:
                seam._timed(began, self, ours, failed=True)
                raise
            seam._timed(began, self, ours)
            if ours and not reads:
                seam._end(descriptors, answer)
            return answer

        self._patch(handler_class, _compat.CHECK_METHOD, should_rate_limit)

    def _patch_descriptors(self, handler_class: Any) -> None:
        """Add the limit of all requests, `global_max_parallel_requests`, to those of each request.

        LiteLLM reads the setting and passes it on, but this limiter does not ask for it. A version that
        lists its limits otherwise is no reason to leave the seam out.
        """
        original = _compat.descriptors_method(handler_class)
        if original is None:
            return
        seam = self

        @functools.wraps(original)
        def create_rate_limit_descriptors(self: Any, *args: Any, **kwargs: Any) -> Any:
            descriptors = original(self, *args, **kwargs)
            limit = _compat.limit_of_all_requests()
            if limit is not None and seam._limits_all(self):
                descriptors.append(_compat.descriptor_of_all_requests(self, limit))
            return descriptors

        self._patch(handler_class, _compat.DESCRIPTORS_METHOD, create_rate_limit_descriptors)

    def _limits_all(self, handler: Any) -> bool:
        """Whether the limit of all requests is added: not where it is switched off."""
        if not self.active or not self._is_ours(handler):
            return False
        if self.open:
            return self._breaker.tripped
        return not self._breaker.partial or self.covers(_compat.ALL_REQUESTS)

    def _is_ours(self, handler: Any) -> bool:
        # Asked several times for each check.
        for ref in self._handlers:  # noqa: SIM110  # a generator takes longer than all there is to do
            if ref() is handler:
                return True
        return False

    def _begin(self, handler: Any, descriptors: Any) -> bool:
        """Prepare a check; whether the region will decide it."""
        try:
            if not self._is_ours(handler):
                return False
            if without_region.get():
                without_region.set(0.0)
            if self.open:
                if self._breaker.tripped:
                    self._region.count_fallback()
                return False
            self.debts.settle()
            partial = self._breaker.partial
            for subject, requests, tokens in _compat.limits_of(descriptors):
                if partial and not self.covers(subject[1:-1]):
                    continue
                if self._noted.get(subject) != (requests, tokens):
                    if len(self._noted) >= _MAX_NOTED:
                        self._noted.clear()
                    self._noted[subject] = (requests, tokens)
                    self._scripts.note_limits(subject, requests, tokens)
        except FAULTS as error:  # nothing is decided here; the check counts its errors
            logger.debug("limits were not noted: %s", error)
        return True

    def _timed(self, began: int, handler: Any, ours: bool, failed: bool = False) -> None:
        """Record a check that was timed, under the name of what has decided it."""
        alone = without_region.get()
        # In a rollout to a part, the other part is decided by a twin that has no region.
        if began and self.active and (alone == float("inf") or self._is_ours(handler)):
            name = "python_rate_limiter.check" if alone or not ours else "rust_rate_limiter.check"
            self._timing.end(began, name, failed)

    def _end(self, descriptors: Any, answer: Any) -> None:
        """Count a refusal: most are decided from a value that was read, without asking a script."""
        try:
            refused = _compat.refused_subjects(descriptors, answer)
            if self._breaker.partial:
                refused = [subject for subject in refused if self.covers(subject[1:-1])]
            self._scripts.note_refusals(refused)
        except FAULTS as error:  # for display only
            logger.debug("a refusal was not noted: %s", error)

    def _adopt(self, handler: Any) -> None:
        """Fill the places for scripts of a new limiter, unless Redis has filled them."""
        cache = original = None
        try:
            if _compat.has_redis(handler):
                self.not_applied("Redis is configured: LiteLLM's limiter counts there")
                logger.info("rate limiter: %s", self.reason)
                return
            cache = _compat.dual_cache(handler)
            if not is_mirror(cache.in_memory_cache):
                original = cache.in_memory_cache
                mirror = mirror_of(original, self)
                cache.in_memory_cache = mirror
                self._caches.append((weakref.ref(cache), mirror, original))
            self._fill(handler)
            if self.open:
                self._clear(handler, keep_giving_back=True)
            self._handlers.append(weakref.ref(handler))
            self.state, self.reason = "applied", ""
        except FAULTS as error:  # LiteLLM's constructor must not fail because of us
            # Without scripts it counts by itself.
            self._clear(handler)
            if original is not None and cache is not None:
                cache.in_memory_cache = original
            self.not_applied(f"{type(error).__name__}: {error}")
            logger.exception("limits are NOT shared between workers: a limiter was left as it is")

    def _fill(self, handler: Any) -> None:
        for script in _compat.script_attributes(handler):
            method = getattr(self._scripts, script.method)
            callable_ = _Script(self, script.attribute, method, script.gives_back)
            setattr(handler, script.attribute, callable_)

    def _clear(self, handler: Any, keep_giving_back: bool = False) -> None:
        for script in _compat.script_attributes(handler):
            present = getattr(handler, script.attribute)
            if isinstance(present, _Script) and not (keep_giving_back and present.gives_back):
                setattr(handler, script.attribute, None)

    def _live_handlers(self) -> list[Any]:
        return [handler for ref in self._handlers if (handler := ref()) is not None]
