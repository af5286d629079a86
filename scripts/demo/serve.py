"""Serves LiteLLM with fast_litellm under gunicorn until Ctrl-C; the Python half of `scripts/run`."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

DEMO = Path(__file__).resolve().parent
ROOT = DEMO.parents[1]
# Not the root of the checkout: its `fast_litellm` directory would hide the installed package.
sys.path.insert(0, str(ROOT / "tests"))

from harness.proxy import Proxy, StartError  # noqa: E402

HEARTBEAT_S = 15
FL_SHM = Path(sys.executable).with_name("fl-shm")


class DemoProxy(Proxy):
    """The proxy of `app.py`, on the demo's configuration or the user's own."""

    def __init__(
        self, *, workers: int, log: Path, port: int | None = None, config: Path | None = None
    ) -> None:
        # There is no provider: the demo's answers are LiteLLM's own.
        super().__init__("", workers=workers, accelerate=True)
        self.port = port or self.port
        self._config_file = config
        self._log = log
        self._progress = Progress("starting LiteLLM")

    @property
    def log_path(self) -> Path:
        """Outlives the run, unlike the harness's."""
        return self._log

    def prepare(self) -> None:
        """All files are in the checkout."""
        self._log.parent.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        """Start in the demo's directory, wherever the configuration is."""
        return [*super().command(), "--chdir", str(DEMO)]

    def environment(self) -> dict[str, str]:
        """The demo's own, or with a configuration of the user's, the user's."""
        if self._config_file is not None:
            return {**os.environ, "CONFIG_FILE_PATH": str(self._config_file)}
        return {
            **super().environment(),
            "CONFIG_FILE_PATH": str(DEMO / "config.yaml"),
            # LiteLLM insists on one that is hard to guess.
            "LITELLM_MASTER_KEY": f"sk-{secrets.token_hex(32)}",
        }

    def is_ready(self) -> bool:
        """Whether all workers are up."""
        boots = self.boots()
        self._progress.show(f"{min(boots, self.workers)} of {self.workers} workers ready")
        return boots >= self.workers

    def start(self) -> None:
        """Start, with progress shown."""
        try:
            super().start()
        except BaseException:
            self._progress.end("FAIL", "")
            raise
        self._progress.end("ok", f"{self.workers} workers")

    def has_ended(self) -> bool:
        """Whether gunicorn has stopped by itself."""
        return self._process is None or self._process.poll() is not None

    def fl_shm(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `fl-shm inspect` on this proxy's region."""
        command = [str(FL_SHM), "inspect", *arguments, "--pid", str(self.master_pid)]
        return subprocess.run(command, capture_output=True, text=True, timeout=20)


class Progress:
    """One changing line on a terminal, else a line now and then."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._begun = time.monotonic()
        self._next_s = 0

    def show(self, detail: str) -> None:
        """Tell how far it is."""
        elapsed_s = int(time.monotonic() - self._begun)
        if sys.stdout.isatty():
            print(f"\r\033[K  ...  {self._what}: {detail} ({elapsed_s}s)", end="", flush=True)
        elif elapsed_s >= self._next_s:
            self._next_s = elapsed_s + HEARTBEAT_S
            print(f"  ...  {self._what}: {detail} ({elapsed_s}s)", flush=True)

    def end(self, mark: str, detail: str) -> None:
        """Leave a line that stays."""
        clear = "\r\033[K" if sys.stdout.isatty() else ""
        what = f"{self._what}: {detail}" if detail else self._what
        print(f"{clear}  {mark:<4} {what} ({time.monotonic() - self._begun:.0f}s)", flush=True)


def stop_on_signals() -> None:
    """Turn every polite request to stop into an orderly exit, also where Ctrl-C is off by default."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))


def short(path: Path) -> str:
    """A path as it can be pasted here."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def explain_failure(what: str, log: Path) -> None:
    """Say what failed and show the end of its log."""
    print(f"error: {what}; the last lines of {short(log)}:", file=sys.stderr)
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    for line in lines[-30:]:
        print(f"  | {line}", file=sys.stderr)


def introduce(proxy: DemoProxy, config: Path | None) -> None:
    """Say what can be done now."""
    url = f"{proxy.base_url}/v1/chat/completions"
    watch = f"{short(FL_SHM)} inspect --pid {proxy.master_pid} --watch"
    print(f"\nLiteLLM serves on {proxy.base_url} (log: {short(proxy.log_path)})\n")
    if config is None:
        body = '{"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}'
        headers = "-H 'Authorization: Bearer sk-demo-rpm' -H 'Content-Type: application/json'"
        print(
            f"send a request, as a key of 20 requests a minute:\n  curl {url} {headers} -d '{body}'\n"
        )
        print(
            "send 30, and count the answers:\n"
            f"  for i in $(seq 30); do curl -s -o /dev/null -w '%{{http_code}}\\n' {url} {headers} "
            f"-d '{body}'; done | sort | uniq -c\n"
        )
        print(f"other keys and what they may do: {short(DEMO / 'README.md')}\n")
    else:
        print(f"configuration: {config}\n")
    print(f"watch the state that the workers share:\n  {watch}\n")
    print("Ctrl-C stops everything.", flush=True)


def main() -> int:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--config", type=Path)
    arguments = parser.parse_args()
    stop_on_signals()
    log = ROOT / ".cache" / "logs" / f"proxy-{arguments.port}.log"
    proxy = DemoProxy(
        workers=arguments.workers, log=log, port=arguments.port, config=arguments.config
    )
    try:
        with proxy:
            introduce(proxy, arguments.config)
            while not proxy.has_ended():
                time.sleep(0.5)
            explain_failure("gunicorn has ended by itself", log)
            return 1
    except StartError:
        explain_failure("the proxy did not start", log)
        return 1
    except SystemExit:
        print("\nstopped", flush=True)
        return 0


if __name__ == "__main__":
    sys.exit(main())
