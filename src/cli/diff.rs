//! `fl-shm diff`: what changed between two looks at a region.

use super::outcome::{Failure, Outcome, json, nothing_found};
use super::select::{self, Select};
use super::{NOTHING, OK, output, text};
use crate::inspect::{
    DeploymentReport, EndpointReport, EventReport, FeatureReport, LeaderReport, LeaseReport,
    LimitReport, NoticeReport, PoolReport, Report, SCHEMA, WorkerReport,
};
use crate::layout::IdentityWord;
use crate::region::attach_read_only;
use crate::sync::Bits;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use std::cmp::Ordering;
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
    /// The key, process or deployment; with `#` and its hash where several are shown alike.
    record: String,
    /// `new`, `gone` or `changed`.
    #[serde(rename = "change")]
    kind: &'static str,
    /// Each field that changed, as it was before and is after.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, (Value, Value)>,
}

/// Fields that only say how much time has passed, follow from others, or are compared by themselves.
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
    let same_region = before.is_same_as(&after);
    let found = between(&Report::of(&before), &Report::of(&after), same_region)?;
    if arguments.json {
        json(out, &found)?;
    } else {
        show(out, &found)?;
    }
    let same = found.same_region && found.changes.is_empty();
    Ok(if same { OK } else { NOTHING })
}

fn between(before: &Report, after: &Report, same_region: bool) -> Result<Differences, Failure> {
    let mut compared = Compared { same_region, changes: Vec::new() };
    compared.sections(before, after).map_err(std::io::Error::from)?;
    let known = before.events.first().map(|event| event.number);
    let new = after.events.iter().filter(|event| known.is_none_or(|known| event.number > known));
    let mut events: Vec<EventReport> = new.cloned().collect();
    events.reverse();
    Ok(Differences {
        schema: SCHEMA,
        same_region,
        seconds: after.header.age_s.saturating_sub(before.header.age_s),
        changes: compared.changes,
        events,
    })
}

/// What has been found by comparing.
struct Compared {
    same_region: bool,
    changes: Vec<Change>,
}

/// A record by what it is told apart by: what it is called, and a number where several may be shown alike.
struct Named<'r, T> {
    name: String,
    number: u64,
    record: &'r T,
}

impl Compared {
    fn sections(&mut self, one: &Report, other: &Report) -> serde_json::Result<()> {
        let name = |of: &WorkerReport| (format!("{} {} {}", of.pid, of.row, of.generation), 0);
        self.compare("workers", [&one.workers, &other.workers], name, nothing)?;
        let name = |of: &LimitReport| {
            let identity = IdentityWord::from_bits(of.place.identity);
            (format!("{} {}", of.key, of.kind), identity.hash())
        };
        self.compare("limits", [&one.limits, &other.limits], name, hash)?;
        let name = |of: &LeaseReport| (format!("{} {}", of.key, of.row), of.key_slot);
        self.compare("leases", [&one.leases, &other.leases], name, nothing)?;
        let name = |of: &LeaderReport| (of.job.clone(), 0);
        self.compare("leaders", [&one.leaders, &other.leaders], name, nothing)?;
        let name =
            |of: &DeploymentReport| (of.deployment.clone(), IdentityWord::from_bits(of.id).hash());
        self.compare("deployments", [&one.deployments, &other.deployments], name, hash)?;
        let name = |of: &PoolReport| (of.pool.clone(), 0);
        self.compare("pools", [&one.pools, &other.pools], name, nothing)?;
        let [own, others] = [one, other].map(endpoints);
        let name = |of: &Endpoint<'_>| (format!("{}: {}", of.pool, of.of.endpoint), 0);
        self.compare("endpoints", [&own, &others], name, nothing)?;
        let name = |of: &NoticeReport| (of.notice.clone(), 0);
        self.compare("notices", [&one.notices, &other.notices], name, nothing)?;
        let name = |of: &FeatureReport| (of.feature.to_string(), 0);
        self.compare("features", [&one.features, &other.features], name, nothing)?;
        let header = [&one.header, &other.header].map(std::slice::from_ref);
        self.compare("header", header, |_| ("header".to_string(), 0), nothing)?;
        let stats = [&one.stats, &other.stats].map(std::slice::from_ref);
        self.compare("stats", stats, |_| ("stats".to_string(), 0), nothing)
    }

