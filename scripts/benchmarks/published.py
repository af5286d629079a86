"""Environments apart from everything else: of the published package, and of others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REQUIREMENT = "fast-litellm==0.1.10"
#: How long the package index may take, seconds.
TIMEOUT_S = 120


def interpreter(cache: Path) -> tuple[Path | None, str]:
    """The interpreter of the published package's environment; see `environment`."""
    # Its requirements are not needed by what is measured of it.
    return environment(cache / "published", [REQUIREMENT], "--no-deps")


def environment(
    directory: Path, requirements: Sequence[str], *options: str
) -> tuple[Path | None, str]:
    """The interpreter of an environment that has `requirements`, which is made if there is none.

    Args:
        directory: where it is, or goes.
        requirements: each with its version.
        options: further ones of `pip install`.

    Returns:
        The interpreter and an empty text; or None and why there is none.
    """
    wanted = " ".join(requirements)
    python = directory / "bin" / "python"
    made = directory / ".made"
    stamp = f"{wanted} {sys.version}"
    if made.is_file() and made.read_text() == stamp:
        return python, ""
    patience = ["--retries", "1", "--timeout", "15"]
    wheels = ["--only-binary", ":all:", *options]
    commands = [
        [sys.executable, "-m", "venv", "--clear", str(directory)],
        [str(python), "-m", "pip", "install", *patience, *wheels, *requirements],
    ]
    variables = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for command in commands:
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
                env=variables,
            )
        except subprocess.TimeoutExpired:
            return None, f"left out: the package index did not answer within {TIMEOUT_S} s"
        if done.returncode != 0:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            return None, f"left out: {wanted} cannot be installed: {''.join(last)}"
    made.write_text(stamp)
    return python, ""
