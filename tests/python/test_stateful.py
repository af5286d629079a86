"""Proves that processes that come, stop and die share one sequential truth.

Real processes operate on one region; a model says what each of them must be answered, and what all of
them must read. A process that is killed in the middle of its work may leave one operation done, half done
or not done, and nothing else.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fast_litellm._rust import LimiterScripts, Region, SimpleRateLimiter, UnavailableError
from sequential_model import NO_ROOM, Ask, Limit, Model, Operation, Snapshot, Span, gauge_of
from support import Worker, kernel_fork, libc_fork, os_fork, state_of, until

CLOCK_MONOTONIC_COARSE = 6
LONG_S = 36_000
"""A window that no test outlasts."""

# The first ones give back too slowly for a test to see it, the last one at once.
LIMITS = (Limit(1, 3, "slow"), Limit(1, 1, "one"), Limit(2, 7, ""), Limit(1_200, 2, "quick"))
LIMIT_KEYS = ("a", "b")
SUBJECTS = ("{api_key:a}", "{user:b}", "{team:c}")
PARTS = ("requests", "tokens")
OWN = "spend:team"
"""A counter without a window."""

SEARCHES = bool(os.environ.get("FAST_LITELLM_TEST_SEARCH"))
FORKS = (os_fork, libc_fork, kernel_fork)
MOST_WORKERS = 4


def read_before() -> float:
    """A reading that the region's clock, which is the kernel's coarse one, is never behind."""
    return time.clock_gettime(CLOCK_MONOTONIC_COARSE)


class Actor:
    """What a process can do with the region. Made once, used by all who are forked afterwards."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.scripts = LimiterScripts(region)
        self.limiters = {
            limit: SimpleRateLimiter(
                limit.per_minute, burst=limit.burst, name=limit.name, region=region
            )
            for limit in LIMITS
        }

    def do(self, operation: Operation) -> tuple[Any, Span]:
        """Do it, and say when."""
        before = read_before()
        try:
            reply = getattr(self, operation.name)(*operation.args)
        except UnavailableError:
            reply = NO_ROOM
        return reply, Span(before, time.monotonic())

    def check(self, limit: Limit, key: str) -> bool | str:
        answer = self.limiters[limit].check(key)
        return NO_ROOM if answer["reason"] == "table_full" else answer["allowed"]

    def admit(self, asks: Sequence[Ask]) -> list[int]:
        args = [value for ask in asks for value in (ask.limit, ask.amount, LONG_S, LONG_S)]
        reply = self.scripts.check_and_increment_by_n(pairs_of(asks), args)
        return reply if reply[0] else [0, *reply[1::2]]

    def hit(self, pairs: Sequence[tuple[str, str]]) -> list[int]:
        reply = self.scripts.batch_rate_limiter(pairs_of(pairs), [0, LONG_S])
        return [int(count) for count in reply[1::2]]

    def guard(self, subject: str, part: str, off: int, amount: int) -> list[int]:
        start = (self.scripts.value(f"{subject}:window") or 0) + off
        keys = pairs_of([(subject, part)])
        return self.scripts.window_guarded_token_increment(keys, [str(start), amount, LONG_S])

    def add(self, subject: str, part: str, amount: int) -> int:
        return self.scripts.add(counter_of(subject, part), amount, LONG_S)

    def forget(self, subject: str, part: str) -> None:
        self.scripts.forget(counter_of(subject, part))

    def acquire(self, wanted: Sequence[tuple[str, int]], slot_id: str) -> list[int]:
        keys = [gauge_of(subject) for subject, _ in wanted]
        args = [value for _, limit in wanted for value in (limit, LONG_S, slot_id)]
        return self.scripts.parallel_acquire(keys, args)

    def release(self, subject: str, slot_id: str) -> int:
        return self.scripts.parallel_release([gauge_of(subject)], [slot_id])[0]

    def crowd(self, first: int, count: int) -> int:
        """Put keys into the region that stay in use; the answer is how many found room."""
        found = 0
        for number in range(first, first + count):
            with suppress(UnavailableError):
                self.hit([(f"{{crowd:{number}}}", "requests")])
                found += 1
        return found

    def churn(self, first: int, count: int) -> None:
        """Put keys into the region that are idle again at once."""
        limiter = SimpleRateLimiter(60_000_000, burst=1, name="churn", region=self.region)
        for number in range(first, first + count):
            limiter.is_allowed(f"churn-{number}")

    def short(self, keys: list[str], args: list[int]) -> list[int]:
        return self.scripts.check_and_increment_by_n(keys, args)

    def value(self, key: str) -> int | None:
        return self.scripts.value(key)

    def leave(self) -> None:
        self.region.leave()

    def reap(self) -> int:
        return self.region.reap()

    def snapshot(self) -> Snapshot:
        """Everything that the model knows of."""
        before = read_before()
        value, subjects = self.scripts.value, {}
        for subject in SUBJECTS:
            counts = {part: value(f"{subject}:{part}") for part in PARTS}
            known = {part: count for part, count in counts.items() if count is not None}
            subjects[subject] = (value(f"{subject}:window") is not None, known)
        own = value(OWN)
        subjects[OWN] = (False, {} if own is None else {"": own})
        gauges = [gauge_of(subject) for subject in SUBJECTS]
        slots = dict(zip(gauges, self.scripts.parallel_count(gauges, [LONG_S] * 3), strict=True))
        remaining = {
            (limit, key): limiter.get_remaining(key)
            for limit, limiter in self.limiters.items()
            for key in LIMIT_KEYS
        }
        return Snapshot(Span(before, time.monotonic()), subjects, slots, remaining)


