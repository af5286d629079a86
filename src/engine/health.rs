//! Deployments: what all workers know about each of them. Requests in flight are leases, so that those of
//! a dead worker do not count; the rest is one word each.

use super::Engine;
use super::keys::{identify, insert_with_room, wants_name_check};
use super::quota::Place;
use crate::clock::Instant;
use crate::error::OpError;
use crate::layout::{
    CounterWord, Deployment, EventKind, FailureKind, FailureWord, IdentityWord, KeyKind, SAMPLES,
    SampleWord, TagWord,
};
use crate::primitives::cooldown::{self, Begun};
use crate::primitives::window::{self, Outcome, Pair, PairOf};
use crate::primitives::{ewma, ring};
use crate::sync::{Bits, Ordering, Word};
use crate::tables::index::{self, Held, Probe};
use crate::tables::leases::{Claim, Leases};
use crate::tables::{causes, names};

/// Hash domain of deployments.
pub(crate) const DEPLOYMENTS: u64 = 0x6465_706c;
/// What lies above in `key_slot` is a deployment's record.
const FIRST_KEY_SLOT: u64 = 1 << 32;
/// Samples over which latencies are averaged, about.
const AVERAGE_LENGTH: u64 = 16;
/// A deployment whose latest sample is older may be given up, seconds.
const FORGET_S: u64 = 3_600;

/// A deployment's record.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    slot: usize,
    identity: IdentityWord,
    record: &'a Deployment,
}

impl<'a> Found<'a> {
    fn holds(&self) -> bool {
        index::holds(&self.record.identity, self.identity)
    }

    /// Where it is, for [`Engine::deployment_at`].
    pub fn place(&self) -> Place {
        Place { slot: self.slot, identity: self.identity }
    }

    /// Whether it is cooled down.
    #[inline]
    pub(super) fn is_cooled_down(&self, now: Instant) -> bool {
        let word = self.record.cooldown.load(Ordering::Relaxed);
        cooldown::left_ms(word, now.us() / 1_000) > 0
    }

    /// Average latency in microseconds over samples that still say something.
    pub(super) fn recent_latency_us(&self, now: Instant) -> Option<u64> {
        let word = self.record.latency.load(Ordering::Relaxed);
        ewma::age_s(word, now.s()).filter(|&age| age < FORGET_S)?;
        ewma::average_us(word)
    }

    /// Seconds since the latest failure, if no success came after it.
    pub(super) fn failing_since_s(&self, now: Instant) -> Option<u64> {
        let failing = self.record.failures_in_a_row.load(Ordering::Relaxed) > 0;
        let latest = self.record.last_failure.load(Ordering::Relaxed);
        failing.then(|| now.s().saturating_sub(latest.at_s()))
    }

    /// A word of the record, which is swapped only while the record is the deployment's.
    fn held<T: Bits>(&self, word: impl FnOnce(&'a Deployment) -> &'a Word<T>) -> Held<'a, T> {
        Held::new(word(self.record), &self.record.identity, self.identity)
    }
}

/// A request on its way to a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flight {
    slot: usize,
    identity: IdentityWord,
    /// With its tag; `None` = there was no room to count it.
    claim: Option<(Claim, TagWord)>,
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

/// Why a deployment is to be cooled down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause<'a> {
    /// The kind of failure.
    pub kind: FailureKind,
    /// Its HTTP status, 0 = none.
    pub status: u64,
    /// What was said, as it may be shown to people once secrets are masked; "" = nothing.
    pub text: &'a str,
}

impl Cause<'_> {
    /// A cause of which no more is known.
    pub fn of(kind: FailureKind) -> Self {
        Self { kind, status: 0, text: "" }
    }
}

/// A cooldown that runs. `began_ms` is `until_ms - for_ms`, whatever was found in the region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cooldown {
    /// When it was begun, or lengthened, milliseconds since the region's clock base.
    pub began_ms: u64,
    /// When it ends, milliseconds since the region's clock base.
    pub until_ms: u64,
    /// Milliseconds that are left.
    pub left_ms: u64,
    /// Milliseconds that it lasts from `began_ms` on. Where that is not known, those that are left.
    pub for_ms: u64,
    /// Why.
    pub kind: FailureKind,
    /// HTTP status, 0 = none, or not known.
    pub status: u64,
    /// What was said; `None` = nothing, or it is not known.
    pub text: Option<String>,
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
    /// Recent scores in millionths of their unit, newest first.
    pub scores_us: Vec<u64>,
}

