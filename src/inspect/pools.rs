//! Connection pools.

use super::holdings::Holdings;
use super::{EndpointReport, PoolReport, get, key_of};
use crate::engine::pool;
use crate::layout::Endpoint;
use crate::region::Region;
use std::collections::BTreeMap;

pub(super) fn pools(region: &Region, holdings: &Holdings) -> Vec<PoolReport> {
    let now = region.now();
    let table = || region.endpoints().iter().enumerate();
    let count = |counts: &BTreeMap<u64, u64>, slot: usize| {
        counts.get(&pool::key_slot(slot)).copied().unwrap_or(0)
    };
    let limit = |record: &Endpoint| Some(get(&record.lease).limit()).filter(|&limit| limit > 0);
    let endpoint = |(slot, record): (usize, &Endpoint)| {
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
    };
    let report = |(slot, record): (usize, &Endpoint)| {
        let key = key_of(&record.identity)?;
        if get(&record.pool) != key {
            return None;
        }
        let belongs = |other: &Endpoint| {
            get(&other.pool) == key && key_of(&other.identity).is_some_and(|own| own != key)
        };
        Some(PoolReport {
            pool: pool::name_of(record),
            connections: count(&holdings.by_key, slot),
            idle: count(&holdings.idle, slot),
            limit: limit(record),
            counts: pool::counts_of(record),
            endpoints: table().filter(|(_, other)| belongs(other)).map(endpoint).collect(),
        })
    };
    table().filter_map(report).collect()
}
