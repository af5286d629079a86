//! What a stopped worker costs the others: one worker is frozen by SIGSTOP at random instants while the
//! rest go on, on a region and, for comparison, on counters behind a robust mutex.
//!
//!     bash scripts/stopped_worker
//!
//! Measured workers have a core each; the one that is stopped shares the first core with the master, so
//! that it takes nobody's processor time away when it runs. With 2 cores that is one measured worker. All
//! are real-time where that is allowed, and pause now and then so that the kernel lets them.

mod histogram;
mod mutex;
#[path = "../../tests/common/process.rs"]
#[allow(dead_code, reason = "the torture test uses the rest")]
mod process;
#[path = "../../tests/common/random.rs"]
#[allow(dead_code, reason = "the torture test uses the rest")]
mod random;

use fast_litellm::clock::MonotonicClock;
use fast_litellm::config::Capacity;
use fast_litellm::engine::Engine;
use fast_litellm::engine::slots::{Grant, SlotAsk};
use fast_litellm::engine::windows::{Ask, Verdict};
use fast_litellm::region::{Placement, create};
use fast_litellm::sync::{Ordering, Word};
use histogram::{Durations, Histogram};
use mutex::Guarded;
use nix::sys::signal::Signal;
use process::monotonic_ns;
use random::Random;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// Number of the worker that is stopped, as the mutex's holder.
const VICTIM: u64 = 1;
/// Limits that are never reached: what is measured is the admitted path.
const LIMITS: [i64; 3] = [1 << 36, 1 << 36, 64];
/// Requests that take longer are stalls, nanoseconds.
const STALL_NS: u64 = 1_000_000;

/// The key that all workers use.
const REQUESTS: &str = "{api_key:hot}:requests";
const TOKENS: &str = "{api_key:hot}:tokens";
const SLOTS: &str = "{api_key:hot}:max_parallel_requests";
/// Requests of a measured worker between two pauses.
const BATCH: u32 = 50;

/// What the command line asks for.
struct Options {
    rounds: usize,
    seconds: u64,
    spell_ms: u64,
}

/// Who decides.
#[derive(Clone, Copy)]
enum Peer<'a> {
    Region(&'a Engine),
    Mutex(Guarded, &'a Engine),
}

impl Peer<'_> {
    /// One request of a closed loop; true if it was admitted.
    fn request(self, who: u64) -> bool {
        match self {
            Self::Mutex(guarded, engine) => {
                let charges =
                    [(REQUESTS, 1, LIMITS[0]), (TOKENS, 10, LIMITS[1]), (SLOTS, 1, LIMITS[2])];
                guarded.request(who, engine.region(), &charges)
            }
            Self::Region(engine) => {
                let ask = |counter, limit, amount| {
                    let window = "{api_key:hot}:window";
                    Ask { window, counter, limit, amount, size_s: 60 }
                };
                let asks = [ask(REQUESTS, LIMITS[0], 1), ask(TOKENS, LIMITS[1], 10)];
                let slot = SlotAsk { key: SLOTS, limit: LIMITS[2], ttl_s: 0, slot_id: "request" };
                let admitted = matches!(engine.admit_all(&asks), Ok(Verdict::Admitted(_)));
                let held = matches!(engine.acquire_all(&[slot]), Ok(Grant::Held(_)));
                admitted && held && engine.release(SLOTS, "request").is_ok()
            }
        }
    }
}

/// Words that master and workers share.
#[derive(Clone, Copy)]
struct Shared {
    words: &'static [Word<u64>],
}

impl Shared {
    /// 1 = the measured workers are to end.
    fn over(self) -> &'static Word<u64> {
        &self.words[0]
    }

    /// 1 = the victim is inside a request.
    fn inside(self) -> &'static Word<u64> {
        &self.words[1]
    }

    /// Requests that were refused; there should be none.
    fn refused(self) -> &'static Word<u64> {
        &self.words[2]
    }
}

