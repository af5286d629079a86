//! The region itself.

use super::{HeaderReport, get, key_of};
use crate::layout::section;
use crate::region::{BackingKind, Region, host};

pub(super) fn header(region: &Region) -> HeaderReport {
    let header = region.header();
    let version = get(&header.version);
    let used = |count: usize| count as u64;
    let created = get(&header.wall_base_s).saturating_add(1);
    HeaderReport {
        layout: format!("{}.{}", version >> 32, version & u64::from(u32::MAX)),
        backing: BackingKind::from_raw(get(&header.backing)).map_or("unknown", BackingKind::name),
        size: region.len(),
        creator_pid: get(&header.creator_pid),
        created_at: created,
        age_s: region.now().s().saturating_sub(1),
        epoch: get(&header.epoch),
        key_capacity: region.sections().capacity().keys,
        keys: used(
            region
                .written(section::BUCKETS, region.buckets())
                .filter(|(_, bucket)| key_of(&bucket.identity).is_some())
                .count(),
        ),
        chunk_capacity: region.sections().capacity().lease_chunks,
        chunks: used(
            region
                .written(section::LEASES, region.chunks())
                .filter(|(_, chunk)| key_of(&chunk.identity).is_some())
                .count(),
        ),
        worker_capacity: region.sections().capacity().workers,
        same_pid_namespace: region.moment().is_some()
            || get(&header.pid_namespace) == host::namespace("pid"),
        dumped_at: region.moment().map(|moment| moment.taken_ms / 1_000),
    }
}
