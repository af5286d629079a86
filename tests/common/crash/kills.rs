//! Many processes are killed for good, each somewhere else in an operation: what they leave must be what
//! [`super::killed`] has put in its place.

use super::harness::{Failures, Watch, full};
use super::killed::{STRETCH, Trace, found_by_another};
use super::operations::{Operation, all};
use super::stage::Stage;
use super::tracee::{Guard, Stop};
use super::victim::Victim;
use fast_litellm::layout::ClaimWord;
use fast_litellm::sync::Bits;

/// In which operations.
const REALLY: [&str; 5] =
    ["check, hot key", "admit 1, open", "acquire, free", "release", "feature error"];

/// The bytes without what is different from victim to victim: pid and start time in the worker table.
fn without_pids(stage: &Stage, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let Some(workers) = stage.region().sections().iter().next() else {
        return bytes;
    };
    let row = |number: u64| usize::try_from(workers.span.offset + number * workers.stride);
    for start in (0..workers.span.count).filter_map(|number| row(number).ok()) {
        if let [Some(claim), Some(start_ticks)] = words(&bytes[start..]) {
            let claim = ClaimWord::from_bits(claim);
            let claim = ClaimWord::new(claim.state(), 0, 0, claim.generation());
            bytes[start..start + 8].copy_from_slice(&claim.bits().to_le_bytes());
            bytes[start + 8..start + 16].copy_from_slice(&start_ticks.min(1).to_le_bytes());
        }
    }
    bytes
}

/// The first two words.
fn words(bytes: &[u8]) -> [Option<u64>; 2] {
    let (words, _) = bytes.as_chunks();
    [words.first(), words.get(1)].map(|word| word.map(|word| u64::from_le_bytes(*word)))
}

/// In operations of so many instructions each is somebody's last.
const SHORT: u64 = 1_200;
/// In others, each up to so many after a write.
const NEAR: u64 = 16;

/// Where a victim is killed: after so many writes, and then so many instructions more.
#[derive(Clone, Copy)]
enum Point {
    After(usize, u64),
    /// Right before the next write, or the end.
    Before(usize),
}

/// Kills a victim for good, and compares what it leaves with the trace. False = the point does not exist: there
/// are fewer instructions up to the next write.
fn killed_at(
    stage: &Stage,
    operation: &Operation,
    trace: &Trace,
    point: Point,
) -> Result<bool, String> {
    stage.reset()?;
    let mut victim = Victim::start(stage, operation)?;
    let (Point::After(writes, _) | Point::Before(writes)) = point;
    victim.tracee.guard(Guard::Writes)?;
    for _ in 0..writes {
        victim.tracee.run()?;
        victim.tracee.pass()?;
    }
    match point {
        Point::Before(_) => drop(victim.tracee.run()?),
        Point::After(_, more) => {
            for _ in 0..more {
                if victim.tracee.step()? != Stop::Instruction {
                    return Ok(false);
                }
            }
        }
    }
    victim.child.kill()?;
    let bytes = without_pids(stage, &stage.bytes()?);
    let number = trace.after[writes];
    if bytes != without_pids(stage, &trace.states[number].bytes) {
        return Err(format!("the region is not in state {number}"));
    }
    let bounds = trace.bounds(stage, operation, victim.before);
    // Not even a zombie is left.
    let pid = victim.child.pid.as_raw();
    drop(victim);
    // In between the bytes are the same, and so is what is found.
    if matches!(point, Point::After(_, 0) | Point::Before(_)) {
        found_by_another(stage, operation, pid, bounds)?;
    }
    Ok(true)
}

fn really_killed(operation: &Operation) -> Result<(), String> {
    let watch = Watch::start();
    let stage = Stage::of(operation)?;
    let trace = {
        let mut victim = Victim::start(&stage, operation)?;
        Trace::of(&stage, operation, &mut victim)?
    };
    let every = full() || (!trace.more && trace.instructions <= SHORT);
    let mut kills = 0;
    let mut kill = |point| {
        let (Point::After(writes, _) | Point::Before(writes)) = point;
        let killed = killed_at(&stage, operation, &trace, point);
        kills += 1;
        killed.map_err(|error| match point {
            Point::After(_, n) => format!("killed {n} instructions after write {writes}: {error}"),
            Point::Before(_) => format!("killed right before write {writes}: {error}"),
        })
    };
    for writes in 0..trace.after.len() {
        let mut instructions = 0;
        while kill(Point::After(writes, instructions))? {
            instructions += if every || instructions < NEAR { 1 } else { instructions / 2 };
            if instructions > STRETCH && !every {
                break;
            }
        }
        kill(Point::Before(writes))?;
    }
    println!(
        "{:28} {:>7}{} {:>6} {:>6} {:>7.2}",
        operation.name,
        trace.instructions,
        if trace.more { '+' } else { ' ' },
        kills,
        trace.states.len(),
        watch.seconds()
    );
    Ok(())
}

/// Some operations.
pub(crate) fn test() {
    println!(
        "{:28} {:>8} {:>6} {:>6} {:>7}",
        "really killed", "instrs", "kills", "states", "seconds"
    );
    let mut failures = Failures::except(&[]);
    for name in REALLY {
        let operation = all().find(|operation| operation.name == name);
        failures
            .note(name, operation.ok_or("no such operation".to_string()).and_then(really_killed));
    }
    failures.finish();
}
