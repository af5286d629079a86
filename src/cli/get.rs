//! `fl-shm get`: all that is known under a name.

use super::keys::Keys;
use super::outcome::{Outcome, json, nothing_found, say};
use super::select::{self, Select};
use super::{NOTHING, OK, text};
use crate::inspect::known::{Answer, Known};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use std::io::{Result, Write};

#[derive(Debug, Args)]
pub(super) struct Get {
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    select: Select,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `fl-shm get`
pub(super) fn get(arguments: &Get, out: &mut impl Write) -> Outcome {
    let wanted = arguments.keys.wanted()?;
    let Some(chosen) = select::choose(&arguments.select)? else {
        return nothing_found();
    };
    let known = Known::of(&chosen.look()?, chosen.name(), &wanted);
    if arguments.json {
        json(out, &known)?;
    } else {
        for (position, answer) in known.asked.iter().enumerate() {
            if position > 0 {
                writeln!(out)?;
            }
            show(out, answer)?;
        }
    }
    out.flush()?;
    for answer in known.asked.iter().filter(|answer| answer.is_empty()) {
        say(&format!("nothing is known of {}", answer.asked));
    }
    Ok(if known.is_complete() { OK } else { NOTHING })
}

fn show(out: &mut impl Write, answer: &Answer) -> Result<()> {
    if answer.is_empty() {
        return writeln!(out, "{}: nothing", answer.asked);
    }
    writeln!(out, "{}", answer.asked)?;
    if answer.ambiguous {
        writeln!(
            out,
            "several are shown under this name and cannot be told apart: ask by # and hash"
        )?;
    }
    part(out, "limits", &answer.limits)?;
    part(out, "deployments", &answer.deployments)?;
    part(out, "pools", &answer.pools)?;
    part(out, "leaders", &answer.leaders)?;
    part(out, "notices", &answer.notices)?;
    part(out, "leases", &answer.leases)?;
    part(out, "events, newest first", &answer.events)
}

/// Records of one kind, if there are any.
fn part<T: Serialize + JsonSchema>(out: &mut impl Write, title: &str, records: &[T]) -> Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    text::list(out, title, records)
}
