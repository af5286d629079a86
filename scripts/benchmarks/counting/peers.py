"""Who takes part, and the environments of those who cannot live in this one."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import published

#: The packages of others, in one environment.
PEERS = {
    "gigatoken": "gigatoken==0.10.0",
    "fastokens": "fastokens==0.3.5",
    "toktok": "toktok-rs==0.3.0",
}

#: Every side has a module in `sides/`.
SIDES = (
    "ours",
    "ours_encoding",
    "tiktoken",
    "litellm_ours",
    "litellm",
    "native",
    "published",
    *PEERS,
)

#: Ranks of an encoding, as LiteLLM has packed them: tiktoken's own names for its cache.
RANKS = {
    "cl100k_base": "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
    "o200k_base": "fb374d419588a4632f3f557e76b4b70aebbca790",
}


def vocabularies() -> Path | None:
    """LiteLLM's folder of ranks; None = there is no LiteLLM here. LiteLLM is not imported."""
    package = importlib.util.find_spec("litellm")
    for folder in (package and package.submodule_search_locations) or ():
        found = Path(folder, "litellm_core_utils", "tokenizers")
        if found.is_dir():
            return found
    return None


def interpreters(sides: Sequence[str], cache: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The interpreter of each side that can be had.

    Args:
        sides: who is wanted; environments are made for them.
        cache: where environments are kept.

    Returns:
        Interpreters by side, and by each other side why it has none.
    """
    found = dict.fromkeys(sides, Path(sys.executable))
    left_out = {side: "not asked for" for side in SIDES if side not in sides}
    made = {}
    if "published" in sides:
        made["published"] = published.interpreter(cache)
    if any(side in PEERS for side in sides):
        peers = published.environment(cache / "token-peers", list(PEERS.values()))
        made |= {side: peers for side in PEERS if side in sides}
    for side, (python, reason) in made.items():
        if python is None:
            del found[side]
            left_out[side] = reason
        else:
            found[side] = python
    return found, left_out


def use_vocabularies(folder: Path) -> None:
    """Have tiktoken, here and in all processes that are started, read ranks from a folder alone."""
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    # What the published package would ask for.
    os.environ["CUSTOM_TIKTOKEN_CACHE_DIR"] = str(folder)
