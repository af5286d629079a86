//! Who leads which job.

use super::workers::{Prove, owner_of};
use super::{LeaderReport, get, key_of};
use crate::engine::leader;
use crate::layout::{OwnerTag, section};
use crate::region::Region;
use crate::tables::leases::Leases;
use crate::tables::{index, names};

pub(super) fn leaders(region: &Region, prove: &Prove<'_>) -> Vec<LeaderReport> {
    let written = region.written(section::JOBS, region.jobs());
    written.filter_map(|(slot, _)| leader(region, slot, prove)).collect()
}

/// Who leads the job in one record; `None` = nobody, or there is no job.
pub(super) fn leader(region: &Region, slot: usize, prove: &Prove<'_>) -> Option<LeaderReport> {
    let record = region.jobs().get(slot)?;
    let key = key_of(&record.identity)?;
    let (limits, key_slot) = (&record.lease, leader::key_slot(slot));
    let leases = Leases { chunks: region.chunks(), key, key_slot, limits, nonce: index::nonce };
    let holder = leases.first_held()?.word;
    let (row, pid, owner) = owner_of(region, holder.owner(), prove);
    let tag = OwnerTag::from_raw(holder.owner())?;
    let found = leader::leader_of(record, tag, pid.unwrap_or(0), holder, region.now().s());
    let leader::Leader { term, held_s, renewed_s, .. } = found;
    Some(LeaderReport { job: job_name(record), row, pid, owner, term, held_s, renewed_s })
}

pub(super) fn job_name(record: &crate::layout::Job) -> String {
    let place = names::Place { head: &record.name_head, bytes: &record.name };
    names::read(place).unwrap_or_else(|| format!("#{:013x}", get(&record.identity).hash()))
}
