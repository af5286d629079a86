"""Proves that connections to a host are bounded over all workers, and that nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import socket
import ssl
import struct
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest

import fast_litellm
from fast_litellm import _native
from fast_litellm.errors import ConfigError
from support import WAIT_S, Worker, in_fork, region, run_python, until

litellm = pytest.importorskip("litellm")
httpx = pytest.importorskip("httpx")

T = TypeVar("T")

SETTING = "FAST_LITELLM_MAX_CONNECTIONS_PER_HOST"
NAME = "connection_pooling.guard"
TRANSPORT = "litellm.llms.custom_httpx.aiohttp_transport"
HANDLER = "litellm.llms.custom_httpx.http_handler"
FEATURE = 3
MAX_ERRORS = 10
#: Shorter than a connection may be idle (15 s), longer than a busy machine takes.
POOL_S = 10.0
ESTABLISHED = 1


@pytest.fixture(scope="module", autouse=True)
def loaded() -> None:
    """LiteLLM's modules, unpatched. Every test patches them in a forked child of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(HANDLER)
        importlib.import_module(TRANSPORT)


def module() -> ModuleType:
    return importlib.import_module(TRANSPORT)


def handlers() -> Any:
    return importlib.import_module(HANDLER)


def accelerate(limit: object) -> dict[str, str]:
    warnings.simplefilter("ignore")
    os.environ.pop("FAST_LITELLM_ENABLED", None)
    os.environ[SETTING] = str(limit)
    assert fast_litellm.apply_acceleration() is True
    return status()


def guarded(limit: int) -> None:
    assert accelerate(limit) == {"state": "applied", "reason": ""}


def status() -> dict[str, str]:
    found: dict[str, str] = fast_litellm.get_patch_status()["seams"][NAME]
    return found


def seam() -> Any:
    from fast_litellm.integrations import litellm as ours

    return ours._seams[NAME]


def count(key: str) -> int:
    (held,) = _native.LimiterScripts(region()).parallel_count([key], [0])
    return int(held)


def open_to(port: int, host: str = "127.0.0.1") -> int:
    """Connections that the region counts."""
    return count(f"{{connections:{host}:{port}}}:max_parallel_requests")


def waiting_for(port: int) -> int:
    """Event loops in which somebody waits."""
    return count(f"{{connection_waits:127.0.0.1:{port}}}:max_parallel_requests")


class Server:
    """Answers `/name?seconds` after so many seconds, and counts the sockets that clients have open."""

    def __init__(
        self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, *, mute: bool = False
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self.url = (
            f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"
        )
        self._tls = tls
        self._mute = mute
        self._open: set[socket.socket] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.accepted = self.peak = 0
        self.asked: list[str] = []
        self._started = threading.Event()

    def __enter__(self) -> Server:
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)

    def open(self) -> int:
        """Sockets that have not been closed at the other end, whether that has been read or not."""
        info = (s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) for s in list(self._open))
        return sum(state[0] == ESTABLISHED for state in info)

    def reset_all(self) -> None:
        """Reset all connections."""

        def reset() -> None:
            for writer in self._writers:
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()

        self._loop.call_soon_threadsafe(reset)

    def block(self, until: threading.Event) -> None:
        """Answer nobody, not even TLS, until then."""
        blocked = threading.Event()

        def block() -> None:
            blocked.set()
            until.wait(WAIT_S)

        self._loop.call_soon_threadsafe(block)
        assert blocked.wait(WAIT_S)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        # Not as a context manager: it would wait for handlers that nobody ends.
        server = await asyncio.start_server(self._talk, sock=self._listener, ssl=self._tls)
        self._started.set()
        await self._stop.wait()
        server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = writer.get_extra_info("socket")
        self._open.add(raw)
        self._writers.add(writer)
        self.accepted += 1
        self.peak = max(self.peak, self.open())
        try:
            while not self._mute or not await asyncio.sleep(60):
                head = await reader.readuntil(b"\r\n\r\n")
                name, _, seconds = head.split()[1].decode().lstrip("/").partition("?")
                self.asked.append(name)
                await asyncio.sleep(float(seconds or 0))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._open.discard(raw)
            self._writers.discard(writer)
            writer.close()


def new_client(**settings: Any) -> Any:
    return handlers().AsyncHTTPHandler(**settings).client


async def get(client: Any, url: str, pool_s: float = POOL_S) -> int:
    response = await client.get(url, timeout=httpx.Timeout(60, pool=pool_s))
    assert response.content == b"ok"
    return int(response.status_code)


