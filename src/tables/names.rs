//! Printable names of keys, redacted: the region may end up in a core dump or on a screen.

use crate::layout::{NAME_BYTES, Name, NameWord, OwnerTag};
use crate::primitives::{MAX_TRIES, mix};
use crate::sync::{Ordering, Word};
use std::borrow::Cow;

const WRITING: u64 = 1;
const COMPLETE: u64 = 2;
/// Characters of a secret that may be shown.
const SHOWN: usize = 6;
/// From this length on, an unbroken run of letters and digits is taken for a secret.
const SECRET_LEN: usize = 20;

/// Replaces whatever may be a secret by its first six characters and `..`: the values of `api_key` and
/// the like, everything that begins with `sk-`, and every unbroken run of 20 or more letters, digits,
/// `-` and `_`. Control characters become `?`, and the result fits a name.
pub fn redact(text: &str) -> String {
    let mut shown = String::with_capacity(NAME_BYTES);
    let mut previous = "";
    for (position, part) in text.split(':').enumerate() {
        if position > 0 {
            shown.push(':');
        }
        let part = part.trim_matches(['{', '}']);
        let keyed = position > 0
            && matches!(previous, "api_key" | "model_per_key" | "tag_per_key" | "mcp_per_key");
        push_part(&mut shown, part, keyed);
        previous = part;
    }
    truncate(&mut shown, NAME_BYTES);
    shown
}

/// A text from elsewhere as it may be shown: a terminal obeys control characters, and characters that turn the
/// direction of writing make what follows read as something else.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(steers) {
        Cow::Owned(text.chars().map(visible).collect())
    } else {
        Cow::Borrowed(text)
    }
}

fn visible(c: char) -> char {
    if steers(c) { '?' } else { c }
}

fn steers(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

fn push_part(shown: &mut String, part: &str, keyed: bool) {
    let run = part.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    let longest = run.map(str::len).max().unwrap_or(0);
    let secret = keyed || part.starts_with("sk-") || longest >= SECRET_LEN;
    let hide = secret && part.chars().count() > SHOWN;
    let limit = if hide { SHOWN } else { usize::MAX };
    shown.extend(part.chars().take(limit).map(visible));
    if hide {
        shown.push_str("..");
    }
}

/// An endpoint as it may be shown: without userinfo, query and fragment, and with whatever else may be a secret
/// in its host and path replaced as by [`redact`].
pub fn redact_endpoint(endpoint: &str) -> Cow<'_, str> {
    if is_plain(endpoint.as_bytes()) {
        return Cow::Borrowed(endpoint);
    }
    let (scheme, rest) = endpoint.split_once("://").map_or((None, endpoint), |(s, r)| (Some(s), r));
    let rest = rest.split(['?', '#', ';']).next().unwrap_or_default();
    // Everything up to the last one: a password may have been written with a slash in it.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let mut shown = String::with_capacity(endpoint.len());
    if let Some(scheme) = scheme {
        push_part(&mut shown, scheme, false);
        shown.push_str("://");
    }
    for (position, segment) in rest.split('/').enumerate() {
        if position > 0 {
            shown.push('/');
        }
        for (position, label) in segment.split('.').enumerate() {
            if position > 0 {
                shown.push('.');
            }
            push_part(&mut shown, label, false);
        }
    }
    Cow::Owned(shown)
}

/// Whether an endpoint has nothing in it that must be looked at: decided in one pass, for every request.
fn is_plain(endpoint: &[u8]) -> bool {
    let mut run = 0;
    endpoint.iter().enumerate().all(|(position, byte)| {
        let part = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        run = if part { run + 1 } else { 0 };
        let begins = run == 1 && *byte == b's';
        run < SECRET_LEN
            && (part || matches!(byte, b'.' | b':' | b'/'))
            && !(begins && endpoint[position..].starts_with(b"sk-"))
    })
}

pub(crate) fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
}

/// A name in a record.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// State, length and check.
    pub head: &'a Word<NameWord>,
    /// UTF-8, eight bytes to a word.
    pub bytes: &'a [Word<u64>],
}

impl<'a> From<&'a Name> for Place<'a> {
    fn from(name: &'a Name) -> Self {
        Self { head: &name.head, bytes: &name.bytes }
    }
}

/// Who writes a name.
#[derive(Debug, Clone, Copy)]
pub struct Writer {
    /// The process.
    pub owner: OwnerTag,
    /// A number that no other claim of the process has soon.
    pub nonce: u64,
}

