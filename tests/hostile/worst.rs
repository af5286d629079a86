//! Regions in which everything takes as long as it can: no place is free, no search ends early, and every
//! key in the way has to be counted before it turns out that it must stay. The bounds hold there, too.

use super::drive::{Caller, KEYS, Limiters, OPERATIONS, Operation, SLOTS, SUBJECTS, TTL_S};
use super::ground::{Ground, smallest};
use super::source::Source;
use super::steps::{self, Size};
use super::targets;
use super::watch::Watch;
use fast_litellm::config::{Capacity, Overflow};
use fast_litellm::engine::admission::{Demand, MAX_LIMITS, Rule};
use fast_litellm::engine::slots::SlotAsk;
use fast_litellm::layout::{
    ClaimWord, IdentityWord, KeyKind, LeaseLimits, LeaseWord, OwnerTag, WorkerState,
};
use fast_litellm::primitives::mix;
use fast_litellm::sync::{Bits, Ordering};
use fast_litellm::tables::index;

const ORDER: Ordering = Ordering::Relaxed;
/// Hash of the one key that stands everywhere.
const HASH: u64 = 0x5eed_5eed_5eed_5eed;
/// No table has so many slots.
const NO_LIMIT: u64 = 1 << 40;

/// Who holds all slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Nobody,
    Us,
    Gone,
}

/// A region that is as bad as can be.
#[derive(Debug, Clone, Copy)]
struct Worst {
    /// Kind of the key in all buckets; `None` = those stay that are used, and say that they hold all slots.
    kind: Option<KeyKind>,
    /// Whether all chunks are the deployments' rather than that key's.
    flights: bool,
    holder: Holder,
    policy: Overflow,
}

impl Worst {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for kind in [None, Some(KeyKind::Counter), Some(KeyKind::Gcra)] {
            for holder in [Holder::Nobody, Holder::Us, Holder::Gone] {
                for flights in [false, true] {
                    let policy = Overflow::ALL[all.len() % Overflow::ALL.len()];
                    all.push(Self { kind, flights, holder, policy });
                }
            }
        }
        all
    }

    fn spoil(self, ground: &Ground) {
        let region = ground.region();
        let me = ground.engine.me().expect("a row");
        let named = index::identity(KeyKind::Named, HASH);
        let key = self.kind.map(|kind| index::identity(kind, HASH));
        // More than there are.
        let all_slots = LeaseLimits::new(1, LeaseLimits::MAX_LIMIT, 0, 0);
        for bucket in region.buckets() {
            bucket.lease.store(all_slots, ORDER);
            if let Some(key) = key {
                bucket.identity.store(key, ORDER);
            }
        }
        for record in region.deployments() {
            record.lease.store(all_slots, ORDER);
            if key.is_some() {
                record.identity.store(named, ORDER);
            }
        }
        for record in region.endpoints() {
            record.lease.store(all_slots, ORDER);
        }
        for record in region.series() {
            record.identity.store(named, ORDER);
        }
        self.take_chunks(ground, if self.flights { named } else { key.unwrap_or(named) });
        if self.holder != Holder::Us {
            for (row, worker) in region.workers().iter().enumerate().skip(1) {
                if row != me.row() as usize {
                    worker.claim.store(ClaimWord::new(WorkerState::Dead as u64, 1, 1, 1), ORDER);
                }
            }
        }
        region.set_overflow(self.policy);
    }

    fn take_chunks(self, ground: &Ground, key: IdentityWord) {
        let holder = match self.holder {
            Holder::Nobody => LeaseWord::default(),
            Holder::Us => LeaseWord::new(ground.engine.me().map_or(0, OwnerTag::raw), 1, 0),
            Holder::Gone => LeaseWord::new(7, 1, 0),
        };
        for (ordinal, chunk) in (0_u64..).zip(ground.region().chunks()) {
            let hash = mix(key.bits() ^ ordinal.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            chunk.identity.store(index::identity(KeyKind::Chunk, hash), ORDER);
            // Every one is another key's, as far as it says.
            chunk.key_slot.store(ordinal + 1, ORDER);
            for word in &chunk.holders {
                word.store(holder, ORDER);
            }
        }
    }
}

/// What takes all slots there are, or as many keys as there may be.
fn the_greediest(ground: &Ground) {
    let (engine, size) = (&ground.engine, Size::of(ground.region()));
    let ask = |key| SlotAsk { key, limit: i64::MAX, ttl_s: TTL_S, slot_id: "0" };
    let _ = steps::within(size.slots(1), || engine.acquire_all(&[ask(SLOTS[0])]));
    let _ = steps::within(size.slots(1), || engine.depart("a", Some(NO_LIMIT)));
    let rule = Rule::Slots { limit: NO_LIMIT, ttl_s: TTL_S };
    let demand = |at: usize| Demand::new(SUBJECTS[at % SUBJECTS.len()], rule, 1);
    let mut demands: [Demand<'_>; MAX_LIMITS] = std::array::from_fn(demand);
    let _ = steps::within(size.slots(MAX_LIMITS as u64), || engine.admit(&mut demands).is_ok());
}

fn try_everything(capacity: Capacity) {
    let watch = Watch::new();
    let ground = Ground::of(capacity);
    let limiters = Limiters::of(&ground.engine);
    let mut caller = Caller::new(&ground.engine, &limiters);
    let mut source = Source::Seeded(5);
    let mut run = |n: usize| {
        for _ in 0..n {
            caller.run(&Operation::any(&mut source, &KEYS));
        }
    };
    run(200);
    let used = ground.read(0, ground.len());
    for worst in Worst::all() {
        let spoil = || {
            ground.put_bytes(0, &used);
            worst.spoil(&ground);
            // So that it looks for dead workers again.
            ground.clock.advance_ns(100_000_000);
        };
        for _ in 0..OPERATIONS.len() {
            watch.begin(|| format!("{worst:?}"));
            spoil();
            run(1);
        }
        spoil();
        the_greediest(&ground);
        spoil();
        targets::look(ground.region());
    }
}

#[test]
fn at_worst_every_operation_stays_within_its_bound() {
    try_everything(smallest());
}

/// The bounds are functions of the capacities, so that those matter, too.
#[test]
fn at_worst_every_operation_of_a_larger_region_stays_within_its_bound() {
    try_everything(Capacity { keys: 2_000, lease_chunks: 256, workers: 32, deployments: 128 });
}
