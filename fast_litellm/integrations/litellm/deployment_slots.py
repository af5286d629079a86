"""The slots seam: a deployment's `max_parallel_requests`, held over all workers.

LiteLLM counts the calls of a deployment in an object of each worker's own. This seam lets the object take
a slot in the region, where those of a dead worker are free again. The refusal stays LiteLLM's.
"""

from __future__ import annotations

import functools
import uuid
from types import ModuleType
from typing import Any

from fast_litellm._native import FAULTS
from fast_litellm.integrations.litellm import _compat
from fast_litellm.integrations.litellm.debts import Debts
from fast_litellm.integrations.litellm.deployments import Routing
from fast_litellm.integrations.litellm.seam import Seam, logger

#: Where an object of LiteLLM's keeps the ids of the slots that it holds in the region.
_HELD = "_fast_litellm_slots"


class SlotsSeam(Seam):
    """Patches how a slot is acquired and released."""

    missing = "max_parallel_requests of deployments hold per worker only"

    def __init__(self, routing: Routing) -> None:
        super().__init__()
        self._routing = routing
        self._scripts = routing.shared.counters
        self._debts = Debts(lambda keys, ids: self._scripts.parallel_release(keys, ids))
        #: Slots that this process holds, with their keys.
        self._taken: dict[str, str] = {}

    def remove(self) -> None:
        """Put the class back, and give back what nobody will give back any more."""
        super().remove()
        for slot_id, key in list(self._taken.items()):
            self._give_back(key, slot_id)

    def _probe(self, module: ModuleType) -> str:
        return _compat.probe_deployment_slots(module)

    def _install(self, module: ModuleType) -> None:
        limit_class = _compat.deployment_slots_class(module)
        if self._patched(limit_class):
            return
        self._patch_acquire(limit_class)
        self._patch_release(limit_class)
        logger.info("LiteLLM %s: slots of deployments are shared", _compat.version())

    def _patch_acquire(self, limit_class: Any) -> None:
        original = vars(limit_class)["acquire"]
        seam = self

        @functools.wraps(original)
        def acquire(self: Any) -> None:
            slot_id = seam._acquire(self) if seam.active else None
            if slot_id is None:
                original(self)
            elif slot_id:
                self.__dict__.setdefault(_HELD, []).append(slot_id)
                self.in_flight += 1
            else:
                # LiteLLM raises what it raises for an object that has no slot left.
                original(_compat.full_deployment(self))

        self._patch(limit_class, "acquire", acquire)

    def _patch_release(self, limit_class: Any) -> None:
        original = vars(limit_class)["release"]
        seam = self

        @functools.wraps(original)
        def release(self: Any) -> None:
            seam._release(self)
            original(self)

        self._patch(limit_class, "release", release)

    def _acquire(self, limit: Any) -> str | None:
        """Take a slot in the region: its id; empty = there is none; None = the region cannot tell."""
        try:
            if self._routing.has_redis:
                self.not_applied("Redis is configured: LiteLLM's Router counts as it does there")
                return None
            if self._routing.breaker.open:
                if self._routing.breaker.tripped:
                    self._routing.region.count_fallback()
                return None
            if not self._routing.covers_deployment(_compat.deployment_of(limit)):
                return None
            self._debts.settle()
            key, slot_id = _key(limit), uuid.uuid4().hex
            # Without a time to live: a call may stream for hours, and the dead are found without one.
            reply = self._scripts.parallel_acquire([key], [_compat.slots_of(limit), 0, slot_id])
        except FAULTS as error:  # counted; LiteLLM's own count decides
            self._routing.breaker.failed("slot of a deployment", error)
            return None
        self._routing.breaker.succeeded()
        if reply[0] != 0:
            return ""
        self._taken[slot_id] = key
        return slot_id

    def _release(self, limit: Any) -> None:
        held = limit.__dict__.get(_HELD)
        if not held:
            return
        self._give_back(_key(limit), held.pop())

    def _give_back(self, key: str, slot_id: str) -> None:
        self._taken.pop(slot_id, None)
        try:
            self._scripts.parallel_release([key], [slot_id])
        except FAULTS as error:  # counted; it is tried again
            self._debts.owe([key], [slot_id])
            self._routing.breaker.failed("end of a deployment's slot", error)


def _key(limit: Any) -> str:
    return f"{{deployment:{_compat.deployment_of(limit)}}}:max_parallel_requests"
