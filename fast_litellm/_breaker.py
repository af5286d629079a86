"""A feature's switch and breaker, as whoever does its operations sees them.

Both are words in the region, so that all workers agree. They are looked at a few times a second at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from fast_litellm import _features, _native
from fast_litellm._config import breaker_rest_s
from fast_litellm._feature_config import NAMES
from fast_litellm._log import logger

#: Errors after which a breaker opens, for all workers.
MAX_ERRORS = 10
#: How often switch and breaker are looked at, seconds.
_INTERVAL_S = 0.25
#: A trial without a failure has succeeded after so many seconds, whether somebody has told so or not.
_TRIAL_S = 0.5
#: How often one kind of trouble is logged, seconds.
_LOG_INTERVAL_S = 30.0
#: Units whose side is remembered.
_MAX_UNITS = 10_000


class Breaker:
    """A feature's breaker and switch: ten errors in any workers switch it off for all of them.

    When it has rested, one process tries the feature again: its next operation decides.

    Args:
        region: where they are.
        feature: its number there.
        name: what the log calls the feature.
        instead: what happens to an operation that failed, for the log.
        changed: called with the new `open` when this process sees it change.
        meanwhile: what is so while the breaker is open, for the log.

    Attributes:
        whole: whether the feature cannot be used for a part of its traffic: then for none of it.
    """

    def __init__(
        self,
        region: _native.Region,
        feature: int,
        name: str,
        instead: str,
        changed: Callable[[bool], None] = lambda _: None,
        meanwhile: str = "its state is NOT shared between workers",
    ) -> None:
        self._region = region
        self._feature = feature
        self._feature_name = NAMES[feature]
        self._name = name
        self._instead = instead
        self._changed = changed
        self._meanwhile = meanwhile
        self.whole = False
        self._own_percent = _features.own(self._feature_name).percent
        self._rest_s = breaker_rest_s()
        #: Whether the breaker is open, trials apart.
        self._tripped = False
        #: What the switch says, and what that comes to.
        self._switched = self._own_percent
        self._percent = self._own_percent
        self._units: dict[str, bool] = {}
        #: The probe that this process has; 0 = none. Until when (`time.monotonic`) it is tried.
        self._probe = 0
        self._trial_until = 0.0
        self._looked_at = 0.0
        self._logged_at: dict[str, float] = {}

    @property
    def open(self) -> bool:
        """Whether the feature is not used at all: its breaker is open, or it is switched off."""
        now = time.monotonic()
        if now - self._looked_at >= _INTERVAL_S:
            self._looked_at = now
            self._look(now)
        return self._percent == 0

    @property
    def tripped(self) -> bool:
        """Whether it is the breaker that keeps the feature from being used, as `open` saw last."""
        return self._tripped

    @property
    def partial(self) -> bool:
        """Whether the feature is used for a part of the traffic, as `open` saw last."""
        return 0 < self._percent < 100

    @property
    def percent(self) -> int:
        """Percent of the traffic that it is used for, as `open` saw last."""
        return self._percent

    def covers(self, unit: str) -> bool:
        """Whether the feature is used for a unit of its traffic, as `open` saw last.

        A unit is what state belongs to: all of it is with the feature, or none.
        """
        if self._percent >= 100 or self._percent == 0:
            return self._percent > 0
        side = self._units.get(unit)
        if side is None:
            side = _features.in_rollout(self._feature_name, unit, self._percent)
            if len(self._units) >= _MAX_UNITS:
                self._units = {}
            self._units[unit] = side
        return side

    def failed(self, operation: str, error: BaseException) -> None:
        """Count an operation that the region could not do, and log it now and then."""
        if isinstance(error, (_native.UnavailableError, ValueError, TypeError, OverflowError)):
            # The region works but has no room for this key, or was asked something senseless: no
            # reason to switch it off for everybody.
            self._region.count_fallback()
        else:
            self._probe = 0
            self._region.feature_error(self._feature)
            self._looked_at = 0.0
        now = time.monotonic()
        kind = f"{operation}/{type(error).__name__}"
        if now - self._logged_at.get(kind, -_LOG_INTERVAL_S) >= _LOG_INTERVAL_S:
            self._logged_at[kind] = now
            logger().error(
                "%s: %s failed (%s: %s); %s",
                self._name,
                operation,
                type(error).__name__,
                error,
                self._instead,
            )

    def succeeded(self) -> None:
        """Tell that an operation was done. If it was tried for all, all use the feature again."""
        if self._probe:
            probe, self._probe = self._probe, 0
            self._region.feature_recovered(self._feature, probe)
            self._looked_at = 0.0

    def _look(self, now: float) -> None:
        switched = self._region.feature_switch(self._feature)
        if switched is None:
            switched = self._own_percent
        if self.whole and 0 < switched < 100:
            if self._switched != 0:
                logger().error("the %s is for all or for none: %d%% is none", self._name, switched)
                self._switched = 0
            switched = 0
        if self._probe and now >= self._trial_until:
            self.succeeded()
            self._looked_at = now
        # What is switched off has no operation that could be the probe.
        tripped = self._tripped and switched == 0
        if not self._probe and switched > 0:
            admitted = self._region.feature_admits(self._feature, self._rest_s)
            tripped = admitted == 0
            if admitted:
                self._probe, self._trial_until = admitted, now + _TRIAL_S
                logger().warning("the %s is tried again", self._name)
        self._tell(switched, tripped)
        was_open = self._percent == 0
        percent = 0 if tripped else switched
        if percent != self._percent:
            self._percent, self._units = percent, {}
        if was_open != (percent == 0):
            self._changed(percent == 0)

    def _tell(self, switched: int, tripped: bool) -> None:
        if switched != self._switched:
            self._switched = switched
            logger().warning("the %s is switched to %d%% for all workers", self._name, switched)
        # A trial is not yet the end.
        if tripped != self._tripped and not self._probe:
            self._tripped = tripped
            word = f"open: {self._meanwhile}" if tripped else "closed"
            logger().error("the %s's breaker is %s", self._name, word)
