//! Regions that are inherited into other namespaces, and a `/proc` that is not the reader's. Nothing read
//! there may end in a proof of death.

use crate::alone::alone_if;
use crate::system::{self, enter_pid_namespace, enter_time_namespace, mount_over_proc};
use crate::worker::{Worker, gone, held, judge, master, slots};
use fast_litellm::liveness::Liveness::{Alive, Dead, Unknown};
use fast_litellm::region::host::{self, ProcMount};
use fast_litellm::sync::Ordering;
use std::io::Result;

/// The parent's pids are nobody's in there, and a child's pid 1 is another process out here.
#[test]
fn nobody_is_proven_dead_across_pid_namespaces() {
    alone_if(enter_pid_namespace, || {
        let engine = master();
        let mut outside = Worker::fork(&engine);
        let mut inside = Worker::prepared(&engine, enter_pid_namespace);
        assert!(outside.acquire(slots(2)) && inside.acquire(slots(2)));
        assert_eq!(outside.judge(inside.owner), Unknown);
        assert_eq!(inside.judge(outside.owner), Unknown);
        assert_eq!(inside.judge(engine.me().expect("registered")), Unknown);
        assert_eq!((engine.reap_dead(), outside.reap(), inside.reap()), (0, 0, 0));
        assert!(!outside.acquire(slots(2)) && !inside.acquire(slots(2)));
        // Inside they know of each other no more than that they exist.
        let claim =
            engine.region().workers()[inside.owner.row() as usize].claim.load(Ordering::SeqCst);
        assert_eq!(claim.pid(), 0);
        // Whom nobody can prove dead keeps its slots; they expire by the caller's time to live.
        inside.kill();
        assert_eq!((judge(&engine, inside.owner), engine.reap_dead()), (Unknown, 0));
        assert_eq!(held(&engine), 2);
        outside.kill();
        assert_eq!((judge(&engine, outside.owner), engine.reap_dead()), (Dead, 1));
    });
}

/// A registration that is stopped right after the swap of its claim is already one of another namespace.
#[test]
fn half_a_registration_from_another_pid_namespace_is_unknown() {
    alone_if(enter_pid_namespace, || {
        let engine = master();
        let inside = Worker::prepared(&engine, enter_pid_namespace);
        let row = &engine.region().workers()[inside.owner.row() as usize];
        row.start_ticks.store(0, Ordering::SeqCst);
        row.pid_namespace.store(0, Ordering::SeqCst);
        assert_eq!((judge(&engine, inside.owner), engine.reap_dead()), (Unknown, 0));
        // And so is everybody else for those in there, whatever the rows lack.
        let mut inside = Worker::prepared(&engine, enter_pid_namespace);
        let outside = Worker::fork(&engine);
        let row = &engine.region().workers()[outside.owner.row() as usize];
        row.pid_namespace.store(0, Ordering::SeqCst);
        assert_eq!((inside.judge(outside.owner), inside.reap()), (Unknown, 0));
    });
}

fn may_enter_time_namespace() -> Result<()> {
    enter_time_namespace(100_000)
}

/// The kernel adds the reader's offset to every start time that it shows.
#[test]
fn nobody_is_proven_dead_across_time_namespaces() {
    alone_if(may_enter_time_namespace, || {
        let engine = master();
        let mut outside = Worker::fork(&engine);
        let mut inside = Worker::prepared(&engine, may_enter_time_namespace);
        assert!(outside.acquire(slots(2)) && inside.acquire(slots(2)));
        assert_eq!((outside.judge(inside.owner), judge(&engine, inside.owner)), (Alive, Alive));
        assert_eq!(inside.judge(outside.owner), Alive);
        assert_eq!(inside.judge(engine.me().expect("registered")), Alive);
        assert_eq!((engine.reap_dead(), outside.reap(), inside.reap()), (0, 0, 0));
        assert!(!outside.acquire(slots(2)) && !inside.acquire(slots(2)));
        // Absence and zombies are proofs there as well.
        system::kill_unwaited(outside.pid);
        assert_eq!((inside.judge(outside.owner), inside.reap()), (Dead, 1));
        // With the process that waits for it its child ends, too.
        inside.kill();
        system::until(|| judge(&engine, inside.owner) == Dead);
        assert_eq!(engine.reap_dead(), 1);
        assert!(gone(&engine, inside.owner) && held(&engine) == 0);
    });
}

fn without_proc() -> Result<()> {
    mount_over_proc(c"tmpfs", c"")
}

/// A process without `/proc` does not even know which pid namespace it is in.
#[test]
fn without_proc_nothing_is_proven() {
    alone_if(without_proc, || {
        let engine = master();
        let mut holder = Worker::fork(&engine);
        assert!(holder.acquire(slots(2)) && holder.acquire(slots(2)));
        let mut blind = Worker::prepared(&engine, without_proc);
        assert_eq!((blind.judge(holder.owner), blind.reap()), (Unknown, 0));
        holder.kill();
        assert_eq!((blind.judge(holder.owner), blind.reap()), (Unknown, 0));
        assert!(!blind.acquire(slots(2)));
        assert_eq!(judge(&engine, blind.owner), Unknown);
        assert_eq!((engine.reap_dead(), held(&engine)), (1, 0));
    });
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).expect("a pid")
}

/// Two namespaces down, with `/proc` of the one above: a pid in it is somebody else's there.
fn may_nest() -> Result<()> {
    enter_pid_namespace()?;
    match system::fork_as(&[300, free_pid_above()])? {
        Some(pid) => assert_eq!(system::wait(pid), Some(0)),
        None => system::exit(0),
    }
    Ok(())
}

/// A pid that nobody has in the namespace of `/proc`.
fn free_pid_above() -> i32 {
    (300..32_000).rev().find(|&pid| host::process_stat(pid).is_none()).expect("one is free")
}

/// A region of a pid namespace that sees its parent's `/proc`. The prover has the same pid in both, so that
/// `/proc/self` looks right; the victim has a pid that is a stranger's in the parent.
#[test]
fn a_proc_of_another_namespace_proves_nothing_even_if_the_pid_is_the_same() {
    alone_if(may_nest, || {
        let stranger = own_pid();
        system::let_the_clock_tick(system::start(stranger));
        system::elsewhere(enter_pid_namespace, || {
            assert_eq!((own_pid(), host::proc_mount()), (1, ProcMount::Foreign));
            let engine = master();
            let victim = Worker::with_pid(&engine, &[stranger]);
            let twice = free_pid_above();
            let mut prover = Worker::with_pid(&engine, &[twice, twice]);
            assert_eq!((prover.judge(victim.owner), prover.reap()), (Unknown, 0));
            assert_eq!((judge(&engine, victim.owner), engine.reap_dead()), (Unknown, 0));
            // That nobody has a pid is known without `/proc`.
            victim.kill();
            assert_eq!((prover.judge(victim.owner), prover.reap()), (Dead, 1));
        });
    });
}
