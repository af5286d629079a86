//! The event ring: what happened lately, for people who ask why.
//!
//! A writer takes a number from the head, marks the entry of that number modulo the ring's length as
//! being written, stores the fields, a check word over all of them, and last the number. Readers believe
//! an entry only if it has the number that belongs there and the check word agrees with everything else.
//! So an entry that is half written, that a dead process left half written, or that two writers met in
//! is passed over, never shown.
//!
//! A writer that is stopped for a whole round of the ring spoils the entry of a newer event; nothing
//! else. Events are for people: what must be exact is counted elsewhere.
//!
//! **Damage.** Any head leads to some entry, and recording goes on from there. Entries of the old numbers
//! are passed over until new ones take their place.

use crate::layout::{Event, EventKind, IdentityWord, OwnerTag};
use crate::sync::{Bits, Ordering, Word};

/// What there is to record.
#[derive(Debug, Clone, Copy)]
pub struct Fact {
    /// When, microseconds since the clock base.
    pub at_us: u64,
    /// What.
    pub kind: EventKind,
    /// Who records it; `None` = unregistered.
    pub owner: Option<OwnerTag>,
    /// The key or deployment that it is about; the default = none.
    pub subject: IdentityWord,
    /// First detail; see [`EventKind`].
    pub a: u64,
    /// Second detail.
    pub b: u64,
}

/// An event as read. Its fields are what its writer wrote, but nothing vouches that they make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Number of the event, from 0.
    pub number: u64,
    /// When, microseconds since the clock base.
    pub at_us: u64,
    /// Number of its [`EventKind`].
    pub kind: u64,
    /// Who recorded it; `None` = unregistered.
    pub owner: Option<OwnerTag>,
    /// The key or deployment that it is about; the default = none.
    pub subject: IdentityWord,
    /// First detail; see [`EventKind`].
    pub a: u64,
    /// Second detail.
    pub b: u64,
}

impl Entry {
    /// What happened; `None` = a newer build knows.
    pub fn known_kind(&self) -> Option<EventKind> {
        EventKind::from_raw(self.kind)
    }
}

/// The fields between the number and the check word, in the order of the record.
fn fields(event: &Event) -> [&Word<u64>; 6] {
    [&event.at_us, &event.kind, &event.owner, &event.subject, &event.a, &event.b]
}

