//! Splits a text into the pieces that tokens are made of, each by itself, as the regular expressions of tiktoken do.

use super::kinds::{Kind, Kinds};
use super::window::{self, Window};

/// How a family of encodings splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rules {
    /// `gpt2`, `r50k_base`, `p50k_base`, `p50k_edit`.
    Gpt2,
    /// `cl100k_base`.
    Gpt4,
    /// `o200k_base`, `o200k_harmony`.
    Gpt4o,
}

/// Rules that are known when the code is made.
pub(super) trait Split {
    /// How long the piece is that begins with a window, of which this is the first byte. `None` = it is not seen: the
    /// piece, or what ends it, is beyond the window or beyond ASCII, or takes a closer look.
    fn plain(window: Window, first: u8) -> Option<usize>;

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
    pub(super) fn new(text: &'a str, kinds: &'static Kinds) -> Self {
        Self { bytes: text.as_bytes(), kinds }
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where the piece ends that begins at `at`; `None` = the text ends there.
    #[inline(always)]
    pub(super) fn piece<S: Split>(&self, at: usize) -> Option<usize> {
        if let Some(window) = Window::at(self.bytes, at)
            && let Some(len) = S::plain(window, self.bytes[at])
        {
            return Some(at + len);
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

    /// Behind the blank at a place, or just there if there is none.
    #[inline(always)]
    fn behind_space(&self, at: usize) -> usize {
        at + usize::from(self.bytes[at] == b' ')
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

/// The length of a piece that ends within a window, in ASCII.
#[inline(always)]
fn seen(window: Window, len: usize) -> Option<usize> {
    (len < window::SIZE && !window.beyond_ascii().has(len)).then_some(len)
}

/// White space that begins with a window: up to its last line end if that ends a piece (`to_line_end`), else without
/// its last character, which goes before what follows, if it is more than that one.
#[inline(always)]
fn plain_space(window: Window, to_line_end: bool) -> Option<usize> {
    let len = seen(window, window.white_space().run(0))?;
    let line_end = if to_line_end { window.line_ends().last_of(len) } else { None };
    Some(line_end.unwrap_or(len.saturating_sub(1).max(1)))
}

/// Numbers, others and white space that begin with a window, by what `Gpt4` and `Gpt4o` share.
#[inline(always)]
fn plain_rest(window: Window, first: u8) -> Option<usize> {
    if !first.is_ascii() {
        return None;
    }
    if first.is_ascii_digit() {
        let digits = window.digits().run(0);
        return if digits >= 3 { Some(3) } else { seen(window, digits) };
    }
    let space = usize::from(first == b' ');
    let others = window.others().run(space);
    if others == 0 {
        return plain_space(window, true);
    }
    // Line ends behind them belong to the piece.
    let len = seen(window, space + others)?;
    (!window.line_ends().has(len)).then_some(len)
}

/// Whether a byte may go before a word, by `Gpt4` and `Gpt4o`: it is of ASCII, and neither a letter nor a number nor a
/// line end.
#[inline(always)]
fn goes_before(first: u8) -> bool {
    BEFORE_WORDS[first as usize]
}

static BEFORE_WORDS: [bool; 256] = {
    let mut before = [false; 256];
    let mut byte = 0_u8;
    while byte < 0x80 {
        before[byte as usize] = !byte.is_ascii_alphanumeric() && byte != b'\r' && byte != b'\n';
        byte += 1;
    }
    before
};

impl Split for Gpt2 {
    #[inline(always)]
    fn plain(window: Window, first: u8) -> Option<usize> {
        let space = usize::from(first == b' ');
        let letters = window.letters().run(space);
        if letters > 0 {
            return seen(window, space + letters);
        }
        let (digits, others) = (window.digits().run(space), window.others().run(space));
        match (digits + others, first) {
            // It may be a contraction, and beyond ASCII nothing is plain.
            (_, b'\'' | 0x80..) => None,
            (0, _) => plain_space(window, false),
            (len, _) => seen(window, space + len),
        }
    }

    #[inline(always)]
    fn end(text: &Text<'_>, at: usize, kind: Kind, _len: usize) -> usize {
        if kind == Kind::Other {
            let contraction = text.contraction(at, false);
            if contraction > 0 {
                return at + contraction;
            }
        }
        let first = text.behind_space(at);
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
    fn plain(window: Window, first: u8) -> Option<usize> {
        // It may be a contraction.
        if first == b'\'' {
            return None;
        }
        let before = usize::from(goes_before(first));
        let letters = window.letters().run(before);
        if letters > 0 {
            return seen(window, before + letters);
        }
        plain_rest(window, first)
    }

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
            let first = text.behind_space(at);
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
    fn plain(window: Window, first: u8) -> Option<usize> {
        let before = usize::from(goes_before(first));
        let lower_from = before + window.upper().run(before);
        let end = lower_from + window.lower().run(lower_from);
        if end > before {
            return seen(window, end).filter(|&end| !window.apostrophes().has(end));
        }
        plain_rest(window, first)
    }

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
                // If nothing but upper case follows, a mark is a word of its own.
                let alone = kind == Kind::Mark && Self::cased(text, at + len) == at + len;
                return Self::word(text, if alone { at } else { at + len });
            }
            if kind == Kind::Mark {
                return Self::word(text, at);
            }
            let first = text.behind_space(at);
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
