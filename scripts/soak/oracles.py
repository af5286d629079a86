"""Judges of limits: what was admitted, compared with what may and what must have been.

A judge knows of each request when it was sent, when it was answered and how; the server decided at some
instant between the two. It calls something a violation only if no instants explain it. A request whose
answer was lost may have been charged or not: it counts towards what must have been admitted, never
towards what was.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple, Protocol

ADMITTED, REFUSED, LOST = "admitted", "refused", "lost"

SECOND = 1.1
"""Windows begin at whole seconds of the server's clock, which may itself be some milliseconds late."""


class Seen(NamedTuple):
    """One request; that of one not answered yet is `LOST` now."""

    sent: float
    answered: float
    outcome: str


_NUMBERS = ("windows", "admitted", "allowed", "least", "over", "under")


@dataclass
class Judgement:
    """What a judge found so far; sums over whole windows, or whatever the limit is counted in.

    Attributes:
        standing: the numbers are no sums but the most so far.
    """

    windows: int = 0
    admitted: int = 0
    allowed: int = 0
    least: int = 0
    over: int = 0
    under: int = 0
    notes: list[str] = field(default_factory=list)
    standing: bool = False

    def plus(self, other: Judgement) -> Judgement:
        """That of two limits of one kind."""
        return self._combined(other, 1, self.notes + other.notes)

    def since(self, before: Judgement) -> Judgement:
        """What is new since it was `before`."""
        return self._combined(before, -1, [note for note in self.notes if note not in before.notes])

    def worst(self, other: Judgement) -> Judgement:
        """The worse one in each respect; of two looks at one limit."""
        worst = {name: max(getattr(self, name), getattr(other, name)) for name in _NUMBERS}
        return replace(other, **worst, notes=list(dict.fromkeys(self.notes + other.notes)))

    def _combined(self, other: Judgement, sign: int, notes: list[str]) -> Judgement:
        numbers = ("over", "under") if self.standing else _NUMBERS
        sums = {name: getattr(self, name) + sign * getattr(other, name) for name in numbers}
        return replace(self, **sums, notes=notes)


class Limit(Protocol):
    """Judges the requests against one limit.

    Attributes:
        memory_s: how far back requests matter to it; of those before, only the judgement is kept.
    """

    @property
    def memory_s(self) -> float:
        """See above."""
        ...

    def judge(self, seen: Sequence[Seen], now: float) -> Judgement:
        """Everything that can be said of these requests at this time."""
        ...


class _Charges:
    """Requests that were charged or may have been, for questions of how many in a stretch of time."""

    def __init__(self, seen: Sequence[Seen]) -> None:
        self._sent = sorted(each.sent for each in seen)
        self._answered = sorted(each.answered for each in seen)

    def within(self, begin: float, end: float) -> int:
        """How many may have been decided between the two instants."""
        return bisect_right(self._sent, end) - bisect_left(self._answered, begin)


class _Opening(NamedTuple):
    """A window opened after `low` and no later than `high`; since `full`, only this one admits."""

    low: float
    high: float
    full: float


def _openings(admitted: Sequence[Seen], refused: Sequence[Seen], first: float) -> list[_Opening]:
    """What looks like a window that opens, each after the one before it: an admission after a refusal."""
    answers = [each.answered for each in refused]
    latest: list[Seen] = []
    for each in refused:
        latest.append(each if not latest or each.sent > latest[-1].sent else latest[-1])
    found = [_Opening(first, admitted[0].answered if admitted else math.inf, -math.inf)]
    for each in admitted:
        before = bisect_left(answers, each.sent)
        if before:
            refusal = latest[before - 1]
            if refusal.sent >= found[-1].high:
                found.append(_Opening(refusal.sent, each.answered, refusal.answered))
    return found


def _inside(ordered: Sequence[Seen], after: float, end: float) -> int:
    """How many surely were decided in that time; of requests in the order of their answers."""
    first = bisect_right(ordered, after, key=lambda each: each.answered)
    last = bisect_right(ordered, end, key=lambda each: each.answered)
    return sum(each.sent > after for each in ordered[first:last])


