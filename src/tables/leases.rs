//! Concurrency slots: the array of owner tags is the counter.
//!
//! A key with limit L may hold the slots 0..L, 32 to a chunk. Acquiring swaps an owner into a free slot,
//! so more than L can never be held, and a slot always names who must give it back. Everything else here
//! is a hint that may be wrong in either direction and heals when it is used: the chunk's bit map says
//! where slots were met that are held, `held` says about how many are held by a key of very many.
//!
//! Chunks are found like keys (see [`super::index`]): their identity is a hash of the key and the ordinal,
//! so there is no allocator whose state a crash could lose. A chunk without holders says nothing, and is
//! given up when another key wants its place.

use super::index::{self, Held, NotInserted, Probe};
use crate::layout::{
    CHUNK_SLOTS, IdentityWord, KeyKind, LeaseChunk, LeaseLimits, LeaseWord, OwnerTag, TagWord,
};
use crate::primitives::{MAX_TRIES, Shared, mix};
use crate::sync::{Bits, Ordering, Word, in_total_order};

pub(super) const SLOTS: u64 = CHUNK_SLOTS as u64;
/// While no slot above these has been in use they are counted, and [`LeaseChunk::held`] says nothing.
const COUNTED: u64 = 4 * SLOTS;

/// One key's leases.
#[derive(Clone, Copy)]
pub struct Leases<'a> {
    /// All chunks of the region.
    pub chunks: &'a [LeaseChunk],
    /// The key's identity.
    pub key: IdentityWord,
    /// Where the key's record is, for [`LeaseChunk::key_slot`].
    pub key_slot: u64,
    /// The key's limit word.
    pub limits: &'a Word<LeaseLimits>,
    /// Gives numbers that no other process gives soon.
    pub nonce: fn() -> u64,
}

/// A claimed slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Chunk number.
    pub chunk: usize,
    /// Slot in the chunk.
    pub slot: usize,
    /// What was written.
    pub word: LeaseWord,
}

/// The chunk table has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunksFull;

/// What a claim would find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prospect {
    /// A free slot.
    Free,
    /// None.
    Full,
    /// None, and no room for one: nothing is held, and the chunk table is full.
    NoRoom,
}

/// One of a key's chunks, where it was found.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) index: usize,
    pub(super) ordinal: u64,
    identity: IdentityWord,
    pub(super) chunk: &'a LeaseChunk,
}

impl Part<'_> {
    /// To be called after a claim: whether the chunk still is the key's.
    pub(super) fn holds(&self) -> bool {
        index::holds(&self.chunk.identity, self.identity)
    }
}

/// As much of a slot id's hash as a tag has; never 0, which is none.
fn hash_in(tag: u64) -> u64 {
    (tag >> 16).max(1)
}

/// What a tag is when its slot is freed.
fn freed(seen: TagWord) -> TagWord {
    TagWord::new(seen.writes().wrapping_add(1), 0)
}

/// Writes the tag of a held slot, which may have no hash; false = somebody else holds it, or nobody.
///
/// The tag is read before the holder and swapped from what was read: a process that is stopped in between,
/// and has lost the slot when it goes on, leaves the next holder's tag alone, or is overwritten by it.
pub(super) fn write_tag(chunk: &LeaseChunk, slot: usize, holder: LeaseWord, hash: u64) -> bool {
    let word = &chunk.tags[slot];
    for _ in 0..MAX_TRIES {
        let seen = word.load(Ordering::Acquire);
        if chunk.holders[slot].load(Ordering::Acquire) != holder {
            return false;
        }
        let next = TagWord::new(seen.writes().wrapping_add(1), hash);
        if word.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return true;
        }
    }
    // Only late processes write here, each at most once: so many there are not.
    true
}

/// Frees a slot that holds `word`; false = it does not, and nothing changed.
///
/// The tag is moved on before: the next holder cannot be found by it, and whoever is late with a tag, or with
/// [`Leases::release_tagged`], finds another one.
///
/// Linearization point: the swap of the holder.
fn free(chunk: &LeaseChunk, slot: usize, word: LeaseWord) -> bool {
    let (Some(tag), Some(holder)) = (chunk.tags.get(slot), chunk.holders.get(slot)) else {
        return false;
    };
    for _ in 0..MAX_TRIES {
        let seen = tag.load(Ordering::Acquire);
        if holder.load(Ordering::Acquire) != word {
            return false;
        }
        if tag.compare_exchange(seen, freed(seen), Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            break;
        }
    }
    let swap =
        holder.compare_exchange(word, LeaseWord::default(), Ordering::SeqCst, Ordering::Relaxed);
    if swap.is_ok() {
        forget_hint(chunk, slot);
    }
    swap.is_ok()
}

