//! `fl-shm get`: all that is known under a name.

use super::keys::Keys;
use super::outcome::{Outcome, json, nothing_found};
use super::select::{self, Select};
use super::{NOTHING, OK, output};
use crate::inspect::known::{Answer, Found, Known};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
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
        writeln!(std::io::stderr(), "fl-shm: nothing is known of {}", answer.asked)?;
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
    cards(out, "limit", "key", &answer.limits)?;
    cards(out, "deployment", "deployment", &answer.deployments)?;
    cards(out, "pool", "pool", &answer.pools)?;
    cards(out, "leader", "job", &answer.leaders)?;
    cards(out, "notice", "notice", &answer.notices)?;
    if !answer.leases.is_empty() {
        writeln!(out, "\nslots held")?;
        let rows = answer.leases.iter().map(|lease| {
            vec![
                format!("  {}", lease.pid.map_or_else(|| "-".into(), |pid| pid.to_string())),
                lease.owner.to_string(),
                lease.held.to_string(),
                output::duration(lease.oldest_s),
                lease.key.clone(),
            ]
        });
        output::table(out, &["  PID", "OWNER", "SLOTS", "OLDEST", "KEY"], rows)?;
    }
    if !answer.events.is_empty() {
        writeln!(out, "\nevents, newest first")?;
        let rows = answer.events.iter().map(|event| {
            vec![
                format!("  {} ago", output::duration(event.age_s)),
                event.event.to_string(),
                event.detail.clone().unwrap_or_default(),
            ]
        });
        output::table(out, &["  WHEN", "EVENT", ""], rows)?;
    }
    Ok(())
}

/// Each record with its fields below each other.
fn cards<T: Serialize>(
    out: &mut impl Write,
    kind: &str,
    named_by: &str,
    found: &[Found<T>],
) -> Result<()> {
    for one in found {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(&one.record) else { continue };
        let name = fields.remove(named_by).map(|name| cell(&name)).unwrap_or_default();
        let certain = match one.matched {
            "name" => ", by its name only",
            "related" => ", counted with the key",
            _ => "",
        };
        writeln!(out, "\n{kind} {name} ({}{certain})", one.id)?;
        let mut rows = Vec::new();
        flatten(&mut rows, "", &Value::Object(fields));
        let width = rows.iter().map(|(field, _)| field.chars().count()).max().unwrap_or(0);
        for (field, value) in rows {
            writeln!(out, "  {field:width$}  {value}")?;
        }
    }
    Ok(())
}

fn flatten(rows: &mut Vec<(String, String)>, prefix: &str, value: &Value) {
    match value {
        Value::Object(fields) if !fields.contains_key("used") => {
            for (field, value) in fields {
                flatten(rows, &format!("{prefix}{}", field.replace('_', " ")), value);
            }
        }
        Value::Array(all) => {
            for (number, one) in all.iter().enumerate() {
                flatten(rows, &format!("{prefix} {number}: "), one);
            }
        }
        value => rows.push((prefix.to_string(), cell(value))),
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(usage) => {
            let part = |name| usage.get(name).map(cell);
            let used = part("used").unwrap_or_default();
            part("limit").map_or_else(|| used.clone(), |limit| format!("{used} of {limit}"))
        }
        value => value.to_string(),
    }
}