def counter_of(subject: str, part: str) -> str:
    return f"{subject}:{part}" if part else subject


def pairs_of(items: Sequence[tuple[Any, ...]]) -> list[str]:
    return [key for item in items for key in (f"{item[0]}:window", f"{item[0]}:{item[1]}")]


def operation(name: str, *args: st.SearchStrategy[Any]) -> st.SearchStrategy[Operation]:
    return st.tuples(*args).map(lambda drawn: Operation(name, drawn))


def some(item: st.SearchStrategy[Any], key: Callable[[Any], object]) -> st.SearchStrategy[Any]:
    return st.lists(item, min_size=1, max_size=3, unique_by=key)


subjects = st.sampled_from(SUBJECTS)
parts = st.sampled_from(PARTS)
counters = st.tuples(subjects, parts)
amounts = st.integers(-3, 9)
slot_ids = st.sampled_from("abc")
ask = st.builds(Ask, subjects, parts, st.integers(0, 20), st.integers(0, 6))
checks = operation("check", st.sampled_from(LIMITS), st.sampled_from(LIMIT_KEYS))
acquires = operation(
    "acquire",
    st.lists(
        st.tuples(subjects, st.integers(0, 5)), min_size=1, max_size=2, unique_by=lambda w: w[0]
    ),
    slot_ids,
)
# What may be killed half way: everything but forgetting, which is several independent steps.
charges = st.one_of(
    checks,
    operation("admit", some(ask, key=lambda ask: ask[:2])),
    operation("hit", some(counters, key=lambda pair: pair)),
    operation("guard", subjects, parts, st.sampled_from([0, 0, 0, 1]), amounts),
    operation("add", subjects, parts, amounts),
    operation("add", st.just(OWN), st.just(""), amounts),
    acquires,
    operation("release", subjects, slot_ids),
)
operations = st.one_of(
    charges,
    charges,
    charges,
    operation("forget", subjects, st.sampled_from(["window", *PARTS])),
    operation("forget", st.just(OWN), st.just("")),
)
streams = st.lists(charges, min_size=2, max_size=12)
anybody = st.integers(0, MOST_WORKERS)


