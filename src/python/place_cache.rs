//! Remembers where recent keys are, by the hash that Python has already computed for them.
//!
//! Python hashes strings with SipHash under a secret of its own, so that nobody can aim one key at
//! another's entry. Where the operator has made that secret known (`PYTHONHASHSEED`), nothing is
//! remembered and every key is hashed under the region's secret.

use crate::engine::quota::Place;
use crate::sync::{Bits, Ordering, Word};

const ENTRIES: u64 = 1 << 10;

/// Three words that belong together; `check` tells whether they still do.
struct Entry {
    check: Word<u64>,
    identity: Word<u64>,
    slot: Word<u64>,
}

pub(super) struct PlaceCache {
    entries: Box<[Entry]>,
}

fn mix(identity: u64, slot: u64) -> u64 {
    identity.rotate_left(17) ^ slot.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl PlaceCache {
    pub(super) fn new() -> Self {
        let secret = std::env::var("PYTHONHASHSEED").is_ok_and(|seed| seed != "random");
        let entry = || Entry { check: Word::new(0), identity: Word::new(0), slot: Word::new(0) };
        let count = if secret { 0 } else { ENTRIES };
        Self { entries: (0..count).map(|_| entry()).collect() }
    }

    #[inline]
    fn entry(&self, hash: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(hash & (ENTRIES - 1)).unwrap_or(usize::MAX))
    }

    #[inline]
    pub(super) fn get(&self, hash: u64) -> Option<Place> {
        let entry = self.entry(hash)?;
        let identity = entry.identity.load(Ordering::Relaxed);
        let slot = entry.slot.load(Ordering::Relaxed);
        if entry.check.load(Ordering::Relaxed) ^ mix(identity, slot) != hash || identity == 0 {
            return None;
        }
        let slot = usize::try_from(slot).ok()?;
        Some(Place { slot, identity: Bits::from_bits(identity) })
    }

    pub(super) fn insert(&self, hash: u64, place: Place) {
        let Some(entry) = self.entry(hash) else {
            return;
        };
        let (identity, slot) = (place.identity.bits(), place.slot as u64);
        entry.identity.store(identity, Ordering::Relaxed);
        entry.slot.store(slot, Ordering::Relaxed);
        entry.check.store(hash ^ mix(identity, slot), Ordering::Relaxed);
    }
}
