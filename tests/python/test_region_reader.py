"""Proves that `shm_layout.md` says all that a reader needs: a second reader, written from it, agrees.

`region_reader` knows a region from the document alone. What it decodes is compared with what the engine
reports, field by field, after processes have charged, held, died, been reaped and been given up.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import mmap
import os
import random
import shutil
import struct
import subprocess
import sys
import textwrap
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import pytest

import region_view
from fast_litellm._rust import (
    LimiterScripts,
    Region,
    SimpleConnectionPool,
    SimpleRateLimiter,
    UnavailableError,
)
from keyed_hash import mix, places, siphash
from layout_document import Bits, LayoutDocument
from region_reader import (
    LONGEST_COOLDOWN_MS,
    NotARegion,
    RegionReader,
    event_check,
    histogram_bucket,
    name_check,
)
from region_view import (
    Cause,
    Deployment,
    Endpoint,
    Event,
    Hold,
    Key,
    Owner,
    Quota,
    Series,
    Sliding,
    View,
    Window,
)
from support import Forked, Worker, until

DOCUMENT = LayoutDocument.load()
DAY_S = 86_400
#: Names of features by their number, and errors that open their breakers.
FEATURES = (
    "rust_routing",
    "rust_token_counting",
    "rust_rate_limiting",
    "rust_connection_pool",
    "batch_token_counting",
)
MAX_ERRORS = 10
BACKINGS = {1: "memfd", 2: "file", 3: "anonymous", 4: "heap"}


def make(name: str, **settings: Any) -> Region:
    small = {"keys": 1000, "lease_chunks": 64, "workers": 16, "deployments": 64}
    return Region.create(name, **{**small, **settings})


def reader_of(name: str, document: LayoutDocument = DOCUMENT) -> RegionReader:
    """Map a region of this process by the name of its memfd, as any other process could."""
    for link in Path("/proc/self/fd").iterdir():
        if os.path.lexists(link) and os.readlink(link).startswith(f"/memfd:fl-shm:{name} "):
            return RegionReader.map(link, document)
    raise AssertionError(f"no memfd fl-shm:{name}")


# Both reports, brought to one form. Only what the engine reports is compared; the left side is its words.


def liveness(worker: region_view.Worker) -> str:
    """Whether the process of a row is proven dead, as the document defines proof."""
    if worker.state == "dead":
        return "dead"
    try:
        stat = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "dead"
    state, threads, start = stat[0], int(stat[17]), int(stat[19])
    return "dead" if start != worker.start_ticks or (state == "Z" and threads <= 1) else "alive"


def header_report(reader: RegionReader, view: View) -> dict[str, Any]:
    header = view.header
    return {
        "layout": f"{header['version'] >> 32}.{header['version'] & 0xFFFFFFFF}",
        "backing": BACKINGS[header["backing"]],
        "size": header["total_len"],
        "creator_pid": header["creator_pid"],
        "created_at": header["wall_base_s"] + 1,
        "age_s": max(view.at_us // 1_000_000 - 1, 0),
        "epoch": header["epoch"],
        "key_capacity": header["key_capacity"],
        "keys": len(view.keys),
        "chunk_capacity": header["chunk_capacity"],
        "chunks": len(view.chunks),
        "worker_capacity": header["worker_capacity"],
        "same_pid_namespace": header["pid_namespace"] == os.stat("/proc/self/ns/pid").st_ino,
    }


def worker_reports(reader: RegionReader, view: View) -> list[dict[str, Any]]:
    held = Tally(hold.owner for chunk in view.chunks for hold in chunk.holds)
    decisions = ("window_charged", "window_denied", "lease_acquired", "lease_denied")
    return [
        {
            "row": worker.owner.row,
            "generation": worker.owner.generation,
            "pid": worker.pid,
            "role": "creator" if worker.pid == view.header["creator_pid"] else "worker",
            "alive": liveness(worker),
            "age_s": view.at_us // 1_000_000 - worker.registered_s,
            "leases": held[worker.owner],
            "decisions": sum(reader.stats_row(worker.owner.row)[name] for name in decisions),
        }
        for worker in view.workers
    ]


def name_of(key: Key) -> str:
    return f"#{key.hash:013x}" if key.name is None else key.name


def usage(used: int, limit: int) -> dict[str, int]:
    return {"used": used, "limit": limit} if limit else {"used": used}


def limit_report(key: Key, held: int) -> dict[str, Any]:
    report: dict[str, Any] = {"key": name_of(key), "kind": key.kind}
    view = key.view
    if isinstance(view, Quota):
        report["requests"] = usage(min(view.used, view.burst), view.burst)
        report["remaining"] = view.remaining
        report["retry_after_ms"] = -(-view.retry_us // 1000)
    elif isinstance(view, Window):
        if view.size_s:
            report["window_s"] = view.size_s
        if view.is_open:
            report["resets_in_s"] = view.ends_in_s
        for name, used, limit in (
            ("requests", view.requests, view.request_limit),
            ("tokens", view.tokens, view.token_limit),
            ("parallel", held, view.slot_limit),
        ):
            if used or limit:
                report[name] = usage(used, limit)
    elif isinstance(view, region_view.Counter) and view.expires_in_s:
        report["resets_in_s"] = view.expires_in_s
        report["requests"] = usage(view.count, 0)
    elif isinstance(view, Sliding):
        report["window_s"] = view.seconds
        report["requests"] = usage(view.limit - view.remaining, view.limit)
        report["remaining"] = view.remaining
        # How long to wait is for the engine to say.
        report["retry_after_ms"] = None
    limited = [report.get(name, {}) for name in ("requests", "tokens", "parallel")]
    shares = [max(each["used"], 0) / each["limit"] for each in limited if "limit" in each]
    if shares:
        report["used_pct"] = math.floor(max(shares) * 1000 + 0.5) / 10
    return {**report, "allowed": key.allowed, "denied": key.denied}


def limit_reports(view: View) -> list[dict[str, Any]]:
    held = Tally(chunk.key for chunk in view.chunks for _ in chunk.holds)
    return [limit_report(key, held[key.slot]) for key in view.keys if key.kind != "tally"]


def lease_reports(view: View) -> list[dict[str, Any]]:
    names: dict[tuple[int | None, ...], str | None] = {
        **{(key.slot, None, None, None): name_of(key) for key in view.keys},
        **{(None, each.record, None, None): each.name for each in view.deployments},
        **{(None, None, each.record, None): each.name for each in view.jobs},
        **{(None, None, None, each.record): connected(view, each) for each in view.endpoints},
    }
    owners = {worker.owner: worker for worker in view.workers}
    grouped = defaultdict(list)
    for chunk in view.chunks:
        for hold in chunk.holds:
            held_by = chunk.key, chunk.deployment, chunk.job, chunk.endpoint
            grouped[held_by, hold.owner].append(
                (view.at_us // 1_000_000 - hold.acquired_s, hold.idle)
            )
    reports = []
    for (held_by, owner), holds in grouped.items():
        worker = owners.get(owner)
        who: dict[str, Any] = {"owner": "dead"}
        if worker is not None and worker.state == "live":
            who = {"pid": worker.pid, "owner": liveness(worker)}
        in_use = [age_s for age_s, idle in holds if not idle] or [age_s for age_s, _ in holds]
        held = {"held": len(holds), "oldest_s": max(in_use)}
        idle = sum(idle for _, idle in holds)
        held.update({"idle": idle} if idle else {})
        what = {"key": names.get(held_by), "of": kind_of(view, held_by)}
        reports.append({**what, "row": owner.row, **who, **held})
    return reports


def kind_of(view: View, held_by: tuple[int | None, ...]) -> str:
    """What holds slots: by the places in the four tables, of which one is known."""
    kinds = ("key", "deployment", "job", "endpoint")
    (kind,) = (kind for kind, place in zip(kinds, held_by, strict=True) if place is not None)
    pools = [each.record for each in view.endpoints if each.pool == each.identity]
    return "pool" if kind == "endpoint" and held_by[-1] in pools else kind


def connected(view: View, record: Endpoint) -> str:
    """How leases of a pool or an endpoint are shown."""
    (pool,) = (each for each in view.endpoints if each.identity == record.pool)
    return f"pool {pool.name}" if pool == record else f"pool {pool.name}: {record.name}"


def pool_reports(view: View) -> list[dict[str, Any]]:
    holds = [(chunk.endpoint, hold) for chunk in view.chunks for hold in chunk.holds]

    def held(record: Endpoint) -> dict[str, int]:
        idle = [hold.idle for at, hold in holds if at == record.record]
        limit = {"limit": record.limit} if record.limit else {}
        return {"connections": len(idle), "idle": sum(idle), **limit}

    def endpoint(record: Endpoint) -> dict[str, Any]:
        report = {
            "endpoint": record.name,
            **held(record),
            "healthy": record.healthy,
            "failures_in_a_row": record.failures_in_a_row,
            "failures_total": record.failures_total,
        }
        if record.last_failure:
            kind, status, at_s = record.last_failure
            report["last_failure"] = spelt(kind)
            report["last_failure_s"] = view.at_us // 1_000_000 - at_s
            report.update({"last_status": status} if status else {})
        return report

    return [
        {
            "pool": pool.name,
            **held(pool),
            **pool.counts,
            "endpoints": [
                endpoint(each)
                for each in view.endpoints
                if each.pool == pool.identity and each.identity != pool.identity
            ],
        }
        for pool in view.endpoints
        if pool.pool == pool.identity
    ]


def feature_reports(view: View) -> list[dict[str, Any]]:
    return [
        {
            "feature": feature.number,
            **({"name": FEATURES[feature.number]} if feature.number < len(FEATURES) else {}),
            "breaker": "open" if feature.errors >= MAX_ERRORS else "closed",
            "errors": feature.errors,
            "errors_total": feature.errors_total,
            "last_s": view.at_us // 1_000_000 - feature.last_s,
            "switch": feature.mode,
            **({"percent": feature.percent} if feature.mode == "percent" else {}),
        }
        for feature in view.features
        if feature.errors_total or feature.mode != "own"
    ]


def spelt(words: str) -> str:
    """As the engine's report spells what the document calls by words."""
    return words.replace(" ", "_")


