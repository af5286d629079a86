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

/// Answers of `fit` that a thread remembers, so many at most.
const FITS: usize = 1 << 16;

/// No token, in `TOKEN_BITS`.
const NO_FIT: u32 = (1 << TOKEN_BITS) - 1;

/// What a thread remembers of which tokens may stand behind which.
pub(super) struct Fits {
    /// A pair's key and, in the lowest `TOKEN_BITS`, the answer.
    slots: Vec<u64>,
}

impl Fits {
    pub(super) fn new() -> Self {
        Self { slots: vec![0; FITS] }
    }
}

impl Vocabulary {
    /// Of all tokens by rank; an empty one is a rank without a token.
    ///
    /// # Panics
    ///
    /// If there are more tokens than `TOKEN_BITS` can tell apart.
    pub(super) fn new(tokens: &[Vec<u8>]) -> Self {
        assert!(tokens.len() < NO_FIT as usize, "more tokens than can be told apart");
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

    /// The token that two others are merged into; `NONE` if they are not.
    #[inline(always)]
    pub(super) fn merged(&self, left: u32, right: u32) -> u32 {
        self.pairs.get(left, right)
    }

    /// Whether two tokens may stand beside each other: whether merging the bytes of both gives just them.
    ///
    /// Undoes the merges of either side, the latest first, and looks at each step whether what then met at the
    /// border would have been merged before.
    pub(super) fn may_meet(&self, mut left: u32, mut right: u32) -> bool {
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

    /// Of a token and all those that it begins with, the longest one that may stand behind `left`, and its length;
    /// `NONE` if there is none. Remembered: what has many beginnings, like a long row of dashes, has to be asked for
    /// at many places.
    #[inline(always)]
    pub(super) fn fit(&self, left: u32, token: u32, len: usize, fits: &mut Fits) -> (u32, usize) {
        if token == NONE {
            return (NONE, 0);
        }
        let key = pairs::key(left, token);
        let slot = &mut fits.slots[(pairs::hash(key) >> 32) as usize % FITS];
        if *slot >> TOKEN_BITS != key {
            *slot = key << TOKEN_BITS | u64::from(self.look_for_fit(left, token));
        }
        match (*slot & u64::from(NO_FIT)) as u32 {
            NO_FIT => (NONE, 0),
            fit if fit == token => (token, len),
            fit => (fit, self.len(fit)),
        }
    }

    /// As `fit`, but `NO_FIT` if there is none.
    fn look_for_fit(&self, left: u32, mut token: u32) -> u32 {
        while !self.may_meet(left, token) {
            token = self.shorter[token as usize];
            if token == NONE {
                return NO_FIT;
            }
        }
        token
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
        let mut fits = Fits::new();
        for _ in 0..2 {
            assert_eq!(vocabulary.fit(ab, a, 1, &mut fits), (a, 1));
            assert_eq!(vocabulary.fit(abc, abc, 3, &mut fits), (abc, 3));
            assert_eq!(vocabulary.fit(a, bc, 2, &mut fits), (NONE, 0), "nor b");
            assert_eq!(vocabulary.fit(ab, bc, 2, &mut fits), (bc, 2));
            assert_eq!(vocabulary.fit(c, NONE, 0, &mut fits), (NONE, 0));
        }
        let [abcd, abce] = [259, 260];
        let vocabulary = self::vocabulary(&[b"ab", b"bc", b"abc", b"abcd", b"cabcd"]);
        assert!(!vocabulary.may_meet(c, abcd), "they are merged");
        assert_eq!(vocabulary.fit(c, abcd, 4, &mut Fits::new()), (258, 3), "abc goes before cabc");
        assert_eq!(vocabulary.bytes(abce), b"cabcd");
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
