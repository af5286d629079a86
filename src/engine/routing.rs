//! Choosing a deployment, by what all workers know of each.
//!
//! Candidates are offered one after the other and none is kept: of those that were best so far, each has had the
//! same chance to be chosen (or one in proportion to its weight). So a choice takes no memory, and asks for a
//! number only where it matters.

use super::health::Found;
use super::random::Draws;
use super::{Engine, is_due};
use crate::clock::Instant;

/// How often one process looks for dead workers whose requests count as in flight, microseconds.
const REAP_INTERVAL_US: u64 = 1_000_000;
/// For how long a deployment that has only failed comes after all others, seconds; then it is tried again.
const AVOIDED_S: u64 = 60;
/// Keeps sums of weights finite: 2^-64.
const SCALE: f64 = 1.0 / (65_536.0 * 65_536.0 * 65_536.0 * 65_536.0);

/// How to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// At random: in proportion to `weight`, where nobody has one to `rpm`, else to `tpm`, else all alike.
    SimpleShuffle,
    /// Fewest requests in flight.
    LeastBusy,
    /// Lowest average latency. Who was never tried, or not within the hour, comes first.
    LatencyBased,
    /// Lowest price.
    CostBased,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::SimpleShuffle, Self::LeastBusy, Self::LatencyBased, Self::CostBased];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::SimpleShuffle => "simple_shuffle",
            Self::LeastBusy => "least_busy",
            Self::LatencyBased => "latency_based",
            Self::CostBased => "cost_based",
        }
    }

    /// Reads a name, or LiteLLM's name for it.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "simple-shuffle" => Some(Self::SimpleShuffle),
            "least-busy" => Some(Self::LeastBusy),
            "latency-based-routing" => Some(Self::LatencyBased),
            "cost-based-routing" => Some(Self::CostBased),
            _ => Self::ALL.into_iter().find(|strategy| strategy.name() == text),
        }
    }
}

/// What a candidate may be asked for. None is below zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Its weight; 0 = it has none.
    Weight,
    /// Requests a minute it is meant for; 0 = not said.
    Rpm,
    /// Tokens a minute it is meant for; 0 = not said.
    Tpm,
    /// What a token costs, in and out.
    Cost,
}

/// What a shuffle goes by, the first that anybody has.
const SHUFFLED_BY: [Metric; 3] = [Metric::Weight, Metric::Rpm, Metric::Tpm];

/// A choice that is being made.
pub struct Selection<'e> {
    engine: &'e Engine,
    strategy: Strategy,
    now: Instant,
    draws: Draws,
    chosen: Option<usize>,
    /// Of a shuffle: number in [`SHUFFLED_BY`] of what it goes by; their count = all alike.
    by: usize,
    /// Of a shuffle: sum of the weights so far.
    total: f64,
    /// Otherwise: the lowest so far.
    lowest: u64,
    /// How many candidates are as good as the chosen one.
    ties: u64,
}

impl Engine {
    /// Begins a choice.
    pub fn selection(&self, strategy: Strategy) -> Selection<'_> {
        let now = self.now();
        if strategy == Strategy::LeastBusy {
            self.reap_flights(now);
        }
        Selection {
            engine: self,
            strategy,
            now,
            draws: self.draws(),
            chosen: None,
            by: SHUFFLED_BY.len(),
            total: 0.0,
            lowest: u64::MAX,
            ties: 0,
        }
    }

    /// Ends the flights of dead workers, at most once in a while per process.
    pub fn reap_flights(&self, now: Instant) {
        if is_due(&self.local.last_reap_us, now, REAP_INTERVAL_US) {
            self.reap_dead();
        }
    }
}

