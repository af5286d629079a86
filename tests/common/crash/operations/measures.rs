//! Series of measurements: what was measured, what failed, and the bytes in and out.

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
        Meanwhile { name: "carry", step: carry, forgetful: false },
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
    Operation {
        name: "measure bytes",
        scene: |s| times(s, 2, measure),
        run: carry,
        does: [0, 0, 300, 7],
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

fn carry(stage: &Stage) -> Effect {
    stage.engine.measure_bytes(stage.engine.series(SERIES).expect("there is room"), 300, 7);
    [0, 0, 300, 7]
}

fn measured(stage: &Stage) -> Effect {
    let all = stage.engine.all_measured();
    all.into_iter().fold(NONE, |sum, (_, series)| {
        let found = [series.count, series.errors, series.input_bytes, series.output_bytes];
        std::array::from_fn(|n| sum[n] + signed(found[n]))
    })
}
