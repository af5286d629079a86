"""Proves that `fl-shm inspect` and `leases` say the same in every form, and what their options do."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import operator
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fl_shm import command, fl_shm, sharing, shown
from fl_shm import refused as refused_at_all
from support import fresh_environment

#: Sections, and their fields in JSON where these are called otherwise.
SECTIONS = (
    *("header", "workers", "limits", "leases", "leaders", "deployments", "pools", "breakers"),
    *("notices", "events", "stats", "series"),
)
FIELDS = {"breakers": "features"}

#: Uses everything that a region has. Each line that it is told it answers with one.
PROGRAM = """
    import json, os, sys, time
    import fast_litellm
    from fast_litellm import _metrics, _native, _prometheus
    from fast_litellm._rust import Board, Deployments

    region = _native.default_region()
    scripts = _native.LimiterScripts(region)

    def window(name, used, limit):
        keys = [f"{{{name}}}:window", f"{{{name}}}:requests"]
        for _ in range(used):
            scripts.check_and_increment_by_n(keys, [limit, 1, 3600, 3600])

    def slots(user, count):
        for n in range(count):
            keys = [f"{{user:{user}}}:max_parallel_requests"]
            scripts.parallel_acquire(keys, [5, 3600, f"{os.getpid()}-{n}"])

    for n in range(20):
        window(f"team:{n:02}", n, 20)
    window("api_key:0123456789abcdef0123456789abcdef", 2, 3)
    scripts.token_increment(["spend:team"], [7, 3600])
    limiter = fast_litellm.SimpleRateLimiter(1, burst=200)
    for n in range(1, 6):
        for _ in range(40 * n):
            limiter.check(f"busy {n}, \\"quoted\\"")
    slots("alice", 1)
    dead = os.fork()
    if dead == 0:
        slots("alice", 2)
        slots("bob", 1)
        os._exit(0)
    os.waitpid(dead, 0)

    deployments = Deployments(region)
    for name in ("gpt-a", "gpt-b"):
        deployments.introduce(name, name)
    flight = deployments.depart("gpt-a")
    deployments.succeeded("gpt-a", 0.25, 0.05)
    deployments.failed("gpt-b", 429)
    deployments.cool_down("gpt-b", 3600, 429, "no \\"more\\",\\nplease")
    Board(region).publish("models", b"eleven byte", 600)
    leader = fast_litellm.Leader("sync", ttl_s=600)
    assert leader.acquire()
    connections = [fast_litellm.get_connection(f"https://{host}.example.com") for host in "ab"]
    region.feature_error(2)
    fast_litellm.record_performance("routing", "choose", 0.012)
    fast_litellm.record_performance("routing", "choose", 0.5, success=False)

    print(json.dumps({"pid": os.getpid(), "dead": dead}), flush=True)
    for line in sys.stdin:
        if line == "metrics\\n":
            print(json.dumps(_prometheus.text(_metrics.families())), flush=True)
        else:
            end = time.monotonic() + float(line)
            while time.monotonic() < end:
                limiter.check('busy 1, "quoted"')
                time.sleep(0.001)
            print(json.dumps(None), flush=True)
"""


class Live:
    """A process that has filled a region and waits."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid, self.dead = self.answer().values()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    process = sharing(PROGRAM, f"formats-{os.getpid()}")
    try:
        yield Live(process)
    finally:
        process.communicate(timeout=10)


def refused(*arguments: object) -> str:
    """What it says when it refuses: in its own words, not by the command line's parser."""
    said = refused_at_all(*arguments)
    assert said.startswith("fl-shm: "), said
    return said


def inspect(live: Live, *arguments: object) -> Any:
    return json.loads(shown("inspect", "--json", "--pid", live.pid, *arguments))


def records_of(report: dict[str, Any], section: str) -> list[dict[str, Any]]:
    """A section's records as --ndjson has them."""
    found = report[FIELDS.get(section, section)]
    if section == "header":
        return [found]
    if section == "stats":
        return [{"counter": counter, "total": total} for counter, total in found.items()]
    assert isinstance(found, list)
    return found


