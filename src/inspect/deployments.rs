//! Health of deployments.

use super::{DeploymentReport, get, key_of};
use crate::engine::health;
use crate::layout::section;
use crate::region::Region;
use crate::sync::Bits;
use crate::tables::names;
use std::collections::BTreeMap;

pub(super) fn deployments(region: &Region, held: &BTreeMap<u64, u64>) -> Vec<DeploymentReport> {
    let written = region.written(section::DEPLOYMENTS, region.deployments());
    written.filter_map(|(slot, _)| deployment(region, slot, held)).collect()
}

/// The deployment in one record; `None` = there is none.
pub(super) fn deployment(
    region: &Region,
    slot: usize,
    held: &BTreeMap<u64, u64>,
) -> Option<DeploymentReport> {
    let record = region.deployments().get(slot)?;
    let identity = key_of(&record.identity)?;
    let in_flight = held.get(&health::key_slot(slot)).copied().unwrap_or(0);
    let health = health::health_of(record, region.now(), in_flight);
    let cooldown = health::cooldown_of(record, identity, || region.now());
    let cooldown = cooldown.as_ref();
    Some(DeploymentReport {
        deployment: deployment_name(record),
        in_flight,
        cooldown_ms: cooldown.map_or(0, |cooldown| cooldown.left_ms),
        cooldown_reason: cooldown.map(|cooldown| cooldown.kind.name()),
        cooldown_for_ms: cooldown.map(|cooldown| cooldown.for_ms),
        cooldown_status: cooldown.map(|cooldown| cooldown.status).filter(|&s| s > 0),
        cooldown_text: cooldown.and_then(|cooldown| cooldown.text.clone()),
        successes: health.successes,
        failures: health.failures,
        failures_in_a_row: health.failures_in_a_row,
        successes_total: health.successes_total,
        failures_total: health.failures_total,
        last_failure: health.last_failure.map(|(kind, ..)| kind.name()),
        last_status: health.last_failure.map(|(_, status, _)| status).filter(|&s| s > 0),
        last_failure_s: health.last_failure.map(|(.., age_s)| age_s),
        latency_us: health.latency_us,
        first_token_us: health.first_token_us,
        score_us: health.scores_us.first().copied(),
        successes_per_s: None,
        failures_per_s: None,
        id: identity.bits(),
    })
}

pub(super) fn deployment_name(record: &crate::layout::Deployment) -> String {
    let place = names::Place { head: &record.name_head, bytes: &record.name };
    names::read(place).unwrap_or_else(|| format!("#{:013x}", get(&record.identity).hash()))
}
