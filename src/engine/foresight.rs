//! What a limit would answer if it were asked now, without asking it: the same rules at one reading of the clock, with
//! what the engine does before it refuses (it corrects what cannot be, closes windows of the future, frees the slots
//! of the dead). Reads only, so that it works on a mapping that cannot be written.
//!
//! A worker proves deaths at most every 50 ms; one that has looked just now may refuse a slot that is foreseen here
//! as taken from a dead worker.

use super::keys::{self, Key};
use super::subject::Part;
use super::{admission, windows};
use crate::clock::Instant;
use crate::config::Overflow;
use crate::layout::{
    Bucket, ClaimWord, GcraWord, KeyKind, LeaseWord, OwnerTag, SlidingWord, WindowWord, WorkerRow,
};
use crate::liveness::Liveness;
use crate::primitives::gcra::{self, NEVER, Quota};
use crate::primitives::sliding::{self, SlidingLimit};
use crate::primitives::window::{self, Pair};
use crate::region::Region;
use crate::sync::{Bits, Ordering, Word};
use crate::tables::leases::{Leases, Prospect};
use crate::tables::{buckets, index, workers};

/// What a limit would answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It admits.
    Admits,
    /// It refuses, and would admit after so many microseconds if nobody else came.
    RefusesFor(u64),
    /// It refuses, and always will: more is asked than it allows.
    Never,
    /// It refuses until somebody releases a slot.
    UntilReleased,
    /// There is no room in the region to decide.
    NoRoom,
}

impl Verdict {
    fn after(wait_us: u64) -> Self {
        match wait_us {
            0 => Self::Admits,
            NEVER => Self::Never,
            wait_us => Self::RefusesFor(wait_us),
        }
    }
}

/// How a limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// What it would answer.
    pub verdict: Verdict,
    /// Used: requests, units, tokens, slots.
    pub used: i64,
    /// Left of it.
    pub left: u64,
    /// Slots that whoever finds none will free: of the dead, and those held for too long.
    pub abandoned: u64,
    /// True when something stands there that cannot be, which the next request corrects first.
    pub corrects: bool,
}

/// How an anchored window is asked: the two differ where nothing is asked for, and below zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// [`super::Engine::admit_all`].
    Batch,
    /// [`super::Engine::admit`].
    Admission,
}

/// A quota asked for `cost` requests.
pub fn rate(bucket: &Bucket, quota: Quota, cost: u64, now: Instant) -> Outlook {
    let word = GcraWord::from_bits(bucket.requests.load(Ordering::Relaxed).bits());
    let left = gcra::remaining(word, now.us(), quota);
    Outlook {
        verdict: Verdict::after(gcra::retry_after_us(word, now.us(), quota, cost)),
        used: signed(u64::from(quota.burst()).saturating_sub(left)),
        left,
        abandoned: 0,
        corrects: word.tat_us() > now.us() + quota.most_ahead_us(),
    }
}

/// A sliding window asked for `cost` units.
pub fn sliding(bucket: &Bucket, limit: SlidingLimit, cost: u64, now: Instant) -> Outlook {
    let seen = SlidingWord::from_bits(bucket.requests.load(Ordering::Relaxed).bits());
    // What a window of the future admits, the same one of the present admits, too.
    let repaired = sliding::repaired(seen, now.us(), limit);
    let word = repaired.unwrap_or(seen);
    let left = sliding::remaining(word, now.us(), limit);
    Outlook {
        verdict: Verdict::after(sliding::retry_after_us(word, now.us(), limit, cost)),
        used: signed(limit.limit().saturating_sub(left)),
        left,
        abandoned: 0,
        corrects: repaired.is_some(),
    }
}

/// A counter of an anchored window of `size_s` seconds, at least one, asked for `cost`; the window that is open may be
/// shorter.
pub fn window(
    bucket: &Bucket,
    part: Part,
    (limit, size_s): (u64, u64),
    cost: u64,
    entry: Entry,
    now: Instant,
) -> Outlook {
    let counter = if part == Part::Tokens { &bucket.tokens } else { &bucket.requests };
    // The counter first, as whoever charges it does.
    let counter = Word::new(counter.load(Ordering::Acquire));
    let seen = bucket.window.load(Ordering::Acquire);
    let corrects = windows::starts_in_future(seen, now.s());
    let mut open = if corrects { WindowWord::default() } else { seen };
    let opens = open.left(now.s(), size_s).is_none();
    if opens {
        // The one that would be opened. It finds the counter of a window that was closed in this second.
        open = WindowWord::new(now.s(), size_s);
    }
    let pair = Pair { window: Some(&Word::new(open)), counter: &counter };
    let used = window::peek(pair, now.s(), size_s);
    let fits = |used: i64| match entry {
        Entry::Batch => windows::has_room(used, signed(limit), signed(cost)),
        Entry::Admission => cost <= limit && admission::has_room(used, limit, cost),
    };
    let verdict = match (fits(used) && (!opens || fits(0)), fits(0)) {
        (true, _) => Verdict::Admits,
        (false, true) => Verdict::RefusesFor(windows::wait_us(open, size_s, now)),
        (false, false) => Verdict::Never,
    };
    let left = u64::try_from(signed(limit).saturating_sub(used)).unwrap_or(0);
    Outlook { verdict, used, left, abandoned: 0, corrects }
}

