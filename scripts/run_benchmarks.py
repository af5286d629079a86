"""What fast_litellm costs beside the published package, LiteLLM's own code and plain Python, in one run.

    .venv/bin/python scripts/run_benchmarks.py --iterations 200
    .venv/bin/python scripts/run_benchmarks.py --only pool,rate --json figures.json

Every contender has a process of its own, and they take turns at each case. A contender that does not do
what it is timed for is marked, and so is every case in which ours is the dearer one. The machine should
be idle. The published package is installed from the package index into .cache/published; without an index
it is left out. docs/benchmarks.md tells how to read the tables.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import child, instructions, machine, overhead, published, report
from benchmarks.options import names_of
from benchmarks.run import Run
from benchmarks.sections import section

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = ("pool", "rate", "processes", "memory", "routing", "tokens", "overhead")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    options = parse(arguments)
    if options.child:
        child.serve(child.Worker(options.child))
        return 0
    if options.count:
        overhead.count_all()
        return 0
    names = [name for name in SECTIONS if name in options.only]
    found = measure(names, options.iterations, options.contenders)
    print(report.text(found))
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--iterations",
        type=positive,
        default=200,
        metavar="N",
        help="samples of each case, of up to 1,000 operations each (default: 200)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to FILE")
    parser.add_argument(
        "--only",
        type=names_of(SECTIONS),
        default=list(SECTIONS),
        metavar="SECTION",
        help=f"some of {','.join(SECTIONS)} (default: all)",
    )
    parser.add_argument(
        "--contenders",
        type=names_of(report.LABELS),
        default=list(report.LABELS),
        metavar="LIST",
        help=f"some of {','.join(report.LABELS)} (default: all)",
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """An argument type: a number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def measure(names: Sequence[str], iterations: int, contenders: Sequence[str]) -> dict[str, Any]:
    """Measure sections.

    Returns:
        The report: `iterations`, `machine`, `contenders` and `sections`, as they are written to JSON.
    """
    cache = ROOT / ".cache"
    logs = cache / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    interpreters = dict.fromkeys(report.LABELS, Path(sys.executable))
    left_out = {name: "not asked for" for name in report.LABELS if name not in contenders}
    if "published" in contenders and any(name != "overhead" for name in names):
        python, reason = published.interpreter(cache)
        if python is None:
            note(f"published: {reason}")
            left_out["published"] = reason
        else:
            interpreters["published"] = python
    facts = {**machine.facts(), "load_before": machine.load()}
    sections: dict[str, Any] = {}
    with Run(interpreters, left_out, Path(__file__).resolve(), logs, note) as run:
        for name in names:
            if name == "overhead":
                continue
            rows = run.measure(name, iterations)
            module = section(name)
            sections[name] = {
                "title": module.TITLE,
                "unit": module.UNIT,
                "rows": [row.as_json() for row in rows],
            }
    if "overhead" in names:
        sections["overhead"] = measure_overhead()
    return {
        "iterations": iterations,
        "machine": {**facts, "load_after": machine.load()},
        "contenders": {
            name: {
                "version": run.met.get(name, {}).get("version", ""),
                "absent": run.left_out.get(name, "" if name in run.met else "not needed"),
            }
            for name in report.LABELS
        },
        "sections": sections,
    }


def measure_overhead() -> dict[str, Any]:
    """Count instructions, where that is possible."""
    if not instructions.available():
        reason = "left out: valgrind is not installed"
        note(f"overhead: {reason}")
        return {"title": overhead.TITLE, "unit": "instructions", "rows": [], "absent": reason}
    note("overhead: counting under callgrind, a minute or two")
    return overhead.measure([sys.executable, str(Path(__file__).resolve()), "--count"])


def note(line: str) -> None:
    """Say something that is not part of the report."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
