//! Concurrency slots: never more than the limit, and what is held is never lost.

use crate::layout::{
    Bucket, IdentityWord, KeyKind, LeaseChunk, LeaseLimits, LeaseWord, OwnerTag, SlotState,
};
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

/// Nothing is held, and has ever been: claims do not know more than what they load.
fn held() -> Arc<Held> {
    let bucket = Bucket::zeroed();
    bucket.identity.store(key(), Ordering::Relaxed);
    Arc::new(Held { chunks: [(); 4].map(|()| LeaseChunk::zeroed()), bucket })
}

/// The same with the first chunk in place and a high water of two.
fn used() -> Arc<Held> {
    let held = held();
    let (identity, _) = held.leases().place_of(0);
    held.chunks[held.first()].identity.store(identity, Ordering::Relaxed);
    held.bucket.lease.store(LeaseLimits::new(2, 2, 0, 0), Ordering::Relaxed);
    held
}

fn owner(row: u32) -> OwnerTag {
    OwnerTag::new(row, 1).expect("valid")
}

impl Held {
    fn leases(&self) -> Leases<'_> {
        let nonce = || 1;
        Leases { chunks: &self.chunks, key: key(), key_slot: 1, limits: &self.bucket.lease, nonce }
    }

    /// Where the key's first chunk stands.
    fn first(&self) -> usize {
        let (_, probe) = self.leases().place_of(0);
        probe.places(self.chunks.len()).next().expect("a place")
    }

    fn claim(&self, limit: u64, row: u32) -> Option<Claim> {
        self.leases().claim(limit, 0, owner(row), 5, Some(u64::from(row))).ok().flatten()
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
    super::bounded(2, || {
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

/// A process gives a claim back twice, from two threads, and makes another one in the same second, which is the
/// same word: the second time frees nobody.
///
/// Mutations `lease-blind-tag`, `lease-tag-stands-still`.
#[test]
fn loom_leases_a_second_release_frees_nobody_else() {
    super::run(|| {
        let held = used();
        let claim = |held: &Held| held.leases().claim(1, 0, owner(1), 5, None).ok().flatten();
        let first = claim(&held).expect("free");
        let tag = held.leases().tag_of(first);
        let release =
            |held: Arc<Held>| thread::spawn(move || held.leases().release_tagged(first, tag));
        let threads = [release(held.clone()), release(held.clone())];
        let next = claim(&held).is_some();
        let freed: usize =
            threads.into_iter().map(|thread| usize::from(thread.join().expect("joins"))).sum();
        assert_eq!(freed, 1);
        assert_eq!(held.in_chunks(), usize::from(next));
    });
}

/// The limit was lowered to four while three slots above it are held: one more may be held, however many
/// free slots there are below it.
///
/// Mutations `lease-ignore-overhang`, `lease-unordered`.
#[test]
fn loom_leases_a_lowered_limit_is_not_passed() {
    super::bounded(2, || {
        let held = held();
        held.bucket.lease.store(LeaseLimits::new(7, 7, 0, 0), Ordering::Relaxed);
        for _ in 0..3 {
            assert!(held.leases().claim(7, 2, owner(1), 5, Some(1)).expect("room").is_some());
        }
        let claim = |held: &Held, start, row| {
            matches!(held.leases().claim(4, start, owner(row), 5, Some(1)), Ok(Some(_)))
        };
        let other = held.clone();
        // In other chunks, so that neither meets the other's slot before its own is claimed.
        let thread = thread::spawn(move || claim(&other, 1, 2));
        let mine = claim(&held, 0, 3);
        assert!(!(mine && thread.join().expect("joins")));
        assert!(held.in_chunks() <= 4);
    });
}

/// A chunk is given up while a slot of it is claimed: the holder has a slot that its key can see, there or in
/// the chunk that the key gets next.
///
/// Mutations `charge-unordered`, `reclaim-without-second-look`, `reclaim-unordered`, `chunk-without-look`.
#[test]
fn loom_leases_a_chunk_in_use_is_not_given_up() {
    super::run(|| {
        let held = used();
        // No other place can be had.
        let first = held.first();
        for (_, chunk) in held.chunks.iter().enumerate().filter(|(number, _)| *number != first) {
            chunk.identity.store(index::identity(KeyKind::Chunk, 99 << 13), Ordering::Relaxed);
            chunk.holders[0].store(LeaseWord::new(owner(9).raw(), 1, 0), Ordering::Relaxed);
        }
        let other = held.clone();
        let thread = thread::spawn(move || {
            let _ = leases::make_room(&other.chunks, super::probe());
        });
        assert!(held.claim(1, 1).is_some());
        thread.join().expect("joins");
        assert_eq!(held.leases().count(), 1);
        assert_eq!(held.in_chunks(), 4);
    });
}

/// The high water is lowered while a slot is claimed: whoever holds one is within it, so that counts see it.
///
/// Mutations `lease-without-second-look`, `lease-lower-without-count`, `lease-lower-unordered`.
#[test]
fn loom_leases_high_water_covers_what_is_held() {
    super::run(|| {
        let held = used();
        let other = held.clone();
        let thread = thread::spawn(move || other.leases().forget());
        assert!(held.claim(1, 1).is_some());
        thread.join().expect("joins");
        assert_eq!(held.leases().count(), 1);
    });
}

/// The same, and one of two who lower it is late: it has counted before the claim, and finds the mark of the
/// other where its own was.
///
/// Mutation `lease-marks-alike`.
#[test]
fn loom_leases_a_late_lowering_does_nothing() {
    super::run(|| {
        let held = used();
        let (a, b) = (held.clone(), held.clone());
        let a = thread::spawn(move || a.leases().forget());
        let b = thread::spawn(move || b.leases().forget());
        assert!(held.claim(1, 1).is_some());
        a.join().expect("joins");
        b.join().expect("joins");
        assert_eq!(held.leases().count(), 1);
    });
}

/// The key's record is given up while a slot is claimed: either the record stands, with the slot within its
/// high water, or nothing is held.
///
/// Mutation `charge-without-take-back`.
#[test]
fn loom_leases_a_record_in_use_is_not_given_up() {
    super::run(|| {
        let held = used();
        let other = held.clone();
        let thread = thread::spawn(move || other.give_up());
        let mine = held.claim_standing(1, 3).is_some();
        assert!(mine != thread.join().expect("joins"));
        let counts = (held.in_chunks() as u64, held.leases().count());
        assert_eq!(counts, (u64::from(mine), u64::from(mine)));
    });
}

/// Two processes free a dead owner's slot, and one of them is late: whoever claims it meanwhile without a slot id
/// can still give it back.
///
/// Mutation `lease-claim-without-tag`.
#[test]
fn loom_leases_who_is_late_with_a_free_slot_takes_nobodys_tag() {
    super::bounded(2, || {
        let held = used();
        held.claim(1, 1).expect("free");
        let reap = |held: Arc<Held>| {
            thread::spawn(move || leases::reap(&held.chunks, |gone| gone == owner(1), |_| {}))
        };
        let threads = [reap(held.clone()), reap(held.clone())];
        let next = held.leases().claim(1, 0, owner(2), 5, None).ok().flatten();
        let next = next.map(|claim| (claim, held.leases().tag_of(claim)));
        threads.into_iter().for_each(|thread| drop(thread.join().expect("joins")));
        if let Some((claim, tag)) = next {
            assert!(held.leases().release_tagged(claim, tag));
        }
        assert_eq!(held.in_chunks(), 0);
    });
}
