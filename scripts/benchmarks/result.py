"""The figures of a run, and how they stand to each other."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.sections import Sample, Verdict


@dataclass
class Row:
    """One contender in one case.

    Attributes:
        case: what was done.
        contender: who did it.
        absent: why there are no figures; empty = there are.
        median: of one operation, in the section's unit.
        p95, p99: of single operations if `tail` is "single", else of batches' means.
        samples: batches, or processes.
        odd: batches that ended with an answer that the case is not about.
        holds: whether it did what it is timed for; None = it has nothing to hold.
        says: what it did, beside what is right.
        against: whom of ours it is compared with; empty = nobody.
        ratio: its median divided by ours of the same run; below 1 = we lose.
        notes: further figures.
    """

    case: str
    contender: str
    absent: str = ""
    median: float | None = None
    p95: float | None = None
    p99: float | None = None
    tail: str = ""
    samples: int = 0
    odd: int = 0
    holds: bool | None = None
    says: str = ""
    against: str = ""
    ratio: float | None = None
    notes: dict[str, float] | None = None

    @property
    def lost(self) -> bool:
        """Whether ours is the dearer one."""
        return self.ratio is not None and self.ratio < 1

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {**asdict(self), "we_lose": self.lost}


def row_of(
    case: str,
    contender: str,
    sample: Sample,
    verdict: Verdict | None,
    absent: str,
    clock_ns: float,
) -> Row:
    """Sum measurements up; `clock_ns` is what the clock adds to each single one."""
    row = Row(case, contender, absent)
    if absent or not sample.means:
        row.absent = absent or "nothing was measured"
        return row
    tail = sorted(max(0.0, single - clock_ns) for single in sample.singles)
    row.tail = "single" if tail else "batch"
    tail = tail or sorted(sample.means)
    row.median = statistics.median(sample.means)
    row.p95, row.p99 = quantile(tail, 0.95), quantile(tail, 0.99)
    row.samples, row.odd = len(sample.means), sample.odd
    row.notes = sample.notes or None
    if verdict is not None:
        row.says = verdict.says
        if verdict.value is not None and verdict.right is not None:
            row.holds = verdict.value == verdict.right
            row.says = verdict.says.format(value=verdict.value, right=verdict.right)
    return row


def quantile(ascending: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by `share` of them."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def opponent(contender: str, contenders: Sequence[str]) -> str:
    """Whom of ours a contender is compared with: the one that has the same work to do."""
    inside = "litellm_ours"
    if contender in ("ours", "ours_fitted", inside):
        return ""
    return inside if contender.startswith("litellm") and inside in contenders else "ours"


def compare(rows: Sequence[Row], contenders: Sequence[str]) -> None:
    """Fill in how each contender of a section stands to ours, in this run."""
    medians = {(row.case, row.contender): row.median for row in rows}
    for row in rows:
        row.against = opponent(row.contender, contenders)
        ours = medians.get((row.case, row.against))
        if ours and row.median is not None:
            row.ratio = row.median / ours
