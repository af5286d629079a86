//! Which of a process's operations are timed: the first of each thread, then one in so many.
//!
//! The distance to the next one is drawn anew each time, so that no rhythm of the callers' is met: if every
//! request did the same two operations, every second one would always be the same of them. What is not timed
//! costs one load and one subtraction, in memory that no other thread writes to.

use super::Engine;
use super::measure::SeriesId;
use crate::clock::fine_ns;
use crate::primitives::mix;
use crate::sync::{Ordering, Word};
use std::cell::Cell;
use std::sync::OnceLock;

/// `revision:32 | one in:32`, where one in 0 is none. A new revision ends what threads are counting down.
static SETTING: Word<u64> = Word::new(0);

#[derive(Clone, Copy)]
struct Countdown {
    /// Operations until the next that is timed.
    left: u32,
    /// The setting's revision that it was drawn for.
    revision: u32,
    draws: u64,
}

thread_local! {
    static COUNTDOWN: Cell<Countdown> =
        const { Cell::new(Countdown { left: 0, revision: 0, draws: 0 }) };
}

/// Times one in `one_in` operations of this process and of children that it forks from now on; 0 = none.
pub fn set_sampling(one_in: u32) {
    let revision = (SETTING.load(Ordering::Relaxed) >> 32).wrapping_add(1);
    SETTING.store(revision << 32 | u64::from(one_in), Ordering::Relaxed);
}

/// Whether this operation is to be timed.
#[inline]
pub fn is_due() -> bool {
    let setting = SETTING.load(Ordering::Relaxed);
    // Once, because to find a thread's own memory is most of the work.
    COUNTDOWN.with(|countdown| {
        let now = countdown.get();
        if now.left > 0 && u64::from(now.revision) == setting >> 32 {
            countdown.set(Countdown { left: now.left - 1, ..now });
            return false;
        }
        draw(setting, countdown)
    })
}

/// Draws the distance to the next operation that is timed; the average is the setting.
#[cold]
fn draw(setting: u64, countdown: &Cell<Countdown>) -> bool {
    let (revision, one_in) = (setting >> 32, setting & u64::from(u32::MAX));
    let draws = countdown.get().draws.wrapping_add(1);
    // From 1 to twice the average, which is not below 1.
    let distance = 1 + mix(draws) % one_in.saturating_mul(2).saturating_sub(1).max(1);
    let left = if one_in == 0 { u64::from(u32::MAX) } else { distance - 1 };
    countdown.set(Countdown {
        left: u32::try_from(left).unwrap_or(u32::MAX),
        revision: u32::try_from(revision).unwrap_or(0),
        draws,
    });
    one_in > 0
}

/// An operation of one engine's that is timed now and then.
#[derive(Debug)]
pub struct Timed {
    name: &'static str,
    series: OnceLock<SeriesId>,
}

impl Timed {
    /// With the name of its series.
    pub const fn new(name: &'static str) -> Self {
        Self { name, series: OnceLock::new() }
    }
}

impl Engine {
    /// Does something and, if it is due, adds the time that it took to its series. `failed` tells whether it is
    /// to be counted as failed. Where there is no room for another series it is only done, and that is counted.
    #[inline]
    pub fn timed<T>(
        &self,
        timed: &Timed,
        doing: impl FnOnce() -> T,
        failed: impl FnOnce(&T) -> bool,
    ) -> T {
        if !is_due() {
            return doing();
        }
        let begun = fine_ns();
        let done = doing();
        let taken = fine_ns().saturating_sub(begun);
        self.note(timed, taken, failed(&done));
        done
    }

    #[cold]
    fn note(&self, timed: &Timed, ns: u64, failed: bool) {
        let known = timed.series.get().copied().or_else(|| {
            let series = self.series(timed.name).ok()?;
            Some(*timed.series.get_or_init(|| series))
        });
        let Some(series) = known else { return };
        self.measure(series, ns);
        if failed {
            self.measure_failure(series);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;
    use std::sync::{Mutex, PoisonError};

    /// The setting is the process's, and tests are its threads.
    static ALONE: Mutex<()> = Mutex::new(());

    fn due_of(operations: u32) -> u32 {
        (0..operations).map(|_| u32::from(is_due())).sum()
    }

    #[test]
    fn the_first_is_due_and_then_one_in_so_many() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        set_sampling(50);
        assert!(is_due());
        // Of 400 the standard deviation is 12.
        assert!((340..460).contains(&due_of(20_000)));
        // Twice as far as the average is the longest way.
        for _ in 0..100 {
            assert!(due_of(100) > 0);
        }
        set_sampling(1);
        assert_eq!(due_of(100), 100);
        set_sampling(0);
        assert_eq!(due_of(100_000), 0);
        set_sampling(u32::MAX);
        assert_eq!(due_of(1_000), 1);
        set_sampling(0);
    }

    /// A call of two operations, one in two of which is timed, has both of them timed.
    #[test]
    fn no_rhythm_is_met() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        set_sampling(2);
        let mut seen = [0_u32; 2];
        for number in 0..10_000 {
            seen[number % 2] += u32::from(is_due());
        }
        assert!(seen.iter().all(|&n| (2_000..3_000).contains(&n)), "{seen:?}");
        set_sampling(0);
    }

    #[test]
    fn what_is_timed_is_measured_with_its_failures() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (engine, _) = engine();
        let timed = Timed::new("rust_rate_limiter.check_rate_limit");
        set_sampling(1);
        for number in 0..10 {
            assert_eq!(engine.timed(&timed, || number, |&number| number == 3), number);
        }
        set_sampling(0);
        engine.timed(&timed, || (), |()| panic!("not asked"));
        let all = engine.all_measured();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].0.as_str(), all[0].1.count, all[0].1.errors), (timed.name, 10, 1));
    }

    #[test]
    fn without_room_for_its_series_it_is_done_all_the_same() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (engine, _) = engine();
        let room = engine.region.series().len();
        let full = (0..=room).filter(|n| engine.series(&format!("series {n}")).is_ok()).count();
        set_sampling(1);
        assert_eq!(engine.timed(&Timed::new("one more"), || 7, |_| false), 7);
        set_sampling(0);
        assert_eq!(engine.all_measured().len(), full);
        assert_eq!(engine.total(|row| &row.table_full), 2);
    }
}
