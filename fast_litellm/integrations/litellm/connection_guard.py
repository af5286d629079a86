"""The connection guard: connections to one host are bounded over all workers.

Each worker of LiteLLM's has limits of its own, so that N workers open N times as many connections. This
seam has the connectors of LiteLLM's aiohttp sessions ask the region before they open one. Clients that
do not go through aiohttp are told, not bounded.
"""

from __future__ import annotations

import functools
import weakref
from types import ModuleType
from typing import Any

from fast_litellm import _native
from fast_litellm._native import FAULTS
from fast_litellm.integrations.litellm import _compat, guarded_connector
from fast_litellm.integrations.litellm.host_slots import HostSlots
from fast_litellm.integrations.litellm.seam import Breaker, Seam, logger

#: Number of this feature's breaker in the region.
FEATURE = 3


class ConnectionGuardSeam(Seam):
    """Patches how requests are sent, to learn by which session, and guards its connector."""

    missing = "connections to a host are NOT bounded over all workers"

    def __init__(self, region: _native.Region, limit: int) -> None:
        super().__init__()
        self._region = region
        self._breaker = Breaker(
            region, FEATURE, "connection guard", "this connection is bounded per worker only"
        )
        # A host that is bounded in part is not bounded.
        self._breaker.whole = True
        self._slots = HostSlots(region, limit, self._breaker)
        self._connectors: weakref.WeakSet[Any] = weakref.WeakSet()
        self._refused: weakref.WeakSet[Any] = weakref.WeakSet()
        self._told: set[str] = set()

    @property
    def open(self) -> bool:
        """Whether the guard has been switched off for all workers."""
        return self._breaker.open

    def remove(self) -> None:
        """Put the class and all connectors back. Those that wait for a slot go on without."""
        super().remove()
        self._slots.active = False
        for connector in list(self._connectors):
            guarded_connector.unguard(connector)
        self._connectors.clear()

    def _probe(self, module: ModuleType) -> str:
        return _compat.probe_transport(module) or guarded_connector.probe()

    def _install(self, module: ModuleType) -> None:
        transport_class = _compat.transport_class(module)
        if self._patched(transport_class):
            return
        self._patch_send(transport_class)
        self._patch_session(transport_class)
        self._patch_httpx(_compat.client_class())
        logger.info(
            "LiteLLM %s: at most %d connections to a host", _compat.version(), self._slots.limit
        )

    def _patch_send(self, transport_class: Any) -> None:
        original = vars(transport_class)[_compat.SEND_METHOD]
        seam = self

        @functools.wraps(original)
        def send(self: Any, *args: Any, **kwargs: Any) -> Any:
            seam._guard(args[0] if args else kwargs.get(_compat.SESSION_PARAMETER))
            return original(self, *args, **kwargs)

        self._patch(transport_class, _compat.SEND_METHOD, send)

    def _patch_session(self, transport_class: Any) -> None:
        original = vars(transport_class)[_compat.SESSION_METHOD]
        seam = self

        @functools.wraps(original)
        def make(self: Any) -> Any:
            session = original(self)
            seam._guard(session)
            return session

        self._patch(transport_class, _compat.SESSION_METHOD, make)

    def _patch_httpx(self, client_class: Any) -> None:
        original = getattr(client_class, _compat.HTTPX_METHOD)
        seam = self

        @functools.wraps(original)
        def make(*args: Any, **kwargs: Any) -> Any:
            if seam.active:
                seam._stand_back("LiteLLM's clients use httpx instead of aiohttp, by its settings")
            return original(*args, **kwargs)

        self._patch(client_class, _compat.HTTPX_METHOD, staticmethod(make))

    def _guard(self, session: Any) -> None:
        """Have a session's connector ask for slots. Never raises."""
        if not self.active:
            return
        try:
            connector = getattr(session, "connector", None)
            if guarded_connector.is_guarded(connector) or connector is None:
                return
            if guarded_connector.can_guard(connector):
                self._connectors.add(connector)
                guarded_connector.guard(connector, self._slots)
            elif connector not in self._refused:
                self._refused.add(connector)
                self._count(f"a session connects by {type(connector).__name__}")
        except FAULTS as error:  # counted; the request goes as it would without us
            self._breaker.failed("guard of a session", error)

    def _stand_back(self, reason: str) -> None:
        self.not_applied(reason)
        self._count(reason)

    def _count(self, reason: str) -> None:
        """Count a client whose connections are not bounded, and tell of the first for this reason."""
        self._region.count_fallback()
        if reason not in self._told:
            self._told.add(reason)
            logger.warning("%s: %s", self.missing, reason)
