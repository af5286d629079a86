//! Admission over several limits in one call: all or nothing, with one reading of the clock.
//!
//! A [`Demand`] says what is asked of one limit, and carries what it was given: where its key was found, what
//! was charged, what is left. The caller keeps the demands of a request until it has ended.
//!
//! Every limit is looked at before anything is written, so that a refusal usually writes nothing. Then
//! concurrency slots are claimed, which name their owner and are reaped if it dies, and then the limits
//! are charged, in the caller's order. If a race makes one of them refuse, what was charged before is
//! taken back by subtraction. A process that dies half way leaves at most one request's cost on each limit
//! and a slot that is reaped; there is never less charged than was admitted.

use super::keys::Key;
use super::quota::{Limiter, Place};
use super::sliding::SlidingLimiter;
use super::subject::{Part, Subject};
use super::{Engine, windows};
use crate::clock::Instant;
use crate::error::OpError;
use crate::layout::{CounterWord, GcraWord, KeyKind, OwnerTag, SlidingWord, TagWord};
use crate::primitives::gcra::{self, Decision, NEVER};
use crate::primitives::sliding;
use crate::primitives::window::{self, Outcome};
use crate::sync::{Bits, Ordering, add_one};
use crate::tables::leases::Claim;

/// Most limits of one admission.
pub const MAX_LIMITS: usize = 8;

/// What a limit allows.
#[derive(Debug, Clone, Copy)]
pub enum Rule<'a> {
    /// A rate with a burst.
    Rate(&'a Limiter),
    /// At most so much in any window-long stretch, to the algorithm's accuracy.
    Sliding(&'a SlidingLimiter),
    /// At most `limit` in a window that begins with its first request. The key is a subject (`{...}`).
    Window {
        /// Which of the subject's counters: requests or tokens.
        part: Part,
        /// What the counter may not pass.
        limit: u64,
        /// Length of the window in seconds, at least 1.
        size_s: u64,
    },
    /// At most `limit` held at once. The key is a subject (`{...}`). Its cost does not matter.
    Slots {
        /// How many may be held.
        limit: u64,
        /// A slot held longer than this may be taken by others, seconds; 0 = never.
        ttl_s: u64,
    },
}

/// One limit to be met.
#[derive(Debug, Clone)]
pub struct Demand<'a> {
    /// Whose limit.
    pub key: &'a str,
    /// What it allows.
    pub rule: Rule<'a>,
    /// What is asked of it: requests, tokens.
    pub cost: u64,
    /// Where the key was found the last time; `None` at first. Kept up to date by [`Engine::admit`], so that
    /// a caller who keeps its demands need not have the key looked up again.
    pub place: Option<Place>,
    /// What it was given by the latest admission, for who ends that with demands made anew.
    pub receipt: Receipt,
    spare: u64,
}

impl<'a> Demand<'a> {
    /// A demand of a key that has not been looked up.
    pub fn new(key: &'a str, rule: Rule<'a>, cost: u64) -> Self {
        Self { key, rule, cost, place: None, receipt: Receipt::default(), spare: 0 }
    }

    /// What the limit had left when it was last asked, this demand taken off if it was met: requests or
    /// tokens, or free slots.
    pub fn remaining(&self) -> u64 {
        match self.rule {
            Rule::Rate(limiter) => limiter.quota().requests_in(self.spare),
            _ => self.spare,
        }
    }

    /// Whether a slot is held that has not been given back.
    pub fn holds_slot(&self) -> bool {
        matches!(self.receipt.given, Given::Slot(..))
    }

    fn note(&mut self, given: Given, spare: u64) {
        self.receipt = Receipt { given, cost: self.cost, owner: 0 };
        self.spare = spare;
    }

    /// Whether something was charged that has not been given back or settled.
    fn is_charged(&self) -> bool {
        !matches!(self.receipt.given, Given::Nothing | Given::Slot(..))
    }

    fn is_subject(&self) -> bool {
        matches!(self.rule, Rule::Window { .. } | Rule::Slots { .. })
    }

    fn is_slots(&self) -> bool {
        matches!(self.rule, Rule::Slots { .. })
    }
}

/// What a granted demand was given, by whom, and what it cost. Copies of it, and those that the child of a fork
/// has, give nothing back a second time as far as slots are concerned; charges are given back by the process
/// that made them, once for each copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    given: Given,
    cost: u64,
    /// `OwnerTag` of the process; 0 = it has no row.
    owner: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Given {
    /// Nothing, or nothing that has not been given back or settled.
    #[default]
    Nothing,
    Rate(gcra::Charge),
    Sliding {
        window: u64,
    },
    Window {
        start_s: u64,
    },
    /// A slot, and what its tag must still be.
    Slot(Claim, TagWord),
}

/// Why an admission was refused. Nothing is charged, nothing is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Position of the limit that refused; of several, the one that will refuse longest.
    pub position: usize,
    /// Microseconds until all limits would admit it if nobody else came; [`NEVER`] when one of them never
    /// can, `None` when it depends on a slot that is released.
    pub retry_after_us: Option<u64>,
}

