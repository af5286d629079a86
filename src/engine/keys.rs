//! Keys: finding a key's bucket, making room for it, and what happens where there is none.

use super::{Engine, OVERFLOW_INTERVAL_US, ROUNDS, is_due};
use crate::clock::Instant;
use crate::config::Overflow;
use crate::error::OpError;
use crate::layout::{Bucket, CounterWord, EventKind, IdentityWord, KeyKind, Name, PairWord};
use crate::primitives::{MAX_TRIES, Shared};
use crate::region::Region;
use crate::sync::{Bits, Ordering, Word};
use crate::tables::index::{self, Held, Keyed, NotInserted, Probe};
use crate::tables::leases::Leases;
use crate::tables::{buckets, names, workers};

/// A name is looked after at the last two of every so many operations of its record, as one call may count two
/// and must not pass over the check.
pub(super) const NAME_CHECKS: u64 = 256;
/// Keys without room that one process decides for itself.
const LOCAL_BUCKETS: usize = 1 << 10;
/// What all keys of a limiter are called that share one bucket for want of room.
pub(crate) const SHARED_KEY: &[u8] = b"\0shared";
/// What that bucket is called.
pub(crate) const SHARED_NAME: &str = "(keys without room)";
/// Hash domain of [`KeyKind::Tally`].
const TALLIES: u64 = 0x7461_6c6c;

/// A key with its bucket.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    /// Position in the region's buckets, then in those of the process's own.
    pub slot: usize,
    /// Identity.
    pub identity: IdentityWord,
    /// State.
    pub bucket: &'a Bucket,
}

/// Whether anything was ever decided about a bucket's key.
fn is_used(bucket: &Bucket) -> bool {
    bucket.allowed.load(Ordering::Relaxed) != 0 || bucket.denied.load(Ordering::Relaxed) != 0
}

/// Whether to look after the name of a record with these tallies of operations. Whoever wrote it first may have
/// died over it.
#[inline]
pub(super) fn wants_name_check(tallies: [&Word<u64>; 2]) -> bool {
    let [one, two] = tallies.map(|tally| tally.load(Ordering::Relaxed));
    let operations = one.wrapping_add(two);
    // A record whose operations are not counted stays at none.
    operations == 0 || operations % NAME_CHECKS >= NAME_CHECKS - 2
}

impl Key<'_> {
    /// To be called after a charge: whether the bucket still is the key's.
    #[inline]
    pub fn holds(&self) -> bool {
        index::holds(&self.bucket.identity, self.identity)
    }
}

impl<'a> Key<'a> {
    /// A word of the bucket, which is swapped only while the bucket is the key's.
    #[inline]
    pub(super) fn held<T: Bits>(
        &self,
        word: impl FnOnce(&'a Bucket) -> &'a Word<T>,
    ) -> Held<'a, T> {
        Held::new(word(self.bucket), &self.bucket.identity, self.identity)
    }

