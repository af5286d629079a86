//! What a region holds, for people and programs. Reads only, and trusts nothing: every number is bounded
//! before it is used, every value is computed by the engine's own functions at the region's own clock.

pub mod overview;

use crate::clock::Instant;
use crate::engine::{board, features, health, leader, pool};
use crate::layout::{
    Bucket, ClaimWord, CounterWord, Endpoint, EventKind, FlagMode, GcraWord, IdentityWord, KeyKind,
    LeaseWord, OwnerTag, SlidingWord, StatsRow, WorkerRow,
};
use crate::liveness::Liveness;
use crate::primitives::gcra::{self, Quota};
use crate::primitives::sliding::{self, SlidingLimit};
use crate::primitives::window::{self, Pair};
use crate::region::{BackingKind, Region, Vantage, host};
use crate::sync::{Bits, Ordering, Word};
use crate::tables::histograms::Histograms;
use crate::tables::leases::Leases;
use crate::tables::{events, index, names, workers};
use serde::Serialize;
use std::collections::BTreeMap;

/// Name and version of the JSON form.
pub const SCHEMA: &str = "fl-shm/1";

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The region itself.
    pub header: HeaderReport,
    /// Registered processes.
    pub workers: Vec<WorkerReport>,
    /// Keys with their limits.
    pub limits: Vec<LimitReport>,
    /// Held concurrency slots by owner and key.
    pub leases: Vec<LeaseReport>,
    /// Who leads which job.
    pub leaders: Vec<LeaderReport>,
    /// Health of deployments.
    pub deployments: Vec<DeploymentReport>,
    /// Connection pools.
    pub pools: Vec<PoolReport>,
    /// What is published on the board.
    pub notices: Vec<NoticeReport>,
    /// Errors and switches of accelerated features.
    pub features: Vec<FeatureReport>,
    /// Measured durations.
    pub series: Vec<SeriesReport>,
    /// The latest events, newest first.
    pub events: Vec<EventReport>,
    /// Counters summed over all workers.
    pub stats: BTreeMap<&'static str, u64>,
}

/// The region.
#[derive(Debug, Clone, Serialize)]
pub struct HeaderReport {
    /// Layout version.
    pub layout: String,
    /// Kind of memory.
    pub backing: &'static str,
    /// Bytes.
    pub size: u64,
    /// Process that created it.
    pub creator_pid: u64,
    /// Unix seconds.
    pub created_at: u64,
    /// Seconds since it was created.
    pub age_s: u64,
    /// Times it was adopted by another process than a child.
    pub epoch: u64,
    /// Keys it has room for.
    pub key_capacity: u64,
    /// Keys in it.
    pub keys: u64,
    /// Chunks of 32 concurrency slots it has room for.
    pub chunk_capacity: u64,
    /// Chunks in use.
    pub chunks: u64,
    /// Rows of the worker table.
    pub worker_capacity: u64,
    /// False when the region's process ids mean nothing here: `alive` is then unknown.
    pub same_pid_namespace: bool,
}

/// One registered process.
#[derive(Debug, Clone, Serialize)]
pub struct WorkerReport {
    /// Row of the worker table.
    pub row: usize,
    /// Registration of that row.
    pub generation: u64,
    /// Process id.
    pub pid: i32,
    /// `creator` (the master under `gunicorn --preload`) or `worker`.
    pub role: &'static str,
    /// `alive`, `dead` or `unknown`.
    pub alive: &'static str,
    /// Seconds since it registered.
    pub age_s: u64,
    /// Concurrency slots it holds.
    pub leases: u64,
    /// Window and slot decisions it took, over all holders of the row.
    pub decisions: u64,
}

/// A counter and its limit.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Usage {
    /// Used.
    pub used: i64,
    /// Of what; absent where no limit has been seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// One key.
#[derive(Debug, Clone, Serialize)]
pub struct LimitReport {
    /// Its redacted name, or `#` and its hash while the name is not written.
    pub key: String,
    /// `window`, `gcra` or `counter`.
    pub kind: &'static str,
    /// Length of its window in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_s: Option<u64>,
    /// Seconds until its window is over, or its counter expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resets_in_s: Option<u64>,
    /// Requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Usage>,
    /// Tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Usage>,
    /// Concurrency slots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<Usage>,
    /// `gcra`: requests that would be admitted now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// `gcra`: milliseconds until one would be admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Operations admitted since the key is known.
    pub allowed: u64,
    /// Operations refused since the key is known.
    pub denied: u64,
}

/// Slots of one owner under one key.
#[derive(Debug, Clone, Serialize)]
pub struct LeaseReport {
    /// Redacted name of the key.
    pub key: String,
    /// Row of the owner.
    pub row: u32,
    /// Process id of the owner; absent when it is no longer registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// `alive`, `dead` or `unknown`.
    pub owner: &'static str,
    /// Slots held.
    pub held: u64,
    /// Those of them that are kept without being used: of idle connections.
    #[serde(skip_serializing_if = "is_none")]
    pub idle: u64,
    /// Age of the oldest in seconds.
    pub oldest_s: u64,
}

