"""What a series of measured durations says: the same buckets and rules as in the region.

From 128 ns on each power of two has four equal buckets; the first one has all that is less, and the
last one has no end (`shm_layout.md`, "Measure"). So a value is known to within a quarter, upwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

#: Buckets of a series.
BUCKETS = 132
#: The first bucket ends at, and the powers of two begin at, two to this.
_FIRST_BIT = 7


class Series(NamedTuple):
    """One series at one moment, or several added up.

    Attributes:
        component: what was measured.
        operation: which operation of it; empty for all of them.
        errors: operations that failed.
        sum_ns: sum of all durations in nanoseconds.
        max_ns: the longest in nanoseconds.
        input_bytes: bytes that the operations were given, as far as it was told.
        output_bytes: bytes that they gave.
        counts: durations by bucket.
    """

    component: str
    operation: str
    errors: int
    sum_ns: int
    max_ns: int
    input_bytes: int
    output_bytes: int
    counts: list[int]

    @property
    def name(self) -> str:
        """Its name in the region."""
        return f"{self.component}.{self.operation}" if self.operation else self.component

    @property
    def calls(self) -> int:
        """Durations that were measured."""
        return sum(self.counts)

    @property
    def mean_ns(self) -> float | None:
        """Average; None = nothing was measured."""
        calls = self.calls
        return self.sum_ns / calls if calls else None

    def quantile_ns(self, part: float) -> int | None:
        """A duration that at least `part` (0 to 1) of all do not exceed; None = nothing was measured.

        The upper end of the bucket with the smallest such duration, or the longest one if that is less:
        at most a quarter too large, from 128 ns to 16 minutes.
        """
        calls = self.calls
        if not calls:
            return None
        rank = min(max(math.ceil(part * calls), 1), calls)
        bucket = next(n for n, total in enumerate(accumulate(self.counts)) if total >= rank)
        # The longest may lag behind the counts, but not below the bucket.
        lowest = upper_ns(bucket - 1) + 1 if bucket else 0
        longest = max(self.max_ns, lowest)
        return longest if bucket == BUCKETS - 1 else min(upper_ns(bucket), longest)

    def cumulative(self) -> Iterator[tuple[int, int]]:
        """The largest value of each power of two in nanoseconds, and how many are not above it.

        The last bucket, which has no end, is not among them.
        """
        for bucket, total in enumerate(accumulate(self.counts)):
            if bucket % 4 == 3 and bucket < BUCKETS - 1:
                yield upper_ns(bucket), total


def bucket_of(ns: int) -> int:
    """The bucket that counts a duration."""
    bit = ns.bit_length() - 1
    if bit < _FIRST_BIT:
        return 0
    return min((bit - _FIRST_BIT) * 4 + (ns >> (bit - 2) & 3), BUCKETS - 1)


def upper_ns(bucket: int) -> int:
    """The largest duration that a bucket counts; of the last one, which has no end, as if it had."""
    power, quarter = divmod(bucket + 1, 4)
    return ((4 + quarter) << (_FIRST_BIT - 2) << power) - 1


def merged(component: str, all_series: Iterable[Series]) -> Series:
    """All operations of a component as one."""
    series = list(all_series)
    return Series(
        component,
        "",
        sum(each.errors for each in series),
        sum(each.sum_ns for each in series),
        max((each.max_ns for each in series), default=0),
        sum(each.input_bytes for each in series),
        sum(each.output_bytes for each in series),
        [sum(counts) for counts in zip(*(each.counts for each in series), strict=True)]
        or [0] * BUCKETS,
    )
