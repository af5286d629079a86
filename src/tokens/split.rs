//! Splits a text into the pieces that tokens are made of, each by itself, as the regular expressions of tiktoken do.

use super::kinds::{Kind, Kinds};

/// How a family of encodings splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// `r50k_base`, `p50k_base`, `p50k_edit`.
    Gpt2,
    /// `cl100k_base`.
    Gpt4,
    /// `o200k_base`, `o200k_harmony`.
    Gpt4o,
}

/// Rules that are known when the code is made.
pub(super) trait Split {
    /// Where the piece ends that begins at `at` with a character of this kind and length.
    fn end(text: &Text<'_>, at: usize, kind: Kind, len: usize) -> usize;
}

/// `Rules::Gpt2`.
pub(super) struct Gpt2;
/// `Rules::Gpt4`.
pub(super) struct Gpt4;
/// `Rules::Gpt4o`.
pub(super) struct Gpt4o;

/// A text with what tells its characters apart.
pub(super) struct Text<'a> {
    bytes: &'a [u8],
    kinds: &'static Kinds,
}

impl<'a> Text<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { bytes: text.as_bytes(), kinds: Kinds::get() }
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where the piece ends that begins at `at`; `None` = the text ends there.
    #[inline(always)]
    pub(super) fn piece<S: Split>(&self, at: usize) -> Option<usize> {
        let &first = self.bytes.get(at)?;
        let word = if first == b' ' { at + 1 } else { at };
        if let Some(end) = self.plain_word(word) {
            return Some(end);
        }
        let (kind, len) = self.kind(at)?;
        Some(S::end(self, at, kind, len))
    }

    /// Whether no piece reaches across this place, whatever else is in the text.
    ///
    /// Behind a letter or a number all rules end a piece, unless a letter, a number, a mark or an apostrophe follows.
    pub(super) fn is_cut(&self, at: usize) -> bool {
        let Some((before, _)) = self.bytes.get(..at).and_then(|bytes| {
            let start = bytes.iter().rposition(|&byte| !is_inner(byte))?;
            self.kind(start)
        }) else {
            return false;
        };
        match self.bytes.get(at) {
            None | Some(b'\'') => false,
            Some(&byte) if is_inner(byte) => false,
            Some(_) => {
                let after = self.kind(at).map(|(kind, _)| kind);
                (is_letter(before) || before == Kind::Number)
                    && matches!(after, Some(Kind::Space | Kind::LineEnd | Kind::Other))
            }
        }
    }

    #[inline(always)]
    fn kind(&self, at: usize) -> Option<(Kind, usize)> {
        self.kinds.at(self.bytes, at)
    }

    /// Where the run of such characters ends that begins at `at`.
    #[inline(always)]
    fn run(&self, mut at: usize, wanted: impl Fn(Kind) -> bool) -> usize {
        while let Some((kind, len)) = self.kind(at)
            && wanted(kind)
        {
            at += len;
        }
        at
    }

    /// Where the run of such bytes ends that begins at `at`.
    #[inline(always)]
    fn run_of_bytes(&self, mut at: usize, wanted: impl Fn(u8) -> bool) -> usize {
        while self.bytes.get(at).is_some_and(|&byte| wanted(byte)) {
            at += 1;
        }
        at
    }

    /// Bytes of `'s`, `'t`, `'re`, `'ve`, `'m`, `'ll` or `'d`, in upper case too if `any_case`; 0 if there is none.
    #[inline(always)]
    fn contraction(&self, at: usize, any_case: bool) -> usize {
        if self.bytes.get(at) != Some(&b'\'') {
            return 0;
        }
        let letter = |n: usize| {
            let byte = self.bytes.get(at + n).copied().unwrap_or(0);
            if any_case { byte.to_ascii_lowercase() } else { byte }
        };
        match (letter(1), letter(2)) {
            (b's' | b'd' | b'm' | b't', _) => 2,
            (b'l', b'l') | (b'v' | b'r', b'e') => 3,
            // The long s, which is an s in another case.
            (0xc5, 0xbf) if any_case => 3,
            _ => 0,
        }
    }

    /// Where at most three numbers end.
    #[inline]
    fn three_numbers(&self, mut at: usize) -> usize {
        for _ in 0..3 {
            match self.kind(at) {
                Some((Kind::Number, len)) => at += len,
                _ => break,
            }
        }
        at
    }

    /// Where a piece of white space ends that begins at `at`.
    fn white_space(&self, at: usize) -> WhiteSpace {
        let mut space = WhiteSpace { end: at, last: at, line_end: None, is_the_rest: false };
        while let Some((kind @ (Kind::Space | Kind::LineEnd), len)) = self.kind(space.end) {
            space.last = space.end;
            space.end += len;
            if kind == Kind::LineEnd {
                space.line_end = Some(space.end);
            }
        }
        space.is_the_rest = space.end == self.bytes.len();
        space
    }
}

/// A run of white space.
struct WhiteSpace {
    end: usize,
    /// Where its last character begins.
    last: usize,
    /// Behind its last line end.
    line_end: Option<usize>,
    /// The text ends with it.
    is_the_rest: bool,
}

impl WhiteSpace {
    /// Where its piece ends: all of it if the text ends with it, else all but the last character, which goes before
    /// what follows, if it is more than that one.
    fn without_last(&self, start: usize) -> usize {
        if self.is_the_rest || self.last == start { self.end } else { self.last }
    }
}