    /// Compares the records of a section one by one, as there may be millions. Where several have the same name and
    /// a number to be told apart by, it is said as `id` writes it.
    fn compare<T: Serialize>(
        &mut self,
        section: &'static str,
        [before, after]: [&[T]; 2],
        name: impl Fn(&T) -> (String, u64),
        id: fn(u64) -> String,
    ) -> serde_json::Result<()> {
        let [before, after] = [before, after].map(|records| self.in_order(records, &name));
        let (mut own, mut others) = (before.iter().peekable(), after.iter().peekable());
        let mut last: Option<&Named<'_, T>> = None;
        loop {
            let order = match (own.peek(), others.peek()) {
                (own, None) => own.map_or(Ordering::Equal, |_| Ordering::Less),
                (None, Some(_)) => Ordering::Greater,
                (Some(own), Some(other)) => {
                    (&own.name, own.number).cmp(&(&other.name, other.number))
                }
            };
            let was = if order.is_le() { own.next() } else { None };
            let is = if order.is_ge() { others.next() } else { None };
            let Some(one) = was.or(is) else { return Ok(()) };
            let near = [last, own.peek().copied(), others.peek().copied()];
            let several = near.into_iter().flatten().any(|other| other.name == one.name);
            last = Some(one);
            let kind = match (was, is) {
                (Some(_), Some(_)) => "changed",
                (Some(_), None) => "gone",
                _ => "new",
            };
            let fields = is.map(|is| changed(was.map(|was| was.record), is.record)).transpose()?;
            let fields = fields.unwrap_or_default();
            if kind != "changed" || !fields.is_empty() {
                let id = if several && self.same_region { id(one.number) } else { String::new() };
                self.changes.push(Change { section, record: one.name.clone() + &id, kind, fields });
            }
        }
    }

    /// Records in the order of their names; those of two regions have only their names in common.
    fn in_order<'r, T>(
        &self,
        records: &'r [T],
        name: impl Fn(&T) -> (String, u64),
    ) -> Vec<Named<'r, T>> {
        let named = |record| {
            let (name, number) = name(record);
            Named { name, number: if self.same_region { number } else { 0 }, record }
        };
        let mut all: Vec<Named<'r, T>> = records.iter().map(named).collect();
        all.sort_by(|one, other| (&one.name, one.number).cmp(&(&other.name, other.number)));
        all
    }
}

fn hash(number: u64) -> String {
    format!(" #{number:013x}")
}

fn nothing(_number: u64) -> String {
    String::new()
}

/// An endpoint of a pool.
#[derive(Serialize)]
struct Endpoint<'r> {
    #[serde(skip)]
    pool: &'r str,
    #[serde(flatten)]
    of: &'r EndpointReport,
}

/// The endpoints of all pools, with their pools' names.
fn endpoints(report: &Report) -> Vec<Endpoint<'_>> {
    let mut all = Vec::new();
    for PoolReport { pool, endpoints, .. } in &report.pools {
        all.extend(endpoints.iter().map(|of| Endpoint { pool, of }));
    }
    all
}

