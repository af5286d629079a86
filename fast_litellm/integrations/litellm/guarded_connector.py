"""aiohttp's connector, asking for a slot before it connects; the only file that knows its private names.

A connector that exists is made to ask by giving it another class, and gets its own back by `unguard`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

from fast_litellm._native import FAULTS
from fast_litellm.integrations.litellm.host_slots import Given, HostSlots, Slot

#: Attribute of a guarded connector: the slots it asks for.
_SLOTS = "_fast_litellm_slots"
#: Methods that are wrapped or called, with the parameters that are used.
_METHODS: dict[str, set[str]] = {
    "_create_connection": {"req", "traces", "timeout"},
    "_release": {"key", "protocol", "should_close"},
    "_close": set(),
}


def probe() -> str:
    """Why connectors cannot be guarded; empty = they can."""
    for name, parameters in _METHODS.items():
        method = getattr(aiohttp.TCPConnector, name, None)
        if not callable(method):
            return f"aiohttp {aiohttp.__version__} has no TCPConnector.{name}"
        missing = parameters - set(inspect.signature(method).parameters)
        if missing:
            return f"aiohttp's TCPConnector.{name} takes no {', '.join(sorted(missing))}"
    for name in ("closed", "abort", "close", "is_connected"):
        if not hasattr(ResponseHandler, name):
            return f"aiohttp {aiohttp.__version__} has no ResponseHandler.{name}"
    return ""


def can_guard(connector: object) -> bool:
    """Whether a connector opens TCP connections as aiohttp does."""
    return isinstance(connector, aiohttp.TCPConnector) and isinstance(
        getattr(connector, "_conns", None), dict
    )


def is_guarded(connector: object) -> bool:
    """Whether a connector asks for slots."""
    return getattr(connector, _SLOTS, None) is not None


def guard(connector: Any, slots: HostSlots) -> None:
    """Have a connector ask for slots. Of the connections that it has already, idle ones are closed.

    Raises:
        TypeError: its class cannot be changed.
    """
    connector.__class__ = _guarded(type(connector))  # type: ignore[arg-type]
    setattr(connector, _SLOTS, slots)
    for _ in connector._acquired:
        slots.uncounted()
    for key in list(connector._conns):
        connector.close_idle(_name(key), len(connector._conns[key]))


def unguard(connector: Any) -> None:
    """Give a connector its own class back. Its connections stay counted until they are closed."""
    if is_guarded(connector):
        delattr(connector, _SLOTS)
        connector.__class__ = type(connector).__mro__[1]


class _Handed:
    """A connection that is on its way from its last user to the first in line."""

    def __init__(self, connector: Any, key: Any, connection: ResponseHandler) -> None:
        self.connection = connection
        self._connector = connector
        self._key = key

    def release(self) -> None:
        if self._connector.closed:
            # It was neither idle nor in use when the connector closed both.
            self.connection.close()
        else:
            self._connector._release(self._key, self.connection)


@functools.cache
def _guarded(base: type[Any]) -> type[Any]:
    class Guarded(base):  # type: ignore[misc]
        async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
            # Looked up first: this object may have its own class back when the wait is over.
            create = super()._create_connection
            given = await _slot_or_connection(self, req.connection_key, traces)
            if isinstance(given, _Handed):
                return given.connection
            try:
                connection = await create(req, traces, timeout)
            except BaseException:
                if given is None:
                    raise
                # What there is of the connection is closed before this is run.
                asyncio.get_running_loop().call_soon(given.release)
                raise
            if isinstance(given, Slot):
                given.follow(connection.closed)
            return connection

        def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
            release = super()._release
            if should_close or self._closed or _keeps(self, key):
                release(key, protocol, should_close=should_close)
                _hand_over(self, key, protocol)
                return
            _drop(release, key, protocol)

        def _close(self, *args: Any, **kwargs: Any) -> Any:
            closing = super()._close(*args, **kwargs)
            _cancel_waiting(self)
            return closing

        def abandon(self) -> None:
            super()._close()

        def has_idle(self, host: str) -> bool:
            return any(conns and _name(key) == host for key, conns in self._conns.items())

        def close_idle(self, host: str, most: int) -> int:
            release, closed = super()._release, 0
            for key in [key for key in self._conns if _name(key) == host]:
                conns = self._conns[key]
                while conns and closed < most:
                    protocol, _ = conns.popleft()
                    _drop(release, key, protocol)
                    closed += 1
                if not conns:
                    del self._conns[key]
            return closed

    Guarded.__name__ = Guarded.__qualname__ = f"Guarded{base.__name__}"
    return Guarded


def _name(key: Any) -> str:
    """`host:port` of a connection key: the provider's, also behind an HTTP proxy."""
    host = f"[{key.host}]" if ":" in key.host else key.host
    return f"{host}:{key.port}"


async def _slot_or_connection(connector: Any, key: Any, traces: Any) -> Given | None:
    """A slot for a new connection, or one that another caller no longer needs; None = nobody can tell."""
    slots: HostSlots = getattr(connector, _SLOTS)
    try:
        host = slots.host(_name(key), asyncio.get_running_loop())
        host.pools.add(connector)
        slot = host.take()
    except FAULTS as error:  # counted; aiohttp connects as it would without us
        slots.breaker.failed("wish for a connection", error)
        return None
    if slot is not None:
        return slot
    for trace in traces:
        await trace.send_connection_queued_start()
    given = await host.wait(connector, key)
    while isinstance(given, _Handed) and not given.connection.is_connected():
        given = await host.wait(connector, key, first=True)
    try:
        for trace in traces:
            await trace.send_connection_queued_end()
    except BaseException:
        given.release()
        raise
    return given


def _drop(release: Callable[..., None], key: Any, connection: ResponseHandler) -> None:
    """Close a connection that others may need."""
    if key.is_ssl:
        # Not by saying farewell: the provider could take its time to answer.
        connection.abort()
    release(key, connection, should_close=True)


def _cancel_waiting(connector: Any) -> None:
    slots: HostSlots = getattr(connector, _SLOTS)
    try:
        if not connector._loop.is_closed():
            slots.cancel(connector, connector._loop)
    except FAULTS as error:  # counted; they are told when it is their turn
        slots.breaker.failed("end of a client", error)


def _keeps(connector: Any, key: Any) -> bool:
    slots: HostSlots = getattr(connector, _SLOTS)
    try:
        host = slots.known(_name(key), connector._loop)
        return host is None or host.keeps(connector, key)
    except FAULTS as error:  # counted; aiohttp does as it would without us
        slots.breaker.failed("end of a request", error)
        return True


def _hand_over(connector: Any, key: Any, protocol: Any) -> None:
    """Give a connection that has just become idle to the first in line; else let others know of it."""
    slots: HostSlots = getattr(connector, _SLOTS)
    idle = connector._conns.get(key)
    if not idle or idle[-1][0] is not protocol:
        return
    try:
        host = slots.known(_name(key), connector._loop)
        waiter = None if host is None else host.next_for(connector, key)
        if waiter is not None:
            idle.pop()
            if not idle:
                del connector._conns[key]
            waiter.future.set_result(_Handed(connector, key, protocol))
        elif host is not None:
            host.watch()
    except FAULTS as error:  # counted; aiohttp keeps it as it would without us
        slots.breaker.failed("idle connection", error)
