//! Keys: finding a key's bucket, making room for it, and what happens where there is none.

use super::{Engine, ROUNDS};
use crate::clock::Instant;
use crate::config::Overflow;
use crate::error::OpError;
use crate::layout::{
    Bucket, CounterWord, GcraWord, IdentityWord, KeyKind, LeaseLimits, Name, PairWord, SlidingWord,
    WindowWord,
};
use crate::primitives::{gcra, sliding};
use crate::sync::{Bits, Ordering, Word};
use crate::tables::index::{self, NotInserted, Probe};
use crate::tables::leases::Leases;
use crate::tables::{names, workers};

/// Every so many operations on a key its name is looked after.
const NAME_CHECK_MASK: u64 = 63;
/// Keys without room that one process decides for itself.
const LOCAL_BUCKETS: usize = 1 << 10;
/// What all keys of a limiter are called that share one bucket for want of room.
const SHARED_KEY: &[u8] = b"\0shared";
/// Hash domain of [`KeyKind::Tally`].
const TALLIES: u64 = 0x7461_6c6c;

/// A key with its bucket.
#[derive(Clone, Copy)]
pub struct Key<'a> {
    /// Position in the region's buckets; beyond all of them for a bucket of the process's own.
    pub slot: usize,
    /// Identity.
    pub identity: IdentityWord,
    /// State.
    pub bucket: &'a Bucket,
}

impl Key<'_> {
    /// To be called after a charge: whether the bucket still is the key's.
    #[inline]
    pub fn holds(&self) -> bool {
        index::holds(&self.bucket.identity, self.identity)
    }
}

impl Engine {
    #[inline]
    fn identify(&self, kind: KeyKind, domain: u64, bytes: &[u8]) -> (IdentityWord, Probe) {
        let (hash, home) = self.region.hash(domain ^ kind as u64, bytes);
        (index::identity(kind, hash), Probe::new(home, hash.rotate_left(32)))
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
        if let Some(slot) = index::find(buckets, probe, identity) {
            let key = Key { slot, identity, bucket: &buckets[slot] };
            if key.bucket.allowed.load(Ordering::Relaxed) & NAME_CHECK_MASK == NAME_CHECK_MASK {
                self.look_after_name(&key, label);
            }
            return Ok(key);
        }
        self.new_key(domain, identity, probe, label)
    }

