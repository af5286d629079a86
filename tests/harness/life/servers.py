"""The servers of the matrix: the application of `app`, started in every way there is."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..proxy import UNWANTED, Server, StartError, children, free_port, group
from .client import Client
from .judge import Limits

END_TIMEOUT_S = 10.0
#: What gunicorn says as it begins to reload.
RELOADS = "Handling signal: hup\n"
APPLICATION = Path(__file__).with_name("app.py")

_numbers = itertools.count(1)


class LifeServer(Server):
    """One that serves the application, in a directory where all that it leaves would be found."""

    #: Whether workers are processes of their own.
    forks = True
    #: Requests a second that it bears while most of its workers hold something, and the milliseconds that
    #: each holds it.
    bears = (150, 20)

    def __init__(
        self,
        *,
        workers: int = 2,
        limits: Limits | None = None,
        shm: Path | None = None,
        port: int | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.port = port or free_port()
        self.workers = workers
        self.limits = limits or Limits()
        self.name = f"life-{os.getpid()}-{next(_numbers)}"
        self.master_pid = 0
        self._shm = shm
        self._arguments = list(arguments)
        self._extra = dict(environment or {})

    @property
    def region_name(self) -> str:
        """The name of its region in `fl-shm ls`."""
        return str(self._shm or self.name)

    def prepare(self) -> None:
        shutil.copy(APPLICATION, self.directory)
        (self.directory / "tmp").mkdir()

    def environment(self) -> dict[str, str]:
        return {
            **app_environment(self.directory, self.name, self.limits),
            **({"FAST_LITELLM_SHM": str(self._shm)} if self._shm else {}),
            **self._extra,
        }

    def start(self) -> None:
        super().start()
        self.master_pid = self.pid

    def is_ready(self) -> bool:
        """Whether there are as many workers as asked for, and one answers."""
        if self.forks and len(children(self.pid)) < self.workers:
            return False
        if not super().is_ready():
            return False
        with Client(self.port) as client:
            return bool(client.about())

    def worker_pids(self) -> list[int]:
        """The process ids of the workers alive now."""
        return children(self.master_pid)

    def processes(self) -> list[int]:
        """All processes that were started by this server and live, however they are related by now."""
        return group(self.pid)

    def until(self, condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
        """Wait for a condition, whichever of the processes live; when it does not come, show the log."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise StartError(f"{self!r} did not {what}; log:\n{self.log_text()[-6000:]}")
            time.sleep(0.02)

    def replaced(self, old: Sequence[int], workers: int | None = None) -> list[int]:
        """Wait until none of the old workers is left and all new ones are there."""
        wanted = workers or self.workers

        def new() -> bool:
            now = self.worker_pids()
            return len(now) == wanted and not set(old) & set(now)

        self.until(new, "replace its workers")
        return self.worker_pids()

    def end(self) -> list[int]:
        """Ask it to end; returns the processes that are left."""
        os.kill(self.master_pid, signal.SIGTERM)
        left = self.processes
        deadline = time.monotonic() + END_TIMEOUT_S
        while left() and time.monotonic() < deadline:
            self.poll()
            time.sleep(0.02)
        return left()

    def poll(self) -> int | None:
        """Wait for the first process if it has ended; its exit code."""
        return None if self._process is None else self._process.poll()


