"""Measures what LiteLLM's limits and routing let through: alone, with Redis, and with fast_litellm.

    python scripts/figures.py --variants litellm,fast_litellm --workers 4 --json figures.json
    python scripts/figures.py tokens --workers 1    # CPU time of requests with a long prompt instead

Prints a table; progress goes to standard error. Needs Linux, and an environment with
`litellm[proxy]` and gunicorn (and fast_litellm for its variant).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Not the root of the checkout: its `fast_litellm` directory would hide the installed package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from benchmarks.counting.texts import KINDS, documents
from benchmarks.options import names_of

from harness import prompt_cpu
from harness.prompt_cpu import CASES
from harness.proxy import FakeBackend, Proxy, RedisServer
from harness.scenarios import SCENARIOS, Figure, by_setup, measure, warm_up
from harness.setups import SETUPS

VARIANTS = ("litellm", "redis", "fast_litellm")

#: With fast_litellm or not, variables, and LiteLLM's settings. The last one shows what there is to save.
PROMPT_VARIANTS: dict[str, tuple[bool, dict[str, str], dict[str, Any]]] = {
    "LiteLLM": (False, {}, {}),
    "with fast_litellm": (True, {}, {}),
    "LiteLLM that counts nothing": (False, {}, {"disable_token_counter": True}),
}

Results = dict[str, dict[str, Any]]


def main() -> None:
    """Run what the command line asks for."""
    arguments = parse_arguments()
    # A plain SIGTERM would leave the proxies running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if arguments.what == "tokens":
        tokens(arguments)
        return
    start = time.monotonic()
    by_variant: dict[str, Results] = {}
    for variant in arguments.variants:
        if variant == "redis" and not RedisServer.is_available():
            progress("redis: skipped, there is no redis-server on the PATH")
            continue
        by_variant[variant] = run_variant(variant, arguments.scenarios, arguments.workers)
    progress(f"finished after {time.monotonic() - start:.0f} s")
    print(table(by_variant, arguments.scenarios))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(by_variant, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("limits", "tokens"), default="limits")
    parser.add_argument("--variants", type=names_of(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--scenarios", type=names_of(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers to FILE")
    group = parser.add_argument_group("tokens")
    group.add_argument("--cases", type=names_of(CASES), default=list(CASES))
    group.add_argument("--kinds", type=names_of(KINDS), default=list(KINDS))
    group.add_argument("--length", type=int, default=100_000, help="characters of a prompt")
    group.add_argument("--requests", type=int, default=24, help="of a turn")
    group.add_argument("--rounds", type=int, default=5, help="turns of each proxy")
    return parser.parse_args()


def run_variant(variant: str, scenarios: Sequence[str], workers: int) -> Results:
    """Run the scenarios on one proxy, whose configuration changes between those of different setups."""
    ordered = by_setup(scenarios)
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer()) if variant == "redis" else None
        backend = stack.enter_context(FakeBackend())
        booting = time.monotonic()
        proxy = stack.enter_context(
            Proxy(
                backend.url,
                workers=workers,
                accelerate=variant == "fast_litellm",
                redis_url=redis.url if redis else None,
                setup=SETUPS[SCENARIOS[ordered[0]].setup],
            )
        )
        boot_s = round(time.monotonic() - booting, 1)
        progress(f"{variant}: {workers} workers ready after {boot_s} s")
        warm_up(proxy)
        results: Results = {"boot": {"seconds": boot_s}}
        for name in ordered:
            results[name] = measure(name, proxy, backend)
            report(variant, name, results[name])
        return results


def tokens(arguments: argparse.Namespace) -> None:
    """What a request with a long prompt costs LiteLLM: alone, with fast_litellm, and counting nothing."""
    draw = random.Random(1)
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(FakeBackend())
        proxies = {}
        for variant, (accelerate, variables, settings) in PROMPT_VARIANTS.items():
            made = Proxy(
                backend.url,
                workers=arguments.workers,
                accelerate=accelerate,
                setup=SETUPS[CASES[arguments.cases[0]].setup],
                extra_env=variables,
                extra_config={"litellm_settings": settings},
            )
            proxies[variant] = stack.enter_context(made)
            progress(f"{variant}: {arguments.workers} workers ready")
        results: dict[str, Any] = {}
        for kind in arguments.kinds:
            prompts = documents(kind, arguments.requests, arguments.length)
            for name in arguments.cases:
                progress(f"{kind}, {arguments.length:,} characters")
                results[f"{kind}, {name}"] = prompt_cpu.measure(
                    proxies, backend, CASES[name], prompts, arguments.rounds, draw, progress
                )
    print(prompt_table(results))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def prompt_table(results: dict[str, Any]) -> str:
    """CPU milliseconds of a request, a line for each kind of prompt and case, as Markdown."""
    rows = [["prompt", "what makes LiteLLM count", *PROMPT_VARIANTS, "saved", "of the counting"]]
    for title, by_variant in results.items():
        kind, _, name = title.partition(", ")
        alone, ours, none = (by_variant[variant]["ms"] for variant in PROMPT_VARIANTS)
        counting = alone - none
        rows.append(
            [
                kind,
                CASES[name].label,
                *(
                    f"{by_variant[variant]['ms']:.1f}"
                    + (" (!)" if by_variant[variant]["unexpected"] else "")
                    for variant in PROMPT_VARIANTS
                ),
                f"{alone - ours:+.1f} ms ({(alone - ours) / alone:+.0%})",
                f"{(alone - ours) / counting:.0%}"
                if counting > 0.05 * alone
                else "it counts little",
            ]
        )
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def report(variant: str, name: str, result: dict[str, Any]) -> None:
    """Say what a scenario measured, and whether it can be trusted."""
    shown = {key: value for key, value in result.items() if key != "unexpected"}
    progress(f"{variant}: {name} {shown}")
    if not result["within_window"]:
        progress(f"{variant}: {name} outlasted the window; its numbers mean nothing")
    if result["unexpected"]:
        first = result["unexpected"][0][:500]
        progress(f"{variant}: {name} got {len(result['unexpected'])} odd replies, first: {first}")


def progress(line: str) -> None:
    """Write a line to standard error."""
    print(line, file=sys.stderr, flush=True)


def table(by_variant: dict[str, Results], scenarios: Sequence[str]) -> str:
    """The figures, a line each and a column per variant."""
    rows = [["scenario", "ideal", *by_variant]]
    for name in by_setup(scenarios):
        for figure in SCENARIOS[name].figures:
            cells = [cell(figure, results[name]) for results in by_variant.values()]
            rows.append([figure.label, figure.ideal, *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def cell(figure: Figure, result: dict[str, Any]) -> str:
    """One value, with a mark when it cannot be trusted."""
    mark = "" if result["within_window"] and not result["unexpected"] else " (!)"
    return figure.read(result) + mark


if __name__ == "__main__":
    main()
