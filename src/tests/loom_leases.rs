//! Concurrency slots: never more than the limit, and what is held is never lost.

use crate::layout::{Bucket, IdentityWord, KeyKind, LeaseChunk, LeaseWord, OwnerTag, SlotState};
use crate::sync::{Ordering, in_total_order};
use crate::tables::leases::{self, Claim, Leases};
use crate::tables::{buckets, index};
use loom::sync::Arc;
use loom::thread;

/// Chunks of two slots, and the record of the key that holds them.
struct Held {
    chunks: [LeaseChunk; 4],
    bucket: Bucket,
}

fn key() -> IdentityWord {
    index::identity(KeyKind::Window, 1 << 13)
}

fn other_key() -> IdentityWord {
    index::identity(KeyKind::Window, 2 << 13)
}

fn held() -> Arc<Held> {
    let bucket = Bucket::zeroed();
    bucket.identity.store(key(), Ordering::Relaxed);
    Arc::new(Held { chunks: [(); 4].map(|()| LeaseChunk::zeroed()), bucket })
}

fn owner(row: u32) -> OwnerTag {
    OwnerTag::new(row, 1).expect("valid")
}

impl Held {
    fn leases(&self) -> Leases<'_> {
        let nonce = || 1;
        Leases { chunks: &self.chunks, key: key(), key_slot: 1, limits: &self.bucket.lease, nonce }
    }

    fn claim(&self, limit: u64, row: u32) -> Option<Claim> {
        self.leases().claim(limit, 0, owner(row), 5, u64::from(row)).ok().flatten()
    }

    /// As the engine does it: a claim counts only if the key's record still stands after it.
    fn claim_standing(&self, limit: u64, row: u32) -> Option<Claim> {
        let claim = self.claim(limit, row)?;
        if index::holds(&self.bucket.identity, key()) {
            return Some(claim);
        }
        self.leases().release(claim);
        None
    }

    /// Slots that are held in all chunks, whatever their keys are.
    fn in_chunks(&self) -> usize {
        let holders = self.chunks.iter().flat_map(|chunk| &chunk.holders);
        holders.filter(|holder| holder.load(Ordering::SeqCst) != LeaseWord::default()).count()
    }

    /// Gives the key's record up, as the index does.
    fn give_up(&self) -> bool {
        let (word, leases) = (&self.bucket.identity, self.leases());
        let seen = word.load(Ordering::SeqCst);
        let swap = |from, to| word.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed);
        let in_state =
            |state, version| IdentityWord::new(state as u64, key().kind(), version, key().hash());
        let version = seen.version() + 1;
        let leaving = in_state(SlotState::Leaving, version);
        if !index::is(seen, key()) || swap(seen, leaving).is_err() {
            return false;
        }
        in_total_order();
        let idle = || buckets::is_idle(key(), &self.bucket, &leases, 5_000_000);
        if idle() && buckets::clear(key(), &self.bucket, &leases, 5_000_000) {
            return swap(leaving, IdentityWord::new(0, 0, version, 1)).is_ok();
        }
        let _ = swap(leaving, in_state(SlotState::Taken, version));
        false
    }
}

/// Mutation `lease-blind-claim`.
#[test]
fn loom_leases_never_above_the_limit() {
    super::run(|| {
        let held = held();
        let other = held.clone();
        let thread = thread::spawn(move || other.claim(1, 2).is_some());
        let mine = held.claim(1, 1).is_some();
        assert!(mine != thread.join().expect("joins"));
        assert_eq!((held.in_chunks(), held.leases().count()), (1, 1));
    });
}

