"""`fl-shm` as tests run it, and the programs whose regions it looks at."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from support import fresh_environment

_SCRIPT = shutil.which("fl-shm", path=str(Path(sys.executable).parent))


def command(*arguments: object) -> list[str]:
    """The command line of `fl-shm`."""
    program = [_SCRIPT] if _SCRIPT else [sys.executable, "-m", "fast_litellm"]
    return [*program, *map(str, arguments)]


def fl_shm(
    *arguments: object, prefix: Sequence[str] = (), keys: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    """What it does, with `keys` on standard input."""
    return subprocess.run(
        [*prefix, *command(*arguments)],
        cwd="/",
        env={**fresh_environment(), **env},
        input=keys,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
    )


def shown(*arguments: object, code: int = 0) -> str:
    """What it prints when all is well."""
    done = fl_shm(*arguments)
    assert (done.returncode, done.stderr) == (code, "")
    return done.stdout


def refused(*arguments: object) -> str:
    """What it says when it refuses."""
    done = fl_shm(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert "panicked" not in done.stderr
    return done.stderr


def sharing(program: str, name: str, **settings: str) -> subprocess.Popen[str]:
    """A process that runs a program with a region of that name, and is spoken to by its pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd="/",
        env={
            **fresh_environment(),
            "FAST_LITELLM_SHM_NAME": name,
            "FAST_LITELLM_SHM_KEYS": "1024",
            **settings,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
