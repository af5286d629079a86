//! The generic cell rate algorithm in one word.
//!
//! The functions take a word of any packed type and read it as a [`GcraWord`], because a bucket keeps its
//! quota where other kinds of keys keep a counter.
//!
//! The word holds the theoretical arrival time (TAT): when the next request would be due if requests
//! were spaced evenly. A request is admitted while the TAT is at most the burst tolerance ahead of now,
//! and admission moves it one emission interval on. One compare-and-swap is the whole decision, so a
//! process that dies anywhere has either been charged or not.

use super::{Contended, MAX_TRIES, Shared};
use crate::layout::GcraWord;
use crate::sync::{Bits, Ordering};

/// A rate, as the algorithm uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    per_minute: u32,
    burst: u32,
    interval_us: u64,
}

impl Quota {
    /// Highest rate: one request per microsecond.
    pub const MAX_PER_MINUTE: u32 = 60_000_000;

    /// `None` when either is zero, the rate is above [`Self::MAX_PER_MINUTE`], or the burst takes longer
    /// than a year to earn. The interval is rounded up, so the rate is never exceeded.
    pub fn new(per_minute: u32, burst: u32) -> Option<Self> {
        const YEAR_US: u64 = 365 * 86_400 * 1_000_000;
        if per_minute == 0 || burst == 0 || per_minute > Self::MAX_PER_MINUTE {
            return None;
        }
        let interval_us = 60_000_000_u64.div_ceil(u64::from(per_minute));
        (interval_us * u64::from(burst) <= YEAR_US).then_some(Self {
            per_minute,
            burst,
            interval_us,
        })
    }

    /// Requests per minute.
    pub fn per_minute(self) -> u32 {
        self.per_minute
    }

    /// Requests that may arrive at once.
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// Requests that fit into a stretch of that many microseconds.
    pub fn requests_in(self, us: u64) -> u64 {
        us / self.interval_us
    }

    /// How far ahead of now the TAT gets at most: a full burst, and a full [`owe`].
    pub fn most_ahead_us(self) -> u64 {
        2 * self.tolerance_us()
    }

    fn tolerance_us(self) -> u64 {
        self.interval_us * u64::from(self.burst)
    }

    /// What `cost` requests take to earn; `None` when that is more than the burst.
    #[inline]
    fn cost_us(self, cost: u64) -> Option<u64> {
        (cost <= u64::from(self.burst)).then(|| self.interval_us * cost)
    }
}

/// Waiting time of a request that costs more than the burst: it is never admitted.
pub const NEVER: u64 = u64::MAX;

/// A charge that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// Requests charged.
    pub cost: u64,
    /// When, microseconds since the region's clock base.
    pub at_us: u64,
    /// Idle epoch of the quota then.
    pub idle_epoch: u64,
}

/// The answer to one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Charged.
    Allowed {
        /// What is left of the burst, microseconds; [`Quota::requests_in`] tells how many requests that is.
        spare_us: u64,
        /// What a refund must present.
        charge: Charge,
    },
    /// Not charged.
    Denied {
        /// Microseconds until it would be admitted if nobody else came; [`NEVER`] when it costs more than
        /// the burst.
        retry_after_us: u64,
    },
}

/// What one look at the word says.
struct Reading {
    tat_us: u64,
    epoch: u64,
    corrupt: bool,
}

/// A TAT further ahead than twice the tolerance (a full burst and a full [`owe`]) cannot have been written
/// at or before `now_us`. It is read as an exhausted quota, which is the safe side.
#[inline]
fn read(word: GcraWord, now_us: u64, quota: Quota) -> Reading {
    let tolerance_us = quota.tolerance_us();
    let corrupt = word.tat_us() > now_us + quota.most_ahead_us();
    if word.tat_us() < now_us {
        return Reading { tat_us: now_us, epoch: word.idle_epoch() + 1, corrupt };
    }
    let tat_us = if corrupt { now_us + tolerance_us } else { word.tat_us() };
    Reading { tat_us, epoch: word.idle_epoch(), corrupt }
}

