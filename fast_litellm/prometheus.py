"""Metrics of the region for `prometheus_client`, which has to be installed.

The numbers are those of all workers and live in the region: whichever worker is asked gives the same
ones. They are never written to `PROMETHEUS_MULTIPROC_DIR`, and are not to be added up over workers.

One process, or LiteLLM's `/metrics` without `PROMETHEUS_MULTIPROC_DIR`, which serves the global
registry::

    fast_litellm.prometheus.register()

With `PROMETHEUS_MULTIPROC_DIR` each scrape is answered from a registry that was made for a
`MultiProcessCollector`, and what is in the global one is not served. Where you make that registry::

    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    fast_litellm.prometheus.register(registry)

or `registry = fast_litellm.prometheus.multiprocess_registry()`. Where somebody else makes it, as
LiteLLM does, call this before it does, next to the import of fast_litellm::

    fast_litellm.prometheus.join_multiprocess()
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from fast_litellm._log import logger
from fast_litellm._metrics import families
from fast_litellm._native import FAULTS

try:
    import prometheus_client
    from prometheus_client.metrics_core import Metric
except ImportError as error:
    raise ImportError(
        "fast_litellm.prometheus needs prometheus_client: pip install prometheus-client; without it, use "
        'fast_litellm.export_performance_data(format="prometheus") or fast_litellm.asgi'
    ) from error


class RegionCollector:
    """Collects what the region counts and measures; see `register`."""

    def collect(self) -> Iterator[Any]:
        """Read the region. What fails is logged: the other metrics of the registry are to be served."""
        try:
            found = families()
        except FAULTS as error:  # see above
            logger().error("the region's metrics are missing: %s: %s", type(error).__name__, error)
            return
        for family in found:
            metric = Metric(family.name, family.help, family.kind)
            for sample in family.samples:
                metric.add_sample(family.name + sample.suffix, sample.labels, sample.value)
            yield metric

    def describe(self) -> list[Any]:
        """Its metrics, so that a registry can find them by name and refuses them a second time."""
        return list(self.collect())


_registered: WeakKeyDictionary[Any, RegionCollector] = WeakKeyDictionary()
_lock = threading.Lock()
#: The constructor that `join_multiprocess` has replaced.
_original: Any = None


def register(registry: Any = None) -> RegionCollector:
    """Have a registry serve the region's metrics. A registry that does so already is left as it is.

    Args:
        registry: a `CollectorRegistry`. None = the global one.

    Returns:
        The collector, for `registry.unregister`.
    """
    registry = prometheus_client.REGISTRY if registry is None else registry
    with _lock:
        collector = _registered.get(registry)
        if collector is None or not _serves(registry, collector):
            collector = RegionCollector()
            registry.register(collector)
            _registered[registry] = collector
        return collector


def _serves(registry: Any, collector: RegionCollector) -> bool:
    # It may have been unregistered.
    return collector in getattr(registry, "_collector_to_names", (collector,))


def multiprocess_registry(path: str | None = None) -> Any:
    """Make a registry with the metrics of all processes in a directory, and the region's once.

    Args:
        path: the directory. None = `PROMETHEUS_MULTIPROC_DIR`.

    Raises:
        ValueError: there is no such directory.
    """
    from prometheus_client import multiprocess

    collector_class: Any = multiprocess.MultiProcessCollector
    registry = prometheus_client.CollectorRegistry()
    collector_class(registry, path)
    register(registry)
    return registry


def join_multiprocess() -> None:
    """From now on every registry that gets a `MultiProcessCollector` gets the region's metrics too."""
    global _original
    from prometheus_client import multiprocess

    collector_class: Any = multiprocess.MultiProcessCollector
    with _lock:
        if _original is not None:
            return
        original = _original = collector_class.__init__

    @functools.wraps(original)
    def __init__(  # noqa: N807  # it becomes one
        self: Any, registry: Any, *args: Any, **kwargs: Any
    ) -> None:
        original(self, registry, *args, **kwargs)
        if registry is not None and _original is not None:
            register(registry)

    collector_class.__init__ = __init__


def leave_multiprocess() -> None:
    """Undo `join_multiprocess`; registries that were made meanwhile keep the region's metrics."""
    global _original
    from prometheus_client import multiprocess

    collector_class: Any = multiprocess.MultiProcessCollector
    with _lock:
        original, _original = _original, None
        if (
            original is not None
            and getattr(collector_class.__init__, "__wrapped__", None) is original
        ):
            collector_class.__init__ = original
