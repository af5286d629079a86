//! Connections: one slot of an endpoint and one of a pool, held together by one process.
//!
//! The slots are leases, so neither limit can be passed, and a dead process's connections are reaped. A process that
//! keeps a connection without using it marks both slots as idle, and these are the rules:
//!
//! * An idle slot is anybody's: whoever needs it takes it by one swap of its word, from exactly what was seen. A slot
//!   in use is its holder's only.
//! * A connection is used again by taking both of its slots back, the endpoint's first. Whoever finds that the other
//!   one was taken has lost the connection, and gives up the half that is left.
//! * Whoever takes one slot over takes or frees the other one, too, which its tag leads to. A process that is killed
//!   in between leaves a half that is idle, and so anybody's. Tags that lead astray cost an idle connection at worst.
//! * The tag of the endpoint's slot counts who was handed the connection out. Whoever moves it on from what it was
//!   handed out with ends that use, so each use ends once, and a late one ends nobody else's.

use super::leases::{Claim, Leases, Part, SLOTS, write_tag};
use crate::layout::{LeaseWord, OwnerTag, TagWord};
use crate::sync::Ordering;

/// Slots that a tag can name.
pub const MAX_SLOTS: u64 = 1 << SLOT_BITS;

const SLOT_BITS: u32 = 16;
/// Bits of a generation.
const GENERATION_BITS: u32 = 32;

/// One endpoint's slots and those of its pool.
#[derive(Clone, Copy)]
pub struct Slots<'a> {
    /// The endpoint's.
    pub endpoint: Leases<'a>,
    /// The pool's.
    pub pool: Leases<'a>,
    /// Where the endpoint's record is, for the tags of the pool's slots.
    pub record: u64,
}

/// Who does something, and when.
#[derive(Debug, Clone, Copy)]
pub struct User {
    /// The process.
    pub owner: OwnerTag,
    /// The present second of the region's clock.
    pub now_s: u64,
}

/// For how long a connection is kept, seconds; 0 = without end. Seconds are whole: none is closed before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Without being used.
    pub idle_s: u64,
    /// Since it was made.
    pub age_s: u64,
}

impl Keep {
    /// Whether a connection made at `made_s` is too old.
    pub fn is_too_old(self, made_s: u64, now_s: u64) -> bool {
        self.age_s > 0 && now_s.saturating_sub(made_s) > self.age_s
    }

    /// Whether one that was last used at `used_s` has been idle for too long.
    pub fn is_too_idle(self, used_s: u64, now_s: u64) -> bool {
        self.idle_s > 0 && now_s.saturating_sub(used_s) > self.idle_s
    }
}

/// How many slots there are of each kind.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of the endpoint.
    pub endpoint: u64,
    /// Of the pool.
    pub pool: u64,
}

/// One use of a connection: what its end presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Slot of the endpoint.
    pub slot: u64,
    /// The connection in that slot: 32 bits, not 0, that no other one there has soon.
    pub generation: u64,
    /// Which use of it: 16 bits, wrapping.
    pub number: u64,
}

impl Use {
    fn of(slot: u64, tag: TagWord) -> Self {
        Self { slot, generation: tag.hash() >> SLOT_BITS, number: tag.writes() }
    }

    /// The same before the tag was moved on.
    fn before(self) -> Self {
        Self { number: TagWord::new(self.number.wrapping_sub(1), 0).writes(), ..self }
    }
}

/// What became of an attempt to use an idle connection again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// It is in use.
    Again(Use),
    /// Its time was over, and it was closed.
    Expired,
    /// It is another's, or was.
    Gone,
}

/// A connection that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// Its first use.
    pub first: Use,
    /// An idle one made room for it.
    pub taken_over: bool,
}

/// What became of the end of a use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The connection is idle.
    Kept,
    /// It is closed: that was asked for, or its time was over.
    Closed,
    /// That use has ended before, or was never this process's; nothing changed.
    Stale,
}

