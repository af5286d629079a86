"""Proves that `-c python:fast_litellm.gunicorn` shares one region and keeps what the user configured."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from counting_server import BIN, LIMIT, CountingServer, regions_of
from support import WAIT_S, fresh_environment, run_python, until

OURS = ("-c", "python:fast_litellm.gunicorn")
SHARED = "fast_litellm: all workers share one region of "
NO_APP = "def wsgi(environ, start_response):\n    raise RuntimeError\n"


def checked(
    directory: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """What gunicorn says to a configuration, without serving anything."""
    (directory / "app.py").write_text(NO_APP)
    return subprocess.run(
        [str(BIN / "gunicorn"), *arguments, "--print-config", "app:wsgi"],
        cwd=directory,
        env={**fresh_environment(), **(env or {})},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )


def settings(directory: Path, *arguments: str, **env: str) -> dict[str, str]:
    """The settings that count in the end."""
    done = checked(directory, *arguments, env=env)
    assert done.returncode == 0, done
    return dict(re.findall(r"(?m)^(\w+) += (.*)$", done.stdout))


# What counts


def test_without_a_configuration_of_the_users_all_else_is_the_default(tmp_path: Path) -> None:
    plain, ours = settings(tmp_path), settings(tmp_path, *OURS)
    assert {name for name in plain if plain[name] != ours[name]} == {
        "config",
        *("child_exit", "on_reload", "on_starting", "when_ready", "worker_exit"),
    }


@pytest.mark.parametrize(
    ("file", "variable"),
    [
        ("gunicorn.conf.py", ""),
        ("mine.py", "mine.py"),
        ("mine.py", "file:mine.py"),
        ("mine", "./mine"),
        ("mine.py", "python:mine"),
    ],
)
def test_the_users_configuration_counts(file: str, variable: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(
        "import os as umask_of\nworkers = 7\nreload = True\n_workers = 9\nnonsense = 1\n"
        "def post_fork(server, worker):\n    pass\n"
    )
    env = {"FAST_LITELLM_GUNICORN_CONFIG": variable}
    theirs, bare = settings(tmp_path, *OURS, **env), settings(tmp_path, "-c", "python:abc")
    assert {name for name in theirs if theirs[name] != bare[name]} == {
        *("workers", "reload", "config", "post_fork"),
        *("child_exit", "on_reload", "on_starting", "when_ready", "worker_exit"),
    }
    assert (theirs["workers"], theirs["reload"]) == ("7", "True")
    assert settings(tmp_path, *OURS, "-w", "3", **env)["workers"] == "3"


def test_the_named_configuration_comes_before_the_default(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("workers = 7\nthreads = 7\n")
    (tmp_path / "mine.py").write_text("workers = 6\n")
    found = settings(tmp_path, *OURS, FAST_LITELLM_GUNICORN_CONFIG="mine.py")
    assert (found["workers"], found["threads"]) == ("6", "1")


def test_a_configuration_that_is_not_there(tmp_path: Path) -> None:
    done = checked(tmp_path, *OURS, env={"FAST_LITELLM_GUNICORN_CONFIG": "nowhere.py"})
    assert done.returncode == 1
    assert "Error: FAST_LITELLM_GUNICORN_CONFIG='nowhere.py' doesn't exist" in done.stderr


def test_a_configuration_that_fails_is_shown_as_gunicorn_shows_it(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("workers = 1 / 0\n")
    ours, plain = checked(tmp_path, *OURS), checked(tmp_path)
    assert (ours.returncode, plain.returncode) == (1, 1)
    for done in (ours, plain):
        assert f"Failed to read config file: {tmp_path}/gunicorn.conf.py" in done.stderr
        assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def when_ready():\n    pass\n", "Value must have an arity of: 1"),
        ("when_ready = 5\n", "Value is not callable: 5"),
        ("when_ready = 'nowhere.hook'\n", "No module named 'nowhere'"),
        ("workers = 'many'\n", "invalid literal for int"),
    ],
)
def test_a_mistake_of_the_users_is_told_as_ever(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(text)
    for done in (checked(tmp_path), checked(tmp_path, *OURS)):
        assert done.returncode == 1
        assert message in done.stderr


def test_a_malformed_setting_stops_the_start(tmp_path: Path) -> None:
    done = checked(tmp_path, *OURS, env={"FAST_LITELLM_SHM_KEYS": "many"})
    assert done.returncode == 1
    assert "Error: FAST_LITELLM_SHM_KEYS='many' is not a whole number" in done.stderr


@pytest.mark.parametrize(
    "raw_env", [["X=1", "FAST_LITELLM_ENABLED=false"], "X=1, FAST_LITELLM_ENABLED=false"]
)
def test_settings_that_come_too_late_are_told_of(raw_env: object, tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(f"raw_env = {raw_env!r}\n")
    done = checked(tmp_path, *OURS)
    assert "set FAST_LITELLM_ENABLED in gunicorn's own environment" in done.stderr


def test_no_environment_is_one_that_gunicorn_takes(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("raw_env = None\n")
    assert settings(tmp_path, *OURS)["raw_env"] == settings(tmp_path)["raw_env"] == "[]"


# Servers


def served(*arguments: str, **options: dict[str, str]) -> CountingServer:
    """A server without --preload: the application is loaded in each worker."""
    return CountingServer("gunicorn", *arguments, "app:wsgi", "-b", "127.0.0.1:PORT", **options)


def check_sharing(server: CountingServer, workers: int) -> None:
    """All workers are in the master's region, and a limit holds over them."""
    pids = server.all_answer(workers)
    assert server.ask("/key", 3 * LIMIT).admitted == LIMIT
    (region,) = regions_of(server.pid)
    assert [regions_of(pid) for pid in pids] == [[region]] * workers