/// Admits and charges `cost` requests, or refuses them without writing. Sets `suspect` when the TAT is too
/// far ahead: either the caller's clock reading is old, or the word is corrupt and wants [`repair`].
///
/// Linearization point: the successful swap; for a refusal, the load. Lock-free, at most
/// [`MAX_TRIES`] rounds.
#[inline]
pub fn charge<S: Shared>(
    word: S,
    now_us: u64,
    quota: Quota,
    cost: u64,
    suspect: &mut bool,
) -> Result<Decision, Contended> {
    let mut current = word.load(Ordering::Relaxed);
    let Some(cost_us) = quota.cost_us(cost) else {
        return Ok(Decision::Denied { retry_after_us: NEVER });
    };
    for _ in 0..MAX_TRIES {
        let reading = read(GcraWord::from_bits(current.bits()), now_us, quota);
        *suspect |= reading.corrupt;
        let tat_us = reading.tat_us + cost_us;
        let limit = now_us + quota.tolerance_us();
        if tat_us > limit {
            return Ok(Decision::Denied { retry_after_us: tat_us - limit });
        }
        let next = GcraWord::new(tat_us, reading.epoch);
        // SYNC key-leave: SeqCst, before the caller looks at the key's identity again. The word itself
        // publishes nothing.
        let swap = word.compare_exchange(
            current,
            S::Value::from_bits(next.bits()),
            Ordering::SeqCst,
            Ordering::Relaxed,
        );
        match swap {
            Ok(_) => {
                return Ok(Decision::Allowed {
                    spare_us: limit - tat_us,
                    charge: Charge { cost, at_us: now_us, idle_epoch: next.idle_epoch() },
                });
            }
            Err(seen) => current = seen,
        }
    }
    Err(Contended)
}

/// Gives a charge back, less what has been earned since it was made; false = nothing is left of it.
///
/// What time has earned may have been spent already: a quota that is full earns nothing, and without the
/// charge it might have been full. So each microsecond that has passed takes one off the refund, and the
/// quota never holds more than if the charge had not been made. A quota that has been idle since (another
/// idle epoch) owes nothing.
///
/// Linearization point: the successful swap. At most [`MAX_TRIES`] rounds.
pub fn refund<S: Shared>(
    word: S,
    now_us: u64,
    quota: Quota,
    charge: Charge,
) -> Result<bool, Contended> {
    let charged_us = quota.cost_us(charge.cost).unwrap_or(0);
    let left_us = charged_us.saturating_sub(now_us.saturating_sub(charge.at_us));
    let mut current = word.load(Ordering::Relaxed);
    for _ in 0..MAX_TRIES {
        let seen = GcraWord::from_bits(current.bits());
        if left_us == 0 || seen.idle_epoch() != charge.idle_epoch || seen.tat_us() <= now_us {
            return Ok(false);
        }
        let tat_us = seen.tat_us().saturating_sub(left_us).max(now_us);
        let next = S::Value::from_bits(GcraWord::new(tat_us, charge.idle_epoch).bits());
        match word.compare_exchange(current, next, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => return Ok(true),
            Err(now) => current = now,
        }
    }
    Err(Contended)
}

/// Charges `cost` requests that have been used already, whatever the quota says. What goes beyond one burst
/// of debt is forgiven: a single mistake must not close a key for ever.
///
/// The clock is read after the word, as in [`repair`]: to an old reading, what others have charged since
/// would be beyond all debt, and be forgiven.
///
/// Linearization point: the successful swap. At most [`MAX_TRIES`] rounds.
pub fn owe<S: Shared>(
    word: S,
    now_us: impl Fn() -> u64,
    quota: Quota,
    cost: u64,
) -> Result<(), Contended> {
    let cost_us = quota.interval_us.saturating_mul(cost);
    // Acquire keeps the clock from being read before the word.
    let mut current = word.load(Ordering::Acquire);
    for _ in 0..MAX_TRIES {
        let now_us = now_us();
        let reading = read(GcraWord::from_bits(current.bits()), now_us, quota);
        let most = now_us + quota.most_ahead_us();
        let tat_us = reading.tat_us.saturating_add(cost_us).min(most);
        let next = S::Value::from_bits(GcraWord::new(tat_us, reading.epoch).bits());
        match word.compare_exchange(current, next, Ordering::SeqCst, Ordering::Acquire) {
            Ok(_) => return Ok(()),
            Err(now) => current = now,
        }
    }
    Err(Contended)
}

