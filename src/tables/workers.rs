//! Who is whom, and who is dead.
//!
//! A process registers by one swap of its row's claim word, which holds everything that a later proof of
//! its death needs: pid, start time, and a generation that is never used again. Leases name the row and
//! the generation, never the pid.
//!
//! Death is proven, never assumed: the pid is gone, is a zombie, or belongs to a process that started at
//! another time. A stopped, swapped or invisible process is alive. A proven row goes from live to dead
//! by one swap, then its leases are freed, then it becomes free again; whoever dies in between leaves a
//! dead row that anybody may finish.

use crate::layout::{ClaimWord, OwnerTag, WorkerRow, WorkerState};
use crate::region::host::{self, Liveness};
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

/// Registers this process; `None` = no free row.
///
/// Linearization point: the successful swap.
pub fn register(rows: &[WorkerRow], pid: u32, start_ticks: u64, now_s: u64) -> Option<OwnerTag> {
    for (number, row) in rows.iter().enumerate().skip(FIRST_ROW) {
        let seen = row.claim.load(Ordering::Acquire);
        if WorkerState::from_raw(seen.state()) != WorkerState::Free {
            continue;
        }
        let generation = seen.generation() + 1;
        let Some(owner) = u32::try_from(number).ok().and_then(|n| OwnerTag::new(n, generation))
        else {
            retire(row, seen);
            continue;
        };
        let claim =
            ClaimWord::new(WorkerState::Live as u64, u64::from(pid), start_ticks, generation);
        if row.claim.compare_exchange(seen, claim, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            row.start_ticks.store(start_ticks, Ordering::Relaxed);
            row.registered_s.store(now_s, Ordering::Relaxed);
            row.pid_namespace.store(host::namespace("pid"), Ordering::Relaxed);
            return Some(owner);
        }
    }
    None
}

fn retire(row: &WorkerRow, seen: ClaimWord) {
    let retired = ClaimWord::new(WorkerState::Retired as u64, 0, 0, seen.generation());
    let _ = row.claim.compare_exchange(seen, retired, Ordering::AcqRel, Ordering::Relaxed);
}

/// Whether the process of a live row is alive. The region's pid namespace must be this process's.
pub fn liveness(row: &WorkerRow, claim: ClaimWord) -> Liveness {
    let namespace = row.pid_namespace.load(Ordering::Relaxed);
    if namespace != 0 && namespace != host::namespace("pid") {
        // Its pid means somebody else here.
        return Liveness::Unknown;
    }
    let full = row.start_ticks.load(Ordering::Relaxed);
    let low = claim.start_low();
    // Between the claim and the store of the full start time only its low bits are known.
    let full = if full & START_MASK == low { full } else { 0 };
    let matches = |found: u64| {
        if full == 0 { low == 0 || found & START_MASK == low } else { found == full }
    };
    host::liveness(i32::try_from(claim.pid()).unwrap_or(0), matches)
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
    claim.generation() != owner.generation()
        || WorkerState::from_raw(claim.state()) != WorkerState::Live
}

/// Marks every live row dead whose process is proven dead, then calls `free` once for each dead row's
/// owner and, when that returns, gives the row back. `me` is never examined. Returns the rows freed.
pub fn reap(rows: &[WorkerRow], me: Option<OwnerTag>, mut free: impl FnMut(OwnerTag)) -> u64 {
    let mut reaped = 0;
    for (number, row) in rows.iter().enumerate().skip(FIRST_ROW) {
        let mut claim = row.claim.load(Ordering::Acquire);
        let Some(owner) =
            u32::try_from(number).ok().and_then(|n| OwnerTag::new(n, claim.generation()))
        else {
            continue;
        };
        if Some(owner) == me {
            continue;
        }
        if WorkerState::from_raw(claim.state()) == WorkerState::Live {
            if liveness(row, claim) != Liveness::Dead {
                continue;
            }
            let dead = with_state(claim, WorkerState::Dead);
            if row.claim.compare_exchange(claim, dead, Ordering::AcqRel, Ordering::Relaxed).is_err()
            {
                continue;
            }
            claim = dead;
        }
        if WorkerState::from_raw(claim.state()) == WorkerState::Dead {
            free(owner);
            // The next holder's start time must never be taken for this one's.
            row.start_ticks.store(0, Ordering::Relaxed);
            row.pid_namespace.store(0, Ordering::Relaxed);
            let next = with_state(claim, WorkerState::Free);
            if row.claim.compare_exchange(claim, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                reaped += 1;
            }
        }
    }
    reaped
}

