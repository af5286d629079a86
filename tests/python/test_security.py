"""Proves who can reach a region, what is refused as one, and what is done at the word of one: nothing."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from confined import Place
from confined import as_user as as_other
from fast_litellm._rust import LimiterScripts, Region, RegionError, SimpleRateLimiter
from fl_shm import command
from layout_document import LayoutDocument
from region_reader import RegionReader
from secret_traces import traces
from support import Forked, forked, fresh_environment, run_python, state_of, until

SOURCES = Path(__file__).parents[2]
LAYOUT = LayoutDocument.load()
SMALL = {"keys": 1024, "lease_chunks": 64, "workers": 8, "deployments": 64}
OWNER, INTRUDER = 12345, 65534

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be other users")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory on tmpfs that every user can write to, as /dev/shm itself."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("there is no tmpfs at /dev/shm")
    made = Path("/dev/shm") / f"fast-litellm-security-{os.getpid()}"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    made.chmod(0o1777)
    yield made
    shutil.rmtree(made)


@contextlib.contextmanager
def owned(path: Path | None = None) -> Iterator[int]:
    """The pid of a process of its own user that has a region, in a file if there is a path."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            become(OWNER)
            kept = Region.create("owned", **SMALL) if path is None else Region.open(path, **SMALL)
            os.write(done, b"+" if kept.register() else b"-")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(ready, 1) == b"+"
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(done)


def become(user: int) -> None:
    """Be that user from now on; can be looked into by the same user, as a process that was started so."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    import ctypes

    prctl_set_dumpable = 4
    ctypes.CDLL(None).prctl(prctl_set_dumpable, 1, 0, 0, 0)


def as_user(user: int, work: Callable[[], str]) -> str:
    """What a process of that user returns."""

    def child() -> str:
        become(user)
        return work()

    return forked(child)


def fl_shm_as(user: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    where = Place(user=as_other(user))
    return subprocess.run(
        where.command(*command(*arguments)),
        env=fresh_environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )


def descriptors(pid: int, name: str) -> list[Path]:
    """Where a process has regions of that name open; it may have inherited others."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if name in os.readlink(link):
                found.append(link)
    return found


# Who can reach it


@root_only
def test_an_inherited_region_is_its_owners_only() -> None:
    with owned() as pid:
        (link,) = descriptors(pid, "fl-shm:owned")
        status = link.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, OWNER)

        def steal() -> str:
            with pytest.raises(PermissionError):
                list(Path(f"/proc/{pid}/fd").iterdir())
            for flags in (os.O_RDONLY, os.O_RDWR):
                with pytest.raises(PermissionError):
                    os.open(link, flags)
            with pytest.raises(PermissionError):
                os.open(f"/proc/{pid}/mem", os.O_RDONLY)
            with pytest.raises(RegionError):
                Region.open(link, **SMALL)
            return "refused"

        assert as_user(INTRUDER, steal) == "refused"
        # The owner's own can: what is refused is not refused for another reason.
        assert as_user(OWNER, lambda: str(os.stat(os.open(link, os.O_RDWR)).st_uid)) == str(OWNER)


@root_only
def test_a_named_region_is_its_owners_only(folder: Path) -> None:
    path = folder / "region"
    with owned(path) as pid:
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, OWNER)
        (link,) = descriptors(pid, str(path))

        def steal() -> str:
            for place in (path, link):
                for flags in (os.O_RDONLY, os.O_RDWR):
                    with pytest.raises(PermissionError):
                        os.open(place, flags)
            for attempt in (path.unlink, lambda: path.rename(folder / "mine")):
                with pytest.raises(PermissionError):
                    attempt()
            with pytest.raises(RegionError) as raised:
                Region.open(path, **SMALL)
            return str(raised.value)

        before = path.read_bytes()
        assert str(path) in as_user(INTRUDER, steal)
        assert path.read_bytes() == before


