"""Who is measured. Each module here is one contender and has what a section asks it for.

A section asks for `pool`, `limiter`, `router` or `counter`; a contender that has no such thing lacks the
function, or raises `AbsentError` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

#: What a contender calls the one key of a limiter; the published package can configure no other.
ONE_KEY = "default"


class AbsentError(Exception):
    """What a contender does not have; the text says why."""


@dataclass
class Pool:
    """Connections to take and to give back.

    Attributes:
        take: connection of an endpoint; None = refused.
        give: takes one back.
        limit: connections of one endpoint that may be out at once; None = there is no limit here.
    """

    take: Callable[[str], Any]
    give: Callable[[Any], object]
    limit: int | None


@dataclass
class Limiter:
    """Requests that are counted.

    Attributes:
        check: charges one request to a key and returns an answer; a coroutine function if `awaited`.
        allowed: reads an answer.
        burst: requests of a fresh key that are right to admit at once.
        uses: how often a named key may be used before it is refused; None = as configured.
        renew: forgets everything, where remembering would make each later sample dearer.
        inherits: counts in a region that was made before it.
        known: how many of some keys it has not forgotten; None = those that are refused now.
    """

    check: Callable[[str], Any]
    allowed: Callable[[Any], bool]
    burst: int
    awaited: bool = False
    uses: int | None = None
    renew: Callable[[], None] | None = None
    inherits: bool = False
    known: Callable[[Sequence[str]], int] | None = None


@dataclass
class Router:
    """A choice among deployments.

    Attributes:
        choose: from a list of deployments to one of them.
    """

    choose: Callable[[list[dict[str, Any]]], Any]
