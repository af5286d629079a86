//! The extension module `fast_litellm._rust`: converts, calls the core, maps errors. No logic here.

#![allow(clippy::doc_markdown, reason = "docstrings are Python's, not rustdoc")]
#![allow(clippy::needless_pass_by_value, reason = "extracted arguments are owned")]

mod board;
mod cli;
mod convert;
mod deployment;
mod deployments;
mod encodings;
mod errors;
mod leader;
mod limiter;
mod monitor;
mod place_cache;
mod pool;
mod region;
mod router;
mod scripts;
mod tokens;
mod watcher;

use pyo3::prelude::*;

/// Native part of fast_litellm.
#[pymodule(gil_used = false)]
mod _rust {
    #[pymodule_export]
    use super::board::Board;
    #[pymodule_export]
    use super::cli::cli_main;
    #[pymodule_export]
    use super::deployments::{Deployments, Flight};
    #[pymodule_export]
    use super::encodings::CoreBPE;
    #[pymodule_export]
    use super::errors::{OutOfRangeError, RegionError, UnavailableError};
    /// What a panic becomes. It is no `Exception`, so whoever must go on has to name it.
    #[pymodule_export]
    use pyo3::panic::PanicException;

    #[pymodule_export]
    use super::leader::Leader;
    #[pymodule_export]
    use super::limiter::{SimpleRateLimiter, noop};
    #[pymodule_export]
    use super::monitor::{Monitor, set_sampling};
    #[pymodule_export]
    use super::pool::SimpleConnectionPool;
    #[pymodule_export]
    use super::region::{Region, default_region, set_default_region};
    #[pymodule_export]
    use super::router::{AdvancedRouter, Call};

    #[pymodule_export]
    use super::scripts::LimiterScripts;
    #[pymodule_export]
    use super::tokens::TokenCounter;
    #[pymodule_export]
    use super::watcher::Watcher;

    /// Version of the extension; equals the package's.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
