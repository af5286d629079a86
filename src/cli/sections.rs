//! A report's sections as lists of records, whatever the records are.

use super::columns::Columns;
use super::rows::Rows;
use crate::inspect::{Report, Section};
use schemars::JsonSchema;
use serde::Serialize;

/// Records of one kind.
pub(super) trait Records {
    /// What they are columns of.
    fn columns(&self) -> Columns;
    fn len(&self) -> usize;
    /// Reads one into rows; returns how many it has.
    fn read(&self, number: usize, rows: &mut Rows<'_>) -> usize;
    /// Writes one as JSON.
    fn write(&self, number: usize, out: &mut Vec<u8>) -> serde_json::Result<()>;
}

impl<T: Serialize + JsonSchema, L: AsRef<[T]>> Records for List<T, L> {
    fn columns(&self) -> Columns {
        Columns::of::<T>()
    }

    fn len(&self) -> usize {
        self.0.as_ref().len()
    }

    fn read(&self, number: usize, rows: &mut Rows<'_>) -> usize {
        self.0.as_ref().get(number).map_or(0, |record| rows.read(record))
    }

    fn write(&self, number: usize, out: &mut Vec<u8>) -> serde_json::Result<()> {
        self.0.as_ref().get(number).map_or(Ok(()), |record| serde_json::to_writer(out, record))
    }
}

/// Records, borrowed or not.
pub(super) struct List<T, L: AsRef<[T]>>(L, std::marker::PhantomData<T>);

impl<T, L: AsRef<[T]>> List<T, L> {
    pub(super) fn new(records: L) -> Self {
        Self(records, std::marker::PhantomData)
    }
}

fn borrowed<T: Serialize + JsonSchema>(records: &[T]) -> Box<dyn Records + '_> {
    Box::new(List::new(records))
}

/// How a section is written in a report's JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A list of records.
    Many,
    /// One record.
    One,
    /// Totals by name.
    Totals,
}

impl Section {
    pub(super) fn shape(self) -> Shape {
        match self {
            Self::Header => Shape::One,
            Self::Stats => Shape::Totals,
            _ => Shape::Many,
        }
    }

    /// Its records in a report.
    pub(super) fn records(self, report: &Report) -> Box<dyn Records + '_> {
        match self {
            Self::Header => borrowed(std::slice::from_ref(&report.header)),
            Self::Workers => borrowed(&report.workers),
            Self::Limits => borrowed(&report.limits),
            Self::Leases => borrowed(&report.leases),
            Self::Leaders => borrowed(&report.leaders),
            Self::Deployments => borrowed(&report.deployments),
            Self::Pools => borrowed(&report.pools),
            Self::Breakers => borrowed(&report.features),
            Self::Notices => borrowed(&report.notices),
            Self::Events => borrowed(&report.events),
            Self::Stats => Box::new(List::new(report.stat_reports())),
            Self::Series => borrowed(&report.series),
        }
    }
}
