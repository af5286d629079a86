"""What every seam is made of: patches that can be undone."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

from fast_litellm._breaker import Breaker
from fast_litellm._native import FAULTS

__all__ = ["Breaker", "Seam", "logger"]

logger = logging.getLogger("fast_litellm")


class Seam:
    """One place in LiteLLM, which is patched or left as it is as a whole.

    Attributes:
        state: "applied" or "not_applied".
        reason: why it is not applied; else empty.
        active: False once it has been removed: what is still wrapped then passes through.
    """

    #: What the log says is not done when the seam cannot be applied.
    missing = "limits are NOT shared between workers"

    def __init__(self) -> None:
        self.state = "not_applied"
        self.reason = ""
        self.active = True
        self._patches: list[tuple[Any, str, Any, Any]] = []

    def apply(self, module: ModuleType) -> None:
        """Patch the module, if the probe finds everything it needs. Never raises."""
        try:
            reason = self._probe(module)
            if not reason:
                self._install(module)
                self.state, self.reason = "applied", ""
        except FAULTS as error:
            # Somebody else's import must not fail because of us.
            logger.exception("a seam could not be applied")
            self._undo()
            reason = f"{type(error).__name__}: {error}"
        if reason:
            self.not_applied(reason)
            logger.warning("%s: %s", self.missing, reason)

    def remove(self) -> None:
        """Put everything back as it was.

        A method that somebody else has wrapped meanwhile stays theirs; ours below it passes through.
        """
        self.active = False
        self._undo()
        self.not_applied("removed")

    def adopt_from(self, removed: Any) -> None:
        """Take up what a removed seam of the same kind has let go."""

    def not_applied(self, reason: str) -> None:
        """Tell why LiteLLM is as it was."""
        self.state, self.reason = "not_applied", reason

    def _probe(self, module: ModuleType) -> str:
        """Why the seam cannot be applied to this module; empty = it can."""
        raise NotImplementedError

    def _install(self, module: ModuleType) -> None:
        """Patch the module."""
        raise NotImplementedError

    def _patched(self, owner: Any) -> bool:
        return any(owner is patched for patched, *_ in self._patches)

    def _patch(self, owner: Any, name: str, ours: Any) -> None:
        self._patches.append((owner, name, ours, vars(owner)[name]))
        setattr(owner, name, ours)

    def _undo(self) -> None:
        for owner, name, ours, original in reversed(self._patches):
            if vars(owner).get(name) is ours:
                setattr(owner, name, original)
        self._patches = []