/// One job that is led.
#[derive(Debug, Clone, Serialize)]
pub struct LeaderReport {
    /// Redacted name of the job.
    pub job: String,
    /// Row of the leader.
    pub row: u32,
    /// Process id of the leader; absent when it is no longer registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// `alive`, `dead` or `unknown`.
    pub owner: &'static str,
    /// Number of its term; absent while it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// Seconds that it has led.
    pub held_s: u64,
    /// Seconds since it last renewed its lease.
    pub renewed_s: u64,
}

/// One connection pool.
#[derive(Debug, Clone, Serialize)]
pub struct PoolReport {
    /// Its redacted name.
    pub pool: String,
    /// Connections, idle ones included.
    pub connections: u64,
    /// Those of them that are kept without being used.
    pub idle: u64,
    /// Most that there may be, as far as a limit has been seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What happened.
    #[serde(flatten)]
    pub counts: pool::Counts,
    /// Its endpoints.
    pub endpoints: Vec<EndpointReport>,
}

/// One endpoint of a pool.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointReport {
    /// Its redacted name.
    pub endpoint: String,
    /// Connections, idle ones included.
    pub connections: u64,
    /// Those of them that are kept without being used.
    pub idle: u64,
    /// Most that there may be, as far as a limit has been seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// False after three failures in a row, until one success or half a minute without a failure.
    pub healthy: bool,
    /// Failures in a row that are not yet forgotten.
    pub failures_in_a_row: u64,
    /// Failures since it is known.
    pub failures_total: u64,
    /// Kind of the latest failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<&'static str>,
    /// Its HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_status: Option<u64>,
    /// Seconds since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure_s: Option<u64>,
}

/// One notice. Its bytes may be secret and are not reported.
#[derive(Debug, Clone, Serialize)]
pub struct NoticeReport {
    /// Its redacted name.
    pub notice: String,
    /// Bytes; absent when no sheet is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Seconds since it was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
    /// Seconds that it is still shown, 0 = it is over; absent when it always is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
    /// How often something was published under the name.
    pub published: u64,
}

/// Errors of one feature.
#[derive(Debug, Clone, Serialize)]
pub struct FeatureReport {
    /// Number of the feature.
    pub feature: usize,
    /// What it is called; absent for a number of no feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'static str>,
    /// Its breaker: `closed` or `open`, which it is until a probe succeeds or it is reset.
    pub breaker: &'static str,
    /// Errors since the last reset.
    pub errors: u64,
    /// Errors since the region was created.
    pub errors_total: u64,
    /// Seconds since the latest error.
    pub last_s: u64,
    /// Its switch: `own` (each process follows its own configuration), `off`, `on` or `percent`.
    pub switch: &'static str,
    /// With the switch at `percent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u64>,
}

/// One deployment.
#[derive(Debug, Clone, Serialize)]
pub struct DeploymentReport {
    /// Its redacted name, or `#` and its hash while the name is not written.
    pub deployment: String,
    /// Requests in flight.
    pub in_flight: u64,
    /// Milliseconds that it is still cooled down; 0 = it is not.
    pub cooldown_ms: u64,
    /// Why it is cooled down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown_reason: Option<&'static str>,
    /// Milliseconds that the cooldown was meant to last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown_for_ms: Option<u64>,
    /// HTTP status of what caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown_status: Option<u64>,
    /// What was said of it, with secrets masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown_text: Option<String>,
    /// Successes in the present window.
    pub successes: u64,
    /// Failures in the present window.
    pub failures: u64,
    /// Failures since the latest success.
    pub failures_in_a_row: u64,
    /// Successes since it is known.
    pub successes_total: u64,
    /// Failures since it is known.
    pub failures_total: u64,
    /// Kind of the latest failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<&'static str>,
    /// Its HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_status: Option<u64>,
    /// Seconds since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure_s: Option<u64>,
    /// Average latency in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// Average time to the first token in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_us: Option<u64>,
    /// Latest score, in millionths of its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_us: Option<u64>,
}

/// One series of measurements.
#[derive(Debug, Clone, Serialize)]
pub struct SeriesReport {
    /// Its name.
    pub series: String,
    /// Values.
    pub count: u64,
    /// Failed operations.
    pub errors: u64,
    /// Average in nanoseconds.
    pub mean_ns: u64,
    /// Median in nanoseconds, at most a quarter too large.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Largest value.
    pub max_ns: u64,
    /// Bytes that the operations were given, as far as it was told.
    pub input_bytes: u64,
    /// Bytes that they gave.
    pub output_bytes: u64,
}

/// One event.
#[derive(Debug, Clone, Serialize)]
pub struct EventReport {
    /// Its number, from 0.
    pub number: u64,
    /// Seconds since it happened.
    pub age_s: u64,
    /// What happened; see `shm_layout.md`.
    pub event: &'static str,
    /// Row of the worker that recorded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u32>,
    /// Name of the deployment or job that it is about, or `#` and a key's hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// First detail.
    pub a: u64,
    /// Second detail.
    pub b: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

fn liveness_name(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Dead => "dead",
        Liveness::Unknown => "unknown",
    }
}

