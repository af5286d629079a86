//! Throughput of 1, 2 and 4 processes that count together.

use crate::Failure;
use crate::governed::coarse_ns;
use crate::measure::median;
use crate::ours::{At, FAILED, Ours, Rate, Request};
use crate::report::{Table, verdict};
use crate::robust::Robust;
use crate::shared::{Child, Shared, Zeroed, fork};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MOST: usize = 4;
const COUNTS: [usize; 3] = [1, 2, MOST];
const DURATION: Duration = Duration::from_millis(200);
/// A child that is told nothing ends after so many seconds.
const PATIENCE_S: u32 = 30;
/// Operations between two looks at the flag.
const STRIDE: u64 = 64;
const SLOTS: u64 = 1_000;

/// What the parent and its children tell each other.
struct Control {
    ready: AtomicU64,
    start: AtomicBool,
    stop: AtomicBool,
    done: [Line; MOST],
}

/// One child's operations, on a cache line of its own.
#[repr(align(128))]
struct Line(AtomicU64);

// SAFETY: atomics are valid when zero.
#[allow(unsafe_code, reason = "a promise about this type's bytes")]
unsafe impl Zeroed for Control {}

/// Everybody's state, made before the fork.
struct Contenders {
    ours: Ours,
    open: Rate,
    shut: Rate,
    /// One key per process; the first is the hot one.
    places: [At; MOST],
    refused: At,
    robust: Vec<Robust>,
    /// One client per process.
    requests: [Request; MOST],
    /// One lock around all clients.
    table: Robust,
    refusing: Robust,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Ours,
    Robust,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Admitted,
    Refused,
    Separate,
    AdmissionHot,
    AdmissionSeparate,
}

const SITUATIONS: [What; 5] =
    [What::Admitted, What::Refused, What::Separate, What::AdmissionHot, What::AdmissionSeparate];

impl What {
    fn is_separate(self) -> bool {
        matches!(self, Self::Separate | Self::AdmissionSeparate)
    }

    fn text(self) -> &'static str {
        match self {
            Self::Admitted => "one hot key, admitted",
            Self::Refused => "one hot key, refused",
            Self::Separate => "a key each, admitted",
            Self::AdmissionHot => "3 limits + lease, one client",
            Self::AdmissionSeparate => "3 limits + lease, a client each",
        }
    }
}

impl Contenders {
    fn new() -> Result<Self, Failure> {
        let ours = Ours::new(1 << 16)?;
        let (open, shut) = (ours.open()?, ours.shut()?);
        let place = |n: usize| ours.place(&open, format!("process-{n}").as_bytes());
        let places = [place(0)?, place(1)?, place(2)?, place(3)?];
        let refused = ours.place(&shut, b"refused")?;
        let robust = (0..MOST).map(|_| Robust::new()).collect::<Result<_, _>>()?;
        let (refusing, table) = (Robust::new()?, Robust::new()?);
        let requests = std::array::from_fn(Request::new);
        Ok(Self { ours, open, shut, places, refused, robust, requests, table, refusing })
    }

    /// One process's operations until it is told to stop: how many, [`FAILED`] included.
    fn work(&self, who: Who, what: What, process: usize, stop: &AtomicBool) -> u64 {
        let process = if what.is_separate() { process } else { 0 };
        let now_s = || coarse_ns() / 1_000_000_000;
        match (who, what) {
            (Who::Ours, What::Refused) => {
                until(stop, || self.ours.check_at(&self.shut, *black_box(&self.refused)))
            }
            (Who::Ours, What::AdmissionHot | What::AdmissionSeparate) => {
                let request = &self.requests[process];
                until(stop, || self.ours.admission(request, None))
            }
            (Who::Robust, What::AdmissionHot | What::AdmissionSeparate) => until(stop, || {
                let admitted = self.table.admission(process, now_s(), black_box(u64::MAX), SLOTS);
                admitted + self.table.release(process)
            }),
            (Who::Ours, _) => {
                until(stop, || self.ours.check_at(&self.open, *black_box(&self.places[process])))
            }
            (Who::Robust, What::Refused) => {
                until(stop, || self.refusing.check(now_s(), black_box(1)))
            }
            (Who::Robust, _) => {
                let robust = &self.robust[process];
                until(stop, || robust.check(now_s(), black_box(u64::MAX)))
            }
        }
    }
}

fn until(stop: &AtomicBool, mut operation: impl FnMut() -> u64) -> u64 {
    let mut operations = 0;
    while !stop.load(Ordering::Relaxed) {
        let sum: u64 = (0..STRIDE).map(|_| operation()).sum();
        operations += STRIDE + sum / FAILED * FAILED;
    }
    operations
}

