//! Printable names: what is complete can be read.

use super::{Notes, Walk, get};
use crate::layout::{IdentityWord, NameWord, section};
use crate::tables::names::{self, Place};

/// States up to here say nothing yet.
const WRITING: u64 = 1;

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
            examine("bytes", name.into(), notes);
        });
    }
}

/// A name, in any record that has one. What cannot be read is written again when its key is next used; a
/// writer that has died half way is no finding.
pub(super) fn examine(field: &'static str, name: Place<'_>, notes: &mut Notes) {
    let head = get(name.head);
    if head.state() <= WRITING {
        return;
    }
    let text = names::read(name);
    if text.is_none() && get(name.head) == head {
        notes.harmless(field, head, "a length and a check that agree with the bytes");
    }
}
