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
_MARK = "_fast_litellm_mirror"


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
    kind = _mirror_class(type(cache), source)
    mirror = kind.__new__(kind)
    mirror.__dict__ = cache.__dict__
    return mirror


def is_mirror(cache: Any) -> bool:
    """Whether `cache` came from `mirror_of`."""
    return hasattr(type(cache), _MARK)


def _mirror_class(base: Any, source: Source) -> Any:
    def live(key: object) -> bool:
        return _is_limiter_key(key) and source.usable()

    class RegionMirror(base):  # type: ignore[misc]
        """`InMemoryCache` whose limiter keys live in the region."""

        def get_cache(self, key: Any, **kwargs: Any) -> Any:
            if live(key):
                try:
                    return source.value(key)
                except Exception as error:  # noqa: BLE001  # counted; LiteLLM's own copy answers
                    source.failed("read", error)
            return super().get_cache(key, **kwargs)

        def set_cache(self, key: Any, value: Any, **kwargs: Any) -> None:
            # Dropped: the region already holds the value that this would be a copy of.
            if not live(key):
                super().set_cache(key, value, **kwargs)

        def increment_cache(self, key: Any, value: float, **kwargs: Any) -> float:
            if live(key):
                try:
                    ttl_s = int(kwargs.get("ttl") or _DEFAULT_TTL_S)
                    return source.add(key, value, ttl_s)
                except Exception as error:  # noqa: BLE001  # counted; LiteLLM's own copy counts
                    source.failed("increment", error)
            result: float = super().increment_cache(key, value, **kwargs)
            return result

        def delete_cache(self, key: Any) -> None:
            if live(key):
                try:
                    source.forget(key)
                except Exception as error:  # noqa: BLE001  # counted; nothing else to delete
                    source.failed("delete", error)
            super().delete_cache(key)

    RegionMirror.__name__ = base.__name__
    RegionMirror.__qualname__ = base.__qualname__
    setattr(RegionMirror, _MARK, True)
    return RegionMirror
