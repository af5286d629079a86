//! What is measured, one file each.

pub(crate) mod admission;
pub(crate) mod hot;
pub(crate) mod instructions;
pub(crate) mod keys;
pub(crate) mod memory;
pub(crate) mod processes;
