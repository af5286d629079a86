//! Printable names: what is complete can be printed.

use super::{Notes, Walk, get};
use crate::layout::{IdentityWord, NAME_BYTES, NameWord, section};
use crate::sync::Word;

const COMPLETE: u64 = 2;
/// States that are known.
const STATES: u64 = 3;

impl Walk<'_> {
    pub(super) fn names(&mut self) {
        let buckets = self.region.buckets();
        self.each(section::NAMES, self.region.names(), |index, name, _, notes| {
            let head = get(&name.head);
            let key = buckets.get(index).map(|bucket| get(&bucket.identity));
            if key == Some(IdentityWord::default()) && get(&name.head) != NameWord::default() {
                notes.harmless("head", head, "zero: its bucket was never used");
                return;
            }
            examine("bytes", &name.head, &name.bytes, notes);
        });
    }
}

/// A name, in any record that has one. A writer that has died half way is no finding: its name is written
/// again.
pub(super) fn examine(
    field: &'static str,
    head: &Word<NameWord>,
    bytes: &[Word<u64>],
    notes: &mut Notes,
) {
    let seen = get(head);
    let text: Vec<u8> = match seen.state() {
        COMPLETE => bytes.iter().flat_map(|word| get(word).to_le_bytes()).collect(),
        STATES.. => {
            notes.damage(field, seen, "a state of 0 to 2; never written again");
            return;
        }
        _ => return,
    };
    if get(head) != seen {
        return;
    }
    let length = usize::try_from(seen.length()).unwrap_or(usize::MAX);
    if length > NAME_BYTES {
        notes.harmless(field, seen, "at most 88 bytes");
    } else if text.get(..length).is_none_or(|text| std::str::from_utf8(text).is_err()) {
        notes.harmless(field, seen, "UTF-8");
    }
}
