"""Proves that `fl-shm` shows live regions from outside, keeps secrets, and changes nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import fast_litellm
from fast_litellm._rust import Region
from fl_shm import command, fl_shm, refused, sharing, shown
from layout_document import LayoutDocument
from served import Program
from support import fresh_environment, until

SECRET_HASH = "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b"
SECRET_KEY = "sk-verysecret-1234567890abcdef"
USER = "{user:alice}"

PROGRAM = f"""
    import json, os, sys
    import fast_litellm
    from fast_litellm import _native

    region = _native.default_region()
    scripts = _native.LimiterScripts(region)
    secret = "{{api_key:{SECRET_HASH}}}"
    gauge = "{USER}:max_parallel_requests"

    def acquire(count):
        for n in range(count):
            scripts.parallel_acquire([gauge], [5, 3600, f"{{os.getpid()}}-{{n}}"])

    for part, limit, amount in (("requests", 20, 3), ("tokens", 900, 30)):
        keys = [f"{{secret}}:window", f"{{secret}}:{{part}}"]
        scripts.check_and_increment_by_n(keys, [limit, amount, 60, 60])
    fast_litellm.SimpleRateLimiter(60, burst=2).check("{SECRET_KEY}")
    scripts.token_increment(["spend:team"], [7, 3600])
    acquire(1)

    dead = os.fork()
    if dead == 0:
        acquire(2)
        os._exit(0)
    os.waitpid(dead, 0)

    ready, done = os.pipe()
    child = os.fork()
    if child == 0:
        acquire(1)
        os.write(done, b".")
        sys.stdin.readline()
        os._exit(0)
    os.read(ready, 1)
    print(json.dumps({{"pid": os.getpid(), "dead": dead, "child": child}}), flush=True)
    sys.stdin.readline()
"""


@dataclass
class Live:
    """Processes that share a region and do nothing."""

    name: str
    pid: int
    child: int
    dead: int

    def descriptor(self) -> Path:
        """Where the region's memory can be read from outside."""
        for path in Path(f"/proc/{self.pid}/fd").iterdir():
            if f"fl-shm:{self.name}" in os.readlink(path):
                return path
        raise AssertionError("the process holds no region open")

    def content(self) -> bytes:
        return self.descriptor().read_bytes()


def start(name: str) -> Iterator[Live]:
    process = sharing(PROGRAM, name)
    try:
        assert process.stdout is not None
        yield Live(name, **json.loads(process.stdout.readline()))
    finally:
        # Both wait for the end of their input.
        process.communicate(timeout=10)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    yield from start(f"live-{os.getpid()}")


@pytest.fixture(scope="module")
def other() -> Iterator[Live]:
    yield from start(f"other-{os.getpid()}")


def report_of(live: Live, *arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shown("inspect", "--json", "--pid", live.pid, *arguments))
    return found


# What it shows


def test_ls_lists_every_region(live: Live, other: Live) -> None:
    regions = {region["name"]: region for region in json.loads(shown("ls", "--json"))}
    for each in (live, other):
        found = regions[each.name]
        assert set(found["pids"]) == {each.pid, each.child}
        assert found["pids"][0] == each.pid, "the oldest process comes first"
        assert (found["alive"], found["dead"]) == (2, 1)
        assert found["size"] == len(each.content())
        assert found["keys"] == 4
        assert found["age_s"] < 600
        assert found["layout"] == "{}.{}".format(*LayoutDocument.load().version)
        assert "problem" not in found
    table = shown("ls")
    (row,) = [line for line in table.splitlines() if live.name in line]
    assert str(live.pid) in row
    assert "2 alive, 1 dead" in row


def test_the_report_has_its_schema(live: Live) -> None:
    report = report_of(live)
    assert set(report) == {
        *("schema", "header", "workers", "limits", "leases", "deployments", "features", "stats"),
        *("series", "events", "leaders", "notices", "pools"),
    }
    assert report["schema"] == "fl-shm/1"
    header = report["header"]
    assert set(header) == {
        *("layout", "backing", "size", "creator_pid", "created_at", "age_s", "epoch", "keys"),
        *("key_capacity", "chunks", "chunk_capacity", "worker_capacity", "same_pid_namespace"),
    }
    assert (header["backing"], header["creator_pid"]) == ("memfd", live.pid)
    assert (header["keys"], header["key_capacity"]) == (4, 1024)
    assert header["same_pid_namespace"] is True
    assert all(isinstance(value, int) for value in report["stats"].values())


