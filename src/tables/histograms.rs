//! Histograms of named series: how long something took, over all processes.
//!
//! Each power of two from 128 ns on is divided into four equal buckets:
//!
//! ```text
//! bucket 4 * i + j  holds  (4 + j) * 2^(i + 5)  up to  (5 + j) * 2^(i + 5)  exclusive,  i < 33, j < 4
//! ```
//!
//! Smaller values than 128 ns are counted in the first bucket, and the last one has no end. A value is
//! therefore known to within a quarter, from 128 ns to `7 * 2^37` ns (16 minutes).
//!
//! A series has eight histograms, and a process adds to the one of its row modulo eight, so that
//! processes seldom meet in a cache line. Everything is an addition that any process may make at any time;
//! readers add the eight up. A process that dies in between leaves a count without its part of the sum.
//! Counts do not heal from damage: they are for people, and no decision rests on them.

use crate::layout::{HISTOGRAM_BUCKETS, Histogram, Series};
use crate::sync::Ordering;

/// Histograms of one series.
pub const STRIPES: usize = 8;
/// The first bucket begins at two to this.
const FIRST_BIT: u32 = 7;
/// Buckets of one power of two, as bits.
const PART_BITS: u32 = 2;

/// All series and their histograms.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "live shared records have no stable value")]
pub struct Histograms<'a> {
    /// The series.
    pub series: &'a [Series],
    /// Theirs are the rows `8 * i .. 8 * i + 8`.
    pub rows: &'a [Histogram],
}

/// One series at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Values counted.
    pub count: u64,
    /// Their sum in nanoseconds, wrapping after 584 years.
    pub sum_ns: u64,
    /// The largest in nanoseconds.
    pub max_ns: u64,
    /// Operations that failed.
    pub errors: u64,
    /// Bytes that the operations were given, as far as it was told; wrapping.
    pub input_bytes: u64,
    /// Bytes that they gave; wrapping.
    pub output_bytes: u64,
    /// Values by bucket.
    pub counts: [u64; HISTOGRAM_BUCKETS],
}

/// The bucket that counts a value.
#[inline]
pub fn bucket_of(ns: u64) -> usize {
    let bit = ns.max(1).ilog2();
    if bit < FIRST_BIT {
        return 0;
    }
    let parts = ns >> (bit - PART_BITS) & ((1 << PART_BITS) - 1);
    let bucket = u64::from(bit - FIRST_BIT) << PART_BITS | parts;
    usize::try_from(bucket).unwrap_or(usize::MAX).min(HISTOGRAM_BUCKETS - 1)
}

/// The largest value that a bucket counts; `u64::MAX` for the last, which counts all above.
pub fn upper_ns(bucket: usize) -> u64 {
    if bucket >= HISTOGRAM_BUCKETS - 1 {
        return u64::MAX;
    }
    // One below the smallest value of the next bucket.
    let (power, part) = ((bucket + 1) >> PART_BITS, (bucket + 1) & ((1 << PART_BITS) - 1));
    (((1 << PART_BITS) + part as u64) << (FIRST_BIT - PART_BITS) << power) - 1
}

