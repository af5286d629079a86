//! Forgetting what a key was charged, by hand.
//!
//! Each word is swapped from what was seen, while the record is the key's: whatever is charged meanwhile is either
//! forgotten with the rest or charged afterwards, and a key that gets the record meanwhile loses nothing. The window
//! goes before its counters, so that a process that dies in between leaves counters of a window that is over.
//!
//! Slots stay held and tallies stay counted. What a request gives back that was charged before is given back to what
//! is charged afterwards if the window is the same one (a sliding window, or an anchored one that is opened again in
//! the second in which it was forgotten); a rate tells the two apart.

use super::Engine;
use super::keys::Key;
use super::quota::Place;
use crate::error::OpError;
use crate::layout::{IdentityWord, KeyKind, section};
use crate::primitives::{Contended, MAX_TRIES, Shared, gcra};
use crate::sync::{Bits, Ordering};
use crate::tables::index;

/// Whether keys of that kind are charged at all.
pub fn is_charged(identity: IdentityWord) -> bool {
    matches!(
        KeyKind::from_raw(identity.kind()),
        Some(KeyKind::Gcra | KeyKind::Window | KeyKind::Counter | KeyKind::Sliding)
    )
}

impl Engine {
    /// Forgets what the key in a bucket of the region was charged, as if it had never been used. False = it no longer
    /// stands there, or is never charged.
    ///
    /// # Errors
    /// `Contended` when it is charged under every try; some of its words may be forgotten by then.
    pub fn reset_at(&self, place: Place) -> Result<bool, OpError> {
        let found = self.region.buckets().get(place.slot).and_then(|bucket| place.key_in(bucket));
        let Some(key) = found.filter(|key| is_charged(key.identity)) else { return Ok(false) };
        let forgotten = self.rounds(&key, || match KeyKind::from_raw(key.identity.kind()) {
            Some(KeyKind::Gcra) => gcra::forget(key.state()),
            _ => forget_words(&key),
        })?;
        Ok(forgotten.is_some())
    }

    /// As [`Self::reset_at`], for every key of the region; returns how many those were. What keys without room are
    /// decided by in a process's own memory stays.
    ///
    /// # Errors
    /// As with one key; those behind it in the table are as they were.
    pub fn reset_all(&self) -> Result<u64, OpError> {
        let mut keys = 0;
        for (slot, bucket) in self.region.written(section::BUCKETS, self.region.buckets()) {
            let identity = index::key_of(bucket.identity.load(Ordering::Acquire));
            let Some(identity) = identity else { continue };
            keys += u64::from(self.reset_at(Place { slot, identity })?);
        }
        Ok(keys)
    }
}

fn forget_words(key: &Key<'_>) -> Result<(), Contended> {
    zero(key.held(|bucket| &bucket.window))?;
    zero(key.state())?;
    zero(key.held(|bucket| &bucket.tokens))
}

