"""The journal of a soak: what was done to the server and when, a JSON object a line."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import TextIO


class Journal:
    """Events with the seconds since the start, counted by kind."""

    def __init__(self, path: Path | None) -> None:
        self._file: TextIO | None = None if path is None else path.open("w")
        self._begun = time.monotonic()
        self.counts: Counter[str] = Counter()
        self._disturbed: list[float] = []

    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._begun

    def note(self, kind: str, *, disturbs: bool = False, **details: object) -> None:
        """Write an event down; one that `disturbs` may cost answers."""
        self.counts[kind] += 1
        if disturbs:
            self._disturbed.append(time.monotonic())
        if self._file is not None:
            line = {"at_s": round(self.seconds(), 3), "unix": round(time.time(), 3), "event": kind}
            self._file.write(json.dumps({**line, **details}) + "\n")
            self._file.flush()

    def disturbed_between(self, begin: float, end: float) -> bool:
        """Whether anything in that time may have cost an answer."""
        return any(begin <= at <= end for at in reversed(self._disturbed))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
