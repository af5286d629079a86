//! Deployments: what all workers know about each of them. Requests in flight are leases, so that those of
//! a dead worker do not count; the rest is one word each.

use super::keys::Key;
use super::{Engine, ROUNDS};
use crate::clock::Instant;
use crate::error::OpError;
use crate::layout::{
    Deployment, EventKind, FailureKind, FailureWord, IdentityWord, KeyKind, LeaseLimits,
};
use crate::primitives::cooldown::{self, Begun};
use crate::primitives::window::{self, Outcome, Pair};
use crate::primitives::{ewma, ring};
use crate::sync::{Ordering, Word};
use crate::tables::index::{self, NotInserted, Probe};
use crate::tables::leases::{Claim, Leases};
use crate::tables::names::{self, Label, redact};
use crate::tables::workers;

/// Hash domain of deployments.
const DEPLOYMENTS: u64 = 0x6465_706c;
/// What lies above in `key_slot` is a deployment's record.
const FIRST_KEY_SLOT: u64 = 1 << 32;
/// Samples over which latencies are averaged, about.
const AVERAGE_LENGTH: u64 = 16;
/// A deployment whose latest sample is older may be given up, seconds.
const FORGET_S: u64 = 3_600;

/// A deployment's record.
#[derive(Clone, Copy)]
struct Found<'a> {
    slot: usize,
    identity: IdentityWord,
    record: &'a Deployment,
}

/// A request on its way to a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flight {
    slot: usize,
    identity: IdentityWord,
    /// `None` = there was no room to count it.
    claim: Option<Claim>,
}

/// The answer to a request that wants to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It is counted as in flight.
    Sent(Flight),
    /// As many as the limit are in flight.
    Full,
}

/// Counts after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    /// Failures in the present window.
    pub in_window: u64,
    /// Successes in the present window.
    pub successes: u64,
    /// Failures since the latest success.
    pub in_a_row: u64,
}

/// What is known of a deployment.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// Requests in flight, about.
    pub in_flight: u64,
    /// Milliseconds that it is still cooled down; 0 = it is not.
    pub cooldown_ms: u64,
    /// Why.
    pub cooldown_reason: FailureKind,
    /// Successes in the present window.
    pub successes: u64,
    /// Failures in the present window.
    pub failures: u64,
    /// Failures since the latest success.
    pub failures_in_a_row: u64,
    /// Successes since it is known.
    pub successes_total: u64,
    /// Failures since it is known.
    pub failures_total: u64,
    /// Kind, HTTP status (0 = none) and age in seconds of the latest failure.
    pub last_failure: Option<(FailureKind, u64, u64)>,
    /// Average latency in microseconds.
    pub latency_us: Option<u64>,
    /// Average time to the first token in microseconds.
    pub first_token_us: Option<u64>,
    /// Recent latencies in microseconds, newest first.
    pub latencies_us: Vec<u64>,
    /// Recent times to the first token in microseconds, newest first.
    pub first_tokens_us: Vec<u64>,
}

impl Engine {
    fn identify_deployment(&self, id: &str) -> (IdentityWord, Probe) {
        let (hash, home) = self.region.hash(DEPLOYMENTS ^ KeyKind::Named as u64, id.as_bytes());
        (index::identity(KeyKind::Named, hash), Probe::new(home, hash.rotate_left(32)))
    }

