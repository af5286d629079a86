//! The GCRA limiter: one key, one rate, one swap.

use super::keys::Key;
use super::{Engine, ROUNDS};
use crate::clock::Instant;
use crate::error::OpError;
use crate::layout::{Bucket, GcraWord, IdentityWord, KeyKind, PairWord, section};
use crate::primitives::gcra::{self, Decision, Quota};
use crate::region::Region;
use crate::sync::{Bits, Ordering, add_one};
use crate::tables::index;
use crate::tables::names::redact;

/// A limiter: a rate under a name. Two limiters share a key's quota only if both agree in name, rate and
/// burst.
#[derive(Debug, Clone)]
pub struct Limiter {
    quota: Quota,
    label: String,
    domain: u64,
}

/// Where a key's bucket or a deployment's record is, for callers that see the same ones again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Position in the region's buckets, then in those of the process's own; of a deployment, in its table.
    pub slot: usize,
    /// Whose record it is as long as the place is the key's.
    pub identity: IdentityWord,
}

impl Place {
    /// The key, if it still stands in this bucket.
    #[inline]
    pub(super) fn key_in(self, bucket: &Bucket) -> Option<Key<'_>> {
        let seen = bucket.identity.load(Ordering::Acquire);
        index::is(seen, self.identity).then_some(Key {
            slot: self.slot,
            identity: self.identity,
            bucket,
        })
    }
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
        Limiter { quota, label: name.to_string(), domain: domain(&self.region, name, quota) }
    }

    /// Charges one request to `key`, or refuses it.
    #[inline]
    pub fn check(&self, limiter: &Limiter, key: &[u8]) -> Result<Decision, OpError> {
        self.check_cost(limiter, key, 1)
    }

    /// Charges `cost` requests to `key`, all or none.
    #[inline]
    pub fn check_cost(
        &self,
        limiter: &Limiter,
        key: &[u8],
        cost: u64,
    ) -> Result<Decision, OpError> {
        for _ in 0..ROUNDS {
            let found = self.quota_key(limiter, key)?;
            if let Some(decision) = self.charge_quota(limiter.quota, &found, cost)? {
                return Ok(decision);
            }
            self.count(|row| &row.misplaced);
        }
        Err(self.counted(OpError::Contended))
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
        let found = self.key_at(place)?;
        self.charge_quota(limiter.quota, &found, 1).transpose()
    }

    /// The key at a remembered place, if it still stands there. What keys without room share is remembered by
    /// nobody: there may be room for them by now.
    #[inline]
    pub(super) fn key_at(&self, place: Place) -> Option<Key<'_>> {
        let bucket = self.region.key_buckets().0.get(place.slot)?;
        place.key_in(bucket)
    }

    #[inline]
    pub(super) fn quota_key(&self, limiter: &Limiter, key: &[u8]) -> Result<Key<'_>, OpError> {
        let label = || label(limiter, key);
        let found = self.key(KeyKind::Gcra, limiter.domain, key, label)?;
        let limits =
            PairWord::new(u64::from(limiter.quota.per_minute()), u64::from(limiter.quota.burst()));
        found.note_limits(limits);
        Ok(found)
    }

    /// Charges a quota that was found; `None` = its key has been given up meanwhile, and nothing was decided.
    #[inline]
    pub(super) fn charge_quota(
        &self,
        quota: Quota,
        key: &Key<'_>,
        cost: u64,
    ) -> Result<Option<Decision>, OpError> {
        let decision = self.try_charge_quota(quota, key, cost, self.now())?;
        match decision {
            Some(Decision::Allowed { .. }) => {
                key.bucket.allowed.fetch_add(1, Ordering::Relaxed);
            }
            Some(Decision::Denied { .. }) => {
                add_one(&key.bucket.denied);
            }
            None => {}
        }
        Ok(decision)
    }

    /// As [`Self::charge_quota`], without the tallies, at a reading of the clock that the caller has taken.
    #[inline]
    pub(super) fn try_charge_quota(
        &self,
        quota: Quota,
        key: &Key<'_>,
        cost: u64,
        mut now: Instant,
    ) -> Result<Option<Decision>, OpError> {
        for _ in 0..ROUNDS {
            let mut suspect = false;
            let decision = gcra::charge(key.state(), now.us(), quota, cost, &mut suspect);
            let repaired = suspect && self.repair_quota(quota, key);
            match decision {
                // A charge that was made holds already.
                Ok(Decision::Denied { .. }) | Err(_) if !key.holds() => return Ok(None),
                Ok(decision) if !repaired => return Ok(Some(decision)),
                _ => now = self.now(),
            }
        }
        Err(self.counted(OpError::Contended))
    }

    #[cold]
    pub(super) fn repair_quota(&self, quota: Quota, key: &Key<'_>) -> bool {
        let repaired = gcra::repair(key.state(), || self.now().us(), quota);
        if repaired {
            self.count(|row| &row.corrected);
        }
        repaired
    }

    /// Requests that `key` could make now. Changes nothing.
    pub fn remaining(&self, limiter: &Limiter, key: &[u8]) -> u64 {
        let Some(found) = self.existing(KeyKind::Gcra, limiter.domain, key) else {
            return u64::from(limiter.quota.burst());
        };
        let word = found.bucket.requests.load(Ordering::Relaxed);
        gcra::remaining(GcraWord::from_bits(word.bits()), self.now().us(), limiter.quota)
    }

    /// Totals over the limiter's keys, those that were given up included. Walks all buckets; meant for
    /// statistics.
    pub fn limiter_totals(&self, rate: Option<Quota>) -> LimiterTotals {
        limiter_totals(&self.region, rate)
    }
}

