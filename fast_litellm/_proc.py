"""What `/proc` lets this process know of others; as `src/region/vantage.rs` sees it."""

from __future__ import annotations

import os
import sys

_MISSING = "/proc is not mounted"
_FOREIGN = "/proc is of another pid namespace"
_SLOTS_COME_BACK = {
    _MISSING: "only after their time to live",
    _FOREIGN: "only when its parent has waited for it, or after their time to live",
}


def obstacle() -> str:
    """Why others cannot be told from each other; empty = they can."""
    if sys.platform != "linux":
        return ""
    try:
        itself = os.readlink("/proc/self")
        os.readlink("/proc/self/ns/pid")
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            pids = next((line.split()[1:] for line in file if line.startswith("NSpid:")), None)
    except OSError:
        return _MISSING
    own = str(os.getpid())
    return "" if itself == own and pids in (None, [own]) else _FOREIGN


def warning() -> str:
    """What a proof of death lacks, and what follows; empty = nothing."""
    found = obstacle()
    if not found:
        return ""
    return (
        f"{found}, so that slots of a killed worker come back {_SLOTS_COME_BACK[found]}: "
        "mount -t proc proc /proc"
    )
