"""A gunicorn configuration with which all workers share one region, with and without `--preload`::

    gunicorn -c python:fast_litellm.gunicorn app:app -w 4

gunicorn reads it in the master before it forks a worker. A configuration of your own goes on to count:
that of `FAST_LITELLM_GUNICORN_CONFIG` (a path, or `python:module` as gunicorn has it), else
`./gunicorn.conf.py` if it is there. All its settings are taken over; of a hook that both have both are
called, yours first.

The other way round, a configuration of your own may begin with this, which reads no other file::

    from fast_litellm.gunicorn import *

With `import fast_litellm` instead the workers share a region too, and nothing is logged.
"""

from __future__ import annotations

import sys as _sys
from typing import Any as _Any

from fast_litellm import _gunicorn_config
from fast_litellm.integrations.gunicorn import careful as _careful
from fast_litellm.integrations.gunicorn import child_exit, worker_exit

__all__ = ["child_exit", "when_ready", "worker_exit"]


def on_starting(server: _Any) -> None:
    """Have gunicorn read the configuration anew when it is told to reload."""
    # It imports a module once; a file it would read each time.
    _sys.modules.pop(__name__, None)


def on_reload(server: _Any) -> None:
    """As `on_starting`: the configuration has just been read anew."""
    _sys.modules.pop(__name__, None)


@_careful("whether limits are shared was not logged")
def when_ready(server: _Any) -> None:
    """Log whether the workers share their limits, and what in."""
    _gunicorn_config.tell(server)


if _gunicorn_config.is_read_by_gunicorn():
    _ours = {_name: globals()[_name] for _name in (*__all__, "on_reload", "on_starting")}
    globals().update(_gunicorn_config.merged(_ours))
