//! How near the limits the workers came: a limit that was never reached was not tested.

use crate::limits::{COUNTERS, CROWD_RATE, DEPLOYMENTS, HOT, SLIDING, UNREACHED, holder};
use fast_litellm::config::Overflow;

/// How near the limits the workers came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach {
    /// Of each hot key and the crowd, by how many requests its fullest interval stayed below the bound.
    pub(crate) quota_slack: Vec<f64>,
    /// Of each counter, how many windows were charged up to the limit.
    pub(crate) full_windows: Vec<u64>,
    /// Of each sliding key, in how many windows there was no more room.
    pub(crate) full_sliding: Vec<u64>,
    /// Of each key, how many slots were certainly held at once.
    pub(crate) slot_peaks: Vec<u64>,
    /// Of each deployment, how many cooldowns were begun.
    pub(crate) cooldowns: Vec<u64>,
    /// Of each policy, how many operations were about a key without room.
    pub(crate) overflowed: Vec<u64>,
    /// Charges that counters held and no log: in all snapshots, and the most that kills and stops explain.
    pub(crate) uncertain: (i64, i64),
}

impl Reach {
    /// The nearer of both, of two regions.
    pub(crate) fn join(&mut self, other: &Self) {
        let nearer = |a: &mut f64, b: &f64| *a = a.min(*b);
        self.quota_slack.resize(other.quota_slack.len(), f64::INFINITY);
        self.quota_slack.iter_mut().zip(&other.quota_slack).for_each(|(a, b)| nearer(a, b));
        add(&mut self.full_windows, &other.full_windows);
        add(&mut self.full_sliding, &other.full_sliding);
        add(&mut self.cooldowns, &other.cooldowns);
        add(&mut self.overflowed, &other.overflowed);
        self.slot_peaks.resize(other.slot_peaks.len(), 0);
        self.slot_peaks.iter_mut().zip(&other.slot_peaks).for_each(|(a, b)| *a = (*a).max(*b));
        self.uncertain.0 += other.uncertain.0;
        self.uncertain.1 += other.uncertain.1;
    }

    /// The limits that were not reached, in words.
    pub(crate) fn untested(&self) -> Vec<String> {
        let mut untested = Vec::new();
        for (number, peak) in self.slot_peaks.iter().enumerate() {
            let (name, limit) = holder(number);
            if limit.is_some_and(|limit| *peak < limit) {
                untested.push(format!("{name}: at most {peak} slots were held at once"));
            }
        }
        for (policy, operations) in Overflow::ALL.iter().zip(&self.overflowed) {
            if *operations < OVERFLOWED {
                untested.push(format!("{policy:?}: only {operations} operations without room"));
            }
        }
        for ((id, _), cooldowns) in DEPLOYMENTS.iter().zip(&self.cooldowns) {
            if *cooldowns < COOLDOWNS {
                untested.push(format!("{id}: only {cooldowns} cooldowns were begun"));
            }
        }
        let counters = COUNTERS.iter().zip(&self.full_windows);
        let counters = counters.filter(|(counter, _)| counter.limit < UNREACHED);
        let counters = counters.map(|(counter, full)| (counter.key, full));
        let sliding = SLIDING.iter().map(|sliding| sliding.key).zip(&self.full_sliding);
        for (key, full) in counters.chain(sliding) {
            if *full < if key.contains("crowd") { 1 } else { FULL_WINDOWS } {
                untested.push(format!("{key}: only {full} windows were full"));
            }
        }
        for (rate, slack) in HOT.iter().chain([&CROWD_RATE]).zip(&self.quota_slack) {
            if *slack > 1.0 {
                untested.push(format!("{rate:?}: always {slack} requests below the bound"));
            }
        }
        untested
    }
}

fn add(sums: &mut Vec<u64>, more: &[u64]) {
    // A region that was not judged says nothing.
    sums.resize(more.len().max(sums.len()), 0);
    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// So many windows of each counter must have been full.
const FULL_WINDOWS: u64 = 3;
/// So many cooldowns of each deployment must have been begun.
const COOLDOWNS: u64 = 10;
/// So many operations under each policy must have been about a key without room.
const OVERFLOWED: u64 = 1_000;
