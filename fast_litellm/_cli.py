"""The `fl-shm` command, as a console script and as `python -m fast_litellm`."""

from __future__ import annotations

import sys

#: Console scripts that need no region of their own; `fast-litellm` leaves it to what it starts.
_COMMANDS = ("fl-shm", "fast-litellm")


def is_running() -> bool:
    """Whether this process is a command of ours, and not a program that imports the package."""
    if sys.argv and sys.argv[0] == "-m":
        # Python has not got further than finding the module to run.
        return "fast_litellm" in sys.orig_argv
    return bool(sys.argv) and sys.argv[0].rpartition("/")[2] in _COMMANDS


def main() -> int:
    """Run `fl-shm` with the process's arguments; returns its exit code."""
    import signal

    try:
        from fast_litellm._rust import cli_main
    except ImportError as error:
        sys.stderr.write(f"fl-shm: the extension cannot be loaded: {error}\n")
        return 2
    # Ctrl-C ends a --watch at once; Python would only note it, as no Python code is running.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return cli_main(["fl-shm", *sys.argv[1:]])
