//! Short pieces of a text as two machine words, which is how they are looked up.

use super::NONE;
use super::pairs::{TOKEN_BITS, hash};

/// Pieces of more bytes than this are no words.
pub(super) const LONGEST: usize = 15;

const BYTES: usize = 16;

/// A piece of 1 to `LONGEST` bytes: they, zeros, and in the last place how many they are. Never all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) low: u64,
    pub(super) high: u64,
}

impl Word {
    /// The bytes of the text from `start` to `end`, at least 1 and at most `LONGEST`.
    #[inline(always)]
    pub(super) fn of(text: &[u8], start: usize, end: usize) -> Self {
        let len = end - start;
        let bytes = match text.get(start..start + BYTES) {
            Some(bytes) => u128::from_le_bytes(bytes.try_into().expect("so many were asked for")),
            None => near_the_end(&text[start..end]),
        };
        let kept = bytes & ((1 << (8 * len)) - 1);
        Self { low: kept as u64, high: (kept >> 64) as u64 | (len as u64) << 56 }
    }

    #[inline(always)]
    fn len(self) -> usize {
        (self.high >> 56) as usize
    }

    /// Its bits well mixed in the upper half.
    #[inline(always)]
    pub(super) fn hash(self) -> u64 {
        hash(self.low ^ self.high.wrapping_mul(0xff51_afd7_ed55_8ccd))
    }
}

#[cold]
fn near_the_end(piece: &[u8]) -> u128 {
    let mut bytes = [0; BYTES];
    bytes[..piece.len()].copy_from_slice(piece);
    u128::from_le_bytes(bytes)
}

/// Tokens that are words of at most `SHORT` bytes, by open addressing.
///
/// A slot is one number: the word's bytes, above them how many they are, and in the highest bits the token. So four
/// of them share a line of the cache, which is what a lookup waits for. 0 is an empty one.
pub(super) struct Words {
    slots: Vec<u128>,
}

/// So many bytes leave room for the token.
const SHORT: usize = 12;

const LEN_AT: u32 = 8 * SHORT as u32;
const TOKEN_AT: u32 = 128 - TOKEN_BITS;

impl Words {
    /// Of all tokens by rank; those that are no short words are left out.
    pub(super) fn new(tokens: &[Vec<u8>]) -> Self {
        let mut words = Self { slots: vec![0; (tokens.len() * 5 / 4).next_power_of_two()] };
        for (token, bytes) in (0..).zip(tokens) {
            if (1..=SHORT).contains(&bytes.len()) {
                let word = Word::of(bytes, 0, bytes.len());
                let slot = words.place(word);
                words.slots[slot] = short(word) | token << TOKEN_AT;
            }
        }
        words
    }

    /// Where a word stands, or would.
    #[inline(always)]
    fn place(&self, word: Word) -> usize {
        let (short, last) = (short(word), self.slots.len() - 1);
        let mut slot = (word.hash() >> 32) as usize & last;
        while self.slots[slot] << TOKEN_BITS != short << TOKEN_BITS && self.slots[slot] != 0 {
            slot = (slot + 1) & last;
        }
        slot
    }

    /// The token that is this word; `NONE` if there is none. `None` = the word is too long to be here.
    #[inline(always)]
    pub(super) fn get(&self, word: Word) -> Option<u32> {
        (word.len() <= SHORT).then(|| match self.slots[self.place(word)] {
            0 => NONE,
            slot => (slot >> TOKEN_AT) as u32,
        })
    }
}

#[inline(always)]
fn short(word: Word) -> u128 {
    u128::from(word.low)
        | u128::from(word.high & 0xffff_ffff) << 64
        | (word.len() as u128) << LEN_AT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_differ_by_their_length_too() {
        let tokens = [
            b"a".to_vec(),
            b"a\0".to_vec(),
            b"abcdefghi".to_vec(),
            vec![b'x'; SHORT],
            vec![b'x'; SHORT + 1],
        ];
        let words = Words::new(&tokens);
        for (token, bytes) in (0..4).zip(&tokens) {
            assert_eq!(words.get(Word::of(bytes, 0, bytes.len())), Some(token));
            let within = [b"..", bytes.as_slice(), b"................"].concat();
            assert_eq!(words.get(Word::of(&within, 2, 2 + bytes.len())), Some(token));
        }
        assert_eq!(words.get(Word::of(&tokens[4], 0, SHORT + 1)), None);
        assert_eq!(words.get(Word::of(b"b", 0, 1)), Some(NONE));
        assert_eq!(words.get(Word::of(b"a\0\0", 0, 3)), Some(NONE));
    }
}