    /// The key's bucket if it has one.
    pub(super) fn existing(&self, kind: KeyKind, domain: u64, bytes: &[u8]) -> Option<Key<'_>> {
        let (identity, probe) = self.identify(kind, domain, bytes);
        let (buckets, shared) = self.region.key_buckets();
        if let Some(slot) = index::find(buckets, probe, identity) {
            return Some(Key { slot, identity, bucket: &buckets[slot] });
        }
        match self.region.overflow() {
            Overflow::Deny => None,
            Overflow::Shared => {
                let (identity, probe) = self.identify(kind, domain, SHARED_KEY);
                let slot = index::find(shared, probe, identity)?;
                let bucket = &shared[slot];
                Some(Key { slot: buckets.len() + slot, identity, bucket })
            }
            Overflow::Local => {
                let local = self.local.overflow.get()?;
                let slot = index::find(local, probe, identity)?;
                Some(Key { slot: usize::MAX, identity, bucket: &local[slot] })
            }
        }
    }

    #[cold]
    fn new_key(
        &self,
        domain: u64,
        identity: IdentityWord,
        probe: Probe,
        label: impl FnOnce() -> String,
    ) -> Result<Key<'_>, OpError> {
        let (buckets, _) = self.region.key_buckets();
        match self.insert(buckets, self.region.names(), probe, identity) {
            Ok(slot) => {
                let key = Key { slot, identity, bucket: &buckets[slot] };
                self.look_after_name(&key, label);
                Ok(key)
            }
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
        for _ in 0..ROUNDS {
            match index::insert(buckets, probe, identity, index::nonce) {
                Ok(slot) => return Ok(slot.index),
                Err(NotInserted::Full) => self.make_room(buckets, names, probe)?,
                Err(error) => return Err(error),
            }
        }
        Err(NotInserted::Contended)
    }

    fn make_room(
        &self,
        buckets: &[Bucket],
        names: &[Name],
        probe: Probe,
    ) -> Result<(), NotInserted> {
        let now = self.now();
        let gave_up = index::make_room(
            buckets,
            probe,
            |key, bucket| self.is_idle(key, bucket, now),
            |slot, key, bucket| self.clear(names.get(slot), key, bucket, now),
        )?;
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
        let found = match (policy, KeyKind::from_raw(identity.kind())) {
            (Overflow::Shared, Some(kind)) => {
                let (identity, probe) = self.identify(kind, domain, SHARED_KEY);
                let names = self.region.names().get(buckets.len()..).unwrap_or_default();
                let inserted = self.insert(shared, names, probe, identity).ok();
                inserted.map(|slot| {
                    let key = Key { slot: buckets.len() + slot, identity, bucket: &shared[slot] };
                    self.look_after_name(&key, || "(keys without room)".to_string());
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
                    Key { slot: usize::MAX, identity, bucket: &local[slot] }
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
    fn look_after_name(&self, key: &Key<'_>, label: impl FnOnce() -> String) {
        let (Some(record), Some(owner)) = (self.region.names().get(key.slot), self.me()) else {
            return;
        };
        if names::missing(record) {
            let rows = self.region.workers();
            names::publish(record, owner, &label(), |writer| workers::is_gone(rows, writer));
        }
    }

    /// Leases under a key.
    pub(super) fn leases<'a>(&'a self, key: &Key<'a>) -> Leases<'a> {
        Leases {
            chunks: self.region.chunks(),
            key: key.identity,
            key_slot: key.slot as u64 + 1,
            limits: &key.bucket.lease,
            nonce: index::nonce,
        }
    }

    /// Whether a bucket says as much as none: nothing is charged, nothing is held.
    fn is_idle(&self, identity: IdentityWord, bucket: &Bucket, now: Instant) -> bool {
        let key = Key { slot: usize::MAX, identity, bucket };
        let state = Snapshot::of(bucket);
        state.says_nothing(identity, bucket, now)
            && (state.lease.high_water() == 0 || self.leases(&key).count() == 0)
    }

    /// Brings an idle bucket to all zeroes; false = it was charged meanwhile. Every word is swapped from a
    /// value that says nothing, so that a process that is late with it harms nobody.
    fn clear(&self, name: Option<&Name>, key: IdentityWord, bucket: &Bucket, now: Instant) -> bool {
        let limits = bucket.limits.load(Ordering::Relaxed);
        let state = Snapshot::of(bucket);
        let cleared = state.says_nothing(key, bucket, now)
            && swap(&bucket.lease, state.lease)
            && swap(&bucket.window, state.window)
            && swap(&bucket.tokens, state.tokens)
            && swap(&bucket.requests, state.requests);
        if cleared {
            let (allowed, denied) = (take(&bucket.allowed), take(&bucket.denied));
            if key.kind() == KeyKind::Gcra as u64 {
                self.keep_tally(limits, allowed, denied);
            }
            swap(&bucket.limits, limits);
            if let Some(name) = name {
                swap(&name.head, name.head.load(Ordering::Relaxed));
            }
        }
        cleared
    }

    /// Adds what a key that is given up has been admitted and refused to what its limiter's others have.
    fn keep_tally(&self, limits: PairWord, allowed: u64, denied: u64) {
        let (_, shared) = self.region.key_buckets();
        let bytes = limits.bits().to_le_bytes();
        let (identity, probe) = self.identify(KeyKind::Tally, TALLIES, &bytes);
        if let Ok(slot) = index::insert(shared, probe, identity, index::nonce) {
            let tally = &shared[slot.index];
            tally.limits.store(limits, Ordering::Relaxed);
            tally.allowed.fetch_add(allowed, Ordering::Relaxed);
            tally.denied.fetch_add(denied, Ordering::Relaxed);
        }
    }
}

/// The words of a bucket that say something.
struct Snapshot {
    requests: CounterWord,
    tokens: CounterWord,
    window: WindowWord,
    lease: LeaseLimits,
}

impl Snapshot {
    fn of(bucket: &Bucket) -> Self {
        Self {
            requests: bucket.requests.load(Ordering::SeqCst),
            tokens: bucket.tokens.load(Ordering::SeqCst),
            window: bucket.window.load(Ordering::SeqCst),
            lease: bucket.lease.load(Ordering::SeqCst),
        }
    }

    /// Whether they are in their default state, leases aside.
    fn says_nothing(&self, identity: IdentityWord, bucket: &Bucket, now: Instant) -> bool {
        let word = self.requests.bits();
        match KeyKind::from_raw(identity.kind()) {
            Some(KeyKind::Gcra) => gcra::is_idle(GcraWord::from_bits(word), now.us()),
            Some(KeyKind::Sliding) => {
                let window_s = bucket.limits.load(Ordering::Relaxed).tokens();
                sliding::is_idle(SlidingWord::from_bits(word), now.us(), window_s)
            }
            Some(KeyKind::Counter) => self.requests.loose_left(now.s()).is_none(),
            Some(KeyKind::Window) => {
                self.window.left(now.s(), u64::MAX).is_none()
                    && self.requests.loose_left(now.s()).is_none()
                    && self.tokens.loose_left(now.s()).is_none()
            }
            _ => false,
        }
    }
}

/// Swaps a word from what was seen to zero.
fn swap<T: Bits + PartialEq>(word: &Word<T>, seen: T) -> bool {
    word.compare_exchange(seen, T::from_bits(0), Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

/// Takes a count, unless it changes under the hand.
fn take(word: &Word<u64>) -> u64 {
    let seen = word.load(Ordering::Relaxed);
    if swap(word, seen) { seen } else { 0 }
}
