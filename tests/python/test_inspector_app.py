"""Proves what the inspector shows within a program, and to whom: in LiteLLM's proxy to its admins."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from types import ModuleType
from typing import Any

import pytest

from fast_litellm import _inspector, _native, asgi
from fast_litellm._rust import PanicException, Region
from fast_litellm.integrations.litellm import _compat
from served import Browser, ask, browsing, hashes
from support import run_python

TOKEN = "t0ken"
Message = dict[str, Any]


class Talk:
    """What a client sends and is sent."""

    def __init__(
        self, path: str, method: str = "GET", *, root_path: str = "", **headers: str
    ) -> None:
        self.scope: Message = {
            "type": "http",
            "path": path,
            "method": method,
            "root_path": root_path,
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self.ended = False

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    async def held(self, app: asgi.Application) -> Talk:
        await app(self.scope, self.receive, self.send)
        self.ended = True
        return self

    async def has_events(self, count: int) -> None:
        while len(self.events) < count:
            await asyncio.sleep(0.01)

    async def has_ended(self) -> None:
        while not self.ended:
            await asyncio.sleep(0.01)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def events(self) -> list[Any]:
        return [json.loads(part[6:]) for part in self.body.split(b"\n\n") if part]


KNOWN = {"authorization": f"Bearer {TOKEN}"}


def get(path: str, method: str = "GET", app: asgi.Application | None = None, **more: str) -> Talk:
    talk = Talk(path, method, **{**KNOWN, **more})  # type: ignore[arg-type]
    return asyncio.run(talk.held(app or asgi.inspector(token=TOKEN)))


@pytest.fixture(autouse=True)
def shown(region: Region, monkeypatch: pytest.MonkeyPatch) -> Region:
    """The region that the application shows."""
    monkeypatch.setattr(_native, "default_region", lambda: region)
    return region


class TestMaking:
    """An application that everybody could read cannot be made."""

    def test_there_is_a_token_or_somebody_to_ask(self) -> None:
        with pytest.raises(ValueError, match="without one everybody could look"):
            asgi.inspector()
        with pytest.raises(ValueError, match="give a token or an authorize"):
            asgi.inspector(token=TOKEN, authorize=admits(True))

    @pytest.mark.parametrize("token", ["", " x", "x\n", "é"])
    def test_a_token_can_be_sent(self, token: str) -> None:
        with pytest.raises(ValueError, match="the token is empty"):
            asgi.inspector(token=token)
        with pytest.raises(TypeError, match="token must be a str"):
            asgi.inspector(token=b"x")  # type: ignore[arg-type]

    @pytest.mark.parametrize("interval_s", [0, 0.09, 61, float("nan"), -1])
    def test_the_interval_is_bearable(self, interval_s: float) -> None:
        with pytest.raises(ValueError, match="out of range"):
            asgi.inspector(token=TOKEN, interval_s=interval_s)


def admits(verdict: Any) -> Callable[[Any], Any]:
    """An authorize that says so, or raises it."""

    async def authorize(_: Any) -> Any:
        if isinstance(verdict, BaseException):
            raise verdict
        return verdict

    return authorize


class TestAccess:
    """Who is shown something."""

    @pytest.mark.parametrize("given", ["", "Bearer", "Bearer t0ke", "Bearer t0kens", "Basic t0ken"])
    @pytest.mark.parametrize("path", ["/api/frame", "/api/stream"])
    def test_without_the_token_nothing_is_shown(self, path: str, given: str) -> None:
        talk = get(path, authorization=given)
        assert (talk.status, talk.headers["www-authenticate"]) == (401, "Bearer")
        assert talk.body == b"a bearer token is needed\n"

    def test_the_page_says_nothing_and_is_shown_to_all(self) -> None:
        talk = get("/", authorization="")
        page = files("fast_litellm").joinpath("inspector.html").read_bytes()
        assert (talk.status, talk.body) == (200, page)
        assert talk.headers["content-type"] == "text/html; charset=utf-8"
        assert hashes(page, talk.headers["content-security-policy"])

    @pytest.mark.parametrize(
        ("verdict", "status"),
        [
            (True, 200),
            (False, 403),
            (None, 403),
            (1, 403),
            ("yes", 403),
            ((200, "fine"), 403),
            ((401, "who are you?"), 401),
            ((403, "not you"), 403),
            ((503, "ask later"), 503),
            (RuntimeError("the secret path /root"), 503),
            (PanicException("the secret path /root"), 503),
        ],
    )
    def test_nothing_but_true_admits(self, verdict: Any, status: int) -> None:
        app = asgi.inspector(authorize=admits(verdict))
        for path in ("/api/frame", "/api/stream"):
            talk = get(path, "HEAD", app)
            assert talk.status == status
        talk = get("/api/frame", "GET", app)
        assert talk.status == status
        assert (b"schema" in talk.body) == (status == 200)
        assert b"secret" not in talk.body
        if isinstance(verdict, tuple) and status == verdict[0]:
            assert talk.body.decode() == verdict[1] + "\n"

    def test_whoever_is_asked_sees_the_request(self) -> None:
        seen = []

        async def authorize(scope: Any) -> bool:
            seen.append(dict(scope["headers"])[b"authorization"])
            return True

        assert get("/api/frame", app=asgi.inspector(authorize=authorize)).status == 200
        assert seen == [b"Bearer t0ken"]


class TestAnswers:
    """What is shown."""

    def test_a_frame_is_what_is_going_on(self, shown: Region) -> None:
        scripts = _native.LimiterScripts(shown)
        scripts.check_and_increment_by_n(["{team:a}:window", "{team:a}:requests"], [20, 3, 60, 60])
        talk = get("/api/frame")
        frame = json.loads(talk.body)
        assert (talk.status, talk.headers["content-type"]) == (200, "application/json")
        assert (frame["schema"], frame["region"]) == ("fl-shm/1", "fast_litellm")
        assert frame["hottest"][0]["requests"] == {"used": 3, "limit": 20}
        assert frame["workers"][0]["pid"] == os.getpid()

    @pytest.mark.parametrize(
        "path", ["/", "/api/frame", "/api/stream", "/else", "/api", "/metrics"]
    )
    def test_nothing_is_kept_or_guessed_or_lent(self, path: str) -> None:
        talk = get(path, "HEAD")
        assert talk.status == (200 if path in ("/", "/api/frame", "/api/stream") else 404)
        assert talk.body == b""
        assert talk.headers["cache-control"] == "no-store"
        assert talk.headers["x-content-type-options"] == "nosniff"
        assert not any(name.startswith("access-control") for name in talk.headers)

    @pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "get"])
    def test_nothing_can_be_changed(self, method: str) -> None:
        for path in ("/", "/api/frame", "/api/stream"):
            talk = get(path, method)
            assert (talk.status, talk.headers["allow"]) == (405, "GET, HEAD")

    @pytest.mark.parametrize(
        ("path", "root_path", "status"),
        [
            ("", "", 200),
            ("/prefix", "/prefix", 200),
            ("/prefix/", "/prefix", 200),
            ("/prefix/api/frame", "/prefix", 200),
            ("/api/frame/", "/prefix", 200),
            ("/proxy/prefix/api/frame", "/proxy/prefix/", 200),
            ("/prefixed/api/frame", "/prefix", 404),
            ("/prefix/api/frame", "", 404),
        ],
    )
    def test_mounts_are_understood(self, path: str, root_path: str, status: int) -> None:
        assert get(path, root_path=root_path).status == status

    def test_servers_may_start_and_stop_it(self) -> None:
        received = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent: list[Any] = []

        async def receive() -> Any:
            return received.pop(0)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        asyncio.run(asgi.inspector(token=TOKEN)({"type": "lifespan"}, receive, send))
        asyncio.run(asgi.inspector(token=TOKEN)({"type": "websocket"}, receive, send))
        assert sent == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
            "websocket.close",
        ]

    def test_what_cannot_be_looked_at_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_native, "default_region", lambda: None)
        for path in ("/api/frame", "/api/stream"):
            talk = get(path)
            assert talk.status == 503
            assert talk.body.startswith(b"this process has no region")

    @pytest.mark.parametrize("kind", [RuntimeError, PanicException])
    def test_what_fails_is_not_told_to_the_world(
        self,
        kind: type[BaseException],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def broken(_: Any) -> None:
            raise kind("the secret path /root")

        monkeypatch.setattr(_native, "Watcher", broken)
        talk = get("/api/frame")
        assert (talk.status, talk.body) == (503, f"{kind.__name__}\n".encode())
        assert "the secret path" in caplog.text

    def test_without_the_extension_it_says_so(self) -> None:
        code = """
            import sys, warnings, asyncio
            sys.modules["fast_litellm._rust"] = None
            warnings.simplefilter("ignore")
            import fast_litellm.asgi
            async def send(message): print(message.get("status", message.get("body", b"")[:60]))
            app = fast_litellm.asgi.inspector(token="t")
            for path in ("/", "/api/frame", "/api/stream"):
                headers = [(b"authorization", b"Bearer t")]
                scope = {"type": "http", "path": path, "method": "GET", "headers": headers}
                asyncio.run(app(scope, None, send))
        """
        lines = run_python(code).stdout.splitlines()
        reason = repr(b"fast_litellm's extension is not available: there is no region")[:62]
        assert [lines[0], lines[2], lines[4]] == ["200", "503", "503"]
        assert lines[3].startswith(reason[:40])
        assert lines[5] == lines[3]


class TestStreams:
    """Those who follow."""

    @pytest.fixture(autouse=True)
    def _for_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Streams do not end by themselves."""
        monkeypatch.setattr(_inspector, "_LONGEST_S", 3600.0)

    def following(
        self, app: asgi.Application, count: int, during: Callable[[list[Talk]], Any]
    ) -> list[Talk]:
        """So many clients follow while something is done; what each was sent."""

        async def follow() -> list[Talk]:
            talks = [Talk("/api/stream", **KNOWN) for _ in range(count)]
            tasks = [asyncio.create_task(talk.held(app)) for talk in talks]
            await during(talks)
            for talk in talks:
                talk.gone.set()
            await asyncio.wait_for(asyncio.gather(*tasks), 20)
            return talks

        return asyncio.run(follow())

    def test_they_see_what_changes_until_they_leave(self, shown: Region) -> None:
        limiter = _native.SimpleRateLimiter(60, region=shown)

        async def during(talks: list[Talk]) -> None:
            await talks[0].has_events(1)
            limiter.check("k")
            await talks[0].has_events(len(talks[0].events) + 2)

        [talk] = self.following(asgi.inspector(token=TOKEN, interval_s=0.1), 1, during)
        assert talk.headers["content-type"] == "text/event-stream; charset=utf-8"
        first, *_, last = talk.events
        assert (first["hottest"], last["hottest"][0]["allowed"]) == ([], 1)
        assert talk.sent[-1] == {"type": "http.response.body", "body": b""}

    def test_all_share_one_look_and_no_thread_is_begun(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks = 0
        threads = set(threading.enumerate())

        class Counting:
            def __init__(self, region: Region) -> None:
                self._watcher = region and _watcher(region)

            def look(self, hottest: int) -> str:
                nonlocal looks
                looks += 1
                assert threads == set(threading.enumerate())
                return self._watcher.look(hottest)

        _watcher = _native.Watcher
        monkeypatch.setattr(_native, "Watcher", Counting)

        async def during(talks: list[Talk]) -> None:
            for talk in talks:
                await talk.has_events(4)

        began = time.monotonic()
        talks = self.following(asgi.inspector(token=TOKEN, interval_s=0.1), 8, during)
        assert looks <= (time.monotonic() - began) / 0.1 + 2
        assert all(4 <= len(talk.events) <= looks for talk in talks)
        # Nobody follows any more, and nobody looks.
        before = looks
        time.sleep(0.25)
        assert looks == before

    def test_a_number_of_them_is_enough(self) -> None:
        app = asgi.inspector(token=TOKEN, interval_s=0.1)
        refused: list[Talk] = []

        async def during(_: list[Talk]) -> None:
            await asyncio.sleep(0.05)
            refused.append(await Talk("/api/stream", **KNOWN).held(app))

        talks = self.following(app, 16, during)
        assert {talk.status for talk in talks} == {200}
        assert (refused[0].status, refused[0].headers["retry-after"]) == (503, "5")

        async def nothing(_: list[Talk]) -> None:
            await asyncio.sleep(0)

        # They have left.
        assert self.following(app, 1, nothing)[0].status == 200

    def test_a_stream_ends_so_that_a_server_can(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_inspector, "_LONGEST_S", 1.0)
        talk = Talk("/api/stream", **KNOWN)
        asyncio.run(talk.held(asgi.inspector(token=TOKEN, interval_s=0.1)))
        assert 2 <= len(talk.events) <= 12
        assert talk.sent[-1] == {"type": "http.response.body", "body": b""}

    def test_a_client_that_takes_nothing_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_inspector, "_UNREAD_S", 0.05)
        talk = Talk("/api/stream", **KNOWN)

        async def send(message: Any) -> None:
            talk.sent.append(message)
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        app = asgi.inspector(token=TOKEN, interval_s=0.1)
        asyncio.run(asyncio.wait_for(app(talk.scope, talk.receive, send), 20))
        assert len(talk.sent) == 2

    def test_a_client_that_has_gone_is_no_fault(self, caplog: pytest.LogCaptureFixture) -> None:
        talk = Talk("/api/stream", **KNOWN)

        async def send(message: Any) -> None:
            talk.sent.append(message)
            if message["type"] == "http.response.body":
                raise ConnectionResetError("by peer")

        app = asgi.inspector(token=TOKEN)
        asyncio.run(app(talk.scope, talk.receive, send))
        assert (len(talk.sent), caplog.text) == (2, "")

    def test_a_region_that_goes_ends_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def during(talks: list[Talk]) -> None:
            await talks[0].has_events(1)
            monkeypatch.setattr(_native, "default_region", lambda: None)
            await talks[0].has_ended()

        [talk] = self.following(asgi.inspector(token=TOKEN, interval_s=0.1), 1, during)
        assert 1 <= len(talk.events) <= 3