/// Millions of operations per second of each process.
fn throughput(
    contenders: &Contenders,
    who: Who,
    what: What,
    count: usize,
) -> Result<Vec<f64>, Failure> {
    let control = Shared::<Control>::new()?;
    let body = |process: usize| {
        pin(process);
        control.ready.fetch_add(1, Ordering::Relaxed);
        await_flag(|| control.start.load(Ordering::Acquire));
        let operations = contenders.work(who, what, process, &control.stop);
        control.done[process].0.store(operations, Ordering::Relaxed);
        contenders.ours.leave();
        true
    };
    let children = (0..count)
        .map(|process| fork(PATIENCE_S, || body(process)))
        .collect::<Result<Vec<Child>, _>>()?;
    await_flag(|| control.ready.load(Ordering::Relaxed) == count as u64);
    let begun = Instant::now();
    control.start.store(true, Ordering::Release);
    std::thread::sleep(DURATION);
    control.stop.store(true, Ordering::Relaxed);
    let elapsed = begun.elapsed();
    children.into_iter().try_for_each(Child::wait)?;
    let done: Vec<u64> =
        control.done[..count].iter().map(|line| line.0.load(Ordering::Relaxed)).collect();
    if done.iter().any(|&operations| operations >= FAILED) {
        return Err(format!("{}: an operation failed under contention", what.text()).into());
    }
    #[allow(clippy::cast_precision_loss, reason = "operations of a fraction of a second")]
    Ok(done.iter().map(|&operations| operations as f64 / elapsed.as_secs_f64() / 1e6).collect())
}

/// Keeps a process on a core of its own while there are enough, or two of them might share one and would
/// never meet. Where that is not allowed, they run where they are put.
fn pin(process: usize) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut core = CpuSet::new();
    let _ = core.set(process % cores).and_then(|()| sched_setaffinity(Pid::from_raw(0), &core));
}

fn await_flag(set: impl Fn() -> bool) {
    while !set() {
        std::thread::yield_now();
    }
}

/// What both contenders do, the situation being one and the same.
struct Row {
    what: What,
    count: usize,
    /// By round, ours and the mutex: the sum of all processes, and the share of the slowest.
    rounds: [Vec<(f64, f64)>; 2],
}

impl Row {
    fn measure(&mut self, contenders: &Contenders) -> Result<(), Failure> {
        for (who, rounds) in [Who::Ours, Who::Robust].into_iter().zip(&mut self.rounds) {
            let each = throughput(contenders, who, self.what, self.count)?;
            let sum: f64 = each.iter().sum();
            let least = each.iter().copied().fold(f64::INFINITY, f64::min);
            rounds.push((sum, least / sum));
        }
        Ok(())
    }

    fn cells(&self) -> (Vec<String>, Value) {
        let middle = |of: fn(&(f64, f64)) -> f64| {
            self.rounds.each_ref().map(|rounds| {
                let mut values: Vec<f64> = rounds.iter().map(of).collect();
                values.sort_unstable_by(f64::total_cmp);
                median(&values)
            })
        };
        let [ours, robust] = middle(|round| round.0);
        let [our_least, robust_least] = middle(|round| round.1);
        let gain = ours / robust;
        let (ratio, words) = verdict(gain);
        let what = self.what.text();
        let cells = vec![
            format!("{what}, {}", plural(self.count)),
            format!("{ours:.1}"),
            format!("{robust:.1}"),
            format!("{:.0}%", 100.0 * our_least),
            format!("{:.0}%", 100.0 * robust_least),
            ratio,
            words,
        ];
        let value = json!({
            "what": what, "processes": self.count, "ours_per_us": ours, "robust_mutex_per_us": robust,
            "ours_over_peer": gain, "ours_least_share": our_least,
            "robust_mutex_least_share": robust_least, "rounds": self.rounds,
        });
        (cells, value)
    }
}

fn plural(count: usize) -> String {
    if count == 1 { "1 process".to_string() } else { format!("{count} processes") }
}

pub(crate) fn run(rounds: usize) -> Result<Vec<Table>, Failure> {
    eprintln!("measuring: processes");
    let contenders = Contenders::new()?;
    let mut rows: Vec<Row> = SITUATIONS
        .into_iter()
        .flat_map(|what| COUNTS.map(|count| Row { what, count, rounds: [Vec::new(), Vec::new()] }))
        .filter(|row| !row.what.is_separate() || row.count > 1)
        .collect();
    for _ in 0..rounds {
        rows.iter_mut().try_for_each(|row| row.measure(&contenders))?;
    }
    let (rows, figures): (Vec<_>, Vec<_>) = rows.iter().map(Row::cells).unzip();
    let notes = vec![
        "each process is kept on one core, as far as there are enough; governor has no place here: its state \
             belongs to one process".to_string(),
        "medians over the rounds; checks are ours by place, both sides with our coarse clock"
            .to_string(),
        "the mutex: for checks one per counter, for admissions one around all clients' counters, which \
         it has no keys to find"
            .to_string(),
        "share of the slowest process: 50% of two and 25% of four would be even".to_string(),
    ];
    Ok(vec![Table {
        title: "throughput of processes, million operations per second together".to_string(),
        notes,
        columns: vec![
            "",
            "ours",
            "robust mutex",
            "ours: slowest",
            "mutex: slowest",
            "ours / mutex",
            "",
        ],
        rows,
        figures: Value::Array(figures),
    }])
}
