//! GCRA: two processes at one word never admit more than the burst.

use crate::layout::GcraWord;
use crate::primitives::gcra::{Decision, Quota, charge};
use crate::sync::Word;
use loom::sync::Arc;
use loom::thread;

/// Mutation `gcra-blind-store`: replace the swap by a store.
#[test]
fn loom_gcra_never_above_burst() {
    super::run(|| {
        let quota = Quota::new(60, 2).expect("valid");
        let word = Arc::new(Word::new(GcraWord::default()));
        let worker = |word: Arc<Word<GcraWord>>| {
            thread::spawn(move || {
                (0..2)
                    .filter(|_| {
                        matches!(
                            charge(&*word, 5_000_000, quota, 1, &mut false),
                            Ok(Decision::Allowed { .. })
                        )
                    })
                    .count()
            })
        };
        let (a, b) = (worker(word.clone()), worker(word.clone()));
        let admitted = a.join().expect("joins") + b.join().expect("joins");
        assert_eq!(admitted, 2);
    });
}