def flat(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A record's rows: nested names with a dot, and a row for each element of its list."""
    row: dict[str, Any] = {}
    rows = [row]
    for name, value in record.items():
        if isinstance(value, dict):
            row |= {f"{name}.{inner}": of for inner, of in value.items()}
        elif not isinstance(value, list):
            row[name] = value
        elif value:
            rows = [{f"{name}.{inner}": of for inner, of in each.items()} for each in value]
    return [{**row, **each} for each in rows]


def columns_of(section: str) -> list[str]:
    """The columns that are documented."""
    lines = [line.split() for line in shown("schema", "--columns").splitlines()]
    return [line[1] for line in lines if line[0] == section]


# Every form says the same


#: Ages and what is left of time, which go on between two looks.
MOVES = re.compile(
    r"(age|last|held|renewed|oldest|resets_in|expires_in|failure)_s$|_ms$|^remaining$"
)


def still(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if not MOVES.search(name)}


def test_every_section_is_there_and_can_be_chosen(live: Live) -> None:
    whole = inspect(live)
    assert set(whole) == {"schema", *(FIELDS.get(section, section) for section in SECTIONS)}
    for section in SECTIONS:
        assert records_of(whole, section), f"this test sees no {section}"
        part = inspect(live, section)
        assert set(part) == {"schema", FIELDS.get(section, section)}
        assert len(records_of(part, section)) == len(records_of(whole, section))


def test_a_line_a_record_says_the_same(live: Live) -> None:
    whole = inspect(live)
    lines = [
        json.loads(line) for line in shown("inspect", "--ndjson", "--pid", live.pid).splitlines()
    ]
    assert all(next(iter(line)) == "section" for line in lines)
    expected = [
        {"section": section, **record}
        for section in SECTIONS
        for record in records_of(whole, section)
    ]
    assert [still(line) for line in lines] == [still(record) for record in expected]


def cell(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("section", SECTIONS)
def test_csv_says_the_same(live: Live, section: str) -> None:
    # Values that are left out of JSON because they are the usual ones.
    usual = {"moving": "false", "idle": "0"}
    rows = [row for record in records_of(inspect(live, section), section) for row in flat(record)]
    text = shown("inspect", "--csv", section, "--pid", live.pid)
    table = list(csv.DictReader(io.StringIO(text)))
    assert text.splitlines()[0].split(",") == columns_of(section)
    assert len(table) == len(rows)
    for found, expected in zip(table, rows, strict=True):
        assert expected.keys() <= found.keys()
        present = {
            name: value
            for name, value in found.items()
            if value and not (name not in expected and usual.get(name) == value)
        }
        assert still(present) == still({name: cell(value) for name, value in expected.items()})


def test_what_csv_must_quote_is_quoted(live: Live) -> None:
    rows = csv.DictReader(io.StringIO(shown("inspect", "limits", "--csv", "--pid", live.pid)))
    assert 'busy 1, "quoted"' in {row["key"] for row in rows}


def test_text_shows_every_record(live: Live) -> None:
    whole, text = inspect(live), shown("inspect", "--pid", live.pid)
    sections = re.split(r"\n\n", text)
    titles = [section.splitlines()[0] for section in sections]
    assert [title.split()[0].rstrip(",") for title in titles] == ["region", *SECTIONS[1:]]
    for section, shown_there in zip(SECTIONS, sections, strict=True):
        for row in (row for record in records_of(whole, section) for row in flat(record)):
            if section != "stats" or row["total"]:
                name = next(value for value in row.values() if isinstance(value, str))
                assert name in shown_there
    assert re.search(r"team:19 +window .* 19/20 ", text)
    assert re.search(r"user:bob +window .* 1/5 ", text)
    assert "\x1b" not in text, "colours are for terminals"


# The documented form


def strict(schema: Any) -> Any:
    """A schema that refuses what it does not name."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: strict(value) for name, value in schema.items()}
    return {**inner, "additionalProperties": False} if "properties" in inner else inner


def validator(name: str) -> Any:
    schema = json.loads(shown("schema", name))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"] == f"fl-shm {name} --json"
    return jsonschema.Draft202012Validator(strict(schema))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["inspect"], 0),
        (["inspect", "--since-start"], 0),
        (["inspect", "stats", "events"], 0),
        (["leases"], 0),
        (["leases", "--by", "worker"], 0),
        (["leases", "--by", "key", "--suspect"], 1),
        (["ls"], 0),
        (["verify"], 0),
        (["doctor"], 1),
        (["reap", "--dry-run"], 0),
        (["get", "team:07", "user:alice", "gpt-b", "sync"], 0),
        (["explain", "team:07", "team:19"], 0),
        (["reset", "--all", "--dry-run"], 0),
        (["cooldown", "clear", "--all", "--dry-run"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_json_is_as_documented(live: Live, arguments: list[str], code: int) -> None:
    select = [] if arguments[0] == "ls" else ["--pid", live.pid]
    document = json.loads(shown(*arguments, "--json", *select, code=code))
    check = validator(arguments[0])
    errors = [f"{error.json_path}: {error.message}" for error in check.iter_errors(document)]
    assert not errors


def test_the_schema_is_not_content_with_anything(live: Live) -> None:
    check, report = validator("inspect"), inspect(live)

    def refuses(change: Callable[[Any], object]) -> bool:
        copy = json.loads(json.dumps(report))
        change(copy)
        return not check.is_valid(copy)

    assert refuses(lambda copy: copy.pop("schema"))
    assert refuses(lambda copy: copy.update(schema="fl-shm/0"))
    assert refuses(lambda copy: copy["limits"][0].update(allowed="many"))
    assert refuses(lambda copy: copy["limits"][0].update(unheard_of=1))
    assert refuses(lambda copy: copy["limits"][0].update(window_s=None))
    assert refuses(lambda copy: copy["limits"][0].pop("key"))
    assert refuses(lambda copy: copy["pools"][0]["endpoints"][0].pop("healthy"))


def test_the_layout_is_that_of_the_document() -> None:
    text = shown("schema", "--layout")
    path = Path(__file__).resolve().parents[2] / "shm_layout.md"
    if path.exists():
        version, tables = text.split("\n\n", 1)
        document = path.read_text()
        assert version in document
        assert tables.strip() in document
    assert "### Record `Bucket`" in text


# What Prometheus reads


def families(text: str) -> dict[str, Any]:
    return {
        family.name: (
            family.type,
            family.documentation,
            {(each.name, *sorted(each.labels.items())): each.value for each in family.samples},
        )
        for family in text_string_to_metric_families(text)
    }


def test_prometheus_reads_what_the_workers_export(live: Live) -> None:
    live.tell("metrics")
    exported = families(live.answer())
    text = shown("inspect", "--prom", "--pid", live.pid)
    printed = families(text)
    (age,) = printed.pop("fast_litellm_region_age_seconds")[2].values()
    (earlier,) = exported.pop("fast_litellm_region_age_seconds")[2].values()
    assert earlier <= age <= earlier + 30
    (left,) = printed["fast_litellm_deployment_cooldown_seconds"][2].items() - {
        (("fast_litellm_deployment_cooldown_seconds", ("deployment", "gpt-a")), 0.0)
    }
    for found in (exported, printed):
        samples = found["fast_litellm_deployment_cooldown_seconds"][2]
        assert 3500 < samples.pop(left[0]) <= 3600
    assert printed == exported
    assert list(printed) == list(exported)
    assert len(printed) >= 50
    for name in ("team", "busy", "alice", "api_key", "spend", "example.com"):
        assert name not in text


# Conditions


Record = dict[str, Any]


def has(name: str, compare: Callable[[Any, Any], bool], value: object) -> Callable[[Record], bool]:
    def holds(row: Record) -> bool:
        return name in row and compare(row[name], value)

    return holds


def like(value: str, pattern: str) -> bool:
    return re.search(pattern, value) is not None


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ('key ~ "^team"', has("key", like, "^team")),
        ("used_pct>80", has("used_pct", operator.gt, 80)),
        ("used_pct >= 95%", has("used_pct", operator.ge, 95)),
        ("requests.used = 7", has("requests.used", operator.eq, 7)),
        ("requests.limit != 20", lambda row: row.get("requests.limit") != 20),
        ("not requests.limit = 20", lambda row: row.get("requests.limit") != 20),
        ("window_s = 1h", has("window_s", operator.eq, 3600)),
        ("retry_after_ms < 1m", has("retry_after_ms", operator.lt, 60_000)),
        ("kind = 'gcra' or kind = \"counter\"", lambda row: row["kind"] in ("gcra", "counter")),
        ('key = "busy 1, \\"quoted\\""', has("key", operator.eq, 'busy 1, "quoted"')),
        (
            'used_pct>=80 and (key ~ "^team" or parallel.used > 0)',
            lambda row: (
                row.get("used_pct", -1) >= 80
                and (row["key"].startswith("team") or row.get("parallel.used", 0) > 0)
            ),
        ),
        ("not moving and idle_s != 5 or denied > 0", None),
        ("moving", lambda row: False),
        ("moving = false", lambda row: True),
    ],
)
def test_filters(live: Live, condition: str, holds: Callable[[Record], bool] | None) -> None:
    if holds is None:
        message = refused("inspect", "limits", "--filter", condition, "--pid", live.pid)
        assert 'at character 16: there is no column "idle_s"; use one of key, kind,' in message
        return
    everything = inspect(live, "limits")["limits"]
    expected = [record for record in everything if holds(*flat(record))]
    found = inspect(live, "limits", "--filter", condition)["limits"]
    assert [record["key"] for record in found] == [record["key"] for record in expected]
    assert len(expected) < len(everything) or condition == "moving = false"
    assert expected or condition == "moving"
    lines = shown("inspect", "limits", "--csv", "--filter", condition, "--pid", live.pid)
    assert len(lines.splitlines()) == len(expected) + 1


def test_records_with_lists_are_found_by_their_elements(live: Live) -> None:
    (pool,) = inspect(live, "pools", "--filter", 'endpoints.endpoint ~ "//a"')["pools"]
    assert len(pool["endpoints"]) == 2, "a record is printed whole"
    text = shown(
        "inspect", "pools", "--csv", "--pid", live.pid, "--columns", "pool,endpoints.endpoint"
    )
    assert len(text.splitlines()) == 3
    assert inspect(live, "pools", "--filter", 'endpoints.endpoint ~ "//c"')["pools"] == []


def test_objects_and_totals_can_be_filtered_too(live: Live) -> None:
    assert set(inspect(live, "stats", "--filter", 'counter ~ "^lease_a"')["stats"]) == {
        "lease_acquired"
    }
    assert set(inspect(live, "header", "--filter", "age_s < 0")) == {"schema"}
    assert "none" in shown("inspect", "limits", "--filter", "denied < 0", "--pid", live.pid)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["limits", "--filter", "key = team"],
            'at character 7: key is text, "team" is not; quote it',
        ),
        (["limits", "--filter", "(moving"], 'at character 8: ")" is missing'),
        (["limits", "--sort", "nonsense"], "use one of key, kind"),
        (["limits", "--sort", "key:up"], '"up" is no direction; use asc or desc'),
        (["limits", "--columns", "key,nonsense"], "use one of key, kind"),
        (["--filter", "age_s>1"], "fl-shm inspect limits --filter"),
        (["limits", "workers", "--sort", "age_s"], "one section"),
        (["--top", "3"], "one section"),
        (["--columns", "key"], "one section"),
        (["--csv"], "--csv is about the records of one section"),
        (["limits", "--prom"], "leave SECTION away"),
        (["--prom", "--top", "3"], "leave --top away"),
        (["--prom", "--json"], "cannot be used with"),
        (["--csv", "--json"], "cannot be used with"),
        (["--rate", "--since-start"], "cannot be used with"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_fit_are_refused(live: Live, arguments: list[str], says: str) -> None:
    done = fl_shm("inspect", "--pid", live.pid, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


# Order, number and columns


@pytest.mark.parametrize("by", ["used_pct", "-used_pct", "used_pct:desc", "-key", "denied,-key"])
def test_sorting(live: Live, by: str) -> None:
    everything = [row for record in inspect(live, "limits")["limits"] for row in flat(record)]
    expected = everything
    for key in reversed(by.split(",")):
        name, largest_first = (
            key.strip("-").removesuffix(":desc"),
            key.endswith("c") or key[0] == "-",
        )
        present = [row for row in expected if name in row]
        present.sort(key=lambda row: row[name], reverse=largest_first)
        expected = [*present, *(row for row in expected if name not in row)]
    found = inspect(live, "limits", "--sort", by)["limits"]
    if "key" not in by:
        # Those that are alike are in no particular order.
        assert [row.get("used_pct") for row in found] == [row.get("used_pct") for row in expected]
        assert found[-1].get("used_pct") is None
    else:
        assert [row["key"] for row in found] == [row["key"] for row in expected]
    top = inspect(live, "limits", "--sort", by, "--top", 3)["limits"]
    assert [row["key"] for row in top] == [row["key"] for row in found[:3]]


def test_the_first_ones(live: Live) -> None:
    assert len(inspect(live, "limits", "--top", 4)["limits"]) == 4
    assert inspect(live, "limits", "--top", 0)["limits"] == []
    text = shown("inspect", "limits", "--top", 4, "--pid", live.pid)
    assert re.search(r"… and \d\d more\n$", text)
    many = inspect(live, "limits", "--top", 9999)["limits"]
    assert len(many) == len(inspect(live, "limits")["limits"])


def test_columns_are_chosen(live: Live) -> None:
    options = ["limits", "--columns", "requests.limit,key", "--filter", 'key = "team:05"']
    assert inspect(live, *options)["limits"] == [{"requests.limit": 20, "key": "team:05"}]
    assert (
        shown("inspect", "--csv", *options, "--pid", live.pid) == "requests.limit,key\n20,team:05\n"
    )
    text = shown("inspect", *options, "--pid", live.pid).splitlines()
    assert [line.split() for line in text[1:]] == [["REQUESTS", "LIMIT", "KEY"], ["20", "team:05"]]
    text = shown("inspect", "deployments", "--columns", "all", "--pid", live.pid)
    assert len(text.splitlines()) == 4
    assert "SUCCESSES TOTAL" in text


# Changes


def test_rates_are_changes_per_second(live: Live) -> None:
    live.tell("4")
    report = inspect(live, "--rate", "--watch", 0.5, "--count", 1)
    live.answer()
    limits = {limit["key"]: limit for limit in report["limits"]}
    busy = limits['busy 1, "quoted"']
    assert 0 < busy["allowed_per_s"] + busy["denied_per_s"] <= 1000
    assert limits["team:03"]["allowed_per_s"] == limits["team:03"]["denied_per_s"] == 0
    assert report["stats_per_s"]["window_charged"] == 0
    assert {worker["decisions_per_s"] for worker in report["workers"]} == {0}
    assert report["deployments"][0]["successes_per_s"] == 0
    assert not list(validator("inspect").iter_errors(report))


def test_without_a_watch_two_looks_are_a_second_apart(live: Live) -> None:
    text = shown("inspect", "limits", "--rate", "--filter", 'key = "team:03"', "--pid", live.pid)
    assert "ALLOWED/S" in text
    assert "per_s" not in json.dumps(inspect(live))


def test_rates_since_the_start(live: Live) -> None:
    report = inspect(live, "--since-start")
    age_s = max(report["header"]["age_s"], 1)
    for limit in report["limits"]:
        assert limit["allowed_per_s"] == pytest.approx(limit["allowed"] / age_s, abs=0.001)
    for counter, total in report["stats"].items():
        assert report["stats_per_s"][counter] == pytest.approx(total / age_s, abs=0.001)


def test_looks_can_be_told_apart(live: Live) -> None:
    watch = ["--pid", live.pid, "--watch", 0.02, "--count", 3]
    text = shown("inspect", "leaders", "--csv", *watch)
    heading, *rows = [line.split(",") for line in text.splitlines()]
    assert heading[:2] == ["at_ms", "job"]
    times = [int(row[0]) for row in rows]
    assert len(set(times)) == 3
    assert times == sorted(times)
    lines = [
        json.loads(line) for line in shown("inspect", "leaders", "--ndjson", *watch).splitlines()
    ]
    assert [set(line) >= {"section", "at_ms", "job"} for line in lines] == [True] * 3
    assert lines[0]["at_ms"] == pytest.approx(times[0], abs=60_000)
    blocks = shown("inspect", "leaders", *watch).split("\n\n")
    assert len(blocks) == 3
    assert len(shown("inspect", "--prom", *watch).split("\n\n")) == 3


# Terminals


def on_terminal(*arguments: object, size: tuple[int, int] = (24, 80), **environment: str) -> str:
    """What a terminal of so many lines and columns is sent."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    process = subprocess.Popen(
        command(*arguments),
        cwd="/",
        env={**fresh_environment(), "TERM": "xterm", **environment},
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=subprocess.PIPE,
    )
    os.close(slave)
    sent = b""
    try:
        while part := os.read(master, 65536):
            sent += part
    except OSError:  # EIO: the other side is closed.
        pass
    finally:
        os.close(master)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, b"")
    return sent.decode()