def leader_reports(view: View) -> list[dict[str, Any]]:
    owners = {worker.owner: worker for worker in view.workers}
    now_s = view.at_us // 1_000_000
    reports = []
    for job in view.jobs:
        holds = [hold for chunk in view.chunks if chunk.job == job.record for hold in chunk.holds]
        for hold in holds:
            worker = owners.get(hold.owner)
            report: dict[str, Any] = {"job": job.name, "row": hold.owner.row, "owner": "dead"}
            if worker is not None and worker.state == "live":
                report.update({"pid": worker.pid, "owner": liveness(worker)})
            renewed_s = now_s - hold.acquired_s
            report.update({"renewed_s": renewed_s, "held_s": renewed_s})
            if job.leader == hold.owner:
                report["term"] = job.term
                if job.since_s is not None:
                    report["held_s"] = now_s - job.since_s
            reports.append(report)
    return reports


def notice_reports(view: View) -> list[dict[str, Any]]:
    reports = []
    for notice in view.notices:
        report: dict[str, Any] = {"notice": notice.name, "published": notice.writes}
        if notice.content is not None:
            report["bytes"] = len(notice.content)
            report["age_s"] = (view.at_us - notice.published_us) // 1_000_000
            if notice.expires_us:
                left_us = max(notice.expires_us - view.at_us, 0)
                report["expires_in_s"] = -(-left_us // 1_000_000)
        reports.append(report)
    return reports


def deployment_reports(view: View) -> list[dict[str, Any]]:
    held = Tally(chunk.deployment for chunk in view.chunks for _ in chunk.holds)
    return [deployment_report(each, view, held[each.record]) for each in view.deployments]


def deployment_report(each: Deployment, view: View, in_flight: int) -> dict[str, Any]:
    report: dict[str, Any] = {
        "deployment": each.name,
        "in_flight": in_flight,
        "cooldown_ms": each.cooling_ms,
        "successes": each.successes,
        "failures": each.failures,
        "failures_in_a_row": each.failures_in_a_row,
        "successes_total": each.successes_total,
        "failures_total": each.failures_total,
    }
    if each.cooling_ms:
        cause = each.cooldown_cause
        lasts_ms = min(max(cause.for_ms if cause else 0, each.cooling_ms), LONGEST_COOLDOWN_MS)
        report["cooldown_reason"] = spelt(each.cooldown_reason)
        report["cooldown_for_ms"] = lasts_ms
        if cause and cause.status:
            report["cooldown_status"] = cause.status
        if cause and cause.text:
            report["cooldown_text"] = cause.text
    if each.last_failure:
        kind, status, at_s = each.last_failure
        report["last_failure"] = spelt(kind)
        report["last_failure_s"] = view.at_us // 1_000_000 - at_s
        report.update({"last_status": status} if status else {})
    for name in ("latency_us", "first_token_us"):
        average = getattr(each, name)
        if average is not None:
            report[name] = int(average + 0.5)
    report.update({"score_us": each.scores_us[-1]} if each.scores_us else {})
    return report


def series_report(each: Series) -> dict[str, Any]:
    count = sum(each.counts)

    def quantile_ns(part: float) -> int:
        if count == 0:
            return 0
        running = itertools.accumulate(each.counts)
        rank = max(math.ceil(part * count), 1)
        bucket = next(number for number, total in enumerate(running) if total >= rank)
        end = 2**64 if bucket == 131 else (4 + (bucket + 1) % 4) * 2 ** (5 + (bucket + 1) // 4)
        return min(end - 1, each.max_ns)

    return {
        "series": each.name,
        "count": count,
        "errors": each.errors,
        "mean_ns": each.sum_ns // count if count else 0,
        "p50_ns": quantile_ns(0.5),
        "p99_ns": quantile_ns(0.99),
        "max_ns": each.max_ns,
        "input_bytes": each.input_bytes,
        "output_bytes": each.output_bytes,
    }


def event_reports(reader: RegionReader, view: View) -> list[dict[str, Any]]:
    names = {reader.identity("Deployment", each.record): each.name for each in view.deployments}
    names.update({reader.identity("Job", each.record): each.name for each in view.jobs})
    names.update({reader.identity("Bucket", each.slot): name_of(each) for each in view.keys})
    kinds = DOCUMENT.values["EventKind"]
    reports = []
    for event in reversed(view.events[-50:]):
        report: dict[str, Any] = {
            "number": event.number,
            "age_s": (view.at_us - event.at_us) // 1_000_000,
            "event": spelt(kinds[event.kind]),
            "a": event.a,
            "b": event.b,
        }
        if event.owner.generation:
            report["row"] = event.owner.row
        if event.subject:
            report["subject"] = names.get(event.subject, f"#{event.subject >> 13:013x}")
        reports.append(report)
    return reports


def report_of(reader: RegionReader, view: View) -> dict[str, Any]:
    return {
        "schema": "fl-shm/1",
        "header": header_report(reader, view),
        "workers": worker_reports(reader, view),
        "limits": limit_reports(view),
        "leases": lease_reports(view),
        "leaders": leader_reports(view),
        "deployments": deployment_reports(view),
        "pools": pool_reports(view),
        "notices": notice_reports(view),
        "features": feature_reports(view),
        "series": [series_report(each) for each in view.series],
        "events": event_reports(reader, view),
        "stats": view.stats,
    }


def differences(ours: object, theirs: object, at: str = "") -> Iterator[str]:
    """Every place in which two reports differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted({*ours, *theirs}):
            yield from differences(ours.get(name), theirs.get(name), f"{at}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        for number, pair in enumerate(itertools.zip_longest(ours, theirs)):
            yield from differences(*pair, f"{at}[{number}]")
    elif ours != theirs:
        yield f"{at}: the reader says {ours!r}, the engine {theirs!r}"


def by_key(report: dict[str, Any]) -> dict[str, Any]:
    """The report with its leases in one order."""
    leases = sorted(report["leases"], key=lambda lease: (str(lease["key"]), lease["row"]))
    return {**report, "leases": leases}


def compare(reader: RegionReader, region: Region) -> list[str]:
    """How the reader's view of a region at rest differs from the engine's.

    The engine's clock lies between two readings of the reader's, which decodes for these two instants.
    Times that it counts in milliseconds may only lie between what these two say; whatever else changes
    with time makes both look again.
    """
    found = ["nothing was compared"]
    for _ in range(5):
        before_us, text, after_us = reader.now_us(), region.inspect(), reader.now_us()
        theirs = json.loads(text)
        for event in theirs["events"]:
            # The details in words.
            assert event.pop("detail")
        early, late = (report_of(reader, reader.view(at_us)) for at_us in (before_us, after_us))
        for part, name in (("limits", "retry_after_ms"), ("deployments", "cooldown_ms")):
            for each in zip(early[part], theirs[part], late[part], strict=False):
                first, seen, last = (report.get(name) for report in each)
                if seen is not None and (first is None or last <= seen <= first):
                    each[0][name] = each[2][name] = seen
        if early != late:
            continue
        found = [*differences(by_key(early), by_key(theirs))]
        break
    return found


def lookups(
    reader: RegionReader, view: View, keys: dict[str, Callable[[], int | None]]
) -> list[str]:
    """Where computing a key's place and looking through all of them do not agree."""
    scanned: dict[str, list[int]] = defaultdict(list)
    for key in view.keys:
        scanned[name_of(key)].append(key.slot)
    found = [
        f"{name} is computed to be in {place()}, but stands in {scanned[name]}"
        for name, place in keys.items()
        if [slot for slot in [place()] if slot is not None] != scanned[name]
    ]
    for chunk in view.chunks:
        place = None if chunk.key is None else reader.find_chunk(chunk.key, chunk.ordinal)
        if chunk.endpoint is not None:
            place = reader.find_chunk(chunk.endpoint, chunk.ordinal, "Endpoint")
        if place != chunk.record:
            found.append(f"chunk {chunk.record} of {chunk.key} is computed to be in {place}")
    return found


# A region with everything in it.


class Busy:
    """A region that several processes have used, and how its keys are looked up."""

    def __init__(self, name: str, *, churn: bool) -> None:
        self.region = make(name)
        self.name = name
        self.reader = reader_of(name)
        self.keys: dict[str, Callable[[RegionReader], int | None]] = {}
        self.scripts = LimiterScripts(self.region)
        self._limit()
        self._count()
        self._hold()
        self._connect()
        if churn:
            self._churn()
        self.charge("user:forgotten", "requests", 3, 1)
        self.scripts.forget("{user:forgotten}:window")
        self.region.overflow = "shared"
        self.living = Worker(self)
        self.living.call("hold", "user:alice", 5, 2)
        self.living.call("hold", "team:red", 50, 3)
        # Another dies and nobody looks after it.
        with Worker(self) as dead:
            dead.call("hold", "user:alice", 5, 1)
            dead.call("hold", "team:blue", 9, 2)
        self._note_standing()

    def close(self) -> None:
        self.living.kill()
        self.reader.close()
        self.region.leave()

    def check(self, key: str, rate: int, burst: int, name: str = "", times: int = 1) -> None:
        limiter = SimpleRateLimiter(rate, burst=burst, name=name, region=self.region)
        for _ in range(times):
            limiter.is_allowed(key)
        self.keys[f"{name}/{key}" if name else key] = lambda reader: reader.find(
            "gcra", key.encode(), reader.quota_domain(rate, burst, name)
        )

    def subject(self, subject: str) -> None:
        self.keys[subject] = lambda reader: reader.find("window", f"{{{subject}}}".encode())

    def counter(self, key: str, amount: int, ttl_s: int) -> None:
        self.scripts.add(key, amount, ttl_s)
        self.keys[key] = lambda reader: reader.find("counter", key.encode())

    def charge(self, subject: str, part: str, limit: int, amount: int, times: int = 1) -> None:
        self.subject(subject)
        keys = [f"{{{subject}}}:window", f"{{{subject}}}:{part}"]
        for _ in range(times):
            self.scripts.check_and_increment_by_n(keys, [limit, amount, DAY_S, DAY_S])

    def hold(self, subject: str, limit: int, count: int) -> None:
        self.subject(subject)
        key = f"{{{subject}}}:max_parallel_requests"
        for number in range(count):
            self.scripts.parallel_acquire([key], [limit, DAY_S, f"{os.getpid()}-{number}"])

    def error(self, feature: int) -> None:
        self.region.feature_error(feature)

    def _limit(self) -> None:
        self.check("k", 1, 5, times=3)
        self.check("k", 1, 5, name="chat", times=7)
        self.check("é\0x", 2, 1, name="n", times=2)
        # A control character is not shown.
        self.keys["n/é?x"] = self.keys.pop("n/é\0x")
        self.check("", 1, 30, name="empty")
        self.check("a" * 19, 3, 1000, times=12)
        for n in range(100):
            self.check(f"many-{n}", 1, 2, times=n % 4 + 1)

    def _count(self) -> None:
        self.charge("user:alice", "requests", 20, 1, times=3)
        self.charge("user:alice", "tokens", 900, 300, times=4)
        self.charge("user:bob", "tokens", 2**32 - 2, 2**31)
        self.charge("user:x", "requests", 3, 1, times=4)
        start = self.scripts.value("{user:x}:window")
        guarded = ["{user:x}:window", "{user:x}:requests"]
        self.scripts.window_guarded_token_increment(guarded, [str(start), -1, DAY_S])
        self.counter("spend:team", 7, DAY_S)
        self.counter("spend:huge", 2**37 - 1, 1_000_000)
        self.counter("spend:small", 1, 16_777_215)
        # Without a window, a counter of a subject is on its own.
        self.scripts.add("{user:loose}:tokens", 11, DAY_S)
        self.subject("user:loose")
        # A window that is over, with what it counted.
        short = ["{user:over}:window", "{user:over}:requests"]
        self.scripts.check_and_increment_by_n(short, [9, 2, 1, 1])
        self.subject("user:over")
        late = "{user:late}:max_parallel_requests"
        self.scripts.parallel_acquire([late], [1, 1, "a"])
        self.subject("user:late")
        self.scripts.add("{user:over}:tokens", 5, DAY_S)
        until(lambda: self.scripts.value(short[0]) is None, "end the window")
        until(lambda: self.scripts.parallel_acquire([late], [1, 1, "b"])[0] == 0, "expire")
        self.scripts.add(short[1], 3, DAY_S)
        for feature in (2, 2, *([15] * 11), 14):
            self.error(feature)
        # A breaker opened; another was closed by hand.
        self.region.reset_feature(14)
        self.region.count_fallback()

    def _hold(self) -> None:
        self.hold("user:alice", 5, 2)
        # Several chunks, and a limit that was lowered afterwards.
        self.hold("team:red", 90, 70)
        self.hold("team:green", 200, 140)
        gauge = "{team:red}:max_parallel_requests"
        for n in (0, 1, 2, 31, 32, 40):
            self.scripts.parallel_release([gauge], [f"{os.getpid()}-{n}"])
        self.scripts.parallel_acquire([gauge], [50, DAY_S, "refused"])
        # A process is reaped with all it held.
        with Worker(self) as reaped:
            reaped.call("hold", "team:blue", 9, 4)
            reaped.call("error", 3)
        assert self.region.reap() == 1
        self.subject("team:blue")

    def _connect(self) -> None:
        pool = SimpleConnectionPool("calls", max_per_endpoint=3, max_total=4, region=self.region)
        first, second, third = (
            pool.get_connection("https://u:secret@one/v1?k=1") for _ in range(3)
        )
        assert first
        assert second
        assert third
        assert pool.get_connection("https://u:secret@one/v1?k=1") is None
        for _ in range(4):
            pool.return_connection(first)
        pool.return_connection(second)
        again = pool.get_connection("https://u:secret@one/v1?k=1")
        assert again is not None
        assert again.rpartition(".")[0] == second.rpartition(".")[0]
        kept = [pool.get_connection("two") for _ in range(2)]
        assert None not in kept
        for success in (False, True, False, False):
            assert kept[0] is not None
            assert pool.report(kept[0], success, error="status 503")
        for _ in range(2):
            assert kept[1] is not None
            pool.return_connection(kept[1])
            kept[1] = pool.get_connection("two")
        assert kept[1] is not None
        pool.return_connection(kept[1])
        self.uses = [again, third, *kept]

    def _churn(self) -> None:
        fast = SimpleRateLimiter(60_000, burst=1, region=self.region)
        for n in range(4000):
            # A key is idle again a millisecond after it was charged, and makes room.
            until(lambda n=n: fast.is_allowed(f"fast-{n}"), "find room")
        self.tally = (60_000, 1)

    def _note_standing(self) -> None:
        stands = {key.name for key in self.reader.view().keys}
        for n in range(4000):
            if f"fast-{n}" in stands:
                self.check(f"fast-{n}", 60_000, 1, times=0)


@pytest.fixture(scope="module")
def busy() -> Iterator[Busy]:
    busy = Busy("busy", churn=True)
    yield busy
    busy.close()


@pytest.fixture(scope="module")
def calm() -> Iterator[Busy]:
    """The same with few keys."""
    calm = Busy("calm", churn=False)
    yield calm
    calm.close()


def facts(reader: RegionReader, view: View) -> Iterator[tuple[str, object, object]]:
    """What the engine does not report, but a process can know: what it is, found, and expected."""
    header, (me,) = view.header, [each for each in view.workers if each.pid == os.getpid()]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    start = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    pid_namespace, time_namespace = (
        os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("pid", "time")
    )
    yield "fingerprint", header["fingerprint"], DOCUMENT.fingerprint
    yield "sections", header["section_count"], len(DOCUMENT.sections)
    yield "boot", f"{header['boot_id_high']:016x}{header['boot_id_low']:016x}", boot
    yield "uid", header["creator_uid"], os.getuid()
    yield "time namespace", header["time_namespace"], time_namespace
    yield "overflow", header["overflow"], 1
    yield "creator's start", header["creator_start"], start
    yield "worker's start", me.start_ticks, start
    yield "its low bits", me.start_low, start % (1 << 18)
    yield "pid namespace", me.pid_namespace, pid_namespace
    yield "reserved words", [*reader.reserved_words()], []
    for chunk in view.chunks:
        mask = sum(1 << hold.slot % 32 for hold in chunk.holds)
        yield f"hint of chunk {chunk.record}", chunk.hint & ~mask, 0
        if chunk.ordinal == 0 and chunk.key is not None:
            same = [each for each in view.chunks if each.key == chunk.key]
            total = sum(len(each.holds) for each in same)
            # Few are counted when they are asked for.
            wanted = total if max(each.ordinal for each in same) >= 4 else 0
            yield f"count of chunk {chunk.record}", chunk.held, wanted
    for key in view.keys:
        identity = reader.identity("Bucket", key.slot)
        stands = reader.standing("Bucket", key.slot)
        yield "identity", identity, stands and stands.key
        if key.name == "team:red" and isinstance(key.view, Window):
            yield "high water", key.view.high_water, 70
            tags = {
                reader.hash(reader.identity("Bucket", key.slot), f"{os.getpid()}-{n}".encode())
                >> 16
                for n in range(70)
            }
            held = [chunk for chunk in view.chunks if chunk.key == key.slot]
            found = {hold.tag for chunk in held for hold in chunk.holds}
            yield "tags", (found <= tags, len(found)), (True, 64)
        if key.name == "team:green":
            # Nobody has given one of these back.
            held = [chunk for chunk in view.chunks if chunk.key == key.slot]
            yield "writes", {hold.writes for chunk in held for hold in chunk.holds}, {1}


def everything(busy: Busy, reader: RegionReader) -> list[str]:
    view = reader.view()
    wrong = [
        f"{what} is {found}, not {wanted}"
        for what, found, wanted in facts(reader, view)
        if found != wanted
    ]
    places = {name: (lambda place=place: place(reader)) for name, place in busy.keys.items()}
    return wrong or lookups(reader, view, places) or compare(reader, busy.region)


# The document


def test_the_hash_is_the_published_one() -> None:
    key = (0x0706050403020100, 0x0F0E0D0C0B0A0908)

    def digest(data: bytes, *rounds: int) -> str:
        return siphash(key, data, *rounds).to_bytes(8, "little").hex()

    # From the reference implementation, SipHash-2-4.
    assert digest(b"", 2, 4) == "310e0edd47db6f72"
    assert digest(b"\0", 2, 4) == "fd67dc93c539f874"
    assert digest(bytes(range(15)), 2, 4) == "e545be4961ca29a1"
    # And with the rounds that regions use.
    assert digest(b"") == "dcc40f055801acab"


def test_the_document_is_of_this_build(busy: Busy) -> None:
    header = busy.reader.header
    assert (header["version"] >> 32, header["version"] & 0xFFFFFFFF) == DOCUMENT.version
    assert header["fingerprint"] == DOCUMENT.fingerprint
    assert header["section_count"] == len(DOCUMENT.sections)


def test_every_table_of_the_document_is_understood() -> None:
    for name, record in DOCUMENT.records.items():
        end = 0
        for field in record.fields.values():
            assert field.offset == end, f"{name} has a hole or an overlap at {end}"
            end += 8 * field.count
            assert field.type == "u64" or field.type in DOCUMENT.words
        assert end == record.size
    for name, word in DOCUMENT.words.items():
        ranges = sorted(word.values())
        assert all(a.last < b.first for a, b in itertools.pairwise(ranges)), name
        assert ranges[-1].last < 64
    assert {plan.record for plan in DOCUMENT.sections} == DOCUMENT.records.keys() - {
        "Header",
        "SectionRow",
    }


# The reader against the engine


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"keys": 1001, "lease_chunks": 65, "workers": 5, "deployments": 65},
        {"keys": 65_536, "lease_chunks": 8192, "workers": 256, "deployments": 1024},
        {"keys": 1_000_003, "lease_chunks": 64, "workers": 1024, "deployments": 4096},
    ],
)
def test_sections_are_where_the_capacities_say(settings: dict[str, int]) -> None:
    region = make("capacities", **settings)
    with reader_of("capacities") as reader:
        assert reader.section_table() == reader.sections
        assert reader.header["total_len"] == region.size
        for name, capacity in settings.items():
            words = {"keys": "key", "lease_chunks": "chunk", "workers": "worker"}
            found = reader.header[f"{words.get(name, 'deployment')}_capacity"]
            assert capacity <= found < capacity + 8
        if reader.buckets < 100_000:
            assert compare(reader, region) == []
            assert [*reader.reserved_words()] == []
    region.leave()


