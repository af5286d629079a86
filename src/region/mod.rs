//! Where the bytes live, who may use them, and who is alive.

mod attach;
mod backing;
mod create;
mod discover;
mod dump;
mod family;
pub mod host;
mod mapping;
mod named;
mod sections;
mod touched;
mod vantage;

pub use attach::{attach_file, attach_live, attach_open, attach_read_only};
pub use backing::{Backing, BackingKind, Placement, identity};
pub use create::{create, create_heap};
pub use discover::{Found, discover, discover_of, orphans};
pub use dump::{Moment, dump, moment_in};
pub use family::{Kinship, join_or_create};
pub use mapping::{end_when_memory_is_lost, fork_generation, watch_forks};
pub use named::{Opening, open_named};
pub use sections::Sections;
pub(crate) use touched::Touched;
pub use vantage::{Obstacle, Vantage};

use crate::clock::{Clock, Instant};
use crate::config::Overflow;
use crate::layout::{
    Bucket, Deployment, Endpoint, Event, Feature, Header, Histogram, Job, LeaseChunk, Line, Name,
    Notice, SectionRow, Series, Sheet, StatsRow, WorkerRow, section,
};
use crate::sync::{Ordering, Word};
use crate::verify::Counts;
use mapping::{Mapping, Span, Table};
use sections::SHARED_BUCKETS;
use siphasher::sip::SipHasher13;
use std::sync::Arc;

/// A mapped region whose header and sections have been checked.
///
/// Everything is reached through slices of atomic records, so that no other process can invalidate what
/// this one sees. A region mapped read-only must not be written; [`crate::inspect`] never does.
pub struct Region {
    header: Table<Header>,
    lines: Table<Line>,
    section_rows: Table<SectionRow>,
    tables: Tables,
    sections: Sections,
    backing: Backing,
    clock: Box<dyn Clock>,
    base_ns: u64,
    wall_base_s: u64,
    seed: [u64; 2],
    findings: Option<Counts>,
    moment: Option<Moment>,
    /// Kept open as long as this process uses the region: what makes it a member of a family.
    kin: Vec<std::fs::File>,
}

/// The sections, each checked once.
struct Tables {
    workers: Table<WorkerRow>,
    stats: Table<StatsRow>,
    features: Table<Feature>,
    buckets: Table<Bucket>,
    chunks: Table<LeaseChunk>,
    names: Table<Name>,
    deployments: Table<Deployment>,
    series: Table<Series>,
    histograms: Table<Histogram>,
    events: Table<Event>,
    jobs: Table<Job>,
    board: Table<Notice>,
    sheets: Table<Sheet>,
    endpoints: Table<Endpoint>,
}

impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region").field("backing", &self.backing).finish_non_exhaustive()
    }
}

impl Region {
    /// Wraps a mapping whose header has been written or checked.
    fn new(mapping: Mapping, sections: &Sections, backing: Backing, clock: Box<dyn Clock>) -> Self {
        let sections = *sections;
        let mapping = Arc::new(mapping);
        let header = mapping.table::<Header>(Span { offset: 0, count: 1 });
        let lines = mapping.table(Span { offset: 0, count: sections.total_len() / 64 });
        let section_rows = mapping.table::<SectionRow>(sections.table());
        let read = |word: &Word<u64>| word.load(Ordering::Relaxed);
        let base_ns = read(&header[0].clock_base_ns);
        let wall_base_s = read(&header[0].wall_base_s);
        let seed = [read(&header[0].seed_high), read(&header[0].seed_low)];
        let tables = Tables {
            workers: mapping.table(sections.at(section::WORKERS)),
            stats: mapping.table(sections.at(section::STATS)),
            features: mapping.table(sections.at(section::FEATURES)),
            buckets: mapping.table(sections.at(section::BUCKETS)),
            chunks: mapping.table(sections.at(section::LEASES)),
            names: mapping.table(sections.at(section::NAMES)),
            deployments: mapping.table(sections.at(section::DEPLOYMENTS)),
            series: mapping.table(sections.at(section::SERIES)),
            histograms: mapping.table(sections.at(section::HISTOGRAMS)),
            events: mapping.table(sections.at(section::EVENTS)),
            jobs: mapping.table(sections.at(section::JOBS)),
            board: mapping.table(sections.at(section::BOARD)),
            sheets: mapping.table(sections.at(section::SHEETS)),
            endpoints: mapping.table(sections.at(section::ENDPOINTS)),
        };
        Self {
            header,
            lines,
            section_rows,
            tables,
            sections,
            backing,
            clock,
            base_ns,
            wall_base_s,
            seed,
            findings: None,
            kin: Vec::new(),
            moment: None,
        }
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header[0]
    }

