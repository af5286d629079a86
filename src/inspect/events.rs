//! The latest events.

use super::deployments::deployment_name;
use super::leaders::job_name;
use super::{EventReport, key_of};
use crate::layout::{EventKind, OwnerTag};
use crate::region::Region;
use crate::sync::Bits;
use crate::tables::{events, index};
use std::collections::BTreeMap;

/// Events that a report shows.
const EVENTS: usize = 50;

pub(super) fn events(region: &Region) -> Vec<EventReport> {
    let now_us = region.now().us();
    let named: BTreeMap<u64, String> = region
        .deployments()
        .iter()
        .filter_map(|record| Some((key_of(&record.identity)?.bits(), deployment_name(record))))
        .chain(
            region
                .jobs()
                .iter()
                .filter_map(|job| Some((key_of(&job.identity)?.bits(), job_name(job)))),
        )
        .collect();
    let report = |entry: events::Entry| EventReport {
        number: entry.number,
        age_s: now_us.saturating_sub(entry.at_us) / 1_000_000,
        event: entry.known_kind().map_or("unknown", EventKind::name),
        row: entry.owner.map(OwnerTag::row),
        subject: index::key_of(entry.subject).map(|key| {
            let name = named.get(&key.bits()).cloned();
            name.unwrap_or_else(|| format!("#{:013x}", key.hash()))
        }),
        a: entry.a,
        b: entry.b,
    };
    events::recent(region.events(), &region.header().event_head, EVENTS).map(report).collect()
}
