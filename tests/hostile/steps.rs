//! Bounds of all operations on any region, in steps: accesses to shared words, the process's own included.
//! `docs/guarantees.md` has the same as a table. Counted in builds with the feature `steps` only.
//!
//! They hold while nobody else writes. A word that changes under an operation costs it one round more, of a
//! number of rounds that is bounded, too; `loom_*` look at that.

use fast_litellm::region::Region;

/// To look a key up, to read what stands there, or to give back what was got there: two tables of 64 places,
/// of which the first four are looked at twice, and a record.
const LOOK: u64 = 600;
/// Words of a notice's sheet, and its head.
const SHEET: u64 = 16_384 + 300;
/// What a process does for itself when it registers: it forgets which slots its parent held.
const FORGET: u64 = 1 << 15;

/// What the bounds depend on.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    workers: u64,
    chunks: u64,
    endpoints: u64,
    words: u64,
}

impl Size {
    pub fn of(region: &Region) -> Self {
        Self {
            workers: region.workers().len() as u64,
            chunks: region.chunks().len() as u64,
            endpoints: region.endpoints().len() as u64,
            words: region.len() / 8,
        }
    }

    /// To count the slots of a key that may have all chunks: each is looked up, and has 32.
    fn count(self) -> u64 {
        100 * (self.chunks + 1)
    }

    /// To free what a worker held in every chunk, and to count again for the keys that it was held under.
    fn free(self) -> u64 {
        4 * self.count()
    }

    /// To reap all workers.
    fn reap(self) -> u64 {
        self.workers * self.free()
    }

    /// To find room for a key: in each of its 64 places, and in those of the keys that share one, stands a
    /// key whose slots must be counted.
    fn insert(self) -> u64 {
        150 * self.count()
    }

    /// To claim a slot of a key that may have all chunks, none of which has room: four times through them
    /// all, each time with the 64 places of each.
    fn claim(self) -> u64 {
        100 * self.count()
    }

    /// To register.
    pub fn register(self) -> u64 {
        self.reap() + FORGET + LOOK
    }

    /// To claim slots under so many keys.
    pub fn slots(self, keys: u64) -> u64 {
        keys * (self.insert() + self.claim()) + self.register()
    }

    /// The operation of that name, as `drive` calls it. One that is not named here may do everything once.
    pub fn operation(self, name: &str) -> u64 {
        match name {
            "limiter" | "me" | "count" | "flag" | "set_flag" | "feature_error"
            | "feature_errors" | "feature_standing" | "feature_admits" | "feature_recovered"
            | "reset_feature" | "set_overflow" | "check_at" | "remaining" | "remaining_sliding"
            | "note_refusal" | "forget" | "spent" | "cooldown" | "scores" | "cooldown_left_ms"
            | "end_cooldown" | "end_cooldown_at" | "flights_to" | "health" | "still_leads"
            | "resign" | "leader" | "arrive" | "cancel" | "finish" | "settle" | "series"
            | "series_at" | "measure" | "measure_failure" | "measure_bytes" | "timed"
            | "note_by_hand" => LOOK,
            "value" => 4 * LOOK,
            "release" | "holds_slot" => 2 * self.count() + LOOK,
            "total" | "limiter_totals" | "measured" | "all_measured" | "recent_events"
            | "reset_all" => self.words,
            "leave" => self.free() + LOOK,
            "in_flight" | "count_slots" | "reap_dead" | "reap_all" => {
                self.reap() + 2 * self.free() + LOOK
            }
            // Two sheets, four times, and a look at the other writers now and then.
            "notice" => 8 * SHEET + LOOK,
            "publish" => self.register() + 3 * SHEET + LOOK,
            // Of each endpoint the chunks are looked up, and each idle slot leads to another one.
            "pool_stats" | "sweep_pool" => {
                self.register() + 2 * self.endpoints * self.count() + self.claim()
            }
            // Also the idle slots of the endpoint and of the pool, each of which leads to another one.
            "connect" | "connect_at" => self.slots(2) + 2 * self.claim(),
            "lead" => self.slots(1) + self.reap(),
            "admit" => self.slots(4),
            "acquire_all" | "admit_all" | "hit_all" => self.slots(2),
            _ => self.slots(1),
        }
    }
}

/// To attach to a file of so many bytes, to verify the region in it, or to report what it says.
pub fn look(len: u64) -> u64 {
    4 * (len / 8)
}

/// Does something that may take so many steps.
#[cfg(feature = "steps")]
pub fn within<R>(most: u64, doing: impl FnOnce() -> R) -> R {
    fast_litellm::sync::steps::within(most, doing).0
}

/// Does something; steps are not counted in this build.
#[cfg(not(feature = "steps"))]
pub fn within<R>(_most: u64, doing: impl FnOnce() -> R) -> R {
    doing()
}

#[cfg(all(test, feature = "steps"))]
mod tests {
    use fast_litellm::sync::{Ordering, Word, steps};

    #[test]
    fn steps_are_counted_in_this_thread_only() {
        let word = Word::new(0_u64);
        let ((), taken) = steps::within(3, || {
            word.fetch_add(1, Ordering::Relaxed);
            std::thread::scope(|scope| {
                scope.spawn(|| (0..9).for_each(|_| word.store(1, Ordering::Relaxed)));
            });
            word.load(Ordering::Relaxed);
        });
        assert_eq!(taken, 2);
    }

    #[test]
    #[should_panic(expected = "more steps than it may take")]
    fn what_never_ends_is_stopped() {
        let word = Word::new(0_u64);
        steps::within(1_000, || while word.load(Ordering::Relaxed) == 0 {});
    }
}
