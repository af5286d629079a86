//! The records of all sections.

use super::words::{
    BoardWord, BreakerWord, CauseWord, ClaimWord, CooldownWord, CounterWord, EwmaWord, FailureWord,
    FlagWord, IdentityWord, LeaseLimits, LeaseWord, NameWord, PairWord, SampleWord, SinceWord,
    TagWord, TermWord, TextWord, WindowWord,
};
use crate::sync::Word;

/// Lease slots in one chunk.
#[cfg(not(loom))]
pub const CHUNK_SLOTS: usize = 32;
/// Lease slots in one chunk.
#[cfg(loom)]
pub const CHUNK_SLOTS: usize = 2;
/// Bytes of a printable name.
pub const NAME_BYTES: usize = 88;
/// Bytes of the text that says why a deployment is cooled down.
pub const TEXT_BYTES: usize = 128;
/// Most bytes of a notice.
pub const SHEET_BYTES: usize = 131_072;
/// Recent measurements kept of each kind.
pub const SAMPLES: usize = 16;
/// Buckets of a histogram.
pub const HISTOGRAM_BUCKETS: usize = 132;

super::record! {
    /// One worker process.
    #[size(64)] #[align(64)]
    pub struct WorkerRow {
        /// Who holds the row.
        claim: Word<ClaimWord>,
        /// Full start time of the process in clock ticks since boot; 0 = not yet written.
        start_ticks: Word<u64>,
        /// When it registered, seconds since the clock base.
        registered_s: Word<u64>,
        /// Inode of the process's pid namespace; 0 = unknown.
        pid_namespace: Word<u64>,
        /// Reserved, zero.
        reserved: [Word<u64>; 4],
    }
}

super::record! {
    /// Counters of one worker row: written by its holder only, reused by the next holder without being
    /// zeroed, so that sums over all rows never go backwards.
    #[size(256)] #[align(64)]
    pub struct StatsRow {
        /// Window charges that were admitted, unconditional ones included.
        window_charged: Word<u64>,
        /// Conditional window charges that were refused.
        window_denied: Word<u64>,
        /// Charges taken back.
        window_refunded: Word<u64>,
        /// Leases acquired.
        lease_acquired: Word<u64>,
        /// Leases released by their holder.
        lease_released: Word<u64>,
        /// Acquires refused because all slots were held.
        lease_denied: Word<u64>,
        /// Leases freed because their owner is dead.
        lease_reaped: Word<u64>,
        /// Leases freed because they outlived the caller's time to live.
        lease_expired: Word<u64>,
        /// Operations that found no room for a new key or lease chunk.
        table_full: Word<u64>,
        /// Operations that ran out of tries.
        contended: Word<u64>,
        /// Impossible values met in the region and corrected.
        corrected: Word<u64>,
        /// Operations the caller had to do without the region.
        fallbacks: Word<u64>,
        /// Registrations of this row.
        registrations: Word<u64>,
        /// Rows of dead workers this worker reaped.
        workers_reaped: Word<u64>,
        /// Admissions over several limits that were granted.
        admitted: Word<u64>,
        /// Admissions over several limits that were refused.
        refused: Word<u64>,
        /// Refunds that came too late to be given: the capacity had been given away by waiting.
        refunds_dropped: Word<u64>,
        /// Keys refused because the table was full and the policy is `deny`.
        overflow_denied: Word<u64>,
        /// Operations on a key without room that shared a bucket with others.
        overflow_shared: Word<u64>,
        /// Operations on a key without room that were decided in the worker's own memory.
        overflow_local: Word<u64>,
        /// Idle keys whose records were given up to make room.
        keys_reclaimed: Word<u64>,
        /// Idle lease chunks that were given up to make room.
        chunks_reclaimed: Word<u64>,
        /// Charges that met a record which changed hands under them, and were made again.
        misplaced: Word<u64>,
        /// Events that were recorded.
        events: Word<u64>,
        /// Cooldowns begun.
        cooldowns: Word<u64>,
        /// Requests sent to deployments without an in-flight lease, for want of room.
        uncounted: Word<u64>,
        /// Reserved, zero.
        reserved: [Word<u64>; 6],
    }
}

super::record! {
    /// One accelerated feature.
    #[size(64)] #[align(64)]
    pub struct Feature {
        /// Its breaker.
        breaker: Word<BreakerWord>,
        /// Its switch.
        flag: Word<FlagWord>,
        /// Errors since the region was created.
        errors_total: Word<u64>,
        /// Reserved, zero.
        reserved: [Word<u64>; 5],
    }
}

