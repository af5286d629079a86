"""Counts instructions under callgrind; also for `bench.py`."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

#: How long a process may take under callgrind, seconds.
TIMEOUT_S = 900


def available() -> bool:
    """Whether valgrind is installed."""
    return all(map(shutil.which, ("valgrind", "callgrind_control")))


@contextlib.contextmanager
def counted() -> Iterator[Callable[[], None]]:
    """Counts instructions inside, if this process runs under callgrind; yields what writes them down."""

    def control(*arguments: str) -> None:
        command = ["callgrind_control", *arguments, str(os.getpid())]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    control("-i", "on")
    yield lambda: control("-d")
    control("-i", "off")


def totals(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> tuple[list[int], str]:
    """Run `command` under callgrind.

    Returns:
        Instructions of each part that it wrote down, in order, and its standard output.

    Raises:
        SystemExit: it failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "callgrind.out")
        valgrind = [
            "valgrind",
            "--tool=callgrind",
            "--instr-atstart=no",
            f"--callgrind-out-file={out}",
        ]
        done = subprocess.run(
            [*valgrind, *command],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env=None if environment is None else {**os.environ, **environment},
        )
        if done.returncode != 0:
            raise SystemExit(f"valgrind failed: {done.stderr[-2000:]}")
        dumps = sorted(Path(folder).glob("callgrind.out.*"), key=lambda path: int(path.suffix[1:]))
        return [_total(path.read_text(errors="replace")) for path in dumps], done.stdout


def _total(dump: str) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", dump, re.M)
    return int(found[1]) if found else 0
