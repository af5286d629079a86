"""What `/proc` says about other processes; nothing where it says nothing."""

from __future__ import annotations


def command_line(pid: int | str) -> bytes:
    """Return a process's arguments, each ended by a zero byte; empty = unknown."""
    return _read(f"/proc/{pid}/cmdline")


def parent_of(pid: int) -> int | None:
    """Return the process id of a process's parent; None = unknown, or in another pid namespace."""
    # The name in parentheses may hold anything, parentheses included.
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[1]) or None if len(fields) > 1 else None


def is_fork_of(pid: int | str, parent: int) -> bool:
    """Whether a process was forked by its parent and has not become another program since.

    The addresses at which the kernel put a program, which are others each time, tell: a command line may
    be changed by the process, and may be that of its parent because it was told so. Where those
    addresses are hidden, command lines have to do.
    """
    for read in (_addresses, command_line):
        own, others = read(pid), read(parent)
        if own and others:
            return own == others
    return False


def _addresses(pid: int | str) -> bytes:
    return _read(f"/proc/{pid}/auxv")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
