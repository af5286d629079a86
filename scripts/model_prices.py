"""Packs LiteLLM's prices and limits of models, for programs that have no LiteLLM beside them.

usage: .venv/bin/python scripts/model_prices.py

Writes fast_litellm/model_prices.json.gz from the LiteLLM of this interpreter, and prints what changed.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

from fast_litellm import _model_prices

PACKED = Path(__file__).parents[1] / "fast_litellm" / _model_prices.PACKED
#: Kinds of models that read or write tokens.
MODES = {"chat", "completion", "embedding", "responses"}


def main() -> int:
    source = _model_prices.installed_file()
    if source is None:
        print("LiteLLM is not installed beside this interpreter", file=sys.stderr)
        return 1
    models: dict[str, dict[str, Any]] = {
        name: kept
        for name, entry in json.loads(source.read_text()).items()
        if entry.get("mode") in MODES and (kept := _model_prices.relevant(entry))
    }
    before = json.loads(gzip.decompress(PACKED.read_bytes())) if PACKED.exists() else {}
    text = json.dumps(models, sort_keys=True, separators=(",", ":"))
    # Without a time, so that the same prices are the same bytes.
    PACKED.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    changed = sum(before.get(name) != models.get(name) for name in before.keys() | models.keys())
    print(f"{len(models)} models, {changed} of them changed, {PACKED.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