impl<'a> Histograms<'a> {
    fn stripes(&self, slot: usize) -> Option<&'a [Histogram]> {
        let first = slot.checked_mul(STRIPES)?;
        self.rows.get(first..first.checked_add(STRIPES)?)
    }

    /// Counts a value of a series. `stripe` is the caller's worker row. False = there is no such series.
    #[inline]
    pub fn record(&self, slot: usize, stripe: usize, ns: u64) -> bool {
        let Some(row) = self.stripes(slot).and_then(|rows| rows.get(stripe % STRIPES)) else {
            return false;
        };
        // Relaxed: the words publish nothing but themselves. The largest value is seldom exceeded.
        if row.max_ns.load(Ordering::Relaxed) < ns {
            row.max_ns.fetch_max(ns, Ordering::Relaxed);
        }
        row.sum_ns.fetch_add(ns, Ordering::Relaxed);
        row.counts[bucket_of(ns)].fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Counts a failed operation of a series. False = there is no such series.
    #[inline]
    pub fn fail(&self, slot: usize) -> bool {
        let Some(series) = self.series.get(slot) else {
            return false;
        };
        series.errors.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Adds to the bytes that a series has been given and has given. False = there is no such series.
    pub fn carry(&self, slot: usize, input_bytes: u64, output_bytes: u64) -> bool {
        let Some(series) = self.series.get(slot) else {
            return false;
        };
        for (total, bytes) in
            [(&series.input_bytes, input_bytes), (&series.output_bytes, output_bytes)]
        {
            // Most operations tell no size, and all processes would meet in this cache line.
            if bytes > 0 {
                total.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        true
    }

    /// The eight histograms of a series added up; `None` = there is no such series. Values that are being
    /// recorded meanwhile may be in some of its numbers and not in others.
    pub fn snapshot(&self, slot: usize) -> Option<Snapshot> {
        let series = self.series.get(slot)?;
        let mut all = Snapshot {
            errors: series.errors.load(Ordering::Relaxed),
            input_bytes: series.input_bytes.load(Ordering::Relaxed),
            output_bytes: series.output_bytes.load(Ordering::Relaxed),
            ..Snapshot::default()
        };
        for row in self.stripes(slot)? {
            all.sum_ns = all.sum_ns.wrapping_add(row.sum_ns.load(Ordering::Relaxed));
            all.max_ns = all.max_ns.max(row.max_ns.load(Ordering::Relaxed));
            for (total, count) in all.counts.iter_mut().zip(&row.counts) {
                *total = total.saturating_add(count.load(Ordering::Relaxed));
            }
        }
        all.count = all.counts.iter().fold(0, |sum: u64, &count| sum.saturating_add(count));
        Some(all)
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            count: 0,
            sum_ns: 0,
            max_ns: 0,
            errors: 0,
            input_bytes: 0,
            output_bytes: 0,
            counts: [0; HISTOGRAM_BUCKETS],
        }
    }
}

impl Snapshot {
    /// Average in nanoseconds; `None` = no values.
    pub fn mean_ns(&self) -> Option<u64> {
        self.sum_ns.checked_div(self.count)
    }

    /// A value that at least the part `q` (0 to 1) of all values does not exceed; `None` = no values.
    ///
    /// It is the upper end of the bucket that holds the smallest such value `v`, or the largest value
    /// recorded where that is less. So it is at least `v`, and at most `1.25 * v` from 128 ns to 16
    /// minutes; below that at most 159 ns, above it the largest value recorded.
    pub fn quantile_ns(&self, q: f64) -> Option<u64> {
        let rank = rank(q, self.count);
        let bucket = self.running().position(|sum| sum >= rank && sum > 0)?;
        // The largest value may lag behind the counts, but not below the bucket.
        let lowest = bucket.checked_sub(1).map_or(0, |below| upper_ns(below).saturating_add(1));
        Some(upper_ns(bucket).min(self.max_ns.max(lowest)))
    }

    fn running(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().scan(0_u64, |sum, &count| {
            *sum = sum.saturating_add(count);
            Some(*sum)
        })
    }

    /// The largest value of every `every`-th bucket with the number of values up to it, as exporters of
    /// cumulative histograms want it: 4 gives powers of two, 1 everything. The last is `u64::MAX` with all
    /// values.
    pub fn cumulative(&self, every: usize) -> impl Iterator<Item = (u64, u64)> {
        let every = every.clamp(1, HISTOGRAM_BUCKETS);
        self.running().enumerate().filter_map(move |(bucket, sum)| {
            let wanted = (bucket + 1) % every == 0 || bucket + 1 == HISTOGRAM_BUCKETS;
            wanted.then(|| (upper_ns(bucket), sum))
        })
    }
}

/// How many values the part `q` of all is, at least 1.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "exact up to 2^53 values, and clamped to all of them"
)]
fn rank(q: f64, count: u64) -> u64 {
    let part = if q.is_nan() { 1.0 } else { q.clamp(0.0, 1.0) };
    ((part * count as f64).ceil() as u64).clamp(1, count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{IdentityWord, NameWord};
    use crate::sync::Word;
    use proptest::prelude::*;

    struct Rows {
        series: Vec<Series>,
        rows: Vec<Histogram>,
    }

    impl Rows {
        fn new(series: usize) -> Self {
            let one = || Series {
                identity: Word::new(IdentityWord::default()),
                errors: Word::new(0),
                name_head: Word::new(NameWord::default()),
                name: std::array::from_fn(|_| Word::new(0)),
                input_bytes: Word::new(0),
                output_bytes: Word::new(0),
            };
            let row = || Histogram {
                sum_ns: Word::new(0),
                max_ns: Word::new(0),
                reserved: std::array::from_fn(|_| Word::new(0)),
                counts: std::array::from_fn(|_| Word::new(0)),
            };
            Self {
                series: std::iter::repeat_with(one).take(series).collect(),
                rows: std::iter::repeat_with(row).take(series * STRIPES).collect(),
            }
        }
        fn all(&self) -> Histograms<'_> {
            Histograms { series: &self.series, rows: &self.rows }
        }
    }

    fn snapshot_of(values: &[u64]) -> Snapshot {
        let rows = Rows::new(1);
        for (stripe, &value) in values.iter().enumerate() {
            assert!(rows.all().record(0, stripe, value));
        }
        rows.all().snapshot(0).unwrap()
    }

    #[test]
    fn buckets_are_those_of_the_specification() {
        let begin = |i: u64, j: u64| (4 + j) << (i + 5);
        for i in 0..33 {
            for j in 0..4 {
                let bucket = usize::try_from(4 * i + j).unwrap();
                let end = if j == 3 { begin(i + 1, 0) } else { begin(i, j + 1) };
                assert_eq!(bucket_of(begin(i, j)), bucket);
                assert_eq!(bucket_of(end - 1), bucket);
                let upper = if bucket == 131 { u64::MAX } else { end - 1 };
                assert_eq!(upper_ns(bucket), upper);
            }
        }
        assert_eq!([0, 1, 127, 128, 159, 160].map(bucket_of), [0, 0, 0, 0, 0, 1]);
        assert_eq!([1 << 40, u64::MAX].map(bucket_of), [131, 131]);
        assert_eq!(upper_ns(usize::MAX), u64::MAX);
    }

    #[test]
    fn the_stripes_are_added_up_and_series_kept_apart() {
        let rows = Rows::new(3);
        for stripe in 0..20 {
            assert!(rows.all().record(1, stripe, 1_000));
        }
        assert!(rows.all().fail(1) && rows.all().fail(1));
        assert!(rows.all().carry(1, 300, 0) && rows.all().carry(1, 5, u64::MAX));
        assert!(rows.all().carry(1, 0, 3));
        assert!(rows.all().record(2, 999, 7));
        let seen = rows.all().snapshot(1).unwrap();
        assert_eq!((seen.input_bytes, seen.output_bytes), (305, 2));
        assert_eq!((seen.count, seen.sum_ns, seen.max_ns, seen.errors), (20, 20_000, 1_000, 2));
        assert_eq!(seen.counts[bucket_of(1_000)], 20);
        let used = rows.rows[8..16].iter().filter(|row| row.sum_ns.load(Ordering::Relaxed) > 0);
        assert_eq!(used.count(), STRIPES);
        assert_eq!(rows.all().snapshot(2).unwrap().count, 1);
        assert_eq!(rows.all().snapshot(0).unwrap(), Snapshot::default());
    }

    #[test]
    fn a_series_that_does_not_exist_is_refused() {
        let rows = Rows::new(2);
        for slot in [2, usize::MAX / 8, usize::MAX] {
            assert!(!rows.all().record(slot, 0, 1) && !rows.all().fail(slot), "{slot}");
            assert!(!rows.all().carry(slot, 1, 1), "{slot}");
            assert_eq!(rows.all().snapshot(slot), None);
        }
    }

    #[test]
    fn nothing_has_neither_mean_nor_quantile() {
        let none = Snapshot::default();
        assert_eq!((none.mean_ns(), none.quantile_ns(0.5)), (None, None));
        assert!(none.cumulative(4).all(|(_, sum)| sum == 0));
    }

    #[test]
    fn quantiles_of_known_values() {
        let seen = snapshot_of(&[100, 1_000, 10_000, 100_000]);
        assert_eq!(seen.mean_ns(), Some(27_775));
        assert_eq!(seen.quantile_ns(0.0), Some(159));
        assert_eq!(seen.quantile_ns(0.5), Some(1_023));
        assert_eq!(seen.quantile_ns(0.51), Some(10_239));
        assert_eq!(seen.quantile_ns(1.0), Some(100_000), "no more than the largest");
        assert_eq!(seen.quantile_ns(f64::NAN), Some(100_000));
        assert_eq!(snapshot_of(&[1 << 50]).quantile_ns(0.5), Some(1 << 50));
        let lagging = Snapshot { max_ns: 0, ..seen };
        assert_eq!(lagging.quantile_ns(0.5), Some(896), "the bucket's lower end");
    }

    #[test]
    fn cumulative_counts_end_with_everything() {
        let seen = snapshot_of(&[100, 200, 300, u64::MAX]);
        let powers: Vec<_> = seen.cumulative(4).collect();
        assert_eq!(powers.len(), 33);
        assert_eq!(powers[..3], [(255, 2), (511, 3), (1_023, 3)]);
        assert_eq!(powers[32], (u64::MAX, 4));
        assert_eq!(seen.cumulative(1).count(), HISTOGRAM_BUCKETS);
        assert_eq!(seen.cumulative(0).count(), HISTOGRAM_BUCKETS);
        assert_eq!(seen.cumulative(5).last(), Some((u64::MAX, 4)));
        assert_eq!(seen.cumulative(usize::MAX).collect::<Vec<_>>(), [(u64::MAX, 4)]);
    }

    #[test]
    fn damaged_counts_are_read_without_panic() {
        let rows = Rows::new(1);
        for row in &rows.rows {
            row.sum_ns.store(u64::MAX, Ordering::Relaxed);
            row.counts.iter().for_each(|count| count.store(u64::MAX, Ordering::Relaxed));
        }
        assert!(rows.all().record(0, 0, u64::MAX));
        let seen = rows.all().snapshot(0).unwrap();
        assert_eq!(seen.count, u64::MAX);
        assert!(seen.quantile_ns(0.9).is_some() && seen.mean_ns().is_some());
        assert_eq!(seen.cumulative(4).last(), Some((u64::MAX, u64::MAX)));
    }

    fn value() -> impl Strategy<Value = u64> {
        (0_u32..43, any::<u64>()).prop_map(|(bit, low)| (1 << bit) | (low & ((1 << bit) - 1)))
    }

    proptest! {
        #[test]
        fn every_value_lies_in_its_bucket(ns in value()) {
            let bucket = bucket_of(ns);
            prop_assert!(ns <= upper_ns(bucket));
            prop_assert!(bucket == 0 || ns > upper_ns(bucket - 1));
        }

        /// Against the sorted list, with the documented error.
        #[test]
        fn quantiles_are_within_a_quarter(
            mut values in prop::collection::vec(value(), 1..200), q in 0.0_f64..=1.0,
        ) {
            let seen = snapshot_of(&values);
            values.sort_unstable();
            let rank = usize::try_from(rank(q, values.len() as u64)).unwrap();
            let exact = values[rank - 1];
            let answer = seen.quantile_ns(q).unwrap();
            prop_assert!(answer >= exact && answer <= values[values.len() - 1].max(159));
            match exact {
                ..128 => prop_assert!(answer <= 159),
                128..0xe0_0000_0000 => prop_assert!(answer <= exact + exact / 4),
                _ => prop_assert_eq!(answer, values[values.len() - 1]),
            }
            let sum = values.iter().fold(0_u64, |sum, value| sum.wrapping_add(*value));
            prop_assert_eq!((seen.count, seen.sum_ns), (values.len() as u64, sum));
            prop_assert_eq!(seen.max_ns, values[values.len() - 1]);
        }

        #[test]
        fn cumulative_counts_agree_with_the_values(
            values in prop::collection::vec(value(), 0..100), every in 1_usize..140,
        ) {
            let seen = snapshot_of(&values);
            for (upper, sum) in seen.cumulative(every) {
                let expect = values.iter().filter(|&&value| value <= upper).count();
                prop_assert_eq!(sum, expect as u64);
            }
        }
    }
}