/// Workers that are proven dead, whose rows nobody has freed.
#[derive(Debug)]
pub struct Dead(Vec<OwnerTag>);

impl Dead {
    /// Those of which `prove` says so.
    pub fn of(region: &Region, prove: impl Fn(&WorkerRow, ClaimWord) -> Liveness) -> Self {
        let dead = |worker: &workers::Worker| worker.liveness == Liveness::Dead;
        let found = workers::list(region.workers(), prove).into_iter().filter(dead);
        Self(found.map(|worker| worker.owner).collect())
    }

    /// Whether a slot's holder can no longer give it back.
    pub fn left(&self, region: &Region, word: LeaseWord) -> bool {
        OwnerTag::from_raw(word.owner()).is_none_or(|owner| {
            workers::is_gone(region.workers(), owner) || self.0.contains(&owner)
        })
    }
}

/// Slots asked for one, of which each may be held for `ttl_s` seconds; 0 = for ever.
pub fn slots(
    region: &Region,
    leases: &Leases<'_>,
    limit: u64,
    ttl_s: u64,
    dead: &Dead,
    now: Instant,
) -> Outlook {
    let abandoned = |word: LeaseWord| {
        let expired = ttl_s > 0 && now.s().saturating_sub(word.acquired_s()) >= ttl_s;
        expired || dead.left(region, word)
    };
    // Of other keys those of the dead are freed, if somebody is found dead.
    let freed = |word, counted| {
        if counted { abandoned(word) } else { !dead.0.is_empty() && dead.left(region, word) }
    };
    let (mut held, mut leaves) = (0, 0);
    leases.each_held(|claim| {
        held += 1;
        leaves += u64::from(abandoned(claim.word));
    });
    let mut prospect = leases.prospect(limit, |_, _| false);
    if prospect == Prospect::Full && (leaves > 0 || !dead.0.is_empty()) {
        prospect = leases.prospect(limit, freed);
    }
    let verdict = match prospect {
        Prospect::Free => Verdict::Admits,
        Prospect::Full if limit == 0 => Verdict::Never,
        Prospect::Full => Verdict::UntilReleased,
        Prospect::NoRoom => Verdict::NoRoom,
    };
    let left = limit.saturating_sub(held - leaves);
    Outlook { verdict, used: signed(held), left, abandoned: leaves, corrects: false }
}

/// Where a key that stands nowhere would be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// In a bucket of its own, in which nothing is charged.
    Own,
    /// In the bucket that keys without room share, if one of them has been decided already.
    Shared(Option<usize>),
    /// In each process's own memory.
    Local,
    /// Nowhere: it is refused.
    Nowhere,
}

/// Where the key with those bytes would be decided; it stands nowhere.
pub fn home(region: &Region, kind: KeyKind, domain: u64, bytes: &[u8], now: Instant) -> Home {
    let (table, shared) = region.key_buckets();
    let idle = |identity, bucket: &Bucket| {
        // As it is judged when its place is wanted.
        let leases = keys::leases_of(region, &Key { slot: usize::MAX, identity, bucket });
        buckets::is_idle(identity, bucket, &leases, now.us())
    };
    let (_, probe) = keys::identify(region, kind, domain, bytes);
    if index::has_room(table, probe, idle) {
        return Home::Own;
    }
    match region.overflow() {
        Overflow::Deny => Home::Nowhere,
        Overflow::Local => Home::Local,
        Overflow::Shared => {
            let (identity, probe) = keys::identify(region, kind, domain, keys::SHARED_KEY);
            match index::find(shared, probe, identity) {
                Some(slot) => Home::Shared(Some(table.len() + slot)),
                None if index::has_room(shared, probe, idle) => Home::Shared(None),
                None => Home::Nowhere,
            }
        }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
