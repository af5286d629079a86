"""Proves that of all processes exactly one leads a job, whatever becomes of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from fast_litellm import Leader, OutOfRangeError
from fast_litellm._rust import Board, Region
from support import Worker, forked, run_python, until


class Candidate:
    """What a worker is told to do."""

    def __init__(self, region: Region, ttl_s: float = 30.0) -> None:
        self.leader = Leader("job", ttl_s=ttl_s, region=region)

    def acquire(self) -> bool:
        return self.leader.acquire()

    def release(self) -> bool:
        return self.leader.release()

    def state(self) -> tuple[bool, int | None]:
        return self.leader.leads, self.leader.term_number


Start = Callable[..., Worker]


@pytest.fixture
def start(region: Region) -> Iterator[Start]:
    """Starts candidates, and ends them after the test."""
    workers: list[Worker] = []

    def start(ttl_s: float = 30.0) -> Worker:
        workers.append(Worker(Candidate(region, ttl_s)))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.running:
            worker.kill()


def test_one_leads_until_it_lets_another(region: Region, start: Start) -> None:
    workers = [start() for _ in range(4)]
    assert [worker.call("acquire") for worker in workers] == [True, False, False, False]
    assert [worker.call("acquire") for worker in workers] == [True, False, False, False]
    watcher = Leader("job", region=region)
    assert watcher.holder() == (workers[0].pid, 0)
    assert (watcher.leads, watcher.term_number) == (False, None)
    assert workers[1].call("release") is False
    assert workers[0].call("state") == (True, 1)
    assert workers[0].call("release") is True
    assert workers[0].call("state") == (False, None)
    assert watcher.holder() is None
    assert workers[2].call("acquire") is True
    assert workers[2].call("state") == (True, 2)
    assert workers[0].call("acquire") is False


def test_the_dead_do_not_lead(region: Region, start: Start) -> None:
    first, second = start(), start()
    assert first.call("acquire") is True
    assert second.call("acquire") is False
    first.kill()
    assert Leader("job", region=region).holder() is None
    until(lambda: second.call("acquire"), "lead after the leader's death", timeout_s=2.0)
    assert second.call("state") == (True, 2)


def test_a_stopped_leader_is_followed_when_its_time_is_over(region: Region, start: Start) -> None:
    first, second = start(ttl_s=3.0), start(ttl_s=3.0)
    assert first.call("acquire") is True
    os.kill(first.pid, signal.SIGSTOP)
    assert second.call("acquire") is False
    until(lambda: second.call("acquire"), "follow a stopped leader")
    os.kill(first.pid, signal.SIGCONT)
    # It learns that it leads no more, and its successor is not disturbed.
    assert first.call("state") == (False, None)
    assert first.call("release") is False
    assert first.call("acquire") is False
    assert second.call("state") == (True, 2)


def test_who_asks_again_in_time_leads_on(region: Region, start: Start) -> None:
    first, second = start(ttl_s=4.0), start(ttl_s=4.0)
    assert first.call("acquire") is True
    ends = time.monotonic() + 5.0
    while time.monotonic() < ends:
        assert first.call("acquire") is True
        assert second.call("acquire") is False
        time.sleep(0.1)
    assert first.call("state") == (True, 1)


def test_a_child_of_the_leader_does_not_lead(region: Region) -> None:
    leader = Leader("job", region=region)
    assert leader.acquire()
    assert forked(lambda: (leader.leads, leader.release())) == (False, False)
    assert forked(leader.acquire) is False
    assert leader.leads


def test_jobs_are_led_apart(region: Region) -> None:
    a, b = (Leader(job, region=region) for job in "ab")
    assert a.acquire()
    assert forked(b.acquire) is True


@pytest.mark.parametrize("ttl_s", [0, 0.5, -1, float("nan"), float("inf"), 4e7])
def test_a_time_that_cannot_be_is_named(region: Region, ttl_s: float) -> None:
    with pytest.raises(OutOfRangeError, match="ttl_s="):
        Leader("job", ttl_s=ttl_s, region=region)


def test_a_job_is_a_str(region: Region) -> None:
    with pytest.raises(TypeError):
        Leader(7, region=region)  # type: ignore[arg-type]


def test_without_the_extension_a_process_leads() -> None:
    done = run_python(
        """
        import sys, warnings
        warnings.simplefilter("ignore")
        sys.modules["fast_litellm._rust"] = None
        import os, fast_litellm
        leader = fast_litellm.Leader("job")
        print(leader.leads, leader.acquire(), leader.leads, leader.term_number)
        print(leader.holder() == (os.getpid(), 0), leader.release(), leader.release(), leader.holder())
        try:
            fast_litellm.Leader("job", ttl_s=0)
        except ValueError as error:
            print(error)
        """
    )
    assert done.stdout.splitlines() == [
        "False True True 1",
        "True True False None",
        "ttl_s=0: use 1 to 31,536,000",
    ]


# Notices


def test_a_notice_is_read_by_all_until_its_time_is_over(region: Region) -> None:
    board = Board(region)
    assert board.read("x") is None
    forked(lambda: board.publish("x", b"from a child", 60))
    assert board.read("x") == b"from a child"
    board.publish("x", b"", 3)
    assert board.read("x") == b""
    until(lambda: board.read("x") is None, "expire", timeout_s=6.0)


def test_a_notice_that_is_too_large_is_refused_and_loses_nothing(region: Region) -> None:
    board = Board(region)
    largest = b"x" * 131_072
    board.publish("x", largest, 60)
    with pytest.raises(OutOfRangeError, match=r"131,?072"):
        board.publish("x", largest + b"x", 60)
    assert board.read("x") == largest
