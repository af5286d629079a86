//! The worker table: a tag is given once, and whoever is stopped inside a reap or a leave harms neither the
//! next registration nor its leases.

use crate::layout::{ClaimWord, LeaseWord, OwnerTag, WorkerRow, WorkerState};
use crate::liveness::{Liveness, Process};
use crate::sync::{Ordering, Word};
use crate::tables::workers::{is_gone, leave, may_have_started, reap, register};
use loom::sync::Arc;
use loom::thread;

/// The worst successor: it got the pid of its predecessor, and a start time with the same low bits.
const FIRST: Process = Process { pid: 7, start_ticks: 70, pid_namespace: 1 };
const NEXT: Process = Process { pid: 7, start_ticks: 70 + (1 << 18), pid_namespace: 1 };

/// A worker table with one row to be had, and one concurrency slot.
struct World {
    rows: Vec<WorkerRow>,
    slot: Word<LeaseWord>,
}

impl World {
    fn new(rows: usize) -> Self {
        let row = || WorkerRow {
            claim: Word::new(ClaimWord::default()),
            start_ticks: Word::new(0),
            registered_s: Word::new(0),
            pid_namespace: Word::new(0),
            reserved: std::array::from_fn(|_| Word::new(0)),
        };
        let rows = std::iter::repeat_with(row).take(rows + 1).collect();
        Self { rows, slot: Word::new(LeaseWord::default()) }
    }

    /// With a first process that holds the slot.
    fn with_holder() -> (Arc<Self>, OwnerTag) {
        let world = Arc::new(Self::new(1));
        let owner = register(&world.rows, FIRST, 1).expect("a free row");
        assert!(world.acquire(owner));
        (world, owner)
    }

