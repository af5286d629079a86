"""What the `fast-litellm` command puts before a program: fast_litellm is imported ahead of its server.

Python runs this at its start, in the program and in each of its children, so it imports nothing and does
nothing until a server is imported: `pip`, helpers and `python -c` get no region. It never fails a start.
"""

import sys

#: As in `typing`, which is not worth its import here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

_SERVERS = ("gunicorn.app", "gunicorn.arbiter", "uvicorn", "hypercorn", "granian", "litellm")


class _Trigger:
    """Imports fast_litellm right before the first of the servers."""

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> "ModuleSpec | None":
        """Find nothing; for the first of the servers, what the finders do that there are then."""
        if name not in _SERVERS or self not in sys.meta_path:
            return None
        # Who looks whether there is one, and finds none, starts no server.
        if self._found(name, path, target) is None:
            return None
        # A finder that asks all of them for the same has been here by now.
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            _accelerate()
        # This import goes on behind the place where fast_litellm has put its own finder.
        return self._found(name, path, target)

    def _found(self, name: str, path: object, target: object) -> "ModuleSpec | None":
        for finder in list(sys.meta_path):
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec: ModuleSpec | None = finder.find_spec(name, path, target)  # type: ignore[arg-type]
            if spec is not None:
                return spec
        return None


def _accelerate() -> None:
    try:
        import fast_litellm  # noqa: F401
    except ValueError as error:
        # A malformed setting stops the start, also of a program that takes the server for optional.
        raise SystemExit(f"fast-litellm: {error}") from None
    except Exception as error:  # noqa: BLE001  # the program works without
        sys.stderr.write(
            "fast-litellm: limits are NOT shared between workers: "
            f"{sys.executable} cannot import fast_litellm: {error}; install it there\n"
        )


def _hand_over() -> None:
    """Run the sitecustomize that there would be without this one, in its place."""
    directory = __file__.rpartition("/")[0]
    # Not needed any more; children find it through PYTHONPATH.
    sys.path[:] = [entry for entry in sys.path if entry != directory]
    this = sys.modules.pop(__name__)
    try:
        __import__(__name__)
    except ImportError as error:
        if error.name != __name__:
            raise
        sys.modules[__name__] = this


sys.meta_path.insert(0, _Trigger())
if __name__ == "sitecustomize":
    _hand_over()
