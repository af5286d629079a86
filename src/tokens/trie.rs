//! Finds the longest token that a text begins with.

use super::NONE;

/// A trie in one array: the child of a state by a byte stands at `base ^ byte`, if its `parent` says so.
pub(super) struct Trie {
    nodes: Vec<Node>,
}

#[derive(Clone, Copy)]
struct Node {
    base: u32,
    parent: u32,
    token: u32,
}

const FREE: Node = Node { base: 0, parent: NONE, token: NONE };
const ROOT: u32 = 0;

/// So many gaps that were too small for a state's children, and the search begins behind them from then on.
const TRIES: usize = 64;

/// A token's bytes, and the token.
type Entry<'a> = (&'a [u8], u32);

/// A trie that is being made.
struct Builder {
    trie: Trie,
    next_free: usize,
}

impl Builder {
    fn place(&mut self, state: u32, mut entries: &[Entry<'_>], depth: usize) {
        if let Some((first, rest)) = entries.split_first()
            && first.0.len() == depth
        {
            self.trie.nodes[state as usize].token = first.1;
            entries = rest;
        }
        if entries.is_empty() {
            return;
        }
        let children: Vec<&[Entry<'_>]> =
            entries.chunk_by(|a, b| a.0[depth] == b.0[depth]).collect();
        let bytes: Vec<u8> = children.iter().map(|child| child[0].0[depth]).collect();
        let base = self.base_for(&bytes);
        self.trie.nodes[state as usize].base = base;
        for &byte in &bytes {
            self.trie.nodes[(base ^ u32::from(byte)) as usize].parent = state;
        }
        for (child, byte) in children.into_iter().zip(bytes) {
            self.place(base ^ u32::from(byte), child, depth + 1);
        }
    }

    /// A base at which there is room for children by all these bytes.
    fn base_for(&mut self, bytes: &[u8]) -> u32 {
        while self.trie.nodes.get(self.next_free).is_some_and(|node| node.parent != NONE) {
            self.next_free += 1;
        }
        let (mut place, mut tries) = (self.next_free, 0);
        loop {
            // Whatever a byte is, its child is in reach.
            if place + 256 >= self.trie.nodes.len() {
                let len = self.trie.nodes.len() * 2;
                self.trie.nodes.resize(len, FREE);
            }
            let is_free = |place: usize| self.trie.nodes[place].parent == NONE;
            if is_free(place) {
                let base = place ^ bytes[0] as usize;
                if bytes.iter().all(|&byte| is_free(base ^ byte as usize)) {
                    return u32::try_from(base).expect("fewer states than that");
                }
                tries += 1;
                if tries == TRIES {
                    self.next_free = place;
                }
            }
            place += 1;
        }
    }
}

impl Trie {
    /// Of tokens sorted by their bytes, none of them empty.
    pub(super) fn new(sorted: &[Entry<'_>]) -> Self {
        let mut nodes = vec![FREE; 1 << 10];
        nodes[ROOT as usize].parent = ROOT;
        let mut builder = Builder { trie: Self { nodes }, next_free: 1 };
        builder.place(ROOT, sorted, 0);
        builder.trie
    }

    #[inline(always)]
    fn child(&self, state: u32, byte: u8) -> Option<u32> {
        let next = self.nodes[state as usize].base ^ u32::from(byte);
        (self.nodes[next as usize].parent == state && next != ROOT).then_some(next)
    }

    /// The longest token that the text begins with, and its length; `NONE` if there is none.
    #[inline(always)]
    pub(super) fn longest(&self, text: &[u8]) -> (u32, usize) {
        let (mut state, mut found) = (ROOT, (NONE, 0));
        for (before, &byte) in text.iter().enumerate() {
            let Some(next) = self.child(state, byte) else { break };
            state = next;
            let token = self.nodes[state as usize].token;
            if token != NONE {
                found = (token, before + 1);
            }
        }
        found
    }

    /// The token that is just this text; `NONE` if there is none.
    pub(super) fn exact(&self, text: &[u8]) -> u32 {
        let mut state = ROOT;
        for &byte in text {
            let Some(next) = self.child(state, byte) else { return NONE };
            state = next;
        }
        self.nodes[state as usize].token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_and_the_exact_are_found() {
        let trie = Trie::new(&[(b"\0", 7), (b"a", 0), (b"ab", 1), (b"abcd", 2), (b"\xff", 3)]);
        for (text, longest, exact) in [
            (&b"abcx"[..], 1, NONE),
            (b"abcd", 2, 2),
            (b"abc", 1, NONE),
            (b"ax", 0, NONE),
            (b"\0\0", 7, NONE),
            (b"\xff", 3, 3),
            (b"b", NONE, NONE),
            (b"", NONE, NONE),
        ] {
            assert_eq!(trie.longest(text).0, longest, "{text:?}");
            assert_eq!(trie.exact(text), exact, "{text:?}");
        }
    }
}