@pytest.mark.parametrize("overflow", [(0, "deny"), (1, "shared"), (2, "local")])
def test_the_policy_of_overflow(overflow: tuple[int, str]) -> None:
    region = make("policy", overflow=overflow[1])
    with reader_of("policy") as reader:
        assert reader.header["overflow"] == overflow[0]
        region.overflow = "local"
        assert reader.view().header["overflow"] == 2
    region.leave()


def test_both_see_the_same(busy: Busy) -> None:
    assert compare(busy.reader, busy.region) == []
    view = busy.reader.view()
    # There is something of everything to see.
    assert {key.kind for key in view.keys} == {"gcra", "window", "counter", "tally"}
    assert {liveness(worker) for worker in view.workers} == {"alive", "dead"}
    assert {chunk.ordinal for chunk in view.chunks} == {0, 1, 2, 3, 4}
    assert view.stats["lease_reaped"] == 4
    assert view.stats["keys_reclaimed"] > 1000
    assert len({hold.owner for chunk in view.chunks for hold in chunk.holds}) == 3
    assert [*busy.reader.reserved_words()] == []


def test_every_key_stands_where_hash_and_probe_say(busy: Busy) -> None:
    view = busy.reader.view()
    assert {name_of(key) for key in view.keys if key.kind != "tally"} == busy.keys.keys()
    assert everything(busy, busy.reader) == []
    for subject in ("user:nobody", "user:alic", "user:alicE"):
        assert busy.reader.find("window", f"{{{subject}}}".encode()) is None
    # Another kind or another limiter is another key.
    assert busy.reader.find("counter", b"{user:alice}") is None
    assert busy.reader.find("gcra", b"k", busy.reader.quota_domain(1, 6)) is None


