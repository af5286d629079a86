"""Proves that forked processes share one region, own only what is theirs, and lose it when they die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fast_litellm._rust import LimiterScripts, Region, SimpleRateLimiter, UnavailableError
from support import (
    WAIT_S,
    Forked,
    Worker,
    forked,
    fresh_environment,
    kernel_fork,
    libc_fork,
    os_fork,
    run_python,
    state_of,
    until,
)

KEY = "{api_key:a}:max_parallel_requests"
TTL_S = 3600


class Slots:
    """Concurrency slots of a region, one at a time."""

    def __init__(self, region: Region) -> None:
        self._scripts = LimiterScripts(region)
        self._region = region

    def acquire(self, slot_id: str, limit: int = 5, key: str = KEY) -> bool:
        return self._scripts.parallel_acquire([key], [limit, TTL_S, slot_id])[0] == 0

    def release(self, slot_id: str, key: str = KEY) -> int:
        return int(self._scripts.parallel_release([key], [slot_id])[0])

    def count(self, key: str = KEY) -> int:
        return int(self._scripts.parallel_count([key], [TTL_S])[0])

    def held(self, key: str = KEY) -> int:
        """Slots held, counted one by one."""
        leases = json.loads(self._region.inspect())["leases"]
        name = key.strip("{").partition("}")[0]
        return sum(lease["held"] for lease in leases if lease["key"] == name)

    def hits(self, times: int) -> list[int]:
        keys = ["{api_key:a}:window", "{api_key:a}:requests"]
        return [int(self._scripts.batch_rate_limiter(keys, [0, 3600])[1]) for _ in range(times)]

    def leave(self) -> None:
        self._region.leave()

    def pid(self) -> int:
        return os.getpid()


@pytest.fixture
def slots(region: Region) -> Slots:
    return Slots(region)


def pids(region: Region) -> list[int]:
    return [worker["pid"] for worker in json.loads(region.inspect())["workers"]]


def test_children_count_into_the_same_counters(slots: Slots) -> None:
    children = [Forked(lambda: slots.hits(50)) for _ in range(4)]
    counts = [count for child in children for count in child.result()]
    assert sorted(counts) == list(range(1, 201))
    assert slots.hits(1) == [201]


def test_children_compete_for_the_same_slots(slots: Slots) -> None:
    workers = [Worker(slots) for _ in range(4)]
    try:
        got = sum(
            worker.call("acquire", f"{worker.pid}-{n}") for n in range(5) for worker in workers
        )
        assert got == 5
        assert slots.held() == 5
        assert not slots.acquire("mine")
    finally:
        for worker in workers:
            worker.kill()


@pytest.mark.parametrize("waited_for", [True, False], ids=["waited-for", "zombie"])
def test_slots_of_a_killed_child_are_free_for_the_next_one(slots: Slots, waited_for: bool) -> None:
    with Worker(slots) as holder:
        assert all(holder.call("acquire", str(n)) for n in range(5))
        assert not slots.acquire("mine")
        holder.kill(wait=waited_for)
        try:
            # A process looks for dead workers only every so often while it is being refused.
            until(lambda: slots.acquire("mine"), "free a slot", timeout_s=1.0)
            assert slots.held() == 1
            assert all(slots.acquire(f"mine-{n}") for n in range(4))
            assert not slots.acquire("one too many")
        finally:
            if not waited_for:
                holder.reap()


def test_reap_frees_the_slots_of_a_killed_child(region: Region, slots: Slots) -> None:
    with Worker(slots) as holder, Worker(slots) as other:
        assert [holder.call("acquire", str(n)) for n in range(3)] == [True] * 3
        assert other.call("acquire", "other")
        holder.kill()
        assert slots.held() == 4
        assert region.reap() == 1
        assert slots.held() == 1
        assert holder.pid not in pids(region)
        assert other.pid in pids(region)
        assert region.reap() == 0


@pytest.mark.parametrize("how", ["killed", "left"])
def test_replies_do_not_count_the_slots_of_a_child_that_is_gone(
    region: Region, slots: Slots, how: str
) -> None:
    assert slots.acquire("mine")
    with Worker(slots) as holder:
        assert [holder.call("acquire", str(n)) for n in range(3)] == [True] * 3
        if how == "left":
            holder.call("leave")
        holder.kill()
    region.reap()
    assert slots.count() == 1
    assert slots.release("mine") == 0


def test_a_child_that_leaves_gives_its_slots_back(region: Region, slots: Slots) -> None:
    assert slots.acquire("mine")
    with Worker(slots) as child:
        assert child.call("acquire", "child")
        child.call("leave")
        assert slots.held() == 1
        assert child.pid not in pids(region)
        # It can go on, as somebody new.
        assert child.call("acquire", "again")
        assert child.pid in pids(region)


def test_a_slot_is_given_back_by_its_holder_only(slots: Slots) -> None:
    assert slots.acquire("mine")
    with Worker(slots) as child:
        child.call("release", "mine")
        assert slots.held() == 1
        assert child.call("acquire", "child")
        slots.release("child")
        assert slots.held() == 2
        assert child.call("release", "child") == 1
    slots.release("mine")
    assert slots.held() == 0


def test_a_stopped_child_keeps_its_slots(region: Region, slots: Slots) -> None:
    with Worker(slots) as holder:
        assert all(holder.call("acquire", str(n)) for n in range(5))
        holder.stop()
        try:
            for _ in range(5):
                assert not slots.acquire("mine")
                assert region.reap() == 0
                time.sleep(0.06)  # longer than a process waits between two looks for dead workers
        finally:
            holder.resume()
        assert holder.call("release", "0") == 4
        assert slots.acquire("mine")


def test_a_grandchild_outlives_its_parent(region: Region, slots: Slots) -> None:
    def have_a_child() -> int:
        ready, done = os.pipe()
        pid = os_fork()
        if pid == 0:
            slots.acquire("grandchild")
            os.write(done, b".")
            os.close(ready)
            time.sleep(60)
            os._exit(0)
        slots.acquire("child")
        os.read(ready, 1)
        return pid

    grandchild = forked(have_a_child)
    try:
        assert region.reap() == 1
        assert slots.held() == 1
        assert pids(region) == [os.getpid(), grandchild]
    finally:
        os.kill(grandchild, signal.SIGKILL)
    until(lambda: state_of(grandchild) in ("", "Z"), "die")
    assert region.reap() == 1
    assert slots.held() == 0


def test_every_generation_counts_into_the_same_region(slots: Slots) -> None:
    def generation(left: int) -> list[int]:
        counts = slots.hits(10)
        return counts + forked(lambda: generation(left - 1)) if left else counts

    assert generation(3) == list(range(1, 41))


def test_a_child_forked_by_a_thread_shares_the_region(region: Region, slots: Slots) -> None:
    assert slots.acquire("mine")
    results: list[tuple[list[int], bool, bool]] = []

    def child() -> tuple[list[int], bool, bool]:
        return slots.hits(10), slots.acquire("child"), os.getpid() in pids(region)

    thread = threading.Thread(target=lambda: results.append(forked(child)))
    thread.start()
    thread.join()
    assert results == [(list(range(1, 11)), True, True)]
    assert region.reap() == 1
    assert slots.held() == 1


@pytest.mark.parametrize("fork", [libc_fork, kernel_fork])
def test_a_raw_fork_is_an_owner_of_its_own(
    region: Region, slots: Slots, fork: Callable[[], int]
) -> None:
    assert all(slots.acquire(f"mine-{n}") for n in range(3))
    with Worker(slots, fork=fork) as child:
        assert child.call("acquire", "child")
        assert child.call("pid") == child.pid
        assert sorted(pids(region)) == sorted([os.getpid(), child.pid])
        child.call("leave")
        assert slots.held() == 3, "the child gave its parent's slots back"
        assert child.call("acquire", "child")
        child.kill()
    assert region.reap() == 1
    slots.release("mine-0")
    assert slots.held() == 2


def test_a_child_that_does_nothing_takes_nothing_with_it(region: Region, slots: Slots) -> None:
    assert slots.acquire("mine")
    for fork in (os_fork, libc_fork, kernel_fork):
        Forked(lambda: None, fork=fork).result()
    assert region.reap() == 0
    assert slots.held() == 1


def test_a_process_that_never_forks_works() -> None:
    done = run_python(
        """
        import fast_litellm
        limiter = fast_litellm.SimpleRateLimiter(60, burst=3)
        print([limiter.is_allowed("k") for _ in range(4)], fast_litellm.health_check()["status"])
        """
    )
    assert done.stdout == "[True, True, True, False] ok\n"
    assert done.stderr == ""


def test_a_program_that_replaces_itself_has_given_its_slots_back(tmp_path: Path) -> None:
    """Its pid and its start time stay, so that all others take it for who it was."""
    program = tmp_path / "again.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import json, os, sys
            import fast_litellm
            from fast_litellm import _native

            region, life = _native.default_region(), int(sys.argv[1])
            scripts = _native.LimiterScripts(region)
            held = [scripts.parallel_acquire([{KEY!r}], [5, {TTL_S}, str(life * 10 + n)])[0] == 0
                    for n in range(6)]
            rows = [row["pid"] for row in json.loads(region.inspect())["workers"]]
            print(sum(held), rows == [os.getpid()], flush=True)
            if life < 3:
                os.execv(sys.executable, [sys.executable, "-P", sys.argv[0], str(life + 1)])
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-P", str(program), "1"],
        env={
            **fresh_environment(),
            "FAST_LITELLM_SHM": str(tmp_path / "region"),
            "FAST_LITELLM_SHM_FORCE": "1",
        },
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.stdout == "5 True\n" * 3, done.stderr


def test_rows_of_dead_children_are_used_again() -> None:
    region = Region.create("rows", keys=1024, lease_chunks=64, workers=4)
    slots = Slots(region)
    for n in range(30):
        assert forked(lambda n=n: region.register() and slots.acquire(str(n))), (
            f"child {n} got no row"
        )
    assert len(pids(region)) <= 3


def test_without_a_row_limits_go_on_and_slots_say_why() -> None:
    region = Region.create("rows", keys=1024, lease_chunks=64, workers=4)
    slots = Slots(region)

    def rowless() -> tuple[bool, list[int], list[bool], str]:
        limiter = SimpleRateLimiter(60, burst=2, region=region)
        try:
            slots.acquire("x")
        except UnavailableError as error:
            message = str(error)
        return (
            region.register(),
            slots.hits(2),
            [limiter.is_allowed("k") for _ in range(3)],
            message,
        )

    with Worker(slots) as one, Worker(slots) as two:
        assert one.call("acquire", "1")
        assert two.call("acquire", "2")
        registered, hits, allowed, message = forked(rowless)
    assert (registered, hits, allowed) == (False, [1, 2], [True, True, False])
    assert "FAST_LITELLM_SHM_WORKERS" in message
    assert region.limiter_stats()["table_full"] >= 1


class SlotsMachine(RuleBasedStateMachine):
    """Slots of two keys, held by processes that come, die and stop, against a set of (key, id)."""

    LIMITS = (("{api_key:a}:max_parallel_requests", 3), ("{user:u}:max_parallel_requests", 5))

    keys = st.sampled_from(LIMITS)
    ids = st.integers(0, 5)

    @initialize()
    def start(self) -> None:
        self.region = Region.create("machine", keys=1024, lease_chunks=64, workers=16)
        self.slots = Slots(self.region)
        self.workers: list[Worker] = []
        self.held: dict[tuple[str, str], Worker | None] = {}

    def somebody(self, number: int) -> Worker | None:
        """One of the living, or None for this process itself."""
        everybody = [*self.workers, None]
        return everybody[number % len(everybody)]

    def call(self, who: Worker | None, method: str, *args: object) -> object:
        return getattr(self.slots, method)(*args) if who is None else who.call(method, *args)

    @precondition(lambda self: len(self.workers) < 4)
    @rule()
    def spawn(self) -> None:
        self.workers.append(Worker(self.slots))

    @rule(who=st.integers(0, 4), key=keys, number=ids)
    def acquire(self, who: int, key: tuple[str, int], number: int) -> None:
        name, limit = key
        worker = self.somebody(who)
        slot_id = f"{'main' if worker is None else worker.pid}-{number}"
        if (name, slot_id) in self.held:
            return
        admitted = self.call(worker, "acquire", slot_id, limit, name)
        assert admitted == (self.count(name) < limit)
        if admitted:
            self.held[name, slot_id] = worker

    @precondition(lambda self: self.held)
    @rule(number=st.integers(0, 9), by=st.integers(0, 4))
    def release(self, number: int, by: int) -> None:
        (name, slot_id), holder = list(self.held.items())[number % len(self.held)]
        # Usually by its holder; by anybody else it changes nothing, nor does it the second time.
        worker = self.somebody(by) if number > 7 else holder
        for _ in range(2):
            self.call(worker, "release", slot_id, name)
        if worker is holder:
            del self.held[name, slot_id]

    @precondition(lambda self: self.workers)
    @rule(number=st.integers(0, 3), leaves=st.booleans())
    def die(self, number: int, leaves: bool) -> None:
        worker = self.workers.pop(number % len(self.workers))
        registered = worker.pid in pids(self.region)
        if leaves:
            worker.call("leave")
        worker.kill()
        self.held = {slot: holder for slot, holder in self.held.items() if holder is not worker}
        assert self.region.reap() == int(registered and not leaves)

    @precondition(lambda self: self.workers)
    @rule(number=st.integers(0, 3))
    def pause(self, number: int) -> None:
        worker = self.workers[number % len(self.workers)]
        worker.stop()
        assert self.region.reap() == 0
        worker.resume()

    @invariant()
    def the_region_holds_what_the_model_holds(self) -> None:
        for name, _ in self.LIMITS:
            assert self.slots.held(name) == self.count(name)

    def count(self, name: str) -> int:
        return sum(1 for key, _ in self.held if key == name)

    def teardown(self) -> None:
        for worker in getattr(self, "workers", []):
            worker.kill()


def test_any_history_of_processes_and_slots_follows_the_model() -> None:
    run_state_machine_as_test(
        SlotsMachine,
        # Shrinking a history would fork for minutes.
        settings=settings(max_examples=50, stateful_step_count=25, phases=[Phase.generate]),
    )


@pytest.fixture(autouse=True)
def no_children_left() -> Iterator[None]:
    """A test that loses a child would disturb the next one."""
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