/// A connection as one look found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Whether it is kept without being used.
    pub idle: bool,
    /// When it was made, seconds.
    pub made_s: u64,
    /// When it was last handed out or given back, seconds.
    pub used_s: u64,
}

/// One slot, where it was found.
#[derive(Clone, Copy)]
struct Spot<'a> {
    part: Part<'a>,
    slot: usize,
}

impl Spot<'_> {
    fn number(&self) -> u64 {
        self.part.ordinal * SLOTS + self.slot as u64
    }

    fn word(&self) -> LeaseWord {
        self.part.chunk.holders[self.slot].load(Ordering::Acquire)
    }

    fn tag(&self) -> TagWord {
        self.part.chunk.tags[self.slot].load(Ordering::Acquire)
    }

    fn claim(&self, word: LeaseWord) -> Claim {
        Claim { chunk: self.part.index, slot: self.slot, word }
    }

    fn swap(&self, from: LeaseWord, to: LeaseWord) -> bool {
        let holder = &self.part.chunk.holders[self.slot];
        holder.compare_exchange(from, to, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Takes an idle slot; false = it is no longer as it was seen.
    ///
    /// Linearization point: the swap of the holder.
    fn take(&self, leases: &Leases<'_>, seen: LeaseWord, mine: LeaseWord) -> bool {
        if !self.swap(seen, mine) {
            return false;
        }
        // SYNC key-leave: an idle slot keeps its chunk from being given up, so this fails only for who was stopped
        // since it found the chunk. What it took is an idle slot of another key, which is not worth giving back.
        let holds = self.part.holds();
        if !holds {
            leases.release(self.claim(mine));
        }
        holds
    }

    /// Moves the tag on from exactly what was seen.
    fn end_use(&self, seen: TagWord) -> bool {
        let next = TagWord::new(seen.writes().wrapping_add(1), seen.hash());
        let tag = &self.part.chunk.tags[self.slot];
        tag.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

fn in_use(owner: OwnerTag, since_s: u64) -> LeaseWord {
    LeaseWord::new(owner.raw(), since_s, 0)
}

fn idle(owner: OwnerTag, since_s: u64) -> LeaseWord {
    LeaseWord::new(owner.raw(), since_s, 1)
}

fn is_idle_of(word: LeaseWord, owner: u64) -> bool {
    word.idle() == 1 && word.owner() == owner
}

/// The pool's slot that the tag of an endpoint's slot leads to.
fn pool_slot(tag: TagWord) -> u64 {
    tag.hash() & (MAX_SLOTS - 1)
}

/// Idle slots of a key with when each was last used, as far as that is known.
type Idle = Vec<(u64, u64, LeaseWord)>;

/// Whether there are too many even without the idle ones, which then need not be closed.
fn are_in_vain(leases: &Leases<'_>, limit: u64, idle: &Idle) -> bool {
    leases.exceed(limit) && leases.count().saturating_sub(idle.len() as u64) >= limit
}

fn spot<'a>(leases: &Leases<'a>, number: u64) -> Option<Spot<'a>> {
    let part = leases.existing(number / SLOTS)?;
    Some(Spot { part, slot: usize::try_from(number % SLOTS).ok()? })
}

/// The slot of a claim, as others find it; `None` = it has gone, or no tag can name it, and is given back.
fn claimed<'a>(leases: &Leases<'a>, claim: Claim) -> Option<Spot<'a>> {
    // What the chunk says of itself is a hint.
    let ordinals = std::iter::once(leases.ordinal_of(claim)).chain(0..leases.reach());
    let mut parts = ordinals.filter_map(|ordinal| leases.existing(ordinal));
    let part = parts.find(|part| part.index == claim.chunk);
    let found = part.map(|part| Spot { part, slot: claim.slot });
    let found = found.filter(|found| found.number() < MAX_SLOTS);
    if found.is_none() {
        leases.release(claim);
    }
    found
}

impl<'a> Slots<'a> {
    /// What the tag of a pool's slot leads to the endpoint's slot by.
    fn location(&self, slot: u64) -> u64 {
        (self.record + 1) << SLOT_BITS | slot
    }

