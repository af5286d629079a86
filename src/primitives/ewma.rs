//! An exponentially weighted moving average in one word, in fixed point.
//!
//! The first samples are averaged like a mean; from the `length`-th on each has the weight `1 / length`.
//! So the average is right from the first sample on, and follows a change within a few `length` samples.
//!
//! A step is rounded away from zero to the next sixteenth of a microsecond. It therefore never sticks:
//! while samples differ from the average it moves, and it comes to rest exactly on a constant. Rounding
//! costs less than a sixteenth per sample, which adds up to at most `length / 16` microseconds.
//!
//! A sample is in the average exactly once, or its caller was told [`Contended`] and it is not in it at
//! all. The order of samples that race is undefined.
//!
//! **Damage.** An average that no sample explains moves to the samples like any other: half of it is gone
//! after `0.7 * length` samples. More samples than `length` are read as `length`.

use super::{Contended, MAX_TRIES, Shared};
use crate::layout::EwmaWord;
use crate::sync::Ordering;

/// Largest length.
pub const MAX_LENGTH: u64 = 128;
/// Parts of a microsecond that the value counts.
const PARTS: u64 = 16;
/// Largest sample in microseconds, 19 hours; larger ones are cut.
const MAX_US: u64 = ((1 << 40) - 1) / PARTS;
const SECONDS_MASK: u64 = (1 << 16) - 1;
/// By how much a reader's clock reading may be older than the writer's, seconds.
const SLACK_S: u64 = 64;

/// Adds a sample to the average over about `length` samples, 1 to [`MAX_LENGTH`].
///
/// Linearization point: the successful swap. Lock-free, at most [`MAX_TRIES`] rounds.
pub fn observe(
    word: impl Shared<Value = EwmaWord>,
    now_s: u64,
    sample_us: u64,
    length: u64,
) -> Result<(), Contended> {
    let sample = sample_us.min(MAX_US) * PARTS;
    // Relaxed throughout: the word publishes nothing but itself.
    let mut seen = word.load(Ordering::Relaxed);
    for _ in 0..MAX_TRIES {
        let samples = (seen.samples() + 1).min(length.clamp(1, MAX_LENGTH));
        let step = sample.abs_diff(seen.value()).div_ceil(samples);
        let value = if sample < seen.value() { seen.value() - step } else { seen.value() + step };
        let next = EwmaWord::new(value, samples, now_s);
        match word.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Ok(()),
            Err(now) => seen = now,
        }
    }
    Err(Contended)
}

/// The average in microseconds, rounded to the nearest; `None` = no sample yet. Reads only.
pub fn average_us(word: EwmaWord) -> Option<u64> {
    (word.samples() > 0).then(|| (word.value() + PARTS / 2) / PARTS)
}

/// Seconds since the latest sample; `None` = no sample yet. Reads only.
///
/// The word has 16 bits of the second: an age of 18 hours and more reads as less. A sample that seems to
/// come from the next minute is as old as 0, since its writer's clock reading may be the newer one.
pub fn age_s(word: EwmaWord, now_s: u64) -> Option<u64> {
    let age = now_s.wrapping_sub(word.last_s()) & SECONDS_MASK;
    (word.samples() > 0).then_some(if age > SECONDS_MASK - SLACK_S { 0 } else { age })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::Bits;
    use crate::sync::Word;
    use proptest::prelude::*;

    fn after(samples: &[u64], length: u64) -> EwmaWord {
        let word = Word::new(EwmaWord::default());
        for &sample in samples {
            observe(&word, 7, sample, length).expect("one thread");
        }
        word.load(Ordering::Relaxed)
    }

    #[test]
    fn the_first_samples_are_averaged_like_a_mean() {
        assert_eq!(average_us(EwmaWord::default()), None);
        assert_eq!(average_us(after(&[100], 8)), Some(100));
        assert_eq!(average_us(after(&[100, 200, 600], 8)), Some(300));
        assert_eq!(after(&[1, 2, 3, 4, 5], 3).samples(), 3);
        // The third and later have a third of the weight: 2, then 2 + 2 / 3.
        assert_eq!(average_us(after(&[1, 2, 3, 4], 3)), Some(3));
    }

    #[test]
    fn a_constant_is_reached_exactly_from_both_sides() {
        for start in [0, 5_000_000] {
            let mut samples = vec![start];
            samples.resize(4_000, 1_000);
            assert_eq!(after(&samples, MAX_LENGTH).value(), 1_000 * PARTS, "from {start}");
        }
    }

    #[test]
    fn extremes_saturate() {
        assert_eq!(average_us(after(&[u64::MAX; 3], 8)), Some(MAX_US));
        assert_eq!(average_us(after(&[0, 0], 8)), Some(0));
        assert_eq!(average_us(after(&[10, 20], 0)), Some(20));
        assert_eq!(after(&[10; 300], u64::MAX).samples(), MAX_LENGTH);
    }

    #[test]
    fn age_counts_from_the_latest_sample() {
        let word = Word::new(EwmaWord::default());
        assert_eq!(age_s(word.load(Ordering::Relaxed), 5), None);
        observe(&word, 70_000, 1, 8).unwrap();
        let word = word.load(Ordering::Relaxed);
        assert_eq!(age_s(word, 70_000), Some(0));
        assert_eq!(age_s(word, 70_090), Some(90));
        assert_eq!(age_s(word, 69_950), Some(0));
        assert_eq!(age_s(word, 70_000 + 65_000), Some(65_000));
    }

    proptest! {
        /// Never further from the exact average than the documented error.
        #[test]
        fn stays_close_to_the_exact_average(
            samples in prop::collection::vec(0_u32..10_000_000, 1..600),
            length in 1_u32..=128,
        ) {
            let word = Word::new(EwmaWord::default());
            let mut exact = 0.0;
            for (n, &sample) in (1_u32..).zip(&samples) {
                observe(&word, 0, u64::from(sample), u64::from(length)).unwrap();
                exact += (f64::from(sample) - exact) / f64::from(n.min(length));
                let parts = u32::try_from(word.load(Ordering::Relaxed).value()).unwrap();
                let error = (f64::from(parts) / 16.0 - exact).abs();
                prop_assert!(error <= f64::from(length) / 16.0, "{error} after {n}");
            }
        }

        /// Whatever stands there comes to the samples.
        #[test]
        fn any_word_comes_to_the_samples(bits: u64, sample in 0_u64..1_000_000) {
            let word = Word::new(EwmaWord::from_bits(bits));
            for _ in 0..4_500 {
                observe(&word, 0, sample, MAX_LENGTH).unwrap();
            }
            prop_assert_eq!(average_us(word.load(Ordering::Relaxed)), Some(sample));
        }
    }
}
