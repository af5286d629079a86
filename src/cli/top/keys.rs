//! What a terminal sends when keys are pressed.

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    /// With Ctrl held; a small letter.
    Ctrl(char),
    Enter,
    Backspace,
    Escape,
    Tab,
    BackTab,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
}

/// Bytes that are not yet a key.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pending: Vec<u8>,
}

/// A longer sequence is none that we know.
const LONGEST: usize = 32;

enum Parsed {
    /// So many bytes are a key, or one that means nothing here.
    Key(usize, Option<Key>),
    /// The rest is yet to come.
    Unfinished,
}

impl Keys {
    /// The keys that bytes stand for, those that were not yet a key before them.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.pending.extend_from_slice(bytes);
        let mut keys = Vec::new();
        while !self.pending.is_empty() {
            match parse(&self.pending) {
                Parsed::Key(length, key) => {
                    self.pending.drain(..length.min(self.pending.len()));
                    keys.extend(key);
                }
                Parsed::Unfinished if self.pending.len() > LONGEST => self.pending.clear(),
                Parsed::Unfinished => break,
            }
        }
        keys
    }

    /// Whether a key may have begun.
    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Nothing follows: what looked like the beginning of a sequence was Esc.
    pub(super) fn settle(&mut self) -> Option<Key> {
        let escape = self.pending == [0x1b];
        self.pending.clear();
        escape.then_some(Key::Escape)
    }
}

fn parse(bytes: &[u8]) -> Parsed {
    let one = |key| Parsed::Key(1, Some(key));
    match bytes {
        [] => Parsed::Unfinished,
        [0x1b, rest @ ..] => escaped(rest),
        [b'\r' | b'\n', ..] => one(Key::Enter),
        [b'\t', ..] => one(Key::Tab),
        [0x08 | 0x7f, ..] => one(Key::Backspace),
        [0, ..] => Parsed::Key(1, None),
        [control @ ..0x1b, ..] => one(Key::Ctrl(char::from(control + b'a' - 1))),
        [..0x20, ..] => Parsed::Key(1, None),
        [first, ..] => character(*first, bytes),
    }
}

fn character(first: u8, bytes: &[u8]) -> Parsed {
    let length = match first {
        ..0x80 => 1,
        0xc2..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf5 => 4,
        _ => return Parsed::Key(1, None),
    };
    let Some(bytes) = bytes.get(..length) else {
        return Parsed::Unfinished;
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => Parsed::Key(length, text.chars().next().map(Key::Char)),
        Err(_) => Parsed::Key(1, None),
    }
}

/// What follows an Esc.
fn escaped(rest: &[u8]) -> Parsed {
    match rest {
        [] | [b'O'] => Parsed::Unfinished,
        [0x1b, ..] => Parsed::Key(1, Some(Key::Escape)),
        [b'O', last, ..] => Parsed::Key(3, named(*last, &[])),
        [b'[', sequence @ ..] => {
            let ends = |byte: &u8| (0x40..=0x7e).contains(byte);
            let Some(end) = sequence.iter().position(ends) else {
                return Parsed::Unfinished;
            };
            let key = sequence.get(end).and_then(|&last| named(last, &sequence[..end]));
            Parsed::Key(end + 3, key)
        }
        // A character with Alt held.
        [first, ..] => match character(*first, rest) {
            Parsed::Key(length, _) => Parsed::Key(length + 1, None),
            Parsed::Unfinished => Parsed::Unfinished,
        },
    }
}

/// By the last byte of a sequence and what stands before it.
fn named(last: u8, parameters: &[u8]) -> Option<Key> {
    let number = parameters.split(|&byte| byte == b';').next().unwrap_or_default();
    match (last, number) {
        (b'A', _) => Some(Key::Up),
        (b'B', _) => Some(Key::Down),
        (b'C', _) => Some(Key::Right),
        (b'D', _) => Some(Key::Left),
        (b'H', _) | (b'~', b"1" | b"7") => Some(Key::Home),
        (b'F', _) | (b'~', b"4" | b"8") => Some(Key::End),
        (b'Z', _) => Some(Key::BackTab),
        (b'M', []) => Some(Key::Enter),
        (b'~', b"5") => Some(Key::PageUp),
        (b'~', b"6") => Some(Key::PageDown),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        Keys::default().read(bytes)
    }

    #[test]
    fn keys_are_what_terminals_send() {
        assert_eq!(
            keys("q/ü😀\r\t\x7f\x03\x1a".as_bytes()),
            [
                Key::Char('q'),
                Key::Char('/'),
                Key::Char('ü'),
                Key::Char('😀'),
                Key::Enter,
                Key::Tab,
                Key::Backspace,
                Key::Ctrl('c'),
                Key::Ctrl('z'),
            ]
        );
        assert_eq!(
            keys(b"\x1b[A\x1bOB\x1b[1;5C\x1b[D\x1b[5~\x1b[6;2~\x1b[H\x1bOF\x1b[Z\x1b[1~\x1b[8~"),
            [
                Key::Up,
                Key::Down,
                Key::Right,
                Key::Left,
                Key::PageUp,
                Key::PageDown,
                Key::Home,
                Key::End,
                Key::BackTab,
                Key::Home,
                Key::End,
            ]
        );
    }

    #[test]
    fn what_means_nothing_is_passed_over() {
        // F5, Insert, a mouse report, Alt+x, a byte that is no UTF-8, Ctrl with a sign.
        assert_eq!(keys(b"\x1b[15~\x1b[2~\x1b[<0;1;1Mq"), [Key::Char('q')]);
        assert_eq!(keys(b"\x1bx\xff\xc3q\x00\x1cw"), [Key::Char('q'), Key::Char('w')]);
    }

    #[test]
    fn a_sequence_may_come_in_parts() {
        let mut keys = Keys::default();
        for (byte, expected) in [(&b"\x1b"[..], vec![]), (b"[", vec![]), (b"B", vec![Key::Down])] {
            assert_eq!(keys.read(byte), expected);
        }
        assert_eq!((keys.is_waiting(), keys.settle()), (false, None));
        assert_eq!(
            (keys.read("é".as_bytes().get(..1).unwrap()), keys.is_waiting()),
            (vec![], true)
        );
        assert_eq!(keys.read(&"é".as_bytes()[1..]), [Key::Char('é')]);
        assert_eq!((keys.read(b"\x1b"), keys.settle()), (vec![], Some(Key::Escape)));
        assert_eq!((keys.read(b"\x1b["), keys.settle()), (vec![], None));
        assert_eq!(keys.read(b"\x1b\x1b"), [Key::Escape]);
    }

    proptest! {
        /// Whatever comes: no panic, and nothing is kept for long.
        #[test]
        fn any_bytes_are_read(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let mut keys = Keys::default();
            for chunk in chunks {
                keys.read(&chunk);
                prop_assert!(keys.pending.len() <= LONGEST);
            }
        }
    }
}
