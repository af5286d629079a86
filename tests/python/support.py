"""Children to test with: forked ones that return a value or obey orders, and fresh interpreters."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import multiprocessing
import os
import pickle
import platform
import signal
import subprocess
import sys
import textwrap
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from typing_extensions import ParamSpec, Self

P = ParamSpec("P")
T = TypeVar("T")

WAIT_S = 100.0
"""How long a child may take before the test gives up on it."""

_LIBC = ctypes.PyDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def libc_fork() -> int:
    """Fork without Python noticing: none of its own after-fork hooks run."""
    return int(_LIBC.fork())


def kernel_fork() -> int:
    """Fork behind the back of the C library as well: no hook of anybody runs."""
    if platform.machine() == "x86_64":
        return int(_LIBC.syscall(57))
    # No other machine has a fork of its own; this is clone(SIGCHLD).
    return int(_LIBC.syscall(220, int(signal.SIGCHLD), 0, 0, 0, 0))


def os_fork() -> int:
    """`os.fork()`, also where other threads exist: newer Pythons warn about that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


class Forked(Generic[T]):
    """A forked child that runs `work`; its pid at once, what `work` returned or raised later."""

    def __init__(self, work: Callable[[], T], fork: Callable[[], int] = os_fork) -> None:
        self._receive, send = multiprocessing.Pipe(duplex=False)
        parent = os.getpid()
        self.pid = fork()
        if self.pid == 0:
            _run_and_exit(parent, lambda: send.send(_outcome(work)))
        send.close()

    def kill(self) -> None:
        """Kill the child, whatever it is doing."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._receive.close()

    def result(self) -> T:
        """Wait for the child; its exception fails the test here."""
        try:
            if not self._receive.poll(WAIT_S):
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"the child did nothing for {WAIT_S:.0f} s")
            return _value(_received(self._receive))
        finally:
            self._receive.close()
            os.waitpid(self.pid, 0)


def forked(work: Callable[[], T], fork: Callable[[], int] = os_fork) -> T:
    """Run `work` in a forked child and return what it returned."""
    return Forked(work, fork).result()


def in_fork(test: Callable[P, None]) -> Callable[P, None]:
    """Run a test in a forked child, so that whatever it patches is gone afterwards."""

    @functools.wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        forked(lambda: test(*args, **kwargs))

    return wrapper


def region() -> Any:
    """The region that this process's seams use."""
    from fast_litellm import _native

    found = _native.default_region()
    assert found is not None
    return found


def run_script(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the checkout's, whose outcome is the caller's to judge."""
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


class Worker:
    """A forked child that calls methods of `target` on demand, and can be killed and stopped."""

    def __init__(self, target: object, fork: Callable[[], int] = os_fork) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        parent = os.getpid()
        self.pid = fork()
        if self.pid == 0:
            self._pipe.close()
            _run_and_exit(parent, lambda: _serve(theirs, target))
        theirs.close()
        self.running = True

    def call(self, method: str, *args: object) -> Any:
        """Have the child call `target.<method>(*args)` and return its answer."""
        self._pipe.send((method, args))
        return self.answer()

    def answer(self) -> Any:
        """Wait for the answer to the earliest call that has had none."""
        if not self._pipe.poll(WAIT_S):
            raise AssertionError(f"worker {self.pid} did not answer")
        return _value(_received(self._pipe))

    def stream(self, method: str, calls: Sequence[tuple[object, ...]], answers: int) -> list[Any]:
        """Have the child call a method with one set of arguments after the other.

        Returns:
            As soon as there are so many answers, those; the child goes on with the others.
        """
        for args in calls:
            self._pipe.send((method, args))
        return [self.answer() for _ in range(answers)]

    def left_behind(self) -> list[Any]:
        """The answers that a killed or stopped child has given so far."""
        found = []
        # The last one may be missing its end.
        with contextlib.suppress(EOFError, OSError):
            while self._pipe.poll():
                found.append(_value(self._pipe.recv()))
        return found

    def end(self) -> None:
        """Have the child exit, without any clean-up of its own."""
        self.kill(signal.SIGTERM)

    def kill(self, number: int = signal.SIGKILL, *, wait: bool = True) -> None:
        """Kill the child; without `wait` it stays a zombie until `reap`."""
        os.kill(self.pid, number)
        self.running = False
        if wait:
            self.reap()
        else:
            until(lambda: state_of(self.pid) == "Z", "be a zombie")

    def reap(self) -> None:
        """Wait for the killed child."""
        os.waitpid(self.pid, 0)
        self._pipe.close()

    def stop(self) -> None:
        """Stop the child with SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)
        until(lambda: state_of(self.pid) == "T", "stop")

    def resume(self) -> None:
        """Let a stopped child go on."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.kill()


def until(condition: Callable[[], bool], what: str, timeout_s: float = 10.0) -> None:
    """Wait for a condition; fail when it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"did not {what} in {timeout_s} s"
        time.sleep(0.005)


def state_of(pid: int) -> str:
    """A process's state letter, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def run_python(
    code: str,
    *,
    env: Mapping[str, str] | None = None,
    python: str = sys.executable,
    cwd: Path | str = "/",
    check: bool = True,
    input: str | None = None,
    timeout_s: float = WAIT_S,
) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter with fast_litellm switched on, away from the checkout."""
    done = subprocess.run(
        [python, "-c", textwrap.dedent(code)],
        cwd=cwd,
        env={**fresh_environment(), **(env or {})},
        input=input,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert not check or done.returncode == 0, f"exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def fresh_environment() -> dict[str, str]:
    """The environment without any of fast_litellm's switches."""
    return {key: value for key, value in os.environ.items() if not key.startswith("FAST_LITELLM")}


def _serve(pipe: Connection, target: object) -> None:
    # Ends when the other end of the pipe is closed.
    with contextlib.suppress(EOFError):
        while True:
            method, args = pipe.recv()
            pipe.send(_outcome(lambda: getattr(target, method)(*args)))  # noqa: B023


def _outcome(work: Callable[[], object]) -> tuple[bool, bytes | str]:
    try:
        return True, pickle.dumps(work())
    except BaseException:  # noqa: BLE001  # the parent shows it
        return False, traceback.format_exc()


def _value(outcome: tuple[bool, Any]) -> Any:
    worked, value = outcome
    if not worked:
        raise AssertionError(f"in the child:\n{value}")
    return pickle.loads(value)


def _received(pipe: Connection) -> tuple[bool, Any]:
    try:
        received: tuple[bool, Any] = pipe.recv()
    except EOFError:
        raise AssertionError("the child died before it answered") from None
    return received


def _run_and_exit(parent: int, work: Callable[[], None]) -> NoReturn:
    # The child must never go back into pytest, and must not outlive it.
    code = 1
    try:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:
            work()
            code = 0
    finally:
        os._exit(code)
