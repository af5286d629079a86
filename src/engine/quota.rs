//! The GCRA limiter: one key, one rate, one swap.

use super::{Engine, Key, ROUNDS};
use crate::error::OpError;
use crate::layout::{Bucket, IdentityWord, KeyKind, PairWord};
use crate::primitives::gcra::{self, Decision, Quota};
use crate::sync::Ordering;
use crate::tables::names::redact;

/// A limiter: a rate under a name. Two limiters share a key's quota only if both agree in name, rate and
/// burst.
#[derive(Debug, Clone)]
pub struct Limiter {
    quota: Quota,
    label: String,
    domain: u64,
}

/// Where a key's bucket is, for callers that see the same keys again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Position in the index.
    pub slot: usize,
    /// What stands there as long as the place is the key's.
    pub identity: IdentityWord,
}

/// What a limiter's keys have seen, over all workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimiterTotals {
    /// Keys known.
    pub keys: u64,
    /// Checks admitted.
    pub allowed: u64,
    /// Checks refused.
    pub denied: u64,
}

impl LimiterTotals {
    /// All checks.
    pub fn checks(&self) -> u64 {
        self.allowed.wrapping_add(self.denied)
    }
}

impl Limiter {
    /// Its rate.
    pub fn quota(&self) -> Quota {
        self.quota
    }
}

impl Engine {
    /// A limiter named `name` with that quota.
    pub fn limiter(&self, name: &str, quota: Quota) -> Limiter {
        let text = format!("{}/{}:{name}", quota.per_minute(), quota.burst());
        let (domain, _) = self.region.hash(0, text.as_bytes());
        Limiter { quota, label: name.to_string(), domain }
    }

    /// Charges one request to `key`, or refuses it.
    #[inline]
    pub fn check(&self, limiter: &Limiter, key: &[u8]) -> Result<Decision, OpError> {
        let found = self.quota_key(limiter, key)?;
        self.charge(limiter, found.bucket)
    }

    /// The key's place, which [`Self::check_at`] takes instead of the key.
    #[inline]
    pub fn place(&self, limiter: &Limiter, key: &[u8]) -> Result<Place, OpError> {
        let found = self.quota_key(limiter, key)?;
        Ok(Place { slot: found.slot, identity: found.identity })
    }

    /// As [`Self::check`], for a key whose place is remembered; `None` = the key is no longer there.
    #[inline]
    pub fn check_at(&self, limiter: &Limiter, place: Place) -> Option<Result<Decision, OpError>> {
        let seen = self.region.index().get(place.slot)?.identity.load(Ordering::Acquire);
        let bucket = self.region.buckets().get(place.slot)?;
        (seen == place.identity).then(|| self.charge(limiter, bucket))
    }

    #[inline]
    fn quota_key(&self, limiter: &Limiter, key: &[u8]) -> Result<Key<'_>, OpError> {
        let label = || label(limiter, key);
        let found = self.key(KeyKind::Gcra, limiter.domain, key, label)?;
        let limits =
            PairWord::new(u64::from(limiter.quota.per_minute()), u64::from(limiter.quota.burst()));
        if found.bucket.limits.load(Ordering::Relaxed) != limits {
            found.bucket.limits.store(limits, Ordering::Relaxed);
        }
        Ok(found)
    }

    #[inline]
    fn charge(&self, limiter: &Limiter, bucket: &Bucket) -> Result<Decision, OpError> {
        for _ in 0..ROUNDS {
            let mut suspect = false;
            let now_us = self.now().us();
            let decision = gcra::charge(&bucket.gcra, now_us, limiter.quota, &mut suspect);
            if suspect && gcra::repair(&bucket.gcra, || self.now().us(), limiter.quota) {
                self.count(|row| &row.corrected);
                continue;
            }
            match decision {
                Ok(decision @ Decision::Allowed { .. }) => {
                    bucket.allowed.fetch_add(1, Ordering::Relaxed);
                    return Ok(decision);
                }
                Ok(decision) => {
                    bucket.denied.fetch_add(1, Ordering::Relaxed);
                    return Ok(decision);
                }
                Err(_) => {}
            }
        }
        Err(self.counted(OpError::Contended))
    }

    /// Requests that `key` could make now. Changes nothing.
    pub fn remaining(&self, limiter: &Limiter, key: &[u8]) -> u64 {
        let Some(found) = self.existing(KeyKind::Gcra, limiter.domain, key) else {
            return u64::from(limiter.quota.burst());
        };
        let word = found.bucket.gcra.load(Ordering::Relaxed);
        gcra::remaining(word, self.now().us(), limiter.quota)
    }

    /// Totals over the limiter's keys. Walks the whole index; meant for statistics.
    pub fn limiter_totals(&self, rate: Option<Quota>) -> LimiterTotals {
        let wanted = rate
            .map(|quota| PairWord::new(u64::from(quota.per_minute()), u64::from(quota.burst())));
        let mut totals = LimiterTotals::default();
        for (slot, bucket) in self.region.index().iter().zip(self.region.buckets()) {
            let identity = slot.identity.load(Ordering::Acquire);
            if identity.kind() != KeyKind::Gcra as u64
                || wanted.is_some_and(|rate| bucket.limits.load(Ordering::Relaxed) != rate)
            {
                continue;
            }
            totals.keys += 1;
            totals.allowed = totals.allowed.wrapping_add(bucket.allowed.load(Ordering::Relaxed));
            totals.denied = totals.denied.wrapping_add(bucket.denied.load(Ordering::Relaxed));
        }
        totals
    }
}

