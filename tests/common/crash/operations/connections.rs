//! Connections of a pool. Those that are idle are anybody's, and not counted as taken.

use super::slots::REAP_AND_JOIN;
use super::{
    ENDLESS, Effect, Meanwhile, NONE, OWNED, Operation, PLAIN, Resource, later, signed, sum, times,
    until_refused,
};
use crate::crash::stage::Stage;
use fast_litellm::engine::health::Cause;
use fast_litellm::engine::pool::{Pool, Settings};
use fast_litellm::tables::connections::{Ended, Keep};

const POOL: &str = "pool";
const HERE: &str = "endpoint";
const ELSEWHERE: &str = "elsewhere";
/// Connections to one endpoint, and in all.
const MOST: u64 = 2;
const SETTINGS: Settings =
    Settings { max_per_endpoint: MOST, max_total: MOST, keep: Keep { idle_s: 60, age_s: 3_600 } };

/// Connections in use: of the pool, and to the endpoint.
static CONNECTIONS: Resource = Resource { taken, drain, nudge, owned: OWNED };

const ON_POOL: Operation = Operation {
    run: connect,
    does: [1, 1, 0, 0],
    resource: &CONNECTIONS,
    limits: Some([MOST.cast_signed(), ENDLESS, ENDLESS, ENDLESS]),
    meanwhile: &[CONNECT, CONNECT_ELSEWHERE, SWEEP],
    ..PLAIN
};

const CONNECT: Meanwhile = Meanwhile { name: "connect", step: connect, forgetful: false };
const COME_AND_GO: Meanwhile =
    Meanwhile { name: "connect, return", step: connect_and_return, forgetful: false };
const CONNECT_ELSEWHERE: Meanwhile =
    Meanwhile { name: "connect elsewhere", step: connect_elsewhere, forgetful: false };
const SWEEP: Meanwhile =
    Meanwhile { name: "a minute, sweep", step: |s| later(s, sweep), forgetful: false };

const REFUSED: Operation = Operation { does: NONE, ..ON_POOL };
const IN_USE: Operation = Operation { before: connect, does: [-1, -1, 0, 0], ..ON_POOL };

pub(super) static OPERATIONS: &[Operation] = &[
    Operation { name: "connect, new pool", meanwhile: &[CONNECT], ..ON_POOL },
    Operation {
        name: "connect",
        scene: |s| _ = s.somebody_visits(connect),
        meanwhile: &[COME_AND_GO, SWEEP],
        ..ON_POOL
    },
    Operation { name: "connect, idle of its own", before: connect_and_return, ..ON_POOL },
    Operation { name: "connect, idle of another", scene: |s| idle(s, HERE), ..ON_POOL },
    Operation { name: "connect, idle elsewhere", scene: |s| idle(s, ELSEWHERE), ..ON_POOL },
    Operation {
        name: "connect, full of the dead",
        scene: |s| s.somebody_dies(|s| sum(connect(s), connect(s))),
        meanwhile: &[CONNECT, REAP_AND_JOIN],
        ..ON_POOL
    },
    Operation { name: "connect, endpoint full", scene: |s| times(s, 2, connect), ..REFUSED },
    Operation {
        name: "connect, pool full",
        scene: |s| times(s, 2, connect_elsewhere),
        transient: [0, 1, 0, 0],
        meanwhile: &[COME_AND_GO],
        ..REFUSED
    },
    Operation { name: "return connection", run: give_back, ..IN_USE },
    Operation { name: "remove connection", run: remove, ..IN_USE },
    Operation { name: "report failure", run: fail, does: NONE, ..IN_USE },
    Operation { name: "sweep", scene: |s| _ = long_idle(s), run: sweep, ..REFUSED },
];

fn pool(stage: &Stage) -> Pool {
    stage.engine.pool(POOL, SETTINGS).expect("has room")
}

fn connect_to(stage: &Stage, endpoint: &str) -> bool {
    let connection = stage.engine.connect(&pool(stage), endpoint).expect("decides");
    stage.connection.set(connection);
    connection.is_some()
}

fn connect(stage: &Stage) -> Effect {
    let connected = i64::from(connect_to(stage, HERE));
    [connected, connected, 0, 0]
}

fn connect_elsewhere(stage: &Stage) -> Effect {
    [i64::from(connect_to(stage, ELSEWHERE)), 0, 0, 0]
}

/// Ends the use of a connection to the endpoint.
fn end(stage: &Stage, keep: bool) -> Effect {
    let Some(connection) = stage.connection.take() else { return NONE };
    let pool = pool(stage);
    let ended = if keep {
        stage.engine.return_connection(&pool, &connection)
    } else {
        stage.engine.remove_connection(&pool, &connection)
    };
    assert_eq!(stage.engine.return_connection(&pool, &connection), Ended::Stale);
    let ended = -i64::from(ended != Ended::Stale);
    [ended, ended, 0, 0]
}

fn give_back(stage: &Stage) -> Effect {
    end(stage, true)
}

fn remove(stage: &Stage) -> Effect {
    end(stage, false)
}

fn connect_and_return(stage: &Stage) -> Effect {
    sum(connect(stage), give_back(stage))
}

/// All that there may be are kept idle by the parent.
fn idle(stage: &Stage, endpoint: &str) {
    let pool = pool(stage);
    let connect = || stage.engine.connect(&pool, endpoint).expect("decides").expect("free");
    for connection in [connect(), connect()] {
        stage.engine.return_connection(&pool, &connection);
    }
}

/// For more than a minute.
fn long_idle(stage: &Stage) -> Effect {
    idle(stage, HERE);
    stage.clock.advance_s(61);
    NONE
}

fn sweep(stage: &Stage) -> Effect {
    stage.engine.sweep_pool(&pool(stage)).expect("has a row");
    NONE
}

fn fail(stage: &Stage) -> Effect {
    if let Some(connection) = stage.connection.get() {
        let cause = Cause::new(Some(503), "");
        let told = stage.engine.report_connection(&pool(stage), &connection, Some(&cause));
        assert_eq!(told, Ok(true));
    }
    NONE
}

fn taken(stage: &Stage) -> Effect {
    let stats = stage.engine.pool_stats(&pool(stage));
    let here = stats.endpoints.iter().find(|found| found.endpoint == HERE);
    [signed(stats.active), here.map_or(0, |found| signed(found.active)), 0, 0]
}

fn drain(stage: &Stage, _: Effect) -> Effect {
    let pool = pool(stage);
    let mut drained = Vec::new();
    until_refused(|_| {
        let connection = stage.engine.connect(&pool, HERE).expect("decides");
        drained.extend(connection);
        connection.is_some()
    });
    for connection in &drained {
        assert_eq!(stage.engine.remove_connection(&pool, connection), Ended::Closed);
    }
    let count = signed(drained.len() as u64);
    [count, count, 0, 0]
}

fn nudge(stage: &Stage) {
    for endpoint in [HERE, ELSEWHERE] {
        let pool = pool(stage);
        if let Ok(Some(connection)) = stage.engine.connect(&pool, endpoint) {
            stage.engine.remove_connection(&pool, &connection);
        }
    }
}
