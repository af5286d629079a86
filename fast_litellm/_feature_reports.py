"""Features as the region reports them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def name_of(feature: Mapping[str, Any]) -> str:
    """Name of a feature that is reported; one that a newer build knows has a number only."""
    return str(feature.get("name", f"feature_{feature['feature']}"))


def breaker_is_open(feature: Mapping[str, Any]) -> bool:
    """Whether a feature that is reported is switched off because of its errors."""
    return bool(feature["breaker"] == "open")
