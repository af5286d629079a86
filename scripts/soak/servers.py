"""The servers of a soak: gunicorn, preloaded, with a small service or with LiteLLM's proxy.

Both are upgraded in place (USR2), so their master changes while they run.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import time
import uuid
from pathlib import Path

from harness.proxy import READY_LINE, Proxy, Server, children, is_alive
from harness.setups import Deployment, Setup

SMALL_APP = Path(__file__).with_name("small_app.py")
MARK = "SOAK_RUN"
REGION_KEYS = 1024
"""Few, so that all pages of the region are soon in use and its memory should not grow any more."""

SLOW = "slow"
LIMITED = "limited"
MINUTE_LIMIT = 30

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of masters whose own parent, the master before them, has ended."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Upgradable(Server):
    """What is known of a gunicorn server that may be upgraded: its masters, workers and remains."""

    workers: int

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.run = uuid.uuid4().hex[:12]
        self.region_name = f"soak-{self.run}"
        self._first: int | None = None
        self._masters: list[int] = []

    @property
    def pid_file(self) -> Path:
        """Where gunicorn writes the pid of its master."""
        return self.directory / "pid"

    def marks(self) -> dict[str, str]:
        """What in the environment tells the server's processes and region."""
        return {
            MARK: self.run,
            "FAST_LITELLM_SHM_NAME": self.region_name,
            "FAST_LITELLM_SHM_KEYS": str(REGION_KEYS),
            # What the server leaves behind in there is found.
            "TMPDIR": str(self.directory / "tmp"),
        }

    def gunicorn(self, *arguments: str) -> list[str]:
        """The command line of gunicorn; of its script, which an upgrade runs again."""
        script = Path(sys.executable).with_name("gunicorn")
        if not script.exists():
            raise FileNotFoundError(f"{script}: install gunicorn beside {sys.executable}")
        return [sys.executable, str(script), *arguments]

    def start(self) -> None:
        """Start it and wait until it is ready."""
        super().start()
        self._first = self.pid
        self._masters = [self.pid]

    def prepare(self) -> None:
        """Write what the server needs into its directory."""
        super().prepare()
        (self.directory / "tmp").mkdir()

    def master(self) -> int:
        """The master that a reload is for; the older one of two."""
        return self.masters()[0]

    def new_master(self) -> int | None:
        """The master that an upgrade has started, while the old one is there."""
        return dict(enumerate(self.masters())).get(1)

    def masters(self) -> list[int]:
        """All masters alive, the older one first; one that is still loading the application, too."""
        alive = [pid for pid in self._masters if is_alive(pid)]
        new = [child for pid in alive for child in children(pid) if _is_upgrade_of(pid, child)]
        self._masters = [*alive, *(pid for pid in new if pid not in alive)]
        return list(self._masters)

    def pid_in_file(self) -> int | None:
        """The master that gunicorn's file names; `None` while it changes."""
        try:
            return int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None

    def all_workers(self) -> list[int]:
        """The workers of all masters."""
        masters = self.masters()
        return sorted({pid for master in masters for pid in children(master)} - set(masters))

    def boots(self) -> int:
        """How many times a worker has got ready since the start."""
        return self.log_text().count(READY_LINE)

    def is_ready(self) -> bool:
        """Whether all workers have got ready."""
        return self.boots() >= self.workers

    def reap_orphans(self) -> None:
        """Wait for masters that have ended; they are this process's children by now."""
        if self._first is None:
            return
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-self._first, os.WNOHANG)[0]:
                pass

    def end(self, timeout_s: float = 30.0) -> None:
        """Ask all masters to end and wait until nothing of the server runs any more."""
        for pid in reversed(self.masters()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while self.masters() and time.monotonic() < deadline:
            self.reap_orphans()
            time.sleep(0.05)
        while self.processes() and time.monotonic() < deadline:
            self.reap_orphans()
            time.sleep(0.1)

    def processes(self) -> list[int]:
        """Every process that came of the server, wherever it has gone."""
        mark = f"{MARK}={self.run}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return sorted(found)

    def files(self) -> list[str]:
        """Files that the server left behind where others would find them."""
        names = (self.region_name, self.run)
        shared = [path for path in Path("/dev/shm").iterdir() if any(n in path.name for n in names)]
        own = [*(self.directory / "tmp").iterdir(), *self.directory.glob("pid*")]
        return sorted(map(str, [*shared, *own]))

    def stop(self) -> None:
        """End and remove everything of the server, however it is."""
        if self._directory is not None:
            self._remove_remains()
        super().stop()
        self.reap_orphans()

    def _remove_remains(self) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for path in self.files():
            with contextlib.suppress(OSError):
                os.unlink(path)


class Small(Upgradable):
    """The small service."""

    def __init__(self, workers: int, sabotage: str = "") -> None:
        super().__init__()
        self.workers = workers
        self._sabotage = sabotage

    def prepare(self) -> None:
        """Copy the service: the checkout must not be on its path."""
        super().prepare()
        shutil.copy(SMALL_APP, self.directory / "app.py")

    def command(self) -> list[str]:
        """The command line."""
        return self.gunicorn(
            *("app:app", "--preload", "-w", str(self.workers), "--pid", str(self.pid_file)),
            *("-k", "uvicorn.workers.UvicornWorker", "-b", f"127.0.0.1:{self.port}"),
            *("--timeout", "60", "--graceful-timeout", "5"),
        )

    def environment(self) -> dict[str, str]:
        """The environment."""
        kept = {name: value for name, value in os.environ.items() if name != "GUNICORN_CMD_ARGS"}
        return {**kept, **self.marks(), "SOAK_SABOTAGE": self._sabotage}


class LiteLlm(Upgradable, Proxy):
    """LiteLLM's proxy."""

    def __init__(self, backend_url: str, workers: int, window_s: int) -> None:
        super().__init__(
            backend_url,
            workers=workers,
            accelerate=True,
            window_seconds=window_s,
            setup=Setup(
                (Deployment(LIMITED, params={"rpm": MINUTE_LIMIT}), Deployment(SLOW)),
                router={"optional_pre_call_checks": ["enforce_model_rate_limits"]},
            ),
        )

    def command(self) -> list[str]:
        """The command line."""
        arguments = Proxy.command(self)[3:]
        return self.gunicorn(*arguments, "--pid", str(self.pid_file))

    def environment(self) -> dict[str, str]:
        """The environment."""
        return {**Proxy.environment(self), **self.marks()}


def _is_upgrade_of(master: int, child: int) -> bool:
    """Whether a child of a master is not its worker but the master that is to follow it."""
    try:
        environment = Path(f"/proc/{child}/environ").read_bytes()
    except OSError:
        return False
    return f"GUNICORN_PID={master}".encode() in environment.split(b"\0")
