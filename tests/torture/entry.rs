//! What a worker did, in words: one operation, when it began, and how it ended.

use crate::limits::{
    ADMISSIONS, BUNDLES, COUNTERS, DEPLOYMENTS, SLIDING, SLOT_BUNDLES, SLOTS, Want,
};

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// One request of a GCRA key.
    Check { key: usize },
    /// One request of that cost to all counters of a bundle.
    Charge { bundle: usize, cost: i64 },
    /// Takes one charge of a counter back, in the window that it was charged to.
    Refund { counter: usize, amount: i64, start_s: u64 },
    /// One slot of each key of a bundle; the limit is that of a varying key, `at_s` the region's second
    /// before, from which a slot's time counts.
    Acquire { bundle: usize, limit: u64, at_s: u64 },
    /// Gives back the slot of one key that was acquired at that position of the log.
    Release { slots: usize, acquired: usize },
    /// One request of that cost to a sliding window.
    Slide { key: usize, cost: i64 },
    /// One request of that cost to all limits of an admission.
    Admit { bundle: usize, cost: i64 },
    /// Releases the slots of the admission that was granted at that position of the log.
    Finish { bundle: usize, admitted: usize },
    /// Gives all of an admission back.
    Cancel { bundle: usize, cost: i64, admitted: usize },
    /// Corrects an admission to what was used.
    Settle { bundle: usize, cost: i64, used: i64, admitted: usize },
    /// Sends a call to a deployment.
    Depart { deployment: usize },
    /// Ends the call that was sent at that position of the log.
    Arrive { deployment: usize, departed: usize },
    /// Counts the result of a call.
    Count { deployment: usize, failed: bool },
    /// Cools a deployment down.
    Cool { deployment: usize, for_ms: u64 },
    /// Asks whether a deployment is cooled down; refused if it is.
    Look { deployment: usize },
    /// Gives everything back and registers again.
    Leave,
    /// Not an operation: the master killed the worker. Begins before the signal, ends after the wait; the
    /// answer's detail is then the region's time in microseconds.
    Death,
}

impl Op {
    /// As one word: the kind in 8 bits, then 8, 16 and 32 bits of numbers.
    pub(crate) fn to_word(self) -> u64 {
        let (kind, small, middle, large) = match self {
            Self::Check { key } => (1, 0, 0, key as u64),
            Self::Charge { bundle, cost } => (2, bundle, cost.cast_unsigned(), 0),
            Self::Refund { counter, amount, start_s } => {
                (3, counter, amount.cast_unsigned(), start_s)
            }
            Self::Acquire { bundle, limit, at_s } => (4, bundle, limit, at_s),
            Self::Release { slots, acquired } => (5, slots, 0, acquired as u64),
            Self::Leave => (6, 0, 0, 0),
            Self::Death => (7, 0, 0, 0),
            Self::Slide { key, cost } => (8, key, cost.cast_unsigned(), 0),
            Self::Admit { bundle, cost } => (9, bundle, cost.cast_unsigned(), 0),
            Self::Finish { bundle, admitted } => (10, bundle, 0, admitted as u64),
            Self::Cancel { bundle, cost, admitted } => {
                (11, bundle, cost.cast_unsigned(), admitted as u64)
            }
            Self::Settle { bundle, cost, used, admitted } => {
                (12, bundle, (cost | used << 8).cast_unsigned(), admitted as u64)
            }
            Self::Depart { deployment } => (13, deployment, 0, 0),
            Self::Arrive { deployment, departed } => (14, deployment, 0, departed as u64),
            Self::Count { deployment, failed } => (15, deployment, failed.into(), 0),
            Self::Cool { deployment, for_ms } => (16, deployment, for_ms, 0),
            Self::Look { deployment } => (17, deployment, 0, 0),
        };
        kind | (small as u64) << 8 | middle << 16 | large << 32
    }

    /// From one word; `None` when no operation is written like that.
    pub(crate) fn from_word(word: u64) -> Option<Self> {
        let range = |shift: u32, bits: u32| word >> shift & ((1 << bits) - 1);
        let place = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let (small, middle, large) = (place(range(8, 8)), range(16, 16), range(32, 32));
        let op = match range(0, 8) {
            1 => Self::Check { key: place(large) },
            2 => Self::Charge { bundle: small, cost: middle.cast_signed() },
            3 => Self::Refund { counter: small, amount: middle.cast_signed(), start_s: large },
            4 => Self::Acquire { bundle: small, limit: middle, at_s: large },
            5 => Self::Release { slots: small, acquired: place(large) },
            6 => Self::Leave,
            7 => Self::Death,
            8 => Self::Slide { key: small, cost: middle.cast_signed() },
            9 => Self::Admit { bundle: small, cost: middle.cast_signed() },
            10 => Self::Finish { bundle: small, admitted: place(large) },
            11 => {
                let cost = middle.cast_signed();
                Self::Cancel { bundle: small, cost, admitted: place(large) }
            }
            12 => {
                let (cost, used) = (range(16, 8).cast_signed(), range(24, 8).cast_signed());
                Self::Settle { bundle: small, cost, used, admitted: place(large) }
            }
            13 => Self::Depart { deployment: small },
            14 => Self::Arrive { deployment: small, departed: place(large) },
            15 => Self::Count { deployment: small, failed: middle != 0 },
            16 => Self::Cool { deployment: small, for_ms: middle },
            17 => Self::Look { deployment: small },
            _ => return None,
        };
        (op.to_word() == word).then_some(op)
    }

