"""Features as the region reports them: by number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fast_litellm._feature_config import NAMES

#: Errors from which on a feature's breaker is open.
_THRESHOLD = 10


def name_of(feature: Mapping[str, Any]) -> str:
    """Name of a feature that is reported."""
    number = feature["feature"]
    known = NAMES[number] if number < len(NAMES) else f"feature_{number}"
    return str(feature.get("name", known))


def breaker_is_open(feature: Mapping[str, Any]) -> bool:
    """Whether a feature that is reported is switched off because of its errors."""
    state = feature.get("breaker")
    return bool(state == "open" if state is not None else feature["errors"] >= _THRESHOLD)
