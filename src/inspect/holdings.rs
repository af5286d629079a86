//! Concurrency slots that are held.

use super::deployments::deployment_name;
use super::leaders::job_name;
use super::limits::key_name;
use super::workers::{Prove, owner_of};
use super::{LeaseReport, get, key_of};
use crate::engine::{health, leader, pool};
use crate::layout::{IdentityWord, LeaseWord};
use crate::region::Region;
use std::collections::BTreeMap;

/// Held slots, three ways.
#[derive(Default)]
pub(super) struct Holdings {
    pub(super) leases: Vec<LeaseReport>,
    /// The `key_slot` of each of them.
    pub(super) key_slots: Vec<u64>,
    pub(super) by_owner: BTreeMap<u64, u64>,
    /// By `key_slot`.
    pub(super) by_key: BTreeMap<u64, u64>,
    /// Those that are idle, by `key_slot`.
    pub(super) idle: BTreeMap<u64, u64>,
}

pub(super) fn holdings(region: &Region, prove: &Prove<'_>) -> Holdings {
    let now_s = region.now().s();
    let mut grouped: BTreeMap<(u64, u64), (u64, u64, u64)> = BTreeMap::new();
    for chunk in region.chunks() {
        if get(&chunk.identity) == IdentityWord::default() {
            continue;
        }
        let key = get(&chunk.key_slot);
        for holder in &chunk.holders {
            let word = get(holder);
            if word != LeaseWord::default() {
                let age_s = now_s.saturating_sub(word.acquired_s());
                let entry = grouped.entry((key, word.owner())).or_default();
                *entry = (entry.0 + 1, entry.1 + word.idle(), entry.2.max(age_s));
            }
        }
    }
    let mut holdings = Holdings::default();
    for ((key, owner), (held, idle, oldest_s)) in grouped {
        *holdings.by_owner.entry(owner).or_default() += held;
        *holdings.by_key.entry(key).or_default() += held;
        *holdings.idle.entry(key).or_default() += idle;
        holdings.key_slots.push(key);
        let (row, pid, state) = owner_of(region, owner, prove);
        let key = holder_name(region, key);
        holdings.leases.push(LeaseReport { key, row, pid, owner: state, held, idle, oldest_s });
    }
    holdings
}

/// Name of the key, deployment, job, pool or endpoint that a chunk's `key_slot` names.
pub(super) fn holder_name(region: &Region, key_slot: u64) -> String {
    let endpoint = pool::slot_of(key_slot).and_then(|slot| region.endpoints().get(slot));
    if let Some(record) = endpoint {
        let own = key_of(&record.identity);
        let of = region
            .endpoints()
            .iter()
            .find(|other| key_of(&other.identity).is_some_and(|key| key == get(&record.pool)));
        let of = of.filter(|_| own != Some(get(&record.pool))).map(pool::name_of);
        let name = pool::name_of(record);
        return of.map_or_else(|| format!("pool {name}"), |of| format!("pool {of}: {name}"));
    }
    if let Some(job) = leader::slot_of(key_slot).and_then(|slot| region.jobs().get(slot)) {
        return job_name(job);
    }
    let deployment = health::slot_of(key_slot).and_then(|slot| region.deployments().get(slot));
    let slot = usize::try_from(key_slot.wrapping_sub(1)).unwrap_or(usize::MAX);
    deployment.map_or_else(|| key_name(region, slot), deployment_name)
}
