"""The parent's end of contenders' processes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Not every environment that this runs in has it.
    from typing_extensions import Self

#: How long a process may take to end once nobody asks it any more, seconds.
END_S = 10


class MissingError(Exception):
    """A contender does not have what was asked for; the text says why."""


class BrokenError(Exception):
    """A contender failed; the text says how."""


class Contender:
    """A process that answers orders; ends with the `with` block."""

    def __init__(self, name: str, python: Path, script: Path, log: Path) -> None:
        """Start it.

        Args:
            name: module in `contenders/`.
            python: interpreter of the environment that it is installed in.
            script: what is started, with `--child NAME`.
            log: file for what it prints.
        """
        environment = {
            variable: value
            for variable, value in os.environ.items()
            if not variable.startswith(("FAST_LITELLM", "PYTHONPATH", "PYTHONHOME"))
        }
        environment |= {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
            # Importing patches nothing; a contender that is about the patches applies them.
            "FAST_LITELLM_ENABLED": "false",
        }
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [str(python), str(script), "--child", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )

    def ask(self, *order: Any) -> dict[str, Any]:
        """Give an order and wait for the answer.

        Raises:
            MissingError: the contender does not have that.
            BrokenError: it failed, or has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise BrokenError(f"its process ended; see {self._log}")
        answer: dict[str, Any] = json.loads(line)
        if "absent" in answer:
            raise MissingError(answer["absent"])
        if "failed" in answer:
            raise BrokenError(f"failed: {answer['failed']}; see {self._log}")
        return answer

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._process.kill()
        self.end()

    def end(self) -> None:
        """Let it end, and wait until it has."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Contenders:
    """The processes of those who are compared; all of them end with the `with` block."""

    def __init__(
        self,
        interpreters: Mapping[str, Path],
        left_out: Mapping[str, str],
        script: Path,
        logs: Path,
        note: Callable[[str], None],
    ) -> None:
        """Start nothing yet.

        Args:
            interpreters: of each one that takes part.
            left_out: why others do not.
            script: what a process runs.
            logs: directory for what they print.
            note: tells the user how far the run is.
        """
        self.interpreters = interpreters
        #: Why somebody does not take part.
        self.left_out: dict[str, str] = dict(left_out)
        self.note = note
        self._script = script
        self._logs = logs
        self._stack = contextlib.ExitStack()
        self._running: dict[str, Contender] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def started(self, name: str) -> Contender:
        """A new process."""
        log = self._logs / f"benchmark-{name}.log"
        return Contender(name, self.interpreters[name], self._script, log)

    def running(self, name: str) -> Contender:
        """The process that goes on from one order to the next; started if it is not."""
        if name not in self._running:
            self._running[name] = self._stack.enter_context(self.started(name))
        return self._running[name]
