"""The process's region: made once by the first process, inherited by its children."""

from __future__ import annotations

import os
import sys

from fast_litellm import _native
from fast_litellm._config import RegionSettings, performance_sampling
from fast_litellm._log import logger


def process_region() -> _native.Region:
    """Return the region of this process, creating it if there is none.

    Raises:
        ConfigError: a setting is malformed.
        OutOfRangeError: a setting is out of range.
        RegionError: the region cannot be created or attached to.
    """
    region = _native.default_region()
    if region is not None:
        return region
    sampling = performance_sampling()
    region = _make(RegionSettings.from_environment())
    _native.set_sampling(sampling)
    if not _native.set_default_region(region):
        # Another thread was first; its region is the one.
        region.leave()
        first = _native.default_region()
        if first is not None:
            return first
    parent = _server_above()
    if parent and not os.environ.get("FAST_LITELLM_SHM", "").strip():
        logger().error(
            "limits are NOT shared between workers: this worker of %s made a region of its own, because "
            "fast_litellm was imported after the fork; %s, or set FAST_LITELLM_SHM to a path on tmpfs",
            parent,
            "start gunicorn with --preload" if parent == "gunicorn" else "import it in the parent",
        )
    # Children register with their first operation anyway; this shows them to inspectors earlier.
    os.register_at_fork(after_in_child=_register_child)
    return region


def _server_above() -> str:
    """Name of the server whose worker this process already is; empty = none."""
    arbiter = sys.modules.get("gunicorn.arbiter")
    if arbiter is not None:
        try:
            with open(f"/proc/{os.getppid()}/cmdline", "rb") as file:
                above = file.read()
        except OSError:
            above = b""
        if b"gunicorn" in above:
            return "gunicorn"
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        return "a process pool"
    return ""


def _make(settings: RegionSettings) -> _native.Region:
    if settings.path is not None:
        return _native.Region.open(
            settings.path,
            keys=settings.keys,
            lease_chunks=settings.lease_chunks,
            workers=settings.workers,
            deployments=settings.deployments,
            overflow=settings.overflow,
            force=settings.force,
        )
    region = _native.Region.create(
        settings.name,
        keys=settings.keys,
        lease_chunks=settings.lease_chunks,
        workers=settings.workers,
        deployments=settings.deployments,
        overflow=settings.overflow,
        backing=None if settings.backing is None else list(settings.backing),
        directories=None if settings.directories is None else list(settings.directories),
    )
    if region.fallbacks:
        logger().warning(
            "the shared region uses %s memory, because: %s",
            region.backing,
            "; ".join(region.fallbacks),
        )
    return region


def _register_child() -> None:
    # No logging here: another thread of the parent may have held a handler's lock when it forked. A full
    # worker table shows itself with the first slot that is asked for.
    region = _native.default_region()
    if region is not None:
        region.register()
