//! `Monitor`: measurements of named series, over all workers.

use super::errors::RegionError;
use super::region::Region;
use crate::engine::Engine;
use crate::engine::measure::SeriesId;
use crate::engine::sampling;
use crate::inspect::overview::Overview;
use crate::tables::histograms::Snapshot;
use pyo3::prelude::*;
use std::sync::Arc;

/// One series: name, errors, sum and maximum in nanoseconds, bytes in and out, and values by bucket.
type Measured = (String, u64, u64, u64, u64, u64, Vec<u64>);

/// The measurements of a region.
#[pyclass(frozen, module = "fast_litellm")]
pub(super) struct Monitor {
    engine: Arc<Engine>,
}

#[pymethods]
impl Monitor {
    #[new]
    fn new(region: &Bound<'_, Region>) -> Self {
        Self { engine: region.get().engine() }
    }

    /// Number of the series of that name, made if there is none; None = there is no room for another, which is
    /// counted.
    fn series(&self, name: &str) -> Option<usize> {
        self.engine.series(name).ok().map(SeriesId::number)
    }

    /// Adds a duration to a series.
    #[pyo3(signature = (series, ns, failed = false, input_bytes = 0, output_bytes = 0))]
    fn record(&self, series: usize, ns: u64, failed: bool, input_bytes: u64, output_bytes: u64) {
        let Some(series) = self.engine.series_at(series) else { return };
        self.engine.measure(series, ns);
        if failed {
            self.engine.measure_failure(series);
        }
        self.engine.measure_bytes(series, input_bytes, output_bytes);
    }

    /// Whether the caller's operation is to be timed; see `set_sampling`.
    #[staticmethod]
    fn due() -> bool {
        sampling::is_due()
    }

    /// All series, over all workers.
    fn snapshot(&self, py: Python<'_>) -> Vec<Measured> {
        let measured = |(name, all): (String, Snapshot)| {
            let counts = all.counts.to_vec();
            let (input, output) = (all.input_bytes, all.output_bytes);
            (name, all.errors, all.sum_ns, all.max_ns, input, output, counts)
        };
        py.detach(|| self.engine.all_measured()).into_iter().map(measured).collect()
    }

    /// What `fl-shm inspect --json` says of anything but keys and series, as a JSON text.
    fn overview(&self, py: Python<'_>) -> PyResult<String> {
        py.detach(|| {
            let overview = Overview::of(self.engine.region());
            serde_json::to_string(&overview)
                .map_err(|error| RegionError::new_err(error.to_string()))
        })
    }
}

/// Times one in `one_in` operations of this process and of children that it forks from now on; 0 = none.
#[pyfunction]
pub(super) fn set_sampling(one_in: u32) {
    sampling::set_sampling(one_in);
}
