//! Leaders: of all processes of the host exactly one leads a job.
//!
//! A leader holds the one slot of the job, a lease like any other: a dead leader's is free for whoever asks
//! next, that of a leader that has not renewed it in time too. Each leadership has a number, its term, which is
//! larger than all before it; what a leader writes elsewhere can carry it, so that a leader that was stopped
//! and goes on is told from its successor.

use super::Engine;
use super::keys::identify;
use crate::error::OpError;
use crate::layout::{
    ClaimWord, EventKind, IdentityWord, Job, KeyKind, LeaseWord, OwnerTag, SinceWord,
};
use crate::liveness::Liveness;
use crate::primitives::term;
use crate::region::Vantage;
use crate::sync::Ordering;
use crate::tables::index::{self, Probe};
use crate::tables::leases::Leases;
use crate::tables::{names, workers};

/// Hash domain of jobs.
pub(crate) const JOBS: u64 = 0x6a6f_6273;
/// What lies above in `key_slot` is a job's record.
const FIRST_KEY_SLOT: u64 = 2 << 32;

/// One leadership of one job by this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Term {
    slot: usize,
    owner: OwnerTag,
    number: u64,
}

impl Term {
    /// Larger than that of any leadership of the job before.
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// Who leads a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// Process id.
    pub pid: i32,
    /// Number of the term; `None` = it has just been given the job.
    pub term: Option<u64>,
    /// Seconds that it has led.
    pub held_s: u64,
    /// Seconds since it last said so.
    pub renewed_s: u64,
}

/// A job's record.
#[derive(Clone, Copy)]
struct Found<'a> {
    slot: usize,
    identity: IdentityWord,
    record: &'a Job,
}

impl Engine {
    fn identify_job(&self, job: &str) -> (IdentityWord, Probe) {
        identify(&self.region, KeyKind::Named, JOBS, job.as_bytes())
    }

    fn known_job(&self, job: &str) -> Option<Found<'_>> {
        let (identity, probe) = self.identify_job(job);
        let slot = index::find(self.region.jobs(), probe, identity)?;
        Some(Found { slot, identity, record: self.region.jobs().get(slot)? })
    }

    /// Jobs are never given up.
    fn job(&self, job: &str) -> Result<Found<'_>, OpError> {
        let (identity, probe) = self.identify_job(job);
        let table = self.region.jobs();
        let slot = index::insert(table, probe, identity, index::nonce)
            .map_err(|error| self.counted(error.into()))?;
        let found = Found { slot: slot.index, identity, record: &table[slot.index] };
        let name = names::Place { head: &found.record.name_head, bytes: &found.record.name };
        self.look_after_name(name, || names::redact(job), || true);
        Ok(found)
    }

    fn leadership<'a>(&'a self, found: &Found<'a>) -> Leases<'a> {
        Leases {
            chunks: self.region.chunks(),
            key: found.identity,
            key_slot: key_slot(found.slot),
            limits: &found.record.lease,
            nonce: index::nonce,
        }
    }

    /// Leads a job, or goes on leading it; `None` = another process does.
    ///
    /// A leader calls this again before `ttl_s` seconds are over, and is given the same term. After them, at
    /// most one second later, whoever asks may be given the job; a leader that comes late and finds that nobody
    /// has asked leads on. The job of a process that has died is given to whoever asks next. 0 = no time limit.
    ///
    /// # Errors
    /// `TableFull` when there are 16 other jobs; `LeasesFull` or `WorkersFull` when the leader cannot be
    /// recorded.
    pub fn lead(&self, job: &str, ttl_s: u64) -> Result<Option<Term>, OpError> {
        let owner = self.owner().map_err(|error| self.counted(error))?;
        let found = self.job(job)?;
        let leases = self.leadership(&found);
        let term = |number| Term { slot: found.slot, owner, number };
        if leases.renew(owner, self.now().s()).is_some() {
            if let Some(number) = term::number(&found.record.term, owner) {
                return Ok(Some(term(number)));
            }
            // Another thread is about to begin the term, or was the one that resigned from it.
            return Ok(self.begin_term(&found, owner)?.map(term));
        }
        self.reap_dead_leader(&leases);
        leases.note_limit(1);
        // Seconds are whole: no lease is taken before its time is over.
        let ttl_s = if ttl_s == 0 { 0 } else { ttl_s.saturating_add(1) };
        if self.claim_slot(&leases, found.slot, 1, ttl_s, self.now(), None)?.is_none() {
            return Ok(None);
        }
        Ok(self.begin_term(&found, owner)?.map(term))
    }

    fn begin_term(&self, found: &Found<'_>, owner: OwnerTag) -> Result<Option<u64>, OpError> {
        let leases = self.leadership(found);
        let holds = || leases.held_by(owner).is_some();
        let number = self.insist(|| term::begin(&found.record.term, owner, holds))?;
        if let Some(number) = number {
            found.record.since.store(SinceWord::new(self.now().s(), number), Ordering::Relaxed);
            let pid = u64::from(std::process::id());
            self.event_about(found.identity, EventKind::LeaderBegan, number, pid);
        }
        Ok(number)
    }

    /// Frees what dead processes hold, if the job's leader is one of them.
    fn reap_dead_leader(&self, leases: &Leases<'_>) {
        let prove = workers::prover(Vantage::of(self.region.header()));
        let dead = |word: LeaseWord| {
            let owner = OwnerTag::from_raw(word.owner())?;
            let row = self.region.workers().get(owner.row() as usize)?;
            let claim = row.claim.load(Ordering::Acquire);
            Some(prove(row, claim) == Liveness::Dead)
        };
        let holder = leases.first_held();
        if holder
            .is_some_and(|claim| !self.holder_is_gone(claim.word) && dead(claim.word) == Some(true))
        {
            self.reap_dead();
        }
    }

    /// Whether the term's leadership goes on: false as soon as somebody else was given the job.
    pub fn still_leads(&self, term: &Term) -> bool {
        self.found_by(term)
            .is_some_and(|found| self.leadership(&found).held_by(term.owner).is_some())
    }

    /// The job of a term that is this process's and the latest.
    fn found_by(&self, term: &Term) -> Option<Found<'_>> {
        let record = self.region.jobs().get(term.slot)?;
        let identity = index::key_of(record.identity.load(Ordering::Acquire))?;
        // A child of the leader is not the leader.
        let mine = self.me() == Some(term.owner);
        let latest = term::number(&record.term, term.owner) == Some(term.number);
        (mine && latest).then_some(Found { slot: term.slot, identity, record })
    }

    /// Gives the job back; the next who asks leads it. False = the term was over.
    pub fn resign(&self, term: &Term) -> bool {
        let Some(found) = self.found_by(term) else { return false };
        term::end(&found.record.term, term.owner, term.number)
            && self.leadership(&found).release_of(term.owner)
    }

    /// Who leads a job; `None` = nobody that is known to live.
    pub fn leader(&self, job: &str) -> Option<Leader> {
        let found = self.known_job(job)?;
        let holder = self.leadership(&found).first_held()?.word;
        let owner = OwnerTag::from_raw(holder.owner())?;
        let row = self.region.workers().get(owner.row() as usize)?;
        let claim: ClaimWord = row.claim.load(Ordering::Acquire);
        let prove = workers::prover(Vantage::of(self.region.header()));
        if self.holder_is_gone(holder) || prove(row, claim) == Liveness::Dead {
            return None;
        }
        let pid = i32::try_from(claim.pid()).unwrap_or(0);
        Some(leader_of(found.record, owner, pid, holder, self.now().s()))
    }
}

