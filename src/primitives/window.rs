//! Anchored windows: a window starts with its first request, and its counters end with it.
//!
//! The window and each of its counters are separate words. A counter carries the low bits of its
//! window's start as a tag, so one swap of the window word makes every counter of the old window read
//! as zero, at once and for everybody. The only rule between the words: whoever is about to write a
//! counter looks at the window *after* having loaded the counter. If the window has moved on, it starts
//! over; if it moves on between that look and the swap, then either nobody has touched the counter (the
//! swap writes an old tag, which reads as zero) or somebody has (the swap fails).
//!
//! A counter written while no window is open is *loose*: it has an expiry of its own and dies with the
//! next window that opens.

use super::{Contended, MAX_TRIES, Shared};
use crate::layout::{CounterWord, WindowWord};
use crate::sync::{Ordering, Word};

/// One counter and, where it has one, the window it belongs to.
#[derive(Clone, Copy)]
pub struct PairOf<W, C> {
    /// The window; `None` = the counter is always loose.
    pub window: Option<W>,
    /// The counter.
    pub counter: C,
}

/// A pair of plain words.
pub type Pair<'a> = PairOf<&'a Word<WindowWord>, &'a Word<CounterWord>>;

/// A counter after a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charged {
    /// The window that was charged.
    pub window: WindowWord,
    /// The counter's new value.
    pub count: i64,
}

/// The answer to a conditional charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Charged.
    Admitted(Charged),
    /// Not charged; the counter stands at `count`.
    Refused {
        /// Its value.
        count: i64,
    },
}

/// A counter's value after `amount`. Taking back never makes it negative: what was not charged here must
/// not become credit here.
fn after(count: i64, amount: i64) -> i64 {
    let total = count.saturating_add(amount);
    if amount < 0 { total.max(count.min(0)) } else { total }
}

fn load_window<C: Copy>(pair: PairOf<impl Shared<Value = WindowWord>, C>) -> WindowWord {
    // SYNC window-after-counter: Acquire pairs with the Release of `open`'s swap.
    pair.window.map_or(WindowWord::default(), |window| window.load(Ordering::Acquire))
}

/// Opens a window at `now_s` unless one of at most `size_s` is open; returns the open one.
///
/// Linearization point: the successful swap, or the load that found an open window.
fn open(
    window: impl Shared<Value = WindowWord>,
    now_s: u64,
    size_s: u64,
) -> Result<WindowWord, Contended> {
    let mut current = window.load(Ordering::Acquire);
    for _ in 0..MAX_TRIES {
        if current.left(now_s, size_s).is_some() {
            return Ok(current);
        }
        let next = WindowWord::new(now_s, size_s);
        match window.compare_exchange(current, next, Ordering::SeqCst, Ordering::Acquire) {
            Ok(_) => return Ok(next),
            Err(seen) => current = seen,
        }
    }
    Err(Contended)
}

/// Adds `amount` to the counter of the open window, opening one if needed, but only if `admit` accepts
/// the counter's present value. A refusal writes nothing, not even a new window.
pub fn charge(
    pair: PairOf<impl Shared<Value = WindowWord>, impl Shared<Value = CounterWord>>,
    now_s: u64,
    size_s: u64,
    amount: i64,
    admit: impl Fn(i64) -> bool,
) -> Result<Outcome, Contended> {
    let Some(word) = pair.window else {
        return Err(Contended);
    };
    for _ in 0..MAX_TRIES {
        // SYNC window-after-counter: Acquire pairs with the Release of the counter's swap below, so that
        // whoever sees a counter of a window also sees that window.
        let seen = pair.counter.load(Ordering::Acquire);
        let window = load_window(pair);
        let open_now = window.left(now_s, size_s).is_some();
        let count = if open_now { seen.in_window(window.start_s()).unwrap_or(0) } else { 0 };
        if !admit(count) {
            return Ok(Outcome::Refused { count });
        }
        if !open_now {
            open(word, now_s, size_s)?;
            continue;
        }
        let next = CounterWord::of_window(window.start_s(), after(count, amount));
        if pair.counter.compare_exchange(seen, next, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            return Ok(Outcome::Admitted(Charged { window, count: next.count() }));
        }
    }
    Err(Contended)
}

