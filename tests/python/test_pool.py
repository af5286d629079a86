"""Proves that connections are counted over all workers, whatever becomes of those that hold them."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fast_litellm
from fast_litellm import ConfigError, OutOfRangeError, SimpleConnectionPool
from fast_litellm._rust import Region
from support import Forked, Worker, forked, libc_fork, run_python, until

A, B = "https://one.example/v1", "https://two.example/v1"
COUNTS = ("created", "reused", "refused", "expired", "taken_over", "stale_returns")

Make = Callable[..., SimpleConnectionPool]


@pytest.fixture
def make(region: Region) -> Make:
    """Makes the pool of this test."""

    def make(each: int = 3, total: int = 5, **settings: Any) -> SimpleConnectionPool:
        return SimpleConnectionPool(
            "test", max_per_endpoint=each, max_total=total, region=region, **settings
        )

    return make


@pytest.fixture
def worker(make: Make) -> Iterator[Worker]:
    """Another process that uses the pool."""
    worker = Worker(make())
    yield worker
    if worker.running:
        worker.kill()


def connections(pool: SimpleConnectionPool) -> tuple[int, int]:
    """In use, and idle; endpoints and pool agree."""
    stats = pool.get_stats()
    endpoints = stats["endpoints"].values()
    active, idle = stats["active_connections"], stats["idle_connections"]
    assert stats["total_connections"] == active + idle
    assert sum(endpoint["active"] for endpoint in endpoints) == active
    assert sum(endpoint["idle"] for endpoint in endpoints) == idle
    assert all(each["total"] == each["active"] + each["idle"] for each in endpoints)
    return active, idle


def lasting(connection_id: str | None) -> str:
    """What of an id stays the same as long as the connection lasts."""
    assert connection_id is not None
    return connection_id.rpartition(".")[0]


def got(pool: SimpleConnectionPool, endpoint: str = A) -> str:
    connection_id = pool.get_connection(endpoint)
    assert connection_id is not None
    return connection_id


def test_the_documented_functions_work_on_one_default_pool() -> None:
    done = run_python(
        """
import json
import fast_litellm as fl
held = [fl.get_connection("https://h/v1") for _ in range(11)]
assert held.pop() is None and all(isinstance(each, str) for each in held)
first, second, third, *_ = held
alive = [fl.health_check_connection(first)]
answers = [fl.return_connection(first), fl.remove_connection(second),
           fl.cleanup_expired_connections()]
