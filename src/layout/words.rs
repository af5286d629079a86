//! Every packed word of the region. All zeroes always means unused, full quota, healthy.

use super::packed::PackedInfo;

packed! {
    /// State of one GCRA quota: everything a decision needs, so that one swap is the decision.
    pub struct GcraWord {
        /// Theoretical arrival time, microseconds since the region's clock base.
        tat_us @ 0, 48;
        /// Counts how often the quota was found idle; a refund applies only while it is unchanged.
        idle_epoch @ 48, 16;
    }
}

packed! {
    /// An anchored window: it starts with its first request and is over `size_s` later.
    pub struct WindowWord {
        /// First second of the window, seconds since the region's clock base.
        start_s @ 0, 32;
        /// Length in seconds; 0 = never opened.
        size_s @ 32, 32;
    }
}

packed! {
    /// A counter that expires with its window, or by itself when it was written outside one.
    pub struct CounterWord {
        /// Count: two's complement in 38 bits, saturating.
        count_bits @ 0, 38;
        /// Low bits of the window's `start_s`, or of the second at which a loose counter expires.
        tag @ 38, 25;
        /// 1 = loose: expires at `tag`; 0 = belongs to the window whose start is `tag`.
        loose @ 63, 1;
    }
}

packed! {
    /// Who is whom in the worker table. Registering is one swap of this word.
    pub struct ClaimWord {
        /// `WorkerState`.
        state @ 0, 2;
        /// Process id in the region's pid namespace.
        pid @ 2, 22;
        /// Low bits of the process's start time in clock ticks.
        start_low @ 24, 18;
        /// Registrations of this row so far; never reused, the row retires when it runs out.
        generation @ 42, 22;
    }
}

packed! {
    /// One held lease; 0 = free.
    pub struct LeaseWord {
        /// `OwnerTag` of the holder.
        owner @ 0, 32;
        /// When it was acquired, or last renewed or kept, seconds since the region's clock base.
        acquired_s @ 32, 31;
        /// 1 = the holder keeps it without using it; whoever needs it may take it over. Of connections only.
        idle @ 63, 1;
    }
}

packed! {
    /// What a slot's holder is found by.
    pub struct TagWord {
        /// Counts what was written here, wrapping.
        writes @ 0, 16;
        /// High bits of the hash of the holder's slot id; 0 = it has none, or the slot was freed.
        hash @ 16, 48;
    }
}

packed! {
    /// What is known of a key's concurrency limit.
    pub struct LeaseLimits {
        /// Limit of the latest acquire, saturating; 0 = none seen.
        limit @ 0, 26;
        /// One above the highest slot tried since none was held; from here on there are no held slots.
        high_water @ 26, 26;
        /// Counts the attempts to lower `high_water`, wrapping.
        attempts @ 52, 11;
        /// 1 = somebody is about to lower `high_water`; whoever claims a slot takes that back.
        lowering @ 63, 1;
    }
}

packed! {
    /// Who stands in a slot of a keyed table: the word is the key, so that one swap gives it the slot.
    pub struct IdentityWord {
        /// `SlotState`.
        state @ 0, 2;
        /// `KeyKind`; 0 in a slot that is free.
        kind @ 2, 3;
        /// Counts the keys that stood here and the attempts to give them up, wrapping.
        version @ 5, 8;
        /// Keyed hash of the key's bytes; while it is being inserted, 19 bits of it above a nonce of 32.
        hash @ 13, 51;
    }
}

packed! {
    /// State of a key's printable name.
    pub struct NameWord {
        /// 0 = absent, 1 = being written, 2 = complete.
        state @ 0, 2;
        /// Bytes of UTF-8.
        length @ 2, 8;
        /// Hash of the bytes; while `state` is 1, a nonce of the writer.
        check @ 10, 22;
        /// `OwnerTag` of the writer while `state` is 1.
        owner @ 32, 32;
    }
}

packed! {
    /// The limits last seen for a key, for display.
    pub struct PairWord {
        /// `window`: requests per window, `gcra`: requests per minute, `sliding`: limit; 0 = unknown.
        requests @ 0, 32;
        /// `window`: tokens per window, `gcra`: burst, `sliding`: seconds; 0 = unknown.
        tokens @ 32, 32;
    }
}

