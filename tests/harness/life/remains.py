"""What must be gone when a server or a worker is: slots, regions, processes, files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_SCRIPT = shutil.which("fl-shm", path=str(Path(sys.executable).parent))


def look(*arguments: object) -> Any:
    """What `fl-shm ... --json` says."""
    program = [_SCRIPT] if _SCRIPT else [sys.executable, "-P", "-m", "fast_litellm"]
    done = subprocess.run(
        [*program, *map(str, arguments), "--json"],
        cwd="/",
        env={k: v for k, v in os.environ.items() if not k.startswith(("FAST_LITELLM", "FL_SHM"))},
        capture_output=True,
        text=True,
        timeout=30,
    )
    # 1 = there is no region.
    if done.returncode not in (0, 1):
        raise AssertionError(f"fl-shm {arguments}: {done.returncode} {done.stderr}")
    return json.loads(done.stdout) if done.stdout else None


def regions(name: str) -> list[dict[str, Any]]:
    """The regions of a name that anybody uses."""
    return [region for region in look("ls") or [] if region["name"] == name and region["pids"]]


def leases(region: str, key: str = "") -> list[dict[str, Any]]:
    """Who holds what in the only region of a name, of one key or of all; not the idle connections."""
    found = (look("leases", "--region", region) or {}).get("leases", [])
    used = [each for each in found if each["held"] > each.get("idle", 0)]
    return [each for each in used if not key or each["key"].startswith((key, f"pool {key}"))]


def held(region: str, key: str) -> dict[int, int]:
    """The slots of a key that each process holds, by its pid."""
    held: dict[int, int] = {}
    for lease in leases(region, key):
        if lease["of"] == "key":
            held[lease["pid"]] = held.get(lease["pid"], 0) + lease["held"]
    return held


def dead_leases(region: str) -> list[dict[str, Any]]:
    """The slots of owners that are dead."""
    return [lease for lease in leases(region) if lease["owner"] == "dead"]


def open_files(pids: Iterable[int]) -> set[str]:
    """The files that processes hold open or share by a mapping, where temporary ones are made."""
    places = ("/dev/shm/", "/run/", "/tmp/", "/var/tmp/")
    found = set()
    for pid in pids:
        try:
            names = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
            maps = Path(f"/proc/{pid}/maps").read_text()
        except OSError:  # gone since it was listed
            continue
        columns = [line.split(maxsplit=5) for line in maps.splitlines()]
        names += [each[5] for each in columns if len(each) == 6 and "s" in each[1]]
        found |= {name for name in names if name.startswith(places)}
    # A directory may be looked at just now.
    return {name for name in found if not name.endswith(" (deleted)") and not Path(name).is_dir()}


def files_below(directory: Path) -> set[str]:
    """All files and directories below one."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}
