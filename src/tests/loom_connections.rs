//! Connections: whoever takes one over, uses it again or gives it back, nobody shares it, and no half is lost.

use crate::layout::{Endpoint, IdentityWord, KeyKind, LeaseChunk, LeaseWord, OwnerTag};
use crate::sync::Ordering;
use crate::tables::connections::{Ended, Keep, Limits, Reuse, Slots, Use, User};
use crate::tables::index;
use crate::tables::leases::Leases;
use loom::sync::Arc;
use loom::thread;

const KEEP: Keep = Keep { idle_s: 60, age_s: 60 };
/// A pool and two endpoints, by their records.
const POOL: usize = 0;
const ONE: usize = 1;
const OTHER: usize = 2;

/// One connection to an endpoint at a time, and one in all.
struct Pool {
    chunks: [LeaseChunk; 4],
    records: [Endpoint; 3],
}

fn user(row: u32) -> User {
    User { owner: OwnerTag::new(row, 1).expect("valid"), now_s: 5 }
}

impl Pool {
    fn new() -> Self {
        Self {
            chunks: [(); 4].map(|()| LeaseChunk::zeroed()),
            records: [(); 3].map(|()| Endpoint::zeroed()),
        }
    }

    /// Process 1 has a connection to the first endpoint.
    fn used() -> (Arc<Self>, Use) {
        let pool = Self::new();
        let first = pool.make(ONE, 1).expect("free");
        (Arc::new(pool), first)
    }

    /// The same, and keeps it idle.
    fn idle() -> (Arc<Self>, Use) {
        let (pool, first) = Self::used();
        assert_eq!(pool.slots(ONE).end(first, user(1), Some(KEEP)), Ended::Kept);
        (pool, first)
    }

    fn leases(&self, record: usize) -> Leases<'_> {
        let key = index::identity(KeyKind::Named, (record as u64 + 1) << 13);
        let (limits, nonce) = (&self.records[record].lease, || 1);
        Leases { chunks: &self.chunks, key, key_slot: record as u64 + 1, limits, nonce }
    }

    fn slots(&self, endpoint: usize) -> Slots<'_> {
        let record = endpoint as u64;
        Slots { endpoint: self.leases(endpoint), pool: self.leases(POOL), record }
    }

    fn make(&self, endpoint: usize, row: u32) -> Option<Use> {
        let by = user(row);
        let claim = |leases: &Leases<'_>, limit, tag| {
            Ok::<_, ()>(leases.claim(limit, 0, by.owner, by.now_s, tag).ok().flatten())
        };
        let at = |record| usize::try_from(record).ok().map(|record| self.leases(record));
        let limits = Limits { endpoint: 1, pool: 1 };
        let made = self.slots(endpoint).make(by, limits, 1, claim, at).expect("no errors");
        made.map(|made| made.first)
    }

    fn reuse(&self, slot: u64) -> Option<Use> {
        match self.slots(ONE).reuse(slot, user(1), KEEP) {
            Reuse::Again(used) => Some(used),
            Reuse::Expired | Reuse::Gone => None,
        }
    }

    /// What is held of a record: by whom, and whether it is idle.
    fn held(&self, record: usize) -> Vec<(u32, bool)> {
        let identity = |ordinal| self.leases(record).place_of(ordinal).0;
        let of = |chunk: &&LeaseChunk| {
            let word: IdentityWord = chunk.identity.load(Ordering::SeqCst);
            (0..2).any(|ordinal| index::is(word, identity(ordinal)))
        };
        let holders = self.chunks.iter().filter(of).flat_map(|chunk| &chunk.holders);
        let words = holders.map(|holder| holder.load(Ordering::SeqCst));
        let row = |word: LeaseWord| OwnerTag::from_raw(word.owner()).map_or(0, OwnerTag::row);
        words
            .filter(|&word| word != LeaseWord::default())
            .map(|word| (row(word), word.idle() == 1))
            .collect()
    }
}

/// Another process wants a connection to the endpoint while its holder uses the idle one again: one of them has it,
/// both halves of it.
///
/// Mutation `connection-blind-take`.
#[test]
fn loom_connections_taken_over_or_used_again() {
    super::bounded(3, || {
        let (pool, first) = Pool::idle();
        let other = pool.clone();
        let thread = thread::spawn(move || other.make(ONE, 2).is_some());
        let mine = pool.reuse(first.slot).is_some();
        let theirs = thread.join().expect("joins");
        assert!(mine != theirs);
        let winner = vec![(if mine { 1 } else { 2 }, false)];
        assert_eq!((pool.held(ONE), pool.held(POOL)), (winner.clone(), winner));
    });
}

/// The same for a connection to another endpoint, for which the pool has no room: it takes the pool's half first.
/// Whoever loses gives up what is left.
///
/// Mutations `connection-half-suffices`, `connection-keeps-its-half`.
#[test]
fn loom_connections_evicted_or_used_again() {
    super::bounded(3, || {
        let (pool, first) = Pool::idle();
        let other = pool.clone();
        let thread = thread::spawn(move || other.make(OTHER, 2).is_some());
        let mine = pool.reuse(first.slot).is_some();
        let theirs = thread.join().expect("joins");
        assert!(!(mine && theirs));
        let held = |row, here: bool| if here { vec![(row, false)] } else { vec![] };
        assert_eq!(pool.held(ONE), held(1, mine));
        assert_eq!(pool.held(OTHER), held(2, theirs));
        let in_all = pool.held(POOL);
        assert!(in_all == held(1, mine) || in_all == held(2, theirs), "{in_all:?}");
    });
}

/// A connection is given back while another process wants one: it is idle, or the other's. What is in use is taken by
/// nobody.
///
/// Mutation `connection-takes-what-is-used`.
#[test]
fn loom_connections_given_back_or_taken_over() {
    super::bounded(3, || {
        let (pool, first) = Pool::used();
        let other = pool.clone();
        let thread = thread::spawn(move || other.make(OTHER, 2).is_some());
        let ended = pool.slots(ONE).end(first, user(1), Some(KEEP));
        let theirs = thread.join().expect("joins");
        assert_eq!(ended, Ended::Kept);
        let in_all = pool.held(POOL);
        assert_eq!(in_all, if theirs { vec![(2, false)] } else { vec![(1, true)] });
        // The endpoint's half may be left, idle: anybody's, and not used again without the other one.
        assert!(pool.held(ONE).iter().all(|&half| half == (1, true)));
        if theirs {
            assert_eq!(pool.reuse(first.slot), None);
            assert_eq!(pool.held(ONE), vec![]);
        }
    });
}

/// Two threads give the same use back while a third uses the connection again: one of the two ends it, and nobody ends
/// the next use.
///
/// Mutation `connection-use-stands-still`.
#[test]
fn loom_connections_a_use_ends_once() {
    super::bounded(3, || {
        let (pool, first) = Pool::used();
        let end = |pool: Arc<Pool>| {
            thread::spawn(move || pool.slots(ONE).end(first, user(1), Some(KEEP)) == Ended::Kept)
        };
        let threads = [end(pool.clone()), end(pool.clone())];
        let next = pool.reuse(first.slot);
        let ended = threads.map(|thread| usize::from(thread.join().expect("joins")));
        assert_eq!(ended.iter().sum::<usize>(), 1);
        assert_eq!(pool.held(POOL), vec![(1, next.is_none())]);
        assert_eq!(pool.held(ONE), vec![(1, next.is_none())]);
    });
}
