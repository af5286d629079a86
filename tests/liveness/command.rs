//! `fl-shm reap` as people run it: what it says, what it changes, and when it refuses.

use crate::alone::{alone, alone_if};
use crate::system::{
    self, become_nobody, enter_pid_namespace, enter_time_namespace, mount_over_proc,
};
use crate::worker::{Worker, gone, held, master, rows, slots};
use fast_litellm::engine::Engine;
use fast_litellm::layout::{ClaimWord, EventKind, HandCommand, WorkerState};
use fast_litellm::region::host;
use fast_litellm::sync::Ordering;
use fast_litellm::tables::events::Entry;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Result, Write};
use std::os::fd::AsRawFd;
use std::process::Command;

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs `fl-shm` on the region of this process.
pub(crate) fn fl_shm(arguments: &[&str]) -> Done {
    let pid = std::process::id().to_string();
    run(&[arguments, &["--pid", &pid]].concat())
}

fn run(arguments: &[&str]) -> Done {
    let done = Command::new(env!("CARGO_BIN_EXE_fl-shm")).args(arguments).output().expect("starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Done { code: done.status.code().unwrap_or(-1), out: text(done.stdout), err: text(done.stderr) }
}

/// Runs it in a child that `prepare` takes elsewhere.
fn run_in(prepare: impl FnOnce() -> Result<()>, arguments: &[&str]) -> Done {
    let text = told_by_child(|to| {
        prepare().expect("allowed: tried");
        let Done { code, out, err } = run(arguments);
        to.write_all(json!([code, out, err]).to_string().as_bytes()).expect("the test reads");
    });
    let (code, out, err) = serde_json::from_str(&text).expect("the child answered");
    Done { code, out, err }
}

/// What a child writes until it ends.
fn told_by_child(child: impl FnOnce(&mut File)) -> String {
    let (mut from, mut to) = system::pipe();
    if system::fork().is_none() {
        child(&mut to);
        system::exit(0);
    }
    drop(to);
    let mut text = String::new();
    from.read_to_string(&mut text).expect("text");
    text
}

fn refused(done: &Done, reason: &str) {
    assert_eq!((done.code, done.out.as_str()), (2, ""), "{done:?}");
    assert!(done.err.starts_with("fl-shm: ") && done.err.contains(reason), "{}", done.err);
}

/// Every byte of the region, which must be backed by a file.
fn bytes(engine: &Engine) -> Vec<u8> {
    let file = engine.region().backing().file.as_ref().expect("a file");
    std::fs::read(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("readable")
}

/// A region in which a dead worker holds two slots and a live one holds one.
fn with_a_dead_worker() -> (Engine, Worker, Worker) {
    let engine = master();
    let (mut live, mut dead) = (Worker::fork(&engine), Worker::fork(&engine));
    assert!(live.acquire(slots(3)) && dead.acquire(slots(3)) && dead.acquire(slots(3)));
    dead.kill();
    (engine, live, dead)
}

#[test]
fn without_yes_it_says_what_it_would_do_and_changes_nothing() {
    alone(|| {
        let (engine, _live, dead) = with_a_dead_worker();
        let before = bytes(&engine);
        let dry = fl_shm(&["reap", "--dry-run"]);
        assert_eq!((dry.code, dry.err.as_str()), (0, ""), "{dry:?}");
        assert!(dry.out.ends_with("\nwould free 1 worker row and 2 slots\n"), "{}", dry.out);
        let pid = dead.pid.to_string();
        let rows: Vec<_> = dry.out.lines().filter(|line| line.contains(&pid)).collect();
        assert!(rows.len() == 2 && rows[1].starts_with("  user:0 "), "{}", dry.out);
        let asked = fl_shm(&["reap"]);
        assert_eq!(asked.code, 2);
        assert!(asked.out.ends_with("\nwould free 1 worker row and 2 slots\n"), "{}", asked.out);
        assert!(asked.err.contains("--yes"), "{}", asked.err);
        assert!(bytes(&engine) == before, "the region has changed");
    });
}

#[test]
fn with_yes_it_frees_and_then_there_is_nothing_left_to_do() {
    alone(|| {
        let (engine, live, dead) = with_a_dead_worker();
        let epoch = engine.region().header().epoch.load(Ordering::SeqCst);
        let done = fl_shm(&["reap", "--yes"]);
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{done:?}");
        assert!(done.out.ends_with("\nfreed 1 worker row and 2 slots\n"), "{}", done.out);
        assert!(gone(&engine, dead.owner) && !gone(&engine, live.owner));
        assert_eq!((held(&engine), rows(&engine)), (1, 2));
        assert_eq!(engine.region().header().epoch.load(Ordering::SeqCst), epoch + 1);
        assert_eq!(engine.total(|row| &row.registrations), 3, "it has not registered itself");
        for option in ["--yes", "--dry-run"] {
            let again = fl_shm(&["reap", option]);
            assert_eq!(again.code, 0, "{again:?}");
            assert!(again.out.ends_with(": the dead own nothing\n"), "{}", again.out);
        }
    });
}

#[test]
fn programs_are_told_the_same() {
    alone(|| {
        let (_engine, _live, dead) = with_a_dead_worker();
        let told = |option| {
            let done = fl_shm(&["reap", "--json", option]);
            assert_eq!((done.code, done.err.as_str()), (0, ""), "{done:?}");
            serde_json::from_str::<Value>(&done.out).expect("JSON")
        };
        let dry = told("--dry-run");
        assert_eq!((&dry["schema"], dry.get("freed")), (&json!("fl-shm/1"), None));
        assert_eq!(
            (&dry["workers"][0]["pid"], &dry["workers"][0]["leases"]),
            (&json!(dead.pid), &json!(2))
        );
        assert_eq!(
            (&dry["leases"][0]["key"], &dry["leases"][0]["held"]),
            (&json!("user:0"), &json!(2))
        );
        let done = told("--yes");
        assert_eq!(done["workers"][0]["pid"], dry["workers"][0]["pid"]);
        assert_eq!(done["leases"][0]["held"], dry["leases"][0]["held"]);
        assert_eq!(done["freed"], json!({"workers": 1, "slots": 2}));
        let again = told("--yes");
        assert_eq!((&again["workers"], &again["leases"]), (&json!([]), &json!([])));
        assert_eq!(again["freed"], json!({"workers": 0, "slots": 0}));
    });
}

/// By a reaper that was killed, and by a process that left while one of its threads was acquiring.
#[test]
fn what_others_left_half_done_is_finished() {
    alone(|| {
        let engine = master();
        let (mut marked, mut left) = (Worker::fork(&engine), Worker::fork(&engine));
        assert!(marked.acquire(slots(2)) && left.acquire(slots(2)));
        for (worker, state) in [(&marked, WorkerState::Dead), (&left, WorkerState::Free)] {
            let claim = &engine.region().workers()[worker.owner.row() as usize].claim;
            let seen = claim.load(Ordering::SeqCst);
            let (pid, start) = (seen.pid(), seen.start_low());
            let next = ClaimWord::new(state as u64, pid, start, seen.generation());
            claim.store(next, Ordering::SeqCst);
        }
        let done = fl_shm(&["reap", "--yes"]);
        assert!(done.out.ends_with("\nfreed 1 worker row and 2 slots\n"), "{done:?}");
        assert_eq!((held(&engine), rows(&engine)), (0, 1));
    });
}

#[test]
fn stopped_workers_are_left_alone() {
    alone(|| {
        let engine = master();
        let mut stopped = Worker::fork(&engine);
        assert!(stopped.acquire(slots(1)));
        system::stop(stopped.pid);
        let done = fl_shm(&["reap", "--yes"]);
        assert!(done.code == 0 && done.out.ends_with(": the dead own nothing\n"), "{done:?}");
        system::kill_unwaited(stopped.pid);
        let done = fl_shm(&["reap", "--yes"]);
        assert!(done.out.ends_with("\nfreed 1 worker row and 1 slot\n"), "{done:?}");
    });
}

#[test]
fn misuse_is_exit_code_two_and_changes_nothing() {
    alone(|| {
        let (engine, ..) = with_a_dead_worker();
        let before = bytes(&engine);
        let both = fl_shm(&["reap", "--yes", "--dry-run"]);
        assert!(both.code == 2 && both.err.contains("'--yes' cannot be used with"), "{both:?}");
        refused(&run(&["reap", "--yes", "--pid", "1"]), "process 1 uses no region");
        refused(&run(&["reap", "--yes", "--file", "/dev/null"]), "/dev/null");
        refused(&run(&["reap", "--yes", "--region", "no-such"]), "no-such");
        assert!(bytes(&engine) == before, "the region has changed");
    });
}

fn own_world() -> Result<()> {
    enter_pid_namespace()?;
    mount_over_proc(c"proc", c"")
}

#[test]
fn no_region_is_exit_code_one() {
    alone_if(own_world, || {
        let done = run_in(own_world, &["reap", "--yes"]);
        assert_eq!((done.code, done.out.as_str()), (1, ""), "{done:?}");
        assert!(done.err.starts_with("fl-shm: no live region"), "{}", done.err);
    });
}

#[test]
fn a_region_of_another_pid_namespace_is_refused_from_outside() {
    alone_if(enter_pid_namespace, || {
        let (mut from, mut to) = system::pipe();
        let Some(_container) = system::fork() else {
            enter_pid_namespace().expect("allowed: tried");
            let engine = master();
            let (live, dead) = (Worker::fork(&engine), Worker::fork(&engine));
            dead.kill();
            // `/proc` is still the one outside, and says who this is there.
            let outside = std::fs::read_link("/proc/self").expect("known there");
            to.write_all(outside.to_str().expect("a pid").as_bytes()).expect("the test reads");
            drop((to, from));
            system::until(|| gone(&engine, dead.owner) || gone(&engine, live.owner));
            system::exit(0);
        };
        drop(to);
        let mut pid = [0; 16];
        let length = from.read(&mut pid).expect("the pid");
        let pid = std::str::from_utf8(&pid[..length]).expect("a pid");
        for option in ["--yes", "--dry-run"] {
            let done = run(&["reap", option, "--pid", pid]);
            refused(&done, "another pid namespace");
            assert!(done.err.contains(&format!("nsenter --target {pid} ")), "{}", done.err);
        }
    });
}

/// A region with a name, which other namespaces can open.
struct Named {
    path: String,
}

impl Named {
    fn new() -> (Self, Engine, Worker) {
        let path = std::env::temp_dir().join(format!("fl-liveness-{}", std::process::id()));
        let engine = crate::worker::master_at(&path);
        let dead = Worker::fork(&engine);
        dead.kill();
        (Self { path: path.to_str().expect("text").to_string() }, engine, dead)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn a_region_that_nobody_uses_any_more_is_reaped_by_its_file() {
    alone(|| {
        let path = std::env::temp_dir().join(format!("fl-liveness-{}", std::process::id()));
        let named = Named { path: path.to_str().expect("text").to_string() };
        system::elsewhere(
            || Ok(()),
            || assert!(slots(1).acquire(&crate::worker::master_at(&path))),
        );
        let done = run(&["reap", "--yes", "--file", &named.path]);
        assert!(done.out.ends_with("\nfreed 1 worker row and 1 slot\n"), "{done:?}");
        let link = format!("{}.link", named.path);
        std::os::unix::fs::symlink(&path, &link).expect("links");
        let link = Named { path: link };
        refused(&run(&["reap", "--yes", "--file", &link.path]), "cannot open");
    });
}

#[test]
fn a_region_is_refused_from_inside_another_namespace() {
    let may = || {
        system::in_child(own_world)?;
        enter_time_namespace(100_000)
    };
    alone_if(may, || {
        let (named, engine, dead) = Named::new();
        let arguments = ["reap", "--yes", "--file", &named.path];
        let before = bytes(&engine);
        refused(&run_in(own_world, &arguments), "another pid namespace");
        let done = run_in(|| enter_time_namespace(100_000), &arguments);
        refused(&done, "another time namespace");
        refused(&run_in(enter_pid_namespace, &arguments), "/proc numbers processes");
        let hide = || mount_over_proc(c"tmpfs", c"");
        refused(&run_in(hide, &arguments), "/proc is not mounted");
        refused(&run_in(hide, &["reap", "--yes"]), "/proc is not mounted");
        assert!(bytes(&engine) == before, "the region has changed");
        let done = run(&arguments);
        assert!(done.code == 0 && gone(&engine, dead.owner), "{done:?}");
    });
}

/// By its effective uid: nobody else may write what is his. The event has the real one.
#[test]
fn root_acts_for_the_region_s_owner_and_others_do_not_see_it() {
    alone_if(become_nobody, || {
        let (mut from, mut to) = system::pipe();
        let Some(pid) = system::fork() else {
            become_nobody().expect("allowed: tried");
            let engine = master();
            let dead = Worker::fork(&engine);
            dead.kill();
            to.write_all(b".").expect("the test reads");
            system::until(|| gone(&engine, dead.owner));
            let by_hand = |entry: &Entry| entry.known_kind() == Some(EventKind::ByHand);
            let events: Vec<_> = engine.recent_events(9).filter(by_hand).collect();
            let told: Vec<_> = events.iter().map(|entry| (entry.a, entry.b)).collect();
            system::exit(i32::from(told != [(0, HandCommand::Reap as u64)]));
        };
        from.read_exact(&mut [0]).expect("the region is there");
        assert!(host::process_stat(pid).is_some());
        let of = pid.to_string();
        let reap = |option| run(&["reap", option, "--pid", &of]);
        let stranger = || system::become_user(1_234);
        let done = run_in(stranger, &["reap", "--yes", "--pid", &of]);
        refused(&done, "uses no region that you may see");
        let dry = reap("--dry-run");
        assert!(
            dry.code == 0 && dry.out.ends_with("would free 1 worker row and 0 slots\n"),
            "{dry:?}"
        );
        let done = reap("--yes");
        assert!(
            done.code == 0 && done.out.ends_with("\nfreed 1 worker row and 0 slots\n"),
            "{done:?}"
        );
        assert_eq!(system::wait(pid), Some(0), "the event says who ran it");
    });
}
