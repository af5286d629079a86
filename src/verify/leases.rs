//! Lease chunks: holders that are registered, descriptions that lead to the key.

use super::identities::{Standing, judge};
use super::{Notes, Walk, first_nonzero, get};
use crate::clock::Instant;
use crate::engine::{health, leader, pool};
use crate::layout::{
    CHUNK_SLOTS, IdentityWord, KeyKind, LeaseLimits, LeaseWord, OwnerTag, section,
};
use crate::region::Region;
use crate::sync::{Bits, Word};
use crate::tables::leases::Leases;
use crate::tables::{index, workers};

/// Leases of one key; what is counted below zero lies as far below.
const MOST_HELD: u64 = 1 << 32;

impl Walk<'_> {
    pub(super) fn chunks(&mut self) {
        let region = self.region;
        self.each(section::LEASES, region.chunks(), |index, chunk, now, notes| {
            let identity = get(&chunk.identity);
            let holders: [LeaseWord; CHUNK_SLOTS] =
                std::array::from_fn(|slot| get(&chunk.holders[slot]));
            let (key_slot, ordinal) = (get(&chunk.key_slot), get(&chunk.ordinal));
            let (hint, held) = (get(&chunk.hint), get(&chunk.held));
            if get(&chunk.identity) != identity {
                return;
            }
            notes.zeroes("reserved", &chunk.reserved);
            let key = match judge(identity, &[KeyKind::Chunk], notes) {
                Standing::Never => {
                    let words = holders.map(Bits::bits).into_iter();
                    let words = words.chain([key_slot, ordinal, hint, held]);
                    if let Some(found) =
                        first_nonzero(words.chain(chunk.tags.iter().map(|tag| get(tag).bits())))
                    {
                        notes.damage("identity", found, "all zeroes: never used; leases were lost");
                    }
                    return;
                }
                Standing::Nobody => None,
                Standing::Key(key) => Some(key),
            };
            if hint >> CHUNK_SLOTS != 0 {
                notes.harmless("hint", hint, "one bit for each slot");
            }
            if (MOST_HELD..u64::MAX - MOST_HELD).contains(&held) {
                notes.harmless("held", held, "a number of leases");
            }
            let held = holders.iter().any(|&word| word != LeaseWord::default());
            description(region, index, key.filter(|_| held), (key_slot, ordinal), notes);
            for (word, again) in holders.into_iter().zip(&chunk.holders) {
                holder(region, word, again, now(), notes);
            }
        });
    }
}

/// Whose chunk it is said to be. `key` is its identity if slots of it are held.
fn description(
    region: &Region,
    index: usize,
    key: Option<IdentityWord>,
    (key_slot, ordinal): (u64, u64),
    notes: &mut Notes,
) {
    if key_slot == 0 {
        return;
    }
    let chunks = region.chunks();
    let Some((owner, limits)) = record_of(region, key_slot) else {
        notes.harmless("key_slot", key_slot, "a bucket, a deployment, a job or an endpoint");
        return;
    };
    if ordinal >= chunks.len() as u64 {
        notes.harmless("ordinal", ordinal, "less than there are chunks");
        return;
    }
    let Some(key) = key else { return };
    let place = owner.map(|owner| {
        Leases { chunks, key: owner, key_slot, limits, nonce: index::nonce }.place_of(ordinal)
    });
    let Some((_, probe)) = place.filter(|&(identity, _)| index::is(key, identity)) else {
        notes.harmless("key_slot", key_slot, "the record of the key that holds leases here");
        return;
    };
    if probe.places(chunks.len()).all(|place| place != index) {
        notes.damage("identity", key, "a place of that key; its leases are not found here");
    }
}

/// The key in the record that a description names, and its limits; `None` = there is no such record.
fn record_of(region: &Region, key_slot: u64) -> Option<(Option<IdentityWord>, &Word<LeaseLimits>)> {
    if let Some(slot) = pool::slot_of(key_slot) {
        let record = region.endpoints().get(slot)?;
        return Some((index::key_of(get(&record.identity)), &record.lease));
    }
    if let Some(slot) = leader::slot_of(key_slot) {
        let record = region.jobs().get(slot)?;
        return Some((index::key_of(get(&record.identity)), &record.lease));
    }
    if let Some(slot) = health::slot_of(key_slot) {
        let record = region.deployments().get(slot)?;
        return Some((index::key_of(get(&record.identity)), &record.lease));
    }
    let bucket = region.buckets().get(usize::try_from(key_slot.checked_sub(1)?).ok()?)?;
    Some((index::key_of(get(&bucket.identity)), &bucket.lease))
}

fn holder(
    region: &Region,
    word: LeaseWord,
    again: &Word<LeaseWord>,
    now: Instant,
    notes: &mut Notes,
) {
    if word == LeaseWord::default() {
        return;
    }
    let gone = OwnerTag::from_raw(word.owner())
        .is_none_or(|owner| workers::is_gone(region.workers(), owner));
    // An owner frees its slots before it goes.
    if get(again) != word {
        return;
    }
    if gone {
        notes.harmless("holders", word, "a registration that stands");
    } else if word.acquired_s() > now.s() {
        notes.damage("holders", word, "acquired in the past; held until its owner is gone");
    }
}

/// Words of a lease's limits that no count believes.
pub(super) fn limits(region: &Region, word: LeaseLimits, notes: &mut Notes) {
    if word.high_water() > region.chunks().len() as u64 * CHUNK_SLOTS as u64 {
        notes.harmless("lease", word, "a high water within the table");
    }
}
