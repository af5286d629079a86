//! Names: nobody reads a mixture of two, or the name of a key that is gone.

use crate::layout::{IdentityWord, KeyKind, NameWord, OwnerTag, SlotState};
use crate::sync::{Bits, Ordering, Word};
use crate::tables::index;
use crate::tables::names::{self, Place, Writer};
use loom::sync::Arc;
use loom::thread;

/// Two words, so that a mixture is possible.
struct Named {
    head: Word<NameWord>,
    bytes: [Word<u64>; 2],
    identity: Word<IdentityWord>,
}

const FIRST: &str = "first---name-one";
const SECOND: &str = "second--name-two";

fn key() -> IdentityWord {
    index::identity(KeyKind::Window, 1 << 13)
}

fn named(head: NameWord) -> Arc<Named> {
    let bytes = [(); 2].map(|()| Word::new(0));
    Arc::new(Named { head: Word::new(head), bytes, identity: Word::new(key()) })
}

impl Named {
    fn place(&self) -> Place<'_> {
        Place { head: &self.head, bytes: &self.bytes }
    }

    fn publish(&self, row: u32, name: &str, dead: &[u32]) {
        let writer = Writer { owner: owner(row), nonce: u64::from(row) };
        let dead = |owner: OwnerTag| dead.contains(&owner.row());
        let stands = || index::holds(&self.identity, key());
        names::publish(self.place(), writer, name, dead, stands);
    }
}

fn owner(row: u32) -> OwnerTag {
    OwnerTag::new(row, 1).expect("valid")
}

/// A name is taken over from a writer that is taken for dead, but goes on (a pid namespace that is not what
/// it seems, or a process that was stopped while its record passed to another key).
///
/// Mutation `name-without-check`.
#[test]
fn loom_names_no_mixture_is_read() {
    super::run(|| {
        let named = named(NameWord::default());
        let (a, b) = (named.clone(), named.clone());
        let a = thread::spawn(move || a.publish(1, FIRST, &[]));
        let b = thread::spawn(move || b.publish(2, SECOND, &[1]));
        let read = names::read(named.place());
        assert!(read.as_deref().is_none_or(|name| name == FIRST || name == SECOND), "{read:?}");
        a.join().expect("joins");
        b.join().expect("joins");
        let read = names::read(named.place());
        assert!(read.as_deref().is_none_or(|name| name == FIRST || name == SECOND), "{read:?}");
        named.publish(3, SECOND, &[1, 2]);
        assert!(names::read(named.place()).is_some());
    });
}

/// The writer of a claim that was taken away does not complete it.
///
/// Mutation `name-blind-complete`.
#[test]
fn loom_names_a_claim_that_was_taken_away_is_not_completed() {
    super::run(|| {
        let named = named(NameWord::default());
        let other = named.clone();
        let thread = thread::spawn(move || other.publish(1, FIRST, &[]));
        named.publish(2, SECOND, &[1]);
        let taken_over = names::read(named.place()).as_deref() == Some(SECOND);
        thread.join().expect("joins");
        let head = named.head.load(Ordering::Acquire);
        assert!(
            !taken_over
                || head.check() == {
                    let alone = self::named(NameWord::default());
                    alone.publish(2, SECOND, &[]);
                    alone.head.load(Ordering::Acquire).check()
                }
        );
    });
}

/// A key is given up while its name is being written: the next key in the record does not inherit it.
///
/// Mutation `name-without-second-look`.
#[test]
fn loom_names_a_key_that_is_gone_has_none() {
    super::run(|| {
        let named = named(NameWord::default());
        let other = named.clone();
        let thread = thread::spawn(move || other.publish(1, FIRST, &[]));
        let leaving = IdentityWord::new(SlotState::Leaving as u64, key().kind(), 1, key().hash());
        let free = IdentityWord::new(SlotState::Free as u64, 0, 1, 1);
        let swap = |from, to| {
            let word = &named.identity;
            word.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        };
        let gone = swap(key(), leaving) && names::withdraw(named.place()) && swap(leaving, free);
        thread.join().expect("joins");
        let head = named.head.load(Ordering::Acquire);
        assert!(!gone || head.bits() == 0, "{head:?}");
    });
}
