"""Calls a function right after a module has been loaded, or at once when it already is."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType

Hook = Callable[[ModuleType], None]

_hooks: dict[str, Hook] = {}
_looking = threading.local()


class _Loader(importlib.abc.Loader):
    """Loads as the module's own loader does, then calls the hook."""

    def __init__(self, loader: importlib.abc.Loader, hook: Hook) -> None:
        self._loader = loader
        self._hook = hook

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module is its own loader's: whoever asks (pickle, inspect, resources) must
        # find what it would have found without us.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._hook(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds hooked modules by asking everybody else."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        hook = _hooks.get(fullname)
        looking = getattr(_looking, "names", ())
        if hook is None or fullname in looking:
            return None
        _looking.names = (*looking, fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            _looking.names = looking
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, hook)
        return spec


_finder = _Finder()


def when_imported(name: str, hook: Hook) -> None:
    """Call `hook(module)` after `name` has been imported; at once when it has been already.

    An exception of the hook would fail somebody else's import, so hooks must not raise.
    """
    _hooks[name] = hook
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    module = sys.modules.get(name)
    if module is not None:
        hook(module)


def forget(name: str) -> None:
    """Undo `when_imported` for modules that are not loaded yet."""
    _hooks.pop(name, None)
    if not _hooks and _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