#: Mounts the page in LiteLLM's proxy and asks for it as several people.
IN_LITELLM = """
import json
import fast_litellm
from fast_litellm.integrations.litellm import inspector
from litellm.proxy import proxy_server
from starlette.testclient import TestClient

inspector.mount(proxy_server.app)
client = TestClient(proxy_server.app)
ROLES = {"sk-admin": "proxy_admin", "sk-viewer": "proxy_admin_viewer", "sk-plain": None}

async def authenticate(request, api_key):
    return proxy_server.UserAPIKeyAuth(api_key=api_key, user_role=ROLES[api_key])

def ask(path, key=None, **headers):
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return client.get(inspector.PATH + path, headers=headers)

answers = {"no master key": ask("/api/frame", "sk-master")}
proxy_server.master_key = "sk-master-0123456789"
answers |= {
    "page": ask("/"),
    "page without a slash": ask(""),
    "nobody": ask("/api/frame"),
    "stranger": ask("/api/frame", "sk-nobody"),
    "admin": ask("/api/frame", "sk-master-0123456789"),
    "cookie": ask("/api/frame", cookie="token=sk-master-0123456789"),
    "query": client.get(inspector.PATH + "/api/frame?key=sk-master-0123456789"),
}
# LiteLLM itself lets a blocked key of an admin through where it has the key in its memory.
blocked = proxy_server.UserAPIKeyAuth(user_role="proxy_admin", user_id="a", blocked=True)
proxy_server.user_api_key_cache.set_cache(proxy_server.hash_token("sk-blocked"), blocked)
proxy_server.prisma_client = object()
answers["blocked"] = ask("/api/frame", "sk-blocked")
proxy_server.prisma_client = None
proxy_server.user_custom_auth = authenticate
answers |= {key: ask("/api/frame", key) for key in ROLES}
print(json.dumps({name: [answer.status_code, answer.text[:100]] for name, answer in answers.items()}))
"""


