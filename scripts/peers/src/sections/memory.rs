//! Resident memory per key: each contender in a process of its own, before and after it has seen a
//! million keys.

use crate::Failure;
use crate::governed::{self, Keyed};
use crate::ours::Ours;
use crate::report::Table;
use crate::sections::keys::{Random, grouped, key};
use crate::shared::resident;
use serde::{Deserialize, Serialize};
use std::fs::read_to_string;
use std::hash::Hash;
use std::process::Command;

const KEYS: usize = 1_000_000;

/// What one process found.
#[derive(Debug, Serialize, Deserialize)]
struct Growth {
    rss: u64,
    pss: u64,
    /// Keys that found no room.
    refused: u64,
    /// Resident bytes of the region by section; empty for governor.
    sections: Vec<(String, u64)>,
}

/// Contenders: a name for people, and what the child is told.
const CONTENDERS: [(&str, &str); 5] = [
    ("ours, room for 1,048,576", "ours:1048576"),
    ("ours, room for 2,097,152", "ours:2097152"),
    ("ours, room for 4,194,304", "ours:4194304"),
    ("governor keyed, 16 plain bytes", "governor:bytes"),
    ("governor keyed, String of 16 bytes", "governor:string"),
];

pub(crate) fn run() -> Result<Vec<Table>, Failure> {
    eprintln!("measuring: memory");
    let mut rows = Vec::new();
    let mut figures = Vec::new();
    for (name, what) in CONTENDERS {
        let output = Command::new(std::env::current_exe()?).args(["--memory", what]).output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(format!("measuring the memory of {name} failed: {text}").into());
        }
        let growth: Growth = serde_json::from_slice(&output.stdout)?;
        rows.push(growth.row(name));
        figures.push(serde_json::json!({ "name": name, "keys": KEYS, "bytes": growth }));
    }
    let notes = vec![
        "growth of this process's memory from before the first key to after the last (smaps_rollup), \
         divided by the keys that found room"
            .to_string(),
        "sections are counted by mincore; ours pays for whole pages of a table that is larger than its \
         keys need, and for names that governor has not"
            .to_string(),
        "ours is paid once for all processes that share it, governor's once per process".to_string(),
    ];
    let title = format!("memory of {} keys, bytes per key", grouped(KEYS));
    let columns = vec!["", "RSS", "PSS", "buckets", "names", "PSS - names", "no room"];
    Ok(vec![Table { title, notes, columns, rows, figures: figures.into() }])
}

impl Growth {
    fn row(&self, name: &str) -> Vec<String> {
        let keys = KEYS as u64 - self.refused;
        let per_key = |bytes: u64| (bytes / keys.max(1)).to_string();
        let section = |wanted: &str| {
            self.sections.iter().find(|(name, _)| name == wanted).map(|(_, bytes)| *bytes)
        };
        let shown = |wanted| section(wanted).map_or_else(|| "-".to_string(), per_key);
        let unnamed = self.pss.saturating_sub(section("names").unwrap_or(0));
        vec![
            name.to_string(),
            per_key(self.rss),
            per_key(self.pss),
            shown("buckets"),
            shown("names"),
            per_key(unnamed),
            self.refused.to_string(),
        ]
    }
}

/// The child: measures one contender and prints what it found.
pub(crate) fn child(what: &str) -> Result<(), Failure> {
    let growth = match what.split_once(':') {
        Some(("ours", room)) => ours(room.parse()?)?,
        Some(("governor", "bytes")) => governor(key)?,
        Some(("governor", "string")) => {
            governor(|n| String::from_utf8_lossy(&key(n)).into_owned())?
        }
        _ => return Err(format!("--memory {what}: no such contender").into()),
    };
    println!("{}", serde_json::to_string(&growth)?);
    Ok(())
}

/// Key numbers in the order in which they are seen.
fn order() -> Vec<usize> {
    let mut order: Vec<usize> = (0..KEYS).collect();
    let mut random = Random::new();
    for last in (1..order.len()).rev() {
        order.swap(last, random.below(last + 1));
    }
    order
}

fn ours(room: u64) -> Result<Growth, Failure> {
    let ours = Ours::new(room)?;
    let rate = ours.open()?;
    let order = order();
    let before = Usage::now()?;
    let refused = order.iter().filter(|&&n| ours.check(&rate, &key(n)) != 1).count();
    let after = Usage::now()?;
    let parts = ours.parts();
    let counted = |part: &crate::ours::Part| {
        resident(part.start, part.len).map(|bytes| (part.name.to_string(), bytes))
    };
    let sections = parts.iter().map(counted).collect::<Result<_, _>>()?;
    Ok(before.growth_to(&after, refused as u64, sections))
}

fn governor<K: Hash + Eq + Clone>(key: impl Fn(usize) -> K) -> Result<Growth, Failure> {
    let limiter = Keyed::new(true, governed::quanta());
    let order = order();
    let before = Usage::now()?;
    let refused = order.iter().filter(|&&n| limiter.check(&key(n)) != 1).count();
    let after = Usage::now()?;
    Ok(before.growth_to(&after, refused as u64, Vec::new()))
}

/// This process's memory.
struct Usage {
    rss: u64,
    pss: u64,
}

impl Usage {
    fn now() -> Result<Self, Failure> {
        let text = read_to_string("/proc/self/smaps_rollup")?;
        let bytes = |name: &str| -> Result<u64, Failure> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
            Ok(kilobytes * 1_024)
        };
        Ok(Self { rss: bytes("Rss:")?, pss: bytes("Pss:")? })
    }

    fn growth_to(&self, after: &Self, refused: u64, sections: Vec<(String, u64)>) -> Growth {
        let rss = after.rss.saturating_sub(self.rss);
        let pss = after.pss.saturating_sub(self.pss);
        Growth { rss, pss, refused, sections }
    }
}
