//! Connection pools: how many connections there are to an endpoint and in all, over all processes, who has them, and
//! how the endpoints are.
//!
//! A connection is what [`crate::tables::connections`] says. Here pools and endpoints have their records, and what
//! happens is counted in that of the pool. What a process knows by itself (which connections it used last) is a
//! hint: the region decides.

use super::health::Cause;
use super::quota::Place;
use super::{Engine, ROUNDS};
use crate::clock::Instant;
use crate::error::OpError;
use crate::layout::{Endpoint, FailureKind, FailureWord, IdentityWord, KeyKind};
use crate::primitives::Shared;
use crate::primitives::breaker::{self, Policy, State};
use crate::sync::{Bits, Ordering, Word};
use crate::tables::connections::{self, Ended, Keep, Limits, MAX_SLOTS, Reuse, Slots, Use, User};
use crate::tables::index::{self, Held, NotInserted, Probe};
use crate::tables::leases::Leases;
use crate::tables::names;
use std::fmt::Write as _;

/// Hash domain of pools; those of endpoints are their pools' names under it.
const POOLS: u64 = 0x706f_6f6c;
/// What lies above in `key_slot` is an endpoint's record.
const FIRST_KEY_SLOT: u64 = 3 << 32;
/// Longest time to keep a connection, seconds.
const YEAR_S: u64 = 31_536_000;
/// Slots that a hint can remember: one byte each, and 0 is none.
const HINTED: u64 = 255;

/// When an endpoint is unhealthy: after three failures in a row, until one success, or half a minute without a
/// failure. Then one more failure is enough, until they are forgotten after five minutes.
pub const HEALTH: Policy = Policy { threshold: 3, rest_s: 30, memory_s: 300 };

/// What a pool allows. Workers that give one pool different settings each go by their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Connections to one endpoint, 1 to 65,535.
    pub max_per_endpoint: u64,
    /// Connections in all, 1 to 65,535.
    pub max_total: u64,
    /// How long they are kept.
    pub keep: Keep,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_per_endpoint: 10, max_total: 100, keep: Keep { idle_s: 300, age_s: 3_600 } }
    }
}

impl Settings {
    fn are_valid(&self) -> bool {
        let Self { max_per_endpoint, max_total, keep } = *self;
        [max_per_endpoint, max_total].iter().all(|most| (1..MAX_SLOTS).contains(most))
            && keep.idle_s <= YEAR_S
            && keep.age_s <= YEAR_S
    }
}

/// A pool, as one process uses it.
#[derive(Debug, Clone)]
pub struct Pool {
    settings: Settings,
    domain: u64,
    identity: IdentityWord,
    slot: usize,
}

impl Pool {
    /// What it allows.
    pub fn settings(&self) -> Settings {
        self.settings
    }
}

/// One use of a connection. Its text is what callers keep of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    record: u32,
    used: Use,
}

/// `record.slot.generation.use`, each hexadecimal. All but the last part stays the same while the connection lasts.
impl std::fmt::Display for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = [0_u8; Self::MOST_BYTES];
        let parts = [u64::from(self.record), self.used.slot, self.used.generation];
        let mut end = push_hex(&mut text, Self::MOST_BYTES, self.used.number);
        for part in parts.into_iter().rev() {
            end -= 1;
            text[end] = b'.';
            end = push_hex(&mut text, end, part);
        }
        f.write_str(std::str::from_utf8(&text[end..]).unwrap_or_default())
    }
}

/// Writes a number that ends before `end`; returns where it begins.
fn push_hex(text: &mut [u8], mut end: usize, mut number: u64) -> usize {
    loop {
        end -= 1;
        text[end] = b"0123456789abcdef"[usize::try_from(number & 15).unwrap_or(0)];
        number >>= 4;
        if number == 0 {
            return end;
        }
    }
}

impl Connection {
    const MOST_BYTES: usize = 4 * 16 + 3;

