"""Applies the acceleration from LiteLLM's configuration file, where the command line cannot be changed::

    litellm_settings:
      callbacks: ["fast_litellm.proxy.callback"]

LiteLLM loads its callbacks in each worker, before it makes the Router and its limiters. A malformed
setting of fast_litellm's stops the worker with its message. Requests are none the slower: once loaded,
the callback has done its work, and it leaves LiteLLM's list when the Router is made.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    """Make `callback` when LiteLLM asks for it: its base class is LiteLLM's."""
    if name != "callback":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fast_litellm.integrations.litellm._compat import idle_logger

    return idle_logger()
