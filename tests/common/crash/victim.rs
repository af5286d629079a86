//! The process that is inside an operation when something happens to it.

use super::operations::{Effect, Operation};
use super::process::Child;
use super::stage::Stage;
use super::tracee::{ENDED, Tracee};
use fast_litellm::layout;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};

/// A process between the two markers around one operation.
pub(crate) struct Victim {
    pub(crate) tracee: Tracee,
    pub(crate) child: Child,
    /// What it did before the first marker.
    pub(crate) before: Effect,
}

impl Victim {
    /// Forks a process and stops it right before the operation.
    pub(crate) fn start(stage: &Stage, operation: &Operation) -> Result<Self, String> {
        let mut child = Child::fork(|channel| {
            ptrace::traceme().map_err(|error| format!("traceme: {error}"))?;
            channel.send_effect((operation.before)(stage))?;
            marker()?;
            let effect = (operation.run)(stage);
            marker()?;
            channel.send_effect(effect)?;
            channel.receive().map(drop)
        })?;
        let tracee = Tracee::at_marker(child.pid, stage.shared());
        // Its own words are better than ours.
        let before = child.channel.receive_effect()?;
        Ok(Self { tracee: tracee?, child, before })
    }

    /// Lets it finish the operation, and says what that did.
    pub(crate) fn finish(&mut self) -> Result<Effect, String> {
        let finished = self.tracee.run_to_marker();
        if finished == Err(ENDED.to_string()) {
            // It says why.
            self.child.channel.receive()?;
        }
        finished?;
        self.answer()
    }

    /// What the operation did; the victim stands at the second marker.
    pub(crate) fn answer(&mut self) -> Result<Effect, String> {
        self.tracee.let_go()?;
        self.child.channel.receive_effect()
    }
}

fn marker() -> Result<(), String> {
    raise(Signal::SIGSTOP).map_err(|error| format!("raise: {error}"))
}

/// What lies at that many bytes from the start of the region, for messages.
pub(crate) fn describe(stage: &Stage, offset: u64) -> String {
    let mut sections = stage.region().sections().iter();
    // The header's record and the section table's come before those of the sections.
    let records = layout::records().into_iter().skip(2);
    let found = records.zip(&mut sections).find_map(|(record, section)| {
        let inside = offset.checked_sub(section.span.offset)?;
        let row = Some(inside / section.stride).filter(|&row| row < section.span.count)?;
        let inside = usize::try_from(inside % section.stride).ok()?;
        let field = record.fields.iter().rev().find(|field| field.offset <= inside)?;
        let element = (inside - field.offset) / 8;
        let element = if field.size > 8 { format!("[{element}]") } else { String::new() };
        Some(format!("{}[{row}].{}{element}", record.name, field.name))
    });
    let other = || {
        let clock = offset == stage.region().len();
        if clock { "the clock".to_string() } else { format!("byte {offset}") }
    };
    found.unwrap_or_else(other)
}
