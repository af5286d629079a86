//! Makes tokens of one piece of a text.
//!
//! Takes the longest token that may stand where it is, and goes back where nothing leads on. What was found to lead
//! nowhere is marked, so that no place is tried twice. There is only one way, so that what is tried first changes the
//! time and nothing else: a token that comes again is tried before longer ones, which in a row of one character lead
//! nowhere, after many places. A piece in which it goes back too often is left to `by_rank`: the work is linear in the
//! piece's length, whatever the piece is.

use super::NONE;
use super::by_rank::ByRank;
use super::vocabulary::{Fits, Vocabulary};

/// Room to work in, kept by each thread.
pub(super) struct Bench {
    fits: Fits,
    /// Places from which the rest of the piece cannot be made, a bit for each byte.
    dead: Vec<u64>,
    by_rank: ByRank,
    tokens: Vec<u32>,
}

/// Words of each kind that are kept from one text to the next.
const KEPT: usize = 1 << 14;

impl Bench {
    pub(super) fn new() -> Self {
        Self { fits: Fits::new(), dead: Vec::new(), by_rank: ByRank::new(), tokens: Vec::new() }
    }

    /// Gives back the room that only a very long piece takes.
    pub(super) fn tidy(&mut self) {
        self.tokens.clear();
        self.tokens.shrink_to(KEPT);
        self.dead.clear();
        self.dead.shrink_to(KEPT);
    }

    /// What `merge` has made last.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}

/// The tokens of a piece that is not empty.
#[inline(never)]
pub(super) fn merge<'a>(vocabulary: &Vocabulary, piece: &[u8], bench: &'a mut Bench) -> &'a [u32] {
    if !go(vocabulary, piece, bench, piece.len())
        && !bench.by_rank.merge(vocabulary, piece, &mut bench.tokens)
    {
        go(vocabulary, piece, bench, usize::MAX);
    }
    &bench.tokens
}

/// Makes the tokens by going back and forth. `false` = more bytes than `most` would have been taken back.
#[inline(always)]
fn go(vocabulary: &Vocabulary, piece: &[u8], bench: &mut Bench, most: usize) -> bool {
    let Bench { fits, dead, tokens, .. } = bench;
    tokens.clear();
    let (mut token, mut len) = vocabulary.longest(piece);
    if len == piece.len() {
        tokens.push(token);
        return true;
    }
    dead.clear();
    dead.resize(piece.len() / 64 + 1, 0);
    let (mut at, mut last, mut left) = (0, NONE, most);
    while at < piece.len() {
        // The longest token that may stand here, and behind which there is a way on.
        let found = loop {
            if last != NONE {
                (token, len) = vocabulary.fit(last, token, len, fits);
            }
            if token == NONE {
                break false;
            }
            if leads_on(dead, at + len) {
                break true;
            }
            (token, len) = vocabulary.shorter(token);
        };
        if found {
            let same = &piece[at..at + len];
            tokens.push(token);
            at += len;
            last = token;
            while piece.get(at) == Some(&same[0])
                && piece[at..].starts_with(same)
                && leads_on(dead, at + len)
                && vocabulary.fit(token, token, len, fits).0 == token
            {
                tokens.push(token);
                at += len;
            }
            (token, len) = vocabulary.longest(&piece[at..]);
        } else {
            dead[at / 64] |= 1 << (at % 64);
            // Each byte is a token, so that the first place is never dead.
            let Some(undone) = tokens.pop() else { break };
            let Some(still) = left.checked_sub(vocabulary.len(undone)) else { return false };
            left = still;
            at -= vocabulary.len(undone);
            last = tokens.last().copied().unwrap_or(NONE);
            // One that came again has not been tried after longer ones.
            (token, len) = if undone == last {
                vocabulary.longest(&piece[at..])
            } else {
                vocabulary.shorter(undone)
            };
        }
    }
    true
}

/// Whether nothing is known against going on from a place.
#[inline(always)]
fn leads_on(dead: &[u64], at: usize) -> bool {
    dead[at / 64] >> (at % 64) & 1 == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::definition::Definition;

    /// What either way makes of a piece, and whether the first one goes back too often.
    fn both(vocabulary: &Vocabulary, piece: &[u8], bench: &mut Bench) -> bool {
        let too_often = !go(vocabulary, piece, bench, piece.len());
        assert!(go(vocabulary, piece, bench, usize::MAX));
        let there = bench.tokens.clone();
        assert!(bench.by_rank.merge(vocabulary, piece, &mut bench.tokens), "windows fit together");
        assert!(there == bench.tokens, "{:?}", String::from_utf8_lossy(piece));
        assert!(there == merge(vocabulary, piece, bench));
        too_often
    }

    #[test]
    fn a_long_piece_leaves_no_room_behind() {
        let vocabulary = Definition::named("r50k_base").unwrap().vocabulary();
        let mut bench = Bench::new();
        let piece = b"xq".repeat(1 << 20);
        assert_eq!(merge(vocabulary, &piece, &mut bench).len(), 2 << 20);
        assert!(bench.dead.capacity() > KEPT);
        bench.tidy();
        assert_eq!((bench.tokens.capacity(), bench.dead.capacity()), (KEPT, KEPT));
    }

    #[test]
    fn either_way_the_tokens_are_the_same() {
        for name in ["cl100k_base", "o200k_base", "r50k_base"] {
            let vocabulary = Definition::named(name).unwrap().vocabulary();
            let mut bench = Bench::new();
            let mut too_often = 0;
            for pattern in
                ["-", "=", " ", "/", "ab", "\u{4f60}\u{597d}", "-=--=", "e\u{301}", "ingener"]
            {
                for len in (1..300).chain([4_095, 4_096, 4_097, 8_000, 30_000]) {
                    let piece: Vec<u8> = pattern.bytes().cycle().take(len).collect();
                    too_often += usize::from(both(vocabulary, &piece, &mut bench));
                }
            }
            assert!(too_often > 0, "parts of words are taken back and forth");
        }
    }

    #[test]
    fn a_row_of_one_character_is_gone_through_once() {
        for name in ["cl100k_base", "o200k_base"] {
            let vocabulary = Definition::named(name).unwrap().vocabulary();
            for byte in *b"=-/*#" {
                let mut bench = Bench::new();
                let most = 10_000;
                assert!(go(vocabulary, &[byte].repeat(100_000), &mut bench, most), "{name} {byte}");
            }
        }
    }
}
