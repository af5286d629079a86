//! `fl-shm leases`: who holds which concurrency slots, and which of them may be lost.

use super::columns::Columns;
use super::inspect::Format;
use super::outcome::{Failure, Outcome, nothing_found};
use super::select::{self, Select};
use super::text::{self, Screen};
use super::view::View;
use super::{NOTHING, OK, machine};
use crate::inspect::{LeaseReport, Report, Section};
use clap::{Args, ValueEnum};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct Leases {
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    format: Format,
    /// Only slots that may be lost: in use for longer than this (600, 600s, 10m), or of a dead owner.
    #[arg(long, value_name = "AGE", num_args = 0..=1, default_missing_value = "600s", value_parser = age)]
    suspect: Option<u64>,
    /// Add them up.
    #[arg(long, value_enum)]
    by: Option<By>,
    #[command(flatten)]
    view: View,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// For each process.
    Worker,
    /// For each key, deployment, job, pool and endpoint.
    Key,
}

fn age(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit_s = match unit {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    };
    let seconds = number.parse().ok().zip(unit_s).and_then(|(n, s): (u64, u64)| n.checked_mul(s));
    seconds.ok_or_else(|| format!("{text:?} is no age: use seconds, or 600s, 10m, 2h, 1d"))
}

/// What `--json` prints: one of the three lists.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Printed {
    schema: &'static str,
    /// Slots of one owner under one key.
    #[serde(skip_serializing_if = "Option::is_none")]
    leases: Option<Vec<LeaseReport>>,
    /// With `--by worker`.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_worker: Option<Vec<OfWorker>>,
    /// With `--by key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_key: Option<Vec<OfKey>>,
}

/// Slots of one process.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct OfWorker {
    /// Its row.
    row: u32,
    /// Its process id; absent when it is no longer registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    /// `alive`, `dead` or `unknown`.
    owner: &'static str,
    /// Slots held.
    held: u64,
    /// Those of them that are kept without being used.
    idle: u64,
    /// Keys, deployments, jobs, pools and endpoints whose slots it holds.
    keys: u64,
    /// Seconds that the oldest has been held.
    oldest_s: u64,
}

/// Slots under one key.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct OfKey {
    /// Redacted name of the key, deployment, job, pool or endpoint.
    key: String,
    /// Which of these it is: `key`, `deployment`, `job`, `pool` or `endpoint`.
    of: &'static str,
    /// Slots held.
    held: u64,
    /// Those of them that are kept without being used.
    idle: u64,
    /// Processes that hold them.
    owners: u64,
    /// Seconds that the oldest has been held.
    oldest_s: u64,
}

/// Whether slots may be lost. A pool's slot is as old as its connection, and its endpoint's tells the use.
fn is_suspect(lease: &LeaseReport, age_s: u64) -> bool {
    let in_use = lease.held > lease.idle && lease.of != "pool";
    lease.owner == "dead" || in_use && lease.oldest_s > age_s
}

fn by_worker(leases: &[LeaseReport]) -> Vec<OfWorker> {
    let mut workers: BTreeMap<(u32, Option<i32>), OfWorker> = BTreeMap::new();
    for lease in leases {
        let &LeaseReport { row, pid, owner, held, idle, oldest_s, .. } = lease;
        let none = OfWorker { row, pid, owner, held: 0, idle: 0, keys: 0, oldest_s };
        let worker = workers.entry((row, pid)).or_insert(none);
        worker.held = worker.held.saturating_add(held);
        worker.idle = worker.idle.saturating_add(idle);
        worker.keys += 1;
        worker.oldest_s = worker.oldest_s.max(oldest_s);
    }
    workers.into_values().collect()
}

fn by_key(leases: &[LeaseReport]) -> Vec<OfKey> {
    // Those of one key follow each other; another one may be shown alike.
    let same = |a: &LeaseReport, b: &LeaseReport| a.key_slot == b.key_slot;
    let key = |leases: &[LeaseReport]| {
        let first = leases.first()?;
        let sum = |of: fn(&LeaseReport) -> u64| leases.iter().map(of).fold(0, u64::saturating_add);
        Some(OfKey {
            key: first.key.clone(),
            of: first.of,
            held: sum(|lease| lease.held),
            idle: sum(|lease| lease.idle),
            owners: leases.len() as u64,
            oldest_s: leases.iter().map(|lease| lease.oldest_s).max()?,
        })
    };
    leases.chunk_by(same).filter_map(key).collect()
}

