//! Random numbers for choices that need not be secret: a generator per process, seeded anew after a fork, so that
//! no two workers draw the same numbers.

use super::Engine;
use crate::primitives::mix;
use crate::region::fork_generation;
use crate::sync::{Ordering, Word};
use crate::tables::index;

/// The step of `SplitMix64`: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// Hash domain of seeds.
const SEEDS: u64 = 0x7365_6564;

/// The process's generator.
pub(super) struct Dice {
    state: Word<u64>,
    /// The fork generation for which it was seeded.
    seeded_for: Word<u64>,
}

impl Default for Dice {
    fn default() -> Self {
        Self { state: Word::new(0), seeded_for: Word::new(u64::MAX) }
    }
}

/// A sequence of random numbers for one choice.
#[derive(Debug, Clone)]
pub(super) struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the high half of the product is below n"
        )]
        let number = ((u128::from(self.next()) * u128::from(n)) >> 64) as u64;
        number
    }

    /// A number from 0 to 1, never 1.
    pub(super) fn unit(&mut self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "53 bits fit into a float")]
        let part = (self.next() >> 11) as f64;
        part * (f64::EPSILON / 2.0)
    }
}

impl Engine {
    /// A sequence that no other call draws, in this process or another.
    pub(super) fn draws(&self) -> Draws {
        let Dice { state, seeded_for } = &self.local.dice;
        let forks = fork_generation();
        if seeded_for.load(Ordering::Acquire) != forks {
            // The nonce has the pid in it, so that a child never draws what its parent or its siblings do.
            let seen = [index::nonce(), self.now().us(), forks].map(u64::to_le_bytes);
            state.store(self.region.hash(SEEDS, seen.as_flattened()), Ordering::Relaxed);
            seeded_for.store(forks, Ordering::Release);
        }
        Draws(mix(state.fetch_add(STEP, Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;

    #[test]
    fn numbers_are_spread_over_their_range() {
        let (engine, _) = engine();
        let mut draws = engine.draws();
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[usize::try_from(draws.below(10)).unwrap()] += 1;
        }
        // Ten standard deviations.
        assert!(seen.iter().all(|&n| (700..1_300).contains(&n)), "{seen:?}");
        let units: Vec<f64> = (0..10_000).map(|_| draws.unit()).collect();
        let mean = units.iter().sum::<f64>() / 10_000.0;
        assert!(units.iter().all(|unit| (0.0..1.0).contains(unit)) && (mean - 0.5).abs() < 0.03);
        assert_eq!((draws.below(1), draws.below(0)), (0, 0));
    }

    #[test]
    fn no_two_sequences_are_alike_and_a_fork_seeds_anew() {
        let (engine, _) = engine();
        let (mut one, mut two) = (engine.draws(), engine.draws());
        assert_ne!(one.next(), two.next());
        let dice = &engine.local.dice;
        let before = dice.state.load(Ordering::Relaxed);
        // As a child finds it, whose parent was seeded.
        dice.seeded_for.store(fork_generation() + 1, Ordering::Relaxed);
        engine.draws();
        assert_ne!(dice.state.load(Ordering::Relaxed), before.wrapping_add(STEP));
        assert_eq!(dice.seeded_for.load(Ordering::Relaxed), fork_generation());
    }
}
