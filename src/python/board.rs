//! `Board`: values that one process publishes and all read.

use super::convert::key_text;
use super::region::Region;
use crate::engine::Engine;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Arc;

/// The notices of a region, by name.
#[pyclass(frozen, module = "fast_litellm._rust")]
pub(super) struct Board {
    engine: Arc<Engine>,
}

#[pymethods]
impl Board {
    #[new]
    fn new(region: &Bound<'_, Region>) -> Self {
        Self { engine: region.get().engine() }
    }

    /// Replaces a notice, for so many seconds.
    fn publish(&self, name: &Bound<'_, PyAny>, value: &[u8], ttl_s: u64) -> PyResult<()> {
        Ok(self.engine.publish(&key_text(name)?, value, ttl_s)?)
    }

    /// What was published last; None = nothing, or its time is over.
    fn read<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'_, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        Ok(self.engine.notice(&key_text(name)?).map(|value| PyBytes::new(py, &value)))
    }
}