/// What one measurement gave.
#[derive(Clone, Copy, Default)]
struct Figures {
    rate: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
    stalled: f64,
    stops: f64,
    inside: f64,
    holding: f64,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1).filter(|text| text != "--bench")) {
        Ok(options) => options,
        Err(problem) => {
            let _ = writeln!(std::io::stderr(), "stopped_worker: {problem}; try --help");
            return ExitCode::from(2);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        say("stopped_worker: needs 2 cores or more, one of them for the worker that is stopped");
        return ExitCode::FAILURE;
    }
    let measured = (cores - 1).min(7);
    // Above the workers, so that it can stop one on its own core.
    let real_time = if process::real_time(2) { "real-time" } else { "not real-time" };
    say(&format!(
        "{measured} measured worker(s) on core(s) of their own, {real_time}; 1 stopped for {} ms at a time; \
         {} rounds of {} s each; medians over the rounds",
        options.spell_ms, options.rounds, options.seconds
    ));
    let mut results: [Vec<Figures>; 4] = Default::default();
    for round in 0..options.rounds {
        for turn in 0..4 {
            let which = (round + turn) % 4;
            results[which].push(measure(&options, measured, which / 2 == 1, which % 2 == 1));
        }
        say(&format!("  round {} of {}", round + 1, options.rounds));
    }
    show(&results);
    ExitCode::SUCCESS
}

/// Runs the workers for a while, with a victim that is stopped again and again or never.
fn measure(options: &Options, measured: usize, mutex: bool, stopping: bool) -> Figures {
    let clock = Box::new(MonotonicClock);
    let placement = Placement::inherited("stopped-worker");
    let engine = Engine::new(create(&placement, Capacity::default(), clock).expect("a region"));
    let guarded = Guarded::new().expect("a mutex");
    let peer = if mutex { Peer::Mutex(guarded, &engine) } else { Peer::Region(&engine) };
    let words = process::shared_words(64 + measured * histogram::WORDS).expect("memory");
    let (shared, words) = (Shared { words: &words[..64] }, &words[64..]);
    let histograms: Vec<Histogram> =
        words.chunks_exact(histogram::WORDS).map(Histogram::new).collect();
    let victim = process::fork(|| suffer(peer, shared)).expect("room for a process");
    let workers: Vec<i32> = (1..)
        .zip(&histograms)
        .map(|(core, histogram)| process::fork(|| work(peer, shared, *histogram, core)))
        .collect::<std::io::Result<_>>()
        .expect("room for more processes");
    process::pin(0).expect("core 0");
    let begun = monotonic_ns();
    let end = begun + options.seconds * 1_000_000_000;
    let caught = if stopping {
        stop_again_and_again(victim, end, options.spell_ms, shared, guarded)
    } else {
        std::thread::sleep(Duration::from_secs(options.seconds));
        [0.0; 3]
    };
    shared.over().store(1, Ordering::SeqCst);
    let took_ns = monotonic_ns() - begun;
    // The victim may hold the mutex: dead, it lets go of it.
    process::send(victim, Signal::SIGKILL).expect("a child");
    process::wait(victim).expect("a child");
    for pid in workers {
        assert_eq!(process::wait(pid).expect("a child"), process::Ended::Exit(0));
    }
    assert_eq!(shared.refused().load(Ordering::SeqCst), 0, "a limit was reached");
    figures(&Durations::of(&histograms), took_ns, measured, caught)
}

/// The victim: the same closed loop, never measured.
fn suffer(peer: Peer<'_>, shared: Shared) -> i32 {
    process::pin(0).expect("core 0");
    process::real_time(1);
    loop {
        shared.inside().store(1, Ordering::SeqCst);
        peer.request(VICTIM);
        shared.inside().store(0, Ordering::SeqCst);
    }
}

