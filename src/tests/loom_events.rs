//! The event ring: what is shown is what somebody recorded.

use crate::layout::{Event, EventKind, IdentityWord};
use crate::sync::{Ordering, Word};
use crate::tables::events::{Entry, Fact, recent, record};
use loom::sync::Arc;
use loom::thread;

struct Ring {
    entries: [Event; 1],
    head: Word<u64>,
}

impl Ring {
    fn new() -> Self {
        let word = || Word::new(0);
        let entry = Event {
            sequence: word(),
            at_us: word(),
            kind: word(),
            owner: word(),
            subject: word(),
            a: word(),
            b: word(),
            check: word(),
        };
        Self { entries: [entry], head: word() }
    }
    fn record(&self, a: u64) -> u64 {
        record(&self.entries, &self.head, &fact(a))
    }
    fn newest(&self) -> Option<Entry> {
        recent(&self.entries, &self.head, 1).next()
    }
}

fn fact(a: u64) -> Fact {
    let (kind, subject) = (EventKind::WorkerReaped, IdentityWord::default());
    Fact { at_us: a + 10, kind, owner: None, subject, a, b: a + 20 }
}

fn is_whole(entry: Entry) -> bool {
    let Fact { at_us, kind, owner, subject, a, b } = fact(entry.a);
    entry == Entry { number: entry.number, at_us, kind: kind as u64, owner, subject, a, b }
}

/// Two writers meet in the same entry, as if one had slept for a round of the ring.
///
/// Mutation `event-unchecked`: believe the number alone.
#[test]
fn loom_event_of_two_writers_is_whole_or_not_shown() {
    super::run(|| {
        let ring = Arc::new(Ring::new());
        let other = ring.clone();
        let thread = thread::spawn(move || other.record(1));
        ring.record(2);
        thread.join().expect("joins");
        if let Some(entry) = ring.newest() {
            assert!(is_whole(entry), "{entry:?}");
        }
    });
}

/// A reader looks while a writer writes over what it reads.
///
/// Mutation `event-unchecked-read`: the same.
#[test]
fn loom_event_read_while_written_is_whole_or_not_shown() {
    super::run(|| {
        let ring = Arc::new(Ring::new());
        ring.record(1);
        let other = ring.clone();
        let thread = thread::spawn(move || other.record(2));
        if let Some(entry) = ring.newest() {
            assert!(is_whole(entry), "{entry:?}");
        }
        thread.join().expect("joins");
        assert_eq!(ring.newest().map(|entry| entry.a), Some(2));
    });
}

/// Whoever sees an event's number sees the event.
///
/// Mutation `event-relaxed-number`: store the number Relaxed.
#[test]
fn loom_event_is_complete_when_its_number_stands() {
    super::run(|| {
        let ring = Arc::new(Ring::new());
        let other = ring.clone();
        let thread = thread::spawn(move || other.record(1));
        let counted = ring.head.load(Ordering::Relaxed) == 1;
        if counted && ring.entries[0].sequence.load(Ordering::Relaxed) == 1 {
            assert_eq!(ring.newest().map(|entry| entry.a), Some(1));
        }
        thread.join().expect("joins");
    });
}