def test_workers_are_alive_or_dead(live: Live) -> None:
    workers = {worker["pid"]: worker for worker in report_of(live)["workers"]}
    assert {pid: worker["alive"] for pid, worker in workers.items()} == {
        live.pid: "alive",
        live.child: "alive",
        live.dead: "dead",
    }
    assert [workers[pid]["leases"] for pid in (live.pid, live.child, live.dead)] == [1, 1, 2]


def test_limits_show_used_of_what(live: Live) -> None:
    limits = {limit["key"]: limit for limit in report_of(live)["limits"]}
    key = limits[f"api_key:{SECRET_HASH[:6]}.."]
    assert (key["kind"], key["window_s"]) == ("window", 60)
    assert key["requests"] == {"used": 3, "limit": 20}
    assert key["tokens"] == {"used": 30, "limit": 900}
    assert limits["user:alice"]["parallel"] == {"used": 4, "limit": 5}
    assert limits[f"{SECRET_KEY[:6]}.."]["kind"] == "gcra"
    assert limits["spend:team"]["requests"]["used"] == 7


def test_leases_are_shown_by_owner(live: Live) -> None:
    leases = {lease["pid"]: lease for lease in report_of(live)["leases"]}
    assert {pid: (lease["owner"], lease["held"]) for pid, lease in leases.items()} == {
        live.pid: ("alive", 1),
        live.child: ("alive", 1),
        live.dead: ("dead", 2),
    }
    assert {lease["key"] for lease in leases.values()} == {"user:alice"}


def test_text_and_json_tell_the_same(live: Live) -> None:
    text = shown("inspect", "--pid", live.pid)
    for expected in (
        live.name,
        "user:alice",
        "4/5",
        "3/20",
        "30/900",
        str(live.dead),
        "dead",
        "spend:team",
    ):
        assert expected in text


@pytest.mark.parametrize("section", ["header", "workers", "limits", "leases"])
def test_a_part_can_be_chosen(live: Live, section: str) -> None:
    assert set(report_of(live, section)) == {"schema", section}
    text = shown("inspect", "--pid", live.pid, section)
    assert text.startswith("region " if section == "header" else f"{section}\n")
    assert ("\n\n" in text, "stats" in text) == (False, False)


def test_statistics_can_be_chosen(live: Live) -> None:
    assert set(report_of(live, "stats")) == {"schema", "stats"}
    assert set(report_of(live, "stats", "workers")) == {"schema", "stats", "workers"}
    assert (
        set(report_of(live, "breakers"))
        == set(report_of(live, "features"))
        == {"schema", "features"}
    )


def test_a_region_can_be_named(live: Live, other: Live) -> None:
    report = json.loads(shown("inspect", "--json", "--region", other.name))
    assert report["header"]["creator_pid"] == other.pid
    # Any of its processes will do, too.
    report = json.loads(shown("inspect", "--json", "--pid", live.child))
    assert report["header"]["creator_pid"] == live.pid


def test_a_switch_is_moved_from_outside(live: Live) -> None:
    def seen() -> dict[str, Any]:
        found = {each["name"]: each for each in report_of(live)["features"]}
        return found.get("rust_rate_limiting", {"switch": "own"})

    before = seen()["switch"]
    for value, switch, percent in (
        ("rollout:25", "percent", 25),
        ("canary", "percent", 10),
        ("off", "off", None),
        ("true", "on", None),
        ("own", "own", None),
    ):
        dry = shown("feature", "rust_rate_limiting", value, "--pid", live.pid, "--dry-run")
        assert "would be switched to" in dry
        said = shown("feature", "rust_rate_limiting", value, "--pid", live.pid, "--yes")
        assert "rust_rate_limiting is switched to" in said
        assert (seen()["switch"], seen().get("percent")) == (switch, percent)
    assert before == "own"
    asked = fl_shm("feature", "rust_rate_limiting", "rollout:5", "--pid", live.pid)
    assert (asked.returncode, "--yes" in asked.stderr, seen()["switch"]) == (2, True, "own")
    shown("feature", "rust_rate_limiting", "rollout:5", "--pid", live.pid, "--yes")
    text = shown("inspect", "breakers", "--pid", live.pid)
    assert any(line.split()[-2:] == ["percent", "5%"] for line in text.splitlines())
    shown("feature", "rust_rate_limiting", "own", "--reset-errors", "--pid", live.pid, "--yes")
    for wrong in (["rust_teleport", "true"], ["rust_routing", "rollout:101"], ["rust_routing"]):
        assert fl_shm("feature", *wrong, "--pid", live.pid).returncode == 2


