//! One word (or two that belong together), one rule. No region, no clock, no allocation: everything is
//! passed in, so that the same code runs under the model checker.

pub mod amount;
pub mod breaker;
pub mod cooldown;
pub mod ewma;
pub mod gcra;
pub mod ring;
pub mod sliding;
pub mod term;
pub mod window;

use crate::sync::{Bits, Ordering, Word};

/// A word as a rule works on it: loaded, then swapped from what was seen. Either a plain one, or a word of
/// a record that may pass to another key meanwhile, which is [`crate::tables::index::Held`].
pub trait Shared: Copy {
    /// What the word holds.
    type Value: Bits;
    /// Atomic load.
    fn load(self, order: Ordering) -> Self::Value;
    /// Atomic compare-and-swap.
    fn compare_exchange(
        self,
        current: Self::Value,
        new: Self::Value,
        success: Ordering,
        failure: Ordering,
    ) -> Result<Self::Value, Self::Value>;
}

impl<T: Bits> Shared for &Word<T> {
    type Value = T;
    #[inline]
    fn load(self, order: Ordering) -> T {
        Word::load(self, order)
    }
    #[inline]
    fn compare_exchange(
        self,
        current: T,
        new: T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<T, T> {
        Word::compare_exchange(self, current, new, success, failure)
    }
}

/// Tries of a compare-and-swap loop before it gives up.
#[cfg(not(loom))]
pub const MAX_TRIES: u32 = 64;
/// Tries of a compare-and-swap loop before it gives up.
#[cfg(loom)]
pub const MAX_TRIES: u32 = 4;

/// The word changed under every try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contended;

/// Spreads a number over all bits (the finaliser of `SplitMix64`).
#[inline]
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
