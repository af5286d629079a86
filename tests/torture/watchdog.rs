//! A process that ends a run which makes no progress, loudly.

use crate::control::Control;
use crate::limits::SEATS;
use crate::log::Log;
use crate::process;
use fast_litellm::region::host::process_stat;
use fast_litellm::sync::Ordering;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fmt::Write;
use std::time::Duration;

/// No progress for so long is the end, seconds.
const PATIENCE_S: u32 = 60;

/// Starts it; it ends with this process.
pub(crate) fn start(control: Control, logs: Vec<Log>) -> std::io::Result<i32> {
    let master = std::process::id().cast_signed();
    process::fork(move || {
        let mut before = Vec::new();
        let mut idle_s = 0;
        while idle_s < PATIENCE_S {
            std::thread::sleep(Duration::from_secs(1));
            let now = progress(control, &logs);
            idle_s = if now == before { idle_s + 1 } else { 0 };
            before = now;
        }
        eprintln!("{}", state(control, &logs));
        // The workers die with their parent, stopped ones too.
        let _ = kill(Pid::from_raw(master), Signal::SIGKILL);
        1
    })
}

/// Everything that moves while a run is well.
fn progress(control: Control, logs: &[Log]) -> Vec<u64> {
    let words = [control.epoch(), control.rounds(), control.kills(), control.probe(0)];
    let words = words.map(|word| word.load(Ordering::Relaxed));
    words.into_iter().chain(logs.iter().map(|log| log.len() as u64)).collect()
}

fn state(control: Control, logs: &[Log]) -> String {
    let get = |word: &fast_litellm::sync::Word<u64>| word.load(Ordering::Relaxed);
    let mut text = format!(
        "torture: no progress for {PATIENCE_S} s; epoch {}, round {}, {} kills\n",
        get(control.epoch()),
        get(control.rounds()),
        get(control.kills())
    );
    for (seat, log) in (0..SEATS).zip(logs) {
        let pid = i32::try_from(get(control.pid(seat))).unwrap_or(0);
        let process = process_stat(pid)
            .map_or("gone".into(), |stat| format!("state {}", char::from(stat.state)));
        let last = log.entries().last();
        let _ = writeln!(
            text,
            "  seat {seat}: process {pid}, {process}, {} lines, the last one {last:?}",
            log.len()
        );
    }
    text
}
