//! Terms of office: each new leader of a job is given a larger number, whoever led before, and however late
//! one of them is.
//!
//! A leader first holds the job's one slot, and takes its number then. It looks at the slot between the load
//! of the word and the swap: whoever was given the slot after that look takes its number later, and so gets a
//! larger one; whoever was given it before makes the look fail. So once a leader has its number, nobody else
//! changes the word while the slot is its own.
//!
//! **Damage.** Any word is some term of some process. Its leader finds that it leads no longer and asks again.

use super::{Contended, MAX_TRIES};
use crate::layout::{OwnerTag, TermWord};
use crate::sync::{Ordering, Word, in_total_order};

/// The number of a new term; `None` = the slot is no longer the owner's, which `holds` tells.
///
/// Linearization point: the swap. At most [`MAX_TRIES`] rounds.
pub fn begin(
    word: &Word<TermWord>,
    owner: OwnerTag,
    holds: impl Fn() -> bool,
) -> Result<Option<u64>, Contended> {
    for _ in 0..MAX_TRIES {
        // SYNC term-order: SeqCst, the word first, then the slot.
        let seen = word.load(Ordering::SeqCst);
        in_total_order();
        if !holds() {
            return Ok(None);
        }
        let next = TermWord::new(seen.number().wrapping_add(1), owner.raw());
        if word.compare_exchange(seen, next, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            return Ok(holds().then_some(next.number()));
        }
    }
    Err(Contended)
}

/// Ends a term, so that the same process does not find it when it leads again. False = it is over.
pub fn end(word: &Word<TermWord>, owner: OwnerTag, number: u64) -> bool {
    let (own, ended) = (TermWord::new(number, owner.raw()), TermWord::new(number, 0));
    word.compare_exchange(own, ended, Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

/// The number of the term that the owner has, if the latest one is its own.
pub fn number(word: &Word<TermWord>, owner: OwnerTag) -> Option<u64> {
    let seen = word.load(Ordering::SeqCst);
    (seen.owner() == owner.raw()).then(|| seen.number())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn owner(row: u32) -> OwnerTag {
        OwnerTag::new(row, 1).expect("valid")
    }

    #[test]
    fn numbers_grow_whoever_leads() {
        let word = Word::new(TermWord::default());
        assert_eq!(number(&word, owner(1)), None);
        assert_eq!(begin(&word, owner(1), || true), Ok(Some(1)));
        assert_eq!((number(&word, owner(1)), number(&word, owner(2))), (Some(1), None));
        assert_eq!(begin(&word, owner(2), || true), Ok(Some(2)));
        assert!(!end(&word, owner(1), 1) && !end(&word, owner(2), 1));
        assert!(end(&word, owner(2), 2) && !end(&word, owner(2), 2));
        assert_eq!(number(&word, owner(2)), None);
        assert_eq!(begin(&word, owner(2), || true), Ok(Some(3)));
    }

    #[test]
    fn who_has_lost_the_slot_gets_no_term() {
        let word = Word::new(TermWord::new(7, 9));
        assert_eq!(begin(&word, owner(1), || false), Ok(None));
        assert_eq!(word.load(Ordering::Relaxed), TermWord::new(7, 9));
        // It is lost, and the next leader has its number, between the look and the swap.
        let looks = Word::new(0_u64);
        let loses = || {
            let first = looks.fetch_add(1, Ordering::Relaxed) == 0;
            if first {
                assert_eq!(begin(&word, owner(2), || true), Ok(Some(8)));
            }
            first
        };
        assert_eq!(begin(&word, owner(1), loses), Ok(None));
        assert_eq!(number(&word, owner(2)), Some(8));
    }
}