    fn known_deployment(&self, id: &str) -> Option<Found<'_>> {
        let (identity, probe) = self.identify_deployment(id);
        let table = self.region.deployments();
        let slot = index::find(table, probe, identity)?;
        Some(Found { slot, identity, record: &table[slot] })
    }

    fn deployment(&self, id: &str) -> Result<Found<'_>, OpError> {
        if let Some(found) = self.known_deployment(id) {
            return Ok(found);
        }
        let (identity, probe) = self.identify_deployment(id);
        let table = self.region.deployments();
        for _ in 0..ROUNDS {
            match index::insert(table, probe, identity, index::nonce) {
                Ok(slot) => {
                    let record = &table[slot.index];
                    self.name_deployment(record, id);
                    return Ok(Found { slot: slot.index, identity, record });
                }
                Err(NotInserted::Full) => {
                    let now = self.now();
                    let gave_up = index::make_room(
                        table,
                        probe,
                        |identity, record| self.deployment_is_idle(identity, record, now),
                        |_, _, record| clear(record, now),
                    );
                    gave_up.map_err(|_| self.counted(OpError::TableFull))?;
                }
                Err(NotInserted::Contended) => break,
            }
        }
        Err(self.counted(OpError::Contended))
    }

    fn name_deployment(&self, record: &Deployment, id: &str) {
        let label = Label { head: &record.name_head, bytes: &record.name };
        if let Some(owner) = self.me().filter(|_| names::missing(label)) {
            let rows = self.region.workers();
            names::publish(label, owner, &redact(id), |writer| workers::is_gone(rows, writer));
        }
    }

    fn flights<'a>(&'a self, found: &Found<'a>) -> Leases<'a> {
        Leases {
            chunks: self.region.chunks(),
            key: found.identity,
            key_slot: FIRST_KEY_SLOT + found.slot as u64 + 1,
            limits: &found.record.lease,
            nonce: index::nonce,
        }
    }

    /// Whether nothing is known of a deployment that still matters.
    fn deployment_is_idle(&self, identity: IdentityWord, record: &Deployment, now: Instant) -> bool {
        let found = Found { slot: 0, identity, record };
        let silent = |word: &Word<_>| {
            ewma::age_s(word.load(Ordering::SeqCst), now.s()).is_none_or(|age| age >= FORGET_S)
        };
        words_say_nothing(record, now)
            && silent(&record.latency)
            && silent(&record.first_token)
            && (record.lease.load(Ordering::SeqCst).high_water() == 0
                || self.flights(&found).count() == 0)
    }

    /// Does something to a deployment's record, again if the record was given up meanwhile.
    fn on_deployment<T>(
        &self,
        id: &str,
        step: impl Fn(&Found<'_>) -> Result<T, OpError>,
    ) -> Result<T, OpError> {
        self.until_settled(|| {
            let found = self.deployment(id)?;
            let done = step(&found)?;
            Ok(index::holds(&found.record.identity, found.identity).then_some(done))
        })
    }

    /// Counts a request as in flight to a deployment, unless `limit` are. Where there is no room to count it,
    /// it is sent uncounted if there is no limit, and that is counted.
    ///
    /// # Errors
    /// `TableFull` or `Contended` when the deployment cannot be recorded; `LeasesFull` or `WorkersFull` when
    /// there is a limit and the request cannot be counted.
    pub fn depart(&self, id: &str, limit: Option<u64>) -> Result<Departure, OpError> {
        self.on_deployment(id, |found| {
            let leases = self.flights(found);
            let most = limit.unwrap_or(u64::from(u32::MAX));
            leases.note_limit(limit.unwrap_or(0).min(u64::from(u32::MAX)));
            // The record's slot stands for the key's where the process remembers where it found room.
            let key = Key { slot: found.slot, identity: found.identity, bucket: self.no_bucket() };
            let claim = match self.claim_slot(&leases, &key, most, 0, self.now(), 0) {
                Ok(Some(claim)) => Some(claim),
                Ok(None) => return Ok(Departure::Full),
                Err(error) if limit.is_some() => return Err(error),
                Err(_) => {
                    self.count(|row| &row.uncounted);
                    None
                }
            };
            let flight = Flight { slot: found.slot, identity: found.identity, claim };
            if !index::holds(&found.record.identity, found.identity) {
                self.arrive(&flight);
            } else if let Some(claim) = claim {
                leases.reach(claim);
            }
            Ok(Departure::Sent(flight))
        })
    }

    /// Ends a flight. Of a flight that has ended, or was reaped, nothing is changed.
    pub fn arrive(&self, flight: &Flight) {
        let record = self.region.deployments().get(flight.slot);
        if let (Some(record), Some(claim)) = (record, flight.claim) {
            let found = Found { slot: flight.slot, identity: flight.identity, record };
            self.flights(&found).release(claim);
        }
    }

    /// Records a success, with what was measured, microseconds. `window_s` is the length of the window in
    /// which successes and failures are counted.
    pub fn deployment_succeeded(
        &self,
        id: &str,
        window_s: u64,
        latency_us: Option<u64>,
        first_token_us: Option<u64>,
    ) -> Result<(), OpError> {
        self.on_deployment(id, |found| {
            let record = found.record;
            self.count_in_window(record, &record.successes, window_s)?;
            record.failures_in_a_row.store(0, Ordering::Relaxed);
            record.successes_total.fetch_add(1, Ordering::Relaxed);
            let now_s = self.now().s();
            if let Some(us) = latency_us {
                self.rounds(|| ewma::observe(&record.latency, now_s, us, AVERAGE_LENGTH))?;
                ring::push(&record.latency_head, &record.latencies, now_s, us);
            }
            if let Some(us) = first_token_us {
                self.rounds(|| ewma::observe(&record.first_token, now_s, us, AVERAGE_LENGTH))?;
                ring::push(&record.first_token_head, &record.first_tokens, now_s, us);
            }
            Ok(())
        })
    }

    /// Records a failure; `status` is the HTTP status, 0 = none.
    pub fn deployment_failed(
        &self,
        id: &str,
        window_s: u64,
        kind: FailureKind,
        status: u64,
    ) -> Result<Failures, OpError> {
        self.on_deployment(id, |found| {
            let record = found.record;
            let in_window = self.count_in_window(record, &record.failures, window_s)?;
            let latest = FailureWord::new(kind as u64, status.min(1_023), self.now().s());
            record.last_failure.store(latest, Ordering::Relaxed);
            record.failures_total.fetch_add(1, Ordering::Relaxed);
            let in_a_row = record.failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
            let successes = count_of(record, &record.successes, self.now());
            Ok(Failures { in_window, successes, in_a_row })
        })
    }

    fn count_in_window(
        &self,
        record: &Deployment,
        counter: &Word<crate::layout::CounterWord>,
        window_s: u64,
    ) -> Result<u64, OpError> {
        let pair = Pair { window: Some(&record.window), counter };
        let window_s = window_s.clamp(1, u64::from(u32::MAX));
        self.close_future_window(&record.window);
        let now_s = self.now().s();
        match self.rounds(|| window::charge(pair, now_s, window_s, 1, |_| true))? {
            Outcome::Admitted(charged) => Ok(u64::try_from(charged.count).unwrap_or(0)),
            Outcome::Refused { .. } => Err(OpError::OutOfRange),
        }
    }

    /// Cools a deployment down, or longer than it is. Of all processes exactly one is told that it began the
    /// cooldown.
    pub fn cool_down(&self, id: &str, for_ms: u64, why: FailureKind) -> Result<Begun, OpError> {
        self.on_deployment(id, |found| {
            let now_ms = self.now().us() / 1_000;
            let begin = || cooldown::begin(&found.record.cooldown, now_ms, for_ms, why);
            let begun = self.rounds(begin)?;
            if begun == Begun::First {
                self.count(|row| &row.cooldowns);
                let kind = EventKind::CooldownBegun;
                self.event_about(found.identity, kind, for_ms, why as u64);
            }
            Ok(begun)
        })
    }

    /// Ends a deployment's cooldown. False = there was none.
    pub fn end_cooldown(&self, id: &str) -> Result<bool, OpError> {
        let Some(found) = self.known_deployment(id) else { return Ok(false) };
        let now_ms = self.now().us() / 1_000;
        let left = cooldown::left_ms(found.record.cooldown.load(Ordering::Relaxed), now_ms);
        let ended = self.rounds(|| cooldown::clear(&found.record.cooldown, now_ms))?;
        if ended {
            self.event_about(found.identity, EventKind::CooldownCleared, left, 0);
        }
        Ok(ended)
    }

    /// Milliseconds that a deployment is still cooled down; 0 = it is not. Two loads: meant to be asked for
    /// every deployment at every request.
    pub fn cooldown_left_ms(&self, id: &str) -> u64 {
        self.known_deployment(id).map_or(0, |found| {
            let word = found.record.cooldown.load(Ordering::Relaxed);
            cooldown::left_ms(word, self.now().us() / 1_000)
        })
    }

    /// Requests in flight to a deployment, about; those of dead workers count until they are reaped.
    pub fn flights_to(&self, id: &str) -> u64 {
        self.known_deployment(id).map_or(0, |found| self.flights(&found).about())
    }

    /// What is known of a deployment; `None` = nothing.
    pub fn health(&self, id: &str) -> Option<Health> {
        let found = self.known_deployment(id)?;
        let in_flight = self.flights(&found).about();
        Some(health_of(found.record, self.now(), in_flight))
    }

    /// Corrects the count of flights of the deployment that `key_slot` names, if it names one.
    pub(super) fn correct_flights(&self, key_slot: u64) {
        let slot = key_slot.checked_sub(FIRST_KEY_SLOT + 1).and_then(|at| usize::try_from(at).ok());
        let record = slot.and_then(|slot| self.region.deployments().get(slot));
        if let (Some(slot), Some(record)) = (slot, record)
            && let Some(identity) = index::key_of(record.identity.load(Ordering::Acquire))
        {
            self.flights(&Found { slot, identity, record }).correct_held();
        }
    }
}