class Gunicorn(LifeServer):
    """gunicorn, with any class of workers."""

    def __init__(
        self,
        worker_class: str = "uvicorn.workers.UvicornWorker",
        *,
        preload: bool = True,
        timeout_s: int = 30,
        configuration: str = "",
        **options: object,
    ) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.worker_class = worker_class
        if worker_class == "sync":
            # Whoever holds a slot answers nobody else.
            self.bears = (75, 10)
        self._preload = preload
        self._timeout_s = timeout_s
        self._configuration = configuration

    def prepare(self) -> None:
        super().prepare()
        (self.directory / "gunicorn.conf.py").write_text(self._configuration)

    def command(self) -> list[str]:
        interface = "asgi" if "uvicorn" in self.worker_class else "wsgi"
        # Started as a module it could not start itself again: its directory would hide Python's `http`.
        program = str(Path(sys.executable).with_name("gunicorn"))
        return [
            *(program, f"app:{interface}", "-w", str(self.workers)),
            *("-k", self.worker_class, "-b", f"127.0.0.1:{self.port}"),
            *("--timeout", str(self._timeout_s), "--graceful-timeout", "2"),
            *(["--preload"] if self._preload else []),
            *(["--threads", "8"] if self.worker_class == "gthread" else []),
            *self._arguments,
        ]

    def configure(self, configuration: str) -> None:
        """Write another configuration, for the next reload."""
        (self.directory / "gunicorn.conf.py").write_text(configuration)

    def reload(self) -> list[int]:
        """Have all workers replaced; returns the new ones."""
        old = self.worker_pids()
        os.kill(self.master_pid, signal.SIGHUP)
        return self.replaced(old)

    def reloads_begun(self) -> int:
        """How many reloads it says that it has begun."""
        return self.log_text().count(RELOADS)

    def after_last_reload(self) -> list[int]:
        """Wait until the reload that was begun last is over; returns the workers that it started."""

        def started() -> set[int]:
            since = self.log_text().rpartition(RELOADS)[2]
            return {int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)\n", since)}

        def over() -> bool:
            now = self.worker_pids()
            return len(now) == self.workers and set(now) <= started()

        self.until(over, "reload")
        return self.worker_pids()

    def upgrade(self) -> int:
        """Start a second master beside the first, which serves, too; returns its pid."""
        workers = self.worker_pids()
        os.kill(self.master_pid, signal.SIGUSR2)

        def second() -> list[int]:
            return [pid for pid in self.worker_pids() if pid not in workers]

        self.until(lambda: any(len(children(p)) == self.workers for p in second()), "upgrade")
        return next(pid for pid in second() if len(children(pid)) == self.workers)


class Uvicorn(LifeServer):
    """uvicorn, whose workers are spawned; one of them runs in the process itself."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.forks = self.workers > 1

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-P", "-m", "uvicorn", "app:asgi", "--port", str(self.port)),
            *("--app-dir", ".", "--log-level", "info", "--no-access-log"),
            *(["--workers", str(self.workers)] if self.workers > 1 else []),
            # It kills workers that a busy machine keeps from answering it.
            *("--timeout-worker-healthcheck", "20"),
            *self._arguments,
        ]

    def worker_pids(self) -> list[int]:
        return _workers(super().worker_pids()) if self.forks else [self.master_pid]


class Granian(LifeServer):
    """granian, whose workers are spawned."""

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-P", "-m", "granian", "--interface", "asgi"),
            *("--port", str(self.port), "--workers", str(self.workers)),
            *("--respawn-failed-workers", "--respawn-interval", "0", "app:asgi"),
            *self._arguments,
        ]

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "PYTHONPATH": "."}

    def worker_pids(self) -> list[int]:
        return _workers(super().worker_pids())


def app_environment(directory: Path, name: str, limits: Limits) -> dict[str, str]:
    """The environment of the application in a directory, and of a region of that name."""
    dropped = (*UNWANTED, "FAST_LITELLM", "PYTHONPATH")
    return {
        **{name: v for name, v in os.environ.items() if not name.startswith(dropped)},
        "FAST_LITELLM_SHM_NAME": name,
        "FAST_LITELLM_SHM_KEYS": "1024",
        "FAST_LITELLM_SHM_LEASE_CHUNKS": "256",
        "LIFE_SLOTS": str(limits.slots),
        "LIFE_RATE": str(limits.per_minute),
        "LIFE_BURST": str(limits.burst),
        "HOME": str(directory / "tmp"),
        "TMPDIR": str(directory / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONWARNINGS": "ignore",
    }


def _workers(pids: Sequence[int]) -> list[int]:
    """Without the helper that multiprocessing starts beside them."""

    def is_worker(pid: int) -> bool:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:  # gone since it was listed
            return False
        return re.search(rb"resource_tracker|forkserver import", command) is None

    return [pid for pid in pids if is_worker(pid)]
