//! A process is stopped before each of its accesses to shared memory, others do something to the same keys,
//! and it goes on.

use super::checks::{Bounds, alive, alone_again, leases_stand, own_leases};
use super::harness::{Failures, Known, Watch, wanted};
use super::operations::{Effect, Meanwhile, NONE, Operation, all, sum};
use super::process::Child;
use super::stage::{PAGE, Stage};
use super::tracee::{Guard, Stop};
use super::victim::{Victim, describe};
use fast_litellm::clock::Clock;
use std::collections::HashSet;

/// Found by these tests and not yet mended.
///
/// * A reaper stops after it has marked a row dead. Another one frees the row, and a process registers in
///   it. The first goes on and zeroes start time and namespace, which are the new process's. What is left
///   proves its death by 18 bits of the start time, in whatever namespace.
/// * A process stops in an acquire, between the swap of the slot and its tag, until its time to live is over.
///   Another one takes the slot and writes its own tag. The first goes on and overwrites that. A release
///   that has to search (its cache has forgotten the place) does not find the slot any more.
/// * The same in a release, between the look at the slot and the zeroing of its tag.
const KNOWN: [Known; 0] = [];

/// What may be taken after both have done their part, and what may be held after the victim is dead as well.
fn both(
    stage: &Stage,
    operation: &Operation,
    meanwhile: &Meanwhile,
    [before, mine, theirs]: [Effect; 3],
) -> [Bounds; 2] {
    let (base, owned) = (stage.before.taken, operation.resource.owned);
    let all = sum(sum(base, before), sum(mine, theirs));
    if meanwhile.forgetful || operation.forgetful {
        let low = if operation.forgetful { NONE } else { mine.map(|count| count.max(0)) };
        let gained = |effect: Effect| effect.map(|count| count.max(0));
        let high = sum(sum(base, before), sum(gained(mine), gained(theirs)));
        return [Bounds { low, high }, Bounds { low, high: sum(base, gained(mine)) }.of(owned)];
    }
    [Bounds::exactly(all), Bounds::exactly(sum(base, mine)).of(owned)]
}

/// One access of a victim to the region.
struct Access {
    offset: u64,
    writes: bool,
}

/// All accesses of a victim that nobody meets.
fn accesses(stage: &Stage, operation: &Operation) -> Result<Vec<Access>, String> {
    stage.reset()?;
    let mut victim = Victim::start(stage, operation)?;
    victim.tracee.guard(Guard::Accesses)?;
    let mut accesses = Vec::new();
    while let Stop::Access(offset) = victim.tracee.run()? {
        accesses.push(Access { offset, writes: victim.tracee.pass_and_tell()? });
    }
    Ok(accesses)
}

/// Stops a victim before the last of these accesses.
fn stopped_before(
    stage: &Stage,
    operation: &Operation,
    accesses: &[Access],
) -> Result<Victim, String> {
    stage.reset()?;
    let mut victim = Victim::start(stage, operation)?;
    let Some((last, passed)) = accesses.split_last() else {
        return Err("no access".to_string());
    };
    let page = |access: &&Access| access.offset / PAGE as u64 == last.offset / PAGE as u64;
    let loads = passed.iter().rev().take_while(|access| !access.writes).filter(page).count();
    let writes = passed.iter().filter(|access| access.writes).count();
    // Loads need not be followed up to the last write, and then only those near the wanted one.
    for (guard, count) in [(Guard::Writes, writes), (Guard::Page(last.offset), loads)] {
        victim.tracee.guard(guard)?;
        for _ in 0..count {
            victim.tracee.run()?;
            victim.tracee.pass()?;
        }
    }
    let wanted = Stop::Access(last.offset);
    let stop = victim.tracee.run()?;
    if stop == wanted { Ok(victim) } else { Err(format!("{stop:?}, not {wanted:?}")) }
}

/// Everything shared, at one instant.
struct Shared {
    bytes: Vec<u8>,
    now_ns: u64,
}

impl Shared {
    fn of(stage: &Stage) -> Result<Self, String> {
        Ok(Self { bytes: stage.bytes()?, now_ns: stage.clock.now_ns() })
    }