/// The fields that are not as they were, of a record that perhaps was not there.
fn changed<T: Serialize>(
    was: Option<&T>,
    is: &T,
) -> serde_json::Result<BTreeMap<String, (Value, Value)>> {
    let was = was.map(serde_json::to_value).transpose()?;
    let is = serde_json::to_value(is)?;
    if was.as_ref() == Some(&is) {
        return Ok(BTreeMap::new());
    }
    let (was, is) = (flat(&was.unwrap_or_default()), flat(&is));
    let get = |fields: &Fields, name: &String| fields.get(name).cloned().unwrap_or(Value::Null);
    // What a rate or a sliding window has regained is no change.
    let regains = matches!(is.get("kind").and_then(Value::as_str), Some("gcra" | "sliding"));
    let decided = ["allowed", "denied"].iter().any(|&name| was.get(name) != is.get(name));
    let settled = |name: &String| regains && !decided && name == "requests.used";
    let all = was.keys().chain(is.keys()).filter(|name| !settled(name));
    let all = all.map(|name| (name.clone(), (get(&was, name), get(&is, name))));
    Ok(all.filter(|(_, (was, is))| was != is).collect())
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

type Fields = BTreeMap<String, Value>;

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
    use crate::engine::health::Cause;
    use crate::engine::pool::Settings;
    use crate::engine::slots::SlotAsk;
    use crate::inspect::search::{Wanted, search};
    use crate::layout::FailureKind;
    use crate::primitives::gcra::Quota;
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
        // It regains.
        let rate = engine.limiter("", crate::primitives::gcra::Quota::new(60, 9).unwrap());
        for _ in 0..9 {
            let _ = engine.check(&rate, b"k");
        }
        let before = Report::of(engine.region());
        clock.advance_s(20);
        let Ok(found) = between(&before, &Report::of(engine.region()), true) else { panic!() };
        assert!(found.same_region && found.changes.is_empty(), "{:?}", found.changes);
        hit(2);
        engine.deployment_succeeded("gpt", 60, None, None).unwrap();
        engine.leave();
        let Ok(found) = between(&before, &Report::of(engine.region()), true) else { panic!() };
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

    #[test]
    fn what_is_shown_alike_is_compared_with_itself() {
        let clock = FakeClock::at(1_000_000_000_000);
        let capacity = Capacity::checked(1024, 64, 16).unwrap();
        let engine = Engine::new(create_heap(capacity, Box::new(clock)).unwrap());
        let rate = engine.limiter("", Quota::new(60, 60).unwrap());
        let keys = ["sk-proj-one-and-one", "sk-proj-one-and-two", "sk-proj-one-and-three"];
        for key in keys {
            engine.check(&rate, key.as_bytes()).unwrap();
        }
        let slots = |key: &str| format!("{{api_key:{key}}}:max_parallel_requests");
        let acquire = |key: &str, slot_id: &str| {
            let ask = SlotAsk { key: &slots(key), limit: 5, ttl_s: 0, slot_id };
            engine.acquire_all(&[ask]).unwrap();
        };
        let [one, two] = ["0123456789abcdef0123", "0123456789abcdef0124"];
        acquire(one, "a");
        acquire(two, "a");
        let pool = engine.pool("openai", Settings::default()).unwrap();
        let made = engine.connect(&pool, "https://api.example.com").unwrap().unwrap();
        for key in keys {
            let before = Report::of(engine.region());
            engine.check(&rate, key.as_bytes()).unwrap();
            let Ok(found) = between(&before, &Report::of(engine.region()), true) else { panic!() };
            let limits: Vec<&Change> =
                found.changes.iter().filter(|change| change.section == "limits").collect();
            let id = &search(engine.region(), &Wanted::new(key))[0].id();
            assert_eq!(limits.len(), 1, "{key}: {:?}", found.changes);
            assert_eq!(limits[0].record, format!("sk-pro.. gcra {id}"));
            assert_eq!(limits[0].fields["allowed"].1, Value::from(2));
        }
        for key in [one, two] {
            let before = Report::of(engine.region());
            acquire(key, "b");
            let Ok(found) = between(&before, &Report::of(engine.region()), true) else { panic!() };
            assert!(found.changes.iter().any(|change| change.section == "leases"), "{key}");
        }
        let before = Report::of(engine.region());
        let cause = Cause { kind: FailureKind::Timeout, status: 0, text: "" };
        engine.report_connection(&pool, &made, Some(&cause)).unwrap();
        let Ok(found) = between(&before, &Report::of(engine.region()), true) else { panic!() };
        let failed = found.changes.iter().find(|change| change.section == "endpoints").unwrap();
        assert_eq!(failed.record, "openai: https://api.example.com");
        assert_eq!(failed.fields["failures_total"], (Value::from(0), Value::from(1)));
    }
}
