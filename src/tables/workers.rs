//! Who is whom, and who is dead.
//!
//! A process registers by one swap of its row's claim word, which holds everything that a later proof of
//! its death needs: pid, start time, and a generation that is never used again. Leases name the row and
//! the generation, never the pid.
//!
//! Death is proven, never assumed: the pid is gone, is a zombie, or belongs to a process that started at
//! another time. A stopped, swapped or invisible process is alive. A proven row goes from live to dead
//! by one swap, then its leases are freed, then it becomes free again; whoever dies in between leaves a
//! dead row that anybody may finish, and whoever is stopped in between finds that somebody has.

use crate::layout::{ClaimWord, OwnerTag, WorkerRow, WorkerState};
use crate::liveness::{Liveness, Process};
#[cfg(not(loom))]
use crate::region::Vantage;
use crate::sync::Ordering;

/// Row 0 belongs to nobody: statistics of processes without a row go there.
pub const FIRST_ROW: usize = 1;

/// Bits of the start time that fit into the claim word.
const START_MASK: u64 = (1 << 18) - 1;

/// One row as read.
#[derive(Debug, Clone, Copy)]
pub struct Worker {
    /// Row number.
    pub row: usize,
    /// Who it is.
    pub owner: OwnerTag,
    /// State of the row.
    pub state: WorkerState,
    /// Process id.
    pub pid: i32,
    /// Whether that process lives; asked for live rows only.
    pub liveness: Liveness,
    /// When it registered, seconds of the region's clock.
    pub registered_s: u64,
}

/// Registers a process; `None` = no free row.
///
/// Linearization point: the successful swap.
pub fn register(rows: &[WorkerRow], process: Process, now_s: u64) -> Option<OwnerTag> {
    let (pid, start_ticks) = (u64::from(process.pid), process.start_ticks);
    for (number, row) in rows.iter().enumerate().skip(FIRST_ROW) {
        let seen = row.claim.load(Ordering::Acquire);
        if state_of(seen) != WorkerState::Free {
            continue;
        }
        let generation = seen.generation() + 1;
        let Some(owner) = owner_of(number, generation) else {
            retire(row, seen);
            continue;
        };
        let claim = ClaimWord::new(WorkerState::Live as u64, pid, start_ticks, generation);
        if swap(row, seen, claim) {
            row.start_ticks.store(start_ticks, Ordering::Release);
            row.registered_s.store(now_s, Ordering::Relaxed);
            row.pid_namespace.store(process.pid_namespace, Ordering::Relaxed);
            return Some(owner);
        }
    }
    None
}

fn owner_of(row: usize, generation: u64) -> Option<OwnerTag> {
    OwnerTag::new(u32::try_from(row).ok()?, generation)
}

fn state_of(claim: ClaimWord) -> WorkerState {
    WorkerState::from_raw(claim.state())
}

fn retire(row: &WorkerRow, seen: ClaimWord) {
    let retired = ClaimWord::new(WorkerState::Retired as u64, 0, 0, seen.generation());
    swap(row, seen, retired);
}

/// Proof by the kernel, as a process with that view of the region has it.
#[cfg(not(loom))]
pub fn prover(vantage: Vantage) -> impl Fn(&WorkerRow, ClaimWord) -> Liveness {
    move |row, claim| {
        let pid = i32::try_from(claim.pid()).unwrap_or(0);
        vantage.liveness(pid, |found| may_have_started(row, claim, found))
    }
}

/// Whether the process of a row's claim can be one that started at `found`, as far as the row tells.
pub fn may_have_started(row: &WorkerRow, claim: ClaimWord, found: u64) -> bool {
    let full = row.start_ticks.load(Ordering::Acquire);
    let low = claim.start_low();
    // Between the claim and the store of the full start time only its low bits are known.
    if full != 0 && full & START_MASK == low {
        found == full
    } else {
        low == 0 || found & START_MASK == low
    }
}

