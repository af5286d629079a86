"""What `/proc` says about other processes; nothing where it says nothing."""

from __future__ import annotations


def command_line(pid: int | str) -> bytes:
    """Return a process's arguments, each ended by a zero byte; empty = unknown."""
    return _read(f"/proc/{pid}/cmdline")


def parent_of(pid: int) -> int | None:
    """Return the process id of a process's parent; None = unknown."""
    # The name in parentheses may hold anything, parentheses included.
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