packed! {
    /// A sliding window over two aligned ones: what the previous one still weighs, plus the current one.
    pub struct SlidingWord {
        /// Low bits of the number of the current window (time since the clock base over its length).
        window @ 0, 16;
        /// Units charged in the window before it, saturating.
        previous @ 16, 24;
        /// Units charged in it, saturating.
        current @ 40, 24;
    }
}

packed! {
    /// A cooldown: nothing is sent to its subject before `until_ms`.
    pub struct CooldownWord {
        /// Milliseconds since the region's clock base; 0 = never cooled down.
        until_ms @ 0, 40;
        /// `FailureKind` that caused it.
        reason @ 40, 8;
        /// How often it was begun, wrapping.
        trips @ 48, 16;
    }
}

packed! {
    /// An exponentially weighted moving average.
    pub struct EwmaWord {
        /// The average in sixteenths of a microsecond, saturating.
        value @ 0, 40;
        /// Samples so far, up to the weight's length; 0 = none.
        samples @ 40, 8;
        /// Low bits of the second of the latest sample.
        last_s @ 48, 16;
    }
}

packed! {
    /// One recent measurement; 0 = none.
    pub struct SampleWord {
        /// Microseconds, saturating, at least 1.
        value_us @ 0, 40;
        /// Low bits of the second it was taken at.
        at_s @ 40, 24;
    }
}

packed! {
    /// What a cooldown is for: how long it is meant to last, and what caused it.
    pub struct CauseWord {
        /// Milliseconds that it lasts from its beginning, or from when it was lengthened.
        for_ms @ 0, 32;
        /// HTTP status of the failure that caused it, 0 = none.
        status @ 32, 10;
        /// Hash of the deployment and its `CooldownWord`: a cause of another cooldown does not agree with it.
        mark @ 42, 22;
    }
}

packed! {
    /// A text that many may write at once; 0 = none.
    pub struct TextWord {
        /// Bytes of UTF-8.
        length @ 0, 8;
        /// Hash of the text and of what it belongs to: a mixture of two does not agree with it.
        check @ 8, 56;
    }
}

packed! {
    /// Who leads a job, and the number of its term.
    pub struct TermWord {
        /// Counts the terms, wrapping.
        number @ 0, 32;
        /// `OwnerTag` of the leader; 0 = none yet, or it has resigned.
        owner @ 32, 32;
    }
}

packed! {
    /// When a term began, for display.
    pub struct SinceWord {
        /// Seconds since the region's clock base.
        began_s @ 0, 32;
        /// Number of the term.
        number @ 32, 32;
    }
}

packed! {
    /// Which sheet of a notice is the current one; 0 = none was published.
    pub struct BoardWord {
        /// The sheet.
        sheet @ 0, 1;
        /// Counts what was published, wrapping.
        writes @ 1, 63;
    }
}

packed! {
    /// The latest failure of a deployment.
    pub struct FailureWord {
        /// `FailureKind`; 0 = none yet.
        kind @ 0, 8;
        /// HTTP status, 0 = none.
        status @ 8, 10;
        /// When, seconds since the region's clock base.
        at_s @ 32, 32;
    }
}

packed! {
    /// A circuit breaker: open while `errors` is at its threshold and `last_s` is recent.
    pub struct BreakerWord {
        /// Errors that are not yet forgotten, saturating.
        errors @ 0, 24;
        /// When the latest error or probe happened, seconds since the region's clock base.
        last_s @ 24, 32;
        /// How often it opened, wrapping.
        trips @ 56, 8;
    }
}

packed! {
    /// A feature's switch for all processes; 0 = each follows its own configuration.
    pub struct FlagWord {
        /// `FlagMode`.
        mode @ 0, 2;
        /// With mode percent: of a hundred requests, how many use the feature.
        percent @ 2, 7;
        /// Counts the changes, wrapping.
        revision @ 32, 32;
    }
}

/// Owner of leases and names: `row:10 | generation:22` of the worker table. Never 0, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnerTag(u32);

impl OwnerTag {
    /// Highest generation; a row that reaches it is retired.
    pub const MAX_GENERATION: u64 = (1 << 22) - 1;
    /// Rows an owner tag can name.
    pub const MAX_ROWS: u32 = 1 << 10;

    /// Tag of a row's registration; `None` when either is out of range.
    pub fn new(row: u32, generation: u64) -> Option<Self> {
        let valid = row < Self::MAX_ROWS && (1..=Self::MAX_GENERATION).contains(&generation);
        valid.then(|| {
            let generation = u32::try_from(generation).unwrap_or(0);
            Self(row | (generation << 10))
        })
    }

