"""Proves what `fl-shm` says of single keys, and changes in them, beside real limiters."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fl_shm import fl_shm, sharing

SECRET = "sk-verysecret-1234567890abcdef"
TOKEN = hashlib.sha256(SECRET.encode()).hexdigest()
TWIN = TOKEN[:-1] + ("0" if TOKEN[-1] != "0" else "1")
"""Another key's hash, which is shown like that of `SECRET`."""

PROGRAM = """
    import json, os, sys
    import fast_litellm
    from fast_litellm import _native

    region = _native.default_region()
    scripts = _native.LimiterScripts(region)
    deployments = _native.Deployments(region)
    limiter = fast_litellm.SimpleRateLimiter(12, burst=3)

    def check(key):
        return limiter.check(key)["allowed"]

    def charge(token, tokens):
        window = f"{{api_key:{token}}}:window"
        keys = [window, f"{{api_key:{token}}}:requests", window, f"{{api_key:{token}}}:tokens"]
        # Code 0: all limits were charged.
        return scripts.check_and_increment_by_n(keys, [3, 1, 3600, 3600, 100, tokens, 3600, 3600])[0] == 0

    def acquire(slot, limit=2):
        return scripts.parallel_acquire(["{user:u}:max_parallel_requests"], [limit, 3600, slot])[0] == 0

    def die_holding(slots):
        child = os.fork()
        if child == 0:
            for slot in slots:
                acquire(slot)
            os._exit(0)
        os.waitpid(child, 0)
        return True

    def cool_down(deployment, seconds):
        deployments.cool_down(deployment, seconds, 429, "no more")
        return deployments.cooldown(deployment) is not None

    print(os.getpid(), flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(globals()[name](*arguments)), flush=True)
"""


@dataclass
class Program:
    """A process with limiters, which does what it is told."""

    process: subprocess.Popen[str]
    pid: int

    def __call__(self, name: str, *arguments: object) -> Any:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps([name, *arguments]) + "\n")
        stdin.flush()
        return json.loads(stdout.readline())

    def fl_shm(self, *arguments: object, keys: str = "") -> subprocess.CompletedProcess[str]:
        """`fl-shm` on this process's region, with `keys` on standard input."""
        done = fl_shm(*arguments, "--pid", self.pid, keys=keys)
        for text in (done.stdout, done.stderr):
            assert "panicked" not in text
            for secret in (SECRET, TOKEN, TWIN):
                assert secret[:10] not in text, "a secret is shown"
        return done

    def told(self, *arguments: object, keys: str = "") -> tuple[int, Any]:
        """Its exit code, and what it prints as JSON."""
        done = self.fl_shm(*arguments, "--json", keys=keys)
        return done.returncode, json.loads(done.stdout)

    def descriptor(self) -> Path:
        for path in Path(f"/proc/{self.pid}/fd").iterdir():
            if "fl-shm:" in os.readlink(path):
                return path
        raise AssertionError("the process holds no region open")

    def bytes(self) -> bytes:
        return self.descriptor().read_bytes()

    def by_hand(self) -> list[str]:
        """What commands have left in the region's events, newest first."""
        _, report = self.told("inspect", "events")
        return [each["detail"] for each in report["events"] if each["event"] == "by_hand"]


@pytest.fixture
def program() -> Iterator[Program]:
    process = sharing(PROGRAM, f"keys-{os.getpid()}")
    try:
        assert process.stdout is not None
        yield Program(process, int(process.stdout.readline()))
    finally:
        process.communicate(timeout=10)


def test_what_explain_says_is_what_the_limiters_do(program: Program) -> None:
    """Each answer is asked for first, and then decided by the limiter that it is about."""
    assert program("charge", TOKEN, 10)
    for tokens in (90, 91):
        code, answer = program.told("explain", "-", "--cost", tokens, keys=f"{SECRET}\n")
        by = {each["limit_of"]: each["answer"] for each in answer["limits"]}
        assert by == {"requests": "admits", "tokens": "admits" if tokens == 90 else "refuses"}
        assert (code, answer["admitted"]) == ((0, True) if tokens == 90 else (1, False))
    assert not program("charge", TOKEN, 91)
    assert program("charge", TOKEN, 90)
    code, answer = program.told("explain", "-", keys=SECRET)
    decides = answer["limits"][answer["decides"]]
    assert (code, decides["limit_of"], decides["left"]) == (1, "tokens", 0)
    assert 0 < answer["retry_after_us"] <= 3_600_000_000
    assert answer["until_ms"] > answer["at_ms"]
    assert not program("charge", TOKEN, 1)
    # More than the limit is never admitted.
    _, answer = program.told("explain", "-", "--cost", 101, keys=SECRET)
    assert "retry_after_us" not in answer
    assert not answer["admitted"]


