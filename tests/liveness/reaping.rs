//! Who reaps: the master, any worker, and `fl-shm`; and what a full worker table means.

use crate::alone::alone;
use crate::command::fl_shm;
use crate::system::{self, until, until_now};
use crate::worker::{Worker, gone, held, judge, master, master_of, rows, slots};
use fast_litellm::engine::Engine;
use fast_litellm::liveness::Liveness::{Alive, Dead};

/// Two slots of a dead worker and one of a live one are held; `reap` is told to free the former.
fn frees_only_the_dead(reap: impl FnOnce(&Engine, &mut Worker)) {
    let engine = master();
    let mut live = Worker::fork(&engine);
    let mut dead = Worker::fork(&engine);
    let mut reaper = Worker::fork(&engine);
    assert!(live.acquire(slots(3)) && dead.acquire(slots(3)) && dead.acquire(slots(3)));
    system::kill_unwaited(dead.pid);
    reap(&engine, &mut reaper);
    assert_eq!((held(&engine), rows(&engine)), (1, 3));
    assert!(gone(&engine, dead.owner) && !gone(&engine, live.owner));
    assert_eq!(judge(&engine, live.owner), Alive);
    assert!(live.acquire(slots(3)) && reaper.acquire(slots(3)) && !live.acquire(slots(3)));
    assert_eq!(engine.total(|row| &row.lease_reaped), 2);
    assert_eq!(engine.total(|row| &row.workers_reaped), 1);
}

#[test]
fn the_master_reaps() {
    alone(|| frees_only_the_dead(|engine, _| assert_eq!(engine.reap_dead(), 1)));
}

#[test]
fn any_worker_reaps() {
    alone(|| frees_only_the_dead(|_, worker| assert_eq!(worker.reap(), 1)));
}

#[test]
fn fl_shm_reaps() {
    alone(|| {
        frees_only_the_dead(|_, _| {
            let done = fl_shm(&["reap", "--yes"]);
            assert_eq!(done.code, 0, "{done:?}");
            assert!(done.out.ends_with("\nfreed 1 worker row and 2 slots\n"), "{}", done.out);
        });
    });
}

/// Nobody is told to: the worker that finds no free slot looks.
#[test]
fn a_worker_that_finds_no_free_slot_reaps() {
    alone(|| {
        let engine = master();
        let (mut dead, mut other) = (Worker::fork(&engine), Worker::fork(&engine));
        assert!(dead.acquire(slots(1)) && !other.acquire(slots(1)));
        dead.kill();
        // It looks at most once in a while.
        until(|| other.acquire(slots(1)));
        assert!(gone(&engine, dead.owner));
    });
}

/// Two processes do nothing but reap, while workers come and are killed.
#[test]
fn reapers_in_each_others_way_free_everything_once() {
    const ROUNDS: u64 = 40;
    alone(|| {
        let engine = master();
        let mut keeper = Worker::fork(&engine);
        assert!(keeper.acquire(slots(3)));
        let reap_forever = || {
            system::fork().unwrap_or_else(|| {
                until_now(|| engine.reap_dead() == u64::MAX);
                0
            })
        };
        let reapers = [reap_forever(), reap_forever()];
        let mut owners = std::collections::HashSet::new();
        for _ in 0..ROUNDS {
            let mut worker = Worker::fork(&engine);
            assert!(owners.insert(worker.owner), "a tag was given twice");
            assert!(worker.acquire(slots(3)) && worker.acquire(slots(3)));
            worker.kill();
            until(|| gone(&engine, worker.owner) && held(&engine) == 1);
        }
        for pid in reapers {
            system::kill(pid, libc::SIGKILL);
            system::wait(pid);
        }
        assert!(!gone(&engine, keeper.owner) && rows(&engine) == 2);
        assert_eq!(engine.total(|row| &row.workers_reaped), ROUNDS);
        assert_eq!(engine.total(|row| &row.lease_reaped), 2 * ROUNDS);
    });
}

#[test]
fn a_full_worker_table_has_room_again_when_one_of_them_is_dead() {
    alone(|| {
        let engine = master_of(3);
        let (mut first, second) = (Worker::fork(&engine), Worker::fork(&engine));
        assert!(first.acquire(slots(5)));
        let mut third = Worker::fork(&engine);
        assert!(!third.acquire(slots(5)), "it has no row, so that nothing could be given back");
        system::stop(second.pid);
        assert!(!third.acquire(slots(5)), "a stopped worker keeps its row");
        system::kill_unwaited(second.pid);
        until(|| third.acquire(slots(5)));
        assert!(gone(&engine, second.owner) && !gone(&engine, first.owner));
        assert_eq!((rows(&engine), held(&engine)), (3, 2));
    });
}

#[test]
fn fl_shm_needs_no_row_of_a_full_worker_table() {
    alone(|| {
        let engine = master_of(3);
        let (first, mut second) = (Worker::fork(&engine), Worker::fork(&engine));
        assert!(second.acquire(slots(5)));
        assert_eq!(rows(&engine), 3);
        second.kill();
        assert_eq!(judge(&engine, second.owner), Dead);
        let done = fl_shm(&["reap", "--yes"]);
        assert!(done.out.ends_with("\nfreed 1 worker row and 1 slot\n"), "{done:?}");
        assert_eq!((rows(&engine), held(&engine)), (2, 0));
        assert!(!gone(&engine, first.owner));
    });
}
