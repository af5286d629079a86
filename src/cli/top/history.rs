//! What happened over the last minutes, for plots.

use std::collections::VecDeque;

/// How far back it goes, milliseconds.
const SPAN_MS: u64 = 15 * 60 * 1_000;
/// Most looks that are remembered, should they follow each other without a pause.
const LOOKS: usize = 20_000;
/// A plot shows at least so much, seconds.
const SHOWN_S: u64 = 180;
/// What one column of a plot may stand for, seconds.
const STEPS_S: [u64; 7] = [1, 2, 5, 10, 15, 30, 60];

/// What happened between two looks, per second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Time of the second look, Unix milliseconds.
    pub(super) at_ms: u64,
    /// Seconds between them.
    pub(super) since_s: f64,
    /// Admissions and refusals.
    pub(super) per_s: [f64; 2],
}

/// The samples of the last minutes.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
}

/// Averages by time, the latest last; `None` = nobody looked.
#[derive(Debug, PartialEq)]
pub(super) struct Columns {
    /// What one of them stands for, seconds.
    pub(super) step_s: u64,
    /// Admissions and refusals per second.
    pub(super) per_s: Vec<Option<[f64; 2]>>,
}

impl History {
    /// Adds the latest; one that is older than what is there begins anew.
    pub(super) fn add(&mut self, sample: Sample) {
        if self.samples.back().is_some_and(|latest| latest.at_ms > sample.at_ms) {
            self.samples.clear();
        }
        let oldest_ms = sample.at_ms.saturating_sub(SPAN_MS);
        self.samples.push_back(sample);
        while self.samples.len() > LOOKS
            || self.samples.front().is_some_and(|first| first.at_ms < oldest_ms)
        {
            self.samples.pop_front();
        }
    }

    /// As many columns as there is room for. They stand for whole steps of the clock, so that they move to the left
    /// and do not change on the way.
    pub(super) fn columns(&self, width: u16) -> Columns {
        let count = u64::from(width.max(1));
        let fits = |step: &&u64| **step * count >= SHOWN_S;
        let step_s = STEPS_S.iter().find(fits).or(STEPS_S.last()).copied().unwrap_or(1);
        let step_ms = step_s * 1_000;
        let latest = self.samples.back().map_or(0, |sample| sample.at_ms);
        // Columns are numbered by the step of the clock that they stand for; the latest sample's is the last.
        let last = latest.saturating_sub(1) / step_ms;
        let first = (last + 1).saturating_sub(count);
        let mut sums = vec![(0.0_f64, [0.0_f64; 2]); usize::from(width)];
        for sample in &self.samples {
            let since_ms = ms(sample.since_s);
            let from_ms = sample.at_ms.saturating_sub(since_ms).max(first * step_ms);
            let mut at_ms = from_ms;
            while at_ms < sample.at_ms {
                let step = at_ms / step_ms;
                let until_ms = (step + 1).saturating_mul(step_ms).min(sample.at_ms);
                let weight = seconds(until_ms - at_ms);
                let column = usize::try_from(step - first).unwrap_or(usize::MAX);
                if let Some((covered, sum)) = sums.get_mut(column) {
                    *covered += weight;
                    for (sum, per_s) in sum.iter_mut().zip(sample.per_s) {
                        *sum += per_s * weight;
                    }
                }
                at_ms = until_ms;
            }
        }
        let average = |(covered, sum): (f64, [f64; 2])| {
            (covered > 0.0).then(|| sum.map(|sum: f64| sum / covered))
        };
        let mut per_s: Vec<_> = sums.into_iter().map(average).collect();
        // Before the first steps of the clock there is nothing.
        let missing = usize::try_from(count.saturating_sub(last - first + 1)).unwrap_or(0);
        per_s.rotate_right(missing.min(usize::from(width)));
        Columns { step_s, per_s }
    }
}

fn ms(seconds: f64) -> u64 {
    std::time::Duration::try_from_secs_f64(seconds)
        .map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, since_s: f64, admitted: f64) -> Sample {
        Sample { at_ms, since_s, per_s: [admitted, admitted / 10.0] }
    }

    fn admitted(history: &History, width: u16) -> Vec<Option<f64>> {
        let columns = history.columns(width).per_s;
        columns.into_iter().map(|column| column.map(|[admitted, _]| admitted)).collect()
    }

    #[test]
    fn a_column_is_the_average_over_its_time() {
        let mut history = History::default();
        assert_eq!(history.columns(3).per_s, [None; 3]);
        // 90 columns show 2 seconds each.
        history.add(sample(1_000_000, 1.0, 8.0));
        history.add(sample(1_001_000, 1.0, 4.0));
        history.add(sample(1_002_000, 1.0, 6.0));
        let columns = history.columns(90);
        assert_eq!((columns.step_s, columns.per_s.len()), (2, 90));
        assert_eq!(columns.per_s[88..], [Some([8.0, 0.8]), Some([5.0, 0.5])]);
        assert_eq!(columns.per_s[87], None);
        // A look that took long is spread over its time.
        history.add(sample(1_007_000, 5.0, 2.0));
        assert_eq!(admitted(&history, 90)[86..], [Some(5.0), Some(2.0), Some(2.0), Some(2.0)]);
    }

    #[test]
    fn a_plot_shows_three_minutes_if_it_can() {
        let history = History::default();
        let steps = [400, 180, 90, 60, 36, 20, 10, 1].map(|width| history.columns(width).step_s);
        assert_eq!(steps, [1, 1, 2, 5, 5, 10, 30, 60]);
    }

    #[test]
    fn what_is_old_or_absurd_is_left_out() {
        let mut history = History::default();
        history.add(sample(1_000, 1.0, 1.0));
        history.add(sample(1_000_000_000, 1e300, 1.0));
        assert_eq!(history.samples.len(), 1);
        assert_eq!(admitted(&history, 0), []);
        history.add(sample(u64::MAX, f64::INFINITY, 1.0));
        history.add(sample(u64::MAX, 1e9, 3.0));
        assert_eq!(admitted(&history, 5), [Some(3.0); 5]);
        history.add(sample(500, 1.0, 2.0));
        assert_eq!(history.samples.len(), 1);
        assert_eq!(admitted(&history, 4)[3..], [Some(2.0)]);
        for _ in 0..LOOKS + 5 {
            history.add(sample(600, 0.0, 1.0));
        }
        assert_eq!(history.samples.len(), LOOKS);
    }
}
