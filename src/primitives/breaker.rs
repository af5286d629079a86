//! A circuit breaker in one word: errors that are not yet forgotten, when the latest happened, and how
//! often it opened.
//!
//! | state | when | what happens |
//! |---|---|---|
//! | closed | errors below the threshold, or none for the memory | everybody is admitted |
//! | open | errors at the threshold, the latest within the rest | nobody is admitted |
//! | half-open | errors at the threshold, a rest without any | one caller per rest is admitted: the probe |
//!
//! What opened stays so until a probe succeeds or somebody resets it: only errors below the threshold are
//! forgotten.
//!
//! A probe is taken by moving the time of the latest error to now, which opens the breaker for another
//! rest. So there is nothing that a prober could leave behind: if it dies, the next rest gives another
//! probe; if it fails, the error counts; if it succeeds, [`succeeded`] closes the breaker, unless it has
//! changed since the probe was taken.
//!
//! To let everybody in again after the rest instead of one, ask [`peek`] and admit unless it says open.
//!
//! **Damage.** A time further ahead than an hour reads as one rest ago: a damaged breaker is half-open at
//! worst, and the next probe or error writes a good time. One within the hour holds it open until then.

use super::{Contended, MAX_TRIES};
use crate::layout::BreakerWord;
use crate::sync::{Ordering, Word};

/// Most errors that are counted.
const MAX_ERRORS: u64 = (1 << 24) - 1;
/// By how much a caller's clock reading may be older than the word's, seconds.
const SLACK_S: u64 = 3_600;

/// When it opens and how it closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Errors that open it; 0 is read as 1.
    pub threshold: u64,
    /// Seconds that it stays open after an error or a probe; 0 is read as 1.
    pub rest_s: u64,
    /// Seconds without an error after which errors below the threshold are forgotten.
    pub memory_s: u64,
}

impl Policy {
    fn threshold(self) -> u64 {
        self.threshold.clamp(1, MAX_ERRORS)
    }

    fn rest_s(self) -> u64 {
        self.rest_s.max(1)
    }
}

/// What the word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everybody is admitted.
    Closed {
        /// Errors that are not forgotten.
        errors: u64,
    },
    /// The next caller is the probe.
    HalfOpen,
    /// Nobody is admitted.
    Open {
        /// Seconds until a probe is.
        retry_after_s: u64,
    },
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Go on.
    Closed,
    /// Go on, as the only one in this rest.
    Probe(Probe),
    /// Do without.
    Open {
        /// Seconds until a probe is admitted.
        retry_after_s: u64,
    },
}

/// Permission to try an open breaker's subject; what [`succeeded`] must present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe(BreakerWord);

impl Probe {
    /// From [`Self::bits`], for callers that cannot keep the type.
    pub fn from_bits(bits: u64) -> Self {
        Self(crate::sync::Bits::from_bits(bits))
    }

    /// The word that the probe was taken with.
    pub fn bits(self) -> u64 {
        crate::sync::Bits::bits(self.0)
    }
}

/// An error as counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// Errors that are not forgotten, this one included.
    pub errors: u64,
    /// This one opened the breaker. Exactly one call is told so until it has been closed again.
    pub opened: bool,
}

/// Seconds since the latest error or probe.
fn age_s(word: BreakerWord, now_s: u64, policy: Policy) -> u64 {
    if word.last_s() > now_s.saturating_add(SLACK_S) {
        return policy.rest_s();
    }
    now_s.saturating_sub(word.last_s())
}

/// The time to write. An old clock reading must not shorten the rest.
fn stamp(word: BreakerWord, now_s: u64) -> u64 {
    let ahead = word.last_s().saturating_sub(now_s);
    if ahead > SLACK_S { now_s } else { now_s.max(word.last_s()) }
}

/// What the breaker does at `now_s`. Reads only.
pub fn peek(word: BreakerWord, now_s: u64, policy: Policy) -> State {
    let age = age_s(word, now_s, policy);
    if word.errors() < policy.threshold() {
        let remembered = age < policy.memory_s;
        return State::Closed { errors: if remembered { word.errors() } else { 0 } };
    }
    match policy.rest_s().checked_sub(age) {
        Some(retry_after_s @ 1..) => State::Open { retry_after_s },
        _ => State::HalfOpen,
    }
}

