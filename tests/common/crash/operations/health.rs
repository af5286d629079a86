//! Deployments: requests in flight, successes and failures, cooldowns.

use super::slots::REAP_AND_JOIN;
use super::{
    ENDLESS, Effect, Meanwhile, NONE, OWNED, Operation, PLAIN, Resource, STAYS, change, later,
    signed, sum, times, until_refused,
};
use crate::crash::stage::Stage;
use fast_litellm::engine::health::{Cause, Departure};
use fast_litellm::layout::{FailureKind, HandCommand};
use fast_litellm::primitives::cooldown::Begun;

const DEPLOYMENT: &str = "deployment";
/// Requests that may be in flight.
const MOST: u64 = 2;
/// Length of the window in which successes and failures are counted, seconds.
const WINDOW_S: u64 = 60;

/// Requests in flight.
static FLIGHTS: Resource =
    Resource { taken: flights_taken, drain: drain_flights, nudge, owned: OWNED };
/// Failures and successes in a window, whether there is a cooldown, and whether its cause is a mixture.
static HEALTH: Resource = Resource { taken: health_taken, drain: |_, _| NONE, nudge, owned: STAYS };

const ON_FLIGHTS: Operation = Operation {
    run: depart,
    does: [1, 0, 0, 0],
    resource: &FLIGHTS,
    limits: Some([MOST.cast_signed(), ENDLESS, ENDLESS, ENDLESS]),
    meanwhile: &[
        Meanwhile { name: "depart", step: depart, forgetful: false },
        Meanwhile { name: "depart, arrive", step: depart_and_arrive, forgetful: false },
        Meanwhile { name: "depart twice", step: |s| sum(depart(s), depart(s)), forgetful: false },
        REAP_AND_JOIN,
    ],
    ..PLAIN
};

const FAIL: Meanwhile = Meanwhile { name: "fail", step: fail, forgetful: false };
const SUCCEED: Meanwhile = Meanwhile { name: "succeed", step: succeed, forgetful: false };
const LATER_FAIL: Meanwhile =
    Meanwhile { name: "a minute, fail", step: |s| later(s, fail), forgetful: true };

const ON_HEALTH: Operation =
    Operation { resource: &HEALTH, meanwhile: &[FAIL, SUCCEED, LATER_FAIL], ..PLAIN };

const ON_COOLDOWN: Operation = Operation {
    resource: &HEALTH,
    meanwhile: &[
        Meanwhile { name: "cool down", step: cool_down, forgetful: false },
        Meanwhile { name: "longer", step: cool_down_longer, forgetful: false },
        Meanwhile { name: "end it", step: end_cooldown, forgetful: true },
    ],
    ..PLAIN
};

pub(super) static OPERATIONS: &[Operation] = &[
    Operation { name: "depart, new deployment", ..ON_FLIGHTS },
    Operation { name: "depart", scene: |s| times(s, 1, depart), ..ON_FLIGHTS },
    Operation { name: "depart, full", scene: |s| times(s, 2, depart), does: NONE, ..ON_FLIGHTS },
    Operation {
        name: "depart, full of the dead",
        scene: |s| s.somebody_dies(|s| sum(depart(s), depart(s))),
        ..ON_FLIGHTS
    },
    Operation { name: "arrive", before: depart, run: arrive, does: [-1, 0, 0, 0], ..ON_FLIGHTS },
    Operation { name: "fail, new deployment", run: fail, does: [1, 0, 0, 0], ..ON_HEALTH },
    Operation {
        name: "fail",
        scene: |s| times(s, 2, fail),
        run: fail,
        does: [1, 0, 0, 0],
        ..ON_HEALTH
    },
    Operation {
        name: "fail, roll-over",
        scene: failed_before,
        run: fail,
        does: [1, 0, 0, 0],
        ..ON_HEALTH
    },
    Operation {
        name: "succeed",
        scene: |s| times(s, 2, succeed),
        run: succeed,
        does: [0, 1, 0, 0],
        ..ON_HEALTH
    },
    Operation { name: "cool down", run: cool_down, does: [0, 0, 1, 0], ..ON_COOLDOWN },
    Operation {
        name: "cool down, longer",
        scene: |s| times(s, 1, cool_down),
        run: cool_down_longer,
        ..ON_COOLDOWN
    },
    Operation { name: "score", scene: |s| times(s, 2, score), run: score, ..ON_HEALTH },
    Operation { name: "introduce", scene: |s| times(s, 1, score), run: introduce, ..ON_HEALTH },
    Operation {
        name: "note by hand",
        scene: |s| times(s, 1, cool_down),
        run: note_by_hand,
        meanwhile: &[],
        ..ON_COOLDOWN
    },
    Operation {
        name: "end a cooldown",
        scene: |s| times(s, 1, cool_down),
        run: end_cooldown,
        does: [0, 0, -1, 0],
        forgetful: true,
        ..ON_COOLDOWN
    },
];

