//! The operations, and what others may do in the middle of one. A new operation is one more entry of
//! [`OPERATIONS`].

use super::resources::{
    COUNTER, COUNTERS, ERRORS, FEATURE, LEASES, QUOTA, QUOTA_KEY, REQUESTS, Resource, SIZE_S,
    SLOTS, SPEND, TEAM_SLOTS, TOKENS, WINDOW, WINDOWS, one, signed,
};
use super::stage::{BURST, Stage};
use fast_litellm::engine::Engine;
use fast_litellm::engine::slots::{Grant, SlotAsk};
use fast_litellm::engine::windows::{Ask, Verdict};
use fast_litellm::liveness::Process;
use fast_litellm::primitives::gcra::Decision;
use fast_litellm::region::attach_file;
use fast_litellm::region::host;
use fast_litellm::tables::workers;

/// What something took of each of a resource's amounts; negative = it gave back.
pub(crate) type Effect = [i64; 3];

pub(crate) const NONE: Effect = [0; 3];

/// Something that a process does, and what it took by that.
pub(crate) type Step = fn(&Stage) -> Effect;

pub(crate) fn sum(a: Effect, b: Effect) -> Effect {
    std::array::from_fn(|n| a[n] + b[n])
}

/// Where the region is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// Inherited memory, with a clock that stands still.
    Inherited,
    /// A named file, with the kernel's clock.
    Named,
}

/// What somebody else does while the victim is stopped.
pub(crate) struct Meanwhile {
    pub(crate) name: &'static str,
    pub(crate) step: Step,
    /// It may end what was taken before, or what the victim takes: time passes, or a key is forgotten.
    pub(crate) forgetful: bool,
}

/// One operation.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) home: Home,
    /// What has happened before, by the parent or by processes that are gone.
    pub(crate) scene: fn(&Stage),
    /// What the victim has done before.
    pub(crate) before: Step,
    /// The operation. Says what it did, by the engine's answer.
    pub(crate) run: Step,
    /// What it says when nobody meets it.
    pub(crate) does: Effect,
    pub(crate) resource: &'static Resource,
    /// Most that may be taken of the resource.
    pub(crate) limits: Option<Effect>,
    /// It ends what was taken before.
    pub(crate) forgetful: bool,
    /// What it may take and give back again on its way.
    pub(crate) transient: Effect,
    /// What somebody else does after so many of the victim's writes, so that it takes a way of its own.
    pub(crate) disturbance: Option<(usize, Step)>,
    /// Slots above the limit are in use, so one more may be claimed for an instant.
    pub(crate) overhang: bool,
    /// It maps the region itself, so it is followed from write to write and not by instructions.
    pub(crate) maps: bool,
    /// What others do while it is stopped and goes on afterwards.
    pub(crate) meanwhile: &'static [Meanwhile],
}

const PLAIN: Operation = Operation {
    name: "",
    home: Home::Inherited,
    scene: |_| {},
    before: joined,
    run: |_| NONE,
    does: NONE,
    resource: &ERRORS,
    limits: None,
    forgetful: false,
    transient: NONE,
    disturbance: None,
    overhang: false,
    maps: false,
    meanwhile: &[],
};

const CHECK: Meanwhile = Meanwhile { name: "check", step: check, forgetful: false };
const LATER_CHECK: Meanwhile =
    Meanwhile { name: "a minute, check", step: |s| later(s, check), forgetful: true };

const USE_UP_LATER: Meanwhile =
    Meanwhile { name: "two minutes, use it up", step: use_up_later, forgetful: true };

const ON_QUOTA: Operation = Operation {
    resource: &QUOTA,
    limits: Some([BURST as i64, 0, 0]),
    meanwhile: &[CHECK, LATER_CHECK, USE_UP_LATER],
    ..PLAIN
};

const WINDOW_LIMITS: Effect = [5, 50, 7];
const ADMIT_3: Meanwhile = Meanwhile { name: "admit 3", step: admit_three, forgetful: false };
const FILL_TOKENS: Meanwhile =
    Meanwhile { name: "fill tokens", step: fill_tokens, forgetful: false };
