"""What a reader finds in a region: plain values, decoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Owner(NamedTuple):
    """One registration of one process."""

    row: int
    generation: int


@dataclass(frozen=True)
class Worker:
    """A used row of the worker table."""

    owner: Owner
    state: str
    pid: int
    start_low: int
    start_ticks: int
    registered_s: int
    pid_namespace: int


@dataclass(frozen=True)
class Quota:
    """A GCRA quota at one instant."""

    per_minute: int
    burst: int
    used: int
    remaining: int
    retry_us: int
    reset_us: int


@dataclass(frozen=True)
class Window:
    """A window with its counters at one instant."""

    is_open: bool
    start_s: int
    size_s: int
    ends_in_s: int
    requests: int
    tokens: int
    request_limit: int
    token_limit: int
    slot_limit: int
    high_water: int


@dataclass(frozen=True)
class Sliding:
    """A sliding window at one instant, in units."""

    limit: int
    seconds: int
    used: int
    remaining: int


@dataclass(frozen=True)
class Counter:
    """A counter outside any window."""

    count: int
    expires_in_s: int


@dataclass(frozen=True)
class Key:
    """What stands in a bucket."""

    slot: int
    kind: str
    state: str
    version: int
    hash: int
    name: str | None
    allowed: int
    denied: int
    limits: tuple[int, int]
    view: Quota | Window | Sliding | Counter | None


@dataclass(frozen=True)
class Standing:
    """What stands in a record: its identity word, which no other stay of a key has soon, and the key."""

    word: int
    key: int


@dataclass(frozen=True)
class Hold:
    """A held concurrency slot; `slot` counts through all chunks of the key."""

    slot: int
    owner: Owner
    acquired_s: int
    idle: bool
    tag: int
    writes: int
    """How often its tag was written, by whomever."""


@dataclass(frozen=True)
class Chunk:
    """32 slots of a key: of the one in bucket `key`, of a deployment, of a job, or of an endpoint."""

    record: int
    state: str
    hash: int
    ordinal: int
    key: int | None
    deployment: int | None
    job: int | None
    endpoint: int | None
    hint: int
    held: int
    holds: tuple[Hold, ...]


class Cause(NamedTuple):
    """What a cooldown is for, as far as it was written for exactly this one."""

    for_ms: int
    status: int
    text: str | None


@dataclass(frozen=True)
class Deployment:
    """What all workers know of a deployment."""

    record: int
    name: str | None
    cooling_ms: int
    cooldown_reason: str
    cooldown_cause: Cause | None
    cooldowns: int
    successes: int
    failures: int
    successes_total: int
    failures_total: int
    failures_in_a_row: int
    last_failure: tuple[str, int, int] | None
    latency_us: float | None
    first_token_us: float | None
    latencies_us: tuple[int, ...]
    first_tokens_us: tuple[int, ...]
    scores_us: tuple[int, ...]
    lease_limit: int


@dataclass(frozen=True)
class Job:
    """A job that one process leads; `since_s` is that of the present term, if that is known."""

    record: int
    name: str | None
    term: int
    leader: Owner
    since_s: int | None


@dataclass(frozen=True)
class Endpoint:
    """A connection pool, or an endpoint of the one whose identity is `pool`."""

    record: int
    name: str | None
    identity: int
    pool: int
    failures_in_a_row: int
    healthy: bool
    failures_total: int
    last_failure: tuple[str, int, int] | None
    counts: dict[str, int]
    limit: int


@dataclass(frozen=True)
class Notice:
    """A notice on the board; `content` is `None` when no sheet is whole."""

    record: int
    name: str | None
    writes: int
    content: bytes | None
    published_us: int
    expires_us: int


@dataclass(frozen=True)
class Series:
    """A named series with its histograms added up."""

    record: int
    name: str | None
    errors: int
    input_bytes: int
    output_bytes: int
    sum_ns: int
    max_ns: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Event:
    """An entry of the event ring."""

    number: int
    at_us: int
    kind: int
    owner: Owner
    subject: int
    a: int
    b: int


@dataclass(frozen=True)
class Feature:
    """An accelerated feature's breaker and switch."""

    number: int
    errors: int
    last_s: int
    trips: int
    mode: str
    percent: int
    revision: int
    errors_total: int


@dataclass
class View:
    """Everything that a region says at one instant of its clock."""

    at_us: int
    header: dict[str, int]
    workers: list[Worker] = field(default_factory=list)
    stats: dict[str, int] = field(default_factory=dict)
    features: list[Feature] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    deployments: list[Deployment] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    endpoints: list[Endpoint] = field(default_factory=list)
