//! Jobs that one process leads.

use super::slots::REAP_AND_JOIN;
use super::{
    ENDLESS, Effect, Meanwhile, NONE, OWNED, Operation, PLAIN, Resource, later, signed, sum,
};
use crate::crash::stage::Stage;

const JOB: &str = "job";
/// After so many seconds without renewal another process may lead.
const TTL_S: u64 = 10;

/// Whether anybody leads.
static LEADERSHIP: Resource = Resource { taken, drain, nudge, owned: OWNED };

const ON_JOB: Operation = Operation {
    run: lead,
    does: [1, 0, 0, 0],
    resource: &LEADERSHIP,
    limits: Some([1, ENDLESS, ENDLESS, ENDLESS]),
    meanwhile: &[
        Meanwhile { name: "lead", step: lead, forgetful: false },
        Meanwhile { name: "lead, resign", step: lead_and_resign, forgetful: false },
        Meanwhile { name: "lead when time is up", step: |s| later(s, lead), forgetful: true },
        REAP_AND_JOIN,
    ],
    ..PLAIN
};

pub(super) static OPERATIONS: &[Operation] = &[
    Operation { name: "lead, new job", ..ON_JOB },
    Operation { name: "lead", scene: |s| _ = s.somebody_visits(lead_and_resign), ..ON_JOB },
    Operation { name: "lead, led by the dead", scene: |s| s.somebody_dies(lead), ..ON_JOB },
    Operation { name: "lead, led by another", scene: |s| _ = lead(s), does: NONE, ..ON_JOB },
    Operation { name: "renew", before: lead, does: NONE, ..ON_JOB },
    Operation { name: "resign", before: lead, run: resign, does: [-1, 0, 0, 0], ..ON_JOB },
];

/// Whether this process leads.
fn leads(stage: &Stage) -> bool {
    let leader = stage.engine.leader(JOB);
    leader.is_some_and(|leader| leader.pid.unsigned_abs() == std::process::id())
}

fn lead(stage: &Stage) -> Effect {
    let led = leads(stage);
    let term = stage.engine.lead(JOB, TTL_S).expect("decides");
    stage.term.set(term);
    [i64::from(term.is_some()) - i64::from(led), 0, 0, 0]
}

fn resign(stage: &Stage) -> Effect {
    let resigned = stage.term.take().is_some_and(|term| stage.engine.resign(&term));
    [-i64::from(resigned), 0, 0, 0]
}

fn lead_and_resign(stage: &Stage) -> Effect {
    // What was led before is its own process's to resign from.
    stage.term.set(None);
    sum(lead(stage), resign(stage))
}

fn taken(stage: &Stage) -> Effect {
    [i64::from(stage.engine.leader(JOB).is_some()), 0, 0, 0]
}

fn drain(stage: &Stage, _: Effect) -> Effect {
    if leads(stage) {
        return NONE;
    }
    let Some(term) = stage.engine.lead(JOB, 0).expect("decides") else { return NONE };
    [signed(u64::from(stage.engine.resign(&term))), 0, 0, 0]
}

fn nudge(stage: &Stage) {
    let _ = stage.engine.lead(JOB, TTL_S);
}