def plain(text: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).splitlines()


def test_lines_end_where_the_terminal_ends(live: Live) -> None:
    sent = on_terminal("inspect", "--pid", live.pid, size=(24, 50), NO_COLOR="1")
    assert max(map(len, plain(sent))) == 50
    assert "…" in sent
    assert "\x1b" not in sent
    piped = shown("inspect", "--pid", live.pid)
    assert max(map(len, piped.splitlines())) > 100
    assert "…" not in piped


def test_colours_are_for_terminals_that_want_them(live: Live) -> None:
    workers = ["inspect", "workers", "--pid", live.pid]
    assert "\x1b[31mdead\x1b[0m" in on_terminal(*workers)
    assert "\x1b" not in on_terminal(*workers, NO_COLOR="1")
    assert "\x1b" not in on_terminal(*workers, TERM="dumb")
    assert "\x1b[31m" in on_terminal(*workers, NO_COLOR="")


def test_a_watch_is_drawn_in_place_and_fits(live: Live) -> None:
    watch = ["--pid", live.pid, "--watch", 0.02, "--count", 3]
    sent = on_terminal("inspect", "limits", *watch, size=(10, 200))
    frames = sent.split("\x1b[H")[1:]
    assert len(frames) == 3
    assert sent.count("\x1b[2J") == 1, "later frames are drawn over the first"
    for frame in frames:
        lines = plain(frame)
        assert len(lines) < 10
        assert re.search(r"… and \d+ more lines: use --top", lines[-1])