impl Engine {
    fn identify_deployment(&self, id: &str) -> (IdentityWord, Probe) {
        identify(&self.region, KeyKind::Named, DEPLOYMENTS, id.as_bytes())
    }

    /// A deployment's record; `None` = nothing is known of it.
    pub fn known_deployment(&self, id: &str) -> Option<Found<'_>> {
        let (identity, probe) = self.identify_deployment(id);
        let table = self.region.deployments();
        let slot = index::find(table, probe, identity)?;
        Some(Found { slot, identity, record: &table[slot] })
    }

    /// The record at a remembered place; `None` = the deployment is no longer there.
    #[inline]
    pub fn deployment_at(&self, place: Place) -> Option<Found<'_>> {
        let Place { slot, identity } = place;
        let record = self.region.deployments().get(slot)?;
        let stands = index::is(record.identity.load(Ordering::Acquire), identity);
        stands.then_some(Found { slot, identity, record })
    }

    fn deployment(&self, id: &str) -> Result<Found<'_>, OpError> {
        if let Some(found) = self.known_deployment(id) {
            let Deployment { successes_total, failures_total, .. } = found.record;
            if wants_name_check([successes_total, failures_total]) {
                self.look_after_deployment_name(&found, id);
            }
            return Ok(found);
        }
        let (identity, probe) = self.identify_deployment(id);
        let table = self.region.deployments();
        let slot = insert_with_room(table, probe, identity, || {
            let now = self.now();
            let gave_up = index::make_room(
                table,
                probe,
                |identity, record| self.deployment_is_idle(identity, record, now),
                |slot, identity, record| {
                    let found = Found { slot, identity, record };
                    clear(&found, &self.flights(&found), now)
                },
            );
            gave_up.map(drop)
        })
        .map_err(|error| self.counted(error.into()))?;
        let found = Found { slot, identity, record: &table[slot] };
        self.look_after_deployment_name(&found, id);
        Ok(found)
    }

    #[cold]
    fn look_after_deployment_name(&self, found: &Found<'_>, id: &str) {
        let name = names::Place { head: &found.record.name_head, bytes: &found.record.name };
        self.look_after_name(name, || names::redact(id), || found.holds());
    }

    /// Shows a deployment as `label`, redacted, instead of as its id.
    ///
    /// # Errors
    /// `TableFull` or `Contended` when the deployment cannot be recorded.
    pub fn introduce(&self, id: &str, label: &str) -> Result<(), OpError> {
        let found = self.deployment(id)?;
        let name = names::Place { head: &found.record.name_head, bytes: &found.record.name };
        let shown = names::redact(label);
        if names::read(name).is_some_and(|present| present != shown) {
            // Whoever comes between shows the id again, until the next process introduces it.
            names::withdraw(name);
        }
        self.look_after_name(name, || shown, || found.holds());
        Ok(())
    }

    pub(super) fn flights<'a>(&'a self, found: &Found<'a>) -> Leases<'a> {
        Leases {
            chunks: self.region.chunks(),
            key: found.identity,
            key_slot: key_slot(found.slot),
            limits: &found.record.lease,
            nonce: index::nonce,
        }
    }

    /// Whether nothing is known of a deployment that still matters.
    fn deployment_is_idle(
        &self,
        identity: IdentityWord,
        record: &Deployment,
        now: Instant,
    ) -> bool {
        let found = Found { slot: 0, identity, record };
        let silent = |word: &Word<_>| {
            ewma::age_s(word.load(Ordering::SeqCst), now.s()).is_none_or(|age| age >= FORGET_S)
        };
        words_say_nothing(record, now)
            && silent(&record.latency)
            && silent(&record.first_token)
            && scores_of(record, now, 1, FORGET_S).is_empty()
            && self.flights(&found).is_idle()
    }

    /// Does something to a deployment's record, again if the record was given up meanwhile.
    fn on_deployment<T>(
        &self,
        id: &str,
        step: impl Fn(&Found<'_>) -> Result<T, OpError>,
    ) -> Result<T, OpError> {
        self.until_settled(|| {
            let found = self.deployment(id)?;
            let done = step(&found);
            // Words of a record that was given up refuse every swap, and that looks like contention.
            if found.holds() { done.map(Some) } else { Ok(None) }
        })
    }

    /// Counts a request as in flight to a deployment, unless `limit` are. Where there is no room to count it,
    /// it is sent uncounted if there is no limit, and that is counted.
    ///
    /// # Errors
    /// `TableFull` or `Contended` when the deployment cannot be recorded; `LeasesFull` or `WorkersFull` when
    /// there is a limit and the request cannot be counted.
    pub fn depart(&self, id: &str, limit: Option<u64>) -> Result<Departure, OpError> {
        self.until_settled(|| {
            let found = self.deployment(id)?;
            let leases = self.flights(&found);
            let most = limit.unwrap_or(u64::from(u32::MAX));
            leases.note_limit(limit.unwrap_or(0).min(u64::from(u32::MAX)));
            let claim = match self.claim_slot(&leases, found.slot, most, 0, self.now(), None) {
                Ok(Some(claim)) => Some((claim, leases.tag_of(claim))),
                Ok(None) => return Ok(found.holds().then_some(Departure::Full)),
                Err(error) if limit.is_some() => {
                    return if found.holds() { Err(error) } else { Ok(None) };
                }
                Err(_) => {
                    self.count(|row| &row.uncounted);
                    None
                }
            };
            let flight = Flight { slot: found.slot, identity: found.identity, claim };
            // Asked once: a flight that was ended is not sent, even if the deployment is back in its record.
            if found.holds() {
                return Ok(Some(Departure::Sent(flight)));
            }
            self.arrive(&flight);
            Ok(None)
        })
    }

    /// Ends a flight. Of a flight that has ended, or was reaped, nothing is changed.
    pub fn arrive(&self, flight: &Flight) {
        let record = self.region.deployments().get(flight.slot);
        if let (Some(record), Some((claim, tag))) = (record, flight.claim) {
            let found = Found { slot: flight.slot, identity: flight.identity, record };
            self.give_back_mine(&self.flights(&found), claim, tag);
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
            self.count_in_window(found, |record| &record.successes, window_s)?;
            record.failures_in_a_row.store(0, Ordering::Relaxed);
            record.successes_total.fetch_add(1, Ordering::Relaxed);
            let now_s = self.now().s();
            if let Some(us) = latency_us {
                self.insist(|| {
                    ewma::observe(found.held(|record| &record.latency), now_s, us, AVERAGE_LENGTH)
                })?;
                ring::push(&record.latency_head, &record.latencies, now_s, us);
            }
            if let Some(us) = first_token_us {
                self.insist(|| {
                    ewma::observe(
                        found.held(|record| &record.first_token),
                        now_s,
                        us,
                        AVERAGE_LENGTH,
                    )
                })?;
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
            let in_window = self.count_in_window(found, |record| &record.failures, window_s)?;
            let latest = FailureWord::new(kind as u64, status.min(1_023), self.now().s());
            record.last_failure.store(latest, Ordering::Relaxed);
            record.failures_total.fetch_add(1, Ordering::Relaxed);
            let in_a_row = record.failures_in_a_row.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            let successes = count_of(record, &record.successes, self.now());
            Ok(Failures { in_window, successes, in_a_row })
        })
    }

    /// Remembers a score: what a router measures the deployment by, in its own unit, for instance the latency
    /// per token. In millionths of that unit; a score is at least 1, and is cut to 2^40 - 1, which is 1.1
    /// million units.
    pub fn deployment_scored(&self, id: &str, score_us: u64) -> Result<(), OpError> {
        self.on_deployment(id, |found| {
            if found.holds() {
                let record = found.record;
                ring::push(&record.score_head, &record.scores, self.now().s(), score_us);
            }
            Ok(())
        })
    }

    /// Up to `n` scores of the last hour, at most 16, newest first.
    pub fn scores(&self, id: &str, n: usize) -> Vec<u64> {
        self.scores_within(id, n, FORGET_S)
    }

    /// Up to `n` scores of the last `max_age_s` seconds, but no more than an hour, newest first.
    pub fn scores_within(&self, id: &str, n: usize, max_age_s: u64) -> Vec<u64> {
        let found = self.known_deployment(id);
        found.map_or_else(Vec::new, |found| scores_of(found.record, self.now(), n, max_age_s))
    }

    /// Up to `n` times to the first token, as [`Engine::scores_within`] returns scores.
    pub fn first_tokens_within(&self, id: &str, n: usize, max_age_s: u64) -> Vec<u64> {
        let found = self.known_deployment(id);
        found.map_or_else(Vec::new, |Found { record, .. }| {
            samples(&record.first_token_head, &record.first_tokens, self.now(), n, max_age_s)
        })
    }

    fn count_in_window<'a>(
        &self,
        found: &Found<'a>,
        counter: impl FnOnce(&'a Deployment) -> &'a Word<CounterWord>,
        window_s: u64,
    ) -> Result<u64, OpError> {
        let window = found.held(|record| &record.window).for_good();
        let pair = PairOf { window: Some(window), counter: found.held(counter) };
        let window_s = window_s.clamp(1, u64::from(u32::MAX));
        self.close_future_window(window);
        let now_s = self.now().s();
        match self.insist(|| window::charge(pair, now_s, window_s, 1, |_| true))? {
            Outcome::Admitted(charged) => Ok(u64::try_from(charged.count).unwrap_or(0)),
            Outcome::Refused { .. } => Err(OpError::OutOfRange),
        }
    }

    /// Cools a deployment down, or longer than it is. Of all processes exactly one is told that it began the
    /// cooldown. Whoever began or lengthened it leaves its cause, the text with its secrets masked.
    pub fn cool_down(&self, id: &str, for_ms: u64, cause: &Cause<'_>) -> Result<Begun, OpError> {
        let why = cause.kind;
        self.on_deployment(id, |found| {
            let now_ms = self.now().us() / 1_000;
            let word = || found.held(|record| &record.cooldown);
            let begin = || cooldown::begin_marked(word(), now_ms, for_ms, why);
            let (begun, cooldown) = self.insist(begin)?;
            if begun != Begun::AlreadyLonger && found.holds() {
                let subject = causes::Subject { identity: found.identity, cooldown };
                let lasts_ms = cooldown.until_ms().saturating_sub(now_ms);
                let text = causes::mask(cause.text);
                causes::write(cause_of(found.record), subject, lasts_ms, cause.status, &text);
            }
            if begun == Begun::First {
                self.count(|row| &row.cooldowns);
                let kind = EventKind::CooldownBegun;
                self.event_about(found.identity, kind, for_ms, why as u64);
            }
            Ok(begun)
        })
    }

    /// The cooldown of a deployment, if one runs.
    pub fn cooldown(&self, id: &str) -> Option<Cooldown> {
        let found = self.known_deployment(id)?;
        cooldown_of(found.record, found.identity, || self.now())
    }

    /// Ends a deployment's cooldown. False = there was none.
    pub fn end_cooldown(&self, id: &str) -> Result<bool, OpError> {
        self.known_deployment(id).map_or(Ok(false), |found| self.end_cooldown_of(&found))
    }

    /// As [`Self::end_cooldown`], for the deployment at a remembered place.
    pub fn end_cooldown_at(&self, place: Place) -> Result<bool, OpError> {
        self.deployment_at(place).map_or(Ok(false), |found| self.end_cooldown_of(&found))
    }

    fn end_cooldown_of(&self, found: &Found<'_>) -> Result<bool, OpError> {
        let now_ms = self.now().us() / 1_000;
        let left = cooldown::left_ms(found.record.cooldown.load(Ordering::Relaxed), now_ms);
        let ended =
            self.insist(|| cooldown::clear(found.held(|record| &record.cooldown), now_ms))?;
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

    /// Flights to the deployment in the record that `key_slot` names, if it names one.
    pub(super) fn flights_at(&self, key_slot: u64) -> Option<Leases<'_>> {
        let slot = slot_of(key_slot)?;
        let record = self.region.deployments().get(slot)?;
        let identity = index::key_of(record.identity.load(Ordering::Acquire))?;
        Some(self.flights(&Found { slot, identity, record }))
    }
}

