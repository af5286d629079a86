//! Makes tokens of one piece of a text.
//!
//! Takes the longest token that may stand where it is, and goes back where nothing leads on. What was found to lead
//! nowhere is marked, so that no place is tried twice with the same token: the work is linear in the piece's length,
//! whatever the piece is.

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
            let end = at + len;
            let leads_on = dead[end / 64] >> (end % 64) & 1 == 0;
            if leads_on && (last == NONE || vocabulary.meet(last, token, meetings)) {
                break true;
            }
            (token, len) = vocabulary.shorter(token);
        };
        if fits {
            tokens.push(token);
            at += len;
            last = token;
            (token, len) = vocabulary.longest(&piece[at..]);
        } else {
            dead[at / 64] |= 1 << (at % 64);
            // Each byte is a token, so that the first place is never dead.
            let Some(undone) = tokens.pop() else { break };
            at -= vocabulary.len(undone);
            last = tokens.last().copied().unwrap_or(NONE);
            (token, len) = vocabulary.shorter(undone);
        }
    }
    tokens
}
