//! Operations on a region by one process: keys become slots, time is read once per operation, answers
//! carry what the caller needs, and every exceptional path is counted.
//!
//! [`keys`] finds buckets and makes room for them; [`quota`] holds the GCRA limiter, [`windows`] the
//! anchored windows, [`sliding`] the sliding ones, [`slots`] the concurrency slots, [`admission`] all of
//! them in one call, [`health`] the deployments, [`routing`] the choice among them, [`calls`] what becomes of
//! a call to one, [`leader`] who leads a job, [`pool`] connections, [`board`] notices, [`features`] breakers and
//! switches, [`measure`] histograms and events, [`sampling`] which operations are timed. [`foresight`] tells what a
//! limit would answer without asking it, [`reset`] forgets what was charged.

pub mod admission;
pub mod board;
pub mod calls;
pub mod features;
pub mod foresight;
mod former;
pub mod health;
pub mod keys;
pub mod leader;
pub mod measure;
pub mod pool;
pub mod quota;
mod random;
pub mod reset;
pub mod routing;
pub mod sampling;
pub mod sliding;
pub mod slots;
pub mod spend;
pub mod subject;
#[cfg(test)]
mod together;
pub mod windows;

use crate::clock::Instant;
use crate::error::OpError;
use crate::layout::{Bucket, ClaimWord, EventKind, LeaseWord, OwnerTag, StatsRow, WorkerRow};
use crate::liveness::Liveness;
use crate::primitives::Contended;
use crate::region::{Region, Vantage, fork_generation, watch_forks};
use crate::sync::{Ordering, Word};
use crate::tables::slot_cache::SlotCache;
use crate::tables::workers;
use std::sync::OnceLock;

/// Keys whose last chunk a process remembers; a power of two.
const CURSORS: usize = if cfg!(miri) { 1 << 5 } else { 1 << 12 };
/// Rounds of an operation whose inner loop ran out of tries before it gives up.
const ROUNDS: u32 = 16;
/// How often one process records that keys find no room, microseconds.
const OVERFLOW_INTERVAL_US: u64 = 1_000_000;
/// How often one process looks for dead workers while it is being refused, microseconds.
const REAP_INTERVAL_US: u64 = 50_000;

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
    /// Slots of connections that were given back lately, by the endpoint's record, the latest in the lowest byte.
    recent: Box<[Word<u64>]>,
    last_reap_us: Word<u64>,
    last_overflow_us: Word<u64>,
    dice: random::Dice,
    /// Buckets of keys without room, where the policy is that each process decides for itself.
    overflow: OnceLock<Box<[Bucket]>>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

/// What was freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Reaped {
    /// Rows of dead workers.
    pub workers: u64,
    /// Concurrency slots.
    pub slots: u64,
}

/// Which statistics counter to move.
pub type Counter = fn(&StatsRow) -> &Word<u64>;

impl Engine {
    /// Uses a region. Registers this process at once, so that inspectors see it.
    pub fn new(region: Region) -> Self {
        let engine = Self::unregistered(region);
        engine.me();
        engine
    }

