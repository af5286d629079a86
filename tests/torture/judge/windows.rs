//! Anchored windows: of each counter and window no more than the limit, and in the counter what was
//! admitted, give or take what killed and stopped workers were doing.

use super::{Fault, Faults};
use crate::entry::{Effect, Entry, Op};
use crate::limits::{COUNTERS, MAX_COST, SEATS};
use std::collections::BTreeMap;

/// The counters at an instant at which every worker was dead or stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Those whose windows were open.
    pub(crate) readings: Vec<Reading>,
    /// Finished lines of each seat's log.
    pub(crate) lines: [usize; SEATS],
    /// What the stopped workers were doing.
    pub(crate) under_way: Vec<Op>,
}

/// One counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Which.
    pub(crate) counter: usize,
    /// Start of its window, seconds of the region.
    pub(crate) start_s: u64,
    /// Its value.
    pub(crate) count: i64,
}

/// Judges all counters.
#[derive(Default)]
pub(crate) struct WindowJudge {
    /// What all logs said that were read to the end.
    all: Ledger,
    /// What the log said so far that is being read.
    seat: Ledger,
    /// The snapshots of this epoch, each with what the logs said at its instant.
    snapshots: Vec<(Snapshot, Vec<Expected>)>,
    /// The next of them for the log that is being read.
    next: usize,
    full: [u64; COUNTERS.len()],
    uncertain: (i64, i64),
}

/// What logs say about the counters.
#[derive(Default)]
struct Ledger {
    /// By counter and start of the window.
    sums: BTreeMap<(usize, u64), Sums>,
    /// What killed workers had begun, and what was done in an unknown window.
    perhaps: Vec<Perhaps>,
}

/// A charge of some window that began before this was surely over.
#[derive(Clone, Copy)]
struct Perhaps {
    counter: usize,
    amount: i64,
    over_us: u64,
    /// Whatever the limit said.
    owed: bool,
}

#[derive(Default, Clone, Copy)]
struct Sums {
    charged: i64,
    refunded: i64,
    perhaps_refunded: i64,
    /// Charged whatever the limit said.
    owed: i64,
    /// It has been counted among the full ones.
    full: bool,
}

impl Sums {
    /// What was certainly admitted and surely not taken back.
    fn net(&self) -> i64 {
        self.charged - self.refunded - self.perhaps_refunded
    }
}

/// What a counter should be.
#[derive(Default, Clone, Copy)]
struct Expected {
    /// By what was certainly done.
    known: i64,
    /// So much more was perhaps charged.
    more: i64,
    /// So much was perhaps taken back.
    less: i64,
    /// So much was charged at most whatever the limit said.
    owed: i64,
}

impl Ledger {
    fn sums(&mut self, counter: usize, start_s: u64) -> &mut Sums {
        self.sums.entry((counter, start_s)).or_default()
    }

    fn expect(&self, reading: &Reading, expected: &mut Expected) {
        let Reading { counter, start_s, .. } = *reading;
        let sums = self.sums.get(&(counter, start_s)).copied().unwrap_or_default();
        expected.known += sums.charged - sums.refunded + sums.owed;
        expected.less += sums.perhaps_refunded;
        expected.owed += sums.owed;
        for perhaps in &self.perhaps {
            if perhaps.counter == counter && perhaps.over_us >= start_s * 1_000_000 {
                expected.more += perhaps.amount;
                expected.owed += if perhaps.owed { perhaps.amount } else { 0 };
            }
        }
    }

    fn take(&mut self, other: Self) {
        for ((counter, start_s), sums) in other.sums {
            let all = self.sums(counter, start_s);
            all.charged += sums.charged;
            all.refunded += sums.refunded;
            all.perhaps_refunded += sums.perhaps_refunded;
            all.owed += sums.owed;
        }
        self.perhaps.extend(other.perhaps);
    }
}

impl WindowJudge {
    /// Before the logs of an epoch are read.
    pub(crate) fn begin(&mut self, snapshots: Vec<Snapshot>) {
        let expect = |snapshot: Snapshot| {
            let of = |reading: &Reading| {
                let mut expected = Expected::default();
                self.all.expect(reading, &mut expected);
                expect_under_way(&snapshot.under_way, reading, &mut expected);
                expected
            };
            let expected = snapshot.readings.iter().map(of).collect();
            (snapshot, expected)
        };
        self.snapshots = snapshots.into_iter().map(expect).collect();
    }

    /// Before the line of that position is read.
    pub(crate) fn reach(&mut self, seat: usize, position: usize) {
        while let Some((snapshot, expected)) = self.snapshots.get_mut(self.next)
            && snapshot.lines[seat] <= position
        {
            for (reading, expected) in snapshot.readings.iter().zip(expected) {
                self.seat.expect(reading, expected);
            }
            self.next += 1;
        }
    }