/// A measured worker.
fn work(peer: Peer<'_>, shared: Shared, histogram: Histogram, core: usize) -> i32 {
    process::pin(core).expect("a core of its own");
    process::real_time(1);
    while shared.over().load(Ordering::Relaxed) == 0 {
        for _ in 0..BATCH {
            let begun = monotonic_ns();
            let admitted = peer.request(VICTIM + core as u64);
            histogram.add(monotonic_ns() - begun);
            if !admitted {
                shared.refused().fetch_add(1, Ordering::SeqCst);
            }
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    0
}

/// Stops the victim for a spell, lets it run for about a millisecond, and so on. Returns how many stops
/// there were, how many hit a request, and how many a holder of the mutex.
fn stop_again_and_again(
    victim: i32,
    end: u64,
    spell_ms: u64,
    shared: Shared,
    guarded: Guarded,
) -> [f64; 3] {
    let mut random = Random::new(end);
    let mut caught = [0.0; 3];
    while monotonic_ns() < end {
        // The instants of the stops are what is random here.
        std::thread::sleep(Duration::from_micros(200 + random.below(1_600)));
        process::send(victim, Signal::SIGSTOP).expect("a child");
        assert!(process::wait_stopped(victim).expect("a child"), "the victim has ended");
        caught[0] += 1.0;
        caught[1] += f64::from(u8::from(shared.inside().load(Ordering::SeqCst) == 1));
        caught[2] += f64::from(u8::from(guarded.holder() == VICTIM));
        std::thread::sleep(Duration::from_millis(spell_ms));
        process::send(victim, Signal::SIGCONT).expect("a child");
    }
    caught
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn figures(durations: &Durations, took_ns: u64, workers: usize, caught: [f64; 3]) -> Figures {
    let us = |ns: u64| ns as f64 / 1e3;
    let took = took_ns as f64 * workers as f64;
    let share = |count: f64| if caught[0] > 0.0 { 100.0 * count / caught[0] } else { 0.0 };
    Figures {
        rate: durations.count() as f64 * 1e9 / took_ns as f64,
        p50: us(durations.percentile(0.5)),
        p99: us(durations.percentile(0.99)),
        p999: us(durations.percentile(0.999)),
        max: us(durations.percentile(1.0)),
        stalled: 100.0 * durations.spent_from(STALL_NS) as f64 / took,
        stops: caught[0],
        inside: share(caught[1]),
        holding: share(caught[2]),
    }
}

fn show(results: &[Vec<Figures>; 4]) {
    let names = ["region", "region, one stopped", "mutex", "mutex, one stopped"];
    say(&format!(
        "{:20} {:>11} {:>8} {:>8} {:>9} {:>10} {:>9} {:>6} {:>7} {:>8}",
        "",
        "requests/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "max us",
        "stalled",
        "stops",
        "inside",
        "holding"
    ));
    for (name, rounds) in names.iter().zip(results) {
        let median = |get: fn(&Figures) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(get).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(0.0)
        };
        say(&format!(
            "{name:20} {:>11.0} {:>8.2} {:>8.2} {:>9.2} {:>10.1} {:>8.1}% {:>6.0} {:>6.0}% {:>7.0}%",
            median(|one| one.rate),
            median(|one| one.p50),
            median(|one| one.p99),
            median(|one| one.p999),
            median(|one| one.max),
            median(|one| one.stalled),
            median(|one| one.stops),
            median(|one| one.inside),
            median(|one| one.holding)
        ));
    }
    say(
        "stalled: share of the time spent in requests of 1 ms or more; inside, holding: stops that hit a",
    );
    say("request, and a holder of the mutex");
}

fn options(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { rounds: 10, seconds: 1, spell_ms: 5 };
    let mut arguments = arguments;
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let wrong = || format!("{name} does not take '{value}'");
        match name.as_str() {
            "--rounds" => {
                options.rounds = value.parse().ok().filter(|&n| n > 0).ok_or_else(wrong)?;
            }
            "--seconds" => {
                let valid = |seconds: &u64| (1..=3_600).contains(seconds);
                options.seconds = value.parse().ok().filter(valid).ok_or_else(wrong)?;
            }
            "--spell-ms" => {
                options.spell_ms = value.parse().ok().filter(|&n| n > 0).ok_or_else(wrong)?;
            }
            _ => return Err(format!("unknown option {name}")),
        }
    }
    Ok(options)
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