impl Selection<'_> {
    /// Offers a candidate, unless it is cooled down. `known` is what the region knows of it; `metric` is asked
    /// for numbers as they are needed.
    ///
    /// # Errors
    /// Those of `metric`.
    #[inline]
    pub fn offer<E>(
        &mut self,
        position: usize,
        known: Option<&Found<'_>>,
        mut metric: impl FnMut(Metric) -> Result<f64, E>,
    ) -> Result<(), E> {
        if known.is_some_and(|found| found.is_cooled_down(self.now)) {
            return Ok(());
        }
        let rank = match self.strategy {
            Strategy::SimpleShuffle => return self.shuffle_in(position, metric),
            Strategy::LeastBusy => known.map_or(0, |found| self.engine.flights(found).about()),
            Strategy::LatencyBased => known.map_or(0, |found| latency_rank(found, self.now)),
            // Of numbers from zero on, the bits are in the order of the numbers.
            Strategy::CostBased => metric(Metric::Cost)?.max(0.0).to_bits(),
        };
        if self.chosen.is_none() || rank < self.lowest {
            (self.lowest, self.ties) = (rank, 0);
        }
        if rank == self.lowest {
            self.choose_among_equals(position);
        }
        Ok(())
    }

    fn shuffle_in<E>(
        &mut self,
        position: usize,
        mut metric: impl FnMut(Metric) -> Result<f64, E>,
    ) -> Result<(), E> {
        for (number, &asked) in SHUFFLED_BY.iter().enumerate().take(self.by + 1) {
            let weight = metric(asked)?;
            if weight > 0.0 {
                if number < self.by {
                    // Nobody before had this one, which comes first.
                    (self.by, self.total) = (number, 0.0);
                }
                let weight = (weight * SCALE).max(f64::MIN_POSITIVE);
                self.total += weight;
                if self.draws.unit() * self.total < weight {
                    self.chosen = Some(position);
                }
                return Ok(());
            }
        }
        if self.by == SHUFFLED_BY.len() {
            self.choose_among_equals(position);
        }
        Ok(())
    }

    #[inline]
    fn choose_among_equals(&mut self, position: usize) {
        self.ties += 1;
        if self.ties == 1 || self.draws.below(self.ties) == 0 {
            self.chosen = Some(position);
        }
    }

    /// The position of the candidate that was chosen; `None` = none was offered that is not cooled down.
    #[inline]
    pub fn chosen(&self) -> Option<usize> {
        self.chosen
    }
}