    /// From 32 bits read in the region; `None` when no registration can have written them.
    pub fn from_raw(raw: u64) -> Option<Self> {
        let raw = u32::try_from(raw).ok()?;
        (raw >> 10 != 0).then_some(Self(raw))
    }

    /// The 32 bits.
    pub fn raw(self) -> u64 {
        u64::from(self.0)
    }

    /// Row in the worker table.
    pub fn row(self) -> u32 {
        self.0 & (Self::MAX_ROWS - 1)
    }

    /// Registration of that row.
    pub fn generation(self) -> u64 {
        u64::from(self.0 >> 10)
    }
}

/// What a record of a keyed table holds; part of its identity, so that a record never changes its meaning
/// while its key stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum KeyKind {
    /// A GCRA quota.
    Gcra = 1,
    /// An anchored window with its counters, and the concurrency slots of the same subject.
    Window = 2,
    /// One counter with an expiry of its own.
    Counter = 3,
    /// A sliding window.
    Sliding = 4,
    /// What reclaimed keys of one limiter have been admitted and refused.
    Tally = 5,
    /// In another table than the keys: a chunk of lease slots.
    Chunk = 6,
    /// In another table than the keys: a deployment, a series of measurements, a job, a notice.
    Named = 7,
}

impl KeyKind {
    /// Decodes the range of an identity word.
    pub fn from_raw(raw: u64) -> Option<Self> {
        [
            Self::Gcra,
            Self::Window,
            Self::Counter,
            Self::Sliding,
            Self::Tally,
            Self::Chunk,
            Self::Named,
        ]
        .into_iter()
        .find(|&kind| kind as u64 == raw)
    }

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gcra => "gcra",
            Self::Window => "window",
            Self::Counter => "counter",
            Self::Sliding => "sliding",
            Self::Tally => "tally",
            Self::Chunk => "chunk",
            Self::Named => "named",
        }
    }
}

/// State of a slot of a keyed table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum SlotState {
    /// Nobody's. A word of zero has never been anybody's, and ends every search.
    Free = 0,
    /// Somebody is inserting a key here; anybody may take the slot away again.
    Claimed = 1,
    /// A key stands here.
    Taken = 2,
    /// A key stands here whose record is about to be given up; whoever uses it takes it back.
    Leaving = 3,
}

impl SlotState {
    /// Decodes the two bits.
    pub fn from_raw(raw: u64) -> Self {
        match raw & 3 {
            0 => Self::Free,
            1 => Self::Claimed,
            2 => Self::Taken,
            _ => Self::Leaving,
        }
    }
}

/// Why a deployment failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum FailureKind {
    /// None, or none known.
    None = 0,
    /// It said that a rate limit is exhausted (HTTP 429).
    RateLimited = 1,
    /// It did not answer in time (HTTP 408 or none).
    Timeout = 2,
    /// It refused the credentials (HTTP 401, 403).
    Authentication = 3,
    /// It does not know the model (HTTP 404).
    NotFound = 4,
    /// It refused the request (other HTTP 4xx).
    BadRequest = 5,
    /// It failed (HTTP 5xx).
    Server = 6,
    /// No connection.
    Connection = 7,
    /// An operator said so.
    Manual = 8,
    /// Anything else.
    Other = 255,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::None,
        Self::RateLimited,
        Self::Timeout,
        Self::Authentication,
        Self::NotFound,
        Self::BadRequest,
        Self::Server,
        Self::Connection,
        Self::Manual,
        Self::Other,
    ];

    /// Decodes eight bits; what is unknown here is [`Self::Other`].
    pub fn from_raw(raw: u64) -> Self {
        Self::ALL.into_iter().find(|&kind| kind as u64 == raw).unwrap_or(Self::Other)
    }

    /// From an HTTP status; 0 = no answer.
    pub fn from_status(status: u64) -> Self {
        match status {
            0 => Self::Connection,
            401 | 403 => Self::Authentication,
            404 => Self::NotFound,
            408 => Self::Timeout,
            429 => Self::RateLimited,
            400..=499 => Self::BadRequest,
            500..=599 => Self::Server,
            _ => Self::Other,
        }
    }

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::RateLimited => "rate_limited",
            Self::Timeout => "timeout",
            Self::Authentication => "authentication",
            Self::NotFound => "not_found",
            Self::BadRequest => "bad_request",
            Self::Server => "server",
            Self::Connection => "connection",
            Self::Manual => "manual",
            Self::Other => "other",
        }
    }
}

