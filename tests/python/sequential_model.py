"""What limits, windows, counters and slots must answer when operations happen one after the other.

Plain Python with a dictionary for everything. What the model cannot know exactly, because a clock was
read somewhere between two readings or because a process was killed half way, it keeps as bounds.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from typing_extensions import Self

NO_ROOM = "no room"
"""What an operation answers that found no place for a key."""

SLACK_S = 5e-6
"""How much more exactly the region computes with times than a test can."""


class Limit(NamedTuple):
    """A rate limiter."""

    per_minute: int
    burst: int
    name: str


class Ask(NamedTuple):
    """A conditional charge of a window."""

    subject: str
    part: str
    limit: int
    amount: int


class Operation(NamedTuple):
    """Something that a process does."""

    name: str
    args: tuple[Any, ...]


class Span(NamedTuple):
    """Two readings of the clock, between which something happened."""

    before: float
    after: float


@dataclass
class Quota:
    """GCRA: when the next request would be due, known to lie between two bounds."""

    limit: Limit
    due_low: float = 0.0
    due_high: float = 0.0

    @property
    def interval(self) -> float:
        """Seconds between requests that come evenly."""
        return 60 / self.limit.per_minute

    def allowed(self, span: Span) -> set[bool]:
        """The answers that are right."""
        spare = self.interval * (self.limit.burst - 1)
        least = span.before + spare - max(self.due_high, span.before)
        most = span.after + spare - max(self.due_low, span.after)
        right = {True} if most >= -SLACK_S else set()
        return right | ({False} if least < SLACK_S else set())

    def charge(self, span: Span) -> None:
        """One request was admitted."""
        self.due_low = max(self.due_low, span.before) + self.interval
        self.charge_perhaps(span)

    def charge_perhaps(self, span: Span) -> None:
        """One request may have been admitted."""
        self.due_high = max(self.due_high, span.after) + self.interval

    def observe(self, remaining: int, span: Span) -> None:
        """So many requests would be admitted: check it, and learn from it."""
        used = self.limit.burst - remaining
        low = span.before + (used - 1) * self.interval - SLACK_S if used else 0.0
        high = span.after + used * self.interval + SLACK_S
        assert used == 0 or low <= self.due_high, f"{self} with {remaining} left at {span}"
        assert high >= self.due_low, f"{self} with {remaining} left at {span}"
        self.due_low, self.due_high = max(self.due_low, low), min(self.due_high, high)

    def may_be_idle(self, span: Span) -> bool:
        """Whether it may be given up."""
        return self.due_low <= span.after


@dataclass
class Subject:
    """A window with its counters; while it is not open, they are on their own."""

    is_open: bool = False
    counts: dict[str, int] = field(default_factory=dict)

    def open(self) -> None:
        """Open the window unless it is: what was counted before is gone."""
        if not self.is_open:
            self.is_open, self.counts = True, {}

    def peek(self, part: str) -> int:
        """What a charge would begin from."""
        return self.counts.get(part, 0) if self.is_open else 0

    def add(self, part: str, amount: int) -> int:
        """Add to a counter; taking back never makes it negative."""
        count = self.counts.get(part, 0)
        self.counts[part] = max(count + amount, min(count, 0)) if amount < 0 else count + amount
        return self.counts[part]


@dataclass(frozen=True)
class Snapshot:
    """All that a process reads, between two readings of the clock."""

    span: Span
    subjects: dict[str, tuple[bool, dict[str, int]]]
    slots: dict[str, int]
    remaining: dict[tuple[Limit, str], int]


@dataclass
class Model:
    """Everything, and who holds which slots."""

    quotas: dict[tuple[Limit, str], Quota] = field(default_factory=dict)
    subjects: dict[str, Subject] = field(default_factory=dict)
    held: dict[tuple[str, int, str], None] = field(default_factory=dict)
    """Slots of living processes, by key, process and id."""
    dead: dict[str, int] = field(default_factory=dict)
    """Slots, at most, that dead processes have left behind."""
    is_crowded: bool = False
    """Whether there may be no room for another key."""

    def copy(self) -> Self:
        """The same, to be changed on its own."""
        return copy.deepcopy(self)

    def quota(self, limit: Limit, key: str) -> Quota:
        """The quota of a key."""
        return self.quotas.setdefault((limit, key), Quota(limit))

    def subject(self, name: str) -> Subject:
        """The window and counters of a subject."""
        return self.subjects.setdefault(name, Subject())

    def live(self, gauge: str) -> int:
        """Slots of a key that living processes hold."""
        return sum(1 for key, _, _ in self.held if key == gauge)

    def is_idle(self, name: str) -> bool:
        """Whether a subject may be given up to make room."""
        subject, gauge = self.subject(name), gauge_of(name)
        return not (subject.is_open or subject.counts or self.live(gauge))

    def gone(self, who: int) -> None:
        """A process gave its slots back."""
        self.held = {slot: None for slot in self.held if slot[1] != who}

    def died(self, who: int) -> None:
        """A process is dead, and nobody has looked after it."""
        for gauge, holder, _ in self.held:
            if holder == who:
                self.dead[gauge] = self.dead.get(gauge, 0) + 1
        self.gone(who)

    def apply(self, operation: Operation, who: int, reply: Any, span: Span) -> None:
        """Check an answer, and remember what was done."""
        getattr(self, f"_{operation.name}")(reply, who, span, *operation.args)

    # The operations.

    def _check(self, reply: Any, who: int, span: Span, limit: Limit, key: str) -> None:
        quota = self.quota(limit, key)
        if reply == NO_ROOM:
            assert self.is_crowded
            assert quota.may_be_idle(span), f"{key} owes something, and was given up"
            return
        assert reply in quota.allowed(span), f"{reply} from {quota} at {span}"
        if reply:
            quota.charge(span)

    def _admit(self, reply: Any, who: int, span: Span, asks: Sequence[Ask]) -> None:
        if self._found_no_room(reply, [ask.subject for ask in asks]):
            return
        refused = self._refused(asks)
        if refused is None:
            charged = [self._charge(ask.subject, ask.part, ask.amount) for ask in asks]
            assert reply == [0, *charged]
        else:
            assert reply == refused

    def _refused(self, asks: Sequence[Ask]) -> list[int] | None:
        for position, ask in enumerate(asks):
            count = self.subject(ask.subject).peek(ask.part)
            fits = count + ask.amount <= ask.limit if ask.amount else count < ask.limit
            if not fits:
                return [1, position + 1, count, ask.limit]
        return None

    def _hit(self, reply: Any, who: int, span: Span, pairs: Sequence[tuple[str, str]]) -> None:
        if self._found_no_room(reply, [subject for subject, _ in pairs]):
            return
        assert reply == [self._charge(subject, part, 1) for subject, part in pairs]

    def _charge(self, subject: str, part: str, amount: int) -> int:
        self.subject(subject).open()
        return self.subject(subject).add(part, amount)

    def _guard(
        self, reply: Any, who: int, span: Span, name: str, part: str, off: int, amount: int
    ) -> None:
        if self._found_no_room(reply, [name]):
            return
        subject = self.subject(name)
        if self._is_right(name, part, off, amount):
            assert reply == [1, subject.add(part, amount)]
        else:
            assert reply == [0, subject.counts.get(part, 0)]

    def _add(self, reply: Any, who: int, span: Span, name: str, part: str, amount: int) -> None:
        if not self._found_no_room(reply, [name]):
            assert reply == self.subject(name).add(part, amount)

    def _forget(self, reply: Any, who: int, span: Span, name: str, part: str) -> None:
        if part == "window":
            self.subjects.pop(name, None)
        else:
            self.subject(name).counts.pop(part, None)

    def _acquire(
        self, reply: Any, who: int, span: Span, wanted: Sequence[tuple[str, int]], slot_id: str
    ) -> None:
        if self._found_no_room(reply, [name for name, _ in wanted]):
            return
        before = dict(self.held)
        for position, (name, limit) in enumerate(wanted):
            gauge = gauge_of(name)
            if (gauge, who, slot_id) in self.held:
                continue
            held = self.live(gauge)
            refused_here = reply[0] == 1 and reply[1] == position + 1
            # Slots of the dead are free as soon as somebody has looked.
            must_refuse, may_refuse = held >= limit, held + self.dead.get(gauge, 0) >= limit
            assert may_refuse if refused_here else not must_refuse, f"{reply}: {gauge} has {held}"
            if refused_here:
                assert reply[3] == limit
                self.held = before
                return
            self.held[gauge, who, slot_id] = None
        assert reply[0] == 0, f"{reply}: nothing is full"

    def _release(self, reply: Any, who: int, span: Span, name: str, slot_id: str) -> None:
        self.held.pop((gauge_of(name), who, slot_id), None)
        left = self.live(gauge_of(name))
        assert left <= reply <= left + self.dead.get(gauge_of(name), 0)

    def _found_no_room(self, reply: Any, names: Sequence[str]) -> bool:
        if reply != NO_ROOM:
            return False
        assert self.is_crowded
        assert any(self.is_idle(name) for name in names), f"{names} were in use, and given up"
        return True

    # What a kill leaves open.

    def outcomes(self, operation: Operation, span: Span) -> Iterator[Model]:
        """What may be true after a process was killed in an operation.

        It has not happened, or it has; of several charges the first ones may have happened, and the
        window of the next one may have been opened for it. What the dead hold does not matter.
        """
        yield self.copy()
        name, args = operation
        if name == "check" and True in self.quota(*args).allowed(span):
            perhaps = self.copy()
            perhaps.quota(*args).charge_perhaps(span)
            yield perhaps
        elif name == "hit":
            yield from self._begun([(*pair, 1) for pair in args[0]])
        elif name == "admit" and self._refused(args[0]) is None:
            yield from self._begun([(ask.subject, ask.part, ask.amount) for ask in args[0]])
        elif name == "add" or (name == "guard" and self._is_right(*args)):
            added = self.copy()
            added.subject(args[0]).add(args[1], args[-1])
            yield added
        elif name == "acquire":
            perhaps = self.copy()
            for subject, _ in args[0]:
                gauge = gauge_of(subject)
                perhaps.dead[gauge] = perhaps.dead.get(gauge, 0) + 1
            yield perhaps

    def _begun(self, charges: Sequence[tuple[str, str, int]]) -> Iterator[Model]:
        for done, opened in itertools.product(range(len(charges) + 1), (0, 1)):
            model = self.copy()
            for charge in charges[:done]:
                model._charge(*charge)
            for subject, _, _ in charges[done : done + opened]:
                model.subject(subject).open()
            yield model

    def _is_right(self, name: str, part: str, off: int, amount: int) -> bool:
        return self.subject(name).is_open and off == 0

    # What anybody reads.

    def differences(self, seen: Snapshot) -> Iterator[str]:
        """Every value that is not what it must be."""
        for name, (is_open, counts) in seen.subjects.items():
            subject = self.subject(name)
            if (is_open, counts) != (subject.is_open, subject.counts):
                yield f"{name} is {(is_open, counts)} instead of {subject}"
        for gauge, count in seen.slots.items():
            live, dead = self.live(gauge), self.dead.get(gauge, 0)
            if not live <= count <= live + dead:
                yield f"{gauge} has {count} slots held instead of {live} (and {dead} of the dead)"

    def observe(self, seen: Snapshot) -> None:
        """Check all that was read."""
        assert [*self.differences(seen)] == []
        for (limit, key), remaining in seen.remaining.items():
            self.quota(limit, key).observe(remaining, seen.span)


def gauge_of(subject: str) -> str:
    """The key of a subject's concurrency slots."""
    return f"{subject}:max_parallel_requests"