/// How lease chunks name the record of a deployment.
pub fn key_slot(slot: usize) -> u64 {
    FIRST_KEY_SLOT + slot as u64 + 1
}

/// The record of the deployment that a lease chunk names; `None` = it names a key.
pub fn slot_of(key_slot: u64) -> Option<usize> {
    usize::try_from(key_slot.checked_sub(FIRST_KEY_SLOT + 1)?).ok()
}

/// The cooldown that runs for the deployment in a record. The time is asked for after its words were read.
pub fn cooldown_of(
    record: &Deployment,
    identity: IdentityWord,
    now: impl FnOnce() -> Instant,
) -> Option<Cooldown> {
    let word = record.cooldown.load(Ordering::Relaxed);
    let known = causes::read(cause_of(record), causes::Subject { identity, cooldown: word });
    let left_ms = cooldown::left_ms(word, now().us() / 1_000);
    if left_ms == 0 {
        return None;
    }
    let until_ms = word.until_ms();
    let (stated, status, text) = known.map_or((0, 0, None), |k| (k.for_ms, k.status, k.text));
    // It began before now, and after the clock's base.
    let for_ms = stated.min(cooldown::MAX_MS).max(left_ms).min(until_ms);
    let kind = FailureKind::from_raw(word.reason());
    Some(Cooldown { began_ms: until_ms - for_ms, until_ms, left_ms, for_ms, kind, status, text })
}

