//! Breakers of features.

use super::{Effect, Meanwhile, NONE, Operation, PLAIN, Resource, STAYS, change, signed, times};
use crate::crash::stage::Stage;

const FEATURE: usize = 2;

/// Errors of a feature.
static ERRORS: Resource = Resource {
    taken: |stage| [signed(stage.engine.feature_errors(FEATURE)), 0, 0, 0],
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
    // Features.
    Operation { name: "feature error", run: feature_error, does: [1, 0, 0, 0], ..ON_ERRORS },
    Operation {
        name: "feature reset",
        scene: |s| times(s, 2, feature_error),
        run: reset_feature,
        does: [-2, 0, 0, 0],
        forgetful: true,
        ..ON_ERRORS
    },
];

fn feature_error(stage: &Stage) -> Effect {
    stage.engine.feature_error(FEATURE);
    [1, 0, 0, 0]
}

fn reset_feature(stage: &Stage) -> Effect {
    change(stage, &ERRORS, |engine| engine.reset_feature(FEATURE))
}
