//! Anchored windows: of each counter and window no more than the limit, and in the counter no more than
//! what was admitted plus what killed workers may have charged.

use super::{Fault, Faults};
use crate::entry::Effect;
use crate::limits::{COUNTERS, MAX_COST};
use std::collections::BTreeMap;

/// A counter as it stands after all workers have died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Which counter.
    pub(crate) counter: usize,
    /// Start of its window, seconds of the region.
    pub(crate) start_s: u64,
    /// Its value.
    pub(crate) count: i64,
}

/// Judges all counters.
#[derive(Default)]
pub(crate) struct WindowJudge {
    /// By counter and start of the window.
    sums: BTreeMap<(usize, u64), Sums>,
    /// What killed workers had begun: counter, amount, and when the worker was surely dead.
    lost: Vec<(usize, i64, u64)>,
    full: [u64; COUNTERS.len()],
    uncertain: (i64, i64),
}

#[derive(Default, Clone, Copy)]
struct Sums {
    charged: i64,
    refunded: i64,
    perhaps_refunded: i64,
}

impl WindowJudge {
    /// Notes what was done.
    pub(crate) fn done(&mut self, effect: Effect) {
        match effect {
            Effect::Charge { counter, amount, start_s } => {
                self.sums.entry((counter, start_s)).or_default().charged += amount;
            }
            Effect::Refund { counter, amount, start_s } => {
                self.sums.entry((counter, start_s)).or_default().refunded += amount;
            }
            _ => {}
        }
    }

    /// Notes what was perhaps done by a worker that was dead at `died_us`.
    pub(crate) fn lost(&mut self, effect: Effect, died_us: u64) {
        match effect {
            Effect::Charge { counter, amount, .. } => self.lost.push((counter, amount, died_us)),
            Effect::Refund { counter, amount, start_s } => {
                self.sums.entry((counter, start_s)).or_default().perhaps_refunded += amount;
            }
            _ => {}
        }
    }

    /// Decides about all windows, and forgets those that are over.
    pub(crate) fn close(&mut self, now_us: u64, readings: &[Reading], faults: &mut Faults) {
        for reading in readings {
            self.compare(*reading, faults);
        }
        // Long enough that nobody who lives can still charge it.
        let over =
            |counter: usize, start_s: u64| (start_s + COUNTERS[counter].size_s + 5) * 1_000_000;
        let windows = std::mem::take(&mut self.sums);
        for (&(counter, start_s), sums) in &windows {
            let limit = COUNTERS[counter].limit;
            let net = sums.charged - sums.refunded - sums.perhaps_refunded;
            if net > limit {
                let key = COUNTERS[counter].key;
                faults.add(Fault::OverAdmitted, || {
                    format!("{key}, window {start_s}: admitted {net} of {limit}")
                });
            }
            if over(counter, start_s) > now_us {
                self.sums.insert((counter, start_s), *sums);
            } else if net + MAX_COST > limit {
                self.full[counter] += 1;
            }
        }
        self.lost.retain(|&(_, _, died_us)| died_us + 10_000_000 > now_us);
    }

    fn compare(&mut self, reading: Reading, faults: &mut Faults) {
        let Reading { counter, start_s, count } = reading;
        let sums = self.sums.get(&(counter, start_s)).copied().unwrap_or_default();
        let known = sums.charged - sums.refunded;
        let could = |&&(of, _, died_us): &&(usize, i64, u64)| {
            of == counter && died_us >= start_s * 1_000_000
        };
        let lost: i64 = self.lost.iter().filter(could).map(|&(_, amount, _)| amount).sum();
        let (low, high) = (known - sums.perhaps_refunded, known + lost);
        self.uncertain.0 += count - known;
        self.uncertain.1 += lost;
        let key = COUNTERS[counter].key;
        let text =
            || format!("{key}, window {start_s}: counter {count}, logged {known}, lost {lost}");
        if count > high {
            faults.add(Fault::UnderAdmitted, text);
        } else if count < low {
            faults.add(Fault::OverAdmitted, text);
        }
    }

    /// Of each counter, how many windows were charged up to the limit.
    pub(crate) fn full(&self) -> Vec<u64> {
        self.full.to_vec()
    }

    /// Charges that counters hold and no log, and the most that kills can explain.
    pub(crate) fn uncertain(&self) -> (i64, i64) {
        self.uncertain
    }
}