async def get_all(client: Any, urls: list[str]) -> list[int]:
    return await asyncio.gather(*(get(client, url) for url in urls))


async def eventually(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, f"did not {what}"
        await asyncio.sleep(0.005)


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


class Caller:
    """A worker with a client whose event loop runs all the time."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Any = None

    def _run(self, work: Coroutine[Any, Any, T]) -> Any:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, daemon=True).start()
            self._client = self._run(self._new_client())
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _new_client(self) -> Any:
        return new_client()

    async def _get_all(self, urls: list[str]) -> list[int]:
        return await get_all(await asyncio.wrap_future(self._client), urls)

    def get(self, *urls: str) -> list[int]:
        """Ask for all at once."""
        return list(self._run(self._get_all(list(urls))).result())

    def start(self, *urls: str) -> None:
        """The same, without waiting for the answers."""
        self._run(self._get_all(list(urls)))

    async def _keep_asking(self, url: str) -> None:
        while True:
            await self._get_all([url] * 4)

    def keep_asking(self, url: str) -> None:
        """Four requests at any time, for ever."""
        self._run(self._keep_asking(url))


# What is bounded


@in_fork
def test_a_worker_opens_no_more_than_the_limit_and_answers_all() -> None:
    guarded(3)

    async def main(server: Server) -> None:
        client = new_client()
        assert await get_all(client, [f"{server.url}/x?0.02"] * 12) == [200] * 12
        assert (server.peak, server.accepted) == (3, 3)
        assert open_to(server.port) == 3
        assert waiting_for(server.port) == 0
        await client.aclose()
        await eventually(lambda: open_to(server.port) == 0, "give the slots back")

    with Server() as server:
        asyncio.run(main(server))


@in_fork
def test_without_the_setting_litellm_opens_as_many_as_it_likes() -> None:
    warnings.simplefilter("ignore")
    os.environ.pop("FAST_LITELLM_ENABLED", None)
    owner, client = module().LiteLLMAiohttpTransport, handlers().AsyncHTTPHandler
    before = dict(vars(owner)), dict(vars(client))
    fast_litellm.apply_acceleration()
    assert NAME not in fast_litellm.get_patch_status()["seams"]
    assert (dict(vars(owner)), dict(vars(client))) == before
    with Server() as server:
        asyncio.run(get_all(new_client(), [f"{server.url}/x?0.05"] * 12))
        assert server.peak == 12


@in_fork
def test_workers_share_one_limit() -> None:
    guarded(4)
    with Worker(Caller()) as one, Worker(Caller()) as other, Server() as server:
        urls = [f"{server.url}/x?0.03"] * 16
        one.call("start", *urls)
        assert other.call("get", *urls) == [200] * 16
        until(lambda: len(server.asked) == 32, "answer all")
        assert server.peak == 4


@in_fork
def test_hosts_are_counted_apart() -> None:
    guarded(1)

    async def main(one: Server, other: Server) -> None:
        client = new_client()
        slow = asyncio.create_task(get(client, f"{one.url}/x?5"))
        await eventually(lambda: bool(one.asked), "ask")
        assert await get(client, f"{other.url}/x") == 200
        await cancelled(slow)

    with Server() as one, Server() as other:
        asyncio.run(main(one, other))


@in_fork
def test_connections_are_used_again() -> None:
    guarded(2)

    async def main(server: Server) -> None:
        client = new_client()
        for _ in range(5):
            await get(client, f"{server.url}/x")
        assert (server.accepted, open_to(server.port)) == (1, 1)

    with Server() as server:
        asyncio.run(main(server))


@in_fork
def test_those_that_wait_are_served_in_order() -> None:
    guarded(1)

    async def main(server: Server) -> None:
        client = new_client()
        requests = []
        for name in "abcdef":
            requests.append(asyncio.create_task(get(client, f"{server.url}/{name}?0.01")))
            await asyncio.sleep(0.002)
        await asyncio.gather(*requests)
        assert server.asked == list("abcdef")
        assert server.accepted == 1

    with Server() as server:
        asyncio.run(main(server))


@in_fork
def test_a_session_that_is_shared_by_clients_is_bounded() -> None:
    """The proxy makes one with a plain connector, and hands it to all of its clients."""
    import aiohttp

    guarded(2)

    async def main(server: Server) -> None:
        async with aiohttp.ClientSession() as session:
            client = new_client(shared_session=session)
            await get_all(client, [f"{server.url}/x?0.02"] * 6)
            assert (server.peak, open_to(server.port)) == (2, 2)

    with Server() as server:
        asyncio.run(main(server))


@in_fork
def test_a_session_that_was_used_before_starts_afresh() -> None:
    import aiohttp

    guarded(2)

    async def main(server: Server) -> None:
        async with aiohttp.ClientSession() as session:
            busy = asyncio.create_task(session.get(f"{server.url}/busy?9"))
            await eventually(lambda: bool(server.asked), "ask")
            await (await session.get(f"{server.url}/idle")).read()
            assert server.open() == 2
            client = new_client(shared_session=session)
            assert await get(client, f"{server.url}/x") == 200
            # The idle one has been closed, the other one is told.
            assert (server.accepted, server.open(), open_to(server.port)) == (3, 2, 1)
            assert region().fallback_count() == 1
            await cancelled(busy)

    with Server() as server:
        asyncio.run(main(server))


@in_fork
def test_whoever_asks_litellm_for_a_session_gets_a_bounded_one() -> None:
    guarded(2)

    async def main(server: Server) -> None:
        client = new_client()
        session = client._transport._get_valid_client_session()

        async def get() -> int:
            async with session.get(f"{server.url}/x?0.02") as response:
                return int(response.status)

        assert await asyncio.gather(*(get() for _ in range(6))) == [200] * 6
        assert server.peak == 2
        await client.aclose()

    with Server() as server:
        asyncio.run(main(server))


@in_fork
def test_an_ipv6_host_is_one() -> None:
    guarded(2)
    try:
        server = Server("::1")
    except OSError:
        return  # there is no IPv6 here
    with server:
        asyncio.run(get_all(new_client(), [f"{server.url}/x?0.02"] * 6))
        assert server.peak == 2


# Nothing leaks


@in_fork
def test_a_caller_that_gives_up_waiting_leaves_nothing_behind() -> None:
    guarded(1)

    async def main(server: Server) -> None:
        client = new_client()
        slow = asyncio.create_task(get(client, f"{server.url}/slow?1"))
        await eventually(lambda: bool(server.asked), "ask")
        waits = [asyncio.create_task(get(client, f"{server.url}/{n}")) for n in range(5)]
        await eventually(lambda: waiting_for(server.port) == 1, "wait")
        for task in waits[:4]:
            await cancelled(task)
        assert waiting_for(server.port) == 1
        assert await waits[4] == await slow == 200
        assert server.asked == ["slow", "4"]
        assert (waiting_for(server.port), open_to(server.port)) == (0, 1)

    with Server() as server:
        asyncio.run(main(server))


@in_fork
def test_a_caller_that_is_cancelled_as_it_is_served_passes_it_on() -> None:
    """It was given a slot, or another caller's connection, but had not run since."""
    guarded(1)

    async def main(server: Server) -> None:
        client = new_client()
        for _ in range(2):
            slow = asyncio.create_task(get(client, f"{server.url}/slow?1"))
            await eventually(lambda: server.asked[-1:] == ["slow"], "ask")
            first = asyncio.create_task(get(client, f"{server.url}/first"))
            second = asyncio.create_task(get(client, f"{server.url}/second"))
            await eventually(lambda: waiting_for(server.port) == 1, "wait")
            (host,) = hosts()
            when_served(host, lambda _, first=first: first.cancel())
            assert await second == await slow == 200
            with pytest.raises(asyncio.CancelledError):
                await first
        assert "first" not in server.asked
        assert open_to(server.port) == server.open() == 1

    with Server() as server:
        asyncio.run(main(server))


def when_served(host: Any, then: Callable[[Any], object]) -> None:
    """Call `then(waiter)` after the first in line has been given a connection, before it runs."""
    next_for, loop = host.next_for, asyncio.get_running_loop()

    def served(*args: Any) -> Any:
        waiter = next_for(*args)
        if waiter is not None:
            loop.call_soon(then, waiter)
            host.next_for = next_for
        return waiter

    host.next_for = served


def hosts() -> list[Any]:
    return [host for hosts in seam()._slots._hosts.values() for host in hosts.values()]


@in_fork
def test_a_connection_on_its_way_is_closed_with_its_client() -> None:
    guarded(1)

    async def main(server: Server) -> None:
        client = new_client()
        slow = asyncio.create_task(get(client, f"{server.url}/slow?1"))
        await eventually(lambda: bool(server.asked), "ask")
        second = asyncio.create_task(get(client, f"{server.url}/second"))
        await eventually(lambda: waiting_for(server.port) == 1, "wait")
        connector = client._transport.client.connector

        def close(_: Any) -> None:
            connector._close()
            second.cancel()

        (host,) = hosts()
        when_served(host, close)
        with pytest.raises(asyncio.CancelledError):
            await second
        await slow
        await eventually(lambda: open_to(server.port) == server.open() == 0, "close it")

    with Server() as server:
        asyncio.run(main(server))


@in_fork
def test_a_connection_that_is_lost_on_its_way_is_replaced() -> None:
    """What may not be sent twice, aiohttp does not send again by itself."""
    guarded(1)

    async def main(server: Server) -> None:
        client = new_client()
        slow = asyncio.create_task(get(client, f"{server.url}/slow?1"))
        await eventually(lambda: bool(server.asked), "ask")
        second = asyncio.create_task(client.post(f"{server.url}/second"))
        await eventually(lambda: waiting_for(server.port) == 1, "wait")
        (host,) = hosts()
        when_served(host, lambda waiter: waiter.future.result().connection.close())
        assert (await second).status_code == await slow == 200
        assert (server.accepted, server.peak, open_to(server.port)) == (2, 1, 1)

    with Server() as server:
        asyncio.run(main(server))


@in_fork
def test_a_connection_that_the_provider_resets_is_free_without_complaint() -> None:
    guarded(1)

    async def main(server: Server) -> None:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
        client = new_client()
        await get(client, f"{server.url}/x")
        server.reset_all()
        await eventually(lambda: open_to(server.port) == 0, "give the slot back")
        assert await get(client, f"{server.url}/x") == 200
        gc.collect()
        assert complaints == []

    with Server() as server:
        asyncio.run(main(server))


@in_fork
def test_a_slot_that_was_given_to_somebody_cancelled_is_free() -> None:
    guarded(1)

    async def main() -> None:
        slots = seam()._slots
        host = slots.host("example:1", asyncio.get_running_loop())
        held = host.take()
        waiter = asyncio.create_task(host.wait(object(), "key"))
        await asyncio.sleep(0)
        held.release()
        # Served in that call, cancelled before it runs.
        assert count("{connections:example:1}:max_parallel_requests") == 1
        await cancelled(waiter)
        assert count("{connections:example:1}:max_parallel_requests") == 0
        assert count("{connection_waits:example:1}:max_parallel_requests") == 0

    asyncio.run(main())


@in_fork
def test_a_caller_that_is_cancelled_while_it_connects_leaves_nothing_behind() -> None:
    guarded(1)

    async def main(server: Server) -> None:
        client = new_client(ssl_verify=False)
        # The server takes the connection and never answers the handshake.
        url = server.url.replace("http:", "https:")
        for number in range(3):
            task = asyncio.create_task(get(client, url))
            await eventually(lambda: server.accepted > number, "connect")  # noqa: B023
            assert open_to(server.port) == 1
            await cancelled(task)
            await eventually(lambda: open_to(server.port) == 0, "give the slot back")
        assert server.peak == 1

    with Server(mute=True) as server:
        asyncio.run(main(server))


@in_fork
def test_a_connection_that_is_refused_is_not_counted() -> None:
    guarded(1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

    async def main() -> None:
        client = new_client()
        for _ in range(3):
            with pytest.raises(httpx.ConnectError):
                await get(client, f"http://127.0.0.1:{port}/x")
        await asyncio.sleep(0)
        assert open_to(port) == 0

    asyncio.run(main())


@in_fork
def test_an_answer_that_is_not_read_to_its_end_gives_its_slot_back() -> None:
    guarded(1)

    async def main(server: Server) -> None:
        client = new_client()
        for _ in range(3):
            async with client.stream("GET", f"{server.url}/x"):
                assert open_to(server.port) == 1
        slow = asyncio.create_task(get(client, f"{server.url}/slow?9"))
        await eventually(lambda: server.asked[-1] == "slow", "ask")
        await cancelled(slow)
        assert await get(client, f"{server.url}/x") == 200
        assert server.peak == 1

    with Server() as server:
        asyncio.run(main(server))


@in_fork
def test_a_caller_that_waits_too_long_is_told_what_litellm_tells() -> None:
    """LiteLLM's own limit, of one worker, is the measure."""

    async def main(server: Server) -> tuple[type[BaseException], float]:
        client = new_client()
        slow = asyncio.create_task(get(client, f"{server.url}/slow?9"))
        await eventually(lambda: bool(server.asked), "ask")
        began = time.monotonic()
        with pytest.raises(httpx.TimeoutException) as raised:
            await get(client, f"{server.url}/x", pool_s=0.1)
        waited_s = time.monotonic() - began
        await cancelled(slow)
        return type(raised.value), waited_s

    usual = handlers().AIOHTTP_CONNECTOR_LIMIT_PER_HOST
    handlers().AIOHTTP_CONNECTOR_LIMIT_PER_HOST = 1
    with Server() as server:
        theirs, _ = asyncio.run(main(server))
    handlers().AIOHTTP_CONNECTOR_LIMIT_PER_HOST = usual
    guarded(1)
    with Server() as server:
        ours, waited_s = asyncio.run(main(server))
        assert ours is theirs
        assert waited_s >= 0.1
        assert (waiting_for(server.port), "x" in server.asked) == (0, False)


@in_fork
def test_those_that_wait_for_a_client_that_is_closed_are_told() -> None:
    guarded(1)

    async def main(server: Server) -> None:
        client, other = new_client(), new_client()
        slow = asyncio.create_task(get(client, f"{server.url}/slow?9"))
        await eventually(lambda: bool(server.asked), "ask")
        waits = asyncio.create_task(get(other, f"{server.url}/x"))
        await eventually(lambda: waiting_for(server.port) == 1, "wait")
        await other.aclose()
        # LiteLLM takes that for a failure to connect where it can tell the two apart.
        with pytest.raises((httpx.ConnectError, asyncio.CancelledError)):
            await waits
        assert waiting_for(server.port) == 0
        await cancelled(slow)

    with Server() as server:
        asyncio.run(main(server))


@in_fork
def test_connections_of_a_killed_worker_are_free() -> None:
    guarded(2)
    with Worker(Caller()) as killed, Worker(Caller()) as other, Server() as server:
        killed.call("start", *[f"{server.url}/slow?60"] * 4)
        until(lambda: len(server.asked) == 2 and waiting_for(server.port) == 1, "hold all")
        killed.kill(wait=False)
        assert other.call("get", *[f"{server.url}/x"] * 4) == [200] * 4
        assert server.peak == 2
        assert waiting_for(server.port) == 0


# Nobody waits for ever


@in_fork
def test_idle_connections_of_a_worker_make_way_for_another() -> None:
    guarded(2)
    with Worker(Caller()) as idle, Worker(Caller()) as other, Server() as server:
        idle.call("get", *[f"{server.url}/x?0.05"] * 2)
        assert open_to(server.port) == server.open() == 2
        assert other.call("get", f"{server.url}/x") == [200]
        assert server.peak == 2


@in_fork
def test_a_worker_that_asks_all_the_time_leaves_its_share_to_another() -> None:
    guarded(1)
    with Worker(Caller()) as busy, Worker(Caller()) as other, Server() as server:
        busy.call("keep_asking", f"{server.url}/busy?0.005")
        until(lambda: len(server.asked) > 4, "be busy")
        assert other.call("get", *[f"{server.url}/other"] * 5) == [200] * 5
        assert server.peak == 1


@in_fork
def test_workers_that_all_wait_get_equal_shares_and_keep_them() -> None:
    guarded(4)
    with Worker(Caller()) as one, Worker(Caller()) as other, Server() as server:
        one.call("keep_asking", f"{server.url}/one?0.02")
        one.call("keep_asking", f"{server.url}/one?0.02")
        until(lambda: len(server.asked) > 8, "be busy")
        other.call("keep_asking", f"{server.url}/other?0.02")
        other.call("keep_asking", f"{server.url}/other?0.02")
        until(lambda: server.asked[-60:].count("other") >= 20, "share")
        opened, asked = server.accepted, len(server.asked)
        until(lambda: len(server.asked) >= asked + 60, "go on")
        # Connections are not opened anew for each request, although others wait.
        assert server.accepted - opened <= 20
        assert server.peak == 4


@in_fork
def test_a_newcomer_gets_in_line_when_others_wait_and_its_worker_has_its_share() -> None:
    guarded(2)

    async def main() -> None:
        host = seam()._slots.host("example:1", asyncio.get_running_loop())
        waits = ["{connection_waits:example:1}:max_parallel_requests"]
        other = _native.LimiterScripts(region())
        other.parallel_acquire(waits, [9, 0, "another loop"])
        first = host.take()
        assert first is not None
        assert host.take() is None
        other.parallel_release(waits, ["another loop"])
        assert host.take() is not None

    asyncio.run(main())


@in_fork
def test_a_client_makes_way_for_another_of_the_same_worker(tmp_path: Path) -> None:
    """Connections of one client are of no use to another: here each has a TLS context of its own."""
    guarded(1)

    async def main(server: Server) -> None:
        one, other = (new_client(ssl_verify=client_tls()) for _ in range(2))
        for client in (one, other, one, one):
            assert await get(client, f"{server.url}/x") == 200
        assert (server.accepted, server.peak) == (3, 1)
        both = [get_all(client, [f"{server.url}/x"] * 4) for client in (one, other)]
        assert await asyncio.gather(*both) == [[200] * 4] * 2
        assert server.peak == 1

    def client_tls() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(certificate))
        context.check_hostname = False
        return context

    certificate, server_tls = make_certificate(tmp_path)
    with Server(tls=server_tls) as server:
        asyncio.run(main(server))


@in_fork
def test_a_provider_that_does_not_say_farewell_holds_nobody_up(tmp_path: Path) -> None:
    # With older Pythons LiteLLM has aiohttp break such connections off after two seconds.
    handlers().AIOHTTP_NEEDS_CLEANUP_CLOSED = False
    guarded(1)

    async def main(server: Server) -> None:
        one, other = (new_client(ssl_verify=False) for _ in range(2))
        await get(one, f"{server.url}/x")
        held = set(hosts()[0]._held)
        go_on = threading.Event()
        server.block(go_on)
        waits = asyncio.create_task(get(other, f"{server.url}/x"))
        await eventually(lambda: bool(hosts()[0]._held - held), "give its slot to the other one")
        go_on.set()
        assert await waits == 200

    _, server_tls = make_certificate(tmp_path)
    with Server(tls=server_tls) as server:
        asyncio.run(main(server))


def make_certificate(directory: Path) -> tuple[Path, ssl.SSLContext]:
    import datetime

    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = directory / "cert.pem", directory / "key.pem"
    pem = serialization.Encoding.PEM
    certificate.write_bytes(signed.public_bytes(pem))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(pem, *plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, secret)
    return certificate, context


@pytest.mark.parametrize("one_client", [True, False])
@in_fork
def test_event_loops_that_follow_each_other_do_not_starve(one_client: bool) -> None:
    """A loop that is closed leaves its idle connections open, and nobody can close them there."""
    guarded(1)
    clients = [new_client()]
    with Server() as server:
        for _ in range(4):
            if not one_client:
                clients.append(new_client())
            assert asyncio.run(get(clients[-1], f"{server.url}/x")) == 200
        assert server.peak == 1
        assert open_to(server.port) <= 1


@in_fork
def test_event_loops_of_threads_share_the_limit() -> None:
    guarded(2)

    async def main(server: Server) -> list[int]:
        client = new_client()
        return await get_all(client, [f"{server.url}/x?0.02"] * 8)

    with Server() as server:
        answers: list[list[int]] = []
        threads = [
            threading.Thread(target=lambda: answers.append(asyncio.run(main(server))))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert answers == [[200] * 8] * 3
        assert server.peak == 2


# Faults


class Broken:
    """The region's operations, of which one fails."""

    def __init__(self, scripts: Any, method: str, error: Exception) -> None:
        self._scripts = scripts
        self._method = method
        self._error = error

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            raise self._error
        return getattr(self._scripts, name)


@pytest.mark.parametrize(
    "method", ["parallel_acquire", "parallel_release", "value", "parallel_count"]
)
@in_fork
def test_a_fault_of_ours_is_counted_and_the_request_goes_on(method: str) -> None:
    guarded(2)

    async def main(server: Server) -> None:
        client = new_client()
        slots = seam()._slots
        whole = slots.scripts
        await get(client, f"{server.url}/x")
        slots.scripts = Broken(whole, method, RuntimeError("injected"))
        assert await get_all(client, [f"{server.url}/x?0.01"] * 5) == [200] * 5
        await client.aclose()
        slots.scripts = whole

    with Server() as server:
        asyncio.run(main(server))
        assert (region().feature_errors(FEATURE) > 0) == (method != "parallel_count")


@in_fork
def test_a_slot_whose_release_has_failed_is_given_back_later() -> None:
    guarded(1)

    async def main(server: Server) -> None:
        slots = seam()._slots
        whole, client = slots.scripts, new_client()
        await get(client, f"{server.url}/x")
        slots.scripts = Broken(whole, "parallel_release", RuntimeError("injected"))
        await client.aclose()
        await eventually(lambda: region().feature_errors(FEATURE) > 0, "fail")
        slots.scripts = whole
        # The only slot would be taken for as long as this process lives.
        other = new_client()
        await asyncio.wait_for(get(other, f"{server.url}/x"), POOL_S / 2)
        assert open_to(server.port) == 1
        await other.aclose()

    with Server() as server:
        asyncio.run(main(server))


@in_fork
def test_after_ten_faults_litellm_connects_by_itself_until_the_breaker_closes() -> None:
    guarded(1)

    async def main(server: Server) -> None:
        client = new_client()
        slots = seam()._slots
        whole, slots.scripts = (
            slots.scripts,
            Broken(slots.scripts, "parallel_acquire", RuntimeError("injected")),
        )
        assert await get_all(client, [f"{server.url}/x?0.1"] * 12) == [200] * 12
        assert server.peak == 12
        slots.scripts = whole
        await eventually(lambda: seam().open, "open the breaker")
        assert fast_litellm.health_check()["status"] == "degraded"
        fallbacks = region().fallback_count()
        other = new_client()
        assert await get_all(other, [f"{server.url}/x?0.1"] * 4) == [200] * 4
        assert region().fallback_count() == fallbacks + 4
        region().reset_feature(FEATURE)
        await eventually(lambda: not seam().open, "close the breaker")
        await client.aclose()
        await other.aclose()
        await get_all(new_client(), [f"{server.url}/x?0.01"] * 4)
        assert open_to(server.port) == 1

    with Server() as server:
        asyncio.run(main(server))


@in_fork
def test_a_guard_that_is_switched_off_counts_nothing() -> None:
    guarded(1)
    fast_litellm.set_feature("rust_connection_pool", False)

    async def main(server: Server) -> None:
        await eventually(lambda: seam().open, "be switched off")
        client = new_client()
        assert await get_all(client, [f"{server.url}/x?0.1"] * 4) == [200] * 4
        assert server.peak == 4
        await client.aclose()

    with Server() as server:
        asyncio.run(main(server))
    # It was wanted.
    assert region().fallback_count() == 0


@in_fork
def test_a_guard_for_a_part_is_none_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    os.environ["FAST_LITELLM_RUST_CONNECTION_POOL"] = "rollout:50"
    found = accelerate(1)
    assert found["state"] == "not_applied"
    assert "50%" in found["reason"]
    standing = fast_litellm.get_feature_status()["rust_connection_pool"]
    assert (standing["enabled"], standing["note"]) == (False, found["reason"])
    assert not any(fast_litellm.is_enabled("rust_connection_pool", f"r{n}") for n in range(50))
    assert seam().open
    assert "all workers" not in caplog.text
    assert "50% is none" in caplog.text
    fast_litellm.set_feature("rust_connection_pool", True)
    assert status() == {"state": "applied", "reason": ""}
    assert fast_litellm.is_enabled("rust_connection_pool", "r1")
    until(lambda: not seam().open, "be switched on", timeout_s=1.0)


@in_fork
def test_a_region_without_room_is_counted_but_opens_no_breaker() -> None:
    guarded(1)

    async def main(server: Server) -> None:
        slots = seam()._slots
        slots.scripts = Broken(
            slots.scripts, "parallel_acquire", _native.UnavailableError("the table is full")
        )
        assert await get_all(new_client(), [f"{server.url}/x"] * 3) == [200] * 3

    with Server() as server:
        asyncio.run(main(server))
        assert region().feature_errors(FEATURE) == 0
        assert region().fallback_count() >= 3


@in_fork
def test_clients_that_use_httpx_are_told(caplog: pytest.LogCaptureFixture) -> None:
    guarded(1)
    litellm.disable_aiohttp_transport = True
    for _ in range(3):
        new_client()
    assert region().fallback_count() == 3
    assert status()["state"] == "not_applied"
    assert "httpx" in status()["reason"]
    told = [record for record in caplog.records if "NOT bounded" in record.getMessage()]
    assert len(told) == 1


@in_fork
def test_a_session_that_connects_otherwise_is_told(tmp_path: Path) -> None:
    import aiohttp

    guarded(1)

    async def main() -> None:
        connector = aiohttp.UnixConnector(str(tmp_path / "nobody"))
        async with aiohttp.ClientSession(connector=connector) as session:
            client = new_client(shared_session=session)
            for _ in range(2):
                with pytest.raises(httpx.HTTPError):
                    await get(client, "http://provider/x")
            assert type(session.connector) is aiohttp.UnixConnector

    asyncio.run(main())
    assert region().fallback_count() == 1
    assert status()["state"] == "applied"


# Applied, and undone


@in_fork
def test_removing_it_leaves_litellm_as_it_was() -> None:
    import aiohttp

    owner, client_class = module().LiteLLMAiohttpTransport, handlers().AsyncHTTPHandler
    before = dict(vars(owner)), dict(vars(client_class))
    guarded(1)

    async def main(server: Server) -> None:
        client = new_client()
        requests = [asyncio.create_task(get(client, f"{server.url}/x?0.1")) for _ in range(4)]
        await eventually(lambda: waiting_for(server.port) == 1, "wait")
        connector = client._transport.client.connector
        assert type(connector) is not aiohttp.TCPConnector
        fast_litellm.remove_acceleration()
        assert (dict(vars(owner)), dict(vars(client_class))) == before
        assert type(connector) is aiohttp.TCPConnector
        assert not [name for name in vars(connector) if "fast_litellm" in name]
        # Those that waited go on.
        assert await asyncio.gather(*requests) == [200] * 4
        assert server.peak == 4
        assert waiting_for(server.port) == 0
        await get_all(client, [f"{server.url}/x?0.05"] * 8)
        assert server.peak == 8
        await client.aclose()
        await eventually(lambda: open_to(server.port) == 0, "give the last slot back")

    with Server() as server:
        asyncio.run(main(server))
    assert fast_litellm.get_patch_status()["seams"] == {}
    guarded(2)
    with Server() as server:
        asyncio.run(get_all(new_client(), [f"{server.url}/x?0.02"] * 6))
        assert server.peak == 2


@in_fork
def test_a_malformed_limit_is_named() -> None:
    for value in ("many", "0", "-1", "1.5"):
        with pytest.raises(ConfigError, match=f"{SETTING}='?{value}"):
            accelerate(value)


@in_fork
def test_the_switch_leaves_litellm_alone() -> None:
    os.environ["FAST_LITELLM_RUST_CONNECTION_POOL"] = "false"
    before = dict(vars(module().LiteLLMAiohttpTransport))
    reason = "FAST_LITELLM_RUST_CONNECTION_POOL is false"
    assert accelerate(1) == {"state": "not_applied", "reason": reason}
    assert dict(vars(module().LiteLLMAiohttpTransport)) == before


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("litellm", "_make_aiohttp_request"),
        ("litellm", "_rebuild_session"),
        ("aiohttp", "_create_connection"),
    ],
)
@in_fork
def test_what_is_not_as_it_was_is_left_alone(owner: str, name: str) -> None:
    import aiohttp

    transport = module().LiteLLMAiohttpTransport
    changed = transport if owner == "litellm" else aiohttp.TCPConnector
    if owner == "litellm":
        delattr(changed, name)
    else:
        changed._create_connection = lambda self: None
    before = dict(vars(transport)), dict(vars(handlers().AsyncHTTPHandler))
    found = accelerate(1)
    assert found["state"] == "not_applied"
    assert name in found["reason"]
    assert (dict(vars(transport)), dict(vars(handlers().AsyncHTTPHandler))) == before


