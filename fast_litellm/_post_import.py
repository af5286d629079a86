"""Calls a function right after a module has been loaded, or at once when it already is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

Hook = Callable[[ModuleType], None]

_hooks: dict[str, Hook] = {}


class _Loader:
    """Loads as the module's own loader does, then calls the hook."""

    def __init__(self, loader: Any, hook: Hook) -> None:
        self._loader = loader
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        """Whatever else a loader can do, this one's own loader does."""
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave it to the module's own loader."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then the hook."""
        # From here on the module is its own loader's: whoever asks (pickle, inspect, resources) must
        # find what it would have found without us.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._hook(module)


class _Finder:
    """Finds hooked modules by asking everybody behind it."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """Answer for hooked modules only."""
        hook = _hooks.get(fullname)
        if hook is None:
            return None
        finders = list(sys.meta_path)
        for finder in finders[finders.index(_finder) + 1 :] if _finder in finders else ():
            if not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, hook)  # type: ignore[assignment]
                return spec
        return None


_finder: Any = _Finder()


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
