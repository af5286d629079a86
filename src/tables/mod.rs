//! Keys, names, leases and workers: each a set of operations over slices of records.

#[cfg(not(loom))]
pub mod index;
#[cfg(not(loom))]
pub mod leases;
#[cfg(not(loom))]
pub mod names;
#[cfg(not(loom))]
pub mod slot_cache;
pub mod workers;
