//! The keys that all workers use, and the limits that the judges know of them.

/// Worker processes.
pub(crate) const SEATS: usize = 8;

/// One counter of a window.
pub(crate) struct Counter {
    /// The window's key.
    pub(crate) window: &'static str,
    /// The counter's key.
    pub(crate) key: &'static str,
    /// Its limit.
    pub(crate) limit: i64,
    /// Length of the window, seconds.
    pub(crate) size_s: u64,
    /// Whether a charge adds the request's cost, or 1.
    pub(crate) by_cost: bool,
}

/// A limit that is never reached: its counter shows whether what was not admitted was taken back.
pub(crate) const UNREACHED: i64 = 1 << 30;

/// All counters. Small limits are met at once, large ones under load.
pub(crate) const COUNTERS: [Counter; 10] = [
    counter("{team:a}:window", "{team:a}:requests", 40, 1, false),
    counter("{team:a}:window", "{team:a}:tokens", 150, 1, true),
    counter("{user:b}:window", "{user:b}:requests", 1_000, 2, false),
    counter("{model:c}:window", "{model:c}:tokens", 1_500, 2, true),
    counter("{team:d}:window", "{team:d}:requests", 60, 1, false),
    counter("{team:d}:window", "{team:d}:tokens", 3_000, 1, true),
    counter("{org:e}:window", "{org:e}:requests", 80, 1, false),
    counter("{org:e}:window", "{org:e}:tokens", 300, 1, true),
    counter("{org:f}:window", "{org:f}:tokens", UNREACHED, 1, true),
    counter("{crowd:0}:window", "{crowd:0}:tokens", 100, 1, true),
];

const fn counter(
    window: &'static str,
    key: &'static str,
    limit: i64,
    size_s: u64,
    by_cost: bool,
) -> Counter {
    Counter { window, key, limit, size_s, by_cost }
}

impl Counter {
    /// What a request of that cost adds.
    pub(crate) fn amount(&self, cost: i64) -> i64 {
        if self.by_cost { cost } else { 1 }
    }
}

/// Counters that are charged together. In the fifth the second is full first: what was charged to the first
/// must be taken back. The last is the crowd's, as are the last of slots and sliding windows: all keys
/// without room together.
pub(crate) const BUNDLES: [&[usize]; 7] =
    [&[0, 1], &[2], &[0, 2, 3], &[3, 2], &[5, 4], &[5], &[CROWD_COUNTER]];
/// The counter of the crowd.
pub(crate) const CROWD_COUNTER: usize = COUNTERS.len() - 1;
/// The bundle whose charges are taken back now and then.
pub(crate) const REFUNDED: usize = 4;
/// Costs are 1 to this.
pub(crate) const MAX_COST: i64 = 8;

/// Concurrency slots of one key.
pub(crate) struct Slots {
    /// The key.
    pub(crate) key: &'static str,
    /// Its limit; `None` = it is lowered and raised all the time.
    pub(crate) limit: Option<u64>,
    /// After so many seconds others may take a slot; `None` = never.
    pub(crate) ttl_s: Option<u64>,
}

/// All keys with concurrency slots. 40 needs two chunks, [`VARYING`] up to three.
pub(crate) const SLOTS: [Slots; 8] = [
    slots("{key:one}:max_parallel_requests", Some(1), None),
    slots("{key:three}:max_parallel_requests", Some(3), None),
    slots("{key:five}:max_parallel_requests", Some(5), None),
    slots("{key:forty}:max_parallel_requests", Some(40), None),
    slots("{key:varying-a}:max_parallel_requests", None, None),
    slots("{key:varying-b}:max_parallel_requests", None, None),
    slots("{key:brief}:max_parallel_requests", Some(4), Some(1)),
    slots("{crowd:0}:max_parallel_requests", Some(6), None),
];

const fn slots(key: &'static str, limit: Option<u64>, ttl_s: Option<u64>) -> Slots {
    Slots { key, limit, ttl_s }
}

/// Limits that a varying key takes.
pub(crate) const VARYING: [u64; 5] = [1, 2, 6, 34, 70];
/// Slots that are acquired together; a varying key alone.
pub(crate) const SLOT_BUNDLES: [&[usize]; 12] =
    [&[0], &[1], &[2], &[3], &[3], &[3], &[1, 3], &[2, 0], &[4], &[6], &[5], &[7]];

/// Deployments: their ids, and how many calls may be on their way to each.
pub(crate) const DEPLOYMENTS: [(&str, u64); 3] =
    [("deployment-two", 2), ("deployment-ten", 10), ("deployment-forty", 40)];
/// What holds slots: all keys of [`SLOTS`], then all deployments.
pub(crate) const HOLDERS: usize = SLOTS.len() + DEPLOYMENTS.len();

