//! Time for decisions: one monotonic clock per region, relative to the base in its header.
//!
//! The clock is the kernel's coarse monotonic one (a tick of 1 to 10 ms): every process of the host
//! reads the same value, it never goes back, and reading it costs a third of the fine one. Limits are
//! per minute, so a tick does not matter to them. See `docs/adr/0002-coarse-monotonic-clock.md`.

use nix::time::{ClockId, clock_gettime};

#[cfg(any(target_os = "linux", target_os = "android"))]
const DECISION_CLOCK: ClockId = ClockId::CLOCK_MONOTONIC_COARSE;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const DECISION_CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

/// A source of monotonic nanoseconds.
pub trait Clock: Send + Sync {
    /// Nanoseconds since an arbitrary fixed point.
    fn now_ns(&self) -> u64;
    /// Number of the clock, recorded in the header.
    fn id(&self) -> u64;
}

/// The kernel's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    #[inline]
    fn now_ns(&self) -> u64 {
        clock_gettime(DECISION_CLOCK).map_or(0, |t| {
            let seconds = u64::try_from(t.tv_sec()).unwrap_or(0);
            seconds * 1_000_000_000 + u64::try_from(t.tv_nsec()).unwrap_or(0)
        })
    }

    fn id(&self) -> u64 {
        u64::try_from(DECISION_CLOCK.as_raw()).unwrap_or(0)
    }
}

/// The fine monotonic clock in nanoseconds, to measure how long something took.
pub fn fine_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| {
        let seconds = u64::try_from(t.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(t.tv_nsec()).unwrap_or(0)
    })
}

/// Wall clock in nanoseconds, read once when a region is created.
pub fn wall_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, |t| {
        let seconds = u64::try_from(t.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(t.tv_nsec()).unwrap_or(0)
    })
}

/// A clock that stands still for good: of a region that was copied.
#[derive(Debug, Clone, Copy)]
pub struct StoppedClock {
    /// Nanoseconds, by the clock that it was.
    pub now_ns: u64,
    /// Number of that clock.
    pub id: u64,
}

impl Clock for StoppedClock {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn id(&self) -> u64 {
        self.id
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug, Default)]
pub struct FakeClock {
    now: std::sync::Arc<crate::sync::Word<u64>>,
}

impl Clone for FakeClock {
    fn clone(&self) -> Self {
        Self { now: self.now.clone() }
    }
}

impl FakeClock {
    /// Starts at `ns`.
    pub fn at(ns: u64) -> Self {
        let clock = Self::default();
        clock.advance_ns(ns);
        clock
    }

    /// Moves time forward.
    pub fn advance_ns(&self, ns: u64) {
        self.now.fetch_add(ns, crate::sync::Ordering::SeqCst);
    }

    /// Moves time forward by whole seconds.
    pub fn advance_s(&self, s: u64) {
        self.advance_ns(s * 1_000_000_000);
    }
}

impl Clock for FakeClock {
    fn now_ns(&self) -> u64 {
        self.now.load(crate::sync::Ordering::SeqCst)
    }

    fn id(&self) -> u64 {
        u64::MAX
    }
}

/// A reading of the region's clock, relative to its base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant {
    us: u64,
}

impl Instant {
    /// From a raw reading and the base; a reading before the base is the base.
    #[inline]
    pub fn since(base_ns: u64, now_ns: u64) -> Self {
        Self { us: now_ns.saturating_sub(base_ns) / 1_000 }
    }

    /// Whole microseconds since the base.
    #[inline]
    pub fn us(self) -> u64 {
        self.us
    }

    /// Whole seconds since the base.
    #[inline]
    pub fn s(self) -> u64 {
        self.us / 1_000_000
    }
}