/// What a record says at `now`, with the flights that were counted.
pub fn health_of(record: &Deployment, now: Instant, in_flight: u64) -> Health {
    let cooldown = record.cooldown.load(Ordering::Relaxed);
    let failure = record.last_failure.load(Ordering::Relaxed);
    let recent = |head: &Word<u64>, slots| {
        ring::recent(head, slots, now.s(), FORGET_S, slots.len()).map(|s| s.value_us).collect()
    };
    let get = |word: &Word<u64>| word.load(Ordering::Relaxed);
    Health {
        in_flight,
        cooldown_ms: cooldown::left_ms(cooldown, now.us() / 1_000),
        cooldown_reason: FailureKind::from_raw(cooldown.reason()),
        successes: count_of(record, &record.successes, now),
        failures: count_of(record, &record.failures, now),
        failures_in_a_row: get(&record.failures_in_a_row),
        successes_total: get(&record.successes_total),
        failures_total: get(&record.failures_total),
        last_failure: (failure != FailureWord::default()).then(|| {
            let age_s = now.s().saturating_sub(failure.at_s());
            (FailureKind::from_raw(failure.kind()), failure.status(), age_s)
        }),
        latency_us: ewma::average_us(record.latency.load(Ordering::Relaxed)),
        first_token_us: ewma::average_us(record.first_token.load(Ordering::Relaxed)),
        latencies_us: recent(&record.latency_head, &record.latencies),
        first_tokens_us: recent(&record.first_token_head, &record.first_tokens),
    }
}

