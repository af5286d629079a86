//! The frozen 256-byte header and the section table behind it.

use crate::sync::Word;

/// First eight bytes of every region.
pub const MAGIC: u64 = u64::from_le_bytes(*b"FLSHM\r\n\x1a");
/// Reads back as itself only on a machine of the same byte order.
pub const BYTE_ORDER: u64 = 0x0A0B_0C0D_0102_0304;
/// Bytes of the header; never changes.
pub const HEADER_LEN: u64 = 256;

/// Section numbers.
pub mod section {
    /// Worker table.
    pub const WORKERS: u64 = 1;
    /// Statistics rows, one per worker row.
    pub const STATS: u64 = 2;
    /// Feature breakers.
    pub const FEATURES: u64 = 3;
    /// Keys with their state.
    pub const BUCKETS: u64 = 4;
    /// Lease chunks.
    pub const LEASES: u64 = 5;
    /// Names, one per bucket.
    pub const NAMES: u64 = 6;
    /// Health of deployments.
    pub const DEPLOYMENTS: u64 = 7;
    /// Named series of measurements.
    pub const SERIES: u64 = 8;
    /// Histograms, eight per series.
    pub const HISTOGRAMS: u64 = 9;
    /// Event ring.
    pub const EVENTS: u64 = 10;
    /// Jobs that one process leads.
    pub const JOBS: u64 = 11;
    /// Notices.
    pub const BOARD: u64 = 12;
    /// What stands on them, two sheets for each.
    pub const SHEETS: u64 = 13;
    /// Connection pools and their endpoints.
    pub const ENDPOINTS: u64 = 14;
}

/// Life of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum State {
    /// Not yet published.
    Empty = 0,
    /// In use.
    Ready = 2,
}

super::record! {
    /// The header. Written once by the creator and published by `state`; only `epoch`,
    /// `overflow` and `event_head` change afterwards.
    #[size(256)] #[align(64)]
    pub struct Header {
        /// `FLSHM\r\n\x1a`.
        magic: Word<u64>,
        /// Layout version: major in the high 32 bits, minor in the low 32.
        version: Word<u64>,
        /// Fingerprint of every record and word of the writer's build.
        fingerprint: Word<u64>,
        /// `0x0A0B0C0D01020304`, in the writer's byte order.
        byte_order: Word<u64>,
        /// Bytes of the whole region; equals the size of the object that holds it.
        total_len: Word<u64>,
        /// 0 = empty, 2 = ready; stored last.
        state: Word<u64>,
        /// Incremented by each process that adopts the region.
        epoch: Word<u64>,
        /// Kernel boot id, first half: clocks of another boot mean nothing.
        boot_id_high: Word<u64>,
        /// Kernel boot id, second half.
        boot_id_low: Word<u64>,
        /// Inode of the creator's pid namespace; 0 = unknown.
        pid_namespace: Word<u64>,
        /// Inode of the creator's time namespace; 0 = unknown.
        time_namespace: Word<u64>,
        /// Clock id that all times are read from.
        clock_id: Word<u64>,
        /// Reading of that clock, in nanoseconds, that all times are relative to.
        clock_base_ns: Word<u64>,
        /// Unix time in whole seconds at the clock base, for display and for limits named by it.
        wall_base_s: Word<u64>,
        /// Hash seed, first half; random, so that clients cannot aim keys at one slot.
        seed_high: Word<u64>,
        /// Hash seed, second half.
        seed_low: Word<u64>,
        /// User id of the creator.
        creator_uid: Word<u64>,
        /// Process id of the creator.
        creator_pid: Word<u64>,
        /// Start time of the creator in clock ticks since boot.
        creator_start: Word<u64>,
        /// Where the memory comes from: 1 = memfd, 2 = file, 3 = anonymous, 4 = heap.
        backing: Word<u64>,
        /// Rows in the worker table.
        worker_capacity: Word<u64>,
        /// Keys that surely find room; there is half as many buckets again.
        key_capacity: Word<u64>,
        /// Lease chunks, a multiple of 8.
        chunk_capacity: Word<u64>,
        /// Rows of the section table, which follows the header.
        section_count: Word<u64>,
        /// Records of deployments.
        deployment_capacity: Word<u64>,
        /// What happens to a key that finds no room: 0 = deny, 1 = shared, 2 = local.
        overflow: Word<u64>,
        /// Events recorded so far; the next goes to this number modulo the length of the ring.
        event_head: Word<u64>,
        /// Reserved, zero.
        reserved: [Word<u64>; 5],
    }
}

super::record! {
    /// One row of the section table.
    #[size(32)] #[align(32)]
    pub struct SectionRow {
        /// Section number.
        id: Word<u64>,
        /// Bytes from the start of the region, a multiple of 4096.
        offset: Word<u64>,
        /// Bytes of one record.
        stride: Word<u64>,
        /// Records.
        count: Word<u64>,
    }
}
