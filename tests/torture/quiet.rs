//! What must be true of a region when no worker lives and the dead have been reaped.

use crate::crowd::Scene;
use crate::judge::{Fault, Faults};
use crate::limits::{DEPLOYMENTS, SLOTS, VARYING};
use fast_litellm::engine::Engine;
use fast_litellm::engine::health::Departure;
use fast_litellm::engine::slots::{Grant, SlotAsk};
use fast_litellm::inspect::Report;
use fast_litellm::layout::LeaseWord;
use fast_litellm::sync::{Bits, Ordering};
use fast_litellm::tables::index::{self, Keyed};

/// Looks at everything.
pub(crate) fn examine(engine: &Engine, scene: Scene, faults: &mut Faults) {
    for (what, identities) in [("key", keys(engine)), ("lease chunk", chunks(engine))] {
        for twice in duplicates(identities) {
            faults.add(Fault::Duplicate, || format!("{what} {twice:#018x} stands in two places"));
        }
    }
    rows(engine, faults);
    leases(engine, faults);
    if faults.count(Fault::Leaked) == 0 && scene == Scene::Usual {
        every_slot_again(engine, faults);
    }
    let corrected = engine.total(|row| &row.corrected);
    if corrected > 0 {
        faults.add(Fault::WrongStatistics, || {
            format!("{corrected} values were corrected, and nobody has damaged any")
        });
    }
}

/// Identities of all keys.
fn keys(engine: &Engine) -> Vec<u64> {
    standing(engine.region().buckets())
}

/// Identities of all lease chunks.
fn chunks(engine: &Engine) -> Vec<u64> {
    standing(engine.region().chunks())
}

/// What stands in a table, whatever the state of its slot.
fn standing<T: Keyed>(table: &[T]) -> Vec<u64> {
    let key_of = |record: &T| index::key_of(record.identity().load(Ordering::Acquire));
    table.iter().filter_map(key_of).map(Bits::bits).collect()
}

/// Every identity that occurs twice; 0 is none.
pub(crate) fn duplicates(mut identities: Vec<u64>) -> Vec<u64> {
    identities.retain(|&identity| identity != 0);
    identities.sort_unstable();
    identities.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect()
}

/// Only this process is left in the worker table.
fn rows(engine: &Engine, faults: &mut Faults) {
    let own = std::process::id().cast_signed();
    for worker in Report::of(engine.region()).workers {
        if worker.pid != own || worker.alive != "alive" {
            faults.add(Fault::Unreclaimed, || {
                format!("row {} of process {} ({})", worker.row, worker.pid, worker.alive)
            });
        }
    }
}

/// No slot is held, in the report and in the words themselves.
fn leases(engine: &Engine, faults: &mut Faults) {
    for lease in Report::of(engine.region()).leases {
        faults.add(Fault::Leaked, || {
            format!("{} of {} held by row {} ({})", lease.held, lease.key, lease.row, lease.owner)
        });
    }
    for (number, chunk) in engine.region().chunks().iter().enumerate() {
        for (slot, holder) in chunk.holders.iter().enumerate() {
            let word = holder.load(Ordering::Acquire);
            if word != LeaseWord::default() {
                faults.add(Fault::Leaked, || format!("chunk {number}, slot {slot}: {word:?}"));
            }
        }
    }
}

/// Each key grants all its slots once more, and no more; after that its hints are right.
fn every_slot_again(engine: &Engine, faults: &mut Faults) {
    for slots in &SLOTS {
        let limit = slots.limit.or(VARYING.into_iter().max()).unwrap_or(0);
        let id = |number: u64| format!("again-{number}");
        let held = |slot_id: &str| {
            let ask = SlotAsk { key: slots.key, limit: limit.cast_signed(), ttl_s: 0, slot_id };
            matches!(engine.acquire_all(&[ask]), Ok(Grant::Held(_)))
        };
        let granted = (0..=limit).filter(|&number| held(&id(number))).count() as u64;
        if granted != limit {
            faults.add(Fault::Leaked, || {
                format!("{}: {granted} slots of {limit} can be acquired", slots.key)
            });
        }
        for number in 0..=limit {
            let _ = engine.release(slots.key, &id(number));
        }
        for (what, left) in [
            ("counted", engine.count_slots(slots.key, 0)),
            ("reported in flight", engine.in_flight(slots.key, 0)),
        ] {
            if left != Ok(0) {
                faults.add(Fault::WrongHint, || format!("{}: {left:?} {what}, 0 held", slots.key));
            }
        }
    }
    for (id, limit) in DEPLOYMENTS {
        let sent = (0..=limit).filter_map(|_| match engine.depart(id, Some(limit)) {
            Ok(Departure::Sent(flight)) => Some(flight),
            _ => None,
        });
        let sent: Vec<_> = sent.collect();
        if sent.len() as u64 != limit {
            let sent = sent.len();
            faults.add(Fault::Leaked, || format!("{id}: {sent} calls of {limit} can be sent"));
        }
        for flight in &sent {
            engine.arrive(flight);
        }
        let left = engine.flights_to(id);
        if left != 0 {
            faults.add(Fault::WrongHint, || format!("{id}: {left} in flight, 0 sent"));
        }
    }
    for (number, chunk) in engine.region().chunks().iter().enumerate() {
        let hints = [&chunk.held, &chunk.hint].map(|hint| hint.load(Ordering::Relaxed));
        if hints != [0, 0] {
            faults.add(Fault::WrongHint, || {
                let [held, bits] = hints;
                format!("chunk {number}: {} held, hint {bits:#x}, 0 held", held.cast_signed())
            });
        }
    }
}
