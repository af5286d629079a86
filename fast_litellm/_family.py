"""Which processes started this one as a worker, and so share a region with it and its siblings."""

from __future__ import annotations

import os
import sys

from fast_litellm._processes import command_line, parent_of
from fast_litellm.integrations import gunicorn

_FORKSERVER = "multiprocessing.forkserver"


def heads() -> list[int]:
    """Return the process ids of those that started this process and its siblings, nearest first.

    Empty for a process that nobody started as a worker: what a shell, a supervisor or a container's init
    starts are programs of their own, which share nothing.
    """
    started_by = _multiprocessing() or _forked()
    before = gunicorn.upgraded_from(started_by[0] if started_by else os.getpid())
    return started_by if before is None else [*started_by, before]


def _multiprocessing() -> list[int]:
    """Who started this process with `multiprocessing`, as uvicorn, granian and LiteLLM's command do.

    A spawned process imports its main module before `parent_process()` says anything; its command
    line tells.
    """
    parent = os.getppid()
    if "--multiprocessing-fork" in sys.orig_argv:
        return [parent]
    if any(_FORKSERVER in argument for argument in sys.orig_argv):
        if _FORKSERVER.encode() not in command_line(parent):
            return [parent]
        above = parent_of(parent)
        return [parent] if above is None else [parent, above]
    module = sys.modules.get("multiprocessing.process")
    if module is not None and module.parent_process() is not None:
        return [parent]
    return []


def _forked() -> list[int]:
    """Who forked this process before it imported anything of ours: it runs the same command line."""
    arbiter = gunicorn.arbiter_above()
    if arbiter is not None:
        return [arbiter]
    own, parent = command_line("self"), os.getppid()
    return [parent] if own and own == command_line(parent) else []
