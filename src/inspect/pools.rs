//! Connection pools.

use super::holdings::Holdings;
use super::{EndpointReport, PoolReport, get, key_of};
use crate::engine::pool;
use crate::layout::{Endpoint, section};
use crate::region::Region;
use std::collections::BTreeMap;

pub(super) fn pools(region: &Region, holdings: &Holdings) -> Vec<PoolReport> {
    let written = region.written(section::ENDPOINTS, region.endpoints());
    written.filter_map(|(slot, _)| pool(region, slot, holdings)).collect()
}

/// The pool in one record; `None` = there is none.
pub(super) fn pool(region: &Region, slot: usize, holdings: &Holdings) -> Option<PoolReport> {
    let record = region.endpoints().get(slot)?;
    let key = key_of(&record.identity).filter(|&key| get(&record.pool) == key)?;
    let belongs = |other: &Endpoint| {
        get(&other.pool) == key && key_of(&other.identity).is_some_and(|own| own != key)
    };
    let table = region.written(section::ENDPOINTS, region.endpoints());
    let endpoints = table.filter(|(_, other)| belongs(other));
    Some(PoolReport {
        pool: pool::name_of(record),
        connections: count(&holdings.by_key, slot),
        idle: count(&holdings.idle, slot),
        limit: limit(record),
        counts: pool::counts_of(record),
        endpoints: endpoints
            .map(|(slot, record)| endpoint(region, slot, record, holdings))
            .collect(),
    })
}

/// The pool of the endpoint in one record, with that endpoint only; `None` = there is no endpoint.
pub(super) fn pool_of(region: &Region, slot: usize, holdings: &Holdings) -> Option<PoolReport> {
    let record = region.endpoints().get(slot)?;
    let (own, key) = (key_of(&record.identity)?, get(&record.pool));
    let table = region.endpoints();
    let of = table.iter().position(|other| own != key && key_of(&other.identity) == Some(key))?;
    let endpoints = vec![endpoint(region, slot, record, holdings)];
    Some(PoolReport { endpoints, ..pool(region, of, holdings)? })
}

fn endpoint(
    region: &Region,
    slot: usize,
    record: &Endpoint,
    holdings: &Holdings,
) -> EndpointReport {
    let now = region.now();
    let failure = pool::last_failure_of(record, now);
    EndpointReport {
        endpoint: pool::name_of(record),
        connections: count(&holdings.by_key, slot),
        idle: count(&holdings.idle, slot),
        limit: limit(record),
        healthy: pool::endpoint_is_healthy(record, now),
        failures_in_a_row: pool::failures_of(record, now),
        failures_total: get(&record.failures_total),
        last_failure: failure.map(|(kind, ..)| kind.name()),
        last_status: failure.map(|(_, status, _)| status).filter(|&status| status > 0),
        last_failure_s: failure.map(|(.., age_s)| age_s),
    }
}

fn count(counts: &BTreeMap<u64, u64>, slot: usize) -> u64 {
    counts.get(&pool::key_slot(slot)).copied().unwrap_or(0)
}

fn limit(record: &Endpoint) -> Option<u64> {
    Some(get(&record.lease).limit()).filter(|&limit| limit > 0)
}
