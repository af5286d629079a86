//! Concurrency slots by key and slot id.

use super::keys::Key;
use super::subject::{Part, Subject};
use super::{Engine, ROUNDS};
use crate::clock::Instant;
use crate::error::OpError;
use crate::layout::{OwnerTag, TagWord};
use crate::sync::{Bits, Ordering};
use crate::tables::index;
use crate::tables::leases::{self, Claim, Leases};
use crate::tables::slot_cache::Place;

/// One slot wanted.
#[derive(Debug, Clone, Copy)]
pub struct SlotAsk<'a> {
    /// The key, `{...}:max_parallel_requests`.
    pub key: &'a str,
    /// How many may be held at once.
    pub limit: i64,
    /// A slot held longer than this may be taken by others, seconds; 0 = never.
    pub ttl_s: u64,
    /// What the release will present.
    pub slot_id: &'a str,
}

/// The answer to a batch of slot requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// All are held; about how many are in flight under each key, this one included.
    Held(Vec<u64>),
    /// None is held, because this key has no free slot.
    Refused {
        /// Position in the batch.
        position: usize,
        /// Held under that key.
        in_flight: u64,
        /// Its limit.
        limit: i64,
    },
}

struct Wanted<'a> {
    key: Key<'a>,
    leases: Leases<'a>,
    tag: u64,
}

