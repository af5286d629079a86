//! A rate, a sliding window, an anchored window and a slot in one call.

use super::quotas::{QUOTA, QUOTA_KEY};
use super::room::{self, Kind, QUOTAS, SLIDINGS};
use super::sliding::{SLIDING_KEY, drain_sliding, nudge_sliding, sliding_taken};
use super::slots::{LEASES, REAP_AND_JOIN, SLOTS, USER, acquire};
use super::windows::{SIZE_S, TOKENS, WINDOW, WINDOWS, one};
use super::{
    ENDLESS, Effect, Home, Meanwhile, NONE, Operation, PLAIN, Resource, STAYS, later, signed, sum,
    times,
};
use crate::crash::stage::{BURST, Stage, WINDOW_LIMIT};
use fast_litellm::engine::admission::{Answer, Demand, Rule};
use fast_litellm::engine::slots::SlotAsk;
use fast_litellm::engine::subject::Part;
use fast_litellm::engine::windows::{Ask, Verdict};

/// Requests of a quota, units of a sliding window, tokens of a window, and slots.
static ALL_FOUR: Resource = Resource {
    taken: all_four_taken,
    drain: drain_all_four,
    nudge: nudge_all_four,
    owned: [false, false, false, true],
};

/// In the order of an effect's amounts.
const LIMITS: Effect = [BURST as i64, WINDOW_LIMIT as i64, 50, 2];
/// What one admission takes.
const COSTS: Effect = [1, 2, 10, 1];

const ADMIT: Meanwhile = Meanwhile { name: "admit", step: admit, forgetful: false };
const ADMIT_AND_CANCEL: Meanwhile =
    Meanwhile { name: "admit, cancel", step: |s| sum(admit(s), cancel(s)), forgetful: false };
const FILL_WINDOW: Meanwhile =
    Meanwhile { name: "fill the window", step: fill_window, forgetful: false };
const FILL_SLOTS: Meanwhile =
    Meanwhile { name: "acquire all slots", step: fill_slots, forgetful: false };
const LATER_ADMIT: Meanwhile =
    Meanwhile { name: "a minute, admit", step: |s| later(s, admit), forgetful: true };
const FORGET: Meanwhile =
    Meanwhile { name: "forget the window", step: forget_window, forgetful: true };

const ON_ALL_FOUR: Operation = Operation {
    run: admit,
    does: COSTS,
    resource: &ALL_FOUR,
    limits: Some(LIMITS),
    meanwhile: &[ADMIT, FILL_WINDOW, LATER_ADMIT],
    ..PLAIN
};

/// The same without the slots, and what somebody else charges to a key that takes the place of one of these.
static THREE_AND_A_USURPER: Resource = Resource {
    taken: |stage| {
        let [quota, sliding, tokens, _] = all_four_taken(stage);
        [quota, sliding, tokens, stage.engine.value(&stage.usurper.borrow()).unwrap_or(0)]
    },
    drain: |stage, limits| {
        let [quota, sliding, tokens, _] = drain_all_four(stage, [0, 0, limits[2], 0]);
        [quota, sliding, tokens, 0]
    },
    nudge: nudge_all_four,
    owned: STAYS,
};

const USURP: Meanwhile = Meanwhile { name: "take a place", step: usurp, forgetful: false };
const USURP_AND_ADMIT: Meanwhile = Meanwhile {
    name: "take a place, admit",
    step: |s| sum(usurp(s), admit_three(s)),
    forgetful: false,
};

const IN_A_CROWD: Operation = Operation {
    home: Home::Small,
    run: admit_three,
    does: [1, 2, 10, 0],
    resource: &THREE_AND_A_USURPER,
    limits: Some([LIMITS[0], LIMITS[1], LIMITS[2], ENDLESS]),
    meanwhile: &[USURP, USURP_AND_ADMIT],
    ..PLAIN
};

const ON_REFUSED: Operation =
    Operation { does: NONE, meanwhile: &[ADMIT, LATER_ADMIT], ..ON_ALL_FOUR };

const ON_GRANTED: Operation = Operation {
    scene: admitted,
    before: admit,
    meanwhile: &[ADMIT, FILL_WINDOW, LATER_ADMIT, FORGET],
    ..ON_ALL_FOUR
};

