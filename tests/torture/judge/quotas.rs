//! GCRA: in no interval more than `burst + rate * T` requests of one key, over all workers.
//!
//! Every request was decided at some reading of the region's clock between its two times. So in the
//! interval from `a` to `b` lie at least the requests that began at or after `a` and ended at or before
//! `b`. The promise allows one request more; the algorithm needs none, and none is allowed here.

use super::{Fault, Faults};
use crate::entry::Effect;
use crate::limits::{CROWD_KEYS, HOT, rate_of};
use std::collections::BTreeMap;

/// Judges all quota keys.
#[derive(Default)]
pub(crate) struct QuotaJudge {
    keys: BTreeMap<usize, Key>,
}

#[derive(Default)]
struct Key {
    /// Begin and end of each admitted request since the last decision, microseconds.
    admitted: Vec<(u64, u64)>,
    /// The fullest interval that may still grow: requests in it, each worth one emission interval, plus
    /// its beginning.
    earlier: Option<u64>,
    /// The smallest distance of an interval from the bound, microseconds.
    slack_us: Option<i64>,
}

impl QuotaJudge {
    /// Notes an admitted request.
    pub(crate) fn admitted(&mut self, effect: Effect, begun: u64, ended: u64) {
        if let Effect::Request { key } = effect {
            self.keys.entry(key).or_default().admitted.push((begun, ended));
        }
    }

    /// Forgets a request that was perhaps taken back.
    pub(crate) fn taken_back(&mut self, key: usize, begun: u64, ended: u64) {
        let Some(state) = self.keys.get_mut(&key) else { return };
        let place = state.admitted.iter().rposition(|&request| request == (begun, ended));
        place.map(|place| state.admitted.swap_remove(place));
    }

    /// Decides about all keys.
    pub(crate) fn close(&mut self, faults: &mut Faults) {
        for (&key, state) in &mut self.keys {
            let rate = rate_of(key);
            let interval_us = 60_000_000_u64.div_ceil(u64::from(rate.per_minute));
            let slack_us = state.decide(interval_us, u64::from(rate.burst) * interval_us);
            if slack_us < 0 {
                faults.add(Fault::OverAdmitted, || {
                    let requests = slack_us.unsigned_abs().div_ceil(interval_us);
                    format!("quota key {key}, {rate:?}: {requests} requests above burst + rate * T")
                });
            }
        }
    }

    /// Of each hot key and the crowd, how many requests its fullest interval stayed below the bound.
    pub(crate) fn slack(&self) -> Vec<f64> {
        let slack = |key: usize| {
            let rate = rate_of(key);
            let slack_us = self.keys.get(&key).and_then(|key| key.slack_us);
            slack_us.map_or(f64::INFINITY, |slack_us| {
                #[allow(clippy::cast_precision_loss, reason = "for people")]
                let slack_us = slack_us as f64;
                slack_us * f64::from(rate.per_minute) / 60e6
            })
        };
        (0..HOT.len()).chain([CROWD_KEYS]).map(slack).collect()
    }
}

impl Key {
    /// The smallest distance from the bound of all intervals that end with one of the new requests;
    /// negative = above it.
    ///
    /// An interval that begins at `a` and has `n` requests by `b` is above the bound when
    /// `a + n * interval - b` is above the tolerance. Requests come in the order of their ends; each adds
    /// one to all beginnings up to its own begin. `best[i]` is the greatest value of the beginnings up to
    /// `i`. Both are kept relative to `all`, which a request raises for everybody.
    fn decide(&mut self, interval_us: u64, tolerance_us: u64) -> i64 {
        let mut requests = std::mem::take(&mut self.admitted);
        requests.sort_unstable_by_key(|&(begun, ended)| (ended, begun));
        let interval = interval_us.cast_signed();
        let mut all = 0_i64;
        let mut beginnings: Vec<(u64, i64)> =
            self.earlier.iter().map(|&value| (0, value.cast_signed())).collect();
        let mut best: Vec<i64> = beginnings.iter().map(|&(_, value)| value).collect();
        let mut slack_us = i64::MAX;
        for (begun, ended) in requests {
            all += interval;
            let place = beginnings.partition_point(|&(beginning, _)| beginning <= begun);
            let later = beginnings[place..].iter().map(|_| interval).sum::<i64>();
            for (_, value) in &mut beginnings[place..] {
                *value -= interval;
            }
            let value = begun.cast_signed() + later + interval - all;
            beginnings.insert(place, (begun, value));
            best.truncate(place);
            for &(_, value) in &beginnings[place..] {
                best.push(best.last().map_or(value, |&best| value.max(best)));
            }
            let fullest = best.last().map_or(0, |&best| best + all);
            slack_us = slack_us.min(tolerance_us.cast_signed() + ended.cast_signed() - fullest);
        }
        if let Some(&fullest) = best.last() {
            self.earlier = Some((fullest + all).cast_unsigned());
        }
        self.slack_us = Some(self.slack_us.unwrap_or(i64::MAX).min(slack_us));
        slack_us
    }
}
