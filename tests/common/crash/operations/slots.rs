//! Concurrency slots.

use super::windows::SIZE_S;
use super::{
    Effect, Meanwhile, NONE, OWNED, Operation, PLAIN, Resource, joined, signed, sum, times,
    until_refused,
};
use crate::crash::stage::Stage;
use fast_litellm::engine::slots::{Grant, SlotAsk};

pub(super) const SLOTS: &str = "{user:u}:max_parallel_requests";
const TEAM_SLOTS: &str = "{team:t}:max_parallel_requests";
/// Keys of slots in the order of an effect's amounts.
const KEYS: [&str; 2] = [SLOTS, TEAM_SLOTS];

/// Concurrency slots.
pub(super) static LEASES: Resource =
    Resource { taken: leases_taken, drain: drain_leases, nudge: nudge_leases, owned: OWNED };

pub(super) const ACQUIRE: Meanwhile =
    Meanwhile { name: "acquire", step: acquire_user, forgetful: false };
const ACQUIRE_BOTH: Meanwhile =
    Meanwhile { name: "acquire both", step: acquire_both, forgetful: false };
const COME_AND_GO: Meanwhile =
    Meanwhile { name: "come and go", step: come_and_go, forgetful: false };
const ACQUIRE_WIDE: Meanwhile =
    Meanwhile { name: "acquire", step: |s| acquire(s, &[WIDE]), forgetful: false };
pub(super) const REAP_AND_JOIN: Meanwhile =
    Meanwhile { name: "reap, join", step: reap_and_join, forgetful: false };
const REAP_AND_ACQUIRE: Meanwhile =
    Meanwhile { name: "reap, join, acquire", step: reap_and_acquire, forgetful: false };
const ACQUIRE_LATE: Meanwhile =
    Meanwhile { name: "acquire when time is up", step: acquire_late, forgetful: true };

pub(super) const ON_LEASES: Operation = Operation {
    resource: &LEASES,
    limits: Some([2, 2, 0, 0]),
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

pub(super) static OPERATIONS: &[Operation] = &[
    Operation {
        name: "acquire, first of its key",
        run: acquire_user,
        does: [1, 0, 0, 0],
        ..ON_LEASES
    },
    Operation {
        name: "acquire, free",
        scene: used_slots,
        run: acquire_user,
        does: [1, 0, 0, 0],
        ..ON_LEASES
    },
    Operation {
        name: "acquire 2 keys, free",
        scene: used_slots,
        run: acquire_both,
        does: [1, 1, 0, 0],
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
        does: [1, 0, 0, 0],
        ..ON_LEASES
    },
    Operation {
        name: "acquire, limit lowered",
        scene: |s| lowered(s, 3, 2),
        does: [1, 0, 0, 0],
        ..LOWERED
    },
    Operation { name: "acquire, lowered and full", scene: |s| lowered(s, 3, 1), ..LOWERED },
    Operation {
        name: "acquire, second chunk",
        scene: |s| times(s, 32, |s| acquire_as(s, WIDE)),
        run: |s| acquire(s, &[WIDE]),
        does: [1, 0, 0, 0],
        limits: Some([40, 40, 0, 0]),
        meanwhile: &[ACQUIRE_WIDE, REAP_AND_JOIN],
        ..ON_LEASES
    },
    Operation { name: "release", run: release, does: [-1, 0, 0, 0], ..ON_HELD },
    Operation { name: "release, held by nobody", before: joined, run: release, ..ON_HELD },
    Operation { name: "count slots", run: count_slots, ..ON_HELD },
    Operation {
        name: "count slots, of the dead",
        scene: |s| s.somebody_dies(|s| sum(acquire_as(s, USER), acquire_as(s, USER))),
        run: count_slots,
        ..ON_LEASES
    },
    Operation { name: "leave", run: leave, does: [-1, 0, 0, 0], ..ON_HELD },
];

pub(super) const USER: SlotAsk<'static> =
    SlotAsk { key: SLOTS, limit: 2, ttl_s: 0, slot_id: "slot" };
const TEAM: SlotAsk<'static> = SlotAsk { key: TEAM_SLOTS, ..USER };
/// More slots than one chunk has.
const WIDE: SlotAsk<'static> = SlotAsk { limit: 40, ..USER };

pub(super) fn acquire(stage: &Stage, asks: &[SlotAsk<'_>]) -> Effect {
    let held = stage.engine.acquire_all(asks).expect("decides");
    let mut effect = NONE;
    if matches!(held, Grant::Held(_)) {
        for ask in asks {
            effect[usize::from(ask.key != SLOTS)] += 1;
        }
    }
    effect
}

pub(super) fn acquire_user(stage: &Stage) -> Effect {
    acquire(stage, &[USER])
}

pub(super) fn acquire_both(stage: &Stage) -> Effect {
    acquire(stage, &[USER, TEAM])
}

/// Acquires one more slot, under an id of its own.
pub(super) fn acquire_as(stage: &Stage, ask: SlotAsk<'_>) -> Effect {
    let held = stage.engine.count_slots(ask.key, 0).expect("counts");
    acquire(stage, &[SlotAsk { slot_id: &format!("slot-{held}"), ..ask }])
}

pub(super) fn release(stage: &Stage) -> Effect {
    let held = stage.engine.holds_slot(SLOTS, "slot");
    stage.engine.release(SLOTS, "slot").expect("releases");
    [-i64::from(held), 0, 0, 0]
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

pub(super) fn reap(stage: &Stage) -> Effect {
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
    [-held, 0, 0, 0]
}

fn leases_taken(stage: &Stage) -> Effect {
    let [user, team] = KEYS.map(|key| stage.engine.count_slots(key, 0).map_or(-1, signed));
    [user, team, 0, 0]
}

fn drain_leases(stage: &Stage, limits: Effect) -> Effect {
    let [user, team] = KEYS;
    [drain_slots(stage, user, limits[0]), drain_slots(stage, team, limits[1]), 0, 0]
}

/// Acquires slots until there are none, releases them, and says how many they were.
pub(super) fn drain_slots(stage: &Stage, key: &str, limit: i64) -> i64 {
    let id = |n: i64| format!("drain-{n}");
    let acquire = |n| {
        let ask = SlotAsk { key, limit, ttl_s: 0, slot_id: &id(n) };
        matches!(stage.engine.acquire_all(&[ask]), Ok(Grant::Held(_)))
    };
    let drained = until_refused(acquire);
    for n in 0..drained {
        let _ = stage.engine.release(key, &id(n));
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
