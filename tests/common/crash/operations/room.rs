//! Tables without a free place: an idle record is given up for another key while somebody charges it, and a
//! key is charged while its idle record is given up.

use super::slots::drain_slots;
use super::windows::SIZE_S;
use super::{
    ENDLESS, Effect, Home, Meanwhile, NONE, OWNED, Operation, PLAIN, Resource, STAYS, joined,
    later, signed, sum, until_refused,
};
use crate::crash::stage::{BURST, Stage, WINDOW_LIMIT};
use fast_litellm::engine::health::Cause;
use fast_litellm::engine::slots::{Grant, SlotAsk};
use fast_litellm::engine::windows::{Ask, Verdict};
use fast_litellm::error::OpError;
use fast_litellm::layout::FailureKind;
use fast_litellm::primitives::{gcra, sliding};
use fast_litellm::sync::Ordering;
use fast_litellm::tables::{index, names};

type Charge = fn(&Stage, &str) -> Result<bool, OpError>;
type Taken = fn(&Stage, &str) -> i64;

/// A kind of key that takes a place in a table.
pub(super) struct Kind {
    /// The key that operations are about.
    pub(super) key: &'static str,
    /// Charges 1 to a key; false = refused.
    pub(super) charge: Charge,
    /// What a key has been charged.
    pub(super) taken: Taken,
    /// Charges a key until it is refused, and says how much that was.
    pub(super) drain: Taken,
    /// Ends what a charge holds.
    pub(super) release: fn(&Stage, &str),
    /// Whether a key stands in the table.
    stands: fn(&Stage, &str) -> bool,
    /// Fills the table up with keys that are in use.
    fill: fn(&Stage),
    /// Charges, and what is charged, to keys that take a place from this kind's.
    usurp: (Charge, Taken),
    /// Inserts a key and charges nothing.
    insert: fn(&Stage, &str),
}

pub(super) const QUOTAS: Kind = Kind {
    key: "quota",
    charge: |stage, key| {
        let decision = stage.engine.check(&stage.limiter, key.as_bytes())?;
        Ok(matches!(decision, gcra::Decision::Allowed { .. }))
    },
    taken: |stage, key| {
        i64::from(BURST) - signed(stage.engine.remaining(&stage.limiter, key.as_bytes()))
    },
    drain: |stage, key| until_refused(|_| (QUOTAS.charge)(stage, key) == Ok(true)),
    release: |_, _| {},
    stands: |stage, key| bucket_of(stage, key).is_some(),
    fill: fill_keys,
    usurp: (charge_counter, counter_taken),
    insert: |stage, key| {
        stage.engine.place(&stage.limiter, key.as_bytes()).expect("there is room");
    },
};

pub(super) const SLIDINGS: Kind = Kind {
    key: "sliding",
    charge: |stage, key| {
        let decision = stage.engine.check_sliding(&stage.sliding, key.as_bytes(), 1)?;
        Ok(matches!(decision, sliding::Decision::Allowed { .. }))
    },
    taken: |stage, key| {
        let left = stage.engine.remaining_sliding(&stage.sliding, key.as_bytes());
        i64::from(WINDOW_LIMIT) - signed(left)
    },
    drain: |stage, key| until_refused(|_| (SLIDINGS.charge)(stage, key) == Ok(true)),
    ..QUOTAS
};

/// Requests that a window admits.
pub(super) const REQUESTS: i64 = 5;

pub(super) const WINDOWS: Kind = Kind {
    key: "user:u",
    charge: charge_window,
    taken: window_taken,
    drain: |stage, key| until_refused(|_| charge_window(stage, key) == Ok(true)),
    usurp: (charge_window, window_taken),
    insert: |stage, key| {
        stage.engine.note_limits(&format!("{{{key}}}"), 0, 0).expect("there is room");
    },
    ..QUOTAS
};

const COUNTERS: Kind = Kind {
    key: "spend:team",
    charge: charge_counter,
    taken: counter_taken,
    drain: |_, _| 0,
    usurp: (charge_window, window_taken),
    ..QUOTAS
};

/// Slots of a key.
pub(super) const SLOTS: Kind = Kind {
    key: "user:u",
    charge: acquire,
    taken: held,
    drain: |stage, key| drain_slots(stage, &slots_of(key), MOST_SLOTS),
    release: |stage, key| {
        stage.engine.release(&slots_of(key), "slot").expect("releases");
    },
    ..QUOTAS
};

