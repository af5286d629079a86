//! What the logs prove. Every judge uses only what is certain, so that it never accuses a sound engine: a
//! slot is held from after its acquire to before its release, a request happened somewhere between its
//! two times, and what a killed worker left open may or may not have been done.

mod faults;
mod quotas;
mod reach;
mod slots;
mod windows;

pub(crate) use faults::{Fault, Faults};
pub(crate) use reach::Reach;
pub(crate) use windows::{Reading, Snapshot};

use crate::entry::{Answer, Entry, Op};
use crate::limits::SEATS;
use quotas::QuotaJudge;
use slots::SlotJudge;
use std::collections::BTreeMap;
use windows::WindowJudge;

/// Numbers of the errors that a worker may meet: no room for a new key, no row for a new worker.
const EXPECTED_ERRORS: [u64; 2] = [1, 2];

/// Judges everything that was logged about one region.
#[derive(Default)]
pub(crate) struct Judge {
    quotas: QuotaJudge,
    windows: WindowJudge,
    slots: SlotJudge,
    /// What each seat's worker has begun and perhaps not finished.
    open: [Option<Entry>; SEATS],
    /// How many operations were answered, by kind and answer.
    pub(crate) tally: BTreeMap<&'static str, u64>,
}

impl Judge {
    /// For a region whose clock has that base.
    pub(crate) fn new(base_ns: u64) -> Self {
        Self { slots: SlotJudge::new(base_ns), ..Self::default() }
    }

    /// Judges an epoch at whose end all workers are dead: one log for each seat, and snapshots in the
    /// order in which they were made.
    pub(crate) fn judge(
        &mut self,
        logs: impl IntoIterator<Item = impl Iterator<Item = Entry>>,
        snapshots: Vec<Snapshot>,
        now_us: u64,
        faults: &mut Faults,
    ) {
        self.windows.begin(snapshots);
        for (seat, log) in logs.into_iter().enumerate() {
            for (position, entry) in log.enumerate() {
                self.windows.reach(seat, position);
                self.read(seat, position, &entry, faults);
            }
            self.windows.end(seat);
        }
        self.quotas.close(faults);
        self.windows.close(now_us, faults);
        self.slots.close(faults);
    }

    /// Reads the next line of a seat's log.
    fn read(&mut self, seat: usize, position: usize, entry: &Entry, faults: &mut Faults) {
        *self.tally.entry(name_of(entry)).or_default() += 1;
        match entry.end {
            None => self.open[seat] = Some(*entry),
            Some(end) => {
                if let (Op::Death, Answer::Admitted(died_us)) = (entry.op, end.answer)
                    && let Some(lost) = self.open[seat].take()
                {
                    lost.effects(|effect| self.windows.lost(effect, died_us));
                }
                if let Answer::Failed(error) = end.answer
                    && !EXPECTED_ERRORS.contains(&error)
                {
                    faults.add(Fault::Unexpected, || format!("error {error} of {:?}", entry.op));
                }
            }
        }
        entry.effects(|effect| {
            self.slots.read(seat, position, effect, entry);
            if let Some(end) = entry.end
                && matches!(end.answer, Answer::Admitted(_))
            {
                self.quotas.admitted(effect, entry.begun, end.at);
                self.windows.done(effect);
            }
        });
    }

    /// How near the limits the workers came: a limit that was never reached was not tested.
    pub(crate) fn reach(&self) -> Reach {
        Reach {
            quota_slack: self.quotas.slack(),
            full_windows: self.windows.full(),
            slot_peaks: self.slots.peaks(),
            uncertain: self.windows.uncertain(),
        }
    }
}

fn name_of(entry: &Entry) -> &'static str {
    match (entry.end.map(|end| end.answer), entry.op) {
        (None, _) => "lost",
        (Some(Answer::Refused), _) => "refused",
        (Some(Answer::Failed(1)), _) => "no_room_for_a_key",
        (Some(Answer::Failed(2)), _) => "no_row_for_a_worker",
        (Some(Answer::Failed(_)), _) => "failed",
        (Some(Answer::Admitted(_)), op) => match op {
            Op::Check { .. } => "quota_admitted",
            Op::Charge { .. } => "window_admitted",
            Op::Refund { .. } => "refunds",
            Op::Acquire { .. } => "slots_acquired",
            Op::Release { .. } => "slots_released",
            Op::Leave => "leaves",
            Op::Death => "deaths",
        },
    }
}
