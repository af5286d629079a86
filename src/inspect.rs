//! What a region holds, for people and programs. Reads only, and trusts nothing: every number is bounded
//! before it is used, every value is computed by the engine's own functions at the region's own clock.

use crate::clock::Instant;
use crate::layout::{
    Bucket, ClaimWord, CounterWord, KeyKind, LeaseWord, OwnerTag, StatsRow, WorkerRow,
};
use crate::liveness::Liveness;
use crate::primitives::gcra::{self, Quota};
use crate::primitives::window::{self, Pair};
use crate::region::{BackingKind, Region, Vantage, host};
use crate::sync::{Ordering, Word};
use crate::tables::{names, workers};
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
    /// Errors of accelerated features.
    pub features: Vec<FeatureReport>,
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
    /// Age of the oldest in seconds.
    pub oldest_s: u64,
}

/// Errors of one feature.
#[derive(Debug, Clone, Serialize)]
pub struct FeatureReport {
    /// Number of the feature.
    pub feature: usize,
    /// Errors since the last reset.
    pub errors: u64,
    /// Errors since the region was created.
    pub errors_total: u64,
    /// Seconds since the latest error.
    pub last_s: u64,
}

fn liveness_name(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Dead => "dead",
        Liveness::Unknown => "unknown",
    }
}

/// Statistics counters by name.
pub fn counters() -> [(&'static str, crate::engine::Counter); 14] {
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
            leases: holdings.leases,
            features: features(region),
            stats: stats(region),
            header,
        }
    }
}

fn get<T: crate::sync::Bits>(word: &Word<T>) -> T {
    word.load(Ordering::Relaxed)
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
            region.index().iter().filter(|slot| get(&slot.identity).occupied() == 1).count(),
        ),
        chunk_capacity: region.sections().capacity().lease_chunks,
        chunks: used(region.chunks().iter().filter(|chunk| get(&chunk.identity) != 0).count()),
        worker_capacity: region.sections().capacity().workers,
        same_pid_namespace: get(&header.pid_namespace) == host::namespace("pid"),
    }
}

fn key_name(region: &Region, slot: usize) -> String {
    region.names().get(slot).and_then(names::read).unwrap_or_else(|| {
        let hash = region.index().get(slot).map_or(0, |slot| get(&slot.identity).hash());
        format!("#{hash:015x}")
    })
}

type Prove<'a> = dyn Fn(&WorkerRow, ClaimWord) -> Liveness + 'a;

/// Held slots, three ways.
#[derive(Default)]
struct Holdings {
    leases: Vec<LeaseReport>,
    by_owner: BTreeMap<u64, u64>,
    by_key: BTreeMap<usize, u64>,
}

fn holdings(region: &Region, prove: &Prove<'_>) -> Holdings {
    let now_s = region.now().s();
    let mut grouped: BTreeMap<(usize, u64), (u64, u64)> = BTreeMap::new();
    for chunk in region.chunks() {
        if get(&chunk.identity) == 0 {
            continue;
        }
        let key = usize::try_from(get(&chunk.key_slot).wrapping_sub(1)).unwrap_or(usize::MAX);
        for holder in &chunk.holders {
            let word = get(holder);
            if word != LeaseWord::default() {
                let age_s = now_s.saturating_sub(word.acquired_s());
                let entry = grouped.entry((key, word.owner())).or_default();
                *entry = (entry.0 + 1, entry.1.max(age_s));
            }
        }
    }
    let mut holdings = Holdings::default();
    for ((key, owner), (held, oldest_s)) in grouped {
        *holdings.by_owner.entry(owner).or_default() += held;
        *holdings.by_key.entry(key).or_default() += held;
        let (row, pid, state) = owner_of(region, owner, prove);
        let key = key_name(region, key);
        holdings.leases.push(LeaseReport { key, row, pid, owner: state, held, oldest_s });
    }
    holdings
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

fn limits(region: &Region, held: &BTreeMap<usize, u64>) -> Vec<LimitReport> {
    let now = region.now();
    let mut reports = Vec::new();
    for (position, (slot, bucket)) in region.index().iter().zip(region.buckets()).enumerate() {
        let identity = slot.identity.load(Ordering::Acquire);
        let Some(kind) = KeyKind::from_raw(identity.kind()).filter(|_| identity.occupied() == 1)
        else {
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
                let used = held.get(&position).copied().unwrap_or(0);
                if limit > 0 || used > 0 {
                    report.parallel = Some(usage(i64::try_from(used).unwrap_or(i64::MAX), limit));
                }
            }
            KeyKind::Counter => {
                let pair = Pair { window: None, counter: &bucket.requests };
                report.resets_in_s = get(&bucket.requests).loose_left(now.s());
                report.requests = window::read(pair, now.s()).map(|used| usage(used, 0));
            }
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
    let word = get(&bucket.gcra);
    let remaining = gcra::remaining(word, now.us(), quota);
    let used = i64::from(quota.burst()) - i64::try_from(remaining).unwrap_or(i64::MAX);
    report.requests = Some(usage(used.max(0), u64::from(quota.burst())));
    report.remaining = Some(remaining);
    report.retry_after_ms = Some(gcra::retry_after_us(word, now.us(), quota).div_ceil(1_000));
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
        (errors_total > 0).then(|| FeatureReport {
            feature,
            errors: breaker.errors(),
            errors_total,
            last_s: now_s.saturating_sub(breaker.last_s()),
        })
    };
    region.features().iter().enumerate().filter_map(report).collect()
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
    use crate::engine::slots::SlotAsk;
    use crate::engine::windows::Ask;
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
        assert_eq!(report.leases.len(), 1);
        assert_eq!((report.leases[0].owner, report.leases[0].oldest_s), ("alive", 10));
        assert_eq!((report.workers.len(), report.workers[0].leases), (1, 1));
        assert_eq!((limit("k").allowed, report.stats["window_charged"]), (1, 1));
        assert!(report.header.keys == 3 && report.header.chunks == 1);
    }

    /// Random words in every section.
    fn scramble(region: &Region, random: &mut impl FnMut() -> u64) {
        use crate::sync::Bits;
        fn set<T: Bits>(word: &Word<T>, random: &mut impl FnMut() -> u64) {
            word.store(T::from_bits(random()), Ordering::Relaxed);
        }
        for slot in region.index() {
            set(&slot.identity, random);
        }
        for bucket in region.buckets() {
            set(&bucket.gcra, random);
            set(&bucket.window, random);
            set(&bucket.requests, random);
            set(&bucket.tokens, random);
            set(&bucket.limits, random);
            set(&bucket.lease, random);
            set(&bucket.allowed, random);
            set(&bucket.denied, random);
        }
        for chunk in region.chunks() {
            for word in [&chunk.identity, &chunk.key_slot, &chunk.ordinal, &chunk.held, &chunk.hint]
            {
                set(word, random);
            }
            chunk.tags.iter().for_each(|tag| set(tag, random));
            chunk.holders.iter().for_each(|holder| set(holder, random));
        }
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
            let known: Vec<_> = region.index().iter().map(|slot| get(&slot.identity)).collect();
            let known_chunks: Vec<_> =
                region.chunks().iter().map(|chunk| get(&chunk.identity)).collect();
            scramble(region, &mut random);
            // The keys used below stand where they belong, so that their scrambled state is met.
            for (slot, key) in region.index().iter().zip(known.iter()) {
                if *key != crate::layout::IdentityWord::default() {
                    slot.identity.store(*key, Ordering::Relaxed);
                }
            }
            for (chunk, identity) in region.chunks().iter().zip(&known_chunks) {
                if *identity != 0 {
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