/// Slots of a key, in the table of chunks.
const CHUNKS: Kind = Kind {
    stands: chunk_stands,
    fill: |stage| fill_with(|name| acquire(stage, name).map(drop)),
    usurp: (acquire, held),
    ..SLOTS
};

const DEPLOYMENTS: Kind = Kind {
    key: "deployment",
    charge: fail,
    taken: failures,
    drain: |_, _| 0,
    stands: |stage, key| stage.engine.health(key).is_some(),
    fill: |stage| {
        let cause = Cause::of(FailureKind::Timeout);
        let cool = |id: &str| stage.engine.cool_down(id, 1_000_000_000, &cause);
        fill_with(|name| cool(name).map(drop));
    },
    usurp: (fail, failures),
    ..QUOTAS
};

/// The two operations on a kind whose table is full: a key gets the place of an idle one, and a key is charged
/// that somebody else may give up. Amounts are those of the key, of the idle one, and of a third.
macro_rules! on {
    ($kind:ident, $home:expr, $owned:expr, $limits:expr, $names:expr) => {{
        const CROWD: Operation = Operation {
            home: $home,
            run: |s| charge_key(s, &$kind),
            does: [1, 0, 0, 0],
            resource: &Resource {
                taken: |s| taken(s, &$kind),
                drain: |s, limits| drain(s, &$kind, limits),
                nudge: |s| nudge(s, &$kind),
                owned: $owned,
            },
            limits: $limits,
            ..PLAIN
        };
        const KEY: Meanwhile =
            Meanwhile { name: "charge it", step: |s| charge_key(s, &$kind), forgetful: false };
        const DOOMED: Meanwhile = Meanwhile {
            name: "charge the idle key",
            step: |s| charge_doomed(s, &$kind),
            forgetful: false,
        };
        const USURP: Meanwhile =
            Meanwhile { name: "take the place", step: |s| usurp(s, &$kind), forgetful: false };
        const USURP_AND_CHARGE: Meanwhile = Meanwhile {
            name: "take the place, charge it",
            step: |s| sum(usurp(s, &$kind), charge_key(s, &$kind)),
            forgetful: false,
        };
        [
            Operation {
                name: $names[0],
                scene: |s| crowd_of_others(s, &$kind),
                meanwhile: &[KEY, DOOMED, USURP],
                ..CROWD
            },
            Operation {
                name: $names[1],
                scene: |s| crowd_with_the_key(s, &$kind),
                meanwhile: &[USURP, USURP_AND_CHARGE],
                ..CROWD
            },
        ]
    }};
}

/// A charge to a record that says nothing, not even that it was ever charged, and that is handed over to
/// another key of its kind between the look at it and the swap.
macro_rules! passing_on {
    ($kind:ident, $limit:expr, $transient:expr, $names:expr) => {{
        const PASSING: Operation = Operation {
            name: $names[0],
            home: Home::Small,
            scene: |s| crowd_of_new_keys(s, &$kind),
            run: |s| charge_key(s, &$kind),
            does: [1, 0, 0, 0],
            resource: &Resource {
                taken: |s| {
                    let usurped = ($kind.taken)(s, &s.usurper.borrow());
                    [($kind.taken)(s, $kind.key), 0, usurped, 0]
                },
                drain: |s, _| [($kind.drain)(s, $kind.key), 0, 0, 0],
                nudge: |s| nudge(s, &$kind),
                owned: STAYS,
            },
            limits: Some([$limit, ENDLESS, ENDLESS, ENDLESS]),
            meanwhile: &[Meanwhile {
                name: "take the place",
                step: |s| take_the_place(s, &$kind),
                forgetful: false,
            }],
            ..PLAIN
        };
        [
            PASSING,
            Operation {
                name: $names[1],
                disturbance: Some((0, |s| take_the_place(s, &$kind))),
                transient: $transient,
                meanwhile: &[],
                ..PASSING
            },
        ]
    }};
}

const fn limit(most: i64) -> Effect {
    [most, most, ENDLESS, ENDLESS]
}

