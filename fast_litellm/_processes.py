"""What `/proc` says about other processes; nothing where it says nothing."""

from __future__ import annotations

import os
import sys


def command_line(pid: int | str) -> bytes:
    """Return a process's arguments, each ended by a zero byte; empty = unknown."""
    return _read(f"/proc/{pid}/cmdline")


def parent_of(pid: int | str) -> int | None:
    """Return the process id of a process's parent; None = unknown, or in another pid namespace."""
    return _numbers(pid)[_PARENT] or None


def is_fork_of(pid: int | str, parent: int) -> bool:
    """Whether a process was forked by its parent and has not become another program since.

    The kernel notes whether it has become one. The addresses at which it put a program tell the parent
    from who adopts an orphan. Where those are hidden, as another user's are, the session or the command
    line has to do: a worker stays in its parent's session, a daemon does not, and either may change its
    command line.
    """
    forked = _is_forked(pid)
    if forked is False:
        return False
    own, others = _addresses(pid), _addresses(parent)
    if own and others:
        return own == others
    # The first process adopts orphans of its session, too.
    if forked and parent != _INIT and _numbers(pid)[_SESSION] == _numbers(parent)[_SESSION]:
        return True
    line = command_line(parent)
    return bool(line) and line in (command_line(pid), _own_command_line() if pid == "self" else b"")


def _own_command_line() -> bytes:
    """That with which this process, or who forked it, was started, whatever is shown of it now."""
    return b"".join(os.fsencode(argument) + b"\0" for argument in sys.orig_argv)


_INIT = 1
#: Where these stand among the numbers of `stat`.
_PARENT, _SESSION, _FLAGS = 0, 2, 5
#: The kernel's PF_FORKNOEXEC.
_FORKED = 0x40


def _is_forked(pid: int | str) -> bool | None:
    """Whether a process is the program that forked it still; None = unknown."""
    # A kernel that is not Linux itself, as gVisor's, shows no flags, and does not have this file.
    if not os.path.exists(f"/proc/{pid}/personality"):
        return None
    return bool(_numbers(pid)[_FLAGS] & _FORKED)


def _numbers(pid: int | str) -> list[int]:
    """The parent and what follows it in `stat`, as far as it is used here; zeros = unknown."""
    # The name in parentheses may hold anything, parentheses included.
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[1 : _FLAGS + 2]
    return [int(field) for field in fields] if len(fields) > _FLAGS else [0] * (_FLAGS + 1)


def _addresses(pid: int | str) -> bytes:
    return _read(f"/proc/{pid}/auxv")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
