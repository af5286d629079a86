//! The tokens of an encoding, and which of them may stand beside each other.
//!
//! A token's number is its rank: of all merges that a text allows, the one into the lowest rank is made first.
//! What bytes become in the end can be told without making them all: it is the one sequence of tokens of which
//! every two neighbours may meet.

use super::NONE;
use super::pairs::{self, Pairs, TOKEN_BITS};
use super::trie::Trie;
use super::word::{Word, Words};

/// All tokens of an encoding but for the special ones.
pub(super) struct Vocabulary {
    bytes: Vec<u8>,
    /// Where each token's bytes begin, and behind the last one where they end.
    starts: Vec<u32>,
    trie: Trie,
    words: Words,
    /// The longest token that each one begins with, itself excepted.
    shorter: Vec<u32>,
    /// The two tokens that each one is merged from; a single byte is its own.
    parts: Vec<(u32, u32)>,
    pairs: Pairs,
}

/// Answers of `may_meet` that a thread remembers, so many at most.
const MEETINGS: usize = 1 << 16;

/// What a thread remembers of which tokens may meet.
pub(super) struct Meetings {
    /// A pair's key and, in the lowest bit, the answer.
    slots: Vec<u64>,
}

impl Meetings {
    pub(super) fn new() -> Self {
        Self { slots: vec![0; MEETINGS] }
    }
}

impl Vocabulary {
    /// Of all tokens by rank; an empty one is a rank without a token.
    ///
    /// # Panics
    ///
    /// If there are more tokens than `TOKEN_BITS` can tell apart.
    pub(super) fn new(tokens: &[Vec<u8>]) -> Self {
        assert!(tokens.len() < 1 << TOKEN_BITS, "more tokens than can be told apart");
        let mut sorted: Vec<(&[u8], u32)> = tokens
            .iter()
            .map(Vec::as_slice)
            .zip(0..)
            .filter(|(token, _)| !token.is_empty())
            .collect();
        sorted.sort_unstable();
        let trie = Trie::new(&sorted);
        let (mut bytes, mut starts) = (Vec::new(), vec![0]);
        for token in tokens {
            bytes.extend_from_slice(token);
            starts.push(u32::try_from(bytes.len()).expect("fewer bytes than that"));
        }
        let shorter = tokens
            .iter()
            .map(|token| token.split_last().map_or(NONE, |(_, rest)| trie.longest(rest).0))
            .collect();
        let mut vocabulary = Self {
            bytes,
            starts,
            trie,
            words: Words::new(tokens),
            shorter,
            parts: Vec::with_capacity(tokens.len()),
            pairs: Pairs::new(tokens.len()),
        };
        for token in 0..vocabulary.shorter.len() as u32 {
            // Of lower ranks all is known by now, and only they can be its parts.
            let parts = vocabulary.merged_from(token);
            vocabulary.parts.push(parts.unwrap_or((token, token)));
            if let Some((left, right)) = parts {
                vocabulary.pairs.insert(left, right, token);
            }
        }
        vocabulary
    }

    fn merged_from(&self, token: u32) -> Option<(u32, u32)> {
        let bytes = self.bytes(token);
        let mut left = self.shorter[token as usize];
        while left != NONE {
            if left < token {
                let right = self.trie.exact(&bytes[self.len(left)..]);
                if right < token && self.may_meet(left, right) {
                    return Some((left, right));
                }
            }
            left = self.shorter[left as usize];
        }
        None
    }

    /// Ranks, those without a token among them.
    pub(super) fn ranks(&self) -> u32 {
        self.shorter.len() as u32
    }

    /// Bytes of a token.
    #[inline(always)]
    pub(super) fn len(&self, token: u32) -> usize {
        (self.starts[token as usize + 1] - self.starts[token as usize]) as usize
    }

    /// The bytes of a token; none if there is no such token.
    pub(super) fn bytes(&self, token: u32) -> &[u8] {
        let start = self.starts.get(token as usize);
        match (start, self.starts.get(token as usize + 1)) {
            (Some(&start), Some(&end)) => &self.bytes[start as usize..end as usize],
            _ => &[],
        }
    }