class RegionMachine(RuleBasedStateMachine):
    """Any history of up to four processes and this one, which is number 0."""

    make_actor: Callable[[Region], Actor] = Actor

    @initialize(rolls=st.integers(0, 19), forks=st.lists(st.sampled_from(FORKS), max_size=3))
    def start(self, rolls: int, forks: list[Callable[[], int]]) -> None:
        self.region = Region.create(
            "stateful", keys=1000, lease_chunks=64, workers=16, deployments=64
        )
        self.actor = self.make_actor(self.region)
        self.model = Model()
        self.workers: dict[int, Worker] = {}
        self.stopped: set[int] = set()
        self.numbers = itertools.count(1)
        self.keys = itertools.count(step=400)
        # Waiting takes a second: only some histories do it.
        self.may_wait = rolls == 0
        for fork in forks:
            self.fork(fork)

    # Who does something.

    def running(self, number: int) -> int:
        """One of those who are not stopped."""
        everybody = [0, *sorted(self.workers.keys() - self.stopped)]
        return everybody[number % len(everybody)]

    def call(self, who: int, method: str, *args: object) -> Any:
        target = self.workers.get(who)
        return getattr(self.actor, method)(*args) if target is None else target.call(method, *args)

    def run(self, who: int, what: Operation) -> None:
        reply, span = self.call(who, "do", what)
        self.model.apply(what, who, reply, span)

    # What they do.

    @rule(first=anybody, work=st.lists(operations, min_size=1, max_size=10))
    def work(self, first: int, work: list[Operation]) -> None:
        for who, what in enumerate(work, first):
            self.run(self.running(who), what)

    @rule(first=anybody, what=st.one_of(checks, acquires), times=st.integers(2, 9))
    def insist(self, first: int, what: Operation, times: int) -> None:
        for who in range(first, first + times):
            self.run(self.running(who), what)

    @precondition(lambda self: self.may_wait and not self.model.is_crowded)
    @rule(who=anybody, reader=anybody)
    def roll_over(self, who: int, reader: int) -> None:
        """A window of one second is full, and empty again when it is over."""
        self.may_wait = False
        keys, args = pairs_of([("{short:s}", "requests")]), [2, 1, 1, 1]
        admitted = [self.call(self.running(who), "short", keys, args)[0] == 0 for _ in range(3)]
        # It may have been over in between, but no second has more than two.
        assert admitted[:2] == [True, True]
        until(lambda: self.call(self.running(reader), "value", keys[0]) is None, "end the window")
        assert self.call(self.running(reader), "short", keys, args)[:2] == [0, 1]

    @rule(who=anybody, policy=st.sampled_from(["deny", "shared", "local"]))
    def crowd(self, who: int, policy: str) -> None:
        """Many keys, until there is no room; what they overflow into is nobody else's."""
        self.region.overflow = policy
        self.model.is_crowded = True
        found = self.call(self.running(who), "crowd", next(self.keys), 400)
        assert policy != "shared" or found == 400
        self.region.overflow = "deny"

    @rule(who=anybody)
    def churn(self, who: int) -> None:
        self.model.is_crowded = True
        self.call(self.running(who), "churn", next(self.keys), 400)

    # Who comes and goes.

    @precondition(lambda self: len(self.workers) < MOST_WORKERS)
    @rule(fork=st.sampled_from(FORKS))
    def come(self, fork: Callable[[], int]) -> None:
        self.fork(fork)

    def fork(self, fork: Callable[[], int]) -> None:
        self.workers[next(self.numbers)] = Worker(self.actor, fork)

    @precondition(lambda self: self.workers)
    @rule(number=anybody, waited_for=st.booleans())
    def kill(self, number: int, waited_for: bool) -> None:
        who = sorted(self.workers)[number % len(self.workers)]
        self.bury(who, waited_for)

    def bury(self, who: int, waited_for: bool = True) -> None:
        worker = self.workers.pop(who)
        self.stopped.discard(who)
        worker.kill(wait=waited_for)
        self.model.died(who)
        if not waited_for:
            # A zombie is dead, too.
            self.clean_up(0)
            worker.reap()

    @precondition(lambda self: self.workers.keys() - self.stopped)
    @rule(number=anybody, what=streams, after=st.integers(0, 11), reaper=anybody)
    def kill_in_a_stream(self, number: int, what: list[Operation], after: int, reaper: int) -> None:
        """Kill a process that is doing one thing after the other: at most one is in doubt."""
        who = self.somebody_else(number)
        worker = self.workers[who]
        begun = read_before()
        answers = [*worker.stream("do", [(each,) for each in what], min(after, len(what) - 1))]
        self.workers.pop(who)
        worker.kill(wait=False)
        answers += worker.left_behind()
        worker.reap()
        for each, (reply, span) in zip(what, answers, strict=False):
            self.model.apply(each, who, reply, span)
        in_doubt = what[len(answers) : len(answers) + 1]
        self.model.died(who)
        seen = self.call(self.running(reaper), "snapshot")
        if in_doubt:
            span = Span(begun, time.monotonic())
            possible = list(self.model.outcomes(in_doubt[0], span))
            fitting = [model for model in possible if not [*model.differences(seen)]]
            assert fitting, f"{in_doubt} of {who} left {seen}, which is none of {possible}"
            # The last one allows most.
            self.model = fitting[-1]

    def somebody_else(self, number: int) -> int:
        others = sorted(self.workers.keys() - self.stopped)
        return others[number % len(others)]

    @precondition(lambda self: self.workers.keys() - self.stopped)
    @rule(number=anybody, what=streams, after=st.integers(0, 11), reader=anybody)
    def stop_in_a_stream(self, number: int, what: list[Operation], after: int, reader: int) -> None:
        """Stop a process that is doing one thing after the other: it is no hindrance, and goes on."""
        who = self.somebody_else(number)
        worker = self.workers[who]
        answers = [*worker.stream("do", [(each,) for each in what], min(after, len(what) - 1))]
        worker.stop()
        self.stopped.add(who)
        answers += worker.left_behind()
        for each, (reply, span) in zip(what, answers, strict=False):
            self.model.apply(each, who, reply, span)
        self.clean_up(reader)
        seen = self.call(self.running(reader), "snapshot")
        in_doubt = what[len(answers)] if len(answers) < len(what) else None
        possible = [self.model]
        if in_doubt is not None:
            possible = [*self.model.outcomes(in_doubt, seen.span)]
        # Slots that it is about to take or has just given back are in doubt as well.
        values = Snapshot(seen.span, seen.subjects, {}, {})
        assert any(not [*model.differences(values)] for model in possible), (
            f"{in_doubt} of {who} left {seen}, which is none of {possible}"
        )
        worker.resume()
        self.stopped.remove(who)
        for each in what[len(answers) :]:
            reply, span = worker.answer()
            self.model.apply(each, who, reply, span)

    @precondition(lambda self: self.workers.keys() - self.stopped)
    @rule(number=anybody)
    def stop(self, number: int) -> None:
        who = self.somebody_else(number)
        self.workers[who].stop()
        self.stopped.add(who)

    @precondition(lambda self: self.stopped)
    @rule(number=anybody)
    def resume(self, number: int) -> None:
        who = sorted(self.stopped)[number % len(self.stopped)]
        self.workers[who].resume()
        self.stopped.remove(who)

    @precondition(lambda self: self.workers.keys() - self.stopped)
    @rule(number=anybody)
    def leave(self, number: int) -> None:
        who = self.somebody_else(number)
        self.workers[who].call("leave")
        self.model.gone(who)

    @rule(who=anybody)
    def clean_up(self, who: int) -> None:
        """Whoever reaps, everything of the dead is free, and nothing of anybody else."""
        living = {os.getpid(), *(worker.pid for worker in self.workers.values())}
        before = {worker["pid"] for worker in json.loads(self.region.inspect())["workers"]}
        self.call(self.running(who), "reap")
        self.model.dead = {}
        report = json.loads(self.region.inspect())
        after = {worker["pid"] for worker in report["workers"]}
        # Whoever reaps registers, if it had not.
        assert before & living <= after <= living
        assert {worker["alive"] for worker in report["workers"]} <= {"alive"}
        assert {lease["owner"] for lease in report["leases"]} <= {"alive"}

    # What all must see.

    @rule(reader=anybody)
    def look(self, reader: int) -> None:
        self.model.observe(self.call(self.running(reader), "snapshot"))

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        self.model.observe(self.actor.snapshot())

    def teardown(self) -> None:
        for worker in getattr(self, "workers", {}).values():
            worker.kill()
        if hasattr(self, "region"):
            self.region.leave()


