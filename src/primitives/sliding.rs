//! A sliding window in one word: two aligned windows, of which the previous one fades out.
//!
//! Time is cut into windows of equal length, counted from the region's clock base. The word holds the
//! number of the current window, what was charged in it, and what was charged in the one before. A
//! charge is admitted while
//!
//! ```text
//! ceil(previous * part of this window that is left) + current + cost <= limit
//! ```
//!
//! **What it guarantees.** Never more than `limit` in one aligned window. In any other stretch as long as
//! a window at most `2 * limit - 1`: everything in the last microsecond of one window, and again nearly
//! everything just before the next one ends, when the first burst has faded out. No traffic gets more,
//! and a limit of 1 is exact. Traffic that comes evenly gets `limit` per stretch. Where the factor of two
//! matters, GCRA ([`super::gcra`]) with a small burst is the right rule.
//!
//! **Large limits.** A count has 24 bits. Limits above 2^23 are counted in steps of a power of two, at
//! most `limit / 2^22` units long. A charge is rounded up to whole steps and the limit down, so the error
//! is never in favour of the client: each charge costs up to one step more than it should.
//!
//! **Damage.** Counts that no charge can have written refuse until they have faded out: the end of the
//! next window at the latest. A window of the future is charged like any other, so it admits no more than
//! the limit, and [`repair`] moves it to the present together with its counts. Damage that looks like an
//! old window is an idle word: what was charged before it is forgotten, and the limit holds from then on.
//!
//! The number of the window has 16 bits. A word that was left alone for longer than 2^15 windows may look
//! like one of the future, and costs a repair. No process may act on a clock reading that is 2^15 windows
//! old, which is nine hours with windows of one second.

use super::{Contended, MAX_TRIES, Shared};
use crate::layout::SlidingWord;
use crate::sync::{Bits, Ordering};

const NUMBER_MASK: u64 = (1 << 16) - 1;
/// Ages from here on are windows of the future.
const FUTURE: u64 = 1 << 15;

/// A limit, as the algorithm uses it. A word belongs to one limit: whoever changes the length or the
/// limit uses another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingLimit {
    limit: u64,
    window_us: u64,
    shift: u32,
}

impl SlidingLimit {
    /// Largest limit.
    pub const MAX_LIMIT: u64 = (1 << 40) - 1;
    /// Longest window in seconds: 31 days.
    pub const MAX_WINDOW_S: u64 = 31 * 86_400;
    /// Limits up to here are counted exactly. Half of what a count can hold.
    const MAX_STEPS: u64 = 1 << 23;

    /// `None` when either is zero or above its maximum.
    pub fn new(limit: u64, window_s: u64) -> Option<Self> {
        let valid =
            (1..=Self::MAX_LIMIT).contains(&limit) && (1..=Self::MAX_WINDOW_S).contains(&window_s);
        let shift = u64::BITS - ((limit.max(1) - 1) / Self::MAX_STEPS).leading_zeros();
        valid.then_some(Self { limit, window_us: window_s * 1_000_000, shift })
    }

    /// Units per window.
    pub fn limit(self) -> u64 {
        self.limit
    }

    /// Length of a window in seconds.
    pub fn window_s(self) -> u64 {
        self.window_us / 1_000_000
    }

    /// Units that a charge is rounded up to; 1 up to a limit of 2^23.
    pub fn step(self) -> u64 {
        1 << self.shift
    }

    /// The limit in steps.
    fn capacity(self) -> u64 {
        self.limit >> self.shift
    }

    fn steps(self, cost: u64) -> u64 {
        cost.div_ceil(self.step())
    }

    /// The longest rest of a window during which `count` of the window before still weighs at most
    /// `room`.
    fn longest_left_us(self, count: u64, room: u64) -> u64 {
        let fits = (u128::from(room) * u128::from(self.window_us)).checked_div(u128::from(count));
        fits.and_then(|us| u64::try_from(us).ok())
            .map_or(self.window_us, |us| us.min(self.window_us))
    }
}