/// `fl-shm leases`
pub(super) fn leases(arguments: &Leases, out: &mut impl Write) -> Outcome {
    let plan = arguments.view.plan(match arguments.by {
        None => Columns::of::<LeaseReport>(),
        Some(By::Worker) => Columns::of::<OfWorker>(),
        Some(By::Key) => Columns::of::<OfKey>(),
    })?;
    let Some(chosen) = select::choose(&arguments.select)? else {
        return nothing_found();
    };
    let region = chosen.look()?;
    let mut leases = Report::only(&region, |section| section == Section::Leases).leases;
    if let Some(age_s) = arguments.suspect {
        leases.retain(|lease| is_suspect(lease, age_s));
    }
    let (workers, keys);
    let part = match arguments.by {
        None => machine::Part::of("leases", &leases, &plan),
        Some(By::Worker) => {
            workers = by_worker(&leases);
            machine::Part::of("by_worker", &workers, &plan)
        }
        Some(By::Key) => {
            keys = by_key(&leases);
            machine::Part::of("by_key", &keys, &plan)
        }
    };
    let format = arguments.format;
    if format.json {
        machine::json(out, std::slice::from_ref(&part))?;
    } else if format.ndjson {
        machine::ndjson(out, std::slice::from_ref(&part), None)?;
    } else if format.csv {
        machine::csv(out, &part, None, true)?;
    } else {
        let title =
            if arguments.suspect.is_some() { "slots that may be lost" } else { "slots held" };
        let title = format!("region {}: {title}", chosen.name());
        let mut shown = String::new();
        text::section(&mut shown, Screen::of_output(), &title, &part, true)
            .map_err(|error| Failure::Message(error.to_string()))?;
        out.write_all(shown.as_bytes())?;
    }
    let found = arguments.suspect.is_some() && !part.picks.is_empty(part.records.as_ref());
    Ok(if found { NOTHING } else { OK })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(key: &str, of: &'static str, pid: i32, held: u64, idle: u64) -> LeaseReport {
        let (row, owner) = (u32::from(pid == 2), if pid == 2 { "dead" } else { "alive" });
        let (key, key_slot) = (key.to_string(), key.bytes().map(u64::from).sum());
        LeaseReport { key, of, row, pid: Some(pid), owner, held, idle, oldest_s: 700, key_slot }
    }

    #[test]
    fn what_may_be_lost() {
        assert!(is_suspect(&lease("k", "key", 1, 1, 0), 600));
        assert!(!is_suspect(&lease("k", "key", 1, 1, 0), 700));
        assert!(is_suspect(&lease("k", "key", 2, 1, 0), 700), "its owner is dead");
        assert!(!is_suspect(&lease("p", "pool", 1, 1, 0), 600), "a connection may be old");
        assert!(is_suspect(&lease("e", "endpoint", 1, 2, 1), 600));
        assert!(!is_suspect(&lease("e", "endpoint", 1, 2, 2), 600), "all are idle");
    }

    #[test]
    fn they_are_added_up() {
        let all =
            [lease("a", "key", 1, 2, 0), lease("a", "key", 2, 3, 1), lease("b", "job", 1, 1, 0)];
        let workers: Vec<_> = by_worker(&all).iter().map(|of| (of.pid, of.held, of.keys)).collect();
        assert_eq!(workers, [(Some(1), 3, 2), (Some(2), 3, 1)]);
        let keys = by_key(&all);
        let keys: Vec<_> =
            keys.iter().map(|of| (of.key.as_str(), of.held, of.idle, of.owners)).collect();
        assert_eq!(keys, [("a", 5, 1, 2), ("b", 1, 0, 1)]);
        let twins = [1, 2].map(|key_slot| LeaseReport { key_slot, ..lease("a", "key", 1, 2, 0) });
        assert_eq!(by_key(&twins).iter().map(|of| of.held).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn ages() {
        assert_eq!(
            ["0", "600", "90s", "10m", "2h", "1d"].map(|text| age(text).unwrap()),
            [0, 600, 90, 600, 7_200, 86_400]
        );
        for text in ["", "s", "-5", "1.5h", "10x", "99999999999999999999", "999999999999999999d"] {
            assert!(age(text).unwrap_err().contains("use seconds"), "{text}");
        }
    }
}