/// The same of any region.
pub(crate) fn limiter_totals(region: &Region, rate: Option<Quota>) -> LimiterTotals {
    let wanted =
        rate.map(|quota| PairWord::new(u64::from(quota.per_minute()), u64::from(quota.burst())));
    let mut totals = LimiterTotals::default();
    for (_, bucket) in region.written(section::BUCKETS, region.buckets()) {
        let Some(key) = index::key_of(bucket.identity.load(Ordering::Acquire)) else {
            continue;
        };
        let stands = key.kind() == KeyKind::Gcra as u64;
        if !(stands || key.kind() == KeyKind::Tally as u64)
            || wanted.is_some_and(|rate| bucket.limits.load(Ordering::Relaxed) != rate)
        {
            continue;
        }
        totals.keys += u64::from(stands);
        totals.allowed = totals.allowed.wrapping_add(bucket.allowed.load(Ordering::Relaxed));
        totals.denied = totals.denied.wrapping_add(bucket.denied.load(Ordering::Relaxed));
    }
    totals
}

/// Hash domain of the keys of a limiter of that name and quota.
pub(crate) fn domain(region: &Region, name: &str, quota: Quota) -> u64 {
    region.hash(0, format!("{}/{}:{name}", quota.per_minute(), quota.burst()).as_bytes())
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

    /// Uses `count` keys; how many found no room.
    fn fill(engine: &Engine, limiter: &Limiter, count: usize) -> u64 {
        let full = |n: &usize| {
            engine.check(limiter, format!("key-{n}").as_bytes()) == Err(OpError::TableFull)
        };
        (0..count).filter(full).count() as u64
    }

    #[test]
    fn a_full_table_is_an_error_that_is_counted_and_known_keys_go_on() {
        let (engine, clock) = engine();
        let limiter = engine.limiter("", Quota::new(60, 1).unwrap());
        let refused = fill(&engine, &limiter, 4_000);
        assert!((4_000 - 1_536..4_000 - 1_024).contains(&refused));
        assert_eq!(engine.total(|row| &row.table_full), refused);
        assert_eq!(engine.total(|row| &row.overflow_denied), refused);
        assert!(!allowed(&engine, &limiter, "key-0"));
        clock.advance_s(2);
        assert!(allowed(&engine, &limiter, "key-0"));
        assert!(!allowed(&engine, &limiter, "key-0"));
    }

    #[test]
    fn idle_keys_make_room_and_their_tallies_are_kept() {
        let (engine, clock) = engine();
        let limiter = engine.limiter("", Quota::new(60, 1).unwrap());
        for round in 0..20 {
            for n in 0..1_000 {
                assert!(allowed(&engine, &limiter, &format!("{round}-{n}")), "{round}-{n}");
            }
            clock.advance_s(1);
        }
        assert_eq!(engine.total(|row| &row.table_full), 0);
        assert!(engine.total(|row| &row.keys_reclaimed) >= 18_000);
        let totals = engine.limiter_totals(Some(limiter.quota()));
        assert_eq!((totals.allowed, totals.denied), (20_000, 0));
        assert!(totals.keys <= 1_536);
    }

    #[test]
    fn a_key_that_owes_is_never_given_up() {
        let (engine, clock) = engine();
        let slow = engine.limiter("slow", Quota::new(1, 1).unwrap());
        let fast = engine.limiter("fast", Quota::new(60, 1).unwrap());
        assert!((0..200).all(|n| allowed(&engine, &slow, &format!("slow-{n}"))));
        for round in 0..20 {
            fill(&engine, &fast, 2_000);
            clock.advance_s(1);
            assert!((0..200).all(|n| !allowed(&engine, &slow, &format!("slow-{n}"))), "{round}");
        }
    }

    #[test]
    fn keys_without_room_share_one_quota_where_the_policy_says_so() {
        let (engine, _) = engine();
        engine.region().set_overflow(crate::config::Overflow::Shared);
        let limiter = engine.limiter("", Quota::new(60, 3).unwrap());
        assert_eq!(fill(&engine, &limiter, 4_000), 0);
        let admitted = (4_000..4_100).filter(|n| allowed(&engine, &limiter, &format!("key-{n}")));
        assert!(admitted.count() <= 3);
        assert!(engine.total(|row| &row.overflow_shared) > 1_000);
        assert_eq!(engine.total(|row| &row.overflow_denied), 0);
    }

    #[test]
    fn keys_without_room_are_decided_in_the_process_where_the_policy_says_so() {
        let (engine, _) = engine();
        engine.region().set_overflow(crate::config::Overflow::Local);
        let limiter = engine.limiter("", Quota::new(60, 3).unwrap());
        assert_eq!(fill(&engine, &limiter, 1_900), 0);
        let without_room = (0..1_900).map(|n| format!("key-{n}")).filter(|key| {
            let place = engine.place(&limiter, key.as_bytes()).unwrap();
            place.slot >= engine.region().buckets().len()
        });
        let keys: Vec<String> = without_room.collect();
        assert!(keys.len() > 300);
        for key in &keys {
            // One has been used up by the filling.
            assert_eq!((0..9).filter(|_| allowed(&engine, &limiter, key)).count(), 2, "{key}");
        }
        assert!(engine.total(|row| &row.overflow_local) > 1_000);
    }

    #[test]
    fn a_corrupt_word_is_corrected_and_counted() {
        let (engine, clock) = engine();
        let limiter = engine.limiter("", Quota::new(60, 2).unwrap());
        assert!(allowed(&engine, &limiter, "k"));
        let key = engine.existing(KeyKind::Gcra, limiter.domain, b"k").unwrap();
        let word = GcraWord::new(u64::MAX, 0);
        key.bucket.requests.store(Bits::from_bits(word.bits()), Ordering::Relaxed);
        assert!(!allowed(&engine, &limiter, "k"));
        assert_eq!(engine.total(|row| &row.corrected), 1);
        clock.advance_s(1);
        assert!(allowed(&engine, &limiter, "k"));
    }
}