    /// Whether more are held than may be. Idle ones are then closed, see [`Self::make`], instead of used again.
    #[inline]
    pub fn exceed(&self, limits: Limits) -> bool {
        self.endpoint.exceed(limits.endpoint) || self.pool.exceed(limits.pool)
    }

    /// Uses an idle connection of this process again.
    pub fn reuse(&self, slot: u64, user: User, keep: Keep) -> Reuse {
        let Some(here) = spot(&self.endpoint, slot) else { return Reuse::Gone };
        let seen = here.word();
        let mine = in_use(user.owner, user.now_s);
        if !is_idle_of(seen, user.owner.raw()) || !here.take(&self.endpoint, seen, mine) {
            return Reuse::Gone;
        }
        let tag = here.tag();
        let Some((there, word)) =
            self.take_other(tag, slot, user.owner.raw(), |made_s| in_use(user.owner, made_s))
        else {
            self.endpoint.release(here.claim(mine));
            return Reuse::Gone;
        };
        let over = keep.is_too_idle(seen.acquired_s(), user.now_s)
            || keep.is_too_old(word.acquired_s(), user.now_s);
        if over {
            self.pool.release(there.claim(word));
            self.endpoint.release(here.claim(mine));
            return Reuse::Expired;
        }
        Reuse::Again(Use::of(slot, tag))
    }

    /// Takes the idle pool's slot that belongs to a slot of the endpoint, which was `owner`'s before; `made` says as
    /// what, by when the connection was made.
    fn take_other(
        &self,
        tag: TagWord,
        slot: u64,
        owner: u64,
        made: impl FnOnce(u64) -> LeaseWord,
    ) -> Option<(Spot<'a>, LeaseWord)> {
        let there = spot(&self.pool, pool_slot(tag))?;
        let seen = there.word();
        let word = made(seen.acquired_s());
        if !is_idle_of(seen, owner) || !there.take(&self.pool, seen, word) {
            return None;
        }
        if there.tag().hash() == self.location(slot) {
            return Some((there, word));
        }
        // The connection that it belongs to has come and gone, and this is another one's.
        there.swap(word, seen);
        None
    }

    /// Idle connections of `owner`, those that were used last first.
    pub fn idle_of(&self, owner: OwnerTag) -> Vec<u64> {
        let mut found = idle_slots(&self.endpoint, |_| Some(0));
        found.retain(|(.., word)| word.owner() == owner.raw());
        found.sort_unstable_by_key(|&(_, number, word)| (u64::MAX - word.acquired_s(), number));
        found.into_iter().map(|(_, number, _)| number).collect()
    }