/// Says that a slot is free, if it has been met while it was held.
fn forget_hint(chunk: &LeaseChunk, slot: usize) {
    if chunk.hint.load(Ordering::Relaxed) & 1 << slot != 0 {
        chunk.hint.fetch_and(!(1 << slot), Ordering::Relaxed);
    }
}

/// The slots of a chunk below `high_water` that are held.
#[inline]
fn held(chunk: &LeaseChunk, high_water: u64) -> impl Iterator<Item = (usize, LeaseWord)> {
    let below = usize::try_from(high_water).unwrap_or(usize::MAX);
    let words = chunk.holders.iter().map(|holder| holder.load(Ordering::SeqCst));
    words.enumerate().take(below).filter(|(_, word)| *word != LeaseWord::default())
}

/// Whether a chunk says nothing: no slot of it is held.
fn is_idle(_: IdentityWord, chunk: &LeaseChunk) -> bool {
    chunk.holders.iter().all(|holder| holder.load(Ordering::SeqCst) == LeaseWord::default())
}

/// Forgets the hints of an idle chunk. Its slots are free as they are.
fn clear(_: usize, _: IdentityWord, chunk: &LeaseChunk) -> bool {
    chunk.hint.store(0, Ordering::Relaxed);
    chunk.held.store(0, Ordering::Relaxed);
    chunk.key_slot.store(0, Ordering::Relaxed);
    true
}

/// Makes one of the places free that a chunk may stand in.
pub(crate) fn make_room(
    chunks: &[LeaseChunk],
    probe: Probe,
) -> Result<Option<IdentityWord>, NotInserted> {
    index::make_room(chunks, probe, is_idle, clear)
}

impl<'a> Leases<'a> {
    /// Identity and places of the key's chunk of that ordinal.
    pub(crate) fn place_of(&self, ordinal: u64) -> (IdentityWord, Probe) {
        let hash = mix(self.key.bits() ^ ordinal.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        (index::identity(KeyKind::Chunk, hash), Probe::of(hash))
    }

    /// The key's chunk of that ordinal, if there is one.
    pub(super) fn existing(&self, ordinal: u64) -> Option<Part<'a>> {
        let (identity, probe) = self.place_of(ordinal);
        let index = index::find(self.chunks, probe, identity)?;
        Some(Part { index, ordinal, identity, chunk: self.chunks.get(index)? })
    }

