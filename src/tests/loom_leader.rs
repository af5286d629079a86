//! Leaders: one leads, and whoever comes later has the larger number.

use crate::layout::{IdentityWord, KeyKind, LeaseChunk, LeaseLimits, OwnerTag, TermWord};
use crate::primitives::term;
use crate::sync::{Ordering, Word};
use crate::tables::index;
use crate::tables::leases::Leases;
use loom::sync::Arc;
use loom::thread;

/// A job that one process has led since second 5, and another one wants.
struct Job {
    chunks: [LeaseChunk; 4],
    limits: Word<LeaseLimits>,
    term: Word<TermWord>,
}

const NOW_S: u64 = 100;
const TTL_S: u64 = 10;

fn key() -> IdentityWord {
    index::identity(KeyKind::Named, 1 << 13)
}

fn owner(row: u32) -> OwnerTag {
    OwnerTag::new(row, 1).expect("valid")
}

impl Job {
    fn led() -> Arc<Self> {
        let job = Self {
            chunks: [(); 4].map(|()| LeaseChunk::zeroed()),
            limits: Word::new(LeaseLimits::default()),
            term: Word::new(TermWord::default()),
        };
        job.leases().claim(1, 0, owner(1), 5, None).expect("room").expect("free");
        Arc::new(job)
    }

    fn leases(&self) -> Leases<'_> {
        let nonce = || 1;
        Leases { chunks: &self.chunks, key: key(), key_slot: 1, limits: &self.limits, nonce }
    }

    fn begin(&self, row: u32) -> Option<u64> {
        let holds = || self.leases().held_by(owner(row)).is_some();
        term::begin(&self.term, owner(row), holds).expect("few tries")
    }

    /// As the engine does it: frees what is too old, then claims.
    fn take(&self, row: u32) -> bool {
        let leases = self.leases();
        leases.each_held(|claim| {
            if NOW_S - claim.word.acquired_s() > TTL_S {
                leases.release(claim);
            }
        });
        leases.claim(1, 0, owner(row), NOW_S, None).expect("room").is_some()
    }
}

/// A leader renews its lease while another process finds it too old: one of them leads.
///
/// Mutation `lease-renew-blind`.
#[test]
fn loom_leader_a_lease_is_renewed_or_lost() {
    super::run(|| {
        let job = Job::led();
        let other = job.clone();
        let thread = thread::spawn(move || other.take(2));
        let renewed = job.leases().renew(owner(1), NOW_S).is_some();
        let taken = thread.join().expect("joins");
        assert!(renewed != taken, "renewed: {renewed}, taken: {taken}");
        let holder = job.leases().first_held().expect("is led").word;
        assert_eq!(holder.owner(), owner(if taken { 2 } else { 1 }).raw());
        assert_eq!(holder.acquired_s(), NOW_S);
    });
}

/// A leader that was stopped before it had its number takes one while its successor does: the successor's is the
/// larger one, and stays.
///
/// Mutation `term-blind-store`, `term-without-look`.
#[test]
fn loom_leader_the_later_term_has_the_larger_number() {
    super::run(|| {
        let job = Job::led();
        let other = job.clone();
        let thread = thread::spawn(move || other.take(2).then(|| other.begin(2)).flatten());
        let first = job.begin(1);
        let second = thread.join().expect("joins").expect("the job was free");
        assert!(first.is_none_or(|first| first < second), "{first:?} and then {second}");
        let word = job.term.load(Ordering::SeqCst);
        assert_eq!(word, TermWord::new(second, owner(2).raw()));
    });
}
