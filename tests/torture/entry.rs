//! What a worker did, in words: one operation, when it began, and how it ended.

use crate::limits::{BUNDLES, COUNTERS, SLOT_BUNDLES, SLOTS};

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
            _ => return None,
        };
        (op.to_word() == word).then_some(op)
    }

    /// Which clock times it: quotas and windows are decided by the region's clock (microseconds), slots
    /// are compared by the fine monotonic one (nanoseconds).
    pub(crate) fn by_region_clock(self) -> bool {
        matches!(self, Self::Check { .. } | Self::Charge { .. } | Self::Refund { .. })
    }
}

/// How an operation was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done. Of a charge, the starts of its windows in seconds of the region, 20 bits each.
    Admitted(u64),
    /// Decided against; nothing changed.
    Refused,
    /// Not decided; the number of the error.
    Failed(u64),
}

/// Bits of a window's start in [`Answer::Admitted`].
const START_BITS: u32 = 20;

impl Answer {
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
    /// A slot is held, at most until that second of the region.
    Hold { slots: usize, limit: u64, until_s: Option<u64> },
    /// A slot that was acquired at that position of the log is free.
    Free { slots: usize, acquired: usize },
    /// All slots of the worker are free.
    FreeAll,
}

impl Entry {
    /// Calls `visit` for each limit that the operation is about.
    pub(crate) fn effects(&self, mut visit: impl FnMut(Effect)) {
        match self.op {
            Op::Check { key } => visit(Effect::Request { key }),
            Op::Charge { bundle, cost } => {
                let starts = match self.end {
                    Some(End { answer: Answer::Admitted(starts), .. }) => starts,
                    _ => 0,
                };
                for (position, &counter) in (0..).zip(BUNDLES[bundle]) {
                    let amount = COUNTERS[counter].amount(cost);
                    let start_s = starts >> (START_BITS * position) & ((1 << START_BITS) - 1);
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
                    visit(Effect::Hold { slots, limit, until_s });
                }
            }
            Op::Release { slots, acquired } => visit(Effect::Free { slots, acquired }),
            Op::Leave | Op::Death => visit(Effect::FreeAll),
        }
    }
}
