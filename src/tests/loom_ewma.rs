//! Averages: every sample that was taken is in it, in some order.

use crate::layout::EwmaWord;
use crate::primitives::ewma::observe;
use crate::sync::{Ordering, Word};
use loom::sync::Arc;
use loom::thread;

/// Mutation `ewma-blind-store`: replace the swap by a store.
#[test]
fn loom_ewma_has_every_sample() {
    super::run(|| {
        let word = Arc::new(Word::new(EwmaWord::default()));
        let other = word.clone();
        let thread = thread::spawn(move || observe(&*other, 7, 300, 8));
        assert!(observe(&*word, 7, 100, 8).is_ok() && observe(&*word, 7, 200, 8).is_ok());
        assert!(thread.join().expect("joins").is_ok());
        let seen = word.load(Ordering::Relaxed);
        assert_eq!(seen.samples(), 3);
        // The mean of all three in sixteenths, with what rounding may add.
        assert!(seen.value().abs_diff(200 * 16) <= 2, "{seen:?}");
    });
}