const LATER_ADMIT_3: Meanwhile =
    Meanwhile { name: "a minute, admit 3", step: |s| later(s, admit_three), forgetful: true };
const FORGET: Meanwhile = Meanwhile { name: "forget", step: forget_window, forgetful: true };

const ON_WINDOWS: Operation = Operation {
    resource: &WINDOWS,
    limits: Some(WINDOW_LIMITS),
    meanwhile: &[ADMIT_3, FILL_TOKENS, LATER_ADMIT_3, FORGET],
    ..PLAIN
};

const ON_COUNTER: Operation = Operation {
    resource: &COUNTER,
    meanwhile: &[
        Meanwhile { name: "add", step: add_loose, forgetful: false },
        Meanwhile { name: "add to a rival", step: add_to_rival, forgetful: false },
        Meanwhile { name: "a minute, add", step: |s| later(s, add_loose), forgetful: true },
        Meanwhile { name: "forget", step: forget_counter, forgetful: true },
    ],
    ..PLAIN
};

const ON_ERRORS: Operation = Operation {
    meanwhile: &[
        Meanwhile { name: "error", step: feature_error, forgetful: false },
        Meanwhile { name: "reset", step: reset_feature, forgetful: true },
    ],
    ..PLAIN
};

const ACQUIRE: Meanwhile = Meanwhile { name: "acquire", step: acquire_user, forgetful: false };
const ACQUIRE_BOTH: Meanwhile =
    Meanwhile { name: "acquire both", step: acquire_both, forgetful: false };
const COME_AND_GO: Meanwhile =
    Meanwhile { name: "come and go", step: come_and_go, forgetful: false };
const ACQUIRE_WIDE: Meanwhile =
    Meanwhile { name: "acquire", step: |s| acquire(s, &[WIDE]), forgetful: false };
const REAP_AND_JOIN: Meanwhile =
    Meanwhile { name: "reap, join", step: reap_and_join, forgetful: false };
const REAP_AND_ACQUIRE: Meanwhile =
    Meanwhile { name: "reap, join, acquire", step: reap_and_acquire, forgetful: false };
const ACQUIRE_LATE: Meanwhile =
    Meanwhile { name: "acquire when time is up", step: acquire_late, forgetful: true };

const ON_LEASES: Operation = Operation {
    resource: &LEASES,
    limits: Some([2, 2, 0]),
    meanwhile: &[ACQUIRE, ACQUIRE_BOTH, COME_AND_GO, REAP_AND_ACQUIRE, ACQUIRE_LATE],
    ..PLAIN
};

const ON_HELD: Operation = Operation { before: acquire_user, ..ON_LEASES };

const LOWERED: Operation = Operation {
    run: acquire_user,
    overhang: true,
    meanwhile: &[COME_AND_GO, REAP_AND_JOIN],
    ..ON_LEASES
};

