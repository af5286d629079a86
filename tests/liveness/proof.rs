//! Each way to be, or not to be, in one pid namespace.

use crate::alone::{alone, alone_if};
use crate::system::{self, become_nobody, fork_as};
use crate::worker::{Worker, gone, held, judge, master, slots};
use fast_litellm::engine::Engine;
use fast_litellm::liveness::Liveness::{Alive, Dead, Unknown};
use fast_litellm::sync::Ordering;

/// A worker that holds both slots of the key, and another one.
fn holder_and_other(engine: &Engine) -> (Worker, Worker) {
    let (mut holder, other) = (Worker::fork(engine), Worker::fork(engine));
    assert!(holder.acquire(slots(2)) && holder.acquire(slots(2)));
    (holder, other)
}

/// Everybody takes the process for alive, and its slots for held.
fn stands(engine: &Engine, holder: &Worker, other: &mut Worker) {
    assert_eq!(judge(engine, holder.owner), Alive);
    assert_eq!(other.judge(holder.owner), Alive);
    assert_eq!((engine.reap_dead(), other.reap()), (0, 0));
    assert!(!other.acquire(slots(2)) && !slots(2).acquire(engine));
    assert_eq!(held(engine), 2);
}

/// Everybody takes the process for dead, and whoever wants its slots gets them.
fn is_over(engine: &Engine, holder: &Worker, other: &mut Worker) {
    assert_eq!(judge(engine, holder.owner), Dead);
    assert_eq!(other.judge(holder.owner), Dead);
    // Each of them looks at most once in a while.
    system::until(|| other.acquire(slots(2)));
    system::until(|| slots(2).acquire(engine));
    assert!(gone(engine, holder.owner));
    assert_eq!((held(engine), engine.reap_dead()), (2, 0));
}

#[test]
fn a_running_process_is_alive_and_one_that_is_gone_is_dead() {
    alone(|| {
        let engine = master();
        let (holder, mut other) = holder_and_other(&engine);
        stands(&engine, &holder, &mut other);
        holder.kill();
        is_over(&engine, &holder, &mut other);
    });
}

#[test]
fn a_zombie_is_dead() {
    alone(|| {
        let engine = master();
        let (holder, mut other) = holder_and_other(&engine);
        system::kill_unwaited(holder.pid);
        assert_eq!(system::state(holder.pid), 'Z');
        is_over(&engine, &holder, &mut other);
    });
}

#[test]
fn a_first_thread_that_ended_before_the_others_is_alive() {
    alone(|| {
        let engine = master();
        let mut holder = Worker::without_first_thread(&engine);
        let mut other = Worker::fork(&engine);
        assert!(holder.acquire(slots(2)) && holder.acquire(slots(2)));
        assert_eq!(system::state(holder.pid), 'Z');
        stands(&engine, &holder, &mut other);
        assert!(!holder.acquire(slots(2)), "it has all, and still answers");
        system::kill_unwaited(holder.pid);
        is_over(&engine, &holder, &mut other);
    });
}

#[test]
fn a_stopped_process_is_alive_until_it_is_killed() {
    alone(|| {
        let engine = master();
        let (holder, mut other) = holder_and_other(&engine);
        system::stop(holder.pid);
        assert_eq!(system::state(holder.pid), 'T');
        for _ in 0..20 {
            stands(&engine, &holder, &mut other);
        }
        // Not continued: it dies where it stopped.
        system::kill_unwaited(holder.pid);
        is_over(&engine, &holder, &mut other);
    });
}

fn may_trace() -> std::io::Result<()> {
    let Some(pid) = system::fork() else {
        system::until(|| false);
        return Ok(());
    };
    let traced = system::trace(pid);
    system::kill(pid, libc::SIGKILL);
    system::wait(pid);
    traced
}

#[test]
fn a_process_in_a_debugger_is_alive() {
    alone_if(may_trace, || {
        let engine = master();
        let (holder, mut other) = holder_and_other(&engine);
        system::trace(holder.pid).expect("allowed: tried");
        assert_eq!(system::state(holder.pid), 't');
        stands(&engine, &holder, &mut other);
        system::kill_unwaited(holder.pid);
        is_over(&engine, &holder, &mut other);
    });
}

