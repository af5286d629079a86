//! What this process holds from when it was another program.
//!
//! A program that is replaced in place (exec) keeps its pid and its start time, which is all by which others tell
//! the dead: to them whoever registered before lives. Only the process itself knows that it does not.

use super::{Engine, Reaped};
use crate::layout::ClaimWord;
use crate::liveness::{Liveness, Process};
use crate::region::{Vantage, fork_generation};
use crate::sync::{Ordering, Word};

/// `fork generation + 1 : 63 | done : 1` of the process that has looked, or is looking; a child looks again.
static LOOKED: Word<u64> = Word::new(0);
const DONE: u64 = 1;

impl Engine {
    /// Frees what this process held as another program. To be called before it registers: of this program there
    /// must be no row yet, in no region.
    pub(super) fn reap_former_self(&self) {
        once(&LOOKED, fork_generation(), || {
            self.reap_same(Vantage::of(self.region.header()).own())
        });
    }

    /// Frees what was registered by this very process.
    fn reap_same(&self, own: Process) -> Reaped {
        if own.pid == 0 || own.start_ticks == 0 {
            return Reaped::default();
        }
        self.reap_by(|row, claim: ClaimWord| {
            let same = claim.pid() == u64::from(own.pid)
                && row.start_ticks.load(Ordering::Acquire) == own.start_ticks;
            if same { Liveness::Dead } else { Liveness::Unknown }
        })
    }
}

/// Calls `look` unless it was called in this process, and returns when it is over.
fn once<T>(looked: &Word<u64>, forks: u64, look: impl FnOnce() -> T) {
    let mine = (forks + 1) << 1;
    loop {
        let seen = looked.load(Ordering::Acquire);
        if seen == mine | DONE {
            return;
        }
        if seen == mine {
            // By another thread. One of the parent's has not come along.
            std::thread::yield_now();
        } else if looked.compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            // However it ends, nobody waits for ever.
            let _over = Over { looked, done: mine | DONE };
            look();
            return;
        }
    }
}

struct Over<'a> {
    looked: &'a Word<u64>,
    done: u64,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.looked.store(self.done, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MonotonicClock;
    use crate::config::Capacity;
    use crate::region::create_heap;
    use crate::tables::workers;

    #[test]
    fn what_was_held_as_another_program_is_free_again() {
        let capacity = Capacity::checked(1024, 64, 4).unwrap();
        let engine = Engine::new(create_heap(capacity, Box::new(MonotonicClock)).unwrap());
        let own = Vantage::of(engine.region().header()).own();
        let other = Process { start_ticks: own.start_ticks + 1, ..own };
        let rows = engine.region().workers();
        let before = workers::register(rows, own, 0).unwrap();
        let others = workers::register(rows, other, 0).unwrap();
        // Once only, and that was before this engine registered.
        engine.reap_former_self();
        assert!(!workers::is_gone(rows, before));
        engine.reap_same(Process { start_ticks: 0, ..own });
        assert!(!workers::is_gone(rows, before));
        assert_eq!(engine.reap_same(own).workers, 1);
        assert!(workers::is_gone(rows, before) && !workers::is_gone(rows, others));
        assert!(!workers::is_gone(rows, engine.me().unwrap()), "it is this engine's own row");
    }

    #[test]
    fn threads_wait_for_the_one_that_looks_and_children_look_again() {
        let (looked, looks) = (Word::new(0), Word::<u64>::new(0));
        let look = || {
            std::thread::yield_now();
            looks.fetch_add(1, Ordering::Relaxed);
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    once(&looked, 7, look);
                    assert_eq!(looks.load(Ordering::Relaxed), 1);
                });
            }
        });
        // The parent's thread was looking when it forked.
        looked.store((7 + 1) << 1, Ordering::Relaxed);
        once(&looked, 8, look);
        once(&looked, 8, look);
        assert_eq!(looks.load(Ordering::Relaxed), 2);
    }
}