/// The answer to one charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Charged.
    Allowed {
        /// Units that would still be admitted now.
        remaining: u64,
        /// Number of the window that was charged; what a refund must present.
        window: u64,
    },
    /// Not charged.
    Denied {
        /// Microseconds until it would be admitted if nobody else came, exactly; `u64::MAX` = it costs
        /// more than the limit.
        retry_after_us: u64,
    },
}

/// What one look at the word says.
#[derive(Clone, Copy)]
struct Reading {
    number: u64,
    previous: u64,
    current: u64,
    /// What is left of the window.
    left_us: u64,
    /// How long until the window begins; 0 unless it lies in the future.
    ahead_us: u64,
}

impl Reading {
    fn new(word: SlidingWord, now_us: u64, limit: SlidingLimit) -> Self {
        let now = now_us / limit.window_us;
        let age = now.wrapping_sub(word.window()) & NUMBER_MASK;
        let left_us = limit.window_us - now_us % limit.window_us;
        let at = |previous, current| Self { number: now, previous, current, left_us, ahead_us: 0 };
        match age {
            0 => at(word.previous(), word.current()),
            1 => at(word.current(), 0),
            // A word of zero has never been charged, however far its number is away.
            2..FUTURE => at(0, 0),
            _ if word == SlidingWord::default() => at(0, 0),
            _ => {
                let ahead = NUMBER_MASK + 1 - age;
                Self {
                    number: now + ahead,
                    previous: word.previous(),
                    current: word.current(),
                    left_us: limit.window_us,
                    ahead_us: (ahead - 1) * limit.window_us + left_us,
                }
            }
        }
    }

    fn is_ahead(self) -> bool {
        self.ahead_us > 0
    }

    /// Steps that would be admitted now.
    fn room(self, limit: SlidingLimit) -> u64 {
        let faded = (u128::from(self.previous) * u128::from(self.left_us))
            .div_ceil(u128::from(limit.window_us));
        // Not above `previous`, which has 24 bits.
        let faded = u64::try_from(faded).unwrap_or(u64::MAX);
        limit.capacity().saturating_sub(faded.saturating_add(self.current))
    }

    /// Microseconds until `steps` that are refused now are admitted.
    fn wait_us(self, limit: SlidingLimit, steps: u64) -> u64 {
        let Some(room) = limit.capacity().checked_sub(steps) else {
            return u64::MAX;
        };
        let to_end_us = self.ahead_us + self.left_us;
        let fits_us = room
            .checked_sub(self.current)
            .map_or(0, |room| limit.longest_left_us(self.previous, room));
        if fits_us > 0 {
            return to_end_us.saturating_sub(fits_us);
        }
        // Not in this window. In the next one `current` fades out; after that everything fits.
        to_end_us + limit.window_us - limit.longest_left_us(self.current, room)
    }
}

fn load<S: Shared>(word: S) -> (S::Value, SlidingWord) {
    // Relaxed throughout: the word publishes nothing but itself.
    let raw = word.load(Ordering::Relaxed);
    (raw, SlidingWord::from_bits(raw.bits()))
}

