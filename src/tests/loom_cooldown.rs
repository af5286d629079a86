//! Cooldowns: of all callers exactly one begins each.

use crate::layout::{CooldownWord, FailureKind};
use crate::primitives::cooldown::{Begun, begin, clear};
use crate::sync::{Ordering, Word};
use loom::sync::Arc;
use loom::thread;

fn begins(word: &Word<CooldownWord>, now_ms: u64, for_ms: u64) -> u64 {
    u64::from(begin(word, now_ms, for_ms, FailureKind::Server) == Ok(Begun::First))
}

/// Mutation `cooldown-blind-store`: replace the swap by a store.
#[test]
fn loom_cooldown_has_one_beginner() {
    super::run(|| {
        let word = Arc::new(Word::new(CooldownWord::new(50, 1, 4)));
        let worker = |for_ms| {
            let word = word.clone();
            thread::spawn(move || begins(&word, 100, for_ms))
        };
        let (a, b) = (worker(500), worker(600));
        assert_eq!(a.join().expect("joins") + b.join().expect("joins"), 1);
        let seen = word.load(Ordering::Relaxed);
        assert_eq!((seen.until_ms(), seen.trips()), (700, 5));
    });
}

/// With somebody who clears in between there may be two beginnings; each is one trip.
///
/// Mutation `cooldown-clear-forgets`: let the clearing write a word of zero trips.
#[test]
fn loom_cooldown_counts_every_beginning() {
    super::run(|| {
        let word = Arc::new(Word::new(CooldownWord::default()));
        let other = word.clone();
        let thread = thread::spawn(move || begins(&other, 100, 500));
        let mine = begins(&word, 100, 600);
        let cleared = clear(&*word, 100).expect("few tries");
        let begun = mine + thread.join().expect("joins");
        assert!(cleared);
        let seen = word.load(Ordering::Relaxed);
        assert_eq!(seen.trips(), begun);
        assert_eq!(seen.until_ms() != 0, begun == 2);
    });
}
