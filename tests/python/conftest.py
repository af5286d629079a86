"""What all tests share: the import paths, a quiet environment, and a region of their own."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
# `harness` lives in tests/, `support` next to this file. The root of the checkout stays off the path:
# its fast_litellm directory would hide the installed package.
sys.path[:0] = [str(HERE.parent), str(HERE)]

for name in [
    name for name in os.environ if name.startswith(("FAST_LITELLM_SHM", "FAST_LITELLM_RUST"))
]:
    del os.environ[name]
# Importing fast_litellm in the test process must not patch anything there; tests that want the patches
# ask for them in a child.
os.environ["FAST_LITELLM_ENABLED"] = "false"

from harness.proxy import OFFLINE  # noqa: E402

os.environ.update(OFFLINE)

import hypothesis  # noqa: E402
from hypothesis.configuration import set_hypothesis_home_dir  # noqa: E402

set_hypothesis_home_dir(tempfile.gettempdir() + "/fast-litellm-hypothesis")
hypothesis.settings.register_profile(
    "tests",
    deadline=None,
    # The same examples each time, unless somebody looks for new ones.
    derandomize=not os.environ.get("FAST_LITELLM_TEST_SEARCH"),
    database=None,
    print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.load_profile("tests")

from fast_litellm._rust import Region  # noqa: E402


@pytest.fixture
def region() -> Iterator[Region]:
    """A small region that only this test uses."""
    region = Region.create("test", keys=1024, lease_chunks=64, workers=32)
    yield region
    region.leave()