def histories(count: int) -> settings:
    """Ten times as many, and others each time, when the tests are asked to search."""
    return settings(
        max_examples=count * (10 if SEARCHES else 1),
        stateful_step_count=30,
        # Shrinking a history would fork for minutes.
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )


def test_any_history_of_processes_follows_the_model() -> None:
    run_state_machine_as_test(RegionMachine, settings=histories(60))


# The machine notices what it is there for.


class ChecksTwice(Actor):
    def check(self, limit: Limit, key: str) -> bool | str:
        super().check(limit, key)
        return super().check(limit, key)


class AddsTwice(Actor):
    def add(self, subject: str, part: str, amount: int) -> int:
        super().add(subject, part, amount)
        return super().add(subject, part, amount) - amount


class AdmitsOneTooMany(Actor):
    def admit(self, asks: Sequence[Ask]) -> list[int]:
        reply = super().admit([ask._replace(limit=ask.limit + 1) for ask in asks])
        return [*reply[:3], asks[reply[1] - 1].limit] if reply[0] else reply


class GivesTooMuchBack(Actor):
    def guard(self, subject: str, part: str, off: int, amount: int) -> list[int]:
        return super().guard(subject, part, 0, amount)


class KeepsSlots(Actor):
    def release(self, subject: str, slot_id: str) -> int:
        return self.scripts.parallel_count([gauge_of(subject)], [LONG_S])[0]


