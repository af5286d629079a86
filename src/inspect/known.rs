//! All that is known under a name.

use super::holdings::{Holdings, holdings};
use super::search::{Hit, Match, Table, Wanted, search};
use super::{
    DeploymentReport, EventReport, LeaderReport, LeaseReport, LimitReport, NoticeReport,
    PoolReport, SCHEMA, deployments, events, leaders, limits, notices, pools, workers,
};
use crate::engine::{health, leader, pool};
use crate::layout::IdentityWord;
use crate::region::Region;
use serde::Serialize;

/// What is known under some names.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Known {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The region's name.
    pub region: String,
    /// What was asked for, in that order.
    pub asked: Vec<Answer>,
}

/// What is known under one name.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Answer {
    /// What was asked for, redacted.
    pub asked: String,
    /// True when several things are shown under that name and cannot be told apart: all of them are here.
    pub ambiguous: bool,
    /// Limits and counters.
    pub limits: Vec<Found<LimitReport>>,
    /// Slots held, by owner.
    pub leases: Vec<LeaseReport>,
    /// Deployments.
    pub deployments: Vec<Found<DeploymentReport>>,
    /// Pools; of an endpoint that was asked for, its pool with that endpoint only.
    pub pools: Vec<Found<PoolReport>>,
    /// Who leads the jobs of that name; one that nobody leads is not here.
    pub leaders: Vec<Found<LeaderReport>>,
    /// Notices.
    pub notices: Vec<Found<NoticeReport>>,
    /// The latest events about them, newest first.
    pub events: Vec<EventReport>,
}

/// A record, and how sure it is that it was asked for.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Found<T> {
    /// `#` and its hash: what it can be asked for by, whatever its name is.
    pub id: String,
    /// `key`: its identity is that of the key; `name`: it is shown under that name; `related`: counted with the key.
    #[serde(rename = "match")]
    pub matched: &'static str,
    /// The record.
    #[serde(flatten)]
    pub record: T,
}

impl Known {
    /// Looks each of them up.
    pub fn of(region: &Region, name: &str, wanted: &[Wanted]) -> Self {
        let prove = workers::prover(region);
        let held = holdings(region, &prove);
        let asked = wanted.iter().map(|wanted| answer(region, wanted, &held, &prove)).collect();
        Self { schema: SCHEMA, region: name.to_string(), asked }
    }

    /// Whether something is known under each name.
    pub fn is_complete(&self) -> bool {
        self.asked.iter().all(|answer| !answer.is_empty())
    }
}

impl Answer {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty()
            && self.leases.is_empty()
            && self.deployments.is_empty()
            && self.pools.is_empty()
            && self.leaders.is_empty()
            && self.notices.is_empty()
    }
}

/// Whether several of these are shown alike, of which one was meant.
pub fn are_ambiguous(hits: &[Hit]) -> bool {
    let by_name = hits.iter().filter(|hit| hit.matched == Match::Name);
    let mut tables: Vec<_> = by_name.map(|hit| (hit.table, hit.identity.kind())).collect();
    let all = tables.len();
    tables.sort_unstable();
    tables.dedup();
    tables.len() < all
}

fn answer(region: &Region, wanted: &Wanted, held: &Holdings, prove: &workers::Prove<'_>) -> Answer {
    let hits = search(region, wanted);
    let key_slots: Vec<u64> = hits.iter().filter_map(key_slot).collect();
    let leases = held.leases.iter().filter(|lease| key_slots.contains(&lease.key_slot)).cloned();
    let subjects: Vec<IdentityWord> = hits.iter().map(|hit| hit.identity).collect();
    let count = |slot: u64| held.by_key.get(&slot).copied().unwrap_or(0);
    Answer {
        asked: wanted.shown(),
        ambiguous: are_ambiguous(&hits),
        limits: found(&hits, Table::Keys, |slot| {
            limits::limit(region, slot, count(slot as u64 + 1))
        }),
        leases: leases.collect(),
        deployments: found(&hits, Table::Deployments, |slot| {
            deployments::deployment(region, slot, &held.by_key)
        }),
        pools: found(&hits, Table::Endpoints, |slot| {
            pools::pool(region, slot, held).or_else(|| pools::pool_of(region, slot, held))
        }),
        leaders: found(&hits, Table::Jobs, |slot| leaders::leader(region, slot, prove)),
        notices: found(&hits, Table::Notices, |slot| notices::notice(region, slot)),
        events: events::events_about(region, &subjects),
    }
}

fn found<T>(hits: &[Hit], table: Table, report: impl Fn(usize) -> Option<T>) -> Vec<Found<T>> {
    let of_table = hits.iter().filter(|hit| hit.table == table);
    of_table
        .filter_map(|hit| {
            let record = report(hit.slot)?;
            Some(Found { id: hit.id(), matched: hit.matched.name(), record })
        })
        .collect()
}

/// What lease chunks call the record.
fn key_slot(hit: &Hit) -> Option<u64> {
    match hit.table {
        Table::Keys => Some(hit.slot as u64 + 1),
        Table::Deployments => Some(health::key_slot(hit.slot)),
        Table::Endpoints => Some(pool::key_slot(hit.slot)),
        Table::Jobs => Some(leader::key_slot(hit.slot)),
        Table::Notices => None,
    }
}