@pytest.mark.parametrize("version", ["1.104.0", "1.109.1"])
def test_it_bounds_other_versions_too(version: str) -> None:
    """The way it happens in a proxy: fast_litellm first, LiteLLM later."""
    variable = f"FAST_LITELLM_TEST_PYTHON_{version.replace('.', '_')}"
    python = os.environ.get(variable)
    if python is None:
        pytest.skip(f"{variable} names no interpreter")
    done = run_python(
        """
        import warnings
        warnings.simplefilter("ignore")
        import asyncio, json
        import fast_litellm
        before = fast_litellm.get_patch_status()["seams"]["connection_pooling.guard"]["state"]
        import litellm
        from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler
        opened = peak = 0
        async def talk(reader, writer):
            global opened, peak
            opened += 1
            peak = max(peak, opened)
            try:
                while True:
                    await reader.readuntil(b"\\r\\n\\r\\n")
                    await asyncio.sleep(0.02)
                    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
            except asyncio.IncompleteReadError:
                opened -= 1
        async def main():
            server = await asyncio.start_server(talk, "127.0.0.1", 0)
            url = "http://127.0.0.1:%d/" % server.sockets[0].getsockname()[1]
            client = AsyncHTTPHandler()
            answers = await asyncio.gather(*(client.get(url) for _ in range(10)))
            await client.close()
            return [answer.status_code for answer in answers]
        answers = asyncio.run(main())
        status = fast_litellm.get_patch_status()
        after = status["seams"]["connection_pooling.guard"]
        print(json.dumps([before, after, "connection_pooling" in status["components"], peak, answers]))
        """,
        env={SETTING: "2"},
        python=python,
    )
    applied = {"state": "applied", "reason": ""}
    assert json.loads(done.stdout.splitlines()[-1]) == ["armed", applied, True, 2, [200] * 10]
