"""Puts a user's gunicorn configuration together with the hooks of `fast_litellm.gunicorn`."""

from __future__ import annotations

import functools
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from fast_litellm import _native
from fast_litellm._acceleration import get_patch_status
from fast_litellm._log import logger
from fast_litellm._region import is_apart

_VARIABLE = "FAST_LITELLM_GUNICORN_CONFIG"
_DEFAULT = "gunicorn.conf.py"
#: What gunicorn calls a configuration file's module.
_MODULE = "__config__"

Hook = Callable[..., Any]


def is_read_by_gunicorn() -> bool:
    """Whether the module that asks is imported as gunicorn's configuration, not by a configuration."""
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] != "importlib":
            return bool(module == "gunicorn.app.base")
        frame = frame.f_back  # type: ignore[assignment]
    return False


def merged(hooks: Mapping[str, Hook]) -> dict[str, Any]:
    """The user's settings, and of hooks that are on both sides one that calls both.

    Raises:
        RuntimeError: a configuration was named that is not there; gunicorn shows it and stops.
        SystemExit: it cannot be read; the traceback has been shown.
    """
    from gunicorn.config import KNOWN_SETTINGS

    known = {setting.name for setting in KNOWN_SETTINGS}
    users = {name: value for name, value in _users().items() if name in known}
    raw_env = users.get("raw_env") or ()
    entries = raw_env.split(",") if isinstance(raw_env, str) else raw_env
    late = [entry for entry in entries if str(entry).strip().startswith("FAST_LITELLM_")]
    if late:
        logger().warning(
            "raw_env is set after the region has been made: set %s in gunicorn's own environment",
            ", ".join(str(entry).strip().partition("=")[0] for entry in late),
        )
    for name, ours in hooks.items():
        if name in users and users[name] is not ours:
            users[name] = _both(users[name], ours)
    return users


def tell(server: Any) -> None:
    """Log in gunicorn's log whether the workers share a region."""
    region = _native.default_region()
    reason = get_patch_status()["reason"]
    if not reason and region is not None and is_apart(region):
        reason = "; ".join(region.obstacles)
    if region is None or reason:
        server.log.warning("fast_litellm: limits are NOT shared between workers: %s", reason)
        return
    server.log.info(
        "fast_litellm: all workers share one region of %.1f MiB (%s): fl-shm inspect --pid %d",
        region.size / 2**20,
        region.backing,
        os.getpid(),
    )


def _users() -> dict[str, Any]:
    """What the user's own configuration defines; empty if there is none."""
    location = os.environ.get(_VARIABLE, "").strip()
    if location.startswith("python:"):
        return vars(importlib.import_module(location.removeprefix("python:")))
    path = location.removeprefix("file:")
    if not path:
        path = os.path.join(os.getcwd(), _DEFAULT)
        return _read(path) if os.path.exists(path) else {}
    if not os.path.exists(path):
        raise RuntimeError(
            f"{_VARIABLE}={location!r} doesn't exist: use a path or python:module, or leave it unset"
        )
    return _read(path)


def _read(path: str) -> dict[str, Any]:
    """Run a configuration file as gunicorn does, which also shows why it fails."""
    try:
        loader = importlib.machinery.SourceFileLoader(_MODULE, path)
        spec = importlib.util.spec_from_loader(_MODULE, loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[_MODULE] = module
        loader.exec_module(module)
    except Exception:  # noqa: BLE001  # whatever the user's code raises
        sys.stderr.write(f"Failed to read config file: {path}\n")
        traceback.print_exc()
        sys.exit(1)
    return vars(module)


def _both(theirs: Any, ours: Hook) -> Any:
    """A hook that calls the user's first, then ours, which is careful."""
    if isinstance(theirs, str):
        from gunicorn.config import validate_callable

        theirs = validate_callable(-1)(theirs)
    if not callable(theirs):
        # gunicorn says so.
        return theirs

    # gunicorn looks at the number of arguments, which has to be right of the user's.
    @functools.wraps(theirs)
    def both(*args: Any) -> Any:
        try:
            return theirs(*args)
        finally:
            ours(*args)

    return both