#: For hooks that say something, a line at once: workers that end together write into one log.
SAY = """
import os
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""
HOOKS = f"""{SAY}
workers = int(open("workers").read())
say("read")

def when_ready(server):
    say("hook when_ready")

class OnReload:
    def __call__(self, server):
        say("hook on_reload to", workers)

on_reload = OnReload()

def child_exit(server, worker):
    say("hook child_exit", worker.pid)

worker_exit = "hooks.worker_exit"
"""
HOOK_MODULE = f"""{SAY}
def worker_exit(server, worker):
    from fast_litellm import _native
    say("hook worker_exit", worker.pid, _native.default_region() is not None)
    raise RuntimeError("the user's own mistake")
"""


def test_workers_share_and_the_users_hooks_are_called_over_reloads() -> None:
    files = {"gunicorn.conf.py": HOOKS, "hooks.py": HOOK_MODULE, "workers": "2"}
    with served(*OURS, files=files) as server:
        check_sharing(server, 2)
        log = server.log_text()
        assert log.index("hook when_ready") < log.index(SHARED), "the user's hook comes first"
        assert (log.count(SHARED), log.count("read\n")) == (1, 1)
        assert f"fl-shm inspect --pid {server.pid}\n" in log
        for workers in (3, 1):
            old = _workers_of(server)
            server.write("workers", str(workers))
            os.kill(server.pid, signal.SIGHUP)
            server.wait_until(
                lambda w=workers: f"hook on_reload to {w}\n" in server.log_text(), 10, "reload"
            )
            for pid in old:
                for hook in (f"hook worker_exit {pid} True\n", f"hook child_exit {pid}\n"):
                    server.wait_until(lambda h=hook: h in server.log_text(), 10, "end a worker")
            until(lambda w=workers: len(_workers_of(server)) == w, f"have {workers} workers")
        assert "the user's own mistake" in server.log_text()
        # What was counted before is known to the workers of each generation.
        assert server.ask("/key", 5).admitted == 0
        assert regions_of(server.pid) == regions_of(_workers_of(server)[0])


def _workers_of(server: CountingServer) -> list[int]:
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def test_a_fault_of_ours_does_not_reach_gunicorn() -> None:
    faulty = """
import fast_litellm._gunicorn_config as ours
workers = 2
def tell(server):
    raise RuntimeError("a fault of ours")
ours.tell = tell
def when_ready(server):
    print("hook when_ready", flush=True)
def post_worker_init(worker):
    from fast_litellm import _native
    print("fallbacks:", _native.default_region().fallback_count(), flush=True)
"""
    with served(*OURS, files={"gunicorn.conf.py": faulty}) as server:
        check_sharing(server, 2)
        log = server.log_text()
        assert "hook when_ready" in log
        assert log.count("fallbacks: 1\n") == 2
        assert "a hook of fast_litellm's failed" in log
        assert "a fault of ours" in log


@pytest.mark.parametrize("config", ["gunicorn.conf.py", "python:settings"])
def test_a_configuration_of_the_users_may_begin_with_ours(config: str) -> None:
    text = """
from fast_litellm.gunicorn import *
workers = 2
print("read", flush=True)
def child_exit(server, worker):
    print("hook child_exit", flush=True)
"""
    other = config.startswith("python:")
    files = {"settings.py" if other else "gunicorn.conf.py": text}
    if other:
        files["gunicorn.conf.py"] = "raise RuntimeError('nobody asked for it')\n"
    with served("-c", config, files=files) as server:
        check_sharing(server, 2)
        log = server.log_text()
        assert (log.count(SHARED), log.count("read\n")) == (1, 1)
        os.kill(server.pid, signal.SIGHUP)
        server.wait_until(lambda: "hook child_exit" in server.log_text(), 10, "end a worker")
        check_sharing_again(server)


def check_sharing_again(server: CountingServer) -> None:
    """The counters are those of before the reload."""
    server.all_answer(2)
    assert server.ask("/key", 5).admitted == 0


def test_the_import_alone_shares_too() -> None:
    files = {"gunicorn.conf.py": "import fast_litellm\nworkers = 2\n"}
    with served(files=files) as server:
        check_sharing(server, 2)
        assert "fast_litellm" not in server.log_text()


def test_a_master_that_others_do_not_share_with_says_so() -> None:
    """As that of an upgrade to another layout."""
    done = run_python(
        """
        from types import SimpleNamespace as Made
        import fast_litellm._gunicorn_config as ours
        apart = Made(origin="created", obstacles=["it has another layout"])
        ours._native = Made(default_region=lambda: apart)
        say = lambda text, *arguments: print(text % arguments)
        ours.tell(Made(log=Made(warning=say, info=say)))
        """
    )
    reason = "limits are NOT shared between workers: it has another layout"
    assert done.stdout == f"fast_litellm: {reason}\n"


def test_switched_off_it_says_so() -> None:
    env = {"FAST_LITELLM_ENABLED": "false"}
    with served(*OURS, "-w", "2", env=env) as server:
        server.all_answer(2)
        reason = "limits are NOT shared between workers: FAST_LITELLM_ENABLED is false"
        assert reason in server.log_text()
        assert regions_of(server.pid) == []