alive += [fl.health_check_connection(each) for each in (first, second)]
pool = fl.SimpleConnectionPool()
again = pool.get_connection("https://h/v1")
assert again.rpartition(".")[0] == first.rpartition(".")[0] and again != first
fl.return_connection(third, success=False, error="status 503")
assert fl.get_connection_pool_stats() == pool.get_stats()
print(json.dumps([answers, alive, pool.pool_name, pool.get_stats()]))"""
    )
    answers, alive, name, stats = json.loads(done.stdout)
    assert (answers, alive, name) == ([None] * 3, [True, True, False], "default")
    endpoint = stats["endpoints"].pop("https://h/v1")
    failure = endpoint.pop("last_failure")
    # A second may begin between the two.
    assert failure.pop("age_s") in (0, 1)
    assert failure == {"kind": "server", "status": 503}
    assert endpoint == {
        **{"active": 8, "idle": 0, "total": 8, "healthy": True},
        **{"failures_in_a_row": 1, "failures": 1},
    }
    assert stats == {
        **{"total_connections": 8, "active_connections": 8, "idle_connections": 0},
        **{"max_total_connections": 100, "max_connections_per_endpoint": 10, "endpoints": {}},
        **{"created": 10, "reused": 1, "refused": 1, "expired": 0, "taken_over": 0},
        "stale_returns": 0,
    }


def test_limits_hold_over_workers_and_idle_connections_count(make: Make, worker: Worker) -> None:
    pool = make()
    mine = [got(pool), got(pool)]
    theirs = worker.call("get_connection", A)
    assert theirs is not None
    assert pool.get_connection(A) is None
    assert worker.call("get_connection", A) is None
    assert None not in (worker.call("get_connection", B), pool.get_connection(B))
    # The pool is full.
    assert pool.get_connection("c") is None
    assert connections(pool) == (5, 0)
    pool.return_connection(mine[0])
    assert connections(pool) == (4, 1)
    assert worker.call("get_stats") == pool.get_stats()
    assert pool.get_stats()["refused"] == 3


def test_the_connection_used_last_comes_back(make: Make) -> None:
    pool = make()
    held = [got(pool) for _ in range(3)]
    for each in held:
        pool.return_connection(each)
    again = [got(pool) for _ in range(3)]
    assert [lasting(each) for each in again] == [lasting(each) for each in reversed(held)]
    assert len({*held, *again}) == 6, "no id is handed out twice"
    assert {name: pool.get_stats()[name] for name in ("created", "reused")} == {
        "created": 3,
        "reused": 3,
    }


def test_an_idle_connection_is_taken_over_and_not_handed_out_by_its_worker_again(
    make: Make,
) -> None:
    pool = make(each=1, total=2)
    worker = Worker(pool)
    mine = got(pool)
    assert worker.call("get_connection", B) is not None
    assert worker.call("get_connection", "c") is None, "what is in use is nobody else's"
    pool.return_connection(mine)
    # To make room in the pool.
    theirs = worker.call("get_connection", "c")
    assert theirs is not None
    assert pool.health_check(mine) is False
    assert pool.get_connection(A) is None
    worker.call("return_connection", theirs)
    # And back, to make room again.
    again = got(pool)
    assert lasting(again) != lasting(mine)
    assert worker.call("get_connection", "c") is None
    assert worker.call("health_check", theirs) is False
    stats = pool.get_stats()
    assert (stats["taken_over"], connections(pool)) == (2, (2, 0))
    worker.kill()


def test_a_connection_that_is_given_back_twice_is_pooled_once(make: Make) -> None:
    pool = make()
    first = got(pool)
    pool.return_connection(first)
    pool.return_connection(first)
    second = got(pool)
    # Late, when the connection is in use again.
    pool.return_connection(first)
    pool.remove_connection(first)
    assert pool.report(first, success=False) is False
    assert connections(pool) == (1, 0)
    other = got(pool)
    assert lasting(other) != lasting(second)
    pool.remove_connection(second)
    pool.remove_connection(second)
    assert (pool.get_stats()["stale_returns"], connections(pool)) == (4, (1, 0))


@pytest.mark.parametrize("fork", [os.fork, libc_fork])
def test_a_forked_child_cannot_give_its_parents_connections_back(
    make: Make, fork: Callable[[], int]
) -> None:
    pool = make(each=2, total=2)
    used, idle = got(pool), got(pool)
    pool.return_connection(idle)

    def child() -> tuple[bool, bool, str | None, str | None]:
        pool.return_connection(used)
        pool.remove_connection(idle)
        healthy = pool.health_check(used) or pool.health_check(idle)
        told = pool.report(used, success=False)
        # It takes the idle one over, as any other worker.
        return healthy, told, pool.get_connection(A), pool.get_connection(A)

    healthy, told, theirs, refused = forked(child, fork)
    assert (healthy, told, refused) == (False, False, None)
    assert theirs is not None
    assert lasting(theirs) != lasting(idle)
    assert pool.get_stats()["stale_returns"] == 2
    assert connections(pool) == (1, 0), "the child has ended"
    assert pool.health_check(used)
    assert not pool.health_check(idle)


def test_what_a_killed_worker_held_is_free_at_once(make: Make, worker: Worker) -> None:
    pool = make()
    held = [worker.call("get_connection", A) for _ in range(3)]
    worker.call("return_connection", held[0])
    assert connections(pool) == (2, 1)
    worker.kill()
    assert connections(pool) == (0, 0)
    assert None not in [pool.get_connection(A) for _ in range(3)]
    # Its ids are nobody's.
    for each in held:
        pool.return_connection(each)
    assert (pool.get_stats()["stale_returns"], connections(pool)) == (3, (3, 0))


def test_a_connection_is_not_kept_for_longer_than_it_may_be(make: Make, worker: Worker) -> None:
    brief, short, pool = make(idle_timeout_s=2), make(max_age_s=2), make()
    used, idle = got(pool), got(pool)
    pool.return_connection(idle)
    theirs = worker.call("get_connection", B)
    worker.call("return_connection", theirs)
    assert brief.health_check(idle)
    assert short.health_check(used)
    until(lambda: not (brief.health_check(idle) or short.health_check(used)), "get old")
    assert pool.health_check(idle)
    assert pool.health_check(used)
    # Too old to be kept, and too long idle to be handed out.
    short.return_connection(used)
    assert connections(pool) == (0, 2)
    assert lasting(brief.get_connection(A)) != lasting(idle)
    assert connections(pool) == (1, 1)
    # Whoever keeps it.
    brief.cleanup()
    assert connections(pool) == (1, 0)
    stats = pool.get_stats()
    assert (stats["expired"], stats["stale_returns"]) == (3, 0)


def test_all_workers_know_how_an_endpoint_is(make: Make, worker: Worker) -> None:
    pool = make()
    mine, theirs = got(pool), worker.call("get_connection", A)
    other = got(pool, B)
    pool.report(mine, success=False, error=TimeoutError("late"))
    worker.call("report", theirs, False)
    assert pool.health_check(mine)
    pool.report(mine, success=True)
    for _ in range(2):
        assert worker.call("report", theirs, False, "connection refused") is True
    assert pool.health_check(mine)
    pool.return_connection(mine, success=False, error="status 503")
    assert worker.call("health_check", theirs) is False
    assert pool.health_check(other)
    found = pool.get_stats()["endpoints"]
    assert (found[A]["healthy"], found[A]["failures_in_a_row"]) == (False, 3)
    assert (found[B]["healthy"], found[A]["failures"], found[A]["idle"]) == (True, 5, 0)
    assert found[A]["last_failure"]["status"] == 503
    # It recovers by being used.
    again = got(pool)
    pool.return_connection(again, success=True)
    assert worker.call("health_check", theirs) is True
    assert pool.health_check(again), "idle, and healthy"


@pytest.mark.parametrize(
    "wrong",
    ["", "nope", "#", A, f"{A}#1.2.3", f"{A}#1.2.3.g", f"{A}#1.2.3.04", f"{A}#1.2.3.4\n", "\udc80"],
)
def test_what_is_no_id_is_refused_with_its_value(make: Make, wrong: str) -> None:
    pool = make()
    for call in (pool.return_connection, pool.remove_connection, pool.health_check):
        with pytest.raises(ValueError, match=r"connection_id=.* is no id: pass one as get_conn"):
            call(wrong)
    assert pool.get_stats()["stale_returns"] == 0


def test_ids_that_were_made_up_change_nothing(make: Make) -> None:
    pool = make()
    record, slot, generation, use = got(pool).rpartition("#")[2].split(".")
    changed = [
        (f"{int(record, 16) + 1:x}", slot, generation, use),
        (record, "1", generation, use),
        (record, "ffff", generation, use),
        (record, slot, f"{int(generation, 16) ^ 1:x}", use),
        (record, slot, generation, f"{int(use, 16) + 1:x}"),
        ("ffffffff", slot, generation, use),
    ]
    for parts in changed:
        pool.return_connection(f"{A}#{'.'.join(parts)}")
        assert not pool.health_check(f"{A}#{'.'.join(parts)}")
    assert connections(pool) == (1, 0)
    assert pool.get_stats()["stale_returns"] == len(changed)


def test_arguments_of_other_types_are_type_errors(make: Make) -> None:
    pool = make()
    calls: list[Any] = [pool.get_connection, pool.return_connection, pool.health_check]
    for call, wrong in itertools.product(calls, (None, 5, b"x")):
        with pytest.raises(TypeError, match="must be a str, not"):
            call(wrong)


def test_no_secret_is_in_the_region_in_an_id_or_in_an_error(make: Make, region: Region) -> None:
    pool = make()
    secret = "https://user:hunter2@host:8443/v1/sk-0123456789?key=hunter2#hunter2"
    connection_id = got(pool, secret)
    assert connection_id.startswith("https://host:8443/v1/sk-012..#")
    assert lasting(connection_id) != lasting(got(pool, secret.replace("user", "other")))
    assert set(pool.get_stats()["endpoints"]) == {
        "https://host:8443/v1/sk-012..",
        "https://host:8443/v1/sk-012.. (2)",
    }
    with pytest.raises(ValueError, match="is no id") as error:
        pool.return_connection(secret)
    for text in (connection_id, region.inspect(), str(error.value)):
        assert "hunter2" not in text
        assert "0123456789" not in text


def test_the_inspector_shows_pools(make: Make, region: Region) -> None:
    pool = make()
    got(pool)
    pool.return_connection(got(pool))
    report = json.loads(region.inspect())
    (found,) = report["pools"]
    (endpoint,) = found["endpoints"]
    assert (found["pool"], found["connections"], found["idle"], found["limit"]) == ("test", 2, 1, 5)
    assert (endpoint["endpoint"], endpoint["connections"], endpoint["limit"]) == (A, 2, 3)
    assert {name: found[name] for name in COUNTS} == {
        name: pool.get_stats()[name] for name in COUNTS
    }
    leases = {lease["key"]: (lease["held"], lease.get("idle")) for lease in report["leases"]}
    assert leases == {"pool test": (2, 1), f"pool test: {A}": (2, 1)}


def test_settings_come_from_the_environment(
    region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAST_LITELLM_POOL_MAX_PER_ENDPOINT", "1")
    monkeypatch.setenv("FAST_LITELLM_POOL_MAX_TOTAL", "2")
    monkeypatch.setenv("FAST_LITELLM_POOL_IDLE_TIMEOUT_S", "7.5")
    monkeypatch.setenv("FAST_LITELLM_POOL_MAX_AGE_S", "0")
    pool = SimpleConnectionPool("configured", region=region)
    assert [pool.get_connection(each) is None for each in "aabc"] == [False, True, False, True]
    # An argument counts for more.
    assert SimpleConnectionPool("configured", max_total=3, region=region).get_connection("c")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(("MAX_PER_ENDPOINT", "MAX_TOTAL"), ("0", "-1", "65536", "ten", "1.5")),
        *itertools.product(("IDLE_TIMEOUT_S", "MAX_AGE_S"), ("-1", "nan", "inf", "1e9", "soon")),
    ],
)
def test_a_malformed_setting_is_named(
    region: Region, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"FAST_LITELLM_POOL_{name}", value)
    with pytest.raises(ConfigError, match=rf"FAST_LITELLM_POOL_{name}=.*{re.escape(value)}"):
        SimpleConnectionPool("malformed", region=region)


@pytest.mark.parametrize(
    "settings",
    [
        *({"max_per_endpoint": each} for each in (0, -1, 65_536, 2**70)),
        *({"max_total": each} for each in (0, 65_536)),
        *({"idle_timeout_s": each} for each in (-0.1, float("nan"), 1e9)),
        {"max_age_s": -1},
    ],
)
def test_an_argument_out_of_range_is_named(region: Region, settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(OutOfRangeError, match=f"{name}=.*: use "):
        SimpleConnectionPool("wrong", region=region, **settings)


# Many at once


class Oracle:
    """Knows who uses which connection, and says so when there are too many, or one is used twice."""

    def __init__(self, path: Path, each: int, total: int) -> None:
        self.path, self.each, self.total = path, each, total
        path.write_text("{}")
        self.lock = path.with_suffix(".lock")
        self.lock.touch()

    def change(self, connection_id: str, *, used: bool) -> None:
        """Note the beginning or the end of a use, as the only process."""
        record, slot, *_ = connection_id.rpartition("#")[2].split(".")
        with self.lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            holders = json.loads(self.path.read_text())
            holders = {place: pid for place, pid in holders.items() if lives(pid)}
            place = f"{record}.{slot}"
            assert (place in holders) is not used, f"{place} is used by {holders}"
            holders.pop(place, None)
            if used:
                holders[place] = os.getpid()
                of_endpoints = Counter(each.partition(".")[0] for each in holders)
                assert max(of_endpoints.values()) <= self.each, holders
                assert len(holders) <= self.total, holders
            # Whoever is killed here has not written.
            fresh = self.path.with_suffix(f".{os.getpid()}")
            fresh.write_text(json.dumps(holders))
            fresh.replace(self.path)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def work(pool: SimpleConnectionPool, oracle: Oracle, seed: int, end: Path) -> int:
    """Use some connections, and more until there is a file `end`, or until one is used by two."""
    chance, uses = random.Random(seed), 0
    held: list[str] = []
    while uses < 20 or not end.exists():
        connection_id = pool.get_connection(chance.choice((A, B, "c")))
        if connection_id is not None:
            oracle.change(connection_id, used=True)
            held.append(connection_id)
            uses += 1
        if held and (connection_id is None or chance.random() < 0.7):
            ended = held.pop(chance.randrange(len(held)))
            oracle.change(ended, used=False)
            chance.choice((pool.return_connection, pool.return_connection, pool.remove_connection))(
                ended
            )
            if chance.random() < 0.1:
                pool.return_connection(ended)
    for each in held:
        oracle.change(each, used=False)
        pool.return_connection(each)
    return uses


def test_workers_that_are_killed_never_have_more_than_the_limits(
    make: Make, tmp_path: Path
) -> None:
    pool, oracle = make(each=3, total=5), Oracle(tmp_path / "holders", 3, 5)
    chance, seeds, end = random.Random(11), itertools.count(), tmp_path / "end"

    def start() -> Forked[int]:
        seed = next(seeds)
        return Forked(lambda: work(pool, oracle, seed, end))

    workers = [start() for _ in range(4)]
    kills = 0

    def enough() -> bool:
        nonlocal kills
        time.sleep(0.05)
        workers.pop(chance.randrange(4)).kill()
        workers.append(start())
        kills += 1
        stats = pool.get_stats()
        return kills >= 20 and stats["stale_returns"] > 0 and stats["taken_over"] > 0

    until(enough, "kill workers that hold connections", 30)
    end.touch()
    assert sum(worker.result() for worker in workers) > 50
    # They have all ended, and took what they kept with them.
    pool.cleanup()
    assert connections(pool) == (0, 0)
    held = [pool.get_connection(each) for each in (A, A, A, A, B, B, B)]
    assert [each is None for each in held] == [False] * 3 + [True] + [False] * 2 + [True]


# Without the extension

SCENARIO = """
import json, warnings
warnings.simplefilter("ignore")
import fast_litellm as fl
from fast_litellm import SimpleConnectionPool
def told(call, *args, **kwargs):
    try:
        return repr(call(*args, **kwargs))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
