"""Proves that the soak's judges find what is wrong and nothing else, and that a soak passes and fails."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from support import WAIT_S, fresh_environment

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

from soak import report, watch
from soak.oracles import ADMITTED, LOST, REFUSED, CalendarMinute, Quota, Seen, Slots, Window

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "soak.py"
QUICK = ("--app", "small", "--workers", "3", "--window", "2", "--report-every", "3")
SEED = "932"
"""In a few seconds it kills, reloads and upgrades."""


def each(outcome: str, times: Iterable[float], took_s: float = 0.01) -> list[Seen]:
    """Requests that were answered at once."""
    return [Seen(at, at + took_s, outcome) for at in times]


def steps(begin: float, count: int, apart: float = 0.1) -> list[float]:
    return [begin + number * apart for number in range(count)]


def judge(limit: Any, *seen: list[Seen], now: float = 1e9) -> Any:
    return limit.judge(list(itertools.chain(*seen)), now)


def verdict(judgement: Any) -> tuple[int, int]:
    return judgement.over, judgement.under


# A window of 20 requests in 10 s

WINDOW = Window(20, 10.0)


def window(begin: float, seconds: float = 9.9) -> list[Seen]:
    """A window that begins then, is used up at once, and asked for more for so long."""
    admitted = each(ADMITTED, steps(begin, 20))
    return admitted + each(REFUSED, steps(begin + 2, int(10 * seconds) - 20))


def test_windows_that_are_kept_are_found_right() -> None:
    found = judge(WINDOW, window(0), window(10), window(20))
    assert verdict(found) == (0, 0)
    assert (found.windows, found.admitted, found.allowed, found.least) == (3, 60, 60, 60)


def test_one_too_many_in_a_window_is_found() -> None:
    # After the last refusal that surely came before it, and long before the window's end.
    assert judge(WINDOW, window(0), window(10), each(ADMITTED, [11.95])).over == 1
    assert judge(WINDOW, window(0), each(ADMITTED, [5.05])).over > 0
    assert judge(WINDOW, each(ADMITTED, steps(0, 21))).over == 1


def test_a_window_that_begins_too_early_is_found() -> None:
    assert judge(WINDOW, window(0, 6), window(6)).over == 20
    # Windows begin at whole seconds.
    assert verdict(judge(WINDOW, window(0, 9), window(9))) == (0, 0)


def test_one_too_few_in_a_window_is_found() -> None:
    seen = each(ADMITTED, steps(0, 19)) + each(REFUSED, steps(2, 10))
    assert verdict(judge(WINDOW, seen)) == (0, 1)
    # Its answer may have been lost; the window is then known to have admitted 19 at least.
    found = judge(WINDOW, seen, each(LOST, [0.5]))
    assert verdict(found) == (0, 0)
    assert (found.admitted, found.least) == (19, 19)
    # One that was lost after the refusals explains nothing.
    assert judge(WINDOW, seen, each(LOST, [5.0])).under == 1


def test_a_window_that_does_not_end_is_found() -> None:
    seen = each(ADMITTED, steps(0, 20)) + each(REFUSED, steps(2, 90))
    assert verdict(judge(WINDOW, seen)) == (0, 0)
    assert judge(WINDOW, seen, each(REFUSED, [13.5])).under > 0
    assert judge(WINDOW, each(REFUSED, [1.0])).under == 20


def test_what_cannot_be_told_is_no_violation() -> None:
    # A stopped worker answers late: these were decided in the first window or in the second.
    late = [Seen(1.0, 11.5, ADMITTED), Seen(1.0, 11.5, REFUSED)]
    first = each(ADMITTED, steps(0, 19)) + each(REFUSED, steps(2, 78))
    second = each(ADMITTED, steps(10, 20)) + each(REFUSED, steps(12, 70))
    assert verdict(judge(WINDOW, first, second, late)) == (0, 0)


def test_a_limit_of_tokens_may_be_passed_by_what_is_not_settled() -> None:
    tokens = Window(20, 10.0, extra=lambda lost: 1 + lost)
    assert judge(tokens, each(ADMITTED, steps(0, 21))).over == 0
    assert judge(tokens, each(ADMITTED, steps(0, 22))).over == 1
    assert judge(tokens, each(ADMITTED, steps(0, 22)), each(LOST, [0.5])).over == 0


def test_calendar_minutes() -> None:
    limit = CalendarMinute(20)
    minute = each(ADMITTED, steps(600, 20)) + each(REFUSED, steps(603, 10))
    found = judge(limit, minute, each(ADMITTED, steps(660, 20)))
    assert verdict(found) == (0, 0)
    assert (found.windows, found.admitted, found.least) == (1, 20, 20)
    assert judge(limit, minute, each(ADMITTED, [650])).over == 1
    # It may belong to the next minute.
    assert judge(limit, minute, each(ADMITTED, [659.9], took_s=1.0)).over == 0
    assert judge(limit, minute[1:]).under == 1
    assert judge(limit, minute[1:], each(LOST, [601])).under == 0


def test_quotas() -> None:
    quota = Quota(60, 5)
    fresh = each(ADMITTED, steps(0, 5, 0.01))
    steady = each(ADMITTED, steps(1.1, 50, 1.0)) + each(REFUSED, steps(0.2, 200, 0.25))
    assert verdict(judge(quota, fresh, steady)) == (0, 0)
    assert judge(quota, fresh, each(ADMITTED, steps(1.1, 60, 0.9))).over > 0
    assert judge(quota, fresh[:3], each(REFUSED, [0.5])).under == 2
    assert judge(quota, fresh[:3], each(REFUSED, [0.5]), each(LOST, [0.1, 0.2])).under == 0
    assert judge(quota, fresh, each(REFUSED, [9.0])).under > 0


def test_slots() -> None:
    slots = Slots(4, hold_s=1.0, late_s=2.0)
    held = each(ADMITTED, steps(0, 4, 0.01), took_s=1.05)
    assert verdict(judge(slots, held, each(REFUSED, [0.5]))) == (0, 0)
    assert judge(slots, held, each(ADMITTED, [0.3], took_s=1.05)).over == 1
    # It may have waited until another one had ended.
    assert judge(slots, held, each(ADMITTED, [0.3], took_s=2.1)).over == 0
    assert judge(slots, held, each(REFUSED, [2.9])).under == 0
    assert judge(slots, held, each(REFUSED, [3.2])).under == 4
    assert judge(slots, held[1:], each(REFUSED, [0.5])).under == 1
    assert judge(slots, held[1:], each(REFUSED, [0.5]), each(LOST, [0.1])).under == 0


# What is seen of a server


class Standing:
    """A server of which nothing is known but its region's name."""

    region_name = "standing"

    def masters(self) -> list[int]:
        return []

    def all_workers(self) -> list[int]:
        return []


