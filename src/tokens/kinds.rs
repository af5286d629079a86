//! What kind of character a code point is, to a splitter.
//!
//! Read off the character classes of `regex-syntax`, whose tables the splitter of tiktoken uses.

use regex_syntax::hir::{Class, Hir, HirKind};
use std::sync::LazyLock;

/// What a character is to a splitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// None of the others: punctuation, symbols, controls, what is not assigned.
    Other,
    /// White space but for line ends.
    Space,
    /// `\r` and `\n`.
    LineEnd,
    /// A number.
    Number,
    /// A letter in upper or title case.
    Upper,
    /// A letter in lower case.
    Lower,
    /// A letter without case.
    Letter,
    /// A mark.
    Mark,
}

/// Later classes take what they share with earlier ones.
const CLASSES: [(&str, Kind); 7] = [
    (r"\s", Kind::Space),
    (r"[\r\n]", Kind::LineEnd),
    (r"\p{N}", Kind::Number),
    (r"[\p{Lu}\p{Lt}]", Kind::Upper),
    (r"\p{Ll}", Kind::Lower),
    (r"[\p{Lm}\p{Lo}]", Kind::Letter),
    (r"\p{M}", Kind::Mark),
];

const POINTS: usize = 0x11_0000;
const BLOCK: usize = 256;

/// Kinds of all code points, in two stages: so many in a row share a block, and equal blocks are one.
pub(super) struct Kinds {
    ascii: [Kind; 128],
    blocks: Vec<u16>,
    of_blocks: Vec<Kind>,
}

static KINDS: LazyLock<Kinds> = LazyLock::new(Kinds::new);

fn ranges(class: &str) -> Vec<(usize, usize)> {
    match regex_syntax::parse(class).map(Hir::into_kind) {
        Ok(HirKind::Class(Class::Unicode(class))) => class
            .ranges()
            .iter()
            .map(|range| (range.start() as usize, range.end() as usize))
            .collect(),
        _ => Vec::new(),
    }
}

impl Kinds {
    /// The table, made when it is wanted for the first time.
    pub(super) fn get() -> &'static Self {
        &KINDS
    }

    fn new() -> Self {
        let mut all = vec![Kind::Other; POINTS];
        for (class, kind) in CLASSES {
            for (first, last) in ranges(class) {
                all[first..=last].fill(kind);
            }
        }
        let (mut blocks, mut of_blocks) = (Vec::new(), Vec::<Kind>::new());
        for block in all.chunks_exact(BLOCK) {
            let known = of_blocks.chunks_exact(BLOCK).position(|known| known == block);
            let number = known.unwrap_or_else(|| {
                of_blocks.extend_from_slice(block);
                of_blocks.len() / BLOCK - 1
            });
            blocks.push(u16::try_from(number).expect("fewer blocks than that"));
        }
        Self { ascii: std::array::from_fn(|point| all[point]), blocks, of_blocks }
    }

    /// The kind of the character that begins at `at`, and its length; `None` = the text ends there.
    #[inline(always)]
    pub(super) fn at(&self, text: &[u8], at: usize) -> Option<(Kind, usize)> {
        let &first = text.get(at)?;
        if first < 0x80 {
            return Some((self.ascii[first as usize], 1));
        }
        Some(self.beyond_ascii(text, at))
    }

    #[inline]
    fn beyond_ascii(&self, text: &[u8], at: usize) -> (Kind, usize) {
        let byte = |n: usize| u32::from(text.get(at + n).copied().unwrap_or(0)) & 0x3f;
        let first = u32::from(text[at]);
        let (point, len) = if first < 0xe0 {
            ((first & 0x1f) << 6 | byte(1), 2)
        } else if first < 0xf0 {
            ((first & 0xf) << 12 | byte(1) << 6 | byte(2), 3)
        } else {
            ((first & 0x7) << 18 | byte(1) << 12 | byte(2) << 6 | byte(3), 4)
        };
        (self.of(point), len)
    }

    /// The kind of a code point.
    #[inline(always)]
    fn of(&self, point: u32) -> Kind {
        let point = point as usize;
        let block = self.blocks.get(point / BLOCK).copied().unwrap_or(0) as usize;
        self.of_blocks[block * BLOCK + point % BLOCK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_of_their_kind() {
        for (text, kind) in [
            ("a", Kind::Lower),
            ("A", Kind::Upper),
            ("\u{1c5}", Kind::Upper),
            ("\u{17f}", Kind::Lower),
            ("\u{2b0}", Kind::Letter),
            ("中", Kind::Letter),
            ("\u{301}", Kind::Mark),
            ("7", Kind::Number),
            ("Ⅷ", Kind::Number),
            ("\t", Kind::Space),
            ("\u{85}", Kind::Space),
            ("\u{2028}", Kind::Space),
            ("\n", Kind::LineEnd),
            ("\r", Kind::LineEnd),
            ("\0", Kind::Other),
            ("👍", Kind::Other),
            ("\u{10ffff}", Kind::Other),
        ] {
            assert_eq!(Kinds::get().at(text.as_bytes(), 0), Some((kind, text.len())), "{text:?}");
        }
        assert_eq!(Kinds::get().at(b"a", 1), None);
    }
}
