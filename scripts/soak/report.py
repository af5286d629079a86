"""What a soak prints: a block each minute, and a verdict at the end."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .oracles import Judgement
from .traffic import Answers
from .watch import MIB, Look, Watch

GROWTH_ALLOWED = 0.15
"""Of a process, from the second quarter of a run to its last; and ..."""
GROWTH_ALLOWED_BYTES = 8 * MIB
"""... so much besides: allocators keep what they once had."""
REGION_GROWTH_ALLOWED_BYTES = MIB
"""Of the region: each new key may be the first in its page, until all pages have one."""


@dataclass
class Minute:
    """What happened in one minute, or however long the interval is.

    Attributes:
        judged: of each kind of limit, what this minute added to what was found.
        events: of each kind, how many so far.
    """

    number: int
    at_s: float
    seconds: float
    judged: dict[str, Judgement]
    answers: Answers
    look: Look
    events: dict[str, int]
    generation: int

    def as_json(self) -> dict[str, Any]:
        """The minute as data."""
        outcomes = self.answers.outcomes
        look = dataclasses.asdict(self.look)
        for name in ("rss", "pss"):
            look[name] = {str(pid): value for pid, value in look[name].items()}
        return {
            "minute": self.number,
            "at_s": round(self.at_s, 1),
            "limits": {kind: dataclasses.asdict(each) for kind, each in self.judged.items()},
            "admitted": outcomes["admitted"],
            "refused": outcomes["refused"],
            "lost": outcomes["lost"],
            "unexplained": self.answers.unexplained,
            "faults": self.answers.faults,
            "requests_per_s": round(sum(outcomes.values()) / self.seconds, 1),
            "p50_ms": _ms(self.answers.seconds, 0.5),
            "p99_ms": _ms(self.answers.seconds, 0.99),
            "look": look,
            "events": self.events,
            "master_generation": self.generation,
        }

    def text(self) -> str:
        """The minute for people."""
        outcomes, look = self.answers.outcomes, self.look
        total = sum(outcomes.values())
        lines = [
            f"{_time(self.at_s)}  {total / self.seconds:.0f} requests/s, "
            f"p50 {_ms(self.answers.seconds, 0.5)} ms, p99 {_ms(self.answers.seconds, 0.99)} ms; "
            f"{outcomes['admitted']} admitted, {outcomes['refused']} refused, {outcomes['lost']} lost "
            f"({len(self.answers.unexplained)} of them unexplained), {len(self.answers.faults)} faults",
            f"  {'limits':24}{'ended':>7}{'admitted':>10}{'allowed':>9}{'at least':>10}"
            f"{'over':>6}{'under':>7}",
        ]
        for kind, each in sorted(self.judged.items()):
            # What was cut off at the ends of a minute may have been admitted in the next one.
            least = each.least if each.under else min(each.least, each.admitted)
            lines.append(
                f"  {kind:24}{each.windows:>7}{each.admitted:>10}{each.allowed:>9}{least:>10}"
                f"{each.over:>6}{each.under:>7}"
            )
            lines += [f"    {note}" for note in each.notes[:5]]
        master_rss, master_pss = look.memory(look.masters)
        worker_rss, worker_pss = look.memory(look.workers)
        lines += [
            f"  memory  region {_mib(look.region_bytes)}, {_mib(look.region_used)} in use; "
            f"{len(look.masters)} master(s) RSS {_mib(master_rss)} PSS {_mib(master_pss)}; "
            f"{len(look.workers)} workers RSS {_mib(worker_rss)} PSS {_mib(worker_pss)}",
            f"  region  {look.regions} of that name; {look.keys} keys; {look.rows} worker rows used, "
            f"{look.dead_rows} of the dead; leases: "
            + (", ".join(f"{n} {owner}" for owner, n in sorted(look.owners.items())) or "none"),
            "  so far  "
            + (", ".join(f"{n} {kind}" for kind, n in sorted(self.events.items())) or "no events")
            + f"; master {self.generation}",
        ]
        return "\n".join(lines)


@dataclass
class Check:
    """One line of the verdict."""

    name: str
    ok: bool
    found: str

    def text(self) -> str:
        """The line."""
        return f"  {'ok  ' if self.ok else 'FAIL'}  {self.name:28}{self.found}"


@dataclass
class Growth:
    """A series of bytes over a run: the medians of its second and its last quarter, and its slope."""

    name: str
    second: float
    last: float
    per_minute: float
    allowed: float

    def check(self) -> Check:
        """Whether it has not grown."""
        return Check(
            f"memory: {self.name}",
            self.last - self.second <= self.allowed,
            f"{_mib(self.second)} in the second quarter, {_mib(self.last)} in the last; "
            f"{self.per_minute / 1024:+.1f} KiB a minute",
        )


def growth(
    name: str, points: Sequence[tuple[float, float]], allowed: float | None = None
) -> Growth | None:
    """How a series of times and bytes grows; `None` if it is too short to tell."""
    if len(points) < 12:
        return None
    times, values = zip(*points, strict=True)
    quarter = len(values) // 4
    second = statistics.median(values[quarter : 2 * quarter])
    return Growth(
        name,
        second,
        statistics.median(values[-quarter:]),
        # Without the first quarter, in which everything is used for the first time.
        60 * statistics.linear_regression(times[quarter:], values[quarter:]).slope,
        second * GROWTH_ALLOWED + GROWTH_ALLOWED_BYTES if allowed is None else allowed,
    )


def memory_of(looks: Sequence[Look]) -> list[Growth]:
    """How the memory of the region, of the master and of workers developed."""
    # The oldest master; the PSS of one depends on how many share with it.
    masters = [(look.at_s, look.rss[look.masters[0]]) for look in looks if _is_known(look)]
    workers = [
        (look.at_s, look.memory(look.workers)[0] / len(look.workers))
        for look in looks
        if look.workers
    ]
    region = [(look.at_s, look.region_used) for look in looks if look.region_used]
    found = (
        growth("region in use", region, REGION_GROWTH_ALLOWED_BYTES),
        growth("master RSS", masters),
        growth("RSS of a worker", workers),
    )
    return [each for each in found if each is not None]


def _is_known(look: Look) -> bool:
    return bool(look.masters) and look.masters[0] in look.rss


def rows_check(looks: Sequence[Look], most: int) -> Check:
    """Whether rows of the dead are used again."""
    found = max((look.rows for look in looks), default=0)
    return Check("worker rows", found <= most, f"at most {found} used at once, {most} expected")


def region_check(watch: Watch, expected: int) -> Check:
    """Whether there was one region all the time."""
    counts = sorted({look.regions for look in watch.looks})
    sizes = {look.region_bytes for look in watch.looks if look.regions == 1}
    return Check(
        "duplicate regions",
        counts == [expected] and len(sizes) <= 1,
        f"regions seen at once: {', '.join(map(str, counts))} in {len(watch.looks)} looks",
    )


def service_check(
    minutes: Sequence[Minute], judged: Mapping[str, Judgement], windows: int
) -> Check:
    """Whether there was anything to judge: answers in each minute, and so many windows that ended."""
    silent = [str(each.number) for each in minutes if not each.answers.outcomes["admitted"]]
    ended = sum(each.windows for kind, each in judged.items() if not each.standing)
    found = f"{ended} windows judged"
    if silent:
        found += f"; nothing admitted in minute {', '.join(silent)}"
    return Check("service", not silent and ended >= windows, found)


def _ms(seconds: Sequence[float], quantile: float) -> float | None:
    if not seconds:
        return None
    ordered = sorted(seconds)
    return round(1000 * ordered[min(len(ordered) - 1, int(quantile * len(ordered)))], 1)


def _mib(size: float) -> str:
    return f"{size / MIB:.1f} MiB"


def _time(seconds: float) -> str:
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"
