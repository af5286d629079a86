"""The process of a side: loads encodings, counts, and measures itself."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import socket
import time
import traceback
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.contenders import AbsentError
from benchmarks.counting.sides import Way, module_of
from benchmarks.memory import Share, share

#: CPU time of all threads of the process, nanoseconds.
clock = time.process_time_ns

#: Calls in a row, at most.
MAX_CALLS = 20_000


class Worker:
    """Obeys `child.serve`."""

    def __init__(self, side: str) -> None:
        self._module = module_of(side)
        self._ways: dict[tuple[str, str], Way] = {}
        self._texts: dict[str, str] = {}

    def hello(self) -> dict[str, Any]:
        """Import the package."""
        try:
            return {"version": self._module.version()}
        except ImportError as error:
            raise AbsentError(f"not there: {error}") from error

    def load(self, encoding: str, vocabulary: str) -> dict[str, Any]:
        """Load an encoding.

        Returns:
            The operations of its ways by name, CPU time and wall time of loading in milliseconds, the
            growth of private memory in bytes, threads that run afterwards.
        """
        gc.collect()
        private = share().private
        start, wall = clock(), time.perf_counter_ns()
        ways: dict[str, Way] = self._module.ways(encoding, vocabulary)
        # Some load at the first call.
        next(iter(ways.values())).call("a")
        cpu, wall = clock() - start, time.perf_counter_ns() - wall
        self._ways |= {(encoding, name): way for name, way in ways.items()}
        return {
            "ways": {name: way.operation for name, way in ways.items()},
            "cpu_ms": cpu / 1e6,
            "wall_ms": wall / 1e6,
            "private_bytes": share().private - private,
            "threads": len(os.listdir("/proc/self/task")),
        }

    def measure(self, encoding: str, name: str, path: str, span_ns: int) -> dict[str, Any]:
        """Count one text again and again, for `span_ns` of CPU time or once.

        Returns:
            Nanoseconds of CPU time of one call, the characters that were counted, and the count.
        """
        way, text = self._ways[encoding, name], self._text(path)
        start = clock()
        answer = way.count(text)
        once = max(1, clock() - start)
        if once < span_ns:
            # The first call after a pause finds other processes' data in the caches.
            start = clock()
            way.count(text)
            once = max(1, clock() - start)
        calls = max(1, min(MAX_CALLS, span_ns // once))
        loop = _lengths if way.sized else _calls
        gc.disable()
        taken = loop(way.call, text, calls)
        gc.enable()
        return {"ns": taken / calls, "characters": len(text), "count": answer}

    def once(self, encoding: str, name: str, path: str) -> dict[str, Any]:
        """Count a text that has not been counted before, once.

        Returns:
            As `measure`.
        """
        way, text = self._ways[encoding, name], self._text(path)
        # Whose code has to be fetched after the pause is not what is asked.
        way.call("a b")
        start = clock()
        answer = way.count(text)
        return {"ns": clock() - start, "characters": len(text), "count": answer}

    def cold(self, encoding: str, name: str, path: str) -> dict[str, Any]:
        """Count each of many texts once.

        Returns:
            CPU time in nanoseconds and bytes of text, of the first third and of the last.
        """
        texts: list[str] = _list(path)
        call = self._ways[encoding, name].call
        third = len(texts) // 3
        parts = {
            "first": texts[:third],
            "between": texts[third : 2 * third],
            "last": texts[2 * third :],
        }
        found = {}
        gc.disable()
        for part, some in parts.items():
            start = clock()
            for text in some:
                call(text)
            found[part] = {"ns": clock() - start, "bytes": sum(len(text.encode()) for text in some)}
        gc.enable()
        return found

    def judge(self, encoding: str, name: str, path: str) -> dict[str, Any]:
        """The count of each of many texts, and a digest of its ids where there are any."""
        texts: list[str] = _list(path)
        way = self._ways[encoding, name]
        counts, digests = [], []
        for text in texts:
            counts.append(way.count(text))
            digests.append("" if way.ids is None else _digest(way.ids(text)))
        return {"counts": counts, "digests": digests}

    def batch(
        self, encoding: str, operation: str, path: str, threads: int, span_ns: int
    ) -> dict[str, Any]:
        """Wall and CPU time of one batch, nanoseconds."""
        texts: list[str] = _list(path)
        run: Callable[[list[str], int], Any] = self._module.batches(encoding)[operation]
        run(texts, threads)
        number, start, wall = 0, clock(), time.perf_counter_ns()
        while not number or time.perf_counter_ns() - wall < span_ns:
            run(texts, threads)
            number += 1
        return {
            "wall_ns": (time.perf_counter_ns() - wall) / number,
            "cpu_ns": (clock() - start) / number,
        }

    def memory(
        self, encoding: str, vocabulary: str, path: str, children: int, before: bool
    ) -> dict[str, Any]:
        """What counting adds to each of some forked children.

        Args:
            encoding: what they count with.
            vocabulary: file of its ranks.
            path: the texts that each of them counts.
            children: how many there are at a time.
            before: the encoding is loaded before they are forked, not in each of them.

        Returns:
            Bytes: growth of `pss` (pages of several processes by their share) and of `private` memory.
        """
        texts = _list(path)

        def load() -> Way:
            way: Way = next(iter(self._module.ways(encoding, vocabulary).values()))
            way.call("a")
            return way

        gc.collect()
        idle = _mean(forked(children, lambda: None))
        loaded = load() if before else None
        gc.collect()
        gc.freeze()

        def work() -> None:
            way = loaded or load()
            for text in texts:
                way.count(text)

        busy = _mean(forked(children, work))
        return {"pss": busy.pss - idle.pss, "private": busy.private - idle.private}

    def _text(self, path: str) -> str:
        """A text by its file; no file ever holds another one."""
        if path not in self._texts:
            self._texts = {path: Path(path).read_bytes().decode()}
        return self._texts[path]


def _calls(call: Callable[[str], Any], text: str, number: int) -> int:
    start = clock()
    for _ in range(number):
        call(text)
    return clock() - start


def _lengths(call: Callable[[str], Any], text: str, number: int) -> int:
    start = clock()
    for _ in range(number):
        len(call(text))
    return clock() - start


def _digest(ids: list[int]) -> str:
    return hashlib.sha256(array("I", ids).tobytes()).hexdigest()


def _list(path: str) -> list[str]:
    found: list[str] = json.loads(Path(path).read_bytes())
    return found


def _mean(shares: list[Share]) -> Share:
    return Share(*(sum(column) // len(shares) for column in zip(*shares, strict=True)))


def forked(children: int, work: Callable[[], None]) -> list[Share]:
    """The memory of each of so many forked children, all alive, once they have worked.

    Raises:
        RuntimeError: one of them failed.
    """
    ends: list[socket.socket] = []
    pids = []
    for _ in range(children):
        ours, theirs = socket.socketpair()
        ends.append(ours)
        pid = os.fork()
        if pid == 0:
            # Whoever holds a copy of an end keeps the other side from seeing that it is closed.
            for end in ends:
                end.close()
            _child(theirs, work)
        theirs.close()
        pids.append(pid)
    # Each works alone, and is looked at when all of them have worked.
    worked = [_told(end, b"work") for end in ends]
    found = [_told(end, b"look") for end in ends]
    for end in ends:
        end.close()
    for pid in pids:
        os.waitpid(pid, 0)
    if not all(worked) or not all(found):
        raise RuntimeError("a child failed")
    return [Share(*json.loads(answer)) for answer in found]


def _told(end: socket.socket, word: bytes) -> bytes:
    try:
        end.sendall(word)
        return end.recv(4096)
    except OSError:
        return b""


def _await(end: socket.socket, word: bytes) -> None:
    if end.recv(len(word)) != word:
        raise EOFError("the parent has ended")


def _child(end: socket.socket, work: Callable[[], None]) -> NoReturn:
    code = 1
    try:
        _await(end, b"work")
        work()
        end.sendall(b"done")
        _await(end, b"look")
        end.sendall(json.dumps(share()).encode())
        code = 0
    except BaseException:  # noqa: BLE001  # nothing of a child may run on in the parent's code
        traceback.print_exc()
    os._exit(code)
