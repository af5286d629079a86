//! Measured durations.

use super::SeriesReport;
use crate::engine::measure;
use crate::region::Region;
use crate::tables::histograms::Snapshot;

pub(super) fn series(region: &Region) -> Vec<SeriesReport> {
    let report = |(series, all): (String, Snapshot)| SeriesReport {
        series,
        count: all.count,
        errors: all.errors,
        mean_ns: all.mean_ns().unwrap_or(0),
        p50_ns: all.quantile_ns(0.5).unwrap_or(0),
        p99_ns: all.quantile_ns(0.99).unwrap_or(0),
        max_ns: all.max_ns,
        input_bytes: all.input_bytes,
        output_bytes: all.output_bytes,
    };
    measure::all_measured(region).into_iter().map(report).collect()
}
