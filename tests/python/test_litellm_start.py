"""Proves that workers of LiteLLM's own command share limits, however fast_litellm comes to them."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("litellm")
pytest.importorskip("gunicorn")

from counting_server import have_ended, regions_of
from fl_shm import shown
from harness import load
from harness.commands import CommandProxy
from harness.proxy import FakeBackend
from harness.results import new_key
from harness.scenarios import warm_up
from support import until

pytestmark = [pytest.mark.proxy, pytest.mark.timeout(300)]

HOOK = {"LITELLM_WORKER_STARTUP_HOOKS": "fast_litellm:apply_acceleration"}
CALLBACK = {"litellm_settings": {"callbacks": ["fast_litellm.proxy.callback"]}}
#: What LiteLLM has loaded in every worker that serves requests.
SEAMS = ("rate_limiting", "routing.deployments", "routing.slots", "routing.health_checks")


class Way(NamedTuple):
    """How fast_litellm comes to LiteLLM's command.

    Attributes:
        command: the command line, but for what all have.
        env: environment variables that are set for it.
        config: what is added to the configuration file.
    """

    command: tuple[str, ...]
    env: dict[str, str]
    config: dict[str, Any]


WAYS = {
    "startup hook": Way(("litellm",), HOOK, {}),
    "callback, gunicorn": Way(("litellm", "--run_gunicorn"), {}, CALLBACK),
    "wrapper": Way(("fast-litellm", "litellm"), {}, {}),
}


@pytest.fixture(scope="module")
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as backend:
        yield backend


def tree(pid: int) -> list[int]:
    """A process and all that it has started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(below for child in children for below in tree(int(child)))]


def files() -> set[str]:
    """Regions that are files; those of others may come and go."""
    return {name for name in os.listdir("/dev/shm") if re.search("fl-shm|fast_litellm", name)}


@pytest.mark.parametrize("name", WAYS)
def test_a_limit_holds_over_all_workers(name: str, backend: FakeBackend) -> None:
    way, before = WAYS[name], files()
    env = {"FAST_LITELLM_ENABLED": "true", **way.env}
    with CommandProxy(
        backend.url, way.command, workers=2, extra_env=env, extra_config=way.config
    ) as proxy:
        warm_up(proxy)
        burst = load.burst(proxy.base_url, [new_key("r20")], 60, 10)
        assert (burst.unexpected, burst.statuses) == ([], {200: 20, 429: 40})
        workers = proxy.worker_pids()
        assert len(workers) == 2

        patched = proxy.patched()
        assert set(patched) == set(workers), "both have answered"
        for status in patched.values():
            states = {seam: status["seams"][seam]["state"] for seam in SEAMS}
            assert states == dict.fromkeys(SEAMS, "applied"), status
            assert all(seam["state"] != "not_applied" for seam in status["seams"].values())

        ours = {pid: regions_of(pid) for pid in tree(proxy.pid)}
        (region,) = ours[workers[0]]
        assert {inode for regions in ours.values() for inode in regions} == {region}
        assert ours[workers[1]] == [region]
        rows = json.loads(shown("inspect", "workers", "--json", "--pid", workers[0]))["workers"]
        decided = {row["pid"] for row in rows if row["decisions"] > 0}
        assert decided == set(workers)
        assert not re.search(
            r"NOT (shared|known)|per worker only|breaker is open", proxy.log_text()
        )

        os.kill(proxy.pid, signal.SIGTERM)
        until(lambda: have_ended(list(ours)), "end with all its processes", 30)
    assert files() <= before