def test_what_was_given_up_is_in_the_tally_of_its_limiter(busy: Busy) -> None:
    rate, burst = busy.tally
    limits = (rate | burst << 32).to_bytes(8, "little")
    view = busy.reader.view()
    (tally,) = (key for key in view.keys if key.kind == "tally")
    assert tally.slot == busy.reader.find("tally", limits, 0x74616C6C, shared=True)
    assert tally.limits == (rate, burst)
    standing = [key for key in view.keys if key.kind == "gcra" and key.limits == (rate, burst)]
    stats = SimpleRateLimiter(rate, burst=burst, region=busy.region).get_stats()
    assert stats["allowed_count"] == tally.allowed + sum(key.allowed for key in standing)
    assert stats["denied_count"] == tally.denied + sum(key.denied for key in standing)


def test_slots_are_held_by_key_owner_and_id(busy: Busy) -> None:
    slot = busy.reader.find("window", b"{team:red}")
    assert slot is not None
    chunks = [busy.reader.find_chunk(slot, ordinal) for ordinal in range(4)]
    assert chunks[3] is None
    view = busy.reader.view()
    holds = {
        hold.slot: hold for chunk in view.chunks if chunk.record in chunks for hold in chunk.holds
    }
    (me,) = (worker for worker in view.workers if worker.pid == os.getpid())
    (other,) = (worker for worker in view.workers if worker.pid == busy.living.pid)
    # Slots are taken from the lowest on; six were given back, and three of these are another's now.
    mine = {number for number, hold in holds.items() if hold.owner == me.owner}
    assert len(mine) == 64
    assert mine < set(range(70))
    # The other's three were refused: more were held than its limit allowed.
    assert other.owner not in {hold.owner for hold in holds.values()}