fn count_of(
    record: &Deployment,
    counter: &Word<crate::layout::CounterWord>,
    now: Instant,
) -> u64 {
    let pair = Pair { window: Some(&record.window), counter };
    window::read(pair, now.s()).and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}

/// Whether neither the window nor the cooldown of a record says anything.
fn words_say_nothing(record: &Deployment, now: Instant) -> bool {
    let cooldown = record.cooldown.load(Ordering::SeqCst);
    record.window.load(Ordering::SeqCst).left(now.s(), u64::MAX).is_none()
        && cooldown::left_ms(cooldown, now.us() / 1_000) == 0
}

/// Brings an idle record to all zeroes, the words that say something by swaps from what says nothing; false
/// = one of them was charged meanwhile.
fn clear(record: &Deployment, now: Instant) -> bool {
    let (window, cooldown, lease) = (
        record.window.load(Ordering::SeqCst),
        record.cooldown.load(Ordering::SeqCst),
        record.lease.load(Ordering::SeqCst),
    );
    let idle = window.left(now.s(), u64::MAX).is_none()
        && cooldown::left_ms(cooldown, now.us() / 1_000) == 0;
    let order = Ordering::SeqCst;
    let cleared = idle
        && record.lease.compare_exchange(lease, LeaseLimits::default(), order, order).is_ok()
        && record.window.compare_exchange(window, Default::default(), order, order).is_ok()
        && record.cooldown.compare_exchange(cooldown, Default::default(), order, order).is_ok();
    if cleared {
        let relaxed = Ordering::Relaxed;
        record.successes.store(Default::default(), relaxed);
        record.failures.store(Default::default(), relaxed);
        record.last_failure.store(FailureWord::default(), relaxed);
        record.latency.store(Default::default(), relaxed);
        record.first_token.store(Default::default(), relaxed);
        for word in [
            &record.successes_total,
            &record.failures_total,
            &record.latency_head,
            &record.first_token_head,
            &record.failures_in_a_row,
        ] {
            word.store(0, relaxed);
        }
        for sample in record.latencies.iter().chain(&record.first_tokens) {
            sample.store(Default::default(), relaxed);
        }
        record.name_head.store(Default::default(), relaxed);
    }
    cleared
}
