"""One run: the contenders' processes, and their turns at each case."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from benchmarks.contender_process import BrokenError, Contender, Contenders, MissingError
from benchmarks.result import Row, compare, row_of
from benchmarks.sections import Sample, Verdict, section

#: Parts that the samples of a case are divided into: in each of them every contender has its turn.
ROUNDS = 20


class Run(Contenders):
    """Contenders that are started when they are first needed."""

    def __init__(self, *arguments: Any) -> None:
        """Start nothing yet; see `Contenders`."""
        super().__init__(*arguments)
        #: Of each contender that was started: its version, and the cost of its clock, nanoseconds.
        self.met: dict[str, dict[str, Any]] = {}

    def measure(self, name: str, iterations: int) -> list[Row]:
        """Measure a section.

        Returns:
            A row for each case and contender, in order.
        """
        module = section(name)
        iterations = max(1, iterations // getattr(module, "SHARE", 1))
        rows: list[Row] = []
        for case in module.CASES:
            self.note(f"{name}: {case}")
            part = getattr(module, "PART", {}).get(case, module.CONTENDERS)
            turns = {who: _Turns() for who in part}
            if getattr(module, "FRESH", False):
                self._fresh(name, case, turns, min(module.SAMPLES, iterations))
            else:
                self._in_turns(name, case, turns, iterations)
            rows += self._rows(module, case, turns)
        compare(rows, module.CONTENDERS)
        return rows

    def _in_turns(self, name: str, case: str, turns: dict[str, _Turns], iterations: int) -> None:
        """Processes that go on from case to case, with a part of their samples in each round."""
        for who, found in turns.items():
            with found.tried():
                self.running(who).ask("prepare", name, case)
        rounds = min(ROUNDS, iterations)
        for number in range(rounds):
            share = iterations * (number + 1) // rounds - iterations * number // rounds
            for who, found in present(turns):
                with found.tried():
                    found.add(self.running(who).ask("sample", share))
        for who, found in present(turns):
            with found.tried():
                found.verdict = Verdict(**self.running(who).ask("check"))

    def _fresh(self, name: str, case: str, turns: dict[str, _Turns], samples: int) -> None:
        """A process for each sample."""
        for number in range(samples):
            for who, found in present(turns):
                if number and who in section(name).ONCE:
                    continue
                with found.tried(), self.started(who) as contender:
                    contender.ask("prepare", name, case)
                    found.add(contender.ask("sample", 1))
                    if number == 0:
                        found.verdict = Verdict(**contender.ask("check"))

    def _rows(self, module: Any, case: str, turns: dict[str, _Turns]) -> list[Row]:
        judge = turns.get(getattr(module, "JUDGE", ""))
        right = judge.verdict.value if judge is not None and judge.verdict is not None else None
        rows = []
        for who, found in turns.items():
            clock_ns = self.met.get(who, {}).get("clock_ns", 0.0) if module.UNIT == "ns" else 0.0
            verdict = found.verdict
            if verdict is not None and verdict.right is None:
                verdict.right = right
            rows.append(row_of(case, who, found.sample, verdict, found.absent, clock_ns))
        return rows

    def started(self, name: str) -> Contender:
        """A new process, which has told its version."""
        if name in self.left_out:
            raise MissingError(self.left_out[name])
        contender = super().started(name)
        try:
            self.met[name] = contender.ask("hello")
        except (MissingError, BrokenError) as error:
            contender.end()
            self.left_out[name] = str(error)
            raise
        return contender


class _Turns:
    """What a contender has done of one case."""

    def __init__(self) -> None:
        self.sample = Sample([])
        self.verdict: Verdict | None = None
        self.absent = ""

    def add(self, answer: dict[str, Any]) -> None:
        self.sample.means += answer["means"]
        self.sample.singles += answer["singles"]
        self.sample.odd += answer["odd"]
        self.sample.notes = answer["notes"] or self.sample.notes

    @contextlib.contextmanager
    def tried(self) -> Iterator[None]:
        """Notes what it does not have or cannot do, so that the others go on without it."""
        try:
            yield
        except (MissingError, BrokenError) as error:
            self.absent = str(error)


def present(turns: dict[str, _Turns]) -> Iterator[tuple[str, _Turns]]:
    """Those that take part so far."""
    return ((who, found) for who, found in turns.items() if not found.absent)
