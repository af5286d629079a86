"""The turns of all sides at one text after another."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contender_process import BrokenError, Contender, Contenders, MissingError
from benchmarks.counting import peers, texts

#: Of a text that nobody has tried yet, these shares are counted first, to see how long it will take.
SHARES = (80, 20)

#: Turns at texts that are new each time, at most.
NEW_ROUNDS = 9


@dataclass
class Plan:
    """How much is measured.

    Attributes:
        rounds: turns of everybody at each text.
        span_ns: CPU time of one turn; a longer call is made once.
        cell_ns: CPU time of all turns of a way at one text; who has used it rests after `fewest` rounds.
        fewest: see `cell_ns`.
        longest_ns: a call that would take longer is not made.
    """

    rounds: int = 25
    span_ns: int = 5_000_000
    cell_ns: int = 1_500_000_000
    fewest: int = 5
    longest_ns: int = 3_000_000_000


@dataclass
class Cell:
    """A way at a text.

    Attributes:
        encoding, kind, length: what was counted.
        side, way, operation: who counted.
        times: nanoseconds of CPU time of one call, a value for each turn.
        count: tokens.
        absent: why there are none.
    """

    encoding: str
    kind: str
    length: int
    side: str
    way: str
    operation: str
    times: list[float] = field(default_factory=list)
    count: int | None = None
    absent: str = ""

    def as_json(self) -> dict[str, Any]:
        """Everything, with the median and the tenth percentile."""
        found = dict(vars(self))
        del found["times"]
        found["turns"] = len(self.times)
        found["median_ns"] = statistics.median(self.times) if self.times else None
        found["p10_ns"] = sorted(self.times)[len(self.times) // 10] if self.times else None
        return found


class Sides(Contenders):
    """The processes of all sides. One that lacks an encoding is left out as "side, encoding"."""

    def __init__(self, *arguments: Any) -> None:
        """Start nothing yet; see `Contenders`. The directory is for texts as well."""
        super().__init__(*arguments)
        #: Versions by side.
        self.versions: dict[str, str] = {}
        #: Sides that count, and the operation of each of their ways, by encoding.
        self.ways: dict[str, dict[tuple[str, str], str]] = {}
        self._numbers = itertools.count()

    def load(self, encoding: str) -> None:
        """Start everybody, and have them load an encoding."""
        ways = self.ways.setdefault(encoding, {})
        for side in self.interpreters:
            if side in self.left_out:
                continue
            self.note(f"{side} loads {encoding}")
            try:
                contender = self.running(side)
                if side not in self.versions:
                    self.versions[side] = contender.ask("hello")["version"]
                found = contender.ask("load", encoding, self.vocabulary(encoding))["ways"]
            except (MissingError, BrokenError) as error:
                where = side if side not in self.versions else f"{side}, {encoding}"
                self.left_out[where] = str(error)
                continue
            ways |= {(side, way): operation for way, operation in found.items()}

    def ask(self, side: str, *order: Any) -> dict[str, Any]:
        """Give the process of a side an order."""
        return self.running(side).ask(*order)

    @contextlib.contextmanager
    def fresh(self, side: str) -> Iterator[Contender]:
        """A new process of a side, for one measurement."""
        with self.started(side) as contender:
            contender.ask("hello")
            yield contender

    def vocabulary(self, encoding: str) -> str:
        """The file of an encoding's ranks, for those who load one."""
        folder = peers.vocabularies()
        return "" if folder is None else str(folder / peers.RANKS[encoding])

    def file(self, content: str | list[str]) -> str:
        """Write a text, or several as JSON, to a new file for the processes; returns its path."""
        path = self._logs / f"text-{next(self._numbers)}"
        data = content if isinstance(content, str) else json.dumps(content)
        path.write_bytes(data.encode())
        return str(path)


def measure(
    sides: Sides, encoding: str, kind: str, text: str, plan: Plan, draw: random.Random
) -> list[Cell]:
    """Have everybody count one text again and again, in turns; the order of each round is drawn."""
    cells = _cells(sides, encoding, kind, len(text))
    for cell in cells:
        with _noted(cell):
            _foresee(sides, cell, lambda length: text[:length], plan)
    path = sides.file(text)
    for cell in _in_turns(cells, plan.rounds, plan, draw):
        with _noted(cell):
            _take(
                cell, sides.ask(cell.side, "measure", encoding, cell.way, path, plan.span_ns), text
            )
    return cells