    /// The token that is this word, which is these bytes; `NONE` if there is none.
    #[inline(always)]
    pub(super) fn word(&self, word: Word, bytes: &[u8]) -> u32 {
        self.words.get(word).unwrap_or_else(|| self.exact(bytes))
    }

    /// The token that is just these bytes; `NONE` if there is none.
    pub(super) fn exact(&self, bytes: &[u8]) -> u32 {
        self.trie.exact(bytes)
    }

    /// The longest token that the bytes begin with, and its length; `NONE` if there are none.
    #[inline(always)]
    pub(super) fn longest(&self, bytes: &[u8]) -> (u32, usize) {
        self.trie.longest(bytes)
    }

    /// The longest token that a token begins with, itself excepted, and its length; `NONE` if there is none.
    #[inline(always)]
    pub(super) fn shorter(&self, token: u32) -> (u32, usize) {
        match self.shorter[token as usize] {
            NONE => (NONE, 0),
            shorter => (shorter, self.len(shorter)),
        }
    }

    /// Whether two tokens may stand beside each other: whether merging the bytes of both gives just them.
    ///
    /// Undoes the merges of either side, the latest first, and looks at each step whether what then met at the
    /// border would have been merged before.
    fn may_meet(&self, mut left: u32, mut right: u32) -> bool {
        // What is merged across the border must come after this.
        let mut before = NONE;
        loop {
            if self.pairs.get(left, right) < before {
                return false;
            }
            let (end, start) = (self.parts[left as usize].1, self.parts[right as usize].0);
            let (is_merged_left, is_merged_right) = (end != left, start != right);
            if !is_merged_left && !is_merged_right {
                return true;
            }
            // Of equals the right one was merged later.
            if is_merged_left && (!is_merged_right || left > right) {
                before = left;
                left = end;
            } else {
                before = right + 1;
                right = start;
            }
        }
    }

    /// `may_meet`, remembered.
    #[inline(always)]
    pub(super) fn meet(&self, left: u32, right: u32, meetings: &mut Meetings) -> bool {
        let key = pairs::key(left, right);
        let slot = &mut meetings.slots[(pairs::hash(key) >> 32) as usize % MEETINGS];
        if *slot >> 1 == key {
            return *slot & 1 != 0;
        }
        let may = self.may_meet(left, right);
        *slot = key << 1 | u64::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All bytes, then what is merged from them.
    fn vocabulary(merged: &[&[u8]]) -> Vocabulary {
        let bytes = (0..=255).map(|byte| vec![byte]);
        let tokens: Vec<Vec<u8>> = bytes.chain(merged.iter().map(|token| token.to_vec())).collect();
        Vocabulary::new(&tokens)
    }

    #[test]
    fn tokens_meet_unless_they_would_have_been_merged() {
        let vocabulary = vocabulary(&[b"ab", b"bc", b"abc"]);
        let [ab, bc, abc] = [256, 257, 258];
        let [a, b, c] = [b'a', b'b', b'c'].map(u32::from);
        assert_eq!(vocabulary.parts[abc as usize], (ab, c));
        assert!(vocabulary.may_meet(ab, a));
        assert!(!vocabulary.may_meet(a, b), "they are merged into ab");
        assert!(!vocabulary.may_meet(a, bc), "ab comes before bc");
        assert!(!vocabulary.may_meet(ab, c), "they are merged into abc");
        assert!(vocabulary.may_meet(abc, bc));
        let mut meetings = Meetings::new();
        for _ in 0..2 {
            assert!(vocabulary.meet(ab, a, &mut meetings));
            assert!(!vocabulary.meet(a, bc, &mut meetings));
        }
    }

    #[test]
    fn a_rank_without_a_token_is_none() {
        let vocabulary = vocabulary(&[b"ab", b"", b"abc"]);
        assert_eq!(vocabulary.bytes(257), b"");
        assert_eq!(vocabulary.exact(b""), NONE);
        assert_eq!(vocabulary.parts[258], (256, u32::from(b'c')));
        assert_eq!(vocabulary.bytes(100_000), b"");
    }
}