super::record! {
    /// One key and its state, in one cache line. Bucket i owns name i.
    #[size(64)] #[align(64)]
    pub struct Bucket {
        /// The key; 0 = never used.
        identity: Word<IdentityWord>,
        /// `window`: requests. `counter`: the counter. `gcra`: a `GcraWord`. `sliding`: a `SlidingWord`.
        requests: Word<CounterWord>,
        /// `window`: tokens.
        tokens: Word<CounterWord>,
        /// `window`: the window that the counters belong to.
        window: Word<WindowWord>,
        /// `window`: the concurrency limit.
        lease: Word<LeaseLimits>,
        /// The limits last seen: of a `gcra` its rate and burst, of a `sliding` its limit and seconds, of a
        /// `window` requests and tokens.
        limits: Word<PairWord>,
        /// Operations admitted.
        allowed: Word<u64>,
        /// Operations refused.
        denied: Word<u64>,
    }
}

super::record! {
    /// 32 lease slots of one key.
    #[size(576)] #[align(64)]
    pub struct LeaseChunk {
        /// Hash of the key's identity and the chunk's ordinal; 0 = never used.
        identity: Word<IdentityWord>,
        /// Hint: bit i set = slot i was met while it was held, and not freed since. The slots decide.
        hint: Word<u64>,
        /// Bucket of the key, or 2^32 plus the deployment's record, or 2^33 plus the job's, or 3 * 2^32 plus the
        /// endpoint's, plus one; 0 = unknown, or a key without room.
        key_slot: Word<u64>,
        /// Which 32 slots of that key these are.
        ordinal: Word<u64>,
        /// In the chunk of ordinal 0, once a slot above 128 has been in use: leases of the whole key, a hint.
        held: Word<u64>,
        /// Reserved, zero.
        reserved: [Word<u64>; 3],
        /// Who holds each slot; 0 = free.
        holders: [Word<LeaseWord>; CHUNK_SLOTS],
        /// What each holder is found by; changes before a slot is freed.
        tags: [Word<TagWord>; CHUNK_SLOTS],
    }
}

super::record! {
    /// The printable, redacted name of one key.
    #[size(96)] #[align(32)]
    pub struct Name {
        /// Whether `bytes` is complete, and what it must hash to.
        head: Word<NameWord>,
        /// UTF-8, eight bytes to a word, little-endian.
        bytes: [Word<u64>; 11],
    }
}

super::record! {
    /// The health of one deployment, as all workers know it.
    #[size(768)] #[align(64)]
    pub struct Deployment {
        /// The deployment; 0 = never used.
        identity: Word<IdentityWord>,
        /// Requests in flight: what is known of their leases.
        lease: Word<LeaseLimits>,
        /// Its cooldown.
        cooldown: Word<CooldownWord>,
        /// The window that the next two counters belong to.
        window: Word<WindowWord>,
        /// Successes in the window.
        successes: Word<CounterWord>,
        /// Failures in the window.
        failures: Word<CounterWord>,
        /// The latest failure.
        last_failure: Word<FailureWord>,
        /// Average latency.
        latency: Word<EwmaWord>,
        /// Average time to the first token.
        first_token: Word<EwmaWord>,
        /// Successes since it is known.
        successes_total: Word<u64>,
        /// Failures since it is known.
        failures_total: Word<u64>,
        /// Latencies written so far; the next goes to this number modulo 16.
        latency_head: Word<u64>,
        /// Times to the first token written so far.
        first_token_head: Word<u64>,
        /// Consecutive failures; a success makes it 0.
        failures_in_a_row: Word<u64>,
        /// Scores written so far.
        score_head: Word<u64>,
        /// What the cooldown is for.
        cause: Word<CauseWord>,
        /// Length and check of `cause_text`.
        cause_head: Word<TextWord>,
        /// Reserved, zero.
        reserved: [Word<u64>; 3],
        /// Whether `name` is complete.
        name_head: Word<NameWord>,
        /// Printable name, UTF-8.
        name: [Word<u64>; 11],
        /// Recent latencies.
        latencies: [Word<SampleWord>; 16],
        /// Recent times to the first token.
        first_tokens: [Word<SampleWord>; 16],
        /// Recent scores: what a router measures a deployment by, in its own unit.
        scores: [Word<SampleWord>; 16],
        /// Why it is cooled down, in words: UTF-8, without secrets.
        cause_text: [Word<u64>; 16],
    }
}

super::record! {
    /// One named series of measurements. Its histograms are the rows `8 * i .. 8 * i + 8`.
    #[size(128)] #[align(64)]
    pub struct Series {
        /// The series; 0 = never used.
        identity: Word<IdentityWord>,
        /// Measured operations that failed.
        errors: Word<u64>,
        /// Whether `name` is complete.
        name_head: Word<NameWord>,
        /// Printable name, UTF-8.
        name: [Word<u64>; 11],
        /// Bytes that measured operations were given, as far as it was told, wrapping.
        input_bytes: Word<u64>,
        /// Bytes that they gave, wrapping.
        output_bytes: Word<u64>,
    }
}