/// What a record says of the holder of its job.
pub fn leader_of(record: &Job, owner: OwnerTag, pid: i32, holder: LeaseWord, now_s: u64) -> Leader {
    let term = term::number(&record.term, owner);
    let since = record.since.load(Ordering::Relaxed);
    let renewed_s = now_s.saturating_sub(holder.acquired_s());
    // Written after the term has begun.
    let known = term == Some(since.number()) && since.began_s() <= holder.acquired_s();
    let held_s = if known { now_s.saturating_sub(since.began_s()) } else { renewed_s };
    Leader { pid, term, held_s, renewed_s }
}

/// How lease chunks name the record of a job.
pub fn key_slot(slot: usize) -> u64 {
    FIRST_KEY_SLOT + slot as u64 + 1
}

/// The record of the job that a lease chunk names; `None` = it names something else.
pub fn slot_of(key_slot: u64) -> Option<usize> {
    usize::try_from(key_slot.checked_sub(FIRST_KEY_SLOT + 1)?).ok()
}

impl Engine {
    /// Leases of the job in the record that `key_slot` names, if it names one.
    pub(super) fn leadership_at(&self, key_slot: u64) -> Option<Leases<'_>> {
        let slot = slot_of(key_slot)?;
        let record = self.region.jobs().get(slot)?;
        let identity = index::key_of(record.identity.load(Ordering::Acquire))?;
        Some(self.leadership(&Found { slot, identity, record }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;
    use crate::layout::{TermWord, WorkerState};

    /// Another process, as far as the region tells: `pid` says whether it lives.
    fn other(engine: &Engine, row: u32, pid: u64) -> OwnerTag {
        let claim = ClaimWord::new(WorkerState::Live as u64, pid, 0, 1);
        engine.region().workers()[row as usize].claim.store(claim, Ordering::SeqCst);
        OwnerTag::new(row, 1).unwrap()
    }

    /// It leads, as [`Engine::lead`] does it.
    fn other_leads(engine: &Engine, owner: OwnerTag, ttl_s: u64) -> Option<u64> {
        let found = engine.job("sync").unwrap();
        let leases = engine.leadership(&found);
        let now_s = engine.now().s();
        leases.each_held(|claim| {
            if now_s - claim.word.acquired_s() > ttl_s {
                leases.release(claim);
            }
        });
        leases.claim(1, 0, owner, now_s, None).unwrap()?;
        term::begin(&found.record.term, owner, || leases.held_by(owner).is_some()).unwrap()
    }

    const ALIVE: u64 = 1;
    const DEAD: u64 = 4_000_000;

    #[test]
    fn one_leads_and_is_told_the_same_term_again() {
        let (engine, clock) = engine();
        assert_eq!(engine.leader("sync"), None);
        let term = engine.lead("sync", 10).unwrap().unwrap();
        clock.advance_s(9);
        assert_eq!(engine.lead("sync", 10), Ok(Some(term)));
        clock.advance_s(3);
        let other = other(&engine, 9, ALIVE);
        assert_eq!(other_leads(&engine, other, 10), None);
        let leader = engine.leader("sync").unwrap();
        assert_eq!(leader.pid.unsigned_abs(), std::process::id());
        assert_eq!((leader.term, leader.held_s, leader.renewed_s), (Some(1), 12, 3));
        assert!(engine.still_leads(&term));
        assert_ne!(engine.lead("another", 10).unwrap().unwrap(), term);
        let events = engine.recent_events(9).filter_map(|event| event.known_kind());
        assert_eq!(events.filter(|&kind| kind == EventKind::LeaderBegan).count(), 2);
    }

    #[test]
    fn a_leader_that_comes_late_leads_on_unless_somebody_else_was_given_the_job() {
        let (engine, clock) = engine();
        let term = engine.lead("sync", 10).unwrap().unwrap();
        clock.advance_s(100);
        assert!(engine.still_leads(&term));
        assert_eq!(engine.lead("sync", 10), Ok(Some(term)));
        clock.advance_s(11);
        let other = other(&engine, 9, ALIVE);
        assert_eq!(other_leads(&engine, other, 10), Some(2));
        assert!(!engine.still_leads(&term) && !engine.resign(&term));
        assert_eq!(engine.lead("sync", 10), Ok(None));
        assert_eq!(engine.leader("sync").map(|leader| leader.pid), Some(1));
        clock.advance_s(10);
        assert_eq!(engine.lead("sync", 10), Ok(None), "its time is not over");
        clock.advance_s(1);
        assert_eq!(engine.lead("sync", 10).unwrap().map(|term| term.number()), Some(3));
    }

    #[test]
    fn a_dead_leaders_job_is_given_to_the_next_who_asks_at_once() {
        let (engine, _) = engine();
        let dead = other(&engine, 9, DEAD);
        assert_eq!(other_leads(&engine, dead, 10), Some(1));
        assert_eq!(engine.leader("sync"), None);
        // Somebody has just looked for the dead, so that nobody does at every refusal.
        engine.reap_if_due(engine.now());
        let again = other(&engine, 9, DEAD);
        assert_eq!(again, dead);
        let found = engine.job("sync").unwrap();
        let _ = engine.leadership(&found).claim(1, 0, dead, engine.now().s(), None);
        assert_eq!(engine.lead("sync", 0).unwrap().map(|term| term.number()), Some(2));
    }

    #[test]
    fn whoever_resigns_does_so_once_and_leads_anew() {
        let (engine, _) = engine();
        let first = engine.lead("sync", 10).unwrap().unwrap();
        assert!(engine.resign(&first) && !engine.resign(&first) && !engine.still_leads(&first));
        assert_eq!(engine.leader("sync"), None);
        let second = engine.lead("sync", 10).unwrap().unwrap();
        assert!(second.number() > first.number());
        assert!(!engine.resign(&first) && engine.still_leads(&second));
        engine.leave();
        assert!(!engine.still_leads(&second));
        assert_eq!(engine.lead("sync", 10).unwrap().map(|term| term.number()), Some(3));
    }

    #[test]
    fn threads_of_one_process_lead_as_one() {
        let (engine, _) = engine();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let term = engine.lead("sync", 10).unwrap();
                        if term.is_some_and(|term| term.number() % 3 == 0) {
                            engine.resign(&term.unwrap());
                        }
                    }
                });
            }
        });
        let term = engine.lead("sync", 10).unwrap().unwrap();
        assert!(engine.still_leads(&term));
        let held = engine.region().chunks().iter().flat_map(|chunk| &chunk.holders);
        let held = held.filter(|holder| holder.load(Ordering::SeqCst) != LeaseWord::default());
        assert_eq!(held.count(), 1);
    }

    #[test]
    fn any_term_word_leads_to_a_leader() {
        let (engine, _) = engine();
        let term = engine.lead("sync", 10).unwrap().unwrap();
        let record = engine.job("sync").unwrap().record;
        record.term.store(TermWord::new(u64::MAX, u64::MAX), Ordering::SeqCst);
        assert!(!engine.still_leads(&term) && !engine.resign(&term));
        let next = engine.lead("sync", 10).unwrap().unwrap();
        assert!(engine.still_leads(&next));
    }

    #[test]
    fn too_many_jobs_are_an_error() {
        let (engine, _) = engine();
        let made = (0..40).filter(|n| engine.lead(&format!("job {n}"), 10).is_ok()).count();
        assert_eq!(made, engine.region().jobs().len());
    }
}
