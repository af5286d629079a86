"""What the keys of the Router's cache mean, and where their values are in the region.

LiteLLM's Router keeps what it knows of deployments in a cache of text keys. Each kind of key here reads
and writes one of them as LiteLLM would, on state that all workers share. A key of no kind stays in
LiteLLM's own memory.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from fast_litellm import _native
from fast_litellm.integrations.litellm.mirror import LOCAL
from fast_litellm.integrations.litellm.usage_maps import UsageMaps

#: Kinds remembered by key; the keys of old minutes are forgotten with all others.
_MAX_KNOWN = 10_000
#: What keys of sessions begin with. They end with whatever a client calls its session.
_SESSIONS = ("deployment_affinity:", "complexity_router_session_affinity:")


class Unit(NamedTuple):
    """What a key's value belongs to: all that belongs to it is in the region, or nothing.

    Attributes:
        name: a model group, or what budgets are of; of what belongs to a deployment, its id.
        deployments: ids of which it is the group of the first that a Router knows.
    """

    name: str
    deployments: tuple[str, ...] = ()


#: What the results of health checks belong to.
HEALTH = Unit("litellm:health_check")


def unit_of_deployment(deployment: str) -> Unit:
    """What belongs to a deployment belongs to its group: strategies compare its deployments."""
    return Unit(deployment, (deployment,))


def _unit(named: dict[str, str | None]) -> Unit:
    """What a value belongs to, from the named parts of its key."""
    if deployment := named.get("deployment"):
        return unit_of_deployment(deployment)
    if of := named.get("of_model"):
        # `<id>:<model>`, and both may have colons.
        parts = of.removeprefix("global_router:").split(":")
        ids = tuple(":".join(parts[:end]) for end in range(len(parts), 0, -1))
        return Unit(ids[-1], ids)
    if budget := named.get("budget"):
        kind, of = budget.split("_", 1)[0], named.get("of") or ""
        return unit_of_deployment(of) if kind == "deployment" else Unit(f"{kind}:{of}")
    if group := named.get("group"):
        return Unit(group)
    return HEALTH


class Key(Protocol):
    """One key of the Router's cache."""

    unit: Unit

    def read(self) -> Any:
        """Its value; `LOCAL` = none: what the region had no room for is in LiteLLM's own memory."""

    def write(self, value: Any, ttl_s: float) -> bool:
        """Replace its value; False = it cannot hold that one."""

    def add(self, amount: float, ttl_s: int) -> float:
        """Add to its value."""

    def forget(self) -> None:
        """Remove it."""


class Shared(NamedTuple):
    """The parts of a region that keys are kept in."""

    counters: _native.LimiterScripts
    deployments: _native.Deployments
    board: _native.Board
    maps: UsageMaps


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Counter:
    """A whole number that lives a while from its first addition."""

    unit: Unit

    def __init__(self, shared: Shared, key: str, deployment: str = "") -> None:
        self._counters = shared.counters
        self._key = key

    def read(self) -> Any:
        """The count."""
        value = self._counters.value(self._key)
        return LOCAL if value is None else value

    def write(self, value: Any, ttl_s: float) -> bool:
        """Count from `value` on."""
        if not _is_number(value):
            return False
        self._counters.forget(self._key)
        self._counters.add(self._key, value, max(1, round(ttl_s)))
        return True

    def add(self, amount: float, ttl_s: int) -> float:
        """Add; a fraction counts as one."""
        return self._counters.add(self._key, amount, ttl_s)

    def forget(self) -> None:
        """Remove it."""
        self._counters.forget(self._key)


class Money:
    """An amount of money that lives a while from its first addition, in millionths."""

    unit: Unit

    def __init__(self, shared: Shared, key: str, deployment: str = "") -> None:
        self._counters = shared.counters
        self._key = key

    def read(self) -> Any:
        """The sum."""
        value = self._counters.spent(self._key)
        return LOCAL if value is None else value

    def write(self, value: Any, ttl_s: float) -> bool:
        """Start a new sum."""
        if not _is_number(value):
            return False
        self._counters.forget(self._key)
        self._counters.spend(self._key, value, max(1, round(ttl_s)))
        return True

    def add(self, amount: float, ttl_s: int) -> float:
        """Add to the sum."""
        return self._counters.spend(self._key, amount, ttl_s)

    def forget(self) -> None:
        """Remove it."""
        self._counters.forget(self._key)


class Cooldown:
    """A deployment's cooldown, with what LiteLLM shows of it."""

    unit: Unit

    def __init__(self, shared: Shared, key: str, deployment: str) -> None:
        self._deployments = shared.deployments
        self._deployment = deployment

    def read(self) -> Any:
        """The cooldown that runs, as LiteLLM's `CooldownCacheValue`."""
        running = self._deployments.cooldown(self._deployment)
        if running is None:
            return LOCAL
        return {
            "exception_received": running["text"],
            "status_code": str(running["status"]),
            "timestamp": time.time() + running["left"] - running["seconds"],
            "cooldown_time": running["seconds"],
        }

    def write(self, value: Any, ttl_s: float) -> bool:
        """Begin a cooldown, or lengthen the one that runs."""
        if not isinstance(value, dict):
            return False
        status = value.get("status_code", "")
        self._deployments.cool_down(
            self._deployment,
            ttl_s,
            status=int(status) if str(status).isdecimal() else 0,
            # Half a surrogate pair is no text to the region; JSON of a provider's may have one.
            text=str(value.get("exception_received", "")).encode(errors="replace").decode(),
        )
        return True

    def add(self, amount: float, ttl_s: int) -> float:
        """Refuse: a cooldown is no number."""
        raise TypeError("a cooldown cannot be added to")

    def forget(self) -> None:
        """End it."""
        self._deployments.end_cooldown(self._deployment)