pub(super) static OPERATIONS: &[[Operation; 2]] = &[
    on!(QUOTAS, Home::Small, STAYS, Some(limit(BURST as i64)), ["give up, quotas", "idle, quotas"]),
    on!(
        SLIDINGS,
        Home::Small,
        STAYS,
        Some(limit(WINDOW_LIMIT as i64)),
        ["give up, sliding", "idle, sliding"]
    ),
    on!(WINDOWS, Home::Small, STAYS, Some(limit(REQUESTS)), ["give up, windows", "idle, windows"]),
    on!(COUNTERS, Home::Small, STAYS, None, ["give up, counters", "idle, counters"]),
    on!(
        SLOTS,
        Home::Small,
        OWNED,
        Some(limit(MOST_SLOTS)),
        ["give up, keys of slots", "idle, keys of slots"]
    ),
    on!(
        CHUNKS,
        Home::Inherited,
        OWNED,
        Some(limit(MOST_SLOTS)),
        ["give up, chunks", "idle, chunks"]
    ),
    on!(DEPLOYMENTS, Home::Inherited, STAYS, None, ["give up, deployments", "idle, deployments"]),
    passing_on!(QUOTAS, BURST as i64, [0, 0, 1, 0], ["new, quotas", "new, quotas, passed on"]),
    passing_on!(WINDOWS, REQUESTS, NONE, ["new, windows", "new, windows, passed on"]),
];

// ---- Kinds ----------------------------------------------------------------------------------------

fn charge_window(stage: &Stage, key: &str) -> Result<bool, OpError> {
    let [window, counter] = ["window", "requests"].map(|part| format!("{{{key}}}:{part}"));
    let (window, counter) = (&*window, &*counter);
    let ask = Ask { window, counter, limit: REQUESTS, amount: 1, size_s: SIZE_S };
    Ok(matches!(stage.engine.admit_all(&[ask])?, Verdict::Admitted(_)))
}

fn window_taken(stage: &Stage, key: &str) -> i64 {
    stage.engine.value(&format!("{{{key}}}:requests")).unwrap_or(0)
}

fn charge_counter(stage: &Stage, key: &str) -> Result<bool, OpError> {
    stage.engine.add(key, 1, SIZE_S).map(|_| true)
}

fn counter_taken(stage: &Stage, key: &str) -> i64 {
    stage.engine.value(key).unwrap_or(0)
}

const MOST_SLOTS: i64 = 2;

fn slots_of(key: &str) -> String {
    format!("{{{key}}}:max_parallel_requests")
}

fn acquire(stage: &Stage, key: &str) -> Result<bool, OpError> {
    let ask = SlotAsk { key: &slots_of(key), limit: MOST_SLOTS, ttl_s: 0, slot_id: "slot" };
    Ok(matches!(stage.engine.acquire_all(&[ask])?, Grant::Held(_)))
}

fn held(stage: &Stage, key: &str) -> i64 {
    stage.engine.count_slots(&slots_of(key), 0).map_or(-1, signed)
}

fn fail(stage: &Stage, key: &str) -> Result<bool, OpError> {
    stage.engine.deployment_failed(key, SIZE_S, FailureKind::Timeout, 408).map(|_| true)
}

fn failures(stage: &Stage, key: &str) -> i64 {
    stage.engine.health(key).map_or(0, |health| signed(health.failures))
}

/// Where the key of that name stands.
fn bucket_of(stage: &Stage, name: &str) -> Option<u64> {
    let buckets = stage.region().buckets().iter().zip(stage.region().names());
    let stands = buckets.map(|(bucket, shown)| {
        let key = index::key_of(bucket.identity.load(Ordering::Relaxed));
        key.is_some() && names::read(shown).as_deref() == Some(name)
    });
    (0..).zip(stands).find_map(|(slot, stands)| stands.then_some(slot))
}

fn chunk_stands(stage: &Stage, name: &str) -> bool {
    let key_slot = bucket_of(stage, name).map_or(0, |slot| slot + 1);
    let described = |key_slot| {
        let mut chunks = stage.region().chunks().iter();
        chunks.any(|chunk| chunk.key_slot.load(Ordering::Relaxed) == key_slot)
    };
    key_slot > 0 && described(key_slot)
}

// ---- Scenes ---------------------------------------------------------------------------------------

/// Uses keys until there is no room for more.
fn fill_with(step: impl Fn(&str) -> Result<(), OpError>) {
    let full = |error| matches!(error, OpError::TableFull | OpError::LeasesFull);
    let filled = |name: &String| step(name).is_err_and(full);
    (0..10_000).map(|n: u64| format!("filler:{n}")).find(|name| filled(name)).expect("gets full");
}