    /// Appends the endpoint, as it may be shown, and what names the connection.
    pub fn write_id(&self, endpoint: &str, id: &mut String) {
        id.push_str(&names::redact_endpoint(endpoint));
        id.push('#');
        // Writing to a string does not fail.
        let _ = write!(id, "{self}");
    }

    /// The connection that an id names; `None` = it is no id.
    pub fn parse(id: &str) -> Option<Self> {
        let (_, text) = id.rsplit_once('#')?;
        let mut parts = text.split('.').map(hex);
        let mut next = |most| parts.next().flatten().filter(|&part| part <= most);
        let record = u32::try_from(next(u64::from(u32::MAX))?).ok()?;
        let slot = next(MAX_SLOTS - 1)?;
        let generation = next(u64::from(u32::MAX))?;
        let number = next(u64::from(u16::MAX))?;
        let used = Use { slot, generation, number };
        parts.next().is_none().then_some(Self { record, used })
    }
}

/// A number as it is written in ids, and not in another way.
fn hex(text: &str) -> Option<u64> {
    let canonical =
        !text.is_empty() && text.len() <= 8 && (text.len() == 1 || !text.starts_with('0'));
    let digit = |byte| match byte {
        b'0'..=b'9' => Some(u64::from(byte - b'0')),
        b'a'..=b'f' => Some(u64::from(byte - b'a') + 10),
        _ => None,
    };
    let add = |number: u64, byte| Some(number << 4 | digit(byte)?);
    if canonical { text.bytes().try_fold(0, add) } else { None }
}

/// Connections to one endpoint, over all workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointStats {
    /// The endpoint as it may be shown, or `#` and its hash while that is not written.
    pub endpoint: String,
    /// Connections in use.
    pub active: u64,
    /// Connections that are kept without being used.
    pub idle: u64,
    /// Whether it is healthy, see [`HEALTH`].
    pub healthy: bool,
    /// Failures in a row that are not yet forgotten.
    pub failures_in_a_row: u64,
    /// Failures since it is known.
    pub failures_total: u64,
    /// Kind, HTTP status (0 = none) and age in seconds of the latest failure.
    pub last_failure: Option<(FailureKind, u64, u64)>,
}

/// What happened to a pool's connections, over all workers and since the region was created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Connections made.
    pub created: u64,
    /// Idle ones that were handed out again.
    pub reused: u64,
    /// Requests that got none.
    pub refused: u64,
    /// Closed because they were idle for too long, or too old.
    pub expired: u64,
    /// Idle ones that made room for others.
    pub taken_over: u64,
    /// Given back by who did not hold them.
    pub stale_returns: u64,
}

/// A pool, over all workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStats {
    /// Connections in use.
    pub active: u64,
    /// Connections that are kept without being used.
    pub idle: u64,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStats>,
    /// What happened.
    pub counts: Counts,
}

/// The record of a pool or of an endpoint.
#[derive(Clone, Copy)]
struct Found<'a> {
    slot: usize,
    identity: IdentityWord,
    record: &'a Endpoint,
}

impl Found<'_> {
    fn holds(&self) -> bool {
        index::holds(&self.record.identity, self.identity)
    }

    fn name(&self) -> names::Place<'_> {
        names::Place { head: &self.record.name_head, bytes: &self.record.name }
    }
}

impl Engine {
    /// A pool. All pools of one name are one, in all processes.
    ///
    /// # Errors
    /// `OutOfRange`: a setting is out of its range. `TableFull` or `Contended`: the pool cannot be recorded.
    pub fn pool(&self, name: &str, settings: Settings) -> Result<Pool, OpError> {
        if !settings.are_valid() {
            return Err(OpError::OutOfRange);
        }
        let hash = self.region.hash(POOLS ^ KeyKind::Named as u64, name.as_bytes());
        let identity = index::identity(KeyKind::Named, hash);
        let domain = self.region.hash(POOLS, name.as_bytes());
        let slot = self.until_settled(|| {
            let shown = || names::redact(name);
            let found = self.endpoint_record(identity, Probe::of(hash), identity, shown)?;
            // Until it says that it is a pool, it may be given up.
            let stands = found.record.pool.load(Ordering::SeqCst) == identity && found.holds();
            Ok(stands.then_some(found.slot))
        })?;
        Ok(Pool { settings, domain, identity, slot })
    }

