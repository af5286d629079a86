//! The words that a thread has seen lately, with their tokens: most of a text is words that came before.

use super::pairs::TOKEN_BITS;
use super::word::Word;

/// Up to three tokens in one machine word, the first in the lowest bits, and above them how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Few(u64);

const COUNT_AT: u32 = 60;

impl Few {
    /// `None` = they are more than three.
    #[inline(always)]
    pub(super) fn new(tokens: &[u32]) -> Option<Self> {
        if tokens.len() > 3 {
            return None;
        }
        let packed =
            tokens.iter().rev().fold(0, |packed, &token| packed << TOKEN_BITS | u64::from(token));
        Some(Self(packed | (tokens.len() as u64) << COUNT_AT))
    }

    #[inline(always)]
    pub(super) fn one(token: u32) -> Self {
        Self(u64::from(token) | 1 << COUNT_AT)
    }

    #[inline(always)]
    pub(super) fn len(self) -> usize {
        (self.0 >> COUNT_AT) as usize
    }

    /// The token at a place; 0 if there is none.
    #[inline(always)]
    pub(super) fn at(self, place: u32) -> u32 {
        (self.0 >> (place * TOKEN_BITS)) as u32 & ((1 << TOKEN_BITS) - 1)
    }
}

const BITS: u32 = 15;

/// Each word has one place, which it takes from whatever stood there.
pub(super) struct Recent {
    slots: Vec<[u64; 3]>,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self { slots: vec![[0; 3]; 1 << BITS] }
    }

    /// Its tokens, found by `find` if they are not remembered. More than three are not, and `find` deals with them.
    #[inline(always)]
    pub(super) fn get(&mut self, word: Word, find: impl FnOnce() -> Option<Few>) -> Option<Few> {
        let slot = &mut self.slots[(word.hash() >> (64 - BITS)) as usize % (1 << BITS)];
        if slot[0] == word.low && slot[1] == word.high {
            return Some(Few(slot[2]));
        }
        let few = find()?;
        *slot = [word.low, word.high, few.0];
        Some(few)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_tokens_fit() {
        let most = (1 << TOKEN_BITS) - 1;
        for tokens in [&[][..], &[7], &[0, most], &[most, 0, 5]] {
            let few = Few::new(tokens).unwrap();
            let again: Vec<u32> = (0..few.len() as u32).map(|place| few.at(place)).collect();
            assert_eq!(again, tokens);
        }
        assert_eq!(Few::new(&[1; 4]), None);
        assert_eq!(Few::one(9), Few::new(&[9]).unwrap());
    }

    #[test]
    fn what_was_found_is_remembered() {
        let mut recent = Recent::new();
        let word = Word::of(b"hello", 0, 5);
        assert_eq!(recent.get(word, || None), None);
        assert_eq!(recent.get(word, || Some(Few::one(3))), Some(Few::one(3)));
        assert_eq!(recent.get(word, || unreachable!()), Some(Few::one(3)));
        let other = Word::of(b"hello\0", 0, 6);
        assert_eq!(recent.get(other, || Some(Few::one(4))), Some(Few::one(4)));
    }
}
