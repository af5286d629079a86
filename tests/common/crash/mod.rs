//! Processes that are stopped or killed inside an operation, and what must hold afterwards.

mod checks;
pub(crate) mod created;
pub(crate) mod harness;
pub(crate) mod killed;
pub(crate) mod kills;
pub(crate) mod operations;
mod process;
pub(crate) mod resumed;
mod stage;
mod tracee;
mod victim;