@dataclass(frozen=True)
class Window:
    """A limit of so many requests in a window that begins with the first request after the last one.

    Attributes:
        extra: how many more than `limit` may be admitted, given how many answers were lost; of a limit
            of tokens, whose price is known only afterwards.
    """

    limit: int
    seconds: float
    extra: Callable[[int], int] = lambda _: 0
    memory_s: float = math.inf

    def judge(self, seen: Sequence[Seen], now: float) -> Judgement:
        """Judge all windows, the open one included; the sums are of those that were used up."""
        ordered = sorted(seen, key=lambda each: each.answered)
        admitted = [each for each in ordered if each.outcome == ADMITTED]
        refused = [each for each in ordered if each.outcome == REFUSED]
        charged = [each for each in ordered if each.outcome != REFUSED]
        if not charged:
            missing = self.limit if refused else 0
            notes = [f"all refused, nothing admitted of {missing}"] if refused else []
            return Judgement(under=missing, notes=notes)
        openings: list[tuple[_Opening, list[_Opening]]] = []
        for each in _openings(admitted, refused, min(each.sent for each in charged)):
            if openings and each.high - openings[-1][0].low < self.seconds - SECOND:
                openings[-1][1].append(each)
            else:
                openings.append((each, []))
        result = Judgement()
        self._judge_above(result, admitted, charged, refused, openings, now)
        self._judge_below(result, charged, refused, [opening for opening, _ in openings])
        return result

    def _judge_above(
        self,
        result: Judgement,
        admitted: Sequence[Seen],
        charged: Sequence[Seen],
        refused: Sequence[Seen],
        openings: Sequence[tuple[_Opening, list[_Opening]]],
        now: float,
    ) -> None:
        lost = _Charges([each for each in charged if each.outcome == LOST])
        for opening, again in openings:
            end = opening.low + self.seconds - SECOND
            sure = _inside(admitted, opening.full, end)
            lost_here = lost.within(opening.low, opening.high + self.seconds)
            most = self.limit + self.extra(lost_here)
            over = max(sure - most, len(again))
            if over > 0:
                result.over += over
                result.notes.append(f"{sure} admitted in one window, of {most} allowed")
            for each in again[:1]:
                result.notes.append(
                    f"admitted again {each.high - opening.low:.1f} s after a window of "
                    f"{self.seconds:.0f} s had begun and was full"
                )
            # Of one that was not used up nothing can be said of how many it had to admit.
            full = _inside(refused, opening.high, end)
            if full and opening.high + self.seconds <= now:
                result.windows += 1
                result.admitted += sure
                result.allowed += most
                result.least += max(0, self.limit - lost_here)
        self._judge_stretches(result, admitted, most=2 * (self.limit + self.extra(len(charged))))

    def _judge_stretches(self, result: Judgement, admitted: Sequence[Seen], most: int) -> None:
        """No stretch as long as a window meets three: holds even where nothing was refused."""
        sent = sorted(each.sent for each in admitted)
        worst = 0
        for each in admitted:
            begin = each.answered - self.seconds + SECOND
            inside = bisect_right(sent, each.answered) - bisect_left(sent, begin)
            if inside > most:
                inside = sum(o.sent >= begin and o.answered <= each.answered for o in admitted)
                worst = max(worst, inside - most)
        if worst > 0 and not result.over:
            result.over += worst
            result.notes.append(f"{worst + most} admitted in the length of one window")

    def _judge_below(
        self,
        result: Judgement,
        charged: Sequence[Seen],
        refused: Sequence[Seen],
        openings: Sequence[_Opening],
    ) -> None:
        charges = _Charges(charged)
        highs = [opening.high for opening in openings]
        missing: dict[int, int] = {}
        for each in refused:
            number = bisect_left(highs, each.sent) - 1
            # No window that is open at this refusal began earlier than that.
            begin = each.sent - self.seconds - SECOND
            if number >= 0:
                begin = max(begin, openings[number].low)
            short = self.limit - charges.within(begin, each.answered)
            if short > missing.get(number, 0):
                missing[number] = short
        for short in missing.values():
            result.under += short
            result.notes.append(
                f"refused with {self.limit - short} of {self.limit} admitted or lost"
            )


