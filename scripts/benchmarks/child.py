"""A contender's process: reads orders, a line each, and answers each with a line.

An order is a JSON list of a word and its arguments; an answer is a JSON object, which has `absent` if the
contender does not have what was asked for, and `failed` if it broke.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from dataclasses import asdict
from typing import Any

from benchmarks.contenders import AbsentError
from benchmarks.sections import Subject, contender, section
from benchmarks.timing import clock_cost


def serve(worker: object) -> None:
    """Obey until the orders end; an order is a method of `worker`."""
    # Whatever prints to standard output must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        word, *arguments = json.loads(line)
        try:
            answer = getattr(worker, word)(*arguments)
        except AbsentError as absent:
            answer = {"absent": str(absent)}
        except Exception as error:  # noqa: BLE001  # the parent reports it and goes on
            traceback.print_exc()
            answer = {"failed": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Worker:
    """Measures the sections of one contender."""

    def __init__(self, name: str) -> None:
        self._module = contender(name)
        self._subject: Subject | None = None

    def hello(self) -> dict[str, Any]:
        """Load the contender."""
        return {"version": self._module.version(), "clock_ns": clock_cost()}

    def prepare(self, section_name: str, case: str) -> dict[str, Any]:
        """Get ready for a case."""
        self._subject = None
        try:
            self._subject = section(section_name).subject(self._module, case)
        except AttributeError as error:
            # A contender's module lacks the function of what it does not have.
            if error.obj is not self._module:
                raise
            raise AbsentError("has none") from error
        # A heap that is scanned during a measurement would be measured, too.
        gc.collect()
        gc.freeze()
        return {}

    def sample(self, count: int) -> dict[str, Any]:
        """Measure."""
        assert self._subject is not None
        return asdict(self._subject.sample(count))

    def check(self) -> dict[str, Any]:
        """Judge."""
        assert self._subject is not None
        return asdict(self._subject.check())
