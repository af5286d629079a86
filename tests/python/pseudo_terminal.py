"""A command in a terminal of its own: what it shows, what is typed, and what modes it leaves behind."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import pyte
from typing_extensions import Self

TAKEN = "\x1b[?1049h"
GIVEN_BACK = "\x1b[?1049l"
WAIT_S = 20.0


def _hear_signals() -> None:
    # As a shell does for its jobs; those of a test run under nohup, or in the background, are ignored.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def _lead_the_session() -> None:
    # As a shell does: the terminal is the session's, and its keys are signals to the job.
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    _hear_signals()


class Terminal:
    """Runs a command in a pseudo-terminal; to be used in a `with`, which kills what still runs.

    Args:
        command: Program and arguments.
        environment: Its whole environment.
        size: Columns and rows.
        session: Whether the terminal is the controlling one.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        size: tuple[int, int] = (100, 30),
        *,
        session: bool = True,
    ) -> None:
        self._master, self._slave = os.openpty()
        self._screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self._screen)
        self.written = b""
        """All that the command has written."""
        self._set_size(size)
        self.modes = termios.tcgetattr(self._slave)
        """The modes that it found."""
        self.process = subprocess.Popen(
            command,
            cwd="/",
            env=dict(environment),
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            preexec_fn=_lead_the_session if session else _hear_signals,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        os.close(self._slave)
        self.hang_up()

    def _set_size(self, size: tuple[int, int]) -> None:
        columns, rows = size
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def resize(self, size: tuple[int, int]) -> None:
        """Make it as large as that (columns, rows); the kernel tells the command."""
        columns, rows = size
        self._screen.resize(max(rows, 1), max(columns, 1))
        self._set_size(size)

    def hang_up(self) -> None:
        """Close the side of the terminal that people are on."""
        if self._master >= 0:
            os.close(self._master)
        self._master = -1

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def read(self, seconds: float = 0.05) -> None:
        """Take what was written, waiting so long for something."""
        while select.select([self._master], [], [], seconds)[0]:
            chunk = os.read(self._master, 1 << 16)
            self.written += chunk
            self._stream.feed(chunk)
            seconds = 0.0

    def output(self) -> str:
        """All that was written, without a character whose end has not come yet."""
        return self.written.decode(errors="ignore")

    def lines(self) -> list[str]:
        """The screen, without what is blank at the ends of lines."""
        return [line.rstrip() for line in self._screen.display]

    def text(self) -> str:
        return "\n".join(self.lines())

    def row(self, part: str) -> str:
        """The first line that has this in it, empty if none has."""
        return next((line for line in self.lines() if part in line), "")

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Read until that is so; fails with the screen if it does not become so."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, (
                f"not {what}:\n{self.text()}\n{self.written[-300:]!r}"
            )
            assert self.process.poll() is None or select.select([self._master], [], [], 0)[0], (
                f"ended with {self.process.poll()}, not {what}:\n{self.written!r}"
            )
            self.read()

    def shows(self, *parts: str) -> None:
        """Wait until all of this can be read on one screen."""
        self.until(lambda: all(part in self.text() for part in parts), f"showing {parts}")

    def set_modes(self) -> None:
        """Set the modes that the command found."""
        termios.tcsetattr(self._slave, termios.TCSANOW, self.modes)

    def type_over(self, text: str) -> None:
        """Write something where the cursor is, as another program would."""
        os.write(self._slave, text.encode())

    def is_raw(self) -> bool:
        """Whether keys are read one by one."""
        local: int = termios.tcgetattr(self._slave)[3]
        return not local & (termios.ICANON | termios.ECHO)

    def ends(self) -> int:
        """Its exit code, negative for a signal, when the terminal is as it was."""
        self.until(lambda: self.process.poll() is not None, "ending")
        self.read(0)
        code = self.process.wait()
        text = self.output()
        assert text.count(TAKEN) == text.count(GIVEN_BACK) > 0, text[-300:]
        rest = text.rpartition(TAKEN)[2]
        assert GIVEN_BACK in rest
        assert rest.rfind("\x1b[?25h") > rest.rfind("\x1b[?25l"), "the cursor is hidden"
        assert termios.tcgetattr(self._slave) == self.modes
        return code