impl Engine {
    fn wanted(&self, key: &str, slot_id: &str) -> Result<Wanted<'_>, OpError> {
        let found = self.subject(slots_subject(key)?)?;
        Ok(self.leases_of(found, slot_id))
    }

    /// As [`Self::wanted`], for a key that has been used before; `None` = it has not.
    fn known(&self, key: &str, slot_id: &str) -> Result<Option<Wanted<'_>>, OpError> {
        let found = self.known_subject(slots_subject(key)?);
        Ok(found.map(|found| self.leases_of(found, slot_id)))
    }

    fn leases_of<'a>(&'a self, key: Key<'a>, slot_id: &str) -> Wanted<'a> {
        let leases = self.leases(&key);
        let hash = self.region.hash(key.identity.bits(), slot_id.as_bytes());
        // 0 means absent and u64::MAX means being written in the cache.
        Wanted { key, leases, tag: hash.clamp(1, u64::MAX - 1) }
    }

    /// Acquires all or none. A slot id that already holds a slot of a key keeps that one.
    ///
    /// When a key is full, the owners of its slots are examined before the refusal: slots of dead
    /// workers and slots older than `ttl_s` are free.
    pub fn acquire_all(&self, asks: &[SlotAsk<'_>]) -> Result<Grant, OpError> {
        let found = asks
            .iter()
            .map(|ask| self.wanted(ask.key, ask.slot_id))
            .collect::<Result<Vec<_>, _>>()?;
        let now = self.now();
        let mut new: Vec<(usize, Claim)> = Vec::with_capacity(found.len());
        let mut in_flight = Vec::with_capacity(found.len());
        for (position, (wanted, ask)) in found.iter().zip(asks).enumerate() {
            let limit = u64::try_from(ask.limit).unwrap_or(0);
            wanted.leases.note_limit(limit.min(u64::from(u32::MAX)));
            let claimed = if self.holds(wanted) {
                Ok(None)
            } else {
                self.claim_standing(wanted, limit, ask, now).map(Some)
            };
            match claimed {
                Ok(None) => {}
                Ok(Some(Some(claim))) => new.push((position, claim)),
                refused_or_failed => {
                    for &(held, claim) in new.iter().rev() {
                        self.local.held.take(found[held].tag);
                        self.give_back(&found[held], claim);
                    }
                    refused_or_failed?;
                    self.count(|row| &row.lease_denied);
                    let in_flight = wanted.leases.correct_held();
                    return Ok(Grant::Refused { position, in_flight, limit: ask.limit });
                }
            }
            in_flight.push(wanted.leases.about().clamp(1, limit.max(1)));
        }
        for (position, _) in &new {
            found[*position].key.bucket.allowed.fetch_add(1, Ordering::Relaxed);
        }
        self.stats().lease_acquired.fetch_add(new.len() as u64, Ordering::Relaxed);
        Ok(Grant::Held(in_flight))
    }

    /// Claims a slot of a key that has a record to the end: one that was given up meanwhile gets another.
    fn claim_standing(
        &self,
        wanted: &Wanted<'_>,
        limit: u64,
        ask: &SlotAsk<'_>,
        now: Instant,
    ) -> Result<Option<Claim>, OpError> {
        let mut again;
        let mut wanted = wanted;
        for _ in 0..ROUNDS {
            let Some(claim) = self.claim(wanted, limit, ask.ttl_s, now)? else { return Ok(None) };
            if wanted.key.holds() {
                return Ok(Some(claim));
            }
            self.count(|row| &row.misplaced);
            self.local.held.take(wanted.tag);
            wanted.leases.release(claim);
            again = self.wanted(ask.key, ask.slot_id)?;
            again.leases.note_limit(limit.min(u64::from(u32::MAX)));
            wanted = &again;
        }
        Err(self.counted(OpError::Contended))
    }

    fn claim(
        &self,
        wanted: &Wanted<'_>,
        limit: u64,
        ttl_s: u64,
        now: Instant,
    ) -> Result<Option<Claim>, OpError> {
        let tag = Some(wanted.tag);
        let claim = self.claim_slot(&wanted.leases, wanted.key.slot, limit, ttl_s, now, tag)?;
        if let Some(claim) = claim
            && let (Ok(chunk), Ok(slot)) = (u32::try_from(claim.chunk), u32::try_from(claim.slot))
        {
            let place = Place { chunk, slot, acquired_s: claim.word.acquired_s() };
            self.local.held.insert(wanted.tag, place);
        }
        Ok(claim)
    }

    /// Claims a slot of what stands in a slot of its table; if there is none, after having freed those of dead
    /// workers and those older than `ttl_s`.
    pub(super) fn claim_slot(
        &self,
        leases: &Leases<'_>,
        slot: usize,
        limit: u64,
        ttl_s: u64,
        now: Instant,
        tag: Option<u64>,
    ) -> Result<Option<Claim>, OpError> {
        let owner = self.owner().map_err(|error| self.counted(error))?;
        let cursor = &self.local.cursors[slot & (self.local.cursors.len() - 1)];
        let attempt = || {
            let start = cursor.load(Ordering::Relaxed);
            leases
                .claim(limit, start, owner, now.s(), tag)
                .map_err(|_| self.counted(OpError::LeasesFull))
        };
        let mut claim = attempt()?;
        if claim.is_none() && self.free_abandoned(leases, ttl_s, now) > 0 {
            claim = attempt()?;
        }
        if let Some(claim) = claim {
            cursor.store(leases.ordinal_of(claim), Ordering::Relaxed);
        }
        Ok(claim)
    }

    /// Frees the slots of one key whose holders are gone, dead or past their time. Returns how many of
    /// the region's slots became free.
    fn free_abandoned(&self, leases: &Leases<'_>, ttl_s: u64, now: Instant) -> u64 {
        let reaped = self.reap_if_due(now);
        let (mut gone, mut expired) = (0, 0);
        leases.each_held(|claim| {
            let age_s = now.s().saturating_sub(claim.word.acquired_s());
            if self.holder_is_gone(claim.word) {
                gone += u64::from(leases.release(claim));
            } else if ttl_s > 0 && age_s >= ttl_s {
                expired += u64::from(leases.release(claim));
            }
        });
        let stats = self.stats();
        stats.lease_reaped.fetch_add(gone, Ordering::Relaxed);
        stats.lease_expired.fetch_add(expired, Ordering::Relaxed);
        reaped + gone + expired
    }

    /// Frees every slot of the region whose owner `gone` names, and corrects the counts of their keys.
    /// Returns how many were freed.
    pub(super) fn free_slots_of(&self, gone: impl FnMut(OwnerTag) -> bool) -> u64 {
        let mut keys = Vec::new();
        let freed = leases::reap(self.region.chunks(), gone, |key_slot| keys.push(key_slot));
        keys.sort_unstable();
        keys.dedup();
        // What is left uncorrected is corrected when it is used. Keys that together have more chunks than
        // there are have had them one after another, or are damaged.
        let mut budget = self.region.chunks().len() as u64;
        for key_slot in keys {
            let Some(leases) = self.leases_at(key_slot) else { continue };
            let Some(left) = budget.checked_sub(leases.reach()) else { continue };
            budget = left;
            leases.correct_held();
        }
        freed
    }

    /// Leases under the key or deployment in the record that a chunk names, if one stands there.
    fn leases_at(&self, key_slot: u64) -> Option<Leases<'_>> {
        let others = self.flights_at(key_slot).or_else(|| self.leadership_at(key_slot));
        if let Some(others) = others.or_else(|| self.connections_at(key_slot)) {
            return Some(others);
        }
        let slot = usize::try_from(key_slot.checked_sub(1)?).ok()?;
        let bucket = self.region.buckets().get(slot)?;
        let identity = index::key_of(bucket.identity.load(Ordering::Acquire))?;
        Some(self.leases(&Key { slot, identity, bucket }))
    }

    /// Whether this process's slot id already holds a slot of the key.
    fn holds(&self, wanted: &Wanted<'_>) -> bool {
        self.cached(wanted).is_some_and(|claim| {
            let holder =
                wanted.leases.chunks.get(claim.chunk).map(|chunk| &chunk.holders[claim.slot]);
            holder.is_some_and(|holder| holder.load(Ordering::Acquire) == claim.word)
        })
    }

    fn cached(&self, wanted: &Wanted<'_>) -> Option<Claim> {
        // Before the cache is believed: after a fork it is the parent's.
        let owner = self.me()?;
        self.local.held.get(wanted.tag).map(|place| claim_at(place, owner.raw()))
    }

    /// Gives a claim without a slot id back, if this process made it: the child of a fork has its parent's, too.
    pub(super) fn give_back_mine(&self, leases: &Leases<'_>, claim: Claim, tag: TagWord) -> bool {
        let mine = self.me().is_some_and(|owner| owner.raw() == claim.word.owner());
        mine && leases.release_tagged(claim, tag)
    }

    fn give_back(&self, wanted: &Wanted<'_>, claim: Claim) -> bool {
        let cursor = &self.local.cursors[wanted.key.slot & (self.local.cursors.len() - 1)];
        let ordinal = wanted.leases.ordinal_of(claim);
        let freed = wanted.leases.release(claim);
        if freed {
            cursor.store(ordinal, Ordering::Relaxed);
        }
        freed
    }

    /// Releases the slot that `slot_id` holds under `key`; an id that holds none changes nothing. Returns
    /// about how many are still held.
    pub fn release(&self, key: &str, slot_id: &str) -> Result<u64, OpError> {
        let Some(wanted) = self.known(key, slot_id)? else {
            return Ok(0);
        };
        if let Some(owner) = self.me() {
            // It may have been acquired while the key had no room.
            let shared = || self.shared_subject().map(|key| self.leases_of(key, slot_id));
            let released = self.release_of(&wanted, owner)
                || shared().is_some_and(|shared| self.release_of(&shared, owner));
            if released {
                self.count(|row| &row.lease_released);
            }
        }
        Ok(wanted.leases.about())
    }

    fn release_of(&self, wanted: &Wanted<'_>, owner: OwnerTag) -> bool {
        // Whoever takes the place out of the cache releases it, once.
        let taken = self.local.held.take(wanted.tag).map(|place| claim_at(place, owner.raw()));
        let claim = match taken {
            None if self.local.held.has_forgotten() => wanted.leases.find(owner, wanted.tag),
            taken => taken,
        };
        claim.is_some_and(|claim| self.give_back(wanted, claim))
    }

    /// Whether `slot_id` of this process holds a slot under `key`.
    pub fn holds_slot(&self, key: &str, slot_id: &str) -> bool {
        matches!(self.known(key, slot_id), Ok(Some(wanted)) if self.holds(&wanted))
    }

    /// How many slots of the key are held, by looking at all of them, after those of dead workers and
    /// those older than `ttl_s` were freed.
    pub fn count_slots(&self, key: &str, ttl_s: u64) -> Result<u64, OpError> {
        let known = self.known(key, "")?;
        Ok(known.map_or(0, |known| self.count_live(&known.leases, ttl_s)))
    }

    fn count_live(&self, leases: &Leases<'_>, ttl_s: u64) -> u64 {
        self.free_abandoned(leases, ttl_s, self.now());
        leases.correct_held()
    }

    /// How many slots of the key are held, in bounded time. Exact for small limits, and whenever the answer
    /// is at or above the last limit seen: then the slots are counted, after those of dead workers and those
    /// older than `ttl_s` were freed.
    pub fn in_flight(&self, key: &str, ttl_s: u64) -> Result<u64, OpError> {
        let Some(Wanted { leases, .. }) = self.known(key, "")? else {
            return Ok(0);
        };
        let about = leases.about();
        if about < leases.limits.load(Ordering::Relaxed).limit() {
            return Ok(about);
        }
        Ok(self.count_live(&leases, ttl_s))
    }
}

