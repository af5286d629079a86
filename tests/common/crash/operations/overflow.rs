//! Keys for which a full table has no room, under each policy.

use super::room::{Kind, QUOTAS, REQUESTS, SLIDINGS, SLOTS, WINDOWS, fill_keys};
use super::{
    ENDLESS, Effect, Home, Meanwhile, NONE, OWNED, Operation, PLAIN, Resource, STAYS, joined,
    later, sum,
};
use crate::crash::stage::{BURST, Stage, WINDOW_LIMIT};
use fast_litellm::config::Overflow;
use fast_litellm::error::OpError;

/// Another key without room.
const OTHER: &str = "usurper:0";

/// What keys without room share.
macro_rules! shared {
    ($kind:ident, $owned:expr, $limit:expr) => {
        Operation {
            home: Home::Small,
            scene: |s| full(s, Overflow::Shared),
            run: |s| charge(s, &$kind, $kind.key),
            does: [1, 0, 0, 0],
            resource: &Resource {
                taken: |s| [($kind.taken)(s, $kind.key), 0, 0, 0],
                drain: |s, _| [($kind.drain)(s, $kind.key), 0, 0, 0],
                nudge: |s| nudge(s, &$kind),
                owned: $owned,
            },
            limits: Some([$limit, ENDLESS, ENDLESS, ENDLESS]),
            meanwhile: &[
                Meanwhile {
                    name: "charge it",
                    step: |s| charge(s, &$kind, $kind.key),
                    forgetful: false,
                },
                Meanwhile {
                    name: "charge another",
                    step: |s| charge(s, &$kind, OTHER),
                    forgetful: false,
                },
            ],
            ..PLAIN
        }
    };
}

const QUOTA: Operation = shared!(QUOTAS, STAYS, BURST as i64);
const SLIDING: Operation = shared!(SLIDINGS, STAYS, WINDOW_LIMIT as i64);
const WINDOW: Operation = shared!(WINDOWS, STAYS, REQUESTS);
const SLOT: Operation = shared!(SLOTS, OWNED, 2);

/// Takes nothing of what processes share.
static NOTHING: Resource =
    Resource { taken: |_| NONE, drain: |_, _| NONE, nudge: |_| {}, owned: STAYS };

const ALONE: Operation = Operation { home: Home::Small, resource: &NOTHING, ..PLAIN };

pub(super) static OPERATIONS: &[Operation] = &[
    Operation { name: "no room, quotas share", ..QUOTA },
    Operation { name: "no room, quotas shared", scene: shared_quota, ..QUOTA },
    Operation { name: "no room, sliding share", ..SLIDING },
    Operation { name: "no room, windows share", ..WINDOW },
    Operation { name: "no room, slots share", ..SLOT },
    Operation {
        name: "no room, slots released",
        before: |s| charge(s, &SLOTS, SLOTS.key),
        run: release,
        does: [-1, 0, 0, 0],
        ..SLOT
    },
    Operation { name: "no room, denied", scene: |s| full(s, Overflow::Deny), run: denied, ..ALONE },
    Operation { name: "no room, local", scene: |s| full(s, Overflow::Local), run: local, ..ALONE },
];

fn full(stage: &Stage, policy: Overflow) {
    fill_keys(stage);
    stage.region().set_overflow(policy);
}

fn shared_quota(stage: &Stage) {
    full(stage, Overflow::Shared);
    sum(charge(stage, &QUOTAS, OTHER), charge(stage, &QUOTAS, QUOTAS.key));
}

fn charge(stage: &Stage, kind: &Kind, key: &str) -> Effect {
    [i64::from((kind.charge)(stage, key).expect("decides")), 0, 0, 0]
}

fn release(stage: &Stage) -> Effect {
    (SLOTS.release)(stage, SLOTS.key);
    [-1, 0, 0, 0]
}

fn denied(stage: &Stage) -> Effect {
    assert_eq!((QUOTAS.charge)(stage, QUOTAS.key), Err(OpError::TableFull));
    NONE
}

fn local(stage: &Stage) -> Effect {
    assert_eq!((QUOTAS.charge)(stage, QUOTAS.key), Ok(true));
    NONE
}

fn nudge(stage: &Stage, kind: &Kind) {
    later(stage, joined);
    charge(stage, kind, kind.key);
    (kind.release)(stage, kind.key);
}
