"""LiteLLM's maps of what a group's deployments did lately, made from parts that all workers add to.

A strategy reads a map `{deployment: {"latency": [seconds, ...], "<minute>": {"tpm": n, "rpm": n}}}`,
changes it and writes it back whole, so that of two workers one loses what it has added. Here a map is put
together when it is read, and of one that is written only what is new is added.
"""

from __future__ import annotations

import time
from typing import Any

from fast_litellm import _native
from fast_litellm._native import FAULTS
from fast_litellm.integrations.litellm.mirror import LOCAL

#: Deployments remembered by group.
_MAX_GROUPS = 1_000
#: How long the counts of a minute are kept, seconds: nobody reads those of a minute that is over.
_MINUTE_TTL_S = 120
#: Most samples of a deployment that the region keeps.
_MAX_SAMPLES = 16
#: For how long a map that the region had no room for is kept in LiteLLM's own memory, seconds.
_ALONE_S = 60.0
#: LiteLLM's own number of samples.
DEFAULT_SAMPLES = 10
#: LiteLLM's own time after which it starts a new map, and the longest that the region keeps samples.
DEFAULT_MAX_AGE_S = 3_600
FIRST_TOKENS = "time_to_first_token_seconds"
_COUNTED = ("tpm", "rpm")


class _Map(dict[str, Any]):
    """A map as it was handed out, and what was in it then."""

    __slots__ = ("seen",)
    seen: dict[str, dict[str, Any]]


class _Group:
    """What is known of a map: the deployments in it, how many samples of each are wanted, and of when."""

    __slots__ = ("ids", "max_age_s", "samples")

    def __init__(self) -> None:
        self.ids: dict[str, None] = {}
        self.samples = DEFAULT_SAMPLES
        self.max_age_s = DEFAULT_MAX_AGE_S


class UsageMaps:
    """All maps, and the deployments that this process knows to be in each."""

    def __init__(self, counters: _native.LimiterScripts, deployments: _native.Deployments) -> None:
        self._counters = counters
        self._deployments = deployments
        self._groups: dict[str, _Group] = {}
        #: Until when (`time.monotonic`) a map is kept in LiteLLM's own memory.
        self._alone: dict[str, float] = {}
        self._latency_name: str | None = None

    def latencies_are_called(self, name: str) -> None:
        """Tell what this version of LiteLLM calls the list of latencies."""
        self._latency_name = name

    def learn(
        self,
        key: str,
        ids: list[str],
        samples: int | None = None,
        max_age_s: float | None = None,
    ) -> None:
        """Tell which deployments a map is wanted of, how many samples of each, and how old at most."""
        known = self._groups.get(key)
        if known is None:
            if len(self._groups) >= _MAX_GROUPS:
                self._groups = {}
            known = self._groups[key] = _Group()
        for id_ in ids:
            known.ids[id_] = None
        if samples is not None:
            known.samples = min(samples, _MAX_SAMPLES)
        if max_age_s is not None:
            known.max_age_s = max(0, min(int(max_age_s), DEFAULT_MAX_AGE_S))

    def read(self, key: str) -> Any:
        """Put a map together: each known deployment's samples, oldest first, and this minute's counts.

        `LOCAL` = the region has nothing, or had no room for all of its deployments: those it lacks
        would seem to be the fastest.
        """
        if self._is_alone(key):
            return LOCAL
        minute = _minute()
        made = _Map()
        group = self._groups.get(key) or _Group()
        # A copy: another thread may learn of a deployment meanwhile.
        for id_ in list(group.ids):
            entry = self._entry(key, id_, minute, group)
            if entry:
                made[id_] = entry
        if not made:
            return LOCAL
        made.seen = {
            id_: {
                name: list(value) if isinstance(value, list) else dict(value)
                for name, value in entry.items()
            }
            for id_, entry in made.items()
        }
        return made

    def _entry(self, key: str, id_: str, minute: str, group: _Group) -> dict[str, Any]:
        entry: dict[str, Any] = {}
        if self._latency_name is not None and not key.startswith("cost_map:"):
            scores = self._deployments.scores(id_, group.samples, group.max_age_s)
            if scores:
                entry[self._latency_name] = scores
            first_tokens = self._deployments.first_tokens(id_, group.samples, group.max_age_s)
            if first_tokens:
                entry[FIRST_TOKENS] = first_tokens
        counts = {name: self._counters.value(_counter(key, id_, minute, name)) for name in _COUNTED}
        if any(count is not None for count in counts.values()):
            entry[minute] = {name: count or 0 for name, count in counts.items()}
        return entry

    def write(self, key: str, value: Any) -> bool:
        """Add what is in `value` and was not in the map when it was read."""
        if self._is_alone(key) or not self._is_map(value):
            return False
        try:
            self._add(key, value)
        except FAULTS:
            if len(self._alone) >= _MAX_GROUPS:
                self._alone = {}
            self._alone[key] = time.monotonic() + _ALONE_S
            raise
        return True

    def _is_map(self, value: Any) -> bool:
        """Whether it is a strategy's map. The key of another value may look like one's."""
        lists = (self._latency_name, FIRST_TOKENS)
        return isinstance(value, dict) and all(
            isinstance(entry, dict)
            and all(
                part.keys() <= {*_COUNTED} if isinstance(part, dict) else name in lists
                for name, part in entry.items()
            )
            for entry in value.values()
        )

    def _is_alone(self, key: str) -> bool:
        return self._alone.get(key, 0.0) > time.monotonic()

    def _add(self, key: str, value: dict[str, Any]) -> None:
        seen = value.seen if isinstance(value, _Map) else {}
        self.learn(key, list(value))
        for id_, entry in value.items():
            before = seen.get(id_, {})
            for name, now in entry.items():
                if isinstance(now, dict):
                    self._add_counts(key, id_, name, now, before.get(name, {}))
                # First tokens are measured where calls end, by the same rule.
                elif name == self._latency_name and now and now != before.get(name):
                    self._deployments.scored(id_, float(now[-1]))

    def _add_counts(
        self, key: str, id_: str, minute: str, now: dict[str, Any], before: dict[str, Any]
    ) -> None:
        for name in _COUNTED:
            more = (now.get(name) or 0) - (before.get(name) or 0)
            if more:
                self._counters.add(_counter(key, id_, minute, name), more, _MINUTE_TTL_S)


def _minute() -> str:
    """The present minute, as LiteLLM's strategies name it: local time."""
    return time.strftime("%Y-%m-%d-%H-%M")


def _counter(key: str, id_: str, minute: str, name: str) -> str:
    return f"{key}:{id_}:{minute}:{name}"
