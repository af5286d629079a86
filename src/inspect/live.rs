//! Looking at a region again and again: what is going on there, and how fast. Between two looks only two numbers
//! are kept of each key, and only the hottest keys are reported, so that many keys may be looked at every second.

use super::limits;
use super::rates::per_second;
use super::{
    DeploymentReport, EventReport, FeatureReport, HeaderReport, LeaderReport, LimitReport,
    PoolReport, SCHEMA, WorkerReport, get, key_of,
};
use crate::layout::{KeyKind, section};
use crate::region::Region;
use crate::sync::Bits;
use serde::Serialize;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Events that a frame shows.
const EVENTS: usize = 20;
/// Keys that are compared at a time, besides those that are wanted.
const BATCH: usize = 1_024;

/// What is going on.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Frame {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Seconds since the look before; 0 = there was none, and there are no rates.
    pub since_s: f64,
    /// The region itself.
    pub header: HeaderReport,
    /// Registered processes.
    pub workers: Vec<WorkerReport>,
    /// Concurrency slots that are held: of keys, deployments, jobs and connections. Those of processes that are no
    /// longer registered are among them.
    pub leases_held: u64,
    /// What happens, over the whole region.
    pub rates: Rates,
    /// Keys that the reported ones were chosen from: all, or those of the wanted names.
    pub matching: u64,
    /// Keys with the most refusals per second, then with the most admissions, then those that are closest to their
    /// limits, unless another order was wanted.
    pub hottest: Vec<LimitReport>,
    /// Who leads which job.
    pub leaders: Vec<LeaderReport>,
    /// Health of deployments.
    pub deployments: Vec<DeploymentReport>,
    /// Connection pools.
    pub pools: Vec<PoolReport>,
    /// Errors and switches of accelerated features.
    pub features: Vec<FeatureReport>,
    /// The latest events, newest first.
    pub events: Vec<EventReport>,
    /// Counters summed over all workers.
    pub stats: BTreeMap<&'static str, u64>,
}

/// Changes per second since the look before. A key whose counts went back was given up or reset, and adds nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Rates {
    /// Operations that were admitted, over all keys: a request counts once for each key that it is limited by.
    pub admitted_per_s: f64,
    /// Operations that a key's limits refused.
    pub denied_per_s: f64,
    /// Concurrency slots taken.
    pub slots_acquired_per_s: f64,
    /// Requests for a concurrency slot that got none.
    pub slots_denied_per_s: f64,
    /// Operations that found no room for a new key or its slots.
    pub no_room_per_s: f64,
    /// Cooldowns begun.
    pub cooldowns_per_s: f64,
}

/// Which keys come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// Most refusals per second, then most admissions per second, then the greatest part of a limit used.
    #[default]
    Refused,
    /// Most admissions per second.
    Admitted,
    /// Greatest part of a limit used.
    Used,
    /// Most refusals since the key is known.
    RefusedInAll,
}

/// Which keys to report.
#[derive(Default)]
pub struct Wanted<'a> {
    /// How many at most.
    pub hottest: usize,
    /// Which come first.
    pub order: Order,
    /// Those of these redacted names only; `None` = of any.
    pub name: Option<&'a dyn Fn(&str) -> bool>,
}

/// Looks at regions and remembers the latest look.
#[derive(Debug, Default)]
pub struct Watcher {
    before: Option<Look>,
}

/// What is remembered of a look.
#[derive(Debug)]
struct Look {
    /// Tells one region from another.
    origin: [u64; 4],
    at_us: u64,
    /// In the order of their slots.
    tallies: Vec<Tally>,
    stats: BTreeMap<&'static str, u64>,
}

/// What a key has counted.
#[derive(Debug, Clone, Copy)]
struct Tally {
    slot: usize,
    identity: u64,
    allowed: u64,
    denied: u64,
}

/// A key that may be one of the hottest.
#[derive(Debug, Clone, Copy)]
struct Heat {
    tally: Tally,
    denied: u64,
    allowed: u64,
    used_pct: f64,
    /// Whether there is anything that its counts can be compared with.
    known: bool,
}

