"""The inspector's page and what it shows, behind `fast_litellm.asgi.inspector`.

It lives in a worker that serves others: a look takes a few milliseconds and is taken at most once in
each interval, whoever asks. A stream is the caller's own task; there is no thread and no timer.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from importlib.resources import files
from typing import Any, TypeAlias

from fast_litellm import _native
from fast_litellm._log import logger
from fast_litellm._native import FAULTS

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
#: True admits; a status (401, 403 or 503) and a reason refuse; so does anything else.
Verdict: TypeAlias = bool | tuple[int, str]
Authorize: TypeAlias = Callable[[_Message], Awaitable[Verdict]]

#: Keys that a look shows.
_HOTTEST = 200
#: Clients that may follow at once, in each worker.
_STREAMS = 16
#: A stream ends after so many seconds and the page begins another: a server that stops has to wait for
#: those that are open, and whoever may look no longer is found out.
_LONGEST_S = 10.0
#: How long a client may take nothing of what it is sent.
_UNREAD_S = 20.0

_TEXT = "text/plain; charset=utf-8"
_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class UnavailableError(Exception):
    """There is nothing to look at, and why."""


class Looks:
    """Looks at the process's region, at most one in each interval, shared by all who ask."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._watched: _native.Region | None = None
        self._watcher: _native.Watcher | None = None
        self._at = 0.0
        self._frame = b""

    def frame(self) -> bytes:
        """A frame (JSON, one line) that is no older than the interval.

        Raises:
            UnavailableError: there is no region.
        """
        watcher = self._of_now()
        # A stream that wakes up a little early is to get the next one.
        if not self._frame or time.monotonic() - self._at > 0.9 * self.interval_s:
            text = watcher.look(_HOTTEST)
            # A frame is an object that is not empty.
            self._frame = f'{{"region":{json.dumps(_name())},{text[1:]}'.encode()
            self._at = time.monotonic()
        return self._frame

    def _of_now(self) -> _native.Watcher:
        if not _native.RUST_ACCELERATION_AVAILABLE:
            raise UnavailableError("fast_litellm's extension is not available: there is no region")
        region = _native.default_region()
        if region is None:
            raise UnavailableError(
                "this process has no region: see fast_litellm.get_patch_status()['reason']"
            )
        if self._watcher is None or region is not self._watched:
            self._watched, self._watcher, self._frame = region, _native.Watcher(region), b""
        return self._watcher


def _name() -> str:
    """The region's name, as the settings say it."""
    from fast_litellm._config import RegionSettings

    settings = RegionSettings.from_environment()
    return str(settings.path or settings.name)


def page() -> tuple[bytes, str]:
    """The page, and what a browser may load and do for it (`Content-Security-Policy`)."""
    html = files("fast_litellm").joinpath("inspector.html").read_bytes()

    def digest(tag: bytes) -> str:
        found = re.search(rb"<%b>(.*?)</%b>" % (tag, tag), html, re.DOTALL)
        inner = found[1] if found else b""
        return f"'sha256-{base64.b64encode(hashlib.sha256(inner).digest()).decode()}'"

    policy = (
        f"default-src 'none'; script-src {digest(b'script')}; style-src {digest(b'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return html, policy


class Inspector:
    """What is answered below the place that it is mounted at."""

    def __init__(self, authorize: Authorize, interval_s: float) -> None:
        self._authorize = authorize
        self._looks = Looks(interval_s)
        self._page, self._policy = page()
        self._streams = 0

    async def answer(self, place: str, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer a request for the path `place`."""
        head = scope["method"] == "HEAD"
        if place not in ("", "/api/frame", "/api/stream"):
            await _plain(send, 404, "there are /, /api/frame and /api/stream", head=head)
        elif scope["method"] not in ("GET", "HEAD"):
            await _plain(send, 405, "use GET or HEAD", [(b"allow", b"GET, HEAD")])
        elif place == "":
            # It says nothing of the region, and has to be there to ask for a key.
            more = [(b"content-security-policy", self._policy.encode())]
            await _whole(send, 200, "text/html; charset=utf-8", self._page, more, head=head)
        else:
            refusal = await self._refusal(scope)
            if refusal is not None:
                status, reason = refusal
                more = [(b"www-authenticate", b"Bearer")] if status == 401 else []
                await _plain(send, status, reason, more, head=head)
            else:
                await self._show(place, receive, send, head)

    async def _refusal(self, scope: _Message) -> tuple[int, str] | None:
        """Status and reason; None = whoever asks may look, which nothing but a True says."""
        try:
            verdict = await self._authorize(scope)
        except FAULTS as error:
            logger().error("an inspector's authorize failed: %s: %s", type(error).__name__, error)
            return 503, f"whoever asks could not be checked: {type(error).__name__}"
        if verdict is True:
            return None
        if isinstance(verdict, tuple) and verdict[0] in (401, 403, 503):
            return verdict
        return 403, "you may not look"

    async def _show(self, place: str, receive: _Receive, send: _Send, head: bool) -> None:
        try:
            frame = self._looks.frame()
        except UnavailableError as error:
            await _plain(send, 503, str(error), head=head)
            return
        except FAULTS as error:  # the caller learns what and no more
            _log(error)
            await _plain(send, 503, type(error).__name__, head=head)
            return
        if place == "/api/frame":
            await _whole(send, 200, "application/json", frame, head=head)
        elif head:
            await _whole(send, 200, "text/event-stream; charset=utf-8", b"", head=True)
        elif self._streams >= _STREAMS:
            await _plain(send, 503, "too many clients follow already", [(b"retry-after", b"5")])
        else:
            self._streams += 1
            try:
                await self._stream(receive, send)
            finally:
                self._streams -= 1

    async def _stream(self, receive: _Receive, send: _Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            # Proxies before it are to pass events on as they come.
            (b"x-accel-buffering", b"no"),
            *_HEADERS,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.ensure_future(_end_of(receive))
        end = time.monotonic() + _LONGEST_S
        try:
            while not gone.done() and time.monotonic() < end:
                event = b"data: " + self._looks.frame() + b"\n\n"
                message = {"type": "http.response.body", "body": event, "more_body": True}
                # The server waits here for a client that is slow: what it misses is not kept for it.
                await asyncio.wait_for(send(message), _UNREAD_S)
                await asyncio.wait([gone], timeout=self._looks.interval_s)
            await send({"type": "http.response.body", "body": b""})
        except (asyncio.TimeoutError, UnavailableError, OSError):
            # Some servers tell by an OSError that the client has gone.
            return
        except FAULTS as error:
            _log(error)
        finally:
            gone.cancel()


async def _end_of(receive: _Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _plain(
    send: _Send,
    status: int,
    text: str,
    more: list[tuple[bytes, bytes]] | None = None,
    *,
    head: bool = False,
) -> None:
    await _whole(send, status, _TEXT, f"{text}\n".encode(), more, head=head)


async def _whole(
    send: _Send,
    status: int,
    kind: str,
    body: bytes,
    more: list[tuple[bytes, bytes]] | None = None,
    *,
    head: bool = False,
) -> None:
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(body)).encode()),
        *_HEADERS,
        *(more or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})


def _log(error: BaseException) -> None:
    logger().error("a look could not be taken: %s: %s", type(error).__name__, error)
