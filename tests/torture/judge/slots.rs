//! Concurrency slots: never more held at one instant than the limit; under a limit that moves, nobody is
//! let in while others hold all of it throughout. A call to a deployment holds a slot of that.

use super::{Fault, Faults};
use crate::entry::{Answer, Effect, Entry};
use crate::limits::{HOLDERS, SEATS, holder};

/// Judges the slots of all keys.
#[derive(Default)]
pub(crate) struct SlotJudge {
    holds: Vec<Hold>,
    /// What each seat's worker holds: position in its log, and number of the hold.
    open: [Vec<(usize, usize)>; SEATS],
    peaks: [u64; HOLDERS],
    /// The fine clock at second 0 of the region, nanoseconds.
    base_ns: u64,
}

/// One slot, held for certain from `from` to `to`.
#[derive(Debug, Clone, Copy)]
struct Hold {
    slots: usize,
    limit: u64,
    /// When it was asked for.
    asked: u64,
    from: u64,
    to: u64,
}

impl SlotJudge {
    /// For a region whose clock has that base.
    pub(crate) fn new(base_ns: u64) -> Self {
        Self { base_ns, ..Self::default() }
    }

    /// Reads what a line did. A release counts from its begin, finished or not.
    pub(crate) fn read(&mut self, seat: usize, position: usize, effect: Effect, entry: &Entry) {
        match (effect, entry.end) {
            (Effect::Hold { slots, limit, late_ns, until_s }, Some(end))
                if matches!(end.answer, Answer::Admitted(_)) =>
            {
                let over = |second: u64| self.base_ns + second * 1_000_000_000;
                let to = until_s.map_or(u64::MAX, over);
                let from = late_ns.map_or(end.at, |late| self.base_ns + end.at * 1_000 + late);
                let hold = Hold { slots, limit, asked: entry.begun, from, to };
                self.open[seat].push((position, self.holds.len()));
                self.holds.push(hold);
            }
            (Effect::Free { slots, acquired }, _) => {
                let holds = &mut self.holds;
                self.open[seat].retain(|&(position, hold)| {
                    let freed = position == acquired && holds[hold].slots == slots;
                    if freed {
                        holds[hold].to = holds[hold].to.min(entry.begun);
                    }
                    !freed
                });
            }
            (Effect::FreeAll, _) => {
                for (_, hold) in self.open[seat].drain(..) {
                    self.holds[hold].to = self.holds[hold].to.min(entry.begun);
                }
            }
            _ => {}
        }
    }

    /// Decides about all slots of workers that are dead by now.
    pub(crate) fn close(&mut self, faults: &mut Faults) {
        let mut of_key: Vec<Vec<Hold>> = vec![Vec::new(); HOLDERS];
        for hold in std::mem::take(&mut self.holds) {
            of_key[hold.slots].push(hold);
        }
        self.open = Default::default();
        for (number, holds) in of_key.iter_mut().enumerate() {
            let (name, limit) = holder(number);
            let peak = peak(holds);
            self.peaks[number] = self.peaks[number].max(peak);
            let (found, limit) = match limit {
                Some(limit) => (peak, limit),
                None => worst_entry(holds),
            };
            if found > limit {
                faults.add(Fault::OverAdmitted, || {
                    format!("{name}: {found} slots held at once, the limit is {limit}")
                });
            }
        }
    }

    /// Of each key, how many slots were held at once.
    pub(crate) fn peaks(&self) -> Vec<u64> {
        self.peaks.to_vec()
    }
}

/// The most slots held at one instant.
fn peak(holds: &[Hold]) -> u64 {
    let mut events: Vec<(u64, i64)> = holds
        .iter()
        .filter(|hold| hold.from < hold.to)
        .flat_map(|hold| [(hold.from, 1), (hold.to, -1)])
        .collect();
    // At one instant, those who give back come first.
    events.sort_unstable();
    let (mut held, mut peak) = (0_i64, 0_i64);
    for (_, change) in events {
        held += change;
        peak = peak.max(held);
    }
    peak.unsigned_abs()
}

/// The entry that was furthest above its own limit: with itself, how many slots were held all the time
/// while it was decided, and the limit that it was decided by.
fn worst_entry(holds: &mut [Hold]) -> (u64, u64) {
    let mut entries = holds.to_vec();
    entries.sort_unstable_by_key(|hold| hold.asked);
    holds.sort_unstable_by_key(|hold| hold.from);
    let mut later = holds.iter().peekable();
    let mut held: Vec<u64> = Vec::new();
    let found = entries.into_iter().map(|entry| {
        while let Some(hold) = later.next_if(|hold| hold.from <= entry.asked) {
            held.push(hold.to);
        }
        held.retain(|&to| to >= entry.asked);
        let throughout = held.iter().filter(|&&to| to >= entry.from).count() as u64;
        (throughout + 1, entry.limit)
    });
    let above = |&(count, limit): &(u64, u64)| count.cast_signed() - limit.cast_signed();
    found.max_by_key(above).unwrap_or_default()
}