#[test]
fn a_process_may_be_called_what_it_likes() {
    alone(|| {
        let engine = master();
        let names = [c") Z 1 1 1 1", c"(x) X 1 (", c"\n) Z\n", c")\xff\xfe) Z 0", c""];
        let mut other = Worker::fork(&engine);
        for name in names {
            let mut holder = Worker::prepared(&engine, || {
                system::set_name(name);
                Ok(())
            });
            assert!(holder.acquire(slots(2)) && holder.acquire(slots(2)));
            stands(&engine, &holder, &mut other);
            system::kill_unwaited(holder.pid);
            assert_eq!(judge(&engine, holder.owner), Dead);
            assert_eq!((other.reap(), held(&engine)), (1, 0));
        }
    });
}

/// A pid that nobody has, of a process that just ended.
fn unused_pid() -> i32 {
    let pid = system::fork().unwrap_or_else(|| system::exit(0));
    system::wait(pid);
    pid
}

fn may_choose_pids() -> std::io::Result<()> {
    match fork_as(&[unused_pid()])? {
        Some(pid) => assert_eq!(system::wait(pid), Some(0)),
        None => system::exit(0),
    }
    Ok(())
}

/// A child with the pid of a dead one, which it waits for a clock tick to be born in.
fn impostor(pid: i32, start: u64) -> i32 {
    system::let_the_clock_tick(start);
    let pid = fork_as(&[pid]).expect("allowed: tried").unwrap_or_else(|| {
        system::until(|| false);
        0
    });
    assert_ne!(system::start(pid), start);
    pid
}

#[test]
fn a_process_whose_pid_another_one_has_got_is_dead() {
    alone_if(may_choose_pids, || {
        let engine = master();
        let (holder, mut other) = holder_and_other(&engine);
        let start = system::start(holder.pid);
        holder.kill();
        let impostor = impostor(holder.pid, start);
        is_over(&engine, &holder, &mut other);
        system::kill(impostor, libc::SIGKILL);
    });
}

/// Killed between the swap of its claim and the store of its full start time, which takes a debugger; here
/// the time is taken back.
#[test]
fn half_a_registration_is_told_by_the_low_bits_of_its_start_time() {
    alone_if(may_choose_pids, || {
        let engine = master();
        let (holder, mut other) = holder_and_other(&engine);
        let row = &engine.region().workers()[holder.owner.row() as usize];
        let start = row.start_ticks.swap(0, Ordering::SeqCst);
        assert_eq!(start, system::start(holder.pid));
        stands(&engine, &holder, &mut other);
        holder.kill();
        let impostor = impostor(holder.pid, start);
        is_over(&engine, &holder, &mut other);
        system::kill(impostor, libc::SIGKILL);
    });
}

/// Root's master with workers of another user: signals are refused, but `/proc` tells.
#[test]
fn a_process_of_another_user_is_told_by_proc() {
    alone_if(become_nobody, || {
        let engine = master();
        let mut holder = Worker::fork(&engine);
        assert!(holder.acquire(slots(2)) && holder.acquire(slots(2)));
        let mut other = Worker::prepared(&engine, become_nobody);
        stands(&engine, &holder, &mut other);
        system::kill_unwaited(holder.pid);
        is_over(&engine, &holder, &mut other);
    });
}

/// Before Linux 5.8 `hidepid` was an option of the pid namespace and not of the mount.
fn own_proc() -> std::io::Result<()> {
    system::enter_pid_namespace()?;
    system::mount_over_proc(c"proc", c"")
}

fn hidden_proc() -> std::io::Result<()> {
    system::mount_over_proc(c"proc", c"hidepid=2")?;
    become_nobody()
}

/// With `/proc` hidden, too, only a pid that nobody has is a proof.
#[test]
fn a_hidden_process_is_unknown_and_keeps_what_it_has() {
    let hidden = || own_proc().and_then(|()| hidden_proc());
    let body = || {
        let engine = master();
        let mut holder = Worker::fork(&engine);
        assert!(holder.acquire(slots(2)) && holder.acquire(slots(2)));
        let mut blind = Worker::prepared(&engine, hidden_proc);
        for end in [|_| {}, |pid| system::stop(pid), |pid| system::kill_unwaited(pid)] {
            end(holder.pid);
            assert_eq!(blind.judge(holder.owner), Unknown);
            assert_eq!(blind.reap(), 0);
            assert!(!blind.acquire(slots(2)));
        }
        assert_eq!(blind.judge(engine.me().expect("registered")), Unknown);
        system::wait(holder.pid);
        assert_eq!((blind.judge(holder.owner), blind.reap()), (Dead, 1));
        assert_eq!(held(&engine), 0);
    };
    alone_if(hidden, || system::elsewhere(own_proc, body));
}