    /// Which clock times it: quotas and windows are decided by the region's clock (microseconds), slots
    /// are compared by the fine monotonic one (nanoseconds). An admission is timed by the region's, and its
    /// answer tells how much later it was by the fine one.
    pub(crate) fn by_region_clock(self) -> bool {
        !matches!(
            self,
            Self::Acquire { .. }
                | Self::Release { .. }
                | Self::Finish { .. }
                | Self::Cancel { .. }
                | Self::Depart { .. }
                | Self::Arrive { .. }
                | Self::Leave
                | Self::Death
        )
    }

    /// The position at which the admission was granted that it gives back or corrects.
    pub(crate) fn corrects(self) -> Option<usize> {
        match self {
            Self::Cancel { admitted, .. } | Self::Settle { admitted, .. } => Some(admitted),
            _ => None,
        }
    }
}

/// How an operation was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done. Of a charge, the starts of its windows in seconds of the region, 20 bits each; of a sliding
    /// window, its number. Of an admission and its correction, the start of the window, 0 = unknown, and of
    /// an admission in the other bits how many nanoseconds later than the region's clock it ended.
    Admitted(u64),
    /// Decided against; nothing changed.
    Refused,
    /// Not decided; the number of the error.
    Failed(u64),
}

/// Bits of a window's start in [`Answer::Admitted`].
const START_BITS: u32 = 20;
const START: u64 = (1 << START_BITS) - 1;

impl Answer {
    /// The same, of an admission that ended so much later than the region's clock said, nanoseconds.
    pub(crate) fn late(self, late_ns: u64) -> Self {
        match self {
            Self::Admitted(start_s) => Self::Admitted(start_s & START | late_ns << START_BITS),
            other => other,
        }
    }

    /// An admitted charge.
    pub(crate) fn charged(starts_s: impl IntoIterator<Item = u64>) -> Self {
        let pack = |word, (position, start)| word | start << (START_BITS * position);
        Self::Admitted((0..).zip(starts_s).fold(0, pack))
    }

    /// As one word.
    pub(crate) fn to_word(self) -> u64 {
        match self {
            Self::Admitted(detail) => detail << 2,
            Self::Refused => 1,
            Self::Failed(error) => error << 2 | 2,
        }
    }

    /// From one word.
    pub(crate) fn from_word(word: u64) -> Self {
        match word & 3 {
            0 => Self::Admitted(word >> 2),
            1 => Self::Refused,
            _ => Self::Failed(word >> 2),
        }
    }
}

/// The end of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// When, by the operation's clock, read afterwards.
    pub(crate) at: u64,
    /// How.
    pub(crate) answer: Answer,
}

/// One line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What was asked.
    pub(crate) op: Op,
    /// When, by the operation's clock, read before.
    pub(crate) begun: u64,
    /// How it ended; `None` = the worker was killed first, and nobody knows what was done.
    pub(crate) end: Option<End>,
}

/// What an operation does to one limit if it is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// One request of a GCRA key.
    Request { key: usize },
    /// A counter grows, in the window that starts at `start_s` (0 while that is unknown).
    Charge { counter: usize, amount: i64, start_s: u64 },
    /// A counter shrinks.
    Refund { counter: usize, amount: i64, start_s: u64 },
    /// A counter grows, whatever its limit says.
    Owe { counter: usize, amount: i64, start_s: u64 },
    /// A sliding window grows (`None` while its number is unknown).
    Slide { key: usize, amount: i64, window: Option<u64> },
    /// A sliding window grows, whatever its limit says.
    OweSliding { key: usize, amount: i64 },
    /// Of an admission's request to a GCRA key nothing is left.
    TakeBack { key: usize },
    /// Of an admission's charge of a sliding window so much is left.
    Keep { key: usize, kept: i64 },
    /// A slot of a holder is held, so much later than by the line's clock, at most until that second of the region.
    Hold { slots: usize, limit: u64, late_ns: Option<u64>, until_s: Option<u64> },
    /// A slot that was acquired at that position of the log is free.
    Free { slots: usize, acquired: usize },
    /// All slots of the worker are free.
    FreeAll,
}

impl Effect {
    /// The same, where it takes back what an admission was charged: in the window of that.
    pub(crate) fn of(self, admission: Option<&Entry>) -> Self {
        match (self, admission) {
            (Self::Refund { counter, amount, start_s: 0 }, Some(admission)) => {
                let start_s = admission.detail().unwrap_or(0) & START;
                Self::Refund { counter, amount, start_s }
            }
            (other, _) => other,
        }
    }
}

