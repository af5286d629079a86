"""Looks at a running server: its regions through `fl-shm`, its memory through /proc."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .servers import Upgradable

MIB = 1 << 20
DEAD_FOR_S = 3.0
"""A dead worker's slots are free within a second; what is held for longer has leaked."""


@dataclass
class Look:
    """What was there at one instant.

    Attributes:
        at_s: seconds since the start.
        regions: how many regions bear the server's name, and ...
        region_bytes: ... how large the one is, and ...
        region_used: ... how much of it has been touched.
        old_leases: held for a second or more, or by somebody who holds one for so long.
        rss, pss: bytes of each process.
    """

    at_s: float
    masters: list[int]
    workers: list[int]
    regions: int = 0
    region_bytes: int = 0
    region_used: int = 0
    keys: int = 0
    rows: int = 0
    dead_rows: int = 0
    leases: int = 0
    old_leases: int = 0
    leases_of_dead: int = 0
    owners: dict[str, int] = field(default_factory=dict)
    rss: dict[int, int] = field(default_factory=dict)
    pss: dict[int, int] = field(default_factory=dict)

    def memory(self, pids: list[int]) -> tuple[int, int]:
        """RSS and PSS of processes, summed."""
        return (
            sum(self.rss.get(pid, 0) for pid in pids),
            sum(self.pss.get(pid, 0) for pid in pids),
        )


class Watch:
    """Looks again and again, and remembers who was dead and held something."""

    def __init__(self, server: Upgradable) -> None:
        self._server = server
        self._begun = time.monotonic()
        self._dead: dict[tuple[str, int, int], float] = {}
        self.leaked: dict[tuple[str, int, int], int] = {}
        self.looks: list[Look] = []

    def look(self) -> Look:
        """Look once; takes some tens of milliseconds, in any thread."""
        masters = self._server.masters()
        workers = self._server.all_workers()
        look = Look(time.monotonic() - self._begun, masters, workers)
        for pid in (*masters, *workers):
            with contextlib.suppress(OSError, ValueError):
                look.rss[pid], look.pss[pid] = _memory(pid)
        self._look_at_region(look)
        self.looks.append(look)
        return look

    def _look_at_region(self, look: Look) -> None:
        name = self._server.region_name
        listed = [each for each in _fl_shm("ls") or [] if each["name"] == name]
        look.regions = len(listed)
        if not listed:
            return
        look.region_bytes = sum(each["size"] for each in listed)
        for pid in look.masters:
            with contextlib.suppress(OSError):
                look.region_used = max(look.region_used, _touched(pid, name))
        # Of several, the one that most processes use.
        pid = max(listed, key=lambda each: len(each["pids"]))["pids"][0]
        found = _fl_shm("inspect", "--pid", str(pid), "header", "workers", "leases")
        if not found:
            return
        look.keys = found["header"]["keys"]
        look.rows = len(found["workers"])
        look.dead_rows = sum(each["alive"] == "dead" for each in found["workers"])
        now, dead = time.monotonic(), {}
        for lease in found["leases"]:
            look.leases += lease["held"]
            look.old_leases += lease["held"] if lease["oldest_s"] else 0
            look.owners[lease["owner"]] = look.owners.get(lease["owner"], 0) + lease["held"]
            if lease["owner"] == "dead":
                look.leases_of_dead += lease["held"]
                holder = (lease["key"], lease["row"], lease["pid"])
                dead[holder] = self._dead.get(holder, now)
                if now - dead[holder] > DEAD_FOR_S:
                    self.leaked[holder] = lease["held"]
        self._dead = dead


def _fl_shm(command: str, *arguments: str) -> Any:
    """What a command of `fl-shm` prints; `None` where there is nothing to see."""
    script = Path(sys.executable).with_name("fl-shm")
    program = [str(script)] if script.exists() else [sys.executable, "-m", "fast_litellm"]
    done = subprocess.run(
        [*program, command, "--json", *arguments],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        return None
    return json.loads(done.stdout)


def _memory(pid: int) -> tuple[int, int]:
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        fields[name] = int(rest.split()[0]) * 1024
    return fields["Rss"], fields["Pss"]


def _touched(pid: int, name: str) -> int:
    """Bytes of the region's file that are in memory, whoever touched them."""
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if name in str(path.readlink()):
                return path.stat().st_blocks * 512
    return 0
