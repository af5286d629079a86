//! A region with its creator, and workers that do what they are told.

use crate::system::{self, exit, fork, fork_as, pipe};
use fast_litellm::clock::MonotonicClock;
use fast_litellm::config::Capacity;
use fast_litellm::engine::Engine;
use fast_litellm::engine::slots::{Grant, SlotAsk};
use fast_litellm::layout::OwnerTag;
use fast_litellm::liveness::Liveness;
use fast_litellm::region::{Placement, Vantage, create};
use fast_litellm::sync::Ordering;
use fast_litellm::tables::workers::{is_gone, list, prover};
use std::fs::File;
use std::io::{Read, Write};
use std::panic::AssertUnwindSafe;
use std::path::Path;

/// A new region in which this process is registered, as gunicorn's master is.
pub(crate) fn master() -> Engine {
    master_of(16)
}

/// As [`master`], with so many rows for workers, the master included.
pub(crate) fn master_of(workers: i128) -> Engine {
    made(&Placement::inherited(&format!("liveness-{}", std::process::id())), workers)
}

/// As [`master`], in a file.
pub(crate) fn master_at(path: &Path) -> Engine {
    made(&Placement::Named { path: path.to_path_buf(), force: true }, 16)
}

fn made(placement: &Placement, workers: i128) -> Engine {
    let capacity = Capacity::checked(1024, 64, workers + 1).expect("valid");
    Engine::new(create(placement, capacity, Box::new(MonotonicClock)).expect("memory"))
}

/// The slots of the only key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slots {
    limit: u8,
}

/// The key's slots, so many of them.
pub(crate) fn slots(limit: u8) -> Slots {
    Slots { limit }
}

impl Slots {
    /// Acquires one for this process; false = all are held.
    pub(crate) fn acquire(self, engine: &Engine) -> bool {
        let id = format!("{}-{}", std::process::id(), unique());
        let key = "{user:0}:max_parallel_requests";
        let ask = SlotAsk { key, limit: self.limit.into(), ttl_s: 3600, slot_id: &id };
        matches!(engine.acquire_all(&[ask]), Ok(Grant::Held(_)))
    }
}

/// Who holds each slot that is held, dead or alive.
pub(crate) fn holders(engine: &Engine) -> Vec<OwnerTag> {
    let holders = engine.region().chunks().iter().flat_map(|chunk| &chunk.holders);
    holders.filter_map(|holder| OwnerTag::from_raw(holder.load(Ordering::SeqCst).owner())).collect()
}

/// How many slots are held.
pub(crate) fn held(engine: &Engine) -> usize {
    holders(engine).len()
}