def test_explain_agrees_with_a_rate_and_says_when_it_admits_again(program: Program) -> None:
    for number in range(4):
        code, answer = program.told("explain", "-", keys=SECRET) if number else (0, None)
        assert program("check", SECRET) == (code == 0), answer
    code, answer = program.told("explain", "-", keys=SECRET)
    (limit,) = answer["limits"]
    assert (code, limit["limit_of"], limit["used"], limit["limit"]) == (1, "rate", 3, 3)
    assert 0 < limit["retry_after_us"] <= 5_000_000
    while program.told("explain", "-", keys=SECRET)[0] == 1:
        assert not answer["admitted"]
    assert program("check", SECRET)


def test_a_slot_of_a_dead_worker_is_foreseen_as_free(program: Program) -> None:
    assert program("die_holding", ["a", "b"])
    code, answer = program.told("explain", "user:u")
    (limit,) = answer["limits"]
    assert (code, limit["used"], limit["left"]) == (0, 2, 2)
    assert "dead" in limit["reason"]
    assert program("acquire", "c")
    assert program("acquire", "d")
    code, answer = program.told("explain", "user:u")
    assert (code, answer["limits"][0]["reason"]) == (1, "until a slot is released")
    assert "retry_after_us" not in answer
    assert not program("acquire", "e")


def test_get_finds_a_key_by_all_its_names_and_keeps_it_to_itself(program: Program) -> None:
    program("charge", TOKEN, 10)
    program("charge", TWIN, 1)
    program("check", SECRET)
    program("acquire", "x")
    code, found = program.told(
        "get", "-", keys=f"{SECRET}\n{TOKEN}\n{{api_key:{TOKEN}}}:requests\n"
    )
    assert code == 0
    for answer in found["asked"]:
        (window,) = (each for each in answer["limits"] if each["kind"] == "window")
        assert (window["match"], window["tokens"]["used"]) == ("key", 10)
    (rate,) = (each for each in found["asked"][0]["limits"] if each["kind"] == "gcra")
    assert (rate["match"], rate["allowed"]) == ("key", 1)
    # By the name that both have, both are shown.
    shown = f"api_key:{TOKEN[:6]}.."
    _, found = program.told("get", shown)
    (answer,) = found["asked"]
    assert answer["ambiguous"]
    assert len(answer["limits"]) == 2
    ids = {each["id"] for each in answer["limits"]}
    assert [program.told("get", each)[1]["asked"][0]["limits"][0]["id"] for each in ids] == [*ids]
    _, found = program.told("get", "user:u")
    (lease,) = found["asked"][0]["leases"]
    assert (lease["pid"], lease["held"], lease["owner"]) == (program.pid, 1, "alive")
    assert "cannot be told apart" in program.fl_shm("get", shown).stdout
    nothing = program.fl_shm("get", "user:u", "user:nobody")
    assert nothing.returncode == 1
    assert "nothing is known of user:nobody" in nothing.stderr


def test_reset_does_nothing_without_yes_and_with_it_frees_the_key(program: Program) -> None:
    while program("charge", TOKEN, 1):
        pass
    program("charge", TWIN, 1)
    program("acquire", "x")
    before = program.bytes()
    done = program.fl_shm("reset", "-", keys=SECRET)
    assert (done.returncode, "would reset 1 key" in done.stdout) == (2, True)
    assert "--yes" in done.stderr
    assert program.fl_shm("reset", "-", "--dry-run", keys=SECRET).returncode == 0
    refused = program.fl_shm("reset", f"api_key:{TOKEN[:6]}..", "--yes")
    assert refused.returncode == 2
    assert "cannot be told apart" in refused.stderr
    unknown = program.fl_shm("reset", "user:nobody", "-", "--yes", keys=SECRET)
    assert unknown.returncode == 1
    assert "user:nobody" in unknown.stderr
    assert program.bytes() == before
    assert not program("charge", TOKEN, 1)
    code, plan = program.told("reset", "-", "--yes", keys=SECRET)
    assert (code, plan["reset"], len(plan["keys"])) == (0, 1, 1)
    # The other one and the slot are as they were; the key has its whole limit again.
    assert [program("charge", TOKEN, 1) for _ in range(4)] == [True, True, True, False]
    assert [program("charge", TWIN, 1) for _ in range(3)] == [True, True, False]
    code, plan = program.told("reset", "--all", "--yes")
    assert code == 0
    assert plan["reset"] >= 3
    assert program("charge", TOKEN, 1)
    assert program("charge", TWIN, 1)
    assert program("acquire", "y")
    assert not program("acquire", "z")
    assert program.by_hand() == [f"user {os.getuid()}: reset"] * 2


