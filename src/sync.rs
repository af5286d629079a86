//! The only names for atomics in this crate: the real ones, or loom's under `--cfg loom`.
//!
//! [`Word<T>`] is a 64-bit atomic that holds one packed word type of [`crate::layout`]. It exists so
//! that a field's bits have a type, and so that a model checker can stand in for the hardware.

#[cfg(not(loom))]
pub use std::sync::atomic::Ordering;

#[cfg(loom)]
pub use loom::sync::atomic::Ordering;

/// Stands between a `SeqCst` swap and a `SeqCst` load of another word, where each of two processes must
/// not miss what the other has swapped. The operations' own total order is enough; but the model checker
/// takes them for `AcqRel` and honours only fences.
#[inline]
pub fn in_total_order() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

/// To be called after a swap that failed: leaves the word for a moment to whoever has just won it. Two who try
/// at once take the cache line from each other with every operation; when one stands back, the other goes on
/// at full speed.
#[cold]
pub fn stand_back() {
    #[cfg(not(loom))]
    for _ in 0..SPINS {
        std::hint::spin_loop();
    }
}

/// How long a process stands back: 11 microseconds where a spin takes 11 ns, which are many operations of whoever
/// goes on. See `docs/adr/0014-who-loses-a-swap-stands-back.md`.
#[cfg(not(loom))]
const SPINS: u32 = 1_024;

/// A type that is exactly 64 plain bits, every pattern of which is valid.
pub trait Bits: bytemuck::Pod {
    /// Name used in the layout tables.
    const NAME: &'static str;
    /// From the raw word.
    fn from_bits(bits: u64) -> Self;
    /// To the raw word.
    fn bits(self) -> u64;
}

impl Bits for u64 {
    const NAME: &'static str = "u64";
    fn from_bits(bits: u64) -> Self {
        bits
    }
    fn bits(self) -> u64 {
        self
    }
}

/// One shared 64-bit word.
#[cfg(not(any(loom, feature = "steps")))]
pub type Word<T> = atomic::Atomic<T>;

#[cfg(all(feature = "steps", not(loom)))]
pub mod steps;
#[cfg(all(feature = "steps", not(loom)))]
pub use steps::Word;

#[cfg(not(loom))]
const _: () = {
    assert!(atomic::Atomic::<u64>::is_lock_free(), "64-bit atomics must be native here");
    assert!(size_of::<Word<u64>>() == 8 && align_of::<Word<u64>>() == 8);
};

/// One shared 64-bit word, as seen by the model checker.
#[cfg(loom)]
pub struct Word<T> {
    cell: loom::sync::atomic::AtomicU64,
    turn: loom::sync::atomic::AtomicU64,
    kind: std::marker::PhantomData<T>,
}

#[cfg(loom)]
impl<T: Bits> Word<T> {
    /// A word with a first value.
    pub fn new(value: T) -> Self {
        Self {
            cell: loom::sync::atomic::AtomicU64::new(value.bits()),
            turn: loom::sync::atomic::AtomicU64::new(0),
            kind: std::marker::PhantomData,
        }
    }
    /// The word, for one operation. The checker remembers only the last access to a word, and finds no
    /// reason to let a swap come before another thread's load when the swapping thread has loaded the word
    /// itself in between. So every operation first takes a turn, in a way that two of them are never alike.
    fn turn(&self) -> &loom::sync::atomic::AtomicU64 {
        self.turn.fetch_or(0, Ordering::Relaxed);
        &self.cell
    }
    /// The same for an operation that writes, which follows at once.
    fn write<R>(&self, operation: impl FnOnce(&loom::sync::atomic::AtomicU64) -> R) -> R {
        let cell = self.turn();
        loom::stop_exploring();
        let result = operation(cell);
        loom::explore();
        result
    }
    /// Atomic load.
    pub fn load(&self, order: Ordering) -> T {
        T::from_bits(self.turn().load(order))
    }
    /// Atomic store.
    pub fn store(&self, value: T, order: Ordering) {
        self.write(|cell| cell.store(value.bits(), order));
    }
    /// Atomic compare-and-swap.
    pub fn compare_exchange(
        &self,
        current: T,
        new: T,
        success: Ordering,
        failure: Ordering,
    ) -> Result<T, T> {
        self.write(|cell| cell.compare_exchange(current.bits(), new.bits(), success, failure))
            .map(T::from_bits)
            .map_err(T::from_bits)
    }
    /// Atomic exchange.
    pub fn swap(&self, value: T, order: Ordering) -> T {
        T::from_bits(self.write(|cell| cell.swap(value.bits(), order)))
    }
}

#[cfg(loom)]
impl Word<u64> {
    /// Atomic addition, wrapping; returns the value before.
    pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.write(|cell| cell.fetch_add(value, order))
    }
    /// Atomic subtraction, wrapping; returns the value before.
    pub fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
        self.write(|cell| cell.fetch_sub(value, order))
    }
    /// Atomic maximum; returns the value before.
    pub fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
        self.write(|cell| cell.fetch_max(value, order))
    }
    /// Atomic bitwise and; returns the value before.
    pub fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
        self.write(|cell| cell.fetch_and(value, order))
    }
    /// Atomic bitwise or; returns the value before.
    pub fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
        self.write(|cell| cell.fetch_or(value, order))
    }
}

/// Adds one, wrapping, and stands back when another process does so at the same time. For a word whose cache line
/// the caller has not just won with a swap.
#[inline]
pub fn add_one(word: &Word<u64>) {
    let seen = word.load(Ordering::Relaxed);
    let next = seen.wrapping_add(1);
    if word.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        stand_back();
        word.fetch_add(1, Ordering::Relaxed);
    }
}

/// A field that may stand in a shared record: words only, so that no byte of the region is ever seen
/// through anything but an atomic, and so that all zeroes is a legal value.
pub trait SharedField: sealed::Sealed {
    /// Type name used in the layout tables.
    fn type_name() -> String;
    /// A field of zeroes.
    fn zeroed() -> Self;
}

impl<T: Bits> SharedField for Word<T> {
    fn type_name() -> String {
        T::NAME.to_string()
    }
    fn zeroed() -> Self {
        Word::new(T::from_bits(0))
    }
}

impl<T: Bits, const N: usize> SharedField for [Word<T>; N] {
    fn type_name() -> String {
        format!("[{}; {N}]", T::NAME)
    }
    fn zeroed() -> Self {
        std::array::from_fn(|_| Word::new(T::from_bits(0)))
    }
}

mod sealed {
    pub trait Sealed {}
    impl<T: super::Bits> Sealed for super::Word<T> {}
    impl<T: super::Bits, const N: usize> Sealed for [super::Word<T>; N] {}
}
