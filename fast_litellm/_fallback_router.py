"""Plain Python in place of the extension: the same router, within one process.

What calls tell of deployments is known to all routers of the process, and to no other process.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Literal

from fast_litellm._fallback_errors import OutOfRangeError, RegionError

_STRATEGIES = ("simple_shuffle", "least_busy", "latency_based", "cost_based")
_ALIASES = {
    "simple-shuffle": "simple_shuffle",
    "least-busy": "least_busy",
    "latency-based-routing": "latency_based",
    "cost-based-routing": "cost_based",
}
_WINDOW_S = 60.0
_FORGET_S = 3_600.0
_AVOIDED_S = 60.0
_AVERAGED = 16
_SHARE_OF = 5
_HOPELESS = 1_000
_MAX_COOLDOWN_S = 31 * 86_400
_UNKNOWN_PRICE = 5.0
#: Makes hashes of credentials worthless outside of this process and its children.
_SECRET = os.urandom(16)

_PHRASES = (
    (("ratelimit", "toomanyrequests", "quota"), "rate_limited"),
    (("timeout", "timedout", "deadlineexceeded"), "timeout"),
    (
        ("unauthorized", "authentication", "forbidden", "permissiondenied", "apikey"),
        "authentication",
    ),
    (("notfound", "doesnotexist"), "not_found"),
    (
        (
            "badrequest",
            "invalidrequest",
            "unprocessable",
            "contentpolicy",
            "contextwindow",
            "contextlength",
        ),
        "bad_request",
    ),
    (
        ("internalserver", "serviceunavailable", "badgateway", "servererror", "overloaded"),
        "server",
    ),
)
_NO_CONNECTION = ("connect", "unreachable", "brokenpipe", "nameresolution")


class _Health:
    """What is known of one deployment."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.cooldown: tuple[float, str] = (0.0, "none")
        self.window = (-math.inf, 0, 0)
        self.tokens = (-math.inf, 0)
        self.cost = 0.0
        self.in_a_row = 0
        self.totals = [0, 0]
        self.latencies: deque[tuple[float, float]] = deque(maxlen=_AVERAGED)
        self.first_tokens: deque[tuple[float, float]] = deque(maxlen=_AVERAGED)
        self.last_failure: tuple[str, int, float] | None = None

    def counts(self, now: float) -> tuple[int, int]:
        """Successes and failures of the present window."""
        start, successes, failures = self.window
        return (successes, failures) if now < start + _WINDOW_S else (0, 0)

    def count(self, now: float, success: int, failure: int) -> tuple[int, int]:
        """Add to the present window, or begin one."""
        successes, failures = self.counts(now)
        start = self.window[0] if now < self.window[0] + _WINDOW_S else now
        self.window = (start, successes + success, failures + failure)
        self.totals[0] += success
        self.totals[1] += failure
        self.in_a_row = 0 if success else self.in_a_row + failure
        return self.window[1:]

    def add_tokens(self, now: float, tokens: int) -> None:
        """Add to the tokens of the present minute."""
        start, so_far = self.tokens
        open_still = now < start + _WINDOW_S
        self.tokens = (start, so_far + tokens) if open_still else (now, tokens)


_lock = threading.RLock()
_known: dict[str, _Health] = {}


def _after_fork() -> None:
    # The parent's calls are not the child's, and another thread may have held the lock.
    global _lock
    _lock = threading.RLock()
    for health in _known.values():
        health.in_flight = 0


os.register_at_fork(after_in_child=_after_fork)


def _mean(samples: deque[tuple[float, float]], now: float) -> float | None:
    if not samples or now - samples[-1][0] >= _FORGET_S:
        return None
    return sum(value for _, value in samples) / len(samples)


def _missing(origin: str, what: str) -> ValueError:
    return ValueError(
        f"{origin} has no {what}: a deployment is a dict with model_name and litellm_params, "
        "which has model"
    )


def _kind(value: object) -> str:
    return type(value).__name__


