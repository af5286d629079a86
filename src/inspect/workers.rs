//! Registered processes.

use super::{WorkerReport, get};
use crate::layout::{ClaimWord, OwnerTag, WorkerRow};
use crate::liveness::Liveness;
use crate::region::{Moment, Region, Vantage};
use crate::sync::Bits;
use crate::tables::workers;
use std::collections::BTreeMap;

pub(super) type Prove<'a> = dyn Fn(&WorkerRow, ClaimWord) -> Liveness + 'a;

/// Who of a region's processes lives; in a dump, who lived.
pub(super) fn prover(region: &Region) -> Box<Prove<'_>> {
    match region.moment() {
        Some(moment) => Box::new(|_, claim: ClaimWord| moment.liveness(claim.bits())),
        None => Box::new(workers::prover(Vantage::of(region.header()))),
    }
}

/// What a dump that is made now must say beside the region's bytes.
pub fn moment(region: &Region, name: &str) -> Moment {
    let prove = prover(region);
    let rows = region.workers().iter().map(|row| (row, get(&row.claim)));
    let used = rows.filter(|(_, claim)| claim.pid() > 0);
    let processes = used.map(|(row, claim)| (claim.bits(), prove(row, claim))).collect();
    Moment::now(region, name, processes)
}

pub(super) fn liveness_name(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Dead => "dead",
        Liveness::Unknown => "unknown",
    }
}

pub(super) fn owner_of(
    region: &Region,
    raw: u64,
    prove: &Prove<'_>,
) -> (u32, Option<i32>, &'static str) {
    let Some(owner) = OwnerTag::from_raw(raw) else {
        return (0, None, "dead");
    };
    if workers::is_gone(region.workers(), owner) {
        return (owner.row(), None, "dead");
    }
    let row = &region.workers()[owner.row() as usize];
    let claim = get(&row.claim);
    let liveness = prove(row, claim);
    (owner.row(), i32::try_from(claim.pid()).ok(), liveness_name(liveness))
}

pub(super) fn worker_reports(
    region: &Region,
    prove: &Prove<'_>,
    held: &BTreeMap<u64, u64>,
) -> Vec<WorkerReport> {
    let now_s = region.now().s();
    let creator = get(&region.header().creator_pid);
    let report = |worker: workers::Worker| {
        let decisions = region.stats().get(worker.row).map_or(0, |row| {
            [&row.window_charged, &row.window_denied, &row.lease_acquired, &row.lease_denied]
                .iter()
                .fold(0, |sum: u64, word| sum.wrapping_add(get(word)))
        });
        WorkerReport {
            row: worker.row,
            generation: worker.owner.generation(),
            pid: worker.pid,
            role: if creator == u64::from(worker.pid.unsigned_abs()) {
                "creator"
            } else {
                "worker"
            },
            alive: liveness_name(worker.liveness),
            age_s: now_s.saturating_sub(worker.registered_s),
            leases: held.get(&worker.owner.raw()).copied().unwrap_or(0),
            decisions,
            decisions_per_s: None,
        }
    };
    workers::list(region.workers(), prove).into_iter().map(report).collect()
}
