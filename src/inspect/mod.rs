//! What a region holds, for people and programs. Reads only, and trusts nothing: every number is bounded
//! before it is used, every value is computed by the engine's own functions at the region's own clock.

mod deployments;
mod events;
pub mod explain;

mod features;
mod holdings;
pub mod known;

mod leaders;
mod limits;
pub mod live;
mod notices;
pub mod overview;
mod pools;
mod rates;
mod records;
mod region;
pub mod search;
mod section;
mod series;
mod stats;
mod workers;

pub use records::*;
pub use section::Section;
pub use stats::counters;
pub use workers::moment;

use crate::layout::IdentityWord;
use crate::region::Region;
use crate::sync::{Bits, Ordering, Word};
use crate::tables::index;
use serde::Serialize;
use std::collections::BTreeMap;

/// Name and version of the JSON form.
pub const SCHEMA: &str = "fl-shm/1";

/// Everything.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
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
    /// Their changes in a second, between two looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats_per_s: Option<BTreeMap<&'static str, f64>>,
    /// When it was looked, in microseconds of the region's clock.
    #[serde(skip)]
    pub at_us: u64,
    /// The same in Unix milliseconds.
    #[serde(skip)]
    pub at_ms: u64,
}

impl Report {
    /// Reads a region.
    pub fn of(region: &Region) -> Self {
        Self::only(region, |_| true)
    }

    /// Reads the wanted sections of a region; the others are empty, but for the header.
    pub fn only(region: &Region, wanted: impl Fn(Section) -> bool) -> Self {
        Self::again(region, wanted, Self::default())
    }

    /// The same in the memory of a report that is not needed any more: keys may be many.
    pub fn again(region: &Region, wanted: impl Fn(Section) -> bool, old: Self) -> Self {
        let prove = workers::prover(region);
        let any = |sections: &[Section]| sections.iter().any(|&section| wanted(section));
        let held = [Section::Workers, Section::Limits, Section::Leases, Section::Deployments];
        let holdings =
            read(any(&held) || wanted(Section::Pools), || holdings::holdings(region, &prove));
        let held = &holdings;
        let at_us = region.now().us();
        Self {
            schema: SCHEMA,
            at_us,
            at_ms: region.wall_s(0).saturating_mul(1_000).saturating_add(at_us / 1_000),
            header: region::header(region),
            workers: read(wanted(Section::Workers), || {
                workers::worker_reports(region, &prove, &held.by_owner)
            }),
            limits: read(wanted(Section::Limits), || {
                limits::limits(region, &held.by_key, old.limits)
            }),
            leaders: read(wanted(Section::Leaders), || leaders::leaders(region, &prove)),
            deployments: read(wanted(Section::Deployments), || {
                deployments::deployments(region, &held.by_key)
            }),
            pools: read(wanted(Section::Pools), || pools::pools(region, held)),
            notices: read(wanted(Section::Notices), || notices::notices(region)),
            features: read(wanted(Section::Breakers), || features::features(region)),
            series: read(wanted(Section::Series), || series::series(region)),
            events: read(wanted(Section::Events), || events::events(region)),
            stats: read(wanted(Section::Stats), || stats::stats(region)),
            leases: holdings.leases,
            stats_per_s: None,
        }
    }

    /// The statistics as records.
    pub fn stat_reports(&self) -> Vec<StatReport> {
        let per_s = |name| self.stats_per_s.as_ref().and_then(|rates| rates.get(name)).copied();
        let report = |(&counter, &total)| StatReport { counter, total, per_s: per_s(counter) };
        self.stats.iter().map(report).collect()
    }
}

/// A section, or nothing where it is not wanted.
fn read<T: Default>(wanted: bool, section: impl FnOnce() -> T) -> T {
    if wanted { section() } else { T::default() }
}

fn get<T: Bits>(word: &Word<T>) -> T {
    word.load(Ordering::Relaxed)
}

fn key_of(word: &Word<IdentityWord>) -> Option<IdentityWord> {
    index::key_of(word.load(Ordering::Acquire))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clock::FakeClock;
    use crate::config::Capacity;
    use crate::engine::Engine;
    use crate::engine::health::Cause;
    use crate::engine::slots::SlotAsk;
    use crate::engine::windows::Ask;
    use crate::layout::FailureKind;
    use crate::primitives::gcra::Quota;
    use crate::region::create_heap;

    /// Checks of a key that is allowed 10 at once.
    pub(super) fn check(engine: &Engine, key: &str, times: u32) {
        let limiter = engine.limiter("", Quota::new(1, 10).unwrap());
        assert!((0..times).all(|_| engine.check(&limiter, key.as_bytes()).is_ok()));
    }

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
    pub(crate) fn scramble(region: &Region, random: &mut impl FnMut() -> u64) {
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
            let mut watcher = live::Watcher::default();
            watcher.look(region, 5);
            clock.advance_s(1);
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
            for hottest in [5, 5_000] {
                serde_json::to_string(&watcher.look(region, hottest)).unwrap();
                clock.advance_s(1);
            }
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
