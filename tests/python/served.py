"""What tests of the inspector's page share: a program with a region, `fl-shm serve`, and a browser."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typing_extensions import Self

from fl_shm import command
from support import WAIT_S, fresh_environment, until

_PROGRAM = """
    import os, signal, sys
    import fast_litellm
    from fast_litellm import _native

    region = _native.default_region()
    scripts = _native.LimiterScripts(region)
    deployments = _native.Deployments(region)

    def spend(subject, limit, times=1):
        keys = [f"{{{subject}}}:window", f"{{{subject}}}:requests"]
        for _ in range(times):
            scripts.check_and_increment_by_n(keys, [limit, 1, 60, 60])

    def child(slots):
        ready, done = os.pipe()
        pid = os.fork()
        if pid == 0:
            for n in range(slots):
                gauge = "{user:holder}:max_parallel_requests"
                scripts.parallel_acquire([gauge], [50, 3600, f"{os.getpid()}-{n}"])
            os.write(done, b".")
            signal.pause()
        os.read(ready, 1)
        return pid

    print(os.getpid(), flush=True)
    for line in sys.stdin:
        print(eval(line), flush=True)
"""


class Program:
    """A process with a region of its own, which does what it is told."""

    def __init__(self, name: str, **env: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_PROGRAM)],
            cwd="/",
            env={**fresh_environment(), "FAST_LITELLM_SHM_NAME": name, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = int(self._line())

    def do(self, expression: str) -> str:
        """Have it evaluate an expression; returns what that prints as."""
        assert self._process.stdin is not None
        self._process.stdin.write(expression + "\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def content(self) -> bytes:
        """All bytes of the region."""
        for path in Path(f"/proc/{self.pid}/fd").iterdir():
            if f"fl-shm:{self.name}" in os.readlink(path):
                return path.read_bytes()
        raise AssertionError("the process holds no region open")

    def end(self) -> None:
        """End it and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate(timeout=WAIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


class Serving:
    """A running `fl-shm serve`."""

    def __init__(self, *arguments: object, token: str | None = None, interval: float = 0.1) -> None:
        env = fresh_environment() | ({} if token is None else {"FL_SHM_TOKEN": token})
        self.token = token
        self._process = subprocess.Popen(
            command("serve", "--interval", interval, *arguments),
            cwd="/",
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            raise AssertionError(self._process.communicate(timeout=WAIT_S))
        self.port = urlsplit(self.url).port

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """Send one request."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token is not None:
            named.setdefault("authorization", f"Bearer {self.token}")
        return ask(f"{self.url.rstrip('/')}{path}", method, named)

    def frame(self) -> dict[str, Any]:
        """What it shows now."""
        frame: dict[str, Any] = self.ask("/api/frame").json()
        return frame

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Tell it to end; its exit code and what it has said on standard error."""
        self._process.send_signal(number)
        _, errors = self._process.communicate(timeout=WAIT_S)
        return self._process.returncode, errors

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate(timeout=WAIT_S)


class Answer:
    """An answer to a request."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


def ask(url: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Answer:
    """Send one request."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=WAIT_S)
    try:
        connection.request(method, place.path or "/", headers=dict(headers or {}))
        return Answer(connection.getresponse())
    finally:
        connection.close()


# ---- A browser ------------------------------------------------------------------------------------

_CHROMIUM, _DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


def start_browser(profile: Path) -> Browser:
    """A browser of the tests' own; without one they are skipped, but never where one must be."""
    missing = [path for path in (_CHROMIUM, _DRIVER) if not Path(path).exists()]
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.options import Options
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        missing.append("selenium")
    if missing:
        reason = f"there is no {' and no '.join(missing)}"
        if os.environ.get("NEED_BROWSER") or os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    options = Options()
    options.binary_location = _CHROMIUM
    for argument in (*_ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Browser(webdriver.Chrome(options=options, service=Service(executable_path=_DRIVER)))


class Browser:
    """A real browser with the inspector's page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def run(self, script: str, *arguments: object) -> Any:
        """Run JavaScript in the page; returns what it returns."""
        return self.driver.execute_script(script, *arguments)

    def open(self, url: str) -> None:
        """Load a page, in a tab that remembers nothing of the one before."""
        self.driver.get("about:blank")
        self.logs()
        self.driver.get(url)

    def text(self, selector: str) -> str:
        """The text that is shown by the first element of a selector; empty = there is none."""
        return str(
            self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        )

    def rows(self, table: str) -> dict[str, list[str]]:
        """The rows of a table by their first cell, in their order."""
        script = """
            return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].map(
                (row) => [...row.cells].map((cell) => cell.textContent))
        """
        return {cells[0]: cells[1:] for cells in self.run(script, table)}

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until the page shows something."""
        try:
            until(lambda: bool(condition()), what, timeout_s=20)
        except AssertionError as error:
            shown = self.text("body")
            raise AssertionError(f"{error}; the page shows:\n{shown}\n{self.errors()}") from None

    def until_it_says(self, state: str) -> None:
        """Wait until the page is in a state, e.g. "Live"."""
        self.until(lambda: self.text("#state") == state, f"say {state!r}")

    def key(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def errors(self) -> list[str]:
        """What the console has shown since it was last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """What has been requested from anywhere since it was last asked."""
        messages = (
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        )
        sent = (each for each in messages if each["method"] == "Network.requestWillBeSent")
        return [each["params"]["request"]["url"] for each in sent]

    def logs(self) -> None:
        """Forget what the console has shown and what has been requested."""
        self.errors()
        self.requests()

    def check_clean(self, url: str) -> None:
        """The console has shown nothing, and nobody else was asked for anything."""
        assert self.errors() == []
        elsewhere = [
            each for each in self.requests() if not each.startswith((url, "data:", "about:"))
        ]
        assert elsewhere == []


@contextlib.contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser for the time of some tests."""
    browser = start_browser(profile)
    try:
        yield browser
    finally:
        browser.driver.quit()


def hashes(html: bytes, policy: str) -> bool:
    """Whether a policy allows the script and the style of a page, and nothing that is written inline."""
    import base64
    import hashlib

    for tag in (b"script", b"style"):
        [inner] = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inner).digest()).decode()
        if f"{tag.decode()}-src 'sha256-{digest}';" not in policy:
            return False
    return "unsafe" not in policy and policy.startswith("default-src 'none'; ")
