"""What every seam is made of: patches that can be undone, and the breaker that switches it off."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from fast_litellm import _native

logger = logging.getLogger("fast_litellm")

#: Errors after which a breaker opens, for all workers.
MAX_ERRORS = 10
#: How often a breaker is looked at, seconds.
_BREAKER_INTERVAL_S = 0.25
#: How often one kind of trouble is logged, seconds.
_LOG_INTERVAL_S = 30.0


class Breaker:
    """A feature's breaker in the region: ten errors in any workers open it for all of them.

    Args:
        region: where it is.
        feature: its number there.
        name: what the log calls the feature.
        instead: what happens to an operation that failed, for the log.
        changed: called with the new state when this process sees it change.
    """

    def __init__(
        self,
        region: _native.Region,
        feature: int,
        name: str,
        instead: str,
        changed: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._region = region
        self._feature = feature
        self._name = name
        self._instead = instead
        self._changed = changed
        self._open = False
        self._looked_at = 0.0
        self._logged_at: dict[str, float] = {}

    @property
    def open(self) -> bool:
        """Whether the feature is switched off: LiteLLM then counts per worker."""
        now = time.monotonic()
        if now - self._looked_at >= _BREAKER_INTERVAL_S:
            self._looked_at = now
            is_open = self._region.feature_errors(self._feature) >= MAX_ERRORS
            if is_open != self._open:
                self._open = is_open
                word = "open: its state is NOT shared between workers" if is_open else "closed"
                logger.error("the %s's breaker is %s", self._name, word)
                self._changed(is_open)
        return self._open

    def failed(self, operation: str, error: Exception) -> None:
        """Count an operation that the region could not do, and log it now and then."""
        if isinstance(error, (_native.UnavailableError, ValueError, TypeError, OverflowError)):
            # The region works but has no room for this key, or was asked something senseless: no
            # reason to switch it off for everybody.
            self._region.count_fallback()
        else:
            self._region.feature_error(self._feature)
            self._looked_at = 0.0
        now = time.monotonic()
        kind = f"{operation}/{type(error).__name__}"
        if now - self._logged_at.get(kind, -_LOG_INTERVAL_S) >= _LOG_INTERVAL_S:
            self._logged_at[kind] = now
            logger.error(
                "%s: %s failed (%s: %s); %s",
                self._name,
                operation,
                type(error).__name__,
                error,
                self._instead,
            )


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
        except Exception as error:
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
