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

    def define(self, text: str) -> None:
        """Functions that its processes need besides."""
        self.path.write_text(textwrap.dedent(text) + self.path.read_text())

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


def test_a_program_that_the_same_parent_started_is_no_sibling(tmp_path: Path) -> None:
    """A launcher's pool shares nothing with a server that the launcher has started."""
    program = Program(
        tmp_path,
        """
        if len(sys.argv) > 1:
            print(json.dumps([work()]), flush=True)
            sys.stdin.readline()
            sys.exit()
        server = [sys.executable, "-P", __file__, "server"]
        with subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            (its,) = json.loads(other.stdout.readline())
            print(json.dumps([its, *pool("spawn")]))
            other.stdin.close()
        """,
    )
    server, *workers = program.run()
    assert (server.origin, server.admitted) == ("created", ASKED)
    shared(workers)


def test_a_program_with_the_command_line_of_its_parent_shares_nothing(tmp_path: Path) -> None:
    """As a program that starts itself again does, and whatever comes from a standard input."""
    program = Program(
        tmp_path,
        """
        mine = work()
        if "CHILD" in os.environ:
            print(json.dumps([mine]))
        else:
            again = subprocess.check_output(sys.orig_argv, env={**os.environ, "CHILD": "1"}, text=True)
            print(json.dumps([mine, *json.loads(again)]))
        """,
    )
    results = program.run()
    assert [(use.origin, use.admitted) for use in results] == [("created", ASKED)] * 2


def test_programs_at_the_addresses_of_their_parent_share_nothing(tmp_path: Path) -> None:
    """As under a debugger, or where the kernel is told not to choose them at random."""
    program = Program(
        tmp_path,
        """
        import ctypes
        role = os.environ.get("ROLE")

        def become(role):
            # Of one length, so that all is at the same place.
            return {**os.environ, "ROLE": role}

        if role is None:
            fixed = ctypes.CDLL(None).personality(0x40000) != -1  # ADDR_NO_RANDOMIZE
            if fixed:
                os.execve(sys.executable, sys.orig_argv, become("starts"))
            print("null")
        elif role == "starts":
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            start = lambda: subprocess.Popen(sys.orig_argv, env=become("serves"), **pipes)
            with start() as one, start() as other:
                print(json.dumps([json.loads(each.stdout.readline()) for each in (one, other)]))
                for each in (one, other):
                    each.stdin.close()
        else:
            print(json.dumps(work()), flush=True)
            sys.stdin.readline()
        """,
    )
    with program.start() as process:
        out, log = process.communicate(timeout=WAIT_S)
    assert log == ""
    if json.loads(out) is None:
        pytest.skip("addresses cannot be fixed here")
    assert [(use.origin, use.admitted) for use in uses(out)] == [("created", ASKED)] * 2


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_an_orphan_shares_nothing_with_the_children_of_who_adopts_it(
    tmp_path: Path, method: str
) -> None:
    program = Program(
        tmp_path,
        """
        import ctypes
        method, role, path = sys.argv[1:]
        if role == "adopt":
            assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
            server, starter = (
                subprocess.Popen([*sys.orig_argv[:-2], role, path], stdin=subprocess.PIPE)
                for role in ("serve", "start")
            )
            starter.wait()
            until(lambda: os.path.exists(path))
            print(open(path).read())
            server.communicate()
        elif role == "serve":
            work()
            sys.stdin.readline()
        else:
            context = multiprocessing.get_context(method)
            begun = context.Event()
            context.Process(target=late, args=(begun, os.getpid(), path)).start()
            begun.wait()
            os._exit(0)
        """,
    )
    program.define(
        """
        import time

        def until(condition):
            while not condition():
                time.sleep(0.01)

        def late(begun, starter, path):
            begun.set()
            until(lambda: os.getppid() != starter)
            with open(path + "~", "w") as file:
                json.dump([work()], file)
            os.rename(path + "~", path)
        """
    )
    with program.start(method, "adopt", str(tmp_path / "answer")) as process:
        out, log = process.communicate(timeout=WAIT_S)
    (orphan,) = uses(out)
    assert (orphan.origin, orphan.admitted, orphan.healthy) == ("created", ASKED, False)
    assert log.startswith("limits are NOT shared between workers")
    assert "which started it" in log


