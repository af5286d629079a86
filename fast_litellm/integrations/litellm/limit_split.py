"""Limits divided between the region and LiteLLM's own memory, while the limiter is rolled out to a part.

What a limit belongs to (a key, a user, a team) is with the region as a whole, in all workers, or with
each worker's own memory, as without fast_litellm. A request may have limits of both kinds. Each of the
limiter's methods is then asked twice: a twin that has no region is given the one kind, the limiter itself
the other.
"""

from __future__ import annotations

import functools
import inspect
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from fast_litellm.integrations.litellm import _compat

#: Until when (`time.monotonic`) this request is decided from LiteLLM's own memory, because the region
#: failed it, or because its limits are not in the region.
without_region: ContextVar[float] = ContextVar("fast_litellm_without_region", default=0.0)


#: Methods that are divided.
DIVIDED = tuple(name for name in _compat.SPLIT_METHODS if name != "create_rate_limit_keys")


class Side(Protocol):
    """Who knows which limits are in the region."""

    def divides(self, handler: Any) -> bool:
        """Whether limits of this limiter are divided now."""

    def has_divided(self, handler: Any) -> bool:
        """Whether some may be held in its own memory from a time when they were, or the region failed."""

    def covers(self, subject: str) -> bool:
        """Whether the limits of a subject are in the region."""

    def refused(self, descriptors: Sequence[Any], answer: Any) -> None:
        """Note that limits in the region have refused, where only a look was taken at them."""

    def holds(self, key: str, slot_id: str) -> bool:
        """Whether a slot is held in the region."""

    def give_back(self, key: str, slot_id: str) -> None:
        """Release a slot in the region."""


def subject_of_key(key: str) -> str:
    """The subject of a counter's key: `{api_key:x}:requests` is of `api_key:x`."""
    return key[1 : key.rfind("}")]


@contextmanager
def alone() -> Iterator[None]:
    """Decide from LiteLLM's own memory for a while."""
    token = without_region.set(float("inf"))
    try:
        yield
    finally:
        without_region.reset(token)


