//! Deployments: a cooldown that was begun is seen by everybody until it ends, exactly one is told that it
//! began it, and the totals are what was counted. Requests in flight are judged as slots are.

use super::{Fault, Faults};
use crate::entry::{Answer, Entry, Op};
use crate::limits::DEPLOYMENTS;

/// A deployment at rest.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Status {
    /// Which.
    pub(crate) deployment: usize,
    /// When it was looked at, microseconds: before and after.
    pub(crate) times: (u64, u64),
    /// Milliseconds that it is still cooled down.
    pub(crate) left_ms: u64,
    /// Successes and failures.
    pub(crate) totals: [u64; 2],
}

/// Judges all deployments.
#[derive(Default)]
pub(crate) struct DeploymentJudge {
    deployments: [Deployment; DEPLOYMENTS.len()],
}

#[derive(Default)]
struct Deployment {
    /// When a cooldown certainly ran, microseconds, and its earliest end, milliseconds.
    cooled: Vec<(u64, u64)>,
    /// Begin and end of each look that found none.
    free: Vec<(u64, u64)>,
    /// The latest end that anybody may have asked for, milliseconds.
    latest_ms: u64,
    /// Successes and failures: certainly, and perhaps.
    totals: [(u64, u64); 2],
    begun: u64,
}

impl DeploymentJudge {
    /// Notes what was done.
    pub(crate) fn done(&mut self, entry: &Entry) {
        let Some(end) = entry.end else { return };
        let Answer::Admitted(detail) = end.answer else { return };
        match entry.op {
            Op::Count { deployment, failed } => {
                self.deployments[deployment].totals[usize::from(failed)].0 += 1;
            }
            Op::Cool { deployment, for_ms } => {
                let state = &mut self.deployments[deployment];
                state.cooled.push((end.at, entry.begun / 1_000 + for_ms));
                state.latest_ms = state.latest_ms.max(end.at / 1_000 + for_ms);
                if detail == BEGAN {
                    state.free.push((entry.begun, end.at));
                    state.begun += 1;
                }
            }
            Op::Look { deployment } => {
                self.deployments[deployment].free.push((entry.begun, end.at));
            }
            _ => {}
        }
    }

    /// Notes what was perhaps done by a worker that was dead at `died_us`.
    pub(crate) fn lost(&mut self, entry: &Entry, died_us: u64) {
        match entry.op {
            Op::Count { deployment, failed } => {
                self.deployments[deployment].totals[usize::from(failed)].1 += 1;
            }
            Op::Cool { deployment, for_ms } => {
                let latest_ms = &mut self.deployments[deployment].latest_ms;
                *latest_ms = (*latest_ms).max(died_us / 1_000 + for_ms);
            }
            _ => {}
        }
    }

    /// Decides about all deployments.
    pub(crate) fn close(&mut self, statuses: &[Status], now_us: u64, faults: &mut Faults) {
        for ((id, _), state) in DEPLOYMENTS.iter().zip(&mut self.deployments) {
            state.cooled.sort_unstable();
            // From each instant on: the latest of all ends so far.
            let mut latest = 0;
            for (_, until_ms) in &mut state.cooled {
                latest = latest.max(*until_ms);
                *until_ms = latest;
            }
            for (begun, at) in std::mem::take(&mut state.free) {
                if state.certain_ms(begun) > at / 1_000 {
                    faults.add(Fault::Unseen, || {
                        let until_ms = state.certain_ms(begun);
                        format!("{id}: cooled down until {until_ms} ms, not seen at {at} us")
                    });
                }
            }
        }
        for status in statuses {
            self.deployments[status.deployment].compare(status, faults);
        }
        for state in &mut self.deployments {
            state.cooled.retain(|&(_, until_ms)| until_ms * 1_000 > now_us);
        }
    }

    /// Of each deployment, how many cooldowns were begun.
    pub(crate) fn cooldowns(&self) -> Vec<u64> {
        self.deployments.iter().map(|state| state.begun).collect()
    }
}

/// The detail of the answer to whoever began a cooldown.
pub(crate) const BEGAN: u64 = 1;

impl Deployment {
    /// How long somebody who looks at that instant certainly finds a cooldown. Of two in one tick of the
    /// clock nobody knows which came first.
    fn certain_ms(&self, begun: u64) -> u64 {
        let before = self.cooled.partition_point(|&(at, _)| at < begun);
        before.checked_sub(1).map_or(0, |last| self.cooled[last].1)
    }

    fn compare(&self, status: &Status, faults: &mut Faults) {
        let &Status { deployment, times: (begun, at), left_ms, totals } = status;
        let id = DEPLOYMENTS[deployment].0;
        let certain_ms = self.certain_ms(begun).saturating_sub(at / 1_000);
        let latest_ms = self.latest_ms.saturating_sub(begun / 1_000);
        let text =
            || format!("{id}: cooled down for {left_ms} ms, not {certain_ms} to {latest_ms}");
        if left_ms < certain_ms {
            faults.add(Fault::Unseen, text);
        } else if left_ms > latest_ms {
            faults.add(Fault::UnderAdmitted, text);
        }
        for (total, (known, perhaps)) in totals.into_iter().zip(self.totals) {
            if !(known..=known + perhaps).contains(&total) {
                faults.add(Fault::WrongStatistics, || {
                    format!("{id}: {total} results, logged {known} + {perhaps}")
                });
            }
        }
    }
}