def test_capacities_that_are_rounded_are_no_others(tmp_path: Path) -> None:
    program = Program(tmp_path, "print(json.dumps(pool('spawn')))")
    sizes = {"KEYS": "10", "LEASE_CHUNKS": "65", "WORKERS": "9", "DEPLOYMENTS": "65"}
    environment = {f"FAST_LITELLM_SHM_{name}": size for name, size in sizes.items()}
    with program.start(**environment) as process:
        out, log = process.communicate(timeout=WAIT_S)
    assert log == ""
    shared(uses(out))


def test_a_change_of_a_named_regions_capacity_is_told_until_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "region"
    program = Program(tmp_path, "print(json.dumps([work()]))")

    def log(keys: int) -> str:
        settings = {"SHM": str(path), "SHM_FORCE": "1", "SHM_KEYS": str(keys)}
        named = {f"FAST_LITELLM_{name}": value for name, value in settings.items()}
        with program.start(**named) as process:
            _, log = process.communicate(timeout=WAIT_S)
        return log

    assert log(1_000) == ""
    for _ in range(2):
        # That nobody has used it meanwhile changes nothing.
        assert "SHM_KEYS=100000; a change takes effect once" in (told := log(100_000))
        assert f"{path} has been removed while no process uses it" in told
    path.unlink()
    assert log(100_000) == ""


@pytest.mark.parametrize("name", ["team/a", "n" * 60, "a\tb", "x (deleted)"])
def test_a_region_of_any_name_is_shared(tmp_path: Path, name: str) -> None:
    program = Program(tmp_path, "print(json.dumps(pool('spawn')))")
    with program.start(FAST_LITELLM_SHM_NAME=name) as process:
        out, log = process.communicate(timeout=WAIT_S)
    assert log == ""
    shared(uses(out))


def test_memory_that_can_only_be_inherited_is_told(tmp_path: Path) -> None:
    program = Program(tmp_path, "print(json.dumps(pool('spawn')))")
    with program.start(FAST_LITELLM_SHM_BACKING="anonymous") as process:
        out, log = process.communicate(timeout=WAIT_S)
    assert [use.healthy for use in uses(out)] == [False] * POOL
    lines = log.splitlines()
    assert len(lines) == POOL
    for line in lines:
        assert line.startswith("limits are NOT shared between workers")
        assert "memory of the kind anonymous can only be inherited" in line


def test_who_started_workers_shares_what_they_made(tmp_path: Path) -> None:
    program = Program(
        tmp_path,
        """
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            print(json.dumps([pool.apply(work), work()]))
        """,
    )
    worker, parent = program.run()
    assert worker.origin == "created"
    shared([worker, parent])


def test_threads_that_need_a_region_at_once_make_one(tmp_path: Path) -> None:
    """The import makes it as a rule; where the acceleration is switched off, first uses do."""
    program = Program(
        tmp_path,
        """
        import threading, time
        from fast_litellm import _region

        make, made = _region._make, []

        def slowly(settings):
            made.append(make(settings))
            time.sleep(0.2)
            return made[-1]

        _region._make = slowly
        admitted = []
        threads = [threading.Thread(target=lambda: admitted.append(work()[3])) for _ in range(4)]
        for thread in threads:
            thread.start()
        # A child is no part of what its parent's threads are at.
        while not made:
            time.sleep(0.01)
        child = os.fork()
        if child == 0:
            os._exit(work()[1] != "joined")
        _, status = os.waitpid(child, 0)
        for thread in threads:
            thread.join()
        print(json.dumps([len(made), sum(admitted) > 0, status]))
        """,
    )
    with program.start(FAST_LITELLM_ENABLED="false") as process:
        out, log = process.communicate(timeout=WAIT_S)
    assert (json.loads(out), log) == ([1, True, 0], "")


def test_programs_that_are_started_take_no_row_of_the_workers(tmp_path: Path) -> None:
    program = Program(
        tmp_path,
        """
        import fast_litellm, signal, time
        from fast_litellm import _native

        region = _native.default_region()
        # Python forks for each of these itself, and tells those that want to know.
        sleep = ["sleep", "60"]
        programs = [
            subprocess.Popen(sleep, preexec_fn=os.setsid).pid,
            os.spawnvp(os.P_NOWAIT, "sleep", sleep),
        ]
        for pid in programs:
            while open(f"/proc/{pid}/comm").read() != "sleep\\n":
                time.sleep(0.01)
        child = os.fork()
        if child == 0:
            signal.pause()
        rows = lambda: {row["pid"] for row in json.loads(region.inspect())["workers"]}
        while child not in rows():
            time.sleep(0.01)
        print(json.dumps([pid in rows() for pid in programs]))
        for pid in [*programs, child]:
            os.kill(pid, signal.SIGKILL)
        """,
    )
    with program.start() as process:
        out, log = process.communicate(timeout=WAIT_S)
    assert (json.loads(out), log) == ([False, False], "")