@pytest.mark.parametrize("size", [(1, 1), (0, 0), (2, 3)])
def test_a_tiny_terminal_is_no_error(live: Live, size: tuple[int, int]) -> None:
    for options in ([], ["--watch", 0.02, "--count", 2]):
        assert on_terminal("inspect", "--pid", live.pid, *options, size=size)


# Slots


def test_leases_by_owner_by_worker_and_by_key(live: Live) -> None:
    leases = json.loads(shown("leases", "--json", "--pid", live.pid))["leases"]
    assert {(of["key"], of["of"], of["owner"], of["held"]) for of in leases} >= {
        ("user:alice", "key", "alive", 1),
        ("user:alice", "key", "dead", 2),
        ("user:bob", "key", "dead", 1),
        ("gpt-a", "deployment", "alive", 1),
        ("sync", "job", "alive", 1),
    }
    assert {of["of"] for of in leases} == {"key", "deployment", "job", "pool", "endpoint"}
    by_worker = json.loads(shown("leases", "--json", "--by", "worker", "--pid", live.pid))[
        "by_worker"
    ]
    held = {of["pid"]: (of["owner"], of["held"], of["keys"]) for of in by_worker}
    assert held[live.dead] == ("dead", 3, 2)
    mine = [of for of in leases if of["pid"] == live.pid]
    assert held[live.pid] == ("alive", sum(of["held"] for of in mine), len(mine))
    by_key = json.loads(shown("leases", "--json", "--by", "key", "--pid", live.pid))["by_key"]
    assert {of["key"]: (of["held"], of["owners"]) for of in by_key}["user:alice"] == (3, 2)