def test_the_halves_of_a_connection_lead_to_each_other(busy: Busy) -> None:
    reader, view = busy.reader, busy.reader.view()
    pool = reader.find_named("Endpoint", b"calls")
    records = {
        reader.find_endpoint("calls", "https://u:secret@one/v1?k=1"),
        reader.find_endpoint("calls", "two"),
    }
    holds = {
        (chunk.endpoint, hold.slot): hold
        for chunk in view.chunks
        if chunk.endpoint is not None
        for hold in chunk.holds
    }
    ids = set()
    for (record, slot), hold in holds.items():
        if record == pool:
            continue
        assert record in records
        other = holds[pool, hold.tag % (1 << 16)]
        assert (other.owner, other.idle) == (hold.owner, hold.idle)
        assert divmod(other.tag, 1 << 16) == (record + 1, slot)
        ids.add(f"{record:x}.{slot:x}.{hold.tag >> 16:x}.{hold.writes - hold.idle:x}")
    assert ids == {each.rpartition("#")[2] for each in busy.uses if each}
    assert not any(b"secret" in (each.name or "").encode() for each in view.endpoints)


def test_a_full_table_is_read_key_by_key() -> None:
    region = make("full", overflow="shared")
    limiter = SimpleRateLimiter(1, burst=9, name="crowd", region=region)
    for n in range(4000):
        limiter.is_allowed(f"key-{n}")
    with reader_of("full") as reader:
        assert compare(reader, region) == []
        domain = reader.quota_domain(1, 9, "crowd")
        found = {
            f"crowd/key-{n}": reader.find("gcra", f"key-{n}".encode(), domain) for n in range(4000)
        }
        view = reader.view()
        stands = {key.name: key.slot for key in view.keys if key.slot < reader.buckets}
        assert {name: slot for name, slot in found.items() if slot is not None} == stands
        assert len(stands) > 1400
        shared = reader.find("gcra", b"\0shared", domain, shared=True)
        (key,) = (key for key in view.keys if key.slot >= reader.buckets)
        assert (key.slot, key.name) == (shared, "(keys without room)")
        assert isinstance(key.view, Quota)
        assert key.view.remaining == 0
    region.leave()


# The document's tables are what is tested: any other table makes a reader that disagrees.


def shifted(document: LayoutDocument) -> Iterator[tuple[str, LayoutDocument]]:
    """The document with one field of one record or word moved, one after the other."""
    for name, record in document.records.items():
        for field, plan in record.fields.items():
            moved = plan._replace(offset=(plan.offset + 8) % record.size)
            wrong = copy.deepcopy(document)
            wrong.records[name].fields[field] = moved
            yield f"{name}.{field}", wrong
    for name, word in document.words.items():
        for field, bits in word.items():
            wrong = copy.deepcopy(document)
            wrong.words[name][field] = Bits(bits.first + 1, bits.last + 1)
            yield f"{name}.{field}", wrong


def notices(busy: Busy, document: LayoutDocument) -> bool:
    try:
        with reader_of(busy.name, document) as reader:
            return reader.section_table() != reader.sections or everything(busy, reader) != []
    except (NotARegion, LookupError, ValueError, ArithmeticError, OSError):
        return True


