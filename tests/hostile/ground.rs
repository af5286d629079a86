//! A region whose bytes lie open: the operations use it through its mapping, and a test writes what it
//! likes through the file behind it.

use super::steps;
use fast_litellm::clock::FakeClock;
use fast_litellm::config::Capacity;
use fast_litellm::engine::Engine;
use fast_litellm::layout::section;
use fast_litellm::region::{Placement, Region, attach_open, create};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes before the first section.
pub const HEAD: u64 = 4_096;
/// Bytes of a word.
pub const WORD: u64 = 8;
/// Fields of the header that are drawn by lot or by the wall clock, and what is put there instead.
const FIXED: [(&str, u64); 4] = [
    ("clock_base_ns", START_NS - 2_000_000_000),
    ("wall_base_s", 1_700_000_000),
    ("seed_high", 0x1234_5678_9abc_def0),
    ("seed_low", 42),
];

/// What the clock says at first.
const START_NS: u64 = 1_000_000_000_000;

/// One region with its file and its clock.
pub struct Ground {
    pub clock: FakeClock,
    pub engine: Engine,
    file: File,
}

/// The smallest region there is.
pub fn smallest() -> Capacity {
    Capacity::checked(1_000, 64, 8).and_then(|size| size.with_deployments(64)).expect("valid")
}

impl Ground {
    /// A fresh region, the same every time but for the process's own identity.
    pub fn new() -> Self {
        Self::of(smallest())
    }

    /// The same of another size.
    pub fn of(capacity: Capacity) -> Self {
        let clock = FakeClock::at(START_NS);
        let file = fresh_file(capacity, &clock);
        let region = attach_open(file.try_clone().expect("open"), Box::new(clock.clone()));
        let engine = Engine::new(region.expect("nothing is wrong with it"));
        Self { clock, engine, file }
    }

    /// The same region again, for a process that comes later.
    pub fn attach(&self) -> Result<Region, fast_litellm::error::AttachError> {
        let file = self.file.try_clone().expect("open");
        let attach = || attach_open(file, Box::new(self.clock.clone()));
        steps::within(steps::look(self.len()), attach)
    }

    pub fn region(&self) -> &Region {
        self.engine.region()
    }

    pub fn len(&self) -> u64 {
        self.region().len()
    }

    pub fn word(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, offset).expect("inside");
        u64::from_le_bytes(bytes)
    }

    pub fn put(&self, offset: u64, value: u64) {
        put(&self.file, offset, value);
    }

    pub fn read(&self, offset: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(len).expect("small")];
        self.file.read_exact_at(&mut bytes, offset).expect("inside");
        bytes
    }

    pub fn put_bytes(&self, offset: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, offset).expect("inside");
    }

    /// Offset, record size and number of records of a section.
    pub fn section(&self, id: u64) -> (u64, u64, u64) {
        let section = self.region().sections().iter().find(|section| section.id == id);
        let section = section.expect("a section");
        (section.span.offset, section.stride, section.span.count)
    }

    /// Offset of a record.
    pub fn at(&self, id: u64, record: usize) -> u64 {
        let (offset, stride, _) = self.section(id);
        offset + stride * record as u64
    }

    /// Offset of a field of a record.
    pub fn field(&self, id: u64, record: usize, field: &str) -> u64 {
        self.at(id, record) + offset_of(RECORDS[usize::try_from(id).expect("small") - 1], field)
    }
}

/// The file of a fresh region.
pub fn fresh_file(capacity: Capacity, clock: &FakeClock) -> File {
    let placement = Placement::inherited("hostile");
    let made = create(&placement, capacity, Box::new(clock.clone())).expect("a memfd");
    let file = made.backing().file.as_ref().expect("a memfd").try_clone().expect("open");
    for (field, value) in FIXED {
        put(&file, offset_of("Header", field), value);
    }
    file
}

/// Records of the sections, by number.
const RECORDS: [&str; 14] = [
    "WorkerRow",
    "StatsRow",
    "Feature",
    "Bucket",
    "LeaseChunk",
    "Name",
    "Deployment",
    "Series",
    "Histogram",
    "Event",
    "Job",
    "Notice",
    "Sheet",
    "Endpoint",
];

/// Offset of a field in its record.
pub fn offset_of(record: &str, field: &str) -> u64 {
    let records = fast_litellm::layout::records();
    let record = records.iter().find(|info| info.name == record).expect("a record");
    let field = record.fields.iter().find(|info| info.name == field).expect("a field");
    field.offset as u64
}

/// All sections.
pub const SECTIONS: [u64; 14] = [
    section::WORKERS,
    section::STATS,
    section::FEATURES,
    section::BUCKETS,
    section::LEASES,
    section::NAMES,
    section::DEPLOYMENTS,
    section::SERIES,
    section::HISTOGRAMS,
    section::EVENTS,
    section::JOBS,
    section::BOARD,
    section::SHEETS,
    section::ENDPOINTS,
];

pub fn put(file: &File, offset: u64, value: u64) {
    file.write_all_at(&value.to_le_bytes(), offset).expect("inside");
}