fn depart(stage: &Stage) -> Effect {
    match stage.engine.depart(DEPLOYMENT, Some(MOST)).expect("decides") {
        Departure::Sent(flight) => {
            stage.flight.set(Some(flight));
            [1, 0, 0, 0]
        }
        Departure::Full => NONE,
    }
}

fn arrive(stage: &Stage) -> Effect {
    let Some(flight) = stage.flight.take() else { return NONE };
    stage.engine.arrive(&flight);
    [-1, 0, 0, 0]
}

fn depart_and_arrive(stage: &Stage) -> Effect {
    // What has departed before is its own process's to end.
    stage.flight.set(None);
    sum(depart(stage), arrive(stage))
}

fn fail(stage: &Stage) -> Effect {
    let failed = stage.engine.deployment_failed(DEPLOYMENT, WINDOW_S, FailureKind::Timeout, 408);
    failed.expect("counts");
    [1, 0, 0, 0]
}

fn failed_before(stage: &Stage) {
    times(stage, 2, fail);
    stage.clock.advance_s(61);
}

fn succeed(stage: &Stage) -> Effect {
    let measured = (Some(1_500_000), Some(300_000));
    stage
        .engine
        .deployment_succeeded(DEPLOYMENT, WINDOW_S, measured.0, measured.1)
        .expect("counts");
    [0, 1, 0, 0]
}

/// A cooldown with its cause.
type Cooling = (u64, Cause<'static>);

const SHORT: Cooling = {
    let text = "the first of two causes, over several words";
    (10_000, Cause { kind: FailureKind::RateLimited, status: 429, text })
};
const LONG: Cooling = {
    let text = "another one, and it is a good deal longer than the first one was";
    (30_000, Cause { kind: FailureKind::Server, status: 503, text })
};

fn cool_down_for(stage: &Stage, (ms, cause): Cooling) -> Effect {
    let begun = stage.engine.cool_down(DEPLOYMENT, ms, &cause).expect("decides");
    [0, 0, i64::from(begun == Begun::First), 0]
}

fn cool_down(stage: &Stage) -> Effect {
    cool_down_for(stage, SHORT)
}

fn cool_down_longer(stage: &Stage) -> Effect {
    cool_down_for(stage, LONG)
}

/// Whether what is said of the cooldown is neither all of one of them, nor so much of it as was written.
fn cause_is_mixed(stage: &Stage) -> bool {
    let Some(found) = stage.engine.cooldown(DEPLOYMENT) else { return false };
    let one_of = |(ms, cause): Cooling| {
        let said = found.status == cause.status && found.for_ms == ms;
        let unknown = found.status == 0 && found.for_ms == found.left_ms && found.text.is_none();
        let text = found.text.as_deref().is_none_or(|text| text == cause.text);
        found.kind == cause.kind && text && (said || unknown)
    };
    found.until_ms - found.for_ms != found.began_ms || !(one_of(SHORT) || one_of(LONG))
}

fn end_cooldown(stage: &Stage) -> Effect {
    change(stage, &HEALTH, |engine| {
        engine.end_cooldown(DEPLOYMENT).expect("decides");
    })
}

fn note_by_hand(stage: &Stage) -> Effect {
    stage.engine.note_by_hand(None, 1_000, HandCommand::ClearCooldown);
    NONE
}

fn score(stage: &Stage) -> Effect {
    stage.engine.deployment_scored(DEPLOYMENT, 1_234).expect("counts");
    NONE
}

fn introduce(stage: &Stage) -> Effect {
    stage.engine.introduce(DEPLOYMENT, "gpt:introduced").expect("names");
    NONE
}

fn flights_taken(stage: &Stage) -> Effect {
    [signed(stage.engine.flights_to(DEPLOYMENT)), 0, 0, 0]
}

fn drain_flights(stage: &Stage, _: Effect) -> Effect {
    let mut flights = Vec::new();
    let sent = until_refused(|_| {
        let departure = stage.engine.depart(DEPLOYMENT, Some(MOST)).expect("decides");
        if let Departure::Sent(flight) = departure {
            flights.push(flight);
        }
        departure != Departure::Full
    });
    for flight in flights {
        stage.engine.arrive(&flight);
    }
    [sent, 0, 0, 0]
}

fn health_taken(stage: &Stage) -> Effect {
    let Some(health) = stage.engine.health(DEPLOYMENT) else { return NONE };
    let [cooled, mixed] = [health.cooldown_ms > 0, cause_is_mixed(stage)].map(i64::from);
    [signed(health.failures), signed(health.successes), cooled, mixed]
}

fn nudge(stage: &Stage) {
    succeed(stage);
}
