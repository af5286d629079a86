"""A fake OpenAI-compatible provider that counts what reaches it.

Run it with `python -m tests.harness.fake_openai --port N` or by its path. The first path segment
names a deployment, so one server can stand in for many:

    POST /{deployment}/v1/chat/completions   a completion, plain or streamed (`/v1` is optional)
    POST /control/{deployment}               set latency, status, prompt_tokens, completion_tokens,
                                             usage_of_streams (0 = none, though it is asked for),
                                             content (of a fifth of an answer), quotes (1 = errors
                                             have the key and the prompt in their text)
    GET  /stats                              counts per deployment
    GET  /sockets                            most sockets that were open at once when one was used
    POST /reset                              forget all counts and settings, release whoever waits
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

STREAM_CHUNKS = 5
"""Content chunks of one streamed answer; the latency is spread evenly between them."""


@dataclass
class Settings:
    """How a deployment answers. The defaults make every answer cost 30 tokens."""

    latency: float = 0.0
    status: int = 200
    prompt_tokens: int = 10
    completion_tokens: int = 20
    usage_of_streams: bool = True
    content: str = "word "
    quotes: bool = False

    def update(self, changes: dict[str, Any]) -> None:
        """Apply the fields of a control request; an unknown one is an error."""
        for name, value in changes.items():
            kind = type(getattr(self, name))
            setattr(self, name, kind(value))

    def usage(self) -> dict[str, int]:
        """The usage block of an answer."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


@dataclass
class Deployment:
    """Settings and counters of one deployment."""

    settings: Settings = field(default_factory=Settings)
    total: int = 0
    peak: int = 0
    # One entry per request being answered: the caller's TCP port, which tells the worker
    # processes of a proxy apart even when they keep idle connections open.
    client_ports: list[int] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self, port: int) -> None:
        """Count a request in."""
        self.total += 1
        self.client_ports.append(port)
        self.peak = max(self.peak, len(self.client_ports))

    def leave(self, port: int) -> None:
        """Count a request out."""
        self.client_ports.remove(port)

    async def pause(self, seconds: float) -> None:
        """Wait, but no longer than until the next reset."""
        if seconds <= 0:
            return
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.released.wait(), seconds)

    def stats(self) -> dict[str, Any]:
        """The counters, as `GET /stats` reports them."""
        return {
            "total": self.total,
            "in_flight": len(self.client_ports),
            "peak": self.peak,
            "client_ports": self.client_ports,
        }


class Deployments:
    """All deployments by name, made on first use."""

    def __init__(self) -> None:
        self._by_name: dict[str, Deployment] = {}

    def get(self, name: str) -> Deployment:
        """The deployment of that name."""
        return self._by_name.setdefault(name, Deployment())

    def stats(self) -> dict[str, dict[str, Any]]:
        """The counters of every deployment."""
        return {name: deployment.stats() for name, deployment in self._by_name.items()}

    def reset(self) -> None:
        """Start afresh.

        Requests still being answered keep their old `Deployment`, so that they cannot count
        themselves out of the new one.
        """
        old, self._by_name = self._by_name, {}
        for deployment in old.values():
            deployment.released.set()


class Sockets:
    """Sockets that callers have open, busy or idle.

    What a caller has closed is not counted, even where that has not been read yet.
    """

    def __init__(self) -> None:
        self._open: set[asyncio.BaseTransport] = set()
        self.peak = 0

    def opened(self, transport: asyncio.BaseTransport) -> None:
        """Count a socket in."""
        self._open.add(transport)

    def closed(self, transport: asyncio.BaseTransport) -> None:
        """Count a socket out."""
        self._open.discard(transport)

    def used(self) -> None:
        """Look how many are open; only when completions are asked for, not when somebody looks."""
        sockets = (transport.get_extra_info("socket") for transport in self._open)
        states = (s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] for s in sockets)
        self.peak = max(self.peak, sum(state == ESTABLISHED for state in states))


SOCKETS = Sockets()
ESTABLISHED = 1


class CountedProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's protocol, which says when a socket is opened and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A caller has connected."""
        SOCKETS.opened(transport)
        super().connection_made(transport)
        self._counted = transport

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is closed at both ends."""
        SOCKETS.closed(self._counted)
        super().connection_lost(error)


class ChatCompletions:
    """The completion endpoint, as a bare ASGI app.

    Bare because a request must stay counted until its last byte is sent, and must be counted out
    even when the caller goes away before a stream has started.
    """

    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        deployment = self._deployments.get(request.path_params["deployment"])
        port = request.client.port if request.client else 0
        SOCKETS.used()
        deployment.enter(port)
        ended = False

        async def count_out(message: Message) -> None:
            nonlocal ended
            await send(message)
            # Whoever has read all of it may ask again before a stream's task is over.
            if message["type"] == "http.response.body" and not message.get("more_body"):
                deployment.leave(port)
                ended = True

        try:
            key = request.headers.get("authorization", "")
            response = await _answer(deployment, await request.json(), key)
            await response(scope, receive, count_out)
        finally:
            if not ended:
                deployment.leave(port)


async def _answer(deployment: Deployment, body: dict[str, Any], key: str) -> Response:
    # A request keeps the settings it arrived under, so that a test can hold some requests for
    # long and then let others through quickly.
    settings = Settings(**vars(deployment.settings))
    if settings.status == 200 and body.get("stream"):
        return StreamingResponse(
            _stream(deployment, settings, body), media_type="text/event-stream"
        )
    await deployment.pause(settings.latency)
    if settings.status != 200:
        quoted = f": {key} asked {body.get('messages')}" if settings.quotes else ""
        message = f"fake status {settings.status}{quoted}"
        error = {"message": message, "type": "fake", "code": None}
        return JSONResponse({"error": error}, status_code=settings.status)
    content = {"role": "assistant", "content": settings.content * STREAM_CHUNKS}
    choice = {"index": 0, "message": content, "finish_reason": "stop"}
    return JSONResponse(
        _envelope("chat.completion", body) | {"choices": [choice], "usage": settings.usage()}
    )


async def _stream(
    deployment: Deployment, settings: Settings, body: dict[str, Any]
) -> AsyncIterator[str]:
    envelope = _envelope("chat.completion.chunk", body)
    for _ in range(STREAM_CHUNKS):
        delta = {"role": "assistant", "content": settings.content}
        yield _event(envelope | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        await deployment.pause(settings.latency / STREAM_CHUNKS)
    yield _event(envelope | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if settings.usage_of_streams and (body.get("stream_options") or {}).get("include_usage"):
        yield _event(envelope | {"choices": [], "usage": settings.usage()})
    yield "data: [DONE]\n\n"


def _envelope(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": body.get("model", "fake"),
    }


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


def build_app() -> Starlette:
    """A new application with no deployments yet."""
    deployments = Deployments()

    async def control(request: Request) -> Response:
        deployment = deployments.get(request.path_params["deployment"])
        try:
            deployment.settings.update(await request.json())
        except (AttributeError, TypeError, ValueError) as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse(vars(deployment.settings))

    async def stats(_: Request) -> Response:
        return JSONResponse(deployments.stats())

    async def sockets(_: Request) -> Response:
        return JSONResponse({"peak": SOCKETS.peak})

    async def reset(_: Request) -> Response:
        deployments.reset()
        SOCKETS.peak = 0
        return JSONResponse({})

    completions = ChatCompletions(deployments)
    return Starlette(
        routes=[
            Route("/control/{deployment}", control, methods=["POST"]),
            Route("/stats", stats, methods=["GET"]),
            Route("/sockets", sockets, methods=["GET"]),
            Route("/reset", reset, methods=["POST"]),
            Route("/{deployment}/v1/chat/completions", completions, methods=["POST"]),
            Route("/{deployment}/chat/completions", completions, methods=["POST"]),
        ]
    )


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description="A fake OpenAI-compatible provider.")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    uvicorn.run(
        build_app(),
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        http=CountedProtocol,
        # Callers pool their connections. Closing an idle one just as it is used again would look
        # like a failure of the proxy.
        timeout_keep_alive=600,
    )


if __name__ == "__main__":
    main()
