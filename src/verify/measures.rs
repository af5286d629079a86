//! Series with their histograms, and the event ring.

use super::identities::{Standing, judge};
use super::{Walk, first_nonzero, get, names};
use crate::layout::{IdentityWord, KeyKind, section};
use crate::tables::events;
use crate::tables::histograms::{STRIPES, upper_ns};
use crate::tables::names::Place;

impl Walk<'_> {
    pub(super) fn series(&mut self) {
        self.each(section::SERIES, self.region.series(), |_, series, _, notes| {
            let identity = get(&series.identity);
            let [errors, input, output] =
                [&series.errors, &series.input_bytes, &series.output_bytes].map(get);
            if get(&series.identity) != identity {
                return;
            }
            match judge(identity, &[KeyKind::Named], notes) {
                Standing::Nobody => {}
                Standing::Never => {
                    if let Some(found) = first_nonzero([errors, input, output]) {
                        notes.damage(
                            "identity",
                            found,
                            "all zeroes: never used; a series was lost",
                        );
                    }
                }
                Standing::Key(_) => {
                    let name = Place { head: &series.name_head, bytes: &series.name };
                    names::examine("name", name, notes);
                    notes.plausible("errors", errors);
                }
            }
        });
    }

    pub(super) fn histograms(&mut self) {
        let region = self.region;
        self.each(section::HISTOGRAMS, region.histograms(), |index, row, _, notes| {
            notes.zeroes("reserved", &row.reserved);
            // The largest value is raised before it is counted.
            let highest = row.counts.iter().rposition(|count| get(count) != 0);
            let (max_ns, sum_ns) = (get(&row.max_ns), get(&row.sum_ns));
            let series = region.series().get(index / STRIPES).map(|series| get(&series.identity));
            if series == Some(IdentityWord::default()) {
                let counted = highest.map_or(0, |bucket| get(&row.counts[bucket]));
                if let Some(found) = first_nonzero([max_ns, sum_ns, counted]) {
                    notes.damage("max_ns", found, "zero: its series was never used");
                }
                return;
            }
            for count in &row.counts {
                notes.plausible("counts", get(count));
            }
            let below = highest.and_then(|bucket| bucket.checked_sub(1));
            if below.is_some_and(|below| upper_ns(below) >= max_ns) {
                notes.damage("max_ns", max_ns, "at least what was counted highest");
            }
        });
    }

    pub(super) fn events(&mut self) {
        let region = self.region;
        let ring = region.events();
        self.each(section::EVENTS, ring, |index, event, now, notes| {
            let sequence = get(&event.sequence);
            let Some(number) = sequence.checked_sub(1) else { return };
            let entry = events::read(event, number);
            let check = get(&event.check);
            if get(&event.sequence) != sequence {
                return;
            }
            let here = number.checked_rem(ring.len() as u64) == Some(index as u64);
            if !here || number >= get(&region.header().event_head) {
                notes.harmless("sequence", sequence, "a number that was given and belongs here");
                return;
            }
            let Some(entry) = entry else {
                notes.harmless("check", check, "the mix of the other words");
                return;
            };
            if entry.known_kind().is_none() {
                notes.harmless("kind", entry.kind, "a kind that is known");
            }
            if entry.at_us > now().us() {
                notes.harmless("at_us", entry.at_us, "the past");
            }
        });
    }
}
