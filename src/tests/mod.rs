//! Models for the checker: each explores every interleaving of two or three threads over a few
//! operations. `scripts/mutate.py` breaks the code in the named ways and expects the model to fail.

mod loom_board;
mod loom_breaker;
mod loom_causes;
mod loom_charge;
mod loom_connections;
mod loom_cooldown;
mod loom_events;
mod loom_ewma;
mod loom_gcra;
mod loom_index;
mod loom_leader;
mod loom_leases;
mod loom_names;
mod loom_sliding;
mod loom_tally;
mod loom_window;
mod loom_workers;

use crate::layout::{Bucket, IdentityWord, KeyKind, SlotState};
use crate::sync::{Bits, Ordering};
use crate::tables::index::{self, Probe};
use loom::sync::Arc;

/// Runs a model with the bound that keeps it within seconds.
fn run(model: impl Fn() + Sync + Send + 'static) {
    bounded(3, model);
}

/// The same with another number of preemptions. `LOOM_MAX_PREEMPTIONS` overrules it, for a longer search.
fn bounded(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Four buckets: all places of a key, in the order in which they are looked at.
type Table = Arc<[Bucket; 4]>;

fn key(number: u64) -> IdentityWord {
    index::identity(KeyKind::Gcra, number << 13)
}

fn probe() -> Probe {
    Probe::of(0)
}

/// A table whose slots hold these words.
fn table(words: [IdentityWord; 4]) -> Table {
    let record = |word| {
        let bucket = Bucket::zeroed();
        bucket.identity.store(word, Ordering::Relaxed);
        bucket
    };
    Arc::new(words.map(record))
}

fn standing(table: &Table, wanted: IdentityWord) -> usize {
    let slots = table.iter();
    slots.filter(|slot| index::is(slot.identity.load(Ordering::SeqCst), wanted)).count()
}

fn never_used() -> IdentityWord {
    IdentityWord::from_bits(0)
}

/// A slot that was given up before.
fn free() -> IdentityWord {
    IdentityWord::new(SlotState::Free as u64, 0, 6, 1)
}

/// Makes the slots of one key free, whatever they say.
fn give_up(table: &Table, wanted: IdentityWord) {
    let _ =
        index::make_room(&table[..], probe(), |seen, _| index::is(seen, wanted), |_, _, _| true);
}
