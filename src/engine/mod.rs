//! Operations on a region by one process: keys become slots, time is read once per operation, answers
//! carry what the caller needs, and every exceptional path is counted.
//!
//! [`quota`] holds the GCRA limiter, [`windows`] the anchored windows, [`slots`] the concurrency slots.

pub mod quota;
pub mod slots;
pub mod subject;
pub mod windows;

use crate::clock::Instant;
use crate::error::OpError;
use crate::layout::{Bucket, IdentityWord, KeyKind, LeaseWord, OwnerTag, StatsRow};
use crate::region::{Region, fork_generation, host, watch_forks};
use crate::sync::{Ordering, Word};
use crate::tables::slot_cache::SlotCache;
use crate::tables::{index, names, workers};

/// Rounds of an operation whose inner loop ran out of tries before it gives up.
const ROUNDS: u32 = 16;
/// Errors further apart than this do not add up, seconds.
const ERROR_MEMORY_S: u64 = 60;
/// After so many seconds without an error a feature is tried again.
pub const BREAKER_REST_S: u64 = 30;
/// How often one process looks for dead workers while it is being refused, microseconds.
const REAP_INTERVAL_US: u64 = 50_000;
/// A key's name is looked after at some of every so many admitted operations.
const NAME_CHECK_MASK: u64 = 15;
/// At so many of them, from the first: one call may count two and must not pass over the check, and a key
/// whose operations are not counted stays at the first.
const NAME_CHECKS: u64 = 2;

/// A region in use by this process.
///
/// Safe to be inherited over a fork: the child registers itself with its first operation.
#[derive(Debug)]
pub struct Engine {
    region: Region,
    local: Local,
}

/// What this process knows about itself.
struct Local {
    /// `fork generation:32 | owner:32`, one word so that a child can never act as its parent.
    me: Word<u64>,
    held: SlotCache,
    /// Chunk ordinals at which recent leases were found, by key slot.
    cursors: Box<[Word<u64>]>,
    last_reap_us: Word<u64>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

/// A key's slot with its bucket.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    /// Position in the index.
    pub slot: usize,
    /// Identity.
    pub identity: IdentityWord,
    /// State.
    pub bucket: &'a Bucket,
}

/// Which statistics counter to move.
pub type Counter = fn(&StatsRow) -> &Word<u64>;

impl Engine {
    /// Uses a region. Registers this process at once, so that inspectors see it.
    pub fn new(region: Region) -> Self {
        watch_forks();
        let cursors = std::iter::repeat_with(|| Word::new(0)).take(4096).collect();
        let local = Local {
            me: Word::new(u64::MAX << 32),
            held: SlotCache::default(),
            cursors,
            last_reap_us: Word::new(0),
        };
        let engine = Self { region, local };
        engine.me();
        engine
    }

    /// The region.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Now, by the region's clock.
    #[inline]
    pub fn now(&self) -> Instant {
        self.region.now()
    }

    /// This process's owner tag; `None` = the worker table is full.
    #[inline]
    pub fn me(&self) -> Option<OwnerTag> {
        let seen = self.local.me.load(Ordering::Acquire);
        if seen >> 32 == fork_generation() & u64::from(u32::MAX) {
            return OwnerTag::from_raw(seen & u64::from(u32::MAX));
        }
        self.register(seen)
    }

