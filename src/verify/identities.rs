//! Who stands in the slots of the keyed tables, and that nobody stands in two.

use super::{Notes, Walk, get, name_of};
use crate::layout::{IdentityWord, KeyKind, SlotState, section};
use crate::sync::Bits;
use crate::tables::index::{self, Keyed};

/// What a slot's identity word says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody ever stood here.
    Never,
    /// Nobody stands here now, or somebody is about to.
    Nobody,
    /// This key, without what changes while it stands.
    Key(IdentityWord),
}

/// Judges the identity word of a table in which keys of these kinds stand.
pub(super) fn judge(word: IdentityWord, kinds: &[KeyKind], notes: &mut Notes) -> Standing {
    let fits = KeyKind::from_raw(word.kind()).is_some_and(|kind| kinds.contains(&kind));
    match SlotState::from_raw(word.state()) {
        SlotState::Free if word == IdentityWord::default() => return Standing::Never,
        SlotState::Free if (word.kind(), word.hash()) != (0, 1) => {
            notes.harmless("identity", word, "of a free slot: kind 0, hash 1");
        }
        SlotState::Claimed if !fits => {
            notes.harmless("identity", word, "a claim of a kind that stands here");
        }
        SlotState::Taken | SlotState::Leaving if !fits => {
            notes.damage("identity", word, "a kind that stands here; the place is lost");
        }
        _ => {}
    }
    index::key_of(word).map_or(Standing::Nobody, Standing::Key)
}

impl Walk<'_> {
    /// Keys that stand in two slots at once. Takes 16 bytes for each key of the largest table.
    pub(super) fn duplicates(&mut self) {
        let region = self.region;
        let (keys, shared) = region.key_buckets();
        self.duplicates_in(section::BUCKETS, keys, 0);
        self.duplicates_in(section::BUCKETS, shared, keys.len());
        self.duplicates_in(section::LEASES, region.chunks(), 0);
        self.duplicates_in(section::DEPLOYMENTS, region.deployments(), 0);
        self.duplicates_in(section::SERIES, region.series(), 0);
        self.duplicates_in(section::JOBS, region.jobs(), 0);
        self.duplicates_in(section::BOARD, region.board(), 0);
        self.duplicates_in(section::ENDPOINTS, region.endpoints(), 0);
    }

    /// In a table that begins at record `first` of its section.
    fn duplicates_in<T: Keyed>(&mut self, id: u64, table: &[T], first: usize) {
        let span = self.region.sections().at(id);
        let mut standing = Vec::new();
        for index in self.touched.records(span, size_of::<T>() as u64) {
            let record = index.checked_sub(first).and_then(|index| table.get(index));
            if let Some(key) = record.and_then(|record| index::key_of(get(record.identity()))) {
                standing.push((key.bits(), index - first));
            }
        }
        standing.sort_unstable();
        for pair in standing.windows(2) {
            let ((key, one), (other_key, other)) = (pair[0], pair[1]);
            if key != other_key {
                continue;
            }
            // A key that was given up and inserted elsewhere meanwhile has left the first slot, or another
            // version is in it.
            let words =
                [&table[one], &table[other], &table[one]].map(|record| get(record.identity()));
            let [seen, second, again] = words;
            if seen == again && index::key_of(seen).is_some_and(|key| index::is(second, key)) {
                self.twice(name_of(id), first + other, |_, notes| {
                    notes.damage("identity", second, "a key that stands in one slot only");
                });
            }
        }
    }
}
