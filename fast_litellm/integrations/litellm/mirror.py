"""The limiter's in-memory tier, with its counters read from the region.

LiteLLM keeps a copy of every counter in each worker's memory: it answers from the copy when that is
over the limit, and writes the copy after every script. A copy can be stale and can be evicted. Here the
limiter's keys have no copy: reads are live, writes of copies are dropped, additions are made where the
counter is. All other keys stay in LiteLLM's own cache.
"""

from __future__ import annotations

from typing import Any, Protocol

#: What ends a key that the limiter keeps in the region.
_ENDINGS = ("}:window", "}:requests", "}:tokens", "}:max_parallel_requests")
#: LiteLLM's own time to live where a caller names none, seconds.
_DEFAULT_TTL_S = 600


class Source(Protocol):
    """Where the limiter's keys are."""

    def usable(self) -> bool:
        """Whether the region answers for this request."""

    def failed(self, operation: str, error: Exception) -> None:
        """Count an operation the region could not do; this request goes on without it."""

    def value(self, key: str) -> int | None:
        """Read a key."""

    def add(self, key: str, amount: float, ttl_s: int) -> int:
        """Add to a counter."""

    def forget(self, key: str) -> None:
        """Remove a key."""


def _is_limiter_key(key: object) -> bool:
    return isinstance(key, str) and key.startswith("{") and key.endswith(_ENDINGS)


def mirror_of(cache: Any, source: Source) -> Any:
    """Return a cache that shares everything with `cache` but the limiter's keys.

    `cache` itself stays intact and can be put back at any time: both see the same entries.
    """
    kind = _mirror_class(type(cache))
    mirror = kind.__new__(kind)
    mirror.__dict__ = cache.__dict__
    _sources[id(cache.__dict__)] = source
    return mirror


#: By identity of the shared attribute dictionary, so that no attribute is added to LiteLLM's cache.
_sources: dict[int, Source] = {}
_classes: dict[type, type] = {}


def is_mirror(cache: Any) -> bool:
    """Whether `cache` came from `mirror_of`."""
    return type(cache) in _classes.values()


def _mirror_class(base: Any) -> Any:
    if base in _classes:
        return _classes[base]

    class RegionMirror(base):  # type: ignore[misc]
        """`InMemoryCache` whose limiter keys live in the region."""

        def get_cache(self, key: Any, **kwargs: Any) -> Any:
            source = _source(self, key)
            if source is not None:
                try:
                    return source.value(key)
                except Exception as error:  # noqa: BLE001  # counted; LiteLLM's own copy answers
                    source.failed("read", error)
            return super().get_cache(key, **kwargs)

        def set_cache(self, key: Any, value: Any, **kwargs: Any) -> None:
            # Dropped: the region already holds the value that this would be a copy of.
            if _source(self, key) is None:
                super().set_cache(key, value, **kwargs)

        def increment_cache(self, key: Any, value: float, **kwargs: Any) -> float:
            source = _source(self, key)
            if source is not None:
                ttl_s = int(kwargs.get("ttl") or _DEFAULT_TTL_S)
                try:
                    return source.add(key, value, ttl_s)
                except Exception as error:  # noqa: BLE001  # counted; LiteLLM's own copy counts
                    source.failed("increment", error)
            result: float = super().increment_cache(key, value, **kwargs)
            return result

        def delete_cache(self, key: Any) -> None:
            source = _source(self, key)
            if source is not None:
                try:
                    source.forget(key)
                except Exception as error:  # noqa: BLE001  # counted; nothing else to delete
                    source.failed("delete", error)
            super().delete_cache(key)

    RegionMirror.__name__ = base.__name__
    RegionMirror.__qualname__ = base.__qualname__
    _classes[base] = RegionMirror
    return RegionMirror


def _source(mirror: Any, key: object) -> Source | None:
    if not _is_limiter_key(key):
        return None
    source = _sources.get(id(mirror.__dict__))
    return source if source is not None and source.usable() else None
