"""gunicorn: the master frees a dead worker's slots as soon as it has waited for it.

`import fast_litellm` in a preloaded application does this by itself. A configuration file that wants to
say so can name the hooks instead::

    from fast_litellm.integrations.gunicorn import child_exit, worker_exit
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any, ParamSpec

from fast_litellm import _native, _post_import
from fast_litellm._log import logger
from fast_litellm._processes import parent_of

_MODULE = "gunicorn.arbiter"
_MARK = "_fast_litellm_original"

_arbiter: Any = None

_P = ParamSpec("_P")


def careful(then: str) -> Callable[[Callable[_P, object]], Callable[_P, None]]:
    """Keep a hook's faults from gunicorn: they are counted, and logged with what happens `then`."""

    def guarded(hook: Callable[_P, object]) -> Callable[_P, None]:
        # gunicorn looks at the number of arguments.
        @functools.wraps(hook)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> None:
            try:
                hook(*args, **kwargs)
            except _native.FAULTS:
                logger().exception("a hook of fast_litellm's failed; %s", then)
                region = _native.default_region()
                if region is not None:
                    region.count_fallback()

        return call

    return guarded


def child_exit(server: object, worker: object) -> None:
    """Free what dead workers held; for `child_exit` in gunicorn's configuration."""
    _reap()


@careful("what this worker held is freed when it has ended")
def worker_exit(server: object, worker: object) -> None:
    """Give this worker's own slots back; for `worker_exit` in gunicorn's configuration."""
    region = _native.default_region()
    if region is not None:
        region.leave()


def arm(region: _native.Region) -> None:
    """Reap after each round of waiting, in whatever process runs gunicorn's master."""
    _post_import.when_imported(_MODULE, _patch)


def disarm() -> None:
    """Undo `arm`."""
    global _arbiter
    _post_import.forget(_MODULE)
    original = getattr(getattr(_arbiter, "reap_workers", None), _MARK, None)
    if original is not None:
        _arbiter.reap_workers = original
    _arbiter = None


def arbiter_above() -> int | None:
    """Return the pid of the gunicorn master that forked this process; None = it was none.

    A worker loads its application, and serves, inside the master's `spawn_worker`.
    """
    if _MODULE not in sys.modules:
        return None
    # All threads: the application may be loaded, or used first, in another one than the worker's.
    for innermost in sys._current_frames().values():
        for frame in _arbiters(innermost):
            pid = getattr(frame.f_locals.get("self"), "pid", None)
            if isinstance(pid, int) and pid != os.getpid():
                return pid
    return None


def is_upgrading() -> bool:
    """Whether this process was just forked to become the master of an upgrade, by an exec."""
    return any(frame.f_code.co_name == "reexec" for frame in _arbiters(sys._getframe()))


def _arbiters(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of gunicorn's master, innermost first."""
    while frame is not None:
        if frame.f_globals.get("__name__") == _MODULE:
            yield frame
        frame = frame.f_back


def upgraded_from(master: int) -> int | None:
    """Return the pid of the master that started `master` to take its place (SIGUSR2), while it lives."""
    # The variable is inherited by whatever else a master starts.
    parent = os.getppid() if master == os.getpid() else parent_of(master)
    return parent if os.environ.get("GUNICORN_PID") == str(parent) else None


def _patch(module: ModuleType) -> None:
    """Wrap `Arbiter.reap_workers`, which every version calls after SIGCHLD.

    A user's own `child_exit` stays as it is; a version without the method is left alone, and then any
    worker that meets a full key does the reaping.
    """
    global _arbiter
    arbiter = getattr(module, "Arbiter", None)
    original = getattr(arbiter, "reap_workers", None)
    if arbiter is None or not callable(original) or hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def reap_workers(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(self, *args, **kwargs)
        finally:
            _reap()

    setattr(reap_workers, _MARK, original)
    arbiter.reap_workers = reap_workers
    _arbiter = arbiter


@careful("workers that meet a full key will free what dead ones held")
def _reap() -> None:
    region = _native.default_region()
    reaped = region.reap() if region is not None else 0
    if reaped:
        logger().info("freed what %d dead worker(s) held", reaped)
