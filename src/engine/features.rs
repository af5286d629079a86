//! Features: a breaker and a switch for each, the same for all processes.

use super::Engine;
use crate::layout::{EventKind, Feature, FlagMode, FlagWord, IdentityWord};
use crate::primitives::breaker::{self, Admission, Policy, Probe, State};
use crate::sync::{Bits, Ordering};

/// Errors further apart than this do not add up, seconds.
const ERROR_MEMORY_S: u64 = 60;
/// After so many seconds without an error one process may try a feature again.
pub const BREAKER_REST_S: u64 = 30;

/// What a feature's breaker does by default: ten errors, none more than a minute after the one before, open
/// it; after half a minute there is a probe.
pub const BREAKER: Policy =
    Policy { threshold: 10, rest_s: BREAKER_REST_S, memory_s: ERROR_MEMORY_S };

/// The same with another rest; `None` = only [`Engine::reset_feature`] ends it.
pub fn resting(rest_s: Option<u64>) -> Policy {
    Policy { rest_s: rest_s.unwrap_or(u64::MAX), ..BREAKER }
}

/// What features are called, by their number.
pub const NAMES: [&str; 5] = [
    "rust_routing",
    "rust_token_counting",
    "rust_rate_limiting",
    "rust_connection_pool",
    "batch_token_counting",
];

/// How a feature stands with all processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What its breaker does.
    pub state: State,
    /// Errors that are not forgotten.
    pub errors: u64,
    /// Errors since the region was created.
    pub errors_total: u64,
}

impl Engine {
    fn feature(&self, feature: usize) -> Option<&Feature> {
        self.region.features().get(feature)
    }

    /// Counts an error of a feature; returns its recent errors: a minute without any forgets them.
    pub fn feature_error(&self, feature: usize) -> u64 {
        let Some(record) = self.feature(feature) else { return 0 };
        record.errors_total.fetch_add(1, Ordering::Relaxed);
        let failed = || breaker::failed(&record.breaker, self.now().s(), BREAKER);
        let Ok(failed) = self.insist(failed) else {
            return record.breaker.load(Ordering::Relaxed).errors();
        };
        if failed.opened {
            self.event(EventKind::BreakerOpened, feature as u64, failed.errors);
        }
        failed.errors
    }

    /// How a feature stands. Reads only: it takes no probe.
    pub fn feature_standing(&self, feature: usize, policy: Policy) -> Standing {
        let Some(record) = self.feature(feature) else {
            return Standing { state: State::Closed { errors: 0 }, errors: 0, errors_total: 0 };
        };
        let breaker = record.breaker.load(Ordering::Relaxed);
        let state = breaker::peek(breaker, self.now().s(), policy);
        let errors = match state {
            State::Closed { errors } => errors,
            State::HalfOpen | State::Open { .. } => breaker.errors(),
        };
        Standing { state, errors, errors_total: record.errors_total.load(Ordering::Relaxed) }
    }

    /// Recent errors of a feature, over all workers: a minute without any forgets them, unless they have
    /// opened its breaker.
    pub fn feature_errors(&self, feature: usize) -> u64 {
        self.feature_standing(feature, BREAKER).errors
    }

    /// Whether a feature may be used. Of all processes one is admitted as the probe after each rest.
    pub fn feature_admits(&self, feature: usize, policy: Policy) -> Admission {
        self.feature(feature).map_or(Admission::Closed, |record| {
            breaker::admits(&record.breaker, self.now().s(), policy)
        })
    }

    /// Tells that the probe succeeded: the feature is used by all again.
    pub fn feature_recovered(&self, feature: usize, probe: Probe) {
        let closed =
            self.feature(feature).is_some_and(|record| breaker::succeeded(&record.breaker, probe));
        if closed {
            self.event(EventKind::BreakerClosed, feature as u64, 0);
        }
    }

    /// Forgets a feature's errors.
    pub fn reset_feature(&self, feature: usize) {
        let Some(record) = self.feature(feature) else { return };
        if self.insist(|| breaker::reset(&record.breaker)) == Ok(true) {
            self.event(EventKind::BreakerClosed, feature as u64, 1);
        }
    }

    /// How a feature's switch stands, with its percentage.
    pub fn flag(&self, feature: usize) -> (FlagMode, u64) {
        let word = self
            .feature(feature)
            .map_or(FlagWord::default(), |record| record.flag.load(Ordering::Relaxed));
        (FlagMode::from_raw(word.mode()), word.percent().min(100))
    }