pool = SimpleConnectionPool("p", max_per_endpoint=2, max_total=3)
get, back = pool.get_connection, pool.return_connection
seen = []
a, b = get("x"), get("x")
seen += [get("x"), told(back, a), told(back, a), pool.health_check(a), pool.health_check(b)]
again = get("x")
seen += [again.rpartition(".")[0] == a.rpartition(".")[0], again == a, pool.report(a, False)]
seen += [pool.report(again, False, "status 503") for _ in range(2)]
seen += [pool.health_check(b), pool.report(b, False, TimeoutError()), pool.health_check(b)]
seen += [pool.get_stats()]
back(b, success=True)
c = get("https://u:secret@y/v1?k=1")
d = get("https://u:secret@y/v1?k=1")
seen += [pool.health_check(b), c.partition("#")[0], d is None, get("z"), pool.get_stats()]
pool.remove_connection(c)
pool.remove_connection(c)
back(again, False)
for wrong in ("", "nope", "https://u:secret@y", "x#1.2.3.04", None, 5):
    seen += [told(back, wrong), told(pool.health_check, wrong)]
seen += [told(get, wrong) for wrong in (None, b"x")]
for settings in ({"max_total": 0}, {"max_per_endpoint": 65536}, {"idle_timeout_s": -1}):
    seen += [told(SimpleConnectionPool, "q", **settings)]