def _is_amount(value: float) -> bool:
    """Whether a number is not below zero, and one that a float holds."""
    try:
        return math.isfinite(value) and value >= 0
    except OverflowError:
        return False


def _part(entry: dict[str, Any], name: str, origin: str) -> dict[str, Any] | None:
    part = entry.get(name)
    if part is not None and not isinstance(part, dict):
        raise TypeError(f"{origin}: {name} must be a dict, not {_kind(part)}")
    return part


def _id_text(value: object, origin: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value:
        # Exactly a str: a class of it may have a hash of its own, and not be found.
        return str.__str__(value)
    found = "an empty str" if value == "" else _kind(value)
    raise TypeError(f"{origin}: the id must be a str or an int, not {found}")


def _plain(value: object, origin: str, depth: int = 0) -> str:
    """Write a value down, so that two are written alike only if they are alike."""
    why = ""
    if depth > 16:
        why = "litellm_params are nested too deeply"
    elif value is None or isinstance(value, (str, int, float)):
        return repr(value)
    elif isinstance(value, dict):
        items = sorted(
            f"{_plain(key, origin, depth + 1)}:{_plain(item, origin, depth + 1)}"
            # A copy: how an item is written may be a program of the caller, which may change the dict.
            for key, item in value.copy().items()
        )
        return "{" + ",".join(items) + "}"
    elif isinstance(value, (list, tuple)):
        return "[" + ",".join(_plain(item, origin, depth + 1) for item in value) + "]"
    why = why or f"litellm_params hold a {_kind(value)}"
    raise ValueError(
        f"{origin} has no model_info.id, and none can be made, because its {why}: give it one"
    )


class _Entry:
    """A deployment's dict."""

    def __init__(self, entry: object, origin: str) -> None:
        if not isinstance(entry, dict):
            raise TypeError(f"{origin} must be a dict, not {_kind(entry)}")
        name = entry.get("model_name")
        if name is None:
            raise _missing(origin, "model_name")
        if not isinstance(name, str):
            raise TypeError(f"{origin}: model_name must be a str, not {_kind(name)}")
        self.entry = entry
        self.origin = origin
        self.model_name = name

    def read(self) -> _Entry:
        """Read what is needed of a deployment of the wanted model."""
        params = _part(self.entry, "litellm_params", self.origin)
        if params is None:
            raise _missing(self.origin, "litellm_params")
        self.params = params
        self.info = _part(self.entry, "model_info", self.origin) or {}
        given = self.info.get("id")
        if given is not None:
            self.id = _id_text(given, self.origin)
        else:
            text = _plain([self.model_name, params], self.origin).encode(
                "utf-8", "backslashreplace"
            )
            digest = hashlib.blake2b(text, digest_size=8, key=_SECRET).hexdigest()
            self.id = f"{self.model_name}#{digest}"
        return self

    def model(self) -> Any:
        """The provider's name of the model."""
        model = self.params.get("model")
        if model is None:
            raise _missing(self.origin, "litellm_params.model")
        return model

    def number(self, part: str, name: str) -> float | None:
        """A number that is finite and not below zero; None = it is not given."""
        value = (self.params if part == "litellm_params" else self.info).get(name)
        if value is None:
            return None
        if not isinstance(value, (int, float)):
            found = f"a {_kind(value)}"
        elif not _is_amount(value):
            found = str(value)
        else:
            return float(value)
        raise OutOfRangeError(
            f"{self.origin}: {part}.{name} is {found}: use a finite number of at least 0, or leave it out"
        )

    def price(self) -> float:
        """What a token costs, in and out."""
        names = ("input_cost_per_token", "output_cost_per_token")
        own = [self.number("litellm_params", name) for name in names]
        for position, name in enumerate(names):
            if own[position] is None:
                own[position] = self.number("model_info", name)
        if None in own:
            known = self._known_prices(names)
            own = [known[n] if price is None else price for n, price in enumerate(own)]
        return sum(_UNKNOWN_PRICE if price is None else price for price in own)

    def _known_prices(self, names: tuple[str, str]) -> list[float | None]:
        costs = getattr(sys.modules.get("litellm"), "model_cost", None)
        if isinstance(costs, dict):
            bases = (self.info.get("base_model"), self.params.get("base_model"), self.model())
            for base in bases:
                row = costs.get(base) if isinstance(base, str) else None
                if isinstance(row, dict):
                    prices = [row.get(name) for name in names]
                    known = [p if isinstance(p, (int, float)) else None for p in prices]
                    if known != [None, None]:
                        return known
        return [None, None]

    def is_blocked(self, blocked: set[str]) -> bool:
        """Whether any of its names is among those."""
        given = self.info.get("id")
        names = (
            self.model_name,
            self.model(),
            self.id,
            given if isinstance(given, str) else self.id,
        )
        return any(name in blocked for name in names)


class AdvancedRouter:
    """The router of the extension, within one process; see there."""

    def __init__(
        self,
        strategy: str = "simple_shuffle",
        *,
        region: object = None,
        allowed_fails: int | None = None,
        cooldown_s: float = 5.0,
    ) -> None:
        if not isinstance(strategy, str):
            raise TypeError(f"strategy must be a str, not {_kind(strategy)}")
        self._strategy = _ALIASES.get(strategy, strategy)
        if self._strategy not in _STRATEGIES:
            raise OutOfRangeError(
                f'strategy "{strategy}" is unknown: use one of {", ".join(_STRATEGIES)}'
            )
        if region is not None:
            raise RegionError("there is no shared region without fast_litellm's extension")
        if allowed_fails is not None and allowed_fails < 0:
            raise OutOfRangeError(f"allowed_fails={allowed_fails}: use a number of at least 0")
        self._allowed_fails = allowed_fails
        self._cooldown_s = _seconds("cooldown_s", cooldown_s, 0.0)
        self._lone: dict[str, bool] = {}

    @property
    def strategy(self) -> str:
        """Its strategy, by this package's name."""
        return self._strategy

    def get_available_deployment(
        self,
        model_list: Iterable[dict[str, Any]],
        model: str,
        blocked_models: Iterable[str] | None = None,
    ) -> dict[str, Any] | None:
        """Choose a deployment of a model."""
        for name, value in (("model_list", model_list), ("blocked_models", blocked_models)):
            if isinstance(value, (str, dict)):
                raise TypeError(f"{name} must be a list, not {_kind(value)}")
        if not isinstance(model, str):
            raise TypeError(f"model must be a str, not {_kind(model)}")
        blocked = set(blocked_models or ())
        now = time.monotonic()
        named = 0
        candidates = []
        for index, item in enumerate(model_list):
            entry = _Entry(item, f"model_list[{index}]")
            if entry.model_name != model:
                continue
            named += 1
            entry.read().model()
            if blocked and entry.is_blocked(blocked):
                continue
            health = _known.get(entry.id)
            if health is None or health.cooldown[0] <= now:
                candidates.append(entry)
        if not candidates:
            return None
        chosen = self._choose(candidates, now)
        if named == 1:
            self._lone[chosen.id] = True
        else:
            self._lone.pop(chosen.id, None)
        return chosen.entry

    def _choose(self, candidates: list[_Entry], now: float) -> _Entry:
        if self._strategy == "simple_shuffle":
            for name in ("weight", "rpm", "tpm"):
                weights = [entry.number("litellm_params", name) or 0.0 for entry in candidates]
                largest = max(weights)
                if largest > 0:
                    return random.choices(candidates, [weight / largest for weight in weights])[0]
            return random.choice(candidates)
        with _lock:
            ranks = [self._rank(entry, now) for entry in candidates]
        lowest = min(ranks)
        return random.choice(
            [entry for entry, rank in zip(candidates, ranks, strict=True) if rank == lowest]
        )

    def _rank(self, entry: _Entry, now: float) -> float:
        if self._strategy == "cost_based":
            return entry.price()
        health = _known.get(entry.id)
        if health is None:
            return -1.0
        if self._strategy == "least_busy":
            return health.in_flight or -1.0
        latency = _mean(health.latencies, now)
        if latency is not None:
            return latency
        last = health.last_failure
        failing = health.in_a_row > 0 and last is not None and now - last[2] < _AVOIDED_S
        return math.inf if failing else -1.0

    def deployment_id(self, deployment: dict[str, Any] | str | int) -> str:
        """Tell the id by which a deployment is known."""
        if isinstance(deployment, dict):
            return _Entry(deployment, "deployment").read().id
        return _id_text(deployment, "deployment")

    def start(
        self, deployment: dict[str, Any] | str | int, *, max_parallel: int | None = None
    ) -> Call | None:
        """Tell that a deployment is called."""
        if max_parallel is not None and max_parallel < 0:
            raise OutOfRangeError(f"max_parallel={max_parallel}: use a number of at least 0")
        name = self.deployment_id(deployment)
        with _lock:
            health = _known.setdefault(name, _Health())
            if max_parallel is not None and health.in_flight >= max_parallel:
                return None
            health.in_flight += 1
        alone = self._lone.get(name, False)
        return Call(name, health, self._allowed_fails, self._cooldown_s, alone)

    def cool_down(
        self, deployment: dict[str, Any] | str | int, seconds: float, reason: str = ""
    ) -> bool:
        """Leave a deployment out for a while."""
        seconds = _seconds("seconds", seconds, 0.001)
        name = self.deployment_id(deployment)
        with _lock:
            return _cool_down(_known.setdefault(name, _Health()), seconds, "manual")

    def end_cooldown(self, deployment: dict[str, Any] | str | int) -> bool:
        """End a deployment's cooldown."""
        health = _known.get(self.deployment_id(deployment))
        with _lock:
            if health is None or health.cooldown[0] <= time.monotonic():
                return False
            health.cooldown = (0.0, "none")
            return True

    def health(self, deployment: dict[str, Any] | str | int) -> dict[str, Any] | None:
        """Tell what is known of a deployment."""
        health = _known.get(self.deployment_id(deployment))
        if health is None:
            return None
        with _lock:
            now = time.monotonic()
            successes, failures = health.counts(now)
            left = max(health.cooldown[0] - now, 0.0)
            last = health.last_failure
            return {
                "in_flight": health.in_flight,
                "cooldown_s": left,
                "cooldown_reason": health.cooldown[1] if left else None,
                "requests": successes + failures,
                "successes": successes,
                "failures": failures,
                "tokens": health.tokens[1] if now < health.tokens[0] + _WINDOW_S else 0,
                "failures_in_a_row": health.in_a_row,
                "successes_total": health.totals[0],
                "failures_total": health.totals[1],
                "cost_total": health.cost,
                "latency_s": _mean(health.latencies, now),
                "first_token_s": _mean(health.first_tokens, now),
                "last_failure": last
                and {"kind": last[0], "status": last[1] or None, "age_s": int(now - last[2])},
            }


def _seconds(name: str, seconds: float, least: float) -> float:
    if not least <= seconds <= _MAX_COOLDOWN_S:
        raise OutOfRangeError(f"{name}={seconds}: use seconds from {least} to {_MAX_COOLDOWN_S}")
    return float(seconds)


def _cool_down(health: _Health, seconds: float, reason: str) -> bool:
    now = time.monotonic()
    running = health.cooldown[0] > now
    if health.cooldown[0] < now + seconds:
        health.cooldown = (now + seconds, reason)
    return not running


def _of_status(status: int) -> str:
    kinds = {401: "authentication", 403: "authentication", 404: "not_found"}
    kinds |= {408: "timeout", 429: "rate_limited"}
    if status in kinds:
        return kinds[status]
    return {4: "bad_request", 5: "server"}.get(status // 100, "other")


def _of_text(text: str) -> tuple[str, int]:
    plain = "".join(c for c in text if c.isalnum()).lower()
    for words, kind in _PHRASES:
        if any(word in plain for word in words):
            return kind, 0
    for word in "".join(c if c.isalnum() else " " for c in text).split():
        if len(word) == 3 and word.isdecimal() and 400 <= int(word) < 600:
            return _of_status(int(word)), int(word)
    return ("connection" if any(word in plain for word in _NO_CONNECTION) else "other"), 0


def _asked(source: object, name: str) -> object:
    """An attribute, or None: an error that cannot be asked must not be hidden by another one."""
    try:
        return getattr(source, name, None)
    except Exception:  # noqa: BLE001
        return None


def _classify(status: int | None, error: object) -> tuple[str, int]:
    """Kind and HTTP status of a failure; status 0 = none."""
    for source in (error, _asked(error, "response")):
        told = _asked(source, "status_code")
        if status is None and isinstance(told, int) and 100 <= told <= 999:
            status = told
    if status is not None:
        return _of_status(status), status
    if error is None or isinstance(error, str):
        return _of_text(error or "")
    names = []
    for kind in type(error).__mro__:
        if kind in (Exception, BaseException, OSError, object):
            break
        names.append(kind.__name__)
    told_by_name = _of_text(" ".join(names))
    if told_by_name[0] != "other":
        return told_by_name
    try:
        return _of_text(str(error))
    except Exception:  # noqa: BLE001
        return told_by_name


class Call:
    """A call to a deployment, from `AdvancedRouter.start`."""

    def __init__(
        self,
        deployment_id: str,
        health: _Health,
        allowed_fails: int | None,
        cooldown_s: float,
        alone: bool,
    ) -> None:
        self._id = deployment_id
        self._health = health
        self._rule = (allowed_fails, cooldown_s, alone)
        self._started = time.monotonic()
        self._pid = os.getpid()
        self._ended = False

    @property
    def deployment_id(self) -> str:
        """The id of its deployment."""
        return self._id

    def _end(self) -> bool:
        with _lock:
            if self._ended or self._pid != os.getpid():
                return False
            self._ended = True
            self._health.in_flight -= 1
            return True

    def success(
        self,
        tokens: int | None = None,
        cost: float | None = None,
        first_token_s: float | None = None,
        latency_s: float | None = None,
    ) -> bool:
        """End the call as a success."""
        now = time.monotonic()
        measured = {"tokens": tokens, "cost": cost}
        measured |= {"first_token_s": first_token_s, "latency_s": latency_s}
        for name, value in measured.items():
            if value is not None and not _is_amount(value):
                raise OutOfRangeError(f"{name}={value}: use a number of at least 0")
        if not self._end():
            return False
        with _lock:
            health = self._health
            health.count(now, 1, 0)
            health.latencies.append((now, now - self._started if latency_s is None else latency_s))
            if first_token_s is not None:
                health.first_tokens.append((now, first_token_s))
            health.add_tokens(now, tokens or 0)
            health.cost += cost or 0.0
        return True

    def failure(self, status: int | None = None, error: BaseException | str | None = None) -> bool:
        """End the call as a failure."""
        if status is not None and not 100 <= status <= 999:
            raise OutOfRangeError(f"status={status}: use an HTTP status, or None")
        if not self._end():
            return False
        kind, told = _classify(status, error)
        with _lock:
            now = time.monotonic()
            successes, failures = self._health.count(now, 0, 1)
            self._health.last_failure = (kind, told, now)
            if self._cools(kind, told, successes, failures):
                _cool_down(self._health, self._rule[1], kind)
        return True

    def _cools(self, kind: str, status: int, successes: int, failures: int) -> bool:
        allowed_fails, cooldown_s, alone = self._rule
        requests_fault = status == 403 or (kind == "bad_request" and status != 402)
        if cooldown_s == 0 or requests_fault:
            return False
        if alone:
            return successes == 0 and failures >= _HOPELESS
        if status == 402 or kind in ("rate_limited", "authentication", "not_found"):
            return True
        if allowed_fails is not None:
            return self._health.in_a_row > allowed_fails
        return successes + failures >= _SHARE_OF and failures > successes

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        if kind is None:
            self.success()
        elif issubclass(kind, Exception):
            self.failure(error=error)
        else:
            self._end()
        return False

    def __del__(self) -> None:
        self._end()
