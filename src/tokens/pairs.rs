//! Which two tokens are merged into which.

use super::NONE;

/// Bits of a token.
pub(super) const TOKEN_BITS: u32 = 20;

/// By open addressing. A slot is left, right and what they become, in `TOKEN_BITS` each; 0 is an empty one.
pub(super) struct Pairs {
    slots: Vec<u64>,
    /// One bit for each hash that is in use: most pairs that are looked up are not merged.
    known: Vec<u64>,
}

const KNOWN_BITS: u32 = 22;
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// A pair as one word, never 0.
#[inline(always)]
pub(super) fn key(left: u32, right: u32) -> u64 {
    (u64::from(left) << TOKEN_BITS | u64::from(right)) + 1
}

/// A pair's word, its bits well mixed in the upper half.
#[inline(always)]
pub(super) fn hash(key: u64) -> u64 {
    key.wrapping_mul(FACTOR)
}

#[inline(always)]
fn known_bit(hash: u64) -> (usize, u32) {
    let bit = hash >> (64 - KNOWN_BITS);
    ((bit / 64) as usize, (bit % 64) as u32)
}

impl Pairs {
    /// With room for so many.
    pub(super) fn new(pairs: usize) -> Self {
        Self {
            slots: vec![0; (pairs * 2).next_power_of_two()],
            known: vec![0; 1 << (KNOWN_BITS - 6)],
        }
    }

    #[inline(always)]
    fn slot(&self, hash: u64) -> usize {
        (hash >> 24) as usize & (self.slots.len() - 1)
    }

    pub(super) fn insert(&mut self, left: u32, right: u32, merged: u32) {
        let key = key(left, right);
        let (word, bit) = known_bit(hash(key));
        self.known[word] |= 1 << bit;
        let mut slot = self.slot(hash(key));
        while self.slots[slot] != 0 {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = key << TOKEN_BITS | u64::from(merged);
    }

    /// What the two become; `NONE` if they are not merged.
    #[inline(always)]
    pub(super) fn get(&self, left: u32, right: u32) -> u32 {
        let key = key(left, right);
        let hash = hash(key);
        let (word, bit) = known_bit(hash);
        if self.known[word] >> bit & 1 == 0 {
            return NONE;
        }
        let mut slot = self.slot(hash);
        loop {
            let found = self.slots[slot];
            if found >> TOKEN_BITS == key {
                return (found & ((1 << TOKEN_BITS) - 1)) as u32;
            }
            if found == 0 {
                return NONE;
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_found_in_their_order() {
        let mut pairs = Pairs::new(1_000);
        for n in 0..1_000 {
            pairs.insert(n, n * 7, n + 5_000);
        }
        for n in 0..1_000 {
            assert_eq!(pairs.get(n, n * 7), n + 5_000);
            assert_eq!(pairs.get(n, n * 7 + 1), NONE);
        }
        assert_eq!(pairs.get(7, 1), NONE, "1 and 7 are merged, 7 and 1 are not");
    }
}
