//! What operations take: how much of it is taken now, and how to take what is left.

use super::operations::{Effect, NONE};
use super::stage::{BURST, Stage};
use fast_litellm::engine::slots::{Grant, SlotAsk};
use fast_litellm::engine::windows::{Ask, Verdict};
use fast_litellm::primitives::gcra::Decision;

/// One kind of thing that can be taken, in up to three amounts.
pub(crate) struct Resource {
    /// What is taken now, by what the engine says.
    pub(crate) taken: fn(&Stage) -> Effect,
    /// Takes what is left up to these limits, as requests would, and says how much that was.
    pub(crate) drain: fn(&Stage, Effect) -> Effect,
    /// One more operation on each key, which is admitted.
    pub(crate) nudge: fn(&Stage),
    /// Whether what a process took is free again once the process is dead.
    pub(crate) owned: bool,
}

pub(crate) const QUOTA_KEY: &[u8] = b"quota";
pub(crate) const WINDOW: &str = "{user:u}:window";
pub(crate) const REQUESTS: &str = "{user:u}:requests";
pub(crate) const TOKENS: &str = "{user:u}:tokens";
pub(crate) const TEAM_WINDOW: &str = "{team:t}:window";
pub(crate) const TEAM_REQUESTS: &str = "{team:t}:requests";
pub(crate) const SLOTS: &str = "{user:u}:max_parallel_requests";
pub(crate) const TEAM_SLOTS: &str = "{team:t}:max_parallel_requests";
pub(crate) const SPEND: &str = "spend:team";
pub(crate) const FEATURE: usize = 2;
/// Length of all windows.
pub(crate) const SIZE_S: u64 = 60;

/// Counters in the order of an effect's amounts, each with its window.
pub(crate) const COUNTERS: [(&str, &str); 3] =
    [(WINDOW, REQUESTS), (WINDOW, TOKENS), (TEAM_WINDOW, TEAM_REQUESTS)];
/// Keys of slots in the order of an effect's amounts.
const KEYS: [&str; 2] = [SLOTS, TEAM_SLOTS];
/// More than any limit here: whoever is admitted so often is admitted for ever.
const TOO_MANY: i64 = 200;

/// Requests at one instant, from a quota that gives [`BURST`].
pub(crate) static QUOTA: Resource =
    Resource { taken: quota_taken, drain: drain_quota, nudge: nudge_quota, owned: false };
/// Charges to windows.
pub(crate) static WINDOWS: Resource =
    Resource { taken: windows_taken, drain: drain_windows, nudge: nudge_windows, owned: false };
/// Concurrency slots.
pub(crate) static LEASES: Resource =
    Resource { taken: leases_taken, drain: drain_leases, nudge: nudge_leases, owned: true };
/// Two counters outside any window, neighbours in the key table.
pub(crate) static COUNTER: Resource = Resource {
    taken: |stage| {
        let value = |key| stage.engine.value(key).unwrap_or(0);
        [value(SPEND), value(&stage.rival), 0]
    },
    drain: |_, _| NONE,
    nudge: |stage| {
        let _ = stage.engine.add(SPEND, 1, SIZE_S);
    },
    owned: false,
};
/// Errors of a feature.
pub(crate) static ERRORS: Resource = Resource {
    taken: |stage| [signed(stage.engine.feature_errors(FEATURE)), 0, 0],
    drain: |_, _| NONE,
    nudge: |_| {},
    owned: false,
};

pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// How often `once` succeeds before it does not.
fn until_refused(mut once: impl FnMut(i64) -> bool) -> i64 {
    (0..TOO_MANY).find(|&n| !once(n)).unwrap_or(TOO_MANY)
}

fn quota_taken(stage: &Stage) -> Effect {
    let left = stage.engine.remaining(&stage.limiter, QUOTA_KEY);
    [i64::from(BURST) - signed(left), 0, 0]
}

fn drain_quota(stage: &Stage, _: Effect) -> Effect {
    let check = |_| {
        let decision = stage.engine.check(&stage.limiter, QUOTA_KEY);
        matches!(decision, Ok(Decision::Allowed { .. }))
    };
    [until_refused(check), 0, 0]
}

fn nudge_quota(stage: &Stage) {
    stage.clock.advance_s(61);
    let _ = stage.engine.check(&stage.limiter, QUOTA_KEY);
}

fn windows_taken(stage: &Stage) -> Effect {
    COUNTERS.map(|(_, counter)| stage.engine.value(counter).unwrap_or(0))
}

/// A charge of 1 to one counter.
pub(crate) fn one(number: usize, limit: i64) -> Ask<'static> {
    let (window, counter) = COUNTERS[number];
    Ask { window, counter, limit, amount: 1, size_s: SIZE_S }
}

fn drain_windows(stage: &Stage, limits: Effect) -> Effect {
    let left = |number: usize| {
        let ask = [one(number, limits[number])];
        until_refused(|_| matches!(stage.engine.admit_all(&ask), Ok(Verdict::Admitted(_))))
    };
    [left(0), left(1), left(2)]
}

fn nudge_windows(stage: &Stage) {
    stage.clock.advance_s(61);
    let _ = stage.engine.hit_all(&COUNTERS, SIZE_S);
}

fn leases_taken(stage: &Stage) -> Effect {
    let [user, team] = KEYS.map(|key| stage.engine.count_slots(key, 0).map_or(-1, signed));
    [user, team, 0]
}

fn drain_leases(stage: &Stage, limits: Effect) -> Effect {
    let mut drained = NONE;
    for (number, key) in KEYS.into_iter().enumerate() {
        let id = |n: i64| format!("drain-{n}");
        let acquire = |n| {
            let ask = SlotAsk { key, limit: limits[number], ttl_s: 0, slot_id: &id(n) };
            matches!(stage.engine.acquire_all(&[ask]), Ok(Grant::Held(_)))
        };
        drained[number] = until_refused(acquire);
        for n in 0..drained[number] {
            let _ = stage.engine.release(key, &id(n));
        }
    }
    drained
}

fn nudge_leases(stage: &Stage) {
    for key in KEYS {
        let ask = SlotAsk { key, limit: 64, ttl_s: 0, slot_id: "nudge" };
        let _ = stage.engine.acquire_all(&[ask]);
        let _ = stage.engine.release(key, "nudge");
    }
}