/// Gives the row of a living process back. Its leases must have been freed before.
pub fn leave(rows: &[WorkerRow], owner: OwnerTag) {
    let Some(row) = rows.get(owner.row() as usize) else {
        return;
    };
    let claim = row.claim.load(Ordering::Acquire);
    if claim.generation() == owner.generation() {
        row.start_ticks.store(0, Ordering::Relaxed);
        row.pid_namespace.store(0, Ordering::Relaxed);
        let free = with_state(claim, WorkerState::Free);
        let _ = row.claim.compare_exchange(claim, free, Ordering::AcqRel, Ordering::Relaxed);
    }
}

fn with_state(claim: ClaimWord, state: WorkerState) -> ClaimWord {
    ClaimWord::new(state as u64, claim.pid(), claim.start_low(), claim.generation())
}

/// All rows that are live or being reaped.
pub fn list(rows: &[WorkerRow]) -> Vec<Worker> {
    let mut found = Vec::new();
    for (number, row) in rows.iter().enumerate().skip(FIRST_ROW) {
        let claim = row.claim.load(Ordering::Acquire);
        let state = WorkerState::from_raw(claim.state());
        let owner = u32::try_from(number).ok().and_then(|n| OwnerTag::new(n, claim.generation()));
        let (Some(owner), WorkerState::Live | WorkerState::Dead) = (owner, state) else {
            continue;
        };
        let liveness =
            if state == WorkerState::Live { liveness(row, claim) } else { Liveness::Dead };
        found.push(Worker {
            row: number,
            owner,
            state,
            pid: i32::try_from(claim.pid()).unwrap_or(0),
            liveness,
            registered_s: row.registered_s.load(Ordering::Relaxed),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::Word;

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

    #[test]
    fn rows_are_reused_with_a_new_generation() {
        let rows = rows(3);
        let own = host::own_start_ticks();
        let first = register(&rows, std::process::id(), own + 1, 0).unwrap();
        let second = register(&rows, std::process::id(), own, 0).unwrap();
        assert_eq!(register(&rows, 1, 1, 0), None);
        let mut freed = Vec::new();
        assert_eq!(reap(&rows, None, |owner| freed.push(owner)), 1);
        assert_eq!(freed, [first]);
        assert!(is_gone(&rows, first));
        assert!(!is_gone(&rows, second));
        let third = register(&rows, std::process::id(), own, 0).unwrap();
        assert_eq!((third.row(), third.generation()), (first.row(), first.generation() + 1));
        assert!(is_gone(&rows, first));
    }

    #[test]
    fn a_reaper_that_died_half_way_is_finished_by_the_next() {
        let rows = rows(2);
        let owner = register(&rows, 1, 1, 0).unwrap();
        let claim = rows[1].claim.load(Ordering::Relaxed);
        rows[1].claim.store(with_state(claim, WorkerState::Dead), Ordering::Relaxed);
        let mut freed = Vec::new();
        assert_eq!(reap(&rows, None, |owner| freed.push(owner)), 1);
        assert_eq!(freed, [owner]);
    }

    #[test]
    fn a_row_without_generations_left_is_never_used_again() {
        let rows = rows(2);
        rows[1].claim.store(ClaimWord::new(0, 0, 0, OwnerTag::MAX_GENERATION), Ordering::Relaxed);
        assert_eq!(register(&rows, 1, 1, 0), None);
        let state = rows[1].claim.load(Ordering::Relaxed).state();
        assert_eq!(WorkerState::from_raw(state), WorkerState::Retired);
    }

    #[test]
    fn owners_that_no_table_holds_are_gone() {
        let rows = rows(3);
        assert!(is_gone(&rows, OwnerTag::new(0, 1).unwrap()));
        assert!(is_gone(&rows, OwnerTag::new(900, 1).unwrap()));
        assert!(is_gone(&rows, OwnerTag::new(1, 5).unwrap()));
    }

    #[test]
    fn registering_half_way_is_recognised_by_the_low_start_bits() {
        let rows = rows(2);
        let own = host::own_start_ticks();
        let claim = ClaimWord::new(WorkerState::Live as u64, u64::from(std::process::id()), own, 1);
        rows[1].claim.store(claim, Ordering::Relaxed);
        assert_eq!(liveness(&rows[1], claim), Liveness::Alive);
        let other = ClaimWord::new(1, u64::from(std::process::id()), own + 1, 1);
        assert_eq!(liveness(&rows[1], other), Liveness::Dead);
    }
}