@root_only
def test_another_user_finds_nothing_with_fl_shm(folder: Path) -> None:
    if obstacle := Place(user=as_other(INTRUDER)).obstacle():
        pytest.skip(f"another user cannot run it: {obstacle}")
    path = folder / "region"
    with owned() as inherited, owned(path) as named:
        mine = json.loads(fl_shm_as(OWNER, "ls", "--json").stdout)
        assert {(each["name"], *each["pids"]) for each in mine} >= {
            ("owned", inherited),
            (str(path), named),
        }
        theirs = fl_shm_as(INTRUDER, "ls", "--json")
        assert "owned" not in theirs.stdout
        assert str(folder) not in theirs.stdout
        for arguments in (
            ("inspect", "--pid", inherited),
            ("inspect", "--pid", named),
            ("inspect", "--file", path),
            ("dump", folder / "dump", "--file", path),
            ("reap", "--file", path, "--yes"),
        ):
            done = fl_shm_as(INTRUDER, *arguments)
            assert (done.returncode != 0, done.stdout) == (True, ""), arguments


# What is refused as one


def worker_with(path: Path) -> tuple[str, str]:
    """What a worker that is told to use that path says of itself, and logs."""
    done = run_python(
        """
        import fast_litellm
        status = fast_litellm.get_patch_status()
        print(status["applied"], fast_litellm.health_check()["status"], status["reason"])
        """,
        env={"FAST_LITELLM_SHM": str(path), "FAST_LITELLM_SHM_KEYS": "1024"},
    )
    return done.stdout, done.stderr


def refused(path: Path, *patterns: str) -> None:
    """A worker refuses the path, names it with the remedy, leaves LiteLLM alone, and touches nothing."""
    before = snapshot(path)
    said, logged = worker_with(path)
    assert said.startswith("False degraded no shared region: "), said
    assert "limits are NOT shared between workers: " in logged
    for pattern in (re.escape(str(path)), *patterns):
        assert re.search(pattern, said), f"no {pattern!r} in {said!r}"
        assert re.search(pattern, logged), f"no {pattern!r} in {logged!r}"
    assert snapshot(path) == before


def snapshot(path: Path) -> list[tuple[object, ...]]:
    """All that is below the path's directory, links not followed."""
    found: list[tuple[object, ...]] = []
    for each in sorted(path.parent.rglob("*")):
        status = each.lstat()
        content = each.read_bytes() if stat.S_ISREG(status.st_mode) else None
        found.append((each, status.st_ino, status.st_mode, status.st_uid, status.st_size, content))
    return found


def a_region(path: Path) -> Path:
    """A region in a file that nobody uses."""
    Region.open(path, **SMALL)
    return path


def somebody_elses(path: Path) -> None:
    os.chown(a_region(path), INTRUDER, INTRUDER)


def a_symlink(path: Path) -> None:
    path.symlink_to(a_region(path.with_name("target")))


def a_dangling_symlink(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def a_hard_link(path: Path) -> None:
    """To a file that happens to be private."""
    secret = path.with_name("secret")
    secret.write_text("the password is 1234\n" * 500)
    secret.chmod(0o600)
    os.link(secret, path)


def a_device(path: Path) -> None:
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))