/// Statistics counters by name.
pub fn counters() -> [(&'static str, crate::engine::Counter); 26] {
    [
        ("window_charged", |row: &StatsRow| &row.window_charged),
        ("window_denied", |row| &row.window_denied),
        ("window_refunded", |row| &row.window_refunded),
        ("lease_acquired", |row| &row.lease_acquired),
        ("lease_released", |row| &row.lease_released),
        ("lease_denied", |row| &row.lease_denied),
        ("lease_reaped", |row| &row.lease_reaped),
        ("lease_expired", |row| &row.lease_expired),
        ("table_full", |row| &row.table_full),
        ("contended", |row| &row.contended),
        ("corrected", |row| &row.corrected),
        ("fallbacks", |row| &row.fallbacks),
        ("registrations", |row| &row.registrations),
        ("workers_reaped", |row| &row.workers_reaped),
        ("admitted", |row| &row.admitted),
        ("refused", |row| &row.refused),
        ("refunds_dropped", |row| &row.refunds_dropped),
        ("overflow_denied", |row| &row.overflow_denied),
        ("overflow_shared", |row| &row.overflow_shared),
        ("overflow_local", |row| &row.overflow_local),
        ("keys_reclaimed", |row| &row.keys_reclaimed),
        ("chunks_reclaimed", |row| &row.chunks_reclaimed),
        ("misplaced", |row| &row.misplaced),
        ("events", |row| &row.events),
        ("cooldowns", |row| &row.cooldowns),
        ("uncounted", |row| &row.uncounted),
    ]
}

impl Report {
    /// Reads a region.
    pub fn of(region: &Region) -> Self {
        let header = header(region);
        let prove = workers::prover(Vantage::of(region.header()));
        let holdings = holdings(region, &prove);
        Self {
            schema: SCHEMA,
            workers: worker_reports(region, &prove, &holdings.by_owner),
            limits: limits(region, &holdings.by_key),
            leaders: leaders(region, &prove),
            deployments: deployments(region, &holdings.by_key),
            pools: pools(region, &holdings),
            leases: holdings.leases,
            notices: notices(region),
            features: features(region),
            series: series(region),
            events: events(region),
            stats: stats(region),
            header,
        }
    }
}

fn get<T: Bits>(word: &Word<T>) -> T {
    word.load(Ordering::Relaxed)
}

fn key_of(word: &Word<IdentityWord>) -> Option<IdentityWord> {
    index::key_of(word.load(Ordering::Acquire))
}

fn header(region: &Region) -> HeaderReport {
    let header = region.header();
    let version = get(&header.version);
    let used = |count: usize| count as u64;
    let created = get(&header.wall_base_s).saturating_add(1);
    HeaderReport {
        layout: format!("{}.{}", version >> 32, version & u64::from(u32::MAX)),
        backing: BackingKind::from_raw(get(&header.backing)).map_or("unknown", BackingKind::name),
        size: region.len(),
        creator_pid: get(&header.creator_pid),
        created_at: created,
        age_s: region.now().s().saturating_sub(1),
        epoch: get(&header.epoch),
        key_capacity: region.sections().capacity().keys,
        keys: used(
            region.buckets().iter().filter(|bucket| key_of(&bucket.identity).is_some()).count(),
        ),
        chunk_capacity: region.sections().capacity().lease_chunks,
        chunks: used(
            region.chunks().iter().filter(|chunk| key_of(&chunk.identity).is_some()).count(),
        ),
        worker_capacity: region.sections().capacity().workers,
        same_pid_namespace: get(&header.pid_namespace) == host::namespace("pid"),
    }
}

fn key_name(region: &Region, slot: usize) -> String {
    region.names().get(slot).and_then(names::read).unwrap_or_else(|| {
        let identity = region.buckets().get(slot).map(|bucket| get(&bucket.identity));
        format!("#{:013x}", identity.map_or(0, IdentityWord::hash))
    })
}

type Prove<'a> = dyn Fn(&WorkerRow, ClaimWord) -> Liveness + 'a;

/// Held slots, three ways.
#[derive(Default)]
struct Holdings {
    leases: Vec<LeaseReport>,
    by_owner: BTreeMap<u64, u64>,
    /// By `key_slot`.
    by_key: BTreeMap<u64, u64>,
    /// Those that are idle, by `key_slot`.
    idle: BTreeMap<u64, u64>,
}

fn holdings(region: &Region, prove: &Prove<'_>) -> Holdings {
    let now_s = region.now().s();
    let mut grouped: BTreeMap<(u64, u64), (u64, u64, u64)> = BTreeMap::new();
    for chunk in region.chunks() {
        if get(&chunk.identity) == IdentityWord::default() {
            continue;
        }
        let key = get(&chunk.key_slot);
        for holder in &chunk.holders {
            let word = get(holder);
            if word != LeaseWord::default() {
                let age_s = now_s.saturating_sub(word.acquired_s());
                let entry = grouped.entry((key, word.owner())).or_default();
                *entry = (entry.0 + 1, entry.1 + word.idle(), entry.2.max(age_s));
            }
        }
    }
    let mut holdings = Holdings::default();
    for ((key, owner), (held, idle, oldest_s)) in grouped {
        *holdings.by_owner.entry(owner).or_default() += held;
        *holdings.by_key.entry(key).or_default() += held;
        *holdings.idle.entry(key).or_default() += idle;
        let (row, pid, state) = owner_of(region, owner, prove);
        let key = holder_name(region, key);
        holdings.leases.push(LeaseReport { key, row, pid, owner: state, held, idle, oldest_s });
    }
    holdings
}

/// Name of the key, deployment, job, pool or endpoint that a chunk's `key_slot` names.
fn holder_name(region: &Region, key_slot: u64) -> String {
    let endpoint = pool::slot_of(key_slot).and_then(|slot| region.endpoints().get(slot));
    if let Some(record) = endpoint {
        let own = key_of(&record.identity);
        let of = region
            .endpoints()
            .iter()
            .find(|other| key_of(&other.identity).is_some_and(|key| key == get(&record.pool)));
        let of = of.filter(|_| own != Some(get(&record.pool))).map(pool::name_of);
        let name = pool::name_of(record);
        return of.map_or_else(|| format!("pool {name}"), |of| format!("pool {of}: {name}"));
    }
    if let Some(job) = leader::slot_of(key_slot).and_then(|slot| region.jobs().get(slot)) {
        return job_name(job);
    }
    let deployment = health::slot_of(key_slot).and_then(|slot| region.deployments().get(slot));
    let slot = usize::try_from(key_slot.wrapping_sub(1)).unwrap_or(usize::MAX);
    deployment.map_or_else(|| key_name(region, slot), deployment_name)
}

fn owner_of(region: &Region, raw: u64, prove: &Prove<'_>) -> (u32, Option<i32>, &'static str) {
    let Some(owner) = OwnerTag::from_raw(raw) else {
        return (0, None, "dead");
    };
    if workers::is_gone(region.workers(), owner) {
        return (owner.row(), None, "dead");
    }
    let row = &region.workers()[owner.row() as usize];
    let claim = get(&row.claim);
    let liveness = prove(row, claim);
    (owner.row(), i32::try_from(claim.pid()).ok(), liveness_name(liveness))
}

fn worker_reports(
    region: &Region,
    prove: &Prove<'_>,
    held: &BTreeMap<u64, u64>,
) -> Vec<WorkerReport> {
    let now_s = region.now().s();
    let creator = get(&region.header().creator_pid);
    let report = |worker: workers::Worker| {
        let decisions = region.stats().get(worker.row).map_or(0, |row| {
            [&row.window_charged, &row.window_denied, &row.lease_acquired, &row.lease_denied]
                .iter()
                .fold(0, |sum: u64, word| sum.wrapping_add(get(word)))
        });
        WorkerReport {
            row: worker.row,
            generation: worker.owner.generation(),
            pid: worker.pid,
            role: if creator == u64::from(worker.pid.unsigned_abs()) {
                "creator"
            } else {
                "worker"
            },
            alive: liveness_name(worker.liveness),
            age_s: now_s.saturating_sub(worker.registered_s),
            leases: held.get(&worker.owner.raw()).copied().unwrap_or(0),
            decisions,
        }
    };
    workers::list(region.workers(), prove).into_iter().map(report).collect()
}

fn limits(region: &Region, held: &BTreeMap<u64, u64>) -> Vec<LimitReport> {
    let now = region.now();
    let mut reports = Vec::new();
    for (position, bucket) in region.buckets().iter().enumerate() {
        let kind = key_of(&bucket.identity).and_then(|key| KeyKind::from_raw(key.kind()));
        let Some(kind) = kind.filter(|&kind| kind != KeyKind::Tally) else {
            continue;
        };
        let mut report = LimitReport {
            key: key_name(region, position),
            kind: kind.name(),
            window_s: None,
            resets_in_s: None,
            requests: None,
            tokens: None,
            parallel: None,
            remaining: None,
            retry_after_ms: None,
            allowed: get(&bucket.allowed),
            denied: get(&bucket.denied),
        };
        match kind {
            KeyKind::Gcra => gcra_report(&mut report, bucket, now),
            KeyKind::Window => {
                window_report(&mut report, bucket, now);
                let limit = get(&bucket.lease).limit();
                let used = held.get(&(position as u64 + 1)).copied().unwrap_or(0);
                if limit > 0 || used > 0 {
                    report.parallel = Some(usage(i64::try_from(used).unwrap_or(i64::MAX), limit));
                }
            }
            KeyKind::Counter => {
                let pair = Pair { window: None, counter: &bucket.requests };
                report.resets_in_s = get(&bucket.requests).loose_left(now.s());
                report.requests = window::read(pair, now.s()).map(|used| usage(used, 0));
            }
            KeyKind::Sliding => sliding_report(&mut report, bucket, now),
            KeyKind::Tally | KeyKind::Chunk | KeyKind::Named => {}
        }
        reports.push(report);
    }
    reports
}

fn usage(used: i64, limit: u64) -> Usage {
    Usage { used, limit: (limit > 0).then_some(limit) }
}

fn gcra_report(report: &mut LimitReport, bucket: &Bucket, now: Instant) {
    let limits = get(&bucket.limits);
    let rate = |value| u32::try_from(value).unwrap_or(0);
    let Some(quota) = Quota::new(rate(limits.requests()), rate(limits.tokens())) else {
        return;
    };
    let word = GcraWord::from_bits(get(&bucket.requests).bits());
    let remaining = gcra::remaining(word, now.us(), quota);
    let used = i64::from(quota.burst()) - i64::try_from(remaining).unwrap_or(i64::MAX);
    report.requests = Some(usage(used.max(0), u64::from(quota.burst())));
    report.remaining = Some(remaining);
    report.retry_after_ms = Some(gcra::retry_after_us(word, now.us(), quota, 1).div_ceil(1_000));
}

fn sliding_report(report: &mut LimitReport, bucket: &Bucket, now: Instant) {
    let limits = get(&bucket.limits);
    let Some(limit) = SlidingLimit::new(limits.requests(), limits.tokens()) else {
        return;
    };
    let word = SlidingWord::from_bits(get(&bucket.requests).bits());
    let remaining = sliding::remaining(word, now.us(), limit);
    let used = limits.requests().saturating_sub(remaining);
    report.window_s = Some(limits.tokens());
    report.requests = Some(usage(i64::try_from(used).unwrap_or(i64::MAX), limits.requests()));
    report.remaining = Some(remaining);
    let wait_us = sliding::retry_after_us(word, now.us(), limit, 1);
    report.retry_after_ms = Some(wait_us.div_ceil(1_000));
}

fn window_report(report: &mut LimitReport, bucket: &Bucket, now: Instant) {
    let limits = get(&bucket.limits);
    let state = bucket.window.load(Ordering::Acquire);
    let left = state.left(now.s(), u64::MAX);
    report.window_s = (state.size_s() > 0).then(|| state.size_s());
    report.resets_in_s = left;
    let read = |counter: &Word<CounterWord>, limit| {
        let pair = Pair { window: Some(&bucket.window), counter };
        let used = window::read(pair, now.s());
        (used.is_some_and(|used| used != 0) || limit > 0).then(|| usage(used.unwrap_or(0), limit))
    };
    report.requests = read(&bucket.requests, limits.requests());
    report.tokens = read(&bucket.tokens, limits.tokens());
}

fn features(region: &Region) -> Vec<FeatureReport> {
    let now_s = region.now().s();
    let report = |(feature, record): (usize, &crate::layout::Feature)| {
        let breaker = get(&record.breaker);
        let errors_total = get(&record.errors_total);
        let flag = get(&record.flag);
        let mode = FlagMode::from_raw(flag.mode());
        (errors_total > 0 || mode != FlagMode::Own).then(|| FeatureReport {
            feature,
            name: features::NAMES.get(feature).copied(),
            breaker: if breaker.errors() < features::BREAKER.threshold { "closed" } else { "open" },
            errors: breaker.errors(),
            errors_total,
            last_s: now_s.saturating_sub(breaker.last_s()),
            switch: mode.name(),
            percent: (mode == FlagMode::Percent).then(|| flag.percent()),
        })
    };
    region.features().iter().enumerate().filter_map(report).collect()
}

fn deployments(region: &Region, held: &BTreeMap<u64, u64>) -> Vec<DeploymentReport> {
    let now = region.now();
    let report = |(slot, record): (usize, &crate::layout::Deployment)| {
        let identity = key_of(&record.identity)?;
        let in_flight = held.get(&health::key_slot(slot)).copied().unwrap_or(0);
        let health = health::health_of(record, now, in_flight);
        let cooldown = health::cooldown_of(record, identity, || region.now());
        let cooldown = cooldown.as_ref();
        Some(DeploymentReport {
            deployment: deployment_name(record),
            in_flight,
            cooldown_ms: cooldown.map_or(0, |cooldown| cooldown.left_ms),
            cooldown_reason: cooldown.map(|cooldown| cooldown.kind.name()),
            cooldown_for_ms: cooldown.map(|cooldown| cooldown.for_ms),
            cooldown_status: cooldown.map(|cooldown| cooldown.status).filter(|&s| s > 0),
            cooldown_text: cooldown.and_then(|cooldown| cooldown.text.clone()),
            successes: health.successes,
            failures: health.failures,
            failures_in_a_row: health.failures_in_a_row,
            successes_total: health.successes_total,
            failures_total: health.failures_total,
            last_failure: health.last_failure.map(|(kind, ..)| kind.name()),
            last_status: health.last_failure.map(|(_, status, _)| status).filter(|&s| s > 0),
            last_failure_s: health.last_failure.map(|(.., age_s)| age_s),
            latency_us: health.latency_us,
            first_token_us: health.first_token_us,
            score_us: health.scores_us.first().copied(),
        })
    };
    region.deployments().iter().enumerate().filter_map(report).collect()
}

fn leaders(region: &Region, prove: &Prove<'_>) -> Vec<LeaderReport> {
    let now_s = region.now().s();
    let report = |(slot, record): (usize, &crate::layout::Job)| {
        let key = key_of(&record.identity)?;
        let (limits, key_slot) = (&record.lease, leader::key_slot(slot));
        let leases = Leases { chunks: region.chunks(), key, key_slot, limits, nonce: index::nonce };
        let holder = leases.first_held()?.word;
        let (row, pid, owner) = owner_of(region, holder.owner(), prove);
        let tag = OwnerTag::from_raw(holder.owner())?;
        let found = leader::leader_of(record, tag, pid.unwrap_or(0), holder, now_s);
        let leader::Leader { term, held_s, renewed_s, .. } = found;
        Some(LeaderReport { job: job_name(record), row, pid, owner, term, held_s, renewed_s })
    };
    region.jobs().iter().enumerate().filter_map(report).collect()
}

fn pools(region: &Region, holdings: &Holdings) -> Vec<PoolReport> {
    let now = region.now();
    let table = || region.endpoints().iter().enumerate();
    let count = |counts: &BTreeMap<u64, u64>, slot: usize| {
        counts.get(&pool::key_slot(slot)).copied().unwrap_or(0)
    };
    let limit = |record: &Endpoint| Some(get(&record.lease).limit()).filter(|&limit| limit > 0);
    let endpoint = |(slot, record): (usize, &Endpoint)| {
        let failure = pool::last_failure_of(record, now);
        EndpointReport {
            endpoint: pool::name_of(record),
            connections: count(&holdings.by_key, slot),
            idle: count(&holdings.idle, slot),
            limit: limit(record),
            healthy: pool::endpoint_is_healthy(record, now),
            failures_in_a_row: pool::failures_of(record, now),
            failures_total: get(&record.failures_total),
            last_failure: failure.map(|(kind, ..)| kind.name()),
            last_status: failure.map(|(_, status, _)| status).filter(|&status| status > 0),
            last_failure_s: failure.map(|(.., age_s)| age_s),
        }
    };
    let report = |(slot, record): (usize, &Endpoint)| {
        let key = key_of(&record.identity)?;
        if get(&record.pool) != key {
            return None;
        }
        let belongs = |other: &Endpoint| {
            get(&other.pool) == key && key_of(&other.identity).is_some_and(|own| own != key)
        };
        Some(PoolReport {
            pool: pool::name_of(record),
            connections: count(&holdings.by_key, slot),
            idle: count(&holdings.idle, slot),
            limit: limit(record),
            counts: pool::counts_of(record),
            endpoints: table().filter(|(_, other)| belongs(other)).map(endpoint).collect(),
        })
    };
    table().filter_map(report).collect()
}

fn notices(region: &Region) -> Vec<NoticeReport> {
    let now_us = region.now().us();
    let report = |(slot, record): (usize, &crate::layout::Notice)| {
        key_of(&record.identity)?;
        let found = board::notice_of(region, slot, record);
        let place = names::Place { head: &record.name_head, bytes: &record.name };
        let name = names::read(place);
        Some(NoticeReport {
            notice: name.unwrap_or_else(|| format!("#{:013x}", get(&record.identity).hash())),
            bytes: found.as_ref().map(|notice| notice.bytes.len() as u64),
            age_s: found
                .as_ref()
                .map(|notice| now_us.saturating_sub(notice.published_us) / 1_000_000),
            expires_in_s: found
                .filter(|notice| notice.expires_us > 0)
                .map(|notice| notice.expires_us.saturating_sub(now_us).div_ceil(1_000_000)),
            published: get(&record.current).writes(),
        })
    };
    region.board().iter().enumerate().filter_map(report).collect()
}

fn job_name(record: &crate::layout::Job) -> String {
    let place = names::Place { head: &record.name_head, bytes: &record.name };
    names::read(place).unwrap_or_else(|| format!("#{:013x}", get(&record.identity).hash()))
}

fn deployment_name(record: &crate::layout::Deployment) -> String {
    let place = names::Place { head: &record.name_head, bytes: &record.name };
    names::read(place).unwrap_or_else(|| format!("#{:013x}", get(&record.identity).hash()))
}

fn series(region: &Region) -> Vec<SeriesReport> {
    let histograms = Histograms { series: region.series(), rows: region.histograms() };
    let report = |(slot, record): (usize, &crate::layout::Series)| {
        key_of(&record.identity)?;
        let all = histograms.snapshot(slot)?;
        let place = names::Place { head: &record.name_head, bytes: &record.name };
        Some(SeriesReport {
            series: names::read(place).unwrap_or_else(|| format!("#{slot}")),
            count: all.count,
            errors: all.errors,
            mean_ns: all.mean_ns().unwrap_or(0),
            p50_ns: all.quantile_ns(0.5).unwrap_or(0),
            p99_ns: all.quantile_ns(0.99).unwrap_or(0),
            max_ns: all.max_ns,
            input_bytes: all.input_bytes,
            output_bytes: all.output_bytes,
        })
    };
    region.series().iter().enumerate().filter_map(report).collect()
}

/// Events that a report shows.
const EVENTS: usize = 50;

fn events(region: &Region) -> Vec<EventReport> {
    let now_us = region.now().us();
    let named: BTreeMap<u64, String> = region
        .deployments()
        .iter()
        .filter_map(|record| Some((key_of(&record.identity)?.bits(), deployment_name(record))))
        .chain(
            region
                .jobs()
                .iter()
                .filter_map(|job| Some((key_of(&job.identity)?.bits(), job_name(job)))),
        )
        .collect();
    let report = |entry: events::Entry| EventReport {
        number: entry.number,
        age_s: now_us.saturating_sub(entry.at_us) / 1_000_000,
        event: entry.known_kind().map_or("unknown", EventKind::name),
        row: entry.owner.map(OwnerTag::row),
        subject: index::key_of(entry.subject).map(|key| {
            let name = named.get(&key.bits()).cloned();
            name.unwrap_or_else(|| format!("#{:013x}", key.hash()))
        }),
        a: entry.a,
        b: entry.b,
    };
    events::recent(region.events(), &region.header().event_head, EVENTS).map(report).collect()
}

fn stats(region: &Region) -> BTreeMap<&'static str, u64> {
    let sum = |counter: crate::engine::Counter| {
        region.stats().iter().fold(0_u64, |sum, row| sum.wrapping_add(get(counter(row))))
    };
    counters().into_iter().map(|(name, counter)| (name, sum(counter))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FakeClock;
    use crate::config::Capacity;
    use crate::engine::Engine;
    use crate::engine::health::Cause;
    use crate::engine::slots::SlotAsk;
    use crate::engine::windows::Ask;
    use crate::layout::FailureKind;
    use crate::region::create_heap;

    fn use_all(engine: &Engine) -> [bool; 3] {
        let ask = |counter, limit| Ask {
            window: "{api_key:0123456789abcdef0123}:window",
            counter,
            limit,
            amount: 3,
            size_s: 60,
        };
        let admitted = engine.admit_all(&[ask("{api_key:0123456789abcdef0123}:requests", 20)]);
        let slot =
            SlotAsk { key: "{user:u}:max_parallel_requests", limit: 5, ttl_s: 60, slot_id: "x" };
        let held = engine.acquire_all(&[slot]);
        let checked = engine.check(&engine.limiter("", Quota::new(60, 6).unwrap()), b"k");
        let _ = engine.depart("gpt", None);
        let _ = engine.deployment_succeeded("gpt", 60, Some(9), None);
        let cause = Cause { kind: FailureKind::RateLimited, status: 429, text: "no more" };
        let _ = engine.cool_down("gpt", 60_000, &cause);
        let _ = engine.deployment_scored("gpt", 7);
        let _ = engine.publish("models", b"eleven byte", 60);
        let _ = engine.lead("sync", 60);
        if let Ok(series) = engine.series("routing") {
            engine.measure(series, 5_000);
        }
        [admitted.is_ok(), held.is_ok(), checked.is_ok()]
    }

    #[test]
    fn everything_is_reported() {
        let clock = FakeClock::at(1_000_000_000_000);
        let capacity = Capacity::checked(1024, 64, 16).unwrap();
        let engine = Engine::new(create_heap(capacity, Box::new(clock.clone())).unwrap());
        assert_eq!(use_all(&engine), [true; 3]);
        clock.advance_s(10);
        let report = Report::of(engine.region());
        let limit =
            |key: &str| report.limits.iter().find(|limit| limit.key == key).unwrap().clone();
        let window = limit("api_key:012345..");
        let requests = window.requests.unwrap();
        assert_eq!((requests.used, requests.limit, window.resets_in_s), (3, Some(20), Some(50)));
        assert_eq!(
            limit("user:u").parallel.map(|usage| (usage.used, usage.limit)),
            Some((1, Some(5)))
        );
        assert_eq!(limit("k").remaining, Some(6));
        assert_eq!(report.leases.len(), 3);
        let notice = &report.notices[0];
        assert_eq!(
            (notice.notice.as_str(), notice.bytes, notice.published),
            ("models", Some(11), 1)
        );
        assert_eq!((notice.age_s, notice.expires_in_s), (Some(10), Some(50)));
        let leader = &report.leaders[0];
        assert_eq!((leader.job.as_str(), leader.owner, leader.term), ("sync", "alive", Some(1)));
        assert_eq!((leader.held_s, leader.renewed_s, report.leaders.len()), (10, 10, 1));
        assert_eq!(report.leases.iter().filter(|lease| lease.key == "sync").count(), 1);
        assert_eq!((report.leases[0].owner, report.leases[0].oldest_s), ("alive", 10));
        assert_eq!((report.workers.len(), report.workers[0].leases), (1, 3));
        assert_eq!((limit("k").allowed, report.stats["window_charged"]), (1, 1));
        assert!(report.header.keys == 3 && report.header.chunks == 3);
        let deployment = &report.deployments[0];
        assert_eq!((deployment.deployment.as_str(), deployment.in_flight), ("gpt", 1));
        assert_eq!(deployment.cooldown_reason, Some("rate_limited"));
        assert_eq!((deployment.cooldown_ms, deployment.latency_us), (50_000, Some(9)));
        assert_eq!(
            (deployment.cooldown_for_ms, deployment.cooldown_status, deployment.score_us),
            (Some(60_000), Some(429), Some(7))
        );
        assert_eq!(deployment.cooldown_text.as_deref(), Some("no more"));
        assert_eq!((report.series[0].series.as_str(), report.series[0].count), ("routing", 1));
        assert_eq!(report.events[0].event, "leader_began");
        assert_eq!(report.events[0].subject.as_deref(), Some("sync"));
        assert_eq!(report.events[1].event, "cooldown_begun");
        assert_eq!(report.events[1].subject.as_deref(), Some("gpt"));
        assert_eq!(report.leases.iter().filter(|lease| lease.key == "gpt").count(), 1);
    }

    /// Random words in every section.
    fn scramble(region: &Region, random: &mut impl FnMut() -> u64) {
        fn set<T: Bits>(word: &Word<T>, random: &mut impl FnMut() -> u64) {
            word.store(T::from_bits(random()), Ordering::Relaxed);
        }
        for bucket in region.buckets() {
            set(&bucket.identity, random);
            set(&bucket.window, random);
            set(&bucket.requests, random);
            set(&bucket.tokens, random);
            set(&bucket.limits, random);
            set(&bucket.lease, random);
            set(&bucket.allowed, random);
            set(&bucket.denied, random);
        }
        for chunk in region.chunks() {
            set(&chunk.identity, random);
            for word in [&chunk.key_slot, &chunk.ordinal, &chunk.held, &chunk.hint] {
                set(word, random);
            }
            chunk.tags.iter().for_each(|tag| set(tag, random));
            chunk.holders.iter().for_each(|holder| set(holder, random));
        }
        for record in region.deployments() {
            set(&record.lease, random);
            set(&record.cooldown, random);
            set(&record.window, random);
            set(&record.successes, random);
            set(&record.failures, random);
            set(&record.last_failure, random);
            set(&record.latency, random);
            set(&record.first_token, random);
            set(&record.name_head, random);
            record.name.iter().for_each(|word| set(word, random));
            let samples = record.latencies.iter().chain(&record.first_tokens);
            samples.chain(&record.scores).for_each(|word| set(word, random));
            set(&record.cause, random);
            set(&record.cause_head, random);
            record.cause_text.iter().for_each(|word| set(word, random));
            let heads = [&record.latency_head, &record.first_token_head, &record.score_head];
            for word in heads.into_iter().chain([&record.successes_total]) {
                set(word, random);
            }
        }
        for notice in region.board() {
            set(&notice.current, random);
            set(&notice.lengths[0], random);
            set(&notice.checks[1], random);
        }
        for record in region.endpoints() {
            set(&record.identity, random);
            set(&record.lease, random);
            set(&record.pool, random);
            set(&record.breaker, random);
            set(&record.last_failure, random);
            set(&record.name_head, random);
            set(&record.created, random);
        }
        for job in region.jobs() {
            set(&job.lease, random);
            set(&job.term, random);
            set(&job.since, random);
            set(&job.name_head, random);
        }
        for event in region.events() {
            for word in [&event.sequence, &event.at_us, &event.kind, &event.owner, &event.subject] {
                set(word, random);
            }
        }
        set(&region.header().event_head, random);
        for name in region.names() {
            set(&name.head, random);
            name.bytes.iter().for_each(|word| set(word, random));
        }
        for row in region.workers() {
            set(&row.claim, random);
            set(&row.start_ticks, random);
            set(&row.registered_s, random);
            set(&row.pid_namespace, random);
        }
        for row in region.stats() {
            for (_, counter) in counters() {
                set(counter(row), random);
            }
        }
        for feature in region.features() {
            set(&feature.breaker, random);
            set(&feature.errors_total, random);
        }
    }

    /// Random words everywhere behind the header: the report may be nonsense, but it is a report.
    #[test]
    fn a_region_of_random_bytes_is_reported_and_used_without_panic() {
        let mut state = 0x1234_5678_9abc_def1_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..20 {
            let capacity = Capacity::checked(1024, 64, 16).unwrap();
            let clock = FakeClock::at(1_000_000_000_000);
            let engine = Engine::new(create_heap(capacity, Box::new(clock.clone())).unwrap());
            let region = engine.region();
            assert_eq!(use_all(&engine), [true; 3]);
            let known: Vec<_> =
                region.buckets().iter().map(|bucket| get(&bucket.identity)).collect();
            let known_chunks: Vec<_> =
                region.chunks().iter().map(|chunk| get(&chunk.identity)).collect();
            scramble(region, &mut random);
            // The keys used below stand where they belong, so that their scrambled state is met.
            for (bucket, key) in region.buckets().iter().zip(known.iter()) {
                if *key != IdentityWord::default() {
                    bucket.identity.store(*key, Ordering::Relaxed);
                }
            }
            for (chunk, identity) in region.chunks().iter().zip(&known_chunks) {
                if *identity != IdentityWord::default() {
                    chunk.identity.store(*identity, Ordering::Relaxed);
                }
            }
            let report = Report::of(region);
            serde_json::to_string(&report).unwrap();
            for _ in 0..50 {
                use_all(&engine);
            }
            let slots = "{user:u}:max_parallel_requests";
            let _ = (
                engine.release(slots, "x"),
                engine.in_flight(slots, 60),
                engine.count_slots(slots, 60),
            );
            let _ = (engine.add("{user:u}:tokens", -5, 60), engine.value("{user:u}:window"));
            let _ = (engine.feature_error(2), engine.feature_errors(2));
            engine.limiter_totals(None).checks();
            engine.reap_dead();
        }
    }
}