fn cause_of(record: &Deployment) -> causes::Place<'_> {
    causes::Place { cause: &record.cause, head: &record.cause_head, text: &record.cause_text }
}

/// Scores that are not forgotten, newest first.
fn scores_of(record: &Deployment, now: Instant, n: usize, max_age_s: u64) -> Vec<u64> {
    samples(&record.score_head, &record.scores, now, n, max_age_s)
}

/// Samples that are not forgotten, newest first.
fn samples(
    head: &Word<u64>,
    slots: &[Word<SampleWord>; SAMPLES],
    now: Instant,
    n: usize,
    max_age_s: u64,
) -> Vec<u64> {
    let recent = ring::recent(head, slots, now.s(), max_age_s.min(FORGET_S), n);
    recent.map(|sample| sample.value_us).collect()
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
        scores_us: recent(&record.score_head, &record.scores),
    }
}

fn count_of(record: &Deployment, counter: &Word<CounterWord>, now: Instant) -> u64 {
    let pair = Pair { window: Some(&record.window), counter };
    window::read(pair, now.s()).and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}

/// Whether neither the window nor the cooldown of a record says anything.
fn words_say_nothing(record: &Deployment, now: Instant) -> bool {
    let cooldown = record.cooldown.load(Ordering::SeqCst);
    record.window.load(Ordering::SeqCst).left(now.s(), u64::MAX).is_none()
        && cooldown::left_ms(cooldown, now.us() / 1_000) == 0
}