fn label(limiter: &Limiter, key: &[u8]) -> String {
    let key = redact(&String::from_utf8_lossy(key));
    if limiter.label.is_empty() { key } else { format!("{}/{key}", redact(&limiter.label)) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;

    fn allowed(engine: &Engine, limiter: &Limiter, key: &str) -> bool {
        matches!(engine.check(limiter, key.as_bytes()), Ok(Decision::Allowed { .. }))
    }

    #[test]
    fn limiters_share_a_key_only_when_they_are_the_same_limiter() {
        let (engine, _) = engine();
        let quota = |rpm, burst| Quota::new(rpm, burst).unwrap();
        let slow = engine.limiter("", quota(60, 6));
        let fast = engine.limiter("", quota(600, 60));
        let named = engine.limiter("uploads", quota(60, 6));
        let again = engine.limiter("", quota(60, 6));
        assert_eq!((0..50).filter(|_| allowed(&engine, &slow, "k")).count(), 6);
        assert!(!allowed(&engine, &again, "k"));
        assert_eq!((0..99).filter(|_| allowed(&engine, &fast, "k")).count(), 60);
        assert_eq!((0..50).filter(|_| allowed(&engine, &named, "k")).count(), 6);
        let totals = engine.limiter_totals(Some(quota(60, 6)));
        assert_eq!(totals, LimiterTotals { keys: 2, allowed: 12, denied: 89 });
    }

    #[test]
    fn hostile_keys_are_just_keys() {
        let (engine, _) = engine();
        let limiter = engine.limiter("", Quota::new(60, 1).unwrap());
        let long = "x".repeat(10_000);
        for key in ["", "\0", "a\0b", "\u{10ffff}", long.as_str()] {
            assert!(allowed(&engine, &limiter, key));
            assert!(!allowed(&engine, &limiter, key));
        }
        assert_eq!(engine.remaining(&limiter, b"never seen"), 1);
    }

    #[test]
    fn a_full_table_is_an_error_that_is_counted_and_known_keys_go_on() {
        let (engine, clock) = engine();
        let limiter = engine.limiter("", Quota::new(60, 1).unwrap());
        let mut refused = 0;
        for n in 0..4_000 {
            match engine.check(&limiter, format!("key-{n}").as_bytes()) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error, OpError::TableFull);
                    refused += 1;
                }
            }
        }
        assert!(refused >= 4_000 - 1_024);
        assert_eq!(engine.total(|row| &row.table_full), refused);
        clock.advance_s(2);
        assert!(allowed(&engine, &limiter, "key-0"));
        assert!(!allowed(&engine, &limiter, "key-0"));
    }

    #[test]
    fn a_corrupt_word_is_corrected_and_counted() {
        let (engine, clock) = engine();
        let limiter = engine.limiter("", Quota::new(60, 2).unwrap());
        assert!(allowed(&engine, &limiter, "k"));
        let key = engine.existing(KeyKind::Gcra, limiter.domain, b"k").unwrap();
        key.bucket.gcra.store(crate::layout::GcraWord::new(u64::MAX, 0), Ordering::Relaxed);
        assert!(!allowed(&engine, &limiter, "k"));
        assert_eq!(engine.total(|row| &row.corrected), 1);
        clock.advance_s(1);
        assert!(allowed(&engine, &limiter, "k"));
    }
}
