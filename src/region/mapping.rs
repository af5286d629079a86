//! The one file that may hold `unsafe`: mapped bytes as slices of atomic records, and a few calls for
//! which no safe wrapper exists.
//!
//! What makes it sound, once for all blocks below:
//! * every type seen through a mapping implements [`Record`], whose only implementer is `record!`; it
//!   admits only fields of atomic 64-bit words, so every bit pattern is valid, there is no padding, and
//!   writes by other processes are ordinary atomic writes;
//! * a slice is handed out only after its offset, length and alignment were checked against the length
//!   of the mapping, which cannot change: a memfd is sealed, a file's size is compared with `fstat` and
//!   a file that another process truncates is outside what any reader of shared memory can survive (the
//!   file is 0600, so only the same user could);
//! * the mapping lives as long as the value that hands out the slices.

#![allow(unsafe_code, reason = "the only file with unsafe code; see the module's text")]

use crate::layout::{Bucket, Header, Line, Record};
use crate::sync::{Ordering, Word};
use memmap2::{MmapOptions, MmapRaw};
use std::fs::File;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::Arc;

/// A place in the region: bytes from the start, and number of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Bytes from the start of the region.
    pub offset: u64,
    /// Records.
    pub count: u64,
}

enum Memory {
    File(MmapRaw),
    Shared { start: NonNull<u8>, len: usize },
    Heap(Box<[Line]>),
}

// SAFETY: atomic words only, of which all zeroes is a value.
unsafe impl bytemuck::Zeroable for Line {}

/// Bytes that may be shared with other processes.
pub(crate) struct Mapping {
    memory: Memory,
}

// SAFETY: all access goes through atomics (see the module's text); the pointers are valid from any thread
// and are freed only by `Drop`.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a whole file for reading and writing, shared with everybody who maps it.
    pub(crate) fn of_file(file: &File, len: u64) -> std::io::Result<Self> {
        let map = MmapOptions::new().len(to_usize(len)?).map_raw(file)?;
        Ok(Self { memory: Memory::File(map) })
    }

    /// Maps a whole file for reading only. A write through it would end this process.
    pub(crate) fn of_file_read_only(file: &File, len: u64) -> std::io::Result<Self> {
        let map = MmapOptions::new().len(to_usize(len)?).map_raw_read_only(file)?;
        Ok(Self { memory: Memory::File(map) })
    }

    /// Anonymous memory that children share; nobody else can reach it.
    pub(crate) fn anonymous(len: u64) -> std::io::Result<Self> {
        let len = to_usize(len)?;
        let size = NonZeroUsize::new(len).ok_or(std::io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            nix::sys::mman::mmap_anonymous(
                None,
                size,
                nix::sys::mman::ProtFlags::PROT_READ | nix::sys::mman::ProtFlags::PROT_WRITE,
                nix::sys::mman::MapFlags::MAP_SHARED,
            )
        }?;
        Ok(Self { memory: Memory::Shared { start: start.cast(), len } })
    }

    /// Private memory, for one process, for tests and for interpreters that have no mappings.
    pub(crate) fn heap(len: u64) -> std::io::Result<Self> {
        let lines = to_usize(len)?.div_ceil(size_of::<Line>());
        let memory = bytemuck::try_zeroed_slice_box(lines);
        let memory = memory.map_err(|()| std::io::Error::from(std::io::ErrorKind::OutOfMemory))?;
        Ok(Self { memory: Memory::Heap(memory) })
    }

    pub(crate) fn len(&self) -> usize {
        match &self.memory {
            Memory::File(map) => map.len(),
            Memory::Shared { len, .. } => *len,
            Memory::Heap(lines) => std::mem::size_of_val(&**lines),
        }
    }

    #[inline]
    fn start(&self) -> *const u8 {
        match &self.memory {
            Memory::File(map) => map.as_ptr(),
            Memory::Shared { start, .. } => start.as_ptr(),
            Memory::Heap(lines) => lines.as_ptr().cast(),
        }
    }

    /// The records at `span`; empty when they would not lie inside the mapping or not be aligned.
    #[inline]
    pub(crate) fn records<T: Record>(&self, span: Span) -> &[T] {
        let (Ok(offset), Ok(count)) = (usize::try_from(span.offset), usize::try_from(span.count))
        else {
            return &[];
        };
        let end = count.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        if end.is_none_or(|end| end > self.len()) {
            return &[];
        }
        let first = self.start().wrapping_add(offset).cast::<T>();
        if !first.is_aligned() {
            return &[];
        }
        // SAFETY: `first` is aligned and `count` records fit between it and the end of the mapping (both
        // checked above); any bytes are valid records, shared mutation is atomic, and the slice borrows
        // the mapping.
        unsafe { std::slice::from_raw_parts(first, count) }
    }

    /// The header.
    ///
    /// # Panics
    /// When the mapping is shorter than a header; every constructor's caller has checked that.
    pub(crate) fn header(&self) -> &Header {
        &self.records::<Header>(Span { offset: 0, count: 1 })[0]
    }

    /// As [`Self::records`], checked once and kept with the mapping.
    pub(crate) fn table<T: Record>(self: &Arc<Self>, span: Span) -> Table<T> {
        let records = self.records::<T>(span);
        Table { first: NonNull::from(records).cast(), count: records.len(), _mapping: self.clone() }
    }
}

/// Records of one section, with the mapping they lie in.
pub(crate) struct Table<T> {
    first: NonNull<T>,
    count: usize,
    _mapping: Arc<Mapping>,
}

