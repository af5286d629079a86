"""Proves that limits are exact however servers are started and whatever becomes of their workers."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.life import remains
from harness.life.client import Client
from harness.life.judge import Limits
from harness.life.servers import Granian, Gunicorn, LifeServer, Uvicorn
from lives import (
    AFTER,
    can_be_filled,
    ends_without_trace,
    holding,
    key,
    loading,
    nothing_of_the_dead_is_held,
    one_region,
    under_load,
)
from support import until

#: Either makes the master have the region, although it does not load the application.
IMPORTED = "import fast_litellm\n"
HOOKS = ("-c", "python:fast_litellm.gunicorn")
#: Workers have it long after those before have ended.
LATE = {"LIFE_IMPORTS_S": "0.7"}

#: What is said about it otherwise.
FORETOLD = "a reload (SIGHUP) may begin with empty counters"

STARTS: dict[str, Callable[[], LifeServer]] = {
    "preload-uvloop": Gunicorn,
    "preload-asyncio": lambda: Gunicorn("uvicorn.workers.UvicornH11Worker"),
    "preload-gthread": lambda: Gunicorn("gthread"),
    "preload-sync": lambda: Gunicorn("sync", workers=3, limits=Limits(slots=2)),
    "uvloop": lambda: Gunicorn(preload=False),
    "gthread": lambda: Gunicorn("gthread", preload=False),
    "sync": lambda: Gunicorn("sync", preload=False, workers=3, limits=Limits(slots=2)),
    "configuration-gthread": lambda: Gunicorn(
        "gthread", preload=False, configuration=IMPORTED, environment=LATE
    ),
    "hooks-uvloop": lambda: Gunicorn(preload=False, arguments=HOOKS, environment=LATE),
    "uvicorn": lambda: Uvicorn(workers=2),
    "uvicorn-alone": lambda: Uvicorn(workers=1),
    "granian": lambda: Granian(workers=2),
}

LOOPS = {"preload-uvloop": "uvloop", "preload-asyncio": "asyncio", "uvloop": "uvloop"}


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[LifeServer]:
    """One that lives through all that follows."""
    if request.param == "granian":
        pytest.importorskip("granian")
    with STARTS[request.param]() as server:
        yield server


def of(*starts: str) -> pytest.MarkDecorator:
    """The starts that a test is about."""
    return pytest.mark.parametrize("server", starts, indirect=True)


def check(server: LifeServer) -> None:
    """What holds whenever things have calmed down."""
    nothing_of_the_dead_is_held(server)
    one_region(server, server.workers)
    can_be_filled(server)


@of(*STARTS)
def test_all_workers_share_exact_limits(server: LifeServer, request: pytest.FixtureRequest) -> None:
    with under_load(server) as run:
        loop = run.client.about().get("loop")
        server.until(lambda: len(run.pids()) == server.workers, "answer by every worker")
        run.load.more(50)
    start = request.node.callspec.params["server"]
    assert loop == LOOPS.get(start, loop)
    check(server)


@of("preload-uvloop", "preload-gthread", "preload-sync", "uvloop", "uvicorn", "granian")
def test_what_a_killed_worker_held_is_free_again(server: LifeServer) -> None:
    """SIGKILL is what the kernel sends, too, when memory runs out."""
    with under_load(server) as run:
        name, old = key(), server.worker_pids()
        with holding(server, run.client, name) as answers:
            held = remains.held(server.region_name, name)
            victim = max(held, key=lambda pid: held[pid])
            os.kill(victim, signal.SIGKILL)
            until(lambda: run.client.use(name).slot, "free what the dead held")
            with holding(server, run.client, name, held[victim]) as others:
                assert not run.client.use(name).slot
        assert sum(1 for answer in answers if answer.fault) == held[victim]
        assert all(answer.slot and answer.connection for answer in others)
        server.until(lambda: len(server.worker_pids()) == server.workers, "replace the dead worker")
        run.load.more(AFTER, of=sorted(set(server.worker_pids()) - set(old)))
    check(server)
    can_be_filled(server, name)


@of("preload-uvloop", "configuration-gthread", "hooks-uvloop")
def test_a_master_that_has_the_region_frees_slots_though_nobody_asks(server: LifeServer) -> None:
    name = key()
    with Client(server.port) as client, holding(server, client, name):
        held = remains.held(server.region_name, name)
        victim = max(held, key=lambda pid: held[pid])
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in remains.held(server.region_name, name), "free what it held")
    server.until(lambda: len(server.worker_pids()) == server.workers, "replace the dead worker")


@of("preload-uvloop", "configuration-gthread", "hooks-uvloop")
def test_a_reload_keeps_what_was_counted(server: Gunicorn) -> None:
    with under_load(server) as run:
        old = server.worker_pids()
        new = server.reload()
        run.load.more(AFTER, of=new)
    assert not set(old) & set(new)
    check(server)


@of("preload-uvloop", "hooks-uvloop")
def test_reloads_in_quick_succession(server: Gunicorn) -> None:
    with under_load(server) as run:
        for _ in range(4):
            done = server.reloads_begun()
            os.kill(server.master_pid, signal.SIGHUP)
            # The next one is asked for before this one is over.
            server.until(lambda done=done: server.reloads_begun() > done, "begin to reload")
        run.load.more(AFTER, of=server.after_last_reload())
    check(server)


def test_a_reload_without_the_region_in_the_master_may_begin_anew(tmp_path: Path) -> None:
    """A region ends with its last process: here when old workers end before the new ones have it."""
    imports_after = tmp_path / "go"
    imports_after.touch()
    environment = {"LIFE_IMPORTS_AFTER": str(imports_after)}
    with Gunicorn(preload=False, environment=environment) as server:
        with loading(server) as run:
            old = server.worker_pids()
            imports_after.unlink()
            os.kill(server.master_pid, signal.SIGHUP)
            server.until(lambda: not set(old) & set(server.worker_pids()), "end its old workers")
            imports_after.touch()
            run.load.more(AFTER, of=server.worker_pids())
        assert run.verdict(of=old) == []
        assert run.verdict(of=server.worker_pids()) == []
        check(server)
        # By whoever made a region, first and again.
        assert server.log_text().count(FORETOLD) == 2


@of("preload-gthread", "uvloop")
def test_workers_are_added_and_taken_away(server: Gunicorn) -> None:
    with under_load(server) as run:
        old = server.worker_pids()
        os.kill(server.master_pid, signal.SIGTTIN)
        server.until(lambda: len(server.worker_pids()) == server.workers + 1, "add a worker")
        [added] = set(server.worker_pids()) - set(old)
        run.load.more(10, of=[added])
        os.kill(server.master_pid, signal.SIGTTOU)
        server.until(lambda: len(server.worker_pids()) == server.workers, "take one away")
    check(server)


@of("uvicorn")
def test_uvicorns_own_reload_and_its_number_of_workers(server: LifeServer) -> None:
    with under_load(server) as run:
        old = server.worker_pids()
        os.kill(server.master_pid, signal.SIGHUP)
        run.load.more(AFTER, of=server.replaced(old))
        os.kill(server.master_pid, signal.SIGTTIN)
        server.until(lambda: len(server.worker_pids()) == server.workers + 1, "add a worker")
        os.kill(server.master_pid, signal.SIGTTOU)
        server.until(lambda: len(server.worker_pids()) == server.workers, "take one away")
    check(server)


@of(*STARTS)
def test_in_the_end_all_is_gone(server: LifeServer, request: pytest.FixtureRequest) -> None:
    start = request.node.callspec.params["server"]
    said = server.log_text()
    assert said.count(FORETOLD) == (start in ("uvloop", "gthread", "sync"))
    assert "NOT shared" not in said
    ends_without_trace(server)


def test_workers_that_end_after_some_requests() -> None:
    with Gunicorn(arguments=["--max-requests", "40", "--max-requests-jitter", "10"]) as server:
        with under_load(server) as run:
            server.until(lambda: len(run.pids()) >= 6, "recycle its workers")
        server.until(lambda: len(server.worker_pids()) == server.workers, "replace the last")
        check(server)


def test_limits_that_were_changed_hold_after_a_reload() -> None:
    with Gunicorn(preload=False, limits=Limits(slots=2)) as server:
        can_be_filled(server, "key:changed")
        for slots in (4, 1):
            server.configure(f"raw_env = ['LIFE_SLOTS={slots}']\n")
            server.reload()
            server.limits = Limits(slots=slots)
            can_be_filled(server, "key:changed")


def test_what_workers_that_hang_held_is_free_again() -> None:
    """gunicorn sends SIGABRT, and SIGKILL to the one that does not hear it."""
    with Gunicorn(workers=3, timeout_s=6) as server:
        with under_load(server) as run:
            name, old = key(), server.worker_pids()
            with holding(server, run.client, name):
                # Both at once might be killed in one round: then the other one has no time to hear.
                for deaf in (True, False):
                    hanging = run.client.begin_hang(deaf=deaf)
                    with pytest.raises((OSError, EOFError)):
                        hanging.result(30)
            server.until(
                lambda: len(server.worker_pids()) == server.workers, "replace the dead workers"
            )
            run.load.more(AFTER, of=sorted(set(server.worker_pids()) - set(old)))
        for number in ("SIGABRT", "SIGKILL"):
            assert f"was sent {number}!" in server.log_text()
        check(server)
        can_be_filled(server, name)
