//! Process-local memory of which lease a slot id got, so that a release need not search.
//!
//! A hint like every cache: a release checks the region's own word, and what the cache has forgotten is
//! found by a search. Lock-free, of fixed size, and safe to be inherited over a fork.

use crate::sync::{Ordering, Word};

/// An interpreter would be busy with more of them for seconds.
const ENTRIES: usize = if cfg!(miri) { 1 << 7 } else { 1 << 15 };
const WINDOW: usize = 16;

/// Where a lease is: chunk, slot in it, and the second it was acquired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Chunk number.
    pub chunk: u32,
    /// Slot in the chunk, below 32.
    pub slot: u32,
    /// Second of the acquire.
    pub acquired_s: u64,
}

struct Entry {
    tag: Word<u64>,
    place: Word<u64>,
}

/// The cache.
pub struct SlotCache {
    entries: Box<[Entry]>,
    forgotten: Word<u64>,
}

impl Default for SlotCache {
    fn default() -> Self {
        let entry = || Entry { tag: Word::new(0), place: Word::new(0) };
        let entries = std::iter::repeat_with(entry).take(ENTRIES).collect();
        Self { entries, forgotten: Word::new(0) }
    }
}

impl SlotCache {
    fn window(&self, tag: u64) -> impl Iterator<Item = &Entry> {
        #[allow(clippy::cast_possible_truncation, reason = "masked")]
        let home = tag as usize;
        (0..WINDOW)
            .filter_map(move |step| self.entries.get(home.wrapping_add(step) & (ENTRIES - 1)))
    }

    /// Whether anything has ever been forgotten: what is not here may then be held all the same.
    pub fn has_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Relaxed) != 0
    }

    /// Remembers; forgets when its window is full. `tag` is not 0.
    pub fn insert(&self, tag: u64, place: Place) {
        let packed = u64::from(place.chunk) << 37
            | u64::from(place.slot & 31) << 32
            | (place.acquired_s & u64::from(u32::MAX));
        for entry in self.window(tag) {
            if entry.tag.load(Ordering::Relaxed) == 0
                && entry
                    .tag
                    .compare_exchange(0, u64::MAX, Ordering::AcqRel, Ordering::Relaxed)
                    .is_ok()
            {
                entry.place.store(packed, Ordering::Relaxed);
                entry.tag.store(tag, Ordering::Release);
                return;
            }
        }
        self.forgotten.store(1, Ordering::Relaxed);
    }

    /// Looks up.
    pub fn get(&self, tag: u64) -> Option<Place> {
        let entry = self.window(tag).find(|entry| entry.tag.load(Ordering::Acquire) == tag)?;
        let place = unpack(entry.place.load(Ordering::Acquire));
        // Still the same entry, or the place may be another's.
        (entry.tag.load(Ordering::Relaxed) == tag).then_some(place)
    }

    /// Looks up and forgets.
    pub fn take(&self, tag: u64) -> Option<Place> {
        for entry in self.window(tag) {
            if entry.tag.load(Ordering::Acquire) == tag {
                let place = unpack(entry.place.load(Ordering::Relaxed));
                let won = entry.tag.compare_exchange(tag, 0, Ordering::AcqRel, Ordering::Relaxed);
                return won.ok().map(|_| place);
            }
        }
        None
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for entry in &self.entries {
            entry.tag.store(0, Ordering::Relaxed);
        }
        self.forgotten.store(0, Ordering::Relaxed);
    }
}

fn unpack(packed: u64) -> Place {
    let part =
        |shift: u32, bits: u32| u32::try_from((packed >> shift) & ((1 << bits) - 1)).unwrap_or(0);
    Place { chunk: part(37, 27), slot: part(32, 5), acquired_s: packed & u64::from(u32::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn remembers_what_it_was_told(ops in prop::collection::vec((0_u8..3, 1_u64..200, 0_u32..1 << 20), 0..300)) {
            let cache = SlotCache::default();
            let mut model = HashMap::new();
            for (op, tag, chunk) in ops {
                let tag = tag.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let place = Place { chunk, slot: chunk & 31, acquired_s: u64::from(chunk) * 7 };
                match op {
                    0 => if let std::collections::hash_map::Entry::Vacant(free) = model.entry(tag) {
                        free.insert(place);
                        cache.insert(tag, place);
                    },
                    1 => prop_assert_eq!(cache.take(tag), model.remove(&tag)),
                    _ => prop_assert_eq!(cache.get(tag), model.get(&tag).copied()),
                }
            }
        }
    }

    #[test]
    fn forgets_when_full_and_never_confuses() {
        let cache = SlotCache::default();
        let tag = |n: u64| (n << 20) | 5;
        for n in 1..=40 {
            let chunk = u32::try_from(n).unwrap();
            cache.insert(tag(n), Place { chunk, slot: 0, acquired_s: n });
        }
        let known = (1..=40).filter(|&n| cache.get(tag(n)).is_some()).count();
        assert!(known == WINDOW && cache.has_forgotten());
        assert!(
            (1..=40).filter_map(|n| Some((n, cache.get(tag(n))?))).all(|(n, p)| p.acquired_s == n)
        );
        cache.clear();
        assert_eq!(cache.get(tag(1)), None);
    }
}
