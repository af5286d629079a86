//! Printable names of keys, redacted: the region may end up in a core dump or on a screen.

use crate::layout::{NAME_BYTES, Name, NameWord, OwnerTag};
use crate::sync::Ordering;

const ABSENT: u64 = 0;
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

fn push_part(shown: &mut String, part: &str, keyed: bool) {
    let run = part.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    let longest = run.map(str::len).max().unwrap_or(0);
    let secret = keyed || part.starts_with("sk-") || longest >= SECRET_LEN;
    let hide = secret && part.chars().count() > SHOWN;
    let limit = if hide { SHOWN } else { usize::MAX };
    shown.extend(part.chars().take(limit).map(|c| if c.is_control() { '?' } else { c }));
    if hide {
        shown.push_str("..");
    }
}

fn truncate(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
}

/// Writes the name unless it is complete or another live process is writing it. `dead` tells whether an
/// owner is known to be gone; its unfinished name is written again.
pub fn publish(record: &Name, owner: OwnerTag, name: &str, dead: impl Fn(OwnerTag) -> bool) {
    let seen = record.head.load(Ordering::Acquire);
    let free = match seen.state() {
        ABSENT => true,
        WRITING => {
            OwnerTag::from_raw(seen.owner()).is_none_or(|writer| writer == owner || dead(writer))
        }
        _ => false,
    };
    let claim = NameWord::new(WRITING, 0, owner.raw());
    if !free
        || record.head.compare_exchange(seen, claim, Ordering::AcqRel, Ordering::Relaxed).is_err()
    {
        return;
    }
    let text = name.as_bytes();
    let len = text.len().min(NAME_BYTES);
    for (word, bytes) in record.bytes.iter().zip(text[..len].chunks(8)) {
        let mut packed = [0_u8; 8];
        packed[..bytes.len()].copy_from_slice(bytes);
        word.store(u64::from_le_bytes(packed), Ordering::Relaxed);
    }
    // SYNC name-complete: Release pairs with the Acquire of `read`.
    record.head.store(NameWord::new(COMPLETE, len as u64, 0), Ordering::Release);
}

/// True when the name still has to be written.
#[inline]
pub fn missing(record: &Name) -> bool {
    record.head.load(Ordering::Relaxed).state() != COMPLETE
}

/// The name if it is complete. Bytes that are no UTF-8 (a damaged region) are replaced.
pub fn read(record: &Name) -> Option<String> {
    let head = record.head.load(Ordering::Acquire);
    if head.state() != COMPLETE {
        return None;
    }
    let len = usize::try_from(head.length()).unwrap_or(0).min(NAME_BYTES);
    let bytes: Vec<u8> =
        record.bytes.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
    let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
    Some(text.chars().map(|c| if c.is_control() { '?' } else { c }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Word;

    fn blank() -> Name {
        Name { head: Word::new(NameWord::default()), bytes: std::array::from_fn(|_| Word::new(0)) }
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
    fn names_fit_their_record_whatever_the_key() {
        for text in ["é:".repeat(500), "x y ".repeat(9_000), "\u{1F600} ".repeat(100)] {
            let name = redact(&text);
            assert!(name.len() <= NAME_BYTES);
            let record = blank();
            publish(&record, OwnerTag::new(1, 1).unwrap(), &name, |_| false);
            assert_eq!(read(&record), Some(name));
        }
    }

    #[test]
    fn a_dead_writers_name_is_written_again_and_a_live_ones_is_not() {
        let record = blank();
        let (first, second) = (OwnerTag::new(1, 1).unwrap(), OwnerTag::new(2, 1).unwrap());
        record.head.store(NameWord::new(WRITING, 0, first.raw()), Ordering::Relaxed);
        publish(&record, second, "k", |_| false);
        assert_eq!(read(&record), None);
        publish(&record, second, "k", |owner| owner == first);
        assert_eq!(read(&record).as_deref(), Some("k"));
        publish(&record, first, "other", |_| true);
        assert_eq!(read(&record).as_deref(), Some("k"));
    }

    #[test]
    fn damaged_names_are_shown_harmlessly() {
        let record = blank();
        record.head.store(NameWord::new(COMPLETE, 255, 0), Ordering::Relaxed);
        record.bytes[0].store(u64::from_le_bytes(*b"\x1b[31m\xff\xfe\0"), Ordering::Relaxed);
        let name = read(&record).unwrap();
        assert!(!name.chars().any(char::is_control), "{name:?}");
    }
}
