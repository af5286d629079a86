//! Connection pools: how many connections there are to an endpoint and in all, over all processes, who has them, and
//! how the endpoints are.
//!
//! A connection is what [`crate::tables::connections`] says. Here pools and endpoints have their records, and what
//! happens is counted in that of the pool. What a process knows by itself (which connections it used last) is a
//! hint: the region decides.

use super::health::Cause;
use super::keys::{identify, insert_with_room};
use super::quota::Place;
use super::{Engine, ROUNDS};
use crate::clock::Instant;
use crate::error::OpError;
use crate::layout::{Endpoint, FailureKind, FailureWord, IdentityWord, KeyKind};
use crate::primitives::Shared;
use crate::primitives::breaker::{self, Policy, State};
use crate::region::Region;
use crate::sync::{Bits, Ordering, Word};
use crate::tables::connections::{self, Ended, Keep, Limits, MAX_SLOTS, Reuse, Slots, Use, User};
use crate::tables::index::{self, Held, Probe};
use crate::tables::leases::Leases;
use crate::tables::names;

/// Hash domain of pools; those of endpoints are their pools' names under it.
pub(crate) const POOLS: u64 = 0x706f_6f6c;
/// What lies above in `key_slot` is an endpoint's record.
const FIRST_KEY_SLOT: u64 = 3 << 32;
/// Longest time to keep a connection, seconds.
const YEAR_S: u64 = 31_536_000;
/// Slots that a hint can remember: one byte each, and 0 is none.
const HINTED: u64 = 255;

/// How often the older half of all idle connections is closed at most, until none is left.
const HALVINGS: u32 = MAX_SLOTS.ilog2() + 1;

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
    fn limits(&self) -> Limits {
        Limits { endpoint: self.max_per_endpoint, pool: self.max_total }
    }

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
        let (text, begin) = self.text();
        f.write_str(std::str::from_utf8(text.get(begin..).unwrap_or_default()).unwrap_or_default())
    }
}

/// Bytes of the longest text of a connection, with room to spare.
const MOST_BYTES: usize = 40;

impl Connection {
    /// Its text, up to the end of the bytes, and where it begins. Ids are made at every request.
    #[inline]
    fn text(&self) -> ([u8; MOST_BYTES], usize) {
        let mut text = [0; MOST_BYTES];
        let mut at = MOST_BYTES;
        let mut push = |byte| {
            at -= 1;
            text[at] = byte;
        };
        let Use { slot, generation, number } = self.used;
        for (position, mut part) in
            [number, generation, slot, u64::from(self.record)].into_iter().enumerate()
        {
            if position > 0 {
                push(b'.');
            }
            // Never more than the 32 bits that a part has.
            for _ in 0..8 {
                push(b"0123456789abcdef"[usize::try_from(part & 15).unwrap_or(0)]);
                part >>= 4;
                if part == 0 {
                    break;
                }
            }
        }
        (text, at)
    }

    /// The id: the endpoint, as it may be shown, and what names the connection.
    #[inline]
    pub fn id(&self, endpoint: &str) -> String {
        let shown = names::redact_endpoint(endpoint);
        let (text, begin) = self.text();
        let mut id = String::with_capacity(shown.len() + 1 + MOST_BYTES);
        id.push_str(&shown);
        id.push('#');
        id.extend(text[begin..].iter().map(|&byte| char::from(byte)));
        id
    }

