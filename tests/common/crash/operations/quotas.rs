//! Quotas that earn requests with time.

use super::{
    Effect, Meanwhile, NONE, Operation, PLAIN, Resource, STAYS, later, mark, reset, signed, sum,
    times, until_refused,
};
use crate::crash::stage::{BURST, Stage};
use fast_litellm::primitives::gcra::Decision;

pub(super) const QUOTA_KEY: &[u8] = b"quota";

/// Requests at one instant, from a quota that gives [`BURST`].
pub(super) static QUOTA: Resource =
    Resource { taken: quota_taken, drain: drain_quota, nudge: nudge_quota, owned: STAYS };

const CHECK: Meanwhile = Meanwhile { name: "check", step: check, forgetful: false };
const LATER_CHECK: Meanwhile =
    Meanwhile { name: "a minute, check", step: |s| later(s, check), forgetful: true };

const USE_UP_LATER: Meanwhile =
    Meanwhile { name: "two minutes, use it up", step: use_up_later, forgetful: true };

const ON_QUOTA: Operation = Operation {
    resource: &QUOTA,
    limits: Some([BURST as i64, 0, 0, 0]),
    meanwhile: &[CHECK, LATER_CHECK, USE_UP_LATER],
    ..PLAIN
};

pub(super) static OPERATIONS: &[Operation] = &[
    Operation { name: "insert a key", run: insert, ..ON_QUOTA },
    Operation { name: "check, new key", run: check, does: [1, 0, 0, 0], ..ON_QUOTA },
    Operation {
        name: "check, hot key",
        scene: |s| times(s, 2, check),
        run: check,
        does: [1, 0, 0, 0],
        ..ON_QUOTA
    },
    Operation {
        name: "check, idle key",
        scene: idle_quota,
        run: check,
        does: [1, 0, 0, 0],
        ..ON_QUOTA
    },
    Operation { name: "check, refused", scene: |s| times(s, BURST, check), run: check, ..ON_QUOTA },
    Operation {
        name: "reset a quota",
        scene: |s| times(s, 2, check),
        before: |s| mark(s, "quota"),
        run: |s| reset(s, &QUOTA),
        does: [-2, 0, 0, 0],
        forgetful: true,
        ..ON_QUOTA
    },
    Operation { name: "check, damaged", scene: damaged_quota, run: check, ..ON_QUOTA },
];

fn insert(stage: &Stage) -> Effect {
    stage.engine.place(&stage.limiter, QUOTA_KEY).expect("there is room");
    NONE
}

fn check(stage: &Stage) -> Effect {
    match stage.engine.check(&stage.limiter, QUOTA_KEY).expect("decides") {
        Decision::Allowed { .. } => [1, 0, 0, 0],
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

fn quota_taken(stage: &Stage) -> Effect {
    let left = stage.engine.remaining(&stage.limiter, QUOTA_KEY);
    [i64::from(BURST) - signed(left), 0, 0, 0]
}

fn drain_quota(stage: &Stage, _: Effect) -> Effect {
    let check = |_| {
        let decision = stage.engine.check(&stage.limiter, QUOTA_KEY);
        matches!(decision, Ok(Decision::Allowed { .. }))
    };
    [until_refused(check), 0, 0, 0]
}

fn nudge_quota(stage: &Stage) {
    stage.clock.advance_s(61);
    let _ = stage.engine.check(&stage.limiter, QUOTA_KEY);
}
