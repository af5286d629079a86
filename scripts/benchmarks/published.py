"""An environment with the published package, apart from everything else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REQUIREMENT = "fast-litellm==0.1.10"
#: How long the package index may take, seconds.
TIMEOUT_S = 120


def interpreter(cache: Path) -> tuple[Path | None, str]:
    """The environment's interpreter, making the environment if there is none.

    Returns:
        The interpreter and an empty text; or None and why there is none.
    """
    directory = cache / "published"
    python = directory / "bin" / "python"
    made = directory / ".made"
    stamp = f"{REQUIREMENT} {sys.version}"
    if made.is_file() and made.read_text() == stamp:
        return python, ""
    patience = ["--retries", "1", "--timeout", "15"]
    # Its requirements are not needed by what is measured of it.
    wheel_alone = ["--no-deps", "--only-binary", ":all:"]
    commands = [
        [sys.executable, "-m", "venv", "--clear", str(directory)],
        [str(python), "-m", "pip", "install", *patience, *wheel_alone, REQUIREMENT],
    ]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for command in commands:
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            return None, f"left out: the package index did not answer within {TIMEOUT_S} s"
        if done.returncode != 0:
            last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            return None, f"left out: {REQUIREMENT} cannot be installed: {''.join(last)}"
    made.write_text(stamp)
    return python, ""