@dataclass(frozen=True)
class CalendarMinute:
    """A limit of so many requests in each minute of the wall clock; times are seconds of it."""

    limit: int
    memory_s: float = math.inf

    def judge(self, seen: Sequence[Seen], now: float) -> Judgement:
        """Judge all minutes."""
        result = Judgement()
        charges = _Charges([each for each in seen if each.outcome != REFUSED])
        lost = _Charges([each for each in seen if each.outcome == LOST])
        for minute in sorted({int(each.sent // 60) for each in seen}):
            begin, end = 60.0 * minute, 60.0 * (minute + 1)
            inside = [each for each in seen if each.sent >= begin and each.answered < end]
            sure = sum(each.outcome == ADMITTED for each in inside)
            if sure > self.limit:
                result.over += sure - self.limit
                result.notes.append(f"{sure} admitted in a minute, of {self.limit} allowed")
            refused = [each for each in inside if each.outcome == REFUSED]
            short = max(
                (self.limit - charges.within(begin, each.answered) for each in refused), default=0
            )
            if short > 0:
                result.under += short
                result.notes.append(
                    f"refused with {self.limit - short} of {self.limit} admitted or lost"
                )
            if end <= now and refused:
                result.windows += 1
                result.admitted += sure
                result.allowed += self.limit
                # Requests that crossed the end of the minute may count in either.
                crossed = sum(
                    each.outcome == ADMITTED and each.sent < edge <= each.answered
                    for each in seen
                    for edge in (begin, end)
                )
                result.least += max(0, self.limit - lost.within(begin, end) - crossed)
        return result


@dataclass(frozen=True)
class Quota:
    """A quota that refills steadily: in T seconds at most `burst + per_minute * T / 60 + 1`."""

    per_minute: int
    burst: int
    memory_s: float = math.inf

    slack_s: ClassVar[float] = 0.05
    """The clock of the region is coarse."""

    def judge(self, seen: Sequence[Seen], now: float) -> Judgement:
        """Judge every stretch of time between two admissions, and every refusal."""
        result = Judgement()
        rate = self.per_minute / 60.0
        admitted = [each for each in seen if each.outcome == ADMITTED]
        self._judge_above(result, admitted, rate)
        self._judge_below(result, seen, rate)
        refused = [each.sent for each in seen if each.outcome == REFUSED]
        if admitted and refused:
            begin, end = min(each.sent for each in admitted), max(refused)
            lost = sum(each.outcome == LOST for each in seen)
            result.windows = 1
            result.admitted = sum(each.answered <= end for each in admitted)
            result.allowed = int(self.burst + 1 + rate * (end - begin))
            # Between two refusals all that was earned was used.
            result.least = max(0, int(rate * (end - min(refused))) - 1 - lost)
        return result

    def _judge_above(self, result: Judgement, admitted: Sequence[Seen], rate: float) -> None:
        # Of the stretch from a request to an answer: at least as many as were answered by its end are in
        # it, less those that were sent before it.
        sent = sorted(each.sent for each in admitted)
        lowest, begun, worst = math.inf, 0, 0.0
        for number, end in enumerate(sorted(each.answered for each in admitted)):
            while begun < len(sent) and sent[begun] <= end:
                lowest = min(lowest, begun - rate * sent[begun])
                begun += 1
            inside = number + 1 - rate * end - lowest
            worst = max(worst, inside - self.burst - 1 - rate * self.slack_s)
        if worst > 0:
            result.over += math.ceil(worst)
            result.notes.append(
                f"{math.ceil(worst)} more than {self.burst} and {self.per_minute} a minute"
            )

    def _judge_below(self, result: Judgement, seen: Sequence[Seen], rate: float) -> None:
        # The bucket as full as it can have been at each refusal: everything charged as late as possible.
        charged = [each for each in seen if each.outcome != REFUSED]
        answered = sorted(each.answered for each in charged)
        sent = sorted(each.sent for each in charged)
        level, at, charges, worst = 0.0, 0.0, 0, 0.0
        for each in sorted(each for each in seen if each.outcome == REFUSED):
            while charges < len(answered) and answered[charges] <= each.sent:
                level = max(0.0, level - rate * (answered[charges] - at)) + 1
                at = answered[charges]
                charges += 1
            now = max(0.0, level - rate * (each.sent - at))
            pending = bisect_right(sent, each.answered) - charges
            worst = max(worst, self.burst - 1 - rate * self.slack_s - now - pending)
        if worst > 0:
            result.under += math.ceil(worst)
            result.notes.append(f"refused with room for {math.ceil(worst)} more")


@dataclass(frozen=True)
class Slots:
    """A limit of so many requests at a time, each of which holds its slot for a known time.

    Attributes:
        hold_s: how long a slot is held at least; longer by what the server takes before and after.
        late_s: how long after its answer, or after its worker died, a request may go on holding it.
    """

    limit: int
    hold_s: float
    late_s: float
    memory_s: float = 300.0

    def judge(self, seen: Sequence[Seen], now: float) -> Judgement:
        """Judge the most that surely were held at once, and every refusal."""
        admitted = [each for each in seen if each.outcome == ADMITTED]
        refused = [each for each in seen if each.outcome == REFUSED]
        peak = self._peak(admitted)
        result = Judgement(windows=1, admitted=peak, allowed=self.limit, standing=True)
        if peak > self.limit:
            result.over = peak - self.limit
            result.notes.append(f"{peak} at once, of {self.limit} allowed")
        charges = _Charges([each for each in seen if each.outcome != REFUSED])
        held = (charges.within(each.sent - self.late_s, each.answered) for each in refused)
        fewest = min(held, default=self.limit)
        if refused:
            result.least = self.limit
        if fewest < self.limit:
            result.under = self.limit - fewest
            result.notes.append(f"refused with at most {fewest} of {self.limit} held")
        return result

    def _peak(self, admitted: Sequence[Seen]) -> int:
        changes = []
        for each in admitted:
            # Whenever it began, it held its slot at these instants.
            begin, end = each.answered - self.hold_s + 0.02, each.sent + self.hold_s - 0.02
            if begin < end:
                changes += [(begin, 1), (end, -1)]
        peak = held = 0
        for _, change in sorted(changes):
            held += change
            peak = max(peak, held)
        return peak
