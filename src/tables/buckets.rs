//! Whether a bucket says anything, and bringing one that does not to zero.

use super::index;
use super::leases::Leases;
use crate::layout::{
    Bucket, CounterWord, GcraWord, IdentityWord, KeyKind, PairWord, SlidingWord, WindowWord,
};
use crate::primitives::{gcra, sliding};
use crate::sync::{Bits, Ordering, Word};

const SECOND_US: u64 = 1_000_000;

/// Whether a bucket says as much as none: nothing is charged, nothing is held.
pub fn is_idle(key: IdentityWord, bucket: &Bucket, leases: &Leases<'_>, now_us: u64) -> bool {
    Snapshot::of(bucket).says_nothing(key, now_us) && leases.is_idle()
}

/// Brings what an idle bucket says to all zeroes; false = it was charged meanwhile. Every word is swapped
/// from a value that says nothing, so that a process that is late with it harms nobody. The limits stay:
/// whoever takes them away does so last, because others judge by them whether the rest says anything.
pub fn clear(key: IdentityWord, bucket: &Bucket, leases: &Leases<'_>, now_us: u64) -> bool {
    let state = Snapshot::of(bucket);
    state.says_nothing(key, now_us)
        && leases.forget()
        && zero(key, bucket, &bucket.window, state.window)
        && zero(key, bucket, &bucket.tokens, state.tokens)
        && zero(key, bucket, &bucket.requests, state.requests)
}

/// Swaps a word of the key's bucket from what was seen to zero.
pub fn zero<T: Bits>(key: IdentityWord, bucket: &Bucket, word: &Word<T>, seen: T) -> bool {
    // Most processes that are late with it notice it here.
    index::is(bucket.identity.load(Ordering::Acquire), key)
        && word.compare_exchange(seen, T::from_bits(0), Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

/// The words that say something, leases aside.
struct Snapshot {
    requests: CounterWord,
    tokens: CounterWord,
    window: WindowWord,
    limits: PairWord,
}

impl Snapshot {
    fn of(bucket: &Bucket) -> Self {
        Self {
            requests: bucket.requests.load(Ordering::SeqCst),
            tokens: bucket.tokens.load(Ordering::SeqCst),
            window: bucket.window.load(Ordering::SeqCst),
            limits: bucket.limits.load(Ordering::Relaxed),
        }
    }

    fn says_nothing(&self, key: IdentityWord, now_us: u64) -> bool {
        let (now_s, word) = (now_us / SECOND_US, self.requests.bits());
        match KeyKind::from_raw(key.kind()) {
            Some(KeyKind::Gcra) => gcra::is_idle(GcraWord::from_bits(word), now_us),
            Some(KeyKind::Sliding) => {
                sliding::is_idle(SlidingWord::from_bits(word), now_us, self.limits.tokens())
            }
            Some(KeyKind::Counter) => self.requests.loose_left(now_s).is_none(),
            Some(KeyKind::Window) => {
                self.window.left(now_s, u64::MAX).is_none()
                    && self.requests.loose_left(now_s).is_none()
                    && self.tokens.loose_left(now_s).is_none()
            }
            _ => false,
        }
    }
}
