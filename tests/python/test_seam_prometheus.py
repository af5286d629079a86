"""Proves that LiteLLM's own `/metrics` has the region's metrics once its registries are joined."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from fast_litellm._rust import Monitor, Region
from monitored import use
from support import in_fork

pytest.importorskip("litellm")
pytest.importorskip("prometheus_client")


@in_fork
def test_the_registry_of_litellms_metrics_process_is_joined(
    region: Region, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It makes its registry as the proxy does, which needs a configuration for it."""
    warnings.simplefilter("ignore")
    from litellm.proxy.prometheus_metrics_server import build_metrics_app
    from starlette.testclient import TestClient

    from fast_litellm import prometheus

    use(monkeypatch, Monitor(region), region)
    client: Any = TestClient(build_metrics_app(str(tmp_path)))
    assert "fast_litellm" not in client.get("/metrics").text
    prometheus.join_multiprocess()
    client = TestClient(build_metrics_app(str(tmp_path)))
    assert 'fast_litellm_workers{state="alive"}' in client.get("/metrics").text
