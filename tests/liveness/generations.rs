//! A reload: the new workers come while the old ones still serve.

use crate::alone::alone;
use crate::command::fl_shm;
use crate::system;
use crate::worker::{Worker, gone, held, holders, master, rows, slots};

const EACH: usize = 4;

#[test]
fn two_generations_live_side_by_side_and_the_old_one_ends_in_every_way() {
    alone(|| {
        let engine = master();
        let limit = slots(2 * u8::try_from(EACH).expect("small"));
        let generation = || -> Vec<Worker> {
            let mut workers: Vec<Worker> = (0..EACH).map(|_| Worker::fork(&engine)).collect();
            assert!(workers.iter_mut().all(|worker| worker.acquire(limit)));
            workers
        };
        let old = generation();
        let mut new = generation();
        assert_eq!((rows(&engine), held(&engine)), (1 + 2 * EACH, 2 * EACH));
        assert!(new.iter_mut().all(|worker| !worker.acquire(limit)), "all slots are held");

        let ends: [fn(Worker) -> Option<Worker>; EACH] = [
            |mut worker| {
                worker.leave();
                worker.exit();
                None
            },
            |worker| {
                worker.exit();
                None
            },
            |worker| {
                system::kill_unwaited(worker.pid);
                Some(worker)
            },
            |worker| {
                system::stop(worker.pid);
                system::kill_unwaited(worker.pid);
                Some(worker)
            },
        ];
        let mut zombies = Vec::new();
        for (ended, (worker, end)) in old.into_iter().zip(ends).enumerate() {
            let owner = worker.owner;
            zombies.extend(end(worker));
            // Everybody who may reap does; once is enough.
            let by_workers: u64 = new.iter_mut().map(Worker::reap).sum();
            let reaped = by_workers + engine.reap_dead();
            assert_eq!(reaped, u64::from(ended > 0), "the first one left by itself");
            assert_eq!(fl_shm(&["reap", "--yes"]).code, 0);
            assert!(gone(&engine, owner));
            let holders = holders(&engine);
            assert!(!holders.contains(&owner));
            assert!(new.iter().all(|worker| holders.contains(&worker.owner)));
            assert!(new.iter().all(|worker| !gone(&engine, worker.owner)));
            let left = 2 * EACH - ended - 1;
            assert_eq!((rows(&engine), held(&engine)), (1 + left, left));
        }
        assert_eq!(engine.total(|row| &row.lease_reaped), 3);
        assert!(new.iter_mut().all(|worker| worker.acquire(limit)), "their own and the old ones'");
        assert!(!new[0].acquire(limit));
        for worker in zombies {
            assert_eq!(system::wait(worker.pid), None);
        }
    });
}
