//! Charges and giving up: a charge that was granted stands under its key, wherever that stands by then.

use super::{Table, key, probe, table};
use crate::layout::{Bucket, GcraWord, IdentityWord, LeaseChunk, LeaseLimits};
use crate::primitives::gcra::{self, Decision, Quota};
use crate::primitives::mix;
use crate::sync::{Bits, Ordering, Word};
use crate::tables::buckets;
use crate::tables::index::{self, Held, NotInserted};
use crate::tables::leases::Leases;
use loom::thread;

const NOW_US: u64 = 5_000_000;

fn quota() -> Quota {
    Quota::new(60, 4).expect("valid")
}

/// A table of which only the first slot is not in use by others, whose keys are never idle.
fn crowded(first: IdentityWord) -> Table {
    let others = [2, 3, 4].map(|number| key(number * 100));
    table([first, others[0], others[1], others[2]])
}

fn leases<'a>(key: IdentityWord, limits: &'a Word<LeaseLimits>) -> Leases<'a> {
    const NONE: &[LeaseChunk] = &[];
    Leases { chunks: NONE, key, key_slot: 0, limits, nonce: || 0 }
}

fn make_room(table: &Table) -> Result<Option<IdentityWord>, NotInserted> {
    index::make_room(
        &table[..],
        probe(),
        |key, bucket| {
            let ours = key.hash() < 100;
            ours && buckets::is_idle(key, bucket, &leases(key, &bucket.lease), NOW_US)
        },
        |_, key, bucket| buckets::clear(key, bucket, &leases(key, &bucket.lease), NOW_US),
    )
}

/// Where a key stands, inserted if needed.
fn place(table: &Table, wanted: IdentityWord) -> Option<usize> {
    for _ in 0..4 {
        if let Some(place) = index::find(&table[..], probe(), wanted) {
            return Some(place);
        }
        match index::insert(&table[..], probe(), wanted, || mix(wanted.bits())) {
            Ok(slot) => return Some(slot.index),
            Err(_) => make_room(table).ok()?,
        };
    }
    None
}

/// One request of a key, as the engine makes it.
fn charged(table: &Table, wanted: IdentityWord) -> bool {
    (0..4).any(|_| {
        let place = place(table, wanted);
        place.is_some_and(|place| charge_at(&table[place], wanted, quota()))
    })
}

fn charge_at(bucket: &Bucket, wanted: IdentityWord, quota: Quota) -> bool {
    let word = Held::new(&bucket.requests, &bucket.identity, wanted);
    let mut suspect = false;
    let decision = gcra::charge(word, NOW_US, quota, 1, &mut suspect);
    if suspect {
        gcra::repair(word, || NOW_US, quota);
    }
    matches!(decision, Ok(Decision::Allowed { .. }))
}

/// What a key owes where it stands, in requests.
fn owed(table: &Table, wanted: IdentityWord) -> u64 {
    let standing = |bucket: &&Bucket| index::is(bucket.identity.load(Ordering::SeqCst), wanted);
    let tat_us = |bucket: &Bucket| {
        GcraWord::from_bits(bucket.requests.load(Ordering::SeqCst).bits()).tat_us()
    };
    let owed = |bucket| tat_us(bucket).saturating_sub(NOW_US) / 1_000_000;
    table.iter().filter(standing).map(owed).sum()
}

/// One process charges, another gives idle keys up.
///
/// Mutations `charge-without-second-look`, `reclaim-blind-free`, `reclaim-blind-clear`.
#[test]
fn loom_charge_is_not_lost_to_a_reclaim() {
    super::run(|| {
        let table = crowded(key(1));
        let other = table.clone();
        let thread = thread::spawn(move || make_room(&other).is_ok());
        assert!(charged(&table, key(1)));
        thread.join().expect("joins");
        assert_eq!(owed(&table, key(1)), 1);
    });
}

/// Two processes give idle keys up, and one of them is late: it finds the mark of the other, or its own mark
/// after the key was taken back and marked again. With a record that nothing is zeroed in, as in the chunks
/// of concurrency slots, so that only the mark protects it.
///
/// Mutation `reclaim-marks-alike`.
#[test]
fn loom_charge_is_not_lost_to_a_late_reclaim() {
    super::run(|| {
        let table = crowded(key(1));
        let reclaim = |table: Table| {
            thread::spawn(move || {
                let idle = |seen, bucket: &Bucket| {
                    index::is(seen, key(1)) && bucket.denied.load(Ordering::SeqCst) == 0
                };
                index::make_room(&table[..], probe(), idle, |_, _, _| true).is_ok()
            })
        };
        let (a, b) = (reclaim(table.clone()), reclaim(table.clone()));
        let charge =
            |word: &Word<u64>| word.compare_exchange(0, 1, Ordering::SeqCst, Ordering::Relaxed);
        let charged = charge(&table[0].denied).is_ok() && index::holds(&table[0].identity, key(1));
        let gone = a.join().expect("joins") | b.join().expect("joins");
        assert!(charged != gone);
    });
}

/// A process finds its key's bucket and is stopped; when it goes on the bucket is another key's, whose words
/// it takes for damage, because its own rule never writes such.
///
/// Mutation `charge-without-first-look`.
#[test]
fn loom_charge_harms_no_other_key() {
    super::run(|| {
        let table = crowded(key(1));
        let other = table.clone();
        let thread = thread::spawn(move || {
            let charges = [charged(&other, key(2)), charged(&other, key(2))];
            charges.into_iter().filter(|&charged| charged).count() as u64
        });
        let strict = Quota::new(6_000_000, 1).expect("valid");
        let mine = charge_at(&table[0], key(1), strict);
        let theirs = thread.join().expect("joins");
        // Mine costs too little to be seen.
        assert_eq!(owed(&table, key(2)), theirs);
        assert!(theirs == if mine { 0 } else { 2 }, "one bucket, two keys");
    });
}

/// The same, and the other key has not been charged: it does not pay for what was not its own.
///
/// Mutation `charge-stays-with-another`.
#[test]
fn loom_charge_is_taken_back_from_another_key() {
    super::run(|| {
        let table = crowded(key(1));
        let other = table.clone();
        let thread = thread::spawn(move || place(&other, key(2)).is_some());
        let mine = charge_at(&table[0], key(1), quota());
        let displaced = thread.join().expect("joins");
        assert!(mine != displaced, "one bucket, two keys");
        assert_eq!((owed(&table, key(1)), owed(&table, key(2))), (u64::from(mine), 0));
    });
}