/// Every operation.
pub(crate) static OPERATIONS: &[Operation] = &[
    // Keys and quotas.
    Operation { name: "insert a key", run: insert, ..ON_QUOTA },
    Operation { name: "check, new key", run: check, does: [1, 0, 0], ..ON_QUOTA },
    Operation {
        name: "check, hot key",
        scene: |s| times(s, 2, check),
        run: check,
        does: [1, 0, 0],
        ..ON_QUOTA
    },
    Operation {
        name: "check, idle key",
        scene: idle_quota,
        run: check,
        does: [1, 0, 0],
        ..ON_QUOTA
    },
    Operation { name: "check, refused", scene: |s| times(s, BURST, check), run: check, ..ON_QUOTA },
    Operation { name: "check, damaged", scene: damaged_quota, run: check, ..ON_QUOTA },
    // Windows and counters.
    Operation {
        name: "hit 1, opening",
        run: |s| hit(s, 1),
        does: [1, 0, 0],
        limits: None,
        ..ON_WINDOWS
    },
    Operation {
        name: "hit 3, opening",
        run: |s| hit(s, 3),
        does: [1, 1, 1],
        limits: None,
        ..ON_WINDOWS
    },
    Operation {
        name: "hit 3, open",
        scene: |s| times(s, 2, |s| hit(s, 3)),
        run: |s| hit(s, 3),
        does: [1, 1, 1],
        limits: None,
        ..ON_WINDOWS
    },
    Operation { name: "admit 1, opening", run: admit_one, does: [1, 0, 0], ..ON_WINDOWS },
    Operation {
        name: "admit 1, open",
        scene: open_windows,
        run: admit_one,
        does: [1, 0, 0],
        ..ON_WINDOWS
    },
    Operation {
        name: "admit 1, roll-over",
        scene: old_windows,
        run: admit_one,
        does: [1, 0, 0],
        ..ON_WINDOWS
    },
    Operation { name: "admit 1, refused", scene: full_requests, run: admit_one, ..ON_WINDOWS },
    Operation {
        name: "admit 1, damaged window",
        scene: damaged_windows,
        run: admit_one,
        does: [1, 0, 0],
        ..ON_WINDOWS
    },
    Operation { name: "admit 3, opening", run: admit_three, does: [1, 10, 1], ..ON_WINDOWS },
    Operation {
        name: "admit 3, open",
        scene: open_windows,
        run: admit_three,
        does: [1, 10, 1],
        ..ON_WINDOWS
    },
    Operation {
        name: "admit 3, roll-over",
        scene: old_windows,
        run: admit_three,
        does: [1, 10, 1],
        ..ON_WINDOWS
    },
    Operation {
        name: "admit 3, second refused",
        scene: full_tokens,
        run: admit_three,
        ..ON_WINDOWS
    },
    Operation {
        name: "admit 3, taken back",
        scene: open_windows,
        run: admit_three,
        disturbance: Some((0, fill_tokens)),
        transient: [1, 0, 0],
        meanwhile: &[],
        ..ON_WINDOWS
    },
    Operation {
        name: "refund",
        scene: open_windows,
        before: charged,
        run: refund,
        does: [-1, 0, 0],
        ..ON_WINDOWS
    },
    Operation { name: "refund, window over", scene: old_windows, run: refund, ..ON_WINDOWS },
    Operation {
        name: "add, open window",
        scene: open_windows,
        run: add_tokens,
        does: [0, 9, 0],
        // What is added to a forgotten window is loose, and ends when the next one opens.
        meanwhile: &[ADMIT_3, FILL_TOKENS, LATER_ADMIT_3],
        ..ON_WINDOWS
    },
    Operation {
        name: "forget a window",
        scene: open_windows,
        run: forget_window,
        does: [-2, -20, 0],
        forgetful: true,
        ..ON_WINDOWS
    },
    Operation { name: "note limits", scene: open_windows, run: note_limits, ..ON_WINDOWS },
    Operation { name: "add, new counter", run: add_loose, does: [7, 0, 0], ..ON_COUNTER },
    Operation {
        name: "add, running",
        scene: |s| times(s, 2, add_loose),
        run: add_loose,
        does: [7, 0, 0],
        ..ON_COUNTER
    },
    Operation {
        name: "forget a counter",
        scene: |s| times(s, 2, add_loose),
        run: forget_counter,
        does: [-14, 0, 0],
        forgetful: true,
        ..ON_COUNTER
    },
    // Concurrency slots.
    Operation {
        name: "acquire, first of its key",
        run: acquire_user,
        does: [1, 0, 0],
        ..ON_LEASES
    },
    Operation {
        name: "acquire, free",
        scene: used_slots,
        run: acquire_user,
        does: [1, 0, 0],
        ..ON_LEASES
    },
    Operation {
        name: "acquire 2 keys, free",
        scene: used_slots,
        run: acquire_both,
        does: [1, 1, 0],
        ..ON_LEASES
    },
    Operation {
        name: "acquire 2 keys, second full",
        scene: |s| times(s, 2, |s| acquire_as(s, TEAM)),
        run: acquire_both,
        ..ON_LEASES
    },
    Operation {
        name: "acquire, refused",
        scene: |s| times(s, 2, |s| acquire_as(s, USER)),
        run: acquire_user,
        ..ON_LEASES
    },
    Operation {
        name: "acquire, full of the dead",
        scene: |s| s.somebody_dies(|s| sum(acquire_as(s, USER), acquire_as(s, USER))),
        run: acquire_user,
        does: [1, 0, 0],
        ..ON_LEASES
    },
    Operation {
        name: "acquire, limit lowered",
        scene: |s| lowered(s, 3, 2),
        does: [1, 0, 0],
        ..LOWERED
    },
    Operation { name: "acquire, lowered and full", scene: |s| lowered(s, 3, 1), ..LOWERED },
    Operation {
        name: "acquire, second chunk",
        scene: |s| times(s, 32, |s| acquire_as(s, WIDE)),
        run: |s| acquire(s, &[WIDE]),
        does: [1, 0, 0],
        limits: Some([40, 40, 0]),
        meanwhile: &[ACQUIRE_WIDE, REAP_AND_JOIN],
        ..ON_LEASES
    },
    Operation { name: "release", run: release, does: [-1, 0, 0], ..ON_HELD },
    Operation { name: "release, held by nobody", before: joined, run: release, ..ON_HELD },
    Operation { name: "count slots", run: count_slots, ..ON_HELD },
    Operation {
        name: "count slots, of the dead",
        scene: |s| s.somebody_dies(|s| sum(acquire_as(s, USER), acquire_as(s, USER))),
        run: count_slots,
        ..ON_LEASES
    },
    Operation { name: "leave", run: leave, does: [-1, 0, 0], ..ON_HELD },
    // Workers.
    Operation { name: "register", before: |_| NONE, run: joined, ..ON_LEASES },
    Operation {
        name: "register, full of the dead",
        scene: crowd,
        before: |_| NONE,
        run: joined,
        limits: None,
        meanwhile: &[REAP_AND_JOIN],
        ..ON_LEASES
    },
    Operation { name: "reap", scene: |s| s.somebody_dies(acquire_both), run: reap, ..ON_LEASES },
    Operation {
        name: "attach by name",
        home: Home::Named,
        before: |_| NONE,
        run: attach,
        maps: true,
        meanwhile: &[ACQUIRE, REAP_AND_JOIN],
        ..ON_LEASES
    },
    // Features.
    Operation { name: "feature error", run: feature_error, does: [1, 0, 0], ..ON_ERRORS },
    Operation {
        name: "feature reset",
        scene: |s| times(s, 2, feature_error),
        run: reset_feature,
        does: [-2, 0, 0],
        forgetful: true,
        ..ON_ERRORS
    },
];