def a_socket(path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


REMEDY = "choose another path|remove it|chmod 0?600|set FAST_LITELLM_SHM"


@pytest.mark.parametrize(
    ("make", "patterns"),
    [
        pytest.param(somebody_elses, ["65534"], marks=root_only),
        (a_symlink, ["symlink|symbolic link"]),
        (a_dangling_symlink, ["symlink|symbolic link"]),
        (a_hard_link, ["magic"]),
        pytest.param(a_device, ["not a regular file"], marks=root_only),
        (a_socket, ["not a regular file|No such device"]),
        (lambda path: os.mkfifo(path, 0o600), ["not a regular file"]),
        (lambda path: path.mkdir(), ["directory|not a regular file"]),
        (lambda path: a_region(path).chmod(0o666), ["0666"]),
        (lambda path: a_region(path).chmod(0o602), ["0602"]),
        (lambda path: a_region(path).chmod(0o640), ["0640"]),
        (lambda path: a_region(path).chmod(0o604), ["0604"]),
    ],
    ids=[
        *("another-users", "symlink", "dangling-symlink", "hard-link", "device", "socket", "fifo"),
        *("directory", "writable-by-all", "writable-by-others", "readable-by-group"),
        "readable-by-others",
    ],
)
def test_what_is_no_private_region_is_refused(
    make: Callable[[Path], None], patterns: list[str], folder: Path
) -> None:
    path = folder / "region"
    make(path)
    refused(path, *patterns, REMEDY)


def test_what_is_swapped_between_check_and_use_is_never_used(folder: Path) -> None:
    """Somebody who may write to the directory changes what is at the path all the time."""
    path, victim = folder / "region", folder / "victim"
    victim.write_bytes(b"not yours" * 5000)
    victim.chmod(0o600)
    before = victim.read_bytes()
    mine = a_region(folder / "mine")

    def opened() -> set[int]:
        """Files below the directory, or removed from there."""
        return {link.stat().st_ino for link in descriptors(os.getpid(), str(folder))}

    # Those of other tests may linger.
    identity, others = mine.stat().st_ino, opened()

    def link(target: Path) -> None:
        os.link(target, folder / "next")

    makers: list[Callable[[], None]] = [
        lambda: link(mine),
        lambda: link(victim),
        lambda: (folder / "next").symlink_to(victim),
        lambda: (folder / "next").symlink_to(mine),
        lambda: os.mkfifo(folder / "next", 0o600),
        lambda: (folder / "next").symlink_to("/dev/zero"),
    ]

    def swap() -> None:
        for make in itertools.cycle(makers):
            make()
            (folder / "next").replace(path)
            # Two names of one file: rename leaves both.
            (folder / "next").unlink(missing_ok=True)

    link(mine)
    (folder / "next").replace(path)
    swapper = Forked(swap)
    used = refusals = 0
    end = time.monotonic() + 20
    try:
        while (used < 100 or refusals < 500) and time.monotonic() < end:
            try:
                region = Region.open(path, **SMALL)
            except RegionError:
                refusals += 1
                continue
            used += 1
            SimpleRateLimiter(60, region=region).check("k")
            assert opened() - others <= {identity}
            region.leave()
    finally:
        swapper.kill()
    assert used >= 100
    assert refusals >= 500
    assert victim.read_bytes() == before
    assert {each.name for each in folder.iterdir()} <= {"region", "victim", "mine", "next"}


IMPOSTOR = """
    import multiprocessing
    import os
    import sys

    def worker(number):
        import fast_litellm
        from fast_litellm import _native

        limiter = fast_litellm.SimpleRateLimiter(1, burst=20)
        return sum(limiter.is_allowed("k") for _ in range(10)), _native.default_region().origin

    if __name__ == "__main__":
        memory = os.memfd_create("fl-shm:fast_litellm", os.MFD_ALLOW_SEALING)
        os.write(memory, b"\\xff" * 8192)
        os.fchmod(memory, int(sys.argv[2], 8))
        os.fchown(memory, int(sys.argv[1]), -1)
        before = os.pread(memory, 9000, 0)
        with multiprocessing.get_context("spawn").Pool(3) as pool:
            told = pool.map(worker, range(6), chunksize=1)
        assert os.pread(memory, 9000, 0) == before
        origins = {origin for _, origin in told}
        print(sum(admitted for admitted, _ in told), origins <= {"created", "joined"})
"""


@pytest.mark.parametrize(
    ("user", "mode", "reason"),
    [
        pytest.param(INTRUDER, "600", "belongs to user", marks=root_only),
        (os.geteuid(), "666", "has mode 0666"),
        (os.geteuid(), "600", "has magic 0xffffffffffffffff"),
    ],
    ids=["another-users", "open-to-all", "no-region"],
)
def test_a_family_joins_no_impostor(user: int, mode: str, reason: str, tmp_path: Path) -> None:
    """What a parent has open under the name of its region; its workers share without it, and say so."""
    script = tmp_path / "impostor.py"
    script.write_text(textwrap.dedent(IMPOSTOR))
    done = subprocess.run(
        [sys.executable, script, str(user), mode],
        env=fresh_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "20 True\n", done.stderr
    assert "limits are NOT shared between workers" in done.stderr
    assert reason in done.stderr


# What is done at its word


def plant(path: Path, rows: dict[int, int]) -> None:
    """Write workers into a region as whoever owns it can: a pid for each row, started at no time."""
    with RegionReader.map(path, LAYOUT) as reader:
        base = reader.sections["WorkerRow"].offset
        record = LAYOUT.records["WorkerRow"]
        bits = LAYOUT.words["ClaimWord"]
        live = next(n for n, name in LAYOUT.values["WorkerState"].items() if name == "live")
        written = {
            base + row * record.size + record.fields["claim"].offset: (
                live << bits["state"].first
                | (pid & 0x3FFFFF) << bits["pid"].first
                | 1 << bits["start_low"].first
                | 1 << bits["generation"].first
            )
            for row, pid in rows.items()
        } | {base + row * record.size + record.fields["start_ticks"].offset: 1 for row in rows}
    with path.open("r+b") as file:
        for offset, value in written.items():
            file.seek(offset)
            file.write(struct.pack("<Q", value))


def test_no_pid_of_a_region_is_signalled_or_waited_for(folder: Path) -> None:
    """A master that reaps frees what such rows hold, and does nothing to the processes they name."""
    path = folder / "region"
    region = Region.open(path, **SMALL)
    victim = subprocess.Popen(["sleep", "600"], start_new_session=True)
    child = os.fork()
    if child == 0:
        os._exit(7)
    until(lambda: state_of(child) == "Z", "end")
    until(lambda: state_of(victim.pid) == "S", "sleep")
    try:
        # Who proves to be another than who registered is given up as dead: who has another start time,
        # and a child that has ended but has not been waited for.
        plant(path, dict(enumerate((1, -1, 0, os.getpid(), os.getppid(), victim.pid, child), 1)))
        for _ in range(3):
            region.reap()
            assert SimpleRateLimiter(60, burst=1000, region=region).is_allowed("k")
            slots = LimiterScripts(region)
            gauge = "{api_key:a}:max_parallel_requests"
            assert slots.parallel_acquire([gauge], [50, 60, "a"])[0] == 0
            slots.parallel_release([gauge], ["a"])
        assert victim.poll() is None
        assert state_of(victim.pid) == "S"
        assert state_of(child) == "Z"
        # Still ours to wait for, and nobody has taken its exit code.
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert state_of(1)
    finally:
        victim.kill()
        victim.wait()


def test_no_length_or_count_of_a_region_in_use_is_believed(folder: Path) -> None:
    """Whoever owns it overwrites all that stands before the records, while a master goes on with it."""
    path = folder / "region"
    region = Region.open(path, **SMALL)
    end = min(plan.offset for plan in RegionReader.map(path, LAYOUT).sections.values())
    with path.open("r+b") as file:
        # The words that times are computed from have a test of their own, in tests/hostile.
        for name in ("total_len", "worker_capacity", "key_capacity", "chunk_capacity"):
            file.seek(LAYOUT.records["Header"].fields[name].offset)
            file.write(b"\xff" * 8)
        file.seek(LAYOUT.records["Header"].size)
        file.write(b"\xff" * (end - LAYOUT.records["Header"].size))

    def go_on() -> tuple[bool, int, bool]:
        limiter = SimpleRateLimiter(1, burst=2, region=region)
        allowed = [limiter.is_allowed("k") for _ in range(3)]
        reaped = region.reap()
        return allowed == [True, True, False], reaped, "limits" in json.loads(region.inspect())

    assert forked(go_on) == (True, 0, True)
    # Who comes later believes none of it.
    with pytest.raises(RegionError, match="remove"):
        Region.open(path, **SMALL)


def test_a_preloading_master_survives_what_workers_write_into_its_region(folder: Path) -> None:
    """As before, with gunicorn's arbiter: a worker names the master and its siblings as dead."""
    path = folder / "region"
    ran = run_python(
        f"""
        import os, signal, sys
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
        import fast_litellm
        from gunicorn.arbiter import Arbiter
        from fast_litellm import _native
        from pathlib import Path
        from test_security import plant

        class Master:
            # What reap_workers needs of an arbiter.
            WORKERS, reexec_pid, log = {{}}, 0, type("Log", (), dict.fromkeys(
                ("debug", "info", "warning", "error", "exception"), lambda *a, **k: None))()
            cfg = type("Cfg", (), {{"child_exit": staticmethod(lambda *a: None)}})()

        children = []
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                signal.pause()
            children.append(pid)
        plant(Path({str(path)!r}), dict(enumerate([1, -1, os.getpid(), *children], 2)))
        for _ in range(3):
            Arbiter.reap_workers(Master())
        alive = [os.waitpid(pid, os.WNOHANG) == (0, 0) for pid in children]
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
        print(alive, ended, _native.default_region().reap() >= 0)
        """,
        env={"FAST_LITELLM_SHM": str(path), "FAST_LITELLM_SHM_KEYS": "1024"},
    )
    assert ran.stdout == "[True, True] [-9, -9] True\n", ran.stderr


#: What ends, stops, waits for or attaches to a process.
_ACTS = re.compile(
    r"\b(?:kill|killpg|tgkill|raise|sigqueue|waitpid|waitid|wait4|ptrace|setpriority|pidfd_send_signal)\s*\("
)
#: Asking whether there is such a process, or any child; and what stops itself when somebody types ^Z.
_HARMLESS = (
    "kill(Pid::from_raw(pid), None)",
    "waitid(Id::All, flags) != Err(nix::errno::Errno::ECHILD)",
    "kill(Pid::from_raw(0), Signal::SIGTSTP)",
)


def test_nothing_in_the_sources_acts_on_a_process() -> None:
    found = []
    for source in sorted((SOURCES / "src").rglob("*.rs")):
        text = source.read_text(encoding="utf-8").partition("#[cfg(test)]\nmod tests")[0]
        if "tests" in source.relative_to(SOURCES / "src").parts:
            continue
        for line in text.splitlines():
            code = line.partition("//")[0]
            if _ACTS.search(code) and not any(harmless in code for harmless in _HARMLESS):
                found.append(f"{source.name}: {code.strip()}")
    for source in sorted((SOURCES / "fast_litellm").rglob("*.py")):
        for line in source.read_text(encoding="utf-8").splitlines():
            if re.search(r"\bos\.(?:kill|killpg|wait\w*|abort)\b", line):
                found.append(f"{source.name}: {line.strip()}")
    # `fl-shm top` puts the terminal back and then dies of the signal that it was sent.
    assert [line for line in found if not line.startswith("terminal.rs: ")] == []
    assert len(found) <= 3


# The oracle of secrets


SECRET = "sk-7Yx9-Qw3rTz81LmN0pAb5cD"


@pytest.mark.parametrize(
    "leak",
    [
        SECRET.encode(),
        SECRET[:14].encode(),
        SECRET[-12:].encode(),
        SECRET.upper().encode(),
        SECRET.encode("utf-16-le"),
        SECRET.encode("utf-16-be"),
        SECRET.encode().hex().encode(),
        *(base64.b64encode(b"key="[: 4 - n] + SECRET.encode() + b"..") for n in range(3)),
        hashlib.sha256(SECRET.encode()).hexdigest()[:7].encode(),
        hashlib.sha256(SECRET.encode()).digest(),
    ],
)
def test_a_trace_of_a_secret_is_found(leak: bytes) -> None:
    assert traces(b"\0" * 1001 + leak + b"\0" * 1001, SECRET)


def test_what_may_be_shown_is_no_trace() -> None:
    shown = SECRET[:6] + ".. " + hashlib.sha256(SECRET.encode()).hexdigest()[:6] + ".."
    assert traces(b"\0" + shown.encode() + b"\0", SECRET) == []


def test_no_name_in_a_region_is_a_secret(folder: Path) -> None:
    """By the engine's own doors, without a proxy: keys, deployments, errors and endpoints."""
    from fast_litellm import _native
    from fast_litellm._rust import Deployments, SimpleConnectionPool

    path = folder / "region"
    region = Region.open(path, **SMALL)
    scripts = LimiterScripts(region)
    hashed = hashlib.sha256(SECRET.encode()).hexdigest()
    for subject in (f"api_key:{SECRET}", f"api_key:{hashed}", f"model_per_key:{hashed}:gpt"):
        scripts.batch_rate_limiter([f"{{{subject}}}:window", f"{{{subject}}}:requests"], [0, 60])
        scripts.parallel_acquire([f"{{{subject}}}:max_parallel_requests"], [5, 60, SECRET])
    SimpleRateLimiter(60, region=region).check(SECRET)
    deployments = Deployments(region)
    text = f"AuthenticationError: {SECRET} is no key; Authorization: Bearer {SECRET}"
    deployments.introduce("d", f"openai/{SECRET}")
    deployments.failed("d", 401, text)
    assert deployments.cool_down("d", 30, 401, text, "AuthenticationError")
    pool = SimpleConnectionPool("p", region=region)
    taken = pool.get_connection(f"https://user:{SECRET}@host/v1?key={SECRET}")
    assert taken is not None
    pool.report(taken, False, text)
    _native.Leader(f"job-{SECRET}", region=region).acquire()
    data = path.read_bytes() + region.inspect().encode()
    assert b"AuthenticationError" in data
    assert traces(data, SECRET) == []