/// Writes the name unless it is there or another live process is writing it. `dead` tells whether an owner
/// is known to be gone; its unfinished name is written again. `stands` tells whether the record still is
/// the key's, and is asked after the claim (SYNC key-leave): who gives the record up then takes the claim
/// away, or the key is not given up.
///
/// A writer that was stopped and goes on after its claim was taken away spoils bytes of a name that is not
/// its own. They then do not agree with the check, so that nobody reads a mixture, and are written again.
///
/// Linearization point: the swap from the own claim.
pub fn publish<'a>(
    record: impl Into<Place<'a>>,
    writer: Writer,
    name: &str,
    dead: impl Fn(OwnerTag) -> bool,
    stands: impl Fn() -> bool,
) {
    let record = record.into();
    let seen = record.head.load(Ordering::Acquire);
    let free = match seen.state() {
        WRITING => {
            let claimed_by = OwnerTag::from_raw(seen.owner());
            claimed_by.is_none_or(|owner| owner == writer.owner || dead(owner))
        }
        COMPLETE => !agrees(record, seen),
        // Absent, or a state that there is not.
        _ => true,
    };
    let claim = NameWord::new(WRITING, 0, writer.nonce, writer.owner.raw());
    let swap =
        |from, to, order| record.head.compare_exchange(from, to, order, Ordering::Relaxed).is_ok();
    if !free || !swap(seen, claim, Ordering::SeqCst) {
        return;
    }
    if !stands() {
        swap(claim, NameWord::default(), Ordering::Relaxed);
        return;
    }
    let text = name.as_bytes();
    let text = &text[..text.len().min(8 * record.bytes.len())];
    for (word, packed) in record.bytes.iter().zip(pack(text)) {
        word.store(packed, Ordering::Relaxed);
    }
    let complete = NameWord::new(COMPLETE, text.len() as u64, check(pack(text), text.len()), 0);
    // SYNC name-complete: Release pairs with the Acquire of `read`.
    swap(claim, complete, Ordering::Release);
}

/// The words of a text, the last one filled up with zeroes.
pub(super) fn pack(text: &[u8]) -> impl Iterator<Item = u64> + '_ {
    text.chunks(8).map(|bytes| {
        let mut packed = [0_u8; 8];
        packed[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(packed)
    })
}

/// What the head of a name of these words says.
fn check(words: impl Iterator<Item = u64>, len: usize) -> u64 {
    let hash = words.fold(len as u64, |hash, word| mix(hash ^ word).wrapping_add(hash));
    mix(hash) & ((1 << 22) - 1)
}

/// The words that a complete name has, and how many bytes of them.
fn words(record: Place<'_>, head: NameWord) -> (impl Iterator<Item = u64> + '_, usize) {
    let len = usize::try_from(head.length()).unwrap_or(0).min(8 * record.bytes.len());
    (record.bytes.iter().take(len.div_ceil(8)).map(|word| word.load(Ordering::Relaxed)), len)
}

fn agrees(record: Place<'_>, head: NameWord) -> bool {
    let (words, len) = words(record, head);
    check(words, len) == head.check()
}

/// Takes the name away, whoever is writing it; false = it changed under every try.
pub fn withdraw<'a>(record: impl Into<Place<'a>>) -> bool {
    let head = record.into().head;
    let mut seen = head.load(Ordering::Relaxed);
    for _ in 0..MAX_TRIES {
        let gone = NameWord::default();
        match head.compare_exchange(seen, gone, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(now) => seen = now,
        }
    }
    false
}

/// The name, if it is complete.
pub fn read<'a>(record: impl Into<Place<'a>>) -> Option<String> {
    let record = record.into();
    // SYNC name-complete.
    let head = record.head.load(Ordering::Acquire);
    if head.state() != COMPLETE {
        return None;
    }
    let (words, len) = words(record, head);
    let mut bytes = Vec::with_capacity(len.next_multiple_of(8));
    let words = words.inspect(|word| bytes.extend_from_slice(&word.to_le_bytes()));
    if check(words, len) != head.check() {
        return None;
    }
    bytes.truncate(len);
    Some(shown(bytes))
}

