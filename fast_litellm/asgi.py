"""ASGI applications to be mounted beside a program's own: metrics and health, and a page to look at.

In LiteLLM's proxy::

    import fast_litellm, fast_litellm.asgi
    from litellm.proxy.proxy_server import app

    app.mount("/fast-litellm", fast_litellm.asgi.app(token="..."))

The proxy's own authentication does not cover mounted applications: without a token everybody who
reaches the proxy can read them. `/metrics` has names of deployments, components and operations, and no
keys. `inspector` is the page of `fl-shm serve`, which has redacted names of keys, too.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

from fast_litellm._native import FAULTS

if TYPE_CHECKING:
    from fast_litellm._inspector import Authorize

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
    expected = _checked(token)

    async def answer(scope: _Message, receive: _Receive, send: _Send) -> None:
        await _answer(scope, send, expected)

    return _of_requests(answer)


def inspector(
    *,
    token: str | None = None,
    authorize: Authorize | None = None,
    interval_s: float = 1.0,
) -> Application:
    """Make the application with the page that shows the region live.

    * `GET /`: the page. It says nothing of the region, so it is shown to everybody; it asks for a key,
      which it sends as `Authorization: Bearer <key>` with all that follows.
    * `GET /api/frame`: what is going on, as JSON: what `fl-shm serve` answers there.
    * `GET /api/stream`: the same as server-sent events, one in each interval, for ten seconds.

    `HEAD` is answered likewise, without a body; other methods with 405, other paths with 404. What cannot
    be shown is answered with 503 and the reason. The region is looked at by the worker that answers, at
    most once in each interval and only while somebody asks, in a few milliseconds.

    For LiteLLM's proxy and its admins see `fast_litellm.integrations.litellm.inspector.mount`.

    Args:
        token: what is to be sent as the key.
        authorize: called with the ASGI scope of each request but those for the page, and awaited: True
            admits; a tuple of a status (401, 403 or 503) and a reason refuses. Anything else refuses as
            well, and so does an exception.
        interval_s: seconds between two looks, 0.1 to 60.

    Raises:
        ValueError: there is neither a token nor an authorize, or both; the token is empty, or not ASCII;
            the interval is out of range.
        TypeError: the token is not a str.
    """
    expected = _checked(token)
    if (expected is None) == (authorize is None):
        raise ValueError("give a token or an authorize: without one everybody could look")
    if not 0.1 <= interval_s <= 60:
        raise ValueError(f"interval_s={interval_s} is out of range: use 0.1 to 60 seconds")
    from fast_litellm._inspector import Inspector

    async def by_token(scope: _Message) -> bool | tuple[int, str]:
        admitted = expected is not None and _authorized(scope, expected)
        return admitted or (401, "a bearer token is needed")

    shown = Inspector(authorize or by_token, interval_s)

    async def answer(scope: _Message, receive: _Receive, send: _Send) -> None:
        known = ("", "/api/frame", "/api/stream")
        places = [place for place in _places(scope) if place in known]
        await shown.answer(places[0] if places else "?", scope, receive, send)

    return _of_requests(answer)


def _of_requests(answer: Application) -> Application:
    """The application that answers requests so, starts and stops, and takes no websocket."""

    async def application(scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif scope["type"] == "http":
            await answer(scope, receive, send)

    return application


def _checked(token: str | None) -> bytes | None:
    if token is None:
        return None
    if not isinstance(token, str):
        raise TypeError(f"token must be a str or None, not {type(token).__name__}")
    if not (token and token.isascii() and token == token.strip()):
        raise ValueError("the token is empty, has spaces around it or is not ASCII")
    return token.encode()


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
    return next((_PAGES[place] for place in _places(scope) if place in _PAGES), None)


def _places(scope: _Message) -> tuple[str, str]:
    """Which path is asked for; frameworks differ in whether it has that of the mount in it."""
    path, mount = scope["path"], scope.get("root_path", "").rstrip("/")
    within = mount and (path + "/").startswith(mount + "/")
    inner = path[len(mount) :] if within else path
    return inner.rstrip("/"), path.rstrip("/")


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