impl Entry {
    /// What the answer says beyond having been admitted.
    fn detail(&self) -> Option<u64> {
        match self.end?.answer {
            Answer::Admitted(detail) => Some(detail),
            _ => None,
        }
    }

    /// Calls `visit` for each limit that the operation is about.
    pub(crate) fn effects(&self, mut visit: impl FnMut(Effect)) {
        match self.op {
            Op::Check { key } => visit(Effect::Request { key }),
            Op::Charge { bundle, cost } => {
                let starts = self.detail().unwrap_or(0);
                for (position, &counter) in (0..).zip(BUNDLES[bundle]) {
                    let amount = COUNTERS[counter].amount(cost);
                    let start_s = starts >> (START_BITS * position) & START;
                    visit(Effect::Charge { counter, amount, start_s });
                }
            }
            Op::Refund { counter, amount, start_s } => {
                visit(Effect::Refund { counter, amount, start_s });
            }
            Op::Acquire { bundle, limit, at_s } => {
                for &slots in SLOT_BUNDLES[bundle] {
                    let limit = SLOTS[slots].limit.unwrap_or(limit);
                    let until_s = SLOTS[slots].ttl_s.map(|ttl_s| at_s + ttl_s);
                    visit(Effect::Hold { slots, limit, late_ns: None, until_s });
                }
            }
            Op::Slide { key, cost } => {
                let amount = SLIDING[key].amount(cost);
                visit(Effect::Slide { key, amount, window: self.detail() });
            }
            Op::Admit { bundle, cost } => self.admission(bundle, cost, visit),
            Op::Finish { bundle, admitted } => {
                for want in ADMISSIONS[bundle] {
                    if let &Want::Slots(slots) = want {
                        visit(Effect::Free { slots, acquired: admitted });
                    }
                }
            }
            Op::Cancel { bundle, cost, admitted } => {
                self.correction(bundle, cost, 0, &mut visit);
                Self { op: Op::Finish { bundle, admitted }, ..*self }.effects(visit);
            }
            Op::Settle { bundle, cost, used, .. } => {
                self.correction(bundle, cost, used, &mut visit);
            }
            Op::Release { slots, acquired } => visit(Effect::Free { slots, acquired }),
            Op::Depart { deployment } => {
                let (slots, limit) = (SLOTS.len() + deployment, DEPLOYMENTS[deployment].1);
                visit(Effect::Hold { slots, limit, late_ns: None, until_s: None });
            }
            Op::Arrive { deployment, departed } => {
                visit(Effect::Free { slots: SLOTS.len() + deployment, acquired: departed });
            }
            Op::Count { .. } | Op::Cool { .. } | Op::Look { .. } => {}
            Op::Leave | Op::Death => visit(Effect::FreeAll),
        }
    }

    fn admission(&self, bundle: usize, cost: i64, mut visit: impl FnMut(Effect)) {
        let detail = self.detail().unwrap_or(0);
        let (start_s, late_ns) = (detail & START, detail >> START_BITS);
        for &want in ADMISSIONS[bundle] {
            let amount = want.amount(cost);
            visit(match want {
                Want::Rate(key) => Effect::Request { key },
                Want::Sliding(key) => {
                    let window_us = SLIDING[key].window_s * 1_000_000;
                    let window = self.begun / window_us;
                    let same = self.end.is_some_and(|end| end.at / window_us == window);
                    Effect::Slide { key, amount, window: same.then_some(window) }
                }
                Want::Window(counter) => Effect::Charge { counter, amount, start_s },
                Want::Slots(slots) => Effect::Hold {
                    slots,
                    limit: SLOTS[slots].limit.unwrap_or(0),
                    late_ns: Some(late_ns),
                    until_s: SLOTS[slots].ttl_s.map(|ttl_s| self.begun / 1_000_000 + ttl_s),
                },
            });
        }
    }

    /// What is less than was admitted is taken back; the window is that of the admission.
    fn correction(&self, bundle: usize, cost: i64, used: i64, visit: &mut impl FnMut(Effect)) {
        for &want in ADMISSIONS[bundle] {
            let (amount, used) = (want.amount(cost), want.used(used));
            let more = used - amount;
            match want {
                Want::Rate(key) if used == 0 => visit(Effect::TakeBack { key }),
                Want::Sliding(key) if more > 0 => visit(Effect::OweSliding { key, amount: more }),
                Want::Sliding(key) => visit(Effect::Keep { key, kept: used }),
                Want::Window(counter) if more > 0 => {
                    let start_s = self.detail().unwrap_or(0);
                    visit(Effect::Owe { counter, amount: more, start_s });
                }
                Want::Window(counter) => {
                    visit(Effect::Refund { counter, amount: -more, start_s: 0 });
                }
                Want::Rate(_) | Want::Slots(_) => {}
            }
        }
    }
}
