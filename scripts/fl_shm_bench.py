"""What `fl-shm` costs: to start, to inspect many keys in every form, and to the workers that it watches.

    cargo build --release --bin fl-shm
    .venv/bin/python scripts/fl_shm_bench.py [--keys 100000] [--binary target/release/fl-shm]

Cases of one kind are measured in turns, and medians are printed. Output goes into a pipe.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STARTS, LOOKS, TURNS, TURN_S = 30, 11, 10, 1.0

#: Fills a region with so many keys. Answers each line with its decisions in that many seconds.
WORKER = """
    import sys, time
    import fast_litellm

    keys = int(sys.argv[1])
    limiter = fast_litellm.SimpleRateLimiter(600_000, burst=100_000)
    for n in range(keys):
        limiter.check(f"team:{n % 997}/user:{n}")
    print("ready", flush=True)
    for line in sys.stdin:
        end, decisions = time.perf_counter() + float(line), 0
        while time.perf_counter() < end:
            for n in range(1_000):
                limiter.check(f"team:{n % 997}/user:{n}")
            decisions += 1_000
        print(decisions, flush=True)
"""


def environment(**more: str) -> dict[str, str]:
    """The process's, without what configures fast_litellm and fl-shm."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("F")}
    return {**kept, **more}


@contextmanager
def worker(keys: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", textwrap.dedent(WORKER), str(keys)],
        env=environment(
            FAST_LITELLM_SHM_NAME=f"bench-{os.getpid()}",
            FAST_LITELLM_SHM_KEYS=str(max(keys * 5 // 4, 1024)),
        ),
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.communicate(timeout=30)


def run(command: Sequence[str], read_all: bool = True) -> float:
    """Milliseconds until the command has ended, or has printed something."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment(), cwd="/", stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = process.stdout
    read = len(os.read(output.fileno(), 1 << 16))
    first = time.perf_counter()
    while part := os.read(output.fileno(), 1 << 20):
        read += len(part)
    code = process.wait()
    end = time.perf_counter()
    output.close()
    if code or not read:
        raise SystemExit(f"{command} ended with {code} and printed {read} bytes")
    return ((end if read_all else first) - start) * 1e3


def in_turns(
    cases: dict[str, list[str]], rounds: int, read_all: bool = True
) -> dict[str, list[float]]:
    """Milliseconds of each case; every round runs every case once."""
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, command in cases.items():
            samples[name].append(run(command, read_all))
    return samples


def show(title: str, samples: dict[str, list[float]]) -> None:
    print(f"\n{title}, ms: median (least to most) of {len(next(iter(samples.values())))}")
    for name, values in samples.items():
        middle = statistics.median(values)
        print(f"  {name:44} {middle:7.1f}  ({min(values):.1f} to {max(values):.1f})")


def starts(binary: str, pid: str) -> dict[str, list[str]]:
    script = shutil.which("fl-shm", path=str(Path(sys.executable).parent))
    programs = {"binary": [binary]}
    if script:
        programs["console script"] = [script]
    programs["python alone"] = [sys.executable, "-c", "print()"]
    commands = {"--version": ["--version"], "inspect header": ["inspect", "header", "--pid", pid]}
    return {
        f"{program}: {name}": [*words, *(options if program != "python alone" else [])]
        for name, options in commands.items()
        for program, words in programs.items()
        if program != "python alone" or name == "--version"
    }


def looks(binary: str, pid: str) -> dict[str, list[str]]:
    limits = [binary, "inspect", "limits", "--pid", pid]
    return {
        "inspect (text)": [binary, "inspect", "--pid", pid],
        "inspect --json": [binary, "inspect", "--json", "--pid", pid],
        "inspect --ndjson": [binary, "inspect", "--ndjson", "--pid", pid],
        "inspect --prom": [binary, "inspect", "--prom", "--pid", pid],
        "inspect limits": limits,
        "inspect limits --json": [*limits, "--json"],
        "inspect limits --csv": [*limits, "--csv"],
        "inspect limits --filter ...": [*limits, "--filter", 'key ~ "^team:7" and used_pct >= 0'],
        "inspect limits --sort -used_pct,key": [*limits, "--sort", "-used_pct,key"],
        "inspect limits --sort -allowed --top 20": [*limits, "--sort", "-allowed", "--top", "20"],
        "inspect workers": [binary, "inspect", "workers", "--pid", pid],
    }


def throughput(binary: str, process: subprocess.Popen[str]) -> None:
    """Decisions per second of a worker with and without `inspect --watch 0.1` beside it, in turns."""
    assert process.stdin is not None
    assert process.stdout is not None
    rates: dict[str, list[float]] = {"without": [], "with": []}
    for turn in range(2 * TURNS):
        # The order changes, so that a machine that slows down meanwhile does so for both.
        watched = turn % 4 in (1, 2)
        watcher = None
        if watched:
            command = [binary, "inspect", "--json", "--pid", str(process.pid), "--watch", "0.1"]
            watcher = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
            time.sleep(0.2)
        process.stdin.write(f"{TURN_S}\n")
        process.stdin.flush()
        rates["with" if watched else "without"].append(int(process.stdout.readline()) / TURN_S)
        if watcher:
            watcher.terminate()
            watcher.wait()
    print(f"\ndecisions per second of a worker, median (least to most) of {TURNS} turns")
    for name, values in rates.items():
        middle = statistics.median(values)
        span = f"({min(values):,.0f} to {max(values):,.0f})"
        print(f"  {name + ' --watch 0.1':44} {middle:12,.0f}  {span}")
    share = statistics.median(rates["with"]) / statistics.median(rates["without"]) - 1
    print(f"  difference {share:+.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--binary", default=str(ROOT / "target/release/fl-shm"))
    arguments = parser.parse_args()
    binary = str(Path(arguments.binary).resolve())
    with worker(arguments.keys) as process:
        pid = str(process.pid)
        show("start to first output", in_turns(starts(binary, pid), STARTS, read_all=False))
        title = f"start to end, region of {arguments.keys:,} keys"
        show(title, in_turns(looks(binary, pid), LOOKS))
        throughput(binary, process)


if __name__ == "__main__":
    main()
