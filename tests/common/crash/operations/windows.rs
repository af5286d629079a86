//! Anchored windows, and counters outside any window.

use super::{
    Effect, Meanwhile, NONE, Operation, PLAIN, Resource, STAYS, change, joined, later, mark, reset,
    times, until_refused,
};
use crate::crash::stage::Stage;
use fast_litellm::engine::windows::{Ask, Verdict};

pub(super) const WINDOW: &str = "{user:u}:window";
const REQUESTS: &str = "{user:u}:requests";
pub(super) const TOKENS: &str = "{user:u}:tokens";
const TEAM_WINDOW: &str = "{team:t}:window";
const TEAM_REQUESTS: &str = "{team:t}:requests";
pub(crate) const SPEND: &str = "spend:team";
/// Length of all windows.
pub(super) const SIZE_S: u64 = 60;

/// Counters in the order of an effect's amounts, each with its window.
const COUNTERS: [(&str, &str); 3] =
    [(WINDOW, REQUESTS), (WINDOW, TOKENS), (TEAM_WINDOW, TEAM_REQUESTS)];

/// Charges to windows.
pub(super) static WINDOWS: Resource =
    Resource { taken: windows_taken, drain: drain_windows, nudge: nudge_windows, owned: STAYS };
/// Two counters outside any window, neighbours in the key table.
pub(super) static COUNTER: Resource = Resource {
    taken: |stage| {
        let value = |key| stage.engine.value(key).unwrap_or(0);
        [value(SPEND), value(&stage.rival), 0, 0]
    },
    drain: |_, _| NONE,
    nudge: |stage| {
        let _ = stage.engine.add(SPEND, 1, SIZE_S);
    },
    owned: STAYS,
};

const WINDOW_LIMITS: Effect = [5, 50, 7, 0];
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

pub(super) static OPERATIONS: &[Operation] = &[
    Operation {
        name: "hit 1, opening",
        run: |s| hit(s, 1),
        does: [1, 0, 0, 0],
        limits: None,
        ..ON_WINDOWS
    },
    Operation {
        name: "hit 3, opening",
        run: |s| hit(s, 3),
        does: [1, 1, 1, 0],
        limits: None,
        ..ON_WINDOWS
    },
    Operation {
        name: "hit 3, open",
        scene: |s| times(s, 2, |s| hit(s, 3)),
        run: |s| hit(s, 3),
        does: [1, 1, 1, 0],
        limits: None,
        ..ON_WINDOWS
    },
    Operation { name: "admit 1, opening", run: admit_one, does: [1, 0, 0, 0], ..ON_WINDOWS },
    Operation {
        name: "admit 1, open",
        scene: open_windows,
        run: admit_one,
        does: [1, 0, 0, 0],
        ..ON_WINDOWS
    },
    Operation {
        name: "admit 1, roll-over",
        scene: old_windows,
        run: admit_one,
        does: [1, 0, 0, 0],
        ..ON_WINDOWS
    },
    Operation { name: "admit 1, refused", scene: full_requests, run: admit_one, ..ON_WINDOWS },
    Operation {
        name: "admit 1, damaged window",
        scene: damaged_windows,
        run: admit_one,
        does: [1, 0, 0, 0],
        ..ON_WINDOWS
    },
    Operation { name: "admit 3, opening", run: admit_three, does: [1, 10, 1, 0], ..ON_WINDOWS },
    Operation {
        name: "admit 3, open",
        scene: open_windows,
        run: admit_three,
        does: [1, 10, 1, 0],
        ..ON_WINDOWS
    },
    Operation {
        name: "admit 3, roll-over",
        scene: old_windows,
        run: admit_three,
        does: [1, 10, 1, 0],
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
        transient: [1, 0, 0, 0],
        meanwhile: &[],
        ..ON_WINDOWS
    },
    Operation {
        name: "refund",
        scene: open_windows,
        before: charged,
        run: refund,
        does: [-1, 0, 0, 0],
        ..ON_WINDOWS
    },
    Operation { name: "refund, window over", scene: old_windows, run: refund, ..ON_WINDOWS },
    Operation {
        name: "add, open window",
        scene: open_windows,
        run: add_tokens,
        does: [0, 9, 0, 0],
        // What is added to a forgotten window is loose, and ends when the next one opens.
        meanwhile: &[ADMIT_3, FILL_TOKENS, LATER_ADMIT_3],
        ..ON_WINDOWS
    },
    Operation {
        name: "forget a window",
        scene: open_windows,
        run: forget_window,
        does: [-2, -20, 0, 0],
        forgetful: true,
        ..ON_WINDOWS
    },
    Operation {
        name: "reset a window",
        scene: open_windows,
        before: |s| mark(s, "user:u"),
        run: |s| reset(s, &WINDOWS),
        does: [-2, -20, 0, 0],
        forgetful: true,
        meanwhile: &[ADMIT_3, LATER_ADMIT_3],
        ..ON_WINDOWS
    },
    Operation { name: "note limits", scene: open_windows, run: note_limits, ..ON_WINDOWS },
    Operation { name: "add, new counter", run: add_loose, does: [7, 0, 0, 0], ..ON_COUNTER },
    Operation {
        name: "add, running",
        scene: |s| times(s, 2, add_loose),
        run: add_loose,
        does: [7, 0, 0, 0],
        ..ON_COUNTER
    },
    Operation { name: "spend, new key", run: spend, does: [1_500_000, 0, 0, 0], ..ON_COUNTER },
    Operation {
        name: "reset a counter",
        scene: |s| times(s, 2, add_loose),
        before: |s| mark(s, "spend:team"),
        run: |s| reset(s, &COUNTER),
        does: [-14, 0, 0, 0],
        forgetful: true,
        ..ON_COUNTER
    },
    Operation {
        name: "forget a counter",
        scene: |s| times(s, 2, add_loose),
        run: forget_counter,
        does: [-14, 0, 0, 0],
        forgetful: true,
        ..ON_COUNTER
    },
];

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
    let [requests, tokens, team, _] = WINDOW_LIMITS;
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
    [0, charged[0], 0, 0]
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
    [-i64::from(done.is_ok()), 0, 0, 0]
}