/// What an event tells, and what its two details mean. Numbers are never reused. `subject` is the identity
/// word of the key or deployment where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum EventKind {
    /// A cooldown was begun. a: its milliseconds. b: `FailureKind`.
    CooldownBegun = 1,
    /// A cooldown was ended by hand. a: milliseconds that were left. b: 0.
    CooldownCleared = 2,
    /// A dead worker was reaped. a: its pid. b: leases that were freed.
    WorkerReaped = 3,
    /// A breaker opened. a: number of the feature. b: errors.
    BreakerOpened = 4,
    /// A breaker was closed. a: number of the feature. b: 0 = by a probe, 1 = by hand.
    BreakerClosed = 5,
    /// No room was found in a table. a: number of its section. b: its records.
    TableFull = 6,
    /// A key without room was treated by the overflow policy. a: the policy, as in the header. b: `KeyKind`.
    Overflowed = 7,
    /// An idle key was given up to make room. a: operations it had admitted. b: refused.
    KeyReclaimed = 8,
    /// A feature's switch was moved. a: number of the feature. b: the new `FlagWord`.
    FlagChanged = 9,
    /// The overflow policy was changed. a: the old one. b: the new one.
    OverflowChanged = 10,
    /// A process adopted the region. a: the new epoch. b: its pid.
    RegionAdopted = 11,
    /// A key was used with other limits than before. a: the old `PairWord`. b: the new one.
    LimitsChanged = 12,
    /// An impossible value was corrected. a: the word as it was found. b: as it was left.
    Corrected = 13,
    /// A process was given a job to lead. a: number of the term. b: its pid.
    LeaderBegan = 14,
    /// Somebody changed the subject, or the region, by a command. a: uid of who ran it. b: `HandCommand`.
    ByHand = 15,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::CooldownBegun,
        Self::CooldownCleared,
        Self::WorkerReaped,
        Self::BreakerOpened,
        Self::BreakerClosed,
        Self::TableFull,
        Self::Overflowed,
        Self::KeyReclaimed,
        Self::FlagChanged,
        Self::OverflowChanged,
        Self::RegionAdopted,
        Self::LimitsChanged,
        Self::Corrected,
        Self::LeaderBegan,
        Self::ByHand,
    ];

    /// Decodes the word of an event; `None` = a newer build's, or damage.
    pub fn from_raw(raw: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u64 == raw)
    }

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::CooldownBegun => "cooldown_begun",
            Self::CooldownCleared => "cooldown_cleared",
            Self::WorkerReaped => "worker_reaped",
            Self::BreakerOpened => "breaker_opened",
            Self::BreakerClosed => "breaker_closed",
            Self::TableFull => "table_full",
            Self::Overflowed => "overflowed",
            Self::KeyReclaimed => "key_reclaimed",
            Self::FlagChanged => "flag_changed",
            Self::OverflowChanged => "overflow_changed",
            Self::RegionAdopted => "region_adopted",
            Self::LimitsChanged => "limits_changed",
            Self::Corrected => "corrected",
            Self::LeaderBegan => "leader_began",
            Self::ByHand => "by_hand",
        }
    }
}

/// A command that changes a region, as an event tells it. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum HandCommand {
    /// What the dead own is freed.
    Reap = 1,
    /// What a key was charged is forgotten; without a subject: of all keys.
    Reset = 2,
    /// A deployment's cooldown is ended; without a subject: of all deployments.
    ClearCooldown = 3,
    /// A feature's switch is moved, or its errors are forgotten.
    Feature = 4,
}

impl HandCommand {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Reap, Self::Reset, Self::ClearCooldown, Self::Feature];

    /// Decodes the word of an event; `None` = a newer build's, or damage.
    pub fn from_raw(raw: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|&command| command as u64 == raw)
    }

    /// The command, as it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reap => "reap",
            Self::Reset => "reset",
            Self::ClearCooldown => "cooldown clear",
            Self::Feature => "feature",
        }
    }
}

/// How a feature's switch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum FlagMode {
    /// Each process follows its own configuration.
    Own = 0,
    /// Off everywhere.
    Off = 1,
    /// On everywhere.
    On = 2,
    /// On for some requests of a hundred.
    Percent = 3,
}