pub(super) static OPERATIONS: &[Operation] = &[
    Operation { name: "admit, new keys", ..ON_ALL_FOUR },
    Operation {
        name: "admit, open",
        scene: admitted,
        meanwhile: &[
            ADMIT,
            ADMIT_AND_CANCEL,
            FILL_WINDOW,
            FILL_SLOTS,
            LATER_ADMIT,
            FORGET,
            REAP_AND_JOIN,
        ],
        ..ON_ALL_FOUR
    },
    Operation { name: "admit, roll-over", scene: admitted_before, ..ON_ALL_FOUR },
    Operation {
        name: "admit, slots of the dead",
        scene: admitted_by_the_dead,
        meanwhile: &[ADMIT, LATER_ADMIT],
        ..ON_ALL_FOUR
    },
    Operation { name: "admit, refused at the look", scene: full_window, ..ON_REFUSED },
    Operation { name: "admit, no slot", scene: |s| times(s, 1, fill_slots), ..ON_REFUSED },
    Operation {
        name: "admit, window taken back",
        scene: admitted,
        disturbance: Some((0, fill_window)),
        transient: [1, 2, 0, 0],
        ..ON_REFUSED
    },
    Operation {
        name: "admit, rate taken back",
        scene: admitted,
        disturbance: Some((0, fill_sliding)),
        transient: [1, 0, 0, 0],
        ..ON_REFUSED
    },
    Operation {
        name: "admit, keys given up",
        scene: crowded,
        meanwhile: &[Meanwhile { name: "admit", step: admit_three, forgetful: false }],
        ..IN_A_CROWD
    },
    Operation { name: "admit, rate idle", scene: |s| idle(s, &QUOTAS), ..IN_A_CROWD },
    Operation { name: "admit, sliding idle", scene: |s| idle(s, &SLIDINGS), ..IN_A_CROWD },
    Operation { name: "admit, window idle", scene: |s| idle(s, &room::WINDOWS), ..IN_A_CROWD },
    Operation { name: "cancel", run: cancel, does: [-1, -2, -10, -1], ..ON_GRANTED },
    Operation {
        name: "settle, less",
        run: |s| settle(s, [0, 1, 4, 0]),
        does: [-1, -1, -6, 0],
        ..ON_GRANTED
    },
    Operation {
        name: "settle, more",
        run: |s| settle(s, [2, 3, 15, 0]),
        does: [1, 1, 5, 0],
        ..ON_GRANTED
    },
    Operation { name: "finish", run: finish, does: [0, 0, 0, -1], ..ON_GRANTED },
];

fn demands(stage: &Stage) -> [Demand<'_>; 4] {
    let [_, _, tokens, slots] = LIMITS.map(i64::unsigned_abs);
    let window = Rule::Window { part: Part::Tokens, limit: tokens, size_s: SIZE_S };
    let key = |key| std::str::from_utf8(key).unwrap_or_default();
    let rules = [
        (key(QUOTA_KEY), Rule::Rate(&stage.limiter)),
        (key(SLIDING_KEY), Rule::Sliding(&stage.sliding)),
        ("{user:u}", window),
        ("{user:u}", Rule::Slots { limit: slots, ttl_s: 0 }),
    ];
    std::array::from_fn(|n| Demand::new(rules[n].0, rules[n].1, COSTS[n].unsigned_abs()))
}

/// Admits, and remembers what it was granted.
fn admit(stage: &Stage) -> Effect {
    let mut demands = demands(stage);
    match stage.engine.admit(&mut demands).expect("decides") {
        Answer::Granted => {
            stage.granted.set(Some(demands.map(|demand| (demand.place, demand.receipt))));
            COSTS
        }
        Answer::Refused(_) => NONE,
    }
}

/// As [`admit`]; slots are not counted.
fn admit_three(stage: &Stage) -> Effect {
    let [quota, sliding, tokens, _] = admit(stage);
    [quota, sliding, tokens, 0]
}

/// All keys are idle in a full table, two others as well, and somebody may take the place of one of these.
fn idle(stage: &Stage, kind: &Kind) {
    admitted(stage);
    room::crowd(stage, &QUOTAS, &["idle:0", "idle:1"]);
    room::find_a_usurper(stage, kind);
}

