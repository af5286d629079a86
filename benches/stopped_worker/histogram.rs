//! Durations counted in shared words: 32 steps to each doubling, so a percentile is at most 3% off.

use fast_litellm::sync::{Ordering, Word};

const STEPS: u64 = 32;
/// Words of one histogram: durations up to 2^40 ns.
pub(crate) const WORDS: usize = 36 * 32;

/// One process's durations.
#[derive(Clone, Copy)]
pub(crate) struct Histogram {
    words: &'static [Word<u64>],
}

impl Histogram {
    /// Over [`WORDS`] words.
    pub(crate) fn new(words: &'static [Word<u64>]) -> Self {
        Self { words }
    }

    /// Counts one duration in nanoseconds.
    pub(crate) fn add(self, ns: u64) {
        let place = usize::try_from(place(ns)).unwrap_or(usize::MAX);
        self.words[place.min(WORDS - 1)].fetch_add(1, Ordering::Relaxed);
    }
}

fn place(ns: u64) -> u64 {
    if ns < STEPS {
        return ns;
    }
    let doublings = u64::from(ns.ilog2()) - 5;
    doublings * STEPS + (ns >> doublings)
}

/// The shortest duration counted in a place.
fn start(place: u64) -> u64 {
    if place < 2 * STEPS {
        return place;
    }
    let doublings = place / STEPS - 1;
    (place % STEPS + STEPS) << doublings
}

/// All durations of several histograms.
pub(crate) struct Durations {
    counts: Vec<u64>,
}

impl Durations {
    /// Adds them up.
    pub(crate) fn of(histograms: &[Histogram]) -> Self {
        let sum = |place: usize| {
            histograms.iter().map(|one| one.words[place].load(Ordering::Relaxed)).sum()
        };
        Self { counts: (0..WORDS).map(sum).collect() }
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The duration that this share is not above, nanoseconds.
    pub(crate) fn percentile(&self, share: f64) -> u64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to count")]
        #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52 durations")]
        let wanted = ((self.count() as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (place, count) in (0..).zip(&self.counts) {
            seen += count;
            if seen >= wanted {
                return start(place);
            }
        }
        0
    }

    /// Nanoseconds spent in all durations from `ns` on.
    pub(crate) fn spent_from(&self, ns: u64) -> u64 {
        let counted = (0..).zip(&self.counts).map(|(place, count)| (start(place), count));
        counted.filter(|&(start, _)| start >= ns).map(|(start, count)| start * count).sum()
    }
}
