"""What tests of the monitor share: a monitor of their own, and durations to put into it."""

from __future__ import annotations

from typing import Any

import pytest

from fast_litellm import _monitor, _native


def use(monkeypatch: pytest.MonkeyPatch, monitor: Any, region: Any = None) -> Any:
    """Have the package use a monitor, and the region that it belongs to."""
    monkeypatch.setattr(_monitor, "_monitor", monitor)
    monkeypatch.setattr(_monitor, "_known", {})
    monkeypatch.setattr(_monitor, "_full_is_logged", False)
    monkeypatch.setattr(_native, "default_region", lambda: region)
    return monitor
