//! Keys, names, leases, workers, events and measurements: each a set of operations over slices of
//! records.

pub mod events;

#[cfg(not(loom))]
pub mod histograms;
#[cfg(not(loom))]
pub mod index;
#[cfg(not(loom))]
pub mod leases;
#[cfg(not(loom))]
pub mod names;
#[cfg(not(loom))]
pub mod slot_cache;
#[cfg(not(loom))]
pub mod workers;
