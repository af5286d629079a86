//! What the measurements need of the operating system: memory that children share, children, and which
//! pages are resident.

#![allow(unsafe_code, reason = "mmap, fork and mincore have no safe wrapper")]

use crate::Failure;
use std::io::Error;
use std::ops::Deref;
use std::ptr::NonNull;

/// Types that are valid when all their bytes are zero, and that only change through atomics or a lock.
///
/// # Safety
/// Both have to be true.
pub(crate) unsafe trait Zeroed: Sync {}

/// A value that starts as zeroes and that forked children share.
pub(crate) struct Shared<T: Zeroed> {
    value: NonNull<T>,
}

impl<T: Zeroed> Shared<T> {
    pub(crate) fn new() -> Result<Self, Failure> {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Error::last_os_error().into());
        }
        let value = NonNull::new(start.cast()).ok_or("mmap returned null")?;
        Ok(Self { value })
    }
}

impl<T: Zeroed> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: page-aligned, zeroed, which `Zeroed` calls valid, and mapped as long as `self` lives.
        unsafe { self.value.as_ref() }
    }
}

impl<T: Zeroed> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `new` mapped; no reference to it outlives `self`.
        unsafe { libc::munmap(self.value.as_ptr().cast(), size_of::<T>()) };
    }
}

/// A forked child. It never outlives its parent, nor `seconds`.
pub(crate) struct Child {
    pid: libc::pid_t,
}

/// Runs `body` in a child; its exit code is 0 when `body` returned true.
///
/// This process must have one thread, or `body` could meet a lock that nobody will release.
pub(crate) fn fork(seconds: u32, body: impl FnOnce() -> bool) -> Result<Child, Failure> {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(Error::last_os_error().into()),
        0 => {
            // SAFETY: sets a signal for this process only.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // SAFETY: sets a timer for this process only.
            unsafe { libc::alarm(seconds) };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            let code = i32::from(!matches!(done, Ok(true)));
            // SAFETY: ends the child without running the parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(Child { pid }),
    }
}

impl Child {
    /// Waits for its end.
    pub(crate) fn wait(self) -> Result<(), Failure> {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the answer.
        let waited = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
        if waited != self.pid {
            return Err(Error::last_os_error().into());
        }
        if status == 0 {
            Ok(())
        } else {
            Err(format!("a measured process failed: wait status {status}").into())
        }
    }
}

/// Bytes of the range that are in memory. `start` has to be at the start of a page.
pub(crate) fn resident(start: usize, len: usize) -> Result<u64, Failure> {
    const PAGE: usize = 4_096;
    let mut pages = vec![0_u8; len.div_ceil(PAGE)];
    // SAFETY: the kernel checks the range and writes one byte for each of its pages.
    let code =
        unsafe { libc::mincore(std::ptr::without_provenance_mut(start), len, pages.as_mut_ptr()) };
    if code != 0 {
        return Err(Error::last_os_error().into());
    }
    let resident = pages.iter().filter(|page| *page & 1 == 1).count();
    Ok((resident * PAGE) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Counter(AtomicU64);
    // SAFETY: an atomic integer is valid when zero.
    unsafe impl Zeroed for Counter {}

    #[test]
    fn children_share_the_value_and_report_failure() {
        let shared = Shared::<Counter>::new().unwrap();
        let add = || shared.0.fetch_add(7, Ordering::Relaxed) == 0;
        fork(10, add).unwrap().wait().unwrap();
        assert_eq!(shared.0.load(Ordering::Relaxed), 7);
        assert!(fork(10, add).unwrap().wait().is_err());
    }

    #[test]
    fn only_touched_pages_are_resident() {
        struct Pages([AtomicU64; 8 * 512]);
        // SAFETY: atomic integers are valid when zero.
        unsafe impl Zeroed for Pages {}
        let shared = Shared::<Pages>::new().unwrap();
        let start = std::ptr::from_ref(&shared.0).addr();
        assert_eq!(resident(start, 8 * 4_096).unwrap(), 0);
        shared.0[512].store(1, Ordering::Relaxed);
        assert_eq!(resident(start, 8 * 4_096).unwrap(), 4_096);
    }
}