    /// The same, inserted if needed.
    fn part(&self, ordinal: u64) -> Result<Part<'a>, ChunksFull> {
        let found = self.existing(ordinal).map_or_else(|| self.insert(ordinal), Ok)?;
        self.describe(&found);
        Ok(found)
    }

    #[cold]
    fn insert(&self, ordinal: u64) -> Result<Part<'a>, ChunksFull> {
        let (identity, probe) = self.place_of(ordinal);
        for _ in 0..MAX_TRIES {
            match index::insert(self.chunks, probe, identity, self.nonce) {
                Ok(slot) => {
                    let chunk = self.chunks.get(slot.index).ok_or(ChunksFull)?;
                    if ordinal == 0 {
                        // The one before may have been given up while slots of others were held.
                        self.correct_held();
                    }
                    return Ok(Part { index: slot.index, ordinal, identity, chunk });
                }
                Err(NotInserted::Full) => {
                    make_room(self.chunks, probe).map_err(|_| ChunksFull)?;
                }
                Err(NotInserted::Contended) => break,
            }
        }
        Err(ChunksFull)
    }

    /// Writes down whose chunk it is, for inspectors and for reaping, as long as it is this key's.
    fn describe(&self, part: &Part<'_>) {
        let chunk = part.chunk;
        for (word, value) in [(&chunk.ordinal, part.ordinal), (&chunk.key_slot, self.key_slot)] {
            let seen = word.load(Ordering::Relaxed);
            if seen != value {
                // A lost race means that another process wrote it, or that the chunk has passed on.
                let held = Held::new(word, &chunk.identity, part.identity);
                let _ = held.compare_exchange(seen, value, Ordering::SeqCst, Ordering::Relaxed);
            }
        }
    }

    fn high_water(&self) -> u64 {
        // SYNC lease-overhang: SeqCst, see `claim`.
        let stated = self.limits.load(Ordering::SeqCst).high_water();
        stated.min(self.chunks.len() as u64 * SLOTS)
    }

    /// How many chunks a count looks at.
    pub fn reach(&self) -> u64 {
        self.high_water().div_ceil(SLOTS)
    }

    /// Makes everybody who counts look that far, and lets nobody lower it who has counted before. False when
    /// the word changed under every try: the slot must then not be claimed, or not be kept.
    fn raise_high_water(&self, above: u64) -> bool {
        // SYNC lease-overhang, lease-lower: SeqCst, so that a raise by somebody else comes before the claim
        // that relies on it, and that what is done after a claim sees who lowers it.
        let mut seen = self.limits.load(Ordering::SeqCst);
        for _ in 0..MAX_TRIES {
            if seen.high_water() >= above && seen.lowering() == 0 {
                return true;
            }
            let high_water = above.max(seen.high_water());
            let next = LeaseLimits::new(seen.limit(), high_water, seen.attempts(), 0);
            let crosses = seen.high_water() <= COUNTED && high_water > COUNTED;
            if crosses {
                // Before others add to it, which may be at once and then go on: the count after it would
                // never meet a moment at which nothing changes.
                self.set_held();
            }
            match self.limits.compare_exchange(seen, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => {
                    if crosses {
                        self.set_held();
                    }
                    return true;
                }
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Whether nothing is held. Writes nothing.
    pub fn is_idle(&self) -> bool {
        self.limits.load(Ordering::SeqCst).high_water() == 0 || self.count() == 0
    }

    /// Forgets the limit and the high water if nothing is held; false = something is, or was meanwhile.
    ///
    /// As with keys that are given up: the word is marked, the slots are counted, and only if the mark still
    /// stands the word is zeroed. A claim looks at the word *after* it has taken its slot, so it is counted
    /// or takes the mark back (SYNC lease-lower). Each mark is another word, so that a process that was
    /// stopped after its count cannot finish later.
    pub fn forget(&self) -> bool {
        let seen = self.limits.load(Ordering::SeqCst);
        if seen.limit() == 0 && seen.high_water() == 0 {
            return true;
        }
        let (limit, high_water) = (seen.limit(), seen.high_water());
        let attempts = seen.attempts().wrapping_add(1);
        let word =
            |limit, high_water, lowering| LeaseLimits::new(limit, high_water, attempts, lowering);
        let swap = |from, to| {
            self.limits.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        };
        let marked = word(limit, high_water, 1);
        if !swap(seen, marked) {
            return false;
        }
        in_total_order();
        if self.count() == 0 {
            return swap(marked, word(0, 0, 0));
        }
        swap(marked, word(limit, high_water, 0));
        false
    }

    /// Remembers the limit, for inspectors.
    pub fn note_limit(&self, limit: u64) {
        let limit = limit.min(LeaseLimits::MAX_LIMIT);
        let seen = self.limits.load(Ordering::Relaxed);
        if seen.limit() != limit {
            let next = LeaseLimits::new(limit, seen.high_water(), seen.attempts(), seen.lowering());
            // A lost race means that somebody else noted a limit just now.
            let _ = self.limits.compare_exchange(seen, next, Ordering::SeqCst, Ordering::Relaxed);
        }
    }

    /// Claims a free slot below `limit`, looking first in the chunk `start`; `None` = all are held. With a tag
    /// the claim can be found by it; without one it is known by [`Self::tag_of`].
    ///
    /// Linearization point: the swap of the slot. Lock-free; every slot is tried at most twice.
    ///
    /// While slots at or above `limit` are in use (the limit was lowered), a free slot below it is not
    /// enough: the claim counts all slots afterwards and gives itself back if there are too many. Two
    /// such claims at once may both give up; neither can stay unseen by the other, because claim and
    /// count are sequentially consistent (SYNC lease-overhang).
    pub fn claim(
        &self,
        limit: u64,
        start: u64,
        owner: OwnerTag,
        now_s: u64,
        tag: Option<u64>,
    ) -> Result<Option<Claim>, ChunksFull> {
        let limit = limit.min(self.chunks.len() as u64 * SLOTS);
        let word = LeaseWord::new(owner.raw(), now_s, 0);
        let used = limit.min(self.high_water()).div_ceil(SLOTS);
        let all = limit.div_ceil(SLOTS);
        let start = start.checked_rem(used).unwrap_or(0);
        let rotated = (start..used).chain(0..start);
        let mut full = None;
        for trust_hint in [true, false] {
            for ordinal in rotated.clone().chain(used..all) {
                let claim = match self.claim_in(ordinal, limit, word, tag, trust_hint) {
                    Ok(Some(claim)) => claim,
                    Ok(None) => continue,
                    // No room for more chunks; there may still be a slot in those that exist.
                    Err(error) => {
                        full = Some(error);
                        if ordinal >= used {
                            break;
                        }
                        continue;
                    }
                };
                if self.exceed(limit) {
                    self.release(claim);
                    return Ok(None);
                }
                return Ok(Some(claim));
            }
        }
        // A key that holds slots and cannot get more is full; one that holds none has not been decided.
        match full {
            Some(error) if self.count() == 0 => Err(error),
            _ => Ok(None),
        }
    }

    /// What [`Self::claim`] would find now, if those held slots were free that `freed` names by their holder, and
    /// by whether they are counted as this key's. Reads only.
    pub fn prospect(&self, limit: u64, freed: impl Fn(LeaseWord, bool) -> bool) -> Prospect {
        let limit = limit.min(self.chunks.len() as u64 * SLOTS);
        let high_water = self.high_water();
        let is_free = |word, counted| word == LeaseWord::default() || freed(word, counted);
        let mut held = 0;
        self.each_held(|claim| held += u64::from(!freed(claim.word, true)));
        let used = limit.min(high_water).div_ceil(SLOTS);
        let mut full = false;
        for ordinal in 0..limit.div_ceil(SLOTS) {
            let found = if let Some(Part { chunk, .. }) = self.existing(ordinal) {
                let below = usable(ordinal, limit);
                chunk.holders.iter().enumerate().any(|(slot, holder)| {
                    let counted = ordinal * SLOTS + (slot as u64) < high_water;
                    below & 1 << slot != 0 && is_free(holder.load(Ordering::SeqCst), counted)
                })
            } else {
                let (_, probe) = self.place_of(ordinal);
                let idle = |_, chunk: &LeaseChunk| {
                    let mut holders = chunk.holders.iter();
                    holders.all(|holder| is_free(holder.load(Ordering::SeqCst), false))
                };
                let room = index::has_room(self.chunks, probe, idle);
                full |= !room;
                if !room && ordinal >= used {
                    break;
                }
                room
            };
            if found {
                // As with a claim: one that is made while too many are held is given back.
                let exceeds = high_water > limit && held + 1 > limit;
                return if exceeds { Prospect::Full } else { Prospect::Free };
            }
        }
        if full && held == 0 { Prospect::NoRoom } else { Prospect::Full }
    }

    /// Claims a free slot of the key's chunk of that ordinal.
    fn claim_in(
        &self,
        ordinal: u64,
        limit: u64,
        word: LeaseWord,
        tag: Option<u64>,
        trust_hint: bool,
    ) -> Result<Option<Claim>, ChunksFull> {
        for _ in 0..MAX_TRIES {
            let part = self.part(ordinal)?;
            let Some(slot) = self.claim_of(&part, limit, word, trust_hint) else {
                return Ok(None);
            };
            let claim = Claim { chunk: part.index, slot, word };
            // Without a hash, too: whoever is late with freeing the slot for its last holder may still move the
            // tag that it finds there, but not this one.
            write_tag(part.chunk, slot, word, tag.map_or(0, hash_in));
            // SYNC key-leave, lease-lower: the claim is either seen by who gives the chunk up or lowers the
            // high water, or sees that and is made again.
            if part.holds() && self.raise_high_water(ordinal * SLOTS + slot as u64 + 1) {
                self.adjust_held(1);
                return Ok(Some(claim));
            }
            free(part.chunk, slot, word);
        }
        Err(ChunksFull)
    }

    fn claim_of(
        &self,
        part: &Part<'_>,
        limit: u64,
        word: LeaseWord,
        trust_hint: bool,
    ) -> Option<usize> {
        let chunk = part.chunk;
        let hint = chunk.hint.load(Ordering::Relaxed);
        let taken = if trust_hint { hint } else { 0 };
        let mut candidates = usable(part.ordinal, limit) & !taken;
        while candidates != 0 {
            let slot = candidates.trailing_zeros() as usize;
            let bit = 1 << slot;
            candidates &= !bit;
            let holder = chunk.holders.get(slot)?;
            if holder.load(Ordering::Acquire) == LeaseWord::default() {
                // Before the claim, so that whoever counts after it looks this far.
                if !self.raise_high_water(part.ordinal * SLOTS + slot as u64 + 1) {
                    continue;
                }
                let free = LeaseWord::default();
                if holder.compare_exchange(free, word, Ordering::SeqCst, Ordering::Relaxed).is_ok()
                {
                    return Some(slot);
                }
            }
            if hint & bit == 0 {
                chunk.hint.fetch_or(bit, Ordering::Relaxed);
            }
        }
        None
    }

    /// Gives a claim back; false = it is no longer ours (reaped or expired), and nothing changed.
    ///
    /// Linearization point: the swap of the holder.
    pub fn release(&self, claim: Claim) -> bool {
        let chunk = self.chunks.get(claim.chunk);
        let freed = chunk.is_some_and(|chunk| free(chunk, claim.slot, claim.word));
        if freed {
            self.adjust_held(-1);
        }
        freed
    }

    /// What was written for a claim: it changes before the slot is free again.
    pub fn tag_of(&self, claim: Claim) -> TagWord {
        let tag = self.chunks.get(claim.chunk).and_then(|chunk| chunk.tags.get(claim.slot));
        tag.map_or(TagWord::default(), |tag| tag.load(Ordering::Acquire))
    }

    /// As [`Self::release`], but only if the slot still has that tag: a process that gives a claim back twice
    /// does not free one that it has made since, in the same second.
    pub fn release_tagged(&self, claim: Claim, tag: TagWord) -> bool {
        let Some(chunk) = self.chunks.get(claim.chunk) else { return false };
        let (Some(word), Some(holder)) =
            (chunk.tags.get(claim.slot), chunk.holders.get(claim.slot))
        else {
            return false;
        };
        let next = freed(tag);
        // Whoever moves the tag on is the one who frees it, and nobody else has since it was read.
        let freed = holder.load(Ordering::Acquire) == claim.word
            && word.compare_exchange(tag, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
            && holder
                .compare_exchange(
                    claim.word,
                    LeaseWord::default(),
                    Ordering::SeqCst,
                    Ordering::Relaxed,
                )
                .is_ok();
        if freed {
            forget_hint(chunk, claim.slot);
            self.adjust_held(-1);
        }
        freed
    }

    /// The first slot that is held, of the first chunk.
    pub fn first_held(&self) -> Option<Claim> {
        self.first_where(|_| true)
    }

    /// The first slot that `owner` holds, of the first chunk.
    pub fn held_by(&self, owner: OwnerTag) -> Option<Claim> {
        self.first_where(|word| word.owner() == owner.raw())
    }

    fn first_where(&self, wanted: impl Fn(LeaseWord) -> bool) -> Option<Claim> {
        let Part { index, chunk, .. } = self.existing(0)?;
        let (slot, word) = held(chunk, self.high_water()).find(|&(_, word)| wanted(word))?;
        Some(Claim { chunk: index, slot, word })
    }

    /// Says that the first slot that `owner` holds is still in use: its age begins again. `None` = it holds none.
    ///
    /// Linearization point: the swap from exactly what was seen. Whoever frees the slot for its age swaps from
    /// what it saw, too: either the slot is freed, or it is renewed.
    pub fn renew(&self, owner: OwnerTag, now_s: u64) -> Option<Claim> {
        for _ in 0..MAX_TRIES {
            let claim = self.held_by(owner)?;
            let seen = claim.word;
            let word = LeaseWord::new(owner.raw(), now_s.max(seen.acquired_s()), 0);
            let holder = self.chunks.get(claim.chunk)?.holders.get(claim.slot)?;
            if holder.compare_exchange(seen, word, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                return Some(Claim { word, ..claim });
            }
        }
        None
    }

    /// Frees the first slot that `owner` holds, even if it is being renewed; false = it holds none.
    pub fn release_of(&self, owner: OwnerTag) -> bool {
        let held = || self.held_by(owner);
        (0..MAX_TRIES).map_while(|_| held()).any(|claim| self.release(claim))
    }

    /// Finds a slot that `owner` holds by its tag. Looks at all of them; for callers that have forgotten
    /// where it is.
    pub fn find(&self, owner: OwnerTag, tag: u64) -> Option<Claim> {
        for part in (0..self.reach()).filter_map(|ordinal| self.existing(ordinal)) {
            let Part { index, chunk, .. } = part;
            for (slot, found) in chunk.tags.iter().enumerate() {
                // The holder before and after the tag: a tag belongs to the holder it was read under.
                let word = chunk.holders[slot].load(Ordering::Acquire);
                if word.owner() == owner.raw()
                    && found.load(Ordering::Acquire).hash() == hash_in(tag)
                    && chunk.holders[slot].load(Ordering::Acquire) == word
                {
                    return Some(Claim { chunk: index, slot, word });
                }
            }
        }
        None
    }

    /// As [`Self::about`], for who has just claimed one: if the key has no other chunk, none is looked up.
    #[inline]
    pub fn about_with(&self, claim: Claim) -> u64 {
        let high_water = self.high_water();
        match self.chunks.get(claim.chunk) {
            Some(chunk) if high_water <= SLOTS => held(chunk, high_water).count() as u64,
            _ => self.about(),
        }
    }

    /// Whether more than `limit` are held, as they may be where it was lowered.
    #[inline]
    pub fn exceed(&self, limit: u64) -> bool {
        self.high_water() > limit && self.count() > limit
    }

    /// Counts the held slots by looking at all of them.
    pub fn count(&self) -> u64 {
        let mut held = 0;
        self.each_held(|_| held += 1);
        held
    }

    /// Calls `visit` for every held slot.
    pub fn each_held(&self, mut visit: impl FnMut(Claim)) {
        let high_water = self.high_water();
        for ordinal in 0..high_water.div_ceil(SLOTS) {
            let Some(Part { index, chunk, .. }) = self.existing(ordinal) else { continue };
            for (slot, word) in held(chunk, high_water - ordinal * SLOTS) {
                visit(Claim { chunk: index, slot, word });
            }
        }
    }

    /// How many are held, in bounded time: exact while few slots have ever been in use, else about so many.
    /// Races with [`Self::correct_held`] and crashes leave it off by a few until it is corrected the next
    /// time.
    pub fn about(&self) -> u64 {
        if self.high_water() <= COUNTED {
            return self.count();
        }
        let stated = self.existing(0).map_or(0, |part| part.chunk.held.load(Ordering::Relaxed));
        // A count below zero (a crash between a claim and its count) reads as zero.
        if stated > u64::MAX / 2 { 0 } else { stated }
    }

    /// Counts, and corrects what [`Self::about`] says, unless it changes meanwhile.
    pub fn correct_held(&self) -> u64 {
        if self.high_water() > COUNTED { self.set_held() } else { self.count() }
    }

    /// The same while few slots have ever been in use, too.
    fn set_held(&self) -> u64 {
        let first = self.existing(0);
        let before = first.map(|part| part.chunk.held.load(Ordering::Relaxed));
        let exact = self.count();
        if let (Some(part), Some(before)) = (first, before) {
            let held = &part.chunk.held;
            let _ = held.compare_exchange(before, exact, Ordering::Relaxed, Ordering::Relaxed);
        }
        exact
    }

    #[inline]
    fn adjust_held(&self, by: i64) {
        if self.high_water() > COUNTED
            && let Some(part) = self.existing(0)
        {
            part.chunk.held.fetch_add(by.cast_unsigned(), Ordering::Relaxed);
        }
    }

    /// Chunk ordinal of a claim, where the next search may begin.
    pub fn ordinal_of(&self, claim: Claim) -> u64 {
        self.chunks.get(claim.chunk).map_or(0, |chunk| chunk.ordinal.load(Ordering::Relaxed))
    }
}

/// Bits of the slots of a chunk that lie below the limit.
fn usable(ordinal: u64, limit: u64) -> u64 {
    let below = limit.saturating_sub(ordinal * SLOTS).min(SLOTS);
    u64::MAX.checked_shr(u32::try_from(64 - below).unwrap_or(64)).unwrap_or(0)
}

/// Frees every slot of the region whose holder `gone` names; returns how many. `freed_of` is told the
/// `key_slot` of each chunk in which something was freed, as far as it is known.
pub fn reap(
    chunks: &[LeaseChunk],
    mut gone: impl FnMut(OwnerTag) -> bool,
    mut freed_of: impl FnMut(u64),
) -> u64 {
    let mut freed = 0;
    for chunk in chunks {
        if chunk.identity.load(Ordering::Acquire) == IdentityWord::default() {
            continue;
        }
        let before = freed;
        for (slot, holder) in chunk.holders.iter().enumerate() {
            // SYNC worker-claim: Acquire, so that the owner's row is not seen older than its lease.
            let word = holder.load(Ordering::Acquire);
            if word == LeaseWord::default()
                || OwnerTag::from_raw(word.owner()).is_some_and(|owner| !gone(owner))
            {
                continue;
            }
            freed += u64::from(free(chunk, slot, word));
        }
        let key_slot = chunk.key_slot.load(Ordering::Relaxed);
        if freed > before && key_slot != 0 {
            freed_of(key_slot);
        }
    }
    freed
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Chunks, and more keys than there are.
    const FEW: usize = if cfg!(miri) { 8 } else { 64 };
    const MANY: usize = if cfg!(miri) { 14 } else { 2_000 };

    fn chunks(count: usize) -> Vec<LeaseChunk> {
        (0..count).map(|_| LeaseChunk::zeroed()).collect()
    }

    fn nonce() -> u64 {
        static NEXT: Word<u64> = Word::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    fn leases_of<'a>(
        chunks: &'a [LeaseChunk],
        limits: &'a Word<LeaseLimits>,
        key: IdentityWord,
    ) -> Leases<'a> {
        Leases { chunks, key, key_slot: 1, limits, nonce }
    }

    fn key(n: u64) -> IdentityWord {
        index::identity(KeyKind::Window, (n + 1) << 13)
    }

    fn me() -> OwnerTag {
        OwnerTag::new(1, 1).expect("valid")
    }

    fn other() -> OwnerTag {
        OwnerTag::new(2, 1).expect("valid")
    }

    #[test]
    fn exactly_the_limit_over_several_chunks() {
        let id = |number: u64| (number + 1) << 16;
        let chunks = chunks(64);
        let limits = Word::new(LeaseLimits::default());
        let leases = leases_of(&chunks, &limits, key(1));
        let claims: Vec<Claim> = (0..100)
            .filter_map(|tag| leases.claim(70, 0, me(), 5, Some(id(tag))).unwrap())
            .collect();
        assert_eq!(claims.len(), 70);
        assert_eq!((leases.count(), leases.about()), (70, 70));
        assert!(leases.release(claims[40]));
        assert!(!leases.release(claims[40]));
        assert_eq!(leases.find(me(), id(11)).map(|claim| claim.word.owner()), Some(me().raw()));
        assert_eq!(leases.find(other(), id(11)), None);
        assert_eq!(leases.find(me(), id(40)), None);
        assert!(leases.claim(70, 0, me(), 5, Some(id(500))).unwrap().is_some());
        assert!(leases.claim(70, 0, me(), 5, Some(id(501))).unwrap().is_none());
    }

    #[test]
    fn wrong_hints_change_no_answer() {
        let chunks = chunks(64);
        let limits = Word::new(LeaseLimits::default());
        let leases = leases_of(&chunks, &limits, key(1));
        let first = leases.claim(3, 0, me(), 5, Some(1)).unwrap().unwrap();
        chunks[first.chunk].hint.store(u64::MAX, Ordering::Relaxed);
        assert!(leases.claim(3, 0, me(), 5, Some(2)).unwrap().is_some());
        chunks[first.chunk].hint.store(0, Ordering::Relaxed);
        assert!(leases.claim(3, 0, me(), 5, Some(3)).unwrap().is_some());
        assert!(leases.claim(3, 0, me(), 5, Some(4)).unwrap().is_none());
        chunks[first.chunk].held.store(u64::MAX - 5, Ordering::Relaxed);
        assert_eq!(leases.about(), 3);
        limits.store(LeaseLimits::new(3, COUNTED + 1, 0, 0), Ordering::Relaxed);
        assert_eq!(leases.about(), 0);
        assert_eq!(leases.correct_held(), 3);
        assert_eq!(leases.about(), 3);
    }

    #[test]
    fn a_lowered_limit_admits_nobody_until_the_overhang_is_gone() {
        let chunks = chunks(64);
        let limits = Word::new(LeaseLimits::default());
        let leases = leases_of(&chunks, &limits, key(1));
        let claims: Vec<Claim> = (0..10)
            .map(|tag| leases.claim(10, 0, me(), 5, Some(tag + 1)).unwrap().unwrap())
            .collect();
        for &claim in &claims[..4] {
            leases.release(claim);
        }
        // Six are held, all above slot 3: four slots are free below the new limit of 5.
        assert!(leases.claim(5, 0, me(), 5, Some(99)).unwrap().is_none());
        leases.release(claims[9]);
        leases.release(claims[8]);
        assert!(leases.claim(5, 0, me(), 5, Some(99)).unwrap().is_some());
        assert!(leases.claim(5, 0, me(), 5, Some(100)).unwrap().is_none());
    }

    #[test]
    fn reaping_frees_only_the_dead_and_a_late_release_harms_nobody() {
        let chunks = chunks(64);
        let limits = Word::new(LeaseLimits::default());
        let leases = leases_of(&chunks, &limits, key(1));
        let dead = leases.claim(2, 0, other(), 5, Some(1)).unwrap().unwrap();
        let mine = leases.claim(2, 0, me(), 5, Some(2)).unwrap().unwrap();
        assert_eq!(reap(&chunks, |owner| owner == other(), |_| {}), 1);
        let next = leases.claim(2, 0, me(), 6, Some(3)).unwrap().unwrap();
        assert_eq!((next.chunk, next.slot), (dead.chunk, dead.slot));
        assert!(!leases.release(dead));
        assert_eq!(leases.count(), 2);
        assert!(leases.release(mine) && leases.release(next));
    }

    #[test]
    fn holders_that_nobody_can_be_are_reaped() {
        let chunks = chunks(64);
        let limits = Word::new(LeaseLimits::default());
        let leases = leases_of(&chunks, &limits, key(1));
        let claim = leases.claim(1, 0, me(), 5, Some(1)).unwrap().unwrap();
        chunks[claim.chunk].holders[claim.slot].store(LeaseWord::new(3, 9, 0), Ordering::Relaxed);
        assert_eq!(reap(&chunks, |_| false, |_| {}), 1);
        assert_eq!(leases.count(), 0);
    }

    #[test]
    fn slots_of_existing_chunks_are_found_when_there_is_no_room_for_more() {
        let chunks = chunks(FEW);
        let (limits, others) =
            (Word::new(LeaseLimits::default()), Word::new(LeaseLimits::default()));
        let leases = leases_of(&chunks, &limits, key(1));
        let first = leases.claim(64, 0, me(), 5, Some(1)).unwrap().unwrap();
        for n in 2..MANY as u64 {
            let other = leases_of(&chunks, &others, key(n));
            let _ = other.claim(1, 0, me(), 5, Some(1));
        }
        chunks[first.chunk].hint.store(u64::MAX, Ordering::Relaxed);
        for tag in 2..=32 {
            assert!(leases.claim(64, 9, me(), 5, Some(tag)).unwrap().is_some(), "slot {tag}");
        }
        assert_eq!(leases.claim(64, u64::MAX, me(), 5, Some(33)), Ok(None));
    }

    #[test]
    fn a_full_chunk_table_is_an_error_and_hurts_nobody() {
        let chunks = chunks(FEW);
        let limits: Vec<_> = (0..MANY).map(|_| Word::new(LeaseLimits::default())).collect();
        let mut full = 0;
        for (n, limits) in limits.iter().enumerate() {
            let leases = leases_of(&chunks, limits, key(n as u64));
            full += u32::from(leases.claim(1, 0, me(), 5, Some(1)).is_err());
        }
        assert!(full as usize >= MANY - FEW);
        let held: usize = chunks
            .iter()
            .flat_map(|chunk| &chunk.holders)
            .filter(|holder| holder.load(Ordering::Relaxed) != LeaseWord::default())
            .count();
        assert_eq!(held, MANY - full as usize);
    }

    #[test]
    fn idle_chunks_make_room_for_other_keys() {
        let chunks = chunks(FEW);
        let limits: Vec<_> = (0..MANY).map(|_| Word::new(LeaseLimits::default())).collect();
        let kept = leases_of(&chunks, &limits[0], key(0));
        let held = kept.claim(1, 0, me(), 5, Some(1)).unwrap().unwrap();
        for (n, limits) in limits.iter().enumerate().skip(1) {
            let leases = leases_of(&chunks, limits, key(n as u64));
            let claim = leases.claim(1, 0, me(), 5, Some(1)).unwrap().unwrap();
            assert!(leases.release(claim));
        }
        assert_eq!((kept.count(), kept.claim(1, 0, me(), 5, Some(2))), (1, Ok(None)));
        assert!(kept.release(held));
    }

    /// From the slot on from which leases are no longer counted, others add to what is known while it is counted.
    #[test]
    fn about_is_about_right_when_many_pass_what_is_counted_at_once() {
        const THREADS: u64 = 4;
        for _ in 0..if cfg!(miri) { 1 } else { 300 } {
            let chunks = chunks(FEW.max(16));
            let limits = Word::new(LeaseLimits::default());
            let leases = leases_of(&chunks, &limits, key(1));
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        for _ in 0..COUNTED / THREADS + 8 {
                            leases.claim(400, 0, me(), 5, None).unwrap().unwrap();
                        }
                    });
                }
            });
            let (count, about) = (leases.count(), leases.about());
            assert!(count.abs_diff(about) <= 4 * THREADS, "{about} instead of {count}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn agrees_with_a_plain_list(
            most in prop_oneof![Just(80_u64), Just(400)],
            ops in prop::collection::vec((0_u8..5, 0_usize..50, 1_u64..400), 1..400),
        ) {
            let chunks = chunks(256);
            let limits = Word::new(LeaseLimits::default());
            let leases = leases_of(&chunks, &limits, key(7));
            let mut held: Vec<Claim> = Vec::new();
            for (op, pick, limit) in ops {
                if op < 3 {
                    let limit = limit.min(most);
                    let claim = leases.claim(limit, pick as u64, me(), 5, Some(1)).unwrap();
                    prop_assert_eq!(claim.is_some(), (held.len() as u64) < limit);
                    held.extend(claim);
                } else if !held.is_empty() {
                    let claim = held.swap_remove(pick % held.len());
                    prop_assert!(leases.release(claim));
                }
                prop_assert_eq!(leases.count(), held.len() as u64);
                prop_assert_eq!(leases.about(), held.len() as u64);
            }
        }
    }

    #[test]
    fn usable_slots_end_at_the_limit() {
        assert_eq!(usable(0, 5), 0b1_1111);
        assert_eq!(usable(0, 32), u64::from(u32::MAX));
        assert_eq!(usable(0, 40), u64::from(u32::MAX));
        assert_eq!(usable(1, 40), 0xff);
        assert_eq!(usable(2, 40), 0);
        assert_eq!(usable(0, 0), 0);
    }
}
