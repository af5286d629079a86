"""A program with a pool of processes, whose tasks use the limits of `app`; arguments say what kind.

Each line on standard input is an order; the answer is one line of JSON. It runs beside `app`, in the
directory that both were copied to.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

WORKERS = 3
AT_ONCE = 5


def use(key, ms):
    """One task: what `app` says of it."""
    # In the worker only: the program itself need not know the package.
    import app

    return app.use_for(key, ms)


def die(key):
    """A task that takes what it gets of each limit with it."""
    import app

    app.Use(key)
    Path(f"dies-{os.getpid()}").touch()
    os.kill(os.getpid(), signal.SIGKILL)


class Pool:
    """`multiprocessing.Pool`, which replaces a worker that died and forgets its task."""

    def __init__(self, context):
        self._pool = context.Pool(WORKERS)

    def submit(self, work, *args):
        return self._pool.apply_async(work, args)

    def lose(self, key):
        self.submit(die, key)
        while not (dying := list(Path().glob("dies-*"))):
            time.sleep(0.005)
        pid = dying[0].name.rpartition("-")[2]
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.005)

    def end(self):
        # To close it would be to wait for the lost task.
        self._pool.terminate()
        self._pool.join()


class Executor:
    """`concurrent.futures`, where the death of a worker ends all of them."""

    def __init__(self, context):
        self._context = context
        self._pool = concurrent.futures.ProcessPoolExecutor(WORKERS, mp_context=context)

    def submit(self, work, *args):
        future = self._pool.submit(work, *args)
        future.get = future.result
        return future

    def lose(self, key):
        try:
            self.submit(die, key).result(30)
        except concurrent.futures.process.BrokenProcessPool:
            self.end()
            self.__init__(self._context)

    def end(self):
        self._pool.shutdown()


def many(pool, key, tasks, ms):
    """Answers to so many tasks, some at once and then some more; each with when it was under way."""
    results = []
    for number in range(tasks):
        results.append((time.monotonic(), pool.submit(use, key, ms)))
        if number % AT_ONCE == AT_ONCE - 1:
            time.sleep(0.03)
    return [{**each.get(30), "sent": sent, "over": time.monotonic()} for sent, each in results]


def main():
    """Obey."""
    kind, method, holds = sys.argv[1:]
    if holds == "holds":
        import fast_litellm  # noqa: F401
    pool = {"pool": Pool, "executor": Executor}[kind](multiprocessing.get_context(method))
    # Not `sys.stdin`: its lock, taken while it waits for a line, would never be free in a worker that is
    # forked then, and that closes it.
    orders = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115
    for line in orders:
        order, *args = json.loads(line)
        sent = time.monotonic()
        if order == "many":
            answer = many(pool, *args)
        else:
            pool.lose(*args)
            answer = [{"sent": sent, "over": time.monotonic(), "fault": "lost"}]
        print(json.dumps(answer), flush=True)
    pool.end()


if __name__ == "__main__":
    main()
