//! Keys, buckets, names, leases and workers: each a set of operations over slices of records.

pub mod buckets;
pub mod index;
pub mod leases;
pub mod names;
#[cfg(not(loom))]
pub mod slot_cache;
#[cfg(not(loom))]
pub mod workers;
