"""Four processes and one limit: what a preforked service does."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any

from benchmarks.contenders import ONE_KEY
from benchmarks.sections import Sample, Subject, Verdict
from benchmarks.sections.rate import PLENTY, admitted, operation
from benchmarks.timing import clock

TITLE = "Rate limit: 4 forked processes on one key, time of one check of all together"
UNIT = "ns"
CASES = ("4 processes, one key",)
CONTENDERS = ("ours", "published", "litellm_ours", "litellm", "python", "python_reference")
#: A sample forks; so many take the place of `--iterations`.
SHARE = 10

PROCESSES = 4
#: Checks of each process: as many as take so long, nanoseconds.
WORK_NS = 20_000_000
#: Where each check makes the later ones dearer.
FEW = 500
#: Requests at once that the key may have, of all processes together.
LIMIT = 20
ASKED = 50

_ANSWER = struct.Struct("qqq")


def subject(contender: Any, case: str) -> Subject:
    """A contender ready for the case."""
    return _Forks(contender)


def forked(work: Callable[[], int]) -> tuple[int, list[int]]:
    """Do `work` in forked processes that begin together.

    Returns:
        Nanoseconds from the first beginning to the last end, and what each returned.

    Raises:
        RuntimeError: one of them failed.
    """
    go_read, go_write = os.pipe()
    read, write = os.pipe()
    pids = []
    for _ in range(PROCESSES):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(go_write)
                os.read(go_read, 1)
                begun = clock()
                done = work()
                os.write(write, _ANSWER.pack(begun, clock(), done))
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    # The end of the pipe lets all of them go.
    os.close(go_write)
    os.close(go_read)
    os.close(write)
    answers = []
    while len(answer := os.read(read, _ANSWER.size)) == _ANSWER.size:
        answers.append(_ANSWER.unpack(answer))
    os.close(read)
    failed = [pid for pid in pids if os.waitpid(pid, 0)[1] != 0]
    if failed or len(answers) != PROCESSES:
        raise RuntimeError(f"{PROCESSES - len(answers)} of {PROCESSES} processes failed")
    begun, ended, done = zip(*answers, strict=True)
    return max(ended) - min(begun), list(done)


class _Forks:
    def __init__(self, contender: Any) -> None:
        self._contender = contender
        self._limiter = contender.limiter(PLENTY, PLENTY // 10)
        self._checks = FEW
        if self._limiter.renew is None:
            taken, _ = operation(self._limiter).many([ONE_KEY] * FEW)
            self._checks = max(FEW, FEW * WORK_NS // taken)

    def sample(self, count: int) -> Sample:
        def work() -> int:
            # An event loop of the parent cannot be used in a child.
            taken, _ = operation(self._limiter).many([ONE_KEY] * self._checks)
            return taken

        means = []
        for _ in range(count):
            taken, _ = forked(work)
            means.append(taken / (PROCESSES * self._checks))
        return Sample(means)

    def check(self) -> Verdict:
        limiter = self._contender.limiter(LIMIT, LIMIT)
        _, each = forked(lambda: admitted(limiter, ["shared-key"], ASKED))
        says = f"admits {{value:.0f}} of {PROCESSES * ASKED}, limit {{right:.0f}}"
        return Verdict(sum(each), LIMIT, says)