    /// Offsets of the words that are different in `later`.
    fn changes(&self, later: &Self) -> HashSet<u64> {
        let (mut changes, mut start) = (HashSet::new(), 0);
        for (before, after) in self.bytes.chunks(PAGE).zip(later.bytes.chunks(PAGE)) {
            if before != after {
                let words = before.chunks(8).zip(after.chunks(8)).zip((start..).step_by(8));
                changes.extend(words.filter(|((a, b), _)| a != b).map(|(_, offset)| offset));
            }
            start += before.len() as u64;
        }
        // The clock lies behind the region.
        changes.extend((self.now_ns != later.now_ns).then_some(start));
        changes
    }
}

/// Stops a victim before the last of these accesses, lets somebody else do something, and lets it go on.
/// Returns the words that the other changed.
fn resumed_before(
    stage: &Stage,
    operation: &Operation,
    meanwhile: &Meanwhile,
    accesses: &[Access],
) -> Result<HashSet<u64>, String> {
    let mut victim = stopped_before(stage, operation, accesses)?;
    let (before, pid) = (victim.before, victim.child.pid.as_raw());
    let shared = Shared::of(stage)?;
    let mut other = Child::fork(|channel| {
        let mine = (meanwhile.step)(stage);
        let leases = own_leases(stage);
        channel.send_effect(mine)?;
        let theirs = channel.receive_effect()?;
        let bounds = both(stage, operation, meanwhile, [before, mine, theirs]);
        leases_stand(stage, &leases)?;
        alive(stage, operation, bounds[0])?;
        channel.send("fine so far")?;
        channel.receive()?;
        alone_again(stage, operation, pid, bounds[1])?;
        channel.send("fine")
    })?;
    let mine = other.channel.receive_effect()?;
    let changes = shared.changes(&Shared::of(stage)?);
    let theirs = victim.finish()?;
    other.channel.send_effect(theirs)?;
    let told = |error| format!("it did {theirs:?}, the other {mine:?}: {error}");
    other.channel.receive().map_err(told)?;
    victim.child.kill()?;
    other.channel.send("the victim is dead")?;
    other.channel.receive().map_err(|error| told(format!("dead after all: {error}")))?;
    Ok(changes)
}

/// Stops a victim wherever it makes a difference: what the other does, and how, depends on the region,
/// so it is the same between two writes of the victim; and the victim's loads of words that the other does
/// not change may as well come first.
fn resumed_everywhere(
    stage: &Stage,
    operation: &Operation,
    meanwhile: &Meanwhile,
    accesses: &[Access],
    failures: &mut Failures,
) -> usize {
    let mut stops = 0;
    let mut changed = HashSet::new();
    for (number, access) in accesses.iter().enumerate() {
        let last = number.checked_sub(1).map(|last| &accesses[last]);
        if last.is_some_and(|last| !last.writes && !changed.contains(&last.offset)) {
            continue;
        }
        stops += 1;
        match resumed_before(stage, operation, meanwhile, &accesses[..=number]) {
            Ok(now) => changed = now,
            Err(error) => {
                let place = describe(stage, access.offset);
                let text = format!("before access {number}, {place}, {}: {error}", meanwhile.name);
                failures.note(operation.name, Err(text));
                changed.clear();
            }
        }
    }
    stops
}

fn resumed(operation: &Operation, failures: &mut Failures) -> Result<(), String> {
    let watch = Watch::start();
    let stage = Stage::of(operation)?;
    let accesses = accesses(&stage, operation)?;
    let stops: usize = operation
        .meanwhile
        .iter()
        .map(|meanwhile| resumed_everywhere(&stage, operation, meanwhile, &accesses, failures))
        .sum();
    println!(
        "{:28} {:>8} {:>6} {:>6} {:>7.2}",
        operation.name,
        accesses.len(),
        operation.meanwhile.len(),
        stops,
        watch.seconds()
    );
    Ok(())
}

/// Every operation.
pub(crate) fn test() {
    println!(
        "{:28} {:>8} {:>6} {:>6} {:>7}",
        "stopped and resumed", "accesses", "others", "stops", "seconds"
    );
    let mut failures = Failures::except(&KNOWN);
    for operation in all().filter(|operation| wanted(operation.name)) {
        let done = resumed(operation, &mut failures);
        failures.note(operation.name, done);
    }
    failures.finish();
}