class Split:
    """The limiter's methods, each divided.

    Args:
        side: who knows which limits are in the region.
    """

    def __init__(self, side: Side) -> None:
        self._side = side

    def wrap(self, name: str, original: Any) -> Any:
        """The divided form of one of `DIVIDED`."""
        divided: dict[str, Callable[..., Any]] = {
            _compat.CHECK_METHOD: self._by_halves(self._check),
            "atomic_check_and_increment_by_n": self._by_halves(self._charge),
            "async_increment_tokens_with_ttl_preservation": self._adjust,
            "async_increment_reservation_aware_tokens": self._adjust,
            "_release_parallel_request_slots": self._release,
        }
        method = divided[name]
        (parameter, *_) = _compat.SPLIT_METHODS[name]
        # What was taken while limits were divided is given back when they no longer are.
        gives_back = method in (self._adjust, self._release)
        asked = self._side.has_divided if gives_back else self._side.divides

        @functools.wraps(original)
        async def call(handler: Any, *args: Any, **kwargs: Any) -> Any:
            if not asked(handler):
                return await original(handler, *args, **kwargs)
            items = args[0] if args else kwargs.pop(parameter)
            return await method(original, handler, items, *args[1:], **kwargs)

        return call

    def _by_halves(self, both: Callable[..., Any]) -> Callable[..., Any]:
        """Asks one side where all limits are on one; else `both`, which is told which are on which."""

        async def method(
            original: Any, handler: Any, descriptors: Any, *args: Any, **kwargs: Any
        ) -> Any:
            inside: list[int] = []
            outside: list[int] = []
            for position, descriptor in enumerate(descriptors):
                covered = self._side.covers(_compat.subject_of(descriptor))
                (inside if covered else outside).append(position)
            if not outside:
                return await original(handler, descriptors, *args, **kwargs)
            if not inside:
                with alone():
                    twin = _compat.in_memory_twin(handler)
                    return await original(twin, descriptors, *args, **kwargs)
            return await both(original, handler, descriptors, (inside, outside), *args, **kwargs)

        return method

    async def _check(
        self,
        original: Any,
        handler: Any,
        descriptors: Any,
        halves: tuple[list[int], list[int]],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        twin = _compat.in_memory_twin(handler)
        ours, theirs = ([descriptors[n] for n in half] for half in halves)
        if _compat.only_reads(args, kwargs):
            with alone():
                first = await original(twin, theirs, *args, **kwargs)
            if _compat.is_refusal(first):
                return first
            second = await original(handler, ours, *args, **kwargs)
            return second if _compat.is_refusal(second) else _compat.both_answers(first, second)
        named = inspect.signature(original).bind(handler, ours, *args, **kwargs).arguments
        _, _, *names = named
        options = {name: named[name] for name in names}
        # An id by which the slots can be given back.
        slot_id = options.get("parallel_slot_id") or uuid.uuid4().hex
        options["parallel_slot_id"] = slot_id
        # LiteLLM, too, looks at all limits before it charges any.
        look = await original(handler, ours, **{**options, "read_only": True})
        if _compat.is_refusal(look):
            self._side.refused(ours, look)
            return look
        with alone():
            first = await original(twin, theirs, **options)
        if _compat.is_refusal(first):
            return first
        try:
            second = await original(handler, ours, **options)
        except BaseException:
            await self._give_slots_back(twin, theirs, slot_id)
            raise
        if _compat.is_refusal(second):
            await self._give_slots_back(twin, theirs, slot_id)
            return second
        return _compat.both_answers(first, second)

    async def _give_slots_back(self, twin: Any, descriptors: list[Any], slot_id: str) -> None:
        keys = _compat.gauges_of(twin, descriptors)
        if keys:
            with alone():
                await twin._release_parallel_request_slots(
                    {"slot_id": slot_id, "counter_keys": keys}
                )

    async def _charge(
        self,
        original: Any,
        handler: Any,
        descriptors: Any,
        halves: tuple[list[int], list[int]],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        twin = _compat.in_memory_twin(handler)
        inside, outside = halves
        increments, *rest = args or (kwargs.pop("increments"),)
        parts = [
            ([descriptors[n] for n in half], [increments[n] for n in half])
            for half in (outside, inside)
        ]
        with alone():
            first = await original(twin, *parts[0], *rest, **kwargs)
        if _compat.is_refusal(first):
            return first
        try:
            second = await original(handler, *parts[1], *rest, **kwargs)
        except BaseException:
            self._refund(twin, *parts[0])
            raise
        if _compat.is_refusal(second):
            self._refund(twin, *parts[0])
            return second
        return _compat.both_answers(first, second)

    def _refund(self, twin: Any, descriptors: list[Any], increments: list[Any]) -> None:
        memory = _compat.dual_cache(twin).in_memory_cache
        with alone():
            for key, amount in _compat.charges_of(twin, descriptors, increments).items():
                # Of a window that has ended meanwhile nothing is left to give back.
                charged = int(memory.get_cache(key) or 0)
                if charged > 0:
                    memory.set_cache(key, max(0, charged - amount), ttl=_seconds_left(memory, key))

    async def _adjust(
        self, original: Any, handler: Any, operations: Any, *args: Any, **kwargs: Any
    ) -> Any:
        inside: list[Any] = []
        outside: list[Any] = []
        for operation in operations:
            if _compat.is_of_a_window(operation):
                # It is kept where it was reserved, whoever has the limit now.
                ours = not _compat.is_local_reservation(operation)
            else:
                ours = self._side.covers(subject_of_key(operation["key"]))
            (inside if ours else outside).append(operation)
        if inside:
            await original(handler, inside, *args, **kwargs)
        if outside:
            with alone():
                await original(_compat.in_memory_twin(handler), outside, *args, **kwargs)

    async def _release(
        self, original: Any, handler: Any, acquisition: Any, *args: Any, **kwargs: Any
    ) -> Any:
        slot_id, keys = acquisition["slot_id"], list(acquisition["counter_keys"])
        ours = [key for key in keys if self._side.holds(key, slot_id)]
        theirs = [key for key in keys if key not in ours]
        if theirs:
            with alone():
                await original(
                    _compat.in_memory_twin(handler),
                    {**acquisition, "counter_keys": theirs},
                    *args,
                    **kwargs,
                )
        for key in ours:
            if _has_own_slots(handler, key):
                # LiteLLM would put the region's number of slots in the place of its own list of them.
                self._side.give_back(key, slot_id)
            else:
                await original(handler, {**acquisition, "counter_keys": [key]}, *args, **kwargs)


def _has_own_slots(handler: Any, key: str) -> bool:
    """Whether LiteLLM has a list of slots of its own under a key."""
    with alone():
        return isinstance(_compat.dual_cache(handler).in_memory_cache.get_cache(key), dict)


def _seconds_left(memory: Any, key: str) -> float:
    expires = memory.ttl_dict.get(key)
    return 60.0 if expires is None else max(1.0, float(expires) - time.time())