/// The answer to an admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// All limits are charged and all slots are held.
    Granted,
    /// Nothing is.
    Refused(Refusal),
}

type Keys<'a> = [Option<Key<'a>>; MAX_LIMITS];

impl Engine {
    /// Meets all demands or none.
    ///
    /// # Errors
    /// `OutOfRange` for more than [`MAX_LIMITS`] demands, a window of no length, a key that is no subject
    /// where one is needed, or a demand that still holds a slot; `TableFull`, `LeasesFull`, `WorkersFull`,
    /// `Contended` when the region cannot decide. Nothing is charged then.
    pub fn admit(&self, demands: &mut [Demand<'_>]) -> Result<Answer, OpError> {
        if demands.len() > MAX_LIMITS || demands.iter().any(Demand::holds_slot) {
            return Err(OpError::OutOfRange);
        }
        // Of all, before any of them fails: what was given before is not this admission's to give back.
        for demand in demands.iter_mut() {
            demand.receipt = Receipt::default();
        }
        for _ in 0..super::ROUNDS {
            if let Some(answer) = self.try_admit(demands)? {
                return Ok(answer);
            }
            self.count(|row| &row.misplaced);
        }
        Err(self.counted(OpError::Contended))
    }

    #[inline]
    fn try_admit(&self, demands: &mut [Demand<'_>]) -> Result<Option<Answer>, OpError> {
        let now = self.now();
        let mut keys: Keys<'_> = [None; MAX_LIMITS];
        let mut any_slots = false;
        for (position, key) in keys.iter_mut().enumerate() {
            let (before, rest) = demands.split_at_mut(position.min(demands.len()));
            let Some(demand) = rest.first_mut() else { break };
            // Several limits of one subject are looked up once.
            demand.place = demand.place.or_else(|| same_subject(demand, before));
            *key = Some(self.find_demand(demand, now)?);
            any_slots |= demand.is_slots();
        }
        if let Some(refusal) = view_all(demands, &keys, now) {
            return Ok(self.refuse(demands, &keys, refusal, now));
        }
        for slots in [true, false].into_iter().skip(usize::from(!any_slots)) {
            for position in 0..demands.len() {
                let demand = &mut demands[position];
                let Some(key) = keys[position].filter(|_| demand.is_slots() == slots) else {
                    continue;
                };
                match self.meet(demand, &key, now) {
                    Ok(Met::Yes) => {}
                    unmet => {
                        self.take_all_back(demands, &keys);
                        return match unmet? {
                            Met::Moved | Met::Yes => Ok(None),
                            Met::No(retry_after_us) => {
                                let refusal = Refusal { position, retry_after_us };
                                Ok(self.refuse(demands, &keys, refusal, now))
                            }
                        };
                    }
                }
            }
        }
        let owner = self.me().map_or(0, OwnerTag::raw);
        for (position, (key, demand)) in keys.iter().flatten().zip(demands).enumerate() {
            demand.receipt.owner = owner;
            // Once for a key of several limits.
            if !keys[..position].iter().flatten().any(|other| other.slot == key.slot) {
                key.bucket.allowed.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count(|row| &row.admitted);
        Ok(Some(Answer::Granted))
    }

    fn find_demand(&self, demand: &mut Demand<'_>, now: Instant) -> Result<Key<'_>, OpError> {
        let kind = match demand.rule {
            Rule::Rate(_) => KeyKind::Gcra,
            Rule::Sliding(_) => KeyKind::Sliding,
            Rule::Slots { .. } => KeyKind::Window,
            Rule::Window { part, size_s, .. } => {
                let counts = matches!(part, Part::Requests | Part::Tokens);
                if !counts || !(1..=u64::from(u32::MAX)).contains(&size_s) {
                    return Err(OpError::OutOfRange);
                }
                KeyKind::Window
            }
        };
        let remembered = demand.place.filter(|place| place.identity.kind() == kind as u64);
        if let Some(key) = remembered.and_then(|place| self.key_at(place)) {
            return Ok(key);
        }
        let key = match demand.rule {
            Rule::Rate(limiter) => self.quota_key(limiter, demand.key.as_bytes())?,
            Rule::Sliding(limiter) => self.sliding_key(limiter, demand.key.as_bytes())?,
            Rule::Window { .. } | Rule::Slots { .. } => self.subject_key(demand.key, now)?,
        };
        demand.place = Some(Place { slot: key.slot, identity: key.identity });
        Ok(key)
    }

    fn subject_key(&self, name: &str, now: Instant) -> Result<Key<'_>, OpError> {
        if !(name.starts_with('{') && name.ends_with('}')) {
            return Err(OpError::OutOfRange);
        }
        let key = self.subject(Subject { name, part: Part::Window })?;
        if key.window().load(Ordering::Acquire).start_s() > now.s() {
            self.mend_window(&key);
        }
        Ok(key)
    }

    /// Mends the state of a key that refuses; false = there is nothing to be mended. Whoever only looks, and
    /// does not charge, would be refused by damage until it is over by itself.
    fn mend(&self, demand: &Demand<'_>, key: &Key<'_>) -> bool {
        match demand.rule {
            Rule::Rate(limiter) => self.repair_quota(limiter.quota(), key),
            Rule::Sliding(limiter) => self.repair_sliding(limiter.limit(), key),
            Rule::Window { .. } => self.mend_window(key),
            Rule::Slots { .. } => false,
        }
    }

    /// Tells a refusal, and what is left under each limit; `None` when the key that refuses was given up
    /// meanwhile, or mended.
    #[cold]
    fn refuse(
        &self,
        demands: &mut [Demand<'_>],
        keys: &Keys<'_>,
        refusal: Refusal,
        now: Instant,
    ) -> Option<Answer> {
        let key = keys.get(refusal.position).copied().flatten()?;
        if !key.holds() || self.mend(demands.get(refusal.position)?, &key) {
            return None;
        }
        for (demand, key) in demands.iter_mut().zip(keys.iter().flatten()) {
            demand.spare = self.spare(demand, key, now);
        }
        add_one(&key.bucket.denied);
        self.count(|row| &row.refused);
        Some(Answer::Refused(refusal))
    }

    /// What is left under a limit.
    fn spare(&self, demand: &Demand<'_>, key: &Key<'_>, now: Instant) -> u64 {
        let word = key.bucket.requests.load(Ordering::Relaxed).bits();
        match demand.rule {
            Rule::Rate(limiter) => {
                gcra::spare_us(GcraWord::from_bits(word), now.us(), limiter.quota())
            }
            Rule::Sliding(limiter) => {
                sliding::remaining(SlidingWord::from_bits(word), now.us(), limiter.limit())
            }
            Rule::Window { part, limit, size_s } => {
                let used = key.pair(part).map_or(0, |pair| window::peek(pair, now.s(), size_s));
                u64::try_from(count(limit).saturating_sub(used)).unwrap_or(0)
            }
            Rule::Slots { limit, .. } => limit.saturating_sub(self.leases(key).about()),
        }
    }

    fn meet(&self, demand: &mut Demand<'_>, key: &Key<'_>, now: Instant) -> Result<Met, OpError> {
        match demand.rule {
            Rule::Rate(limiter) => {
                let quota = limiter.quota();
                match self.try_charge_quota(quota, key, demand.cost, now)? {
                    None => return Ok(Met::Moved),
                    Some(Decision::Denied { retry_after_us }) => {
                        return Ok(Met::No(Some(retry_after_us)));
                    }
                    Some(Decision::Allowed { spare_us, charge }) => {
                        demand.note(Given::Rate(charge), spare_us);
                    }
                }
            }
            Rule::Sliding(limiter) => {
                match self.try_charge_sliding(limiter.limit(), key, demand.cost, now)? {
                    None => return Ok(Met::Moved),
                    Some(sliding::Decision::Denied { retry_after_us }) => {
                        return Ok(Met::No(Some(retry_after_us)));
                    }
                    Some(sliding::Decision::Allowed { remaining, window }) => {
                        demand.note(Given::Sliding { window }, remaining);
                    }
                }
            }
            Rule::Window { part, limit, size_s } => {
                return self.meet_window(demand, key, part, (limit, size_s), now);
            }
            Rule::Slots { limit, ttl_s } => return self.meet_slots(demand, key, limit, ttl_s, now),
        }
        Ok(Met::Yes)
    }

    fn meet_window(
        &self,
        demand: &mut Demand<'_>,
        key: &Key<'_>,
        part: Part,
        (limit, size_s): (u64, u64),
        now: Instant,
    ) -> Result<Met, OpError> {
        let pair = key.pair(part).ok_or(OpError::OutOfRange)?;
        let fits = |seen| has_room(seen, limit, demand.cost);
        let charge = || window::charge(pair, now.s(), size_s, count(demand.cost), fits);
        Ok(match self.rounds(key, charge)? {
            Some(Outcome::Admitted(charged)) => {
                let spare = u64::try_from(count(limit) - charged.count).unwrap_or(0);
                demand.note(Given::Window { start_s: charged.window.start_s() }, spare);
                Met::Yes
            }
            Some(Outcome::Refused { .. }) if key.holds() => {
                Met::No(Some(window_wait_us(key, size_s, now)))
            }
            _ => Met::Moved,
        })
    }

    fn meet_slots(
        &self,
        demand: &mut Demand<'_>,
        key: &Key<'_>,
        limit: u64,
        ttl_s: u64,
        now: Instant,
    ) -> Result<Met, OpError> {
        let leases = self.leases(key);
        leases.note_limit(limit.min(u64::from(u32::MAX)));
        let Some(claim) = self.claim_slot(&leases, key.slot, limit, ttl_s, now, None)? else {
            leases.correct_held();
            return Ok(Met::No(None));
        };
        if !key.holds() {
            leases.release(claim);
            return Ok(Met::Moved);
        }
        let spare = limit.saturating_sub(leases.about_with(claim));
        demand.note(Given::Slot(claim, leases.tag_of(claim)), spare);
        Ok(Met::Yes)
    }

    #[cold]
    fn take_all_back(&self, demands: &mut [Demand<'_>], keys: &Keys<'_>) {
        for (demand, key) in demands.iter_mut().zip(keys).rev() {
            let receipt = std::mem::take(&mut demand.receipt);
            if let Some(key) = key {
                self.give_up(demand, key, receipt, receipt.cost);
            }
        }
    }

    /// Gives `cost` of a receipt back.
    fn give_up(&self, demand: &Demand<'_>, key: &Key<'_>, receipt: Receipt, cost: u64) {
        let now = self.now();
        let given = match (receipt.given, demand.rule) {
            (Given::Rate(charge), Rule::Rate(limiter)) => {
                let charge = gcra::Charge { cost, ..charge };
                gcra::refund(key.state(), now.us(), limiter.quota(), charge).ok()
            }
            (Given::Sliding { window }, Rule::Sliding(limiter)) => {
                let (word, limit) = (key.state(), limiter.limit());
                let kept = receipt.cost.saturating_sub(cost);
                Some(sliding::refund(word, now.us(), limit, window, receipt.cost, kept))
            }
            (Given::Window { start_s }, Rule::Window { part, .. }) => {
                key.pair(part).and_then(|pair| {
                    let undo = || window::charge_if_window(pair, now.s(), start_s, -count(cost));
                    self.rounds(key, undo).ok().map(|charged| charged.flatten().is_some())
                })
            }
            (Given::Slot(claim, tag), _) => {
                Some(self.give_back_mine(&self.leases(key), claim, tag))
            }
            _ => Some(true),
        };
        if given != Some(true) {
            self.count(|row| &row.refunds_dropped);
        }
    }

    /// Gives everything back, as if the request had not been made.
    pub fn cancel(&self, demands: &mut [Demand<'_>]) {
        for demand in demands.iter_mut().rev() {
            if let Some(key) = self.mine(demand) {
                let receipt = std::mem::take(&mut demand.receipt);
                self.give_up(demand, &key, receipt, receipt.cost);
            }
        }
    }

    /// Releases the slots, once. What was charged stays charged.
    pub fn finish(&self, demands: &mut [Demand<'_>]) {
        for demand in demands {
            let Given::Slot(claim, tag) = demand.receipt.given else { continue };
            if let Some(key) = self.mine(demand)
                && self.give_back_mine(&self.leases(&key), claim, tag)
            {
                self.count(|row| &row.lease_released);
            }
            demand.receipt = Receipt::default();
        }
    }

    /// Corrects the charges to what was used in the end, in the order of the demands: less is given back as
    /// far as that mints no credit, more is charged whether the limit has room or not. Once: what has been
    /// corrected is not given back by [`Self::cancel`]. Slots stay held.
    ///
    /// # Errors
    /// `Contended` when a key does not stand still; its demand and those after it can be settled again.
    pub fn settle(&self, demands: &mut [Demand<'_>], used: &[u64]) -> Result<(), OpError> {
        for (demand, &used) in demands.iter_mut().zip(used) {
            let Some(key) = self.mine(demand).filter(|_| demand.is_charged()) else { continue };
            let receipt = demand.receipt;
            match used.cmp(&receipt.cost) {
                std::cmp::Ordering::Less => {
                    self.give_up(demand, &key, receipt, receipt.cost - used);
                }
                std::cmp::Ordering::Equal => {}
                std::cmp::Ordering::Greater => self.owe(demand, &key, used - receipt.cost)?,
            }
            demand.receipt = Receipt::default();
        }
        Ok(())
    }

    fn owe(&self, demand: &Demand<'_>, key: &Key<'_>, cost: u64) -> Result<(), OpError> {
        let now = self.now();
        let word = key.state();
        // What a key owes that is given up meanwhile is forgotten with it.
        match demand.rule {
            Rule::Rate(limiter) => {
                let now_us = || self.now().us();
                self.rounds(key, || gcra::owe(word, now_us, limiter.quota(), cost))?;
            }
            Rule::Sliding(limiter) => {
                self.rounds(key, || sliding::owe(word, now.us(), limiter.limit(), cost))?;
            }
            Rule::Window { part, size_s, .. } => {
                let pair = key.pair(part).ok_or(OpError::OutOfRange)?;
                let charge = || window::charge(pair, now.s(), size_s, count(cost), |_| true);
                self.rounds(key, charge)?;
            }
            Rule::Slots { .. } => {}
        }
        Ok(())
    }

    /// The key of a demand that this process was given something for, where it was found then. One that has been
    /// given up since owes nothing; and what the child of a fork has of its parent's is not its own.
    fn mine(&self, demand: &Demand<'_>) -> Option<Key<'_>> {
        let place = demand.place.filter(|_| demand.receipt.given != Given::Nothing)?;
        let mine = demand.receipt.owner == self.me().map_or(0, OwnerTag::raw);
        if mine { place.key_in(self.bucket_at(place.slot)?) } else { None }
    }
}

/// How one demand fared.
enum Met {
    Yes,
    No(Option<u64>),
    Moved,
}

/// Where an earlier demand of the same subject was found.
#[inline]
fn same_subject(demand: &Demand<'_>, before: &[Demand<'_>]) -> Option<Place> {
    let same = |other: &&Demand<'_>| other.key == demand.key && other.is_subject();
    before.iter().find(same).filter(|_| demand.is_subject())?.place
}

fn count(cost: u64) -> i64 {
    i64::try_from(cost).unwrap_or(i64::MAX).min(CounterWord::MAX)
}

/// Whether a counter that stands at `used` takes `cost` more.
#[inline]
pub(super) fn has_room(used: i64, limit: u64, cost: u64) -> bool {
    used.saturating_add(count(cost)) <= count(limit)
}

/// Looks at every limit; the refusal of the one that has to be waited for longest, if any has.
#[inline]
fn view_all(demands: &[Demand<'_>], keys: &Keys<'_>, now: Instant) -> Option<Refusal> {
    let (mut position, mut longest_us) = (0, 0);
    for (number, (demand, key)) in demands.iter().zip(keys.iter().flatten()).enumerate() {
        let wait_us = wait_us(demand, key, now);
        if wait_us > longest_us {
            (position, longest_us) = (number, wait_us);
        }
    }
    (longest_us > 0).then_some(Refusal { position, retry_after_us: Some(longest_us) })
}

/// How long until the limit would admit the demand; 0 = now.
#[inline]
fn wait_us(demand: &Demand<'_>, key: &Key<'_>, now: Instant) -> u64 {
    let word = key.bucket.requests.load(Ordering::Relaxed).bits();
    match demand.rule {
        Rule::Rate(limiter) => {
            gcra::retry_after_us(GcraWord::from_bits(word), now.us(), limiter.quota(), demand.cost)
        }
        Rule::Sliding(limiter) => sliding::retry_after_us(
            SlidingWord::from_bits(word),
            now.us(),
            limiter.limit(),
            demand.cost,
        ),
        Rule::Window { limit, .. } if demand.cost > limit => NEVER,
        Rule::Window { part, limit, size_s } => {
            let used = key.pair(part).map_or(0, |pair| window::peek(pair, now.s(), size_s));
            if has_room(used, limit, demand.cost) { 0 } else { window_wait_us(key, size_s, now) }
        }
        // Only a claim can tell whether one is free: a slot of a dead worker is.
        Rule::Slots { .. } => 0,
    }
}

/// Microseconds until the key's window is over, at least one.
fn window_wait_us(key: &Key<'_>, size_s: u64, now: Instant) -> u64 {
    windows::wait_us(key.window().load(Ordering::Acquire), size_s, now)
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;
    use crate::clock::FakeClock;
    use crate::config::{Capacity, Overflow};
    use crate::primitives::gcra::Quota;
    use crate::primitives::sliding::SlidingLimit;
    use crate::region::create_heap;

    const S: &str = "{api_key:a}";

    fn window(limit: u64) -> Rule<'static> {
        Rule::Window { part: Part::Tokens, limit, size_s: 60 }
    }

    fn slots(limit: u64) -> Rule<'static> {
        Rule::Slots { limit, ttl_s: 0 }
    }

    fn granted(engine: &Engine, demands: &mut [Demand<'_>]) {
        assert_eq!(engine.admit(demands), Ok(Answer::Granted));
    }

    fn refused(engine: &Engine, demands: &mut [Demand<'_>]) -> Refusal {
        match engine.admit(demands) {
            Ok(Answer::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn left(demands: &[Demand<'_>]) -> Vec<u64> {
        demands.iter().map(Demand::remaining).collect()
    }

    /// In a table so small that all keys have the same places.
    #[test]
    fn keys_of_one_request_do_not_take_each_others_places() {
        let clock = FakeClock::at(1_000_000_000_000);
        let capacity = Capacity { keys: 40, ..Capacity::default() };
        let engine = Engine::new(create_heap(capacity, Box::new(clock.clone())).unwrap());
        let rate = engine.limiter("", Quota::new(60, 6).unwrap());
        for n in 0..4 {
            engine.check(&rate, format!("idle-{n}").as_bytes()).unwrap();
        }
        let fill = |n: &u64| engine.add(&format!("filler:{n}"), 1, 1_000_000).is_err();
        assert_eq!((0..100).find(fill), Some(60));
        clock.advance_s(60);
        let keys: Vec<_> = (0..3).map(|n| format!("new-{n}")).collect();
        let mut demands: Vec<_> =
            keys.iter().map(|key| Demand::new(key, Rule::Rate(&rate), 1)).collect();
        granted(&engine, &mut demands);
        assert_eq!(engine.total(|row| &row.keys_reclaimed), 3);
    }

    #[test]
    fn all_four_rules_in_one_call() {
        let (engine, clock) = engine();
        let rate = engine.limiter("", Quota::new(60, 6).unwrap());
        let sliding = engine.sliding_limiter("", SlidingLimit::new(100, 60).unwrap());
        let demands = [
            Demand::new("k", Rule::Rate(&rate), 1),
            Demand::new("k", Rule::Sliding(&sliding), 20),
            Demand::new(S, window(50), 10),
            Demand::new(S, slots(3), 1),
        ];
        let [mut first, mut second, mut third, mut fourth] = [(); 4].map(|()| demands.clone());
        granted(&engine, &mut first);
        assert_eq!(left(&first), [5, 80, 40, 2]);
        assert!(first.iter().all(|demand| demand.place.is_some()));
        granted(&engine, &mut second);
        granted(&engine, &mut third);
        let full = refused(&engine, &mut fourth);
        assert_eq!((full.position, full.retry_after_us), (3, None));
        // The slots refused after the look: nothing else was charged.
        assert_eq!(left(&fourth), [3, 40, 20, 0]);
        engine.finish(&mut first);
        engine.cancel(&mut second);
        engine.finish(&mut third);
        // A second time gives nothing back.
        engine.cancel(&mut second);
        engine.finish(&mut third);
        granted(&engine, &mut fourth);
        assert_eq!(left(&fourth), [3, 40, 20, 2]);
        clock.advance_s(1);
        assert_eq!(engine.total(|row| &row.admitted), 4);
        assert_eq!(engine.total(|row| &row.refused), 1);
    }

    #[test]
    fn a_refusal_names_the_limit_that_is_waited_for_longest() {
        let (engine, clock) = engine();
        let fast = engine.limiter("fast", Quota::new(60, 1).unwrap());
        let slow = engine.limiter("slow", Quota::new(6, 1).unwrap());
        let mut demands = [
            Demand::new("k", Rule::Rate(&fast), 1),
            Demand::new("k", Rule::Rate(&slow), 1),
            Demand::new(S, window(10), 4),
        ];
        granted(&engine, &mut demands);
        let refusal = refused(&engine, &mut demands);
        assert_eq!((refusal.position, refusal.retry_after_us), (1, Some(10_000_000)));
        assert_eq!(left(&demands), [0, 0, 6]);
        clock.advance_s(10);
        granted(&engine, &mut demands);
        let refusal = refused(&engine, &mut demands);
        // The window began with the second of the first admission.
        assert_eq!((refusal.position, demands[2].remaining()), (2, 2));
        let wait_us = refusal.retry_after_us.unwrap();
        assert!((49_000_000..=50_000_000).contains(&wait_us), "{wait_us}");
        demands[2].cost = 11;
        assert_eq!(refused(&engine, &mut demands).retry_after_us, Some(NEVER));
    }

    #[test]
    fn a_later_refusal_takes_everything_back() {
        let (engine, _) = engine();
        let rate = engine.limiter("", Quota::new(60, 6).unwrap());
        let mut hold = [Demand::new("{user:u}", slots(1), 1)];
        granted(&engine, &mut hold);
        let mut demands = [
            Demand::new(S, slots(5), 1),
            Demand::new("k", Rule::Rate(&rate), 1),
            Demand::new("{user:u}", slots(1), 1),
        ];
        assert_eq!(refused(&engine, &mut demands).position, 2);
        assert_eq!(engine.in_flight(&format!("{S}:max_parallel_requests"), 0), Ok(0));
        engine.finish(&mut hold);
        granted(&engine, &mut demands);
        assert_eq!(left(&demands), [4, 5, 0]);
    }

    #[test]
    fn demands_that_hold_a_slot_are_not_met_a_second_time() {
        let (engine, _) = engine();
        let mut demands = [Demand::new(S, window(9), 1), Demand::new(S, slots(5), 1)];
        granted(&engine, &mut demands);
        assert_eq!(engine.admit(&mut demands), Err(OpError::OutOfRange));
        engine.finish(&mut demands);
        granted(&engine, &mut demands);
        assert_eq!(left(&demands), [7, 4]);
    }

    #[test]
    fn settling_gives_back_or_charges_the_difference() {
        let (engine, _) = engine();
        let sliding = engine.sliding_limiter("", SlidingLimit::new(100, 60).unwrap());
        let mut demands =
            [Demand::new(S, window(100), 50), Demand::new("k", Rule::Sliding(&sliding), 50)];
        granted(&engine, &mut demands);
        engine.settle(&mut demands, &[20, 20]).unwrap();
        // Once only, and what is settled is not given back.
        engine.settle(&mut demands, &[0, 0]).unwrap();
        engine.cancel(&mut demands);
        granted(&engine, &mut demands);
        assert_eq!(left(&demands), [30, 30]);
        engine.settle(&mut demands, &[300, 300]).unwrap();
        refused(&engine, &mut demands);
        assert_eq!(left(&demands), [0, 0]);
        assert_eq!(engine.value(&format!("{S}:tokens")), Some(320));
    }

    #[test]
    fn what_is_no_demand_is_an_error() {
        let (engine, _) = engine();
        let bad = [
            Demand::new("no subject", window(1), 1),
            Demand::new("no subject", slots(1), 1),
            Demand::new(S, Rule::Window { part: Part::Own, limit: 1, size_s: 60 }, 1),
            Demand::new(S, Rule::Window { part: Part::Tokens, limit: 1, size_s: 0 }, 1),
        ];
        for demand in bad {
            let mut demands = [Demand::new(S, window(1), 1), demand];
            assert_eq!(engine.admit(&mut demands[1..]), Err(OpError::OutOfRange));
            assert_eq!(engine.admit(&mut demands), Err(OpError::OutOfRange));
        }
        assert_eq!(engine.value(&format!("{S}:tokens")), None);
        let mut many = [(); MAX_LIMITS + 1].map(|()| Demand::new(S, window(9), 1));
        assert_eq!(engine.admit(&mut many).unwrap_err(), OpError::OutOfRange);
        granted(&engine, &mut []);
    }

    #[test]
    fn a_remembered_place_of_another_key_is_not_used() {
        let (engine, clock) = engine();
        let rate = engine.limiter("", Quota::new(60, 1).unwrap());
        let mut demands = [Demand::new("mine", Rule::Rate(&rate), 1)];
        granted(&engine, &mut demands);
        for round in 0..4 {
            clock.advance_s(1);
            for n in 0..1_000 {
                engine.check(&rate, format!("{round}-{n}").as_bytes()).unwrap();
            }
        }
        // The key may have been given up and its bucket may be another's by now.
        clock.advance_s(1);
        granted(&engine, &mut demands);
        assert_eq!(refused(&engine, &mut demands).position, 0);
    }

    #[test]
    fn a_slot_of_a_key_without_room_is_given_back() {
        for policy in [Overflow::Shared, Overflow::Local] {
            let (engine, _) = engine();
            engine.region().set_overflow(policy);
            let rate = engine.limiter("", Quota::new(1, 1).unwrap());
            for n in 0..2_000 {
                engine.check(&rate, format!("key-{n}").as_bytes()).unwrap();
            }
            let mut demands = [Demand::new(S, slots(1), 1)];
            let mut others = demands.clone();
            granted(&engine, &mut demands);
            let place = demands[0].place.unwrap();
            assert!(place.slot >= engine.region().key_buckets().0.len(), "{place:?}");
            assert_eq!(refused(&engine, &mut others).position, 0);
            engine.finish(&mut demands);
            granted(&engine, &mut others);
            engine.cancel(&mut others);
            granted(&engine, &mut demands);
        }
    }

    #[test]
    fn threads_are_admitted_exactly_to_the_limit() {
        let (engine, _) = engine();
        let engine = &engine;
        let admitted: i64 = std::thread::scope(|scope| {
            let thread = || {
                let mut demands = [
                    Demand::new(S, window(3_000), 10),
                    Demand::new("{user:u}", window(9_000), 10),
                    Demand::new(S, slots(3), 1),
                ];
                let mut admitted = 0;
                for _ in 0..400 {
                    if engine.admit(&mut demands) == Ok(Answer::Granted) {
                        admitted += 1;
                        engine.finish(&mut demands);
                    }
                }
                admitted
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(thread)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(admitted <= 300, "{admitted}");
        assert_eq!(engine.value(&format!("{S}:tokens")), Some(admitted * 10));
        assert_eq!(engine.value("{user:u}:tokens"), Some(admitted * 10));
        assert_eq!(engine.in_flight(&format!("{S}:max_parallel_requests"), 0), Ok(0));
    }

    /// What no charge can have written refuses until it is mended, and an admission looks before it charges.
    #[test]
    fn impossible_words_are_mended_by_admissions() {
        let (engine, clock) = engine();
        let rate = engine.limiter("", Quota::new(60, 6).unwrap());
        let mut demands = [Demand::new("k", Rule::Rate(&rate), 1), Demand::new(S, window(20), 9)];
        granted(&engine, &mut demands);
        let [rate_at, window_at] =
            [0, 1].map(|n: usize| &engine.region().buckets()[demands[n].place.unwrap().slot]);
        rate_at.requests.store(CounterWord::from_bits(u64::MAX >> 2), Ordering::Relaxed);
        refused(&engine, &mut demands);
        clock.advance_s(61);
        granted(&engine, &mut demands);
        let future = crate::layout::WindowWord::new(1 << 31, 60);
        window_at.window.store(future, Ordering::Relaxed);
        window_at.tokens.store(CounterWord::of_window(1 << 31, 20), Ordering::Relaxed);
        granted(&engine, &mut demands);
        assert_eq!(engine.total(|row| &row.corrected), 2);
    }

    /// A word that was left alone for 2^15 windows looks like one of the future.
    #[test]
    fn a_sliding_window_that_was_left_alone_refuses_for_two_windows_at_most() {
        let (engine, clock) = engine();
        let sliding = engine.sliding_limiter("", SlidingLimit::new(10, 1).unwrap());
        let mut demands = [Demand::new("k", Rule::Sliding(&sliding), 10)];
        granted(&engine, &mut demands);
        clock.advance_s((1 << 15) + 10);
        let refusal = refused(&engine, &mut demands);
        assert!(refusal.retry_after_us.unwrap() <= 2_000_000, "{refusal:?}");
        clock.advance_s(2);
        granted(&engine, &mut demands);
    }

    /// The child of a fork has its parent's demands, and no part in its requests.
    #[test]
    fn demands_of_another_registration_free_nothing() {
        let (engine, _) = engine();
        let mut demands = [Demand::new(S, window(50), 10), Demand::new(S, slots(1), 1)];
        granted(&engine, &mut demands);
        let mut copies = [(); 3].map(|()| demands.clone());
        let parent = engine.local.me.load(Ordering::Relaxed);
        engine.local.me.store(u64::MAX << 32, Ordering::Relaxed);
        assert_ne!(engine.me().map(crate::layout::OwnerTag::raw), Some(parent & 0xffff_ffff));
        engine.finish(&mut copies[0]);
        engine.cancel(&mut copies[1]);
        engine.settle(&mut copies[2], &[0, 0]).unwrap();
        assert_eq!(engine.value(&format!("{S}:tokens")), Some(10));
        assert_eq!(engine.in_flight(&format!("{S}:max_parallel_requests"), 0), Ok(1));
        engine.local.me.store(parent, Ordering::Relaxed);
        engine.finish(&mut demands);
        assert_eq!(engine.in_flight(&format!("{S}:max_parallel_requests"), 0), Ok(0));
    }

    /// An admission that fails leaves no receipt of the one before it.
    #[test]
    fn a_failed_admission_leaves_nothing_to_give_back() {
        let (engine, _) = engine();
        let mut demands =
            [Demand::new(S, window(100), 10), Demand::new("{user:u}", window(100), 10)];
        granted(&engine, &mut demands);
        demands[0].rule = Rule::Window { part: Part::Own, limit: 1, size_s: 60 };
        assert_eq!(engine.admit(&mut demands), Err(OpError::OutOfRange));
        engine.cancel(&mut demands);
        assert_eq!(engine.value("{user:u}:tokens"), Some(10));
    }

    /// What is given back is what was charged, whatever the demand says by then.
    #[test]
    fn a_demand_that_was_changed_gives_back_what_it_was_given() {
        let (engine, _) = engine();
        let rate = engine.limiter("", Quota::new(60, 6).unwrap());
        let mut demands = [Demand::new("k", Rule::Rate(&rate), 1), Demand::new(S, window(50), 5)];
        granted(&engine, &mut demands.clone());
        granted(&engine, &mut demands);
        (demands[0].cost, demands[1].cost) = (5, 50);
        engine.cancel(&mut demands);
        assert_eq!(engine.value(&format!("{S}:tokens")), Some(5));
        assert_eq!(engine.remaining(&rate, b"k"), 5);
    }

    #[test]
    fn settling_exactly_drops_no_refund() {
        let (engine, clock) = engine();
        let rate = engine.limiter("", Quota::new(60, 6).unwrap());
        let mut demands = [Demand::new("k", Rule::Rate(&rate), 1), Demand::new(S, window(9), 1)];
        granted(&engine, &mut demands);
        clock.advance_s(70);
        engine.settle(&mut demands, &[1, 1]).unwrap();
        assert_eq!(engine.total(|row| &row.refunds_dropped), 0);
    }

    /// A key that found no room is asked for again, however long the caller keeps its demands.
    #[test]
    fn a_key_without_room_gets_a_place_of_its_own_when_there_is_one() {
        let (engine, clock) = engine();
        engine.region().set_overflow(Overflow::Shared);
        let rate = engine.limiter("", Quota::new(60, 6).unwrap());
        for n in 0..2_000 {
            engine.check(&rate, format!("key-{n}").as_bytes()).unwrap();
        }
        let own = engine.region().key_buckets().0.len();
        let names: Vec<_> = (0..50).map(|n| format!("mine-{n}")).collect();
        let mut all: Vec<_> =
            names.iter().map(|name| [Demand::new(name, Rule::Rate(&rate), 1)]).collect();
        for demands in &mut all {
            let _ = engine.admit(demands);
        }
        let shared = all.iter().position(|demands| demands[0].place.unwrap().slot >= own).unwrap();
        clock.advance_s(600);
        granted(&engine, &mut all[shared]);
        assert!(all[shared][0].place.unwrap().slot < own);
    }
}
