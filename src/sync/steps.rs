//! Words that count how often they are accessed, in place of plain ones in builds with the feature `steps`.
//!
//! For `tests/hostile.rs`: an access is a step, and what an operation may do is bounded in steps and not in
//! seconds, so that the answer is the same on every machine. No other build has any of this.

use super::{Bits, Ordering};
use std::cell::Cell;

thread_local! {
    /// Steps that this thread may still take.
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// Does something that may take `most` steps in this thread; returns how many it took.
///
/// # Panics
/// At the first step too many, so that what would never end does, and with the place where it was.
pub fn within<R>(most: u64, doing: impl FnOnce() -> R) -> (R, u64) {
    let outside = LEFT.replace(most);
    let done = doing();
    let taken = most.saturating_sub(LEFT.replace(outside));
    (done, taken)
}

#[track_caller]
fn step() {
    let left = LEFT.get();
    // Whatever is done while the panic unwinds is free.
    LEFT.set(left.checked_sub(1).unwrap_or(u64::MAX));
    assert!(left > 0, "more steps than it may take");
}

/// One shared 64-bit word.
#[repr(transparent)]
pub struct Word<T>(atomic::Atomic<T>);

impl<T> Word<T> {
    /// A word with a first value.
    pub const fn new(value: T) -> Self {
        Self(atomic::Atomic::new(value))
    }
}

macro_rules! counted {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $name(&self, $($argument: $type),*) -> $result {
            step();
            self.0.$name($($argument),*)
        }
    )*};
}

impl<T: Bits> Word<T> {
    counted! {
        /// Atomic load.
        load(order: Ordering) -> T;
        /// Atomic store.
        store(value: T, order: Ordering) -> ();
        /// Atomic exchange.
        swap(value: T, order: Ordering) -> T;
        /// Atomic compare-and-swap.
        compare_exchange(current: T, new: T, success: Ordering, failure: Ordering) -> Result<T, T>;
    }
}

impl Word<u64> {
    counted! {
        /// Atomic addition, wrapping; returns the value before.
        fetch_add(value: u64, order: Ordering) -> u64;
        /// Atomic subtraction, wrapping; returns the value before.
        fetch_sub(value: u64, order: Ordering) -> u64;
        /// Atomic maximum; returns the value before.
        fetch_max(value: u64, order: Ordering) -> u64;
        /// Atomic bitwise and; returns the value before.
        fetch_and(value: u64, order: Ordering) -> u64;
        /// Atomic bitwise or; returns the value before.
        fetch_or(value: u64, order: Ordering) -> u64;
        /// Atomic bitwise exclusive or; returns the value before.
        fetch_xor(value: u64, order: Ordering) -> u64;
    }
}

impl<T: Default> Default for Word<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: Bits + std::fmt::Debug> std::fmt::Debug for Word<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