/// A dead owner's slot is reaped and claimed by another while its release is still under way (by a process
/// that was taken for dead, or that reaps, too): each slot has one holder, and is freed by it only.
///
/// Mutation `lease-blind-release`.
#[test]
fn loom_leases_a_late_release_frees_nobody_else() {
    super::run(|| {
        let held = held();
        let claim = held.claim(1, 1).expect("free");
        let (late, reaper) = (held.clone(), held.clone());
        let late = thread::spawn(move || late.leases().release(claim));
        let reaper = thread::spawn(move || {
            leases::reap(&reaper.chunks, |gone| gone == owner(1), |_| {}) == 1
        });
        let next = held.claim(1, 2).is_some();
        let freed =
            u32::from(late.join().expect("joins")) + u32::from(reaper.join().expect("joins"));
        assert_eq!(freed, 1);
        assert_eq!((held.in_chunks(), held.leases().count()), (usize::from(next), u64::from(next)));
    });
}

/// The limit was lowered from two to one while the second slot is held: there is no second holder before
/// that one is gone, whoever claims.
///
/// Mutations `lease-ignore-overhang`, `lease-unordered`.
#[test]
fn loom_leases_a_lowered_limit_is_not_passed() {
    super::run(|| {
        let held = held();
        let first = held.claim(2, 1).expect("free");
        held.claim(2, 1).expect("free");
        assert!(held.leases().release(first));
        // Slot 1 is held, slot 0 is free.
        let other = held.clone();
        let thread = thread::spawn(move || other.claim(1, 2).is_some());
        let mine = held.claim(1, 3).is_some();
        assert!(!mine && !thread.join().expect("joins"));
        assert_eq!(held.in_chunks(), 1);
    });
}

/// A chunk is given up while a slot of it is claimed: the holder keeps a slot that its key can see, and the
/// next key of the chunk has none of it.
///
/// Mutations `charge-unordered`, `reclaim-without-second-look`, `reclaim-unordered`, `chunk-without-look`.
#[test]
fn loom_leases_a_chunk_in_use_is_not_given_up() {
    super::run(|| {
        let held = held();
        // The chunk exists and is idle; all other places are taken.
        let first = held.claim(1, 1).expect("free");
        assert!(held.leases().release(first));
        for chunk in held
            .chunks
            .iter()
            .filter(|chunk| chunk.identity.load(Ordering::SeqCst) == IdentityWord::default())
        {
            chunk.identity.store(index::identity(KeyKind::Chunk, 99 << 13), Ordering::Relaxed);
            chunk.holders[0].store(LeaseWord::new(owner(9).raw(), 1), Ordering::Relaxed);
        }
        let other = held.clone();
        let thread = thread::spawn(move || {
            let bucket = Bucket::zeroed();
            let leases = Leases { key: other_key(), limits: &bucket.lease, ..other.leases() };
            matches!(leases.claim(1, 0, owner(2), 5, 2), Ok(Some(_)))
        });
        let mine = held.claim(1, 1).is_some();
        let theirs = thread.join().expect("joins");
        // Each may have taken the chunk from the other before it was used.
        assert!(!(mine && theirs));
        assert_eq!(held.leases().count(), u64::from(mine));
        assert_eq!(held.in_chunks(), 3 + usize::from(mine) + usize::from(theirs));
    });
}

/// The key's record is given up, and its high water zeroed, while a slot is claimed: a holder stays within
/// the high water, so that counts see it.
///
/// Mutations `lease-without-second-look`, `lease-zero-without-mark`.
#[test]
fn loom_leases_what_is_held_is_counted_after_a_reclaim() {
    super::run(|| {
        let held = held();
        let first = held.claim(1, 1).expect("free");
        assert!(held.leases().release(first));
        let (a, b) = (held.clone(), held.clone());
        let a = thread::spawn(move || a.give_up());
        let b = thread::spawn(move || b.give_up());
        let mine = held.claim_standing(1, 3).is_some();
        let gone = a.join().expect("joins") | b.join().expect("joins");
        assert!(mine != gone);
        assert_eq!(
            (held.in_chunks() as u64, held.leases().count()),
            (u64::from(mine), u64::from(mine))
        );
    });
}