/// Forgets what is owed. The idle epoch moves on, so that what was charged before is not given back to what
/// will be charged.
///
/// Linearization point: the successful swap, or the load that found nothing. At most [`MAX_TRIES`] rounds.
pub fn forget<S: Shared>(word: S) -> Result<(), Contended> {
    let mut current = word.load(Ordering::Relaxed);
    for _ in 0..MAX_TRIES {
        let seen = GcraWord::from_bits(current.bits());
        if seen.tat_us() == 0 {
            return Ok(());
        }
        let next = S::Value::from_bits(GcraWord::new(0, seen.idle_epoch() + 1).bits());
        match word.compare_exchange(current, next, Ordering::SeqCst, Ordering::Relaxed) {
            Ok(_) => return Ok(()),
            Err(now) => current = now,
        }
    }
    Err(Contended)
}

/// Whether the word says as much as zero does: nothing is owed.
pub fn is_idle(word: GcraWord, now_us: u64) -> bool {
    word.tat_us() <= now_us
}

/// Rewrites a TAT that no charge can have written as an exhausted quota, which heals by itself. True when
/// something was rewritten.
///
/// The clock is read after the word: a TAT is always written from an earlier reading, so one that is too
/// far ahead of a later reading is damage. Read the other way round, a process that is stopped in between
/// would take what others charged meanwhile for damage, and give it back.
pub fn repair<S: Shared>(word: S, now_us: impl FnOnce() -> u64, quota: Quota) -> bool {
    // Acquire keeps the clock from being read before the word.
    let current = word.load(Ordering::Acquire);
    let reading = read(GcraWord::from_bits(current.bits()), now_us(), quota);
    let next = S::Value::from_bits(GcraWord::new(reading.tat_us, reading.epoch).bits());
    reading.corrupt
        && word.compare_exchange(current, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// What is left of the burst, microseconds. Reads only.
pub fn spare_us(word: GcraWord, now_us: u64, quota: Quota) -> u64 {
    let reading = read(word, now_us, quota);
    (now_us + quota.tolerance_us()).saturating_sub(reading.tat_us)
}

/// Requests that would be admitted now. Reads only.
pub fn remaining(word: GcraWord, now_us: u64, quota: Quota) -> u64 {
    quota.requests_in(spare_us(word, now_us, quota))
}

/// Microseconds until `cost` requests would be admitted; 0 = now, [`NEVER`] = more than the burst. Reads
/// only.
pub fn retry_after_us(word: GcraWord, now_us: u64, quota: Quota, cost: u64) -> u64 {
    let Some(cost_us) = quota.cost_us(cost) else { return NEVER };
    let tat_us = read(word, now_us, quota).tat_us + cost_us;
    tat_us.saturating_sub(now_us + quota.tolerance_us())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::Word;
    use proptest::prelude::*;

    fn allowed(word: &Word<GcraWord>, now_us: u64, quota: Quota) -> bool {
        matches!(charge(word, now_us, quota, 1, &mut false), Ok(Decision::Allowed { .. }))
    }

    #[test]
    fn burst_then_one_per_interval() {
        let quota = Quota::new(60, 6).unwrap();
        let word = Word::new(GcraWord::default());
        let now = 10_000_000;
        assert_eq!((0..20).filter(|_| allowed(&word, now, quota)).count(), 6);
        let denied = charge(&word, now, quota, 1, &mut false).unwrap();
        assert_eq!(denied, Decision::Denied { retry_after_us: 1_000_000 });
        assert!(!allowed(&word, now + 999_999, quota));
        assert!(allowed(&word, now + 1_000_000, quota));
    }

    #[test]
    fn what_was_charged_before_it_was_forgotten_is_not_given_back() {
        let quota = Quota::new(60, 6).unwrap();
        let word = Word::new(GcraWord::default());
        let charge = |cost| match charge(&word, 10_000_000, quota, cost, &mut false) {
            Ok(Decision::Allowed { charge, .. }) => charge,
            other => panic!("{other:?}"),
        };
        let before = charge(6);
        forget(&word).unwrap();
        assert!(is_idle(word.load(Ordering::Relaxed), 0));
        charge(6);
        assert_eq!(refund(&word, 10_000_000, quota, before), Ok(false));
        assert!(!allowed(&word, 10_000_000, quota));
    }

    #[test]
    fn nonsense_rates_are_refused() {
        assert_eq!(Quota::new(0, 1), None);
        assert_eq!(Quota::new(1, 0), None);
        assert_eq!(Quota::new(Quota::MAX_PER_MINUTE + 1, 1), None);
        assert_eq!(Quota::new(1, u32::MAX), None);
    }

    #[test]
    fn a_corrupt_tat_refuses_and_heals() {
        let quota = Quota::new(60, 6).unwrap();
        let word = Word::new(GcraWord::new((1 << 48) - 1, 3));
        let mut suspect = false;
        let first = charge(&word, 0, quota, 1, &mut suspect).unwrap();
        assert!(suspect);
        assert_eq!(first, Decision::Denied { retry_after_us: 1_000_000 });
        assert!(repair(&word, || 0, quota));
        assert!(!repair(&word, || 0, quota));
        assert!(!allowed(&word, 999_999, quota));
        assert!(allowed(&word, 1_000_000, quota));
    }

    /// A repairer that is stopped after it has looked must not take back what was charged meanwhile.
    #[test]
    fn a_late_repair_gives_nothing_back() {
        let quota = Quota::new(60, 6).unwrap();
        let word = Word::new(GcraWord::default());
        let later = 60_000_000;
        let while_stopped = || {
            assert_eq!((0..20).filter(|_| allowed(&word, later, quota)).count(), 6);
            later
        };
        assert!(!repair(&word, while_stopped, quota));
        assert!(!allowed(&word, later, quota));
    }

    fn charged(word: &Word<GcraWord>, now_us: u64, quota: Quota, cost: u64) -> Charge {
        match charge(word, now_us, quota, cost, &mut false) {
            Ok(Decision::Allowed { charge, .. }) => charge,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_refund_gives_back_what_was_charged_less_what_was_earned() {
        let quota = Quota::new(60, 6).unwrap();
        let word = Word::new(GcraWord::default());
        let left = |now| remaining(word.load(Ordering::Relaxed), now, quota);
        let (first, second) =
            (charged(&word, 10_000_000, quota, 4), charged(&word, 10_000_000, quota, 2));
        assert_eq!(refund(&word, 10_000_000, quota, first), Ok(true));
        assert_eq!(left(10_000_000), 4);
        assert_eq!(refund(&word, 11_000_000, quota, second), Ok(true));
        assert_eq!(left(11_000_000), 6);
        assert_eq!(refund(&word, 11_000_000, quota, second), Ok(false));
    }

    /// Six were charged and five earned again; without the charge the quota would have stayed full, so
    /// five may not be given a second time.
    #[test]
    fn what_time_has_given_is_not_given_again() {
        let quota = Quota::new(60, 6).unwrap();
        let word = Word::new(GcraWord::default());
        let first = charged(&word, 10_000_000, quota, 6);
        charged(&word, 15_000_000, quota, 5);
        assert_eq!(refund(&word, 15_000_000, quota, first), Ok(true));
        assert_eq!(remaining(word.load(Ordering::Relaxed), 15_000_000, quota), 1);
    }

    #[test]
    fn a_refund_after_idleness_mints_no_credit() {
        let quota = Quota::new(60, 6).unwrap();
        let word = Word::new(GcraWord::default());
        let first = charged(&word, 10_000_000, quota, 6);
        // Much later the quota is full again, and used up by somebody else.
        charged(&word, 70_000_000, quota, 6);
        assert_eq!(refund(&word, 70_000_000, quota, first), Ok(false));
        // Not even if the clock of the refund is old.
        assert_eq!(refund(&word, 10_000_000, quota, first), Ok(false));
        assert!(!allowed(&word, 70_000_000, quota));
    }

    #[test]
    fn debt_is_waited_for_and_bounded() {
        let quota = Quota::new(60, 6).unwrap();
        let word = Word::new(GcraWord::default());
        owe(&word, || 10_000_000, quota, 8).unwrap();
        assert!(!allowed(&word, 12_999_999, quota));
        assert!(allowed(&word, 13_000_000, quota));
        owe(&word, || 13_000_000, quota, u64::MAX).unwrap();
        assert!(!repair(&word, || 13_000_000, quota));
        assert!(!allowed(&word, 19_999_999, quota));
        assert!(allowed(&word, 20_000_000, quota));
    }

    #[test]
    fn late_debt_does_away_with_nothing_that_others_owe() {
        let quota = Quota::new(60, 6).unwrap();
        let word = Word::new(GcraWord::default());
        let stopped = std::cell::Cell::new(true);
        let clock = || {
            // It is stopped with an old reading, and others use five of six requests a minute later.
            if stopped.replace(false) {
                assert!((0..5).all(|_| allowed(&word, 70_000_000, quota)));
                return 10_000_000;
            }
            70_000_000
        };
        owe(&word, clock, quota, 1).unwrap();
        assert!(!allowed(&word, 70_999_999, quota));
        assert!(allowed(&word, 71_000_000, quota));
    }

    #[test]
    fn what_costs_more_than_the_burst_is_never_admitted() {
        let quota = Quota::new(60, 6).unwrap();
        let word = Word::new(GcraWord::default());
        let denied = Ok(Decision::Denied { retry_after_us: NEVER });
        assert_eq!(charge(&word, 0, quota, 7, &mut false), denied);
        assert_eq!(charge(&word, 0, quota, u64::MAX, &mut false), denied);
        assert_eq!(retry_after_us(GcraWord::default(), 0, quota, 7), NEVER);
    }

    proptest! {
        /// With costs and refunds: what is kept never exceeds burst plus earned.
        #[test]
        fn refunds_never_mint_credit(
            per_minute in 1_u32..10_000, burst in 1_u32..200,
            steps in prop::collection::vec((0_u64..3_000_000, 1_u64..20, any::<bool>()), 1..300),
        ) {
            let quota = Quota::new(per_minute, burst).unwrap();
            let word = Word::new(GcraWord::default());
            let (mut now, mut kept, mut open) = (5_000_000, Vec::new(), Vec::new());
            for (gap, cost, give_back) in steps {
                now += gap;
                if give_back && let Some(charge) = open.pop() {
                    if refund(&word, now, quota, charge) != Ok(true) {
                        kept.push((charge.at_us, charge.cost));
                    }
                    continue;
                }
                let decision = charge(&word, now, quota, cost, &mut false);
                if let Ok(Decision::Allowed { charge, .. }) = decision {
                    open.push(charge);
                }
            }
            kept.extend(open.into_iter().map(|charge| (charge.at_us, charge.cost)));
            kept.sort_unstable();
            for (i, &(from, _)) in kept.iter().enumerate() {
                let mut total = 0;
                for &(to, cost) in &kept[i..] {
                    total += cost;
                    let earned = (to - from) * u64::from(per_minute) / 60_000_000;
                    prop_assert!(total <= u64::from(burst) + earned + 1);
                }
            }
        }

        /// The guarantee: never more than `burst + rate * T` (plus the request at T itself).
        #[test]
        fn never_above_burst_plus_rate(
            per_minute in 1_u32..10_000,
            burst in 1_u32..200,
            gaps in prop::collection::vec(0_u64..3_000_000, 1..400),
        ) {
            let quota = Quota::new(per_minute, burst).unwrap();
            let word = Word::new(GcraWord::default());
            let mut now = 5_000_000;
            let mut admitted = Vec::new();
            for gap in gaps {
                now += gap;
                if allowed(&word, now, quota) {
                    admitted.push(now);
                }
            }
            for (i, &from) in admitted.iter().enumerate() {
                for (j, &to) in admitted.iter().enumerate().skip(i) {
                    let earned = (to - from) * u64::from(per_minute) / 60_000_000;
                    prop_assert!((j - i + 1) as u64 <= u64::from(burst) + earned + 1);
                }
            }
        }

        #[test]
        fn remaining_and_retry_tell_what_charge_does(
            tat in 0_u64..200_000_000, now in 1_u64..100_000_000, per_minute in 1_u32..6_000, burst in 1_u32..50,
        ) {
            let quota = Quota::new(per_minute, burst).unwrap();
            let state = GcraWord::new(tat, 0);
            let word = Word::new(state);
            let left = remaining(state, now, quota);
            let wait = retry_after_us(state, now, quota, 1);
            match charge(&word, now, quota, 1, &mut false).unwrap() {
                Decision::Allowed { spare_us, .. } => {
                    prop_assert_eq!(quota.requests_in(spare_us) + 1, left);
                    prop_assert_eq!(wait, 0);
                }
                Decision::Denied { retry_after_us } => {
                    prop_assert_eq!(left, 0);
                    prop_assert_eq!(wait, retry_after_us);
                }
            }
        }
    }
}
