//! Where each section starts, computed from the capacities alone. Nothing read from a region is used
//! as an offset: a region whose section table says anything else is refused.

use super::mapping::Span;
use crate::config::Capacity;
use crate::layout::{
    Bucket, Deployment, Endpoint, Event, Feature, HEADER_LEN, Histogram, Job, LeaseChunk, Name,
    Notice, SectionRow, Series, Sheet, StatsRow, WorkerRow, section,
};

use crate::tables::histograms::STRIPES;

const PAGE: u64 = 4096;
const FEATURE_CAPACITY: u64 = 16;
const JOB_CAPACITY: u64 = 16;
const ENDPOINT_CAPACITY: u64 = if cfg!(miri) { 64 } else { 512 };
const NOTICE_CAPACITY: u64 = if cfg!(miri) { 8 } else { 16 };
// Less where an interpreter would take minutes to look at all of them.
const SERIES_CAPACITY: u64 = if cfg!(miri) { 8 } else { 64 };
const EVENT_CAPACITY: u64 = if cfg!(miri) { 64 } else { 4096 };
/// Buckets at the end of their section that keys without room share.
pub(crate) const SHARED_BUCKETS: usize = 64;
const SECTIONS: usize = 14;

/// One section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section {
    /// Section number.
    pub id: u64,
    /// Bytes of one record.
    pub stride: u64,
    /// Place.
    pub span: Span,
}

/// All sections of a region of some capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sections {
    capacity: Capacity,
    list: [Section; SECTIONS],
    total_len: u64,
}

impl Sections {
    /// Places every section, each on a page of its own.
    pub fn of(capacity: Capacity) -> Self {
        let buckets = capacity.buckets() + SHARED_BUCKETS as u64;
        let rows: [(u64, usize, u64); SECTIONS] = [
            (section::WORKERS, size_of::<WorkerRow>(), capacity.workers),
            (section::STATS, size_of::<StatsRow>(), capacity.workers),
            (section::FEATURES, size_of::<Feature>(), FEATURE_CAPACITY),
            (section::BUCKETS, size_of::<Bucket>(), buckets),
            (section::LEASES, size_of::<LeaseChunk>(), capacity.lease_chunks),
            (section::NAMES, size_of::<Name>(), buckets),
            (section::DEPLOYMENTS, size_of::<Deployment>(), capacity.deployments),
            (section::SERIES, size_of::<Series>(), SERIES_CAPACITY),
            (section::HISTOGRAMS, size_of::<Histogram>(), SERIES_CAPACITY * STRIPES as u64),
            (section::EVENTS, size_of::<Event>(), EVENT_CAPACITY),
            (section::JOBS, size_of::<Job>(), JOB_CAPACITY),
            (section::BOARD, size_of::<Notice>(), NOTICE_CAPACITY),
            (section::SHEETS, size_of::<Sheet>(), 2 * NOTICE_CAPACITY),
            (section::ENDPOINTS, size_of::<Endpoint>(), ENDPOINT_CAPACITY),
        ];
        let mut offset = PAGE;
        let list = rows.map(|(id, stride, count)| {
            let stride = stride as u64;
            let placed = Section { id, stride, span: Span { offset, count } };
            offset += (stride * count).next_multiple_of(PAGE);
            placed
        });
        Self { capacity, list, total_len: offset }
    }

    /// The capacities.
    pub fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Bytes of the whole region.
    pub fn total_len(&self) -> u64 {
        self.total_len
    }

    /// All sections in order.
    pub fn iter(&self) -> impl Iterator<Item = &Section> {
        self.list.iter()
    }

    /// Place of a section; empty for a number that does not exist.
    #[inline]
    pub(crate) fn at(&self, id: u64) -> Span {
        let index = usize::try_from(id.wrapping_sub(1)).unwrap_or(usize::MAX);
        self.list.get(index).map_or(Span { offset: 0, count: 0 }, |section| section.span)
    }

    /// Place of the section table.
    pub(crate) fn table(&self) -> Span {
        Span { offset: HEADER_LEN, count: self.list.len() as u64 }
    }
}

const _: () = assert!(
    HEADER_LEN + (SECTIONS * size_of::<SectionRow>()) as u64 <= PAGE,
    "the section table must fit into the first page"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_in_order_and_do_not_overlap() {
        let sections = Sections::of(Capacity::default());
        let mut end = PAGE;
        for (position, section) in sections.iter().enumerate() {
            assert_eq!(section.id, position as u64 + 1);
            assert!(section.span.offset >= end);
            end = section.span.offset + section.stride * section.span.count;
            assert_eq!(sections.at(section.id), section.span);
        }
        assert!(sections.total_len() >= end);
        assert!(sections.total_len() < 28 << 20, "the default is about 25 MiB");
        assert_eq!(sections.at(0).count, 0);
        assert_eq!(sections.at(99).count, 0);
    }
}