    fn pool_record<'a>(&'a self, pool: &Pool) -> Option<Found<'a>> {
        let record = self.region.endpoints().get(pool.slot)?;
        let stands = index::is(record.identity.load(Ordering::Acquire), pool.identity);
        stands.then_some(Found { slot: pool.slot, identity: pool.identity, record })
    }

    fn identify_endpoint(&self, pool: &Pool, endpoint: &[u8]) -> (IdentityWord, Probe) {
        let hash = self.region.hash(pool.domain ^ KeyKind::Named as u64, endpoint);
        (index::identity(KeyKind::Named, hash), Probe::of(hash))
    }

    fn endpoint(&self, pool: &Pool, endpoint: &str) -> Result<Found<'_>, OpError> {
        let (identity, probe) = self.identify_endpoint(pool, endpoint.as_bytes());
        let shown = || names::redact_endpoint(endpoint).into_owned();
        self.endpoint_record(identity, probe, pool.identity, shown)
    }

    /// A pool's or an endpoint's record, inserted if needed.
    fn endpoint_record(
        &self,
        identity: IdentityWord,
        probe: Probe,
        pool: IdentityWord,
        shown: impl FnOnce() -> String,
    ) -> Result<Found<'_>, OpError> {
        let table = self.region.endpoints();
        for _ in 0..ROUNDS {
            match index::insert(table, probe, identity, index::nonce) {
                Ok(slot) => {
                    let found = Found { slot: slot.index, identity, record: &table[slot.index] };
                    let word = Held::new(&found.record.pool, &found.record.identity, identity);
                    let seen = word.load(Ordering::Acquire);
                    if seen != pool {
                        // A lost race means that another process wrote it, or that the record has passed on.
                        let _ =
                            word.compare_exchange(seen, pool, Ordering::SeqCst, Ordering::Relaxed);
                    }
                    let name = || {
                        let mut name = shown();
                        names::truncate(&mut name, crate::layout::NAME_BYTES);
                        name
                    };
                    self.look_after_name(found.name(), name, || found.holds());
                    return Ok(found);
                }
                Err(NotInserted::Full) => {
                    let now = self.now();
                    let gave_up = index::make_room(
                        table,
                        probe,
                        |identity, record| self.endpoint_is_idle(identity, record, now),
                        |slot, identity, record| {
                            let found = Found { slot, identity, record };
                            clear(&found, &self.connections(&found), now)
                        },
                    );
                    gave_up.map_err(|_| self.counted(OpError::TableFull))?;
                }
                Err(NotInserted::Contended) => break,
            }
        }
        Err(self.counted(OpError::Contended))
    }

    /// Whether an endpoint says nothing that still matters. Pools are never given up: they count.
    fn endpoint_is_idle(&self, identity: IdentityWord, record: &Endpoint, now: Instant) -> bool {
        let found = Found { slot: 0, identity, record };
        record.pool.load(Ordering::SeqCst) != identity
            && failures_of(record, now) == 0
            && self.connections(&found).is_idle()
    }

    fn connections<'a>(&'a self, found: &Found<'a>) -> Leases<'a> {
        Leases {
            chunks: self.region.chunks(),
            key: found.identity,
            key_slot: key_slot(found.slot),
            limits: &found.record.lease,
            nonce: index::nonce,
        }
    }

    fn slots<'a>(&'a self, pool: &Found<'a>, endpoint: &Found<'a>) -> Slots<'a> {
        Slots {
            endpoint: self.connections(endpoint),
            pool: self.connections(pool),
            record: endpoint.slot as u64,
        }
    }

    /// The record that a connection names, if it is an endpoint's of that pool.
    fn endpoint_at(&self, pool: &Pool, record: u64) -> Option<Found<'_>> {
        let slot = usize::try_from(record).ok()?;
        let record = self.region.endpoints().get(slot)?;
        let identity = index::key_of(record.identity.load(Ordering::Acquire))?;
        let belongs = record.pool.load(Ordering::Acquire) == pool.identity;
        (belongs && identity != pool.identity).then_some(Found { slot, identity, record })
    }

    /// Where an endpoint's record is, for [`Self::connect_at`].
    ///
    /// # Errors
    /// `TableFull` or `Contended`: the endpoint cannot be recorded.
    pub fn endpoint_place(&self, pool: &Pool, endpoint: &str) -> Result<Place, OpError> {
        let Found { slot, identity, .. } = self.endpoint(pool, endpoint)?;
        Ok(Place { slot, identity })
    }

    /// Hands out a connection to an endpoint: an idle one of this process, the one that was used last, or a new one;
    /// `None` = as many as the endpoint or the pool may have are in use. Whether the endpoint is healthy does not
    /// matter.
    ///
    /// # Errors
    /// `TableFull`, `LeasesFull`, `WorkersFull` or `Contended`: the connection cannot be recorded. That is refused,
    /// and counted, too.
    pub fn connect(&self, pool: &Pool, endpoint: &str) -> Result<Option<Connection>, OpError> {
        for _ in 0..ROUNDS {
            let found = self.endpoint(pool, endpoint).inspect_err(|_| self.count_refused(pool))?;
            if let Some(settled) = self.hand_out(pool, &found) {
                return settled;
            }
            self.count(|row| &row.misplaced);
        }
        self.count_refused(pool);
        Err(self.counted(OpError::Contended))
    }

    /// As [`Self::connect`], for an endpoint whose place is remembered; `None` = it is no longer there.
    #[inline]
    pub fn connect_at(
        &self,
        pool: &Pool,
        place: Place,
    ) -> Option<Result<Option<Connection>, OpError>> {
        let Place { slot, identity } = place;
        let record = self.region.endpoints().get(slot)?;
        let stands = index::is(record.identity.load(Ordering::Acquire), identity);
        stands.then_some(Found { slot, identity, record }).and_then(|f| self.hand_out(pool, &f))
    }

    #[cold]
    fn count_refused(&self, pool: &Pool) {
        self.tally_pool(pool, |record| &record.refused, 1);
    }

    fn tally_pool(&self, pool: &Pool, counter: fn(&Endpoint) -> &Word<u64>, by: u64) {
        if by > 0
            && let Some(found) = self.pool_record(pool)
        {
            counter(found.record).fetch_add(by, Ordering::Relaxed);
        }
    }

    /// `None` = the endpoint's record has been given up meanwhile.
    fn hand_out(
        &self,
        pool: &Pool,
        found: &Found<'_>,
    ) -> Option<Result<Option<Connection>, OpError>> {
        let Some(record) = self.pool_record(pool) else {
            return Some(Err(self.counted(OpError::Contended)));
        };
        let owner = match self.owner() {
            Ok(owner) => owner,
            Err(error) => {
                self.count_refused(pool);
                return Some(Err(self.counted(error)));
            }
        };
        let user = User { owner, now_s: self.now().s() };
        let slots = self.slots(&record, found);
        let connection = |used| Connection { record: narrow(found.slot), used };
        if let Some(used) = self.reuse(pool, &slots, user) {
            record.record.reused.fetch_add(1, Ordering::Relaxed);
            return Some(Ok(Some(connection(used))));
        }
        self.make(pool, &record, found, user).map(|made| made.map(|used| used.map(connection)))
    }

    /// Uses an idle connection of this process again.
    #[inline]
    fn reuse(&self, pool: &Pool, slots: &Slots<'_>, user: User) -> Option<Use> {
        let keep = pool.settings.keep;
        let mut expired = 0;
        let mut attempt = |slot| match slots.reuse(slot, user, keep) {
            Reuse::Again(used) => Some(used),
            Reuse::Expired => {
                expired += 1;
                None
            }
            Reuse::Gone => None,
        };
        let hint = self.local.recent.get(usize::try_from(slots.record).ok()?)?;
        let mut recent = hint.load(Ordering::Relaxed);
        let mut found = None;
        while recent != 0 && found.is_none() {
            let slot = (recent & HINTED).saturating_sub(1);
            recent >>= 8;
            // A lost race with another thread costs a look at all of them.
            hint.store(recent, Ordering::Relaxed);
            found = attempt(slot);
        }
        let found = found.or_else(|| slots.idle_of(user.owner).into_iter().find_map(attempt));
        self.tally_pool(pool, |record| &record.expired, expired);
        found
    }

    #[cold]
    #[inline(never)]
    fn make(
        &self,
        pool: &Pool,
        record: &Found<'_>,
        found: &Found<'_>,
        user: User,
    ) -> Option<Result<Option<Use>, OpError>> {
        let slots = self.slots(record, found);
        let Settings { max_per_endpoint, max_total, .. } = pool.settings;
        slots.endpoint.note_limit(max_per_endpoint);
        slots.pool.note_limit(max_total);
        let now = self.now();
        let user = User { now_s: now.s(), ..user };
        let limits = Limits { endpoint: max_per_endpoint, pool: max_total };
        let made = slots.make(
            user,
            limits,
            index::nonce(),
            |leases, limit, tag| {
                let slot = usize::try_from(leases.key_slot & u64::from(u32::MAX)).unwrap_or(0);
                self.claim_slot(leases, slot, limit, 0, now, tag)
            },
            |at| self.endpoint_at(pool, at).map(|found| self.connections(&found)),
        );
        if !found.holds() {
            if let Ok(Some(made)) = made {
                slots.end(made.first, user, None);
            }
            return None;
        }
        match made {
            Ok(Some(made)) => {
                record.record.created.fetch_add(1, Ordering::Relaxed);
                if made.taken_over {
                    record.record.taken_over.fetch_add(1, Ordering::Relaxed);
                }
                Some(Ok(Some(made.first)))
            }
            refused => {
                self.count_refused(pool);
                Some(refused.map(|_| None))
            }
        }
    }

    /// Gives a connection back; it is kept idle for the next one who wants it. Without effect, but counted, if it
    /// has been given back before, or is not this process's.
    pub fn return_connection(&self, pool: &Pool, connection: &Connection) -> Ended {
        self.end_use(pool, connection, true)
    }

    /// Closes a connection, in use or idle. Without effect, but counted, if it is not this process's, or has been handed
    /// out again since.
    pub fn remove_connection(&self, pool: &Pool, connection: &Connection) -> Ended {
        self.end_use(pool, connection, false)
    }

    #[inline]
    fn end_use(&self, pool: &Pool, connection: &Connection, keep: bool) -> Ended {
        let ended = self.try_end(pool, connection, keep);
        match ended {
            Ended::Kept => {
                let slot = connection.used.slot;
                let hint = self.local.recent.get(connection.record as usize);
                if let Some(hint) = hint.filter(|_| slot < HINTED) {
                    hint.store(hint.load(Ordering::Relaxed) << 8 | (slot + 1), Ordering::Relaxed);
                }
            }
            Ended::Closed if keep => self.tally_pool(pool, |record| &record.expired, 1),
            Ended::Closed => {}
            Ended::Stale => self.tally_pool(pool, |record| &record.stale_returns, 1),
        }
        ended
    }

    #[inline]
    fn try_end(&self, pool: &Pool, connection: &Connection, keep: bool) -> Ended {
        let found =
            self.pool_record(pool).zip(self.endpoint_at(pool, u64::from(connection.record)));
        match (found, self.me()) {
            (Some((record, found)), Some(owner)) => {
                let user = User { owner, now_s: self.now().s() };
                let slots = self.slots(&record, &found);
                if keep {
                    slots.end(connection.used, user, Some(pool.settings.keep))
                } else {
                    slots.close(connection.used, user)
                }
            }
            _ => Ended::Stale,
        }
    }

    /// What a connection of this process is like; `None` = it is gone, or has been handed out again since.
    fn sight(
        &self,
        pool: &Pool,
        connection: &Connection,
    ) -> Option<(Found<'_>, connections::Sight)> {
        let record = self.pool_record(pool)?;
        let found = self.endpoint_at(pool, u64::from(connection.record))?;
        let sight = self.slots(&record, &found).look(connection.used, self.me()?)?;
        Some((found, sight))
    }

    /// Whether a connection is this process's, in use or idle, its time is not over, and its endpoint is healthy.
    pub fn connection_is_healthy(&self, pool: &Pool, connection: &Connection) -> bool {
        let now = self.now();
        let keep = pool.settings.keep;
        self.sight(pool, connection).is_some_and(|(found, sight)| {
            !keep.is_too_old(sight.made_s, now.s())
                && !(sight.idle && keep.is_too_idle(sight.used_s, now.s()))
                && endpoint_is_healthy(found.record, now)
        })
    }

    /// Tells how a connection's endpoint behaved: `None` = well. False = the connection is not this process's, or has
    /// been handed out again since; nothing is counted.
    ///
    /// # Errors
    /// `Contended` when the word changed under every try.
    pub fn report_connection(
        &self,
        pool: &Pool,
        connection: &Connection,
        failure: Option<&Cause<'_>>,
    ) -> Result<bool, OpError> {
        let Some((found, _)) = self.sight(pool, connection) else { return Ok(false) };
        let Endpoint { breaker, failures_total, last_failure, .. } = found.record;
        let Some(cause) = failure else {
            self.insist(|| breaker::reset(breaker))?;
            return Ok(true);
        };
        let now_s = self.now().s();
        self.insist(|| breaker::failed(breaker, now_s, HEALTH))?;
        failures_total.fetch_add(1, Ordering::Relaxed);
        let latest = FailureWord::new(cause.kind as u64, cause.status.min(1_023), now_s);
        last_failure.store(latest, Ordering::Relaxed);
        Ok(true)
    }

    /// Closes idle connections whose time is over and frees what dead workers hold. Returns how many were closed.
    ///
    /// # Errors
    /// `WorkersFull`: this process has no row, without which it can take nothing.
    pub fn sweep_pool(&self, pool: &Pool) -> Result<u64, OpError> {
        self.reap_dead();
        let owner = self.owner().map_err(|error| self.counted(error))?;
        let Some(record) = self.pool_record(pool) else { return Ok(0) };
        let user = User { owner, now_s: self.now().s() };
        let mut closed = 0;
        for found in self.endpoints_of(pool) {
            closed += self.slots(&record, &found).sweep(user, pool.settings.keep);
        }
        let leases = self.connections(&record);
        Slots::sweep_halves(&leases, user, |at| {
            self.endpoint_at(pool, at).map(|found| self.connections(&found))
        });
        self.tally_pool(pool, |record| &record.expired, closed);
        Ok(closed)
    }

    fn endpoints_of<'a>(&'a self, pool: &'a Pool) -> impl Iterator<Item = Found<'a>> {
        let records = 0..self.region.endpoints().len() as u64;
        records.filter_map(|record| self.endpoint_at(pool, record))
    }

    /// What a pool is like. What dead workers held is freed before.
    pub fn pool_stats(&self, pool: &Pool) -> PoolStats {
        self.reap_dead();
        let count = |found: &Found<'_>| {
            let (mut active, mut idle) = (0, 0);
            self.connections(found).each_held(|claim| {
                if !self.holder_is_gone(claim.word) {
                    *(if claim.word.idle() == 1 { &mut idle } else { &mut active }) += 1;
                }
            });
            (active, idle)
        };
        let record = self.pool_record(pool);
        let (active, idle) = record.as_ref().map_or((0, 0), count);
        let now = self.now();
        let endpoints = self.endpoints_of(pool).map(|found| {
            let (active, idle) = count(&found);
            let failure = found.record.last_failure.load(Ordering::Relaxed);
            EndpointStats {
                endpoint: name_of(found.record),
                active,
                idle,
                healthy: endpoint_is_healthy(found.record, now),
                failures_in_a_row: failures_of(found.record, now),
                failures_total: found.record.failures_total.load(Ordering::Relaxed),
                last_failure: (failure != FailureWord::default()).then(|| {
                    let age_s = now.s().saturating_sub(failure.at_s());
                    (FailureKind::from_raw(failure.kind()), failure.status(), age_s)
                }),
            }
        });
        let counts = record.map_or(Counts::default(), |found| counts_of(found.record));
        PoolStats { active, idle, endpoints: endpoints.collect(), counts }
    }

    /// Leases of the pool or endpoint in the record that `key_slot` names, if it names one.
    pub(super) fn connections_at(&self, key_slot: u64) -> Option<Leases<'_>> {
        let slot = slot_of(key_slot)?;
        let record = self.region.endpoints().get(slot)?;
        let identity = index::key_of(record.identity.load(Ordering::Acquire))?;
        Some(self.connections(&Found { slot, identity, record }))
    }
}

