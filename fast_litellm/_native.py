"""The extension module, or plain Python in its place where it is not built.

Everything else imports the native names from here, so that there is one place that knows whether they
are native.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fast_litellm._rust import (
        VERSION,
        AdvancedRouter,
        Board,
        Call,
        CoreBPE,
        Deployments,
        Flight,
        Leader,
        LimiterScripts,
        Monitor,
        OutOfRangeError,
        PanicException,
        Region,
        RegionError,
        SimpleConnectionPool,
        SimpleRateLimiter,
        TokenCounter,
        UnavailableError,
        Watcher,
        default_region,
        set_default_region,
        set_sampling,
    )

    RUST_ACCELERATION_AVAILABLE: bool = True
else:
    try:
        from fast_litellm._rust import (
            VERSION,
            AdvancedRouter,
            Board,
            Call,
            CoreBPE,
            Deployments,
            Flight,
            Leader,
            LimiterScripts,
            Monitor,
            OutOfRangeError,
            PanicException,
            Region,
            RegionError,
            SimpleConnectionPool,
            SimpleRateLimiter,
            TokenCounter,
            UnavailableError,
            Watcher,
            default_region,
            set_default_region,
            set_sampling,
        )

        RUST_ACCELERATION_AVAILABLE = True
    except ImportError as error:
        from fast_litellm._fallback import (
            VERSION,
            AdvancedRouter,
            Board,
            Call,
            Deployments,
            Flight,
            Leader,
            LimiterScripts,
            Monitor,
            OutOfRangeError,
            PanicException,
            Region,
            RegionError,
            SimpleConnectionPool,
            SimpleRateLimiter,
            TokenCounter,
            UnavailableError,
            default_region,
            set_default_region,
            set_sampling,
        )

        # Plain Python has none: there tiktoken's own is at hand wherever this one would be of use.
        CoreBPE = None
        # Without a region there is nothing to look at.
        Watcher = None
        RUST_ACCELERATION_AVAILABLE = False
        warnings.warn(
            f"fast_litellm's extension cannot be loaded ({error}): limits hold within one process only "
            "and LiteLLM is left as it is; install a wheel for this platform",
            RuntimeWarning,
            stacklevel=4,
        )

__version__ = VERSION

#: What an operation of ours may raise: where it must not become a user's error, all of it is caught.
FAULTS: tuple[type[BaseException], ...] = (Exception, PanicException)

__all__ = [
    "FAULTS",
    "RUST_ACCELERATION_AVAILABLE",
    "VERSION",
    "AdvancedRouter",
    "Board",
    "Call",
    "CoreBPE",
    "Deployments",
    "Flight",
    "Leader",
    "LimiterScripts",
    "Monitor",
    "OutOfRangeError",
    "PanicException",
    "Region",
    "RegionError",
    "SimpleConnectionPool",
    "SimpleRateLimiter",
    "TokenCounter",
    "UnavailableError",
    "Watcher",
    "__version__",
    "default_region",
    "set_default_region",
    "set_sampling",
]
