//! `Watcher`: looks at a region again and again.

use super::errors::RegionError;
use super::region::Region;
use crate::engine::Engine;
use crate::inspect::live;
use pyo3::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};

/// Looks at a region again and again, and tells what has changed since the look before.
#[pyclass(frozen, module = "fast_litellm")]
pub(super) struct Watcher {
    engine: Arc<Engine>,
    watcher: Mutex<live::Watcher>,
}

#[pymethods]
impl Watcher {
    #[new]
    fn new(region: &Bound<'_, Region>) -> Self {
        Self { engine: region.get().engine(), watcher: Mutex::default() }
    }

    /// What is going on, with at most so many of the hottest keys, as a JSON text.
    fn look(&self, py: Python<'_>, hottest: usize) -> PyResult<String> {
        py.detach(|| {
            // Whatever a panic left of it is only compared with.
            let mut watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner);
            let frame = watcher.look(self.engine.region(), hottest);
            serde_json::to_string(&frame).map_err(|error| RegionError::new_err(error.to_string()))
        })
    }
}