    fn acquire(&self, owner: OwnerTag) -> bool {
        let word = LeaseWord::new(owner.raw(), 1, 0);
        let free = LeaseWord::default();
        self.slot.compare_exchange(free, word, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    fn holder(&self) -> Option<OwnerTag> {
        OwnerTag::from_raw(self.slot.load(Ordering::Acquire).owner())
    }

    /// As the engine frees: by owner, and whoever else is gone.
    fn free(&self, owner: OwnerTag) -> u32 {
        let word = self.slot.load(Ordering::Acquire);
        let gone = OwnerTag::from_raw(word.owner())
            .is_some_and(|holder| holder == owner || is_gone(&self.rows, holder));
        let free = LeaseWord::default();
        u32::from(
            gone && self
                .slot
                .compare_exchange(word, free, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok(),
        )
    }

    /// Reaps in a world in which pid 7 is a process that started at `found`. Returns rows and slots.
    fn reap(&self, found: u64) -> (u64, u32) {
        let prove = |row: &WorkerRow, claim: ClaimWord| {
            if may_have_started(row, claim, found) { Liveness::Alive } else { Liveness::Dead }
        };
        let mut slots = 0;
        let rows = reap(&self.rows, None, prove, |owner| slots += self.free(owner));
        (rows, slots)
    }

    /// The next process registers if there is a row, and takes the slot. Its row is nobody else's and
    /// nothing is left of the one before.
    fn next(&self, first: OwnerTag) -> Option<OwnerTag> {
        let owner = register(&self.rows, NEXT, 2)?;
        assert_ne!(owner, first);
        assert_ne!(self.holder(), Some(first), "the row was given back before its slots");
        assert!(self.acquire(owner));
        Some(owner)
    }

    /// Nobody has touched the registration of the next process, or its slot.
    fn check_next(&self, owner: OwnerTag) {
        assert!(!is_gone(&self.rows, owner));
        assert_eq!(self.holder(), Some(owner));
        assert_eq!(self.rows[1].start_ticks.load(Ordering::Acquire), NEXT.start_ticks);
    }
}

/// Mutation `register-blind-store`: replace the swap by a store.
#[test]
fn loom_workers_no_tag_is_given_twice() {
    for rows in [1, 2] {
        super::run(move || {
            let world = Arc::new(World::new(rows));
            let other = world.clone();
            let thread = thread::spawn(move || {
                let owner = register(&other.rows, NEXT, 1);
                if let Some(owner) = owner {
                    leave(&other.rows, owner);
                }
                owner
            });
            let mine = register(&world.rows, FIRST, 1);
            let theirs = thread.join().expect("joins");
            assert!(mine.is_some() || theirs.is_some());
            assert_ne!(mine, theirs);
            assert!(mine.is_none_or(|owner| !is_gone(&world.rows, owner)));
            assert!(theirs.is_none_or(|owner| is_gone(&world.rows, owner)));
        });
    }
}

/// Two reapers of one dead process, one of which goes on as the next one: either may be stopped anywhere,
/// for as long as the other needs.
///
/// Mutations: `reap-blind-free` gives the row back by a store, `reap-frees-late` before its slots,
/// `forget-blind-store` zeroes the start time whoever has the row, `claim-relaxed` lets the start time of
/// the one before be seen beside the new claim.
#[test]
fn loom_workers_a_stopped_reaper_frees_only_the_dead() {
    for marked in [false, true] {
        super::run(move || {
            let (world, first) = World::with_holder();
            if marked {
                // By a reaper that was killed right after.
                let claim = world.rows[1].claim.load(Ordering::Relaxed);
                let state = WorkerState::Dead as u64;
                let dead =
                    ClaimWord::new(state, claim.pid(), claim.start_low(), claim.generation());
                world.rows[1].claim.store(dead, Ordering::Relaxed);
            }
            let other = world.clone();
            let thread = thread::spawn(move || other.reap(NEXT.start_ticks));
            let mine = world.reap(NEXT.start_ticks);
            let next = world.next(first);
            let theirs = thread.join().expect("joins");
            assert_eq!((mine.0 + theirs.0, mine.1 + theirs.1), (1, 1));
            assert!(is_gone(&world.rows, first));
            if let Some(next) = next {
                world.check_next(next);
            }
        });
    }
}

/// Two reapers, and a process that registers as soon as there is a row.
///
/// Mutation `reap-blind-mark`: mark dead by a store.
#[test]
fn loom_workers_two_reapers_and_a_newcomer() {
    super::run(|| {
        let (world, first) = World::with_holder();
        let reaper = || {
            let world = world.clone();
            thread::spawn(move || world.reap(NEXT.start_ticks))
        };
        let (a, b) = (reaper(), reaper());
        let next = world.next(first);
        let (a, b) = (a.join().expect("joins"), b.join().expect("joins"));
        assert_eq!((a.0 + b.0, a.1 + b.1), (1, 1));
        if let Some(next) = next {
            world.check_next(next);
        }
    });
}

/// Half a registration is no proof of death, whatever its row held before.
///
/// Mutation `forget-never`: leave the start time of the one before.
#[test]
fn loom_workers_a_newcomer_is_never_taken_for_its_predecessor() {
    super::run(|| {
        let (world, first) = World::with_holder();
        assert_eq!(world.reap(NEXT.start_ticks), (1, 1));
        let other = world.clone();
        let thread = thread::spawn(move || other.reap(NEXT.start_ticks));
        let next = world.next(first).expect("a free row");
        assert_eq!(thread.join().expect("joins"), (0, 0));
        world.check_next(next);
    });
}

/// Two threads of one process give its row back at once, and somebody registers.
///
/// Mutation `leave-blind-store`: replace the swap by a store.
#[test]
fn loom_workers_leaving_twice_harms_nobody() {
    super::run(|| {
        let (world, first) = World::with_holder();
        assert_eq!(world.free(first), 1);
        let other = world.clone();
        let thread = thread::spawn(move || leave(&other.rows, first));
        leave(&world.rows, first);
        assert!(is_gone(&world.rows, first));
        let next = world.next(first).expect("a free row");
        thread.join().expect("joins");
        world.check_next(next);
    });
}

/// A process leaves, or is killed on the way, while another reaps and then takes its place: at the end
/// nothing of it is left, and what came after it stands.
///
/// Mutation `is-gone-any-generation`: whoever has the row now keeps the slots of all before.
#[test]
fn loom_workers_leaving_and_reaping_agree() {
    for steps in 0..3 {
        super::run(move || {
            let (world, first) = World::with_holder();
            // Which process has the pid: the first until it is dead.
            let found = Arc::new(Word::new(FIRST.start_ticks));
            let (other, kernel) = (world.clone(), found.clone());
            let thread = thread::spawn(move || {
                let mut freed = 0;
                if steps > 0 {
                    leave(&other.rows, first);
                }
                if steps > 1 {
                    freed = other.free(first);
                }
                kernel.store(NEXT.start_ticks, Ordering::Release);
                freed
            });
            let early = world.reap(found.load(Ordering::Acquire));
            let freed = thread.join().expect("joins");
            let late = world.reap(found.load(Ordering::Acquire));
            let owner = register(&world.rows, NEXT, 2).expect("a free row");
            // A slot without a row that says so is freed by whoever meets it.
            let met = world.free(owner);
            assert_eq!(early.1 + freed + late.1 + met, 1);
            assert!(is_gone(&world.rows, first) && world.acquire(owner));
            world.check_next(owner);
        });
    }
}

/// A slot is never seen without the registration that holds it.
///
/// Mutation `holder-relaxed`: the slot's holder is read as `leases::reap` must not read it.
#[test]
fn loom_workers_the_holder_of_a_slot_is_seen_registered() {
    super::run(|| {
        let world = Arc::new(World::new(1));
        let other = world.clone();
        let thread = thread::spawn(move || {
            let owner = register(&other.rows, FIRST, 1).expect("a free row");
            assert!(other.acquire(owner));
        });
        if let Some(holder) = world.holder() {
            assert!(!is_gone(&world.rows, holder));
        }
        thread.join().expect("joins");
    });
}
