//! Makes tokens of one piece of a text as byte pair encoding is defined: the merge of the lowest rank first, of equals
//! the leftmost one.
//!
//! Slower than `merge` for what people write, but as fast whatever the piece is. Takes a long piece in windows, so that
//! neither time nor room grow faster than the piece. A window's last tokens might be others if it went on, and are left
//! to the next one. That the tokens of two windows may meet proves them right: there is only one such sequence.

use super::NONE;
use super::pairs::TOKEN_BITS;
use super::vocabulary::Vocabulary;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const PLACE_BITS: u32 = u32::BITS - TOKEN_BITS;

/// Bytes that are merged at once: a place within them and a token are one word.
const WINDOW: usize = 1 << PLACE_BITS;

/// Tokens that end so near a window's end are left to the next window; some four times the longest token.
const MARGIN: usize = 1 << 9;

/// Bytes that are a token, or will be part of one.
struct Part {
    token: u32,
    /// What it becomes with the next one; `NONE` if they are not merged, or if it has been merged itself.
    merged: u32,
    before: u16,
    next: u16,
}

/// Room to work in, kept by each thread.
pub(super) struct ByRank {
    parts: Vec<Part>,
    /// What bytes are merged into and where: the lowest rank, and of equals the leftmost, is the last one.
    of_bytes: Vec<u32>,
    /// The same of parts that were merged before. Some of either kind were overtaken by others.
    of_merged: BinaryHeap<Reverse<u32>>,
}

impl ByRank {
    pub(super) fn new() -> Self {
        Self { parts: Vec::new(), of_bytes: Vec::new(), of_merged: BinaryHeap::new() }
    }

    /// Puts the tokens of a piece into `tokens`. `false` = the windows do not fit together, and those are not its tokens.
    pub(super) fn merge(
        &mut self,
        vocabulary: &Vocabulary,
        piece: &[u8],
        tokens: &mut Vec<u32>,
    ) -> bool {
        tokens.clear();
        let mut start = 0;
        while start < piece.len() {
            let end = piece.len().min(start + WINDOW);
            let before = tokens.last().copied();
            let first = self.window(vocabulary, &piece[start..end], tokens);
            if before.is_some_and(|before| !vocabulary.may_meet(before, first)) {
                return false;
            }
            start = end;
            if end < piece.len() {
                while let Some(token) = tokens.pop_if(|_| start + MARGIN > end) {
                    start -= vocabulary.len(token);
                }
            }
        }
        true
    }

    /// Appends the tokens of a window, and returns the first one.
    fn window(&mut self, vocabulary: &Vocabulary, bytes: &[u8], tokens: &mut Vec<u32>) -> u32 {
        self.of_bytes.clear();
        self.parts.clear();
        self.parts.extend((1_u16..).zip(bytes).map(|(next, &byte)| Part {
            token: vocabulary.exact(&[byte]),
            merged: NONE,
            before: next.saturating_sub(2),
            next,
        }));
        for at in 0..bytes.len() {
            let merge = self.look(vocabulary, at);
            self.of_bytes.extend(merge);
        }
        self.of_bytes.sort_unstable_by(|one, other| other.cmp(one));
        while let Some(merge) = self.first() {
            let (merged, at) = (merge >> PLACE_BITS, merge as usize % WINDOW);
            if self.parts[at].merged != merged {
                continue;
            }
            let gone = self.parts[at].next as usize;
            let next = self.parts[gone].next;
            self.parts[gone].merged = NONE;
            self.parts[at].token = merged;
            self.parts[at].next = next;
            if let Some(part) = self.parts.get_mut(next as usize) {
                part.before = at as u16;
            }
            let merge = self.look(vocabulary, at);
            self.of_merged.extend(merge.map(Reverse));
            if at > 0 {
                let merge = self.look(vocabulary, self.parts[at].before as usize);
                self.of_merged.extend(merge.map(Reverse));
            }
        }
        let mut at = 0;
        while let Some(part) = self.parts.get(at) {
            tokens.push(part.token);
            at = part.next as usize;
        }
        self.parts.first().map_or(NONE, |part| part.token)
    }

    /// Takes the merge that is to be made next.
    fn first(&mut self) -> Option<u32> {
        match (self.of_bytes.last(), self.of_merged.peek()) {
            (Some(of_bytes), Some(Reverse(of_merged))) if of_merged < of_bytes => {
                self.of_merged.pop().map(|Reverse(merge)| merge)
            }
            (Some(_), _) => self.of_bytes.pop(),
            (None, _) => self.of_merged.pop().map(|Reverse(merge)| merge),
        }
    }

    /// Notes what the part at a place is merged into, with the next one: it and the place in one word.
    #[inline(always)]
    fn look(&mut self, vocabulary: &Vocabulary, at: usize) -> Option<u32> {
        let part = &self.parts[at];
        let merged = match self.parts.get(part.next as usize) {
            Some(next) => vocabulary.merged(part.token, next.token),
            None => NONE,
        };
        self.parts[at].merged = merged;
        (merged != NONE).then_some(merged << PLACE_BITS | at as u32)
    }
}
