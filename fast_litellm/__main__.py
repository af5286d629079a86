"""`fl-shm`, as a console script and as `python -m fast_litellm`."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Run `fl-shm` with the process's arguments; returns its exit code."""
    try:
        from fast_litellm._rust import cli_main
    except ImportError as error:
        print(f"fl-shm: the extension cannot be loaded: {error}", file=sys.stderr)  # noqa: T201
        return 2
    # Ctrl-C ends a --watch at once; Python would only note it, as no Python code is running.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return cli_main(["fl-shm", *sys.argv[1:]])


if __name__ == "__main__":
    # The command looks at other processes' regions and needs none of its own.
    os.environ.setdefault("FAST_LITELLM_ENABLED", "false")
    sys.exit(main())
