"""An ASGI application with the region's metrics and its health, to be mounted beside a program's own.

In LiteLLM's proxy::

    import fast_litellm, fast_litellm.asgi
    from litellm.proxy.proxy_server import app

    app.mount("/fast-litellm", fast_litellm.asgi.app(token="..."))

The proxy's own authentication does not cover mounted applications: without a token everybody who
reaches the proxy can read them. `/metrics` has names of deployments, components and operations, and no
keys.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from fast_litellm._native import FAULTS

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
Application: TypeAlias = Callable[[_Message, _Receive, _Send], Awaitable[None]]

_TEXT = "text/plain; charset=utf-8"


def app(*, token: str | None = None) -> Application:
    """Make the application.

    * `GET /metrics`: the region's metrics in Prometheus's text format, the same from every worker.
    * `GET /health`: `health_check()` as JSON; status 200 if it is "ok", else 503.

    `HEAD` is answered likewise, without a body; other methods with 405, other paths with 404, and what
    fails with 503. A worker reads the region within the request: in a few milliseconds, some tens with a
    thousand deployments.

    Args:
        token: every request must say `Authorization: Bearer <token>`, else it is answered with 401.

    Raises:
        ValueError: the token is empty, or not ASCII.
        TypeError: it is not a str.
    """
    if token is not None and not isinstance(token, str):
        raise TypeError(f"token must be a str or None, not {type(token).__name__}")
    if token is not None and not (token and token.isascii() and token == token.strip()):
        raise ValueError("the token is empty, has spaces around it or is not ASCII")
    expected = None if token is None else token.encode()

    async def application(scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "http":
            await _answer(scope, send, expected)

    return application


async def _live(receive: _Receive, send: _Send) -> None:
    """Start and stop: there is nothing to do for either."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _answer(scope: _Message, send: _Send, token: bytes | None) -> None:
    more: list[tuple[bytes, bytes]] = []
    page = _page(scope)
    if token is not None and not _authorized(scope, token):
        status, kind, body = 401, _TEXT, "a bearer token is needed\n"
        more = [(b"www-authenticate", b"Bearer")]
    elif page is None:
        status, kind, body = 404, _TEXT, "there are /metrics and /health\n"
    elif scope["method"] not in ("GET", "HEAD"):
        status, kind, body = 405, _TEXT, "use GET or HEAD\n"
        more = [(b"allow", b"GET, HEAD")]
    else:
        try:
            status, kind, body = page()
        except FAULTS as error:  # the caller learns what and no more
            status, kind, body = 503, _TEXT, f"{type(error).__name__}\n"
            _log(error)
    payload = body.encode()
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(payload)).encode()),
        (b"cache-control", b"no-store"),
        *more,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    # The server takes the end of the answer from this, also where a HEAD has no body.
    sent = b"" if scope["method"] == "HEAD" else payload
    await send({"type": "http.response.body", "body": sent})


def _page(scope: _Message) -> Callable[[], tuple[int, str, str]] | None:
    """What answers a path; frameworks differ in whether it has that of the mount in it."""
    path, mount = scope["path"], scope.get("root_path", "").rstrip("/")
    inner = path[len(mount) :] if mount and path.startswith(mount + "/") else path
    for candidate in (inner, path):
        page = _PAGES.get(candidate.rstrip("/"))
        if page is not None:
            return page
    return None


def _metrics() -> tuple[int, str, str]:
    from fast_litellm import _metrics, _prometheus

    return 200, _prometheus.CONTENT_TYPE, _prometheus.text(_metrics.families())


def _health() -> tuple[int, str, str]:
    from fast_litellm._acceleration import health_check

    health = health_check()
    status = 200 if health["status"] == "ok" else 503
    return status, "application/json", json.dumps(health)


_PAGES = {"/metrics": _metrics, "/health": _health}


def _authorized(scope: _Message, token: bytes) -> bool:
    given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
    if len(given) != 1:
        return False
    scheme, _, sent = bytes(given[0]).partition(b" ")
    # Compared also where the scheme is another, in the same time whatever is wrong.
    return hmac.compare_digest(sent.strip(), token) and scheme.lower() == b"bearer"


def _log(error: BaseException) -> None:
    from fast_litellm._log import logger

    logger().error("a page could not be made: %s: %s", type(error).__name__, error)
