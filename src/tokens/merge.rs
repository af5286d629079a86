//! Makes tokens of one piece of a text.
//!
//! Takes the longest token that may stand where it is, and goes back where nothing leads on. What was found to lead
//! nowhere is marked, so that no place is tried twice with the same token: the work is linear in the piece's length,
//! whatever the piece is.
//!
//! There is only one way, so that what is tried first changes the time and nothing else. A token that comes again is
//! tried before longer ones: in a run of one character those lead nowhere, after many places.

use super::NONE;
use super::vocabulary::{Meetings, Vocabulary};

/// Room to work in, kept by each thread.
pub(super) struct Bench {
    meetings: Meetings,
    /// Places from which the rest of the piece cannot be made, a bit for each byte.
    dead: Vec<u64>,
    tokens: Vec<u32>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self { meetings: Meetings::new(), dead: Vec::new(), tokens: Vec::new() }
    }
}

/// The tokens of a piece that is not empty.
#[inline(never)]
pub(super) fn merge<'a>(vocabulary: &Vocabulary, piece: &[u8], bench: &'a mut Bench) -> &'a [u32] {
    let Bench { meetings, dead, tokens } = bench;
    tokens.clear();
    let (mut token, mut len) = vocabulary.longest(piece);
    if len == piece.len() {
        tokens.push(token);
        return tokens;
    }
    dead.clear();
    dead.resize(piece.len() / 64 + 1, 0);
    let (mut at, mut last) = (0, NONE);
    while at < piece.len() {
        // The longest token that may stand here, and behind which there is a way on.
        let fits = loop {
            if token == NONE {
                break false;
            }
            if leads_on(dead, at + len) && (last == NONE || vocabulary.meet(last, token, meetings))
            {
                break true;
            }
            (token, len) = vocabulary.shorter(token);
        };
        if fits {
            let same = &piece[at..at + len];
            tokens.push(token);
            at += len;
            last = token;
            while piece.get(at) == Some(&same[0])
                && piece[at..].starts_with(same)
                && leads_on(dead, at + len)
                && vocabulary.meet(token, token, meetings)
            {
                tokens.push(token);
                at += len;
            }
            (token, len) = vocabulary.longest(&piece[at..]);
        } else {
            dead[at / 64] |= 1 << (at % 64);
            // Each byte is a token, so that the first place is never dead.
            let Some(undone) = tokens.pop() else { break };
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
    tokens
}

/// Whether nothing is known against going on from a place.
#[inline(always)]
fn leads_on(dead: &[u64], at: usize) -> bool {
    dead[at / 64] >> (at % 64) & 1 == 0
}

#[cfg(test)]
mod tests {
    use super::super::definition::Definition;
    use super::*;

    #[test]
    fn a_run_of_one_character_is_gone_through_once() {
        for name in ["cl100k_base", "o200k_base"] {
            let vocabulary = Definition::named(name).unwrap().vocabulary();
            for byte in *b"=-/*#" {
                let mut bench = Bench::new();
                let tokens = merge(vocabulary, &[byte; 20_000], &mut bench).len();
                assert!(tokens < 20_000 / 60, "they are 64 each: {tokens}");
                let dead: u32 = bench.dead.iter().map(|bits| bits.count_ones()).sum();
                assert!(dead < 1_000, "{name} {}: {dead} places led nowhere", char::from(byte));
            }
        }
    }
}