UNSEEN = {
    # Nothing in these tests counts one.
    *(
        f"StatsRow.{name}"
        for name in (
            *("admitted", "refused", "refunds_dropped", "contended", "misplaced", "cooldowns"),
            *("table_full", "overflow_denied", "overflow_shared", "overflow_local"),
            *("keys_reclaimed", "chunks_reclaimed", "uncounted"),
        )
    ),
    # Nobody but the engine knows what they must be; that they touch no other field is tested.
    *("IdentityWord.version", "GcraWord.idle_epoch", "BreakerWord.trips", "NameWord.owner"),
    *("LeaseLimits.attempts", "LeaseLimits.lowering"),
    # Nothing is kept here for longer than it may be.
    "Endpoint.expired",
    # No process here writes them.
    *("Feature.flag", "FlagWord.mode", "FlagWord.percent", "FlagWord.revision"),
}
UNWRITTEN = (
    "Deployment",
    "Series",
    "Histogram",
    "Sliding",
    "Cooldown",
    "Ewma",
    "Sample",
    "Cause",
    "Text",
    "Failure",
    "Job",
    "Term",
    "Since",
    "Notice",
    "Sheet",
    "Board",
)


def test_a_document_with_any_field_moved_is_noticed(calm: Busy) -> None:
    assert everything(calm, calm.reader) == []
    moved = {name: wrong for name, wrong in shifted(DOCUMENT) if not name.startswith(UNWRITTEN)}
    assert len(moved) > 100
    assert {name for name, wrong in moved.items() if not notices(calm, wrong)} - UNSEEN == set()


# What no process here writes is written by hand, as the document's prose says.


class Written:
    """An empty region that is written by hand, and that both read."""

    def __init__(self, folder: Path) -> None:
        path = folder / "written"
        self.region = Region.open(path, keys=1000, lease_chunks=64, workers=16, deployments=64)
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        self.reader = RegionReader.map(path, DOCUMENT)

    def close(self) -> None:
        self.reader.close()
        self.memory.close()
        self.region.leave()

    def put(self, record: str, index: int, **fields: int | list[int]) -> None:
        plan = DOCUMENT.records[record]
        base = 0 if record == "Header" else self.reader.sections[record].offset
        for name, value in fields.items():
            values = value if isinstance(value, list) else [value]
            at = base + index * plan.size + plan.fields[name].offset
            struct.pack_into(f"<{len(values)}Q", self.memory, at, *values)

    def insert(self, record: str, name: bytes) -> int:
        """Put a named key where it belongs."""
        domain = {
            "Deployment": 0x6465706C,
            "Series": 0x73657269,
            "Job": 0x6A6F6273,
            "Notice": 0x6E6F7465,
        }[record]
        hashed = self.reader.hash(domain ^ 7, name)
        slots = self.reader.sections[record].count
        place = next(places(hashed, slots))
        words = [int.from_bytes(name[at : at + 8], "little") for at in range(0, len(name), 8)]
        identity = 2 | 7 << 2 | 1 << 5 | hashed >> 13 << 13
        head = 2 | len(name) << 2 | name_check(words, len(name)) % (1 << 22) << 10
        self.put(record, place, identity=identity, name_head=head, name=words)
        assert self.reader.find_named(record, name) == place
        return place


@pytest.fixture
def written(shm: Path) -> Iterator[Written]:
    written = Written(shm)
    yield written
    written.close()


def test_deployments_are_decoded(written: Written) -> None:
    now_us = written.reader.now_us()
    now_ms, now_s = now_us // 1000, now_us // 1_000_000
    place = written.insert("Deployment", b"gpt-4o/eu-west")
    written.put(
        "Deployment",
        place,
        cooldown=now_ms + 5_000 | 1 << 40 | 9 << 48,
        window=now_s | 60 << 32,
        # The second is not of this window, but loose.
        successes=17 | now_s % (1 << 25) << 38,
        failures=3 | (now_s + 60) % (1 << 25) << 38 | 1 << 63,
        last_failure=6 | 503 << 8 | now_s << 32,
        first_token=99,
        latency=16 * 1250 + 8 | 4 << 40,
        successes_total=100,
        failures_total=30,
        failures_in_a_row=2,
        latency_head=18,
        latencies=[(1000 + n) | now_s << 40 for n in (17, 18, *range(3, 17))],
        first_token_head=4,
        # One is too old, one is of a clock that is a little ahead.
        first_tokens=[
            10 | now_s << 40,
            20 | (now_s - 3_600) % (1 << 24) << 40,
            30 | (now_s - 3_601) % (1 << 24) << 40,
            40 | now_s + 9 << 40,
        ],
        score_head=1,
        scores=[12_345 | now_s << 40],
        lease=7 | 3 << 26,
    )
    said = "quota of gpt-4o is used up: é"
    write_cause(written, place, for_ms=5_500, status=429, text=said)
    (deployment,) = written.reader.view(now_us).deployments
    assert (deployment.record, deployment.name) == (place, "gpt-4o/eu-west")
    assert 4_999 <= deployment.cooling_ms <= 5_000
    assert (deployment.cooldown_reason, deployment.cooldowns) == ("rate limited", 9)
    assert deployment.cooldown_cause == Cause(5_500, 429, said)
    assert (deployment.successes, deployment.failures) == (17, 0)
    assert deployment.last_failure == ("server", 503, now_s)
    assert (deployment.latency_us, deployment.first_token_us) == (1250.5, None)
    totals = (deployment.successes_total, deployment.failures_total, deployment.failures_in_a_row)
    assert totals == (100, 30, 2)
    assert deployment.latencies_us == tuple(range(1003, 1019))
    assert deployment.first_tokens_us == (10, 20, 40)
    assert deployment.scores_us == (12_345,)
    assert deployment.lease_limit == 7
    # Its slots are found like those of any other key.
    identity = written.reader.identity("Deployment", place)
    slot = next(places(mix(identity), written.reader.sections["LeaseChunk"].count))
    written.put(
        "LeaseChunk",
        slot,
        identity=2 | 6 << 2 | 1 << 5 | mix(identity) >> 13 << 13,
        key_slot=(1 << 32) + place + 1,
        holders=[0, 3 | 5 << 10 | now_s << 32],
    )
    assert written.reader.find_chunk(place, record="Deployment") == slot
    (chunk,) = written.reader.view().chunks
    assert (chunk.key, chunk.deployment) == (None, place)
    assert chunk.holds == (Hold(1, Owner(3, 5), now_s, False, 0, 0),)
    assert compare(written.reader, written.region) == []


def write_cause(written: Written, place: int, for_ms: int, status: int, text: str) -> None:
    """Say why the deployment in a record is cooled down, as the document's prose says."""
    identity = written.reader.identity("Deployment", place)
    offset = DOCUMENT.records["Deployment"].fields["cooldown"].offset
    at = written.reader.sections["Deployment"].offset + place * 768 + offset
    (cooldown,) = struct.unpack_from("<Q", written.memory, at)
    raw = text.encode()
    words = [int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8)]
    cause = for_ms | status << 32 | mix(identity ^ mix(cooldown)) % (1 << 22) << 42
    check = name_check([identity, cooldown, cause, *words], len(raw)) >> 8
    head = len(raw) | check << 8
    written.put("Deployment", place, cause=cause, cause_head=head, cause_text=words)


def test_a_cause_of_another_cooldown_is_not_shown(written: Written) -> None:
    now_ms = written.reader.now_us() // 1000
    place = written.insert("Deployment", b"gpt-4o")
    written.put("Deployment", place, cooldown=now_ms + 50_000 | 6 << 40 | 1 << 48)
    write_cause(written, place, for_ms=50_500, status=503, text="one of two causes")

    def cause() -> Cause | None:
        (deployment,) = written.reader.view().deployments
        assert compare(written.reader, written.region) == []
        return deployment.cooldown_cause

    assert cause() == Cause(50_500, 503, "one of two causes")
    # Another writer has got as far as one word of the text.
    written.put("Deployment", place, cause_text=[int.from_bytes(b"another ", "little")])
    assert cause() == Cause(50_500, 503, None)
    written.put("Deployment", place, cooldown=now_ms + 50_000 | 6 << 40 | 2 << 48)
    assert cause() is None


