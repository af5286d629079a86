"""The tokenizer in LiteLLM's own extension, which LiteLLM does not use by default."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from benchmarks.contenders import AbsentError
from benchmarks.counting.sides import Way


def version() -> str:
    """Version of the package."""
    _native()
    return version_of("litellm")


def ways(encoding: str, vocabulary: str) -> dict[str, Way]:
    """Both ways that it counts."""
    made = _native().Tokenizer.from_tiktoken(encoding)
    count = made.count
    return {
        "native": Way("count", count, False, made.encode),
        "native_fast": Way("count", lambda text: count(text, True)),
        "native_encode": Way("ids", made.encode, True, made.encode),
    }


def _native() -> Any:
    """The extension alone: LiteLLM around it takes seconds to import and counts nothing here."""
    package = importlib.util.find_spec("litellm")
    folders = package.submodule_search_locations if package is not None else None
    files = [
        file for folder in folders or () for file in Path(folder).glob("rust_bridge/_native*.so")
    ]
    if not files:
        raise AbsentError("not there: this LiteLLM has no extension")
    spec = importlib.util.spec_from_file_location("_native", files[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