/// Lower is better. Who was never tried is tried; who was and has only failed waits for a while.
fn latency_rank(found: &Found<'_>, now: Instant) -> u64 {
    match found.recent_latency_us(now) {
        Some(us) => us.saturating_add(1),
        None if found.failing_since_s(now).is_some_and(|age| age < AVOIDED_S) => u64::MAX,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::health::{Cause, Departure};
    use super::super::tests::engine;
    use super::*;
    use crate::layout::FailureKind;
    use std::collections::HashMap;
    use std::convert::Infallible;

    type Numbers = [f64; 3];

    fn choose(
        engine: &Engine,
        strategy: Strategy,
        candidates: &[(&str, Numbers)],
    ) -> Option<usize> {
        let mut selection = engine.selection(strategy);
        for (position, (id, numbers)) in candidates.iter().enumerate() {
            let known = engine.known_deployment(id);
            let metric = |metric| {
                Ok::<_, Infallible>(match metric {
                    Metric::Weight | Metric::Cost => numbers[0],
                    Metric::Rpm => numbers[1],
                    Metric::Tpm => numbers[2],
                })
            };
            let Ok(()) = selection.offer(position, known.as_ref(), metric);
        }
        selection.chosen()
    }

    /// How often each is chosen in 4,000 times.
    fn shares(engine: &Engine, strategy: Strategy, candidates: &[(&str, Numbers)]) -> Vec<u32> {
        let mut chosen: HashMap<usize, u32> = HashMap::new();
        for _ in 0..4_000 {
            *chosen.entry(choose(engine, strategy, candidates).unwrap()).or_default() += 1;
        }
        (0..candidates.len()).map(|n| chosen.get(&n).copied().unwrap_or(0)).collect()
    }

    /// Within ten standard deviations of a share of 4,000.
    fn about(found: u32, share: f64) -> bool {
        let deviation = (4_000.0 * share * (1.0 - share)).sqrt();
        (f64::from(found) - 4_000.0 * share).abs() <= 10.0 * deviation
    }

    fn fly(engine: &Engine, id: &str, times: u32) {
        for _ in 0..times {
            assert!(matches!(engine.depart(id, None), Ok(Departure::Sent(_))));
        }
    }

    #[test]
    fn names_are_read_as_they_are_written_here_and_in_litellm() {
        for strategy in Strategy::ALL {
            assert_eq!(Strategy::parse(strategy.name()), Some(strategy));
        }
        let theirs =
            ["simple-shuffle", "least-busy", "latency-based-routing", "cost-based-routing"];
        assert_eq!(theirs.map(Strategy::parse), Strategy::ALL.map(Some));
        assert_eq!(["", "Least_Busy", "usage-based-routing"].map(Strategy::parse), [None; 3]);
    }

    #[test]
    fn a_shuffle_goes_by_the_first_number_that_anybody_has() {
        let (engine, _) = engine();
        let shuffled =
            |candidates: &[(&str, Numbers)]| shares(&engine, Strategy::SimpleShuffle, candidates);
        let alike = shuffled(&[("a", [0.0; 3]), ("b", [0.0; 3])]);
        assert!(alike.iter().all(|&n| about(n, 0.5)), "{alike:?}");
        let weighted =
            shuffled(&[("a", [0.0, 9e9, 1.0]), ("b", [1.0, 0.0, 0.0]), ("c", [3.0, 7.0, 7.0])]);
        assert!(weighted[0] == 0 && about(weighted[1], 0.25), "{weighted:?}");
        let by_rpm =
            shuffled(&[("a", [0.0, 0.0, 9e9]), ("b", [0.0, 1.0, 0.0]), ("c", [0.0, 1.0, 5.0])]);
        assert!(by_rpm[0] == 0 && about(by_rpm[1], 0.5), "{by_rpm:?}");
        let by_tpm = shuffled(&[("a", [0.0, 0.0, 9.0]), ("b", [0.0; 3]), ("c", [0.0, 0.0, 1.0])]);
        assert!(by_tpm[1] == 0 && about(by_tpm[0], 0.9), "{by_tpm:?}");
    }

    #[test]
    fn weights_of_any_size_add_up() {
        let (engine, _) = engine();
        for weight in [f64::MAX, f64::MIN_POSITIVE] {
            let alike = [("a", [weight, 0.0, 0.0]), ("b", [weight, 0.0, 0.0])];
            let found = shares(&engine, Strategy::SimpleShuffle, &alike);
            assert!(found.iter().all(|&n| about(n, 0.5)), "{weight}: {found:?}");
        }
    }

    #[test]
    fn the_least_busy_is_chosen_and_equals_alike() {
        let (engine, _) = engine();
        let candidates = [("a", [0.0; 3]), ("b", [0.0; 3]), ("c", [0.0; 3])];
        let busy = || shares(&engine, Strategy::LeastBusy, &candidates);
        assert!(busy().iter().all(|&n| about(n, 1.0 / 3.0)));
        fly(&engine, "a", 2);
        fly(&engine, "b", 1);
        fly(&engine, "c", 1);
        let found = busy();
        assert!(found[0] == 0 && about(found[1], 0.5), "{found:?}");
        fly(&engine, "c", 1);
        assert_eq!(busy(), [0, 4_000, 0]);
    }

    #[test]
    fn the_fastest_is_chosen_after_all_were_tried() {
        let (engine, clock) = engine();
        let candidates = [("a", [0.0; 3]), ("b", [0.0; 3]), ("c", [0.0; 3])];
        let choose = || choose(&engine, Strategy::LatencyBased, &candidates);
        let took = |id, us| engine.deployment_succeeded(id, 60, Some(us), None).unwrap();
        took("a", 300);
        took("c", 500);
        assert_eq!(choose(), Some(1));
        engine.deployment_failed("b", 60, FailureKind::Server, 500).unwrap();
        assert_eq!(choose(), Some(0));
        took("b", 0);
        assert_eq!(choose(), Some(1));
        took("b", 900);
        assert_eq!(choose(), Some(0));
        // What is an hour old says nothing any more.
        clock.advance_s(3_000);
        took("a", 300);
        took("b", 450);
        clock.advance_s(601);
        assert_eq!(choose(), Some(2));
    }

    #[test]
    fn who_has_only_failed_is_tried_again_after_a_while() {
        let (engine, clock) = engine();
        let candidates = [("a", [0.0; 3]), ("b", [0.0; 3])];
        let choose = || choose(&engine, Strategy::LatencyBased, &candidates);
        engine.deployment_succeeded("a", 60, Some(300), None).unwrap();
        engine.deployment_failed("b", 60, FailureKind::Server, 500).unwrap();
        assert_eq!(choose(), Some(0));
        clock.advance_s(AVOIDED_S);
        assert_eq!(choose(), Some(1));
    }

    #[test]
    fn the_cheapest_is_chosen() {
        let (engine, _) = engine();
        let at = |price| [price, 0.0, 0.0];
        let candidates = [("a", at(2e-6)), ("b", at(1e-6)), ("c", at(10.0)), ("d", at(1e-6))];
        let found = shares(&engine, Strategy::CostBased, &candidates);
        assert!(found[0] + found[2] == 0 && about(found[1], 0.5), "{found:?}");
        let free = [("a", at(-0.0)), ("b", at(0.0)), ("c", at(f64::MIN_POSITIVE))];
        assert_eq!(shares(&engine, Strategy::CostBased, &free)[2], 0);
    }

    #[test]
    fn the_cooled_down_are_not_chosen_whatever_the_strategy() {
        let (engine, clock) = engine();
        let candidates = [("a", [9.0, 9.0, 9.0]), ("b", [1.0, 0.0, 0.0])];
        for strategy in Strategy::ALL {
            engine.cool_down("a", 2_000, &Cause::of(FailureKind::Server)).unwrap();
            assert_eq!(shares(&engine, strategy, &candidates), [0, 4_000], "{strategy:?}");
            engine.cool_down("b", 1_000, &Cause::of(FailureKind::Server)).unwrap();
            assert_eq!(choose(&engine, strategy, &candidates), None, "{strategy:?}");
            clock.advance_s(1);
            assert_eq!(choose(&engine, strategy, &candidates), Some(1), "{strategy:?}");
            clock.advance_s(1);
        }
        assert_eq!(choose(&engine, Strategy::LeastBusy, &[]), None);
    }
}
