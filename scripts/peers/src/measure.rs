//! Contenders in turns: every round runs each of them once, and medians are taken over the rounds, so that
//! what else the machine does meets all of them alike.

use crate::Failure;
use crate::ticks::{ns_per_tick, ticks};
use serde::Serialize;

/// Operations timed as one sample.
pub(crate) const BATCH: u64 = 64;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Turns of each contender; odd, so that a median is a measured value.
    pub(crate) rounds: usize,
    /// Samples of [`BATCH`] operations in one turn.
    pub(crate) batches: usize,
    /// Operations timed one by one in one turn.
    pub(crate) singles: usize,
    /// Operations before the clock starts.
    pub(crate) warm: u64,
}

impl Plan {
    pub(crate) fn hot(rounds: usize) -> Self {
        Self { rounds, batches: 1_000, singles: 4_000, warm: 2_000 }
    }

    fn operations(&self) -> u64 {
        self.warm + self.batches as u64 * BATCH + self.singles as u64
    }
}

/// What a contender has to answer, or else something other than what its name says was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Every operation is admitted.
    Admitted,
    /// Every operation is refused, but for the few that a rate of one per minute admits.
    Refused,
}

/// One contender.
pub(crate) struct Case<'a> {
    pub(crate) name: String,
    /// Which of ours it is compared with; `None` = it is ours.
    pub(crate) against: Option<String>,
    expect: Expect,
    batch: Box<dyn FnMut(u64) -> u64 + 'a>,
}

impl<'a> Case<'a> {
    /// `operation` returns 1 when it was admitted and 0 when it was refused.
    pub(crate) fn new(
        name: impl Into<String>,
        expect: Expect,
        mut operation: impl FnMut() -> u64 + 'a,
    ) -> Self {
        let batch = move |operations| (0..operations).map(|_| operation()).sum();
        Self { name: name.into(), against: None, expect, batch: Box::new(batch) }
    }

    pub(crate) fn against(mut self, ours: impl Into<String>) -> Self {
        self.against = Some(ours.into());
        self
    }

    fn check(&self, admitted: u64, operations: u64) -> Result<(), Failure> {
        let right = match self.expect {
            Expect::Admitted => admitted == operations,
            Expect::Refused => admitted <= 1 + operations / 1_000,
        };
        if right {
            return Ok(());
        }
        let (name, expect) = (&self.name, self.expect);
        Err(format!(
            "{name}: {admitted} of {operations} operations were admitted, but all should be \
             {expect:?}; the figures would be of something else"
        )
        .into())
    }
}

/// Runs operations where callgrind looks for them.
#[inline(never)]
pub(crate) fn counted_operations(case: &mut Case<'_>, operations: u64) -> u64 {
    (case.batch)(operations)
}

/// Nanoseconds per operation, the loop's and the timer's cost subtracted.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figures {
    /// Median over the rounds of a round's median.
    pub(crate) p50: f64,
    /// Median over the rounds of a round's 99th percentile.
    pub(crate) p99: f64,
    /// Lowest and highest median of a round.
    pub(crate) range: (f64, f64),
    /// Single operations of all rounds together. Higher than the batches, as nothing overlaps.
    pub(crate) single: Single,
}

/// Operations timed one by one.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Single {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
    /// Upper bound in nanoseconds and number of operations, for every bound that has any.
    pub(crate) histogram: Vec<(u64, u64)>,
}

/// Ticks of one turn, sorted.
struct Turn {
    batches: Vec<u64>,
    singles: Vec<u64>,
}

fn turn(case: &mut Case<'_>, plan: &Plan) -> Result<Turn, Failure> {
    let mut batches = Vec::with_capacity(plan.batches);
    let mut singles = Vec::with_capacity(plan.singles);
    let mut admitted = (case.batch)(plan.warm);
    let mut sample = |operations, samples: &mut Vec<u64>| {
        let begun = ticks();
        admitted += (case.batch)(operations);
        samples.push(ticks() - begun);
    };
    (0..plan.batches).for_each(|_| sample(BATCH, &mut batches));
    (0..plan.singles).for_each(|_| sample(1, &mut singles));
    case.check(admitted, plan.operations())?;
    batches.sort_unstable();
    singles.sort_unstable();
    Ok(Turn { batches, singles })
}