fn narrow(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}

/// How lease chunks name the record of a pool or an endpoint.
pub fn key_slot(slot: usize) -> u64 {
    FIRST_KEY_SLOT + slot as u64 + 1
}

/// The record of the pool or endpoint that a lease chunk names; `None` = it names something else.
pub fn slot_of(key_slot: u64) -> Option<usize> {
    usize::try_from(key_slot.checked_sub(FIRST_KEY_SLOT + 1)?).ok()
}

/// The name of a pool or an endpoint, or `#` and its hash while that is not written.
pub fn name_of(record: &Endpoint) -> String {
    let place = names::Place { head: &record.name_head, bytes: &record.name };
    let hash = || record.identity.load(Ordering::Relaxed).hash();
    names::read(place).unwrap_or_else(|| format!("#{:013x}", hash()))
}

/// Whether an endpoint is healthy, see [`HEALTH`].
pub fn endpoint_is_healthy(record: &Endpoint, now: Instant) -> bool {
    let word = record.breaker.load(Ordering::Relaxed);
    !matches!(breaker::peek(word, now.s(), HEALTH), State::Open { .. })
}

/// Failures in a row of an endpoint that are not yet forgotten.
pub fn failures_of(record: &Endpoint, now: Instant) -> u64 {
    let word = record.breaker.load(Ordering::SeqCst);
    match breaker::peek(word, now.s(), HEALTH) {
        State::Closed { errors } => errors,
        State::HalfOpen | State::Open { .. } => word.errors(),
    }
}