def measure_new(
    sides: Sides,
    encoding: str,
    kind: str,
    length: int,
    make: Callable[[int, int], str],
    plan: Plan,
    draw: random.Random,
) -> list[Cell]:
    """Have everybody count a text that is another one in each round, so that nobody can remember it.

    `make` makes it, from its length and the number of the round.
    """
    cells = _cells(sides, encoding, kind, length)
    for cell in cells:
        with _noted(cell):
            _foresee(sides, cell, lambda length: make(length, 99), plan)
    rounds = min(plan.rounds, NEW_ROUNDS)
    # What one way of a process has counted, another one of it may remember.
    places = [_place(cell, cells) for cell in cells]
    numbers = range(1, 1 + rounds * (1 + max(places, default=0)))
    made = {number: make(length, number) for number in numbers}
    paths = {number: sides.file(text) for number, text in made.items()}
    place_of = {id(cell): place for cell, place in zip(cells, places, strict=True)}
    for cell in _in_turns(cells, rounds, plan, draw):
        with _noted(cell):
            number = 1 + place_of[id(cell)] * rounds + len(cell.times)
            answer = sides.ask(cell.side, "once", encoding, cell.way, paths[number])
            _take(cell, answer, made[number])
    # Counts are compared, so they have to be of one text.
    path = sides.file(make(length, 0))
    for cell in cells:
        with _noted(cell):
            if not cell.absent:
                cell.count = sides.ask(cell.side, "once", encoding, cell.way, path)["count"]
    return cells


def _place(cell: Cell, cells: Sequence[Cell]) -> int:
    return [other.way for other in cells if other.side == cell.side].index(cell.way)


def _cells(sides: Sides, encoding: str, kind: str, length: int) -> list[Cell]:
    return [
        Cell(encoding, kind, length, side, way, operation)
        for (side, way), operation in sides.ways[encoding].items()
    ]


def _in_turns(
    cells: Sequence[Cell], rounds: int, plan: Plan, draw: random.Random
) -> Iterator[Cell]:
    for number in range(rounds):
        turn = [cell for cell in cells if not cell.absent]
        draw.shuffle(turn)
        for cell in turn:
            if number < plan.fewest or sum(cell.times) <= plan.cell_ns:
                yield cell


def _take(cell: Cell, answer: dict[str, Any], text: str) -> None:
    if answer["characters"] != len(text):
        raise BrokenError(f"counted {answer['characters']} characters instead of {len(text)}")
    cell.times.append(answer["ns"])
    cell.count = answer["count"]


@contextlib.contextmanager
def _noted(cell: Cell) -> Iterator[None]:
    try:
        yield
    except (MissingError, BrokenError) as error:
        cell.absent = str(error)


def _foresee(sides: Sides, cell: Cell, make: Callable[[int], str], plan: Plan) -> None:
    """Leave a way out that would take too long, going by how its time grows with shorter texts."""
    if cell.length < 10_000:
        return
    taken = []
    for share in SHARES:
        text = make(cell.length // share)
        path = sides.file(text)
        order = ("once", cell.encoding, cell.way, path)
        # The first one may load something.
        taken.append(min(sides.ask(cell.side, *order)["ns"] for _ in range(2)))
    few, more = taken
    growth = max(1.0, more / max(1, few))
    # Time is taken for a power of length.
    whole = more * growth ** _steps(SHARES[1], SHARES[0] / SHARES[1])
    if whole > plan.longest_ns:
        length, seconds = cell.length // SHARES[1], more / 1e9
        cell.absent = f"too slow: {seconds:.3g} s for {length:,} characters"


def _steps(factor: float, base: float) -> float:
    from math import log

    return log(factor) / log(base)


def judge(sides: Sides, encoding: str, samples: Sequence[str]) -> dict[str, Any]:
    """Compare everybody's ids, or counts where there are no ids, with tiktoken's.

    Returns:
        By way: `texts`, `differ` (how many), `by` ("ids" or "counts"), `first` (the first that differs,
        shortened). Empty without tiktoken.
    """
    path = sides.file(list(samples))
    answers: dict[str, dict[str, Any]] = {}
    for side, way in sides.ways[encoding]:
        with contextlib.suppress(MissingError, BrokenError):
            answers[way] = sides.ask(side, "judge", encoding, way, path)
    right = answers.get("tiktoken")
    if right is None:
        return {}
    found = {}
    for way, answer in answers.items():
        by = "ids" if all(answer["digests"]) else "counts"
        key = "digests" if by == "ids" else "counts"
        wrong = [
            sample
            for sample, theirs, ours in zip(samples, answer[key], right[key], strict=True)
            if theirs != ours
        ]
        first = repr(wrong[0][:40]) if wrong else ""
        found[way] = {"texts": len(samples), "differ": len(wrong), "by": by, "first": first}
    return found


def samples() -> list[str]:
    """Texts of all kinds for `judge`."""
    found = list(texts.TRAPS)
    for kind in texts.KINDS:
        found += texts.documents(kind, 100, 1_000)
    found += [make(1_500, 0) for make in texts.WORST.values()]
    return found
