"""Requests to a server of the matrix, one connection each, from a thread of their own."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from typing_extensions import Self

T = TypeVar("T")

REQUEST_TIMEOUT_S = 40.0
WAIT_S = 30.0
AT_ONCE = 5


@dataclass(frozen=True)
class Answer:
    """What became of one request, which was sent and was over at these instants.

    `fault` says why there is no answer: "refused" when no connection was made, else "lost", and then
    nobody knows what the request took before its worker died.
    """

    sent: float
    over: float
    fault: str = ""
    status: int = 0
    pid: int = 0
    times: tuple[float, ...] = ()
    rate: bool = False
    count: int = 0
    slot: bool = False
    connection: bool = False


class Client:
    """Sends requests to one server."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        async def cancel() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.run(cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin something on the client's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the client's event loop."""
        return self.begin(work).result(WAIT_S + REQUEST_TIMEOUT_S)

    def about(self) -> dict[str, Any]:
        """Who answers, and on what; empty when nobody does."""
        try:
            status, answer = self.run(self._get("/about"))
        except (OSError, ValueError, EOFError, asyncio.TimeoutError):
            return {}
        return answer if status == 200 else {}

    def begin_hang(self, *, deaf: bool) -> Future[tuple[int, Any]]:
        """Have one worker do nothing any more; a deaf one does not hear SIGABRT either."""
        return self.begin(self._get("/hang?deaf=yes" if deaf else "/hang"))

    def use(self, key: str, ms: int = 0) -> Answer:
        """Use the limits of a key once."""
        return self.run(self.ask(key, ms=ms))

    async def ask(self, key: str, **query: object) -> Answer:
        """Use the limits of a key once; whatever happens, there is an answer."""
        sent = time.monotonic()
        try:
            status, answer = await self._get("/use?" + urlencode({"key": key, **query}))
        except ConnectionRefusedError:
            return Answer(sent, time.monotonic(), "refused")
        except (OSError, ValueError, EOFError, asyncio.TimeoutError):
            return Answer(sent, time.monotonic(), "lost")
        over = time.monotonic()
        if status != 200:
            return Answer(sent, over, "status", status)
        return Answer(sent, over, "", status, **{**answer, "times": tuple(answer["times"])})

    async def _get(self, path: str) -> tuple[int, Any]:
        return await asyncio.wait_for(self._exchange(path), REQUEST_TIMEOUT_S)

    async def _exchange(self, path: str) -> tuple[int, Any]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        status = int(head.split(b" ", 2)[1]) if head else 0
        if status == 0:
            raise EOFError("the connection ended without an answer")
        return status, json.loads(body) if status == 200 else body


class Load:
    """Requests about one key, some at once and then some more, from entering it until it is left."""

    def __init__(self, client: Client, key: str, *, per_second: int, ms: int) -> None:
        self._client = client
        self._key = key
        self._apart_s = AT_ONCE / per_second
        self._ms = ms
        self._ending = False
        self._sender: Future[None] | None = None
        self.answers: list[Answer] = []

    def __enter__(self) -> Self:
        self._sender = self._client.begin(self._send())
        return self

    def __exit__(self, *_: object) -> None:
        self._ending = True
        assert self._sender is not None
        self._sender.result(WAIT_S + REQUEST_TIMEOUT_S)

    def more(self, count: int, of: Sequence[int] = ()) -> None:
        """Wait for so many more answers, if any, of these processes where some are named."""
        start = len(self.answers)

        def found() -> int:
            return sum(1 for a in self.answers[start:] if not a.fault and (not of or a.pid in of))

        deadline = time.monotonic() + WAIT_S
        while found() < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"{found()} of {count} answers came in {WAIT_S:.0f} s")
            time.sleep(0.02)

    async def _send(self) -> None:
        pending: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while not self._ending:
            for _ in range(AT_ONCE):
                task = asyncio.ensure_future(self._one())
                pending.add(task)
                task.add_done_callback(pending.discard)
            due = max(due + self._apart_s, time.monotonic() - 0.1)
            await asyncio.sleep(due - time.monotonic())
        await asyncio.gather(*pending)

    async def _one(self) -> None:
        self.answers.append(await self._client.ask(self._key, ms=self._ms))


class Holders:
    """Requests that hold a slot each until they are let go."""

    def __init__(self, client: Client, key: str, count: int, directory: Path) -> None:
        self._client = client
        self._until = directory / f"let-go-{key}-{time.monotonic_ns()}"
        self._futures = [client.begin(client.ask(key, until=self._until)) for _ in range(count)]

    def let_go(self) -> list[Answer]:
        """Have them give back what they hold."""
        self._until.touch()
        try:
            return [future.result(REQUEST_TIMEOUT_S) for future in self._futures]
        finally:
            self._until.unlink()