def interpreters() -> dict[str, str]:
    """Those of the oldest and the newest version, if they are told of; the real proxy has the other."""
    versions = ("1.104.0", "1.109.1")
    told = {v: os.environ.get(f"FAST_LITELLM_TEST_PYTHON_{v.replace('.', '_')}") for v in versions}
    found = {version: python for version, python in told.items() if python}
    return found or {"installed": sys.executable}


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """What LiteLLM's proxy answers to several people, by version; all at once, for each takes seconds."""
    pytest.importorskip("litellm")
    found = interpreters()

    def ran(python: str) -> str:
        return run_python(IN_LITELLM, python=python, timeout_s=250).stdout

    with ThreadPoolExecutor() as pool:
        outputs = [output.splitlines()[-1] for output in pool.map(ran, found.values())]
    return {version: json.loads(output) for version, output in zip(found, outputs, strict=True)}


@pytest.mark.timeout(300)
class TestLiteLLMsAdmins:
    """LiteLLM is asked who is its admin, and where it cannot be asked nobody is."""

    @pytest.mark.parametrize("version", interpreters())
    def test_they_are_shown_it_and_nobody_else(self, version: str, answers: Any) -> None:
        statuses = {name: status for name, (status, _) in answers[version].items()}
        assert statuses == {
            "no master key": 503,
            "page": 200,
            "page without a slash": 200,
            "nobody": 401,
            "stranger": 401,
            "admin": 200,
            "cookie": 401,
            "query": 401,
            "blocked": 403,
            "sk-admin": 200,
            "sk-viewer": 403,
            "sk-plain": 403,
        }
        texts = {name: text for name, (_, text) in answers[version].items()}
        assert texts["no master key"] == (
            "LiteLLM cannot be asked who is its admin: the proxy has no master key\n"
        )
        assert texts["admin"].startswith('{"region":"fast_litellm","schema":"fl-shm/1"')
        assert "sk-nobody" not in texts["stranger"]

    def test_what_is_not_as_it_was_is_not_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("litellm")
        changed = ModuleType("changed")
        monkeypatch.setattr(_compat, "_AUTH_MODULE", "changed")
        for function, reason in (
            (None, "user_api_key_auth cannot be had"),
            (lambda key, request: True, "does not begin with request"),
            (lambda request, user="": True, "takes user, which is no header"),
        ):
            monkeypatch.setitem(sys.modules, "changed", changed)
            if function is not None:
                vars(changed)["user_api_key_auth"] = function
            _compat._probe_authentication.cache_clear()
            try:
                assert reason in _compat.probe_admin()
            finally:
                _compat._probe_authentication.cache_clear()

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            ({"status_code": 401}, 401),
            ({"status_code": 403}, 403),
            ({"code": "400"}, 401),
            ({"code": "403"}, 403),
            ({"code": "429"}, 401),
            ({"code": "500"}, 503),
            ({"code": None}, 503),
            ({}, 503),
        ],
    )
    def test_refusals_are_told_without_their_text(self, error: Any, status: int) -> None:
        refusal = type("Refusal", (Exception,), error)("Received API Key = sk-...abcd")
        told = _compat._refusal(refusal)
        assert told[0] == status
        assert "sk-" not in told[1]


