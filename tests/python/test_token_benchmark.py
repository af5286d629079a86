"""Proves that the benchmark of token counting measures what it says, and does not hide where we lose."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmarks.counting import peers, table, texts, turns, worker
from benchmarks.counting.sides import Way
from benchmarks.counting.turns import Plan

from harness import prompt_cpu
from harness.proxy import FakeBackend
from support import run_script

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "token_bench.py"


def cell(way: str, median: float | None, **changed: Any) -> dict[str, Any]:
    """A cell as JSON has it."""
    values: dict[str, Any] = {"operation": "count", "kind": "code", "length": 20, "count": 5}
    values |= {"encoding": "cl100k_base", "side": way, "absent": "", "median_ns": median}
    return {**values, "way": way, "turns": 1, "p10_ns": median, **changed}


def report_of(*cells: dict[str, Any]) -> str:
    """The text of a report with these cells."""
    machine = {"cpu": "a CPU", "cores": 2, "usable_cores": 1, "system": "Linux", "python": "3.11"}
    machine |= {"load_before": [0.0], "load_after": [1.0]}
    parts = {"exact": {}, "worst": [], "start": [], "memory": [], "batches": [], "left_out": {}}
    return table.text(
        {"machine": machine, "rounds": 1, "seed": 1, "sides": {}, "cells": list(cells), **parts}
    )


def test_a_short_run_compares_and_measures(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    what = ["--kinds", "Chinese", "--sizes", "20,200", "--worst", "spaces", "--worst-size", "500"]
    some = ["--sides", "ours,tiktoken", "--encodings", "cl100k_base", "--rounds", "2"]
    done = run_script(SCRIPT, "--quick", *what, *some, "--json", str(file))
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert list(found["sides"]) == list(peers.SIDES)
    for side, state in found["sides"].items():
        there = side in ("ours", "tiktoken")
        assert bool(state["version"]) is there
        assert state["absent"] == ("" if there else "not asked for")
    for way, judged in found["exact"]["cl100k_base"].items():
        assert judged["differ"] == 0, (way, judged)
        assert judged["texts"] > 300
        assert judged["by"] == ("counts" if way == "ours_counter" else "ids")
    cells = found["cells"]
    assert {(each["way"], each["length"]) for each in cells} == {
        (way, length)
        for way in ("ours", "ours_counter", "tiktoken", "tiktoken_encode")
        for length in (20, 200)
    }
    for each in [*cells, *found["worst"]]:
        assert each["median_ns"] >= each["p10_ns"] > 0
        assert (each["turns"], each["absent"]) == (2, "")
    # Everybody was given the same text of the length that is said.
    assert len({each["count"] for each in cells if each["length"] == 200}) == 1
    assert {each["count"] for each in cells if each["length"] == 20} != {
        each["count"] for each in cells if each["length"] == 200
    }
    ours, theirs = found["start"]
    assert (ours["side"], theirs["side"]) == ("ours", "tiktoken")
    assert ours["threads"] == theirs["threads"] == 1
    assert min(ours["load_cpu_ms"], *ours["mb_per_s"].values()) > 0
    ours, theirs = found["memory"]
    for row in (ours, theirs):
        assert row["absent"] == ""
        # What is loaded before a fork is not private to a child.
        assert row["before"]["private"] < row["after"]["private"] / 2
    assert {row["threads"] for row in found["batches"]} == {1, 2}
    assert min(row["wall_ns"] for row in found["batches"]) > 0
    assert table.text(found) in done.stdout


@pytest.mark.parametrize("arguments", [("--only", "nonsense"), ("--sides", "ours,nobody")])
def test_a_misspelt_option_is_refused(arguments: tuple[str, str]) -> None:
    done = run_script(SCRIPT, *arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


def test_losses_and_absences_and_wrong_counts_are_shown() -> None:
    found = report_of(
        cell("ours", 200.0),
        cell("tiktoken", 1000.0),
        cell("gigatoken", 100.0),
        cell("toktok", 300.0, count=6),
        cell("published", None, absent="too slow: 9 s", count=None),
    )
    (line,) = (line for line in found.splitlines() if line.startswith("| code"))
    assert [part.strip() for part in line.strip("|").split("|")] == [
        *("code", "20", "0.20", "1.00", "-", "**0.10**", "0.30 W"),
        *("5.00", "0.50", "gigatoken 2.00x"),
    ]
    assert "* published, code, 20: too slow: 9 s" in found
    assert "Of 3 figures of others, 1 are better than one of ours:" in found
    assert "* `ours` is slower than `gigatoken`: cl100k_base code 20 (2.00x)" in found
    assert "0 are better" in report_of(cell("ours", 1.0), cell("tiktoken", 2.0))


def test_only_the_same_operation_at_the_same_text_is_compared() -> None:
    ours = cell("ours", 200.0)
    others = [
        cell("tiktoken_encode", 100.0, operation="ids"),
        cell("tiktoken", 100.0, encoding="o200k_base"),
        cell("tiktoken", 100.0, length=200),
        cell("tiktoken", 100.0, kind="English"),
        cell("ours_counter", 100.0),
    ]
    assert table.losses([ours, *others]) == []


class Slow:
    """In place of the processes: counts in a time that grows with a power of the length."""

    def __init__(self, power: float) -> None:
        self._power = power
        self.asked: list[str] = []
        self.ways = {"e": {("slow", "slow"): "count"}}

    def file(self, content: str) -> str:
        return content

    def ask(self, side: str, word: str, encoding: str, way: str, text: str, *rest: Any) -> Any:
        self.asked.append(word)
        characters = len(text) - (len(self.asked) > 12)
        return {"ns": len(text) ** self._power, "characters": characters, "count": len(text)}


@pytest.mark.parametrize(("power", "made"), [(1.0, True), (2.0, False)])
def test_who_would_take_too_long_is_left_out(power: float, made: bool) -> None:
    sides: Any = Slow(power)
    plan = Plan(rounds=3, longest_ns=1_000_000_000)
    (found,) = turns.measure(sides, "e", "spaces", " " * 100_000, plan, random.Random(1))
    assert bool(found.times) is made
    assert ("measure" in sides.asked) is made
    assert found.absent == ("" if made else "too slow: 0.025 s for 5,000 characters")


def test_another_text_than_was_meant_is_no_measurement() -> None:
    sides: Any = Slow(1.0)
    (found,) = turns.measure(sides, "e", "spaces", " " * 500, Plan(rounds=20), random.Random(1))
    assert found.absent == "counted 499 characters instead of 500"


def test_a_process_counts_the_text_it_is_told(tmp_path: Path) -> None:
    made = worker.Worker("tiktoken")
    made._ways["e", "characters"] = Way("count", len, False)
    made._ways["e", "list"] = Way("ids", list, True)
    for name, text in (("a", "x\r\ny"), ("b", "é" * 300)):
        (tmp_path / name).write_bytes(text.encode())
        for way in ("characters", "list"):
            for answer in (
                made.measure("e", way, str(tmp_path / name), 10_000),
                made.once("e", way, str(tmp_path / name)),
            ):
                assert answer["count"] == answer["characters"] == len(text)
                assert answer["ns"] > 0


def test_memory_of_children_is_what_each_of_them_adds() -> None:
    size = 8 << 20
    idle = worker.forked(2, lambda: None)
    kept: list[bytes] = []
    busy = worker.forked(2, lambda: kept.append(b"x" * size))
    assert kept == []
    for before, after in zip(idle, busy, strict=True):
        assert size * 0.9 < after.private - before.private < size * 1.5
        # What is shared counts by how many share it, which other processes change meanwhile.
        assert after.pss >= after.private

    def fail() -> None:
        raise OSError("no memory")

    with pytest.raises(RuntimeError, match="a child failed"):
        worker.forked(2, fail)


def test_texts_are_what_they_say_and_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    vocabularies = peers.vocabularies()
    assert vocabularies is not None
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(vocabularies))
    encoding = tiktoken.get_encoding("cl100k_base")
    for kind, least, most in (("English", 4.3, 5.5), ("code", 3.2, 4.8), ("Chinese", 2.0, 3.2)):
        text = texts.text_of(kind, 20_000)
        assert len(text) == 20_000
        assert text == texts.text_of(kind, 20_000)
        assert least < len(text.encode()) / len(encoding.encode_ordinary(text)) < most, kind
        some = texts.documents(kind, 30, 2_000)
        assert len(set(some)) == 30
        assert {len(each) for each in some} == {2_000}
    for kind, make in texts.WORST.items():
        made = [make(1_000, number) for number in range(9)]
        assert len(set(made)) == 9, kind
        assert all(990 < len(each) <= 1_000 for each in made)
        assert make(1_000, 3) == made[3]


class StandIn:
    """In a proxy's place: the provider itself, whose process is the only worker."""

    workers = 2

    def __init__(self, backend: FakeBackend) -> None:
        self._backend = backend
        self.base_url = f"{backend.url}/known"
        self.setups: list[Any] = []

    def use(self, setup: Any) -> None:
        self.setups.append(setup)

    def worker_pids(self) -> list[int]:
        return [self._backend.pid]


def test_cpu_time_of_prompts_is_that_of_the_workers() -> None:
    with FakeBackend() as backend:
        proxies: Any = {name: StandIn(backend) for name in ("one", "other")}
        case = prompt_cpu.CASES["checked"]
        found = prompt_cpu.measure(
            proxies, backend, case, ["a", "b"], 1, random.Random(1), lambda line: None
        )
        # Two variants, a turn to get warm and one that counts, two prompts each.
        assert backend.stats("known")["total"] == 8
        assert [len(each["turns"]) for each in found.values()] == [1, 1]
        assert [each["unexpected"] for each in found.values()] == [[], []]
        assert len(proxies["one"].setups) == 1
        proxies["other"].base_url = f"{backend.url}/nowhere/known"
        found = prompt_cpu.measure(
            proxies, backend, case, ["a"], 1, random.Random(1), lambda line: None
        )
        assert [len(each["unexpected"]) for each in found.values()] == [0, 2]


def test_cpu_seconds_counts_threads_and_what_has_ended() -> None:
    before = prompt_cpu.cpu_seconds([os.getpid()])
    start = time.process_time()
    while time.process_time() - start < 0.1:
        pass
    assert 0.05 < prompt_cpu.cpu_seconds([os.getpid()]) - before < 0.3
