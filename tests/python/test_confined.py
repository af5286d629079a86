"""Proves what holds in containers and under hardened services, and that what does not hold is said.

Containers cannot be started here, so their conditions are made one by one, and all together, with the
namespaces that they are made of.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from confined import NOBODY, PLACES, READ_ONLY_ROOT, SHM, Place, as_user
from fl_shm import command
from harness.proxy import can_connect, free_port
from support import fresh_environment, until

#: Four forked workers under one limit of requests and one of slots; then they are killed.
ENGINE = """
    import json, os, signal, time
    import fast_litellm
    from fast_litellm import _native

    region = _native.default_region()
    limiter = fast_litellm.SimpleRateLimiter(1, burst=20)
    scripts = _native.LimiterScripts(region)

    def acquire(name):
        gauge = "{api_key:a}:max_parallel_requests"
        return scripts.parallel_acquire([gauge], [5, 3600, name])[0] == 0

    def is_freed():
        end, late = time.monotonic() + 0.4, False
        while not late:
            # The last time is after the end, however long that takes.
            late = time.monotonic() >= end
            if acquire("parent"):
                scripts.parallel_release(["{api_key:a}:max_parallel_requests"], ["parent"])
                return True
            time.sleep(0.01)
        return False

    read, write = os.pipe()
    workers = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            admitted = sum(limiter.is_allowed("k") for _ in range(10))
            held = sum(acquire(f"{number}-{n}") for n in range(3))
            os.write(write, bytes([admitted, held]))
            signal.pause()
        workers.append(pid)
    told = b""
    while len(told) < 8:
        told += os.read(read, 8)
    report = {"admitted": sum(told[::2]), "held": sum(told[1::2]), "full": not acquire("parent")}
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    report["freed"] = "as zombies" if is_freed() else ""
    for pid in workers:
        os.waitpid(pid, 0)
    if not report["freed"]:
        region.reap()
        report["freed"] = "when waited for" if is_freed() else "never"
    report["backing"] = region.backing
    # The directory may be the whole machine's, where others come and go.
    ours = f"fl-shm-{os.getpid()}-"
    names = os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
    report["names"] = [name for name in names if name == "region" or name.startswith(ours)]
    print(json.dumps(report))
