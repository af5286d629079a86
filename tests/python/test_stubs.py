"""Proves that the types that editors and checkers see are those of the extension."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files

from support import fresh_environment


def test_the_stub_is_true_to_the_extension() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "fast_litellm._rust", "--ignore-disjoint-bases"],
        cwd="/",
        env=fresh_environment(),
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_package_says_that_it_is_typed() -> None:
    assert files("fast_litellm").joinpath("py.typed").is_file()
    assert files("fast_litellm").joinpath("_rust.pyi").is_file()
