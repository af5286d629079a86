//! The clock that figures are taken with: the processor's time stamp counter, or the kernel's clock where
//! there is none.

#![allow(unsafe_code, reason = "the time stamp counter has no safe wrapper")]

use std::time::{Duration, Instant};

/// A reading that no earlier and no later instruction moves across.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn ticks() -> u64 {
    use std::arch::x86_64::{_mm_lfence, _rdtsc};
    // SAFETY: every x86_64 processor has SSE2.
    unsafe { _mm_lfence() };
    // SAFETY: Linux lets every process read the counter.
    let now = unsafe { _rdtsc() };
    // SAFETY: as above.
    unsafe { _mm_lfence() };
    now
}

/// A reading of the kernel's clock.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn ticks() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds of one tick, by the kernel's clock.
#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) fn ns_per_tick() -> f64 {
    let (begun, first) = (Instant::now(), ticks());
    while begun.elapsed() < Duration::from_millis(100) {
        std::hint::spin_loop();
    }
    let (elapsed, last) = (begun.elapsed(), ticks());
    elapsed.as_nanos() as f64 / (last - first) as f64
}

/// Ticks by which readings differ at least: the counter may move in steps.
pub(crate) fn step() -> u64 {
    let readings: Vec<u64> = (0..10_000).map(|_| ticks()).collect();
    readings.windows(2).map(|pair| pair[1] - pair[0]).fold(0, common_divisor)
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_of_readings_are_multiples_of_the_step() {
        assert_eq!([60, 0, 84, 36].into_iter().fold(0, common_divisor), 12);
        assert!(step() > 0);
    }
}
