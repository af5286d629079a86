//! What a worker does with deployments: calls on their way, their results, cooldowns.

use crate::entry::{Answer, Op};
use crate::judge::{BEGAN, Status};
use crate::limits::DEPLOYMENTS;
use crate::random::Random;
use fast_litellm::engine::Engine;
use fast_litellm::engine::health::{Cause, Departure, Flight};
use fast_litellm::error::OpError;
use fast_litellm::layout::FailureKind;
use fast_litellm::primitives::cooldown::Begun;

/// A worker sends no more while so many are on their way.
const MOST_FLIGHTS: usize = 24;
/// Longest cooldown, milliseconds: several ticks of the clock.
const COOLDOWN_MS: u64 = 60;
/// Length of the window in which results are counted, seconds.
const WINDOW_S: u64 = 2;

/// The calls of one life.
pub(crate) struct Flights<'a> {
    engine: &'a Engine,
    /// Deployment, and where the log says that it was sent.
    flying: Vec<(usize, usize, Flight)>,
}

/// What is known of all deployments.
pub(crate) fn statuses(engine: &Engine) -> Vec<Status> {
    let status = |(deployment, (id, _)): (usize, &(&str, u64))| {
        let begun = engine.now().us();
        let health = engine.health(id)?;
        let times = (begun, engine.now().us());
        let totals = [health.successes_total, health.failures_total];
        Some(Status { deployment, times, left_ms: health.cooldown_ms, totals })
    };
    DEPLOYMENTS.iter().enumerate().filter_map(status).collect()
}

impl<'a> Flights<'a> {
    /// None yet.
    pub(crate) fn new(engine: &'a Engine) -> Self {
        Self { engine, flying: Vec::new() }
    }

    /// What to do next.
    pub(crate) fn pick(&mut self, random: &mut Random) -> Op {
        let deployment = random.index(DEPLOYMENTS.len());
        match random.below(8_192) {
            0 => Op::Cool { deployment, for_ms: 1 + random.below(COOLDOWN_MS) },
            1..500 => Op::Look { deployment },
            500..1_500 => Op::Count { deployment, failed: random.one_in(2) },
            _ => {
                let full = self.flying.len() >= MOST_FLIGHTS;
                if self.flying.is_empty() || !full && !random.one_in(3) {
                    return Op::Depart { deployment };
                }
                let (deployment, departed, _) = self.flying[random.index(self.flying.len())];
                Op::Arrive { deployment, departed }
            }
        }
    }

    /// Forgets all, after the process has given everything back.
    pub(crate) fn clear(&mut self) {
        self.flying.clear();
    }

    /// Does it.
    pub(crate) fn perform(&mut self, op: Op, position: usize) -> Result<Answer, OpError> {
        Ok(match op {
            Op::Depart { deployment } => {
                let (id, limit) = DEPLOYMENTS[deployment];
                let Departure::Sent(flight) = self.engine.depart(id, Some(limit))? else {
                    return Ok(Answer::Refused);
                };
                self.flying.push((deployment, position, flight));
                Answer::Admitted(0)
            }
            Op::Arrive { departed, .. } => {
                let at = self.flying.iter().position(|&(_, position, _)| position == departed);
                let (.., flight) = self.flying.swap_remove(at.expect("it was picked from here"));
                self.engine.arrive(&flight);
                Answer::Admitted(0)
            }
            Op::Count { deployment, failed } => {
                let id = DEPLOYMENTS[deployment].0;
                if failed {
                    self.engine.deployment_failed(id, WINDOW_S, FailureKind::Server, 500)?;
                } else {
                    self.engine.deployment_succeeded(id, WINDOW_S, Some(1_000), None)?;
                }
                Answer::Admitted(0)
            }
            Op::Cool { deployment, for_ms } => {
                let id = DEPLOYMENTS[deployment].0;
                let begun =
                    self.engine.cool_down(id, for_ms, &Cause::of(FailureKind::RateLimited))?;
                Answer::Admitted(if begun == Begun::First { BEGAN } else { 0 })
            }
            Op::Look { deployment } => {
                let left_ms = self.engine.cooldown_left_ms(DEPLOYMENTS[deployment].0);
                if left_ms > 0 { Answer::Refused } else { Answer::Admitted(0) }
            }
            _ => Answer::Refused,
        })
    }
}