/// A text of a record as it may be shown: bytes that are no UTF-8 and control characters are replaced.
pub(super) fn shown(bytes: Vec<u8>) -> String {
    let replaced = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.chars().map(visible).collect()
    };
    if !bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return replaced(&bytes);
    }
    String::from_utf8(bytes).unwrap_or_else(|error| replaced(error.as_bytes()))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn owner(row: u32) -> OwnerTag {
        OwnerTag::new(row, 1).expect("valid")
    }

    fn write(record: &Name, row: u32, name: &str, dead: impl Fn(OwnerTag) -> bool) {
        publish(record, Writer { owner: owner(row), nonce: 7 }, name, dead, || true);
    }

    #[test]
    fn no_secret_is_ever_shown() {
        let hash = "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b";
        assert_eq!(redact(&format!("{{api_key:{hash}}}")), "api_key:88dc28..");
        assert_eq!(
            redact(&format!("{{model_per_key:{hash}:gpt-4o}}")),
            "model_per_key:88dc28..:gpt-4o"
        );
        assert_eq!(redact("{api_key:hunter2-plain}"), "api_key:hunter..");
        assert_eq!(redact("sk-abcdefghijklmnop"), "sk-abc..");
        assert_eq!(redact("{user:alice@example.com}"), "user:alice@example.com");
        assert_eq!(redact("user_12345"), "user_12345");
        assert_eq!(redact(hash), "88dc28..");
        assert_eq!(redact("a\0b\nc"), "a?b?c");
        assert_eq!(redact(""), "");
    }

    #[test]
    fn no_endpoint_shows_a_secret() {
        let shown = |endpoint| redact_endpoint(endpoint).into_owned();
        for plain in ["https://api.openai.com/v1", "http://127.0.0.1:8080", "redis", "a_b-c/d", ""]
        {
            assert!(matches!(redact_endpoint(plain), Cow::Borrowed(same) if same == plain));
        }
        assert_eq!(shown("https://user:pa55word@host:8443/v1?key=abc"), "https://host:8443/v1");
        assert_eq!(shown("https://user:pa/55@host/v1"), "https://host/v1");
        assert_eq!(shown("user:pa55@host"), "host");
        assert_eq!(shown("https://host/v1#token"), "https://host/v1");
        assert_eq!(shown("https://host/sk-0123456/v1"), "https://host/sk-012../v1");
        assert_eq!(
            shown("https://hooks.host/services/0123456789abcdef0123/x"),
            "https://hooks.host/services/012345../x"
        );
        assert_eq!(shown("https://0123456789abcdef0123.host/x"), "https://012345...host/x");
        assert_eq!(shown("http://h\u{e9}\n/"), "http://h\u{e9}?/");
    }

    #[test]
    fn names_fit_their_record_whatever_the_key() {
        for text in
            ["é:".repeat(500), "x y ".repeat(9_000), "\u{1F600} ".repeat(100), String::new()]
        {
            let name = redact(&text);
            assert!(name.len() <= NAME_BYTES);
            let record = Name::zeroed();
            write(&record, 1, &name, |_| false);
            assert_eq!(read(&record), Some(name));
        }
    }

    #[test]
    fn a_dead_writers_name_is_written_again_and_a_live_ones_is_not() {
        let record = Name::zeroed();
        record.head.store(NameWord::new(WRITING, 0, 0, owner(1).raw()), Ordering::Relaxed);
        write(&record, 2, "k", |_| false);
        assert_eq!(read(&record), None);
        write(&record, 2, "k", |dead| dead == owner(1));
        assert_eq!(read(&record).as_deref(), Some("k"));
        write(&record, 1, "other", |_| true);
        assert_eq!(read(&record).as_deref(), Some("k"));
    }

    #[test]
    fn a_name_that_a_late_writer_spoils_is_not_read_and_is_written_again() {
        let record = Name::zeroed();
        let stopped = "the first 8 and more";
        // It is stopped after its claim; another takes the claim over and completes its own name.
        let while_stopped = || {
            write(&record, 2, "the second key", |dead| dead == owner(1));
            assert_eq!(read(&record).as_deref(), Some("the second key"));
            true
        };
        let writer = Writer { owner: owner(1), nonce: 1 };
        publish(&record, writer, stopped, |_| false, while_stopped);
        assert_eq!(read(&record), None);
        write(&record, 3, "the second key", |_| false);
        assert_eq!(read(&record).as_deref(), Some("the second key"));
    }

    #[test]
    fn a_name_is_not_written_for_a_key_that_is_gone() {
        let record = Name::zeroed();
        let writer = Writer { owner: owner(1), nonce: 1 };
        publish(&record, writer, "gone", |_| false, || false);
        assert_eq!(record.head.load(Ordering::Relaxed), NameWord::default());
        // Given up after the look: the claim is taken away.
        publish(&record, writer, "gone", |_| false, || withdraw(&record));
        assert_eq!(read(&record), None);
    }

    #[test]
    fn control_characters_are_not_shown() {
        let shown = |text: &str| super::shown(text.as_bytes().to_vec());
        assert_eq!(shown("plain ~ text"), "plain ~ text");
        assert_eq!(shown("a\x1b[2J"), "a?[2J");
        assert_eq!(shown("b\x7f"), "b?");
        assert_eq!(shown("ü\u{9b}1m"), "ü?1m");
        assert_eq!(super::shown(vec![b'a', 0xff]), "a\u{fffd}");
    }

    #[test]
    fn damaged_names_are_shown_harmlessly() {
        let record = Name::zeroed();
        let damaged = u64::from_le_bytes(*b"\x1b[31m\xff\xfe\0");
        record.bytes[0].store(damaged, Ordering::Relaxed);
        record.head.store(NameWord::new(COMPLETE, 255, 99, 0), Ordering::Relaxed);
        assert_eq!(read(&record), None);
        let agreed = check([damaged].into_iter(), 8);
        record.head.store(NameWord::new(COMPLETE, 8, agreed, 0), Ordering::Relaxed);
        let name = read(&record).unwrap();
        assert!(!name.is_empty() && !name.chars().any(char::is_control), "{name:?}");
    }
}
