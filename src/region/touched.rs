//! Which parts of a region have ever been written, as far as the kernel tells.
//!
//! A page of shared memory that was never written costs nothing until it is looked at: reading it through
//! a mapping allocates it. Whoever walks a whole region asks here first. What the kernel does not list is
//! all zeroes, which means unused everywhere.

use super::Region;
use super::mapping::Span;
use std::fs::File;
use std::ops::Range;

/// The written parts. What is written after they were listed may be missing.
pub(crate) struct Touched {
    /// Bytes in rising order; `None` = it cannot be told, all of it may be.
    ranges: Option<Vec<Range<u64>>>,
}

impl Region {
    /// The records of a section that were ever written, with their numbers; perhaps some around them. Looking at
    /// others would take memory for them.
    pub(crate) fn written<'a, T>(
        &self,
        id: u64,
        records: &'a [T],
    ) -> impl Iterator<Item = (usize, &'a T)> + use<'a, T> {
        let (span, stride) = (self.sections.at(id), size_of::<T>() as u64);
        let bytes = span.offset..span.offset + span.count * stride;
        let file = self.backing().file.as_ref();
        let touched = Touched { ranges: file.and_then(|file| written(file, bytes)) };
        let numbers = touched.records(span, stride);
        numbers.filter_map(|number| Some((number, records.get(number)?)))
    }
}

impl Touched {
    /// Asks the kernel. Without a file (memory of this process and its children only) it cannot be told.
    pub(crate) fn of(region: &Region) -> Self {
        let file = region.backing().file.as_ref();
        Self { ranges: file.and_then(|file| written(file, 0..region.len())) }
    }

    /// Numbers of the records of a section that overlap what was written, in order.
    pub(crate) fn records(&self, span: Span, stride: u64) -> impl Iterator<Item = usize> + use<> {
        let all = 0..u64::MAX;
        let ranges = self.ranges.as_deref().unwrap_or(std::slice::from_ref(&all)).to_vec();
        let mut next = 0;
        ranges
            .into_iter()
            .flat_map(move |range| {
                let first = range.start.saturating_sub(span.offset).checked_div(stride);
                let end = range.end.saturating_sub(span.offset).div_ceil(stride.max(1));
                let part = first.unwrap_or(0).max(next)..end.min(span.count);
                next = next.max(part.end);
                part
            })
            .filter_map(|number| usize::try_from(number).ok())
    }
}

#[cfg(target_os = "linux")]
fn written(file: &File, bytes: Range<u64>) -> Option<Vec<Range<u64>>> {
    use nix::errno::Errno;
    use nix::unistd::{Whence, lseek};
    // Of other file systems it is not certain that they count what was written through a mapping.
    if !super::backing::is_memory_file_system(file).ok()? {
        return None;
    }
    let seek =
        |from: u64, whence| lseek(file, i64::try_from(from).map_err(|_| Errno::EINVAL)?, whence);
    let mut ranges = Vec::new();
    let mut end = bytes.start;
    while end < bytes.end {
        let start = match seek(end, Whence::SeekData) {
            Ok(start) => u64::try_from(start).ok()?,
            Err(Errno::ENXIO) => break,
            Err(_) => return None,
        };
        end = u64::try_from(seek(start, Whence::SeekHole).ok()?).ok()?;
        if end <= start {
            return None;
        }
        ranges.push(start.min(bytes.end)..end.min(bytes.end));
    }
    Some(ranges)
}

#[cfg(not(target_os = "linux"))]
fn written(_file: &File, _bytes: Range<u64>) -> Option<Vec<Range<u64>>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FakeClock;
    use crate::config::Capacity;
    use crate::region::{Placement, create};
    use crate::sync::Ordering;

    fn region() -> Region {
        let capacity = Capacity::checked(100_000, 64, 4).unwrap();
        let clock = Box::new(FakeClock::at(9_000_000_000));
        create(&Placement::inherited("touched"), capacity, clock).unwrap()
    }

    fn blocks(region: &Region) -> u64 {
        use std::os::unix::fs::MetadataExt;
        region.backing().file.as_ref().unwrap().metadata().unwrap().blocks()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_was_written_is_listed_and_nothing_else_is_touched() {
        let region = region();
        let span = region.sections().at(crate::layout::section::BUCKETS);
        assert_eq!(Touched::of(&region).records(span, 64).count(), 0);
        let before = blocks(&region);
        region.buckets()[70_000].allowed.store(1, Ordering::Relaxed);
        let after = blocks(&region);
        assert!(after > before);
        let listed: Vec<usize> = Touched::of(&region).records(span, 64).collect();
        assert!(listed.contains(&70_000) && listed.len() == 64, "{}", listed.len());
        assert!(listed.is_sorted());
        assert_eq!(blocks(&region), after);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn looking_takes_no_memory() {
        use crate::engine::Engine;
        use crate::inspect::{Report, live, overview, search};
        let engine = Engine::new(region());
        let region = engine.region();
        engine.hit_all(&[("{user:u}:window", "{user:u}:requests")], 60).unwrap();
        let before = blocks(region);
        assert_eq!(Report::of(region).limits.len(), 1);
        assert_eq!(overview::Overview::of(region).workers.len(), 1);
        assert_eq!(live::Watcher::default().look(region, 10).hottest.len(), 1);
        assert_eq!(search::all(region).count(), 1);
        engine.limiter_totals(None);
        assert_eq!(engine.reset_all(), Ok(1));
        let after = blocks(region);
        // Rows of small tables that are read whole.
        assert!(after - before < 1_024, "{before} blocks, then {after}");
    }

    #[test]
    fn records_that_overlap_two_parts_are_listed_once() {
        let touched = Touched { ranges: Some(vec![0..4096, 4096..8192, 20_000..20_001]) };
        let span = Span { offset: 4000, count: 100 };
        let listed: Vec<usize> = touched.records(span, 1_000).collect();
        assert_eq!(listed, [0, 1, 2, 3, 4, 16]);
        let all = Touched { ranges: None };
        assert_eq!(all.records(span, 1_000).count(), 100);
    }
}
