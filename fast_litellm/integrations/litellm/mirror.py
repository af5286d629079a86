"""An in-memory cache of LiteLLM's some of whose keys are in the region.

Without Redis LiteLLM keeps its state in a cache of each worker's own; with Redis the cache holds copies,
which can be stale and can be evicted. Here the keys that a source keeps have no copy: reads are live,
writes and additions go where the value is. All other keys stay in LiteLLM's own cache.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from fast_litellm._native import FAULTS

#: LiteLLM's own time to live where a caller names none, seconds.
_DEFAULT_TTL_S = 600
_MARK = "_fast_litellm_mirror"


class _Local:
    """The type of `LOCAL`."""


#: What a source answers for a key whose value it does not have: LiteLLM's own cache is asked.
LOCAL: Final = _Local()


class Source(Protocol):
    """Where some keys are."""

    def keeps(self, key: object) -> bool:
        """Whether it has this key now."""

    def failed(self, operation: str, error: BaseException) -> None:
        """Count an operation that it could not do; LiteLLM's own cache does it."""

    def value(self, key: str) -> Any:
        """Read a key; None = there is no value; `LOCAL` = only LiteLLM's own cache may have one."""

    def values(self, keys: list[Any]) -> list[Any]:
        """Read keys of which it may have none; `LOCAL` for those that it does not have."""

    def write(self, key: str, value: Any, ttl_s: float) -> bool:
        """Write a value that lives `ttl_s` seconds; False = only LiteLLM's own cache can hold it."""

    def add(self, key: str, amount: float, ttl_s: int) -> float:
        """Add to a value that lives `ttl_s` seconds from its first addition; returns the new one."""

    def forget(self, key: str) -> None:
        """Remove a key."""


def mirror_of(cache: Any, source: Source) -> Any:
    """Return a cache that shares everything with `cache` but the source's keys.

    `cache` itself stays intact and can be put back at any time: both see the same entries.
    """
    kind = _mirror_class(type(cache), source)
    setattr(kind, _MARK, cache)
    mirror = kind.__new__(kind)
    mirror.__dict__ = cache.__dict__
    return mirror


def is_mirror(cache: Any) -> bool:
    """Whether `cache` came from `mirror_of`."""
    return hasattr(type(cache), _MARK)


def original_of(mirror: Any) -> Any:
    """What `mirror` was made of."""
    return getattr(type(mirror), _MARK)


def _ttl_s(kwargs: dict[str, Any]) -> float:
    ttl = kwargs.get("ttl")
    return _DEFAULT_TTL_S if ttl is None else float(ttl)


def _mirror_class(base: Any, source: Source) -> Any:
    class RegionMirror(base):  # type: ignore[misc]
        """`InMemoryCache` some of whose keys live in the region."""

        def get_cache(self, key: Any, **kwargs: Any) -> Any:
            if source.keeps(key):
                try:
                    value = source.value(key)
                    if value is not LOCAL:
                        return value
                except FAULTS as error:  # counted; LiteLLM's own copy answers
                    source.failed("read", error)
            return super().get_cache(key, **kwargs)

        def batch_get_cache(self, keys: list[Any], **kwargs: Any) -> list[Any]:
            try:
                values = source.values(keys)
            except FAULTS as error:  # counted; LiteLLM's own copies answer
                source.failed("read", error)
                values = [LOCAL] * len(keys)
            own = super().get_cache
            return [
                own(key, **kwargs) if value is LOCAL else value
                for key, value in zip(keys, values, strict=True)
            ]

        async def async_batch_get_cache(self, keys: list[Any], **kwargs: Any) -> list[Any]:
            return self.batch_get_cache(keys, **kwargs)

        def set_cache(self, key: Any, value: Any, **kwargs: Any) -> None:
            if source.keeps(key):
                try:
                    if source.write(key, value, _ttl_s(kwargs)):
                        return
                except FAULTS as error:  # counted; LiteLLM's own copy is written
                    source.failed("write", error)
            super().set_cache(key, value, **kwargs)

        def increment_cache(self, key: Any, value: float, **kwargs: Any) -> float:
            if source.keeps(key):
                try:
                    # What lives no second would live for ever.
                    return source.add(key, value, max(1, round(_ttl_s(kwargs))))
                except FAULTS as error:  # counted; LiteLLM's own copy counts
                    source.failed("increment", error)
            result: float = super().increment_cache(key, value, **kwargs)
            return result

        def delete_cache(self, key: Any) -> None:
            if source.keeps(key):
                try:
                    source.forget(key)
                except FAULTS as error:  # counted; nothing else to delete
                    source.failed("delete", error)
            super().delete_cache(key)

    RegionMirror.__name__ = base.__name__
    RegionMirror.__qualname__ = base.__qualname__
    return RegionMirror
