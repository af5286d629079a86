//! The peer `governor`: GCRA in the memory of one process.

use governor::clock::{Clock, FakeRelativeClock, MonotonicClock, QuantaClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use nix::time::{ClockId, clock_gettime};
use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

/// One quota.
pub(crate) struct Direct<C: Clock>(
    RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>,
);

/// One quota per key, in a `DashMap`.
pub(crate) struct Keyed<K: Hash + Eq + Clone, C: Clock>(
    RateLimiter<K, DashMapStateStore<K>, C, NoOpMiddleware<C::Instant>>,
);

/// The kernel's coarse clock, which `fast_litellm` reads: with it, only the rest differs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CoarseClock;

impl Clock for CoarseClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        coarse_ns().into()
    }
}

/// Nanoseconds of the kernel's coarse clock.
pub(crate) fn coarse_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
    })
}

/// The clock that governor uses unless told otherwise.
pub(crate) fn quanta() -> QuantaClock {
    QuantaClock::default()
}

/// The standard library's clock.
pub(crate) fn std_clock() -> MonotonicClock {
    MonotonicClock
}

/// A clock that stands still.
pub(crate) fn frozen() -> FakeRelativeClock {
    FakeRelativeClock::default()
}

/// One request per microsecond with a burst that a measurement does not reach, or one per hour.
fn quota(open: bool) -> Quota {
    let one = NonZeroU32::MIN;
    let (period, burst) = if open {
        (Duration::from_micros(1), NonZeroU32::MAX)
    } else {
        (Duration::from_secs(3_600), one)
    };
    Quota::with_period(period).unwrap_or(Quota::per_hour(one)).allow_burst(burst)
}

impl<C: Clock> Direct<C> {
    pub(crate) fn new(open: bool, clock: C) -> Self {
        Self(RateLimiter::direct_with_clock(quota(open), clock))
    }

    #[inline]
    pub(crate) fn check(&self) -> u64 {
        u64::from(self.0.check().is_ok())
    }
}

impl<K: Hash + Eq + Clone, C: Clock> Keyed<K, C> {
    pub(crate) fn new(open: bool, clock: C) -> Self {
        Self(RateLimiter::dashmap_with_clock(quota(open), clock))
    }

    #[inline]
    pub(crate) fn check(&self, key: &K) -> u64 {
        u64::from(self.0.check_key(key).is_ok())
    }
}
