"""Which calls are counted by the extension, which by tiktoken, and how long they took.

Counting keeps no state, so that any call may go either way with the same result. A rollout of p percent
therefore divides the calls of each process: of any hundred in a row, p go through the extension. That needs
no look at the text, whose hash would take as long as counting it.
"""

from __future__ import annotations

from time import monotonic, perf_counter_ns

from fast_litellm import _native
from fast_litellm._breaker import Breaker
from fast_litellm._timing import Timing

#: Number of the feature in the region.
FEATURE = 1
#: How often the breaker and the switch are looked at, seconds.
_LOOK_S = 0.25
#: A call that goes through the extension, is not timed, and is waited for by a breaker on trial.
_TOLD = 1
#: A call that goes through tiktoken and is not timed.
_NOT_OURS = -1


class Gate:
    """Decides call by call, and is told of faults.

    Args:
        region: where the feature's breaker and switch are, and what is timed.

    Attributes:
        active: False once the seam has been removed: all calls go through tiktoken.
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
        self._timing = Timing(region)
        self._due = _native.Monitor.due
        #: Until when all calls go through the extension without a look, by `monotonic`.
        self._all_until = 0.0
        #: Percent that have come together since the last call that went through the extension.
        self._share = 0

    def begin(self) -> int:
        """Decide a call that begins now.

        Returns:
            0 or more: it goes through the extension; less: through tiktoken. If it is not 0, `end` is to be
            told of its end.
        """
        if monotonic() < self._all_until:
            return perf_counter_ns() if self._due() else 0
        return self._decide()

    def end(self, began: int, operation: str, ours: bool = True) -> None:
        """Record a call that has ended.

        Args:
            began: what `begin` returned.
            operation: one of a few names.
            ours: whether the extension has done it, where it was to.
        """
        if began >= 0:
            if ours:
                self.breaker.succeeded()
        else:
            began, ours = -began, False
        if began > _TOLD:
            self._timing.end(began, f"{'rust' if ours else 'python'}_tokens.{operation}")

    def failed(self, operation: str, error: BaseException) -> None:
        """Count a call that the extension could not do."""
        self._all_until = 0.0
        self.breaker.failed(operation, error)

    def close(self) -> None:
        """Send all calls to tiktoken from now on."""
        self.active = False
        self._all_until = 0.0

    def mixed(self) -> bool:
        """Whether some calls, or all, go through tiktoken now."""
        return not self.active or self.breaker.open or self.breaker.partial

    def _decide(self) -> int:
        if not self.active:
            return _NOT_OURS
        if self.breaker.open:
            ours = False
        elif self.breaker.partial:
            share = self._share + self.breaker.percent
            ours = share >= 100
            self._share = share - 100 if ours else share
        else:
            ours = True
            self._all_until = monotonic() + _LOOK_S
        began = perf_counter_ns() if self._due() else _TOLD
        return began if ours else -began
