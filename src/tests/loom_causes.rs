//! Causes of cooldowns: nobody reads a mixture of two, or that of another cooldown.

use crate::layout::{CauseWord, CooldownWord, FailureKind, KeyKind, TextWord};
use crate::primitives::cooldown;
use crate::sync::{Ordering, Word};
use crate::tables::causes::{self, Known, Place, Subject};
use crate::tables::index;
use loom::sync::Arc;
use loom::thread;

/// Two words of text, so that a mixture is possible.
struct Cooled {
    cooldown: Word<CooldownWord>,
    cause: Word<CauseWord>,
    head: Word<TextWord>,
    text: [Word<u64>; 2],
}

/// Of the same length, so that only the check can tell them apart.
const CAUSES: [(u64, u64, FailureKind, &str); 2] = [
    (500, 429, FailureKind::RateLimited, "first---causeone"),
    (600, 503, FailureKind::Server, "second--causetwo"),
];

impl Cooled {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            cooldown: Word::new(CooldownWord::default()),
            cause: Word::new(CauseWord::default()),
            head: Word::new(TextWord::default()),
            text: [(); 2].map(|()| Word::new(0)),
        })
    }

    fn place(&self) -> Place<'_> {
        Place { cause: &self.cause, head: &self.head, text: &self.text }
    }

    fn subject(cooldown: CooldownWord) -> Subject {
        Subject { identity: index::identity(KeyKind::Named, 1 << 13), cooldown }
    }

    /// As the engine does it.
    fn cool_down(&self, which: usize) {
        let (for_ms, status, kind, text) = CAUSES[which];
        let begun = cooldown::begin_marked(&self.cooldown, 100, for_ms, kind).expect("few tries");
        if begun.0 != cooldown::Begun::AlreadyLonger {
            causes::write(self.place(), Self::subject(begun.1), for_ms, status, text);
        }
    }

    fn read(&self) -> (CooldownWord, Option<Known>) {
        let cooldown = self.cooldown.load(Ordering::Relaxed);
        (cooldown, causes::read(self.place(), Self::subject(cooldown)))
    }
}

/// What is read is of the cooldown that it was read with, and its text is whole.
fn is_one(&(cooldown, ref known): &(CooldownWord, Option<Known>)) -> bool {
    known.as_ref().is_none_or(|known| {
        CAUSES.iter().any(|&(for_ms, status, kind, text)| {
            let word = cooldown.until_ms() == 100 + for_ms && cooldown.reason() == kind as u64;
            let text = known.text.as_deref().is_none_or(|found| found == text);
            word && (known.for_ms, known.status) == (for_ms, status) && text
        })
    })
}

/// One begins a cooldown, another one lengthens it, and a third looks.
///
/// Mutation `cause-without-check`, `cause-without-mark`.
#[test]
fn loom_causes_no_mixture_is_read() {
    super::run(|| {
        let cooled = Cooled::new();
        let (a, b) = (cooled.clone(), cooled.clone());
        let a = thread::spawn(move || a.cool_down(0));
        let b = thread::spawn(move || b.cool_down(1));
        let seen = cooled.read();
        assert!(is_one(&seen), "{seen:?}");
        a.join().expect("joins");
        b.join().expect("joins");
        let seen = cooled.read();
        assert!(is_one(&seen), "{seen:?}");
        // Whoever spoilt it: the next cooldown has its own.
        cooldown::clear(&cooled.cooldown, 100).expect("few tries");
        cooled.cool_down(0);
        let known = cooled.read().1.expect("is known");
        assert_eq!((known.for_ms, known.text.is_some()), (500, true));
    });
}