/// Forgets the start time of a claim that is about to be over, so that it is never taken for the next
/// holder's. A caller that was stopped here for long finds another claim and leaves the row alone; the
/// swap's comparison is for those that are stopped between the two.
fn forget_start(row: &WorkerRow, claim: ClaimWord) {
    let start = row.start_ticks.load(Ordering::Acquire);
    if start != 0 && row.claim.load(Ordering::Acquire) == claim {
        let _ = row.start_ticks.compare_exchange(start, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Whether an owner read from a lease can no longer give it back: its registration is over, is proven
/// dead, or never existed. A registration that is merely not proven dead answers false.
pub fn is_gone(rows: &[WorkerRow], owner: OwnerTag) -> bool {
    let Some(row) = rows.get(owner.row() as usize).filter(|_| owner.row() as usize >= FIRST_ROW)
    else {
        return true;
    };
    // SYNC worker-claim: Acquire pairs with the swap in `register`; a lease is written after its owner's
    // claim, so a claim older than the lease's generation cannot be seen here.
    let claim = row.claim.load(Ordering::Acquire);
    claim.generation() != owner.generation() || state_of(claim) != WorkerState::Live
}

/// Marks every live row dead whose process `prove` proves dead, then calls `free` once for each dead
/// row's owner and, when that returns, gives the row back. `me` is never examined. Returns the rows freed.
pub fn reap(
    rows: &[WorkerRow],
    me: Option<OwnerTag>,
    prove: impl Fn(&WorkerRow, ClaimWord) -> Liveness,
    mut free: impl FnMut(OwnerTag),
) -> u64 {
    let mut reaped = 0;
    for (number, row) in rows.iter().enumerate().skip(FIRST_ROW) {
        let claim = row.claim.load(Ordering::Acquire);
        let Some(owner) = owner_of(number, claim.generation()) else {
            continue;
        };
        let dead = with_state(claim, WorkerState::Dead);
        let marked = match state_of(claim) {
            WorkerState::Live if Some(owner) != me && prove(row, claim) == Liveness::Dead => {
                swap(row, claim, dead)
            }
            WorkerState::Dead => true,
            _ => false,
        };
        if marked {
            free(owner);
            forget_start(row, dead);
            reaped += u64::from(swap(row, dead, with_state(dead, WorkerState::Free)));
        }
    }
    reaped
}

fn swap(row: &WorkerRow, from: ClaimWord, to: ClaimWord) -> bool {
    row.claim.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

/// Gives the row of a living process back. Its leases must have been freed before.
pub fn leave(rows: &[WorkerRow], owner: OwnerTag) {
    let Some(row) = rows.get(owner.row() as usize) else {
        return;
    };
    let claim = row.claim.load(Ordering::Acquire);
    if claim.generation() == owner.generation() && state_of(claim) == WorkerState::Live {
        forget_start(row, claim);
        swap(row, claim, with_state(claim, WorkerState::Free));
    }
}

fn with_state(claim: ClaimWord, state: WorkerState) -> ClaimWord {
    ClaimWord::new(state as u64, claim.pid(), claim.start_low(), claim.generation())
}

/// All rows that are live or being reaped.
pub fn list(rows: &[WorkerRow], prove: impl Fn(&WorkerRow, ClaimWord) -> Liveness) -> Vec<Worker> {
    let mut found = Vec::new();
    for (number, row) in rows.iter().enumerate().skip(FIRST_ROW) {
        let claim = row.claim.load(Ordering::Acquire);
        let state = state_of(claim);
        let liveness = match state {
            WorkerState::Live => prove(row, claim),
            WorkerState::Dead => Liveness::Dead,
            WorkerState::Free | WorkerState::Retired => continue,
        };
        if let Some(owner) = owner_of(number, claim.generation()) {
            found.push(Worker {
                row: number,
                owner,
                state,
                pid: i32::try_from(claim.pid()).unwrap_or(0),
                liveness,
                registered_s: row.registered_s.load(Ordering::Relaxed),
            });
        }
    }
    found
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::Word;
    use std::cell::Cell;

    fn rows(count: usize) -> Vec<WorkerRow> {
        (0..count)
            .map(|_| WorkerRow {
                claim: Word::new(ClaimWord::default()),
                start_ticks: Word::new(0),
                registered_s: Word::new(0),
                pid_namespace: Word::new(0),
                reserved: std::array::from_fn(|_| Word::new(0)),
            })
            .collect()
    }

    fn process(pid: u32, start_ticks: u64) -> Process {
        Process { pid, start_ticks, pid_namespace: 0 }
    }

    /// Proof by a list of the dead.
    fn died(pids: &[u64]) -> impl Fn(&WorkerRow, ClaimWord) -> Liveness {
        move |_, claim| {
            if pids.contains(&claim.pid()) { Liveness::Dead } else { Liveness::Alive }
        }
    }

    #[test]
    fn rows_are_reused_with_a_new_generation() {
        let rows = rows(3);
        let first = register(&rows, process(5, 50), 0).unwrap();
        let second = register(&rows, process(6, 60), 0).unwrap();
        assert_eq!(register(&rows, process(7, 70), 0), None);
        let mut freed = Vec::new();
        assert_eq!(reap(&rows, None, died(&[5]), |owner| freed.push(owner)), 1);
        assert_eq!(freed, [first]);
        assert!(is_gone(&rows, first));
        assert!(!is_gone(&rows, second));
        let third = register(&rows, process(7, 70), 0).unwrap();
        assert_eq!((third.row(), third.generation()), (first.row(), first.generation() + 1));
        assert!(is_gone(&rows, first));
    }

    #[test]
    fn only_the_dead_are_reaped_and_never_oneself() {
        let rows = rows(4);
        let me = register(&rows, process(5, 50), 0).unwrap();
        let hidden = register(&rows, process(6, 60), 0).unwrap();
        let unknown = |_: &WorkerRow, claim: ClaimWord| {
            if claim.pid() == 6 { Liveness::Unknown } else { Liveness::Dead }
        };
        assert_eq!(reap(&rows, Some(me), unknown, |owner| panic!("{owner:?}")), 0);
        assert!(!is_gone(&rows, me) && !is_gone(&rows, hidden));
        let states: Vec<_> = list(&rows, unknown).iter().map(|worker| worker.liveness).collect();
        assert_eq!(states, [Liveness::Dead, Liveness::Unknown]);
    }

    #[test]
    fn a_reaper_that_died_half_way_is_finished_by_the_next() {
        let rows = rows(2);
        let owner = register(&rows, process(5, 50), 0).unwrap();
        let claim = rows[1].claim.load(Ordering::Relaxed);
        rows[1].claim.store(with_state(claim, WorkerState::Dead), Ordering::Relaxed);
        assert_eq!(list(&rows, died(&[]))[0].liveness, Liveness::Dead);
        let mut freed = Vec::new();
        assert_eq!(reap(&rows, None, died(&[]), |owner| freed.push(owner)), 1);
        assert_eq!(freed, [owner]);
    }

    /// The first reaper is stopped while it frees; a second one ends the row, and a process registers.
    #[test]
    fn a_stopped_reaper_leaves_the_next_registration_alone() {
        let rows = rows(2);
        let first = register(&rows, process(5, 50), 0).unwrap();
        let second = Cell::new(None);
        let meanwhile = |owner| {
            assert_eq!(owner, first);
            assert_eq!(reap(&rows, None, died(&[]), |_| {}), 1);
            second.set(register(&rows, process(6, 60), 0));
        };
        assert_eq!(reap(&rows, None, died(&[5]), meanwhile), 0);
        let second = second.get().unwrap();
        assert!(!is_gone(&rows, second));
        assert_eq!(rows[1].start_ticks.load(Ordering::Relaxed), 60);
    }

    #[test]
    fn leaving_twice_leaves_the_next_registration_alone() {
        let rows = rows(2);
        let first = register(&rows, process(5, 50), 0).unwrap();
        leave(&rows, first);
        assert_eq!(rows[1].start_ticks.load(Ordering::Relaxed), 0);
        let second = register(&rows, process(6, 60), 0).unwrap();
        leave(&rows, first);
        assert!(!is_gone(&rows, second));
        assert_eq!(rows[1].start_ticks.load(Ordering::Relaxed), 60);
        leave(&rows, second);
        assert!(is_gone(&rows, second));
    }

    #[test]
    fn a_row_without_generations_left_is_never_used_again() {
        let rows = rows(2);
        rows[1].claim.store(ClaimWord::new(0, 0, 0, OwnerTag::MAX_GENERATION), Ordering::Relaxed);
        assert_eq!(register(&rows, process(1, 1), 0), None);
        assert_eq!(state_of(rows[1].claim.load(Ordering::Relaxed)), WorkerState::Retired);
    }

    #[test]
    fn owners_that_no_table_holds_are_gone() {
        let rows = rows(3);
        assert!(is_gone(&rows, OwnerTag::new(0, 1).unwrap()));
        assert!(is_gone(&rows, OwnerTag::new(900, 1).unwrap()));
        assert!(is_gone(&rows, OwnerTag::new(1, 5).unwrap()));
    }

    #[test]
    fn start_times_are_told_apart_as_far_as_they_are_known() {
        let rows = rows(2);
        let fits = |claim, found| may_have_started(&rows[1], claim, found);
        let start = START_MASK + 1 + 77;
        let claim = ClaimWord::new(WorkerState::Live as u64, 5, start, 1);
        // Half way: the low bits only.
        assert!(fits(claim, start) && fits(claim, 77) && !fits(claim, start + 1));
        rows[1].start_ticks.store(start, Ordering::Relaxed);
        assert!(fits(claim, start) && !fits(claim, 77) && !fits(claim, start + 1));
        // What the row says is somebody else's.
        rows[1].start_ticks.store(start + 3, Ordering::Relaxed);
        assert!(fits(claim, start) && !fits(claim, start + 3));
        // Nothing known.
        rows[1].start_ticks.store(0, Ordering::Relaxed);
        assert!(fits(ClaimWord::new(WorkerState::Live as u64, 5, 0, 1), start));
        // All low bits zero, by chance.
        rows[1].start_ticks.store(START_MASK + 1, Ordering::Relaxed);
        let claim = ClaimWord::new(WorkerState::Live as u64, 5, START_MASK + 1, 1);
        assert!(fits(claim, START_MASK + 1) && !fits(claim, start) && !fits(claim, 0));
    }
}
