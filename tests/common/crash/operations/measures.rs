//! Series of measurements.

use super::{Effect, Meanwhile, NONE, Operation, PLAIN, Resource, STAYS, signed, times};
use crate::crash::stage::Stage;

const SERIES: &str = "routing";

/// Measurements and failures of a series.
static MEASURED: Resource =
    Resource { taken: measured, drain: |_, _| NONE, nudge: |s| times(s, 1, fail), owned: STAYS };

const ON_SERIES: Operation = Operation {
    run: measure,
    does: [1, 0, 0, 0],
    resource: &MEASURED,
    meanwhile: &[
        Meanwhile { name: "measure", step: measure, forgetful: false },
        Meanwhile { name: "fail", step: fail, forgetful: false },
    ],
    ..PLAIN
};

pub(super) static OPERATIONS: &[Operation] = &[
    Operation { name: "measure, new series", ..ON_SERIES },
    Operation { name: "measure", scene: |s| times(s, 2, measure), ..ON_SERIES },
    Operation {
        name: "measure a failure",
        scene: |s| times(s, 2, measure),
        run: fail,
        does: [0, 1, 0, 0],
        ..ON_SERIES
    },
];

fn measure(stage: &Stage) -> Effect {
    stage.engine.measure(stage.engine.series(SERIES).expect("there is room"), 12_345);
    [1, 0, 0, 0]
}

fn fail(stage: &Stage) -> Effect {
    stage.engine.measure_failure(stage.engine.series(SERIES).expect("there is room"));
    [0, 1, 0, 0]
}

fn measured(stage: &Stage) -> Effect {
    let all = stage.engine.all_measured();
    all.into_iter().fold(NONE, |sum, (_, series)| {
        [sum[0] + signed(series.count), sum[1] + signed(series.errors), 0, 0]
    })
}