    /// Uses a region for maintenance: registers this process only with an operation that needs it, which
    /// [`Self::reap_all`] is not.
    pub fn unregistered(region: Region) -> Self {
        watch_forks();
        let cursors = std::iter::repeat_with(|| Word::new(0)).take(CURSORS).collect();
        let recent = region.endpoints().iter().map(|_| Word::new(0)).collect();
        let local = Local {
            me: Word::new(u64::MAX << 32),
            held: SlotCache::default(),
            cursors,
            recent,
            last_reap_us: Word::new(0),
            last_overflow_us: Word::new(0),
            dice: random::Dice::default(),
            overflow: OnceLock::new(),
        };
        Self { region, local }
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
        self.reap_former_self();
        let process = Vantage::of(self.region.header()).own();
        let now_s = self.now().s();
        let owner = workers::register(rows, process, now_s).or_else(|| {
            self.reap_if_due(self.now());
            workers::register(rows, process, now_s)
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
        // First, so that no other thread claims anything for a row that is being given back: the next
        // operation registers again.
        let nobody = u64::MAX << 32;
        let forgotten =
            self.local.me.compare_exchange(seen, nobody, Ordering::AcqRel, Ordering::Relaxed);
        if let (Ok(_), Some(owner)) = (forgotten, OwnerTag::from_raw(seen & u64::from(u32::MAX))) {
            self.free_slots_of(|holder| holder == owner);
            workers::leave(self.region.workers(), owner);
        }
    }

    /// An owner that may hold leases, or the reason why there is none. A process whose row says something else
    /// registers again: all its leases would count as nobody's.
    fn owner(&self) -> Result<OwnerTag, OpError> {
        self.me()
            .filter(|&owner| !workers::is_gone(self.region.workers(), owner))
            .or_else(|| {
                let seen = self.local.me.load(Ordering::Acquire);
                self.register(seen)
            })
            .ok_or(OpError::WorkersFull)
    }

    /// This process's statistics row; row 0 when it has none.
    #[inline]
    pub fn stats(&self) -> &StatsRow {
        self.stats_of(self.me())
    }

    #[inline]
    fn stats_of(&self, owner: Option<OwnerTag>) -> &StatsRow {
        let row = owner.map_or(0, |owner| owner.row() as usize);
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

    /// Repeats a step on words that no key can lose while it runs out of tries.
    fn insist<T>(&self, mut step: impl FnMut() -> Result<T, Contended>) -> Result<T, OpError> {
        for _ in 0..ROUNDS {
            if let Ok(done) = step() {
                return Ok(done);
            }
            std::hint::spin_loop();
        }
        Err(self.counted(OpError::Contended))
    }

    fn counted(&self, error: OpError) -> OpError {
        match error {
            OpError::TableFull | OpError::LeasesFull | OpError::WorkersFull => {
                self.count(|row| &row.table_full);
            }
            OpError::Contended => self.count(|row| &row.contended),
            OpError::OutOfRange | OpError::TooLarge => {}
        }
        error
    }

    /// Proves which workers are dead and frees what they held. Returns the number of workers reaped.
    /// Any process may call it at any time.
    pub fn reap_dead(&self) -> u64 {
        self.reap().workers
    }

    /// As [`Self::reap_dead`], and frees the slots of owners that are gone without a row that says so: of a
    /// process that gave its row back while another of its threads was still acquiring. Looks at every
    /// slot of the region; for maintenance, operations free such slots when they meet them.
    pub fn reap_all(&self) -> Reaped {
        let Reaped { workers, slots } = self.reap();
        let rows = self.region.workers();
        let left = self.free_slots_of(|holder| workers::is_gone(rows, holder));
        self.stats_of(self.registered()).lease_reaped.fetch_add(left, Ordering::Relaxed);
        Reaped { workers, slots: slots + left }
    }

    fn reap(&self) -> Reaped {
        self.reap_by(workers::prover(Vantage::of(self.region.header())))
    }

    /// Frees what those rows' owners held whom `prove` proves dead.
    fn reap_by(&self, prove: impl Fn(&WorkerRow, ClaimWord) -> Liveness) -> Reaped {
        let rows = self.region.workers();
        let me = self.registered();
        let mut slots = 0;
        let workers = workers::reap(rows, me, prove, |owner| {
            let freed =
                self.free_slots_of(|holder| holder == owner || workers::is_gone(rows, holder));
            slots += freed;
            let claim = rows.get(owner.row() as usize).map(|row| row.claim.load(Ordering::Relaxed));
            let pid = claim.map_or(0, ClaimWord::pid);
            self.event(EventKind::WorkerReaped, pid, freed);
        });
        if workers + slots > 0 {
            let stats = self.stats_of(me);
            stats.workers_reaped.fetch_add(workers, Ordering::Relaxed);
            stats.lease_reaped.fetch_add(slots, Ordering::Relaxed);
        }
        Reaped { workers, slots }
    }

    /// As [`Self::me`], without registering.
    fn registered(&self) -> Option<OwnerTag> {
        let seen = self.local.me.load(Ordering::Acquire);
        (seen >> 32 == fork_generation() & u64::from(u32::MAX))
            .then(|| OwnerTag::from_raw(seen & u64::from(u32::MAX)))
            .flatten()
    }

    /// As [`Self::reap_dead`], but at most once in a while per process.
    fn reap_if_due(&self, now: Instant) -> u64 {
        if is_due(&self.local.last_reap_us, now, REAP_INTERVAL_US) { self.reap_dead() } else { 0 }
    }

    /// Whether a lease's holder can no longer give it back.
    fn holder_is_gone(&self, word: LeaseWord) -> bool {
        OwnerTag::from_raw(word.owner())
            .is_none_or(|owner| workers::is_gone(self.region.workers(), owner))
    }
}

/// Whether so much time has passed since this was true the last time. True for one caller only.
fn is_due(last_us: &Word<u64>, now: Instant, interval_us: u64) -> bool {
    let last = last_us.load(Ordering::Relaxed);
    let due = now.us() >= last.saturating_add(interval_us) || now.us() < last;
    due && last_us
        .compare_exchange(last, now.us().max(1), Ordering::Relaxed, Ordering::Relaxed)
        .is_ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clock::FakeClock;
    use crate::config::Capacity;
    use crate::region::create_heap;
    use crate::tables::names;

    /// A small region on the heap with a clock that stands still.
    pub(crate) fn engine() -> (Engine, FakeClock) {
        let clock = FakeClock::at(1_000_000_000_000);
        let mut capacity = Capacity::checked(1024, 64, 16).expect("valid");
        if cfg!(miri) {
            capacity = capacity.with_deployments(64).expect("valid");
        }
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
            assert!((0..=keys::NAME_CHECKS).all(|_| used()));
            assert_eq!(names.iter().filter(|&name| names::read(name).is_some()).count(), 1);
        }
    }

    #[test]
    fn a_full_worker_table_is_an_error_of_leases_only() {
        let (engine, _) = engine();
        let rows = engine.region.workers();
        let process = Vantage::of(engine.region.header()).own();
        while workers::register(rows, process, 0).is_some() {}
        engine.leave();
        // The row just freed is taken by somebody else.
        workers::register(rows, process, 0).unwrap();
        let ask =
            slots::SlotAsk { key: "{a:b}:max_parallel_requests", limit: 1, ttl_s: 0, slot_id: "x" };
        assert_eq!(engine.acquire_all(&[ask]), Err(OpError::WorkersFull));
        assert!(engine.hit_all(&[("{a:b}:window", "{a:b}:requests")], 60).is_ok());
        assert!(engine.total(|row| &row.table_full) >= 1);
    }
}