    /// Makes a connection; `None` = all slots of the endpoint or of the pool are in use. Where all are held, the idle
    /// ones that were used least recently make room, whoever keeps them: one of them, or as many as are too many
    /// where a limit was lowered.
    ///
    /// `claim` claims a free slot below a limit, and may free those of the dead for it; `endpoint_at` gives the slots
    /// of another endpoint of the pool by its record.
    pub fn make<E>(
        &self,
        user: User,
        limits: Limits,
        generation: u64,
        claim: impl Fn(&Leases<'a>, u64, Option<u64>) -> Result<Option<Claim>, E>,
        endpoint_at: impl Fn(u64) -> Option<Leases<'a>>,
    ) -> Result<Option<Made>, E> {
        let mine = in_use(user.owner, user.now_s);
        let found = match claim(&self.endpoint, limits.endpoint.min(MAX_SLOTS), None)? {
            Some(claim) => claimed(&self.endpoint, claim).map(|here| (here, claim.word, None)),
            None => self.take_over(mine, limits),
        };
        let Some((here, held, there)) = found else { return Ok(None) };
        let slot = here.number();
        let found = match there {
            Some(there) => Ok(Some((there, mine, true))),
            None => self.room(mine, limits.pool.min(MAX_SLOTS), slot, claim, endpoint_at),
        };
        let Ok(Some((there, word, taken_over))) = found else {
            self.endpoint.release(here.claim(held));
            return found.map(|_| None);
        };
        write_tag(there.part.chunk, there.slot, word, self.location(slot));
        let generation = (generation & (u64::MAX >> (64 - GENERATION_BITS))).max(1);
        write_tag(here.part.chunk, here.slot, held, generation << SLOT_BITS | there.number());
        Ok(Some(Made { first: Use::of(slot, here.tag()), taken_over }))
    }

    /// Takes an idle slot of the endpoint over, with the pool's slot that belongs to it if that can be had.
    fn take_over(
        &self,
        mine: LeaseWord,
        limits: Limits,
    ) -> Option<(Spot<'a>, LeaseWord, Option<Spot<'a>>)> {
        let mut found = idle_slots(&self.endpoint, |_| Some(0));
        if are_in_vain(&self.endpoint, limits.endpoint, &found) {
            return None;
        }
        found.sort_unstable_by_key(|&(_, number, word)| (word.acquired_s(), number));
        found.into_iter().find_map(|(_, number, word)| {
            let here = spot(&self.endpoint, number).filter(|_| number < MAX_SLOTS)?;
            if !here.take(&self.endpoint, word, mine) {
                return None;
            }
            let there = self.take_other(here.tag(), number, word.owner(), |_| mine);
            let too_many = self.endpoint.exceed(limits.endpoint);
            let there = there.map(|(there, _)| there).filter(|there| {
                let stays = !too_many && !self.pool.exceed(limits.pool);
                if !stays {
                    self.pool.release(there.claim(mine));
                }
                stays
            });
            if too_many {
                self.endpoint.release(here.claim(mine));
                return None;
            }
            Some((here, mine, there))
        })
    }

    /// A slot of the pool for a slot of the endpoint, with what it holds: a free one, or one that was idle (true).
    fn room<E>(
        &self,
        mine: LeaseWord,
        limit: u64,
        slot: u64,
        claim: impl Fn(&Leases<'a>, u64, Option<u64>) -> Result<Option<Claim>, E>,
        endpoint_at: impl Fn(u64) -> Option<Leases<'a>>,
    ) -> Result<Option<(Spot<'a>, LeaseWord, bool)>, E> {
        if let Some(claim) = claim(&self.pool, limit, Some(self.location(slot) << SLOT_BITS))? {
            return Ok(claimed(&self.pool, claim).map(|there| (there, claim.word, false)));
        }
        let found = by_last_use(&self.pool, &endpoint_at);
        if are_in_vain(&self.pool, limit, &found) {
            return Ok(None);
        }
        for (_, number, word) in found {
            let Some(there) = spot(&self.pool, number).filter(|_| number < MAX_SLOTS) else {
                continue;
            };
            if !close_other(&self.pool, &there, word, mine, &endpoint_at) {
                continue;
            }
            if self.pool.exceed(limit) {
                self.pool.release(there.claim(mine));
                continue;
            }
            return Ok(Some((there, mine, true)));
        }
        Ok(None)
    }

    /// Closes the half of the pool's idle connections that was used least recently, whoever keeps them, so that there
    /// is room in the tables. Returns how many.
    pub fn close_older(
        pool: &Leases<'a>,
        user: User,
        endpoint_at: impl Fn(u64) -> Option<Leases<'a>>,
    ) -> u64 {
        let mine = in_use(user.owner, user.now_s);
        let mut found = by_last_use(pool, &endpoint_at);
        found.truncate(found.len().div_ceil(2));
        let mut closed = 0;
        for (_, number, word) in found {
            let Some(there) = spot(pool, number) else { continue };
            if close_other(pool, &there, word, mine, &endpoint_at) {
                closed += u64::from(pool.release(there.claim(mine)));
            }
        }
        closed
    }

    /// Ends a use of a connection, which is kept for as long as `keep` says; `None` = it is closed.
    ///
    /// Linearization point: the swap of the tag, for who may end it; that of the endpoint's slot, for who may use it
    /// next.
    pub fn end(&self, ended: Use, user: User, keep: Option<Keep>) -> Ended {
        let Some(here) = spot(&self.endpoint, ended.slot) else { return Ended::Stale };
        // The holder before the tag: a tag belongs to the holder it was read under.
        let held = here.word();
        let tag = here.tag();
        let mine = held.owner() == user.owner.raw() && held.idle() == 0;
        if !mine || Use::of(ended.slot, tag) != ended || !here.end_use(tag) {
            return Ended::Stale;
        }
        let there = spot(&self.pool, pool_slot(tag)).map(|there| (there, there.word()));
        let there = there.filter(|(there, word)| {
            word.owner() == user.owner.raw()
                && word.idle() == 0
                && there.tag().hash() == self.location(ended.slot)
        });
        if let (Some((there, word)), Some(keep)) = (there, keep)
            && !keep.is_too_old(word.acquired_s(), user.now_s)
        {
            // The pool's first: whoever finds the endpoint's idle may rely on both.
            there.swap(word, idle(user.owner, word.acquired_s()));
            here.swap(held, idle(user.owner, user.now_s));
            return Ended::Kept;
        }
        if let Some((there, word)) = there {
            self.pool.release(there.claim(word));
        }
        self.endpoint.release(here.claim(held));
        Ended::Closed
    }

    /// Closes a connection of this process, in its latest use or after it.
    pub fn close(&self, used: Use, user: User) -> Ended {
        let Some(here) = spot(&self.endpoint, used.slot) else { return Ended::Stale };
        let seen = here.word();
        if !is_idle_of(seen, user.owner.raw()) {
            return self.end(used, user, None);
        }
        let is_latest = |tag| Use::of(used.slot, tag).before() == used;
        let mine = in_use(user.owner, user.now_s);
        if !is_latest(here.tag()) || !here.take(&self.endpoint, seen, mine) {
            return Ended::Stale;
        }
        let tag = here.tag();
        if !is_latest(tag) {
            // Another thread was quicker, and this is idle again.
            here.swap(mine, seen);
            return Ended::Stale;
        }
        if let Some((there, word)) = self.take_other(tag, used.slot, user.owner.raw(), |_| mine) {
            self.pool.release(there.claim(word));
        }
        self.endpoint.release(here.claim(mine));
        Ended::Closed
    }

    /// What a connection of this process is like, in its latest use or after it; `None` = it is gone, or has been
    /// used again since.
    pub fn look(&self, seen: Use, owner: OwnerTag) -> Option<Sight> {
        let here = spot(&self.endpoint, seen.slot)?;
        let word = here.word();
        let tag = here.tag();
        let idle = word.idle() == 1;
        let latest = Use::of(seen.slot, tag);
        let latest = if idle { latest.before() } else { latest };
        let there = spot(&self.pool, pool_slot(tag))?;
        let other = there.word();
        let whole = other.owner() == owner.raw() && there.tag().hash() == self.location(seen.slot);
        (word.owner() == owner.raw() && latest == seen && whole && here.word() == word)
            .then(|| Sight { idle, made_s: other.acquired_s(), used_s: word.acquired_s() })
    }

    /// Closes the endpoint's idle connections whose time is over, whoever keeps them. Returns how many.
    pub fn sweep(&self, user: User, keep: Keep) -> u64 {
        let mine = in_use(user.owner, user.now_s);
        let mut closed = 0;
        for (_, number, word) in idle_slots(&self.endpoint, |_| Some(0)) {
            let Some(here) = spot(&self.endpoint, number) else { continue };
            let made_s = spot(&self.pool, pool_slot(here.tag())).map(|there| there.word());
            let made_s = made_s.filter(|&other| is_idle_of(other, word.owner()));
            let over = keep.is_too_idle(word.acquired_s(), user.now_s)
                || made_s.is_none_or(|other| keep.is_too_old(other.acquired_s(), user.now_s));
            if !over || !here.take(&self.endpoint, word, mine) {
                continue;
            }
            if let Some((there, _)) = self.take_other(here.tag(), number, word.owner(), |_| mine) {
                self.pool.release(there.claim(mine));
                closed += 1;
            }
            self.endpoint.release(here.claim(mine));
        }
        closed
    }

    /// Frees the pool's idle slots whose other half is gone. Returns how many.
    pub fn sweep_halves(
        pool: &Leases<'a>,
        user: User,
        endpoint_at: impl Fn(u64) -> Option<Leases<'a>>,
    ) -> u64 {
        let mine = in_use(user.owner, user.now_s);
        let alone = |there: &Spot<'_>, word: LeaseWord| {
            let hash = there.tag().hash();
            let endpoint = (hash >> SLOT_BITS).checked_sub(1).and_then(&endpoint_at);
            let other = endpoint.and_then(|endpoint| spot(&endpoint, hash & (MAX_SLOTS - 1)));
            // While a connection is given back its endpoint's slot still is in use.
            other.is_none_or(|other| {
                other.word().owner() != word.owner() || pool_slot(other.tag()) != there.number()
            })
        };
        let mut freed = 0;
        for (_, number, word) in idle_slots(pool, |(there, word)| alone(&there, word).then_some(0))
        {
            let Some(there) = spot(pool, number) else { continue };
            if there.take(pool, word, mine) {
                freed += u64::from(pool.release(there.claim(mine)));
            }
        }
        freed
    }
}

/// The endpoint's half of an idle connection by that of the pool, if it still is there and idle.
fn other_of<'a>(
    there: &Spot<'a>,
    owner: u64,
    endpoint_at: impl Fn(u64) -> Option<Leases<'a>>,
) -> Option<(Leases<'a>, Spot<'a>, LeaseWord)> {
    let hash = there.tag().hash();
    let endpoint = endpoint_at((hash >> SLOT_BITS).checked_sub(1)?)?;
    let other = spot(&endpoint, hash & (MAX_SLOTS - 1))?;
    let word = other.word();
    let belongs = is_idle_of(word, owner) && pool_slot(other.tag()) == there.number();
    belongs.then_some((endpoint, other, word))
}

