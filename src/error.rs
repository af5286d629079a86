//! Everything that can go wrong, one enum per stage, each message with the value and the remedy.

use crate::config::Capacity;
use crate::tables::index::NotInserted;
use std::path::PathBuf;

/// Why a region could not be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// A setting is outside its range.
    #[error("{name}={value} is out of range: use {expected}")]
    Setting {
        /// Setting's environment variable.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        expected: String,
    },
    /// No memory object could be had.
    #[error("cannot create a shared region of {len} bytes at {place}: {source}; {remedy}")]
    Backing {
        /// Where it was tried.
        place: String,
        /// Bytes asked for.
        len: u64,
        /// What the operating system said.
        source: std::io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The file is not on a memory file system.
    #[error(
        "{path} is not on tmpfs (file system type {found:#x}): writes to a disk file stall every \
         worker; use a path below /dev/shm or set FAST_LITELLM_SHM_FORCE=1"
    )]
    NotTmpfs {
        /// The file.
        path: PathBuf,
        /// `f_type` of its file system.
        found: i64,
    },
    /// No random numbers for the hash seed.
    #[error("cannot read random bytes for the hash seed: {0}")]
    Random(std::io::Error),
}

/// Why a named region could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// What is there is refused.
    #[error("{path}: {source}")]
    Refused {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: AttachError,
    },
    /// What is there would have been replaced, but others use it.
    #[error(
        "{path} is in use by other processes, and {source}; if they are to share it, run them with one version of \
         fast_litellm and in one pid namespace, else choose another path"
    )]
    InUse {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it for this process.
        source: AttachError,
    },
    /// Nothing is there, and nothing can be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// Others keep making and removing it.
    #[error("{path} keeps appearing and vanishing: choose another path")]
    ComesAndGoes {
        /// Its path.
        path: PathBuf,
    },
}

/// Why an existing region was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// It cannot be opened.
    #[error("cannot open region {path}: {source}; remove it or choose another path")]
    Open {
        /// Its path.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// It ends as a dump does, but is none.
    #[error("{path} is no whole dump: {why}; it was cut off or overwritten, take another")]
    Dump {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It cannot be mapped.
    #[error("cannot map region: {0}")]
    Map(std::io::Error),
    /// It is not a regular file.
    #[error("region {path} is not a regular file: remove it or choose another path")]
    NotAFile {
        /// Its path.
        path: PathBuf,
    },
    /// Its process has ended since it was found.
    #[error("{path} is not the region that was found there any more: try again")]
    Replaced {
        /// Where it was found.
        path: PathBuf,
    },
    /// Somebody else's.
    #[error("region belongs to user {found}, this process runs as {expected}: choose another path")]
    Owner {
        /// Its owner's user id.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// Others could read or write it.
    #[error("region has mode {found:04o}, expected 0600: chmod it or remove it")]
    Mode {
        /// Its permission bits.
        found: u32,
    },
    /// Too short for a header.
    #[error("region has {found} bytes, a header alone takes {expected}: remove the file")]
    TooShort {
        /// Its size.
        found: u64,
        /// Bytes of the header.
        expected: u64,
    },
    /// Not one of ours.
    #[error(
        "region has magic {found:#018x}, expected {expected:#018x}: not a fast_litellm region; remove it or \
         choose another path"
    )]
    Magic {
        /// Its first eight bytes.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// Written by an incompatible build.
    #[error("region has layout {found}, this build reads {expected}: restart all workers together")]
    Version {
        /// Its version.
        found: String,
        /// Ours.
        expected: String,
    },
    /// Same version, other bytes: a build that forgot to change its version.
    #[error(
        "region has layout fingerprint {found:#018x}, this build has {expected:#018x}: restart all \
         workers with one version of fast_litellm"
    )]
    Fingerprint {
        /// Its fingerprint.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// Another machine's.
    #[error(
        "region has byte order mark {found:#018x}, this machine reads {expected:#018x}: made on another \
         machine or overwritten; remove it"
    )]
    ByteOrder {
        /// Its mark.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// Its creator has not finished, or died before it had.
    #[error("region is in state {found}, not ready: its creator died while creating it; remove it")]
    NotReady {
        /// Its state.
        found: u64,
    },
    /// The object is not as long as the header says.
    #[error(
        "region has {found} bytes, its header says {expected}: truncated or overwritten; remove it"
    )]
    Length {
        /// Size of the object.
        found: u64,
        /// Size in the header.
        expected: u64,
    },
    /// Left over from before the last boot.
    #[error(
        "region is of another boot ({found}, now {expected}): its clock means nothing; remove it"
    )]
    Boot {
        /// Its boot id.
        found: String,
        /// Ours.
        expected: String,
    },
    /// Its process ids or times mean something else here.
    #[error(
        "region is of another {kind} namespace ({found}, here {expected}): use one per namespace"
    )]
    Namespace {
        /// `pid` or `time`.
        kind: &'static str,
        /// Its namespace.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// Another clock.
    #[error(
        "region counts time by clock {found}, this build by clock {expected}: made on another system or \
         overwritten; remove it"
    )]
    Clock {
        /// Its clock.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// A capacity that no creator writes.
    #[error(
        "region's {what} ({setting}) is {found}, allowed is {allowed}: overwritten; remove it and start again"
    )]
    Capacity {
        /// Which capacity.
        what: &'static str,
        /// The environment variable that sets it.
        setting: &'static str,
        /// Its value.
        found: u64,
        /// What it may be.
        allowed: String,
    },
    /// Capacities that take another length than the region has.
    #[error(
        "region has {found} bytes, its {} keys, {} chunks, {} workers and {} deployments take {expected}: one \
         of these capacities was overwritten; remove it and start again",
        .stored.keys, .stored.lease_chunks, .stored.workers, .stored.deployments
    )]
    Capacities {
        /// Its size, which its header also says.
        found: u64,
        /// What follows from the capacities.
        expected: u64,
        /// The capacities in its header.
        stored: Capacity,
    },
    /// Sections that no creator writes.
    #[error("region's {what} is {found}, expected {expected}: overwritten; remove it")]
    Sections {
        /// Which field.
        what: &'static str,
        /// Its value.
        found: u64,
        /// What follows from the other fields.
        expected: u64,
    },
}

impl AttachError {
    /// Whether nothing is there.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Open { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}

/// Why an operation could not decide.
// As wide as a word: results with a narrower error are copied byte by byte, and each copy stalls the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[repr(u64)]
pub enum OpError {
    /// No room for a new key.
    #[error(
        "the region's key table has no room for another key: raise FAST_LITELLM_SHM_KEYS \
         and restart"
    )]
    TableFull,
    /// No room for a key's concurrency slots.
    #[error(
        "the region has no room for another key's concurrency slots: raise \
         FAST_LITELLM_SHM_LEASE_CHUNKS and restart"
    )]
    LeasesFull,
    /// No row for this process, so that nothing can be owned by it.
    #[error(
        "the region's worker table has no free row: raise FAST_LITELLM_SHM_WORKERS and restart"
    )]
    WorkersFull,
    /// The word changed under every try.
    #[error("the key is too contended: gave up after the bounded number of tries")]
    Contended,
    /// A value outside its range.
    #[error("value out of range for this operation")]
    OutOfRange,
    /// More bytes than a notice holds.
    #[error(
        "too long for a notice: at most 131,072 bytes can be published under one name; shorten it or \
             use several names"
    )]
    TooLarge,
}

impl From<NotInserted> for OpError {
    fn from(error: NotInserted) -> Self {
        match error {
            NotInserted::Full => Self::TableFull,
            NotInserted::Contended => Self::Contended,
        }
    }
}
