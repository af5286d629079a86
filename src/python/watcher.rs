//! `Watcher`: looks at a region again and again.

use super::errors::RegionError;
use super::region::Region;
use crate::engine::Engine;
use crate::inspect::live;
use pyo3::prelude::*;
use std::sync::Arc;

/// Looks at a region again and again, and tells what has changed since the look before.
#[pyclass(module = "fast_litellm")]
pub(super) struct Watcher {
    engine: Arc<Engine>,
    watcher: live::Watcher,
}

#[pymethods]
impl Watcher {
    #[new]
    fn new(region: &Bound<'_, Region>) -> Self {
        Self { engine: region.get().engine(), watcher: live::Watcher::default() }
    }

    /// What is going on, with at most so many of the hottest keys, as a JSON text.
    ///
    /// The GIL is kept, so that no other thread looks or forks meanwhile: there is no lock that a child could inherit
    /// held.
    fn look(&mut self, hottest: usize) -> PyResult<String> {
        let frame = self.watcher.look(self.engine.region(), hottest);
        serde_json::to_string(&frame).map_err(|error| RegionError::new_err(error.to_string()))
    }
}
