//! Concurrency slots that are held.

use super::deployments::deployment_name;
use super::leaders::job_name;
use super::limits::key_name;
use super::workers::{Prove, owner_of};
use super::{LeaseReport, get, key_of};
use crate::engine::{health, leader, pool};
use crate::layout::{IdentityWord, LeaseChunk, LeaseWord, section};
use crate::region::Region;
use std::collections::BTreeMap;

/// Held slots, three ways.
#[derive(Default)]
pub(super) struct Holdings {
    pub(super) leases: Vec<LeaseReport>,
    pub(super) by_owner: BTreeMap<u64, u64>,
    /// By `key_slot`.
    pub(super) by_key: BTreeMap<u64, u64>,
    /// Those that are idle, by `key_slot`.
    pub(super) idle: BTreeMap<u64, u64>,
}

/// One held slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    /// `key_slot` of its chunk.
    of: u64,
    owner: u64,
    idle: u64,
    age_s: u64,
}

pub(super) fn holdings(region: &Region, prove: &Prove<'_>) -> Holdings {
    let mut slots = slots(region);
    slots.sort_unstable();
    let group = |group: &[Slot]| {
        let first = *group.first()?;
        let held = group.len() as u64;
        let idle = group.iter().fold(0_u64, |sum, slot| sum.saturating_add(slot.idle));
        // One that is kept without being used is nobody's burden.
        let counts = |slot: &&Slot| slot.idle == 0 || idle == held;
        let oldest_s = group.iter().filter(counts).map(|slot| slot.age_s).max()?;
        Some((first.of, first.owner, held, idle, oldest_s))
    };
    let same = |a: &Slot, b: &Slot| (a.of, a.owner) == (b.of, b.owner);
    let groups = || slots.chunk_by(same).filter_map(group);
    let leases = groups()
        .map(|(key_slot, owner, held, idle, oldest_s)| {
            let (row, pid, state) = owner_of(region, owner, prove);
            let (of, key) = holder(region, key_slot);
            LeaseReport { key, of, row, pid, owner: state, held, idle, oldest_s, key_slot }
        })
        .collect();
    let mut holdings = Holdings { leases, ..Holdings::default() };
    for (key_slot, owner, held, idle, _) in groups() {
        *holdings.by_owner.entry(owner).or_default() += held;
        *holdings.by_key.entry(key_slot).or_default() += held;
        *holdings.idle.entry(key_slot).or_default() += idle;
    }
    holdings
}

fn slots(region: &Region) -> Vec<Slot> {
    let now_s = region.now().s();
    let used = |chunk: &LeaseChunk| get(&chunk.identity) != IdentityWord::default();
    let mut found = Vec::new();
    let chunks = region.written(section::LEASES, region.chunks());
    for (_, chunk) in chunks.filter(|(_, chunk)| used(chunk)) {
        let of = get(&chunk.key_slot);
        let words = chunk.holders.iter().map(get).filter(|&word| word != LeaseWord::default());
        found.extend(words.map(|word| Slot {
            of,
            owner: word.owner(),
            idle: word.idle(),
            age_s: now_s.saturating_sub(word.acquired_s()),
        }));
    }
    found
}

/// What a chunk's `key_slot` names: its kind, and its name.
pub(super) fn holder(region: &Region, key_slot: u64) -> (&'static str, String) {
    let endpoint = pool::slot_of(key_slot).and_then(|slot| region.endpoints().get(slot));
    if let Some(record) = endpoint {
        let own = key_of(&record.identity);
        let of = region
            .endpoints()
            .iter()
            .find(|other| key_of(&other.identity).is_some_and(|key| key == get(&record.pool)));
        let of = of.filter(|_| own != Some(get(&record.pool))).map(pool::name_of);
        let name = pool::name_of(record);
        return match of {
            None => ("pool", format!("pool {name}")),
            Some(of) => ("endpoint", format!("pool {of}: {name}")),
        };
    }
    if let Some(job) = leader::slot_of(key_slot).and_then(|slot| region.jobs().get(slot)) {
        return ("job", job_name(job));
    }
    if let Some(record) = health::slot_of(key_slot).and_then(|slot| region.deployments().get(slot))
    {
        return ("deployment", deployment_name(record));
    }
    let slot = usize::try_from(key_slot.wrapping_sub(1)).unwrap_or(usize::MAX);
    ("key", key_name(region, slot))
}
