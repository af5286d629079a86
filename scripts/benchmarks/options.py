"""Types of command line arguments that the scripts share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection


def names_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """An argument type: comma-separated names, each of them a known one."""

    def names(text: str) -> list[str]:
        found = text.split(",")
        unknown = [name for name in found if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"no such {unknown}; there are {', '.join(known)}")
        return found

    return names
