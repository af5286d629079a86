"""Proves that `fl-shm top` shows what goes on, and leaves the terminal as it was however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fl_shm import command, sharing
from pseudo_terminal import GIVEN_BACK, TAKEN, Terminal
from support import fresh_environment

PROGRAM = """
    import json, os, sys, time
    import fast_litellm
    from fast_litellm import _native

    region = _native.default_region()
    scripts = _native.LimiterScripts(region)
    health = _native.Deployments(region)

    def acquire(count):
        for n in range(count):
            scripts.parallel_acquire(
                ["{user:alice}:max_parallel_requests"], [9, 3600, f"{os.getpid()}-{n}"]
            )

    dead = os.fork()
    if dead == 0:
        acquire(3)
        os._exit(0)
    os.waitpid(dead, 0)

    load = os.fork()
    if load == 0:
        acquire(1)
        hot, calm = (fast_litellm.SimpleRateLimiter(rate, burst=rate) for rate in (60, 6000))
        while os.getppid() != 1:
            for _ in range(20):
                hot.check("hotkey")
            calm.check("calm")
            time.sleep(0.02)
        os._exit(0)

    health.cool_down("azure/gpt", 600, 429, "no more for now")
    for _ in range(12):
        region.feature_error(0)
    print(json.dumps({"pid": os.getpid(), "dead": dead, "load": load}), flush=True)
    sys.stdin.readline()
    os.kill(load, 9)
    os.waitpid(load, 0)