/// The subject of a key of concurrency slots; any other key is refused.
fn slots_subject(key: &str) -> Result<Subject<'_>, OpError> {
    let subject = Subject::parse(key);
    if subject.part == Part::Slots { Ok(subject) } else { Err(OpError::OutOfRange) }
}

fn claim_at(place: Place, owner: u64) -> Claim {
    Claim {
        chunk: place.chunk as usize,
        slot: place.slot as usize,
        word: crate::layout::LeaseWord::new(owner, place.acquired_s, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;
    use crate::config::Overflow;
    use crate::layout::{ClaimWord, TagWord, WorkerState};
    use crate::primitives::gcra::Quota;

    const K: &str = "{api_key:a}:max_parallel_requests";
    const U: &str = "{user:u}:max_parallel_requests";

    fn ask<'a>(key: &'a str, limit: i64, slot_id: &'a str) -> SlotAsk<'a> {
        SlotAsk { key, limit, ttl_s: 3600, slot_id }
    }

    fn held(engine: &Engine, key: &str, limit: i64, id: &str) -> bool {
        matches!(engine.acquire_all(&[ask(key, limit, id)]), Ok(Grant::Held(_)))
    }

    #[test]
    fn five_slots_are_five_slots() {
        let (engine, _) = engine();
        let ids: Vec<String> = (0..20).map(|n| format!("id-{n}")).collect();
        assert_eq!(ids.iter().filter(|id| held(&engine, K, 5, id)).count(), 5);
        assert_eq!(engine.in_flight(K, 0), Ok(5));
        assert_eq!(engine.release(K, "id-3"), Ok(4));
        assert_eq!(engine.release(K, "id-3"), Ok(4));
        assert_eq!(engine.release(K, "id-19"), Ok(4));
        assert!(held(&engine, K, 5, "id-19"));
        assert!(!held(&engine, K, 5, "id-18"));
    }

    #[test]
    fn all_or_nothing_over_two_keys() {
        let (engine, _) = engine();
        assert!(held(&engine, U, 1, "x"));
        let both = [ask(K, 5, "y"), ask(U, 1, "y")];
        let refused = Grant::Refused { position: 1, in_flight: 1, limit: 1 };
        assert_eq!(engine.acquire_all(&both), Ok(refused));
        assert_eq!(engine.in_flight(K, 0), Ok(0));
        engine.release(U, "x").unwrap();
        assert_eq!(engine.acquire_all(&both), Ok(Grant::Held(vec![1, 1])));
    }

    #[test]
    fn the_same_slot_id_takes_one_slot() {
        let (engine, _) = engine();
        assert!(held(&engine, K, 5, "x") && held(&engine, K, 5, "x"));
        assert_eq!(engine.in_flight(K, 0), Ok(1));
        assert_eq!(engine.release(K, "x"), Ok(0));
    }

    #[test]
    fn zero_and_negative_limits_hold_nothing() {
        let (engine, _) = engine();
        for limit in [0, -3] {
            let refused = Grant::Refused { position: 0, in_flight: 0, limit };
            assert_eq!(engine.acquire_all(&[ask(K, limit, "x")]), Ok(refused));
        }
    }

    #[test]
    fn slots_past_their_time_are_free_and_a_late_release_is_harmless() {
        let (engine, clock) = engine();
        assert!(held(&engine, K, 1, "old"));
        clock.advance_s(3599);
        assert!(!held(&engine, K, 1, "new"));
        clock.advance_s(1);
        assert!(held(&engine, K, 1, "new"));
        assert_eq!(engine.total(|row| &row.lease_expired), 1);
        engine.release(K, "old").unwrap();
        assert_eq!(engine.in_flight(K, 0), Ok(1));
    }

    /// A row whose process is gone, holding every slot.
    fn dead_holder(engine: &Engine) {
        let rows = engine.region().workers();
        let claim = ClaimWord::new(WorkerState::Live as u64, 4_000_000, 1, 1);
        rows[9].claim.store(claim, Ordering::SeqCst);
        let owner = OwnerTag::new(9, 1).unwrap();
        let wanted = engine.wanted(K, "dead").unwrap();
        for _ in 0..2 {
            wanted.leases.claim(2, 0, owner, 5, Some(1)).unwrap().unwrap();
        }
    }

    #[test]
    fn a_dead_workers_slots_are_free_at_the_next_acquire() {
        let (engine, _) = engine();
        dead_holder(&engine);
        assert!(held(&engine, K, 2, "a") && held(&engine, K, 2, "b"));
        assert!(!held(&engine, K, 2, "c"));
        assert_eq!(engine.total(|row| &row.lease_reaped), 2);
        assert_eq!(engine.total(|row| &row.workers_reaped), 1);
    }

    #[test]
    fn a_dead_workers_slots_are_free_at_the_next_look() {
        let (engine, _) = engine();
        dead_holder(&engine);
        engine.wanted(K, "").unwrap().leases.note_limit(2);
        assert_eq!(engine.in_flight(K, 0), Ok(0));
    }

    #[test]
    fn a_release_finds_only_this_processes_own_slot() {
        let (engine, _) = engine();
        assert!(held(&engine, K, 5, "mine"));
        let wanted = engine.wanted(K, "mine").unwrap();
        let mine = wanted.leases.find(engine.me().unwrap(), wanted.tag).unwrap();
        engine.release(K, "mine").unwrap();
        // Another worker claims the slot and is stopped before it has written its tag.
        let other = crate::layout::LeaseWord::new(OwnerTag::new(9, 1).unwrap().raw(), 7, 0);
        let chunk = &engine.region().chunks()[mine.chunk];
        chunk.holders[mine.slot].store(other, Ordering::SeqCst);
        chunk.tags[mine.slot].store(TagWord::new(7, wanted.tag >> 16), Ordering::SeqCst);
        engine.release(K, "mine").unwrap();
        assert_eq!(wanted.leases.find(engine.me().unwrap(), wanted.tag), None);
        assert_eq!(chunk.holders[mine.slot].load(Ordering::SeqCst), other);
    }

    #[test]
    fn reaping_corrects_the_count_of_a_key_that_is_not_full() {
        let (engine, _) = engine();
        dead_holder(&engine);
        engine.wanted(K, "").unwrap().leases.note_limit(9);
        assert_eq!(engine.in_flight(K, 0), Ok(2));
        assert_eq!(engine.reap_dead(), 1);
        assert_eq!(engine.in_flight(K, 0), Ok(0));
    }

    #[test]
    fn other_keys_hold_no_slots() {
        let (engine, _) = engine();
        assert_eq!(engine.release("{a:b}:requests", "x"), Err(OpError::OutOfRange));
        assert_eq!(engine.in_flight("x", 0), Err(OpError::OutOfRange));
        assert_eq!(engine.in_flight("{never:seen}:max_parallel_requests", 0), Ok(0));
    }

    #[test]
    fn a_slot_held_while_its_key_had_no_room_is_released_when_it_has() {
        let (engine, clock) = engine();
        engine.region().set_overflow(Overflow::Shared);
        let limiter = engine.limiter("", Quota::new(60, 1).unwrap());
        for n in 0..4_000 {
            engine.check(&limiter, format!("key-{n}").as_bytes()).unwrap();
        }
        assert!(held(&engine, K, 1, "x") && !held(&engine, K, 1, "y"));
        clock.advance_s(2);
        // Its own bucket now, by way of another part of the subject.
        engine.add("{api_key:a}:requests", 1, 60).unwrap();
        assert_eq!(engine.in_flight(K, 0), Ok(0));
        engine.release(K, "x").unwrap();
        let holders = engine.region().chunks().iter().flat_map(|chunk| &chunk.holders);
        assert!(holders.into_iter().all(|holder| holder.load(Ordering::SeqCst).bits() == 0));
    }

    #[test]
    fn threads_never_hold_more_than_the_limit() {
        let (engine, _) = engine();
        let (engine, in_flight, peak) =
            (&engine, crate::sync::Word::new(0_u64), crate::sync::Word::new(0_u64));
        let (in_flight, peak) = (&in_flight, &peak);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for n in 0..2_000 {
                        let id = format!("{thread}-{n}");
                        if held(engine, K, 3, &id) {
                            let now = in_flight.fetch_add(1, Ordering::SeqCst) + 1;
                            peak.fetch_max(now, Ordering::SeqCst);
                            in_flight.fetch_sub(1, Ordering::SeqCst);
                            engine.release(K, &id).unwrap();
                        }
                    }
                });
            }
        });
        assert!(peak.load(Ordering::SeqCst) <= 3);
        assert_eq!(engine.in_flight(K, 0), Ok(0));
    }
}
