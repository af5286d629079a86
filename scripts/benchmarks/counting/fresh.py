"""What is measured in processes of its own: loading, cold texts, memory of workers; and batches."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.contender_process import BrokenError, MissingError
from benchmarks.counting import texts
from benchmarks.counting.turns import Sides

#: Whose process does nothing but count: LiteLLM's has all of LiteLLM in it, and loads with it.
LIGHT = ("ours", "tiktoken", "native", "published", "gigatoken", "fastokens", "toktok")
COLD = (*texts.KINDS, "random words")
CHILDREN = 4


def start(
    sides: Sides, encoding: str, kinds: Sequence[str], documents: int, times: int
) -> list[dict[str, Any]]:
    """Loading in a new process, and then counting texts of 2,000 characters once each.

    Returns:
        For each side: medians `load_cpu_ms` and `load_wall_ms`, `private_bytes`, `threads` after loading,
        and `mb_per_s` by kind of text and part, the first third of the texts and the last
        (million bytes of UTF-8 a second of CPU time); or `absent`.
    """
    files = {kind: sides.file(texts.documents(kind, documents, 2_000)) for kind in kinds}
    loads: dict[str, list[dict[str, Any]]] = {}
    speeds: dict[str, dict[str, list[float]]] = {}
    absent = {}
    vocabulary = sides.vocabulary(encoding)
    for _ in range(times):
        for kind, path in files.items():
            sides.note(f"{encoding}, new processes: {kind}")
            for side in present(sides):
                if side in absent:
                    continue
                try:
                    with sides.fresh(side) as contender:
                        load = contender.ask("load", encoding, vocabulary)
                        way = next(iter(load["ways"]))
                        taken = contender.ask("cold", encoding, way, path)
                except (MissingError, BrokenError) as error:
                    absent[side] = str(error)
                    continue
                loads.setdefault(side, []).append(load)
                for part in ("first", "last"):
                    speed = taken[part]["bytes"] / taken[part]["ns"] * 1e3
                    speeds.setdefault(side, {}).setdefault(f"{kind}, {part}", []).append(speed)
    rows = []
    for side, found in loads.items():
        row: dict[str, Any] = {"encoding": encoding, "side": side, "absent": absent.get(side, "")}
        for key in ("cpu_ms", "wall_ms"):
            row[f"load_{key}"] = statistics.median(load[key] for load in found)
        row["private_bytes"] = statistics.median(load["private_bytes"] for load in found)
        row["threads"] = max(load["threads"] for load in found)
        row["mb_per_s"] = {name: statistics.median(each) for name, each in speeds[side].items()}
        rows.append(row)
    gone = [(side, reason) for side, reason in absent.items() if side not in loads]
    rows += [{"encoding": encoding, "side": side, "absent": reason} for side, reason in gone]
    return rows


def memory(sides: Sides, encoding: str, length: int) -> list[dict[str, Any]]:
    """What counting adds to each of four forked workers, with tables loaded before the fork and after.

    Returns:
        For each side: bytes `before` and `after`, each with `pss` and `private`; or `absent`.
    """
    path = sides.file([texts.text_of(kind, length) for kind in texts.KINDS])
    rows = []
    for side in present(sides):
        sides.note(f"{encoding}, memory: {side}")
        row: dict[str, Any] = {"encoding": encoding, "side": side, "absent": ""}
        for when, early in (("before", True), ("after", False)):
            order = ("memory", encoding, sides.vocabulary(encoding), path, CHILDREN, early)
            try:
                with sides.fresh(side) as contender:
                    row[when] = contender.ask(*order)
            except (MissingError, BrokenError) as error:
                row["absent"] = str(error)
        rows.append(row)
    return rows


def present(sides: Sides) -> list[str]:
    """Sides that have a process of nothing but counting."""
    return [side for side in LIGHT if side in sides.versions]
