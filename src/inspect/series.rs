//! Measured durations.

use super::{SeriesReport, key_of};
use crate::region::Region;
use crate::tables::histograms::Histograms;
use crate::tables::names;

pub(super) fn series(region: &Region) -> Vec<SeriesReport> {
    let histograms = Histograms { series: region.series(), rows: region.histograms() };
    let report = |(slot, record): (usize, &crate::layout::Series)| {
        key_of(&record.identity)?;
        let all = histograms.snapshot(slot)?;
        let place = names::Place { head: &record.name_head, bytes: &record.name };
        Some(SeriesReport {
            series: names::read(place).unwrap_or_else(|| format!("#{slot}")),
            count: all.count,
            errors: all.errors,
            mean_ns: all.mean_ns().unwrap_or(0),
            p50_ns: all.quantile_ns(0.5).unwrap_or(0),
            p99_ns: all.quantile_ns(0.99).unwrap_or(0),
            max_ns: all.max_ns,
            input_bytes: all.input_bytes,
            output_bytes: all.output_bytes,
        })
    };
    region.series().iter().enumerate().filter_map(report).collect()
}