"""

#: A proxy's stand-in: counts, holds slots, dies.
APP = """
    import json, os, signal
    import fast_litellm
    from fast_litellm import _native

    limiter = fast_litellm.SimpleRateLimiter(1, burst=20)
    scripts = _native.LimiterScripts(_native.default_region())
    gauge = ["{api_key:a}:max_parallel_requests"]

    def answer(path):
        if path == "/admit":
            return limiter.is_allowed("k")
        if path == "/hold":
            held = scripts.parallel_acquire(gauge, [5, 3600, os.urandom(8).hex()])[0] == 0
            return held and os.getpid()
        if path.startswith("/kill/"):
            os.kill(int(path[6:]), signal.SIGKILL)
        return {"pid": os.getpid(), "uid": os.getuid(), "region": fast_litellm.health_check()["region"]}

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(answer(environ["PATH_INFO"])).encode()]
"""


def place(name: str) -> Place:
    """The place of that name; skips the test where this machine has none."""
    found = PLACES[name]
    check(found)
    return found


def check(found: Place) -> None:
    obstacle = found.obstacle()
    if obstacle:
        pytest.skip(f"cannot be made here: {obstacle}")


def ran(where: Place, code: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Code run there, whatever became of it."""
    check(where)
    return subprocess.run(
        where.command(sys.executable, "-c", textwrap.dedent(code), *arguments),
        env={**fresh_environment(), **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


class Server:
    """gunicorn with an application of ours, started somewhere.

    Attributes:
        log: the file of all that it prints.
    """

    def __init__(self, where: Place, directory: Path, *arguments: str, **env: str) -> None:
        check(where)
        self.port = free_port()
        self.log = directory / f"{self.port}.log"
        self.holders: set[int] = set()
        (directory / "app.py").write_text(textwrap.dedent(APP))
        started = where.command(
            *(sys.executable, "-m", "gunicorn", "--chdir", directory, "app:app"),
            *("-w", "2", "-b", f"127.0.0.1:{self.port}"),
            *arguments,
        )
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                started,
                env={**fresh_environment(), **env},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ask(self, path: str) -> Any:
        """What a worker answers; None if it died instead."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", path)
            try:
                response = connection.getresponse()
            except (ConnectionResetError, http.client.RemoteDisconnected):
                return None
            text = response.read()
            assert response.status == 200, f"{text!r}\n{self.log.read_text()}"
            return json.loads(text)

    def admitted(self, times: int) -> int:
        """How many of so many requests were admitted."""
        return sum(self.ask("/admit") for _ in range(times))

    def held(self, times: int) -> int:
        """How many of so many slots were given."""
        holders = [pid for pid in (self.ask("/hold") for _ in range(times)) if pid]
        self.holders |= set(holders)
        return len(holders)

    def can_be_filled(self) -> None:
        """All slots can be had, as those who held them are seen to be dead one by one, and no more."""
        given = 0

        def full() -> bool:
            nonlocal given
            given += self.held(1)
            return given == 5

        until(full, "give all slots")
        assert self.held(3) == 0

    def kill_holders(self) -> None:
        """Kill the workers that hold slots, and have others take their places."""
        for pid in self.holders:
            # Whoever is asked does it, perhaps to itself.
            self.ask(f"/kill/{pid}")
        until(lambda: self.ask("/") is not None, "serve again", 20)
        self.holders.clear()

    def pid_within(self) -> int:
        """A process that is where the server is: `unshare` itself stays outside of the pid namespace."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return int((children.read_text().split() or [self._process.pid])[0])

    def is_up(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        return can_connect(self.port)

    def kill(self) -> None:
        """Kill all of it at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)

    def __enter__(self) -> Server:
        try:
            until(self.is_up, "listen", 30)
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that anybody can read."""
    made = Path("/tmp") / f"fast-litellm-confined-{os.getpid()}"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    yield made
    shutil.rmtree(made)


# What the engine does there


@pytest.mark.parametrize("name", PLACES)
def test_limits_are_exact_and_the_dead_give_their_slots_back(name: str) -> None:
    done = ran(place(name), ENGINE)
    assert done.returncode == 0, done.stderr
    # A zombie is told by /proc only; that nobody has a pid any more, by the kernel; and whoever does not
    # know its own pid namespace knows nothing.
    freed = {"foreign-proc": "when waited for", "no-proc": "never"}.get(name, "as zombies")
    assert json.loads(done.stdout) == {
        "admitted": 20,
        "held": 5,
        "full": True,
        "freed": freed,
        "backing": "memfd",
        "names": [],
    }
    expected = {
        "foreign-proc": "another pid namespace",
        "no-proc": "come back only after their time to live",
    }.get(name)
    if expected is None:
        assert done.stderr == ""
    else:
        assert expected in done.stderr
        assert "mount -t proc proc /proc" in done.stderr


@pytest.mark.parametrize(("name", "freed"), [("container", "as zombies"), ("no-proc", "never")])
def test_a_named_region_lives_in_a_container_too(name: str, freed: str) -> None:
    where = place(name)
    if "/dev/shm" not in where.mounts:
        where = where._replace(mounts=f"{where.mounts}; {SHM.format('64m')}")
    done = ran(where, ENGINE, FAST_LITELLM_SHM="/dev/shm/region")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["admitted"], report["held"], report["freed"]) == (20, 5, freed)
    assert (report["backing"], report["names"]) == ("file", ["region"])


STATUS = """
    import json, os
    import fast_litellm

    status = fast_litellm.get_patch_status()
    health = fast_litellm.health_check()
    print(json.dumps([status["applied"], status["reason"], health["status"], os.listdir("/dev/shm")]))
"""


def test_a_named_region_that_does_not_fit_is_refused_with_the_remedy() -> None:
    done = ran(
        place("shm-of-64m"),
        STATUS,
        FAST_LITELLM_SHM="/dev/shm/region",
        FAST_LITELLM_SHM_KEYS="1000000",
    )
    assert done.returncode == 0, done.stderr
    applied, reason, health, left = json.loads(done.stdout)
    assert (applied, health, left) == (False, "degraded", [])
    for told in (reason, done.stderr):
        assert "/dev/shm/region" in told
        assert "No space left on device" in told
        assert "docker run --shm-size" in told
        assert "FAST_LITELLM_SHM_KEYS" in told
    assert "limits are NOT shared between workers" in done.stderr


#: Processes that begin at one instant, as workers of one program or by themselves: where each has its
#: region from, and what there is of it.
TOGETHER = """
    import json, multiprocessing, os, subprocess, sys, time

    WORKER = "import sys, time; time.sleep(max(0, float(sys.argv[1]) - time.time())); " \\
        "from fast_litellm import _native; import fast_litellm; " \\
        "print(getattr(_native.default_region(), 'origin', None)); sys.stdin.read()"

    def work(start, tell, end):
        time.sleep(max(0, start - time.time()))
        import fast_litellm
        from fast_litellm import _native
        tell.put(getattr(_native.default_region(), "origin", None))
        end.wait()

    if __name__ == "__main__":
        count = int(sys.argv[1])
        if sys.argv[2] == "workers":
            spawn = multiprocessing.get_context("spawn")
            tell, end, start = spawn.Queue(), spawn.Event(), time.time() + 1
            workers = [spawn.Process(target=work, args=(start, tell, end)) for _ in range(count)]
            for worker in workers:
                worker.start()
            told = [tell.get(timeout=40) for _ in workers]
            end.set()
            for worker in workers:
                worker.join()
        else:
            start = str(time.time() + 1)
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            command = [sys.executable, "-c", WORKER, start]
            alone = [subprocess.Popen(command, **pipes) for _ in range(count)]
            told = [each.stdout.readline().strip() for each in alone]
            for each in alone:
                each.communicate()
        there = [name for name in os.listdir("/dev/shm") if name.startswith("region")]
        print(json.dumps([sorted(map(str, told)), there]))
"""


@pytest.mark.parametrize("kind", ["workers", "strangers"])
def test_those_who_start_together_need_the_memory_of_one_region(kind: str, directory: Path) -> None:
    where = Place(SHM.format("40m"))
    check(where)
    program = directory / "together.py"
    program.write_text(textwrap.dedent(TOGETHER))
    done = subprocess.run(
        where.command(sys.executable, "-P", str(program), "6", kind),
        env={**fresh_environment(), "FAST_LITELLM_SHM": "/dev/shm/region"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout) == [["created", *["opened"] * 5], ["region"]]


FULL = Place("for place in /dev/shm /run; do mount -t tmpfs -o size=1m none $place; done")
FOLDERS = {"FAST_LITELLM_SHM_DIR": "/dev/shm,/run"}


def test_where_no_file_fits_the_next_kind_of_memory_is_shared() -> None:
    check(FULL)
    done = ran(FULL, ENGINE, FAST_LITELLM_SHM_BACKING="file,anonymous", **FOLDERS)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["admitted"], report["held"], report["backing"]) == (20, 5, "anonymous")
    assert (report["freed"], report["names"]) == ("as zombies", [])
    assert "the shared region uses anonymous memory" in done.stderr
    for folder in ("/dev/shm", "/run"):
        assert f"file in {folder}: " in done.stderr
    assert "No space left on device" in done.stderr


def test_where_no_memory_fits_litellm_is_left_alone() -> None:
    done = ran(FULL, STATUS, FAST_LITELLM_SHM_BACKING="file", **FOLDERS)
    assert done.returncode == 0, done.stderr
    applied, reason, health, left = json.loads(done.stdout)
    assert (applied, health, left) == (False, "degraded", [])
    assert "allow memfd_create or provide a writable tmpfs" in reason
    assert "limits are NOT shared between workers" in done.stderr


# Servers there


SOMEWHERE = {"container": ("--worker-tmp-dir", "/dev/shm")}
SERVERS = {
    # gunicorn itself needs a place for the files by which workers show that they live.
    "container": (PLACES["container"], ("--worker-tmp-dir", "/dev/shm"), NOBODY),
    "changes-user": (
        PLACES["hidden-pids"]._replace(user=()),
        ("-u", "65534", "-g", "65534"),
        NOBODY,
    ),
    "no-proc": (PLACES["no-proc"], (), 0),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_preloaded_server_shares_its_limits(name: str, directory: Path) -> None:
    where, arguments, user = SERVERS[name]
    with Server(where, directory, "--preload", *arguments) as server:
        state = server.ask("/")
        assert (state["uid"], state["region"]["backing"]) == (user, "memfd")
        assert server.admitted(40) == 20
        assert server.held(8) == 5
        server.kill_holders()
        if name == "no-proc":
            assert server.held(3) == 0
            assert "come back only after their time to live" in server.log.read_text()
        else:
            server.can_be_filled()
        # What was counted stays counted.
        assert server.admitted(10) == 0
        assert "NOT shared" not in server.log.read_text()


@pytest.mark.parametrize("name", ["container", "hidden-pids", "pids-only", "own-pids"])
def test_workers_that_load_the_application_themselves_find_each_other(
    name: str, directory: Path
) -> None:
    with Server(
        place(name), directory, *SOMEWHERE.get(name, ("--worker-tmp-dir", "/tmp"))
    ) as server:
        assert server.admitted(40) == 20
        assert server.held(8) == 5
        server.kill_holders()
        server.can_be_filled()
        assert "NOT shared" not in server.log.read_text()


@pytest.mark.parametrize("name", ["no-proc", "foreign-proc", "changes-user"])
def test_workers_that_cannot_find_each_other_say_so(name: str, directory: Path) -> None:
    """Descriptors of whoever changed its user are root's, and without `/proc` there are none to see."""
    where, arguments, _ = SERVERS.get(name) or (place(name), (), 0)
    with Server(where, directory, *arguments) as server:
        until(lambda: server.log.read_text().count("NOT shared between workers") == 2, "say so")
        assert "--preload" in server.log.read_text()
        # Each goes on with a region of its own.
        assert 20 <= server.admitted(60) <= 40


#: Workers that a server which is not gunicorn's forks, before anything of ours is imported.
FORKS = """
    import ctypes, json, os, sys

    user, title = json.loads(sys.argv[1])
    read, write = os.pipe()
    if os.fork():
        os.close(write)
        os.wait()
        sys.stdout.write(os.read(read, 4096).decode())
        sys.exit()
    if title:
        # As setproctitle does it.
        with open("/proc/self/stat") as file:
            start = int(file.read().rpartition(")")[2].split()[48 - 3])
        ctypes.memset(start, ord("w"), len(title))
    if user:
        os.setgid(user)
        os.setuid(user)
    import fast_litellm
    health = fast_litellm.health_check()
    os.write(write, json.dumps([health["status"], health["fallbacks"]]).encode())
"""


@pytest.mark.parametrize(
    ("name", "user", "title"),
    [
        ("own-pids", 0, ""),
        ("foreign-proc", 0, ""),
        ("own-pids", NOBODY, ""),
        ("own-pids", NOBODY, "w"),
    ],
)
def test_workers_of_any_server_that_forks_say_so(name: str, user: int, title: str) -> None:
    alone = user == NOBODY or name == "foreign-proc"
    done = ran(place(name), FORKS, json.dumps([user, title]))
    assert done.returncode == 0, done.stderr
    assert ("NOT shared between workers" in done.stderr) == alone
    assert json.loads(done.stdout) == (["degraded", 1] if alone else ["ok", 0])


#: Workers that a head forks one after the other. Some keep their secrets from others of their user then.
SECRETIVE = """
    import ctypes, json, os, signal, subprocess, sys

    hide = "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)"  # PR_SET_DUMPABLE
    hidden = json.loads(sys.argv[1])
    if "program" in hidden:
        serve = "import os, sys; os.fork(); print(flush=True); sys.stdin.read()"
        program = [sys.executable, "-c", f"{hide}; {serve}"]
        other = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2):
            other.stdout.readline()
    if "zombie" in hidden:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    read, write = os.pipe()
    answers = os.fdopen(read)
    reports, workers = [], []
    for number in range(3):
        pid = os.fork()
        if pid == 0:
            import fast_litellm
            health = fast_litellm.health_check()
            if number in hidden:
                exec(hide)
            os.write(write, (json.dumps([health["status"], health["fallbacks"]]) + "\\n").encode())
            signal.pause()
        workers.append(pid)
        reports.append(json.loads(answers.readline()))
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    print(json.dumps(reports))
"""


#: As in a container: it may look at the descriptors of others, and not where they lead to.
ROOT_THAT_CANNOT_TRACE = Place(
    user=("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")
)


@pytest.mark.parametrize(
    ("hidden", "alone"), [([0, 1, 2], [1, 2]), ([1], []), (["program"], []), (["zombie"], [])]
)
@pytest.mark.parametrize(
    "where", [PLACES["nobody"], ROOT_THAT_CANNOT_TRACE], ids=["nobody", "root"]
)
def test_workers_that_cannot_look_at_each_other_say_so(
    where: Place, hidden: list[int | str], alone: list[int]
) -> None:
    """Unless one can be looked at that has the region; and neither programs nor the dead are workers."""
    done = ran(where, SECRETIVE, json.dumps(hidden))
    assert done.returncode == 0, done.stderr
    expected = [["degraded", 1] if number in alone else ["ok", 0] for number in range(3)]
    assert json.loads(done.stdout) == expected
    lines = done.stderr.splitlines()
    assert len(lines) == len(alone)
    for line in lines:
        assert "NOT shared between workers" in line
        assert "cannot look at process" in line


#: A program leaves its parent, is adopted by root's first process, of its session, and forks workers.
ADOPTED = """
    import json, os, subprocess, sys, time

    if len(sys.argv) == 2:
        # All that have the pipe end.
        program = json.loads(sys.argv[1]) + [sys.executable, "-c", os.environ["PROGRAM"]]
        done = subprocess.run([*program, "as", "nobody"], stdout=subprocess.PIPE)
        sys.exit(done.stdout != b"ok ok ok ")
    if os.fork():
        sys.exit()
    while os.getppid() != 1:
        time.sleep(0.01)
    for number in range(3):
        # Each while those before it have the region.
        read, write = os.pipe()
        if os.fork() == 0:
            import fast_litellm
            health = fast_litellm.health_check()
            print(health["status"] if health["fallbacks"] == 0 else "apart", end=" ", flush=True)
            os.close(write)
            time.sleep(1)
            os._exit(0)
        os.close(write)
        os.read(read, 1)
"""


def test_who_has_adopted_a_server_is_not_asked_for_its_region() -> None:
    program = textwrap.dedent(ADOPTED)
    where = place("own-pids")._replace(user=())
    done = ran(where, ADOPTED, json.dumps(as_user(NOBODY)), PROGRAM=program)
    assert (done.returncode, done.stderr) == (0, "")


#: A process gets the number of one that has ended and has left a worker.
REUSED = """
    import json, multiprocessing, os, signal, subprocess, sys, time

    role, go, answer = sys.argv[1], *map(int, sys.argv[2:])

    def say(value):
        os.write(answer, (json.dumps(value) + "\\n").encode())

    def fork(work):
        multiprocessing.get_context("fork").Process(target=work).start()

    def use():
        import fast_litellm
        from fast_litellm import _native

        limiter = fast_litellm.SimpleRateLimiter(1, burst=20)
        admitted = sum(limiter.is_allowed("k") for _ in range(15))
        say([_native.default_region().origin, admitted, fast_litellm.health_check()["status"]])

    def late():
        os.read(go, 1)
        use()
        signal.pause()

    def early():
        use()
        os.kill(os.getppid(), signal.SIGKILL)
        os.read(go, 1)
        # It inherits what names the dead, and is younger than who has its number.
        if os.fork() == 0:
            say(None)
        signal.pause()

    def serve_late():
        use()
        signal.pause()

    def serve_early():
        sys.stdin.readline()
        fork(use)
        signal.pause()

    if role in globals():
        if role.startswith("serve"):
            globals()[role]()
        fork(globals()[role])
        if role == "early":
            signal.pause()
        os._exit(0)

    kind = role[1:]
    go, went = os.pipe()
    read, answer = os.pipe()
    answers = os.fdopen(read)

    def start(role):
        command = [*sys.orig_argv[:3], role, str(go), str(answer)]
        return subprocess.Popen(
            command, pass_fds=[go, answer], stdin=subprocess.PIPE, text=True, bufsize=1
        )

    launcher = start(kind)
    reports = [answers.readline()] if kind == "early" else []
    launcher.wait()
    # Start times are told in ticks.
    time.sleep(2 / os.sysconf("SC_CLK_TCK"))
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(launcher.pid - 1))
    service = start("serve_" + kind)
    assert service.pid == launcher.pid
    if kind == "late":
        reports.append(answers.readline())
    os.write(went, b"!")
    reports.append(answers.readline())
    if kind == "early":
        service.stdin.write("now\\n")
        reports.append(answers.readline())
    print(json.dumps([report for report in map(json.loads, reports) if report]))
"""


@pytest.mark.skipif(
    not Path("/proc/sys/kernel/ns_last_pid").exists(), reason="no number can be chosen here"
)
@pytest.mark.parametrize(("kind", "status"), [("late", "degraded"), ("early", "ok")])
def test_who_has_the_number_of_the_dead_shares_nothing_with_its_workers(
    kind: str, status: str
) -> None:
    done = ran(place("own-pids"), REUSED, f"+{kind}", "0", "0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["created", 15, "ok"], ["created", 15, status]]
    if kind == "late":
        assert "NOT shared between workers" in done.stderr
        assert "has ended, and another has its number" in done.stderr
    else:
        assert done.stderr == ""


# Two servers on one host


@pytest.fixture
def volume() -> Iterator[Path]:
    """A directory on tmpfs that belongs to nobody."""
    made = Path("/dev/shm") / f"fast-litellm-volume-{os.getpid()}"
    if os.geteuid() != 0 or not os.access("/dev/shm", os.W_OK):
        pytest.skip("needs root, and a tmpfs at /dev/shm")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(0o700)
    os.chown(made, NOBODY, NOBODY)
    yield made
    shutil.rmtree(made)


#: What engines make of one each, when nothing else is asked for.
APART = {
    "same-shell": (Place(), Place()),
    "own-pids": (PLACES["container"], PLACES["container"]),
    "shared-pids": (PLACES["hidden-pids"], PLACES["hidden-pids"]),
}
HOME = ("--worker-tmp-dir", "/dev/shm")


@pytest.mark.parametrize("preload", [("--preload",), ()], ids=["preload", "each"])
@pytest.mark.parametrize("name", APART)
def test_servers_of_one_user_do_not_share_by_accident(
    name: str, preload: tuple[str, ...], directory: Path
) -> None:
    one, other = APART[name]
    with (
        Server(one, directory, *preload, *HOME) as first,
        Server(other, directory, *preload, *HOME) as second,
    ):
        assert first.held(8) == 5
        assert (first.admitted(30), second.admitted(30)) == (20, 20)
        assert second.held(8) == 5


def test_servers_that_name_a_region_share_it(directory: Path, volume: Path) -> None:
    """As containers with a common volume and a common pid namespace."""
    where = PLACES["hidden-pids"]
    named = {"FAST_LITELLM_SHM": str(volume / "region")}
    with (
        Server(where, directory, "--preload", *HOME, **named) as first,
        Server(where, directory, "--preload", *HOME, **named) as second,
    ):
        admitted = sum(server.admitted(1) for _ in range(15) for server in (first, second))
        assert admitted == 20
        assert first.held(8) == 5
        assert second.held(3) == 0
        first.kill()
        second.can_be_filled()
        assert "NOT shared" not in first.log.read_text() + second.log.read_text()
    file = volume / "region"
    assert (file.stat().st_mode & 0o7777, file.stat().st_uid) == (0o600, NOBODY)
    assert list(volume.iterdir()) == [file]


def test_a_named_region_of_another_pid_namespace_is_not_shared_and_that_is_said(
    directory: Path, volume: Path
) -> None:
    named = {"FAST_LITELLM_SHM": str(volume / "region")}
    where = PLACES["hidden-pids"]._replace(
        mounts="mount -t proc -o hidepid=2 none /proc", pids=True
    )
    with Server(where, directory, "--preload", *HOME, **named) as first:
        before = (volume / "region").stat().st_ino
        done = ran(where, STATUS, **named)
        assert done.returncode == 0, done.stderr
        applied, reason, health, _ = json.loads(done.stdout)
        assert (applied, health) == (False, "degraded")
        for told in (reason, done.stderr):
            assert str(volume / "region") in told
            assert "pid namespace" in told
        assert "limits are NOT shared between workers" in done.stderr
        assert (volume / "region").stat().st_ino == before
        assert first.admitted(30) == 20


@pytest.mark.parametrize("pids", ["kept", "new"])
def test_a_container_that_starts_again_with_its_volume(
    pids: str, directory: Path, volume: Path
) -> None:
    """In the same pid namespace it goes on; in a new one the file says nothing, and is made anew."""
    named = {"FAST_LITELLM_SHM": str(volume / "region")}
    where = PLACES["hidden-pids"]._replace(pids=pids == "new")
    with Server(where, directory, "--preload", *HOME, **named) as first:
        assert (first.admitted(30), first.held(8)) == (20, 5)
    with Server(where, directory, "--preload", *HOME, **named) as second:
        admitted = second.admitted(30)
        # Nobody of those before lives.
        assert second.held(8) == 5
        log = second.log.read_text()
        assert "NOT shared" not in log
        if pids == "kept":
            assert (admitted, "made anew" in log) == (0, False)
        else:
            assert (admitted, "made anew" in log) == (20, True)
            assert "pid namespace" in log
    assert list(volume.iterdir()) == [volume / "region"]


# Somebody beside it that looks


def beside(server: Server, user: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """fl-shm in a container of its own that shares the server's pid namespace, as a sidecar does."""
    within = Place(
        f"mount -t proc none /proc && {READ_ONLY_ROOT}",
        user=as_user(user),
    )
    return subprocess.run(
        [
            "nsenter",
            f"--target={server.pid_within()}",
            "--pid",
            *within.command(*command(*arguments)),
        ],
        env=fresh_environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize("path", ["", "/dev/shm/region"], ids=["memfd", "file"])
def test_a_sidecar_of_the_same_user_looks_into_the_region(path: str, directory: Path) -> None:
    named = {"FAST_LITELLM_SHM": path} if path else {}
    with Server(PLACES["container"], directory, "--preload", *HOME, **named) as server:
        assert server.held(8) == 5
        seen = beside(server, NOBODY, "inspect", "--prom")
        assert seen.returncode == 0, seen.stderr
        assert "fast_litellm_" in seen.stdout

        def workers() -> list[str]:
            told = beside(server, NOBODY, "inspect", "workers", "--json").stdout
            return [worker["alive"] for worker in json.loads(told)["workers"]]

        until(lambda: len(workers()) == 3, "have all workers")
        assert workers() == ["alive"] * 3
        # Another user's finds none.
        other = beside(server, 12345, "ls")
        assert (other.returncode, other.stdout) == (1, "")
