//! Notices on the board.

use super::{Effect, Meanwhile, NONE, Operation, PLAIN, Resource, STAYS, later, signed, sum};
use crate::crash::stage::Stage;
use fast_litellm::layout::Notice;
use fast_litellm::sync::Ordering;

const NOTICE: &str = "notice";
const OLD: &[u8] = b"what was published before all the others, and is to be read until it is not";
const FIRST: &[u8] = b"the first of two that are published at once, in so many bytes";
const SECOND: &[u8] = b"the second of two, and it is longer than the first one, by some words";
/// What is too old to be shown is shown no longer.
const TTL_S: u64 = 3_600;

/// How often something was published, and whether what is read is a mixture, or nothing is.
static BOARD: Resource =
    Resource { taken, drain: |_, _| NONE, nudge: |s| _ = publish(s, FIRST), owned: STAYS };

const ON_BOARD: Operation = Operation {
    run: first,
    does: [1, 0, 0, 0],
    resource: &BOARD,
    meanwhile: &[
        Meanwhile { name: "publish", step: second, forgetful: false },
        Meanwhile { name: "publish twice", step: twice, forgetful: false },
        Meanwhile { name: "an hour, publish", step: |s| later(s, second), forgetful: false },
    ],
    ..PLAIN
};

pub(super) static OPERATIONS: &[Operation] = &[
    Operation { name: "publish, new notice", ..ON_BOARD },
    Operation { name: "publish", scene: |s| _ = publish(s, OLD), ..ON_BOARD },
    Operation {
        name: "publish, twice before",
        scene: |s| _ = sum(publish(s, SECOND), publish(s, OLD)),
        ..ON_BOARD
    },
];

fn publish(stage: &Stage, bytes: &[u8]) -> Effect {
    stage.engine.publish(NOTICE, bytes, TTL_S).expect("there is room");
    [1, 0, 0, 0]
}

fn first(stage: &Stage) -> Effect {
    publish(stage, FIRST)
}

fn second(stage: &Stage) -> Effect {
    publish(stage, SECOND)
}

fn twice(stage: &Stage) -> Effect {
    sum(second(stage), first(stage))
}

fn taken(stage: &Stage) -> Effect {
    let count = |notice: &Notice| notice.current.load(Ordering::Relaxed).writes();
    let published = stage.region().board().iter().map(count).sum::<u64>();
    let notice = stage.engine.notice(NOTICE);
    let known = |notice: &Vec<u8>| [OLD, FIRST, SECOND].contains(&&notice[..]);
    let mixed = notice.as_ref().is_some_and(|notice| !known(notice));
    let hidden = notice.is_none() && published > 0;
    [signed(published), i64::from(mixed), i64::from(hidden), 0]
}
