"""fast_litellm's encodings in tiktoken's registry, as LiteLLM finds them there."""

from __future__ import annotations

import os
from typing import Any

from benchmarks.contenders import AbsentError
from benchmarks.contenders.ours import version as version_of
from benchmarks.counting.sides import Way
from benchmarks.counting.sides.tiktoken import as_litellm


def version() -> str:
    """Version of the package; applies the seams."""
    import fast_litellm

    found = version_of()
    os.environ["FAST_LITELLM_ENABLED"] = "true"
    fast_litellm.apply_acceleration()
    return found


def ways(encoding: str, vocabulary: str) -> dict[str, Way]:
    """As LiteLLM calls it."""
    return {"ours_encode": as_litellm(applied(encoding).encode)}


def applied(encoding: str) -> Any:
    """What tiktoken's registry has.

    Raises:
        AbsentError: it is not ours.
    """
    import tiktoken

    found = tiktoken.get_encoding(encoding)
    if not type(found).__module__.startswith("fast_litellm"):
        raise AbsentError("the seam of token counting is not applied")
    return found
