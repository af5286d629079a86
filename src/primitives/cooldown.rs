//! A cooldown in one word: until when, why, and how often it was begun.
//!
//! Of all callers that report failures at once exactly one begins the cooldown; the others find it
//! running and at most lengthen it. So what goes with the beginning (an event, a counter, a line in a log)
//! happens once, over all processes.
//!
//! A caller whose clock reading is old acts as if it had come then: to it a cooldown that has ended in
//! between still runs.
//!
//! **Damage.** An end further ahead than [`MAX_MS`] cannot have been written by [`begin`]. It reads as no
//! cooldown, since a subject that is tried in vain is cooled down again, but one that is never tried is
//! lost. An end within that time is believed, and [`clear`] is the remedy.

use super::{Contended, MAX_TRIES, Shared};
use crate::layout::{CooldownWord, FailureKind};
use crate::sync::Ordering;

/// Longest cooldown in milliseconds: 31 days. Longer ones are cut.
pub const MAX_MS: u64 = 31 * 86_400 * 1_000;
/// Last moment that the word can tell, 34 years after the clock base.
const LAST_MS: u64 = (1 << 40) - 1;

/// What a call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It began the cooldown. Exactly one call per cooldown is told so.
    First,
    /// One was running; it ends later now, and has the new reason.
    Extended,
    /// One was running that lasts at least as long; nothing was changed.
    AlreadyLonger,
}

/// Begins a cooldown of `for_ms` milliseconds, at least 1 and at most [`MAX_MS`], or lengthens the one
/// that runs. See [`begin_marked`].
pub fn begin(
    word: impl Shared<Value = CooldownWord>,
    now_ms: u64,
    for_ms: u64,
    reason: FailureKind,
) -> Result<Begun, Contended> {
    begin_marked(word, now_ms, for_ms, reason).map(|(begun, _)| begun)
}

/// As [`begin`], and what stands in the word then, by which more can be said of exactly this cooldown.
///
/// Linearization point: the successful swap; when nothing changes, the load. Lock-free, at most
/// [`MAX_TRIES`] rounds.
pub fn begin_marked(
    word: impl Shared<Value = CooldownWord>,
    now_ms: u64,
    for_ms: u64,
    reason: FailureKind,
) -> Result<(Begun, CooldownWord), Contended> {
    let until_ms = now_ms.saturating_add(for_ms.clamp(1, MAX_MS)).min(LAST_MS);
    // Relaxed throughout: the word publishes nothing but itself.
    let mut seen = word.load(Ordering::Relaxed);
    for _ in 0..MAX_TRIES {
        let running = left_ms(seen, now_ms) > 0;
        if running && seen.until_ms() >= until_ms {
            return Ok((Begun::AlreadyLonger, seen));
        }
        let trips = seen.trips() + u64::from(!running);
        let next = CooldownWord::new(until_ms, reason as u64, trips);
        match word.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) if running => return Ok((Begun::Extended, next)),
            Ok(_) => return Ok((Begun::First, next)),
            Err(now) => seen = now,
        }
    }
    Err(Contended)
}

/// Ends the cooldown that runs. True for the one call that did; false = none was running.
///
/// Linearization point: the successful swap, or the load that found nothing to end.
pub fn clear(word: impl Shared<Value = CooldownWord>, now_ms: u64) -> Result<bool, Contended> {
    let mut seen = word.load(Ordering::Relaxed);
    for _ in 0..MAX_TRIES {
        if left_ms(seen, now_ms) == 0 {
            return Ok(false);
        }
        let next = CooldownWord::new(0, FailureKind::None as u64, seen.trips());
        match word.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Ok(true),
            Err(now) => seen = now,
        }
    }
    Err(Contended)
}

