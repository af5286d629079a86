//! Sliding windows.

use super::{
    Effect, Meanwhile, NONE, Operation, PLAIN, Resource, STAYS, later, mark, reset, signed, times,
    until_refused,
};
use crate::crash::stage::{Stage, WINDOW_LIMIT, WINDOW_S};
use fast_litellm::primitives::sliding::Decision;

pub(super) const SLIDING_KEY: &[u8] = b"sliding";

/// Requests in a window that gives [`WINDOW_LIMIT`].
static SLIDING: Resource =
    Resource { taken: sliding_taken, drain: drain_sliding, nudge: nudge_sliding, owned: STAYS };

const CHECK: Meanwhile = Meanwhile { name: "check", step: check, forgetful: false };
const FILL: Meanwhile = Meanwhile { name: "fill", step: fill, forgetful: false };
const NEXT_CHECK: Meanwhile =
    Meanwhile { name: "the next window, check", step: next_check, forgetful: true };
const LATER_CHECK: Meanwhile =
    Meanwhile { name: "a minute, check", step: |s| later(s, check), forgetful: true };

const ON_SLIDING: Operation = Operation {
    run: check,
    does: [2, 0, 0, 0],
    resource: &SLIDING,
    limits: Some([WINDOW_LIMIT as i64, 0, 0, 0]),
    meanwhile: &[CHECK, FILL, NEXT_CHECK, LATER_CHECK],
    ..PLAIN
};

pub(super) static OPERATIONS: &[Operation] = &[
    Operation { name: "slide, new key", ..ON_SLIDING },
    Operation { name: "slide, hot key", scene: |s| times(s, 2, check), ..ON_SLIDING },
    Operation { name: "slide, roll-over", scene: charged_before, ..ON_SLIDING },
    Operation { name: "slide, idle key", scene: idle, ..ON_SLIDING },
    Operation { name: "slide, refused", scene: |s| times(s, 6, check), does: NONE, ..ON_SLIDING },
    Operation {
        name: "reset a sliding window",
        scene: |s| times(s, 2, check),
        before: |s| mark(s, "sliding"),
        run: |s| reset(s, &SLIDING),
        does: [-4, 0, 0, 0],
        forgetful: true,
        ..ON_SLIDING
    },
    Operation { name: "slide, damaged", scene: damaged, ..ON_SLIDING },
];

/// Two requests.
fn check(stage: &Stage) -> Effect {
    charge(stage, 2)
}

fn charge(stage: &Stage, cost: u64) -> Effect {
    match stage.engine.check_sliding(&stage.sliding, SLIDING_KEY, cost).expect("decides") {
        Decision::Allowed { .. } => [signed(cost), 0, 0, 0],
        Decision::Denied { .. } => NONE,
    }
}

/// Leaves room for one request.
fn fill(stage: &Stage) -> Effect {
    let left = stage.engine.remaining_sliding(&stage.sliding, SLIDING_KEY);
    charge(stage, left.saturating_sub(1))
}

fn next_check(stage: &Stage) -> Effect {
    stage.clock.advance_s(signed(WINDOW_S));
    check(stage)
}

/// In the window before the present one.
fn charged_before(stage: &Stage) {
    times(stage, 2, check);
    stage.clock.advance_s(signed(WINDOW_S));
    check(stage);
}

fn idle(stage: &Stage) {
    times(stage, 2, check);
    stage.clock.advance_s(3600);
}

/// Charges of an hour ahead.
fn damaged(stage: &Stage) {
    stage.clock.advance_s(3600);
    times(stage, 2, check);
    stage.clock.advance_s(-3600);
}

pub(super) fn sliding_taken(stage: &Stage) -> Effect {
    let left = stage.engine.remaining_sliding(&stage.sliding, SLIDING_KEY);
    [i64::from(WINDOW_LIMIT) - signed(left), 0, 0, 0]
}

pub(super) fn drain_sliding(stage: &Stage, _: Effect) -> Effect {
    [until_refused(|_| charge(stage, 1) != NONE), 0, 0, 0]
}

pub(super) fn nudge_sliding(stage: &Stage) {
    later(stage, check);
}