    /// The connection that an id names; `None` = it is no id. Numbers written in another way than in an id are none.
    #[inline]
    pub fn parse(id: &str) -> Option<Self> {
        let mut bytes = id.bytes().rev();
        let mut part = |end: u8, most: u64| {
            let (mut value, mut digits, mut last) = (0_u64, 0_u32, b'0');
            loop {
                let byte = bytes.next()?;
                if byte == end {
                    break;
                }
                let digit = match byte {
                    b'0'..=b'9' => byte - b'0',
                    b'a'..=b'f' => byte - b'a' + 10,
                    _ => return None,
                };
                if digits == 8 {
                    return None;
                }
                value |= u64::from(digit) << (4 * digits);
                (digits, last) = (digits + 1, byte);
            }
            (digits > 0 && (last != b'0' || digits == 1) && value <= most).then_some(value)
        };
        let number = part(b'.', u64::from(u16::MAX))?;
        let generation = part(b'.', u64::from(u32::MAX))?;
        let slot = part(b'.', MAX_SLOTS - 1)?;
        let record = u32::try_from(part(b'#', u64::from(u32::MAX))?).ok()?;
        Some(Self { record, used: Use { slot, generation, number } })
    }
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
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Counts {
    /// Connections made.
    pub created: u64,
    /// Idle ones that were handed out again.
    pub reused: u64,
    /// Requests that got none.
    pub refused: u64,
    /// Closed because they were idle for too long, or too old.
    #[cfg_attr(feature = "cli", schemars(extend("x-detail" = true)))]
    pub expired: u64,
    /// Idle ones that made room for others.
    #[cfg_attr(feature = "cli", schemars(extend("x-detail" = true)))]
    pub taken_over: u64,
    /// Given back by who did not hold them.
    #[cfg_attr(feature = "cli", schemars(extend("x-detail" = true)))]
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
        let (identity, probe) = identify(&self.region, KeyKind::Named, POOLS, name.as_bytes());
        let domain = domain(&self.region, name);
        let slot = self.until_settled(|| {
            let shown = || names::redact(name);
            let found = self.endpoint_record(identity, probe, identity, shown)?;
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
        identify(&self.region, KeyKind::Named, pool.domain, endpoint)
    }

    fn endpoint(&self, pool: &Pool, endpoint: &str) -> Result<Found<'_>, OpError> {
        let (identity, probe) = self.identify_endpoint(pool, endpoint.as_bytes());
        let shown = || names::redact_endpoint(endpoint).into_owned();
        let attempt = || self.endpoint_record(identity, probe, pool.identity, shown);
        let mut found = attempt();
        for _ in 0..HALVINGS {
            // Endpoints without connections are given up.
            if !matches!(found, Err(OpError::TableFull)) || self.close_older(pool) == 0 {
                break;
            }
            found = attempt();
        }
        found
    }

    /// Closes idle connections so that there is room in the region. Returns how many: fewer are left each time.
    #[cold]
    fn close_older(&self, pool: &Pool) -> u64 {
        let Some((record, owner)) = self.pool_record(pool).zip(self.me()) else { return 0 };
        let user = User { owner, now_s: self.now().s() };
        let closed = Slots::close_older(&self.connections(&record), user, |at| {
            self.endpoint_at(pool, at).map(|found| self.connections(&found))
        });
        self.tally_pool(pool, |record| &record.taken_over, closed);
        closed
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
        let slot = insert_with_room(table, probe, identity, || {
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
            gave_up.map(drop)
        })
        .map_err(|error| self.counted(error.into()))?;
        let found = Found { slot, identity, record: &table[slot] };
        let word = Held::new(&found.record.pool, &found.record.identity, identity);
        let seen = word.load(Ordering::Acquire);
        if seen != pool {
            // A lost race means that another process wrote it, or that the record has passed on.
            let _ = word.compare_exchange(seen, pool, Ordering::SeqCst, Ordering::Relaxed);
        }
        let name = || {
            let mut name = shown();
            names::truncate(&mut name, crate::layout::NAME_BYTES);
            name
        };
        self.look_after_name(found.name(), name, || found.holds());
        Ok(found)
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
        if slots.exceed(pool.settings.limits()) {
            return None;
        }
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
        let limits = pool.settings.limits();
        let attempt = || {
            slots.make(
                user,
                limits,
                index::nonce(),
                |leases, limit, tag| {
                    let slot = usize::try_from(leases.key_slot & u64::from(u32::MAX)).unwrap_or(0);
                    self.claim_slot(leases, slot, limit, 0, now, tag)
                },
                |at| self.endpoint_at(pool, at).map(|found| self.connections(&found)),
            )
        };
        let mut made = attempt();
        for _ in 0..HALVINGS {
            if !matches!(made, Err(OpError::LeasesFull)) || self.close_older(pool) == 0 {
                break;
            }
            made = attempt();
        }
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
            let too_idle = sight.idle && keep.is_too_idle(sight.used_s, now.s());
            !too_idle
                && !keep.is_too_old(sight.made_s, now.s())
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
            EndpointStats {
                endpoint: name_of(found.record),
                active,
                idle,
                healthy: endpoint_is_healthy(found.record, now),
                failures_in_a_row: failures_of(found.record, now),
                failures_total: found.record.failures_total.load(Ordering::Relaxed),
                last_failure: last_failure_of(found.record, now),
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

/// Hash domain of the endpoints of a pool of that name.
pub(crate) fn domain(region: &Region, pool: &str) -> u64 {
    region.hash(POOLS, pool.as_bytes())
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

/// Kind, HTTP status (0 = none) and age in seconds of an endpoint's latest failure.
pub fn last_failure_of(record: &Endpoint, now: Instant) -> Option<(FailureKind, u64, u64)> {
    let failure = record.last_failure.load(Ordering::Relaxed);
    (failure != FailureWord::default()).then(|| {
        let age_s = now.s().saturating_sub(failure.at_s());
        (FailureKind::from_raw(failure.kind()), failure.status(), age_s)
    })
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

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;
    use crate::clock::FakeClock;
    use crate::layout::{ClaimWord, LeaseWord, OwnerTag, WorkerState};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const A: &str = "https://a/v1";
    const B: &str = "https://b/v1";
    const KEEP: Keep = Keep { idle_s: 60, age_s: 600 };

    fn pool(engine: &Engine, each: u64, total: u64) -> Pool {
        let settings = Settings { max_per_endpoint: each, max_total: total, keep: KEEP };
        engine.pool("default", settings).unwrap()
    }

    fn get(engine: &Engine, pool: &Pool, endpoint: &str) -> Option<Connection> {
        engine.connect(pool, endpoint).unwrap()
    }

    fn kept(engine: &Engine, pool: &Pool, connection: &Connection) -> bool {
        engine.return_connection(pool, connection) == Ended::Kept
    }

    /// Held by the pool, and by its endpoints together; idle ones of each.
    fn totals(engine: &Engine, pool: &Pool) -> [u64; 4] {
        let stats = engine.pool_stats(pool);
        let sum = |of: fn(&EndpointStats) -> u64| stats.endpoints.iter().map(of).sum::<u64>();
        [stats.active, sum(|e| e.active), stats.idle, sum(|e| e.idle)]
    }

    /// Another process of that engine's region, which lives or is dead.
    fn other(engine: &Engine, row: u32, alive: bool) -> OwnerTag {
        let pid = if alive { 1 } else { 4_000_000 };
        let claim = ClaimWord::new(WorkerState::Live as u64, pid, 0, 1);
        engine.region().workers()[row as usize].claim.store(claim, Ordering::SeqCst);
        OwnerTag::new(row, 1).unwrap()
    }

    /// All that this process holds, handed to another one.
    fn hand_over(engine: &Engine, to: OwnerTag) {
        let me = engine.me().unwrap().raw();
        for holder in engine.region().chunks().iter().flat_map(|chunk| &chunk.holders) {
            let word = holder.load(Ordering::SeqCst);
            if word.owner() == me {
                let next = LeaseWord::new(to.raw(), word.acquired_s(), word.idle());
                holder.store(next, Ordering::SeqCst);
            }
        }
    }

    fn fresh() -> (Engine, FakeClock, Pool) {
        let (engine, clock) = engine();
        let pool = pool(&engine, 3, 5);
        (engine, clock, pool)
    }

    #[test]
    fn both_limits_hold_and_idle_connections_count() {
        let (engine, _, pool) = fresh();
        let held: Vec<_> = (0..3).map(|_| get(&engine, &pool, A).unwrap()).collect();
        assert_eq!(get(&engine, &pool, A), None);
        assert!(get(&engine, &pool, B).is_some() && get(&engine, &pool, B).is_some());
        assert_eq!(get(&engine, &pool, "c"), None);
        assert_eq!(totals(&engine, &pool), [5, 5, 0, 0]);
        assert!(kept(&engine, &pool, &held[0]));
        assert_eq!(totals(&engine, &pool), [4, 4, 1, 1]);
        assert_eq!(engine.pool_stats(&pool).counts.refused, 2);
    }

    #[test]
    fn the_one_used_last_is_handed_out_again_under_another_use() {
        let (engine, _, pool) = fresh();
        let held: Vec<_> = (0..3).map(|_| get(&engine, &pool, A).unwrap()).collect();
        for connection in &held {
            assert!(kept(&engine, &pool, connection));
        }
        for before in held.iter().rev() {
            let again = get(&engine, &pool, A).unwrap();
            let same = Use { number: again.used.number, ..before.used };
            assert_eq!((again.record, again.used), (before.record, same));
            assert_ne!(again.used.number, before.used.number);
        }
        let counts = engine.pool_stats(&pool).counts;
        assert_eq!((counts.created, counts.reused), (3, 3));
    }

    #[test]
    fn without_hints_the_same_is_found() {
        let (engine, clock, pool) = fresh();
        let held: Vec<_> = (0..3).map(|_| get(&engine, &pool, A).unwrap()).collect();
        for connection in &held {
            clock.advance_s(1);
            assert!(kept(&engine, &pool, connection));
        }
        engine.local.recent.iter().for_each(|hint| hint.store(u64::MAX, Ordering::Relaxed));
        for before in held.iter().rev() {
            assert_eq!(get(&engine, &pool, A).unwrap().used.generation, before.used.generation);
        }
    }

    #[test]
    fn a_use_ends_once() {
        let (engine, _, pool) = fresh();
        let first = get(&engine, &pool, A).unwrap();
        assert!(kept(&engine, &pool, &first) && !kept(&engine, &pool, &first));
        let second = get(&engine, &pool, A).unwrap();
        // Late, and the connection is in use again.
        assert!(!kept(&engine, &pool, &first));
        assert_eq!(engine.remove_connection(&pool, &first), Ended::Stale);
        assert_eq!(totals(&engine, &pool), [1, 1, 0, 0]);
        assert_eq!(engine.remove_connection(&pool, &second), Ended::Closed);
        assert_eq!(engine.remove_connection(&pool, &second), Ended::Stale);
        assert_eq!(totals(&engine, &pool), [0; 4]);
        // Another connection in the same slot.
        let third = get(&engine, &pool, A).unwrap();
        assert_eq!(third.used.slot, first.used.slot);
        assert!(!kept(&engine, &pool, &first) && !kept(&engine, &pool, &second));
        assert!(kept(&engine, &pool, &third));
        assert_eq!(engine.remove_connection(&pool, &third), Ended::Closed, "idle");
        assert_eq!(engine.pool_stats(&pool).counts.stale_returns, 6);
    }

    #[test]
    fn what_is_another_processs_is_left_alone() {
        let (engine, _, pool) = fresh();
        let theirs = get(&engine, &pool, A).unwrap();
        hand_over(&engine, other(&engine, 9, true));
        assert!(!kept(&engine, &pool, &theirs));
        assert_eq!(engine.remove_connection(&pool, &theirs), Ended::Stale);
        assert_eq!(engine.report_connection(&pool, &theirs, None), Ok(false));
        assert!(!engine.connection_is_healthy(&pool, &theirs));
        assert_eq!(totals(&engine, &pool), [1, 1, 0, 0]);
        // Nor does another pool take it.
        let mine = get(&engine, &pool, A).unwrap();
        let another = engine.pool("another", Settings::default()).unwrap();
        assert_eq!(engine.return_connection(&another, &mine), Ended::Stale);
        assert!(kept(&engine, &pool, &mine));
    }

    #[test]
    fn idle_connections_of_others_make_room_and_those_in_use_do_not() {
        let (engine, _, pool) = fresh();
        let held: Vec<_> = (0..3).map(|_| get(&engine, &pool, A).unwrap()).collect();
        assert!(kept(&engine, &pool, &held[0]));
        let worker = other(&engine, 9, true);
        hand_over(&engine, worker);
        // The endpoint is full.
        assert!(get(&engine, &pool, A).is_some());
        assert_eq!(get(&engine, &pool, A), None);
        assert_eq!(totals(&engine, &pool), [3, 3, 0, 0]);
        // The pool is full, of idle ones of other endpoints.
        let kept_idle: Vec<_> = (0..2).map(|_| get(&engine, &pool, B).unwrap()).collect();
        assert!(kept_idle.iter().all(|connection| kept(&engine, &pool, connection)));
        hand_over(&engine, worker);
        assert!(get(&engine, &pool, "c").is_some() && get(&engine, &pool, "c").is_some());
        assert_eq!(get(&engine, &pool, "c"), None);
        assert_eq!(totals(&engine, &pool), [5, 5, 0, 0]);
        assert_eq!(engine.pool_stats(&pool).counts.taken_over, 3);
    }

    #[test]
    fn a_limit_that_is_lowered_holds_and_idle_connections_above_it_are_closed() {
        for theirs in [false, true] {
            for (each, total, endpoint) in [(1, 5, A), (3, 1, A), (3, 1, B)] {
                let (engine, _, wide) = fresh();
                let held: Vec<_> = (0..3).map(|_| get(&engine, &wide, A).unwrap()).collect();
                assert!(held.iter().all(|connection| kept(&engine, &wide, connection)));
                if theirs {
                    hand_over(&engine, other(&engine, 9, true));
                }
                let narrow = pool(&engine, each, total);
                assert!(get(&engine, &narrow, endpoint).is_some());
                assert_eq!(get(&engine, &narrow, endpoint), None);
                let [active, there, idle, _] = totals(&engine, &narrow);
                assert_eq!((active, there), (1, 1));
                assert!(active + idle <= total, "{idle} are kept of {total}");
            }
        }
    }

    #[test]
    fn a_process_whose_idle_connection_is_gone_does_not_hand_it_out() {
        let (engine, _, pool) = fresh();
        let mine = get(&engine, &pool, A).unwrap();
        assert!(kept(&engine, &pool, &mine));
        // Somebody takes the pool's half, and is stopped before it comes to the other one.
        let worker = other(&engine, 9, true);
        let place = engine.endpoint_at(&pool, u64::from(mine.record)).unwrap();
        let record = engine.pool_record(&pool).unwrap();
        let leases = engine.connections(&record);
        let mut idle = Vec::new();
        leases.each_held(|claim| idle.push(claim));
        let half = &engine.region().chunks()[idle[0].chunk].holders[idle[0].slot];
        half.store(LeaseWord::new(worker.raw(), 5, 0), Ordering::SeqCst);
        assert!(!engine.connection_is_healthy(&pool, &mine));
        let next = get(&engine, &pool, A).unwrap();
        assert_ne!(next.used.generation, mine.used.generation);
        let mut held = 0;
        engine.connections(&place).each_held(|_| held += 1);
        assert_eq!((held, engine.pool_stats(&pool).counts.reused), (1, 0));
    }

    #[test]
    fn halves_that_are_left_idle_are_used_or_swept() {
        let (engine, _, pool) = fresh();
        let mine = get(&engine, &pool, A).unwrap();
        assert!(kept(&engine, &pool, &mine));
        let endpoint = engine.endpoint_at(&pool, u64::from(mine.record)).unwrap();
        let record = engine.pool_record(&pool).unwrap();
        let lose = |found: &Found<'_>| {
            engine.connections(found).each_held(|claim| {
                engine.connections(found).release(claim);
            });
        };
        lose(&endpoint);
        assert_eq!(totals(&engine, &pool), [0, 0, 1, 0]);
        engine.sweep_pool(&pool).unwrap();
        assert_eq!(totals(&engine, &pool), [0; 4]);
        let again = get(&engine, &pool, A).unwrap();
        assert!(kept(&engine, &pool, &again));
        lose(&record);
        assert_eq!(totals(&engine, &pool), [0, 0, 0, 1]);
        engine.sweep_pool(&pool).unwrap();
        assert_eq!(totals(&engine, &pool), [0; 4]);
        assert_eq!(engine.pool_stats(&pool).counts.expired, 0);
    }

    #[test]
    fn time_is_over_for_idle_and_for_old_connections() {
        let (engine, clock, pool) = fresh();
        let first = get(&engine, &pool, A).unwrap();
        assert!(kept(&engine, &pool, &first));
        clock.advance_s(60);
        assert!(engine.connection_is_healthy(&pool, &first));
        let again = get(&engine, &pool, A).unwrap();
        assert_eq!(again.used.generation, first.used.generation);
        assert!(kept(&engine, &pool, &again));
        clock.advance_s(61);
        assert!(!engine.connection_is_healthy(&pool, &again));
        let fresh = get(&engine, &pool, A).unwrap();
        assert_ne!(fresh.used.generation, first.used.generation);
        assert_eq!(engine.pool_stats(&pool).counts.expired, 1);
        // In use for too long: it is not kept.
        clock.advance_s(601);
        assert!(!engine.connection_is_healthy(&pool, &fresh));
        assert_eq!(engine.return_connection(&pool, &fresh), Ended::Closed);
        let last = get(&engine, &pool, A).unwrap();
        assert!(kept(&engine, &pool, &last));
        clock.advance_s(61);
        hand_over(&engine, other(&engine, 9, true));
        assert_eq!(engine.sweep_pool(&pool), Ok(1));
        assert_eq!(totals(&engine, &pool), [0; 4]);
        assert_eq!(engine.pool_stats(&pool).counts.expired, 3);
    }

    #[test]
    fn what_the_dead_held_is_free() {
        let (engine, _, pool) = fresh();
        for _ in 0..3 {
            assert!(get(&engine, &pool, A).is_some());
        }
        hand_over(&engine, other(&engine, 9, false));
        assert!(get(&engine, &pool, A).is_some());
        assert_eq!(totals(&engine, &pool), [1, 1, 0, 0]);
        hand_over(&engine, other(&engine, 9, false));
        assert_eq!(totals(&engine, &pool), [0; 4], "a look suffices");
    }

    #[test]
    fn three_failures_in_a_row_make_an_endpoint_unhealthy() {
        let (engine, clock, pool) = fresh();
        let connection = get(&engine, &pool, A).unwrap();
        let healthy = || engine.connection_is_healthy(&pool, &connection);
        let cause = Cause::new(None, "status 503");
        let fail = || engine.report_connection(&pool, &connection, Some(&cause)).unwrap();
        assert!(fail() && fail() && healthy());
        assert_eq!(engine.report_connection(&pool, &connection, None), Ok(true));
        assert!(fail() && fail() && healthy() && fail() && !healthy());
        let stats = &engine.pool_stats(&pool).endpoints[0];
        assert_eq!((stats.failures_in_a_row, stats.failures_total, stats.healthy), (3, 5, false));
        assert_eq!(stats.last_failure, Some((FailureKind::Server, 503, 0)));
        assert!(get(&engine, &pool, A).is_some(), "it recovers by being used");
        clock.advance_s(30);
        assert!(healthy() && fail() && !healthy());
        assert_eq!(engine.report_connection(&pool, &connection, None), Ok(true));
        assert!(healthy());
    }

    #[test]
    fn endpoints_that_nobody_needs_make_room() {
        let (engine, _, pool) = fresh();
        let most = engine.region().endpoints().len();
        let held = get(&engine, &pool, "held").unwrap();
        for n in 0..3 * most {
            let connection = get(&engine, &pool, &format!("https://{n}")).unwrap();
            engine.remove_connection(&pool, &connection);
        }
        assert!(kept(&engine, &pool, &held));
        assert_eq!(pool_of(&engine), pool.slot);
        assert_eq!(engine.pool_stats(&pool).counts.refused, 0);
    }

    #[test]
    fn idle_connections_make_room_in_the_tables() {
        let (engine, _) = engine();
        let pool = pool(&engine, 3, 60_000);
        let most = engine.region().endpoints().len().max(engine.region().chunks().len());
        for n in 0..3 * most {
            let connection = get(&engine, &pool, &format!("https://{n}")).unwrap();
            assert!(kept(&engine, &pool, &connection));
        }
        let [active, there, idle, idle_there] = totals(&engine, &pool);
        assert_eq!((active, there, idle), (0, 0, idle_there));
        let counts = engine.pool_stats(&pool).counts;
        assert_eq!((counts.refused, counts.created), (0, 3 * most as u64));
        assert_eq!(counts.taken_over + idle, counts.created);
    }

    fn pool_of(engine: &Engine) -> usize {
        engine.pool("default", Settings::default()).unwrap().slot
    }

    #[test]
    fn ids_are_read_as_they_are_written_and_in_no_other_way() {
        let (engine, _, pool) = fresh();
        let connection = get(&engine, &pool, "https://u:secret@a#x").unwrap();
        let id = connection.id("https://u:secret@a#x");
        assert!(id.starts_with("https://a#") && !id.contains("secret"), "{id}");
        assert_eq!(Connection::parse(&id), Some(connection));
        assert_eq!(id, format!("https://a#{connection}"));
        let most = Connection {
            record: u32::MAX,
            used: Use { slot: MAX_SLOTS - 1, generation: u64::from(u32::MAX), number: 0xffff },
        };
        assert_eq!(Connection::parse(&most.id("")), Some(most));
        for wrong in [
            "",
            "#",
            "a",
            "a#1.2.3",
            "a#1.2.3.4.5",
            "a#1.2.3.x",
            "a#1.2.3.04",
            "a#1.2.3.",
            "a#.2.3.4",
            "1.2.3.4",
            "a#1.2.3.10000",
            "a#1.10000.3.4",
            "a#1.2.100000000.4",
            "a#1.2.3.A",
            "a#1.2.3.4 ",
            "a#111111111.2.3.4",
            "a#1.2.3.\u{661}",
        ] {
            assert_eq!(Connection::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let (engine, _) = engine();
        let valid = Settings::default();
        for settings in [
            Settings { max_per_endpoint: 0, ..valid },
            Settings { max_total: MAX_SLOTS, ..valid },
            Settings { keep: Keep { idle_s: YEAR_S + 1, age_s: 0 }, ..valid },
        ] {
            assert!(matches!(engine.pool("p", settings), Err(OpError::OutOfRange)));
        }
    }

    /// Threads of one process and the idle connections of each other: each connection has one user at a time, and
    /// there are never more than the limits.
    #[test]
    fn threads_never_share_a_connection() {
        let (engine, _) = engine();
        let pool = pool(&engine, 3, 4);
        let (engine, pool) = (&engine, &pool);
        let in_use = &std::sync::Mutex::new(BTreeSet::new());
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for n in 0..2_000 {
                        let endpoint = [A, B][(n + thread) % 2];
                        let Some(connection) = get(engine, pool, endpoint) else { continue };
                        let place = (connection.record, connection.used.slot);
                        {
                            let mut in_use = in_use.lock().unwrap();
                            assert!(in_use.insert(place), "{connection} twice");
                            assert!(in_use.len() <= 4);
                        }
                        std::thread::yield_now();
                        assert!(in_use.lock().unwrap().remove(&place));
                        let ended = if n % 5 == 0 {
                            engine.remove_connection(pool, &connection)
                        } else {
                            engine.return_connection(pool, &connection)
                        };
                        assert_ne!(ended, Ended::Stale);
                    }
                });
            }
        });
        engine.sweep_pool(pool).unwrap();
        let [active, of_endpoints, idle, idle_there] = totals(engine, pool);
        assert_eq!((active, of_endpoints, idle), (0, 0, idle_there));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 200 }))]
        /// One process agrees with a plain list of connections in use and a stack of idle ones for each endpoint.
        #[test]
        fn agrees_with_a_plain_pool(
            each in 1_u64..5, total in 1_u64..8,
            ops in prop::collection::vec((0_u8..8, 0_usize..3, 0_usize..20), 1..80),
        ) {
            let (engine, _) = engine();
            let pool = pool(&engine, each, total);
            let names = ["x", "y", "z"];
            let mut used: Vec<(usize, Connection)> = Vec::new();
            let mut idle: [Vec<Connection>; 3] = Default::default();
            let mut ended: Vec<Connection> = Vec::new();
            for (op, endpoint, pick) in ops {
                match op {
                    0..4 => {
                        let active = used.iter().filter(|(at, _)| *at == endpoint).count() as u64;
                        let kept: usize = idle.iter().map(Vec::len).sum();
                        let full = used.len() as u64 == total || active == each;
                        let got = get(&engine, &pool, names[endpoint]);
                        let here = idle[endpoint].pop();
                        prop_assert_eq!(got.is_some(), here.is_some() || !full);
                        if let (Some(before), Some(now)) = (here, got) {
                            prop_assert_eq!(before.used.generation, now.used.generation);
                        } else if got.is_some() && (used.len() + kept) as u64 == total {
                            // Of the same second, the one that made room is any.
                            let left = |c: &Connection| engine.sight(&pool, c).is_some();
                            for stack in &mut idle {
                                stack.retain(left);
                            }
                        }
                        used.extend(got.map(|connection| (endpoint, connection)));
                    }
                    4..6 if !used.is_empty() => {
                        let (at, connection) = used.swap_remove(pick % used.len());
                        prop_assert!(kept(&engine, &pool, &connection));
                        idle[at].push(connection);
                        ended.push(connection);
                    }
                    6 if !used.is_empty() => {
                        let (_, connection) = used.swap_remove(pick % used.len());
                        prop_assert_eq!(engine.remove_connection(&pool, &connection), Ended::Closed);
                        ended.push(connection);
                    }
                    7 if !ended.is_empty() => {
                        let late = ended[pick % ended.len()];
                        prop_assert_eq!(engine.return_connection(&pool, &late), Ended::Stale);
                    }
                    _ => {}
                }
                let kept: usize = idle.iter().map(Vec::len).sum();
                let (active, kept) = (used.len() as u64, kept as u64);
                prop_assert_eq!(totals(&engine, &pool), [active, active, kept, kept]);
                prop_assert!(active + kept <= total);
            }
        }
    }
}
