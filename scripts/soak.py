"""A real server under load for an hour, with random kills, reloads and upgrades; prints what it found.

    .venv/bin/python scripts/soak.py                          # the small service, an hour
    .venv/bin/python scripts/soak.py --app litellm --minutes 25 --seed 1

Each minute it prints what was admitted beside what may and what must have been, latency, memory, slots
held, and what was done to the server; at the end a verdict. Exit code 0 if nothing was wrong, else 1.
The same seed does the same things to the server in the same order; which request meets them is chance.
`FAST_LITELLM_ENABLED=false` shows what is found where nothing is shared.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Not the root of the checkout: its `fast_litellm` directory would hide the installed package.
sys.path.insert(0, str(ROOT / "tests"))

from soak.run import Settings, run, say  # noqa: E402

WORKERS = {"small": 4, "litellm": 3}
WINDOW_S = {"small": 10, "litellm": 60}
SABOTAGES = {
    "private": "each worker has limits of its own",
    "under": "some requests are charged twice",
    "crowd": "some are let through though all slots are held",
    "leak": "some slots are never given back",
    "region": "each worker makes a second region",
    "process": "the master leaves a process behind",
    "file": "the master leaves a file behind",
    "memory": "the master grows",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a soak; returns the exit code."""
    options = parse(arguments)
    # Aborted workers would each leave a core.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # So that the server is stopped, whoever ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    events = options.events
    if events is None:
        events = ROOT / ".cache" / "logs" / f"soak-{options.app}.jsonl"
        events.parent.mkdir(parents=True, exist_ok=True)
    say(f"events: {events}")
    settings = Settings(
        app=options.app,
        minutes=options.minutes,
        seed=options.seed,
        workers=options.workers or WORKERS[options.app],
        window_s=options.window or WINDOW_S[options.app],
        minute_s=options.report_every,
        upgrades=options.upgrades,
        pace=options.pace,
        sabotage=options.sabotage,
        events=events,
    )
    try:
        outcome = run(settings, say)
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    if options.json is not None:
        options.json.write_text(json.dumps(outcome.as_json(), indent=2) + "\n")
    return 0 if outcome.ok else 1


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--app", choices=("small", "litellm"), default="small", help="default: small"
    )
    parser.add_argument("--minutes", type=positive(float), default=60.0, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of all that is random")
    parser.add_argument(
        "--workers", type=positive(int), metavar="N", help="default: small 4, litellm 3"
    )
    parser.add_argument(
        "--window",
        type=positive(int),
        metavar="S",
        help="seconds of a window (default: small 10, litellm 60)",
    )
    parser.add_argument(
        "--report-every",
        type=positive(float),
        default=60.0,
        metavar="S",
        help="seconds (default: 60)",
    )
    parser.add_argument(
        "--pace",
        type=positive(float),
        default=1.0,
        metavar="X",
        help="disturb the server X times as fast (default: 1)",
    )
    parser.add_argument(
        "--no-upgrades", dest="upgrades", action="store_false", help="never replace the master"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to FILE")
    parser.add_argument(
        "--events",
        type=Path,
        metavar="FILE",
        help="where to log what happens, a JSON object a line (default: below .cache/logs)",
    )
    parser.add_argument(
        "--sabotage",
        choices=tuple(SABOTAGES),
        default="",
        help="break the small service, to see that it is found: "
        + "; ".join(f"{name}: {what}" for name, what in SABOTAGES.items()),
    )
    options = parser.parse_args(arguments)
    if options.sabotage and options.app != "small":
        parser.error("--sabotage: only with --app small")
    return options


def positive(kind: type) -> object:
    """An argument type: a number above 0."""

    def number(text: str) -> object:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main())
