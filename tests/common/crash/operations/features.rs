//! Breakers and switches of features, with the events that they record.

use super::{
    Effect, Meanwhile, NONE, Operation, PLAIN, Resource, STAYS, change, joined, signed, times,
};
use crate::crash::stage::Stage;
use fast_litellm::engine::features::{BREAKER, BREAKER_REST_S};
use fast_litellm::layout::FlagMode;
use fast_litellm::primitives::breaker::{self, Admission, State};
use fast_litellm::sync::Ordering;

const FEATURE: usize = 2;

/// Errors of a feature.
static ERRORS: Resource = Resource {
    taken: |stage| [signed(stage.engine.feature_errors(FEATURE)), 0, 0, 0],
    drain: |_, _| NONE,
    nudge: |_| {},
    owned: STAYS,
};

/// Whether the probe of the present rest is taken.
static PROBES: Resource = Resource {
    taken: |stage| [i64::from(is_open(stage)), 0, 0, 0],
    drain: |_, _| NONE,
    nudge: |_| {},
    owned: STAYS,
};

/// Percentage at which the switch stands.
static SWITCH: Resource = Resource {
    taken: |stage| [signed(stage.engine.flag(FEATURE).1), 0, 0, 0],
    drain: |_, _| NONE,
    nudge: |_| {},
    owned: STAYS,
};

const ON_ERRORS: Operation = Operation {
    resource: &ERRORS,
    meanwhile: &[
        Meanwhile { name: "error", step: feature_error, forgetful: false },
        Meanwhile { name: "reset", step: reset_feature, forgetful: true },
    ],
    ..PLAIN
};

pub(super) static OPERATIONS: &[Operation] = &[
    Operation { name: "feature error", run: feature_error, does: [1, 0, 0, 0], ..ON_ERRORS },
    Operation {
        name: "feature reset",
        scene: |s| times(s, 2, feature_error),
        run: reset_feature,
        does: [-2, 0, 0, 0],
        forgetful: true,
        ..ON_ERRORS
    },
    Operation {
        name: "feature error, opening",
        scene: |s| times(s, 9, feature_error),
        run: feature_error,
        does: [1, 0, 0, 0],
        ..ON_ERRORS
    },
    Operation {
        name: "probe",
        scene: rested,
        run: probe,
        does: [1, 0, 0, 0],
        resource: &PROBES,
        meanwhile: &[
            Meanwhile { name: "probe", step: probe, forgetful: false },
            Meanwhile { name: "reset", step: reset_feature, forgetful: true },
        ],
        ..PLAIN
    },
    Operation {
        name: "recovered",
        scene: rested,
        before: probed,
        run: recover,
        does: [-10, 0, 0, 0],
        forgetful: true,
        ..ON_ERRORS
    },
    Operation {
        name: "move a switch",
        run: |s| switch(s, 40),
        does: [40, 0, 0, 0],
        resource: &SWITCH,
        forgetful: true,
        meanwhile: &[Meanwhile { name: "move it", step: |s| switch(s, 60), forgetful: true }],
        ..PLAIN
    },
];

fn feature_error(stage: &Stage) -> Effect {
    stage.engine.feature_error(FEATURE);
    [1, 0, 0, 0]
}

fn reset_feature(stage: &Stage) -> Effect {
    change(stage, &ERRORS, |engine| engine.reset_feature(FEATURE))
}

/// The breaker has opened and has rested.
fn rested(stage: &Stage) {
    times(stage, 10, feature_error);
    stage.clock.advance_s(signed(BREAKER_REST_S));
}

fn is_open(stage: &Stage) -> bool {
    let breaker = stage.region().features()[FEATURE].breaker.load(Ordering::Relaxed);
    matches!(breaker::peek(breaker, stage.engine.now().s(), BREAKER), State::Open { .. })
}

fn probe(stage: &Stage) -> Effect {
    match stage.engine.feature_admits(FEATURE, BREAKER) {
        Admission::Probe(probe) => {
            stage.probe.set(Some(probe));
            [1, 0, 0, 0]
        }
        Admission::Closed | Admission::Open { .. } => NONE,
    }
}

/// Takes the probe, if nobody has, so that all errors count until it is reported.
fn probed(stage: &Stage) -> Effect {
    joined(stage);
    change(stage, &ERRORS, |_| {
        probe(stage);
    })
}

fn recover(stage: &Stage) -> Effect {
    change(stage, &ERRORS, |engine| {
        if let Some(probe) = stage.probe.take() {
            engine.feature_recovered(FEATURE, probe);
        }
    })
}

fn switch(stage: &Stage, percent: u64) -> Effect {
    change(stage, &SWITCH, |engine| engine.set_flag(FEATURE, FlagMode::Percent, percent))
}