/// What happened to the connections of the pool in a record.
pub fn counts_of(record: &Endpoint) -> Counts {
    let get = |word: &Word<u64>| word.load(Ordering::Relaxed);
    Counts {
        created: get(&record.created),
        reused: get(&record.reused),
        refused: get(&record.refused),
        expired: get(&record.expired),
        taken_over: get(&record.taken_over),
        stale_returns: get(&record.stale_returns),
    }
}

/// Brings an idle endpoint's record to all zeroes; false = it was used meanwhile.
fn clear(found: &Found<'_>, connections: &Leases<'_>, now: Instant) -> bool {
    let Endpoint { breaker, failures_total, last_failure, pool, .. } = found.record;
    let seen = (breaker.load(Ordering::SeqCst), failures_total.load(Ordering::SeqCst));
    let (failure, belongs) = (last_failure.load(Ordering::SeqCst), pool.load(Ordering::SeqCst));
    let cleared =
        failures_of(found.record, now) == 0 && connections.forget() && zero(found, breaker, seen.0);
    if cleared {
        zero(found, failures_total, seen.1);
        zero(found, last_failure, failure);
        zero(found, pool, belongs);
    }
    cleared && names::withdraw(found.name())
}

/// Swaps a word of the endpoint's record from what was seen to zero.
fn zero<T: Bits>(found: &Found<'_>, word: &Word<T>, seen: T) -> bool {
    index::is(found.record.identity.load(Ordering::Acquire), found.identity)
        && word.compare_exchange(seen, T::from_bits(0), Ordering::SeqCst, Ordering::Relaxed).is_ok()
}
