"""Slots whose release the region has failed. They are released when it is next asked for anything."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from fast_litellm._native import FAULTS

#: Most releases that are remembered; the oldest give way, and return when their worker ends.
_MAX_OWED = 10_000


class Debts:
    """Releases that are still to be made. To make one twice does no harm: a slot's id is used once.

    Args:
        release: releases slots by their keys and ids.
    """

    def __init__(self, release: Callable[[Sequence[str], Sequence[Any]], Any]) -> None:
        self._release = release
        self._owed: deque[tuple[Sequence[str], Sequence[Any]]] = deque(maxlen=_MAX_OWED)

    def owe(self, keys: Sequence[str], slot_ids: Sequence[Any]) -> None:
        """Remember a release that has failed."""
        self._owed.append((keys, slot_ids))

    def settle(self) -> None:
        """Make the releases, until one fails again. Never raises."""
        while self._owed:
            try:
                keys, slot_ids = self._owed.popleft()
            except IndexError:
                # Another thread makes it.
                return
            try:
                self._release(keys, slot_ids)
            except FAULTS:
                # Whatever is asked of the region next counts that it does not work.
                self._owed.append((keys, slot_ids))
                return