def test_jobs_are_decoded(written: Written) -> None:
    now_s = written.reader.now_us() // 1_000_000
    place = written.insert("Job", b"sync")
    (me,) = (worker for worker in written.reader.view().workers if worker.pid == os.getpid())
    tag = me.owner.row | me.owner.generation << 10
    written.put("Job", place, term=7 | tag << 32, since=now_s | 7 << 32, lease=1 | 1 << 26)
    identity = written.reader.identity("Job", place)
    slot = next(places(mix(identity), written.reader.sections["LeaseChunk"].count))
    written.put(
        "LeaseChunk",
        slot,
        identity=2 | 6 << 2 | 1 << 5 | mix(identity) >> 13 << 13,
        key_slot=(2 << 32) + place + 1,
        holders=[tag | now_s << 32],
    )
    (job,) = written.reader.view().jobs
    assert (job.record, job.name, job.term, job.leader) == (place, "sync", 7, me.owner)
    assert job.since_s == now_s
    assert written.reader.find_chunk(place, record="Job") == slot
    assert compare(written.reader, written.region) == []
    # Another process has the slot, and no number yet.
    written.put("LeaseChunk", slot, holders=[9 | 5 << 10 | now_s << 32])
    assert compare(written.reader, written.region) == []


def test_notices_are_decoded(written: Written) -> None:
    now_us = written.reader.now_us()
    place = written.insert("Notice", b"models")

    def write(sheet: int, content: bytes, current: int) -> None:
        words = [int.from_bytes(content[at : at + 8], "little") for at in range(0, len(content), 8)]
        check = mix(written.reader.identity("Notice", place))
        for word in (len(content), now_us, now_us + 90_000_000, *words):
            check = (mix(check ^ word) + check) % (1 << 64)
        written.put("Sheet", 2 * place + sheet, words=words)
        both = {"lengths": len(content), "published_us": now_us, "expires_us": now_us + 90_000_000}
        plan = DOCUMENT.records["Notice"].fields
        base = written.reader.sections["Notice"].offset + place * DOCUMENT.records["Notice"].size
        for name, value in {**both, "checks": mix(check)}.items():
            struct.pack_into("<Q", written.memory, base + plan[name].offset + 8 * sheet, value)
        written.put("Notice", place, current=current)

    def shown() -> bytes | None:
        (notice,) = written.reader.view().notices
        assert (notice.record, notice.name) == (place, "models")
        assert compare(written.reader, written.region) == []
        return notice.content

    assert shown() is None
    write(0, b"the first notice", 0 | 1 << 1)
    assert shown() == b"the first notice"
    write(1, b"another one, and it is longer", 1 | 2 << 1)
    assert shown() == b"another one, and it is longer"
    # Somebody was stopped while writing on the same sheet.
    written.put("Sheet", 2 * place + 1, words=[7])
    assert shown() == b"the first notice"
    written.put("Sheet", 2 * place, words=[7])
    assert shown() is None


def test_series_are_decoded_and_their_histograms_added_up(written: Written) -> None:
    place = written.insert("Series", b"admission")
    written.put("Series", place, errors=4, input_bytes=300, output_bytes=2**63)
    for row, value_ns in ((0, 100), (3, 1_000_000), (7, 2**63)):
        counts = [0] * 132
        counts[histogram_bucket(value_ns)] = 5
        written.put("Histogram", 8 * place + row, sum_ns=value_ns, max_ns=value_ns, counts=counts)
    (series,) = written.reader.view().series
    assert (series.name, series.errors, series.max_ns) == ("admission", 4, 2**63)
    assert (series.input_bytes, series.output_bytes) == (300, 2**63)
    assert series.sum_ns == 100 + 1_000_000 + 2**63
    assert {n: count for n, count in enumerate(series.counts) if count} == {0: 5, 51: 5, 131: 5}
    assert compare(written.reader, written.region) == []


@pytest.mark.parametrize(
    ("value_ns", "bucket"),
    [(0, 0), (127, 0), (159, 0), (160, 1), (255, 3), (256, 4), (2**40 - 1, 131), (2**64 - 1, 131)],
)
def test_histograms_have_four_buckets_for_each_power_of_two(value_ns: int, bucket: int) -> None:
    assert histogram_bucket(value_ns) == bucket