impl FlagMode {
    /// Decodes the two bits.
    pub fn from_raw(raw: u64) -> Self {
        match raw & 3 {
            0 => Self::Own,
            1 => Self::Off,
            2 => Self::On,
            _ => Self::Percent,
        }
    }

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Off => "off",
            Self::On => "on",
            Self::Percent => "percent",
        }
    }
}

/// State of a worker row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum WorkerState {
    /// Nobody's.
    Free = 0,
    /// Registered; says nothing about whether the process still lives.
    Live = 1,
    /// Its process is proven dead and its leases are being reaped.
    Dead = 2,
    /// Out of generations, never used again.
    Retired = 3,
}

impl WorkerState {
    /// Decodes the two bits.
    pub fn from_raw(raw: u64) -> Self {
        match raw & 3 {
            0 => Self::Free,
            1 => Self::Live,
            2 => Self::Dead,
            _ => Self::Retired,
        }
    }
}

impl LeaseLimits {
    /// Largest limit that can be remembered: twice as many slots as a region can have.
    pub const MAX_LIMIT: u64 = (1 << 26) - 1;
}

const COUNT_BITS: u32 = 38;
const TAG_MASK: u64 = (1 << 25) - 1;

impl CounterWord {
    /// Largest count; additions saturate here.
    pub const MAX: i64 = (1 << (COUNT_BITS - 1)) - 1;
    /// Smallest count.
    pub const MIN: i64 = -(1 << (COUNT_BITS - 1));
    /// Longest life of a loose counter in seconds (194 days): half of what `tag` can tell apart.
    pub const MAX_TTL_S: u64 = TAG_MASK / 2;

    /// A counter of the window that started at `start_s`.
    pub fn of_window(start_s: u64, count: i64) -> Self {
        Self::new(Self::encode(count), start_s & TAG_MASK, 0)
    }

    /// A counter of its own that expires at second `expires_s`.
    pub fn loose_until(expires_s: u64, count: i64) -> Self {
        Self::new(Self::encode(count), expires_s & TAG_MASK, 1)
    }

    #[allow(clippy::cast_sign_loss, reason = "two's complement is the encoding")]
    fn encode(count: i64) -> u64 {
        count.clamp(Self::MIN, Self::MAX) as u64
    }

    /// The count.
    #[allow(clippy::cast_possible_wrap, reason = "two's complement is the encoding")]
    pub fn count(self) -> i64 {
        ((self.count_bits() << (64 - COUNT_BITS)) as i64) >> (64 - COUNT_BITS)
    }

    /// The count if the counter belongs to the window that started at `start_s`.
    pub fn in_window(self, start_s: u64) -> Option<i64> {
        (self.loose() == 0 && self.tag() == start_s & TAG_MASK).then(|| self.count())
    }

    /// Seconds left if the counter is loose and has not expired at `now_s`.
    pub fn loose_left(self, now_s: u64) -> Option<u64> {
        let left = self.tag().wrapping_sub(now_s) & TAG_MASK;
        (self.loose() == 1 && left != 0 && left <= Self::MAX_TTL_S).then_some(left)
    }
}

impl WindowWord {
    /// Seconds left at `now_s`, or `None` when the window was never opened or is over. `size_s` is the
    /// caller's idea of its length; the shorter of the two counts, as a key's expiry and a caller's
    /// check both end a window.
    pub fn left(self, now_s: u64, size_s: u64) -> Option<u64> {
        let size = self.size_s().min(size_s);
        let age = now_s.saturating_sub(self.start_s());
        (age < size).then(|| size - age)
    }
}