    /// The section table. Nothing is computed from it.
    pub(crate) fn section_rows(&self) -> &[SectionRow] {
        &self.section_rows
    }

    /// Words of the header that this process has read once and goes by, where they have changed since.
    pub(crate) fn changed_origin(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let header = self.header();
        [
            ("clock_base_ns", &header.clock_base_ns, self.base_ns),
            ("wall_base_s", &header.wall_base_s, self.wall_base_s),
            ("seed_high", &header.seed_high, self.seed[0]),
            ("seed_low", &header.seed_low, self.seed[1]),
            ("clock_id", &header.clock_id, self.clock.id()),
        ]
        .into_iter()
        .map(|(field, word, own)| (field, word.load(Ordering::Relaxed), own))
        .filter_map(|(field, found, own)| (found != own).then_some((field, found)))
    }

    /// What [`crate::verify`] found when this process attached for use; `None` = it made or inherited the
    /// region, or only looks.
    pub fn findings(&self) -> Option<Counts> {
        self.findings
    }

    /// When it was copied; `None` = this is no dump, but the region itself.
    pub fn moment(&self) -> Option<&Moment> {
        self.moment.as_ref()
    }

    /// Whether this is the other one, at another time perhaps: seeds are random.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.seed == other.seed
    }

    /// All of it, 64 bytes by 64 bytes.
    fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Where the memory comes from.
    pub fn backing(&self) -> &Backing {
        &self.backing
    }

    /// Capacities and offsets.
    pub fn sections(&self) -> &Sections {
        &self.sections
    }

    /// Bytes mapped.
    pub fn len(&self) -> u64 {
        self.sections.total_len()
    }

    /// Never: a region has at least a header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Now, by the region's clock.
    #[inline]
    pub fn now(&self) -> Instant {
        Instant::since(self.base_ns, self.clock.now_ns())
    }

    /// Unix seconds of a second of the region's clock.
    #[inline]
    pub fn wall_s(&self, region_s: u64) -> u64 {
        self.wall_base_s.saturating_add(region_s)
    }

    /// Second of the region's clock at a Unix second; `None` before the base.
    pub fn region_s(&self, wall_s: u64) -> Option<u64> {
        wall_s.checked_sub(self.wall_base_s)
    }

    /// Keyed hash (SipHash-1-3 under the region's random seed).
    #[inline]
    pub fn hash(&self, domain: u64, bytes: &[u8]) -> u64 {
        SipHasher13::new_with_keys(self.seed[0] ^ domain, self.seed[1]).hash(bytes)
    }

    /// What happens to keys without room.
    pub fn overflow(&self) -> Overflow {
        Overflow::from_raw(self.header().overflow.load(Ordering::Relaxed))
    }

    /// Changes what happens to keys without room, for all processes.
    pub fn set_overflow(&self, policy: Overflow) {
        self.header().overflow.store(policy as u64, Ordering::Relaxed);
    }

    /// Worker table.
    pub fn workers(&self) -> &[WorkerRow] {
        &self.tables.workers
    }

    /// Statistics rows.
    pub fn stats(&self) -> &[StatsRow] {
        &self.tables.stats
    }

    /// Feature breakers.
    pub fn features(&self) -> &[Feature] {
        &self.tables.features
    }

    /// All buckets: those of the keys, then those that keys without room share.
    #[inline]
    pub fn buckets(&self) -> &[Bucket] {
        &self.tables.buckets
    }

    /// The buckets of the keys, and those that keys without room share.
    #[inline]
    pub fn key_buckets(&self) -> (&[Bucket], &[Bucket]) {
        self.buckets().split_at(self.tables.buckets.len().saturating_sub(SHARED_BUCKETS))
    }

    /// Lease chunks.
    pub fn chunks(&self) -> &[LeaseChunk] {
        &self.tables.chunks
    }

    /// Names, one per bucket.
    pub fn names(&self) -> &[Name] {
        &self.tables.names
    }

    /// Health of deployments.
    pub fn deployments(&self) -> &[Deployment] {
        &self.tables.deployments
    }

    /// Series of measurements.
    pub fn series(&self) -> &[Series] {
        &self.tables.series
    }

    /// Histograms, eight per series.
    pub fn histograms(&self) -> &[Histogram] {
        &self.tables.histograms
    }

    /// Event ring.
    pub fn events(&self) -> &[Event] {
        &self.tables.events
    }

    /// Jobs that one process leads.
    pub fn jobs(&self) -> &[Job] {
        &self.tables.jobs
    }

    /// Notices.
    pub fn board(&self) -> &[Notice] {
        &self.tables.board
    }

    /// What stands on the notices: two sheets for each.
    pub fn sheets(&self) -> &[Sheet] {
        &self.tables.sheets
    }

    /// Connection pools and their endpoints.
    #[inline]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.tables.endpoints
    }
}