class ForgetsNothing(Actor):
    def forget(self, subject: str, part: str) -> None:
        pass


class NeverReaps(Actor):
    def reap(self) -> int:
        return 0


class StaysToItself(Actor):
    """A process that has a region of its own, as if nothing were shared."""

    def __init__(self, region: Region) -> None:
        super().__init__(region)
        self._pid = os.getpid()

    def do(self, operation: Operation) -> tuple[Any, Span]:
        if os.getpid() != self._pid:
            self.__init__(Region.create("own", keys=1000, lease_chunks=64, workers=4))  # type: ignore[misc]
        return super().do(operation)


@pytest.mark.parametrize(
    "mutant",
    [
        ChecksTwice,
        AddsTwice,
        AdmitsOneTooMany,
        GivesTooMuchBack,
        KeepsSlots,
        ForgetsNothing,
        NeverReaps,
        StaysToItself,
    ],
)
def test_the_machine_notices(mutant: type[Actor]) -> None:
    class Mutated(RegionMachine):
        make_actor = mutant

    # A history that goes wrong only sometimes is told as flaky.
    with pytest.raises((AssertionError, Flaky)):
        run_state_machine_as_test(Mutated, settings=histories(60))


class DoesOneMoreThanItSays(Actor):
    """A process that dies with two operations done that it has not told of."""

    def __init__(self, region: Region) -> None:
        super().__init__(region)
        self._pid = os.getpid()

    def do(self, operation: Operation) -> tuple[Any, Span]:
        done = super().do(operation)
        if os.getpid() != self._pid and operation.name == "hit":
            super().do(operation)
            os.kill(os.getpid(), signal.SIGKILL)
        return done


def test_a_kill_leaves_no_more_than_one_operation_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = RegionMachine()
    machine.make_actor = DoesOneMoreThanItSays  # type: ignore[method-assign]
    try:
        machine.start(rolls=1, forks=[os_fork])
        worker = machine.workers[1]
        kill = worker.kill

        def kill_late(*, wait: bool) -> None:
            until(lambda: state_of(worker.pid) == "Z", "die")
            kill(wait=wait)

        monkeypatch.setattr(worker, "kill", kill_late)
        hit = Operation("hit", ([(SUBJECTS[0], "requests")],))
        add = Operation("add", (OWN, "", 1))
        with pytest.raises(AssertionError, match="none of"):
            machine.kill_in_a_stream(number=0, what=[add, hit, add], after=1, reaper=0)
    finally:
        machine.teardown()
