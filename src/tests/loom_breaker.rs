//! Breakers: one opener, one probe per rest, and no success that forgets an error it has not seen.

use crate::layout::BreakerWord;
use crate::primitives::breaker::{Admission, Policy, admits, failed, succeeded};
use crate::sync::{Ordering, Word};
use loom::sync::Arc;
use loom::thread;

const POLICY: Policy = Policy { threshold: 2, rest_s: 30, memory_s: 600 };

/// Mutation `breaker-blind-error`: replace the swap of an error by a store.
#[test]
fn loom_breaker_has_one_opener() {
    super::run(|| {
        let word = Arc::new(Word::new(BreakerWord::default()));
        let worker = |word: Arc<Word<BreakerWord>>| {
            thread::spawn(move || {
                (0..2)
                    .filter(|_| failed(&word, 100, POLICY).is_ok_and(|failed| failed.opened))
                    .count()
            })
        };
        let (a, b) = (worker(word.clone()), worker(word.clone()));
        assert_eq!(a.join().expect("joins") + b.join().expect("joins"), 1);
        assert_eq!(word.load(Ordering::Relaxed), BreakerWord::new(4, 100, 1));
    });
}

/// Mutation `breaker-blind-probe`: replace the swap of a probe by a store.
#[test]
fn loom_breaker_has_one_probe() {
    super::run(|| {
        let word = Arc::new(Word::new(BreakerWord::new(2, 100, 1)));
        let worker = |word: Arc<Word<BreakerWord>>| {
            thread::spawn(move || {
                (0..2).filter(|_| matches!(admits(&word, 130, POLICY), Admission::Probe(_))).count()
            })
        };
        let (a, b) = (worker(word.clone()), worker(word.clone()));
        assert_eq!(a.join().expect("joins") + b.join().expect("joins"), 1);
    });
}

/// A probe succeeds while another request fails: either the success came first and one error is counted
/// since, or the breaker stays open.
///
/// Mutation `breaker-blind-success`: close it without looking.
#[test]
fn loom_breaker_success_forgets_no_later_error() {
    super::run(|| {
        let word = Arc::new(Word::new(BreakerWord::new(2, 100, 1)));
        let Admission::Probe(probe) = admits(&word, 130, POLICY) else { panic!("a probe") };
        let other = word.clone();
        let thread = thread::spawn(move || failed(&other, 131, POLICY));
        let closed = succeeded(&word, probe);
        let errors = thread.join().expect("joins").expect("few tries").errors;
        assert_eq!(errors, if closed { 1 } else { 3 });
        assert_eq!(word.load(Ordering::Relaxed), BreakerWord::new(errors, 131, 1));
    });
}
