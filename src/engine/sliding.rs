//! The sliding-window limiter: one key, so much in any window-long stretch.

use super::keys::Key;
use super::{Engine, ROUNDS};
use crate::clock::Instant;
use crate::error::OpError;
use crate::layout::{KeyKind, PairWord, SlidingWord};
use crate::primitives::sliding::{self, Decision, SlidingLimit};
use crate::region::Region;
use crate::sync::{Bits, Ordering, add_one};
use crate::tables::names::redact;

/// A limiter: a limit under a name. Two limiters share a key's window only if they agree in name, limit and
/// length.
#[derive(Debug, Clone)]
pub struct SlidingLimiter {
    limit: SlidingLimit,
    label: String,
    domain: u64,
}

impl SlidingLimiter {
    /// Its limit.
    pub fn limit(&self) -> SlidingLimit {
        self.limit
    }
}

impl Engine {
    /// A sliding-window limiter named `name` with that limit.
    pub fn sliding_limiter(&self, name: &str, limit: SlidingLimit) -> SlidingLimiter {
        SlidingLimiter { limit, label: name.to_string(), domain: domain(&self.region, name, limit) }
    }

    /// Charges `cost` to `key`, all or none.
    pub fn check_sliding(
        &self,
        limiter: &SlidingLimiter,
        key: &[u8],
        cost: u64,
    ) -> Result<Decision, OpError> {
        self.until_settled(|| {
            let found = self.sliding_key(limiter, key)?;
            let decision = self.try_charge_sliding(limiter.limit, &found, cost, self.now())?;
            match decision {
                Some(Decision::Allowed { .. }) => {
                    found.bucket.allowed.fetch_add(1, Ordering::Relaxed);
                }
                Some(Decision::Denied { .. }) => {
                    add_one(&found.bucket.denied);
                }
                None => {}
            }
            Ok(decision)
        })
    }

    /// What `key` could be charged now. Changes nothing.
    pub fn remaining_sliding(&self, limiter: &SlidingLimiter, key: &[u8]) -> u64 {
        let Some(found) = self.existing(KeyKind::Sliding, limiter.domain, key) else {
            return limiter.limit.limit();
        };
        let word = SlidingWord::from_bits(found.bucket.requests.load(Ordering::Relaxed).bits());
        sliding::remaining(word, self.now().us(), limiter.limit)
    }

    pub(super) fn sliding_key(
        &self,
        limiter: &SlidingLimiter,
        key: &[u8],
    ) -> Result<Key<'_>, OpError> {
        let label = || {
            let key = redact(&String::from_utf8_lossy(key));
            let name = redact(&limiter.label);
            if name.is_empty() { key } else { format!("{name}/{key}") }
        };
        let found = self.key(KeyKind::Sliding, limiter.domain, key, label)?;
        let limits = PairWord::new(limiter.limit.limit(), limiter.limit.window_s());
        found.note_limits(limits);
        Ok(found)
    }

    /// Charges a window that was found, without the tallies; `None` = its key has been given up meanwhile.
    pub(super) fn try_charge_sliding(
        &self,
        limit: SlidingLimit,
        key: &Key<'_>,
        cost: u64,
        mut now: Instant,
    ) -> Result<Option<Decision>, OpError> {
        let word = key.state();
        for _ in 0..ROUNDS {
            let mut suspect = false;
            let decision = sliding::charge(word, now.us(), limit, cost, &mut suspect);
            let repaired = suspect && self.repair_sliding(limit, key);
            match decision {
                // A charge that was made holds already.
                Ok(Decision::Denied { .. }) | Err(_) if !key.holds() => return Ok(None),
                // How long it has to wait is another matter now.
                Ok(Decision::Denied { .. }) if repaired => now = self.now(),
                Ok(decision) => return Ok(Some(decision)),
                Err(_) => now = self.now(),
            }
        }
        Err(self.counted(OpError::Contended))
    }

    #[cold]
    pub(super) fn repair_sliding(&self, limit: SlidingLimit, key: &Key<'_>) -> bool {
        let repaired = sliding::repair(key.state(), || self.now().us(), limit);
        if repaired {
            self.count(|row| &row.corrected);
        }
        repaired
    }
}

/// Hash domain of the keys of a limiter of that name and limit.
pub(crate) fn domain(region: &Region, name: &str, limit: SlidingLimit) -> u64 {
    let text = format!("{}/{}s:{name}", limit.limit(), limit.window_s());
    region.hash(KeyKind::Sliding as u64, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;

    fn admitted(engine: &Engine, limiter: &SlidingLimiter, key: &str) -> usize {
        let allowed = |_: &usize| {
            let decision = engine.check_sliding(limiter, key.as_bytes(), 1);
            matches!(decision, Ok(Decision::Allowed { .. }))
        };
        (0..100).filter(allowed).count()
    }

    #[test]
    fn limiters_share_a_key_only_when_they_are_the_same_limiter() {
        let (engine, clock) = engine();
        let limit = |limit| SlidingLimit::new(limit, 60).unwrap();
        let (ten, twenty) =
            (engine.sliding_limiter("", limit(10)), engine.sliding_limiter("", limit(20)));
        assert_eq!(admitted(&engine, &ten, "k"), 10);
        assert_eq!(admitted(&engine, &twenty, "k"), 20);
        assert_eq!(engine.remaining_sliding(&ten, b"k"), 0);
        assert_eq!(engine.remaining_sliding(&ten, b"never seen"), 10);
        clock.advance_s(120);
        assert_eq!(engine.remaining_sliding(&ten, b"k"), 10);
        assert_eq!(admitted(&engine, &ten, "k"), 10);
    }

    #[test]
    fn idle_windows_make_room() {
        let (engine, clock) = engine();
        let limiter = engine.sliding_limiter("", SlidingLimit::new(1, 1).unwrap());
        for round in 0..10 {
            for n in 0..1_000 {
                assert_eq!(admitted(&engine, &limiter, &format!("{round}-{n}")), 1);
            }
            clock.advance_s(2);
        }
        assert!(engine.total(|row| &row.keys_reclaimed) > 8_000);
    }
}