/// The name and the limit of what holds slots.
pub(crate) fn holder(number: usize) -> (&'static str, Option<u64>) {
    match number.checked_sub(SLOTS.len()) {
        None => (SLOTS[number].key, SLOTS[number].limit),
        Some(deployment) => (DEPLOYMENTS[deployment].0, Some(DEPLOYMENTS[deployment].1)),
    }
}

/// One key with a sliding window.
pub(crate) struct Sliding {
    /// The key.
    pub(crate) key: &'static str,
    /// Its limit.
    pub(crate) limit: u64,
    /// Length of the window, seconds.
    pub(crate) window_s: u64,
}

/// All keys with sliding windows.
pub(crate) const SLIDING: [Sliding; 4] = [
    Sliding { key: "sliding-one", limit: 1, window_s: 1 },
    Sliding { key: "sliding-sixty", limit: 60, window_s: 1 },
    Sliding { key: "sliding-many", limit: 1_500, window_s: 2 },
    Sliding { key: "crowd-0", limit: 100, window_s: 1 },
];

impl Sliding {
    /// What a request of that cost adds.
    pub(crate) fn amount(&self, cost: i64) -> i64 {
        if self.limit < MAX_COST.cast_unsigned() { 1 } else { cost }
    }
}

/// One limit of an admission over several: a number in [`HOT`], [`SLIDING`], [`COUNTERS`] or [`SLOTS`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Want {
    Rate(usize),
    Sliding(usize),
    Window(usize),
    Slots(usize),
}

impl Want {
    /// What a request of that cost asks of it.
    pub(crate) fn amount(self, cost: i64) -> i64 {
        match self {
            Self::Rate(_) | Self::Slots(_) => 1,
            Self::Sliding(key) => SLIDING[key].amount(cost),
            Self::Window(counter) => COUNTERS[counter].amount(cost),
        }
    }

    /// What a request has used of it that cost `used` in the end. Where the cost does not count, that is
    /// nothing, what was asked, or more.
    pub(crate) fn used(self, used: i64) -> i64 {
        if self.amount(2) == 2 { used } else { used.min(1) + i64::from(used > MAX_COST) }
    }
}

/// What is admitted in one call. All but the counters are used by themselves, too; the largest sliding window
/// only so: what is given back later hides how full it was. What is asked for twice passes the first look
/// and is often refused by the second charge, when the others must be taken back.
pub(crate) const ADMISSIONS: [&[Want]; 9] = [
    &[Want::Rate(3), Want::Sliding(1), Want::Window(6), Want::Window(7), Want::Slots(2)],
    &[Want::Window(6), Want::Window(7), Want::Slots(3)],
    &[Want::Sliding(1), Want::Rate(0)],
    &[Want::Slots(6), Want::Slots(1), Want::Rate(3)],
    &[Want::Sliding(0), Want::Window(7)],
    &[Want::Window(7), Want::Window(6), Want::Rate(0)],
    &[Want::Window(7), Want::Window(7), Want::Window(7), Want::Window(7)],
    &[Want::Window(8), Want::Rate(1), Want::Rate(1)],
    &[Want::Window(6)],
];

/// One GCRA rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Requests per minute.
    pub(crate) per_minute: u32,
    /// Burst.
    pub(crate) burst: u32,
}

/// Rates of the hot keys, which every worker checks all the time: key n has rate n.
pub(crate) const HOT: [Rate; 4] = [
    Rate { per_minute: 120_000, burst: 50 },
    Rate { per_minute: 6_000, burst: 5 },
    Rate { per_minute: 60_000, burst: 1 },
    Rate { per_minute: 60_000, burst: 20 },
];
/// Rate of all other keys, of which new ones appear all the time.
pub(crate) const CHURN: Rate = Rate { per_minute: 1_200, burst: 2 };
/// How many of the newest keys are in use.
pub(crate) const CHURN_WIDTH: usize = 64;
/// New GCRA keys in each round: enough that a second worker catches up with the first that inserts them.
pub(crate) const NEW_KEYS: u64 = 32;
/// How many older keys are in use again for one round. Most have been given up meanwhile or are about to be.
pub(crate) const RETURNING: u64 = 8;

/// Rate of the crowd's keys.
pub(crate) const CROWD_RATE: Rate = Rate { per_minute: 600, burst: 3 };
/// From here on quota keys are of the crowd: this one is all of them together, then come those of each life.
pub(crate) const CROWD_KEYS: usize = 1 << 31;

/// The rate of a quota key.
pub(crate) fn rate_of(key: usize) -> Rate {
    let other = if key < CROWD_KEYS { CHURN } else { CROWD_RATE };
    HOT.get(key).copied().unwrap_or(other)
}