def test_pools_of_workers_belong_to_the_family(tmp_path: Path) -> None:
    """Though neither the workers nor who started them have used it before."""
    program = Program(
        tmp_path,
        """
        context = multiprocessing.get_context("spawn")
        together = context.Barrier(2)
        answers = context.SimpleQueue()
        both = [context.Process(target=worker, args=(together, answers)) for _ in range(2)]
        for each in both:
            each.start()
        print(json.dumps([answers.get() for _ in range(4)]))
        for each in both:
            each.join()
        """,
    )
    program.define(
        """
        def worker(together, answers):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                answers.put(pool.apply(work))
                together.wait(30)
                answers.put(work())
                together.wait(30)
        """
    )
    shared(program.run())


@pytest.mark.parametrize("then", ["a worker", "its starter"])
def test_a_worker_that_outlives_its_fork_server_is_found(tmp_path: Path, then: str) -> None:
    """It is nobody's descendant any more."""
    program = Program(
        tmp_path,
        """
        from multiprocessing.forkserver import _forkserver

        context = multiprocessing.get_context("forkserver")
        answers, over = context.SimpleQueue(), context.Event()

        def start():
            context.Process(target=stay, args=(answers, over)).start()
            return answers.get()

        first = start()
        server = _forkserver._forkserver_pid
        os.kill(server, 9)
        os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
        print(json.dumps([first, start() if sys.argv[1] == "a worker" else work()]))
        over.set()
        """,
    )
    program.define(
        """
        def stay(answers, over):
            answers.put(work())
            over.wait(30)
        """
    )
    shared(program.run(then))


@pytest.mark.parametrize("remade", [False, True])
def test_a_removed_region_is_found_under_another_spelling_and_beside_a_new_one(
    tmp_path: Path, *, remade: bool
) -> None:
    path = Path(f"/dev/shm/fast-litellm-test-{os.getpid()}")
    (tmp_path / "link").symlink_to("/dev/shm")
    program = Program(
        tmp_path,
        """
        mine = work()
        if len(sys.argv) > 1:
            print(json.dumps([mine]))
            sys.exit()
        path = os.environ["FAST_LITELLM_SHM"]
        os.remove(path)
        if "REMADE" in os.environ:
            subprocess.check_output([*sys.orig_argv, "other"])
        print(json.dumps([mine, *pool("spawn")]))
        """,
    )
    spelled = tmp_path / "link" / path.name
    environment = {"FAST_LITELLM_SHM": str(spelled), **({"REMADE": "1"} if remade else {})}
    try:
        with program.start(**environment) as process:
            out, log = process.communicate(timeout=WAIT_S)
        assert path.exists() == remade
    finally:
        path.unlink(missing_ok=True)
    results = uses(out)
    assert [use.origin for use in results] == ["created", *["joined"] * POOL]
    assert sum(use.admitted for use in results) == BURST
    assert len(log.splitlines()) == POOL


def test_workers_that_replace_a_stale_file_at_once_say_so_once(tmp_path: Path) -> None:
    path = Path(f"/dev/shm/fast-litellm-test-{os.getpid()}")
    program = Program(tmp_path, "print(json.dumps(pool('spawn')))")
    program.path.write_text(program.path.read_text().replace(f"({POOL}", "(16"))
    try:
        with program.start(FAST_LITELLM_SHM=str(path)) as process:
            process.communicate(timeout=WAIT_S)
        offset = LayoutDocument.load().records["Header"].fields["pid_namespace"].offset
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(struct.pack("<Q", 12345))
        with program.start(FAST_LITELLM_SHM=str(path)) as process:
            out, log = process.communicate(timeout=WAIT_S)
    finally:
        path.unlink(missing_ok=True)
    results = uses(out)
    # Who has removed it may be overtaken by another one in making it.
    assert sum(use.origin == "replaced" for use in results) == 1
    assert {use.origin for use in results} <= {"replaced", "created", "opened"}
    assert sum(use.admitted for use in results) == BURST
    assert [use for use in results if not use.healthy] == []
    assert "has been made anew" in log
    assert len(log.splitlines()) == 1