/// Adds `amount` only while the window that started at `start_s` is open. `Ok(None)` = it is not.
pub fn charge_if_window(
    pair: PairOf<impl Shared<Value = WindowWord>, impl Shared<Value = CounterWord>>,
    now_s: u64,
    start_s: u64,
    amount: i64,
) -> Result<Option<Charged>, Contended> {
    for _ in 0..MAX_TRIES {
        let seen = pair.counter.load(Ordering::Acquire);
        let window = load_window(pair);
        if window.start_s() != start_s || window.left(now_s, u64::MAX).is_none() {
            return Ok(None);
        }
        let count = seen.in_window(start_s).unwrap_or(0);
        let next = CounterWord::of_window(start_s, after(count, amount));
        if pair.counter.compare_exchange(seen, next, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            return Ok(Some(Charged { window, count: next.count() }));
        }
    }
    Err(Contended)
}

/// Adds `amount` to the counter of the open window, or, when none is open, to a loose counter that
/// expires `ttl_s` after its first charge. Returns the new value.
pub fn add(
    pair: PairOf<impl Shared<Value = WindowWord>, impl Shared<Value = CounterWord>>,
    now_s: u64,
    ttl_s: u64,
    amount: i64,
) -> Result<i64, Contended> {
    let ttl_s = ttl_s.clamp(1, CounterWord::MAX_TTL_S);
    for _ in 0..MAX_TRIES {
        let seen = pair.counter.load(Ordering::Acquire);
        let window = load_window(pair);
        let next = if window.left(now_s, u64::MAX).is_some() {
            let count = seen.in_window(window.start_s()).unwrap_or(0);
            CounterWord::of_window(window.start_s(), after(count, amount))
        } else if let Some(left) = seen.loose_left(now_s) {
            CounterWord::loose_until(now_s + left, after(seen.count(), amount))
        } else {
            CounterWord::loose_until(now_s + ttl_s, after(0, amount))
        };
        if pair.counter.compare_exchange(seen, next, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            return Ok(next.count());
        }
    }
    Err(Contended)
}

/// The value that a charge at `now_s` to a window of at most `size_s` would start from.
pub fn peek(
    pair: PairOf<impl Shared<Value = WindowWord>, impl Shared<Value = CounterWord>>,
    now_s: u64,
    size_s: u64,
) -> i64 {
    let seen = pair.counter.load(Ordering::Acquire);
    let window = load_window(pair);
    let open = window.left(now_s, size_s).is_some();
    if open { seen.in_window(window.start_s()).unwrap_or(0) } else { 0 }
}

