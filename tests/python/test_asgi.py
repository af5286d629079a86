"""Proves what the ASGI application answers, by itself and mounted in others."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import fast_litellm
from fast_litellm import _acceleration, _metrics, asgi
from fast_litellm._rust import Monitor, PanicException, Region
from monitored import use
from support import run_python


class Answer:
    """What was sent."""

    def __init__(self, messages: list[Any]) -> None:
        start, body = messages
        assert (start["type"], body["type"]) == ("http.response.start", "http.response.body")
        assert not body.get("more_body", False)
        self.status: int = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        assert len(self.headers) == len(start["headers"])
        self.body: bytes = body["body"]


def run(app: asgi.Application, scope: dict[str, Any], received: list[Any]) -> list[Any]:
    sent: list[Any] = []

    async def receive() -> Any:
        return received.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    return sent


def ask(
    path: str,
    method: str = "GET",
    *,
    root_path: str | None = None,
    token: str | None = None,
    authorization: list[str] | None = None,
) -> Answer:
    headers = [(b"authorization", value.encode()) for value in authorization or ()]
    scope: dict[str, Any] = {"type": "http", "path": path, "method": method, "headers": headers}
    if root_path is not None:
        scope["root_path"] = root_path
    return Answer(run(asgi.app(token=token), scope, []))


@pytest.fixture(autouse=True)
def monitored(region: Region, monkeypatch: pytest.MonkeyPatch) -> Region:
    """A region that the package exports."""
    use(monkeypatch, Monitor(region), region)
    return region


def test_metrics_are_the_regions() -> None:
    fast_litellm.record_performance("c", "o", 1.0)
    answer = ask("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert (
        b'fast_litellm_operation_duration_seconds_count{component="c",operation="o"} 1'
        in answer.body
    )
    assert b"fast_litellm_workers" in answer.body


def test_health_is_the_health_check(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = ask("/health")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert json.loads(answer.body) == fast_litellm.health_check()
    degraded = {"status": "degraded", "rust_available": False}
    monkeypatch.setattr(_acceleration, "health_check", lambda: degraded)
    answer = ask("/health")
    assert (answer.status, json.loads(answer.body)) == (503, degraded)


@pytest.mark.parametrize("path", ["/metrics", "/health", "/else"])
def test_head_is_get_without_a_body(path: str) -> None:
    get, head = ask(path), ask(path, "HEAD")
    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_other_methods_are_not_allowed(method: str) -> None:
    answer = ask("/metrics", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    ["/", "", "/metric", "/metrics/x", "/x/metrics", "/metricsx", "//metrics", "/prefix/metrics"],
)
def test_other_paths_are_not_found(path: str) -> None:
    assert ask(path).status == 404
    assert ask(path, "POST").status == 404


@pytest.mark.parametrize(
    ("path", "root_path"),
    [
        ("/metrics", ""),
        ("/metrics/", None),
        # The path has that of the mount in it, or not: frameworks differ.
        ("/prefix/metrics", "/prefix"),
        ("/metrics", "/prefix"),
        ("/metrics/metrics", "/metrics"),
        ("/metrics", "/metrics"),
        ("/proxy/prefix/metrics/", "/proxy/prefix/"),
    ],
)
def test_mounts_are_understood(path: str, root_path: str | None) -> None:
    assert ask(path, root_path=root_path).status == 200


def test_a_mount_is_the_beginning_of_a_path() -> None:
    assert ask("/prefixed/metrics", root_path="/prefix").status == 404
    assert ask("/other/metrics", root_path="/prefix").status == 404


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (["Bearer s3cret"], 200),
        (["bearer  s3cret "], 200),
        ([], 401),
        (["Bearer s3cre"], 401),
        (["Bearer s3crets"], 401),
        (["Bearer"], 401),
        (["s3cret"], 401),
        (["Basic s3cret"], 401),
        (["Bearer s3cret", "Bearer s3cret"], 401),
        (["Bearer größe"], 401),
    ],
)
@pytest.mark.parametrize("path", ["/metrics", "/health"])
def test_a_token_is_asked_for(path: str, authorization: list[str], status: int) -> None:
    answer = ask(path, token="s3cret", authorization=authorization)
    assert answer.status == status
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert b"fast_litellm_" not in answer.body
    # Whoever has no token learns nothing of paths and methods.
    if not authorization:
        assert ask("/else", "POST", token="s3cret").status == 401


@pytest.mark.parametrize("token", ["", " x", "x\n", "é"])
def test_tokens_that_could_never_be_sent_are_refused(token: str) -> None:
    with pytest.raises(ValueError, match="the token is empty"):
        asgi.app(token=token)
    with pytest.raises(TypeError, match="token must be a str"):
        asgi.app(token=b"x")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [RuntimeError, PanicException])
def test_what_fails_is_not_told_to_the_world(
    kind: type[BaseException], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise kind("the secret path /root")

    monkeypatch.setattr(_metrics, "families", broken)
    answer = ask("/metrics")
    assert (answer.status, answer.body) == (503, f"{kind.__name__}\n".encode())
    assert "the secret path" in caplog.text


def test_keys_are_not_in_it(monitored: Region) -> None:
    limiter = fast_litellm.SimpleRateLimiter(region=monitored)
    limiter.check("sk-0123456789abcdef")
    limiter.check("user@example.org")
    body = ask("/metrics").body
    assert b"sk-" not in body
    assert b"example" not in body


def test_servers_may_start_and_stop_it() -> None:
    received = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    assert run(asgi.app(), {"type": "lifespan"}, received) == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]


def test_websockets_are_closed() -> None:
    closed = [{"type": "websocket.close", "code": 1000}]
    assert run(asgi.app(), {"type": "websocket", "path": "/metrics"}, []) == closed


def test_mounted_in_starlette_and_fastapi() -> None:
    pytest.importorskip("starlette")
    fastapi = pytest.importorskip("fastapi")
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.testclient import TestClient

    alone = asgi.app()
    mounted = Starlette(routes=[Mount("/deep/fast-litellm", app=alone)])
    theirs = fastapi.FastAPI()
    theirs.mount("/fast-litellm", asgi.app(token="t"))
    within = Starlette(routes=[Mount("/outer", app=theirs)])
    for app, prefix, headers in (
        (alone, "", {}),
        (mounted, "/deep/fast-litellm", {}),
        (theirs, "/fast-litellm", {"authorization": "Bearer t"}),
        (within, "/outer/fast-litellm", {"authorization": "Bearer t"}),
    ):
        client: Any = TestClient(app)
        metrics = client.get(f"{prefix}/metrics", headers=headers)
        assert metrics.status_code == 200, prefix
        assert "fast_litellm_workers" in metrics.text
        assert client.head(f"{prefix}/health", headers=headers).status_code == 200
        assert client.get(f"{prefix}/health", headers=headers).json()["status"] == "ok"
        assert client.get(f"{prefix}/else", headers=headers).status_code == 404
        assert client.post(f"{prefix}/metrics", headers=headers).status_code == 405
    assert TestClient(theirs).get("/fast-litellm/metrics").status_code == 401


def test_without_the_extension_health_is_degraded_and_metrics_are_there() -> None:
    code = """
import sys, warnings, asyncio
sys.modules["fast_litellm._rust"] = None
warnings.simplefilter("ignore")
import fast_litellm.asgi
async def send(message): print(message.get("status", message.get("body", b"")[:20]))
for path in ("/health", "/metrics"):
    scope = {"type": "http", "path": path, "method": "GET", "headers": []}
    asyncio.run(fast_litellm.asgi.app()(scope, None, send))
"""
    lines = run_python(code).stdout.splitlines()
    assert (lines[0], lines[2]) == ("503", "200")
