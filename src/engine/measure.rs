//! Measurements over all workers: named series of durations, and the ring of events.

use super::Engine;
use crate::error::OpError;
use crate::layout::{EventKind, HandCommand, IdentityWord, KeyKind, section};
use crate::region::Region;
use crate::sync::Ordering;
use crate::tables::events::{self, Entry, Fact};
use crate::tables::histograms::{Histograms, Snapshot};
use crate::tables::index::{self, Probe};
use crate::tables::names;

/// Hash domain of series.
const SERIES: u64 = 0x7365_7269;

/// A series of measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeriesId(usize);

impl SeriesId {
    /// Its number in the region, the same for all processes and for good.
    pub fn number(self) -> usize {
        self.0
    }
}

impl Engine {
    fn histograms(&self) -> Histograms<'_> {
        Histograms { series: self.region.series(), rows: self.region.histograms() }
    }

    fn identify_series(&self, name: &str) -> (IdentityWord, Probe) {
        let hash = self.region.hash(SERIES ^ KeyKind::Named as u64, name.as_bytes());
        (index::identity(KeyKind::Named, hash), Probe::of(hash))
    }

    /// The series of that name, made if there is none. Series are never given up, and their names are shown as
    /// they are.
    ///
    /// # Errors
    /// `TableFull` when there are 64 others.
    pub fn series(&self, name: &str) -> Result<SeriesId, OpError> {
        let (identity, probe) = self.identify_series(name);
        let table = self.region.series();
        let slot = index::insert(table, probe, identity, index::nonce)
            .map_err(|error| self.counted(error.into()))?;
        let record = &table[slot.index];
        let place = names::Place { head: &record.name_head, bytes: &record.name };
        self.look_after_name(place, || name.to_string(), || true);
        Ok(SeriesId(slot.index))
    }

    /// The series of that number, if there can be one.
    pub fn series_at(&self, number: usize) -> Option<SeriesId> {
        (number < self.region.series().len()).then_some(SeriesId(number))
    }

    /// Adds a duration to a series.
    #[inline]
    pub fn measure(&self, series: SeriesId, ns: u64) {
        let row = self.me().map_or(0, |owner| owner.row() as usize);
        self.histograms().record(series.0, row, ns);
    }

    /// Counts a failed operation of a series.
    pub fn measure_failure(&self, series: SeriesId) {
        self.histograms().fail(series.0);
    }

    /// Adds to the bytes that a series' operations were given and gave.
    pub fn measure_bytes(&self, series: SeriesId, input: u64, output: u64) {
        self.histograms().carry(series.0, input, output);
    }

    /// What a series holds, over all workers.
    pub fn measured(&self, series: SeriesId) -> Snapshot {
        self.histograms().snapshot(series.0).unwrap_or_default()
    }

    /// All series by name.
    pub fn all_measured(&self) -> Vec<(String, Snapshot)> {
        all_measured(&self.region)
    }

    /// Records an event about a key or a deployment.
    pub(super) fn event_about(&self, subject: IdentityWord, kind: EventKind, a: u64, b: u64) {
        // Without registering: who only reaps has no row.
        let owner = self.registered();
        let fact = Fact { at_us: self.now().us(), kind, owner, subject, a, b };
        events::record(self.region.events(), &self.region.header().event_head, &fact);
        self.stats_of(owner).events.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that the user `uid` has changed something by a command: the subject, or the region.
    pub fn note_by_hand(&self, subject: Option<IdentityWord>, uid: u32, command: HandCommand) {
        let subject = subject.unwrap_or_default();
        self.event_about(subject, EventKind::ByHand, uid.into(), command as u64);
    }

    /// The latest events, newest first.
    pub fn recent_events(&self, n: usize) -> impl Iterator<Item = Entry> + use<'_> {
        events::recent(self.region.events(), &self.region.header().event_head, n)
    }
}

/// All series of a region by name.
pub(crate) fn all_measured(region: &Region) -> Vec<(String, Snapshot)> {
    let histograms = Histograms { series: region.series(), rows: region.histograms() };
    let table = region.written(section::SERIES, region.series());
    table
        .filter_map(|(slot, record)| {
            index::key_of(record.identity.load(Ordering::Acquire))?;
            let place = names::Place { head: &record.name_head, bytes: &record.name };
            let name = names::read(place).unwrap_or_else(|| format!("#{slot}"));
            Some((name, histograms.snapshot(slot)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;

    #[test]
    fn series_are_found_by_name_and_measured() {
        let (engine, _) = engine();
        let (a, b) = (engine.series("routing").unwrap(), engine.series("tokens").unwrap());
        assert_eq!((engine.series("routing"), a == b), (Ok(a), false));
        for ns in [1_000, 2_000, 3_000] {
            engine.measure(a, ns);
        }
        engine.measure_failure(b);
        engine.measure_bytes(b, 40, 2);
        let (routing, tokens) = (engine.measured(a), engine.measured(b));
        assert_eq!((routing.count, routing.sum_ns, routing.max_ns), (3, 6_000, 3_000));
        assert_eq!((tokens.count, tokens.errors), (0, 1));
        assert_eq!((tokens.input_bytes, tokens.output_bytes), (40, 2));
        assert_eq!(engine.series_at(b.number()), Some(b));
        assert_eq!(engine.series_at(engine.region.series().len()), None);
        let mut names: Vec<_> = engine.all_measured().into_iter().map(|(name, _)| name).collect();
        names.sort();
        assert_eq!(names, ["routing", "tokens"]);
    }

    #[test]
    fn a_full_directory_is_an_error() {
        let (engine, _) = engine();
        let room = engine.region.series().len();
        let made = (0..room + 8).filter(|n| engine.series(&format!("series {n}")).is_ok()).count();
        assert_eq!((made, engine.all_measured().len()), (room, room));
        assert_eq!(engine.total(|row| &row.table_full), 8);
    }

    #[test]
    fn names_of_series_are_shown_as_they_are() {
        let (engine, _) = engine();
        let name = "python_connection_pool.get_available_deployment";
        engine.series(name).unwrap();
        assert_eq!(engine.all_measured()[0].0, name);
    }
}
