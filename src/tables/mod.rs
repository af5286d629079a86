//! Keys, names, leases and workers: each a set of operations over slices of records.

pub mod index;
pub mod leases;
pub mod names;
pub mod slot_cache;
pub mod workers;
