//! The records of all sections.

use super::words::{
    ClaimWord, CounterWord, FeatureWord, IdentityWord, LeaseLimits, LeaseWord, NameWord, PairWord,
    WindowWord,
};
use crate::sync::Word;

/// Lease slots in one chunk.
pub const CHUNK_SLOTS: usize = 32;
/// Bytes of a printable name.
pub const NAME_BYTES: usize = 88;

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
    #[size(128)] #[align(64)]
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
        /// Reserved, zero.
        reserved: [Word<u64>; 2],
    }
}

super::record! {
    /// One accelerated feature.
    #[size(64)] #[align(64)]
    pub struct Feature {
        /// Its breaker.
        breaker: Word<FeatureWord>,
        /// Errors since the region was created.
        errors_total: Word<u64>,
        /// Reserved, zero.
        reserved: [Word<u64>; 6],
    }
}

super::record! {
    /// One slot of the key index. Slot i owns bucket i and name i.
    #[size(8)] #[align(8)]
    pub struct IndexSlot {
        /// The key; 0 = empty.
        identity: Word<IdentityWord>,
    }
}

super::record! {
    /// The state of one key, in one cache line.
    #[size(64)] #[align(64)]
    pub struct Bucket {
        /// `gcra`: its `GcraWord`. Otherwise unused.
        gcra: Word<super::words::GcraWord>,
        /// `window`: the window that the counters belong to.
        window: Word<WindowWord>,
        /// `window`: requests. `counter`: the counter itself.
        requests: Word<CounterWord>,
        /// `window`: tokens.
        tokens: Word<CounterWord>,
        /// The limits last seen: of a `gcra` its rate and burst, of a `window` requests and tokens.
        limits: Word<PairWord>,
        /// `window`: the concurrency limit.
        lease: Word<LeaseLimits>,
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
        /// Keyed hash of the key and the chunk's ordinal; 0 = empty.
        identity: Word<u64>,
        /// Hint: bit i set = slot i was seen held. The slots decide.
        hint: Word<u64>,
        /// Index slot of the key, plus one; 0 = not yet written.
        key_slot: Word<u64>,
        /// Which 32 slots of that key these are.
        ordinal: Word<u64>,
        /// In the chunk of ordinal 0: leases of the whole key, a hint.
        held: Word<u64>,
        /// Reserved, zero.
        reserved: [Word<u64>; 3],
        /// Who holds each slot; 0 = free.
        holders: [Word<LeaseWord>; 32],
        /// Hash of each holder's slot id; advisory, valid only while the holder stands.
        tags: [Word<u64>; 32],
    }
}

super::record! {
    /// The printable, redacted name of one key.
    #[size(96)] #[align(32)]
    pub struct Name {
        /// Whether `bytes` is complete.
        head: Word<NameWord>,
        /// UTF-8, eight bytes to a word, little-endian.
        bytes: [Word<u64>; 11],
    }
}