/// Mix of the number and all fields. Not a secret: it tells accidents, not forgeries.
fn check_of(sequence: u64, values: [u64; 6]) -> u64 {
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
    for value in std::iter::once(sequence).chain(values) {
        // The finaliser of SplitMix64: one changed bit of one field changes about half of the result.
        hash = (hash ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
    }
    hash
}

fn entry(ring: &[Event], number: u64) -> Option<&Event> {
    let position = number.checked_rem(ring.len() as u64)?;
    ring.get(usize::try_from(position).ok()?)
}

/// Records an event, in place of the oldest; returns its number.
///
/// Linearization point: the store of `sequence`. Wait-free.
pub fn record(ring: &[Event], head: &Word<u64>, fact: &Fact) -> u64 {
    let number = head.fetch_add(1, Ordering::Relaxed);
    let Some(event) = entry(ring, number) else {
        return number;
    };
    let sequence = number.wrapping_add(1);
    let owner = fact.owner.map_or(0, OwnerTag::raw);
    let values = [fact.at_us, fact.kind as u64, owner, fact.subject.bits(), fact.a, fact.b];
    event.sequence.store(0, Ordering::Relaxed);
    for (word, value) in fields(event).into_iter().zip(values) {
        word.store(value, Ordering::Relaxed);
    }
    event.check.store(check_of(sequence, values), Ordering::Relaxed);
    // SYNC event-complete: Release pairs with the Acquire of `read`.
    event.sequence.store(sequence, Ordering::Release);
    number
}

/// The event of that number; `None` = the entry has another one, or was not written by one writer.
pub(crate) fn read(event: &Event, number: u64) -> Option<Entry> {
    let sequence = number.wrapping_add(1);
    // SYNC event-complete: Acquire, so that whoever sees the number also sees the fields. That it sees
    // no others is the business of the check word.
    if event.sequence.load(Ordering::Acquire) != sequence {
        return None;
    }
    let values = fields(event).map(|word| word.load(Ordering::Relaxed));
    if event.check.load(Ordering::Relaxed) != check_of(sequence, values) {
        return None;
    }
    let [at_us, kind, owner, subject, a, b] = values;
    let (owner, subject) = (OwnerTag::from_raw(owner), IdentityWord::from_bits(subject));
    Some(Entry { number, at_us, kind, owner, subject, a, b })
}

/// Up to `n` of the latest events, newest first. Looks at every entry once at most. Reads only.
pub fn recent<'a>(
    ring: &'a [Event],
    head: &Word<u64>,
    n: usize,
) -> impl Iterator<Item = Entry> + use<'a> {
    let head = head.load(Ordering::Relaxed);
    (1..=ring.len() as u64)
        .filter_map(move |back| {
            let number = head.wrapping_sub(back);
            entry(ring, number).and_then(|event| read(event, number))
        })
        .take(n)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(length: usize) -> Vec<Event> {
        (0..length).map(|_| event([0; 8])).collect()
    }

    fn event(words: [u64; 8]) -> Event {
        let [sequence, at_us, kind, owner, subject, a, b, check] = words.map(Word::new);
        Event { sequence, at_us, kind, owner, subject, a, b, check }
    }

    fn fact(a: u64) -> Fact {
        Fact {
            at_us: a * 10,
            kind: EventKind::WorkerReaped,
            owner: OwnerTag::new(3, 9),
            subject: IdentityWord::from_bits(a << 5),
            a,
            b: a + 1,
        }
    }

    fn details(ring: &[Event], head: &Word<u64>, n: usize) -> Vec<u64> {
        recent(ring, head, n).map(|entry| entry.a).collect()
    }

    #[test]
    fn events_are_read_as_they_were_recorded_newest_first() {
        let (ring, head) = (ring(4), Word::new(0));
        assert_eq!(details(&ring, &head, 9), [0; 0]);
        for a in 1..=3 {
            assert_eq!(record(&ring, &head, &fact(a)), a - 1);
        }
        assert_eq!(details(&ring, &head, 2), [3, 2]);
        let Fact { at_us, kind, owner, subject, a, b } = fact(3);
        let newest = recent(&ring, &head, 1).next().unwrap();
        assert_eq!(newest, Entry { number: 2, at_us, kind: kind as u64, owner, subject, a, b });
        assert_eq!(newest.known_kind(), Some(EventKind::WorkerReaped));
        for a in 4..=9 {
            record(&ring, &head, &fact(a));
        }
        assert_eq!(details(&ring, &head, 9), [9, 8, 7, 6]);
    }

    #[test]
    fn an_unregistered_process_records_too() {
        let (ring, head) = (ring(1), Word::new(0));
        record(&ring, &head, &Fact { owner: None, ..fact(1) });
        assert_eq!(recent(&ring, &head, 1).next().unwrap().owner, None);
    }

    /// Every word of an entry is covered by the check word.
    #[test]
    fn an_entry_with_one_foreign_word_is_passed_over() {
        for word in 0..8 {
            let (ring, head) = (ring(2), Word::new(0));
            record(&ring, &head, &fact(1));
            record(&ring, &head, &fact(2));
            let [at_us, kind, owner, subject, a, b] = fields(&ring[1]);
            let words = [&ring[1].sequence, at_us, kind, owner, subject, a, b, &ring[1].check];
            words[word].fetch_xor(1 << (word * 7), Ordering::Relaxed);
            assert_eq!(details(&ring, &head, 9), [1], "word {word}");
        }
    }

    /// A number was taken but the entry never completed.
    #[test]
    fn a_dead_writers_entry_is_passed_over() {
        let (ring, head) = (ring(3), Word::new(0));
        for a in 1..=3 {
            record(&ring, &head, &fact(a));
        }
        head.fetch_add(1, Ordering::Relaxed);
        assert_eq!(details(&ring, &head, 9), [3, 2], "before it wrote anything");
        ring[0].sequence.store(0, Ordering::Relaxed);
        ring[0].at_us.store(77, Ordering::Relaxed);
        assert_eq!(details(&ring, &head, 9), [3, 2], "while it was writing");
        record(&ring, &head, &fact(5));
        assert_eq!(details(&ring, &head, 9), [5, 3]);
    }

    #[test]
    fn a_ring_without_entries_keeps_nothing() {
        let head = Word::new(0);
        assert_eq!(record(&[], &head, &fact(1)), 0);
        assert_eq!(details(&[], &head, 9), [0; 0]);
    }

    proptest! {
        /// From any head, its overflow included: as many of the latest as there is room for. An overflow
        /// may cost what is older, where the length of the ring is no power of two.
        #[test]
        fn agrees_with_a_plain_list(
            first in prop_oneof![0..u64::MAX, u64::MAX - 20..=u64::MAX],
            length in 1_usize..9,
            count in 0_u64..40,
            n in 0_usize..12,
        ) {
            let (ring, head) = (ring(length), Word::new(first));
            let numbers: Vec<u64> = (0..count).map(|a| record(&ring, &head, &fact(a))).collect();
            let seen: Vec<u64> = recent(&ring, &head, n).map(|entry| entry.number).collect();
            let expect: Vec<u64> = numbers.iter().rev().take(length.min(n)).copied().collect();
            if length.is_power_of_two() || numbers.is_sorted() {
                prop_assert_eq!(seen, expect);
            } else {
                prop_assert_eq!(seen.first(), expect.first());
            }
        }

        #[test]
        fn any_words_are_read_without_panic(
            words in prop::collection::vec(any::<[u64; 8]>(), 1..6), head: u64, n: usize,
        ) {
            let ring: Vec<Event> = words.into_iter().map(event).collect();
            prop_assert_eq!(recent(&ring, &Word::new(head), n).count(), 0);
            let head = Word::new(head);
            let number = record(&ring, &head, &fact(1));
            let seen: Vec<u64> = recent(&ring, &head, 9).map(|entry| entry.number).collect();
            prop_assert_eq!(seen, [number]);
        }
    }
}
