"""Which processes started this one as a worker, and so share a region with it and its siblings."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from fast_litellm._processes import command_line, is_fork_of, parent_of
from fast_litellm.integrations import gunicorn

_SPAWNED = "--multiprocessing-fork"
_FORKSERVER = "multiprocessing.forkserver"
_SPAWNED_MARK, _FORKSERVER_MARK = f"\0{_SPAWNED}\0".encode(), _FORKSERVER.encode()
#: What is in the command lines of the workers and the fork servers that `multiprocessing` starts.
MARKS = (_SPAWNED_MARK, _FORKSERVER_MARK)


def heads() -> list[int]:
    """Return the process ids of those that started this process and its siblings, nearest first.

    Empty for a process that nobody started as a worker: what a shell, a supervisor or a container's init
    starts are programs of their own, which share nothing. What started it may be a worker itself.
    """
    found = _multiprocessing() or _forked()
    if found:
        found = list(dict.fromkeys([*found, *_above(found[-1])]))
    before = gunicorn.upgraded_from(found[0] if found else os.getpid())
    return found if before is None or before in found else [*found, before]


def _multiprocessing() -> list[int]:
    """Who started this process with `multiprocessing`, as uvicorn, granian and LiteLLM's command do.

    A spawned process imports its main module before `parent_process()` says anything; its command
    line tells.
    """
    parent = os.getppid()
    module = sys.modules.get("multiprocessing.process")
    starter = None if module is None else module.parent_process()
    if any(_FORKSERVER in argument for argument in sys.orig_argv):
        # The fork server's child, or its: not one that the fork server has left to somebody else.
        if _FORKSERVER_MARK in command_line(parent) and is_fork_of("self", parent):
            above = parent_of(parent)
            return [parent] if above is None else [parent, above]
        return [parent] if starter is None else [int(starter.pid)]
    if starter is not None:
        # Who has adopted an orphan has not started it.
        return [parent] if is_fork_of("self", parent) else [int(starter.pid)]
    return [parent] if _SPAWNED in sys.orig_argv else []


def _forked() -> list[int]:
    """Who forked this process before it imported anything of ours."""
    arbiter = gunicorn.arbiter_above()
    if arbiter is not None:
        return [arbiter]
    # As /proc numbers it, which may be of another pid namespace: the region then says what is in its way.
    parent = parent_of("self")
    return [os.getppid()] if parent is not None and is_fork_of("self", parent) else []


def _above(pid: int) -> Iterator[int]:
    """Who started that process as a worker, who started that one, and so on."""
    while (parent := parent_of(pid)) is not None:
        spawned = _SPAWNED_MARK in command_line(pid)
        if not spawned and not is_fork_of(pid, parent):
            return
        yield parent
        pid = parent
