"""Proves that the benchmark runs, says what a contender does wrong, and does not hide where we lose."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fast_litellm

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

from benchmarks import memory, overhead, published, report
from benchmarks.contender_process import BrokenError, Contender, MissingError
from benchmarks.result import Row, compare, quantile, row_of
from benchmarks.run import Run
from benchmarks.sections import Sample, Verdict

from support import run_script

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "run_benchmarks.py"


def report_of(*rows: Row, title: str = "Pool: a turn", unit: str = "ns") -> dict[str, Any]:
    """What `--json` would have of these rows."""
    section = {"title": title, "unit": unit, "rows": [row.as_json() for row in rows]}
    return {
        "iterations": 1,
        "machine": {
            "cpu": "a CPU",
            "cores": 2,
            "usable_cores": 1,
            "system": "Linux",
            "python": "3.11",
            "load_before": [0.0, 0.0, 0.0],
            "load_after": [1.0, 0.0, 0.0],
        },
        "contenders": {"ours": {"version": "1", "absent": ""}},
        "sections": {"pool": section},
    }


def lines_of(found: dict[str, Any], containing: str) -> list[str]:
    return [line for line in report.text(found).splitlines() if containing in line]


def test_a_short_run_measures_and_judges(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    contenders = ("ours", "python", "python_reference")
    options = ["--only", "pool,rate,processes", "--contenders", ",".join(contenders)]
    done = run_script(SCRIPT, "--iterations", "2", *options, "--json", str(file))
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert list(found) == ["iterations", "machine", "contenders", "sections"]
    assert list(found["sections"]) == ["pool", "rate", "processes"]
    assert found["iterations"] == 2
    assert found["machine"]["cores"] >= 1
    assert len(found["machine"]["load_before"]) == len(found["machine"]["load_after"]) == 3
    assert found["contenders"]["ours"] == {"version": fast_litellm.__version__, "absent": ""}
    assert found["contenders"]["litellm"] == {"version": "", "absent": "not asked for"}

    rows = {
        (name, row["case"], row["contender"]): row
        for name, section in found["sections"].items()
        for row in section["rows"]
    }
    has_pool = hasattr(fast_litellm, "SimpleConnectionPool")
    for (name, case, contender), row in rows.items():
        assert set(row) >= {"median", "p95", "p99", "ratio", "we_lose", "holds", "says", "absent"}
        if contender not in contenders:
            assert (row["median"], row["absent"]) == (None, "not asked for")
        elif (name, contender) == ("pool", "ours") and not has_pool:
            assert (row["median"], row["absent"][:9]) == (None, "not there")
        else:
            assert row["median"] > 0, row
            assert row["p95"] <= row["p99"]
            assert row["samples"] == (1 if name == "processes" else 2)
            # Only ours has one limit for all processes; in one process all of them hold theirs.
            assert row["holds"] is (contender == "ours" or name != "processes"), row
            ours = rows[name, case, "ours"]["median"]
            if contender != "ours" and ours is not None:
                assert row["ratio"] == row["median"] / ours
                assert row["we_lose"] is (row["median"] < ours)
    # More is asked for than is right.
    assert "10 of 50 at once, limit 10" in done.stdout
    assert "admits 80 of 200, limit 20" in done.stdout
    assert report.text(found) in done.stdout


@pytest.mark.parametrize(
    "arguments", [("--only", "nonsense"), ("--iterations", "0"), ("--contenders", "ours,nobody")]
)
def test_a_misspelt_option_is_refused(arguments: tuple[str, str]) -> None:
    done = run_script(SCRIPT, *arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


def test_where_we_lose_the_table_says_so() -> None:
    rows = [
        Row("a turn", "ours", median=200.0, p95=300.0, p99=400.0, samples=1, holds=True),
        Row(
            "a turn",
            "published",
            median=100.0,
            p95=1.0,
            p99=1.0,
            samples=1,
            holds=False,
            says="50 of 10",
        ),
        Row("a turn", "litellm", median=150.0, p95=1.0, p99=1.0, samples=1),
        Row("a turn", "python", median=500.0, p95=1.0, p99=1.0, samples=1, holds=True),
    ]
    compare(rows, [row.contender for row in rows])
    found = report_of(*rows)
    table, summary = lines_of(found, report.LABELS["published"])
    assert table.split()[-7:] == ["0.50x", "we", "lose", "WRONG:", "50", "of", "10"]
    assert summary == "  Pool: a turn: 0.50x of published fast-litellm, whose answers are wrong"
    assert len(lines_of(found, "0.75x")) == 2
    (better,) = lines_of(found, report.LABELS["python"])
    assert better.rstrip().endswith("2.50x")
    assert lines_of(found, "We lose in 2 of 3 lines:")
    assert [row["we_lose"] for row in found["sections"]["pool"]["rows"]] == [
        False,
        True,
        True,
        False,
    ]


def test_nothing_lost_is_said_as_well() -> None:
    rows = [
        Row("a turn", "ours", median=200.0, p95=1.0, p99=1.0),
        Row("a turn", "python", median=200.0, p95=1.0, p99=1.0),
    ]
    compare(rows, ["ours", "python"])
    assert lines_of(report_of(*rows), "We lose in 0 of 1 lines.")
    assert lines_of(report_of(rows[0]), "Nothing was compared.")


def test_who_is_not_there_has_a_reason_and_no_ratio() -> None:
    rows = [
        Row("a turn", "ours", absent="not there: this build has no pool"),
        Row("a turn", "python", median=500.0, p95=1.0, p99=1.0),
    ]
    compare(rows, ["ours", "python"])
    assert rows[1].ratio is None
    (line,) = lines_of(report_of(*rows), "not there")
    assert report.LABELS["ours"] in line


def test_litellm_is_compared_with_litellm_that_has_our_seams() -> None:
    names = ["ours", "litellm_ours", "litellm"]
    rows = [
        Row("check", name, median=cost) for name, cost in zip(names, (1.0, 30.0, 60.0), strict=True)
    ]
    compare(rows, names)
    assert [(row.against, row.ratio) for row in rows] == [
        ("", None),
        ("", None),
        ("litellm_ours", 2.0),
    ]
    compare(rows, ["ours", "litellm"])
    assert (rows[2].against, rows[2].ratio) == ("ours", 60.0)


def test_the_claims_of_the_reference_stand_beside_what_was_measured() -> None:
    costs = {"ours": 50.0, "published": 200.0, "python": 75.0, "python_reference": 100.0}
    rows = [
        Row("10 endpoints", name, median=cost, p95=1.0, p99=1.0) for name, cost in costs.items()
    ]
    (line,) = lines_of(report_of(*rows), "connection pool")
    assert line.split()[-4:] == ["3.20x", "0.50x", "2.00x", "1.50x"]


def test_a_row_sums_its_samples_up() -> None:
    sample = Sample([10.0, 30.0, 20.0], [float(value) for value in range(40, 140)], odd=1)
    row = row_of("check", "ours", sample, Verdict(20, 6, "{value:.0f} not {right:.0f}"), "", 40.0)
    assert (row.median, row.p95, row.p99, row.tail) == (20.0, 94.0, 98.0, "single")
    assert (row.samples, row.odd, row.holds, row.says) == (3, 1, False, "20 not 6")
    assert row_of("check", "ours", sample, Verdict(6, 6, ""), "", 0.0).holds is True
    assert row_of("check", "ours", sample, Verdict(None, None, "no limit"), "", 0.0).holds is None
    assert row_of("check", "ours", Sample([]), None, "", 0.0).absent == "nothing was measured"
    assert [quantile([1.0, 2.0, 3.0, 4.0], share) for share in (0.25, 0.5, 0.51, 1.0)] == [
        1,
        2,
        3,
        4,
    ]


def test_one_that_breaks_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    def started(name: str) -> Contender:
        return Contender(name, Path(sys.executable), SCRIPT, tmp_path / "log")

    with started("nobody") as contender, pytest.raises(BrokenError, match="its process ended"):
        contender.ask("hello")
    assert "nobody" in (tmp_path / "log").read_text()
    with started("python") as contender:
        with pytest.raises(BrokenError, match="KeyError"):
            contender.ask("prepare", "routing", "no_such_strategy, 3")
        contender.ask("prepare", "routing", "least_busy, 3")
        assert len(contender.ask("sample", 2)["means"]) == 2
    with started("python_reference") as contender, pytest.raises(MissingError, match="has none"):
        contender.ask("prepare", "tokens", "20 characters")

    python = Path(sys.executable)
    interpreters = {"ours": python, "python": python, "published": Path("/bin/false")}
    left_out = dict.fromkeys(("litellm", "python_reference"), "left out")
    with Run(interpreters, left_out, SCRIPT, tmp_path, lambda line: None) as whole:
        rows = {(row.case, row.contender): row for row in whole.measure("routing", 1)}
    assert rows["least_busy, 3", "published"].absent.startswith("its process ended")
    assert rows["least_busy, 3", "litellm"].absent == "left out"
    assert rows["least_busy, 3", "python"].ratio is not None
    assert {row.holds for row in rows.values() if not row.absent} == {True}


def test_without_an_index_the_published_package_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.CompletedProcess([], 1, "", "looking\nno matching distribution")
    monkeypatch.setattr(published.subprocess, "run", lambda *args, **kwargs: done)
    python, reason = published.interpreter(tmp_path)
    assert python is None
    assert reason.startswith("left out")
    assert reason.endswith("no matching distribution")
    done.returncode = 0
    (tmp_path / "published").mkdir()
    made, _ = published.interpreter(tmp_path)
    # Once it is made, nothing is asked of the index.
    monkeypatch.delattr(published.subprocess, "run")
    assert published.interpreter(tmp_path) == (made, "") == (tmp_path / "published/bin/python", "")


def test_memory_is_that_which_was_touched() -> None:
    size = 4 << 20
    before = memory.resident()
    file = os.memfd_create("benchmark")
    try:
        os.ftruncate(file, size)
        with mmap.mmap(file, size) as shared:
            mapped = memory.resident()
            shared[: size // 2] = b"x" * (size // 2)
            touched = memory.resident()
    finally:
        os.close(file)
    assert mapped.region - before.region < 1 << 16
    assert touched.region - mapped.region == size // 2
    # The process may have given other pages back meanwhile.
    assert touched.pss - mapped.pss >= size // 4
    assert touched.rss >= touched.region


def test_memory_of_keys_counts_the_region_and_what_others_share(tmp_path: Path) -> None:
    def measured(name: str, case: str) -> tuple[dict[str, Any], dict[str, Any]]:
        with Contender(name, Path(sys.executable), SCRIPT, tmp_path / "log") as contender:
            contender.ask("prepare", "memory", case)
            return contender.ask("sample", 1), contender.ask("check")

    sample, verdict = measured("ours", "1,000 keys")
    notes = sample["notes"]
    assert 0 < notes["made_bytes"] < notes["region_bytes"] <= notes["pss_bytes"]
    assert sample["means"] == [notes["pss_bytes"] / 1_000]
    assert (verdict["value"], verdict["right"]) == (1_000, 1_000)
    together, verdict = measured("ours", "10,000 keys, in each of 4 processes")
    assert (verdict["value"], verdict["right"]) == (1_000, 1_000)
    alone, _ = measured("ours", "10,000 keys")
    # The region is paid once; the rest is what forks copy.
    assert together["means"][0] < 2 * alone["means"][0]
    together, verdict = measured("python", "10,000 keys, in each of 4 processes")
    assert verdict["value"] == 0
    alone, _ = measured("python", "10,000 keys")
    assert together["means"][0] > 3 * alone["means"][0]


def test_overhead_is_the_difference_of_what_was_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of each row: up to the first part, that part, and the second one with twice as many calls.
    counts = {overhead.UNTOUCHED: 1_000, overhead.DISABLED: 1_001, overhead.APPLIED: 1_200}
    parts = [
        part
        for each in counts.values()
        for part in (7, 500 + overhead.CALLS * each, 500 + 2 * overhead.CALLS * each)
    ]
    names = [*((name, None) for name in counts), (overhead.POOL, "not there: no pool")]
    output = "noise\n" + json.dumps(names) + "\n"
    monkeypatch.setattr(overhead, "totals", lambda command, environment: (parts, output))
    rows = {row["case"]: row for row in overhead.measure([])["rows"]}
    assert {name: rows[name]["instructions"] for name in counts} == counts
    assert [rows[name]["extra"] for name in counts] == [None, 1, 200]
    assert [rows[name]["we_lose"] for name in counts] == [False, False, True]
    assert rows[overhead.POOL]["absent"] == "not there: no pool"
    found = report_of(title=overhead.TITLE)
    found["sections"] = {"overhead": overhead.measure([])}
    (line, summary) = lines_of(found, "1.20x")
    assert "we lose" in line
    assert "+200" in line
    assert overhead.APPLIED in summary
