//! The worker table, and attaching.

use super::slots::{ACQUIRE, ON_LEASES, REAP_AND_JOIN, SLOTS, USER, acquire_both, reap};
use super::{Effect, Home, NONE, Operation, joined};
use crate::crash::stage::Stage;
use fast_litellm::engine::Engine;
use fast_litellm::liveness::Process;
use fast_litellm::region::{attach_file, host};
use fast_litellm::tables::workers;

pub(super) static OPERATIONS: &[Operation] = &[
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
        name: "reap all",
        scene: |s| s.somebody_dies(acquire_both),
        run: |s| {
            s.engine.reap_all();
            NONE
        },
        ..ON_LEASES
    },
    Operation {
        name: "attach by name",
        home: Home::Named,
        before: |_| NONE,
        run: attach,
        maps: true,
        meanwhile: &[ACQUIRE, REAP_AND_JOIN],
        ..ON_LEASES
    },
];

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