def region_of(*owners: str) -> dict[str, Any]:
    lease = {"key": "k", "row": 2, "pid": 7, "held": 3, "oldest_s": 9}
    return {
        "ls": [{"name": "standing", "size": 4096, "pids": [1]}],
        "inspect": {
            "header": {"keys": 1},
            "workers": [{"alive": owner} for owner in owners],
            "leases": [{**lease, "owner": owner} for owner in owners],
        },
    }


def test_what_the_dead_go_on_holding_has_leaked(monkeypatch: pytest.MonkeyPatch) -> None:
    found = region_of("dead", "alive")
    monkeypatch.setattr(watch, "_fl_shm", lambda command, *arguments: found[command])
    looking = watch.Watch(Standing())
    look = looking.look()
    assert (look.leases, look.leases_of_dead, look.dead_rows, look.old_leases) == (6, 3, 1, 6)
    assert looking.leaked == {}
    monkeypatch.setattr(watch, "DEAD_FOR_S", 0.0)
    found.update(region_of("alive"))
    looking.look()
    # Held for the first time by somebody who is dead: he may have died just now.
    found.update(region_of("dead"))
    looking.look()
    assert looking.leaked == {}
    looking.look()
    assert looking.leaked == {("k", 2, 7): 3}


def test_a_second_region_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = region_of("alive")
    monkeypatch.setattr(watch, "_fl_shm", lambda command, *arguments: found[command])
    looking = watch.Watch(Standing())
    looking.look()
    assert report.region_check(looking, expected=1).ok
    found["ls"] = found["ls"] * 2
    looking.look()
    assert not report.region_check(looking, expected=1).ok


def test_growth_is_that_of_the_second_half() -> None:
    def check(*sizes: float) -> report.Check:
        points = [(10.0 * at, size * watch.MIB) for at, size in enumerate(sizes)]
        growth = report.growth("something", points)
        assert growth is not None
        return growth.check()

    assert check(*(0.8 * at for at in range(20))).ok
    assert check(*[10] * 4, *[90] * 12).ok
    assert not check(*range(0, 60, 3)).ok
    assert "+60.0 KiB a minute" in check(*(at / 102.4 for at in range(20))).found
    assert report.growth("too short", [(0.0, 1.0)] * 11) is None


# Real servers


def soak(tmp_path: Path, *options: str) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """Exit code, figures and journal of a short soak."""
    figures, events = tmp_path / "figures.json", tmp_path / "events.jsonl"
    files = ("--json", str(figures), "--events", str(events))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *QUICK, *files, *options],
        env=fresh_environment(),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert figures.exists(), done.stdout + done.stderr
    journal = [json.loads(line) for line in events.read_text().splitlines()]
    return done.returncode, json.loads(figures.read_text()), journal


def wrong(figures: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["found"] for check in figures["checks"] if not check["ok"]}


def test_a_server_that_is_killed_reloaded_and_upgraded_passes(tmp_path: Path) -> None:
    code, figures, journal = soak(tmp_path, "--minutes", "0.12", "--pace", "4", "--seed", SEED)
    assert wrong(figures) == {}
    assert code == 0
    happened = {event["event"] for event in journal}
    assert {"kill", "reload", "both masters", "old master ends", "probe"} <= happened
    assert sum(minute["admitted"] for minute in figures["minutes"]) > 100
    assert all(minute["look"]["regions"] == 1 for minute in figures["minutes"])


def test_a_server_that_does_not_share_fails(tmp_path: Path) -> None:
    code, figures, _ = soak(tmp_path, "--minutes", "0.05", "--no-upgrades", "--sabotage", "private")
    assert code == 1
    assert {"over-admitted", "under-admitted"} <= wrong(figures).keys()