// ---- Steps ----------------------------------------------------------------------------------------

fn times(stage: &Stage, times: u32, step: Step) {
    for _ in 0..times {
        step(stage);
    }
}

fn later(stage: &Stage, step: Step) -> Effect {
    stage.clock.advance_s(61);
    step(stage)
}

/// Registers.
fn joined(stage: &Stage) -> Effect {
    stage.engine.me();
    NONE
}

fn insert(stage: &Stage) -> Effect {
    stage.engine.place(&stage.limiter, QUOTA_KEY).expect("there is room");
    NONE
}

fn check(stage: &Stage) -> Effect {
    match stage.engine.check(&stage.limiter, QUOTA_KEY).expect("decides") {
        Decision::Allowed { .. } => [1, 0, 0],
        Decision::Denied { .. } => NONE,
    }
}

/// What is damaged heals within a minute; then all of it is there again.
fn use_up_later(stage: &Stage) -> Effect {
    later(stage, check);
    stage.clock.advance_s(61);
    (0..BURST).fold(NONE, |used, _| sum(used, check(stage)))
}

fn idle_quota(stage: &Stage) {
    times(stage, 2, check);
    stage.clock.advance_s(3600);
}

/// Charges of an hour ahead.
fn damaged_quota(stage: &Stage) {
    stage.clock.advance_s(3600);
    times(stage, 2, check);
    stage.clock.advance_s(-3600);
}

fn hit(stage: &Stage, counters: usize) -> Effect {
    stage.engine.hit_all(&COUNTERS[..counters], SIZE_S).expect("counts");
    std::array::from_fn(|n| i64::from(n < counters))
}

