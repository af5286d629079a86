//! `fl-shm doctor`: what may go wrong with a host's regions, or already does, and what helps.

mod host;
mod region;

use super::outcome::{Outcome, json};
use super::select::Select;
use super::{NOTHING, OK, output, select};
use crate::inspect::SCHEMA;
use crate::region::{Found, discover};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    select: Select,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// Good to know; nothing need be done.
    Note,
    /// Limits are wrong or not enforced, or soon will be.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Serialize, JsonSchema)]
struct Check {
    state: State,
    /// What was looked at.
    #[serde(rename = "check")]
    what: &'static str,
    /// The region that it is about; absent = the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    /// What was found.
    found: String,
    /// What helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Check {
    fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { state: State::Ok, what, region: None, found: found.into(), remedy: None }
    }

    fn note(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { state: State::Note, remedy, ..Self::ok(what, found) }
    }

    fn problem(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Problem, ..Self::note(what, found, remedy) }
    }
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Diagnosis<'a> {
    schema: &'static str,
    problems: usize,
    checks: &'a [Check],
}

/// `fl-shm doctor`
pub(super) fn doctor(arguments: &Doctor, out: &mut impl Write) -> Outcome {
    let live = discover();
    let mut checks = host::checks(&live);
    for chosen in chosen(&arguments.select, live)? {
        checks.extend(region::checks(&chosen));
    }
    let problems = checks.iter().filter(|check| check.state == State::Problem).count();
    if arguments.json {
        json(out, &Diagnosis { schema: SCHEMA, problems, checks: &checks })?;
    } else {
        show(out, &checks, problems)?;
    }
    Ok(if problems == 0 { OK } else { NOTHING })
}

/// The region that was asked for, or all that are live.
fn chosen(select: &Select, live: Vec<Found>) -> Result<Vec<select::Chosen>, super::Failure> {
    if select.is_given() {
        return Ok(select::choose(select)?.into_iter().collect());
    }
    Ok(live.into_iter().map(select::Chosen::Live).collect())
}

fn show(out: &mut impl Write, checks: &[Check], problems: usize) -> std::io::Result<()> {
    let rows = checks.iter().map(|check| {
        let state = match check.state {
            State::Ok => "ok",
            State::Note => "note",
            State::Problem => "PROBLEM",
        };
        let what = match &check.region {
            Some(region) => format!("{region}: {}", check.what),
            None => check.what.to_string(),
        };
        vec![state.to_string(), what, check.found.clone()]
    });
    output::table(out, &["STATE", "CHECK", "FOUND"], rows)?;
    let remedies: Vec<&Check> = checks.iter().filter(|check| check.remedy.is_some()).collect();
    if !remedies.is_empty() {
        writeln!(out, "\nwhat helps")?;
    }
    for check in remedies {
        let remedy = check.remedy.as_deref().unwrap_or_default();
        writeln!(out, "  {}: {remedy}", check.what)?;
    }
    writeln!(out, "\n{problems} problem{}", output::plural(problems as u64))
}