"""


@dataclass
class Proxy:
    """Processes that share a region, one of them busy, one dead."""

    name: str
    process: subprocess.Popen[str]
    pid: int
    dead: int
    load: int

    @classmethod
    def start(cls, name: str, **settings: str) -> Proxy:
        process = sharing(PROGRAM, name, **settings)
        assert process.stdout is not None
        return cls(name, process, **json.loads(process.stdout.readline()))

    def stop(self) -> None:
        self.process.communicate(timeout=20)


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    started = Proxy.start(f"top-{os.getpid()}")
    try:
        yield started
    finally:
        started.stop()


def environment(**changes: str) -> dict[str, str]:
    usual = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "", "NO_COLOR": ""}
    return {**fresh_environment(), **usual, **changes}


def top(proxy: Proxy, *arguments: str, **options: Any) -> Terminal:
    changes = options.pop("environment", {})
    line = command("top", "--region", proxy.name, "--interval", "200ms", *arguments)
    return Terminal(line, environment(**changes), **options)


def refused_per_s(terminal: Terminal) -> float:
    """Of the hottest key, by its row: name, bar, percent, rate."""
    rate = terminal.row("hotkey").split()[3]
    return 0.0 if rate == "-" else float(rate)


def refusal(*, env: dict[str, str], **streams: Any) -> str:
    done = subprocess.run(
        command("top"),
        cwd="/",
        env=env,
        text=True,
        timeout=20,
        stderr=subprocess.PIPE,
        **streams,
    )
    assert done.returncode == 2
    assert done.stdout in (None, "")
    assert "panicked" not in done.stderr
    return done.stderr


# What it shows


def test_it_shows_load_denials_and_what_the_dead_hold(proxy: Proxy) -> None:
    with top(proxy, size=(150, 40)) as terminal:
        terminal.shows(proxy.name, "hotkey", "calm", "user:alice", "azure/gpt", "rate_limited 429")
        assert terminal.is_raw()
        # The hottest key comes first: it is refused hundreds of times a second.
        terminal.until(lambda: refused_per_s(terminal) > 50, "counting refusals")
        shown = terminal.lines()
        hot, calm = (shown.index(terminal.row(key)) for key in ("hotkey", "calm"))
        assert hot < calm
        assert "100%" in terminal.row("hotkey")
        dead = terminal.row(f"{proxy.dead} ")
        assert dead.split()[:3] == [str(proxy.dead), "dead", "3"]
        loading = terminal.row(f"{proxy.load} ")
        assert loading.split()[:3] == [str(proxy.load), "alive", "1"]
        assert "2 alive, 1 dead" in terminal.text()
        assert "4 slots held" in terminal.text()
        assert "1 of 1 cooled down" in terminal.text()
        feature = terminal.row("feature rust_routing")
        assert feature.split()[2:4] == ["open", "12"]
        assert "breaker_opened" in terminal.text()
        assert "\u2588" in terminal.text(), "plots and bars"
        terminal.type("q")
        assert terminal.ends() == 0


def test_keys_change_what_is_shown(proxy: Proxy) -> None:
    with top(proxy) as terminal:
        terminal.shows("hotkey", "most refused/s first", "every 200ms")
        terminal.type("s")
        terminal.shows("most admitted/s first")
        terminal.type("/^CAL")
        terminal.until(lambda: not terminal.row("hotkey"), "filtering")
        terminal.type("\r")
        terminal.shows("1 of 1 that match", "calm")
        terminal.type("/\r")
        terminal.shows("hotkey")
        terminal.type("+p")
        terminal.shows("every 500ms", "PAUSED")
        terminal.type("?")
        terminal.shows("a regular expression or a part")
        # The arrow closes the help; the next one selects.
        terminal.type("\x1b[B\x1b[B")
        terminal.shows("keys 2/")
        terminal.type("\t\tz")
        terminal.shows("deployments 1/1")
        terminal.until(lambda: not terminal.row("user:alice"), "showing one pane alone")
        terminal.type("\x1b")
        assert terminal.ends() == 0


def test_it_follows_the_size_of_the_terminal(proxy: Proxy) -> None:
    with top(proxy, size=(40, 10)) as terminal:
        terminal.shows("hotkey")
        assert not terminal.row("azure")
        for size in ((150, 45), (1, 1), (3, 2), (200, 60), (0, 0), (80, 24)):
            terminal.resize(size)
            time.sleep(0.05)
        terminal.shows("hotkey", "azure/gpt", "q quit")
        terminal.type("\x03")
        assert terminal.ends() == 0


def test_a_terminal_that_does_not_tell_its_size_is_taken_for_a_usual_one(proxy: Proxy) -> None:
    with top(proxy, size=(80, 24)) as terminal:
        terminal.resize((0, 0))
        terminal._screen.resize(24, 80)
        terminal.shows("hotkey", "q quit")
        terminal.type("q")
        assert terminal.ends() == 0


@pytest.mark.parametrize(
    ("changes", "coloured", "ascii_only"),
    [
        ({}, True, False),
        ({"NO_COLOR": "1"}, False, False),
        ({"LANG": "C", "LC_CTYPE": ""}, True, True),
    ],
)
def test_colours_and_signs_are_those_the_terminal_has(
    proxy: Proxy, changes: dict[str, str], coloured: bool, ascii_only: bool
) -> None:
    # Python itself would make the C locale one with Unicode.
    with top(proxy, environment={"PYTHONCOERCECLOCALE": "0", **changes}) as terminal:
        terminal.shows("hotkey", "100%")
        text = terminal.output()
        assert ("\x1b[38;5;" in text) == coloured
        assert "\x1b[38;2;" not in text
        assert text.isascii() == ascii_only
        terminal.type("q")
        assert terminal.ends() == 0


# How it ends


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"])
def test_a_signal_gives_the_terminal_back(proxy: Proxy, name: str) -> None:
    number = signal.Signals[name]
    with top(proxy) as terminal:
        terminal.shows("hotkey")
        terminal.process.send_signal(number)
        assert terminal.ends() == -number


def test_a_process_that_cannot_write_ends_all_the_same(proxy: Proxy) -> None:
    with top(proxy, size=(200, 50)) as terminal:
        terminal.shows("hotkey")
        # Nobody reads: the terminal's buffer is soon full, and a write waits for ever.
        for _ in range(60):
            terminal.type("z")
            time.sleep(0.005)
        terminal.process.terminate()
        assert terminal.process.wait(timeout=10) == -signal.SIGTERM
        assert not terminal.is_raw()


def test_ctrl_z_gives_the_terminal_back_until_the_job_goes_on(proxy: Proxy) -> None:
    # A shell, so that the job can be stopped: the group of a session's leader cannot.
    line = command("top", "--region", proxy.name, "--interval", "200ms")
    words = " ".join(f"'{part}'" for part in line)
    shell = [
        "bash",
        "--norc",
        "--noprofile",
        "-ic",
        f"set -m; {words}; echo STOPPED; fg; echo DONE",
    ]
    with Terminal(shell, environment()) as terminal:
        terminal.shows("hotkey")
        terminal.type("\x1a")
        terminal.until(lambda: b"STOPPED" in terminal.written, "stopping")
        before = terminal.output().partition("STOPPED")[0]
        assert before.count(TAKEN) == before.count(GIVEN_BACK) == 1
        terminal.until(lambda: terminal.output().count(TAKEN) == 2, "going on")
        terminal.until(lambda: terminal.row("hotkey") and terminal.is_raw(), "drawing again")
        terminal.type("q")
        terminal.until(lambda: b"DONE" in terminal.written, "ending")
        assert terminal.ends() == 0


def test_what_was_stopped_from_outside_takes_the_terminal_again(proxy: Proxy) -> None:
    with top(proxy) as terminal:
        terminal.shows("hotkey")
        terminal.process.send_signal(signal.SIGSTOP)
        # As the shell does before it prompts.
        terminal.set_modes()
        terminal.type_over("somebody else wrote here")
        terminal.process.send_signal(signal.SIGCONT)
        terminal.until(terminal.is_raw, "taking the terminal again")
        terminal.until(lambda: not terminal.row("somebody else"), "drawing everything")
        terminal.type("q")
        assert terminal.ends() == 0


def test_a_terminal_that_is_gone_ends_it(proxy: Proxy) -> None:
    # Nobody sends a signal when it is not the controlling terminal.
    with top(proxy, session=False) as terminal:
        terminal.shows("hotkey")
        terminal.hang_up()
        assert terminal.process.wait(timeout=10) == 2


# The region


def test_a_region_that_ends_is_told_and_another_one_is_taken() -> None:
    name = f"again-{os.getpid()}"
    first = Proxy.start(name)
    with top(first) as terminal:
        terminal.shows("hotkey", f"pid {first.pid}")
        first.stop()
        terminal.shows("no process uses the region", "hotkey", f"pid {first.pid}")
        second = Proxy.start(name)
        try:
            terminal.shows(f"pid {second.pid}", "hotkey")
            terminal.until(lambda: not terminal.row("no process uses"), "going on")
            terminal.type("q")
            assert terminal.ends() == 0
        finally:
            second.stop()


def test_a_watcher_is_no_process_of_the_region(proxy: Proxy) -> None:
    with top(proxy) as terminal:
        terminal.shows("hotkey")
        listed = subprocess.run(
            [*command(), "ls", "--json"], cwd="/", env=environment(), capture_output=True, text=True
        )
        (found,) = [each for each in json.loads(listed.stdout) if each["name"] == proxy.name]
        assert terminal.process.pid not in found["pids"]
        assert set(found["pids"]) == {proxy.pid, proxy.load}


def test_a_file_that_is_overwritten_cut_or_replaced_is_not_read() -> None:
    path = Path("/dev/shm") / f"fl-top-{os.getpid()}"
    proxy = Proxy.start("file", FAST_LITELLM_SHM=str(path))
    try:
        line = command("top", "--file", str(path), "--interval", "100ms")
        with Terminal(line, environment(), (200, 30)) as terminal:
            terminal.shows("hotkey", f"pid {proxy.pid}")
            whole = path.read_bytes()
            # Another layout in its place, as an upgrade might leave it.
            other = path.with_suffix(".new")
            other.write_bytes(whole[:16] + bytes([whole[16] ^ 0xFF]) + whole[17:])
            other.chmod(0o600)
            other.replace(path)
            terminal.shows("what is there now cannot be read", "layout fingerprint", "hotkey")
            path.unlink()
            terminal.shows("cannot open region", "hotkey")
            path.write_bytes(whole)
            path.chmod(0o600)
            terminal.until(lambda: not terminal.row("annot"), "taking the new one")
            for byte, healthy in ((whole[16] ^ 0xFF, False), (whole[16], True)):
                with path.open("r+b") as file:
                    file.seek(16)
                    file.write(bytes([byte]))
                terminal.until(lambda: healthy != bool(terminal.row("annot")), "seeing it")  # noqa: B023
            os.truncate(path, 4096)
            terminal.shows("its header says", "hotkey")
            terminal.type("q")
            assert terminal.ends() == 0
    finally:
        proxy.stop()
        path.unlink(missing_ok=True)


# Where it cannot work


def test_what_is_no_terminal_is_refused(proxy: Proxy) -> None:
    output = refusal(env=environment(), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert "its output is none: use fl-shm inspect" in output
    master, slave = os.openpty()
    try:
        message = refusal(env=environment(), stdin=subprocess.DEVNULL, stdout=slave)
        assert "its input is none" in message
        for kind in ("dumb", ""):
            message = refusal(env=environment(TERM=kind), stdin=slave, stdout=slave)
            assert f'TERM is "{kind}"' in message
    finally:
        os.close(master)
        os.close(slave)


def test_no_region_is_told_without_touching_the_terminal() -> None:
    line = command("top", "--region", "nobody-has-this-name")
    with Terminal(line, environment()) as terminal:
        terminal.until(lambda: b"no live region" in terminal.written, "telling")
        assert terminal.process.wait(timeout=10) in (1, 2)
        assert TAKEN.encode() not in terminal.written