/// Whether a byte is another than the first of its character.
fn is_inner(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

fn is_letter(kind: Kind) -> bool {
    matches!(kind, Kind::Upper | Kind::Lower | Kind::Letter)
}

fn is_mark_or_other(kind: Kind) -> bool {
    matches!(kind, Kind::Other | Kind::Mark)
}

impl Split for Gpt2 {
    #[inline(always)]
    fn end(text: &Text<'_>, at: usize, kind: Kind, _len: usize) -> usize {
        if kind == Kind::Other {
            let contraction = text.contraction(at, false);
            if contraction > 0 {
                return at + contraction;
            }
        }
        let first = if text.bytes[at] == b' ' { at + 1 } else { at };
        match text.kind(first) {
            Some((Kind::Upper | Kind::Lower | Kind::Letter, _)) => text.run(first, is_letter),
            Some((Kind::Number, _)) => text.run(first, |kind| kind == Kind::Number),
            Some((Kind::Other | Kind::Mark, _)) => text.run(first, is_mark_or_other),
            _ => text.white_space(at).without_last(at),
        }
    }
}

impl Split for Gpt4 {
    #[inline(always)]
    fn end(text: &Text<'_>, at: usize, kind: Kind, len: usize) -> usize {
        if is_letter(kind) {
            return text.run(at + len, is_letter);
        }
        if kind == Kind::Number {
            return text.three_numbers(at);
        }
        if kind != Kind::LineEnd {
            if kind == Kind::Other {
                let contraction = text.contraction(at, true);
                if contraction > 0 {
                    return at + contraction;
                }
            }
            // One character of any other kind goes before a word.
            let end = text.run(at + len, is_letter);
            if end > at + len {
                return end;
            }
            let first = if text.bytes[at] == b' ' { at + 1 } else { at };
            let end = text.run(first, is_mark_or_other);
            if end > first {
                return text.run_of_bytes(end, |byte| matches!(byte, b'\r' | b'\n'));
            }
        }
        let space = text.white_space(at);
        match space.line_end {
            Some(line_end) if !space.is_the_rest => line_end,
            _ => space.without_last(at),
        }
    }
}

impl Split for Gpt4o {
    #[inline(always)]
    fn end(text: &Text<'_>, at: usize, kind: Kind, len: usize) -> usize {
        if is_letter(kind) {
            return Self::word(text, at);
        }
        if kind == Kind::Number {
            return text.three_numbers(at);
        }
        if kind != Kind::LineEnd {
            // One character of any other kind goes before a word.
            if let Some((Kind::Upper | Kind::Lower | Kind::Letter | Kind::Mark, _)) =
                text.kind(at + len)
            {
                let end = Self::cased(text, at + len);
                if end > at + len {
                    return end + text.contraction(end, true);
                }
                // Nothing but upper case follows. Without it a mark is a word of its own.
                if kind == Kind::Mark {
                    return Self::word(text, at);
                }
                let end = text.run(at + len, |kind| kind == Kind::Upper);
                return end + text.contraction(end, true);
            }
            if kind == Kind::Mark {
                return Self::word(text, at);
            }
            let first = if text.bytes[at] == b' ' { at + 1 } else { at };
            let end = text.run(first, is_mark_or_other);
            if end > first {
                return text.run_of_bytes(end, |byte| matches!(byte, b'\r' | b'\n' | b'/'));
            }
        }
        let space = text.white_space(at);
        space.line_end.unwrap_or_else(|| space.without_last(at))
    }
}

impl Gpt4o {
    /// Where a word ends, with nothing before it.
    #[inline(always)]
    fn word(text: &Text<'_>, at: usize) -> usize {
        let end = Self::cased(text, at);
        let end = if end > at { end } else { text.run(at, |kind| kind == Kind::Upper) };
        end + text.contraction(end, true)
    }

    /// Where upper case, marks and letters without case end, and at least one behind them that is not upper case;
    /// `at` = there is no such one.
    #[inline(always)]
    fn cased(text: &Text<'_>, at: usize) -> usize {
        let mut end = at;
        // Behind the last character so far that may be the last one.
        let mut caseless = at;
        while let Some((kind, len)) = text.kind(end) {
            match kind {
                Kind::Upper => end += len,
                Kind::Letter | Kind::Mark => {
                    end += len;
                    caseless = end;
                }
                Kind::Lower => {
                    return text.run(end + len, |kind| {
                        matches!(kind, Kind::Lower | Kind::Letter | Kind::Mark)
                    });
                }
                _ => break,
            }
        }
        caseless
    }
}

const HIGH: u64 = 0x8080_8080_8080_8080;

/// Of eight bytes, the highest bit of each that is a letter `a` to `z`.
#[inline(always)]
fn lower(bytes: u64) -> u64 {
    let low = bytes & !HIGH;
    (low + 0x1f1f_1f1f_1f1f_1f1f) & !(low + 0x0505_0505_0505_0505) & !bytes & HIGH
}

impl Text<'_> {
    #[inline(always)]
    fn eight(&self, at: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    /// Where a plain word from `at` on ends: a letter of any case, then lower case ones, all in ASCII as is what ends
    /// it. It is a piece by all rules. `None` = it is none, or it takes a closer look.
    #[inline(always)]
    fn plain_word(&self, at: usize) -> Option<usize> {
        let first = *self.bytes.get(at)?;
        if !first.is_ascii_alphabetic() {
            return None;
        }
        let mut end = at + 1;
        loop {
            let others = !lower(self.eight(end)?) & HIGH;
            if others != 0 {
                end += (others.trailing_zeros() / 8) as usize;
                break;
            }
            end += 8;
        }
        let after = self.bytes[end];
        let ends = !after.is_ascii_alphabetic() && after < 0x80 && after != b'\'';
        (ends && (end > at + 1 || first.is_ascii_lowercase())).then_some(end)
    }
}
