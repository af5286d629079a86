//! The latest sixteen samples: a head that counts them, and a word for each.
//!
//! A writer takes a number from the head and stores its sample at that number modulo 16. Readers take
//! what they find: every word is a whole sample with its own second, so there is nothing to be torn. A
//! process that dies between the two leaves the sample of sixteen numbers ago in its place, and one that
//! is stopped there may put an old sample over a newer one. Both are told by their age only.
//!
//! **Damage.** Any head leads to some slot, and any word is some sample. Sixteen samples later both are
//! gone.

use crate::layout::{SAMPLES, SampleWord};
use crate::sync::{Ordering, Word};

/// Largest sample in microseconds, 12 days; larger ones are cut.
const MAX_US: u64 = (1 << 40) - 1;
const SECONDS_MASK: u64 = (1 << 24) - 1;
/// By how much a reader's clock reading may be older than the writer's, seconds.
const SLACK_S: u64 = 64;

/// A sample as read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Microseconds, at least 1.
    pub value_us: u64,
    /// How long ago, seconds. The word has 24 bits of the second: 194 days and more read as less.
    pub age_s: u64,
}

/// The slot of a number.
fn slot(number: u64) -> usize {
    usize::try_from(number % SAMPLES as u64).unwrap_or(0)
}

/// Adds a sample of 1 to 2^40 - 1 microseconds, in place of the oldest.
///
/// Linearization point: the store. Wait-free.
pub fn push(head: &Word<u64>, slots: &[Word<SampleWord>; SAMPLES], now_s: u64, value_us: u64) {
    // Relaxed throughout: a sample publishes nothing but itself.
    let number = head.fetch_add(1, Ordering::Relaxed);
    let sample = SampleWord::new(value_us.clamp(1, MAX_US), now_s);
    slots[slot(number)].store(sample, Ordering::Relaxed);
}

/// Up to `n` samples that are at most `max_age_s` old, newest first. Reads only.
pub fn recent<'a>(
    head: &Word<u64>,
    slots: &'a [Word<SampleWord>; SAMPLES],
    now_s: u64,
    max_age_s: u64,
    n: usize,
) -> impl Iterator<Item = Sample> + use<'a> {
    let head = head.load(Ordering::Relaxed);
    (1..=SAMPLES as u64)
        .map(move |back| slots[slot(head.wrapping_sub(back))].load(Ordering::Relaxed))
        .filter(|word| word.value_us() > 0)
        .map(move |word| Sample { value_us: word.value_us(), age_s: age_s(word, now_s) })
        .filter(move |sample| sample.age_s <= max_age_s)
        .take(n)
}

fn age_s(word: SampleWord, now_s: u64) -> u64 {
    let age = now_s.wrapping_sub(word.at_s()) & SECONDS_MASK;
    if age > SECONDS_MASK - SLACK_S { 0 } else { age }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::Bits;
    use proptest::prelude::*;

    struct Ring {
        head: Word<u64>,
        slots: [Word<SampleWord>; SAMPLES],
    }

    impl Ring {
        fn new(head: u64) -> Self {
            let slots = std::array::from_fn(|_| Word::new(SampleWord::default()));
            Self { head: Word::new(head), slots }
        }
        fn push(&self, now_s: u64, value_us: u64) {
            push(&self.head, &self.slots, now_s, value_us);
        }
        fn values(&self, now_s: u64, max_age_s: u64, n: usize) -> Vec<u64> {
            recent(&self.head, &self.slots, now_s, max_age_s, n).map(|s| s.value_us).collect()
        }
    }

    #[test]
    fn newest_first_and_no_older_than_asked() {
        let ring = Ring::new(0);
        assert!(ring.values(0, u64::MAX, 16).is_empty());
        for second in 100..105 {
            ring.push(second, second);
        }
        assert_eq!(ring.values(104, 1_000, 16), [104, 103, 102, 101, 100]);
        assert_eq!(ring.values(104, 2, 16), [104, 103, 102]);
        assert_eq!(ring.values(104, 1_000, 2), [104, 103]);
        assert_eq!(ring.values(99, 0, 1), [104], "the writer's clock reading is the newer one");
    }

    #[test]
    fn values_are_cut_to_what_a_word_holds() {
        let ring = Ring::new(0);
        ring.push(1, 0);
        ring.push(1, u64::MAX);
        assert_eq!(ring.values(1, 0, 16), [MAX_US, 1]);
    }

    /// A writer that died between head and slot costs its own sample only.
    #[test]
    fn a_number_without_a_sample_is_passed_over() {
        let ring = Ring::new(0);
        ring.push(1, 11);
        ring.head.fetch_add(1, Ordering::Relaxed);
        ring.push(2, 22);
        assert_eq!(ring.values(2, 9, 16), [22, 11]);
    }

    proptest! {
        /// Against the obvious model, with any head, its overflow included.
        #[test]
        fn agrees_with_a_plain_list(
            head in prop_oneof![0..u64::MAX, u64::MAX - 40..=u64::MAX],
            samples in prop::collection::vec((0_u64..30, 1_u64..1_000), 0..60),
            max_age in 0_u64..200,
            n in 0_usize..20,
        ) {
            let ring = Ring::new(head);
            let mut now = 1;
            let mut list = Vec::new();
            for (gap, value) in samples {
                now += gap;
                ring.push(now, value);
                list.insert(0, (now, value));
            }
            list.truncate(SAMPLES);
            let expect: Vec<u64> = list
                .into_iter()
                .filter(|(at, _)| now - at <= max_age)
                .map(|(_, value)| value)
                .take(n)
                .collect();
            prop_assert_eq!(ring.values(now, max_age, n), expect);
        }

        #[test]
        fn any_words_are_read(head: u64, bits: [u64; SAMPLES], now: u64, max_age: u64, n: usize) {
            let slots = bits.map(|bits| Word::new(SampleWord::from_bits(bits)));
            let seen = recent(&Word::new(head), &slots, now, max_age, n).count();
            prop_assert!(seen <= SAMPLES.min(n));
        }
    }
}
