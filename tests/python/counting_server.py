"""A server of a few lines, started as a user would: it limits keys, and says which worker answered."""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from harness.proxy import Server
from support import fresh_environment, state_of, until

#: Where console scripts are.
BIN = Path(sys.executable).parent
#: What the limiter of the applications admits in a minute.
LIMIT = 20

# Imports fast_litellm with the first request only: whatever starts the server has to have it before.
_APP = f"""
import json, os

def answer(key):
    from fast_litellm import SimpleRateLimiter
    # One more comes back after a minute.
    limiter = SimpleRateLimiter(1, burst={LIMIT})
    return json.dumps([os.getpid(), limiter.is_allowed(key)]).encode()

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [answer(environ["PATH_INFO"])]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    body = answer(scope["path"])
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": body}})
"""


class Answers(NamedTuple):
    """What came back: how many were admitted, and the pids that answered."""

    admitted: int
    pids: set[int]


class CountingServer(Server):
    """A server of `app.py`, in a directory with files of the test's."""

    def __init__(
        self,
        *command: str,
        files: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._command = command
        self._files = {"app.py": _APP, **(files or {})}
        self._env = dict(env or {})

    def prepare(self) -> None:
        for name, text in self._files.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        """Write a file; `PORT` in it is where the server is to listen."""
        (self.directory / name).write_text(text.replace("PORT", str(self.port)))

    def command(self) -> list[str]:
        program, *arguments = (part.replace("PORT", str(self.port)) for part in self._command)
        return [str(BIN / program), *arguments]

    def environment(self) -> dict[str, str]:
        return {**fresh_environment(), **self._env}

    def ask(self, key: str, times: int) -> Answers:
        """Send requests, several at a time and each on a connection of its own."""
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: self._one(key), range(times)))
        return Answers(sum(allowed for _, allowed in answers), {pid for pid, _ in answers})

    def all_answer(self, workers: int) -> set[int]:
        """Ask until that many processes have answered; returns their pids."""
        pids: set[int] = set()

        def enough() -> bool:
            pids.update(self.ask("/whoever", 8).pids)
            return len(pids) >= workers

        until(enough, f"have {workers} workers answer", 20)
        return pids

    def _one(self, key: str) -> tuple[int, bool]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", key)
            pid, allowed = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return int(pid), bool(allowed)


def regions_of(pid: int) -> list[str]:
    """The regions that a process holds open, by inode: names may be alike."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if "fl-shm" in os.readlink(descriptor):
                found.append(str(descriptor.stat().st_ino))
        except OSError:  # closed since it was listed
            continue
    return found


def have_ended(pids: Sequence[int]) -> bool:
    """Whether none of the processes runs any more."""
    return all(state_of(pid) in ("", "Z") for pid in pids)
