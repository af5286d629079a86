"""A second reader of a region: plain Python, written from `shm_layout.md` alone.

Offsets and bit ranges come from the document's tables, so a wrong table makes a wrong reader. Hash, probe
and the meaning of the words follow its prose. Nothing here writes, and nothing imports fast_litellm.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from keyed_hash import GOLDEN, M64, mix, places, siphash
from layout_document import Bits, LayoutDocument
from region_view import (
    Cause,
    Chunk,
    Counter,
    Deployment,
    Endpoint,
    Event,
    Feature,
    Hold,
    Job,
    Key,
    Notice,
    Owner,
    Quota,
    Series,
    Sliding,
    Standing,
    View,
    Window,
    Worker,
)

T = TypeVar("T")

MAGIC = b"FLSHM\r\n\x1a"
BYTE_ORDER = 0x0A0B0C0D01020304
READY = 2
COMPLETE = 2
"""State of a name that can be read."""

PAGE = 4096
SHARED_BUCKETS = 64
HISTOGRAMS = 8
"""Histograms of a series."""

DOMAIN_KEY, DOMAIN_SLIDING = 0, 4
DOMAIN_TALLY, DOMAIN_DEPLOYMENT, DOMAIN_SERIES = 0x74616C6C, 0x6465706C, 0x73657269
DOMAIN_JOB, DOMAIN_NOTICE, DOMAIN_POOL = 0x6A6F6273, 0x6E6F7465, 0x706F6F6C
DEPLOYMENT_MARK, JOB_MARK, ENDPOINT_MARK = 1 << 32, 2 << 32, 3 << 32
FAILURES_IN_A_ROW, ENDPOINT_REST_S, ENDPOINT_MEMORY_S = 3, 30, 300
POOL_COUNTS = ("created", "refused", "expired", "reused", "taken_over", "stale_returns")
SHEET_TIMES = ("published_us", "expires_us")
SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_S = 3_600
CLOCK_SLACK_S = 64
LONGEST_COOLDOWN_MS = 31 * 86_400_000


class NotARegion(ValueError):  # noqa: N818  # reads as what it says
    """The memory is not a region that this document describes."""


class Section(NamedTuple):
    """Where an array of records stands."""

    offset: int
    stride: int
    count: int


class RegionReader:
    """Reads one region: `buffer` is a mapping of all of it, and every access is one aligned word."""

    def __init__(self, buffer: mmap.mmap | memoryview, document: LayoutDocument) -> None:
        self.document = document
        self._buffer = buffer
        self._words = memoryview(buffer).cast("B").cast("Q")
        self.header = self._header()
        try:
            self._gate()
            self.sections = self.computed_sections()
        except NotARegion:
            self.close()
            raise

    @classmethod
    def map(cls, path: Path | str, document: LayoutDocument) -> RegionReader:
        """Map a region's object read-only: a file, or `/proc/<pid>/fd/<n>`."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            buffer = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        finally:
            os.close(descriptor)
        return cls(buffer, document)

    @classmethod
    def of_process(cls, pid: int, document: LayoutDocument) -> Iterator[RegionReader]:
        """Every region that a process has open as a memfd."""
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(link)
                if target.startswith("/memfd:"):
                    yield cls.map(link, document)
            except (OSError, NotARegion):
                continue

    def close(self) -> None:
        """Let go of the memory."""
        self._words.release()
        if isinstance(self._buffer, mmap.mmap):
            self._buffer.close()

    def __enter__(self) -> RegionReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The map.

    def _header(self) -> dict[str, int]:
        fields = self.document.records["Header"].fields
        return {
            name: self._word("Header", 0, name)
            for name, each in fields.items()
            if not each.reserved
        }

    def _gate(self) -> None:
        header = self.header
        found = {
            "magic": (header["magic"], int.from_bytes(MAGIC, "little")),
            "byte order": (header["byte_order"], BYTE_ORDER),
            "major version": (header["version"] >> 32, self.document.version[0]),
            "state": (header["state"], READY),
            "total length": (header["total_len"], self._words.nbytes),
        }
        for what, (present, wanted) in found.items():
            if present != wanted:
                raise NotARegion(f"{what} is {present:#x} instead of {wanted:#x}")

    def computed_sections(self) -> dict[str, Section]:
        """Where the sections must be, from the capacities alone."""
        values = {**self.header, "B": self.buckets}
        at = PAGE
        sections = {}
        for _, record, count in self.document.sections:
            terms = count.strip("()").split(" + ")
            length = sum(int(term) if term.isdigit() else values[term] for term in terms)
            sections[record] = Section(at, self.document.records[record].size, length)
            at = rounded_up(at + sections[record].stride * length, PAGE)
        return sections

    def section_table(self) -> dict[str, Section]:
        """What the region's own table says."""
        rows = {}
        at = self.document.records["Header"].size
        for index, plan in enumerate(self.document.sections):
            row = {
                name: self._load(at, "SectionRow", index, name)
                for name in self.document.records["SectionRow"].fields
            }
            if row["id"] != plan.number:
                raise NotARegion(f"section row {index} is of {row['id']} instead of {plan.number}")
            rows[plan.record] = Section(row["offset"], row["stride"], row["count"])
        return rows

    @property
    def buckets(self) -> int:
        """Buckets of the main table."""
        capacity = self.header["key_capacity"]
        return rounded_up(capacity + capacity // 2, 8)

    def admissions_in_free_buckets(self) -> int:
        """Admissions that were counted after their key had been given up."""
        return sum(
            self._word("Bucket", slot, "allowed")
            for slot in range(self.buckets)
            if self._state(self._bits("Bucket", slot, "identity")) == "free"
        )

    # Words.

    def _load(self, base: int, record: str, index: int, name: str, item: int = 0) -> int:
        plan = self.document.records[record]
        return self._words[(base + index * plan.size + plan.fields[name].offset) // 8 + item]

    def _word(self, record: str, index: int, name: str, item: int = 0) -> int:
        base = 0 if record == "Header" else self.sections[record].offset
        return self._load(base, record, index, name, item)

    def _bits(
        self, record: str, index: int, name: str, item: int = 0, as_: str = ""
    ) -> dict[str, int]:
        kind = as_ or self.document.records[record].fields[name].type
        return self.unpack(kind, self._word(record, index, name, item))

    def unpack(self, word: str, value: int) -> dict[str, int]:
        """The fields of a packed word."""
        return {name: bits.of(value) for name, bits in self.document.words[word].items()}

    def _field(self, word: str, name: str) -> Bits:
        return self.document.words[word][name]

    def _pack(self, word: str, **fields: int) -> int:
        bits = self.document.words[word]
        return sum(value << bits[name].first for name, value in fields.items())

    def _value(self, type_: str, name: str) -> int:
        return next(value for value, word in self.document.values[type_].items() if word == name)

    def owner(self, tag: int) -> Owner:
        """Take an `OwnerTag` apart."""
        return Owner(tag & 0x3FF, tag >> 10)

    # Time.

    def now_us(self) -> int:
        """The region's clock."""
        reading = time.clock_gettime_ns(self.header["clock_id"])
        return (reading - self.header["clock_base_ns"]) // 1000

    # Where a key stands.

    def hash(self, domain: int, data: bytes) -> int:
        """`H(domain, bytes)`."""
        return siphash((self.header["seed_high"] ^ domain, self.header["seed_low"]), data)

    def quota_domain(self, per_minute: int, burst: int, name: str = "") -> int:
        """The domain of a GCRA limiter's keys."""
        return self.hash(DOMAIN_KEY, f"{per_minute}/{burst}:{name}".encode())

    def find(
        self, kind: str, data: bytes, domain: int = DOMAIN_KEY, *, shared: bool = False
    ) -> int | None:
        """The bucket of a key, by hash and probe; `None` when it has none.

        With `shared` it is looked for among the last buckets, which are a table of their own.
        """
        first, slots = (self.buckets, SHARED_BUCKETS) if shared else (0, self.buckets)
        return self._find("Bucket", kind, data, domain, first, slots)

    def find_named(self, record: str, data: bytes) -> int | None:
        """The record of a deployment, a series, a job, a notice or a pool, by hash and probe."""
        domains = {
            "Deployment": DOMAIN_DEPLOYMENT,
            "Series": DOMAIN_SERIES,
            "Job": DOMAIN_JOB,
            "Notice": DOMAIN_NOTICE,
            "Endpoint": DOMAIN_POOL,
        }
        domain = domains[record]
        return self._find(record, "named", data, domain, 0, self.sections[record].count)

    def find_endpoint(self, pool: str, endpoint: str) -> int | None:
        """The record of an endpoint of a pool, by hash and probe."""
        domain = self.hash(DOMAIN_POOL, pool.encode())
        count = self.sections["Endpoint"].count
        return self._find("Endpoint", "named", endpoint.encode(), domain, 0, count)

    def _find(
        self, table: str, kind: str, data: bytes, domain: int, first: int, slots: int
    ) -> int | None:
        hashed = self.hash(domain ^ self._value("KeyKind", kind), data)
        return self._probe(table, kind, hashed, slots, first)

    def find_chunk(self, index: int, ordinal: int = 0, record: str = "Bucket") -> int | None:
        """A chunk of slots of the key in a bucket, or of a deployment, by hash and probe."""
        hashed = mix(self.identity(record, index) ^ ordinal * GOLDEN & M64)
        return self._probe("LeaseChunk", "chunk", hashed, self.sections["LeaseChunk"].count)

    def _probe(self, table: str, kind: str, hashed: int, slots: int, first: int = 0) -> int | None:
        wanted = (self._value("KeyKind", kind), hashed >> self._field("IdentityWord", "hash").first)
        for place in places(hashed, slots):
            if self._word(table, first + place, "identity") == 0:
                return None
            identity = self._bits(table, first + place, "identity")
            stands = self._state(identity) in ("taken", "leaving")
            if stands and (identity["kind"], identity["hash"]) == wanted:
                return first + place
        return None

    def standing(self, table: str, index: int) -> Standing | None:
        """The key in a record, from one look at its word; `None` when there is none.

        As `identity`, but by taking away what changes instead of putting together what stays.
        """
        word = key = self._word(table, index, "identity")
        if self._state(self.unpack("IdentityWord", word)) not in ("taken", "leaving"):
            return None
        for field in ("version", "state"):
            bits = self._field("IdentityWord", field)
            key &= ~(((1 << bits.last - bits.first + 1) - 1) << bits.first)
        taken = self._value("SlotState", "taken")
        return Standing(word, key | taken << self._field("IdentityWord", "state").first)

    def _state(self, identity: dict[str, int]) -> str:
        return self.document.values["SlotState"][identity["state"]]

    def identity(self, table: str, index: int) -> int:
        """The key of a record: its identity without what changes while it stands there."""
        key = self._bits(table, index, "identity")
        taken = self._value("SlotState", "taken")
        return self._pack("IdentityWord", state=taken, kind=key["kind"], hash=key["hash"])

    def _standing(self, table: str, decode: Callable[[int], T]) -> list[T]:
        """Every record of a keyed table in which a key stands, decoded.

        A record that changes hands while it is decoded says nothing, and is left out.
        """
        state = self._field("IdentityWord", "state")
        stands = {self._value("SlotState", name) for name in ("taken", "leaving")}
        found = []
        for index in range(self.sections[table].count):
            if state.of(self._word(table, index, "identity")) not in stands:
                continue
            key = self.identity(table, index)
            try:
                value = decode(index)
            except KeyError:
                if self.identity(table, index) == key:
                    raise
                continue
            if self.identity(table, index) == key:
                found.append(value)
        return found

    # Everything.

    def view(self, at_us: int | None = None) -> View:
        """Decode all of it, at an instant of the region's clock; by default at the present one."""
        view = View(self.now_us() if at_us is None else at_us, self._header())
        view.workers = list(self._workers())
        view.stats = self._stats()
        view.features = list(self._features())
        at_us = view.at_us
        view.keys = self._standing("Bucket", lambda slot: self._key(slot, at_us))
        view.chunks = self._standing("LeaseChunk", self._chunk)
        view.deployments = self._standing("Deployment", lambda slot: self._deployment(slot, at_us))
        view.series = self._standing("Series", self._one_series)
        view.events = list(self._events())
        view.jobs = self._standing("Job", self._job)
        view.notices = self._standing("Notice", self._notice)
        view.endpoints = self._standing("Endpoint", lambda slot: self._endpoint(slot, at_us))
        return view

    def _workers(self) -> Iterator[Worker]:
        states = self.document.values["WorkerState"]
        for row in range(self.sections["WorkerRow"].count):
            claim = self._bits("WorkerRow", row, "claim")
            if states[claim["state"]] != "free":
                yield Worker(
                    Owner(row, claim["generation"]),
                    states[claim["state"]],
                    claim["pid"],
                    claim["start_low"],
                    self._word("WorkerRow", row, "start_ticks"),
                    self._word("WorkerRow", row, "registered_s"),
                    self._word("WorkerRow", row, "pid_namespace"),
                )

    def stats_row(self, row: int) -> dict[str, int]:
        """The counters of one worker row."""
        fields = self.document.records["StatsRow"].fields
        return {
            name: self._word("StatsRow", row, name)
            for name, each in fields.items()
            if not each.reserved
        }

    def _stats(self) -> dict[str, int]:
        rows = [self.stats_row(row) for row in range(self.sections["StatsRow"].count)]
        return {name: sum(row[name] for row in rows) & M64 for name in rows[0]}

    def _features(self) -> Iterator[Feature]:
        for number in range(self.sections["Feature"].count):
            breaker = self._bits("Feature", number, "breaker")
            flag = self._bits("Feature", number, "flag")
            yield Feature(
                number,
                breaker["errors"],
                breaker["last_s"],
                breaker["trips"],
                self.document.values["FlagMode"][flag["mode"]],
                flag["percent"],
                flag["revision"],
                self._word("Feature", number, "errors_total"),
            )

    # Keys.

    def _key(self, slot: int, now_us: int) -> Key:
        identity = self._bits("Bucket", slot, "identity")
        kind = self.document.values["KeyKind"][identity["kind"]]
        views = {
            "gcra": self._quota,
            "window": self._window,
            "counter": self._counter,
            "sliding": self._sliding,
        }
        limits = self._bits("Bucket", slot, "limits")
        return Key(
            slot,
            kind,
            self._state(identity),
            identity["version"],
            identity["hash"],
            self._name("Name", slot, "head", "bytes"),
            self._word("Bucket", slot, "allowed"),
            self._word("Bucket", slot, "denied"),
            (limits["requests"], limits["tokens"]),
            views[kind](slot, now_us) if kind in views else None,
        )

    def _quota(self, slot: int, now_us: int) -> Quota | None:
        limits = self._bits("Bucket", slot, "limits")
        per_minute, burst = limits["requests"], limits["tokens"]
        if per_minute == 0:
            return None
        interval = divided_up(MINUTE_US, per_minute)
        owed = max(self._bits("Bucket", slot, "requests", as_="GcraWord")["tat_us"] - now_us, 0)
        if owed > 2 * burst * interval:
            owed = burst * interval
        room = burst * interval - owed
        return Quota(
            per_minute,
            burst,
            used=divided_up(owed, interval),
            remaining=max(room // interval, 0),
            retry_us=max(interval - room, 0),
            reset_us=owed,
        )

    def _window(self, slot: int, now_us: int) -> Window:
        # The counters first: whoever sees a counter of a window also sees that window.
        counters = [self._word("Bucket", slot, name) for name in ("requests", "tokens")]
        window = self._bits("Bucket", slot, "window")
        limits = self._bits("Bucket", slot, "limits")
        lease = self._bits("Bucket", slot, "lease")
        left_s = self._left_s(window, now_us)
        start_s = window["start_s"] if left_s else None
        requests, tokens = (self._count(word, start_s, now_us) for word in counters)
        return Window(
            left_s > 0,
            window["start_s"],
            window["size_s"],
            left_s,
            requests,
            tokens,
            limits["requests"],
            limits["tokens"],
            lease["limit"],
            lease["high_water"],
        )

    def _left_s(self, window: dict[str, int], now_us: int) -> int:
        """Seconds until a window is over; 0 = it is not open."""
        age_s = max(now_us // SECOND_US - window["start_s"], 0)
        return max(window["size_s"] - age_s, 0)

    def _count(self, word: int, window_start_s: int | None, now_us: int) -> int:
        counter = self.unpack("CounterWord", word)
        bits = self.document.words["CounterWord"]
        if window_start_s is None:
            alive = counter["loose"] == 1 and self._expires_in_s(counter["tag"], now_us) > 0
        else:
            alive = counter["loose"] == 0 and counter["tag"] == bits["tag"].low(window_start_s)
        return bits["count_bits"].signed(counter["count_bits"]) if alive else 0

    def _expires_in_s(self, tag: int, now_us: int) -> int:
        return self._field("CounterWord", "tag").signed(tag - now_us // SECOND_US)

    def _counter(self, slot: int, now_us: int) -> Counter:
        word = self._word("Bucket", slot, "requests")
        tag = self.unpack("CounterWord", word)["tag"]
        return Counter(self._count(word, None, now_us), max(self._expires_in_s(tag, now_us), 0))

    def _sliding(self, slot: int, now_us: int) -> Sliding | None:
        limits = self._bits("Bucket", slot, "limits")
        limit, seconds = limits["requests"], limits["tokens"]
        if seconds == 0:
            return None
        raw = self._word("Bucket", slot, "requests")
        word = self.unpack("SlidingWord", raw)
        length_us = seconds * SECOND_US
        number, into_us = divmod(now_us, length_us)
        left_us = length_us - into_us
        behind = self._field("SlidingWord", "window").signed(number - word["window"])
        previous, current = word["previous"], word["current"]
        if behind > 1 or raw == 0:
            previous, current = 0, 0
        elif behind == 1:
            previous, current = current, 0
        elif behind < 0:
            left_us = length_us
        step = 1
        while limit > step << 23:
            step *= 2
        used = divided_up(previous * left_us, length_us) + current
        return Sliding(limit, seconds, used * step, max(limit // step - used, 0) * step)

    def _name(self, record: str, index: int, head: str, body: str) -> str | None:
        state = self._bits(record, index, head)
        count = self.document.records[record].fields[body].count
        length = state["length"]
        if state["state"] != COMPLETE or length > 8 * count:
            return None
        words = [self._word(record, index, body, item) for item in range(divided_up(length, 8))]
        if self._field("NameWord", "check").low(name_check(words, length)) != state["check"]:
            return None
        raw = b"".join(word.to_bytes(8, "little") for word in words)
        return raw[:length].decode("utf-8", "replace")

    # Slots.

    def _chunk(self, index: int) -> Chunk:
        identity = self._bits("LeaseChunk", index, "identity")
        place = self._word("LeaseChunk", index, "key_slot")
        ordinal = self._word("LeaseChunk", index, "ordinal")
        holds = []
        slots = self.document.records["LeaseChunk"].fields["holders"].count
        for number in range(slots):
            lease = self._bits("LeaseChunk", index, "holders", number)
            if lease["owner"]:
                tag = self._bits("LeaseChunk", index, "tags", number)
                holds.append(
                    Hold(
                        ordinal * slots + number,
                        self.owner(lease["owner"]),
                        lease["acquired_s"],
                        lease["idle"] == 1,
                        tag["hash"],
                        tag["writes"],
                    )
                )
        return Chunk(
            index,
            self._state(identity),
            identity["hash"],
            ordinal,
            place - 1 if 0 < place <= DEPLOYMENT_MARK else None,
            place - DEPLOYMENT_MARK - 1 if DEPLOYMENT_MARK < place <= JOB_MARK else None,
            place - JOB_MARK - 1 if JOB_MARK < place <= ENDPOINT_MARK else None,
            place - ENDPOINT_MARK - 1 if place > ENDPOINT_MARK else None,
            self._word("LeaseChunk", index, "hint"),
            self._word("LeaseChunk", index, "held"),
            tuple(holds),
        )

    # What routing and measuring remember.

    def _deployment(self, index: int, now_us: int) -> Deployment:
        def word(name: str) -> int:
            return self._word("Deployment", index, name)

        def bits(name: str) -> dict[str, int]:
            return self._bits("Deployment", index, name)

        kinds = self.document.values["FailureKind"]
        successes, failures, window = word("successes"), word("failures"), bits("window")
        start_s = window["start_s"] if self._left_s(window, now_us) else None
        cooldown, failure, lease = bits("cooldown"), bits("last_failure"), bits("lease")
        cooling_ms = cooldown["until_ms"] - now_us // 1000
        happened = kinds[failure["kind"]], failure["status"], failure["at_s"]
        return Deployment(
            index,
            self._name("Deployment", index, "name_head", "name"),
            cooling_ms if 0 < cooling_ms <= LONGEST_COOLDOWN_MS else 0,
            kinds[cooldown["reason"]],
            self._cause(index),
            cooldown["trips"],
            self._count(successes, start_s, now_us),
            self._count(failures, start_s, now_us),
            word("successes_total"),
            word("failures_total"),
            word("failures_in_a_row"),
            happened if word("last_failure") else None,
            self._average_us(bits("latency")),
            self._average_us(bits("first_token")),
            self._samples(index, "latencies", word("latency_head"), now_us),
            self._samples(index, "first_tokens", word("first_token_head"), now_us),
            self._samples(index, "scores", word("score_head"), now_us),
            lease["limit"],
        )

    def _cause(self, index: int) -> Cause | None:
        """Why the deployment is cooled down; `None` when that was written for another cooldown."""
        identity, cooldown = (
            self.identity("Deployment", index),
            self._word("Deployment", index, "cooldown"),
        )
        head, cause = (
            self._bits("Deployment", index, "cause_head"),
            self._bits("Deployment", index, "cause"),
        )
        if cause["mark"] != self._field("CauseWord", "mark").low(mix(identity ^ mix(cooldown))):
            return None
        length, text = head["length"], None
        count = self.document.records["Deployment"].fields["cause_text"].count
        if 0 < length <= 8 * count:
            body = [
                self._word("Deployment", index, "cause_text", item)
                for item in range(divided_up(length, 8))
            ]
            first = [identity, cooldown, self._word("Deployment", index, "cause")]
            check = name_check([*first, *body], length)
            if check >> self._field("TextWord", "check").first == head["check"]:
                raw = b"".join(word.to_bytes(8, "little") for word in body)
                text = raw[:length].decode("utf-8", "replace")
        return Cause(cause["for_ms"], cause["status"], text)

    def _average_us(self, average: dict[str, int]) -> float | None:
        return average["value"] / 16 if average["samples"] else None

    def _samples(self, index: int, name: str, head: int, now_us: int) -> tuple[int, ...]:
        """Those of the last hour, from the oldest to the latest."""
        count = self.document.records["Deployment"].fields[name].count
        second = self._field("SampleWord", "at_s")
        samples = []
        for item in range(count):
            sample = self._bits("Deployment", index, name, (head + item) % count)
            age_s = second.low(now_us // SECOND_US - sample["at_s"])
            recent = age_s <= HOUR_S or age_s > second.mask - CLOCK_SLACK_S
            if sample["value_us"] and recent:
                samples.append(sample["value_us"])
        return tuple(samples)

    def _job(self, index: int) -> Job:
        term, since = self._bits("Job", index, "term"), self._bits("Job", index, "since")
        return Job(
            index,
            self._name("Job", index, "name_head", "name"),
            term["number"],
            self.owner(term["owner"]),
            since["began_s"] if since["number"] == term["number"] else None,
        )

    def _endpoint(self, index: int, now_us: int) -> Endpoint:
        def word(name: str) -> int:
            return self._word("Endpoint", index, name)

        breaker = self._bits("Endpoint", index, "breaker")
        failure = self._bits("Endpoint", index, "last_failure")
        silent_s = now_us // SECOND_US - breaker["last_s"]
        errors = breaker["errors"] if silent_s < ENDPOINT_MEMORY_S else 0
        kinds = self.document.values["FailureKind"]
        happened = kinds[failure["kind"]], failure["status"], failure["at_s"]
        return Endpoint(
            index,
            self._name("Endpoint", index, "name_head", "name"),
            self.identity("Endpoint", index),
            word("pool"),
            errors,
            errors < FAILURES_IN_A_ROW or silent_s >= ENDPOINT_REST_S,
            word("failures_total"),
            happened if word("last_failure") else None,
            {name: word(name) for name in POOL_COUNTS},
            self._bits("Endpoint", index, "lease")["limit"],
        )

    def _notice(self, index: int) -> Notice:
        current = self._bits("Notice", index, "current")
        name = self._name("Notice", index, "name_head", "name")
        sheets = (current["sheet"], 1 - current["sheet"]) if current["writes"] else ()
        for sheet in sheets:
            content = self._sheet(index, sheet)
            if content is not None:
                times = [self._word("Notice", index, each, sheet) for each in SHEET_TIMES]
                return Notice(index, name, current["writes"], content, *times)
        return Notice(index, name, current["writes"], None, 0, 0)

    def _sheet(self, index: int, sheet: int) -> bytes | None:
        """What stands on a sheet of a notice, if it is whole."""
        length = self._word("Notice", index, "lengths", sheet)
        count = self.document.records["Sheet"].fields["words"].count
        if length > 8 * count:
            return None
        times = [self._word("Notice", index, each, sheet) for each in SHEET_TIMES]
        row = 2 * index + sheet
        words = [self._word("Sheet", row, "words", item) for item in range(divided_up(length, 8))]
        check = mix(self.identity("Notice", index))
        for word in (length, *times, *words):
            check = mix(check ^ word) + check & M64
        if mix(check) != self._word("Notice", index, "checks", sheet):
            return None
        return b"".join(word.to_bytes(8, "little") for word in words)[:length]

    def _one_series(self, index: int) -> Series:
        rows = range(HISTOGRAMS * index, HISTOGRAMS * index + HISTOGRAMS)
        buckets = self.document.records["Histogram"].fields["counts"].count
        return Series(
            index,
            self._name("Series", index, "name_head", "name"),
            self._word("Series", index, "errors"),
            self._word("Series", index, "input_bytes"),
            self._word("Series", index, "output_bytes"),
            sum(self._word("Histogram", row, "sum_ns") for row in rows) & M64,
            max(self._word("Histogram", row, "max_ns") for row in rows),
            tuple(
                sum(self._word("Histogram", row, "counts", bucket) for row in rows)
                for bucket in range(buckets)
            ),
        )

    def _events(self) -> Iterator[Event]:
        """From the oldest to the latest."""
        length = self.sections["Event"].count
        head = self._word("Header", 0, "event_head")
        for number in range(max(head - length, 0), head):
            index = number % length
            if self._word("Event", index, "sequence") != number + 1:
                continue
            names = ("at_us", "kind", "owner", "subject", "a", "b")
            fields = [self._word("Event", index, name) for name in names]
            if self._word("Event", index, "check") == event_check(number + 1, fields):
                at_us, kind, owner, subject, a, b = fields
                yield Event(number, at_us, kind, self.owner(owner), subject, a, b)

    # What must hold at every instant.

    def reserved_words(self) -> Iterator[tuple[str, int, str]]:
        """Every reserved word that is not zero: record, index, field."""
        for name, section in {"Header": Section(0, 0, 1), **self.sections}.items():
            reserved = [
                (each, plan)
                for each, plan in self.document.records[name].fields.items()
                if plan.reserved
            ]
            for index in range(section.count):
                for each, plan in reserved:
                    if any(self._word(name, index, each, item) for item in range(plan.count)):
                        yield name, index, each


def rounded_up(value: int, to: int) -> int:
    """The next multiple of `to`."""
    return divided_up(value, to) * to


def divided_up(value: int, by: int) -> int:
    """A division, rounded up."""
    return -(-value // by)


def name_check(words: list[int], length: int) -> int:
    """What the check of a name, or of a text and what it belongs to, is taken from."""
    check = length
    for word in words:
        check = mix(check ^ word) + check & M64
    return mix(check)


def event_check(sequence: int, fields: list[int]) -> int:
    """The check word of an event."""
    check = GOLDEN
    for value in (sequence, *fields):
        check = mix((check ^ value) + GOLDEN & M64)
    return check


def histogram_bucket(value_ns: int) -> int:
    """The bucket of a histogram that counts a value."""
    if value_ns < 128:
        return 0
    bits = value_ns.bit_length() - 1
    return min(4 * (bits - 7) + (value_ns >> bits - 2 & 3), 131)
