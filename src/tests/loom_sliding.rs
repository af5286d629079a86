//! Sliding windows: no limit is exceeded, a late process erases nothing, a refund takes nothing else away.

use crate::layout::SlidingWord;
use crate::primitives::sliding::{Decision, SlidingLimit, charge, refund};
use crate::sync::{Ordering, Word};
use loom::sync::Arc;
use loom::thread;

const S: u64 = 1_000_000;

fn limit(units: u64) -> SlidingLimit {
    SlidingLimit::new(units, 60).expect("valid")
}

fn charged(word: &Word<SlidingWord>, now_s: u64, units: u64) -> bool {
    matches!(charge(word, now_s * S, limit(units), 1, &mut false), Ok(Decision::Allowed { .. }))
}

/// Mutation `sliding-blind-store`: replace the swap by a store.
#[test]
fn loom_sliding_never_above_limit() {
    super::run(|| {
        let word = Arc::new(Word::new(SlidingWord::default()));
        let worker = |word: Arc<Word<SlidingWord>>| {
            thread::spawn(move || (0..2).filter(|_| charged(&word, 65, 2)).count())
        };
        let (a, b) = (worker(word.clone()), worker(word.clone()));
        assert_eq!(a.join().expect("joins") + b.join().expect("joins"), 2);
    });
}

/// One process still holds a clock reading from two windows ago, the other charges the window of now:
/// both charges must be found there, or the late one in the window that it belongs to.
///
/// Mutation `sliding-future-is-idle`: read a window of the future as none.
#[test]
fn loom_sliding_late_charge_does_not_erase_the_new_window() {
    super::run(|| {
        let word = Arc::new(Word::new(SlidingWord::new(1, 0, 3)));
        let late = word.clone();
        let thread = thread::spawn(move || charged(&late, 65, 9));
        assert!(charged(&word, 185, 9));
        assert!(thread.join().expect("joins"));
        let seen = word.load(Ordering::Relaxed);
        assert_eq!((seen.window(), seen.previous()), (3, 0));
        assert!((1..=2).contains(&seen.current()), "{seen:?}");
    });
}

/// A refund races with the charge that makes its window the previous one.
///
/// Mutation `sliding-refund-ignores-window`: take it from the current window in any case.
#[test]
fn loom_sliding_refund_follows_its_window() {
    super::run(|| {
        let word = Arc::new(Word::new(SlidingWord::new(1, 0, 3)));
        let other = word.clone();
        let thread = thread::spawn(move || refund(&*other, 119 * S, limit(9), 1, 2, 0));
        assert!(charged(&word, 125, 9) && charged(&word, 125, 9));
        assert!(thread.join().expect("joins"));
        assert_eq!(word.load(Ordering::Relaxed), SlidingWord::new(2, 1, 2));
    });
}
