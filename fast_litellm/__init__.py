"""Exact limits over all preforked workers, in one shared-memory region.

Import this before LiteLLM's proxy, in the process that forks the workers::

    import fast_litellm
    from litellm.proxy.proxy_server import app

Importing creates the region, arranges for children to register themselves, and arms the seams in
LiteLLM, which are applied when LiteLLM's own modules load. It does not import LiteLLM.
"""

from fast_litellm._acceleration import (
    apply_acceleration,
    get_patch_status,
    health_check,
    remove_acceleration,
)
from fast_litellm._cli import is_running as _is_inspector
from fast_litellm._comparison import compare_implementations
from fast_litellm._export import export_performance_data
from fast_litellm._features import get_feature_status, is_enabled, reset_errors, set_feature
from fast_litellm._limits import SimpleRateLimiter, check_rate_limit, get_rate_limit_stats
from fast_litellm._monitor import get_performance_stats, record_performance
from fast_litellm._native import RUST_ACCELERATION_AVAILABLE, Leader, __version__
from fast_litellm._pool import (
    SimpleConnectionPool,
    cleanup_expired_connections,
    get_connection,
    get_connection_pool_stats,
    health_check_connection,
    remove_connection,
    return_connection,
)
from fast_litellm._recommendations import get_recommendations
from fast_litellm._routing import AdvancedRouter, Call, get_available_deployment
from fast_litellm._tokens import SimpleTokenCounter
from fast_litellm.errors import (
    ConfigError,
    FastLitellmError,
    OutOfRangeError,
    RegionError,
    UnavailableError,
    UnknownModelError,
)

__all__ = [
    "RUST_ACCELERATION_AVAILABLE",
    "AdvancedRouter",
    "Call",
    "ConfigError",
    "FastLitellmError",
    "Leader",
    "OutOfRangeError",
    "RegionError",
    "SimpleConnectionPool",
    "SimpleRateLimiter",
    "SimpleTokenCounter",
    "UnavailableError",
    "UnknownModelError",
    "__version__",
    "apply_acceleration",
    "check_rate_limit",
    "cleanup_expired_connections",
    "compare_implementations",
    "export_performance_data",
    "get_available_deployment",
    "get_connection",
    "get_connection_pool_stats",
    "get_feature_status",
    "get_patch_status",
    "get_performance_stats",
    "get_rate_limit_stats",
    "get_recommendations",
    "health_check",
    "health_check_connection",
    "is_enabled",
    "record_performance",
    "remove_acceleration",
    "remove_connection",
    "reset_errors",
    "return_connection",
    "set_feature",
]

# The fl-shm command imports this package too, but looks at other processes' regions and needs none.
if not _is_inspector():
    apply_acceleration()
