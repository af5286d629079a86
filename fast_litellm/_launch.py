"""The `fast-litellm` command: starts a server with fast_litellm, without a change to its application."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from typing import NoReturn

_USAGE = """\
usage: fast-litellm [--] COMMAND [ARGUMENT...]

Runs COMMAND, a server written in Python, so that its workers share one region: fast_litellm is imported
before gunicorn, uvicorn, hypercorn, granian or litellm is, in the process that starts the workers.

  fast-litellm litellm --config config.yaml --num_workers 4
  fast-litellm gunicorn app:app -w 4 -k uvicorn.workers.UvicornWorker
  fast-litellm uvicorn app:app --workers 4

COMMAND replaces this process (same pid). It is looked for beside the interpreter first, then on the PATH.

  --help     show this
  --version  show the version

Exit code: COMMAND's; 125 for wrong arguments, 126 if COMMAND cannot be run, 127 if it is not found.
"""
_MISUSED, _NOT_RUN, _NOT_FOUND = 125, 126, 127
#: Holds the module that Python runs at the start of a program.
_STARTUP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_startup")


def main() -> int:
    """Replace this process by the command; returns an exit code when that cannot be done."""
    arguments = sys.argv[1:]
    first = arguments[0] if arguments else ""
    if first in ("--help", "-h"):
        sys.stdout.write(_USAGE)
        return 0
    if first == "--version":
        from fast_litellm._native import __version__

        sys.stdout.write(f"fast-litellm {__version__}\n")
        return 0
    if first == "--":
        del arguments[0]
    elif first.startswith("-"):
        return _fail(_MISUSED, f"unknown option {first!r}; see fast-litellm --help")
    if not arguments:
        return _fail(_MISUSED, "no command given; see fast-litellm --help")
    return _run(arguments)


def _run(command: list[str]) -> int:
    name = command[0]
    program = _found(name)
    if program is None:
        where = "" if os.sep in name else f" beside {sys.executable} or on the PATH"
        return _fail(_NOT_FOUND, f"{name}: not found{where}")
    try:
        _replace(program, command[1:])
    except OSError as error:
        return _fail(
            _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_RUN,
            f"{program}: {error.strerror}",
        )


def _found(name: str) -> str | None:
    """The program of that name, as the kernel is asked for it; executable or not."""
    if os.sep in name:
        return name if os.path.lexists(name) else None
    path = [os.path.dirname(sys.executable), *os.get_exec_path()]
    search = os.pathsep.join(path)
    any_file = os.F_OK
    return shutil.which(name, path=search) or shutil.which(name, mode=any_file, path=search)


def _replace(program: str, arguments: list[str]) -> NoReturn:
    # Python ignores these, and what is ignored stays so over an exec: `yes | head` would not end.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    # By its bare name an interpreter would look for itself on the PATH, and find another one there.
    os.execve(program, [program, *arguments], {**os.environ, "PYTHONPATH": _python_path()})


def _python_path() -> str:
    """The user's PYTHONPATH behind the directory; children of the command inherit it."""
    users = _started_with("PYTHONPATH")
    if users.split(os.pathsep)[0] == _STARTUP:
        return users
    # An empty entry would be the current directory.
    return f"{_STARTUP}{os.pathsep}{users}" if users else _STARTUP


def _started_with(name: str) -> str:
    """The value of an environment variable when this process was started.

    A sitecustomize that has run here may have taken itself off the path, so as not to run in children
    (OpenTelemetry's does): it would not run in the command.
    """
    try:
        with open("/proc/self/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return os.environ.get(name, "")
    prefix = os.fsencode(f"{name}=")
    values = [entry.removeprefix(prefix) for entry in entries if entry.startswith(prefix)]
    return os.fsdecode(values[0]) if values else ""


def _fail(code: int, message: str) -> int:
    sys.stderr.write(f"fast-litellm: {message}\n")
    return code