super::record! {
    /// One of the eight histograms of a series; a process adds to the one of its worker row modulo 8.
    #[size(1088)] #[align(64)]
    pub struct Histogram {
        /// Sum of all values in nanoseconds, wrapping.
        sum_ns: Word<u64>,
        /// Largest value in nanoseconds.
        max_ns: Word<u64>,
        /// Reserved, zero.
        reserved: [Word<u64>; 2],
        /// Values by size, log-linear: four buckets for each power of two.
        counts: [Word<u64>; 132],
    }
}

super::record! {
    /// One entry of the event ring.
    #[size(64)] #[align(64)]
    pub struct Event {
        /// Number of the event, plus one; stored last. 0 = none, or being written.
        sequence: Word<u64>,
        /// When, microseconds since the clock base.
        at_us: Word<u64>,
        /// `EventKind`.
        kind: Word<u64>,
        /// `OwnerTag` of the process that recorded it; 0 = unregistered.
        owner: Word<u64>,
        /// Identity word of the key, deployment or series that it is about; 0 = none.
        subject: Word<u64>,
        /// First detail; see `EventKind`.
        a: Word<u64>,
        /// Second detail.
        b: Word<u64>,
        /// Mix of all the others: an entry that two writers met in does not agree with it.
        check: Word<u64>,
    }
}

super::record! {
    /// A job that one process leads.
    #[size(128)] #[align(64)]
    pub struct Job {
        /// The job; 0 = never used.
        identity: Word<IdentityWord>,
        /// What is known of the lease that its leader holds.
        lease: Word<LeaseLimits>,
        /// The latest leader and its term.
        term: Word<TermWord>,
        /// When that term began.
        since: Word<SinceWord>,
        /// Whether `name` is complete.
        name_head: Word<NameWord>,
        /// Printable name, UTF-8.
        name: [Word<u64>; 11],
    }
}

super::record! {
    /// A connection pool, or an endpoint of one.
    #[size(256)] #[align(64)]
    pub struct Endpoint {
        /// The pool or the endpoint; 0 = never used.
        identity: Word<IdentityWord>,
        /// Its connections: what is known of their leases.
        lease: Word<LeaseLimits>,
        /// Identity of the pool that it belongs to, its own if it is a pool; 0 = not yet written.
        pool: Word<IdentityWord>,
        /// `endpoint`: failures in a row that are not yet forgotten.
        breaker: Word<BreakerWord>,
        /// `endpoint`: failures since it is known.
        failures_total: Word<u64>,
        /// `endpoint`: the latest failure.
        last_failure: Word<FailureWord>,
        /// `pool`: connections made.
        created: Word<u64>,
        /// `pool`: requests for a connection that got none.
        refused: Word<u64>,
        /// `pool`: connections closed because they were idle for too long, or too old.
        expired: Word<u64>,
        /// `pool`: idle connections that were handed out again.
        reused: Word<u64>,
        /// `pool`: idle connections that made room for others.
        taken_over: Word<u64>,
        /// `pool`: connections that were given back by who did not hold them.
        stale_returns: Word<u64>,
        /// Reserved, zero.
        reserved: [Word<u64>; 8],
        /// Whether `name` is complete.
        name_head: Word<NameWord>,
        /// Printable name, UTF-8.
        name: [Word<u64>; 11],
    }
}

super::record! {
    /// A notice: bytes that any process publishes and all read. Its sheets are the rows `2 * i` and `2 * i + 1`.
    #[size(256)] #[align(64)]
    pub struct Notice {
        /// The notice; 0 = never used.
        identity: Word<IdentityWord>,
        /// Which sheet is the current one.
        current: Word<BoardWord>,
        /// Bytes on each sheet.
        lengths: [Word<u64>; 2],
        /// When each was published, microseconds since the clock base.
        published_us: [Word<u64>; 2],
        /// When each is no longer shown, microseconds since the clock base; 0 = never.
        expires_us: [Word<u64>; 2],
        /// Mix of identity, length, times and bytes of each: a sheet that two writers met in does not agree with it.
        checks: [Word<u64>; 2],
        /// Reserved, zero.
        reserved: [Word<u64>; 10],
        /// Whether `name` is complete.
        name_head: Word<NameWord>,
        /// Printable name, UTF-8.
        name: [Word<u64>; 11],
    }
}

super::record! {
    /// One of the two sheets of a notice.
    #[size(131_072)] #[align(64)]
    pub struct Sheet {
        /// The bytes, eight to a word, little-endian.
        words: [Word<u64>; 16384],
    }
}

super::record! {
    /// Sixty-four bytes of a region, whatever they say.
    #[size(64)] #[align(64)]
    pub struct Line {
        /// As they stand.
        words: [Word<u64>; 8],
    }
}
