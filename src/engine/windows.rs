//! Anchored windows over several keys at once, with the replies LiteLLM's scripts give.

use super::keys::Key;
use super::subject::{HeldPair, Part, Subject};
use super::{Engine, ROUNDS};
use crate::clock::Instant;
use crate::error::OpError;
use crate::layout::{CounterWord, PairWord, WindowWord};
use crate::primitives::window::{self, Charged, Outcome};
use crate::primitives::{Contended, Shared};
use crate::sync::{Bits, Ordering, add_one};

/// One conditional charge of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The window's key.
    pub window: &'a str,
    /// The counter's key.
    pub counter: &'a str,
    /// The counter may not pass this.
    pub limit: i64,
    /// What to add. With 0 nothing is added, but a counter at its limit still refuses.
    pub amount: i64,
    /// Length of the window in seconds.
    pub size_s: u64,
}

/// A counter after a charge, with the Unix second at which its window started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// New value.
    pub count: i64,
    /// Start of its window, Unix seconds.
    pub window_start: u64,
}

/// The answer to a batch of conditional charges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All were charged.
    Admitted(Vec<Count>),
    /// None was charged, because this one would have passed its limit.
    Refused {
        /// Position in the batch.
        position: usize,
        /// Where its counter stands.
        count: i64,
        /// Its limit.
        limit: i64,
    },
}

struct Resolved<'a> {
    key: Key<'a>,
    pair: HeldPair<'a>,
    part: Part,
}