/// Four others are idle in a full table.
fn crowded(stage: &Stage) {
    room::crowd(stage, &QUOTAS, &["idle:0", "idle:1", "idle:2", "idle:3"]);
}

fn usurp(stage: &Stage) -> Effect {
    stage.engine.add(&stage.usurper.borrow(), 1, SIZE_S).expect("there is room");
    [0, 0, 0, 1]
}

/// Does something with what it was granted the last time.
fn afterwards(stage: &Stage, does: Effect, step: impl FnOnce(&mut [Demand<'_>])) -> Effect {
    let Some(granted) = stage.granted.take() else { return NONE };
    let mut demands = demands(stage);
    for (demand, granted) in demands.iter_mut().zip(granted) {
        (demand.place, demand.receipt) = granted;
    }
    step(&mut demands);
    does
}

fn cancel(stage: &Stage) -> Effect {
    afterwards(stage, COSTS.map(|cost| -cost), |demands| stage.engine.cancel(demands))
}

fn settle(stage: &Stage, used: Effect) -> Effect {
    let mut does: Effect = std::array::from_fn(|n| used[n] - COSTS[n]);
    does[3] = 0;
    afterwards(stage, does, |demands| {
        let used = used.map(i64::unsigned_abs);
        stage.engine.settle(demands, &used).expect("settles");
    })
}

fn finish(stage: &Stage) -> Effect {
    afterwards(stage, [0, 0, 0, -1], |demands| stage.engine.finish(demands))
}

/// One request was admitted and is done.
fn admitted(stage: &Stage) {
    admit(stage);
    finish(stage);
}

fn admitted_before(stage: &Stage) {
    admitted(stage);
    stage.clock.advance_s(61);
}

fn admitted_by_the_dead(stage: &Stage) {
    admitted(stage);
    stage.somebody_dies(|s| sum(admit(s), admit(s)));
}

/// Leaves room for 9 tokens: less than one request takes.
fn fill_window(stage: &Stage) -> Effect {
    let used = stage.engine.value(TOKENS).unwrap_or(0);
    let ask = Ask { amount: (LIMITS[2] - 9 - used).max(0), ..one(1, LIMITS[2]) };
    match stage.engine.admit_all(&[ask]).expect("decides") {
        Verdict::Admitted(_) => [0, 0, ask.amount, 0],
        Verdict::Refused { .. } => NONE,
    }
}

fn full_window(stage: &Stage) {
    admitted(stage);
    fill_window(stage);
}

fn fill_sliding(stage: &Stage) -> Effect {
    [0, drain_sliding(stage, NONE)[0], 0, 0]
}

fn fill_slots(stage: &Stage) -> Effect {
    let [first, second] = ["first", "second"].map(|slot_id| SlotAsk { slot_id, ..USER });
    let taken = sum(acquire(stage, &[first]), acquire(stage, &[second]));
    [0, 0, 0, taken[0]]
}

fn forget_window(stage: &Stage) -> Effect {
    stage.engine.forget(WINDOW);
    NONE
}

fn all_four_taken(stage: &Stage) -> Effect {
    let [quota, ..] = (QUOTA.taken)(stage);
    let [sliding, ..] = sliding_taken(stage);
    let [_, tokens, ..] = (WINDOWS.taken)(stage);
    let slots = stage.engine.count_slots(SLOTS, 0).map_or(-1, signed);
    [quota, sliding, tokens, slots]
}

fn drain_all_four(stage: &Stage, limits: Effect) -> Effect {
    let [quota, ..] = (QUOTA.drain)(stage, limits);
    let [sliding, ..] = drain_sliding(stage, limits);
    let [_, tokens, ..] = (WINDOWS.drain)(stage, [0, limits[2], 0, 0]);
    let [slots, ..] = (LEASES.drain)(stage, [limits[3], 0, 0, 0]);
    [quota, sliding, tokens, slots]
}

fn nudge_all_four(stage: &Stage) {
    nudge_sliding(stage);
    (QUOTA.nudge)(stage);
    (WINDOWS.nudge)(stage);
}
