"""The processes of an end-to-end test: the proxy under gunicorn, the fake provider, Redis.

Each is a context manager that listens on a free loopback port, is ready once entered, and is gone
once left, however the body ended. All waits are bounded.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import Self

from . import faults
from .setups import Setup

BOOT_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 20.0
READY_LINE = "Application startup complete"
FAKE_SERVER = Path(__file__).with_name("fake_openai.py")

AUTH_MODULE = '''\
"""Reads the limits of a key out of the key itself, so that no database is needed.

`sk-r20-t900-p5-uALICE-ur20-name` has rpm 20, tpm 900 and at most 5 requests in parallel, and
belongs to user ALICE, who has rpm 20 over all keys. Every part but the name is optional.
"""

import re

from litellm.proxy._types import UserAPIKeyAuth

NUMBERS = {
    "r": "rpm_limit",
    "t": "tpm_limit",
    "p": "max_parallel_requests",
    "ur": "user_rpm_limit",
}


async def authenticate(request, api_key):
    fields = {}
    for part in api_key.split("-")[1:-1]:
        number = re.fullmatch(r"(r|t|p|ur)(\\d+)", part)
        if number:
            fields[NUMBERS[number[1]]] = int(number[2])
        elif part.startswith("u"):
            fields["user_id"] = part[1:]
        else:
            raise ValueError(f"cannot read {part!r} in key {api_key!r}")
    return UserAPIKeyAuth(api_key=api_key, **fields)
'''

OFFLINE = {
    # Without these LiteLLM fetches its price map and other tables from GitHub at import.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_TELEMETRY": "False",
    # Any other mode reads a .env file from the directories above.
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "WARNING",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}

# Settings of the surrounding shell that would quietly turn a test into a different one.
UNWANTED = ("DATABASE_URL", "REDIS_", "LITELLM_MASTER_KEY", "OPENAI_", "GUNICORN_CMD_ARGS")

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


class StartError(RuntimeError):
    """A process did not get ready."""


class Server:
    """A child process that listens on a loopback port."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None

    @property
    def directory(self) -> Path:
        """The temporary directory that the process runs in."""
        if self._directory is None:
            raise RuntimeError("not started")
        return self._directory

    @property
    def pid(self) -> int:
        """The process id."""
        if self._process is None:
            raise RuntimeError("not started")
        return self._process.pid

    @property
    def log_path(self) -> Path:
        """Where the output of the process goes."""
        return self.directory / "server.log"

    def log_text(self) -> str:
        """All that the process has written so far."""
        return self.log_path.read_text(errors="replace")

    def prepare(self) -> None:
        """Write what the process needs into its directory."""

    def command(self) -> list[str]:
        """The command line."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """The environment."""
        return dict(os.environ)

    def is_ready(self) -> bool:
        """Whether the process answers by now."""
        return can_connect(self.port)

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        self._directory = Path(tempfile.mkdtemp(prefix="harness-"))
        try:
            self.prepare()
            self._spawn()
            self.wait_until(self.is_ready, BOOT_TIMEOUT_S, "get ready")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the process and all its children, by force when asking does not help."""
        process, self._process = self._process, None
        if process is not None:
            # The process leads a group of its own, so its orphans are found even when it died.
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_TIMEOUT_S)
            _kill_group(process.pid)
            process.wait(STOP_TIMEOUT_S)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def wait_until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for the condition; when it does not come, or the process dies, show the log."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            code = None if self._process is None else self._process.poll()
            if code is not None:
                raise StartError(f"{self!r} exited with {code}; log:\n{self.log_text()[-6000:]}")
            if time.monotonic() > deadline:
                raise StartError(
                    f"{self!r} did not {what} in {timeout_s:.0f} s; log:\n{self.log_text()[-6000:]}"
                )
            time.sleep(0.05)

    def _spawn(self) -> None:
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on port {self.port}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class FakeBackend(Server):
    """The fake provider of `fake_openai`."""

    def __init__(self, python: str = sys.executable) -> None:
        super().__init__()
        self._python = python

    @property
    def url(self) -> str:
        """The root that deployment names are appended to."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [self._python, str(FAKE_SERVER), "--port", str(self.port)]

    def configure(self, deployment: str = "fake", **settings: float | str) -> None:
        """Set how a deployment answers from now on: latency, status, token counts, texts."""
        self._call("POST", f"/control/{deployment}", settings)

    def stats(self, deployment: str = "fake") -> dict[str, Any]:
        """The counters of a deployment: total, in_flight, peak and client_ports."""
        none = {"total": 0, "in_flight": 0, "peak": 0, "client_ports": []}
        return dict(self._call("GET", "/stats").get(deployment, none))

    def peak_of_sockets(self) -> int:
        """Most sockets that callers had open at once, busy or idle, since the last reset."""
        return int(self._call("GET", "/sockets")["peak"])

    def reset(self) -> None:
        """Forget all counts and settings, and let waiting requests finish at once."""
        self._call("POST", "/reset")

    def _call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ValueError(f"{method} {path}: {answer}")
        return answer


class RedisServer(Server):
    """A Redis that keeps nothing on disk."""

    @staticmethod
    def is_available() -> bool:
        """Whether there is a `redis-server` to start."""
        return shutil.which("redis-server") is not None

    @property
    def url(self) -> str:
        """Where to connect to."""
        return f"redis://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [
            *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no"),
        ]


class Proxy(Server):
    """The LiteLLM proxy, preloaded by gunicorn and forked into workers."""

    def __init__(
        self,
        backend_url: str,
        *,
        workers: int = 4,
        accelerate: bool = False,
        python: str = sys.executable,
        redis_url: str | None = None,
        window_seconds: int = 60,
        setup: Setup | None = None,
        extra_env: Mapping[str, str] | None = None,
        extra_config: Mapping[str, Any] | None = None,
        extra_args: Sequence[str] = (),
        with_faults: bool = False,
    ) -> None:
        super().__init__()
        self.backend_url = backend_url
        self.workers = workers
        self.accelerate = accelerate
        self.window_seconds = window_seconds
        self.setup = setup or Setup()
        self._python = python
        self._redis_url = redis_url
        self._extra_env = dict(extra_env or {})
        self._extra_config = dict(extra_config or {})
        self._extra_args = list(extra_args)
        self._faults = with_faults

    @property
    def base_url(self) -> str:
        """Where the proxy answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def master_pid(self) -> int:
        """The process id of the gunicorn master."""
        return self.pid

    def worker_pids(self) -> list[int]:
        """The process ids of the workers alive now."""
        return children(self.master_pid)

    def boots(self) -> int:
        """How many times a worker has got ready since the start."""
        return self.log_text().count(READY_LINE)

    def wait_for_boots(self, count: int) -> None:
        """Wait until workers have got ready that many times."""
        self.wait_until(lambda: self.boots() >= count, BOOT_TIMEOUT_S, f"boot {count} workers")

    def hup(self) -> None:
        """Have gunicorn replace all workers, and wait until only new ones are left."""
        old, boots = set(self.worker_pids()), self.boots()
        os.kill(self.master_pid, signal.SIGHUP)
        self.wait_for_boots(boots + self.workers)
        self.wait_until(
            lambda: not old & set(self.worker_pids()), BOOT_TIMEOUT_S, "end its old workers"
        )

    def use(self, setup: Setup) -> bool:
        """Have all workers run on a setup; tells whether they had to be replaced for it."""
        if setup == self.setup:
            return False
        self.setup = setup
        self._write_config()
        # LiteLLM reads its configuration in the workers.
        self.hup()
        return True

    def kill_worker(self, pid: int) -> None:
        """Kill a worker with no chance to clean up; gunicorn will start another."""
        if pid not in self.worker_pids():
            raise ValueError(f"{pid} is no worker of {self!r}")
        os.kill(pid, signal.SIGKILL)

    def prepare(self) -> None:
        lines = ["import fast_litellm  # noqa: F401"] if self.accelerate else []
        if self._faults:
            (self.directory / "harness_faults.py").write_text(faults.CODE)
            faults.Faults(self.directory).none()
            lines.append("import harness_faults  # noqa: F401")
        lines.append("from litellm.proxy.proxy_server import app  # noqa: F401")
        (self.directory / "app.py").write_text("\n".join(lines) + "\n")
        (self.directory / "harness_auth.py").write_text(AUTH_MODULE)
        self._write_config()

    def command(self) -> list[str]:
        return [
            *(self._python, "-m", "gunicorn", "app:app", "--preload", "-w", str(self.workers)),
            *("-k", "uvicorn.workers.UvicornWorker", "-b", f"127.0.0.1:{self.port}"),
            *("--timeout", "120", "--graceful-timeout", "5", *self._extra_args),
        ]

    def environment(self) -> dict[str, str]:
        kept = {name: v for name, v in os.environ.items() if not name.startswith(UNWANTED)}
        return {
            **kept,
            **OFFLINE,
            "CONFIG_FILE_PATH": str(self.directory / "config.yaml"),
            "LITELLM_RATE_LIMIT_WINDOW_SIZE": str(self.window_seconds),
            **self._extra_env,
        }

    def is_ready(self) -> bool:
        return self.boots() >= self.workers

    def config(self) -> dict[str, Any]:
        """The proxy's configuration file, as data."""
        config: dict[str, Any] = {
            "model_list": self.setup.model_list(self.backend_url),
            # A retry or a cooldown would add requests to the counts, or take some away.
            "router_settings": {"num_retries": 0, "disable_cooldowns": True},
            "litellm_settings": {"num_retries": 0, "telemetry": False},
            "general_settings": {
                "custom_auth": "harness_auth.authenticate",
                # Nobody uses it, but LiteLLM refuses to start without one.
                "master_key": f"sk-{secrets.token_hex(32)}",
            },
        }
        if self._redis_url is not None:
            _merge(config["litellm_settings"], _redis_settings(self._redis_url))
        _merge(config["router_settings"], self.setup.router)
        _merge(config["general_settings"], self.setup.general)
        return _merge(config, self._extra_config)

    def _write_config(self) -> None:
        # JSON is YAML, and this way no YAML library is needed to write it.
        (self.directory / "config.yaml").write_text(json.dumps(self.config(), indent=2))


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def can_connect(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def owners_of_ports(pids: Sequence[int], ports: Sequence[int], peer: int) -> dict[int, int]:
    """Which of the processes owns the local end of each loopback port, connected to the port `peer`.

    Ports that none of them owns are left out.
    """
    by_inode = {inode: port for port, inode in _tcp_inodes(peer).items() if port in ports}
    owners: dict[int, int] = {}
    for pid in pids:
        for inode in _socket_inodes(pid) & by_inode.keys():
            owners[by_inode[inode]] = pid
    return owners


def _tcp_inodes(peer: int) -> dict[int, str]:
    # A local port may have connections to several ports.
    established = "01"
    inodes = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[3] == established and int(columns[2].rpartition(":")[2], 16) == peer:
            inodes[int(columns[1].rpartition(":")[2], 16)] = columns[9]
    return inodes


def _socket_inodes(pid: int) -> set[str]:
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:  # closed since it was listed
            continue
        if target.startswith("socket:["):
            inodes.add(target[len("socket:[") : -1])
    return inodes


def children(parent: int) -> list[int]:
    """The process ids of the children of a process that live."""
    return _living(1, parent)


def group(leader: int) -> list[int]:
    """The process ids of the members of a process group that live."""
    return _living(2, leader)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return _stat(pid)[:1] not in ([], ["Z"], ["X"])


def _living(field: int, value: int) -> list[int]:
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    stats = {pid: _stat(pid) for pid in pids}
    return [
        pid for pid, stat in stats.items() if stat and stat[0] != "Z" and stat[field] == str(value)
    ]


def _stat(pid: int) -> list[str]:
    """What `/proc` says of a process: its state, parent, group and so on; nothing when it is gone."""
    try:
        # The name before these may hold anything, so read on from its last bracket.
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def command_line(pid: int) -> bytes:
    """A process's arguments, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _redis_settings(url: str) -> dict[str, Any]:
    # The rate limiter borrows the connection of the response cache. No call type is to be cached:
    # a cached answer would never reach the fake provider.
    address = urlsplit(url)
    return {
        "cache": True,
        "cache_params": {
            "type": "redis",
            "host": address.hostname,
            "port": address.port,
            "supported_call_types": [],
        },
    }


def _merge(base: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in extra.items():
        if isinstance(value, Mapping) and isinstance(base.get(name), dict):
            _merge(base[name], value)
        else:
            base[name] = value
    return base


def _die_with_parent() -> None:
    # Runs in the child. Covers the one case that no `finally` does: the test run being killed.
    # The kernel looks at the thread that started the child, so start servers from a lasting one.
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
