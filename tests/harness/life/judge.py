"""Whether limits were exact, by the answers of a run alone.

A request that was lost with its worker may have taken something of each limit, or not; that much is
unknown, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .client import Answer

#: What two clocks and a rounded interval may differ in.
TOLERANCE_S = 0.002
#: How long after the death of a worker its slots may be missing.
FREED_WITHIN_S = 1.0


@dataclass(frozen=True)
class Limits:
    """The limits of each key."""

    slots: int = 3
    per_minute: int = 1_200
    burst: int = 10

    @property
    def per_second(self) -> float:
        """The rate."""
        return self.per_minute / 60


def judge(answers: Sequence[Answer], limits: Limits) -> list[str]:
    """All that was wrong with the answers about one key, from the first request about it."""
    good = [answer for answer in answers if not answer.fault]
    lost = [answer for answer in answers if answer.fault == "lost"]
    odd = [f"status {answer.status}" for answer in answers if answer.fault == "status"]
    if not good:
        return [*odd, "no request was answered"]
    return [
        *odd,
        *_rate(good, lost, limits),
        *_counts(good, len(lost)),
        *_slots("slots", [(a, a.slot) for a in good], lost, limits.slots),
        *_slots("connections", [(a, a.connection) for a in good], lost, limits.slots),
    ]


def _rate(good: Sequence[Answer], lost: Sequence[Answer], limits: Limits) -> list[str]:
    """At most `burst + rate * T + 1` in any T, and nobody refused while there was room."""
    wrong = []
    admitted = sorted((a for a in good if a.rate), key=lambda a: a.times[0])
    # With `n` admitted from one until another: n <= burst + rate * (its end - the other's begin) + 1.
    worst = earliest = float("-inf")
    for number, answer in enumerate(admitted):
        earliest = max(earliest, limits.per_second * answer.times[0] - number)
        worst = max(worst, number + 1 + earliest - limits.per_second * answer.times[1])
    if worst > limits.burst + 1:
        wrong.append(f"rate: {worst:.1f} at once, with a burst of {limits.burst}")
    apart_s = 1 / limits.per_second
    # The end and the begin of whatever was charged; the lost ones may have been.
    charged = [(a.times[1], a.times[0]) for a in admitted] + [(a.over, a.sent) for a in lost]
    charged.sort()
    for refused in (a for a in good if not a.rate):
        # When everything that was charged by then has flowed off, at the latest.
        empty_at = float("-inf")
        for end, begin in charged:
            if begin <= refused.times[1]:
                empty_at = max(empty_at, end) + apart_s
        if empty_at - refused.times[0] < (limits.burst - 1) * apart_s - TOLERANCE_S:
            wrong.append("rate: one was refused while there was room")
            break
    if len(admitted) == len(good):
        wrong.append("rate: nobody was refused, so nothing was shown")
    return wrong


def _counts(good: Sequence[Answer], lost: int) -> list[str]:
    """Every number is given once, in the order of time, and none is left out."""
    wrong = []
    ordered = sorted(good, key=lambda a: a.count)
    counts = [answer.count for answer in ordered]
    if len(set(counts)) < len(counts):
        wrong.append(f"counts: {len(counts) - len(set(counts))} were given twice")
    if not 0 <= counts[-1] - len(set(counts)) <= lost:
        wrong.append(f"counts: {len(counts)} from {counts[0]} to {counts[-1]}, {lost} lost")
    latest = 0.0
    for answer in ordered:
        if answer.over < latest:
            wrong.append(f"counts: {answer.count} was given before a smaller one was asked for")
            break
        latest = max(latest, answer.sent)
    return wrong


def _slots(
    what: str, good: Sequence[tuple[Answer, bool]], lost: Sequence[Answer], limit: int
) -> list[str]:
    """Never more held than the limit, and nobody refused while fewer were."""
    wrong = []
    holders = [answer for answer, held in good if held]
    peak = _most([(a.times[1], a.times[2]) for a in holders])
    if peak > limit:
        wrong.append(f"{what}: {peak} were held at once, the limit is {limit}")
    # Taken or given back somewhere between these; a dead worker's are held until they are freed.
    perhaps = [(a.times[0], a.times[3]) for a in holders]
    perhaps += [(a.sent, a.over + FREED_WITHIN_S) for a in lost]
    refused = [(a.times[0], a.times[1]) for a, held in good if not held]
    for begin, end in refused:
        others = [(max(begin, b), min(end, e)) for b, e in perhaps if b <= end and e >= begin]
        if (most := _most(others)) < limit:
            wrong.append(f"{what}: one was refused while {most} of {limit} were held")
            break
    if not refused:
        wrong.append(f"{what}: nobody was refused, so nothing was shown")
    return wrong


def _most(spans: Sequence[tuple[float, float]]) -> int:
    """The largest number of closed spans with an instant in common."""
    most = now = 0
    edges = [(begin, 0) for begin, _ in spans] + [(end, 1) for _, end in spans]
    for _, is_end in sorted(edges):
        now += -1 if is_end else 1
        most = max(most, now)
    return most
