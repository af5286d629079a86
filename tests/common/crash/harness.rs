//! What all these tests need of the machine, and how they report.

use super::tracee::permitted;
use fast_litellm::clock::{Clock, MonotonicClock};
use fast_litellm::sync::{Ordering, Word};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::io::Write;

/// Whether to leave nothing out, however long it takes.
pub(crate) fn full() -> bool {
    std::env::var_os("CRASH_POINTS").is_some_and(|value| value == "full")
}

/// Whether to test that operation.
pub(crate) fn wanted(name: &str) -> bool {
    std::env::var("CRASH_POINTS_ONLY").map_or(true, |part| name.contains(&part))
}

/// Gets this thread ready to trace. False, said loudly, where that is not allowed; a failure where no test
/// must be skipped.
pub(crate) fn ready() -> bool {
    stay_here();
    permitted().map_err(|reason| skipped(&reason)).is_ok()
}

/// Says that nothing is tested, and why.
pub(crate) fn skipped(reason: &str) {
    let text = format!("SKIPPED: crash_points: processes cannot be traced here: {reason}\n");
    assert!(std::env::var_os("CI").is_none_or(|value| value.is_empty()), "{text}");
    // Not through the harness, which shows nothing of a test that passes.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Keeps this thread and its children on one processor: they take turns, and a step then costs a third.
fn stay_here() {
    static NEXT: Word<u64> = Word::new(0);
    let me = Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(me) else { return };
    let allowed: Vec<usize> =
        (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu) == Ok(true)).collect();
    let next = usize::try_from(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap_or(0);
    let mut one = CpuSet::new();
    if let Some(cpu) = allowed.get(next % allowed.len().max(1))
        && one.set(*cpu).is_ok()
    {
        // Only slower without.
        let _ = sched_setaffinity(me, &one);
    }
}

/// Seconds since it was made.
pub(crate) struct Watch(u64);

impl Watch {
    pub(crate) fn start() -> Self {
        Self(MonotonicClock.now_ns())
    }

    pub(crate) fn seconds(&self) -> f64 {
        std::time::Duration::from_nanos(MonotonicClock.now_ns() - self.0).as_secs_f64()
    }
}

/// What is known to go wrong.
pub(crate) struct Known {
    /// In which operations.
    pub(crate) operations: &'static [&'static str],
    /// Part of the message.
    pub(crate) part: &'static str,
}

/// Failures of all operations, so that one does not hide the others.
pub(crate) struct Failures {
    known: &'static [Known],
    seen: HashSet<(&'static str, &'static str)>,
    new: Vec<String>,
}

impl Failures {
    /// Counts nothing that is known.
    pub(crate) fn except(known: &'static [Known]) -> Self {
        Self { known, seen: HashSet::new(), new: Vec::new() }
    }

    pub(crate) fn note(&mut self, operation: &'static str, result: Result<(), String>) {
        let Err(error) = result else {
            return;
        };
        let same =
            |known: &&Known| known.operations.contains(&operation) && error.contains(known.part);
        if let Some(known) = self.known.iter().find(same) {
            self.seen.insert((operation, known.part));
            return;
        }
        println!("FAILED: {operation}: {error}");
        self.new.push(format!("{operation}: {error}"));
    }

    /// What is mended must be removed from what is known.
    pub(crate) fn finish(self) {
        let known = self
            .known
            .iter()
            .flat_map(|known| known.operations.iter().map(|operation| (*operation, known.part)));
        let mended: Vec<_> = known.filter(|known| !self.seen.contains(known)).collect();
        assert!(self.new.is_empty(), "{} failures:\n{}", self.new.len(), self.new.join("\n"));
        assert!(mended.is_empty(), "no longer happens, remove it from KNOWN: {mended:?}");
    }
}
