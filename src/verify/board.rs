//! Notices: lengths that fit, times that have been.

use super::identities::{Standing, judge};
use super::{Walk, first_nonzero, get, names};
use crate::layout::{KeyKind, SHEET_BYTES, section};
use crate::sync::Bits;
use crate::tables::names::Place;

impl Walk<'_> {
    /// What stands on the sheets is anybody's; a check that does not agree is what a killed writer leaves.
    pub(super) fn board(&mut self) {
        self.each(section::BOARD, self.region.board(), |_, notice, now, notes| {
            let identity = get(&notice.identity);
            let (current, head) = (get(&notice.current), get(&notice.name_head));
            let lengths = notice.lengths.each_ref().map(get);
            let published_us = notice.published_us.each_ref().map(get);
            if get(&notice.identity) != identity {
                return;
            }
            notes.zeroes("reserved", &notice.reserved);
            match judge(identity, &[KeyKind::Named], notes) {
                Standing::Nobody => {}
                Standing::Never => {
                    let words = lengths.into_iter().chain([current.bits(), head.bits()]);
                    if let Some(found) = first_nonzero(words) {
                        notes.damage(
                            "identity",
                            found,
                            "all zeroes: never used; a notice was lost",
                        );
                    }
                }
                Standing::Key(_) => {
                    let name = Place { head: &notice.name_head, bytes: &notice.name };
                    names::examine("name", name, notes);
                    if let Some(&long) = lengths.iter().find(|&&len| len > SHEET_BYTES as u64) {
                        notes.harmless("lengths", long, "at most 131,072 bytes");
                    }
                    let now_us = now().us();
                    if let Some(&late) = published_us.iter().find(|&&at| at > now_us) {
                        notes.harmless("published_us", late, "the past");
                    }
                }
            }
        });
    }
}
