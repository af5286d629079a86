"""Proves that workers that were not forked from a region's creator find their family's, and no other."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from layout_document import LayoutDocument
from support import WAIT_S, fresh_environment

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")

BURST = 20
ASKED = 15
POOL = 4

PROGRAM = f"""
import json, logging, multiprocessing, os, subprocess, sys
logging.basicConfig(format="%(message)s")

def begin(together):
    globals()["together"] = together

def work(_=None):
    # All workers of the pool at once, so that each takes a part, and they race for the region.
    if "together" in globals():
        together.wait(30)
    import fast_litellm
    from fast_litellm import _native
    limiter = fast_litellm.SimpleRateLimiter(1, burst={BURST})
    admitted = sum(limiter.is_allowed("key") for _ in range({ASKED}))
    region = _native.default_region()
    healthy = fast_litellm.health_check()["status"] == "ok" and region.fallback_count() == 0
    return [os.getpid(), region.origin, region.obstacles, admitted, healthy]

def pool(method):
    context = multiprocessing.get_context(method)
    with context.Pool({POOL}, begin, [context.Barrier({POOL})]) as pool:
        return pool.map(work, range({POOL}), chunksize=1)

"""


class Use(NamedTuple):
    """How a process came by its region, and how often it was admitted."""

    pid: int
    origin: str
    obstacles: list[str]
    admitted: int
    healthy: bool


class Program:
    """A program that prints what its processes report."""

    def __init__(self, folder: Path, main: str) -> None:
        self.path = folder / "program.py"
        text = (
            PROGRAM
            + 'if __name__ == "__main__":\n'
            + textwrap.indent(textwrap.dedent(main), "    ")
        )
        self.path.write_text(text)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", self.path, *arguments],
            cwd="/",
            env={**fresh_environment(), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> list[Use]:
        """What it reports; it must log nothing."""
        with self.start(*arguments, **environment) as process:
            out, err = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0, err
        assert err == ""
        return uses(out)


def uses(text: str) -> list[Use]:
    return [Use(*each) for each in json.loads(text)]


def shared(results: Sequence[Use]) -> None:
    """One of them made the region, the others joined it, and one limit holds for all."""
    assert sorted(use.origin for use in results) == ["created", *["joined"] * (len(results) - 1)]
    assert [use for use in results if use.obstacles or not use.healthy] == []
    assert sum(use.admitted for use in results) == BURST


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_pool_shares_what_one_of_its_workers_made(tmp_path: Path, method: str) -> None:
    results = Program(tmp_path, "print(json.dumps(pool(sys.argv[1])))").run(method)
    assert len({use.pid for use in results}) == POOL
    shared(results)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_pool_shares_what_its_parent_made(tmp_path: Path, method: str) -> None:
    program = Program(tmp_path, "print(json.dumps([work(), *pool(sys.argv[1])]))")
    parent, *workers = program.run(method)
    assert parent.origin == "created"
    shared([parent, *workers])


def test_a_spawned_worker_shares_what_it_imports_with_its_main_module(tmp_path: Path) -> None:
    """There `multiprocessing.parent_process()` is still None."""
    program = Program(tmp_path, "print(json.dumps(pool('spawn')))")
    program.path.write_text("import fast_litellm\n" + program.path.read_text())
    results = program.run()
    # The parent, which says nothing, has made it.
    assert {use.origin for use in results} == {"joined"}
    assert sum(use.admitted for use in results) == BURST


@pytest.mark.parametrize("backing", ["memfd", "file"])
@pytest.mark.parametrize("name", ["a/b", "x" * 100, "n\u00fc\u202e\x07", "a-0123456789abcdef"])
def test_a_region_of_any_name_is_found(tmp_path: Path, name: str, backing: str) -> None:
    program = Program(tmp_path, "print(json.dumps(pool('fork')))")
    shared(program.run(FAST_LITELLM_SHM_NAME=name, FAST_LITELLM_SHM_BACKING=backing))


def test_programs_under_one_parent_share_nothing(tmp_path: Path) -> None:
    program = Program(tmp_path, "print(json.dumps([work()]), flush=True)\nsys.stdin.readline()")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            process = stack.enter_context(program.start())
            stack.callback(process.kill)
            assert process.stdout is not None
            (use,) = uses(process.stdout.readline())
            assert (use.origin, use.obstacles, use.admitted) == ("created", [], ASKED)


def test_what_a_worker_runs_as_a_program_shares_nothing(tmp_path: Path) -> None:
    code = "import fast_litellm; from fast_litellm import _native; print(_native.default_region().origin)"
    program = Program(
        tmp_path,
        f"""
        mine = work()
        other = subprocess.run([sys.executable, "-c", {code!r}], capture_output=True, text=True)
        print(json.dumps([[0, other.stdout.strip(), [], 0, True]]))
        """,
    )
    assert program.run()[0].origin == "created"


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Use]]:
    """A process with a region, which starts a pool when it is told to."""
    program = Program(
        tmp_path,
        """
        print(json.dumps([work()]), flush=True)
        sys.stdin.readline()
        print(json.dumps(pool("spawn")), flush=True)
        """,
    )
    with program.start() as process:
        try:
            assert process.stdout is not None
            (use,) = uses(process.stdout.readline())
            yield process, use
        finally:
            process.kill()


def test_siblings_take_turns(parent: tuple[subprocess.Popen[str], Use]) -> None:
    """Who looks for the region waits for whoever is at it."""
    process, use = parent
    assert process.stdin is not None
    assert process.stdout is not None
    turn = os.open(f"/proc/{use.pid}/fd", os.O_RDONLY)
    fcntl.flock(turn, fcntl.LOCK_EX)
    process.stdin.write("go\n")
    process.stdin.flush()
    answers: list[str] = []
    reader = threading.Thread(target=lambda out=process.stdout: answers.append(out.readline()))
    reader.start()
    reader.join(1)
    assert answers == []
    os.close(turn)
    reader.join(WAIT_S)
    shared([use, *uses(answers[0])])


def test_a_region_of_another_version_is_not_joined(
    parent: tuple[subprocess.Popen[str], Use],
) -> None:
    """As while workers of two versions overlap: the new ones share among themselves, and say so."""
    process, use = parent
    layout = LayoutDocument.load()
    set_version(use.pid, layout.records["Header"].fields["version"].offset, layout.version[0] + 1)
    out, log = process.communicate("go\n", timeout=WAIT_S)
    results = uses(out)
    assert sorted(other.origin for other in results) == ["created", *["joined"] * (POOL - 1)]
    assert sum(other.admitted for other in results) == BURST
    for other in results:
        assert f"process {use.pid} has one, but region has layout" in other.obstacles[0]
        assert not other.healthy
    lines = log.splitlines()
    assert len(lines) == POOL
    for line in lines:
        assert line.startswith("limits are NOT shared between workers")
        assert "set FAST_LITELLM_SHM" in line


def set_version(pid: int, offset: int, major: int) -> None:
    (path,) = (
        link for link in Path(f"/proc/{pid}/fd").iterdir() if "memfd:fl-shm" in os.readlink(link)
    )
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack("<Q", major << 32))


def test_a_region_can_be_opened_by_its_owner_alone(
    parent: tuple[subprocess.Popen[str], Use],
) -> None:
    _, use = parent
    modes = [
        link.stat().st_mode & 0o7777
        for link in Path(f"/proc/{use.pid}/fd").iterdir()
        if "memfd:fl-shm" in os.readlink(link)
    ]
    assert modes == [0o600]


def test_a_named_region_that_was_removed_is_still_the_familys(tmp_path: Path) -> None:
    """As systemd does to what is in /dev/shm when a user has logged out."""
    path = Path(f"/dev/shm/fast-litellm-test-{os.getpid()}")
    program = Program(
        tmp_path,
        """
        mine = work()
        os.remove(os.environ["FAST_LITELLM_SHM"])
        print(json.dumps([mine, *pool("spawn")]))
        """,
    )
    with program.start(FAST_LITELLM_SHM=str(path)) as process:
        out, log = process.communicate(timeout=WAIT_S)
    assert not path.exists()
    results = uses(out)
    assert [use.origin for use in results] == ["created", *["joined"] * POOL]
    assert [use.healthy for use in results] == [True, *[False] * POOL]
    assert sum(use.admitted for use in results) == BURST
    for line in log.splitlines():
        assert line.startswith(f"{path} was removed while process {results[0].pid} uses it")
    assert len(log.splitlines()) == POOL