fn swap<S: Shared>(word: S, seen: S::Value, next: SlidingWord) -> bool {
    let next = S::Value::from_bits(next.bits());
    word.compare_exchange(seen, next, Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

/// Admits and charges `cost` units, or refuses them without writing. Sets `suspect` when the word's window
/// lies in the future: either the caller's clock reading is old, or the word wants [`repair`].
///
/// Linearization point: the successful swap; for a refusal, the load. Lock-free, at most
/// [`MAX_TRIES`] rounds.
#[inline]
pub fn charge<S: Shared>(
    word: S,
    now_us: u64,
    limit: SlidingLimit,
    cost: u64,
    suspect: &mut bool,
) -> Result<Decision, Contended> {
    let steps = limit.steps(cost);
    for _ in 0..MAX_TRIES {
        let (raw, seen) = load(word);
        let reading = Reading::new(seen, now_us, limit);
        *suspect |= reading.is_ahead();
        let room = reading.room(limit);
        if steps > room {
            return Ok(Decision::Denied { retry_after_us: reading.wait_us(limit, steps) });
        }
        let next = SlidingWord::new(reading.number, reading.previous, reading.current + steps);
        if swap(word, raw, next) {
            let remaining = (room - steps) << limit.shift;
            return Ok(Decision::Allowed { remaining, window: reading.number });
        }
    }
    Err(Contended)
}

/// Takes back a charge of `cost` units of which `kept` stay charged; 0 = all of it is taken back. Only
/// while the window that was charged still counts, as the current or the previous one; later there is
/// nothing to give back. `kept` is rounded up like every charge, so no credit comes of it.
///
/// False = nothing was changed: too late, or the word was changed under every try. The charge then fades
/// out like any other. A charge MUST NOT be refunded twice.
pub fn refund<S: Shared>(
    word: S,
    now_us: u64,
    limit: SlidingLimit,
    window: u64,
    cost: u64,
    kept: u64,
) -> bool {
    let steps = limit.steps(cost).saturating_sub(limit.steps(kept));
    if (now_us / limit.window_us).saturating_sub(window) > 1 {
        return false;
    }
    for _ in 0..MAX_TRIES {
        let (raw, seen) = load(word);
        let (number, previous, current) = (seen.window(), seen.previous(), seen.current());
        let next = match number.wrapping_sub(window) & NUMBER_MASK {
            0 => current.checked_sub(steps).map(|left| SlidingWord::new(number, previous, left)),
            1 => previous.checked_sub(steps).map(|left| SlidingWord::new(number, left, current)),
            _ => None,
        };
        match next {
            None => return false,
            Some(next) if swap(word, raw, next) => return true,
            Some(_) => {}
        }
    }
    false
}

/// Charges `cost` units that have been used already, whatever the limit says. What a count cannot hold is
/// forgiven.
pub fn owe<S: Shared>(
    word: S,
    now_us: u64,
    limit: SlidingLimit,
    cost: u64,
) -> Result<(), Contended> {
    for _ in 0..MAX_TRIES {
        let (raw, seen) = load(word);
        let reading = Reading::new(seen, now_us, limit);
        let current = reading.current.saturating_add(limit.steps(cost)).min((1 << 24) - 1);
        if swap(word, raw, SlidingWord::new(reading.number, reading.previous, current)) {
            return Ok(());
        }
    }
    Err(Contended)
}

/// Moves a window of the future to the present, with its counts: what is counted too much fades out
/// within two windows. True when something was rewritten.
///
/// The clock is read after the word: a window is always written from an earlier reading, so one that is
/// ahead of a later reading is damage, or older than 2^15 windows. Read the other way round, a process that
/// is stopped in between would take what others charged meanwhile for damage, and push it into the past.
pub fn repair<S: Shared>(word: S, now_us: impl FnOnce() -> u64, limit: SlidingLimit) -> bool {
    // Acquire keeps the clock from being read before the word.
    let raw = word.load(Ordering::Acquire);
    let present = repaired(SlidingWord::from_bits(raw.bits()), now_us(), limit);
    present.is_some_and(|present| swap(word, raw, present))
}

/// What [`repair`] makes of a word; `None` = it leaves it alone.
pub fn repaired(word: SlidingWord, now_us: u64, limit: SlidingLimit) -> Option<SlidingWord> {
    let present = SlidingWord::new(now_us / limit.window_us, word.previous(), word.current());
    Reading::new(word, now_us, limit).is_ahead().then_some(present)
}

/// Units that would be admitted now. Reads only.
pub fn remaining(word: SlidingWord, now_us: u64, limit: SlidingLimit) -> u64 {
    Reading::new(word, now_us, limit).room(limit) << limit.shift
}

/// Microseconds until `cost` units would be admitted; 0 = now, `u64::MAX` = never. Reads only.
pub fn retry_after_us(word: SlidingWord, now_us: u64, limit: SlidingLimit, cost: u64) -> u64 {
    let reading = Reading::new(word, now_us, limit);
    let steps = limit.steps(cost);
    if steps <= reading.room(limit) { 0 } else { reading.wait_us(limit, steps) }
}

/// Whether a word of windows of that length no longer weighs on any decision, so that zero may take its
/// place. A length of 0 is an unknown one: then only a word without counts is idle. Reads only.
pub fn is_idle(word: SlidingWord, now_us: u64, window_s: u64) -> bool {
    let now = now_us.checked_div(window_s.saturating_mul(1_000_000)).unwrap_or(word.window());
    let age = now.wrapping_sub(word.window()) & NUMBER_MASK;
    match age {
        1 => word.current() == 0,
        2..FUTURE => true,
        _ => word.previous() == 0 && word.current() == 0,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::layout::CounterWord;
    use crate::sync::Word;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const S: u64 = 1_000_000;

    fn word() -> Word<SlidingWord> {
        Word::new(SlidingWord::default())
    }

    fn stands(word: &Word<SlidingWord>) -> SlidingWord {
        word.load(Ordering::Relaxed)
    }

    fn try_charge(
        word: &Word<SlidingWord>,
        now_us: u64,
        limit: SlidingLimit,
        cost: u64,
    ) -> Decision {
        charge(word, now_us, limit, cost, &mut false).expect("one thread")
    }

    fn window_of(decision: Decision) -> Option<u64> {
        match decision {
            Decision::Allowed { window, .. } => Some(window),
            Decision::Denied { .. } => None,
        }
    }

    fn allowed(word: &Word<SlidingWord>, now_us: u64, limit: SlidingLimit, cost: u64) -> bool {
        window_of(try_charge(word, now_us, limit, cost)).is_some()
    }

    #[test]
    fn debt_is_charged_over_the_limit_and_fades_out() {
        let limit = SlidingLimit::new(10, 60).unwrap();
        let word = Word::new(SlidingWord::default());
        owe(&word, 60_000_000, limit, 25).unwrap();
        assert_eq!(remaining(word.load(Ordering::Relaxed), 119_000_000, limit), 0);
        assert_eq!(remaining(word.load(Ordering::Relaxed), 120_000_000, limit), 0);
        assert_eq!(remaining(word.load(Ordering::Relaxed), 180_000_000, limit), 10);
        owe(&word, 180_000_000, limit, u64::MAX).unwrap();
        assert_eq!(remaining(word.load(Ordering::Relaxed), 300_000_000, limit), 10);
    }

    #[test]
    fn nonsense_limits_are_refused() {
        for (limit, window_s) in [(0, 1), (1, 0), (1 << 40, 1), (1, 31 * 86_400 + 1)] {
            assert_eq!(SlidingLimit::new(limit, window_s), None, "{limit}/{window_s}");
        }
        let largest = SlidingLimit::new((1 << 40) - 1, 31 * 86_400).unwrap();
        assert_eq!((largest.limit(), largest.window_s()), ((1 << 40) - 1, 31 * 86_400));
    }

    #[test]
    fn steps_keep_every_limit_within_half_of_a_count() {
        let step = |limit| SlidingLimit::new(limit, 60).unwrap().step();
        assert_eq!((step(1), step(1 << 23), step((1 << 23) + 1)), (1, 1, 2));
        assert_eq!((step(1 << 24), step((1 << 24) + 1), step((1 << 40) - 1)), (2, 4, 1 << 17));
        for limit in (0..40).flat_map(|bit| [1_u64 << bit, (1 << bit) + 1, (2 << bit) - 1]) {
            let Some(limit) = SlidingLimit::new(limit, 60) else { continue };
            assert!((1..=SlidingLimit::MAX_STEPS).contains(&limit.capacity()), "{limit:?}");
            assert!(limit.step() == 1 || limit.step() <= limit.limit() >> 22, "{limit:?}");
        }
    }

    #[test]
    fn the_previous_window_fades_out() {
        let limit = SlidingLimit::new(10, 60).unwrap();
        let word = word();
        assert_eq!(
            try_charge(&word, 60 * S, limit, 10),
            Decision::Allowed { remaining: 0, window: 1 }
        );
        let denied = |now| try_charge(&word, now, limit, 1);
        assert_eq!(denied(100 * S), Decision::Denied { retry_after_us: 26 * S });
        assert_eq!(denied(120 * S), Decision::Denied { retry_after_us: 6 * S });
        assert!(!allowed(&word, 126 * S - 1, limit, 1));
        assert!(allowed(&word, 126 * S, limit, 1));
        assert_eq!(remaining(stands(&word), 150 * S, limit), 4);
        assert_eq!(remaining(stands(&word), 240 * S, limit), 10);
    }

    #[test]
    fn what_costs_more_than_the_limit_is_never_admitted() {
        let limit = SlidingLimit::new(10, 60).unwrap();
        let never = Decision::Denied { retry_after_us: u64::MAX };
        assert_eq!(try_charge(&word(), 0, limit, 11), never);
        assert_eq!(try_charge(&word(), 0, limit, u64::MAX), never);
        assert_eq!(retry_after_us(SlidingWord::default(), 0, limit, 11), u64::MAX);
    }

    /// The documented bound is reached, so it is the true one.
    #[test]
    fn a_stretch_of_twice_the_limit_less_one_is_possible() {
        let limit = SlidingLimit::new(50, 60).unwrap();
        let word = word();
        let end = 120 * S;
        assert!(allowed(&word, end - 1, limit, 50));
        assert!(!allowed(&word, end + 60 * S - 2, limit, 50));
        assert!(allowed(&word, end + 60 * S - 2, limit, 49));
    }

    #[test]
    fn large_limits_are_counted_in_steps() {
        let limit = SlidingLimit::new((1 << 40) - 1, 60).unwrap();
        let word = word();
        assert!(allowed(&word, 0, limit, 1));
        assert_eq!(stands(&word).current(), 1);
        assert_eq!(remaining(stands(&word), 0, limit), (1 << 40) - (2 << 17));
        assert!(!allowed(&word, 0, limit, (1 << 40) - (2 << 17) + 1));
        assert!(allowed(&word, 0, limit, (1 << 40) - (2 << 17)));
        assert_eq!(remaining(stands(&word), 0, limit), 0);
    }

    #[test]
    fn it_lives_in_a_word_of_another_type() {
        let limit = SlidingLimit::new(2, 60).unwrap();
        let word = Word::new(CounterWord::default());
        for expect in [true, true, false] {
            let decision = charge(&word, 5, limit, 1, &mut false).unwrap();
            assert_eq!(window_of(decision).is_some(), expect);
        }
        assert!(refund(&word, 5, limit, 0, 1, 0));
        assert!(!repair(&word, || 5, limit));
        let bits = word.load(Ordering::Relaxed).bits();
        assert_eq!(SlidingWord::from_bits(bits), SlidingWord::new(0, 0, 1));
    }

    #[test]
    fn a_refund_counts_in_the_current_and_the_previous_window_only() {
        let limit = SlidingLimit::new(10, 60).unwrap();
        let word = word();
        let window = window_of(try_charge(&word, 70 * S, limit, 6)).unwrap();
        assert!(allowed(&word, 121 * S, limit, 1));
        assert!(refund(&word, 122 * S, limit, window, 6, 4));
        assert_eq!(stands(&word), SlidingWord::new(2, 4, 1));
        assert!(!refund(&word, 122 * S, limit, window, 5, 0), "more than is charged");
        assert!(!refund(&word, 180 * S, limit, window, 4, 0), "too late");
        assert!(allowed(&word, 180 * S, limit, 1));
        assert!(!refund(&word, 179 * S, limit, window, 4, 0), "too late, and an old clock reading");
        assert_eq!(stands(&word), SlidingWord::new(3, 1, 1));
    }

    #[test]
    fn a_part_that_is_kept_is_rounded_up() {
        let limit = SlidingLimit::new(1 << 25, 60).unwrap();
        assert_eq!(limit.step(), 4);
        let word = word();
        let window = window_of(try_charge(&word, 0, limit, 9)).unwrap();
        assert_eq!(stands(&word).current(), 3);
        assert!(refund(&word, 0, limit, window, 9, 5));
        assert_eq!(stands(&word).current(), 2);
        assert!(refund(&word, 0, limit, window, 5, 5), "nothing to do is done");
        assert!(refund(&word, 0, limit, window, 5, 0));
        assert_eq!(stands(&word), SlidingWord::default());
    }

    /// A region may be older than 2^15 windows when a key is used for the first time.
    #[test]
    fn a_word_of_zero_is_never_one_of_the_future() {
        let limit = SlidingLimit::new(10, 60).unwrap();
        for number in [FUTURE - 1, FUTURE, NUMBER_MASK, NUMBER_MASK + 1] {
            let mut suspect = false;
            let decision = charge(&word(), number * 60 * S, limit, 1, &mut suspect).unwrap();
            assert_eq!((window_of(decision), suspect), (Some(number), false));
        }
    }

    /// A process that is stopped between its clock and the word charges the window that it finds.
    #[test]
    fn an_old_clock_reading_takes_nothing_from_the_window_of_now() {
        let limit = SlidingLimit::new(10, 60).unwrap();
        let word = word();
        assert!(allowed(&word, 600 * S, limit, 9));
        let mut suspect = false;
        let late = charge(&word, 60 * S, limit, 1, &mut suspect).unwrap();
        assert_eq!(late, Decision::Allowed { remaining: 0, window: 10 });
        assert!(suspect);
        assert!(!repair(&word, || 600 * S, limit), "the word is sound");
        assert_eq!(stands(&word), SlidingWord::new(10, 0, 10));
        let denied = charge(&word, 60 * S, limit, 1, &mut suspect).unwrap();
        assert_eq!(denied, Decision::Denied { retry_after_us: 606 * S });
    }

    /// A repairer that is stopped after it has looked must not take back what was charged meanwhile.
    #[test]
    fn a_late_repair_gives_nothing_back() {
        let limit = SlidingLimit::new(10, 60).unwrap();
        let word = Word::new(SlidingWord::new(30, 0, 3));
        let while_stopped = || {
            assert!(allowed(&word, 1_860 * S, limit, 7));
            1_860 * S
        };
        assert!(!repair(&word, while_stopped, limit));
        assert!(!allowed(&word, 1_860 * S, limit, 8));
    }

    #[test]
    fn a_word_is_idle_when_nothing_in_it_counts() {
        let word = SlidingWord::new(5, 2, 3);
        let idle = |window| is_idle(word, window * 60 * S, 60);
        assert_eq!([4, 5, 6].map(idle), [false, false, false]);
        assert_eq!([7, 8, 5 + FUTURE - 1].map(idle), [true, true, true]);
        assert!(!idle(5 + FUTURE), "it may be one of the future");
        assert!(is_idle(SlidingWord::new(5, 2, 0), 360 * S, 60));
        assert!(is_idle(SlidingWord::default(), 0, 60));
        assert!(!is_idle(word, 7 * 60 * S, 0), "of unknown length");
    }

    fn limits() -> impl Strategy<Value = SlidingLimit> {
        let units =
            prop_oneof![1_u64..40, 1_u64..5_000, 1_u64 << 23..1 << 26, 1_u64 << 39..1 << 40,];
        (units, prop_oneof![1_u64..90, Just(86_400), Just(31 * 86_400)])
            .prop_map(|(limit, window_s)| SlidingLimit::new(limit, window_s).expect("valid"))
    }

    /// Charges at times in parts of a window, in parts of the limit.
    fn charges() -> impl Strategy<Value = Vec<(u64, u64)>> {
        let gap = prop_oneof![0_u64..200, 0_u64..20, 900_u64..1_100, Just(0)];
        prop::collection::vec((gap, prop_oneof![0_u64..300, 1_u64..20, Just(1_000)]), 1..120)
    }

    fn part(whole: u64, thousandths: u64) -> u64 {
        u64::try_from(u128::from(whole) * u128::from(thousandths) / 1_000).expect("a part")
    }

    /// The obvious model: what was charged in each window, in steps, by window.
    #[derive(Default)]
    struct Model(BTreeMap<u64, u64>);

    impl Model {
        fn admits(&self, now_us: u64, limit: SlidingLimit, steps: u64) -> bool {
            let of = |window: Option<u64>| {
                window.and_then(|window| self.0.get(&window)).copied().map_or(0, u128::from)
            };
            let length = u128::from(limit.window_us);
            let number = now_us / limit.window_us;
            let left = length - u128::from(now_us % limit.window_us);
            // Without a division: the limit is exceeded if it is by any fraction.
            let used = of(number.checked_sub(1)) * left + of(Some(number)) * length;
            used + u128::from(steps) * length <= u128::from(limit.capacity()) * length
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_sequential_model(
            limit in limits(), charges in charges(), start in 0_u64..100_000,
        ) {
            let word = Word::new(SlidingWord::new(start, 0, 0));
            let mut now = start * limit.window_us;
            let mut model = Model::default();
            for (gap, cost) in charges {
                now += part(limit.window_us, gap);
                let cost = part(limit.limit(), cost).max(1);
                let steps = limit.steps(cost);
                let expect = model.admits(now, limit, steps);
                prop_assert_eq!(allowed(&word, now, limit, cost), expect);
                if expect {
                    *model.0.entry(now / limit.window_us).or_default() += steps;
                }
            }
        }

        /// The guarantees, in units, from any state that a charge can have left.
        #[test]
        fn never_more_than_documented(limit in limits(), charges in charges()) {
            let word = word();
            let mut now = 7 * limit.window_us;
            let mut admitted: Vec<(u64, u64)> = Vec::new();
            for (gap, cost) in charges {
                now += part(limit.window_us, gap);
                let cost = part(limit.limit(), cost).max(1);
                // As much as possible: what fits is taken.
                let cost = cost.min(remaining(stands(&word), now, limit));
                if cost > 0 && allowed(&word, now, limit, cost) {
                    admitted.push((now, cost));
                }
            }
            let mut windows: BTreeMap<u64, u64> = BTreeMap::new();
            for &(at, cost) in &admitted {
                *windows.entry(at / limit.window_us).or_default() += cost;
            }
            prop_assert!(windows.values().all(|&sum| sum <= limit.limit()));
            for (first, &(from, _)) in admitted.iter().enumerate() {
                let within = admitted[first..].iter().take_while(|(at, _)| at - from < limit.window_us);
                let sum: u64 = within.map(|(_, cost)| cost).sum();
                prop_assert!(sum < 2 * limit.limit(), "{sum} in a stretch");
            }
        }

        /// A refusal says exactly when it would be no refusal.
        #[test]
        fn remaining_and_retry_tell_what_charge_does(
            limit in limits(),
            previous in 0_u64..1_001,
            current in 0_u64..1_001,
            at in 0_u64..4_000,
            cost in 1_u64..1_001,
        ) {
            let count = |thousandths| part(limit.capacity(), thousandths);
            let state = SlidingWord::new(3, count(previous), count(current));
            let now = 3 * limit.window_us + part(limit.window_us, at);
            let cost = part(limit.limit(), cost).max(1);
            let left = remaining(state, now, limit);
            let wait = retry_after_us(state, now, limit, cost);
            let decide = |at| try_charge(&Word::new(state), at, limit, cost);
            match decide(now) {
                Decision::Allowed { remaining, window } => {
                    prop_assert_eq!(wait, 0);
                    prop_assert_eq!(remaining, left - limit.steps(cost) * limit.step());
                    prop_assert_eq!(window, now / limit.window_us);
                }
                Decision::Denied { retry_after_us } => {
                    prop_assert!(cost > left);
                    prop_assert_eq!(wait, retry_after_us);
                    if limit.steps(cost) > limit.capacity() {
                        prop_assert_eq!(wait, u64::MAX);
                    } else {
                        prop_assert!(window_of(decide(now + wait)).is_some());
                        prop_assert!(window_of(decide(now + wait - 1)).is_none());
                    }
                }
            }
        }

        /// Refunds give back what was charged and nothing else.
        #[test]
        fn refunds_are_exact(
            limit in limits(),
            steps in prop::collection::vec((0_u64..300, 0_u8..3, 0_usize..50, 1_u64..400), 1..100),
        ) {
            let word = word();
            let mut now = 9 * limit.window_us;
            let mut model = Model::default();
            let mut charges: Vec<(u64, u64)> = Vec::new();
            for (gap, op, pick, amount) in steps {
                now += part(limit.window_us, gap);
                let amount = part(limit.limit(), amount).max(1);
                if op < 2 {
                    let window = window_of(try_charge(&word, now, limit, amount));
                    prop_assert_eq!(window.is_some(), model.admits(now, limit, limit.steps(amount)));
                    if let Some(window) = window {
                        *model.0.entry(window).or_default() += limit.steps(amount);
                        charges.push((window, amount));
                    }
                } else if !charges.is_empty() {
                    let (window, cost) = charges.swap_remove(pick % charges.len());
                    let kept = amount.min(cost);
                    let counts = now / limit.window_us - window <= 1;
                    prop_assert_eq!(refund(&word, now, limit, window, cost, kept), counts);
                    if counts {
                        let back = limit.steps(cost) - limit.steps(kept);
                        model.0.entry(window).and_modify(|sum| *sum -= back);
                    }
                }
            }
        }

        /// Whatever stands there: from then on no window admits more than the limit, two windows later it
        /// is all gone, and no operation panics.
        #[test]
        fn any_word_holds_the_limit_and_heals(bits: u64, limit in limits(), at in 0..u64::MAX / 2) {
            let word = Word::new(SlidingWord::from_bits(bits));
            let mut now = at;
            let mut windows: BTreeMap<u64, u64> = BTreeMap::new();
            for _ in 0..40 {
                let mut suspect = false;
                let decision = charge(&word, now, limit, limit.step(), &mut suspect).unwrap();
                if let Decision::Allowed { .. } = decision {
                    *windows.entry(now / limit.window_us).or_default() += limit.step();
                }
                if suspect {
                    prop_assert!(repair(&word, || now, limit));
                }
                let _ = is_idle(stands(&word), now, limit.window_s());
                now += limit.window_us / 9;
            }
            prop_assert!(windows.values().all(|&sum| sum <= limit.limit()));
            let word = Word::new(SlidingWord::from_bits(bits));
            // One that is about to look like one of the future is left alone until it does.
            let age = (at / limit.window_us).wrapping_sub(stands(&word).window()) & NUMBER_MASK;
            let soon = (FUTURE - 2..FUTURE).contains(&age);
            let at = if soon { at + 2 * limit.window_us } else { at };
            let _ = repair(&word, || at, limit);
            let healed = (at / limit.window_us + 2) * limit.window_us;
            prop_assert!(is_idle(stands(&word), healed, limit.window_s()));
            prop_assert_eq!(remaining(stands(&word), healed, limit), limit.capacity() * limit.step());
        }
    }
}
