"""What counting tokens costs beside tiktoken, LiteLLM, the published package and the fastest peers.

    .venv/bin/python scripts/token_bench.py --json tokens.json     # all of it, some 15 minutes
    .venv/bin/python scripts/token_bench.py --quick                # half a minute, for a look
    .venv/bin/python scripts/token_bench.py --only texts --kinds English --sizes 20,2000

Every side has a process of its own; they take turns at each text, in an order that is drawn anew for each
round. Times are CPU time of all threads of a process. Everybody's ids are compared with tiktoken's first.
Peers are installed from the package index into .cache; without an index they are left out, and the report
says so. The report is Markdown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from benchmarks import child, machine
from benchmarks.counting import batches, fresh, peers, table, texts, turns
from benchmarks.counting.turns import Plan, Sides
from benchmarks.counting.worker import Worker
from benchmarks.options import names_of

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("texts", "worst", "start", "memory", "batches")
SIZES = (20, 200, 2_000, 20_000, 200_000, 2_000_000)
WORST_SIZE = 100_000

QUICK = Plan(rounds=3, span_ns=300_000, cell_ns=100_000_000, fewest=1, longest_ns=1_000_000_000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    options = parse(arguments)
    if options.child:
        child.serve(Worker(options.child))
        return 0
    report = measure(options)
    print(table.text(report))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def some(option: str, known: Collection[Any], kind: Callable[[str], Any]) -> None:
        parser.add_argument(
            option,
            type=kind,
            default=list(known),
            metavar="LIST",
            help=f"some of {','.join(map(str, known))} (default: all)",
        )

    for option, known in (
        ("--only", PARTS),
        ("--sides", peers.SIDES),
        ("--encodings", peers.RANKS),
        ("--kinds", texts.KINDS),
        ("--worst", texts.WORST),
    ):
        some(option, known, names_of(known))
    some("--sizes", SIZES, lambda text: [int(size) for size in text.split(",")])
    parser.add_argument("--worst-size", type=int, default=WORST_SIZE, metavar="CHARACTERS")
    parser.add_argument("--rounds", type=int, default=None, metavar="N", help="turns at each text")
    parser.add_argument(
        "--quick", action="store_true", help="few and short turns, up to 20,000 characters"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order of turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to FILE")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.quick:
        options.sizes = [size for size in options.sizes if size <= 20_000]
        options.worst_size = min(options.worst_size, 10_000)
    return options


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure.

    Returns:
        The report, as it is written to JSON.
    """
    plan = QUICK if options.quick else Plan()
    if options.rounds is not None:
        plan.rounds = options.rounds
    vocabularies = peers.vocabularies()
    if vocabularies is not None:
        peers.use_vocabularies(vocabularies)
    interpreters, left_out = peers.interpreters(options.sides, ROOT / ".cache")
    facts = {**machine.facts(), "load_before": machine.load()}
    draw = random.Random(options.seed)
    report: dict[str, Any] = {
        "seed": options.seed,
        "rounds": plan.rounds,
        "machine": facts,
        "sides": {},
        "left_out": {},
        "exact": {},
        "cells": [],
        "worst": [],
        "start": [],
        "memory": [],
        "batches": [],
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        Sides(interpreters, left_out, Path(__file__).resolve(), Path(folder), note) as sides,
    ):
        for encoding in options.encodings:
            sides.load(encoding)
            report["exact"][encoding] = turns.judge(sides, encoding, turns.samples())
        for encoding in options.encodings:
            if "texts" in options.only:
                for kind, size in itertools.product(options.kinds, options.sizes):
                    note(f"{encoding}: {kind}, {size:,} characters")
                    text = texts.text_of(kind, size)
                    cells = turns.measure(sides, encoding, kind, text, plan, draw)
                    report["cells"] += [cell.as_json() for cell in cells]
            if "worst" in options.only:
                for kind in options.worst:
                    note(f"{encoding}: {kind}, {options.worst_size:,} characters")
                    made = (kind, options.worst_size, texts.WORST[kind])
                    cells = turns.measure_new(sides, encoding, *made, plan, draw)
                    report["worst"] += [cell.as_json() for cell in cells]
            if "start" in options.only:
                few, times = (30, 1) if options.quick else (600, 3)
                report["start"] += fresh.start(sides, encoding, fresh.COLD, few, times)
            if "memory" in options.only:
                length = 2_000 if options.quick else 200_000
                report["memory"] += fresh.memory(sides, encoding, length)
            if "batches" in options.only:
                report["batches"] += batches.measure(sides, encoding, options.quick, draw)
        report["left_out"] = sides.left_out
        report["sides"] = {
            side: {
                "version": sides.versions.get(side, ""),
                "absent": "" if side in sides.versions else sides.left_out.get(side, ""),
            }
            for side in peers.SIDES
        }
    report["machine"]["load_after"] = machine.load()
    return report


def note(line: str) -> None:
    """Say something that is not part of the report."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