AUTH_OF_ROLES = """
from litellm.proxy._types import UserAPIKeyAuth

async def authenticate(request, api_key):
    roles = {"sk-admin": "proxy_admin", "sk-viewer": "proxy_admin_viewer", "sk-plain": None}
    if api_key not in roles:
        raise ValueError("nobody")
    return UserAPIKeyAuth(api_key=api_key, user_role=roles[api_key])
"""


@pytest.fixture(scope="module")
def proxy() -> Iterator[Any]:
    pytest.importorskip("litellm")
    pytest.importorskip("gunicorn")
    from harness.proxy import FakeBackend, Proxy

    class Inspected(Proxy):
        def prepare(self) -> None:
            super().prepare()
            (self.directory / "harness_auth.py").write_text(AUTH_OF_ROLES)
            with (self.directory / "app.py").open("a") as app:
                app.write("from fast_litellm import _inspector\n")
                app.write("from fast_litellm.integrations.litellm import inspector\n")
                # Streams that end all the time.
                app.write("_inspector._LONGEST_S = 0.4\n")
                app.write("inspector.mount(app, interval_s=0.1)\n")

    env = {"FAST_LITELLM_ENABLED": "true"}
    with FakeBackend() as backend:
        proxy = Inspected(backend.url, workers=2, accelerate=True, extra_env=env)
        with proxy:
            yield proxy


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.proxy
class TestInARealProxy:
    """Mounted in LiteLLM's proxy under gunicorn."""

    def test_admins_are_shown_it_and_nobody_else(self, proxy: Any) -> None:
        url = f"{proxy.base_url}/fast-litellm-inspector"
        for path in ("", "/"):
            page = ask(url + path)
            if page.status == 307:
                assert page.headers["location"] == f"{url}/"
                continue
            assert page.status == 200
            assert b"fast_litellm inspector" in page.body
            assert hashes(page.body, page.headers["content-security-policy"])
        for key, status in ((None, 401), ("sk-x", 401), ("sk-plain", 403), ("sk-viewer", 403)):
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            for path in ("/api/frame", "/api/stream"):
                answer = ask(url + path, headers=headers)
                assert answer.status in ({401, 403, 503} if key == "sk-x" else {status})
                assert b"schema" not in answer.body
        pids = set()
        for _ in range(3):
            answer = ask(url + "/api/frame", headers={"authorization": "Bearer sk-admin"})
            assert answer.status == 200
            pids |= {worker["pid"] for worker in answer.json()["workers"]}
        assert set(proxy.worker_pids()) <= pids

    def test_the_page_goes_on_from_worker_to_worker(self, proxy: Any, browser: Browser) -> None:
        url = f"{proxy.base_url}/fast-litellm-inspector"
        browser.open(url)
        browser.until(lambda: browser.run("return document.querySelector('#ask').open"), "ask")
        browser.key("sk-plain", "\n")
        browser.until(lambda: "not a proxy admin's" in browser.text("#ask-error"), "refuse")
        browser.key("sk-admin", "\n")
        browser.until_it_says("Live")
        browser.until(
            lambda: {str(pid) for pid in proxy.worker_pids()} <= browser.rows("workers").keys(),
            "show the workers",
        )
        browser.until(lambda: "…" not in browser.text("#tiles"), "know the rates")
        browser.run("""
            window.seen = [];
            const unknown = () => byId("tiles").textContent.includes("…");
            const note = () => seen.push([byId("state").textContent, unknown()]);
            new MutationObserver(note).observe(document.body, { subtree: true, childList: true });
        """)
        requests: list[str] = []

        def have_begun() -> bool:
            requests.extend(browser.requests())
            return len([each for each in requests if each.endswith("/api/stream")]) > 8

        browser.until(have_begun, "begin a stream after the other")
        # It is live all the time, and never without rates, whichever worker answers.
        seen = browser.run("return window.seen")
        assert len(seen) > 5
        assert {tuple(each) for each in seen} == {("Live", False)}
        assert [each for each in requests if not each.startswith((url, "data:", "about:"))] == []
        # The console has the 401 and the 403, and nothing else.
        assert all("api/stream" in message for message in browser.errors())