fn admit(stage: &Stage, asks: &[Ask<'_>]) -> Effect {
    match stage.engine.admit_all(asks).expect("decides") {
        Verdict::Admitted(_) => std::array::from_fn(|n| asks.get(n).map_or(0, |ask| ask.amount)),
        Verdict::Refused { .. } => NONE,
    }
}

fn admit_one(stage: &Stage) -> Effect {
    admit(stage, &[one(0, WINDOW_LIMITS[0])])
}

fn admit_three(stage: &Stage) -> Effect {
    let [requests, tokens, team] = WINDOW_LIMITS;
    admit(stage, &[one(0, requests), Ask { amount: 10, ..one(1, tokens) }, one(2, team)])
}

/// Leaves room for 9 tokens: less than one request takes.
fn fill_tokens(stage: &Stage) -> Effect {
    let used = stage.engine.value(TOKENS).unwrap_or(0);
    let amount = WINDOW_LIMITS[1] - 9 - used;
    if amount <= 0 {
        return NONE;
    }
    let charged = admit(stage, &[Ask { amount, ..one(1, WINDOW_LIMITS[1]) }]);
    [0, charged[0], 0]
}

fn open_windows(stage: &Stage) {
    times(stage, 2, admit_three);
}

fn old_windows(stage: &Stage) {
    times(stage, 2, admit_three);
    charged(stage);
    stage.clock.advance_s(61);
}

/// Windows of an hour ahead.
fn damaged_windows(stage: &Stage) {
    stage.clock.advance_s(3600);
    times(stage, 2, admit_three);
    stage.clock.advance_s(-3600);
}

fn full_requests(stage: &Stage) {
    times(stage, 5, admit_one);
}

fn full_tokens(stage: &Stage) {
    open_windows(stage);
    fill_tokens(stage);
}

/// Remembers the window that is open, for a refund.
fn charged(stage: &Stage) -> Effect {
    joined(stage);
    let start = stage.engine.value(WINDOW).and_then(|start| u64::try_from(start).ok());
    stage.window_start.set(start);
    NONE
}

/// Takes one request back if its window is still open.
fn refund(stage: &Stage) -> Effect {
    let start = stage.window_start.get();
    let done = stage.engine.adjust_if_window(WINDOW, REQUESTS, start, -1).expect("decides");
    [-i64::from(done.is_ok()), 0, 0]
}

fn add_tokens(stage: &Stage) -> Effect {
    stage.engine.add(TOKENS, 9, SIZE_S).expect("counts");
    [0, 9, 0]
}

fn note_limits(stage: &Stage) -> Effect {
    stage.engine.note_limits("{user:u}", 9, 90).expect("there is room");
    NONE
}

/// Runs `step` and says what it changed of the counters.
fn change(stage: &Stage, resource: &Resource, step: impl FnOnce(&Engine)) -> Effect {
    let before = (resource.taken)(stage);
    step(&stage.engine);
    let after = (resource.taken)(stage);
    std::array::from_fn(|n| after[n] - before[n])
}

fn forget_window(stage: &Stage) -> Effect {
    change(stage, &WINDOWS, |engine| engine.forget(WINDOW))
}

fn add_loose(stage: &Stage) -> Effect {
    stage.engine.add(SPEND, 7, SIZE_S).expect("counts");
    [7, 0, 0]
}

fn add_to_rival(stage: &Stage) -> Effect {
    stage.engine.add(&stage.rival, 7, SIZE_S).expect("counts");
    [0, 7, 0]
}

fn forget_counter(stage: &Stage) -> Effect {
    change(stage, &COUNTER, |engine| engine.forget(SPEND))
}

const USER: SlotAsk<'static> = SlotAsk { key: SLOTS, limit: 2, ttl_s: 0, slot_id: "slot" };
const TEAM: SlotAsk<'static> = SlotAsk { key: TEAM_SLOTS, ..USER };
/// More slots than one chunk has.
const WIDE: SlotAsk<'static> = SlotAsk { limit: 40, ..USER };

fn acquire(stage: &Stage, asks: &[SlotAsk<'_>]) -> Effect {
    let held = stage.engine.acquire_all(asks).expect("decides");
    let mut effect = NONE;
    if matches!(held, Grant::Held(_)) {
        for ask in asks {
            effect[usize::from(ask.key != SLOTS)] += 1;
        }
    }
    effect
}

fn acquire_user(stage: &Stage) -> Effect {
    acquire(stage, &[USER])
}

fn acquire_both(stage: &Stage) -> Effect {
    acquire(stage, &[USER, TEAM])
}

/// Acquires one more slot, under an id of its own.
fn acquire_as(stage: &Stage, ask: SlotAsk<'_>) -> Effect {
    let held = stage.engine.count_slots(ask.key, 0).expect("counts");
    acquire(stage, &[SlotAsk { slot_id: &format!("slot-{held}"), ..ask }])
}

fn release(stage: &Stage) -> Effect {
    let held = stage.engine.holds_slot(SLOTS, "slot");
    stage.engine.release(SLOTS, "slot").expect("releases");
    [-i64::from(held), 0, 0]
}

fn come_and_go(stage: &Stage) -> Effect {
    sum(acquire(stage, &[USER]), release(stage))
}

fn count_slots(stage: &Stage) -> Effect {
    let counted = stage.engine.count_slots(SLOTS, 0).expect("counts");
    assert!(signed(counted) <= 2, "{counted} slots are held, 2 allowed");
    NONE
}

/// One slot of each key is held by the parent; both keys have been in use.
fn used_slots(stage: &Stage) {
    acquire_as(stage, USER);
    acquire_as(stage, TEAM);
}

/// `most` slots were held while the limit was higher; the first `released` of them no longer are.
fn lowered(stage: &Stage, most: u32, released: u32) {
    let engine = &stage.engine;
    for n in 0..most {
        acquire(stage, &[SlotAsk { limit: 5, slot_id: &n.to_string(), ..USER }]);
    }
    for n in 0..released {
        engine.release(SLOTS, &n.to_string()).expect("releases");
    }
}

fn reap(stage: &Stage) -> Effect {
    stage.engine.reap_dead();
    NONE
}

/// A process that has not registered yet reaps, takes the first free row, and a slot.
fn reap_and_acquire(stage: &Stage) -> Effect {
    stage.engine.reap_dead();
    acquire(stage, &[USER])
}

fn reap_and_join(stage: &Stage) -> Effect {
    stage.engine.reap_dead();
    joined(stage)
}

/// Takes the slots of others whose time is up.
fn acquire_late(stage: &Stage) -> Effect {
    stage.clock.advance_s(61);
    let late = |slot_id| SlotAsk { ttl_s: SIZE_S, slot_id, ..USER };
    sum(acquire(stage, &[late("late-1")]), acquire(stage, &[late("late-2")]))
}

fn leave(stage: &Stage) -> Effect {
    let held = i64::from(stage.engine.holds_slot(SLOTS, "slot"));
    stage.engine.leave();
    [-held, 0, 0]
}

/// The worker table is full; one row's process is dead.
fn crowd(stage: &Stage) {
    stage.somebody_dies(acquire_both);
    let me = Process {
        pid: std::process::id(),
        start_ticks: host::own_start_ticks(),
        pid_namespace: host::namespace("pid"),
    };
    let rows = stage.region().workers();
    while workers::register(rows, me, 1).is_some() {}
}

/// Attaches by name, uses the region if there is a free slot, and leaves it.
fn attach(stage: &Stage) -> Effect {
    let engine = Engine::new(attach_file(&stage.path).expect("attaches"));
    engine.acquire_all(&[USER]).expect("decides");
    engine.release(SLOTS, "slot").expect("releases");
    engine.leave();
    // Unmapped memory could no longer be followed.
    std::mem::forget(engine);
    NONE
}

fn feature_error(stage: &Stage) -> Effect {
    stage.engine.feature_error(FEATURE);
    [1, 0, 0]
}

fn reset_feature(stage: &Stage) -> Effect {
    change(stage, &ERRORS, |engine| engine.reset_feature(FEATURE))
}