/// Fills the table of keys up with counters that run for long.
pub(super) fn fill_keys(stage: &Stage) {
    fill_with(|name| stage.engine.add(name, 1, 1_000_000).map(drop));
}

/// A full table in which these keys are idle.
pub(super) fn crowd(stage: &Stage, kind: &Kind, idle: &[&str]) {
    let each = |step: &dyn Fn(&str)| idle.iter().for_each(|name| step(name));
    each(&|name| assert_eq!((kind.charge)(stage, name), Ok(true)));
    (kind.fill)(stage);
    each(&|name| (kind.release)(stage, name));
    stage.clock.advance_s(100);
}

const IDLE: [&str; 4] = ["idle:0", "idle:1", "idle:2", "idle:3"];

fn crowd_of_others(stage: &Stage, kind: &Kind) {
    crowd(stage, kind, &IDLE);
    // Which of them gives its place to the key.
    let gone = stage.tried(|stage| {
        assert_eq!((kind.charge)(stage, kind.key), Ok(true));
        let gone = (0..).zip(IDLE).find(|(_, name)| !(kind.stands)(stage, name));
        [gone.map_or(-1, |(number, _)| number), 0, 0, 0]
    });
    let doomed = usize::try_from(gone[0]).expect("one of them gives its place");
    stage.doomed.replace(IDLE[doomed].to_string());
    stage.usurper.replace("usurper:0".to_string());
}

fn crowd_with_the_key(stage: &Stage, kind: &Kind) {
    let [first, second, third, _] = IDLE;
    crowd(stage, kind, &[kind.key, first, second, third]);
    stage.doomed.replace(first.to_string());
    find_a_usurper(stage, kind);
}

/// A full table in which the key and others are new, and nothing was charged to them.
fn crowd_of_new_keys(stage: &Stage, kind: &Kind) {
    crowd(stage, kind, &IDLE);
    for name in [kind.key, "idle:4", "idle:5", "idle:6"] {
        (kind.insert)(stage, name);
    }
    find(stage, kind, |name| (kind.insert)(stage, name));
}

/// Finds a key that takes the place of the kind's.
pub(super) fn find_a_usurper(stage: &Stage, kind: &Kind) {
    find(stage, kind, |name| assert_eq!((kind.usurp.0)(stage, name), Ok(true)));
}

fn find(stage: &Stage, kind: &Kind, use_it: impl Fn(&str)) {
    let takes = |name: &String| {
        let gone = stage.tried(|stage| {
            use_it(name);
            [i64::from(!(kind.stands)(stage, kind.key)), 0, 0, 0]
        });
        gone != NONE
    };
    let usurper = (0..1_000).map(|n: u64| format!("usurper:{n}")).find(takes);
    stage.usurper.replace(usurper.expect("one takes the place of the key"));
}

// ---- Steps ----------------------------------------------------------------------------------------

/// Charges 1, if there is room.
fn charge(stage: &Stage, charge: Charge, key: &str) -> i64 {
    match charge(stage, key) {
        Ok(charged) => i64::from(charged),
        Err(OpError::TableFull | OpError::LeasesFull) => 0,
        Err(error) => panic!("{error}"),
    }
}

fn charge_key(stage: &Stage, kind: &Kind) -> Effect {
    [charge(stage, kind.charge, kind.key), 0, 0, 0]
}

fn charge_doomed(stage: &Stage, kind: &Kind) -> Effect {
    [0, charge(stage, kind.charge, &stage.doomed.borrow()), 0, 0]
}

fn usurp(stage: &Stage, kind: &Kind) -> Effect {
    [0, 0, charge(stage, kind.usurp.0, &stage.usurper.borrow()), 0]
}

fn take_the_place(stage: &Stage, kind: &Kind) -> Effect {
    (kind.insert)(stage, &stage.usurper.borrow());
    NONE
}

fn taken(stage: &Stage, kind: &Kind) -> Effect {
    let key = |key| (kind.taken)(stage, key);
    [key(kind.key), key(&stage.doomed.borrow()), (kind.usurp.1)(stage, &stage.usurper.borrow()), 0]
}

fn drain(stage: &Stage, kind: &Kind, _: Effect) -> Effect {
    let drained = |key| (kind.drain)(stage, key);
    [drained(kind.key), drained(&stage.doomed.borrow()), 0, 0]
}

fn nudge(stage: &Stage, kind: &Kind) {
    later(stage, joined);
    charge_key(stage, kind);
    (kind.release)(stage, kind.key);
}
