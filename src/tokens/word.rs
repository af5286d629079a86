//! Short pieces of a text as two machine words, which is how they are looked up.

use super::pairs::hash;

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

/// Tokens that are words, by open addressing.
pub(super) struct Words {
    slots: Vec<Slot>,
}

#[derive(Clone, Copy)]
struct Slot {
    word: Word,
    token: u32,
}

const FREE: Slot = Slot { word: Word { low: 0, high: 0 }, token: super::NONE };

impl Words {
    /// Of all tokens by rank; those that are no words are left out.
    pub(super) fn new(tokens: &[Vec<u8>]) -> Self {
        let mut words = Self { slots: vec![FREE; (tokens.len() * 3 / 2).next_power_of_two()] };
        for (token, bytes) in (0..).zip(tokens) {
            if (1..=LONGEST).contains(&bytes.len()) {
                let word = Word::of(bytes, 0, bytes.len());
                let slot = words.place(word);
                words.slots[slot] = Slot { word, token };
            }
        }
        words
    }

    /// Where a word stands, or would.
    #[inline(always)]
    fn place(&self, word: Word) -> usize {
        let last = self.slots.len() - 1;
        let mut slot = (word.hash() >> 32) as usize & last;
        while self.slots[slot].word != word && self.slots[slot].word != FREE.word {
            slot = (slot + 1) & last;
        }
        slot
    }

    /// The token that is this word; `NONE` if there is none.
    #[inline(always)]
    pub(super) fn get(&self, word: Word) -> u32 {
        self.slots[self.place(word)].token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_differ_by_their_length_too() {
        let tokens =
            [b"a".to_vec(), b"a\0".to_vec(), b"abcdefghi".to_vec(), vec![b'x'; 15], vec![b'x'; 16]];
        let words = Words::new(&tokens);
        for (token, bytes) in (0..4).zip(&tokens) {
            assert_eq!(words.get(Word::of(bytes, 0, bytes.len())), token);
            let within = [b"..", bytes.as_slice(), b"................"].concat();
            assert_eq!(words.get(Word::of(&within, 2, 2 + bytes.len())), token);
        }
        assert_eq!(words.get(Word::of(b"b", 0, 1)), super::super::NONE);
        assert_eq!(words.get(Word::of(b"a\0\0", 0, 3)), super::super::NONE);
    }
}
