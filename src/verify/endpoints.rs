//! Connection pools and endpoints: whose they are, counters that count.

use super::identities::{Standing, judge};
use super::{Walk, first_nonzero, get, leases, names};
use crate::layout::{KeyKind, section};
use crate::sync::Bits;
use crate::tables::names::Place;

impl Walk<'_> {
    pub(super) fn endpoints(&mut self) {
        let region = self.region;
        self.each(section::ENDPOINTS, region.endpoints(), |_, record, now, notes| {
            let identity = get(&record.identity);
            let (limits, pool) = (get(&record.lease), get(&record.pool));
            let (breaker, head) = (get(&record.breaker), get(&record.name_head));
            let failure = get(&record.last_failure);
            let counters = [
                ("failures_total", get(&record.failures_total)),
                ("created", get(&record.created)),
                ("refused", get(&record.refused)),
                ("expired", get(&record.expired)),
                ("reused", get(&record.reused)),
                ("taken_over", get(&record.taken_over)),
                ("stale_returns", get(&record.stale_returns)),
            ];
            if get(&record.identity) != identity {
                return;
            }
            notes.zeroes("reserved", &record.reserved);
            match judge(identity, &[KeyKind::Named], notes) {
                Standing::Nobody => {}
                Standing::Never => {
                    let words =
                        [limits.bits(), pool.bits(), breaker.bits(), failure.bits(), head.bits()];
                    let words = words.into_iter().chain(counters.map(|(_, count)| count));
                    if let Some(found) = first_nonzero(words) {
                        notes.damage("identity", found, "all zeroes: never used; a pool was lost");
                    }
                }
                Standing::Key(_) => {
                    let name = Place { head: &record.name_head, bytes: &record.name };
                    names::examine("name", name, notes);
                    leases::limits(region, limits, notes);
                    if pool.bits() != 0 && crate::tables::index::key_of(pool) != Some(pool) {
                        notes.harmless("pool", pool, "the identity of a pool");
                    }
                    if breaker.last_s() > now().s() {
                        notes.harmless("breaker", breaker, "a second of the past");
                    }
                    for (field, count) in counters {
                        notes.plausible(field, count);
                    }
                }
            }
        });
    }
}
