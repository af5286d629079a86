//! Windows: a charge is never lost to a roll-over and never counted into the wrong window.

use crate::layout::{CounterWord, WindowWord};
use crate::primitives::window::{Outcome, Pair, add, charge};
use crate::sync::{Ordering, Word};
use loom::sync::Arc;
use loom::thread;

struct Words {
    window: Word<WindowWord>,
    counter: Word<CounterWord>,
}

impl Words {
    fn pair(&self) -> Pair<'_> {
        Pair { window: Some(&self.window), counter: &self.counter }
    }
}

fn admitted(words: &Words, now_s: u64, limit: i64) -> bool {
    matches!(charge(words.pair(), now_s, 60, 1, |count| count < limit), Ok(Outcome::Admitted(_)))
}

/// Mutation `window-blind-store`: replace the counter's swap by a store.
#[test]
fn loom_window_never_above_limit() {
    super::run(|| {
        let words = Arc::new(Words {
            window: Word::new(WindowWord::default()),
            counter: Word::new(CounterWord::default()),
        });
        let other = words.clone();
        let thread = thread::spawn(move || u32::from(admitted(&other, 100, 1)));
        let mine = u32::from(admitted(&words, 100, 1));
        assert_eq!(mine + thread.join().expect("joins"), 1);
    });
}

/// One process still holds a clock reading from the old window, the other opens the new one and charges
/// it: the new window's charge must survive.
///
/// Mutations `window-before-counter`: load the window before the counter; `window-relaxed-counter`: load the
/// counter without Acquire.
#[test]
fn loom_window_late_charge_does_not_erase_the_new_window() {
    super::run(|| {
        let words = Arc::new(Words {
            window: Word::new(WindowWord::new(100, 60)),
            counter: Word::new(CounterWord::of_window(100, 1)),
        });
        let late = words.clone();
        let thread = thread::spawn(move || {
            let _ = admitted(&late, 159, 9);
        });
        assert!(admitted(&words, 160, 9));
        thread.join().expect("joins");
        let window = words.window.load(Ordering::Acquire);
        assert_eq!(window.start_s(), 160);
        let counter = words.counter.load(Ordering::Acquire);
        assert!(counter.in_window(160).is_some_and(|count| count >= 1), "{counter:?}");
    });
}

/// Token additions race with admissions; nothing is lost within one window.
#[test]
fn loom_window_additions_are_not_lost() {
    super::run(|| {
        let words = Arc::new(Words {
            window: Word::new(WindowWord::new(100, 60)),
            counter: Word::new(CounterWord::default()),
        });
        let other = words.clone();
        let thread = thread::spawn(move || add(other.pair(), 120, 60, 5).is_ok());
        assert!(admitted(&words, 120, 100));
        assert!(thread.join().expect("joins"));
        let counter = words.counter.load(Ordering::Acquire);
        assert_eq!(counter.in_window(100), Some(6));
    });
}
