//! `fl-shm diff`: what changed between two looks at a region.

use super::outcome::{Failure, Outcome, json, nothing_found};
use super::select::{self, Select};
use super::{NOTHING, OK, output, text};
use crate::inspect::{EventReport, Report, SCHEMA};
use crate::region::attach_read_only;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Diff {
    /// A dump: how it was before.
    before: PathBuf,
    /// A later dump; without it, the live region.
    after: Option<PathBuf>,
    #[command(flatten)]
    select: Select,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is different.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Differences {
    schema: &'static str,
    /// False when the two are of different regions, so that little can be said by comparing them.
    same_region: bool,
    /// Seconds between the two.
    seconds: u64,
    changes: Vec<Change>,
    /// Events recorded between the two, oldest first, as far as they are still known.
    events: Vec<EventReport>,
}

/// One record that is not as it was.
#[derive(Debug, Serialize, JsonSchema)]
struct Change {
    section: &'static str,
    /// The key, process or deployment.
    record: String,
    /// `new`, `gone` or `changed`.
    #[serde(rename = "change")]
    kind: &'static str,
    /// Each field that changed, as it was before and is after.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, (Value, Value)>,
}

/// The sections that are compared, and what their records are told apart by.
const SECTIONS: [(&str, &[&str]); 8] = [
    ("workers", &["pid", "row", "generation"]),
    ("limits", &["key", "kind"]),
    ("leases", &["key", "row"]),
    ("leaders", &["job"]),
    ("deployments", &["deployment"]),
    ("pools", &["pool"]),
    ("notices", &["notice"]),
    ("features", &["feature"]),
];

/// Fields that only say how much time has passed, or follow from others.
const IGNORED: [&str; 15] = [
    "age_s",
    "dumped_at",
    "resets_in_s",
    "retry_after_ms",
    "remaining",
    "used_pct",
    "moving",
    "oldest_s",
    "held_s",
    "renewed_s",
    "expires_in_s",
    "last_s",
    "last_failure_s",
    "cooldown_ms",
    "endpoints",
];

/// `fl-shm diff`
pub(super) fn diff(arguments: &Diff, out: &mut impl Write) -> Outcome {
    let before = attach_read_only(&arguments.before)?;
    let after = match &arguments.after {
        Some(path) => attach_read_only(path)?,
        None => match select::choose(&arguments.select)? {
            Some(chosen) => chosen.look()?,
            None => return nothing_found(),
        },
    };
    let found = between(&Report::of(&before), &Report::of(&after))?;
    if arguments.json {
        json(out, &found)?;
    } else {
        show(out, &found)?;
    }
    let same = found.same_region && found.changes.is_empty();
    Ok(if same { OK } else { NOTHING })
}

fn between(before: &Report, after: &Report) -> Result<Differences, Failure> {
    let origin = |report: &Report| (report.header.creator_pid, report.header.created_at);
    let value = |report: &Report| {
        serde_json::to_value(report).map_err(|error| Failure::Message(error.to_string()))
    };
    let (one, other) = (value(before)?, value(after)?);
    let mut changes = Vec::new();
    for (section, identity) in SECTIONS {
        let records = |report: &Value| records(&report[section], identity);
        compare(section, &records(&one), &records(&other), &mut changes);
    }
    for section in ["header", "stats"] {
        let whole =
            |report: &Value| BTreeMap::from([(section.to_string(), flat(&report[section]))]);
        compare(section, &whole(&one), &whole(&other), &mut changes);
    }
    let known = before.events.first().map(|event| event.number);
    let new = after.events.iter().filter(|event| known.is_none_or(|known| event.number > known));
    let mut events: Vec<EventReport> = new.cloned().collect();
    events.reverse();
    Ok(Differences {
        schema: SCHEMA,
        same_region: origin(before) == origin(after),
        seconds: after.header.age_s.saturating_sub(before.header.age_s),
        changes,
        events,
    })
}

type Fields = BTreeMap<String, Value>;

/// Records by what they are told apart by.
fn records(section: &Value, identity: &[&str]) -> BTreeMap<String, Fields> {
    let name = |record: &Value| {
        let text = |field: &&str| match &record[*field] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        identity.iter().map(text).collect::<Vec<_>>().join(" ")
    };
    let all = section.as_array().into_iter().flatten();
    all.map(|record| (name(record), flat(record))).collect()
}

/// The fields of a record that are compared; those of an object in it with a dot.
fn flat(record: &Value) -> Fields {
    let nothing = Map::new();
    let fields = record.as_object().unwrap_or(&nothing).iter();
    fields
        .filter(|(name, _)| !IGNORED.contains(&name.as_str()))
        .flat_map(|(name, value)| match value {
            Value::Object(inner) => inner
                .iter()
                .map(|(field, value)| (format!("{name}.{field}"), value.clone()))
                .collect(),
            other => vec![(name.clone(), other.clone())],
        })
        .collect()
}

fn compare(
    section: &'static str,
    before: &BTreeMap<String, Fields>,
    after: &BTreeMap<String, Fields>,
    changes: &mut Vec<Change>,
) {
    let nothing = Fields::new();
    for (record, was) in before {
        let is = after.get(record);
        let kind = if is.is_some() { "changed" } else { "gone" };
        let fields = is.map_or_else(BTreeMap::new, |is| changed(was, is));
        if is.is_none() || !fields.is_empty() {
            changes.push(Change { section, record: record.clone(), kind, fields });
        }
    }
    for (record, is) in after.iter().filter(|(record, _)| !before.contains_key(*record)) {
        let fields = changed(&nothing, is);
        changes.push(Change { section, record: record.clone(), kind: "new", fields });
    }
}

fn changed(was: &Fields, is: &Fields) -> BTreeMap<String, (Value, Value)> {
    let get = |fields: &Fields, name: &String| fields.get(name).cloned().unwrap_or(Value::Null);
    was.keys()
        .chain(is.keys())
        .map(|name| (name.clone(), (get(was, name), get(is, name))))
        .filter(|(_, (was, is))| was != is)
        .collect()
}

fn show(out: &mut impl Write, found: &Differences) -> std::io::Result<()> {
    if !found.same_region {
        writeln!(out, "these are two regions: what is compared happens to have the same name")?;
    }
    if found.changes.is_empty() {
        return writeln!(out, "nothing changed in {}", output::duration(found.seconds));
    }
    writeln!(out, "changed in {}", output::duration(found.seconds))?;
    let rows = found.changes.iter().map(|change| {
        vec![
            change.section.to_string(),
            if change.section == change.record { "-".to_string() } else { change.record.clone() },
            change.kind.to_string(),
            change.fields.iter().map(field).collect::<Vec<_>>().join(", "),
        ]
    });
    output::table(out, &["SECTION", "RECORD", "CHANGE", "FIELDS"], rows)?;
    if !found.events.is_empty() {
        writeln!(out)?;
        text::list(out, "events between", &found.events)?;
    }
    Ok(())
}

/// `allowed 3 -> 5 (+2)`; `allowed 3` where there was nothing before.
fn field((name, (was, is)): (&String, &(Value, Value))) -> String {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_string(),
        other => other.to_string(),
    };
    if was.is_null() {
        return format!("{name} {}", text(is));
    }
    let moved = was.as_i64().zip(is.as_i64()).map(|(was, is)| is.saturating_sub(was));
    let moved = moved.map_or_else(String::new, |moved| format!(" ({moved:+})"));
    format!("{name} {} -> {}{moved}", text(was), text(is))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FakeClock;
    use crate::config::Capacity;
    use crate::engine::Engine;
    use crate::region::create_heap;

    #[test]
    fn what_happened_is_told_and_time_alone_is_no_change() {
        let clock = FakeClock::at(1_000_000_000_000);
        let capacity = Capacity::checked(1024, 64, 16).unwrap();
        let engine = Engine::new(create_heap(capacity, Box::new(clock.clone())).unwrap());
        let hit = |count| {
            let keys = [("{user:a}:window", "{user:a}:requests")];
            (0..count).for_each(|_| drop(engine.hit_all(&keys, 600).unwrap()));
        };
        hit(3);
        let before = Report::of(engine.region());
        clock.advance_s(20);
        let Ok(found) = between(&before, &Report::of(engine.region())) else { panic!() };
        assert!(found.same_region && found.changes.is_empty(), "{:?}", found.changes);
        hit(2);
        engine.deployment_succeeded("gpt", 60, None, None).unwrap();
        engine.leave();
        let Ok(found) = between(&before, &Report::of(engine.region())) else { panic!() };
        let change = |section: &str| {
            let found = found.changes.iter().find(|change| change.section == section).unwrap();
            (found.record.as_str(), found.kind, &found.fields)
        };
        let (record, kind, fields) = change("limits");
        assert_eq!((record, kind), ("user:a window", "changed"));
        assert_eq!(fields["requests.used"], (Value::from(3), Value::from(5)));
        assert_eq!((change("deployments").0, change("deployments").1), ("gpt", "new"));
        assert_eq!(change("workers").1, "gone");
        assert_eq!(change("stats").2["window_charged"], (Value::from(3), Value::from(5)));
        assert_eq!(found.seconds, 20);
        let said = field((&"allowed".to_string(), &(Value::from(3), Value::from(5))));
        assert_eq!(said, "allowed 3 -> 5 (+2)");
    }
}
