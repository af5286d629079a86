//! All operations at once on a region so small that keys and chunks are given up all the time. For Miri above
//! all, which sees data races and orders that this machine does not make; so it is little that each test does.

use super::Engine;
use super::admission::{Answer, Demand, Rule};
use super::health::{Cause, Departure};
use super::quota::Limiter;
use super::sliding::SlidingLimiter;
use super::slots::{Grant, SlotAsk};
use super::subject::Part;
use super::windows::{Ask, Verdict};
use crate::clock::FakeClock;
use crate::config::{Capacity, Overflow};
use crate::inspect::Report;
use crate::layout::FailureKind;
use crate::primitives::gcra::{Decision, Quota};
use crate::primitives::sliding::SlidingLimit;
use crate::region::create_heap;
use crate::sync::{Ordering, Word};
use crate::verify::{Severity, verify};

/// Times that a thread does everything.
const ROUNDS: usize = if cfg!(miri) { 1 } else { 200 };
const THREADS: usize = 3;
const BURST: u32 = 2;
const WINDOW: i64 = 4;
const SLOTS: i64 = 2;

struct Together {
    engine: Engine,
    clock: FakeClock,
    rate: Limiter,
    sliding: SlidingLimiter,
    /// Granted so far, and slots held now.
    rated: Word<u64>,
    charged: Word<u64>,
    held: Word<u64>,
}

impl Together {
    fn new() -> Self {
        let clock = FakeClock::at(1_000_000_000_000);
        // Less than a creator may choose: 64 places for keys, all of which each key may stand in.
        let capacity = Capacity { keys: 42, lease_chunks: 8, workers: 4, deployments: 8 };
        let region = create_heap(capacity, Box::new(clock.clone())).expect("heap");
        let engine = Engine::new(region);
        let rate = engine.limiter("", Quota::new(1, BURST).expect("valid"));
        let sliding = engine.sliding_limiter("", SlidingLimit::new(9, 60).expect("valid"));
        let [rated, charged, held] = std::array::from_fn(|_| Word::new(0));
        Self { engine, clock, rate, sliding, rated, charged, held }
    }

    fn count(counter: &Word<u64>, yes: bool) {
        counter.fetch_add(u64::from(yes), Ordering::Relaxed);
    }

    /// Limits that all threads share: what is granted is counted.
    fn limits(&self) {
        let checked = self.engine.check(&self.rate, b"shared");
        Self::count(&self.rated, matches!(checked, Ok(Decision::Allowed { .. })));
        let (window, counter) = ("{user:a}:window", "{user:a}:requests");
        let ask = Ask { window, counter, limit: WINDOW, amount: 1, size_s: 60 };
        let asked = self.engine.admit_all(&[ask]).expect("decides");
        Self::count(&self.charged, matches!(asked, Verdict::Admitted(_)));
        let _ = self.engine.check_sliding(&self.sliding, b"shared", 1);
    }

    fn slots(&self, slot_id: &str) {
        let key = "{user:a}:max_parallel_requests";
        let ask = SlotAsk { key, limit: SLOTS, ttl_s: 0, slot_id };
        if let Ok(Grant::Held(_)) = self.engine.acquire_all(&[ask]) {
            let others = self.held.fetch_add(1, Ordering::SeqCst);
            assert!(others < SLOTS.unsigned_abs(), "{others} others hold a slot");
            self.held.fetch_sub(1, Ordering::SeqCst);
            self.engine.release(key, slot_id).expect("held");
        }
    }

    fn admission(&self, key: &str) {
        let window = Rule::Window { part: Part::Tokens, limit: 50, size_s: 60 };
        let mut demands = [
            Demand::new("{team:t}", Rule::Slots { limit: 2, ttl_s: 0 }, 1),
            Demand::new("{team:t}", window, 5),
            Demand::new(key, Rule::Rate(&self.rate), 1),
        ];
        if self.engine.admit(&mut demands) == Ok(Answer::Granted) {
            self.engine.settle(&mut demands, &[1, 7, 1]).expect("decides");
            self.engine.finish(&mut demands);
        }
    }

    fn deployment(&self) {
        if let Ok(Departure::Sent(flight)) = self.engine.depart("gpt", Some(2)) {
            self.engine.arrive(&flight);
        }
        let _ = self.engine.cool_down("gpt", 1_000, &Cause::of(FailureKind::Timeout));
        let _ = self.engine.end_cooldown("gpt");
        let series = self.engine.series("routing").expect("room");
        self.engine.measure(series, 1_000);
    }

    /// More keys than there is room for.
    fn crowd(&self, thread: usize, keys: usize) {
        for number in 0..keys {
            let _ = self.engine.add(&format!("{thread}:{number}"), 1, 1);
        }
    }

    fn everything(&self, thread: usize) {
        for round in 0..ROUNDS {
            self.limits();
            self.slots(&format!("{thread}:{round}"));
            self.admission("shared too");
            self.deployment();
            let _ = self.engine.recent_events(4).count();
        }
    }
}

#[test]
fn threads_that_do_everything_at_once_keep_every_limit() {
    let together = Together::new();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let together = &together;
            scope.spawn(move || together.everything(thread));
        }
    });
    let get = |word: &Word<u64>| word.load(Ordering::SeqCst);
    let tried = (THREADS * ROUNDS) as u64;
    assert_eq!(get(&together.rated), tried.min(u64::from(BURST)));
    assert_eq!(get(&together.charged), tried.min(WINDOW.unsigned_abs()));
    assert_eq!(together.engine.count_slots("{user:a}:max_parallel_requests", 0), Ok(0));
    assert_eq!(verify(together.engine.region()), []);
}

/// Keys come and go in the same places, and readers look on.
#[test]
fn threads_that_want_the_same_places_and_readers_do_not_harm_each_other() {
    let together = Together::new();
    together.engine.region().set_overflow(Overflow::Shared);
    let keys = if cfg!(miri) { 4 } else { 60 };
    // All places are taken by keys that are idle by now.
    together.crowd(0, 64);
    together.clock.advance_s(5);
    std::thread::scope(|scope| {
        let together = &together;
        for thread in 1..THREADS {
            scope.spawn(move || together.crowd(thread, keys));
        }
        let found = verify(together.engine.region());
        assert!(found.iter().all(|finding| finding.severity == Severity::Harmless), "{found:?}");
        assert!(!Report::of(together.engine.region()).limits.is_empty());
    });
    assert!(together.engine.total(|row| &row.keys_reclaimed) > 0);
    // Looked at above, which takes an interpreter long enough.
    if !cfg!(miri) {
        assert_eq!(verify(together.engine.region()), []);
    }
}