seen += [SimpleConnectionPool("p").get_stats(), fl.get_connection_pool_stats(), pool.pool_name]
e = fl.get_connection("m")
seen += [fl.health_check_connection(e), fl.return_connection(e), fl.remove_connection(e)]
seen += [fl.health_check_connection(e), fl.cleanup_expired_connections()]
seen += [SimpleConnectionPool().get_stats()]
print(json.dumps(seen))
"""


def test_with_and_without_the_extension_pools_behave_alike() -> None:
    without = "import sys; sys.modules['fast_litellm._rust'] = None\n"
    native, plain = (json.loads(run_python(each + SCENARIO).stdout) for each in ("", without))
    for number, (ours, theirs) in enumerate(zip(native, plain, strict=True)):
        assert ours == theirs, number


def test_a_child_without_the_extension_begins_anew() -> None:
    done = run_python(
        """
import sys; sys.modules['fast_litellm._rust'] = None
import os, warnings
warnings.simplefilter("ignore")
from fast_litellm import SimpleConnectionPool
pool = SimpleConnectionPool(max_per_endpoint=1)
held = pool.get_connection("x")
if os.fork() == 0:
    pool.return_connection(held)
    own = pool.get_connection("x")
    os._exit(0 if own and pool.get_stats()["stale_returns"] == 1 else 1)
print(os.waitstatus_to_exitcode(os.wait()[1]), pool.health_check(held), pool.get_connection("x"))"""
    )
    assert done.stdout.split() == ["0", "True", "None"]


def test_the_package_exports_them() -> None:
    names = ["SimpleConnectionPool", "get_connection", "return_connection", "remove_connection"]
    names += ["health_check_connection", "cleanup_expired_connections", "get_connection_pool_stats"]
    assert set(names) <= set(fast_litellm.__all__)