/// Counts an error.
///
/// Linearization point: the successful swap. Lock-free, at most [`MAX_TRIES`] rounds.
pub fn failed(word: &Word<BreakerWord>, now_s: u64, policy: Policy) -> Result<Failed, Contended> {
    // Relaxed throughout: the word publishes nothing but itself.
    let mut seen = word.load(Ordering::Relaxed);
    for _ in 0..MAX_TRIES {
        let (before, closed) = match peek(seen, now_s, policy) {
            State::Closed { errors } => (errors, true),
            State::HalfOpen | State::Open { .. } => (seen.errors(), false),
        };
        let errors = (before + 1).min(MAX_ERRORS);
        let opened = closed && errors >= policy.threshold();
        let trips = seen.trips() + u64::from(opened);
        let next = BreakerWord::new(errors, stamp(seen, now_s), trips);
        match word.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Ok(Failed { errors, opened }),
            Err(now) => seen = now,
        }
    }
    Err(Contended)
}

/// Whether a caller may go on. Writes only when it takes the probe; under contention the answer is open.
///
/// Linearization point: the successful swap for a probe, else the load.
#[inline]
pub fn admits(word: &Word<BreakerWord>, now_s: u64, policy: Policy) -> Admission {
    let mut seen = word.load(Ordering::Relaxed);
    for _ in 0..MAX_TRIES {
        match peek(seen, now_s, policy) {
            State::Closed { .. } => return Admission::Closed,
            State::Open { retry_after_s } => return Admission::Open { retry_after_s },
            State::HalfOpen => {}
        }
        let probe = BreakerWord::new(seen.errors(), now_s, seen.trips());
        match word.compare_exchange(seen, probe, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Admission::Probe(Probe(probe)),
            Err(now) => seen = now,
        }
    }
    Admission::Open { retry_after_s: policy.rest_s() }
}