/// The counter's value at `now_s`; `None` = it does not exist then.
pub fn read(
    pair: PairOf<impl Shared<Value = WindowWord>, impl Shared<Value = CounterWord>>,
    now_s: u64,
) -> Option<i64> {
    let seen = pair.counter.load(Ordering::Acquire);
    let window = load_window(pair);
    if window.left(now_s, u64::MAX).is_some() {
        return seen.in_window(window.start_s()).filter(|_| seen != CounterWord::default());
    }
    seen.loose_left(now_s).map(|_| seen.count())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Words {
        window: Word<WindowWord>,
        counter: Word<CounterWord>,
        sibling: Word<CounterWord>,
    }

    impl Words {
        fn new() -> Self {
            Self {
                window: Word::new(WindowWord::default()),
                counter: Word::new(CounterWord::default()),
                sibling: Word::new(CounterWord::default()),
            }
        }
        fn pair(&self) -> Pair<'_> {
            Pair { window: Some(&self.window), counter: &self.counter }
        }
        fn sibling(&self) -> Pair<'_> {
            Pair { window: Some(&self.window), counter: &self.sibling }
        }
    }

    fn within(pair: Pair<'_>, now: u64, limit: i64, n: i64) -> Outcome {
        charge(pair, now, 60, n, |count| count + n <= limit).expect("one thread")
    }

    #[test]
    fn exactly_the_limit_then_nothing_until_the_window_ends() {
        let words = Words::new();
        let admitted = (0..100)
            .filter(|_| matches!(within(words.pair(), 7, 20, 1), Outcome::Admitted(_)))
            .count();
        assert_eq!(admitted, 20);
        assert_eq!(within(words.pair(), 66, 20, 1), Outcome::Refused { count: 20 });
        assert!(matches!(within(words.pair(), 67, 20, 1), Outcome::Admitted(c) if c.count == 1));
    }

    #[test]
    fn siblings_expire_together() {
        let words = Words::new();
        within(words.pair(), 10, 5, 1);
        assert_eq!(add(words.sibling(), 12, 60, 400), Ok(400));
        assert_eq!(read(words.sibling(), 69), Some(400));
        assert_eq!(read(words.sibling(), 70), None);
        within(words.pair(), 80, 5, 1);
        assert_eq!(read(words.sibling(), 81), None);
        assert_eq!(add(words.sibling(), 81, 60, 3), Ok(3));
    }

    #[test]
    fn a_refusal_opens_no_window() {
        let words = Words::new();
        assert_eq!(within(words.pair(), 10, 5, 6), Outcome::Refused { count: 0 });
        assert_eq!(words.window.load(Ordering::Relaxed), WindowWord::default());
    }

    #[test]
    fn a_loose_counter_lives_its_own_time_and_dies_with_the_next_window() {
        let words = Words::new();
        assert_eq!(add(words.pair(), 10, 60, 5), Ok(5));
        assert_eq!(add(words.pair(), 69, 60, 5), Ok(10));
        assert_eq!(read(words.pair(), 69), Some(10));
        assert_eq!(read(words.pair(), 70), None);
        assert_eq!(add(words.pair(), 71, 60, 1), Ok(1));
        within(words.sibling(), 72, 9, 1);
        assert_eq!(read(words.pair(), 72), None);
    }

    #[test]
    fn taking_back_more_than_was_charged_gives_no_credit() {
        let words = Words::new();
        within(words.pair(), 10, 5, 2);
        assert_eq!(charge_if_window(words.pair(), 20, 10, -7).unwrap().unwrap().count, 0);
        assert_eq!(add(words.pair(), 20, 60, -1), Ok(0));
        assert_eq!(add(words.sibling(), 90, 60, -1), Ok(0));
        assert_eq!(within(words.pair(), 20, 5, 6), Outcome::Refused { count: 0 });
    }

    #[test]
    fn a_charge_for_a_window_that_is_over_changes_nothing() {
        let words = Words::new();
        within(words.pair(), 10, 5, 2);
        assert_eq!(charge_if_window(words.pair(), 69, 10, -1).unwrap().unwrap().count, 1);
        assert_eq!(charge_if_window(words.pair(), 70, 10, -1), Ok(None));
        assert_eq!(charge_if_window(words.pair(), 20, 11, -1), Ok(None));
    }

    proptest! {
        /// Against the obvious model: a start, a size and two plain integers.
        #[test]
        fn agrees_with_the_sequential_model(
            steps in prop::collection::vec((0_u64..40, 0_u8..4, 1_i64..8), 1..120)
        ) {
            let words = Words::new();
            let (mut start, mut open, mut count) = (0_u64, false, 0_i64);
            let mut loose: Option<(u64, i64)> = None;
            let mut now = 1_u64;
            for (gap, op, n) in steps {
                now += gap;
                if open && now - start >= 60 { open = false; }
                if loose.is_some_and(|(until, _)| until <= now) { loose = None; }
                match op {
                    0 | 1 => {
                        let base = if open { count } else { 0 };
                        let expect = base + n <= 10;
                        let got = matches!(within(words.pair(), now, 10, n), Outcome::Admitted(_));
                        prop_assert_eq!(got, expect);
                        if expect {
                            if !open { open = true; start = now; loose = None; }
                            count = base + n;
                        }
                    }
                    2 => {
                        let expect = if open {
                            count += n; count
                        } else {
                            let (until, value) = loose.unwrap_or((now + 60, 0));
                            loose = Some((until, value + n));
                            value + n
                        };
                        prop_assert_eq!(add(words.pair(), now, 60, n), Ok(expect));
                    }
                    _ => {
                        let expect = if open { Some(count) } else { loose.map(|(_, value)| value) };
                        prop_assert_eq!(read(words.pair(), now).unwrap_or(0), expect.unwrap_or(0));
                    }
                }
                if open { loose = None; }
            }
        }
    }
}
