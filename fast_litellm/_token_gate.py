"""Which calls are counted by the extension, which by tiktoken, and how long they took.

Counting keeps no state, so that any call may go either way with the same result. A rollout of p percent
therefore divides the calls of each process: of any hundred in a row, p go through the extension. That
needs no look at the text, whose hash would take as long as counting it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, perf_counter_ns

from fast_litellm import _native
from fast_litellm._breaker import Breaker
from fast_litellm._log import logger
from fast_litellm._timing import Timing

#: Number of the feature in the region.
FEATURE = 1
#: How often the breaker and the switch are looked at, seconds.
_LOOK_S = 0.25
#: When a call began that is not timed, and is told of: a breaker on trial waits for it.
_TOLD = 1


class Gate:
    """Decides call by call, and is told of faults.

    Args:
        region: where the feature's breaker and switch are, and what is timed.

    Attributes:
        active: False once the seam has been removed: all calls go through tiktoken.
        all_until: until when (`time.monotonic`) all calls go through the extension without a look; 0 =
            not all do. A call that looks at this by itself, and that `due` does not want timed, is spared
            `begin`, which takes as long as a short text.
        due: tells whether the next call is to be timed.
        listeners: told whether all calls go through the extension, when that may have changed.
    """

    def __init__(self, region: _native.Region) -> None:
        self.breaker = Breaker(
            region,
            FEATURE,
            "token counting",
            "this call is done by tiktoken",
            meanwhile="tokens are counted by tiktoken",
        )
        self.active = True
        self.listeners: list[Callable[[bool], None]] = []
        self._timing = Timing(region)
        self.due = _native.Monitor.due
        self.all_until = 0.0
        #: Percent that have come together since the last call that went through the extension.
        self._share = 0

    def begin(self, timed: bool) -> int:
        """Decide a call that begins now.

        Args:
            timed: whether it is to be timed, as `due` has said.

        Returns:
            0 or more: it goes through the extension; less: through tiktoken. If it is not 0, `end` is to
            be told of its end.
        """
        began = perf_counter_ns() if timed else 0
        try:
            if monotonic() < self.all_until:
                return began
            return (began or _TOLD) if self._is_ours() else -(began or _TOLD)
        except _native.FAULTS as error:  # the call is to be done, whoever does it
            self.failed("deciding", error)
            return -_TOLD

    def end(self, began: int, operation: str, ours: bool = True) -> None:
        """Record a call that has ended.

        Args:
            began: what `begin` returned.
            operation: one of a few names.
            ours: whether the extension has done it, where it was to.
        """
        if began >= 0:
            if ours:
                try:
                    self.breaker.succeeded()
                except _native.FAULTS as error:  # the call is done
                    self.failed("ending a trial", error)
        else:
            began, ours = -began, False
        if began > _TOLD:
            self._timing.end(began, f"{'rust' if ours else 'python'}_tokens.{operation}")

    def failed(self, operation: str, error: BaseException) -> None:
        """Count a call that the extension could not do. Never raises: the call is still to be done."""
        self._all(0.0)
        try:
            self.breaker.failed(operation, error)
        except _native.FAULTS as fault:
            logger().error("%s failed (%s), which cannot be counted: %s", operation, error, fault)

    def close(self) -> None:
        """Send all calls to tiktoken from now on."""
        self.active = False
        self._all(0.0)

    def mixed(self) -> bool:
        """Whether some calls, or all, go through tiktoken now."""
        return not self.active or self.breaker.open or self.breaker.partial

    def _is_ours(self) -> bool:
        """Look at the breaker and the switch."""
        if not self.active or self.breaker.open:
            self._all(0.0)
            return False
        if not self.breaker.partial:
            self._all(monotonic() + _LOOK_S)
            return True
        self._all(0.0)
        share = self._share + self.breaker.percent
        self._share = share % 100
        return share >= 100

    def _all(self, until: float) -> None:
        changed = until > 0.0 or self.all_until > 0.0
        self.all_until = until
        if changed:
            for listener in self.listeners:
                listener(until > 0.0)