// SAFETY: a table is a shared slice of records, and records are atomic words; the mapping is `Send`.
unsafe impl<T: Record> Send for Table<T> {}
// SAFETY: as for `Send`.
unsafe impl<T: Record> Sync for Table<T> {}

impl<T> std::ops::Deref for Table<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the parts of a slice that `records` handed out, of a mapping that `self` keeps alive and
        // that never moves.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Memory::Shared { start, len } = self.memory {
            // SAFETY: exactly the range that `anonymous` mapped, and no slice of it outlives `self`.
            let _ = unsafe { nix::sys::mman::munmap(start.cast(), len) };
        }
    }
}

fn to_usize(len: u64) -> std::io::Result<usize> {
    usize::try_from(len).map_err(|_| std::io::ErrorKind::InvalidInput.into())
}

static FORKS: Word<u64> = Word::new(0);
/// A page that the kernel empties in every forked child, however it was forked.
static FORK_MARK: std::sync::OnceLock<Option<Table<Bucket>>> = std::sync::OnceLock::new();
const MARKED: u64 = 1;

extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
    if let Some(Some(mark)) = FORK_MARK.get() {
        mark[0].allowed.store(MARKED, Ordering::Relaxed);
    }
}

/// How many forks lie between this process and the one that called [`watch_forks`]. A change means that
/// whatever this process believes to own belongs to its parent.
#[inline]
pub fn fork_generation() -> u64 {
    if let Some(Some(mark)) = FORK_MARK.get()
        && mark[0].allowed.load(Ordering::Relaxed) != MARKED
    {
        count_fork();
    }
    FORKS.load(Ordering::Relaxed)
}

/// Makes [`fork_generation`] count: through the C library's fork, and, where the kernel can empty a page
/// on fork, also for processes that call the kernel directly. Idempotent.
pub fn watch_forks() {
    FORK_MARK.get_or_init(|| {
        // SAFETY: the handler only touches atomics, which is allowed after fork in any state.
        #[cfg(not(miri))]
        let _ = unsafe { libc::pthread_atfork(None, None, Some(count_fork)) };
        fork_mark().ok()
    });
}

/// What is said by a process that ends because of memory that is gone.
const LOST: &[u8] =
    b"fl-shm: the region's file was cut, or lost its memory, while it was read; try again\n";

extern "C" fn end_for_lost_memory(_signal: libc::c_int) {
    // SAFETY: it may be called in a signal handler, and the text lives for ever.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, LOST.as_ptr().cast(), LOST.len()) };
    // SAFETY: it may be called in a signal handler.
    unsafe { libc::_exit(2) }
}

/// Makes this process end with a message and exit code 2, instead of by SIGBUS, when it looks at memory that is
/// gone: behind the end of a file that was cut. For programs that do nothing else than look.
pub fn end_when_memory_is_lost() {
    #[cfg(not(miri))]
    {
        use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
        let handler = SigHandler::Handler(end_for_lost_memory);
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler makes only calls that are allowed in one, and does not return.
        let _ = unsafe { sigaction(Signal::SIGBUS, &action) };
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
fn fork_mark() -> std::io::Result<Table<Bucket>> {
    use nix::sys::mman::{MmapAdvise, madvise};
    const PAGE: usize = 4096;
    let map = MmapRaw::from(MmapOptions::new().len(PAGE).map_anon()?);
    let start = NonNull::new(map.as_mut_ptr()).ok_or(std::io::ErrorKind::OutOfMemory)?;
    // SAFETY: the advice concerns the fresh page just mapped, which nobody has a view of yet.
    unsafe { madvise(start.cast(), PAGE, MmapAdvise::MADV_WIPEONFORK) }?;
    let mapping = Arc::new(Mapping { memory: Memory::File(map) });
    let mark: Table<Bucket> = mapping.table(Span { offset: 0, count: 1 });
    mark[0].allowed.store(MARKED, Ordering::Relaxed);
    Ok(mark)
}

#[cfg(any(not(target_os = "linux"), miri))]
fn fork_mark() -> std::io::Result<Table<Bucket>> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Bytes left on the file system that holds `file`, and its type.
pub(crate) fn file_system_type(file: &File) -> std::io::Result<i64> {
    #[cfg(target_os = "linux")]
    {
        let stat = nix::sys::statfs::fstatfs(file)?;
        #[allow(clippy::useless_conversion, reason = "the field's width differs by target")]
        Ok(i64::from(stat.filesystem_type().0))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Bucket, WorkerRow};

    #[test]
    fn slices_outside_or_askew_are_empty() {
        let mapping = Mapping::heap(4096).unwrap();
        let ask = |offset, count| mapping.records::<Bucket>(Span { offset, count }).len();
        assert_eq!(ask(0, 64), 64);
        assert_eq!(ask(0, 65), 0);
        assert_eq!(ask(64, 64), 0);
        assert_eq!(ask(8, 1), 0);
        assert_eq!(ask(u64::MAX, 1), 0);
        assert_eq!(ask(0, u64::MAX), 0);
        assert_eq!(ask(4096, 0), 0);
    }

    #[test]
    fn words_are_shared_between_overlapping_views() {
        let mapping = Mapping::heap(4096).unwrap();
        let span = Span { offset: 0, count: 1 };
        mapping.records::<Bucket>(span)[0].allowed.store(7, Ordering::Relaxed);
        let row = &mapping.records::<WorkerRow>(span)[0];
        assert_eq!(row.reserved[2].load(Ordering::Relaxed), 7);
    }
}