/// Measures all in turns. `empty` does nothing but what the measurement itself does around an operation;
/// its median is subtracted.
pub(crate) fn measure(
    empty: Case<'_>,
    cases: Vec<Case<'_>>,
    plan: &Plan,
) -> Result<Vec<(Case<'static>, Figures)>, Failure> {
    let ns = ns_per_tick();
    let mut all: Vec<Case<'_>> = std::iter::once(empty).chain(cases).collect();
    let mut turns: Vec<Vec<Turn>> = all.iter().map(|_| Vec::new()).collect();
    for round in 0..plan.rounds {
        let mut order: Vec<usize> = (0..all.len()).collect();
        // Every other round backwards, so that nobody always follows the same neighbour.
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            turns[index].push(turn(&mut all[index], plan)?);
        }
    }
    let (empty, rest) = turns.split_first().ok_or("nothing to measure")?;
    let measured = all.into_iter().skip(1).zip(rest);
    Ok(measured
        .map(|(case, turns)| (case.without_operation(), figures(turns, empty, ns)))
        .collect())
}

impl Case<'_> {
    /// Its name and its counterpart, free of what it borrowed.
    fn without_operation(self) -> Case<'static> {
        let Self { name, against, expect, .. } = self;
        Case { name, against, expect, batch: Box::new(|_| 0) }
    }
}

#[allow(clippy::cast_precision_loss, reason = "ticks of a batch are far below 2^52")]
fn figures(turns: &[Turn], empty: &[Turn], ns_per_tick: f64) -> Figures {
    let per_operation = |quantile: f64| -> Vec<f64> {
        let of = |(turn, empty): (&Turn, &Turn)| {
            let cost = percentile(&empty.batches, 0.5) as f64;
            (percentile(&turn.batches, quantile) as f64 - cost) * ns_per_tick / BATCH as f64
        };
        sorted(turns.iter().zip(empty).map(of).collect())
    };
    let medians = per_operation(0.5);
    let range = (*medians.first().unwrap_or(&f64::NAN), *medians.last().unwrap_or(&f64::NAN));
    Figures {
        p50: median(&medians),
        p99: median(&per_operation(0.99)),
        range,
        single: single(turns, empty, ns_per_tick),
    }
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "nanoseconds of one operation, never negative once clamped"
)]
fn single(turns: &[Turn], empty: &[Turn], ns_per_tick: f64) -> Single {
    let costs: Vec<f64> =
        sorted(empty.iter().map(|turn| percentile(&turn.singles, 0.5) as f64).collect());
    let cost = median(&costs);
    let ns = |ticks: u64| (ticks as f64 - cost).max(0.0) * ns_per_tick;
    let mut all: Vec<u64> = turns.iter().flat_map(|turn| turn.singles.iter().copied()).collect();
    all.sort_unstable();
    let mut histogram: Vec<(u64, u64)> = Vec::new();
    for &ticks in &all {
        let bound = upper_bound(ns(ticks) as u64);
        match histogram.last_mut() {
            Some((last, count)) if *last == bound => *count += 1,
            _ => histogram.push((bound, 1)),
        }
    }
    Single {
        p50: ns(percentile(&all, 0.5)),
        p99: ns(percentile(&all, 0.99)),
        p999: ns(percentile(&all, 0.999)),
        max: ns(percentile(&all, 1.0)),
        histogram,
    }
}

/// The end of the histogram's interval that holds `ns`: four intervals to each doubling.
fn upper_bound(ns: u64) -> u64 {
    let step = (ns.max(1).ilog2().saturating_sub(2)).min(61);
    ((ns >> step) + 1) << step
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// The middle of sorted values.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value that a part `quantile` of the sorted values does not exceed.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a position in a short list"
)]
fn percentile(sorted: &[u64], quantile: f64) -> u64 {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measured_values() {
        let values: Vec<u64> = (1..=100).collect();
        let of = |quantile| percentile(&values, quantile);
        assert_eq!((of(0.0), of(0.5), of(0.99), of(1.0)), (1, 50, 99, 100));
        assert_eq!(percentile(&[], 0.5), 0);
    }

    #[test]
    fn intervals_hold_their_values_and_are_narrow() {
        for ns in (0..5_000).chain([u64::from(u32::MAX)]) {
            let bound = upper_bound(ns);
            assert!(bound > ns && bound - ns <= 1 + ns / 4, "{ns} {bound}");
        }
    }

    #[test]
    fn a_contender_that_answers_otherwise_is_an_error() {
        let plan = Plan { rounds: 1, batches: 1, singles: 1, warm: 1 };
        let run = |expect, answer| {
            let empty = Case::new("loop", Expect::Admitted, || 1);
            measure(empty, vec![Case::new("peer", expect, move || answer)], &plan).is_ok()
        };
        assert!(run(Expect::Admitted, 1) && run(Expect::Refused, 0));
        assert!(!run(Expect::Admitted, 0) && !run(Expect::Refused, 1));
        assert!(!run(Expect::Refused, crate::ours::FAILED));
    }
}
