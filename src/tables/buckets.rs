//! Whether a bucket says anything, and bringing one that does not to zero.

use super::index;
use super::leases::Leases;
use crate::layout::{
    Bucket, CounterWord, GcraWord, IdentityWord, KeyKind, PairWord, SlidingWord, WindowWord,
};
use crate::primitives::{MAX_TRIES, gcra, sliding};
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

/// Takes what a key that is given up has been admitted and refused, and adds it to the `tally` of its limiter, if
/// there is one; false = the bucket is another key's, or somebody counted under every try.
///
/// Several processes may be here for one key. Each count is taken by one of them, and the key's limits stay until
/// nothing is left to be taken, so that all of them add to the same tally. These are statistics all the same:
/// * who is killed between taking a count and adding it takes it along: what one key was admitted or refused since
///   it was inserted;
/// * an operation that has decided and not yet counted when its key is given up counts 1 for whatever stands there
///   by then: for no limiter (the tally of limits 0) if a second process is here, else for the next key;
/// * what finds no place among the tallies, because there are too many limiters, is forgotten.
///
/// What limits decide by is in other words.
pub fn hand_over<'a>(
    key: IdentityWord,
    bucket: &Bucket,
    tally: impl Fn() -> Option<&'a Bucket>,
) -> bool {
    let counters: [fn(&Bucket) -> &Word<u64>; 2] = [|of| &of.allowed, |of| &of.denied];
    counters.into_iter().all(|counter| {
        if counter(bucket).load(Ordering::Relaxed) == 0 {
            return true;
        }
        // Found before anything is taken: what is taken is nowhere until it has been added.
        let tally = tally();
        let Some(taken) = take(key, bucket, counter(bucket)) else { return false };
        if let Some(tally) = tally {
            counter(tally).fetch_add(taken, Ordering::Relaxed);
        }
        true
    })
}

/// Takes what a counter of the key's bucket has counted, so that nobody else takes it, too.
fn take(key: IdentityWord, bucket: &Bucket, counter: &Word<u64>) -> Option<u64> {
    for _ in 0..MAX_TRIES {
        let seen = counter.load(Ordering::Acquire);
        if seen == 0 || zero(key, bucket, counter, seen) {
            return Some(seen);
        }
        if !index::is(bucket.identity.load(Ordering::Acquire), key) {
            return None;
        }
    }
    None
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