/// Descriptions of all packed words.
pub fn all() -> Vec<PackedInfo> {
    vec![
        ClaimWord::INFO,
        IdentityWord::INFO,
        GcraWord::INFO,
        WindowWord::INFO,
        CounterWord::INFO,
        PairWord::INFO,
        LeaseLimits::INFO,
        LeaseWord::INFO,
        TagWord::INFO,
        NameWord::INFO,
        BreakerWord::INFO,
        FlagWord::INFO,
        SlidingWord::INFO,
        CooldownWord::INFO,
        EwmaWord::INFO,
        SampleWord::INFO,
        CauseWord::INFO,
        TextWord::INFO,
        TermWord::INFO,
        SinceWord::INFO,
        BoardWord::INFO,
        FailureWord::INFO,
    ]
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packed_ranges_do_not_touch_each_other(a: u64, b: u64, c: u64, d: u64) {
            let claim = ClaimWord::new(a, b, c, d);
            prop_assert_eq!(claim.state(), a & 3);
            prop_assert_eq!(claim.pid(), b & ((1 << 22) - 1));
            prop_assert_eq!(claim.start_low(), c & ((1 << 18) - 1));
            prop_assert_eq!(claim.generation(), d & ((1 << 22) - 1));
        }

        #[test]
        fn counter_keeps_every_count_it_can_hold(start in 0..u64::from(u32::MAX), count in CounterWord::MIN..=CounterWord::MAX) {
            prop_assert_eq!(CounterWord::of_window(start, count).in_window(start), Some(count));
            prop_assert_eq!(CounterWord::of_window(start, count).in_window(start + 1), None);
            prop_assert_eq!(CounterWord::of_window(start, count).loose_left(start), None);
        }

        #[test]
        fn counter_saturates(count: i64) {
            let kept = CounterWord::of_window(0, count).count();
            prop_assert_eq!(kept, count.clamp(CounterWord::MIN, CounterWord::MAX));
        }

        #[test]
        fn loose_counter_lives_exactly_its_ttl(now in 0..u64::from(u32::MAX), ttl in 1..CounterWord::MAX_TTL_S) {
            let word = CounterWord::loose_until(now + ttl, 7);
            prop_assert_eq!(word.loose_left(now), Some(ttl));
            prop_assert_eq!(word.loose_left(now + ttl), None);
            prop_assert_eq!(word.loose_left(now + ttl + 1000), None);
            prop_assert_eq!(word.in_window(now), None);
        }

        #[test]
        fn owner_tag_round_trips(row in 0..OwnerTag::MAX_ROWS, generation in 1..=OwnerTag::MAX_GENERATION) {
            let tag = OwnerTag::new(row, generation).unwrap();
            prop_assert_eq!((tag.row(), tag.generation()), (row, generation));
            prop_assert_eq!(OwnerTag::from_raw(tag.raw()), Some(tag));
        }
    }

    #[test]
    fn zero_is_the_default_state_of_every_word() {
        assert_eq!(WindowWord::default().left(5, 60), None);
        assert_eq!(CounterWord::default().count(), 0);
        assert_eq!(OwnerTag::from_raw(0), None);
        assert_eq!(WorkerState::from_raw(ClaimWord::default().state()), WorkerState::Free);
        assert_eq!(OwnerTag::new(0, 0), None);
        assert_eq!(OwnerTag::new(0, OwnerTag::MAX_GENERATION + 1), None);
    }

    #[test]
    fn numbers_of_kinds_and_modes_are_what_is_documented() {
        for (number, kind) in (1..).zip(EventKind::ALL) {
            assert_eq!(kind as u64, number, "numbers are never reused");
            assert_eq!(EventKind::from_raw(number), Some(kind));
        }
        assert_eq!(EventKind::from_raw(0), None);
        assert_eq!(EventKind::from_raw(EventKind::ALL.len() as u64 + 1), None);
        let names: std::collections::HashSet<_> = EventKind::ALL.map(EventKind::name).into();
        assert_eq!(names.len(), EventKind::ALL.len());
        for (number, command) in (1..).zip(HandCommand::ALL) {
            assert_eq!((command as u64, HandCommand::from_raw(number)), (number, Some(command)));
        }
        assert_eq!(HandCommand::from_raw(HandCommand::ALL.len() as u64 + 1), None);
        for mode in [FlagMode::Own, FlagMode::Off, FlagMode::On, FlagMode::Percent] {
            assert_eq!(FlagMode::from_raw(mode as u64), mode);
        }
        assert_eq!(FlagMode::from_raw(FlagWord::default().mode()), FlagMode::Own);
    }

    #[test]
    fn a_window_ends_with_the_shorter_of_both_sizes() {
        let window = WindowWord::new(100, 60);
        assert_eq!(window.left(100, 60), Some(60));
        assert_eq!(window.left(159, 60), Some(1));
        assert_eq!(window.left(160, 60), None);
        assert_eq!(window.left(110, 10), None);
        assert_eq!(window.left(110, 600), Some(50));
    }
}
