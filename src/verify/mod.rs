//! Whether a region says only what can have been written: every record against the invariants of
//! `shm_layout.md`. Reads only; repairs nothing.
//!
//! A live region verifies clean. Every record is read while others use it, so a record that changes under
//! the look is passed over, the clock is read after the words, and what looks wrong is looked at a second
//! time. What a process may leave behind that was killed or stopped between any two instructions is no
//! finding either, unless it is worth knowing and heals; so a verdict says less than a reader who saw the
//! region stand still could say, but what it says is so.
//!
//! Walks only what the kernel says has been written (see [`crate::region`]), once, in memory that does not
//! depend on what it reads: at most [`MAX_FINDINGS`] are kept.

mod board;
mod endpoints;
mod health;
mod identities;
mod jobs;
mod keys;
mod leases;
mod measures;
mod names;
mod origin;
mod owners;

use crate::clock::Instant;
use crate::layout::section;
use crate::region::{Region, Touched};
use crate::sync::{Bits, Ordering, Word};
use serde::Serialize;

/// Findings that [`verify`] keeps; [`count`] counts all of them.
pub const MAX_FINDINGS: usize = 4_096;
/// No counter that only goes up gets here: two thousand million a second for a year.
const IMPLAUSIBLE: u64 = 1 << 56;

/// What follows from a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is not believed, or heals when it is next used or by waiting.
    Harmless,
    /// It stays: a limit, a lease, a place or a number is wrong until the region is made anew.
    Damage,
}

/// A word that nobody can have written, or that says what cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Finding {
    /// What follows.
    pub severity: Severity,
    /// Section.
    pub section: &'static str,
    /// Record of the section.
    pub index: usize,
    /// Field of the record.
    pub field: &'static str,
    /// The word as it was found.
    pub found: u64,
    /// What it should be.
    pub expected: &'static str,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let severity = match self.severity {
            Severity::Harmless => "harmless",
            Severity::Damage => "damage",
        };
        let Self { section, index, field, found, expected, .. } = self;
        write!(f, "{severity}: {section} {index} {field}: {found:#018x}, expected {expected}")
    }
}

/// How many findings there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// That are not believed, or heal.
    pub harmless: u64,
    /// That stay.
    pub damage: u64,
}

impl Counts {
    /// All of them.
    pub fn all(self) -> u64 {
        self.harmless + self.damage
    }
}

/// Everything that is wrong with a region, the first [`MAX_FINDINGS`] of it.
pub fn verify(region: &Region) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut keep = |finding| {
        if findings.len() < MAX_FINDINGS {
            findings.push(finding);
        }
    };
    Walk::new(region, &mut keep).everything();
    findings
}

/// Counts what [`verify`] finds, but for keys that stand twice, which take memory to look for. Meant for
/// whoever is about to use a region.
pub fn count(region: &Region) -> Counts {
    let mut counts = Counts::default();
    let mut add = |finding: Finding| match finding.severity {
        Severity::Harmless => counts.harmless += 1,
        Severity::Damage => counts.damage += 1,
    };
    Walk::new(region, &mut add).records();
    counts
}

/// One walk through a region.
struct Walk<'a> {
    region: &'a Region,
    touched: Touched,
    /// The clock at the beginning: good enough for a first look.
    begun: Instant,
    notes: Notes,
    report: &'a mut dyn FnMut(Finding),
}

/// What was noted in one look at one record.
struct Notes {
    section: &'static str,
    index: usize,
    found: Vec<Finding>,
}

impl Notes {
    fn note(
        &mut self,
        severity: Severity,
        field: &'static str,
        found: u64,
        expected: &'static str,
    ) {
        let Self { section, index, .. } = *self;
        self.found.push(Finding { severity, section, index, field, found, expected });
    }

    /// Notes what is not believed, or heals.
    fn harmless(&mut self, field: &'static str, found: impl Bits, expected: &'static str) {
        self.note(Severity::Harmless, field, found.bits(), expected);
    }

    /// Notes what stays.
    fn damage(&mut self, field: &'static str, found: impl Bits, expected: &'static str) {
        self.note(Severity::Damage, field, found.bits(), expected);
    }

    fn zeroes(&mut self, field: &'static str, words: &[Word<u64>]) {
        if let Some(found) = words.iter().map(get).find(|&found| found != 0) {
            self.damage(field, found, "reserved, zero");
        }
    }

    /// A counter that only goes up.
    fn plausible(&mut self, field: &'static str, found: u64) {
        if found >= IMPLAUSIBLE {
            self.damage(field, found, "a number that counting gets to");
        }
    }
}

impl<'a> Walk<'a> {
    fn new(region: &'a Region, report: &'a mut dyn FnMut(Finding)) -> Self {
        Self {
            region,
            touched: Touched::of(region),
            begun: region.now(),
            notes: Notes { section: "", index: 0, found: Vec::new() },
            report,
        }
    }

    fn everything(&mut self) {
        self.records();
        self.duplicates();
    }

    fn records(&mut self) {
        self.origin();
        self.workers();
        self.stats();
        self.features();
        self.buckets();
        self.chunks();
        self.names();
        self.deployments();
        self.series();
        self.histograms();
        self.events();
        self.jobs();
        self.board();
        self.endpoints();
    }

    /// Looks at the records of a section that were ever written. `examine` loads all words of its record
    /// before it asks for the time.
    fn each<T>(
        &mut self,
        id: u64,
        records: &'a [T],
        mut examine: impl FnMut(usize, &'a T, &dyn Fn() -> Instant, &mut Notes),
    ) {
        let written = self.touched.records(self.region.sections().at(id), size_of::<T>() as u64);
        for index in written {
            if let Some(record) = records.get(index) {
                self.twice(name_of(id), index, |now, notes| examine(index, record, now, notes));
            }
        }
    }

    /// Reports what is noted at both of two looks, as it was the second time.
    fn twice(
        &mut self,
        section: &'static str,
        index: usize,
        mut look: impl FnMut(&dyn Fn() -> Instant, &mut Notes),
    ) {
        (self.notes.section, self.notes.index) = (section, index);
        let begun = self.begun;
        look(&|| begun, &mut self.notes);
        if self.notes.found.is_empty() {
            return;
        }
        self.notes.found.clear();
        let region = self.region;
        look(&|| region.now(), &mut self.notes);
        for finding in self.notes.found.drain(..) {
            (self.report)(finding);
        }
    }
}

fn name_of(id: u64) -> &'static str {
    match id {
        section::WORKERS => "workers",
        section::STATS => "stats",
        section::FEATURES => "features",
        section::BUCKETS => "buckets",
        section::LEASES => "leases",
        section::NAMES => "names",
        section::DEPLOYMENTS => "deployments",
        section::SERIES => "series",
        section::HISTOGRAMS => "histograms",
        section::EVENTS => "events",
        section::JOBS => "jobs",
        section::BOARD => "board",
        section::SHEETS => "sheets",
        section::ENDPOINTS => "endpoints",
        _ => "header",
    }
}

/// Acquire, so that words are loaded in the order in which they are asked for, and the clock after them.
fn get<T: Bits>(word: &Word<T>) -> T {
    word.load(Ordering::Acquire)
}

/// The first word of a record that should be all zeroes and is not.
fn first_nonzero(words: impl IntoIterator<Item = u64>) -> Option<u64> {
    words.into_iter().find(|&word| word != 0)
}