class InFlight:
    """Requests on their way to a deployment. They are counted where calls begin and end."""

    unit: Unit

    def __init__(self, shared: Shared, key: str, deployment: str) -> None:
        self._deployments = shared.deployments
        self._deployment = deployment

    def read(self) -> Any:
        """How many."""
        return self._deployments.in_flight(self._deployment)

    def write(self, value: Any, ttl_s: float) -> bool:
        """Change nothing."""
        return True

    def add(self, amount: float, ttl_s: int) -> float:
        """Change nothing; how many."""
        return self._deployments.in_flight(self._deployment)

    def forget(self) -> None:
        """Change nothing."""


class Moment:
    """A time in seconds since 1970, to the second."""

    unit: Unit

    def __init__(self, shared: Shared, key: str, deployment: str = "") -> None:
        self._counter = Counter(shared, key)

    def read(self) -> Any:
        """The time as LiteLLM's float."""
        value = self._counter.read()
        return value if value is LOCAL else float(value)

    def write(self, value: Any, ttl_s: float) -> bool:
        """Set it."""
        return self._counter.write(value, ttl_s)

    def add(self, amount: float, ttl_s: int) -> float:
        """Move it."""
        return self._counter.add(amount, ttl_s)

    def forget(self) -> None:
        """Remove it."""
        self._counter.forget()


class UsageMap:
    """What a group's deployments did lately, by deployment."""

    unit: Unit

    def __init__(self, shared: Shared, key: str, deployment: str = "") -> None:
        self._maps = shared.maps
        self._key = key

    def read(self) -> Any:
        """LiteLLM's map of the group."""
        return self._maps.read(self._key)

    def write(self, value: Any, ttl_s: float) -> bool:
        """Add what is new in `value`."""
        return self._maps.write(self._key, value)

    def add(self, amount: float, ttl_s: int) -> float:
        """Refuse: a map is no number."""
        raise TypeError("a map cannot be added to")

    def forget(self) -> None:
        """Change nothing: its parts expire."""


class Notice:
    """A value as JSON, which the last writer has written."""

    unit: Unit

    def __init__(self, shared: Shared, key: str, deployment: str = "") -> None:
        self._board = shared.board
        self._key = key
        #: What was read last, and its value: LiteLLM reads the state of all deployments at every request.
        self._last: tuple[bytes, Any] = (b"null", None)

    def read(self) -> Any:
        """The value."""
        text = self._board.read(self._key)
        if text is None:
            return LOCAL
        last, value = self._last
        if text != last:
            value = json.loads(text)
            self._last = (text, value)
        return value

    def write(self, value: Any, ttl_s: float) -> bool:
        """Replace it."""
        self._board.publish(self._key, json.dumps(value).encode(), max(1, round(ttl_s)))
        return True

    def add(self, amount: float, ttl_s: int) -> float:
        """Refuse: a notice is no number."""
        raise TypeError("a notice cannot be added to")

    def forget(self) -> None:
        """Let it expire at once."""
        self._board.publish(self._key, b"null", 1)


#: Kinds of keys, the first that matches. The named parts say what a value belongs to.
_KINDS: tuple[tuple[re.Pattern[str], Callable[[Shared, str, str], Key]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), kind)
    for pattern, kind in (
        (r"deployment:(?P<deployment>.+):cooldown", Cooldown),
        (r"deployment:(?P<deployment>.+?):allowed_fails(:.+)?", Counter),
        (r".+_request_count:(?P<deployment>.+)", InFlight),
        (r"(?P<deployment>.+):(successes|fails)", Counter),
        (r"(?P<of_model>.+):(tpm|rpm|itpm|otpm):\d\d-\d\d", Counter),
        (r"(?P<budget>(provider|deployment|tag)_spend):(?P<of>.+?)(:[^:]+)?", Money),
        (r"(?P<budget>(provider|deployment|tag)_budget_start_time):(?P<of>.+)", Moment),
        (r"cost_map:(?P<group>.+)", UsageMap),
        (r"(?P<group>.+)_map", UsageMap),
        (r"litellm:health_check:deployment_health_state", Notice),
    )
)


class Keys:
    """The Router's keys, each parsed once."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._known: dict[str, Key | None] = {}

    def find(self, key: object) -> Key | None:
        """What a key means; None = it stays in LiteLLM's own memory."""
        if not isinstance(key, str):
            return None
        # Another thread may put a new dict in its place at any time.
        known = self._known
        try:
            return known[key]
        except KeyError:
            found = self._parse(key)
        if len(known) >= _MAX_KNOWN:
            known = self._known = {}
        known[key] = found
        return found

    def _parse(self, key: str) -> Key | None:
        if key.startswith(_SESSIONS):
            return None
        for pattern, kind in _KINDS:
            match = pattern.fullmatch(key)
            if match is not None:
                named = match.groupdict()
                found = kind(self._shared, key, named.get("deployment") or "")
                found.unit = _unit(named)
                return found
        return None