/// Idle slots of a pool, those that were used least recently first.
fn by_last_use<'a>(pool: &Leases<'a>, endpoint_at: impl Fn(u64) -> Option<Leases<'a>>) -> Idle {
    let mut found = idle_slots(pool, |(there, word)| {
        // A half whose other half is gone comes first.
        let other = other_of(&there, word.owner(), &endpoint_at);
        Some(other.map_or(0, |(.., word)| word.acquired_s().max(1)))
    });
    found.sort_unstable_by_key(|&(used_s, number, _)| (used_s, number));
    found
}

/// Takes a pool's idle slot and frees the endpoint's that belongs to it; false = it is no longer as it was seen.
fn close_other<'a>(
    pool: &Leases<'a>,
    there: &Spot<'a>,
    seen: LeaseWord,
    mine: LeaseWord,
    endpoint_at: impl Fn(u64) -> Option<Leases<'a>>,
) -> bool {
    if !there.take(pool, seen, mine) {
        return false;
    }
    if let Some((endpoint, other, word)) = other_of(there, seen.owner(), endpoint_at)
        && other.take(&endpoint, word, mine)
    {
        endpoint.release(other.claim(mine));
    }
    true
}

/// Idle slots of a key, each with what `rank` says of it; `None` = it is passed over.
fn idle_slots<'a>(
    leases: &Leases<'a>,
    rank: impl Fn((Spot<'a>, LeaseWord)) -> Option<u64>,
) -> Idle {
    let mut found = Idle::new();
    for part in (0..leases.reach()).filter_map(|ordinal| leases.existing(ordinal)) {
        for slot in 0..part.chunk.holders.len() {
            let at = Spot { part, slot };
            let word = at.word();
            if word.idle() == 1
                && let Some(rank) = rank((at, word))
            {
                found.push((rank, at.number(), word));
            }
        }
    }
    found
}