/// Brings an idle record to all zeroes; false = it was charged meanwhile. Every word is swapped from what it
/// was when the record said nothing, so that a charge that is made meanwhile stays.
fn clear(found: &Found<'_>, flights: &Leases<'_>, now: Instant) -> bool {
    let record = found.record;
    let counters = [&record.successes, &record.failures].map(seen);
    let averages = [&record.latency, &record.first_token].map(seen);
    let failure = seen(&record.last_failure);
    let counts = [
        &record.successes_total,
        &record.failures_total,
        &record.latency_head,
        &record.first_token_head,
        &record.failures_in_a_row,
        &record.score_head,
    ]
    .map(seen);
    let samples = [&record.latencies, &record.first_tokens, &record.scores]
        .map(|words| words.each_ref().map(seen));
    let (cause, cause_head) = (seen(&record.cause), seen(&record.cause_head));
    let cause_text = record.cause_text.each_ref().map(seen);
    let (window, cooldown) = (seen(&record.window), seen(&record.cooldown));
    let cleared = window.1.left(now.s(), u64::MAX).is_none()
        && cooldown::left_ms(cooldown.1, now.us() / 1_000) == 0
        && flights.forget()
        && zero(found, window)
        && zero(found, cooldown)
        && counters.into_iter().all(|counter| zero(found, counter))
        && averages.into_iter().all(|average| zero(found, average));
    if cleared {
        // The rest is history, and says nothing to the next deployment by then.
        zero(found, failure);
        zero(found, cause);
        zero(found, cause_head);
        for word in counts.into_iter().chain(cause_text) {
            zero(found, word);
        }
        for sample in samples.into_iter().flatten() {
            zero(found, sample);
        }
    }
    let name = names::Place { head: &record.name_head, bytes: &record.name };
    cleared && names::withdraw(name)
}

/// A word with what it is now.
fn seen<T: Bits>(word: &Word<T>) -> (&Word<T>, T) {
    (word, word.load(Ordering::SeqCst))
}