fn zero<S: Shared>(word: S) -> Result<(), Contended> {
    let zero = Bits::from_bits(0);
    let mut seen = word.load(Ordering::Acquire);
    for _ in 0..MAX_TRIES {
        if seen.bits() == 0 {
            return Ok(());
        }
        match word.compare_exchange(seen, zero, Ordering::SeqCst, Ordering::Acquire) {
            Ok(_) => return Ok(()),
            Err(now) => seen = now,
        }
    }
    Err(Contended)
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;
    use crate::engine::admission::{Answer, Demand, Rule};
    use crate::engine::slots::SlotAsk;
    use crate::engine::subject::Part;
    use crate::engine::windows::{Ask, Verdict};
    use crate::inspect::search::{Wanted, search};
    use crate::primitives::gcra::{Decision, Quota};
    use crate::primitives::sliding::SlidingLimit;
    use crate::sync::Word;

    const S: &str = "{user:u}";
    const SLOTS: &str = "{user:u}:max_parallel_requests";

    fn place(engine: &Engine, name: &str) -> Place {
        let found = search(engine.region(), &Wanted::new(name));
        Place { slot: found[0].slot, identity: found[0].identity }
    }

    #[test]
    fn a_key_of_each_kind_is_as_if_it_had_never_been_used_but_for_slots_and_tallies() {
        let (engine, _) = engine();
        let rate = engine.limiter("", Quota::new(60, 6).unwrap());
        let sliding = engine.sliding_limiter("", SlidingLimit::new(5, 60).unwrap());
        let window = |part| Rule::Window { part, limit: 9, size_s: 60 };
        let demands = || {
            [
                Demand::new("rated", Rule::Rate(&rate), 6),
                Demand::new("slid", Rule::Sliding(&sliding), 5),
                Demand::new(S, window(Part::Requests), 9),
                Demand::new(S, window(Part::Tokens), 9),
            ]
        };
        assert_eq!(engine.admit(&mut demands()), Ok(Answer::Granted));
        engine.add("counted", 7, 600).unwrap();
        engine.acquire_all(&[SlotAsk { key: SLOTS, limit: 1, ttl_s: 0, slot_id: "x" }]).unwrap();
        let tallies = |name: &str| {
            let bucket = &engine.region().buckets()[place(&engine, name).slot];
            [&bucket.allowed, &bucket.denied].map(|word| word.load(Ordering::Relaxed))
        };
        let names = ["rated", "slid", S, "counted"];
        let before = names.map(tallies);
        for name in names {
            let granted = engine.admit(&mut demands()) == Ok(Answer::Granted);
            assert_eq!(granted, name == "counted", "{name}");
            assert_eq!(engine.reset_at(place(&engine, name)), Ok(true));
            assert_eq!(engine.reset_at(place(&engine, name)), Ok(true), "twice is once");
            let open = engine.value("{user:u}:window").is_some();
            assert!(!open || name != S, "the next request opens another one");
        }
        let after = names.map(tallies);
        assert!(before.iter().zip(&after).all(|(before, after)| before[0] <= after[0]));
        assert_eq!(engine.value("counted"), None);
        assert_eq!(engine.count_slots(SLOTS, 0), Ok(1));
        assert!(matches!(engine.admit(&mut demands()), Ok(Answer::Refused(_))));
        assert_eq!(engine.reset_all(), Ok(4));
        assert_eq!(engine.admit(&mut demands()), Ok(Answer::Granted));
    }

    #[test]
    fn what_stands_nowhere_or_is_never_charged_is_left_alone() {
        let (engine, _) = engine();
        engine.check(&engine.limiter("", Quota::new(60, 1).unwrap()), b"k").unwrap();
        let Place { slot, identity } = place(&engine, "k");
        assert_eq!(engine.reset_at(Place { slot: usize::MAX, identity }), Ok(false));
        let other = index::identity(KeyKind::Gcra, 77 << 13);
        assert_eq!(engine.reset_at(Place { slot, identity: other }), Ok(false));
        let chunk = index::identity(KeyKind::Chunk, 1 << 13);
        engine.region().buckets()[slot].identity.store(chunk, Ordering::SeqCst);
        assert_eq!(engine.reset_at(Place { slot, identity: chunk }), Ok(false));
        assert!(engine.region().buckets()[slot].requests.load(Ordering::SeqCst).bits() != 0);
    }

    /// What was charged before it was forgotten is not given back to what is charged afterwards.
    #[test]
    fn a_late_refund_mints_no_credit_in_a_rate() {
        let (engine, _) = engine();
        let rate = engine.limiter("", Quota::new(60, 6).unwrap());
        let demand = || [Demand::new("k", Rule::Rate(&rate), 6)];
        let (mut before, mut after) = (demand(), demand());
        assert_eq!(engine.admit(&mut before), Ok(Answer::Granted));
        assert_eq!(engine.reset_at(place(&engine, "k")), Ok(true));
        assert_eq!(engine.admit(&mut after), Ok(Answer::Granted));
        engine.cancel(&mut before);
        assert!(matches!(engine.check(&rate, b"k"), Ok(Decision::Denied { .. })));
    }

    /// Threads charge while others reset: between two resets nobody gets more than the limits.
    #[test]
    fn charges_and_resets_at_once_admit_one_limit_for_each_reset_at_most() {
        const ROUNDS: u64 = if cfg!(miri) { 3 } else { 300 };
        let (engine, _) = engine();
        let rate = engine.limiter("", Quota::new(60, 6).unwrap());
        let sliding = engine.sliding_limiter("", SlidingLimit::new(6, 60).unwrap());
        let ask = Ask {
            window: "{user:u}:window",
            counter: "{user:u}:requests",
            limit: 6,
            amount: 1,
            size_s: 60,
        };
        let admitted: [Word<u64>; 3] = std::array::from_fn(|_| Word::new(0));
        let charge = || {
            let granted = [
                matches!(engine.check(&rate, b"rated"), Ok(Decision::Allowed { .. })),
                matches!(
                    engine.check_sliding(&sliding, b"slid", 1),
                    Ok(crate::primitives::sliding::Decision::Allowed { .. })
                ),
                matches!(engine.admit_all(&[ask]), Ok(Verdict::Admitted(_))),
            ];
            for (count, granted) in admitted.iter().zip(granted) {
                count.fetch_add(granted.into(), Ordering::Relaxed);
            }
        };
        charge();
        let places = ["rated", "slid", S].map(|name| place(&engine, name));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..20 * ROUNDS).for_each(|_| charge()));
            }
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    for place in places {
                        assert_eq!(engine.reset_at(place), Ok(true));
                    }
                    std::thread::yield_now();
                }
            });
        });
        (0..7).for_each(|_| charge());
        let admitted = admitted.map(|count| count.load(Ordering::Relaxed));
        assert!(
            admitted.iter().all(|count| (6..=6 * (ROUNDS + 1)).contains(count)),
            "{admitted:?}"
        );
        assert_eq!(crate::verify::verify(engine.region()), []);
    }

    /// A place that was found, and passes to another key before it is reset: that one loses nothing.
    #[test]
    fn a_key_that_was_given_up_takes_its_place_along() {
        let (engine, clock) = engine();
        let rate = engine.limiter("", Quota::new(6_000, 1).unwrap());
        let table = engine.region().key_buckets().0.len();
        let known = |n: usize| engine.place(&rate, format!("k{n}").as_bytes());
        let places: Vec<Place> = (0..table / 2).map(|n| known(n).unwrap()).collect();
        clock.advance_s(60);
        let counters = (0..table).map(|n| format!("c{n}"));
        let counters: Vec<_> = counters.filter(|key| engine.add(key, 7, 3_600).is_ok()).collect();
        let gone = places.iter().filter(|&&place| engine.reset_at(place) == Ok(false)).count();
        assert!(gone > 0 || cfg!(miri));
        assert!(counters.iter().all(|key| engine.value(key) == Some(7)));
    }
}
