//! A process is killed after each instruction of an operation.

use super::checks::{Bounds, after_death};
use super::harness::{Failures, Watch, full, wanted};
use super::operations::{AMOUNTS, Effect, NONE, Operation, all, sum};
use super::process::Child;
use super::stage::Stage;
use super::tracee::{Guard, Stop};
use super::victim::{Victim, describe};
use fast_litellm::inspect::Report;

/// After so many instructions without a write the victim runs to its next one. Unoptimized code has ten
/// times as many instructions.
pub(crate) const STRETCH: u64 = if cfg!(debug_assertions) { 3_000 } else { 20_000 };

/// One state of the region that a death could leave behind.
pub(crate) struct State {
    pub(crate) bytes: Vec<u8>,
    /// The write that made it.
    after: String,
}

/// One way through an operation.
pub(crate) struct Trace {
    pub(crate) instructions: u64,
    /// Instructions were run without being counted.
    pub(crate) more: bool,
    pub(crate) states: Vec<State>,
    /// Number of the state before the first write, after the first, and so on.
    pub(crate) after: Vec<usize>,
    /// What somebody else did on its way.
    disturbance: Effect,
}

impl Trace {
    /// Takes the victim, which stands before the operation, to its end.
    pub(crate) fn of(
        stage: &Stage,
        operation: &Operation,
        victim: &mut Victim,
    ) -> Result<Self, String> {
        let first = State { bytes: stage.bytes()?, after: "its start".to_string() };
        let mut trace = Self {
            instructions: 0,
            more: operation.maps,
            states: vec![first],
            after: vec![0],
            disturbance: NONE,
        };
        let mut quiet = 0;
        victim.tracee.guard(Guard::Writes)?;
        loop {
            let run = operation.maps || (quiet >= STRETCH && !full());
            trace.more |= run;
            match if run { victim.tracee.run()? } else { victim.tracee.step()? } {
                Stop::Instruction => quiet += 1,
                Stop::Access(offset) => {
                    trace.disturb(stage, operation)?;
                    victim.tracee.pass()?;
                    trace.keep(stage, describe(stage, offset))?;
                    trace.after.push(trace.states.len() - 1);
                    quiet = 0;
                }
                Stop::Marker => break,
                Stop::Syscall => return Err("an unexpected stop".to_string()),
            }
            trace.instructions += 1;
        }
        let (does, wanted) = (victim.answer()?, operation.does);
        if does != wanted {
            return Err(format!("it did {does:?}, not {wanted:?}: another way than the one meant"));
        }
        Ok(trace)
    }

    fn disturb(&mut self, stage: &Stage, operation: &Operation) -> Result<(), String> {
        if let Some((writes, step)) = operation.disturbance
            && writes + 1 == self.after.len()
        {
            self.disturbance = stage.somebody_visits(step)?;
            self.keep(stage, "the disturbance".to_string())?;
        }
        Ok(())
    }

    fn keep(&mut self, stage: &Stage, after: String) -> Result<(), String> {
        let bytes = stage.bytes()?;
        if self.states.last().is_none_or(|last| last.bytes != bytes) {
            self.states.push(State { bytes, after });
        }
        Ok(())
    }

    /// What may be taken in any of the states.
    pub(crate) fn bounds(&self, stage: &Stage, operation: &Operation, before: Effect) -> Bounds {
        let resource = operation.resource;
        let most = sum(sum(operation.does, operation.transient), self.disturbance);
        let first = sum(stage.before.taken, resource.lasting(before));
        Bounds::part_of(first, resource.lasting(most))
    }
}

/// Has a process find the region as it is now, after the victim's death.
pub(crate) fn found_by_another(
    stage: &Stage,
    operation: &Operation,
    pid: i32,
    bounds: Bounds,
) -> Result<Effect, String> {
    let mut child =
        Child::fork(|channel| channel.send_effect(after_death(stage, operation, pid, bounds)?))?;
    child.channel.receive_effect()
}

/// What was taken in the states must go from nothing of the operation to all of it, and never back, unless
/// it takes something to give it back.
fn one_way(
    stage: &Stage,
    operation: &Operation,
    trace: &Trace,
    taken: &[Effect],
    before: Effect,
) -> Result<(), String> {
    let lasting = |effect| operation.resource.lasting(effect);
    let first = sum(stage.before.taken, lasting(before));
    let does = lasting(operation.does);
    let last = sum(sum(first, does), lasting(trace.disturbance));
    let ends = (taken.first().copied(), taken.last().copied());
    let wanted = (Some(first), Some(last));
    if ends != wanted {
        return Err(format!("taken were {ends:?} at the ends, not {wanted:?}"));
    }
    let forward =
        |pair: &[Effect]| (0..AMOUNTS).all(|n| (pair[1][n] - pair[0][n]) * does[n].signum() >= 0);
    let fine = if operation.transient == NONE {
        taken.windows(2).all(forward)
    } else {
        let transient = lasting(operation.transient);
        [first, last].iter().any(|&end| taken.contains(&sum(end, transient)))
    };
    if fine { Ok(()) } else { Err(format!("taken were, one after the other, {taken:?}")) }
}

fn killed(operation: &Operation) -> Result<(), String> {
    let watch = Watch::start();
    let stage = Stage::of(operation)?;
    let mut victim = Victim::start(&stage, operation)?;
    let trace = Trace::of(&stage, operation, &mut victim)?;
    victim.child.kill()?;
    let bounds = trace.bounds(&stage, operation, victim.before);
    let pid = victim.child.pid.as_raw();
    let mut taken = Vec::with_capacity(trace.states.len());
    let mut named = false;
    for (number, state) in trace.states.iter().enumerate() {
        stage.load(&state.bytes)?;
        let report = Report::of(stage.region());
        named |= report.workers.iter().any(|row| row.pid == pid && row.alive == "dead");
        let found = found_by_another(&stage, operation, pid, bounds)
            .map_err(|error| format!("killed in state {number}, after {}: {error}", state.after))?;
        taken.push(found);
    }
    if !named {
        return Err("no row ever named the dead process".to_string());
    }
    println!(
        "{:28} {:>7}{} {:>6} {:>6} {:>7.2}",
        operation.name,
        trace.instructions,
        if trace.more { '+' } else { ' ' },
        trace.after.len() - 1,
        trace.states.len(),
        watch.seconds()
    );
    one_way(&stage, operation, &trace, &taken, victim.before)
}

/// Every operation.
pub(crate) fn test() {
    println!("{:28} {:>8} {:>6} {:>6} {:>7}", "killed", "instrs", "writes", "states", "seconds");
    let mut failures = Failures::except(&[]);
    for operation in all().filter(|operation| wanted(operation.name)) {
        failures.note(operation.name, killed(operation));
    }
    failures.finish();
}