/// Closes the breaker after a probe that succeeded. True for the one call that did; false = it has
/// changed since: another error, another probe, or it is closed already.
///
/// Linearization point: the swap. Wait-free.
pub fn succeeded(word: &Word<BreakerWord>, probe: Probe) -> bool {
    let Probe(taken) = probe;
    let closed = BreakerWord::new(0, 0, taken.trips());
    word.compare_exchange(taken, closed, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// Forgets all errors. True if there were any.
///
/// Linearization point: the successful swap, or the load that found none.
pub fn reset(word: &Word<BreakerWord>) -> Result<bool, Contended> {
    let mut seen = word.load(Ordering::Relaxed);
    for _ in 0..MAX_TRIES {
        if seen.errors() == 0 {
            return Ok(false);
        }
        let closed = BreakerWord::new(0, 0, seen.trips());
        match word.compare_exchange(seen, closed, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Ok(true),
            Err(now) => seen = now,
        }
    }
    Err(Contended)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::Bits;
    use proptest::prelude::*;

    const POLICY: Policy = Policy { threshold: 3, rest_s: 30, memory_s: 600 };

    fn open_since(now_s: u64) -> Word<BreakerWord> {
        let word = Word::new(BreakerWord::default());
        for n in 1..=3 {
            let failed = failed(&word, now_s, POLICY).expect("one thread");
            assert_eq!(failed, Failed { errors: n, opened: n == 3 });
        }
        word
    }

    fn state(word: &Word<BreakerWord>, now_s: u64) -> State {
        peek(word.load(Ordering::Relaxed), now_s, POLICY)
    }

    #[test]
    fn it_opens_at_the_threshold_and_rests() {
        let word = open_since(100);
        assert_eq!(admits(&word, 100, POLICY), Admission::Open { retry_after_s: 30 });
        assert_eq!(admits(&word, 129, POLICY), Admission::Open { retry_after_s: 1 });
        assert_eq!(failed(&word, 110, POLICY), Ok(Failed { errors: 4, opened: false }));
        assert_eq!(admits(&word, 139, POLICY), Admission::Open { retry_after_s: 1 });
        assert_eq!(state(&word, 140), State::HalfOpen);
    }

    #[test]
    fn one_probe_per_rest_and_its_success_closes() {
        let word = open_since(100);
        let Admission::Probe(first) = admits(&word, 130, POLICY) else { panic!("a probe") };
        assert_eq!(admits(&word, 130, POLICY), Admission::Open { retry_after_s: 30 });
        // The first prober dies; the next rest gives another probe.
        let Admission::Probe(second) = admits(&word, 160, POLICY) else { panic!("a probe") };
        assert!(!succeeded(&word, first), "the breaker is the second prober's");
        assert!(succeeded(&word, Probe::from_bits(second.bits())));
        assert!(!succeeded(&word, second));
        assert_eq!(admits(&word, 161, POLICY), Admission::Closed);
        assert_eq!(state(&word, 161), State::Closed { errors: 0 });
        assert_eq!(word.load(Ordering::Relaxed).trips(), 1);
    }

    #[test]
    fn a_failed_probe_rests_again_without_opening_again() {
        let word = open_since(100);
        let Admission::Probe(probe) = admits(&word, 130, POLICY) else { panic!("a probe") };
        assert_eq!(failed(&word, 135, POLICY), Ok(Failed { errors: 4, opened: false }));
        assert!(!succeeded(&word, probe));
        assert_eq!(admits(&word, 164, POLICY), Admission::Open { retry_after_s: 1 });
        assert!(matches!(admits(&word, 165, POLICY), Admission::Probe(_)));
    }

    #[test]
    fn errors_are_forgotten_when_none_comes_for_the_memory() {
        let word = Word::new(BreakerWord::default());
        failed(&word, 10, POLICY).unwrap();
        assert_eq!(failed(&word, 609, POLICY).unwrap().errors, 2);
        assert_eq!(state(&word, 1_208), State::Closed { errors: 2 });
        assert_eq!(state(&word, 1_209), State::Closed { errors: 0 });
        assert_eq!(failed(&word, 1_209, POLICY).unwrap().errors, 1);
        let word = open_since(100);
        // What opened it is not forgotten.
        assert_eq!(state(&word, 1_000_000), State::HalfOpen);
        assert!(matches!(admits(&word, 1_000_000, POLICY), Admission::Probe(_)));
    }

    #[test]
    fn a_memory_shorter_than_the_rest_changes_neither() {
        let policy = Policy { threshold: 1, rest_s: 30, memory_s: 10 };
        let word = Word::new(BreakerWord::default());
        assert!(failed(&word, 5, policy).unwrap().opened);
        assert_eq!(admits(&word, 34, policy), Admission::Open { retry_after_s: 1 });
        assert!(matches!(admits(&word, 35, policy), Admission::Probe(_)));
    }

    #[test]
    fn a_rest_without_end_is_ended_by_a_reset_alone() {
        let policy = Policy { rest_s: u64::MAX, ..POLICY };
        let word = open_since(100);
        assert!(matches!(admits(&word, u64::from(u32::MAX), policy), Admission::Open { .. }));
        assert_eq!(reset(&word), Ok(true));
        assert_eq!(admits(&word, 101, policy), Admission::Closed);
    }

    #[test]
    fn a_reset_forgets_everything_once() {
        let word = open_since(100);
        assert_eq!((reset(&word), reset(&word)), (Ok(true), Ok(false)));
        assert_eq!(admits(&word, 100, POLICY), Admission::Closed);
        assert!((1..=3).any(|_| failed(&word, 100, POLICY).unwrap().opened));
        assert_eq!(word.load(Ordering::Relaxed).trips(), 2);
    }

    #[test]
    fn an_old_clock_reading_does_not_shorten_the_rest() {
        let word = open_since(100);
        failed(&word, 50, POLICY).unwrap();
        assert_eq!(admits(&word, 50, POLICY), Admission::Open { retry_after_s: 30 });
        assert_eq!(admits(&word, 129, POLICY), Admission::Open { retry_after_s: 1 });
    }

    #[test]
    fn a_time_that_nobody_wrote_is_half_open_and_heals() {
        let word = Word::new(BreakerWord::new(MAX_ERRORS, u64::MAX, 255));
        assert_eq!(state(&word, 100), State::HalfOpen);
        let Admission::Probe(probe) = admits(&word, 100, POLICY) else { panic!("a probe") };
        assert_eq!(admits(&word, 101, POLICY), Admission::Open { retry_after_s: 29 });
        assert_eq!(failed(&word, 101, POLICY).unwrap().errors, MAX_ERRORS);
        assert!(!succeeded(&word, probe));
        assert!(matches!(admits(&word, 131, POLICY), Admission::Probe(_)));
    }

    #[test]
    fn an_error_writes_a_good_time_over_one_that_nobody_wrote() {
        let word = Word::new(BreakerWord::new(7, u64::MAX, 0));
        assert_eq!(failed(&word, 100, POLICY), Ok(Failed { errors: 8, opened: false }));
        assert_eq!(admits(&word, 100, POLICY), Admission::Open { retry_after_s: 30 });
        assert_eq!(state(&word, 130), State::HalfOpen);
    }

    /// One error at most is forgiven by a policy of nonsense.
    #[test]
    fn zeroes_in_a_policy_are_read_as_one() {
        let policy = Policy { threshold: 0, rest_s: 0, memory_s: 600 };
        let word = Word::new(BreakerWord::default());
        assert_eq!(admits(&word, 5, policy), Admission::Closed);
        assert!(failed(&word, 5, policy).unwrap().opened);
        assert_eq!(admits(&word, 5, policy), Admission::Open { retry_after_s: 1 });
        assert!(matches!(admits(&word, 6, policy), Admission::Probe(_)));
        assert_eq!(admits(&word, 6, policy), Admission::Open { retry_after_s: 1 });
    }

    proptest! {
        /// Errors below the threshold are forgotten after a minute without any; at the threshold it is
        /// open until half a minute after the latest. Who admits unless the state is open gets exactly
        /// that.
        #[test]
        fn peeking_alone_is_the_breaker_without_probes(
            steps in prop::collection::vec((0_u64..70, 0_u8..3), 1..100),
            threshold in 1_u64..6,
        ) {
            let policy = Policy { threshold, rest_s: 30, memory_s: 60 };
            let word = Word::new(BreakerWord::default());
            let (mut now, mut last, mut errors) = (1_000_u64, 0_u64, 0_u64);
            for (gap, op) in steps {
                now += gap;
                if op > 0 {
                    let kept = now - last < 60 || errors >= threshold;
                    errors = if kept { errors + 1 } else { 1 };
                    last = now;
                    prop_assert_eq!(failed(&word, now, policy).unwrap().errors, errors);
                }
                let was_open = now - last < 30 && errors >= threshold;
                let state = peek(word.load(Ordering::Relaxed), now, policy);
                prop_assert_eq!(matches!(state, State::Open { .. }), was_open);
            }
        }

        /// Between two probes, and between an error and a probe, there is always a rest; and it opens
        /// exactly once before it is closed.
        #[test]
        fn probes_are_a_rest_apart(
            steps in prop::collection::vec((0_u64..40, 0_u8..6), 1..200),
        ) {
            let word = Word::new(BreakerWord::default());
            let (mut now, mut quiet_since, mut open) = (1_000_u64, 0_u64, false);
            let mut probe = None;
            for (gap, op) in steps {
                now += gap;
                // A memory of 600 seconds outlasts every gap, so no error is forgotten.
                match op {
                    0 | 1 => {
                        let failed = failed(&word, now, POLICY).unwrap();
                        prop_assert!(!(open && failed.opened));
                        open |= failed.opened;
                        quiet_since = now;
                    }
                    2 => {
                        let closed = probe.take().is_some_and(|probe| succeeded(&word, probe));
                        prop_assert!(open || !closed);
                        open &= !closed;
                    }
                    _ => match admits(&word, now, POLICY) {
                        Admission::Closed => prop_assert!(!open),
                        Admission::Open { retry_after_s } => {
                            prop_assert!(open);
                            prop_assert_eq!(quiet_since + 30, now + retry_after_s);
                        }
                        Admission::Probe(taken) => {
                            prop_assert!(open && now - quiet_since >= 30);
                            quiet_since = now;
                            probe = Some(taken);
                        }
                    },
                }
            }
        }

        /// Whatever stands there: at most an hour and a rest later somebody is admitted.
        #[test]
        fn any_word_admits_somebody_in_the_end(bits: u64, now in 0_u64..1 << 31) {
            let word = Word::new(BreakerWord::from_bits(bits));
            if let Admission::Open { retry_after_s } = admits(&word, now, POLICY) {
                prop_assert!(retry_after_s <= 30);
                let later = admits(&word, now + SLACK_S + 30, POLICY);
                let admitted = !matches!(later, Admission::Open { .. });
                prop_assert!(admitted, "{later:?}");
            }
            let failed = failed(&word, now, POLICY).unwrap();
            prop_assert!(failed.errors >= 1);
            reset(&word).unwrap();
            prop_assert_eq!(admits(&word, now, POLICY), Admission::Closed);
        }
    }
}