    /// Moves a feature's switch for all processes; `percent` counts for [`FlagMode::Percent`] only.
    pub fn set_flag(&self, feature: usize, mode: FlagMode, percent: u64) {
        let Some(record) = self.feature(feature) else { return };
        let mut seen = record.flag.load(Ordering::Relaxed);
        for _ in 0..super::ROUNDS {
            let next = FlagWord::new(mode as u64, percent.min(100), seen.revision() + 1);
            match record.flag.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    self.event(EventKind::FlagChanged, feature as u64, next.bits());
                    return;
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Records an event that concerns no key.
    pub(super) fn event(&self, kind: EventKind, a: u64, b: u64) {
        self.event_about(IdentityWord::default(), kind, a, b);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;

    #[test]
    fn breakers_count_rest_and_reset() {
        let (engine, clock) = engine();
        assert_eq!((engine.feature_error(2), engine.feature_error(2)), (1, 2));
        assert_eq!((engine.feature_errors(2), engine.feature_errors(3)), (2, 0));
        engine.reset_feature(2);
        assert_eq!(engine.feature_errors(2), 0);
        assert_eq!(engine.feature_error(99), 0);
        assert_eq!((engine.feature_error(4), engine.feature_error(4)), (1, 2));
        clock.advance_s(ERROR_MEMORY_S - 1);
        assert_eq!(engine.feature_errors(4), 2);
        assert_eq!(engine.feature_error(4), 3);
        clock.advance_s(ERROR_MEMORY_S);
        assert_eq!(engine.feature_errors(4), 0);
        assert_eq!(engine.feature_error(4), 1);
        let standing = engine.feature_standing(4, BREAKER);
        assert_eq!((standing.errors, standing.errors_total), (1, 4));
        assert_eq!(engine.feature_standing(99, BREAKER).state, State::Closed { errors: 0 });
    }

    #[test]
    fn an_open_breaker_waits_for_its_probe_and_without_a_rest_for_a_reset() {
        let (engine, clock) = engine();
        for _ in 0..10 {
            engine.feature_error(3);
        }
        let state = |rest_s| engine.feature_standing(3, resting(rest_s)).state;
        clock.advance_s(100 * ERROR_MEMORY_S);
        assert_eq!(state(Some(30)), State::HalfOpen);
        assert!(matches!(state(None), State::Open { .. }));
        assert!(matches!(engine.feature_admits(3, resting(None)), Admission::Open { .. }));
        assert_eq!((engine.feature_errors(3), engine.feature_error(3)), (10, 11));
        engine.reset_feature(3);
        assert_eq!(engine.feature_admits(3, resting(None)), Admission::Closed);
    }

    #[test]
    fn an_open_breaker_lets_one_probe_through_and_tells_so() {
        let (engine, clock) = engine();
        for _ in 0..10 {
            assert_eq!(engine.feature_admits(1, BREAKER), Admission::Closed);
            engine.feature_error(1);
        }
        assert!(matches!(engine.feature_admits(1, BREAKER), Admission::Open { .. }));
        clock.advance_s(BREAKER_REST_S);
        let Admission::Probe(probe) = engine.feature_admits(1, BREAKER) else { panic!("no probe") };
        assert!(matches!(engine.feature_admits(1, BREAKER), Admission::Open { .. }));
        engine.feature_recovered(1, probe);
        assert_eq!(engine.feature_admits(1, BREAKER), Admission::Closed);
        let kinds: Vec<_> = engine.recent_events(9).map(|entry| entry.known_kind()).collect();
        assert_eq!(kinds, [Some(EventKind::BreakerClosed), Some(EventKind::BreakerOpened)]);
    }

    #[test]
    fn switches_are_moved_for_all() {
        let (engine, _) = engine();
        assert_eq!(engine.flag(3), (FlagMode::Own, 0));
        engine.set_flag(3, FlagMode::Percent, 250);
        assert_eq!(engine.flag(3), (FlagMode::Percent, 100));
        engine.set_flag(3, FlagMode::Own, 0);
        assert_eq!((engine.flag(3), engine.flag(999)), ((FlagMode::Own, 0), (FlagMode::Own, 0)));
        assert_eq!(engine.recent_events(9).count(), 2);
    }
}
