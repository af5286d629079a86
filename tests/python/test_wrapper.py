"""Proves what the `fast-litellm` command does to a program, and what it leaves as it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from counting_server import BIN, LIMIT, CountingServer, have_ended, regions_of
from support import WAIT_S, fresh_environment, until

SERVERS = ("gunicorn.app", "gunicorn.arbiter", "uvicorn", "hypercorn", "granian", "litellm")

#: A module that tells whether fast_litellm was there before it.
TELLS = "import sys\nearlier = 'fast_litellm' in sys.modules\n"


def wrapped(
    *command: str, env: Mapping[str, str] | None = None, cwd: Path | str = "/"
) -> subprocess.CompletedProcess[str]:
    """What `fast-litellm` with these arguments prints."""
    return subprocess.run(
        [str(BIN / "fast-litellm"), *command],
        cwd=cwd,
        env={**fresh_environment(), **(env or {})},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )


def answer(*command: str, **options: object) -> object:
    """What a program under it prints, which is JSON."""
    done = wrapped(*command, **options)  # type: ignore[arg-type]
    assert (done.returncode, done.stderr) == (0, ""), done
    return json.loads(done.stdout)


def module(directory: Path, name: str, text: str) -> None:
    """Write a module that stands for one of that name."""
    *packages, last = name.split(".")
    for package in packages:
        directory /= package
        directory.mkdir(exist_ok=True)
        (directory / "__init__.py").touch()
    (directory / f"{last}.py").write_text(text)


# The command


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 125, "no command given"),
        (("--",), 125, "no command given"),
        (("--nonsense", "true"), 125, "unknown option '--nonsense'"),
        (("no-such-command",), 127, "no-such-command: not found beside "),
        (("/no/such/command",), 127, "/no/such/command: not found"),
        (("/",), 126, "/: Permission denied"),
        (("/etc/passwd",), 126, "/etc/passwd: Permission denied"),
    ],
)
def test_what_cannot_be_run(arguments: tuple[str, ...], code: int, message: str) -> None:
    done = wrapped(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"fast-litellm: {message}")
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "text").chmod(0o755)
    done = wrapped(str(tmp_path / "text"))
    assert done.returncode == 126
    assert "Exec format error" in done.stderr
    (tmp_path / "text").chmod(0o644)
    found_but = wrapped("text", env={"PATH": str(tmp_path)})
    assert (found_but.returncode, "Permission denied" in found_but.stderr) == (126, True)


def test_help_and_version() -> None:
    assert wrapped("--help").stdout.startswith("usage: fast-litellm ")
    assert wrapped("--version").stdout.startswith("fast-litellm 0.")


def test_the_program_has_its_arguments_and_exit_code() -> None:
    code = "import json, sys; print(json.dumps(sys.argv[1:])); sys.exit(3)"
    done = wrapped("--", "python", "-c", code, "--help", "--", "a b", "")
    assert (done.returncode, json.loads(done.stdout)) == (3, ["--help", "--", "a b", ""])


def test_the_program_has_the_pid_and_the_signals() -> None:
    with subprocess.Popen(
        [str(BIN / "fast-litellm"), "sh", "-c", "echo $$; grep SigIgn /proc/$$/status"],
        env=fresh_environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pid, ignored = process.stdout.read().splitlines()
    assert int(pid) == process.pid
    # Python ignores this one for itself.
    assert not int(ignored.split()[1], 16) & 1 << signal.SIGPIPE - 1


def test_a_program_beside_the_interpreter_comes_first(tmp_path: Path) -> None:
    for name in ("python", "only-here"):
        (tmp_path / name).write_text("#!/bin/sh\necho '\"other\"'\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    prefix = answer("python", "-c", "import json, sys; print(json.dumps(sys.prefix))", env=env)
    assert prefix == sys.prefix
    assert answer("only-here", env=env) == "other"


# What the program finds


def test_the_users_path_stays_for_it_and_its_children(tmp_path: Path) -> None:
    module(tmp_path, "mine", "")
    code = """if True:
        import json, os, subprocess, sys
        import mine
        child = [sys.executable, "-c", "import mine, sys; print('uvicorn' in sys.modules)"]
        subprocess.run(child, check=True, stdout=subprocess.DEVNULL)
        print(json.dumps([os.environ["PYTHONPATH"], sys.path]))"""
    users = f"{tmp_path}{os.pathsep}/elsewhere"
    path, entries = answer("python", "-c", code, env={"PYTHONPATH": users})  # type: ignore[misc]
    own, _, rest = path.partition(os.pathsep)
    assert rest == users
    assert own not in entries
    assert entries[1:3] == [str(tmp_path), "/elsewhere"]
    twice = answer("fast-litellm", "python", "-c", code, env={"PYTHONPATH": users})
    assert twice == [path, entries]


@pytest.mark.parametrize("users", [{}, {"PYTHONPATH": ""}])
def test_without_a_path_of_the_users_none_is_added(users: dict[str, str]) -> None:
    code = "import json, os; print(json.dumps(os.environ['PYTHONPATH']))"
    path = str(answer("python", "-c", code, env=users))
    assert os.pathsep not in path
    assert Path(path, "sitecustomize.py").is_file()


CUSTOMIZED = """if True:
    import json, sys
    import sitecustomize
    print(json.dumps([sitecustomize.__file__, getattr(sitecustomize, "times", 0)]))"""


def test_the_users_sitecustomize_is_run_in_its_place(tmp_path: Path) -> None:
    text = "import sys\nsys.times = times = getattr(sys, 'times', 0) + 1\n"
    module(tmp_path, "sitecustomize", text)
    seen = answer("python", "-c", CUSTOMIZED, env={"PYTHONPATH": str(tmp_path)})
    assert seen == [str(tmp_path / "sitecustomize.py"), 1]


def test_a_sitecustomize_that_fails_is_told_of_and_stops_nothing(tmp_path: Path) -> None:
    module(tmp_path, "litellm", TELLS)
    module(tmp_path, "sitecustomize", "import no_such_module\n")
    code = "import litellm; print(litellm.earlier)"
    env = {"PYTHONPATH": str(tmp_path)}
    done = wrapped("python", "-c", code, env=env)
    assert (done.returncode, done.stdout) == (0, "True\n")
    bare = [sys.executable, "-c", "pass"]
    told = subprocess.run(bare, env={**os.environ, **env}, capture_output=True, text=True).stderr
    assert "no_such_module" in told
    # The command is a program in Python itself.
    assert done.stderr == 2 * told


def test_a_tool_in_front_that_spares_its_children_reaches_the_program(tmp_path: Path) -> None:
    # As OpenTelemetry's: what the wrapper's interpreter runs of it must not be the end of it.
    text = """if True:
        import os, sys
        own = os.path.dirname(__file__)
        entries = os.environ["PYTHONPATH"].split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join(entry for entry in entries if entry != own)
        sys.times = getattr(sys, "times", 0) + 1
        times = sys.times
    """
    module(tmp_path, "sitecustomize", text)
    users = f"{tmp_path}{os.pathsep}/elsewhere"
    seen = answer("python", "-c", CUSTOMIZED, env={"PYTHONPATH": users})
    assert seen == [str(tmp_path / "sitecustomize.py"), 1]
    code = "import json, os; print(json.dumps(os.environ['PYTHONPATH']))"
    path = str(answer("python", "-c", code, env={"PYTHONPATH": users}))
    assert path.partition(os.pathsep)[2] == "/elsewhere"


# When fast_litellm is imported


@pytest.mark.parametrize("server", SERVERS)
def test_it_is_imported_before_a_server(server: str, tmp_path: Path) -> None:
    module(tmp_path, server, TELLS)
    code = f"""if True:
        import importlib, json, sys
        before = "fast_litellm" in sys.modules
        server = importlib.import_module({server!r})
        left = [type(finder).__module__ for finder in sys.meta_path]
        print(json.dumps([before, server.earlier, "sitecustomize" in left]))"""
    seen = answer("python", "-c", code, env={"PYTHONPATH": str(tmp_path)})
    assert seen == [False, True, False]


def test_the_import_that_brings_it_is_patched_too() -> None:
    code = """if True:
        import json
        from gunicorn.arbiter import Arbiter
        print(json.dumps(hasattr(Arbiter.reap_workers, "__wrapped__")))"""
    assert answer("python", "-c", code) is True


def test_a_program_without_a_server_gets_nothing() -> None:
    code = """if True:
        import asyncio, http.server, json, logging, multiprocessing, os, sys
        fds = os.listdir("/proc/self/fd")
        regions = [fd for fd in fds if "fl-shm" in os.path.realpath(f"/proc/self/fd/{fd}")]
        print(json.dumps(["fast_litellm" in sys.modules, regions]))"""
    assert answer("python", "-c", code) == [False, []]


def test_looking_for_a_server_that_is_not_there_is_no_start_of_one() -> None:
    """Neither alarm nor region: not here, nor where fast_litellm is not installed."""
    code = """if True:
        import importlib.util, json, sys
        finder = sys.meta_path[0]
        sys.modules["fast_litellm"] = None
        sys.path_hooks.clear()
        sys.path_importer_cache.clear()
        try:
            import litellm
        except ImportError:
            there = importlib.util.find_spec("uvicorn") is not None
        print(json.dumps([there, finder in sys.meta_path]))"""
    assert answer("python", "-c", code) == [False, True]


def test_a_malformed_setting_stops_the_program(tmp_path: Path) -> None:
    module(tmp_path, "litellm", TELLS)
    code = """if True:
        try:
            import litellm
        except Exception:
            pass
        print("went on")"""
    env = {"PYTHONPATH": str(tmp_path), "FAST_LITELLM_SHM_KEYS": "many"}
    done = wrapped("python", "-c", code, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "fast-litellm: FAST_LITELLM_SHM_KEYS='many' is not a whole number\n"


def test_an_interpreter_without_the_package_goes_on(tmp_path: Path) -> None:
    module(tmp_path, "litellm", TELLS)
    code = """if True:
        import sys
        sys.modules["fast_litellm"] = None
        import litellm
        print("went on")"""
    done = wrapped("python", "-c", code, env={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert "limits are NOT shared between workers: " in done.stderr
    assert "cannot import fast_litellm" in done.stderr


@pytest.mark.parametrize("flag", ["-I", "-E", "-S"])
def test_an_interpreter_that_is_told_not_to_look_is_left_alone(flag: str) -> None:
    code = "import json, sys; print(json.dumps('fast_litellm' in sys.modules))"
    assert answer("python", flag, "-c", code) is False


# Servers


def test_gunicorn_without_preload_shares_one_region() -> None:
    start = ("fast-litellm", "gunicorn", "app:wsgi", "-w", "2", "-b", "127.0.0.1:PORT")
    with CountingServer(*start) as server:
        workers = server.all_answer(2)
        assert server.ask("/key", 3 * LIMIT).admitted == LIMIT
        (region,) = regions_of(server.pid)
        assert [regions_of(pid) for pid in workers] == [[region]] * 2
        assert "NOT shared" not in server.log_text()


def test_the_master_of_an_upgrade_is_started_in_the_same_way() -> None:
    start = ("fast-litellm", "gunicorn", "app:wsgi", "-w", "2", "-b", "127.0.0.1:PORT")
    with CountingServer(*start, "-p", "pid") as server:
        server.all_answer(2)
        assert server.ask("/key", 3 * LIMIT).admitted == LIMIT
        regions = regions_of(server.pid)
        os.kill(server.pid, signal.SIGUSR2)
        pid_file = server.directory / "pid.2"
        until(lambda: pid_file.is_file() and bool(pid_file.read_text()), "start another master")
        master = int(pid_file.read_text())
        workers = server.all_answer(4)
        assert len(regions) == 1
        assert [regions_of(pid) for pid in [master, *workers]] == [regions] * 5
        os.kill(server.pid, signal.SIGTERM)
        until(lambda: have_ended([server.pid]), "end the old master")
        assert server.ask("/key", 5).admitted == 0


def test_uvicorn_with_workers_shares_one_region() -> None:
    start = ("fast-litellm", "uvicorn", "app:asgi", "--workers", "2", "--port", "PORT")
    with CountingServer(*start, env={"UVICORN_LIFESPAN": "off"}) as server:
        workers = server.all_answer(2)
        assert server.ask("/key", 3 * LIMIT).admitted == LIMIT
        (region,) = regions_of(server.pid)
        assert [regions_of(pid) for pid in workers] == [[region]] * 2
        assert "NOT shared" not in server.log_text()
