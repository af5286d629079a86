//! Fixed open addressing in which one swap is the whole insert.
//!
//! The index word *is* the key: a keyed hash of 60 bits and the kind. A key may stand in any of the 32
//! slots that follow its home slot, and is inserted at the first empty one in that order, so two
//! processes that insert one key meet in the same slot. Nothing is ever half inserted: the bucket behind
//! a slot is zero, and zero means full quota.

use crate::layout::{IdentityWord, IndexSlot, KeyKind};
use crate::sync::Ordering;

/// Slots in which a key may stand.
pub const WINDOW: u64 = 32;

/// A key's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Position in the index, and of the key's bucket and name.
    pub index: usize,
    /// True when this call inserted the key.
    pub inserted: bool,
}

/// Identity of a key from its 128-bit keyed hash.
pub fn identity(kind: KeyKind, hash: u64) -> IdentityWord {
    IdentityWord::new(1, kind as u64, hash >> 4)
}

/// Finds the key; `None` = it is not in the table.
#[inline]
pub fn find(index: &[IndexSlot], home: u64, wanted: IdentityWord) -> Option<usize> {
    let mask = (index.len() as u64).wrapping_sub(1);
    for step in 0..WINDOW {
        let position = place(home.wrapping_add(step) & mask);
        // SYNC key-insert: Acquire pairs with the Release of `find_or_insert`.
        let seen = index.get(position)?.identity.load(Ordering::Acquire);
        if seen == wanted {
            return Some(position);
        }
        if seen.occupied() == 0 {
            return None;
        }
    }
    None
}

/// Finds or inserts the key; `None` = its 32 slots are all taken by others.
///
/// Linearization point of the insert: the successful swap. Wait-free: at most two looks at 32 slots.
#[inline]
pub fn find_or_insert(index: &[IndexSlot], home: u64, wanted: IdentityWord) -> Option<Slot> {
    let mask = (index.len() as u64).wrapping_sub(1);
    for step in 0..WINDOW {
        let position = place(home.wrapping_add(step) & mask);
        let word = &index.get(position)?.identity;
        let mut seen = word.load(Ordering::Acquire);
        if seen.occupied() == 0 {
            // Slots never become empty again, so a failed swap means that somebody filled this one.
            match word.compare_exchange(seen, wanted, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    return Some(Slot { index: position, inserted: true });
                }
                Err(now) => seen = now,
            }
        }
        if seen == wanted {
            return Some(Slot { index: position, inserted: false });
        }
    }
    None
}

fn place(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Word;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn table(len: usize) -> Vec<IndexSlot> {
        (0..len).map(|_| IndexSlot { identity: Word::new(IdentityWord::default()) }).collect()
    }

    #[test]
    fn the_window_fills_and_then_refuses() {
        let index = table(1024);
        for key in 0..WINDOW {
            let slot = find_or_insert(&index, 7, identity(KeyKind::Gcra, (key + 1) << 4)).unwrap();
            assert!(slot.inserted);
        }
        assert_eq!(find_or_insert(&index, 7, identity(KeyKind::Gcra, 99 << 4)), None);
        let known = find_or_insert(&index, 7, identity(KeyKind::Gcra, 5 << 4)).unwrap();
        assert!(!known.inserted);
    }

    #[test]
    fn kinds_never_share_a_bucket() {
        let index = table(64);
        let a = find_or_insert(&index, 3, identity(KeyKind::Gcra, 16)).unwrap();
        let b = find_or_insert(&index, 3, identity(KeyKind::Window, 16)).unwrap();
        assert_ne!(a.index, b.index);
    }

    proptest! {
        #[test]
        fn every_key_has_one_place(keys in prop::collection::vec(1_u64..30, 1..200), crowd in 1_u64..9) {
            let index = table(256);
            let mut model: HashMap<u64, usize> = HashMap::new();
            for key in keys {
                let wanted = identity(KeyKind::Window, key << 4);
                let slot = find_or_insert(&index, key / crowd, wanted);
                let slot = slot.expect("fewer than 32 keys in all");
                prop_assert_eq!(*model.entry(key).or_insert(slot.index), slot.index);
                prop_assert_eq!(find(&index, key / crowd, wanted), Some(slot.index));
            }
        }
    }

    #[test]
    fn threads_that_insert_the_same_keys_agree() {
        let index = table(4096);
        let places = |offset: u64| -> Vec<Option<usize>> {
            (0..1000_u64)
                .map(|i| (i * 7 + offset) % 1000)
                .map(|key| (key, identity(KeyKind::Window, (key + 1) << 4)))
                .map(|(key, wanted)| (key, find_or_insert(&index, key * 3, wanted)))
                .fold(vec![None; 1000], |mut places, (key, slot)| {
                    places[usize::try_from(key).unwrap()] = slot.map(|slot| slot.index);
                    places
                })
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|t| scope.spawn(move || places(t * 31))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(results.iter().all(|places| *places == results[0]));
        assert!(results[0].iter().all(Option::is_some));
        let used =
            index.iter().filter(|slot| slot.identity.load(Ordering::Relaxed).occupied() == 1);
        assert_eq!(used.count(), 1000);
    }
}