impl Heat {
    /// The hottest first.
    fn compare(&self, other: &Self, order: Order) -> Ordering {
        let denied = || other.denied.cmp(&self.denied);
        let allowed = || other.allowed.cmp(&self.allowed);
        let used = || other.used_pct.total_cmp(&self.used_pct);
        let first = match order {
            Order::Refused => Ordering::Equal,
            Order::Admitted => allowed(),
            Order::Used => used(),
            Order::RefusedInAll => other.tally.denied.cmp(&self.tally.denied),
        };
        let rest = first.then_with(denied).then_with(allowed).then_with(used);
        rest.then_with(|| self.tally.slot.cmp(&other.tally.slot))
    }
}

/// The hottest of all keys that it is told of.
struct Hottest {
    wanted: usize,
    order: Order,
    kept: Vec<Heat>,
    /// The last of those that were wanted when there were last too many.
    coolest: Option<Heat>,
}

impl Hottest {
    fn new(wanted: usize, order: Order) -> Self {
        Self { wanted, order, kept: Vec::new(), coolest: None }
    }

    fn add(&mut self, heat: Heat) {
        if self.coolest.is_some_and(|coolest| heat.compare(&coolest, self.order).is_gt()) {
            return;
        }
        self.kept.push(heat);
        if self.kept.len() >= self.wanted.saturating_add(BATCH) {
            self.prune();
        }
    }

    fn prune(&mut self) {
        let order = self.order;
        if let Some(last) = self.wanted.checked_sub(1).filter(|_| self.kept.len() > self.wanted) {
            let by = |one: &Heat, other: &Heat| one.compare(other, order);
            self.coolest = Some(*self.kept.select_nth_unstable_by(last, by).1);
        }
        self.kept.truncate(self.wanted);
    }

    fn sorted(mut self) -> Vec<Heat> {
        self.prune();
        self.kept.sort_unstable_by(|one, other| one.compare(other, self.order));
        self.kept
    }
}

impl Watcher {
    /// Looks, and compares with the look before. `hottest` = most keys to report. Another region than before begins
    /// anew.
    pub fn look(&mut self, region: &Region, hottest: usize) -> Frame {
        self.look_for(region, &Wanted { hottest, ..Wanted::default() })
    }

    /// As [`Self::look`], for those keys that are wanted. Rates and sums are of all.
    pub fn look_for(&mut self, region: &Region, wanted: &Wanted<'_>) -> Frame {
        let header = region.header();
        let origin =
            [&header.clock_base_ns, &header.seed_high, &header.seed_low, &header.total_len];
        let origin = origin.map(get);
        let now = region.now();
        let before = self.before.take().filter(|look| look.origin == origin);
        let since_s = before.as_ref().map_or(0.0, |look| seconds(look.at_us, now.us()));
        let prove = super::workers::prover(region);
        let holdings = super::holdings::holdings(region, &prove);
        let stats = super::stats::stats(region);
        let (old, old_stats) = match &before {
            Some(look) if since_s > 0.0 => (Some(look.tallies.as_slice()), Some(&look.stats)),
            _ => (None, None),
        };
        let keys = compare(region, old, wanted, &holdings.by_key);
        let moved = |name: &str| {
            let old = old_stats.and_then(|stats| stats.get(name));
            let new = stats.get(name).copied().unwrap_or(0);
            old.map_or(0.0, |&old| per_second(new.saturating_sub(old), since_s))
        };
        let mut events = super::events::events(region);
        events.truncate(EVENTS);
        let frame = Frame {
            schema: SCHEMA,
            at_ms: region.wall_s(0).saturating_mul(1_000).saturating_add(now.us() / 1_000),
            since_s,
            header: super::region::header(region),
            workers: super::workers::worker_reports(region, &prove, &holdings.by_owner),
            leases_held: holdings.by_owner.values().fold(0, |sum, held| sum.saturating_add(*held)),
            rates: Rates {
                admitted_per_s: per_second(keys.allowed, since_s),
                denied_per_s: per_second(keys.denied, since_s),
                slots_acquired_per_s: moved("lease_acquired"),
                slots_denied_per_s: moved("lease_denied"),
                no_room_per_s: moved("table_full"),
                cooldowns_per_s: moved("cooldowns"),
            },
            matching: keys.matching,
            hottest: reports(region, &keys.hottest, &holdings.by_key, since_s),
            leaders: super::leaders::leaders(region, &prove),
            deployments: super::deployments::deployments(region, &holdings.by_key),
            pools: super::pools::pools(region, &holdings),
            features: super::features::features(region),
            events,
            stats,
        };
        let stats = frame.stats.clone();
        self.before = Some(Look { origin, at_us: now.us(), tallies: keys.tallies, stats });
        frame
    }
}

