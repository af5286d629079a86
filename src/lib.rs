//! Shared state for preforked workers: one region of lock-free 64-bit words.
//!
//! A process creates the [`region`], its children inherit it, and every limit, lease and statistic in
//! it is one atomic word that is meaningful at every instant. There is no lock to be left behind by a
//! `kill -9` and nothing to be rolled back after one. `shm_layout.md` is the specification.
//!
//! Read in this order: [`layout`] (what the bytes are), [`region`] (where they live and who may use
//! them), `primitives` (one word, one rule), [`tables`] (keys, leases, workers), [`engine`] (the
//! operations), [`inspect`] (reading without touching), [`verify`] (whether what is read can
//! have been written).

#![cfg_attr(loom, allow(dead_code, reason = "model builds compile only what the models use"))]

pub mod layout;
pub mod liveness;
pub mod primitives;
pub mod sync;
pub mod tables;

#[cfg(not(loom))]
pub mod clock;
#[cfg(not(loom))]
pub mod config;
#[cfg(not(loom))]
pub mod engine;
#[cfg(not(loom))]
pub mod error;
#[cfg(not(loom))]
pub mod inspect;
#[cfg(not(loom))]
pub mod region;
#[cfg(not(loom))]
pub mod verify;

#[cfg(all(feature = "cli", not(loom)))]
pub mod cli;

#[cfg(all(feature = "tokens", not(loom)))]
pub mod tokens;

#[cfg(all(feature = "python", not(loom)))]
mod python;

#[cfg(all(test, loom))]
mod tests;
