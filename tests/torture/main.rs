//! Eight workers on one region, killed and stopped at random instants thousands of times; judges read
//! what each of them was granted, and count.
//!
//!     cargo test --release --test torture
//!
//! `TORTURE_KILLS` (default 10,000; 1,000 in a debug build) and `TORTURE_SEED` choose how much and what; the
//! seed repeats every choice but the instants at which the kernel delivers a signal. `TORTURE_RECLAIM`
//! (default 0) is how many times the way from a worker's death to its slot's next holder is timed. This
//! test has no harness, because a process that forks must have one thread only.

mod admission;
mod control;
mod crowd;
mod entry;
mod flights;
mod judge;
mod limits;
mod log;
mod master;
mod mix;
#[path = "../common/process.rs"]
#[allow(dead_code, reason = "the benchmark uses the rest")]
mod process;
mod quiet;
#[path = "../common/random.rs"]
mod random;
mod reclaim;
mod sabotage;
mod watchdog;
mod worker;

use control::Control;
use judge::Fault;
use limits::SEATS;
use log::Log;
use master::{LINES, Master, Orders, Outcome, Stage};
use reclaim::Reaper;
use sabotage::Sabotage;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        say("torture: test");
        return ExitCode::SUCCESS;
    }
    let filters: Vec<_> = arguments.iter().filter(|text| !text.starts_with('-')).collect();
    if !filters.is_empty() && !filters.iter().any(|filter| "torture".contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    let kills = if cfg!(debug_assertions) { 1_000 } else { 10_000 };
    let kills = number("TORTURE_KILLS", kills);
    let seed = number("TORTURE_SEED", process::monotonic_ns());
    say(&format!("torture: {kills} kills, TORTURE_SEED={seed}"));
    let reclaims = number("TORTURE_RECLAIM", 0);
    if run(kills, seed, reclaims) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(kills: u64, seed: u64, reclaims: u64) -> bool {
    let logs: Vec<Log> = (0..SEATS).map(|_| Log::new(LINES).expect("memory for a log")).collect();
    let control = Control::new().expect("a page of memory");
    watchdog::start(control, logs.clone()).expect("room for another process");
    let mut stage = Stage { logs, control, epoch: 0 };
    Sabotage::ALL.into_iter().all(|(sabotage, fault)| noticed(&mut stage, seed, sabotage, fault))
        && (kills == 0 || held(&mut stage, kills, seed))
        && (reclaims == 0 || timed(control, reclaims, seed))
}

/// The judges find what they must find in a broken engine.
fn noticed(stage: &mut Stage, seed: u64, sabotage: Sabotage, fault: Fault) -> bool {
    let orders = Orders { kills: 2_000, seed, sabotage: Some(sabotage), reach: false };
    let outcome = Master::new(stage, orders).run(|_| ());
    let noticed = outcome.faults.count(fault) > 0;
    if noticed {
        say(&format!("  broken on purpose, {sabotage:?}: noticed"));
    } else {
        say(&format!("FAILED: {sabotage:?} is broken on purpose, and no {fault:?} was found"));
        say(&outcome.faults.to_string());
    }
    noticed
}

/// No fault is found in the engine as it is.
fn held(stage: &mut Stage, kills: u64, seed: u64) -> bool {
    // Fewer kills are for a quick look, which shows what it reached and demands nothing.
    let reach = kills >= 5_000;
    let orders = Orders { kills, seed, sabotage: None, reach };
    let mut shown = 0;
    let mut outcome = Master::new(stage, orders).run(|outcome| {
        let seconds = outcome.figures["milliseconds"] / 1_000;
        if seconds >= shown + 10 {
            shown = seconds;
            say(&format!("  {} kills after {seconds} s", outcome.figures["kills"]));
        }
    });
    if reach && outcome.faults.is_empty() {
        demand_reach(&mut outcome);
    }
    show(&outcome);
    if !outcome.faults.is_empty() {
        say(&format!("FAILED, TORTURE_SEED={seed}\n{}", outcome.faults));
    }
    outcome.faults.is_empty()
}

/// What was never reached, or hardly ever hit, was not tested.
fn demand_reach(outcome: &mut Outcome) {
    let Outcome { faults, reach, figures } = outcome;
    for text in reach.untested() {
        faults.add(Fault::Untested, || text);
    }
    if figures["keys_reclaimed"] < 1_000 {
        let keys = figures["keys_reclaimed"];
        faults.add(Fault::Untested, || format!("only {keys} keys were given up"));
    }
    if figures["kills_in_an_operation"] < figures["kills"] / 10 {
        let text = "fewer than one kill in ten hit an operation";
        faults.add(Fault::Untested, || text.into());
    }
}

/// How soon a dead worker's slot is somebody else's. Measured, not demanded.
fn timed(control: Control, times: u64, seed: u64) -> bool {
    for (name, reaper) in [("master", Reaper::Master), ("helpers", Reaper::Helper)] {
        let mut waits_ns = reclaim::measure(control, times, seed, reaper);
        waits_ns.sort_unstable();
        let at = |share: usize| waits_ns[(waits_ns.len() - 1) * share / 1_000] / 1_000;
        let (p50, p99, most) = (at(500), at(990), at(1_000));
        say(&format!(
            "reclaim through={name} times={times} p50_us={p50} p99_us={p99} max_us={most}"
        ));
    }
    true
}

fn show(outcome: &Outcome) {
    for (name, figure) in &outcome.figures {
        say(&format!("  {name:24} {figure:>12}"));
    }
    let reach = &outcome.reach;
    say(&format!("  slots held at once       {:?}", reach.slot_peaks));
    say(&format!("  full windows             {:?}", reach.full_windows));
    say(&format!("  full sliding windows     {:?}", reach.full_sliding));
    say(&format!("  cooldowns begun          {:?}", reach.cooldowns));
    say(&format!("  denied, shared, local    {:?}", reach.overflowed));
    say(&format!("  requests below the bound {:.2?}", reach.quota_slack));
    say(&format!("  charges without a log    {} of {}", reach.uncertain.0, reach.uncertain.1));
    say(&line(outcome));
}

/// The figures for `scripts/torture`, which adds them up.
fn line(outcome: &Outcome) -> String {
    let faults = [
        ("over_admitted", Fault::OverAdmitted),
        ("under_admitted", Fault::UnderAdmitted),
        ("leaked", Fault::Leaked),
        ("unreclaimed", Fault::Unreclaimed),
        ("duplicate_keys", Fault::Duplicate),
    ];
    let faults = faults.into_iter().map(|(name, fault)| (name, outcome.faults.count(fault)));
    let figures = outcome.figures.iter().map(|(name, figure)| (*name, *figure));
    let pairs = figures.chain(faults).map(|(name, figure)| format!("{name}={figure}"));
    format!("figures {}", pairs.collect::<Vec<_>>().join(" "))
}

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Err(_) => default,
        Ok(text) => text.parse().unwrap_or_else(|_| {
            say(&format!("{name}={text} is not a number: leave it out or give one"));
            std::process::exit(2)
        }),
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
