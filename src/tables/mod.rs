//! Keys, buckets, names, causes, notices, leases, connections, workers, events and measurements: each a set of
//! operations over slices of records.

pub mod board;
pub mod buckets;
pub mod causes;
pub mod connections;
pub mod events;
pub mod index;
pub mod leases;
pub mod names;
pub mod workers;

#[cfg(not(loom))]
pub mod histograms;
#[cfg(not(loom))]
pub mod slot_cache;