impl Engine {
    fn resolve(&self, window: &str, counter: &str) -> Result<Resolved<'_>, OpError> {
        let (of_window, of_counter) = (Subject::parse(window), Subject::parse(counter));
        if of_window.part != Part::Window || of_window.name != of_counter.name {
            return Err(OpError::OutOfRange);
        }
        let key = self.subject(of_counter)?;
        let pair = key.pair(of_counter.part).ok_or(OpError::OutOfRange)?;
        self.mend_window(&key);
        Ok(Resolved { key, pair, part: of_counter.part })
    }

    /// A window that starts in the future can only be damage: the clock is read after the word, and a
    /// start is always written from an earlier reading. It is closed, so that limits go on.
    pub(super) fn mend_window(&self, key: &Key<'_>) -> bool {
        self.close_future_window(key.window())
    }

    pub(super) fn close_future_window(&self, window: impl Shared<Value = WindowWord>) -> bool {
        let seen = window.load(Ordering::Acquire);
        if starts_in_future(seen, self.now().s()) {
            let closed = WindowWord::default();
            let swap = window.compare_exchange(seen, closed, Ordering::AcqRel, Ordering::Relaxed);
            if swap.is_ok() {
                self.count(|row| &row.corrected);
            }
            return swap.is_ok();
        }
        false
    }

    /// Repeats a step on a key's words that runs out of tries; `None` = the key has been given up meanwhile,
    /// and nothing was done.
    pub(super) fn rounds<T>(
        &self,
        key: &Key<'_>,
        mut step: impl FnMut() -> Result<T, Contended>,
    ) -> Result<Option<T>, OpError> {
        for _ in 0..ROUNDS {
            if let Ok(done) = step() {
                return Ok(Some(done));
            }
            if !key.holds() {
                return Ok(None);
            }
            std::hint::spin_loop();
        }
        Err(self.counted(OpError::Contended))
    }

    /// Repeats `step` while a key it charged is given up under it.
    pub(super) fn until_settled<T>(
        &self,
        step: impl Fn() -> Result<Option<T>, OpError>,
    ) -> Result<T, OpError> {
        for _ in 0..ROUNDS {
            if let Some(done) = step()? {
                return Ok(done);
            }
            self.count(|row| &row.misplaced);
        }
        Err(self.counted(OpError::Contended))
    }

    fn count_of(&self, charged: Charged) -> Count {
        let window_start = self.region.wall_s(charged.window.start_s());
        Count { count: charged.count, window_start }
    }

    /// Adds 1 to each counter, limits or not, opening windows of `size_s` seconds as needed.
    ///
    /// All keys are found before anything is charged, so that a full table charges nothing.
    pub fn hit_all(&self, pairs: &[(&str, &str)], size_s: u64) -> Result<Vec<Count>, OpError> {
        check_size(size_s)?;
        self.until_settled(|| self.try_hit_all(pairs, size_s))
    }

    fn try_hit_all(
        &self,
        pairs: &[(&str, &str)],
        size_s: u64,
    ) -> Result<Option<Vec<Count>>, OpError> {
        let found = pairs
            .iter()
            .map(|(window, counter)| self.resolve(window, counter))
            .collect::<Result<Vec<_>, _>>()?;
        let now_s = self.now().s();
        let mut done: Vec<Charged> = Vec::with_capacity(found.len());
        for entry in &found {
            let charge = || window::charge(entry.pair, now_s, size_s, 1, |_| true);
            let outcome = self.rounds(&entry.key, charge);
            if let Ok(Some(Outcome::Admitted(charged))) = outcome {
                done.push(charged);
                continue;
            }
            for (entry, charged) in found.iter().zip(&done) {
                self.take_back(entry, *charged, 1);
            }
            return match outcome? {
                Some(Outcome::Refused { .. }) => Err(OpError::OutOfRange),
                _ => Ok(None),
            };
        }
        for (entry, charged) in found.iter().zip(&done) {
            let bucket = entry.key.bucket;
            let limit = entry.part.limit(bucket.limits.load(Ordering::Relaxed));
            // A hit past the limit is refused by whoever counts it, and noted by them.
            if limit == 0 || charged.count <= i64::try_from(limit).unwrap_or(i64::MAX) {
                bucket.allowed.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.stats().window_charged.fetch_add(done.len() as u64, Ordering::Relaxed);
        Ok(Some(done.into_iter().map(|charged| self.count_of(charged)).collect()))
    }

    /// Counts a refusal that the caller decided, from a value it read or after an unconditional hit.
    pub fn note_refusal(&self, subject: &str) {
        if let Some(key) = self.known_subject(Subject { name: subject, part: Part::Window }) {
            add_one(&key.bucket.denied);
        }
    }

    /// Remembers the limits of a window's subject (`{...}`, 0 = none), which its unconditional hits do
    /// not tell. For display, and for telling admitted hits from refused ones in the tallies.
    pub fn note_limits(&self, subject: &str, requests: u64, tokens: u64) -> Result<(), OpError> {
        let key = self.subject(Subject { name: subject, part: Part::Window })?;
        let most = u64::from(u32::MAX);
        let limits = PairWord::new(requests.min(most), tokens.min(most));
        key.bucket.limits.store(limits, Ordering::Relaxed);
        Ok(())
    }

    /// Charges all or none. Every counter is looked at before any is charged, so a refusal usually
    /// writes nothing; if a race makes a later one refuse, the earlier ones are taken back by
    /// subtraction, within the window they were charged to.
    pub fn admit_all(&self, asks: &[Ask<'_>]) -> Result<Verdict, OpError> {
        for ask in asks {
            check_size(ask.size_s)?;
            if ask.amount < 0 {
                return Err(OpError::OutOfRange);
            }
        }
        self.until_settled(|| self.try_admit_all(asks))
    }

    fn try_admit_all(&self, asks: &[Ask<'_>]) -> Result<Option<Verdict>, OpError> {
        let found = asks
            .iter()
            .map(|ask| self.resolve(ask.window, ask.counter))
            .collect::<Result<Vec<_>, _>>()?;
        let now_s = self.now().s();
        for (position, (entry, ask)) in found.iter().zip(asks).enumerate() {
            note_limit(entry, ask.limit);
            let count = window::peek(entry.pair, now_s, ask.size_s);
            if !fits(count, ask) {
                return Ok(self.refused(entry, position, count, ask.limit));
            }
        }
        let mut done: Vec<Charged> = Vec::with_capacity(found.len());
        for (position, (entry, ask)) in found.iter().zip(asks).enumerate() {
            let charge = || {
                window::charge(entry.pair, now_s, ask.size_s, ask.amount, |count| fits(count, ask))
            };
            let outcome = self.rounds(&entry.key, charge);
            if let Ok(Some(Outcome::Admitted(charged))) = outcome {
                done.push(charged);
                continue;
            }
            for ((entry, ask), charged) in found.iter().zip(asks).zip(&done) {
                self.take_back(entry, *charged, ask.amount);
            }
            return match outcome? {
                Some(Outcome::Refused { count }) => {
                    Ok(self.refused(entry, position, count, ask.limit))
                }
                _ => Ok(None),
            };
        }
        for entry in &found {
            entry.key.bucket.allowed.fetch_add(1, Ordering::Relaxed);
        }
        self.stats().window_charged.fetch_add(done.len() as u64, Ordering::Relaxed);
        let counts = done.into_iter().map(|charged| self.count_of(charged)).collect();
        Ok(Some(Verdict::Admitted(counts)))
    }

    /// The refusal of a key; `None` = it was somebody else's bucket that refused.
    fn refused(
        &self,
        entry: &Resolved<'_>,
        position: usize,
        count: i64,
        limit: i64,
    ) -> Option<Verdict> {
        if !entry.key.holds() {
            return None;
        }
        add_one(&entry.key.bucket.denied);
        self.count(|row| &row.window_denied);
        Some(Verdict::Refused { position, count, limit })
    }

    fn take_back(&self, entry: &Resolved<'_>, charged: Charged, amount: i64) {
        let now_s = self.now().s();
        let start_s = charged.window.start_s();
        let undo = || window::charge_if_window(entry.pair, now_s, start_s, -amount);
        // What cannot be taken back stays charged: the safe side, and it ends with the window.
        if let Ok(Some(Some(_))) = self.rounds(&entry.key, undo) {
            self.count(|row| &row.window_refunded);
        }
    }

    /// Adds to a counter only while the window that started at that Unix second is open. `Err` of the
    /// pair = it was not, with the counter's value.
    pub fn adjust_if_window(
        &self,
        window: &str,
        counter: &str,
        window_start: Option<u64>,
        amount: i64,
    ) -> Result<Result<i64, i64>, OpError> {
        self.until_settled(|| self.try_adjust(window, counter, window_start, amount))
    }

    fn try_adjust(
        &self,
        window: &str,
        counter: &str,
        window_start: Option<u64>,
        amount: i64,
    ) -> Result<Option<Result<i64, i64>>, OpError> {
        let entry = self.resolve(window, counter)?;
        let now_s = self.now().s();
        if let Some(start_s) = window_start.and_then(|wall_s| self.region.region_s(wall_s)) {
            let adjust = || window::charge_if_window(entry.pair, now_s, start_s, amount);
            let Some(adjusted) = self.rounds(&entry.key, adjust)? else { return Ok(None) };
            if let Some(charged) = adjusted {
                if amount < 0 {
                    self.count(|row| &row.window_refunded);
                }
                return Ok(Some(Ok(charged.count)));
            }
        }
        Ok(Some(Err(window::read(entry.pair, now_s).unwrap_or(0))))
    }

    /// Adds to a counter, within its open window or, without one, with an expiry of `ttl_s` seconds
    /// after the first addition. Returns the new value.
    pub fn add(&self, counter: &str, amount: i64, ttl_s: u64) -> Result<i64, OpError> {
        self.until_settled(|| {
            let subject = Subject::parse(counter);
            let key = self.subject(subject)?;
            let pair = key.pair(subject.part).ok_or(OpError::OutOfRange)?;
            self.mend_window(&key);
            let now_s = self.now().s();
            self.rounds(&key, || window::add(pair, now_s, ttl_s, amount))
        })
    }

    /// A counter's value, or the Unix second at which a window started; `None` = it does not exist now.
    /// Concurrency slots are counted by [`Engine::in_flight`].
    pub fn value(&self, key: &str) -> Option<i64> {
        let subject = Subject::parse(key);
        let found = self.known_subject(subject)?;
        self.mend_window(&found);
        let now_s = self.now().s();
        if subject.part == Part::Window {
            let window = found.window().load(Ordering::Acquire);
            window.left(now_s, u64::MAX)?;
            return i64::try_from(self.region.wall_s(window.start_s())).ok();
        }
        window::read(found.pair(subject.part)?, now_s)
    }

    /// Removes what is known of a key, as if it had never been used.
    pub fn forget(&self, key: &str) {
        let subject = Subject::parse(key);
        let Some(found) = self.known_subject(subject) else {
            return;
        };
        if subject.part == Part::Window {
            // The counters too: a window opened in the same second would find them again.
            forget(found.held(|bucket| &bucket.window));
            forget(found.held(|bucket| &bucket.requests));
            forget(found.held(|bucket| &bucket.tokens));
        }
        if let Some(pair) = found.pair(subject.part) {
            forget(pair.counter);
        }
    }
}

/// Swaps a word to zero, unless it keeps changing.
fn forget<S: Shared>(word: S) {
    let mut seen = word.load(Ordering::Acquire);
    for _ in 0..ROUNDS {
        let zero = Bits::from_bits(0);
        match word.compare_exchange(seen, zero, Ordering::SeqCst, Ordering::Acquire) {
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

/// Whether a window can only be damage.
pub(super) fn starts_in_future(window: WindowWord, now_s: u64) -> bool {
    window.size_s() != 0 && window.start_s() > now_s
}

/// Microseconds until a window is over, of which a caller thinks that it lasts `size_s`; at least one.
pub(super) fn wait_us(window: WindowWord, size_s: u64, now: Instant) -> u64 {
    let end_us = (window.start_s() + window.size_s().min(size_s)) * 1_000_000;
    end_us.saturating_sub(now.us()).max(1)
}

fn check_size(size_s: u64) -> Result<(), OpError> {
    if (1..=u64::from(u32::MAX)).contains(&size_s) { Ok(()) } else { Err(OpError::OutOfRange) }
}

fn fits(count: i64, ask: &Ask<'_>) -> bool {
    has_room(count, ask.limit, ask.amount)
}

/// Whether a counter that stands at `count` takes `amount` more.
pub(super) fn has_room(count: i64, limit: i64, amount: i64) -> bool {
    // A counter that has reached its end no longer counts, so it refuses whatever the limit is.
    let limit = limit.min(CounterWord::MAX - 1);
    if amount > 0 { count.saturating_add(amount) <= limit } else { count < limit }
}

fn note_limit(entry: &Resolved<'_>, limit: i64) {
    let limit = u64::try_from(limit).unwrap_or(0).min(u64::from(u32::MAX));
    let seen = entry.key.bucket.limits.load(Ordering::Relaxed);
    let next = match entry.part {
        Part::Tokens => PairWord::new(seen.requests(), limit),
        _ => PairWord::new(limit, seen.tokens()),
    };
    if next != seen {
        // For display only; a lost race is a lost update of nothing.
        let _ = entry.key.bucket.limits.compare_exchange(
            seen,
            next,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;

    const W: &str = "{api_key:a}:window";
    const R: &str = "{api_key:a}:requests";
    const T: &str = "{api_key:a}:tokens";

    fn ask<'a>(window: &'a str, counter: &'a str, limit: i64, amount: i64) -> Ask<'a> {
        Ask { window, counter, limit, amount, size_s: 60 }
    }

    #[test]
    fn all_or_nothing() {
        let (engine, clock) = engine();
        let both = [ask(W, R, 100, 1), ask(W, T, 10, 6)];
        assert!(matches!(engine.admit_all(&both), Ok(Verdict::Admitted(_))));
        let refused = Verdict::Refused { position: 1, count: 6, limit: 10 };
        assert_eq!(engine.admit_all(&both), Ok(refused));
        assert_eq!((engine.value(R), engine.value(T)), (Some(1), Some(6)));
        clock.advance_s(60);
        assert_eq!((engine.value(R), engine.value(W)), (None, None));
        assert!(matches!(engine.admit_all(&both), Ok(Verdict::Admitted(_))));
    }

    #[test]
    fn zero_amounts_ask_whether_there_is_room() {
        let (engine, _) = engine();
        assert!(matches!(engine.admit_all(&[ask(W, R, 1, 0)]), Ok(Verdict::Admitted(_))));
        assert!(matches!(engine.admit_all(&[ask(W, R, 1, 1)]), Ok(Verdict::Admitted(_))));
        assert!(matches!(engine.admit_all(&[ask(W, R, 1, 0)]), Ok(Verdict::Refused { .. })));
    }

    #[test]
    fn zero_and_negative_limits_admit_nothing() {
        let (engine, _) = engine();
        for limit in [0, -1, i64::MIN] {
            let verdict = engine.admit_all(&[ask(W, R, limit, 1)]);
            assert_eq!(verdict, Ok(Verdict::Refused { position: 0, count: 0, limit }));
        }
        assert_eq!(engine.value(W), None);
    }

    #[test]
    fn unconditional_hits_count_on_past_any_limit() {
        let (engine, _) = engine();
        for n in 1..=30 {
            let counts = engine.hit_all(&[(W, R), (W, T)], 60).unwrap();
            assert_eq!((counts[0].count, counts[1].count), (n, n));
            assert_eq!(counts[0].window_start, counts[1].window_start);
            assert_eq!(engine.value(W), i64::try_from(counts[0].window_start).ok());
        }
    }

    #[test]
    fn hits_past_a_known_limit_are_not_tallied_as_admitted() {
        let (engine, _) = engine();
        engine.note_limits("{api_key:a}", 3, 0).unwrap();
        for n in 1..=5 {
            engine.hit_all(&[(W, R)], 60).unwrap();
            if n > 3 {
                engine.note_refusal("{api_key:a}");
            }
        }
        engine.note_refusal("{never:seen}");
        let bucket = engine.known_subject(Subject::parse(W)).unwrap().bucket;
        let tally = |word: &crate::sync::Word<u64>| word.load(Ordering::Relaxed);
        assert_eq!((tally(&bucket.allowed), tally(&bucket.denied)), (3, 2));
    }

    #[test]
    fn a_refund_for_another_window_changes_nothing() {
        let (engine, clock) = engine();
        let start = engine.hit_all(&[(W, R)], 60).unwrap()[0].window_start;
        assert_eq!(engine.adjust_if_window(W, R, Some(start), -1), Ok(Ok(0)));
        engine.hit_all(&[(W, R)], 60).unwrap();
        assert_eq!(engine.adjust_if_window(W, R, Some(start + 1), -1), Ok(Err(1)));
        assert_eq!(engine.adjust_if_window(W, R, None, -1), Ok(Err(1)));
        clock.advance_s(60);
        assert_eq!(engine.adjust_if_window(W, R, Some(start), -1), Ok(Err(0)));
    }

    #[test]
    fn a_limit_above_what_a_counter_holds_still_ends() {
        let (engine, _) = engine();
        let most = CounterWord::MAX;
        assert!(matches!(
            engine.admit_all(&[ask(W, T, most * 2, most - 2)]),
            Ok(Verdict::Admitted(_))
        ));
        let more = engine.admit_all(&[ask(W, T, most * 2, 2)]);
        assert_eq!(more, Ok(Verdict::Refused { position: 0, count: most - 2, limit: most * 2 }));
    }

    #[test]
    fn keys_of_different_subjects_are_refused() {
        let (engine, _) = engine();
        let wrong = engine.hit_all(&[(W, "{api_key:b}:requests")], 60);
        assert_eq!(wrong, Err(OpError::OutOfRange));
        assert_eq!(engine.hit_all(&[(R, R)], 60), Err(OpError::OutOfRange));
        assert_eq!(engine.hit_all(&[(W, W)], 60), Err(OpError::OutOfRange));
        assert_eq!(engine.hit_all(&[(W, R)], 0), Err(OpError::OutOfRange));
    }

    #[test]
    fn counters_outside_windows_expire_by_themselves() {
        let (engine, clock) = engine();
        assert_eq!(engine.add("spend:team", 7, 100), Ok(7));
        clock.advance_s(99);
        assert_eq!(engine.add("spend:team", 1, 100), Ok(8));
        assert_eq!(engine.value("spend:team"), Some(8));
        clock.advance_s(1);
        assert_eq!(engine.value("spend:team"), None);
        engine.add("spend:team", 1, 100).unwrap();
        engine.forget("spend:team");
        assert_eq!(engine.value("spend:team"), None);
    }

    #[test]
    fn a_window_from_the_future_is_closed_and_counted() {
        let (engine, clock) = engine();
        engine.hit_all(&[(W, R)], 60).unwrap();
        let key = engine.known_subject(Subject::parse(W)).unwrap();
        key.window().store(WindowWord::new(u64::from(u32::MAX), 60), Ordering::Relaxed);
        assert_eq!(engine.value(W), None);
        assert_eq!(engine.total(|row| &row.corrected), 1);
        clock.advance_s(1);
        assert_eq!(engine.hit_all(&[(W, R)], 60).unwrap()[0].count, 1);
    }

    #[test]
    fn four_threads_admit_exactly_the_limit() {
        let (engine, _) = engine();
        let engine = &engine;
        let total: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(move || {
                        (0..500)
                            .filter(|_| {
                                let asks = [ask(W, R, 700, 1), ask(W, T, 9_000, 10)];
                                matches!(engine.admit_all(&asks), Ok(Verdict::Admitted(_)))
                            })
                            .count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(total, 700);
        assert_eq!((engine.value(R), engine.value(T)), (Some(700), Some(7_000)));
    }
}
