//! Counters over all workers.

use super::get;
use crate::layout::StatsRow;
use crate::region::Region;
use std::collections::BTreeMap;

/// Statistics counters by name.
pub fn counters() -> [(&'static str, crate::engine::Counter); 26] {
    [
        ("window_charged", |row: &StatsRow| &row.window_charged),
        ("window_denied", |row| &row.window_denied),
        ("window_refunded", |row| &row.window_refunded),
        ("lease_acquired", |row| &row.lease_acquired),
        ("lease_released", |row| &row.lease_released),
        ("lease_denied", |row| &row.lease_denied),
        ("lease_reaped", |row| &row.lease_reaped),
        ("lease_expired", |row| &row.lease_expired),
        ("table_full", |row| &row.table_full),
        ("contended", |row| &row.contended),
        ("corrected", |row| &row.corrected),
        ("fallbacks", |row| &row.fallbacks),
        ("registrations", |row| &row.registrations),
        ("workers_reaped", |row| &row.workers_reaped),
        ("admitted", |row| &row.admitted),
        ("refused", |row| &row.refused),
        ("refunds_dropped", |row| &row.refunds_dropped),
        ("overflow_denied", |row| &row.overflow_denied),
        ("overflow_shared", |row| &row.overflow_shared),
        ("overflow_local", |row| &row.overflow_local),
        ("keys_reclaimed", |row| &row.keys_reclaimed),
        ("chunks_reclaimed", |row| &row.chunks_reclaimed),
        ("misplaced", |row| &row.misplaced),
        ("events", |row| &row.events),
        ("cooldowns", |row| &row.cooldowns),
        ("uncounted", |row| &row.uncounted),
    ]
}

pub(super) fn stats(region: &Region) -> BTreeMap<&'static str, u64> {
    let sum = |counter: crate::engine::Counter| {
        region.stats().iter().fold(0_u64, |sum, row| sum.wrapping_add(get(counter(row))))
    };
    counters().into_iter().map(|(name, counter)| (name, sum(counter))).collect()
}
