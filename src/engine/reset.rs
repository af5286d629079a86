//! Forgetting what a key was charged, by hand.
//!
//! Each word is swapped from what was seen, while the record is the key's: whatever is charged meanwhile is either
//! forgotten with the rest or charged afterwards, and a key that gets the record meanwhile loses nothing. The window
//! goes before its counters, so that a process that dies in between leaves counters of a window that is over.
//!
//! Slots stay held and tallies stay counted. What a request gives back that was charged before is given back to what
//! is charged afterwards if the window is the same one (a sliding window, or an anchored one that is opened again in
//! the second in which it was forgotten); a rate tells the two apart.

use super::Engine;
use super::keys::Key;
use super::quota::Place;
use crate::error::OpError;
use crate::layout::{IdentityWord, KeyKind};
use crate::primitives::{Contended, MAX_TRIES, Shared, gcra};
use crate::sync::{Bits, Ordering};
use crate::tables::index;

/// Whether keys of that kind are charged at all.
pub fn is_charged(identity: IdentityWord) -> bool {
    matches!(
        KeyKind::from_raw(identity.kind()),
        Some(KeyKind::Gcra | KeyKind::Window | KeyKind::Counter | KeyKind::Sliding)
    )
}

impl Engine {
    /// Forgets what the key in a bucket of the region was charged, as if it had never been used. False = it no longer
    /// stands there, or is never charged.
    ///
    /// # Errors
    /// `Contended` when it is charged under every try; some of its words may be forgotten by then.
    pub fn reset_at(&self, place: Place) -> Result<bool, OpError> {
        let found = self.region.buckets().get(place.slot).and_then(|bucket| place.key_in(bucket));
        let Some(key) = found.filter(|key| is_charged(key.identity)) else { return Ok(false) };
        let forgotten = self.rounds(&key, || match KeyKind::from_raw(key.identity.kind()) {
            Some(KeyKind::Gcra) => gcra::forget(key.state()),
            _ => forget_words(&key),
        })?;
        Ok(forgotten.is_some())
    }

    /// As [`Self::reset_at`], for every key of the region; returns how many those were. What keys without room are
    /// decided by in a process's own memory stays.
    ///
    /// # Errors
    /// As with one key; those behind it in the table are as they were.
    pub fn reset_all(&self) -> Result<u64, OpError> {
        let mut keys = 0;
        for (slot, bucket) in self.region.buckets().iter().enumerate() {
            let identity = index::key_of(bucket.identity.load(Ordering::Acquire));
            let Some(identity) = identity else { continue };
            keys += u64::from(self.reset_at(Place { slot, identity })?);
        }
        Ok(keys)
    }
}

fn forget_words(key: &Key<'_>) -> Result<(), Contended> {
    zero(key.held(|bucket| &bucket.window))?;
    zero(key.state())?;
    zero(key.held(|bucket| &bucket.tokens))
}

fn zero<S: Shared>(word: S) -> Result<(), Contended> {
    let zero = Bits::from_bits(0);
    let mut seen = word.load(Ordering::Acquire);
    for _ in 0..MAX_TRIES {
        if seen.bits() == 0 {
            return Ok(());
        }
        match word.compare_exchange(seen, zero, Ordering::SeqCst, Ordering::Acquire) {
            Ok(_) => return Ok(()),
            Err(now) => seen = now,
        }
    }
    Err(Contended)
}