/// Swaps a word of the deployment's record from what was seen to zero.
fn zero<T: Bits>(found: &Found<'_>, (word, seen): (&Word<T>, T)) -> bool {
    index::is(found.record.identity.load(Ordering::Acquire), found.identity)
        && word.compare_exchange(seen, T::from_bits(0), Ordering::SeqCst, Ordering::Relaxed).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;
    use crate::layout::{ClaimWord, LeaseWord, OwnerTag, WorkerState};

    fn sent(engine: &Engine, id: &str, limit: Option<u64>) -> Option<Flight> {
        match engine.depart(id, limit).unwrap() {
            Departure::Sent(flight) => Some(flight),
            Departure::Full => None,
        }
    }

    /// As its inserter would leave it if it died right after the insert.
    #[test]
    fn a_name_that_was_not_written_is_written_by_whoever_uses_the_deployment() {
        let (engine, _) = engine();
        let depart = || sent(&engine, "gpt", None).is_some();
        let fail = || engine.deployment_failed("gpt", 60, FailureKind::Timeout, 0).is_ok();
        let uses: [&dyn Fn() -> bool; 2] = [&depart, &fail];
        for used in uses {
            assert!(used());
            let record = engine.known_deployment("gpt").unwrap().record;
            record.name_head.store(crate::layout::NameWord::default(), Ordering::Relaxed);
            assert!((0..=crate::engine::keys::NAME_CHECKS).all(|_| used()));
            let name = names::Place { head: &record.name_head, bytes: &record.name };
            assert_eq!(names::read(name).as_deref(), Some("gpt"));
        }
    }

    #[test]
    fn a_deployment_is_shown_as_it_was_introduced() {
        let (engine, _) = engine();
        let shown = |id| {
            let record = engine.known_deployment(id).unwrap().record;
            names::read(names::Place { head: &record.name_head, bytes: &record.name })
        };
        let id = "0123456789abcdef0123456789abcdef";
        engine.deployment_failed(id, 60, FailureKind::Timeout, 0).unwrap();
        assert_eq!(shown(id).as_deref(), Some("012345.."));
        for _ in 0..2 {
            engine.introduce(id, &format!("gpt:{id}")).unwrap();
            assert_eq!(shown(id).as_deref(), Some("gpt:012345.."));
        }
        engine.introduce("new", "gpt:new").unwrap();
        assert_eq!(shown("new").as_deref(), Some("gpt:new"));
    }

    #[test]
    fn flights_are_counted_limited_and_ended_once() {
        let (engine, _) = engine();
        let flights: Vec<_> = (0..40).filter_map(|_| sent(&engine, "gpt", None)).collect();
        assert_eq!((flights.len(), engine.flights_to("gpt")), (40, 40));
        assert_eq!(engine.depart("gpt", Some(40)), Ok(Departure::Full));
        engine.arrive(&flights[3]);
        engine.arrive(&flights[3]);
        assert_eq!(engine.flights_to("gpt"), 39);
        assert!(sent(&engine, "gpt", Some(40)).is_some());
        assert_eq!(engine.flights_to("never seen"), 0);
    }

    #[test]
    fn flights_of_the_dead_end_with_them() {
        let (engine, _) = engine();
        let flight = sent(&engine, "gpt", None).unwrap();
        let (claim, _) = flight.claim.unwrap();
        let dead = ClaimWord::new(WorkerState::Live as u64, 4_000_000, 1, 1);
        engine.region().workers()[9].claim.store(dead, Ordering::SeqCst);
        let holder = &engine.region().chunks()[claim.chunk].holders[claim.slot];
        let owner = OwnerTag::new(9, 1).unwrap();
        holder.store(LeaseWord::new(owner.raw(), 5, 0), Ordering::SeqCst);
        assert_eq!(engine.reap_dead(), 1);
        assert_eq!(engine.flights_to("gpt"), 0);
        // Its own end comes too late and harms nobody.
        let next = sent(&engine, "gpt", Some(1)).unwrap();
        engine.arrive(&flight);
        assert_eq!(engine.flights_to("gpt"), 1);
        engine.arrive(&next);
    }

    #[test]
    fn successes_and_failures_are_counted_by_window() {
        let (engine, clock) = engine();
        for _ in 0..3 {
            engine.deployment_succeeded("gpt", 60, Some(1_000), Some(100)).unwrap();
        }
        let kind = FailureKind::from_status(429);
        let first = engine.deployment_failed("gpt", 60, kind, 429).unwrap();
        assert_eq!(first, Failures { in_window: 1, successes: 3, in_a_row: 1 });
        engine.deployment_failed("gpt", 60, FailureKind::Timeout, 0).unwrap();
        let health = engine.health("gpt").unwrap();
        assert_eq!((health.successes, health.failures, health.failures_in_a_row), (3, 2, 2));
        assert_eq!(health.last_failure, Some((FailureKind::Timeout, 0, 0)));
        assert_eq!((health.latency_us, health.first_token_us), (Some(1_000), Some(100)));
        assert_eq!((health.latencies_us.len(), health.first_tokens_us.len()), (3, 3));
        clock.advance_s(60);
        let health = engine.health("gpt").unwrap();
        assert_eq!((health.successes, health.failures), (0, 0));
        assert_eq!((health.successes_total, health.failures_total), (3, 2));
        engine.deployment_succeeded("gpt", 60, None, None).unwrap();
        assert_eq!(engine.health("gpt").unwrap().failures_in_a_row, 0);
        assert_eq!(engine.health("never seen"), None);
    }

    #[test]
    fn a_cooldown_is_everybodys_and_has_one_beginner() {
        let (engine, clock) = engine();
        let cause = Cause::of(FailureKind::RateLimited);
        let cool = |ms| engine.cool_down("gpt", ms, &cause);
        assert_eq!((cool(5_000), cool(4_000)), (Ok(Begun::First), Ok(Begun::AlreadyLonger)));
        assert_eq!(engine.cooldown_left_ms("gpt"), 5_000);
        clock.advance_s(3);
        assert_eq!(cool(5_000), Ok(Begun::Extended));
        assert_eq!(engine.end_cooldown("gpt"), Ok(true));
        assert_eq!(engine.end_cooldown("gpt"), Ok(false));
        assert_eq!((engine.cooldown_left_ms("gpt"), cool(1_000)), (0, Ok(Begun::First)));
        clock.advance_s(1);
        assert_eq!(engine.cooldown_left_ms("gpt"), 0);
        assert_eq!(engine.total(|row| &row.cooldowns), 2);
        let kinds: Vec<_> = engine.recent_events(9).filter_map(|e| e.known_kind()).collect();
        let begun = EventKind::CooldownBegun;
        assert_eq!(kinds, [begun, EventKind::CooldownCleared, begun]);
    }

    #[test]
    fn a_cooldown_says_why_and_for_how_long() {
        let (engine, clock) = engine();
        assert_eq!((engine.cooldown("gpt"), engine.scores("gpt", 9)), (None, vec![]));
        let text = "the key sk-abcdefghijk has no more";
        let cause = Cause { kind: FailureKind::RateLimited, status: 429, text };
        engine.cool_down("gpt", 5_000, &cause).unwrap();
        clock.advance_s(3);
        let first = engine.cooldown("gpt").unwrap();
        assert_eq!((first.left_ms, first.for_ms), (2_000, 5_000));
        assert_eq!((first.kind, first.status), (FailureKind::RateLimited, 429));
        assert_eq!(first.text.as_deref(), Some("the key sk-abc.. has no more"));
        assert_eq!(first.began_ms + first.for_ms, first.until_ms);
        // Whoever changes nothing leaves the cause alone; whoever lengthens it has another one.
        let shorter = Cause { kind: FailureKind::Timeout, status: 408, text: "shorter" };
        engine.cool_down("gpt", 1_000, &shorter).unwrap();
        assert_eq!(engine.cooldown("gpt"), Some(first));
        let longer = Cause { kind: FailureKind::Server, status: 503, text: "" };
        engine.cool_down("gpt", 9_000, &longer).unwrap();
        let second = engine.cooldown("gpt").unwrap();
        assert_eq!((second.left_ms, second.for_ms, second.status), (9_000, 9_000, 503));
        assert_eq!((second.kind, second.text), (FailureKind::Server, None));
        engine.end_cooldown("gpt").unwrap();
        assert_eq!(engine.cooldown("gpt"), None);
    }

    /// As it would be found if the process died between cooldown and cause.
    #[test]
    fn a_cooldown_without_a_cause_is_one() {
        let (engine, clock) = engine();
        let cause = Cause { kind: FailureKind::Server, status: 500, text: "the first" };
        engine.cool_down("gpt", 2_000, &cause).unwrap();
        clock.advance_s(5);
        let found = engine.known_deployment("gpt").unwrap();
        let now_ms = engine.now().us() / 1_000;
        cooldown::begin(&found.record.cooldown, now_ms, 4_000, FailureKind::Timeout).unwrap();
        clock.advance_s(1);
        let seen = engine.cooldown("gpt").unwrap();
        assert_eq!((seen.kind, seen.status, seen.text), (FailureKind::Timeout, 0, None));
        assert_eq!((seen.left_ms, seen.for_ms), (3_000, 3_000));
        assert_eq!(seen.began_ms, seen.until_ms - seen.for_ms);
    }

    #[test]
    fn scores_are_kept_newest_first_and_for_an_hour() {
        let (engine, clock) = engine();
        for score in [7, 0, 1_000_000_000, u64::MAX] {
            engine.deployment_scored("gpt", score).unwrap();
        }
        let newest_first = [(1 << 40) - 1, 1_000_000_000, 1, 7];
        assert_eq!(engine.scores("gpt", 16), newest_first);
        assert_eq!(engine.scores("gpt", 2), newest_first[..2]);
        assert_eq!(engine.health("gpt").unwrap().scores_us, newest_first);
        let idle = |now| {
            let found = engine.known_deployment("gpt").unwrap();
            engine.deployment_is_idle(found.identity, found.record, now)
        };
        assert!(!idle(engine.now()), "a deployment that is scored is in use");
        clock.advance_s(10);
        engine.deployment_scored("gpt", 3).unwrap();
        assert_eq!(engine.scores_within("gpt", 16, 9), [3]);
        assert_eq!(engine.scores_within("gpt", 16, 10), engine.scores("gpt", 16));
        clock.advance_s(FORGET_S + 1);
        assert!(engine.scores("gpt", 16).is_empty() && idle(engine.now()));
        assert!(engine.scores_within("gpt", 16, u64::MAX).is_empty());
    }

    /// A record that passes on says nothing of the deployment that had it.
    #[test]
    fn nothing_is_left_of_a_deployment_that_was_given_up() {
        let (engine, clock) = engine();
        let cause = Cause { kind: FailureKind::Server, status: 500, text: "it is over" };
        engine.deployment_failed("gpt", 60, FailureKind::Server, 500).unwrap();
        engine.deployment_scored("gpt", 5).unwrap();
        engine.cool_down("gpt", 1_000, &cause).unwrap();
        clock.advance_s(2 * FORGET_S);
        let found = engine.known_deployment("gpt").unwrap();
        assert!(clear(&found, &engine.flights(&found), engine.now()));
        let Deployment { score_head, cause, cause_head, cause_text, scores, .. } = found.record;
        let words = [score_head.load(Ordering::Relaxed), cause.load(Ordering::Relaxed).bits()];
        assert_eq!((words, cause_head.load(Ordering::Relaxed).bits()), ([0; 2], 0));
        assert!(cause_text.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        assert!(scores.iter().all(|word| word.load(Ordering::Relaxed).bits() == 0));
    }

    #[test]
    fn forgotten_deployments_make_room_and_the_others_stay() {
        let (engine, clock) = engine();
        let capacity = engine.region().deployments().len();
        let fill = |from: usize| {
            let add = |n: &usize| {
                engine.deployment_succeeded(&format!("old-{n}"), 60, Some(9), None).is_ok()
            };
            (from..from + 4 * capacity).filter(add).count()
        };
        assert!(fill(0) <= capacity);
        clock.advance_s(FORGET_S - 60);
        assert!(engine.health("old-1").is_some());
        let kept = sent(&engine, "old-1", None).unwrap();
        let place = |n| Some((n, engine.known_deployment(&format!("old-{n}"))?.place()));
        let places: Vec<_> = (0..4 * capacity).filter_map(place).collect();
        assert!(places.iter().all(|&(_, place)| engine.deployment_at(place).is_some()));
        clock.advance_s(60);
        for n in 0..capacity / 2 {
            engine.deployment_succeeded(&format!("new-{n}"), 60, Some(7), None).unwrap();
        }
        assert_eq!(engine.flights_to("old-1"), 1);
        // A remembered place is nobody else's.
        let gone =
            places.iter().filter(|&&(_, place)| engine.deployment_at(place).is_none()).count();
        assert!(gone > 0);
        for (n, place) in places {
            let known = engine.known_deployment(&format!("old-{n}")).is_some();
            assert_eq!(engine.deployment_at(place).is_some(), known);
        }
        let health = engine.health("new-0").unwrap();
        assert_eq!((health.latency_us, health.latencies_us), (Some(7), vec![7]));
        assert_eq!(health.successes_total, 1);
        engine.arrive(&kept);
    }

    #[test]
    fn a_request_that_cannot_be_counted_is_sent_and_that_is_counted() {
        let (engine, _) = engine();
        for n in 0..200 {
            // Every chunk is held by somebody.
            let _ = engine.depart(&format!("other-{n}"), Some(1));
        }
        let id = (0..200)
            .map(|n| format!("mine-{n}"))
            .find(|id| engine.depart(id, Some(1)) == Err(OpError::LeasesFull))
            .unwrap();
        let flight = sent(&engine, &id, None).unwrap();
        assert_eq!(flight.claim, None);
        assert!(engine.total(|row| &row.uncounted) >= 1);
        engine.arrive(&flight);
    }
}