def test_it_can_watch(live: Live) -> None:
    lines = shown(
        "inspect", "--json", "--pid", live.pid, "--watch", "0.02", "--count", "3"
    ).splitlines()
    assert [json.loads(line)["schema"] for line in lines] == ["fl-shm/1"] * 3


def test_ctrl_c_ends_a_watch(live: Live) -> None:
    process = subprocess.Popen(
        command("inspect", "header", "--pid", live.pid, "--watch", "60"),
        cwd="/",
        env=fresh_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("region")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (-signal.SIGINT, "")


def test_a_watch_ends_with_its_region_and_is_no_process_of_it() -> None:
    path = Path("/dev/shm") / f"fl-watch-{os.getpid()}"
    with (
        contextlib.ExitStack() as stack,
        Program(str(path), FAST_LITELLM_SHM=str(path)) as program,
    ):
        stack.callback(path.unlink, missing_ok=True)
        for chosen in (("--file", path), ("--pid", program.pid)):
            watching = subprocess.Popen(
                command("inspect", "header", "--json", *chosen, "--watch", "0.05"),
                cwd="/",
                env=fresh_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(watching.kill)
            assert watching.stdout is not None
            assert json.loads(watching.stdout.readline())["schema"] == "fl-shm/1"
            (found,) = [
                each for each in json.loads(shown("ls", "--json")) if each["name"] == str(path)
            ]
            assert found["pids"] == [program.pid]
            if chosen[0] == "--file":
                whole = path.read_bytes()
                os.truncate(path, 4096)
                expected = "it was cut"
            else:
                program.end()
                expected = "no process uses the region"
            _, errors = watching.communicate(timeout=10)
            assert (watching.returncode, expected in errors) == (2, True), errors
            path.write_bytes(whole)


def test_the_module_is_the_command(live: Live) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fast_litellm", "inspect", "--json", "--pid", str(live.pid)],
        cwd="/",
        env=fresh_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert json.loads(done.stdout)["workers"][0]["pid"] == live.pid


def test_version_and_help() -> None:
    assert shown("--version").split() == ["fl-shm", fast_litellm.__version__]
    assert "inspect" in shown("--help")
    assert "--watch" in shown("inspect", "--help")


# What it keeps to itself


def test_no_secret_is_in_the_region(live: Live) -> None:
    content = live.content()
    for secret in (SECRET_HASH, SECRET_KEY):
        assert secret[:6].encode() in content, "this test looks at the wrong bytes"
        for part in (secret, secret[:8], secret[6:14], secret[-8:]):
            assert part.encode() not in content


def test_no_secret_is_shown(live: Live) -> None:
    for text in (shown("inspect", "--pid", live.pid), json.dumps(report_of(live)), shown("ls")):
        for secret in (SECRET_HASH, SECRET_KEY):
            assert secret[:8] not in text


def test_inspecting_changes_nothing(live: Live) -> None:
    before = hashlib.sha256(live.content()).hexdigest()
    shown("ls")
    shown("ls", "--json")
    shown("inspect", "--pid", live.pid)
    shown("inspect", "--json", "--pid", live.pid, "--watch", "0.01", "--count", "5")
    assert hashlib.sha256(live.content()).hexdigest() == before


def test_the_inspector_itself_makes_no_region(live: Live) -> None:
    before = {region["name"] for region in json.loads(shown("ls", "--json"))}
    assert live.name in before
    # With a name of its own a region of the inspector would be seen.
    done = subprocess.run(
        command("ls", "--json"),
        cwd="/",
        env={**fresh_environment(), "FAST_LITELLM_SHM_NAME": "inspector"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "inspector" not in done.stdout


# What goes wrong


def test_no_region_is_exit_code_one() -> None:
    prefix = ["unshare", "--pid", "--fork", "--mount-proc"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True).returncode
    ):
        pytest.skip("cannot make a namespace without any other process here")
    for arguments in (["ls"], ["inspect"]):
        done = fl_shm(*arguments, prefix=prefix)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("fl-shm: no live region")
    done = fl_shm("ls", "--json", prefix=prefix)
    assert (done.returncode, json.loads(done.stdout)) == (1, [])


def test_several_regions_ask_for_a_choice(live: Live, other: Live) -> None:
    message = refused("inspect")
    for each in (live, other):
        assert f"{each.name} (--pid {each.pid})" in message


def test_a_process_without_a_region() -> None:
    assert "process 1 uses no region" in refused("inspect", "--pid", 1)


def test_a_name_that_no_region_has() -> None:
    assert "fl-shm ls" in refused("inspect", "--region", "no-such-region")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--nonsense"], "--nonsense"),
        (["inspect", "--nonsense"], "--nonsense"),
        (["inspect", "nonsense"], "nonsense"),
        (["nonsense"], "nonsense"),
        ([], "Usage"),
        (["inspect", "--pid", "x"], "--pid"),
        (["inspect", "--watch", "0"], "0.01 to 86400"),
        (["inspect", "--watch", "nan"], "0.01 to 86400"),
        (["inspect", "--count", "3"], "--watch"),
        (["inspect", "--pid", "1", "--file", "/x"], "cannot be used with"),
    ],
    ids=" ".join,
)
def test_bad_arguments_are_exit_code_two(arguments: list[str], named: str) -> None:
    assert named in refused(*arguments)


def test_a_closed_pipe_is_no_error(live: Live) -> None:
    for arguments in (
        ["inspect", "--pid", live.pid, "--watch", "0.01"],
        ["inspect", "--pid", live.pid],
    ):
        process = subprocess.Popen(
            command(*arguments),
            cwd="/",
            env=fresh_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("region")
        process.stdout.close()
        assert process.wait(timeout=10) == 0
        assert process.stderr.read() == ""
        process.stderr.close()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"garbage!" * 1000, "magic"),
        (b"", "0 bytes"),
        (b"FLSHM\r\n\x1a" + bytes(8192), "byte order"),
    ],
    ids=["garbage", "empty", "magic-only"],
)
def test_a_file_that_is_no_region(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert named in refused("inspect", "--file", path)


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "device"])
def test_a_path_that_is_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "directory":
        path.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    if kind == "device":
        path = Path("/dev/zero")
    assert refused("inspect", "--file", path).startswith("fl-shm: ")


def test_a_named_region_can_be_inspected_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "region"
    region = Region.open(path, keys=1024, lease_chunks=64, workers=8, force=True)
    assert json.loads(shown("inspect", "--json", "--file", path))["header"]["backing"] == "file"
    del region
    # The file stays, also when nobody uses it any more.
    assert (
        json.loads(shown("inspect", "--json", "--file", path))["workers"][0]["pid"] == os.getpid()
    )


def test_a_named_region_is_listed_under_its_path(tmp_path: Path) -> None:
    path = tmp_path / "region"
    made = Region.open(path, keys=1024, lease_chunks=64, workers=8, force=True)
    found = {entry["name"]: entry for entry in json.loads(shown("ls", "--json"))}
    assert str(path) in found, f"not among {list(found)}, while {made} is in use"
    assert found[str(path)]["pids"] == [os.getpid()]
    assert json.loads(shown("inspect", "--json", "--region", path))["header"]["size"] == made.size


def test_a_region_that_is_gone_is_not_listed() -> None:
    name = f"short-{os.getpid()}"
    for short in start(name):
        assert name in shown("ls")
        pid = short.pid
    until(lambda: not Path(f"/proc/{pid}").exists(), "end")
    assert name not in fl_shm("ls").stdout
