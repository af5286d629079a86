//! What the next sixteen bytes of a text are, all at once: a bit for each, the first in the lowest.

use wide::{CmpEq, CmpGt, i8x16};

/// Bytes that a window shows.
pub(super) const SIZE: usize = 16;

/// The bytes from one place of a text on.
#[derive(Clone, Copy)]
pub(super) struct Window(i8x16);

/// Of which bytes something is true.
#[derive(Clone, Copy)]
pub(super) struct Bits(u32);

impl Bits {
    /// From one byte on, how many in a row it is true of. At the window's end it is true of none.
    #[inline(always)]
    pub(super) fn run(self, from: usize) -> usize {
        (self.0 >> from).trailing_ones() as usize
    }

    #[inline(always)]
    pub(super) fn has(self, at: usize) -> bool {
        self.0 >> at & 1 != 0
    }

    /// Behind the last of the first `len` bytes that it is true of; `None` = it is true of none of them.
    #[inline(always)]
    pub(super) fn last_of(self, len: usize) -> Option<usize> {
        let bits = self.0 & ((1 << len) - 1);
        (bits != 0).then(|| (u32::BITS - bits.leading_zeros()) as usize)
    }
}

impl Window {
    /// `None` = the text ends before the window does.
    #[inline(always)]
    pub(super) fn at(text: &[u8], at: usize) -> Option<Self> {
        let bytes: [u8; SIZE] = text.get(at..at + SIZE)?.try_into().ok()?;
        Some(Self(bytemuck::cast(bytes)))
    }

    #[inline(always)]
    fn between(bytes: i8x16, first: u8, last: u8) -> i8x16 {
        let above = bytes.cmp_gt(i8x16::splat(first.cast_signed() - 1));
        above & i8x16::splat(last.cast_signed() + 1).cmp_gt(bytes)
    }

    #[inline(always)]
    fn bits(mask: i8x16) -> Bits {
        Bits(mask.move_mask().cast_unsigned())
    }

    /// Letters of ASCII.
    #[inline(always)]
    pub(super) fn letters(self) -> Bits {
        Self::bits(Self::between(self.0 | i8x16::splat(0x20), b'a', b'z'))
    }

    /// Upper case letters of ASCII.
    #[inline(always)]
    pub(super) fn upper(self) -> Bits {
        Self::bits(Self::between(self.0, b'A', b'Z'))
    }

    /// Lower case letters of ASCII.
    #[inline(always)]
    pub(super) fn lower(self) -> Bits {
        Self::bits(Self::between(self.0, b'a', b'z'))
    }

    /// Digits of ASCII.
    #[inline(always)]
    pub(super) fn digits(self) -> Bits {
        Self::bits(Self::between(self.0, b'0', b'9'))
    }

    /// `\r` and `\n`.
    #[inline(always)]
    pub(super) fn line_ends(self) -> Bits {
        Self::bits(
            self.0.cmp_eq(i8x16::splat(b'\n'.cast_signed()))
                | self.0.cmp_eq(i8x16::splat(b'\r'.cast_signed())),
        )
    }

    #[inline(always)]
    fn white(self) -> i8x16 {
        self.0.cmp_eq(i8x16::splat(b' '.cast_signed())) | Self::between(self.0, b'\t', b'\r')
    }

    /// What may begin a contraction.
    #[inline(always)]
    pub(super) fn apostrophes(self) -> Bits {
        Self::bits(self.0.cmp_eq(i8x16::splat(b'\''.cast_signed())))
    }

    /// White space of ASCII.
    #[inline(always)]
    pub(super) fn white_space(self) -> Bits {
        Self::bits(self.white())
    }

    /// What is beyond ASCII.
    #[inline(always)]
    pub(super) fn beyond_ascii(self) -> Bits {
        Self::bits(self.0)
    }

    /// What of ASCII is neither a letter nor a digit nor white space.
    #[inline(always)]
    pub(super) fn others(self) -> Bits {
        let words = Self::between(self.0 | i8x16::splat(0x20), b'a', b'z')
            | Self::between(self.0, b'0', b'9');
        Self::bits(!(words | self.white() | self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_what_it_is() {
        for byte in 0..=255_u8 {
            let mut text = [b'\xff'; 20];
            text[3] = byte;
            let window = Window::at(&text, 2).unwrap();
            let is = |bits: Bits| bits.has(1);
            assert_eq!(is(window.letters()), byte.is_ascii_alphabetic(), "{byte}");
            assert_eq!(is(window.upper()), byte.is_ascii_uppercase(), "{byte}");
            assert_eq!(is(window.lower()), byte.is_ascii_lowercase(), "{byte}");
            assert_eq!(is(window.digits()), byte.is_ascii_digit(), "{byte}");
            assert_eq!(is(window.line_ends()), matches!(byte, b'\r' | b'\n'), "{byte}");
            let white = matches!(byte, b' ' | 9..=13);
            assert_eq!(is(window.white_space()), white, "{byte}");
            assert_eq!(is(window.beyond_ascii()), !byte.is_ascii(), "{byte}");
            let other = byte.is_ascii() && !byte.is_ascii_alphanumeric() && !white;
            assert_eq!(is(window.others()), other, "{byte}");
        }
    }

    #[test]
    fn runs_end_with_the_window() {
        let text = [b'a'; SIZE + 1];
        let letters = Window::at(&text, 1).unwrap().letters();
        assert_eq!((letters.run(0), letters.run(5), letters.run(SIZE)), (SIZE, SIZE - 5, 0));
        assert!(Window::at(&text, 2).is_none());
        let ends = Window::at(b"\n \n  x          ", 0).unwrap().line_ends();
        assert_eq!((ends.last_of(5), ends.last_of(2), ends.last_of(0)), (Some(3), Some(1), None));
    }
}
