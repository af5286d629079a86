"""What is measured. Each module is one section: its cases, and what a contender does for one of them.

The parent reads `TITLE`, `UNIT`, `CASES`, `CONTENDERS` and the optional `FRESH`; a contender's process
calls `subject`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass
class Sample:
    """Measurements of one case.

    Attributes:
        means: of one operation, averaged over a batch; in the section's unit.
        singles: of single operations; empty = they cannot be told apart.
        odd: batches that ended with another answer than the case is about.
        notes: further figures.
    """

    means: list[float]
    singles: list[float] = field(default_factory=list)
    odd: int = 0
    notes: dict[str, float] = field(default_factory=dict)


@dataclass
class Verdict:
    """Whether a contender does what it is timed for.

    Attributes:
        value: what it did.
        right: what it should have done; None = as the section's `JUDGE` did.
        says: the sentence around them; empty = nothing was to be done right.
    """

    value: float | None
    right: float | None
    says: str


class Subject(Protocol):
    """One contender, ready for one case."""

    def sample(self, count: int) -> Sample:
        """Measure `count` times."""

    def check(self) -> Verdict:
        """See whether it does what it is timed for."""


def contender(name: str) -> Any:
    """The module of a contender."""
    from importlib import import_module

    return import_module(f"benchmarks.contenders.{name}")


def section(name: str) -> Any:
    """The module of a section."""
    from importlib import import_module

    return import_module(f"benchmarks.sections.{name}")