    /// Registers this process after a fork, or at first use. Several threads may come here at once: one
    /// registration stays, the others are given back.
    #[cold]
    fn register(&self, seen: u64) -> Option<OwnerTag> {
        let forks = fork_generation() & u64::from(u32::MAX);
        let rows = self.region.workers();
        let (pid, start) = (std::process::id(), host::own_start_ticks());
        let now_s = self.now().s();
        let owner = workers::register(rows, pid, start, now_s).or_else(|| {
            self.reap_if_due(self.now());
            workers::register(rows, pid, start, now_s)
        });
        let mine = forks << 32 | owner.map_or(0, OwnerTag::raw);
        let won = self.local.me.compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Acquire);
        match won {
            Ok(_) => {
                self.local.held.clear();
                if owner.is_some() {
                    self.count(|row| &row.registrations);
                }
                owner
            }
            Err(now) => {
                if let Some(owner) = owner {
                    workers::leave(rows, owner);
                }
                OwnerTag::from_raw(now & u64::from(u32::MAX))
            }
        }
    }

    /// Gives this process's row and all its leases back. Meant for an orderly exit; a process that dies
    /// without it is reaped.
    pub fn leave(&self) {
        let seen = self.local.me.load(Ordering::Acquire);
        if seen >> 32 != fork_generation() & u64::from(u32::MAX) {
            return;
        }
        if let Some(owner) = OwnerTag::from_raw(seen & u64::from(u32::MAX)) {
            self.free_slots_of(|holder| holder == owner);
            workers::leave(self.region.workers(), owner);
        }
        // The next operation registers again.
        self.local.me.store(u64::MAX << 32, Ordering::Release);
    }

    /// An owner that may hold leases, or the reason why there is none.
    fn owner(&self) -> Result<OwnerTag, OpError> {
        self.me()
            .or_else(|| {
                let seen = self.local.me.load(Ordering::Acquire);
                self.register(seen)
            })
            .ok_or(OpError::WorkersFull)
    }

    /// This process's statistics row; row 0 when it has none.
    #[inline]
    pub fn stats(&self) -> &StatsRow {
        let row = self.me().map_or(0, |owner| owner.row() as usize);
        let rows = self.region.stats();
        rows.get(row).unwrap_or(&rows[0])
    }

    /// Counts one event of this process.
    #[inline]
    pub fn count(&self, counter: Counter) {
        counter(self.stats()).fetch_add(1, Ordering::Relaxed);
    }

    /// Sum of a counter over all rows.
    pub fn total(&self, counter: Counter) -> u64 {
        let sum = |total: u64, row| total.wrapping_add(counter(row).load(Ordering::Relaxed));
        self.region.stats().iter().fold(0, sum)
    }

    fn counted(&self, error: OpError) -> OpError {
        match error {
            OpError::TableFull | OpError::LeasesFull | OpError::WorkersFull => {
                self.count(|row| &row.table_full);
            }
            OpError::Contended => self.count(|row| &row.contended),
            OpError::OutOfRange => {}
        }
        error
    }

    /// The key's slot, inserted if needed; `label` gives its printable name.
    #[inline]
    fn key(
        &self,
        kind: KeyKind,
        domain: u64,
        bytes: &[u8],
        label: impl FnOnce() -> String,
    ) -> Result<Key<'_>, OpError> {
        let (hash, home) = self.region.hash(domain ^ kind as u64, bytes);
        let identity = index::identity(kind, hash);
        let slot = index::find_or_insert(self.region.index(), home, identity)
            .ok_or_else(|| self.counted(OpError::TableFull))?;
        let bucket = &self.region.buckets()[slot.index];
        let operations = bucket.allowed.load(Ordering::Relaxed);
        if slot.inserted || operations & NAME_CHECK_MASK < NAME_CHECKS {
            self.look_after_name(slot.index, label);
        }
        Ok(Key { slot: slot.index, identity, bucket })
    }

    #[cold]
    fn look_after_name(&self, slot: usize, label: impl FnOnce() -> String) {
        let (Some(record), Some(owner)) = (self.region.names().get(slot), self.me()) else {
            return;
        };
        if names::missing(record) {
            let rows = self.region.workers();
            names::publish(record, owner, &label(), |writer| workers::is_gone(rows, writer));
        }
    }

    /// The key's slot if it is in the table.
    fn existing(&self, kind: KeyKind, domain: u64, bytes: &[u8]) -> Option<Key<'_>> {
        let (hash, home) = self.region.hash(domain ^ kind as u64, bytes);
        let identity = index::identity(kind, hash);
        let slot = index::find(self.region.index(), home, identity)?;
        Some(Key { slot, identity, bucket: self.region.buckets().get(slot)? })
    }

    /// Proves which workers are dead and frees what they held. Returns the number of workers reaped.
    /// Any process may call it at any time.
    pub fn reap_dead(&self) -> u64 {
        let rows = self.region.workers();
        let seen = self.local.me.load(Ordering::Acquire);
        let me = (seen >> 32 == fork_generation() & u64::from(u32::MAX))
            .then(|| OwnerTag::from_raw(seen & u64::from(u32::MAX)))
            .flatten();
        let mut freed = 0;
        let reaped = workers::reap(rows, me, |owner| {
            freed += self.free_slots_of(|holder| holder == owner || workers::is_gone(rows, holder));
        });
        if reaped > 0 {
            let stats = self.region.stats();
            let row = me.map_or(0, |owner| owner.row() as usize);
            let row = stats.get(row).unwrap_or(&stats[0]);
            row.workers_reaped.fetch_add(reaped, Ordering::Relaxed);
            row.lease_reaped.fetch_add(freed, Ordering::Relaxed);
        }
        reaped
    }

    /// As [`Self::reap_dead`], but at most once in a while per process.
    fn reap_if_due(&self, now: Instant) -> u64 {
        let last = self.local.last_reap_us.load(Ordering::Relaxed);
        let due = now.us() >= last.saturating_add(REAP_INTERVAL_US) || now.us() < last;
        let claimed = due
            && self
                .local
                .last_reap_us
                .compare_exchange(last, now.us().max(1), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if claimed { self.reap_dead() } else { 0 }
    }

    /// Whether a lease's holder can no longer give it back.
    fn holder_is_gone(&self, word: LeaseWord) -> bool {
        OwnerTag::from_raw(word.owner())
            .is_none_or(|owner| workers::is_gone(self.region.workers(), owner))
    }

    /// Counts an error of a feature; returns its recent errors: a minute without any forgets them.
    pub fn feature_error(&self, feature: usize) -> u64 {
        let now_s = self.now().s();
        let Some(record) = self.region.features().get(feature) else {
            return 0;
        };
        record.errors_total.fetch_add(1, Ordering::Relaxed);
        let mut seen = record.breaker.load(Ordering::Relaxed);
        for _ in 0..ROUNDS {
            let recent = now_s.saturating_sub(seen.last_s()) < ERROR_MEMORY_S;
            let errors = if recent { (seen.errors() + 1).min(u64::from(u32::MAX)) } else { 1 };
            let next = crate::layout::FeatureWord::new(errors, now_s);
            let swap =
                record.breaker.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed);
            match swap {
                Ok(_) => return errors,
                Err(now) => seen = now,
            }
        }
        seen.errors()
    }

    /// Recent errors of a feature, over all workers; 0 once [`BREAKER_REST_S`] has passed without one, so
    /// that it is tried again. If it fails again, one error is enough.
    pub fn feature_errors(&self, feature: usize) -> u64 {
        let Some(record) = self.region.features().get(feature) else { return 0 };
        let breaker = record.breaker.load(Ordering::Relaxed);
        let rested = self.now().s().saturating_sub(breaker.last_s()) >= BREAKER_REST_S;
        if rested { 0 } else { breaker.errors() }
    }

    /// Forgets a feature's errors.
    pub fn reset_feature(&self, feature: usize) {
        if let Some(record) = self.region.features().get(feature) {
            record.breaker.store(crate::layout::FeatureWord::default(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FakeClock;
    use crate::config::Capacity;
    use crate::region::create_heap;

    /// A small region on the heap with a clock that stands still.
    pub(super) fn engine() -> (Engine, FakeClock) {
        let clock = FakeClock::at(1_000_000_000_000);
        let capacity = Capacity::checked(1024, 64, 16).expect("valid");
        let region = create_heap(capacity, Box::new(clock.clone())).expect("heap");
        (Engine::new(region), clock)
    }

    #[test]
    fn leaving_frees_the_row_and_the_next_operation_registers_again() {
        let (engine, _) = engine();
        let first = engine.me().unwrap();
        engine.leave();
        let second = engine.me().unwrap();
        assert_eq!((first.row(), second.generation()), (second.row(), first.generation() + 1));
    }

    /// As its inserter would leave it if it died right after the insert.
    #[test]
    fn a_name_that_was_not_written_is_written_by_whoever_uses_the_key() {
        let (engine, _) = engine();
        let (window, requests, tokens) =
            ("{user:u}:window", "{user:u}:requests", "{user:u}:tokens");
        let hit = || engine.hit_all(&[(window, requests), (window, tokens)], 60).is_ok();
        let add = || engine.add("spend:team", 1, 60).is_ok();
        let uses: [&dyn Fn() -> bool; 2] = [&hit, &add];
        for used in uses {
            assert!(used());
            let names = engine.region.names();
            for name in names {
                name.head.store(crate::layout::NameWord::default(), Ordering::Relaxed);
            }
            assert!((0..=NAME_CHECK_MASK).all(|_| used()));
            assert_eq!(names.iter().filter(|name| !names::missing(name)).count(), 1);
        }
    }

    #[test]
    fn breakers_count_rest_and_reset() {
        let (engine, clock) = engine();
        assert_eq!((engine.feature_error(2), engine.feature_error(2)), (1, 2));
        assert_eq!((engine.feature_errors(2), engine.feature_errors(3)), (2, 0));
        engine.reset_feature(2);
        assert_eq!(engine.feature_errors(2), 0);
        assert_eq!(engine.feature_error(99), 0);
        assert_eq!((engine.feature_error(4), engine.feature_error(4)), (1, 2));
        clock.advance_s(BREAKER_REST_S);
        assert_eq!(engine.feature_errors(4), 0);
        assert_eq!(engine.feature_error(4), 3);
        clock.advance_s(ERROR_MEMORY_S);
        assert_eq!(engine.feature_error(4), 1);
    }

    #[test]
    fn a_full_worker_table_is_an_error_of_leases_only() {
        let (engine, _) = engine();
        let rows = engine.region.workers();
        let own = host::own_start_ticks();
        while workers::register(rows, std::process::id(), own, 0).is_some() {}
        engine.leave();
        // The row just freed is taken by somebody else.
        workers::register(rows, std::process::id(), own, 0).unwrap();
        let ask =
            slots::SlotAsk { key: "{a:b}:max_parallel_requests", limit: 1, ttl_s: 0, slot_id: "x" };
        assert_eq!(engine.acquire_all(&[ask]), Err(OpError::WorkersFull));
        assert!(engine.hit_all(&[("{a:b}:window", "{a:b}:requests")], 60).is_ok());
        assert!(engine.total(|row| &row.table_full) >= 1);
    }
}