def test_suspect_leases_are_an_answer(live: Live) -> None:
    found = json.loads(shown("leases", "--suspect", "1h", "--json", "--pid", live.pid, code=1))
    assert {(of["key"], of["held"]) for of in found["leases"]} == {
        ("user:alice", 2),
        ("user:bob", 1),
    }
    alive = ["--filter", 'owner = "alive"']
    text = shown("leases", "--suspect", "1h", *alive, "--pid", live.pid)
    assert text.splitlines()[-1].strip() == "none"
    assert "slots that may be lost" in shown("leases", "--suspect", "--pid", live.pid, code=1)
    assert "use seconds" in fl_shm("leases", "--suspect", "soon").stderr


def test_leases_have_the_forms_of_inspect(live: Live) -> None:
    select = ["--pid", live.pid, "--filter", 'key = "user:bob"', "--columns", "key,held"]
    assert shown("leases", "--csv", *select) == "key,held\nuser:bob,1\n"
    expected = {"section": "leases", "key": "user:bob", "held": 1}
    assert json.loads(shown("leases", "--ndjson", *select)) == expected
    top = shown("leases", "--by", "key", "--sort", "-held", "--top", 1, "--csv", "--pid", live.pid)
    assert top.splitlines()[1].startswith("user:alice,key,3,")
