"""The health check seam: one worker asks the providers, and all know what they answered.

With background health checks every worker probes every deployment by itself, which costs money each
time. Here one worker leads: it probes and publishes the result; the others wait for that and take it.
When the leader dies, the next one to look leads.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
from types import ModuleType
from typing import Any

from fast_litellm import _native
from fast_litellm._native import FAULTS
from fast_litellm.integrations.litellm import _compat
from fast_litellm.integrations.litellm.deployments import Routing
from fast_litellm.integrations.litellm.router_keys import HEALTH
from fast_litellm.integrations.litellm.seam import Seam

#: Name of the job, and of the notice with the result.
JOB = "litellm:health_check"
#: How often a worker looks for a result that another is about to publish, seconds.
_POLL_S = 0.25
#: A leader that was not heard of for so many intervals leads no more.
_PATIENCE = 3.0


class HealthCheckSeam(Seam):
    """Patches the function that the proxy's loop calls in each round."""

    missing = "every worker runs its own health checks"

    def __init__(self, routing: Routing) -> None:
        super().__init__()
        self._routing = routing
        self._board = routing.shared.board
        self._leader: _native.Leader | None = None
        self._ttl_s = 0.0
        #: Leadership and round of the newest result that this worker has taken.
        self._taken = [0, 0]
        #: Whether the last round's result was another worker's.
        self._followed = False

    def remove(self) -> None:
        """Leave the checks to every worker again."""
        super().remove()
        self._resign()

    def _probe(self, module: ModuleType) -> str:
        return _compat.probe_health_checks(module)

    def _install(self, module: ModuleType) -> None:
        if self._patched(module):
            return
        seam = self
        original = vars(module)[_compat.HEALTH_CHECK]

        @functools.wraps(original)
        async def check(*args: Any, **kwargs: Any) -> Any:
            return await seam._check(module, original, args, kwargs)

        self._patch(module, _compat.HEALTH_CHECK, check)
        write = vars(module).get(_compat.WRITE_HEALTH)
        if write is not None:

            @functools.wraps(write)
            def write_state(*args: Any, **kwargs: Any) -> Any:
                # The leader has written it for all, and knows better which failures do not count. What it
                # has written to its own memory this worker does not see.
                if not (seam.active and seam._followed and seam._routing.shares_caches):
                    return write(*args, **kwargs)
                return None

            self._patch(module, _compat.WRITE_HEALTH, write_state)

    async def _check(
        self, module: ModuleType, original: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self._followed = False
        while True:
            # Asked anew: all of it may change while this worker waits.
            interval = _compat.health_check_interval(module)
            if not self.active or interval is None or not self._usable():
                return await original(*args, **kwargs)
            try:
                if self._leads(interval):
                    break
                result = self._published()
            except FAULTS as error:  # counted; this worker checks by itself
                self._routing.breaker.failed("health check", error)
                return await original(*args, **kwargs)
            if result is not None:
                healthy, unhealthy, age = result
                if healthy is None:
                    # The leader could not publish what it found.
                    return await original(*args, **kwargs)
                if age <= 2 * _POLL_S:
                    self._followed = True
                    return healthy, unhealthy, {}
                # This round begins late. Shown at once, and the next result is waited for: after it all
                # workers sleep for the same time.
                _compat.show_health(module, healthy, unhealthy)
            await asyncio.sleep(_POLL_S)
        result = await self._leading(original(*args, **kwargs), interval)
        self._publish(result, interval)
        return result

    def _usable(self) -> bool:
        return not self._routing.breaker.open and self._routing.covers(HEALTH)

    def _leads(self, interval: float) -> bool:
        ttl_s = max(1.0, _PATIENCE * interval)
        if self._leader is None or ttl_s != self._ttl_s:
            # A leader goes on leading: to the region it is this process that leads.
            self._leader = _native.Leader(JOB, ttl_s=ttl_s, region=self._routing.region)
            self._ttl_s = ttl_s
        return self._leader.acquire()

    def _resign(self) -> None:
        leader, self._leader = self._leader, None
        if leader is not None:
            leader.release()

    async def _leading(self, checks: Any, interval: float) -> Any:
        """Wait for the checks, and go on leading meanwhile, however long they take."""
        task = asyncio.ensure_future(checks)
        try:
            while not (await asyncio.wait({task}, timeout=interval))[0]:
                try:
                    self._leads(interval)
                except FAULTS as error:  # counted; the checks go on
                    self._routing.breaker.failed("renewal of a leadership", error)
            return task.result()
        finally:
            task.cancel()

    def _published(self) -> tuple[Any, Any, float] | None:
        """A result that this worker has not taken yet, and its age in seconds."""
        text = self._board.read(JOB)
        if text is None:
            return None
        notice = json.loads(text)
        if notice["number"] <= self._taken:
            return None
        self._taken = notice["number"]
        return notice["healthy"], notice["unhealthy"], abs(time.time() - notice["at"])

    def _publish(self, result: Any, interval: float) -> None:
        try:
            term = self._leader.term_number if self._leader is not None else None
            if term is None:
                # Another worker leads by now, and publishes its own.
                return
            self._taken = [term, self._taken[1] + 1 if self._taken[0] == term else 1]
            try:
                self._post(result[0], result[1], interval)
            except FAULTS as error:  # counted; the others are told at least that
                self._routing.breaker.failed("result of a health check", error)
                self._post(None, None, interval)
        except FAULTS as error:  # counted; the others check by themselves
            self._routing.breaker.failed("result of a health check", error)
            # They would wait for a leader that tells them nothing.
            self._resign()

    def _post(self, healthy: Any, unhealthy: Any, interval: float) -> None:
        notice = {
            "number": self._taken,
            "at": time.time(),
            "healthy": healthy,
            "unhealthy": unhealthy,
        }
        text = json.dumps(notice, default=str).encode()
        self._board.publish(JOB, text, max(1, round(_PATIENCE * interval)))