fn seconds(from_us: u64, to_us: u64) -> f64 {
    std::time::Duration::from_micros(to_us.saturating_sub(from_us)).as_secs_f64()
}

/// All keys, compared with what they had counted before.
struct Compared {
    tallies: Vec<Tally>,
    hottest: Vec<Heat>,
    matching: u64,
    allowed: u64,
    denied: u64,
}

/// One pass over the keys. `old` is in the order of its slots; `None` = there is nothing to compare with.
fn compare(
    region: &Region,
    old: Option<&[Tally]>,
    wanted: &Wanted<'_>,
    held: &BTreeMap<u64, u64>,
) -> Compared {
    let now = region.now();
    let mut rest = old.unwrap_or_default();
    let mut found = Hottest::new(wanted.hottest, wanted.order);
    let mut tallies = Vec::with_capacity(rest.len());
    let (mut matching, mut all_allowed, mut all_denied) = (0_u64, 0_u64, 0_u64);
    for (slot, bucket) in region.written(section::BUCKETS, region.buckets()) {
        let limited = |kind: KeyKind| {
            matches!(kind, KeyKind::Gcra | KeyKind::Window | KeyKind::Counter | KeyKind::Sliding)
        };
        let Some(key) = key_of(&bucket.identity)
            .filter(|key| KeyKind::from_raw(key.kind()).is_some_and(limited))
        else {
            continue;
        };
        let (allowed, denied) = (get(&bucket.allowed), get(&bucket.denied));
        let tally = Tally { slot, identity: key.bits(), allowed, denied };
        tallies.push(tally);
        let passed = rest.iter().take_while(|tally| tally.slot < slot).count();
        rest = rest.get(passed..).unwrap_or_default();
        let same = rest.first().filter(|old| (old.slot, old.identity) == (slot, tally.identity));
        // A key that was not there before has counted all of its operations since.
        let (old_allowed, old_denied) = same.map_or((0, 0), |old| (old.allowed, old.denied));
        let moved = allowed.checked_sub(old_allowed).zip(denied.checked_sub(old_denied));
        let moved = moved.filter(|_| old.is_some());
        let (allowed, denied) = moved.unwrap_or((0, 0));
        all_allowed = all_allowed.saturating_add(allowed);
        all_denied = all_denied.saturating_add(denied);
        if wanted.name.is_none_or(|wanted| wanted(&limits::key_name(region, slot))) {
            matching += 1;
            let used_pct = limits::used_pct(bucket, held_by(held, slot), now).unwrap_or(-1.0);
            found.add(Heat { tally, denied, allowed, used_pct, known: moved.is_some() });
        }
    }
    let (hottest, allowed, denied) = (found.sorted(), all_allowed, all_denied);
    Compared { tallies, hottest, matching, allowed, denied }
}

fn held_by(held: &BTreeMap<u64, u64>, slot: usize) -> u64 {
    held.get(&(slot as u64).wrapping_add(1)).copied().unwrap_or(0)
}

