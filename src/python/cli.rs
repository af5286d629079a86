//! `fl-shm` as a console script.

use pyo3::prelude::*;
use std::ffi::OsString;

/// Runs `fl-shm` with these arguments (the program's name first); returns its exit code.
#[pyfunction]
pub(super) fn cli_main(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| crate::cli::run(arguments))
}
