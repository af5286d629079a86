"""The process's region: inherited, that of its path or of its family, or made."""

from __future__ import annotations

import _thread
import os
import sys
import time

from fast_litellm import _native
from fast_litellm._config import RegionSettings, performance_sampling
from fast_litellm._family import MARKS, heads
from fast_litellm._log import logger
from fast_litellm.integrations import gunicorn

#: Two threads that both find no region would make two, and siblings may join the one that is given up. A
#: signal's handler may need the region while its thread is making it.
_making = _thread.RLock()

#: Seconds for which a failure is final: a new try may take seconds, in which an event loop stands still.
_FINAL_S = 60.0
#: The last one, with which settings, and until when.
_failure: tuple[_native.RegionError, RegionSettings, float] | None = None


def _forget() -> None:
    global _making, _failure
    _making, _failure = _thread.RLock(), None


# Whoever holds it in the parent does not exist in the child.
os.register_at_fork(after_in_child=_forget)


def process_region() -> _native.Region:
    """Return the region of this process.

    That is the inherited one, else the one at `FAST_LITELLM_SHM`, else its family's, else a new one.

    Raises:
        ConfigError: a setting is malformed.
        OutOfRangeError: a setting is out of range.
        RegionError: the region cannot be created or attached to; for a minute it is not tried again.
    """
    region = _native.default_region()
    if region is not None:
        return region
    with _making:
        return _native.default_region() or _settle()


def _settle() -> _native.Region:
    """Make the region and tell what is not as it should be."""
    sampling = performance_sampling()
    settings = RegionSettings.from_environment()
    region = _make_or_fail(settings)
    _native.set_sampling(sampling)
    if not _native.set_default_region(region):
        # A signal's handler was first; its region is the one.
        region.leave()
        first = _native.default_region()
        if first is not None:
            return first
    # What workers held that died before this one came.
    region.reap()
    _report(region, settings)
    # Children register with their first operation anyway; this shows them to inspectors earlier.
    os.register_at_fork(after_in_child=_register_child)
    return region


def _make_or_fail(settings: RegionSettings) -> _native.Region:
    """Make the region, or fail as it has failed lately."""
    global _failure
    if _failure is not None:
        error, tried, until = _failure
        if tried == settings and time.monotonic() < until:
            raise _native.RegionError(*error.args)
    try:
        return _make(settings)
    except _native.RegionError as error:
        _failure = error, settings, time.monotonic() + _FINAL_S
        raise


def is_apart(region: _native.Region) -> bool:
    """Whether others that should share this region use another one, or cannot reach it."""
    return region.origin != "replaced" and bool(region.obstacles)


def _report(region: _native.Region, settings: RegionSettings) -> None:
    """Log what is not as the settings have it."""
    if region.origin == "created" and region.fallbacks:
        logger().warning(
            "the shared region uses %s memory, because: %s",
            region.backing,
            "; ".join(region.fallbacks),
        )
    if region.origin == "created" and settings.path is None and gunicorn.arbiter_above():
        # The master ends old workers while new ones still import: no process may have the region then.
        logger().warning(
            "gunicorn's master does not have the region of its workers: a reload (SIGHUP) may begin with "
            "empty counters; start it with --preload, with -c python:fast_litellm.gunicorn, or with the "
            "command fast-litellm in front"
        )
    if region.origin == "replaced":
        logger().warning(
            "%s was left by others and has been made anew, with empty counters, because: %s",
            settings.path,
            "; ".join(region.obstacles),
        )
    elif region.origin == "joined" and settings.path is not None:
        logger().error(
            "%s; workers of this server go on sharing it, other servers cannot: restart it, and see that "
            "nothing removes the file (systemd's RemoveIPC= does)",
            "; ".join(region.obstacles),
        )
    elif region.obstacles:
        logger().error(
            "limits are NOT shared between workers: this one cannot use what the others use (%s); start "
            "gunicorn with --preload, or set FAST_LITELLM_SHM to a path on tmpfs",
            "; ".join(region.obstacles),
        )
    if is_apart(region):
        region.count_fallback()
    if region.proof_obstacle is not None:
        logger().warning(
            "slots of a killed worker come back only after their time to live, or once its parent has "
            "waited for it: %s",
            region.proof_obstacle,
        )
    if region.origin in ("joined", "opened"):
        asked = {**region.asked, "overflow": settings.overflow}
        has = {**region.capacity, "overflow": region.overflow}
        other = [name for name in asked if asked[name] != has[name]]
        if other:
            logger().warning(
                "the region is used as it was made: %s; a change takes effect once %s",
                ", ".join(
                    f"{has[name]} and not FAST_LITELLM_SHM_{name.upper()}={getattr(settings, name)}"
                    for name in other
                ),
                "no process uses it"
                if settings.path is None
                else f"{settings.path} has been removed while no process uses it",
            )


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
            family=heads(),
        )
    return _native.Region.create(
        settings.name,
        keys=settings.keys,
        lease_chunks=settings.lease_chunks,
        workers=settings.workers,
        deployments=settings.deployments,
        overflow=settings.overflow,
        backing=None if settings.backing is None else list(settings.backing),
        directories=None if settings.directories is None else list(settings.directories),
        family=heads(),
        marks=MARKS,
    )


def _register_child() -> None:
    # No logging here: another thread of the parent may have held a handler's lock when it forked. A full
    # worker table shows itself with the first slot that is asked for. What becomes another program at
    # once would leave a row behind that lives as long as that.
    region = _native.default_region()
    if region is not None and not _is_starting_a_program() and not gunicorn.is_upgrading():
        region.register()


#: Functions of Python's that fork for that alone.
_STARTERS = {("subprocess", "_execute_child"), ("os", "_spawnvef")}


def _is_starting_a_program() -> bool:
    """Whether what has just forked is Python's own way to start another program."""
    # A server written in C, as uWSGI is, forks without a frame of Python's.
    frame = sys._getframe(1).f_back
    return (
        frame is not None and (frame.f_globals.get("__name__"), frame.f_code.co_name) in _STARTERS
    )