/// Those of the keys that still stand where they stood.
fn reports(
    region: &Region,
    hottest: &[Heat],
    held: &BTreeMap<u64, u64>,
    since_s: f64,
) -> Vec<LimitReport> {
    let report = |heat: &Heat| {
        let slot = heat.tally.slot;
        let mut report = limits::limit(region, slot, held_by(held, slot))?;
        let bucket = region.buckets().get(slot)?;
        key_of(&bucket.identity).filter(|key| key.bits() == heat.tally.identity)?;
        if heat.known && since_s > 0.0 {
            report.allowed_per_s = Some(per_second(heat.allowed, since_s));
            report.denied_per_s = Some(per_second(heat.denied, since_s));
        }
        Some(report)
    };
    hottest.iter().filter_map(report).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::engine::slots::SlotAsk;
    use crate::engine::tests::engine;
    use crate::engine::windows::Ask;
    use crate::inspect::tests::check;
    use crate::layout::IdentityWord;

    use crate::sync::Ordering::Relaxed;

    fn rates_of(frame: &Frame) -> Vec<(&str, Option<f64>, Option<f64>)> {
        let of = |key: &LimitReport| (key.allowed_per_s, key.denied_per_s);
        frame.hottest.iter().map(|key| (key.key.as_str(), of(key).0, of(key).1)).collect()
    }

    #[test]
    fn rates_are_what_was_counted_in_the_time_between() {
        let (engine, clock) = engine();
        let mut watcher = Watcher::default();
        check(&engine, "busy", 4);
        let first = watcher.look(engine.region(), 5);
        assert_eq!((first.since_s, first.rates), (0.0, Rates::default()));
        assert_eq!(rates_of(&first), [("busy", None, None)]);
        clock.advance_ns(2_500_000_000);
        check(&engine, "busy", 10);
        check(&engine, "new", 5);
        let slot = |slot_id| SlotAsk {
            key: "{user:u}:max_parallel_requests",
            limit: 1,
            ttl_s: 60,
            slot_id,
        };
        assert!(
            engine.acquire_all(&[slot("a")]).is_ok() && engine.acquire_all(&[slot("b")]).is_ok()
        );
        let second = watcher.look(engine.region(), 5);
        assert_eq!((second.since_s, second.at_ms - first.at_ms), (2.5, 2_500));
        assert_eq!(
            second.rates,
            Rates {
                admitted_per_s: (6.0 + 5.0 + 1.0) / 2.5,
                denied_per_s: 4.0 / 2.5,
                slots_acquired_per_s: 0.4,
                slots_denied_per_s: 0.4,
                ..Rates::default()
            }
        );
        let expected = [("busy", 2.4, 1.6), ("new", 2.0, 0.0), ("user:u", 0.4, 0.0)];
        assert_eq!(
            rates_of(&second),
            expected.map(|(key, allowed, denied)| (key, Some(allowed), Some(denied)))
        );
        assert_eq!((second.leases_held, second.workers.len()), (1, 1));
        clock.advance_s(1);
        let third = watcher.look(engine.region(), 5);
        assert_eq!((third.since_s, third.rates), (1.0, Rates::default()));
    }

    #[test]
    fn the_hottest_are_those_refused_most_then_admitted_most_then_fullest() {
        let (engine, clock) = engine();
        let mut watcher = Watcher::default();
        // More than are compared at a time.
        (0..700).for_each(|n| check(&engine, &format!("still-{n}"), 1));
        check(&engine, "fuller", 3);
        let first = watcher.look(engine.region(), 1);
        assert_eq!(first.hottest[0].key, "fuller");
        clock.advance_s(1);
        check(&engine, "refused", 12);
        check(&engine, "refused less", 11);
        check(&engine, "admitted", 7);
        let order = |hottest: usize, watcher: &mut Watcher| {
            let frame = watcher.look(engine.region(), hottest);
            frame.hottest.into_iter().map(|key| key.key).collect::<Vec<_>>()
        };
        assert_eq!(
            order(4, &mut watcher),
            ["refused", "refused less", "admitted", "fuller"].map(str::to_string)
        );
        assert_eq!(order(0, &mut watcher).len(), 0);
        assert_eq!(order(5_000, &mut watcher).len(), 704);
    }

    #[test]
    fn the_hottest_are_found_in_any_order() {
        let heat = |n: u64| Heat {
            tally: Tally {
                slot: usize::try_from(n).unwrap(),
                identity: n,
                allowed: 0,
                denied: n * 31 % 97,
            },
            denied: n % 3,
            allowed: n * 7_919 % 1_009,
            used_pct: f64::from(u32::try_from(n * 57 % 101).unwrap()),
            known: true,
        };
        let heats: Vec<Heat> = (0..10_000).map(heat).collect();
        let slots = |found: &[Heat]| found.iter().map(|heat| heat.tally.slot).collect::<Vec<_>>();
        let mut firsts = Vec::new();
        for order in [Order::Refused, Order::Admitted, Order::Used, Order::RefusedInAll] {
            let mut sorted = heats.clone();
            sorted.sort_by(|one, other| one.compare(other, order));
            for wanted in [0, 1, 7, 100] {
                let mut hottest = Hottest::new(wanted, order);
                for &heat in &heats {
                    hottest.add(heat);
                }
                assert_eq!(slots(&hottest.sorted()), slots(&sorted[..wanted]));
            }
            firsts.push(sorted[0]);
        }
        assert_eq!((firsts[0].denied, firsts[1].allowed), (2, 1_008));
        assert_eq!((firsts[2].used_pct, firsts[3].tally.denied), (100.0, 96));
    }

    #[test]
    fn names_choose_what_is_reported_and_not_what_is_counted() {
        let (engine, clock) = engine();
        let mut watcher = Watcher::default();
        check(&engine, "ours", 1);
        watcher.look(engine.region(), 5);
        clock.advance_s(2);
        check(&engine, "theirs", 12);
        check(&engine, "ours", 2);
        let ours = |name: &str| name.starts_with("our");
        let wanted = Wanted { hottest: 5, name: Some(&ours), ..Wanted::default() };
        let frame = watcher.look_for(engine.region(), &wanted);
        assert_eq!(rates_of(&frame), [("ours", Some(1.0), Some(0.0))]);
        assert_eq!((frame.matching, frame.header.keys), (1, 2));
        assert_eq!((frame.rates.admitted_per_s, frame.rates.denied_per_s), (6.0, 1.0));
        assert_eq!(watcher.look(engine.region(), 1).matching, 2);
    }

    /// A key that was reset, or whose slot is another's by now, has no rate that could be told.
    #[test]
    fn counts_that_go_back_are_no_rate() {
        let (engine, clock) = engine();
        let mut watcher = Watcher::default();
        check(&engine, "reset", 8);
        check(&engine, "other", 1);
        watcher.look(engine.region(), 5);
        let bucket = engine.region().buckets().iter().find(|bucket| get(&bucket.allowed) == 8);
        let bucket = bucket.unwrap();
        bucket.allowed.store(2, Relaxed);
        clock.advance_s(1);
        let frame = watcher.look(engine.region(), 5);
        assert_eq!(rates_of(&frame)[0], ("reset", None, None));
        assert_eq!(rates_of(&frame)[1], ("other", Some(0.0), Some(0.0)));
        assert_eq!(frame.rates, Rates::default());
        // Another key stands there now: all it has counted is new.
        let key = get(&bucket.identity);
        let other = IdentityWord::new(key.state(), key.kind(), key.version(), key.hash() ^ 1);
        bucket.identity.store(other, Relaxed);
        bucket.allowed.store(3, Relaxed);
        clock.advance_s(1);
        let frame = watcher.look(engine.region(), 5);
        assert_eq!(frame.hottest[0].allowed_per_s, Some(3.0));
        assert_eq!(frame.rates, Rates { admitted_per_s: 3.0, ..Rates::default() });
    }

    #[test]
    fn another_region_begins_anew() {
        let (engine, clock) = engine();
        let (other, _) = self::engine();
        let mut watcher = Watcher::default();
        watcher.look(engine.region(), 5);
        clock.advance_s(1);
        check(&other, "k", 3);
        let frame = watcher.look(other.region(), 5);
        assert_eq!((frame.since_s, frame.rates), (0.0, Rates::default()));
        assert_eq!(rates_of(&frame), [("k", None, None)]);
    }

    #[test]
    fn windows_are_compared_by_their_fullest_limit() {
        let (engine, _) = engine();
        let ask = |window, counter, limit| Ask { window, counter, limit, amount: 9, size_s: 60 };
        let asks = [
            ask("{team:a}:window", "{team:a}:requests", 100),
            ask("{team:b}:window", "{team:b}:tokens", 10),
        ];
        engine.admit_all(&asks).unwrap();
        let frame = Watcher::default().look(engine.region(), 2);
        let used: Vec<_> =
            frame.hottest.iter().map(|key| (key.key.as_str(), key.used_pct)).collect();
        assert_eq!(used, [("team:b", Some(90.0)), ("team:a", Some(9.0))]);
    }
}
