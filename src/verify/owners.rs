//! Workers with their counters, and features.

use super::{IMPLAUSIBLE, Walk, first_nonzero, get};
use crate::inspect::counters;
use crate::layout::{ClaimWord, FlagMode, OwnerTag, WorkerState, section};
use crate::sync::Bits;
use crate::tables::workers::FIRST_ROW;

/// Percentages end here.
const ALL: u64 = 100;

impl Walk<'_> {
    pub(super) fn workers(&mut self) {
        self.each(section::WORKERS, self.region.workers(), |index, row, now, notes| {
            let claim = get(&row.claim);
            let start = get(&row.start_ticks);
            let registered_s = get(&row.registered_s);
            notes.zeroes("reserved", &row.reserved);
            if get(&row.claim) != claim {
                return;
            }
            if index < FIRST_ROW {
                let words = [claim.bits(), start, registered_s, get(&row.pid_namespace)];
                if let Some(found) = first_nonzero(words) {
                    notes.damage("claim", found, "zero: the row is nobody's");
                }
                return;
            }
            let registered = claim.generation() > 0;
            match WorkerState::from_raw(claim.state()) {
                WorkerState::Free if !registered && claim != ClaimWord::default() => {
                    notes.harmless("claim", claim, "zero: the row was never held");
                }
                WorkerState::Live | WorkerState::Dead if !registered => {
                    notes.damage("claim", claim, "a generation; the row is lost");
                }
                WorkerState::Retired if claim.generation() < OwnerTag::MAX_GENERATION => {
                    notes.damage("claim", claim, "the last generation; the row is lost");
                }
                WorkerState::Live if start != 0 && !agrees(start, claim) => {
                    notes.harmless("start_ticks", start, "what the claim has the low bits of");
                }
                _ => {}
            }
            if registered_s > now().s() {
                notes.harmless("registered_s", registered_s, "the past");
            }
        });
    }

    pub(super) fn stats(&mut self) {
        self.each(section::STATS, self.region.stats(), |_, row, _, notes| {
            for (field, counter) in counters() {
                notes.plausible(field, get(counter(row)));
            }
            notes.zeroes("reserved", &row.reserved);
        });
    }

    pub(super) fn features(&mut self) {
        self.each(section::FEATURES, self.region.features(), |_, feature, now, notes| {
            let (breaker, flag) = (get(&feature.breaker), get(&feature.flag));
            if breaker.last_s() > now().s() {
                notes.harmless("breaker", breaker, "an error of the past");
            }
            let percent = FlagMode::from_raw(flag.mode()) == FlagMode::Percent;
            if percent && flag.percent() > ALL {
                notes.harmless("flag", flag, "at most 100 percent");
            }
            let errors = get(&feature.errors_total);
            if errors >= IMPLAUSIBLE {
                notes.plausible("errors_total", errors);
            }
            notes.zeroes("reserved", &feature.reserved);
        });
    }
}

/// Whether a full start time has the low bits that the claim has.
fn agrees(start: u64, claim: ClaimWord) -> bool {
    ClaimWord::new(0, 0, start, 0).start_low() == claim.start_low()
}
