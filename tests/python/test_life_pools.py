"""Proves that the processes of a pool share exact limits, however they are started."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.life import remains
from harness.life.client import Answer
from harness.life.judge import Limits, judge
from harness.life.servers import APPLICATION, app_environment, group
from lives import key
from support import WAIT_S, until

LIMITS = Limits(slots=2)
#: As many as the program has.
WORKERS = 3
PROGRAM = APPLICATION.with_name("pool.py")


class Program:
    """A running `pool.py`."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        for file in (APPLICATION, PROGRAM):
            shutil.copy(file, directory)
        (directory / "tmp").mkdir()
        self.directory = directory
        self.name = f"life-pool-{directory.name}"
        self._process = subprocess.Popen(
            [sys.executable, PROGRAM.name, *arguments],
            cwd=directory,
            env=app_environment(directory, self.name, LIMITS),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def do(self, *order: object) -> list[Answer]:
        """Have it obey."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answers = json.loads(self._process.stdout.readline())
        return [Answer(**{**each, "times": tuple(each.get("times", ()))}) for each in answers]

    def has_all_workers(self) -> None:
        """Wait until each of its workers has done something."""

        def all_answer() -> bool:
            return len({answer.pid for answer in self.do("many", key(), 15, 10)}) == WORKERS

        until(all_answer, "have all workers answer", WAIT_S)

    def end(self) -> None:
        """Have it end, and look at what is left."""
        used = remains.open_files(group(self._process.pid))
        self._process.communicate(timeout=WAIT_S)
        assert self._process.returncode == 0
        until(lambda: not group(self._process.pid), "end all its processes")
        assert remains.regions(self.name) == []
        assert {name for name in used if Path(name).exists()} == set()
        assert list((self.directory / "tmp").iterdir()) == []

    def kill(self) -> None:
        """End it and all its processes, whatever they do."""
        for pid in group(self._process.pid):
            with contextlib.suppress(OSError):
                # The tracker of resources ends with the others, and removes their semaphores.
                if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        self._process.communicate(timeout=WAIT_S)
        until(lambda: not group(self._process.pid), "end all its processes")


@pytest.mark.parametrize(
    ("kind", "method", "holds"),
    [
        ("pool", "spawn", ""),
        ("pool", "forkserver", ""),
        ("pool", "fork", ""),
        # All workers end with one of them: the region goes on with the program, which has it, too.
        ("executor", "spawn", "holds"),
    ],
)
def test_pools_share_exact_limits(tmp_path: Path, kind: str, method: str, holds: str) -> None:
    program = Program(tmp_path, kind, method, holds)
    try:
        name = key()
        program.has_all_workers()
        answers = program.do("many", name, 100, 10)
        first = {answer.pid for answer in answers}
        answers += program.do("lose", name)

        def another_answers() -> bool:
            answers.extend(program.do("many", name, 100, 10))
            return bool({answer.pid for answer in answers} - first - {0})

        until(another_answers, "replace a worker", WAIT_S)
        assert remains.leases(program.name) == []
        assert len(first) > 1
        assert judge(answers, LIMITS) == []
        assert len(remains.regions(program.name)) == 1
        program.end()
    finally:
        program.kill()


def test_a_program_that_does_not_have_the_region_loses_it_with_its_last_worker(
    tmp_path: Path,
) -> None:
    program = Program(tmp_path, "executor", "spawn", "")
    try:
        name = key()
        for _ in range(2):
            program.has_all_workers()
            assert judge(program.do("many", name, 100, 10), LIMITS) == []
            program.do("lose", name)
        program.end()
    finally:
        program.kill()
