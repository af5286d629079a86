"""Proves that threads, tasks and forks at any time count exactly, and that no call waits for another."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fast_litellm._rust import LimiterScripts, Region, SimpleConnectionPool, SimpleRateLimiter
from support import Forked, Worker, forked

THREADS = 16
FORKS = 24
BURST = 30_000
WINDOW = ["{user:u}:window", "{user:u}:requests"]
GAUGE = "{api_key:a}:max_parallel_requests"
LIMIT = 6


class Work:
    """One of everything that workers do, in turn, with what became of it."""

    _ids = itertools.count()

    def __init__(self, region: Region, pool_size: int = 5) -> None:
        self._limiter = SimpleRateLimiter(1, burst=BURST, region=region)
        self._scripts = LimiterScripts(region)
        self._pool = SimpleConnectionPool(
            "pool", max_per_endpoint=pool_size, max_total=pool_size, region=region
        )

    def turn(self, done: Counter[str], counts: list[int]) -> None:
        """Charge a limiter and a window; take a slot and a connection, and give them back."""
        done["admitted"] += self._limiter.is_allowed("k")
        counts.append(int(self._scripts.batch_rate_limiter(WINDOW, [0, 3600])[1]))
        slot = f"{os.getpid()}-{next(self._ids)}"
        if self._scripts.parallel_acquire([GAUGE], [LIMIT, 3600, slot])[0] == 0:
            done["held"] += 1
            assert self._scripts.parallel_count([GAUGE], [3600])[0] <= LIMIT
            self._scripts.parallel_release([GAUGE], [slot])
        connection = self._pool.get_connection("https://host")
        if connection is not None:
            done["connected"] += 1
            self._pool.return_connection(connection)

    def left(self) -> tuple[int, int]:
        """Slots held, and connections in use."""
        return (
            int(self._scripts.parallel_count([GAUGE], [3600])[0]),
            int(self._pool.get_stats()["active_connections"]),
        )


def test_children_forked_between_the_calls_of_many_threads_go_on_at_once() -> None:
    """Every one of them finds all words as they were and no lock held, and counts as exactly."""
    region = Region.create("threads", keys=1024, lease_chunks=64, workers=64)
    work = Work(region)
    stopped = threading.Event()
    done: list[Counter[str]] = [Counter() for _ in range(THREADS)]
    counts: list[list[int]] = [[] for _ in range(THREADS)]
    failures: list[BaseException] = []

    def hammer(number: int) -> None:
        try:
            while not stopped.is_set():
                work.turn(done[number], counts[number])
        except BaseException as error:  # noqa: BLE001  # shown by the test
            failures.append(error)

    def child() -> tuple[Counter[str], list[int]]:
        mine: Counter[str] = Counter()
        counted: list[int] = []
        for _ in range(50):
            work.turn(mine, counted)
        region.leave()
        return mine, counted

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=hammer, args=(n,)) for n in range(THREADS)]
    try:
        for thread in threads:
            thread.start()
        children = []
        for _ in range(FORKS):
            children.append(Forked(child))
            # No more than four at a time; each must end by itself.
            if len(children) > 4:
                gone, counted = children.pop(0).result()
                done.append(gone)
                counts.append(counted)
        for each in children:
            gone, counted = each.result()
            done.append(gone)
            counts.append(counted)
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)
    assert failures == []
    total = sum(done, Counter())
    # Every charge of the window was told another count, and none was lost.
    everything = [count for each in counts for count in each]
    assert sorted(everything) == list(range(1, len(everything) + 1))
    assert total["admitted"] == min(len(everything), BURST)
    assert total["held"] > FORKS
    assert total["connected"] > FORKS
    assert all(each["connected"] + each["held"] for each in done)
    assert work.left() == (0, 0)


def test_a_limit_that_many_threads_share_is_never_exceeded() -> None:
    """Slots that are kept while others try; the burst that all of them use up together."""
    region = Region.create("threads", keys=1024, lease_chunks=64, workers=8)
    limiter = SimpleRateLimiter(1, burst=100, region=region)
    scripts = LimiterScripts(region)
    barrier = threading.Barrier(THREADS)
    admitted: list[int] = []
    slots: list[int] = []

    def use_up(number: int) -> None:
        barrier.wait()
        admitted.append(sum(limiter.is_allowed("k") for _ in range(50)))
        got = [
            scripts.parallel_acquire([GAUGE], [LIMIT, 3600, f"{number}-{n}"])[0] == 0
            for n in range(3)
        ]
        slots.append(sum(got))

    threads = [threading.Thread(target=use_up, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 100
    assert sum(slots) == LIMIT


# Event loops


def loops() -> list[Any]:
    found = [pytest.param(asyncio.new_event_loop, id="asyncio")]
    try:
        import uvloop
    except ImportError:
        skipped = pytest.mark.skip(reason="there is no uvloop")
        return [*found, pytest.param(None, id="uvloop", marks=skipped)]
    return [*found, pytest.param(uvloop.new_event_loop, id="uvloop")]


def run(new_loop: Callable[[], asyncio.AbstractEventLoop], main: Any) -> Any:
    loop = new_loop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


@pytest.mark.parametrize("new_loop", loops())
def test_tasks_of_an_event_loop_count_exactly(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """As a proxy uses it: called right in the loop, by many tasks that are in the middle of something."""
    region = Region.create("loop", keys=1024, lease_chunks=64, workers=8)
    limiter = SimpleRateLimiter(1, burst=150, region=region)
    scripts = LimiterScripts(region)
    pool = SimpleConnectionPool("p", max_per_endpoint=3, max_total=3, region=region)
    running: Counter[str] = Counter()
    peaks: Counter[str] = Counter()
    done: Counter[str] = Counter()

    async def hold(what: str) -> None:
        running[what] += 1
        peaks[what] = max(peaks[what], running[what])
        for _ in range(3):
            await asyncio.sleep(0)
        running[what] -= 1
        done[what] += 1

    async def task(number: int) -> None:
        for turn in range(3):
            done["admitted"] += limiter.is_allowed("k")
            slot = f"{number}-{turn}"
            if scripts.parallel_acquire([GAUGE], [LIMIT, 3600, slot])[0] == 0:
                await hold("slot")
                scripts.parallel_release([GAUGE], [slot])
            connection = pool.get_connection("https://host")
            if connection is not None:
                await hold("connection")
                pool.return_connection(connection)
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(task(number) for number in range(100)))

    run(new_loop, main())
    assert done["admitted"] == 150
    assert (peaks["slot"], peaks["connection"]) == (LIMIT, 3)
    assert min(done["slot"], done["connection"]) > 5
    assert scripts.parallel_count([GAUGE], [3600])[0] == 0
    assert pool.get_stats()["active_connections"] == 0


class Busy:
    """A worker that does one thing after the other until it is stopped or killed."""

    def __init__(self, region: Region) -> None:
        self._work = Work(region)

    def begin(self) -> None:
        self._work.turn(Counter(), [])

    def go_on(self) -> None:
        while True:
            self._work.turn(Counter(), [])


@pytest.fixture
def others() -> Iterator[tuple[Region, Worker]]:
    """A region, and a worker that is always at it."""
    region = Region.create("busy", keys=1024, lease_chunks=64, workers=8)
    with Worker(Busy(region)) as worker:
        worker.call("begin")
        worker._pipe.send(("go_on", ()))
        yield region, worker


@pytest.mark.parametrize("other", ["busy", "stopped"])
def test_no_call_waits_for_anybody(other: str, others: tuple[Region, Worker]) -> None:
    """The kernel counts whenever a thread gives its processor away to wait: for a lock, a page, a time.

    None of 50,000 calls does, while another process works on the same words or is stopped in the middle
    of one. So an event loop may call them directly.
    """
    region, worker = others
    work = Work(region)
    work.turn(Counter(), [])
    if other == "stopped":
        worker.stop()
    done: Counter[str] = Counter()
    counts: list[int] = []
    before = waits()
    for _ in range(10_000):
        work.turn(done, counts)
    after = waits()
    if other == "stopped":
        worker.resume()
    assert done["admitted"] > 0
    assert len(counts) == 10_000
    assert after - before <= 10


def test_waits_are_seen() -> None:
    before = waits()
    lock = threading.Lock()
    with lock:
        assert not lock.acquire(timeout=0.01)
    time.sleep(0.001)
    assert waits() - before >= 2


def waits() -> int:
    """How often this thread has waited so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def test_a_child_of_a_loop_that_is_running_shares_its_counts() -> None:
    """As when a program starts a worker from within a coroutine."""
    region = Region.create("loop", keys=1024, lease_chunks=64, workers=8)
    limiter = SimpleRateLimiter(1, burst=10, region=region)

    async def main() -> int:
        mine = sum(limiter.is_allowed("k") for _ in range(4))
        return mine + forked(lambda: sum(limiter.is_allowed("k") for _ in range(20)))

    assert asyncio.run(main()) == 10
    assert not limiter.is_allowed("k")