    /// After the last line of a seat.
    pub(crate) fn end(&mut self, seat: usize) {
        self.reach(seat, usize::MAX);
        self.next = 0;
        self.all.take(std::mem::take(&mut self.seat));
    }

    /// Notes what was done, at `at_us` at the latest. A refund of a charge to an unknown window changes
    /// nothing: as little as nothing may be left of either.
    pub(crate) fn done(&mut self, effect: Effect, at_us: u64) {
        match effect {
            Effect::Charge { start_s: 0, .. } | Effect::Owe { start_s: 0, .. } => {
                self.lost(effect, at_us);
            }
            Effect::Refund { start_s: 0, .. } => {}
            Effect::Owe { counter, amount, start_s } => {
                self.seat.sums(counter, start_s).owed += amount;
            }
            Effect::Charge { counter, amount, start_s } => {
                self.seat.sums(counter, start_s).charged += amount;
            }
            Effect::Refund { counter, amount, start_s } => {
                self.seat.sums(counter, start_s).refunded += amount;
            }
            _ => {}
        }
    }

    /// Notes what was perhaps done by a worker that was dead at `died_us`.
    pub(crate) fn lost(&mut self, effect: Effect, died_us: u64) {
        match effect {
            Effect::Charge { counter, amount, .. } | Effect::Owe { counter, amount, .. } => {
                let owed = matches!(effect, Effect::Owe { .. });
                self.seat.perhaps.push(Perhaps { counter, amount, over_us: died_us, owed });
            }
            Effect::Refund { start_s: 0, .. } => {}
            Effect::Refund { counter, amount, start_s } => {
                self.seat.sums(counter, start_s).perhaps_refunded += amount;
            }
            _ => {}
        }
    }

    /// Decides about all windows, and forgets those that are over.
    pub(crate) fn close(&mut self, now_us: u64, faults: &mut Faults) {
        for (snapshot, expected) in std::mem::take(&mut self.snapshots) {
            for (reading, expected) in snapshot.readings.into_iter().zip(expected) {
                self.compare(reading, expected, faults);
            }
        }
        // Long enough that nobody who lives can still charge it.
        let over =
            |counter: usize, start_s: u64| (start_s + COUNTERS[counter].size_s + 5) * 1_000_000;
        for (&(counter, start_s), sums) in &mut self.all.sums {
            let (limit, net) = (COUNTERS[counter].limit, sums.net());
            if net > limit {
                let key = COUNTERS[counter].key;
                faults.add(Fault::OverAdmitted, || {
                    format!("{key}, window {start_s}: admitted {net} of {limit}")
                });
            }
            // At once: many a region ends before its windows are over.
            if net + sums.owed + MAX_COST > limit && !sums.full {
                sums.full = true;
                self.full[counter] += 1;
            }
        }
        self.all.sums.retain(|&(counter, start_s), _| over(counter, start_s) > now_us);
        self.all.perhaps.retain(|perhaps| perhaps.over_us + 10_000_000 > now_us);
    }

    fn compare(&mut self, reading: Reading, expected: Expected, faults: &mut Faults) {
        let Reading { counter, start_s, count } = reading;
        let Expected { known, more, less, owed } = expected;
        self.uncertain.0 += count - known;
        self.uncertain.1 += more;
        let text = || {
            let key = COUNTERS[counter].key;
            format!("{key}, window {start_s}: counter {count}, logged {known} + {more} - {less}")
        };
        if count > known + more {
            faults.add(Fault::UnderAdmitted, text);
        } else if count < known - less || count > COUNTERS[counter].limit + owed {
            faults.add(Fault::OverAdmitted, text);
        }
    }

    /// Of each counter, how many windows were charged up to the limit.
    pub(crate) fn full(&self) -> Vec<u64> {
        self.full.to_vec()
    }

    /// Charges that counters held and no log, over all snapshots, and the most that kills and stops
    /// explain.
    pub(crate) fn uncertain(&self) -> (i64, i64) {
        self.uncertain
    }
}

/// What was going on may or may not have been done already.
fn expect_under_way(under_way: &[Op], reading: &Reading, expected: &mut Expected) {
    for &op in under_way {
        Entry { op, begun: 0, end: None }.effects(|effect| match effect {
            Effect::Charge { counter, amount, .. } | Effect::Owe { counter, amount, .. }
                if counter == reading.counter =>
            {
                expected.more += amount;
                expected.owed += if matches!(effect, Effect::Owe { .. }) { amount } else { 0 };
            }
            Effect::Refund { counter, amount, start_s }
                if counter == reading.counter && [0, reading.start_s].contains(&start_s) =>
            {
                expected.less += amount;
            }
            _ => {}
        });
    }
}