fn add_tokens(stage: &Stage) -> Effect {
    stage.engine.add(TOKENS, 9, SIZE_S).expect("counts");
    [0, 9, 0, 0]
}

fn note_limits(stage: &Stage) -> Effect {
    stage.engine.note_limits("{user:u}", 9, 90).expect("there is room");
    NONE
}

fn forget_window(stage: &Stage) -> Effect {
    change(stage, &WINDOWS, |engine| engine.forget(WINDOW))
}

fn add_loose(stage: &Stage) -> Effect {
    stage.engine.add(SPEND, 7, SIZE_S).expect("counts");
    [7, 0, 0, 0]
}

/// One and a half, in millionths.
fn spend(stage: &Stage) -> Effect {
    stage.engine.spend(SPEND, 1.5, SIZE_S).expect("counts");
    [1_500_000, 0, 0, 0]
}

fn add_to_rival(stage: &Stage) -> Effect {
    stage.engine.add(&stage.rival, 7, SIZE_S).expect("counts");
    [0, 7, 0, 0]
}

fn forget_counter(stage: &Stage) -> Effect {
    change(stage, &COUNTER, |engine| engine.forget(SPEND))
}

fn windows_taken(stage: &Stage) -> Effect {
    let [user, tokens, team] =
        COUNTERS.map(|(_, counter)| stage.engine.value(counter).unwrap_or(0));
    [user, tokens, team, 0]
}

/// A charge of 1 to one counter.
pub(super) fn one(number: usize, limit: i64) -> Ask<'static> {
    let (window, counter) = COUNTERS[number];
    Ask { window, counter, limit, amount: 1, size_s: SIZE_S }
}

fn drain_windows(stage: &Stage, limits: Effect) -> Effect {
    let left = |number: usize| {
        let ask = [one(number, limits[number])];
        until_refused(|_| matches!(stage.engine.admit_all(&ask), Ok(Verdict::Admitted(_))))
    };
    [left(0), left(1), left(2), 0]
}

fn nudge_windows(stage: &Stage) {
    stage.clock.advance_s(61);
    let _ = stage.engine.hit_all(&COUNTERS, SIZE_S);
}
