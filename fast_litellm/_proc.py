"""Whether `/proc` lets this process prove that another one is dead; as `src/region/vantage.rs` sees it."""

from __future__ import annotations

import os
import sys


def obstacle() -> str:
    """What is wrong with `/proc`, and what slots of dead workers wait for because of it; empty = nothing."""
    if sys.platform != "linux":
        return ""
    try:
        itself = os.readlink("/proc/self")
        os.readlink("/proc/self/ns/pid")
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            pids = next((line.split()[1:] for line in file if line.startswith("NSpid:")), None)
    except OSError:
        return (
            "/proc is not mounted, so that nobody's death can be proven: slots of a killed worker come back "
            "only after their time to live"
        )
    own = str(os.getpid())
    if itself == own and pids in (None, [own]):
        return ""
    return (
        "/proc is of another pid namespace: slots of a killed worker come back only when its parent has "
        "waited for it, or after their time to live"
    )
