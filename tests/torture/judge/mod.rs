//! What the logs prove. Every judge uses only what is certain, so that it never accuses a sound engine: a
//! slot is held from after its acquire to before its release, a request happened somewhere between its
//! two times, and what a killed worker left open may or may not have been done.

mod deployments;
mod faults;
mod quotas;
mod reach;
mod sliding;
mod slots;
mod windows;

pub(crate) use deployments::{BEGAN, Status};
pub(crate) use faults::{Fault, Faults};
pub(crate) use reach::Reach;
pub(crate) use sliding::Room;
pub(crate) use windows::{Reading, Snapshot};

use crate::entry::{Answer, Effect, Entry, Op};
use crate::limits::SEATS;
use deployments::DeploymentJudge;
use quotas::QuotaJudge;
use sliding::SlidingJudge;
use slots::SlotJudge;
use std::collections::BTreeMap;
use windows::WindowJudge;

/// Numbers of the errors that a worker may meet: no room for a new key, no row for a new worker.
const EXPECTED_ERRORS: [u64; 2] = [1, 2];

/// What stands in the region at the end of an epoch, when nobody lives.
#[derive(Default)]
pub(crate) struct Rest {
    /// Of sliding windows.
    pub(crate) rooms: Vec<Room>,
    /// Of deployments.
    pub(crate) statuses: Vec<Status>,
}

/// Judges everything that was logged about one region.
#[derive(Default)]
pub(crate) struct Judge {
    quotas: QuotaJudge,
    windows: WindowJudge,
    sliding: SlidingJudge,
    slots: SlotJudge,
    deployments: DeploymentJudge,
    /// What each seat's worker has begun and perhaps not finished, with the admission that it corrects.
    open: [Option<(Entry, Option<Entry>)>; SEATS],
    /// Admissions of each seat's worker, by position in its log.
    admitted: [BTreeMap<usize, Entry>; SEATS],
    /// Of each policy, how many operations were about a key without room; noted by the master.
    pub(crate) overflowed: Vec<u64>,
    /// How many operations were answered, by kind and answer.
    pub(crate) tally: BTreeMap<&'static str, u64>,
}

impl Judge {
    /// For a region whose clock has that base.
    pub(crate) fn new(base_ns: u64) -> Self {
        Self { slots: SlotJudge::new(base_ns), ..Self::default() }
    }

    /// Judges an epoch at whose end all workers are dead: one log for each seat, snapshots in the order in
    /// which they were made, and what was found at rest.
    pub(crate) fn judge(
        &mut self,
        logs: impl IntoIterator<Item = impl Iterator<Item = Entry>>,
        snapshots: Vec<Snapshot>,
        rest: &Rest,
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
        self.sliding.close(&rest.rooms, now_us, faults);
        self.deployments.close(&rest.statuses, now_us, faults);
        self.slots.close(faults);
    }

    /// Reads the next line of a seat's log.
    fn read(&mut self, seat: usize, position: usize, entry: &Entry, faults: &mut Faults) {
        *self.tally.entry(name_of(entry)).or_default() += 1;
        let origin =
            entry.op.corrects().and_then(|position| self.admitted[seat].get(&position).copied());
        match entry.end {
            None => self.open[seat] = Some((*entry, origin)),
            Some(end) => {
                if let (Op::Death, Answer::Admitted(died_us)) = (entry.op, end.answer)
                    && let Some((lost, origin)) = self.open[seat].take()
                {
                    self.deployments.lost(&lost, died_us);
                    lost.effects(|effect| {
                        self.windows.lost(effect.of(origin.as_ref()), died_us);
                        self.sliding.perhaps(effect, died_us);
                    });
                }
                if let Answer::Failed(error) = end.answer
                    && !EXPECTED_ERRORS.contains(&error)
                {
                    faults.add(Fault::Unexpected, || format!("error {error} of {:?}", entry.op));
                }
            }
        }
        self.deployments.done(entry);
        if matches!(entry.op, Op::Leave | Op::Death) {
            self.admitted[seat].clear();
        }
        let done = entry.end.filter(|end| matches!(end.answer, Answer::Admitted(_)));
        if matches!(entry.op, Op::Admit { .. }) && done.is_some() {
            self.admitted[seat].insert(position, *entry);
        }
        entry.effects(|effect| {
            self.slots.read(seat, position, effect, entry);
            if let Some(end) = done {
                self.quotas.admitted(effect, entry.begun, end.at);
                self.sliding.done((seat, position), effect, entry.begun, end.at);
                self.windows.done(effect.of(origin.as_ref()), end.at);
            }
            // From the begin of a correction on nobody knows what is left, finished or not.
            match (effect, origin, entry.op.corrects()) {
                (Effect::TakeBack { key }, Some(Entry { begun, end: Some(end), .. }), _) => {
                    self.quotas.taken_back(key, begun, end.at);
                }
                (Effect::Keep { key, kept }, _, Some(admitted)) => {
                    self.sliding.keep((seat, admitted), key, kept, done.is_some());
                }
                _ => {}
            }
        });
    }

    /// How near the limits the workers came: a limit that was never reached was not tested.
    pub(crate) fn reach(&self) -> Reach {
        Reach {
            quota_slack: self.quotas.slack(),
            full_windows: self.windows.full(),
            full_sliding: self.sliding.full(),
            slot_peaks: self.slots.peaks(),
            cooldowns: self.deployments.cooldowns(),
            overflowed: self.overflowed.clone(),
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
            Op::Slide { .. } => "sliding_admitted",
            Op::Admit { .. } => "admissions",
            Op::Finish { .. } => "admissions_finished",
            Op::Cancel { .. } => "admissions_cancelled",
            Op::Settle { .. } => "admissions_settled",
            Op::Depart { .. } => "calls_sent",
            Op::Arrive { .. } => "calls_ended",
            Op::Count { .. } => "results",
            Op::Cool { .. } => "cooldowns",
            Op::Look { .. } => "free_looks",
            Op::Leave => "leaves",
            Op::Death => "deaths",
        },
    }
}
