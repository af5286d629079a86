"""Faults in fast_litellm's native operations, in the workers of a proxy and on demand.

The product knows nothing of it: the proxy's `app.py` puts wrappers in the place of the native classes
before LiteLLM is loaded. All workers follow one file, and count what they have raised in another.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

CODE = '''\
import fcntl
import json
import os
import sys

from fast_litellm import _native

HERE = os.path.dirname(os.path.abspath(__file__))
PLAN, RAISED = os.path.join(HERE, "faults.json"), os.path.join(HERE, "raised")


class Foreign(Exception):
    """An exception that fast_litellm does not know."""


KINDS = {"RuntimeError": RuntimeError, "Foreign": Foreign, "PanicException": _native.PanicException}
calls = {}
latest = [0, {}]


def due(who, name):
    """The plan, if this call is to fail."""
    changed = os.stat(PLAN).st_mtime_ns
    if latest[0] != changed:
        with open(PLAN) as file:
            latest[:] = changed, json.load(file)
    plan = latest[1]
    # What is only displayed decides nothing, and its faults are not counted.
    if plan.get("who") != who or plan.get("only") not in (None, name) or name.startswith("note_"):
        return None
    calls[who] = calls.get(who, 0) + 1
    if calls[who] % plan["every"]:
        return None
    with open(RAISED, "a") as raised:
        fcntl.flock(raised, fcntl.LOCK_EX)
        # Not its position, which is that of before the lock.
        if os.fstat(raised.fileno()).st_size >= plan["most"]:
            return None
        raised.write("x")
    return plan


def faulty(native):
    class Faulty:
        def __init__(self, *args):
            self._inner = native(*args)
            # Whoever makes it is who it fails.
            self._who = sys._getframe(1).f_globals["__name__"].rpartition(".")[2]

        def __getattr__(self, name):
            method = getattr(self._inner, name)
            if not callable(method):
                return method

            def call(*args, **kwargs):
                plan = due(self._who, name)
                if plan is None:
                    return method(*args, **kwargs)
                if plan["after"]:
                    method(*args, **kwargs)
                raise KINDS[plan["kind"]](f"injected into {name}")

            return call

    return Faulty


for name in ("LimiterScripts", "Deployments", "Board"):
    setattr(_native, name, faulty(getattr(_native, name)))
'''

#: Who uses native objects: the modules that make them.
LIMITER, ROUTER = "limiter", "deployments"


class Faults:
    """What fails in the workers of a proxy that runs in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._plan = directory / "faults.json"
        self._raised = directory / "raised"

    def none(self) -> None:
        """Nothing fails from now on."""
        self._write({})

    def inject(
        self,
        who: str,
        *,
        every: int = 1,
        most: int = 1_000_000,
        kind: str = "RuntimeError",
        after: bool = False,
        only: str | None = None,
    ) -> None:
        """Each worker's `every`th call of `who` fails, `most` in all workers together.

        With `after` the call does its work before it fails; `only` names the one method that does.
        """
        self._raised.write_text("")
        plan = {
            "who": who,
            "every": every,
            "most": most,
            "kind": kind,
            "after": after,
            "only": only,
        }
        self._write(plan)

    def raised(self) -> int:
        """How many have failed since the last `inject`."""
        return len(self._raised.read_text())

    def _write(self, plan: dict[str, Any]) -> None:
        # In one step: workers read it at any time.
        new = self._plan.with_suffix(".new")
        new.write_text(json.dumps(plan))
        os.replace(new, self._plan)