fn unique() -> u64 {
    static NEXT: fast_litellm::sync::Word<u64> = fast_litellm::sync::Word::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// What a process thinks of the process registered under a pid, or in a row.
pub(crate) fn judge(engine: &Engine, owner: OwnerTag) -> Liveness {
    let region = engine.region();
    let workers = list(region.workers(), prover(Vantage::of(region.header())));
    let found = workers.iter().find(|worker| worker.owner == owner);
    found.expect("a registered process").liveness
}

/// Whether the row of that registration has been given back.
pub(crate) fn gone(engine: &Engine, owner: OwnerTag) -> bool {
    is_gone(engine.region().workers(), owner)
}

/// Rows that are in use.
pub(crate) fn rows(engine: &Engine) -> usize {
    list(engine.region().workers(), |_, _| Liveness::Unknown).len()
}

/// A forked process that answers requests until it is killed or nobody can ask any more.
pub(crate) struct Worker {
    /// The child's pid; what serves may be a child of it.
    pub(crate) pid: i32,
    /// Its registration.
    pub(crate) owner: OwnerTag,
    to: File,
    from: File,
}

#[derive(Clone, Copy)]
#[repr(u8)]
enum Request {
    Register,
    Acquire,
    Reap,
    Judge,
    Leave,
    Exit,
}

impl Worker {
    pub(crate) fn fork(engine: &Engine) -> Self {
        Self::prepared(engine, || Ok(()))
    }

    /// `prepare` runs in the child before it registers.
    pub(crate) fn prepared(engine: &Engine, prepare: impl FnOnce() -> std::io::Result<()>) -> Self {
        Self::made(engine, fork, || prepare().expect("allowed: the test has tried"))
    }

    /// With that pid in this namespace, and in those above it.
    pub(crate) fn with_pid(engine: &Engine, pids: &[i32]) -> Self {
        Self::made(engine, || fork_as(pids).expect("allowed: the test has tried"), || {})
    }

    /// Its first thread ends, and another one serves.
    pub(crate) fn without_first_thread(engine: &Engine) -> Self {
        let worker = Self::made_by(engine, fork, |serve| {
            std::thread::scope(|scope| {
                scope.spawn(serve);
                system::end_thread()
            });
        });
        system::until(|| system::state(worker.pid) == 'Z');
        worker
    }

    fn made(engine: &Engine, fork: impl FnOnce() -> Option<i32>, prepare: impl FnOnce()) -> Self {
        Self::made_by(engine, fork, |serve| {
            prepare();
            serve();
        })
    }

    fn made_by(
        engine: &Engine,
        fork: impl FnOnce() -> Option<i32>,
        run: impl FnOnce(&(dyn Fn() + Sync)),
    ) -> Self {
        let (ask, to) = pipe();
        let (from, answer) = pipe();
        let Some(pid) = fork() else {
            drop((to, from));
            // The harness above must not run on in this process.
            let ended = std::panic::catch_unwind(AssertUnwindSafe(|| {
                run(&|| serve(engine, &ask, &answer));
            }));
            exit(i32::from(ended.is_err()));
        };
        drop((ask, answer));
        let mut worker = Self { pid, owner: OwnerTag::new(0, 1).expect("valid"), to, from };
        let owner = worker.ask(Request::Register, 0);
        // 0 = it has no row.
        worker.owner = OwnerTag::from_raw(owner).unwrap_or(worker.owner);
        worker
    }

    fn ask(&mut self, request: Request, argument: u8) -> u64 {
        self.to.write_all(&[request as u8, argument]).expect("the worker lives");
        let mut answer = [0; 8];
        self.from.read_exact(&mut answer).expect("the worker lives");
        u64::from_le_bytes(answer)
    }

    pub(crate) fn acquire(&mut self, slots: Slots) -> bool {
        self.ask(Request::Acquire, slots.limit) == 1
    }

    /// Returns how many workers it reaped.
    pub(crate) fn reap(&mut self) -> u64 {
        self.ask(Request::Reap, 0)
    }

    /// What it thinks of another process.
    pub(crate) fn judge(&mut self, owner: OwnerTag) -> Liveness {
        match self.ask(Request::Judge, u8::try_from(owner.row()).expect("few rows")) {
            0 => Liveness::Alive,
            1 => Liveness::Dead,
            _ => Liveness::Unknown,
        }
    }

    pub(crate) fn leave(&mut self) {
        self.ask(Request::Leave, 0);
    }

    /// Ends without giving anything back; waited for.
    pub(crate) fn exit(mut self) {
        self.ask(Request::Exit, 0);
        assert_eq!(system::wait(self.pid), Some(0));
    }

    /// `kill -9`, waited for.
    pub(crate) fn kill(&self) {
        system::kill(self.pid, libc::SIGKILL);
        assert_eq!(system::wait(self.pid), None);
    }
}

fn serve(engine: &Engine, mut ask: &File, mut answer: &File) {
    let mut request = [0; 2];
    while ask.read_exact(&mut request).is_ok() {
        let [request, argument] = request;
        let result = match request {
            _ if request == Request::Register as u8 => engine.me().map_or(0, OwnerTag::raw),
            _ if request == Request::Acquire as u8 => slots(argument).acquire(engine).into(),
            _ if request == Request::Reap as u8 => engine.reap_dead(),
            _ if request == Request::Judge as u8 => judge_row(engine, argument.into()),
            _ if request == Request::Leave as u8 => {
                engine.leave();
                0
            }
            _ => 0,
        };
        answer.write_all(&result.to_le_bytes()).expect("the test lives");
        if request == Request::Exit as u8 {
            exit(0);
        }
    }
}

fn judge_row(engine: &Engine, row: usize) -> u64 {
    let region = engine.region();
    let workers = list(region.workers(), prover(Vantage::of(region.header())));
    match workers.iter().find(|worker| worker.row == row).map(|worker| worker.liveness) {
        Some(Liveness::Alive) => 0,
        Some(Liveness::Dead) => 1,
        _ => 2,
    }
}