@pytest.mark.parametrize(
    ("limit", "age", "counts", "remaining"),
    [
        (100, 0, (0, 30), 70),
        (100, 0, (40, 30), 40),
        (100, 1, (99, 30), 80),
        (100, 2, (99, 99), 100),
        (100, -1, (40, 30), 30),
        # Above 2^23 units are counted in steps, here of 16.
        (100_000_007, 0, (0, 1), 16 * 6_249_999),
        (1 << 23, 0, (0, 1), (1 << 23) - 1),
    ],
)
def test_sliding_windows_are_decoded(
    written: Written, limit: int, age: int, counts: tuple[int, int], remaining: int
) -> None:
    """The region is a second old, in windows of three; a window of the future has not begun to fade."""
    number = (written.reader.now_us() // 3_000_000 - age) % (1 << 16)
    written.put(
        "Bucket",
        5,
        identity=2 | 4 << 2 | 1 << 5 | 1 << 40,
        limits=limit | 3 << 32,
        requests=number | counts[0] << 16 | counts[1] << 40,
    )
    (key,) = written.reader.view(1_000_000).keys
    assert isinstance(key.view, Sliding)
    # Two thirds of the window are left.
    assert key.view.remaining == pytest.approx(remaining, abs=14)
    assert compare(written.reader, written.region) == []


def test_events_are_decoded_and_torn_ones_passed_over(written: Written) -> None:
    # As the engine computes it.
    assert event_check(1, [0] * 6) == 0xC5692554D965FBE0
    assert event_check(5, [1, 2, 3, 4, 5, 2**64 - 1]) == 0x70FE42DD04CA7EE2

    def record(number: int, *, torn: bool = False) -> None:
        fields = [1_000 + number, 3, 7 | 2 << 10, 0, number, 4]
        names = ("at_us", "kind", "owner", "subject", "a", "b")
        check = event_check(number + 1, fields) ^ torn
        words = dict(zip(names, fields, strict=True))
        written.put("Event", number % 4096, sequence=number + 1, check=check, **words)

    # The ring has gone round once.
    written.put("Header", 0, event_head=4100)
    for number in (4, 4097, 4099):
        record(number)
    record(4098, torn=True)
    events = written.reader.view().events
    assert [event.number for event in events] == [4, 4097, 4099]
    assert events[2] == Event(4099, 5_099, 3, Owner(7, 2), 0, 4099, 4)
    assert DOCUMENT.values["EventKind"][events[2].kind] == "worker reaped"
    assert compare(written.reader, written.region) == []


def test_a_name_that_was_spoilt_is_none(written: Written) -> None:
    place = written.insert("Series", "größe:128".encode())
    assert written.reader.view().series[0].name == "größe:128"
    assert compare(written.reader, written.region) == []
    written.put("Series", place, name=[int.from_bytes(b"spoilt", "little")])
    spoilt = written.reader.view()
    assert spoilt.series[0].name is None
    assert [each["series"] for each in json.loads(written.region.inspect())["series"]] != ["spoilt"]


# Other ways to the memory


PROGRAM = """
    import os, sys
    from fast_litellm._rust import LimiterScripts, Region, SimpleRateLimiter

    region = Region.open(sys.argv[1], keys=1000, lease_chunks=64, workers=8, deployments=64)
    limiter = SimpleRateLimiter(1, burst=5, name="other", region=region)
    print([limiter.is_allowed("k") for _ in range(7)].count(True))
    scripts = LimiterScripts(region)
    keys = ["{user:u}:window", "{user:u}:requests"]
    for _ in range(3):
        scripts.check_and_increment_by_n(keys, [20, 2, 3600, 3600])
    scripts.parallel_acquire(["{user:u}:max_parallel_requests"], [4, 3600, "left behind"])
    os._exit(0)
"""


@pytest.fixture
def shm() -> Iterator[Path]:
    """A directory on tmpfs, where `shm_open` looks too."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK):
        pytest.skip("there is no tmpfs at /dev/shm")
    folder = shm / f"fast-litellm-reader-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def write_from_another_process(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), path],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def check_what_another_process_wrote(reader: RegionReader, epoch: int) -> None:
    view = reader.view()
    assert (view.header["backing"], view.header["epoch"]) == (2, epoch)
    quota = next(key for key in view.keys if key.name == "other/k")
    assert quota.slot == reader.find("gcra", b"k", reader.quota_domain(1, 5, "other"))
    assert isinstance(quota.view, Quota)
    assert (quota.allowed, quota.denied, quota.view.remaining) == (5, 2, 0)
    assert 0 < quota.view.retry_us <= 60_000_000
    assert 240_000_000 < quota.view.reset_us <= 300_000_000
    window = next(key for key in view.keys if key.name == "user:u")
    assert isinstance(window.view, Window)
    assert (window.view.requests, window.view.request_limit, window.view.size_s) == (6, 20, 3600)
    (chunk,) = view.chunks
    (hold,) = chunk.holds
    (worker,) = view.workers
    assert (chunk.key, hold.slot, hold.owner) == (window.slot, 0, worker.owner)
    assert liveness(worker) == "dead"


def test_a_file_of_another_process_is_read(shm: Path) -> None:
    path = shm / "region"
    write_from_another_process(path)
    with RegionReader.map(path, DOCUMENT) as reader:
        check_what_another_process_wrote(reader, 0)
        region = Region.open(path)
        assert compare(reader, region) == []
        assert reader.view().header["epoch"] == 1
        region.leave()


def test_a_region_is_attached_to_as_shared_memory(shm: Path) -> None:
    name = f"{shm.name}-shm"
    path = shm.with_name(name)
    try:
        write_from_another_process(path)
        memory = attach(name)
        try:
            with RegionReader(memory.buf, DOCUMENT) as reader:
                assert memory.size == path.stat().st_size
                check_what_another_process_wrote(reader, 0)
        finally:
            memory.close()
        # Whoever looks must not take the region away when it ends.
        assert path.exists()
    finally:
        path.unlink(missing_ok=True)


def attach(name: str) -> SharedMemory:
    if sys.version_info >= (3, 13):
        return SharedMemory(name, track=False)
    memory = SharedMemory(name)
    # Before Python 3.13 everything that is attached to is removed when the process ends.
    resource_tracker.unregister(f"/{name}", "shared_memory")
    return memory


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"shopping: milk, eggs\n".ljust(8192), "magic"),
        (bytes(8192), "magic"),
        (b"FLSHM\r\n\x1a" + bytes(8184), "byte order"),
    ],
)
def test_what_is_no_region_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(NotARegion, match=why):
        RegionReader.map(path, DOCUMENT)


# While processes work


LIMIT, SLOTS = 40, 3


def churn(region: Region, seed: int) -> None:
    """Use a region for ever, in all ways."""
    chance = random.Random(seed)
    scripts = LimiterScripts(region)
    fast = SimpleRateLimiter(60_000, burst=2, region=region)
    slow = SimpleRateLimiter(1, burst=LIMIT, region=region)
    gauge = "{user:busy}:max_parallel_requests"
    held: list[str] = []
    for number in itertools.count():
        fast.is_allowed(f"fast-{chance.randrange(6000)}")
        slow.is_allowed(f"slow-{chance.randrange(3)}")
        subject = f"{{user:{chance.randrange(40)}}}"
        keys = [f"{subject}:window", f"{subject}:requests"]
        try:
            scripts.check_and_increment_by_n(keys, [LIMIT, chance.randrange(1, 4), 1, 1])
            if scripts.parallel_acquire([gauge], [SLOTS, DAY_S, f"{seed}-{number}"])[0] == 0:
                held.append(f"{seed}-{number}")
        except UnavailableError:
            continue
        if held and chance.random() < 0.7:
            scripts.parallel_release([gauge], [held.pop()])


def broken(reader: RegionReader, view: View) -> list[str]:
    """What must not be, at any instant."""
    now_us = reader.now_us()
    found = []
    for key in view.keys:
        if isinstance(key.view, Quota):
            # Processes go on charging while the view is taken.
            owed_us = view.at_us + key.view.reset_us - now_us
            if owed_us > key.view.burst * 60_000_000 // key.view.per_minute:
                found.append(f"{key} was admitted more than its burst")
        if isinstance(key.view, Window) and not 0 <= key.view.requests <= LIMIT:
            found.append(f"{key} was admitted more than its limit")
    rows = reader.sections["WorkerRow"].count
    for chunk in view.chunks:
        for hold in chunk.holds:
            if hold.slot >= SLOTS or hold.owner.row >= rows or hold.owner.generation == 0:
                found.append(f"{chunk} is held by nobody, or above the limit")
    places: dict[tuple[str, int, bool], list[int]] = defaultdict(list)
    for key in view.keys:
        places[key.kind, key.hash, key.slot < reader.buckets].append(key.slot)
    for name, slots in places.items():
        for pair in itertools.combinations(slots, 2):
            if stand_at_once(reader, *pair):
                found.append(f"{name} stands in {pair}")
    return found


def stand_at_once(reader: RegionReader, one: int, other: int) -> bool:
    """Whether two buckets that had the same key in a view have it at one instant.

    A key may have moved while the view was taken. Each time that a key comes or goes, its bucket has
    another word.
    """
    before = reader.standing("Bucket", one)
    there = reader.standing("Bucket", other)
    after = reader.standing("Bucket", one)
    if before is None or there is None:
        return False
    return before == after and before.key == there.key


def test_nothing_is_ever_impossible_while_processes_work_and_die() -> None:
    region = make("working")
    slow = SimpleRateLimiter(1, burst=LIMIT, region=region)
    assert slow.is_allowed("anchor")
    children: list[Forked[None]] = []
    with reader_of("working") as reader:
        domain = reader.quota_domain(1, LIMIT)
        anchor = reader.find("gcra", b"anchor", domain)
        assert anchor is not None
        stats = reader.view().stats
        try:
            for round_ in range(60):
                if round_ % 10 == 0:
                    children.append(Forked(lambda seed=round_: churn(region, seed)))
                if round_ % 10 == 5:
                    children.pop(0).kill()
                    region.reap()
                view = reader.view()
                assert broken(reader, view) == []
                assert all(view.stats[name] >= before for name, before in stats.items())
                stats = view.stats
                # A key that owes something never moves.
                assert reader.find("gcra", b"anchor", domain) == anchor
        finally:
            for child in children:
                child.kill()
        assert stats["keys_reclaimed"] > 0
        assert stats["lease_acquired"] > 0
        region.reap()
        assert compare(reader, region) == []
        assert broken(reader, reader.view()) == []
        assert [*reader.reserved_words()] == []
    region.leave()