def test_a_cooldown_is_cleared_by_hand(program: Program) -> None:
    for deployment in ("gpt-a", "gpt-b"):
        assert program("cool_down", deployment, 600)
    code, answer = program.told("explain", "gpt-a")
    assert (code, answer["limits"][0]["reason"]) == (1, "rate_limited 429: no more")
    before = program.bytes()
    dry = program.fl_shm("cooldown", "clear", "gpt-a", "--dry-run")
    assert dry.returncode == 0
    assert "would end 1 cooldown" in dry.stdout
    assert program.fl_shm("cooldown", "clear", "gpt-a").returncode == 2
    assert program.fl_shm("cooldown", "clear", "gpt-c", "--yes").returncode == 1
    assert program.bytes() == before
    assert program.fl_shm("cooldown", "clear", "gpt-a", "--yes").returncode == 0
    assert program.fl_shm("explain", "gpt-a").returncode == 0
    assert program.fl_shm("explain", "gpt-b").returncode == 1
    code, plan = program.told("cooldown", "clear", "--all", "--yes")
    assert (code, plan["cleared"]) == (0, 1)
    assert program.fl_shm("explain", "gpt-b").returncode == 0
    assert program.by_hand() == [f"user {os.getuid()}: cooldown clear"] * 2


def test_every_command_that_changes_a_region_leaves_an_event(program: Program) -> None:
    commands = ["reap"], ["feature", "rust_routing", "off"], ["reset", "--all"]
    for arguments in commands:
        assert program.fl_shm(*arguments, "--dry-run").returncode == 0
    assert program.by_hand() == []
    for arguments in commands:
        assert program.fl_shm(*arguments, "--yes").returncode == 0
    user = f"user {os.getuid()}"
    assert program.by_hand() == [f"{user}: reset", f"{user}: feature", f"{user}: reap"]


def test_a_dump_is_explained_and_never_changed(program: Program, tmp_path: Path) -> None:
    assert program("charge", TOKEN, 100)
    program("cool_down", "gpt-a", 600)
    file = tmp_path / "region.dump"
    assert program.fl_shm("dump", file).returncode == 0
    program("charge", TWIN, 1)

    def on_dump(*arguments: object, keys: str = "") -> subprocess.CompletedProcess[str]:
        return fl_shm(*arguments, "--file", file, keys=keys)

    first, again = (on_dump("explain", "-", "--json", keys=SECRET) for _ in range(2))
    assert (first.returncode, first.stdout) == (1, again.stdout), "time stands still in it"
    assert on_dump("get", f"{{api_key:{TWIN}}}").returncode == 1
    before = file.read_bytes()
    for arguments in (
        ["reap"],
        ["reset", "--all"],
        ["cooldown", "clear", "gpt-a"],
        ["feature", "rust_routing", "off"],
    ):
        done = on_dump(*arguments, "--yes")
        assert (done.returncode, "is a dump" in done.stderr) == (2, True), done
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["get"], "there is no key"),
        (["explain", "-"], "there is no key"),
        (["reset", "--yes"], "there is no key"),
        (["reset", "k", "--all"], "--all"),
        (["reset", "k", "--yes", "--dry-run"], "--dry-run"),
        (["cooldown", "clear"], "DEPLOYMENT"),
        (["cooldown", "clear", "d", "--all"], "--all"),
        (["explain", "k", "--cost", "-1"], "-1"),
        (["explain", "k", "--cost", "x"], "--cost"),
    ],
    ids=" ".join,
)
def test_bad_arguments_are_exit_code_two(arguments: list[str], named: str) -> None:
    done = fl_shm(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr
    assert "panicked" not in done.stderr