    /// The word that a rule of one word keeps its state in.
    #[inline]
    pub(super) fn state(&self) -> Held<'a, CounterWord> {
        self.held(|bucket| &bucket.requests)
    }

    /// Writes the limits down if they are others. A sliding window is judged idle or not by them, so they
    /// must not come from a process that is late with another key's.
    #[inline]
    pub(super) fn note_limits(&self, limits: PairWord) {
        if self.bucket.limits.load(Ordering::Relaxed) != limits {
            self.change_limits(limits);
        }
    }

    #[cold]
    fn change_limits(&self, limits: PairWord) {
        let word = self.held(|bucket| &bucket.limits);
        let mut seen = word.load(Ordering::Relaxed);
        for _ in 0..MAX_TRIES {
            if seen == limits {
                return;
            }
            match word.compare_exchange(seen, limits, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }
}

/// The slot of what stands in a table, inserted if needed. While its places are all taken, `make_room` gives up
/// something idle in one of them, or tells that there is nothing.
pub(super) fn insert_with_room<T: Keyed>(
    table: &[T],
    probe: Probe,
    identity: IdentityWord,
    mut make_room: impl FnMut() -> Result<(), NotInserted>,
) -> Result<usize, NotInserted> {
    for _ in 0..ROUNDS {
        match index::insert(table, probe, identity, index::nonce) {
            Ok(slot) => return Ok(slot.index),
            Err(NotInserted::Full) => make_room()?,
            Err(error) => return Err(error),
        }
    }
    Err(NotInserted::Contended)
}

/// Identity and places of a key.
#[inline]
pub(crate) fn identify(
    region: &Region,
    kind: KeyKind,
    domain: u64,
    bytes: &[u8],
) -> (IdentityWord, Probe) {
    let hash = region.hash(domain ^ kind as u64, bytes);
    (index::identity(kind, hash), Probe::of(hash))
}

/// Leases under a key.
pub(crate) fn leases_of<'a>(region: &'a Region, key: &Key<'a>) -> Leases<'a> {
    // Where a bucket of the process's own is means nothing to others.
    let shared = key.slot < region.buckets().len();
    Leases {
        chunks: region.chunks(),
        key: key.identity,
        key_slot: if shared { key.slot as u64 + 1 } else { 0 },
        limits: &key.bucket.lease,
        nonce: index::nonce,
    }
}

impl Engine {
    #[inline]
    fn identify(&self, kind: KeyKind, domain: u64, bytes: &[u8]) -> (IdentityWord, Probe) {
        identify(&self.region, kind, domain, bytes)
    }

    /// The key's bucket, inserted if needed; `label` gives its printable name.
    #[inline]
    pub(super) fn key(
        &self,
        kind: KeyKind,
        domain: u64,
        bytes: &[u8],
        label: impl FnOnce() -> String,
    ) -> Result<Key<'_>, OpError> {
        let (identity, probe) = self.identify(kind, domain, bytes);
        let (buckets, _) = self.region.key_buckets();
        let key = match index::find(buckets, probe, identity) {
            Some(slot) => Key { slot, identity, bucket: &buckets[slot] },
            None => self.new_key(domain, identity, probe)?,
        };
        if wants_name_check([&key.bucket.allowed, &key.bucket.denied]) {
            self.look_after_key_name(&key, label);
        }
        Ok(key)
    }

    /// The key's bucket if it has one.
    pub(super) fn existing(&self, kind: KeyKind, domain: u64, bytes: &[u8]) -> Option<Key<'_>> {
        let (identity, probe) = self.identify(kind, domain, bytes);
        let (buckets, _) = self.region.key_buckets();
        if let Some(slot) = index::find(buckets, probe, identity) {
            return Some(Key { slot, identity, bucket: &buckets[slot] });
        }
        match self.region.overflow() {
            Overflow::Deny => None,
            Overflow::Shared => self.shared_key(kind, domain),
            Overflow::Local => {
                let local = self.local.overflow.get()?;
                let slot = index::find(local, probe, identity)?;
                Some(self.local_key(slot, identity, &local[slot]))
            }
        }
    }

    /// The bucket that keys without room share, if it has been used. What such a key holds stays there when
    /// the key has found room.
    pub(super) fn shared_key(&self, kind: KeyKind, domain: u64) -> Option<Key<'_>> {
        let (buckets, shared) = self.region.key_buckets();
        let (identity, probe) = self.identify(kind, domain, SHARED_KEY);
        let slot = index::find(shared, probe, identity)?;
        Some(Key { slot: buckets.len() + slot, identity, bucket: &shared[slot] })
    }

    fn local_key<'a>(&self, slot: usize, identity: IdentityWord, bucket: &'a Bucket) -> Key<'a> {
        Key { slot: self.region.buckets().len() + slot, identity, bucket }
    }

    /// The bucket at a key's slot.
    #[inline]
    pub(super) fn bucket_at(&self, slot: usize) -> Option<&Bucket> {
        let buckets = self.region.buckets();
        buckets
            .get(slot)
            .or_else(|| self.local.overflow.get()?.get(slot.checked_sub(buckets.len())?))
    }

    #[cold]
    fn new_key(
        &self,
        domain: u64,
        identity: IdentityWord,
        probe: Probe,
    ) -> Result<Key<'_>, OpError> {
        let (buckets, _) = self.region.key_buckets();
        match self.insert(buckets, self.region.names(), probe, identity) {
            Ok(slot) => Ok(Key { slot, identity, bucket: &buckets[slot] }),
            Err(NotInserted::Full) => self.overflow(domain, identity, probe),
            Err(NotInserted::Contended) => Err(self.counted(OpError::Contended)),
        }
    }

    /// Inserts a key, giving up an idle one if its places are all taken. `names` are those of the buckets.
    fn insert(
        &self,
        buckets: &[Bucket],
        names: &[Name],
        probe: Probe,
        identity: IdentityWord,
    ) -> Result<usize, NotInserted> {
        insert_with_room(buckets, probe, identity, || self.make_room(buckets, names, probe))
    }

    /// Gives an idle key up. One that was never decided about may have been inserted by a request that is
    /// about to charge it, this one even, and is given up only where there is no other: two keys of one
    /// request would take each other's place again and again.
    fn make_room(
        &self,
        buckets: &[Bucket],
        names: &[Name],
        probe: Probe,
    ) -> Result<(), NotInserted> {
        let now = self.now();
        let make_room = |new: bool| {
            index::make_room(
                buckets,
                probe,
                |key, bucket| (new || is_used(bucket)) && self.is_idle(key, bucket, now),
                |slot, key, bucket| self.clear(names.get(slot), key, bucket, now),
            )
        };
        let gave_up = match make_room(false) {
            Err(NotInserted::Full) => make_room(true),
            done => done,
        }?;
        if gave_up.is_some() {
            self.count(|row| &row.keys_reclaimed);
        }
        Ok(())
    }

    /// What the policy says about a key without room.
    fn overflow(
        &self,
        domain: u64,
        identity: IdentityWord,
        probe: Probe,
    ) -> Result<Key<'_>, OpError> {
        self.count(|row| &row.table_full);
        let (buckets, shared) = self.region.key_buckets();
        let policy = self.region.overflow();
        if is_due(&self.local.last_overflow_us, self.now(), OVERFLOW_INTERVAL_US) {
            self.event_about(identity, EventKind::Overflowed, policy as u64, identity.kind());
        }
        let found = match (policy, KeyKind::from_raw(identity.kind())) {
            (Overflow::Shared, Some(kind)) => {
                let (identity, probe) = self.identify(kind, domain, SHARED_KEY);
                let names = self.region.names().get(buckets.len()..).unwrap_or_default();
                let inserted = self.insert(shared, names, probe, identity).ok();
                inserted.map(|slot| {
                    let key = Key { slot: buckets.len() + slot, identity, bucket: &shared[slot] };
                    self.look_after_key_name(&key, || SHARED_NAME.to_string());
                    self.count(|row| &row.overflow_shared);
                    key
                })
            }
            (Overflow::Local, _) => {
                let make = || (0..LOCAL_BUCKETS).map(|_| Bucket::zeroed()).collect();
                let local = self.local.overflow.get_or_init(make);
                let inserted = self.insert(local, &[], probe, identity).ok();
                inserted.map(|slot| {
                    self.count(|row| &row.overflow_local);
                    self.local_key(slot, identity, &local[slot])
                })
            }
            _ => None,
        };
        found.ok_or_else(|| {
            self.count(|row| &row.overflow_denied);
            OpError::TableFull
        })
    }

    #[cold]
    fn look_after_key_name(&self, key: &Key<'_>, label: impl FnOnce() -> String) {
        if let Some(record) = self.region.names().get(key.slot) {
            self.look_after_name(record.into(), label, || key.holds());
        }
    }

    /// Writes a record's name if it is not there. `stands` tells whether the record still is the key's.
    pub(super) fn look_after_name(
        &self,
        name: names::Place<'_>,
        label: impl FnOnce() -> String,
        stands: impl Fn() -> bool,
    ) {
        let Some(owner) = self.me().filter(|_| names::read(name).is_none()) else { return };
        let writer = names::Writer { owner, nonce: index::nonce() };
        let rows = self.region.workers();
        let dead = |owner| workers::is_gone(rows, owner);
        names::publish(name, writer, &label(), dead, stands);
    }

    /// Leases under a key.
    pub(super) fn leases<'a>(&'a self, key: &Key<'a>) -> Leases<'a> {
        leases_of(&self.region, key)
    }

    fn is_idle(&self, identity: IdentityWord, bucket: &Bucket, now: Instant) -> bool {
        let leases = self.leases(&Key { slot: usize::MAX, identity, bucket });
        buckets::is_idle(identity, bucket, &leases, now.us())
    }

    /// Brings an idle bucket to all zeroes, its name included; false = it was charged meanwhile.
    fn clear(
        &self,
        name: Option<&Name>,
        identity: IdentityWord,
        bucket: &Bucket,
        now: Instant,
    ) -> bool {
        let leases = self.leases(&Key { slot: usize::MAX, identity, bucket });
        let limits = bucket.limits.load(Ordering::Relaxed);
        if !buckets::clear(identity, bucket, &leases, now.us()) {
            return false;
        }
        let tally = || {
            let of_rate = identity.kind() == KeyKind::Gcra as u64;
            of_rate.then(|| self.tally(bucket.limits.load(Ordering::Relaxed))).flatten()
        };
        if !buckets::hand_over(identity, bucket, tally) {
            return false;
        }
        buckets::zero(identity, bucket, &bucket.limits, limits);
        name.is_none_or(names::withdraw)
    }

    /// The bucket in which a limiter's tally is kept, of keys that were given up; `None` = no place is left.
    fn tally(&self, limits: PairWord) -> Option<&Bucket> {
        let (_, shared) = self.region.key_buckets();
        let bytes = limits.bits().to_le_bytes();
        let (identity, probe) = self.identify(KeyKind::Tally, TALLIES, &bytes);
        let slot = index::find(shared, probe, identity).or_else(|| {
            // Half of the places are for what keys without room share.
            let is_tally = |bucket: &&Bucket| {
                bucket.identity.load(Ordering::Acquire).kind() == KeyKind::Tally as u64
            };
            let room = shared.iter().filter(is_tally).count() < shared.len() / 2;
            let insert = || index::insert(shared, probe, identity, index::nonce).ok();
            room.then(insert)?.map(|slot| slot.index)
        })?;
        let tally = &shared[slot];
        tally.limits.store(limits, Ordering::Relaxed);
        Some(tally)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;
    use crate::primitives::gcra::Quota;
    use std::sync::Barrier;

    #[test]
    fn tallies_leave_room_for_what_keys_without_room_share() {
        let (engine, _) = engine();
        let limits = |n| PairWord::new(n, 1);
        assert_eq!((1..=100).filter(|&n| engine.tally(limits(n)).is_some()).count(), 32);
        assert!(engine.tally(limits(1)).is_some());
        // An interpreter would take minutes to fill the table.
        if !cfg!(miri) {
            engine.region().set_overflow(Overflow::Shared);
            let limiter = engine.limiter("", Quota::new(60, 1).unwrap());
            let check = |n: u32| engine.check(&limiter, format!("key-{n}").as_bytes());
            assert!((0..2_000).all(|n| check(n).is_ok()));
            assert!(engine.total(|row| &row.overflow_shared) > 0);
        }
    }

    /// Two processes give the same key up at once while a third one counts late. Nothing is booked twice or
    /// lost, and what had been counted before is booked for the key's limiter.
    #[test]
    fn what_two_processes_give_up_is_booked_once_and_for_its_limiter() {
        const ROUNDS: u64 = if cfg!(miri) { 2 } else { 1_000 };
        const BEFORE: u64 = 1_000;
        const LATE: u64 = if cfg!(miri) { 10 } else { 200 };
        let (engine, _) = engine();
        let limiter = engine.limiter("", Quota::new(60, 1).unwrap());
        let now = engine.now();
        for round in 1..=ROUNDS {
            let key = engine.quota_key(&limiter, b"k").unwrap();
            key.bucket.allowed.fetch_add(BEFORE, Ordering::Relaxed);
            let barrier = Barrier::new(3);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        barrier.wait();
                        engine.clear(None, key.identity, key.bucket, now)
                    });
                }
                barrier.wait();
                for _ in 0..LATE {
                    key.bucket.allowed.fetch_add(1, Ordering::Relaxed);
                }
            });
            let all = engine.limiter_totals(None).allowed;
            let ours = engine.limiter_totals(Some(limiter.quota())).allowed;
            assert_eq!(all, round * (BEFORE + LATE));
            assert!(all - ours <= round * LATE, "{} for no limiter", all - ours);
        }
    }

    #[test]
    fn a_key_that_counted_nothing_takes_no_place_among_the_tallies() {
        let (engine, _) = engine();
        let limiter = engine.limiter("", Quota::new(60, 1).unwrap());
        let key = engine.quota_key(&limiter, b"k").unwrap();
        assert!(engine.clear(None, key.identity, key.bucket, engine.now()));
        let (_, shared) = engine.region.key_buckets();
        assert!(shared.iter().all(|place| place.identity.load(Ordering::Relaxed).bits() == 0));
    }
}
