"""fast_litellm: the core, and the counter of the public API."""

from __future__ import annotations

from typing import Any

from benchmarks.contenders import AbsentError
from benchmarks.contenders.ours import version as version
from benchmarks.counting.sides import MODELS, Way


def ways(encoding: str, vocabulary: str) -> dict[str, Way]:
    """Those that this build has."""
    import fast_litellm

    found = {}
    core = core_of(encoding)
    if core is not None:
        found["ours"] = Way("count", core.count_ordinary, False, core.encode_ordinary)
    if hasattr(fast_litellm, "SimpleTokenCounter"):
        count, model = fast_litellm.SimpleTokenCounter().count_tokens, MODELS[encoding]
        found["ours_counter"] = Way("count", lambda text: count(text, model))
    if not found:
        raise AbsentError("not there: this build counts no tokens")
    return found


def core_of(encoding: str) -> Any:
    """The encoder itself; None = this build has none."""
    from fast_litellm import _rust

    made = getattr(_rust, "CoreBPE", None)
    return None if made is None else made(encoding)


def batches(encoding: str) -> dict[str, Any]:
    """Batches by the core, with so many threads."""
    core = core_of(encoding)
    return {
        "count": core.count_batch,
        "ids": lambda texts, threads: core.encode_batch(texts, set(), threads),
    }