/// Milliseconds until it ends; 0 = none is running. Reads only.
#[inline]
pub fn left_ms(word: CooldownWord, now_ms: u64) -> u64 {
    let left = word.until_ms().saturating_sub(now_ms);
    if left > MAX_MS { 0 } else { left }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::Word;
    use proptest::prelude::*;

    fn word() -> Word<CooldownWord> {
        Word::new(CooldownWord::default())
    }

    fn stands(word: &Word<CooldownWord>) -> CooldownWord {
        word.load(Ordering::Relaxed)
    }

    #[test]
    fn the_first_begins_and_the_others_lengthen() {
        let word = word();
        assert_eq!(left_ms(stands(&word), 0), 0);
        assert_eq!(begin(&word, 1_000, 5_000, FailureKind::RateLimited), Ok(Begun::First));
        assert_eq!(begin(&word, 1_000, 5_000, FailureKind::Timeout), Ok(Begun::AlreadyLonger));
        assert_eq!(begin(&word, 2_000, 3_000, FailureKind::Timeout), Ok(Begun::AlreadyLonger));
        assert_eq!(stands(&word).reason(), FailureKind::RateLimited as u64);
        assert_eq!(begin(&word, 2_000, 5_000, FailureKind::Server), Ok(Begun::Extended));
        assert_eq!(stands(&word), CooldownWord::new(7_000, FailureKind::Server as u64, 1));
        assert_eq!((left_ms(stands(&word), 6_999), left_ms(stands(&word), 7_000)), (1, 0));
        assert_eq!(begin(&word, 7_000, 1, FailureKind::Server), Ok(Begun::First));
        assert_eq!(stands(&word).trips(), 2);
    }

    #[test]
    fn clearing_ends_it_once_and_keeps_the_count() {
        let word = word();
        assert_eq!(clear(&word, 5), Ok(false));
        begin(&word, 5, 100, FailureKind::Manual).unwrap();
        assert_eq!((clear(&word, 6), clear(&word, 6)), (Ok(true), Ok(false)));
        assert_eq!(stands(&word), CooldownWord::new(0, 0, 1));
        begin(&word, 7, 100, FailureKind::Manual).unwrap();
        assert_eq!(clear(&word, 107), Ok(false));
    }

    #[test]
    fn lengths_are_cut_to_what_is_believed() {
        let word = word();
        assert_eq!(begin(&word, 10, u64::MAX, FailureKind::Manual), Ok(Begun::First));
        assert_eq!(left_ms(stands(&word), 10), MAX_MS);
        assert_eq!(begin(&word, 10 + MAX_MS, 0, FailureKind::Manual), Ok(Begun::First));
        assert_eq!(left_ms(stands(&word), 10 + MAX_MS), 1);
    }

    #[test]
    fn an_end_that_nobody_wrote_loses_no_subject() {
        let word = Word::new(CooldownWord::new(MAX_MS + 101, 255, 65_535));
        assert_eq!(left_ms(stands(&word), 100), 0);
        assert_eq!(left_ms(stands(&word), 101), MAX_MS);
        assert_eq!(begin(&word, 100, 50, FailureKind::Server), Ok(Begun::First));
        assert_eq!(stands(&word), CooldownWord::new(150, FailureKind::Server as u64, 0));
    }

    proptest! {
        /// Against the obvious model: the moment it ends.
        #[test]
        fn agrees_with_the_sequential_model(
            steps in prop::collection::vec((0_u64..3_000, 0_u8..5, 0_u64..4_000), 1..100),
        ) {
            let word = word();
            let (mut now, mut until, mut begun) = (1_u64, 0_u64, 0_u64);
            for (gap, op, for_ms) in steps {
                now += gap;
                let running = until > now;
                if op == 0 {
                    prop_assert_eq!(clear(&word, now), Ok(running));
                    if running { until = 0; }
                } else {
                    let end = now + for_ms.max(1);
                    let expect = match running {
                        false => Begun::First,
                        true if end > until => Begun::Extended,
                        true => Begun::AlreadyLonger,
                    };
                    prop_assert_eq!(begin(&word, now, for_ms, FailureKind::Server), Ok(expect));
                    begun += u64::from(!running);
                    until = until.max(end);
                }
                prop_assert_eq!(left_ms(stands(&word), now), until.saturating_sub(now));
                prop_assert_eq!(stands(&word).trips(), begun);
            }
        }

        /// Whatever stands there: nobody waits longer than the longest cooldown, and it can be begun.
        #[test]
        fn any_word_ends_and_can_be_begun(bits: u64, now in 0_u64..1 << 39, for_ms: u64) {
            let word = Word::new(<CooldownWord as crate::sync::Bits>::from_bits(bits));
            prop_assert!(left_ms(stands(&word), now) <= MAX_MS);
            begin(&word, now, for_ms, FailureKind::Other).unwrap();
            let left = left_ms(stands(&word), now);
            prop_assert!(left >= for_ms.clamp(1, MAX_MS) && left <= MAX_MS);
            clear(&word, now).unwrap();
            prop_assert_eq!(left_ms(stands(&word), now), 0);
        }
    }
}
