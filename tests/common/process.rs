//! Processes and memory for tests that kill: fork, signals, waiting, words that outlive their writer.

#![allow(unsafe_code, reason = "a test that kills its own children needs fork, waitpid and mmap")]

use fast_litellm::sync::Word;
use nix::sys::signal::{self, Signal};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::io::{Error, Result};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A signal killed it.
    Signal(i32),
    /// It ended by itself.
    Exit(i32),
}

/// Zeroed words that this process and all its later children share. Never unmapped.
pub(crate) fn shared_words(count: usize) -> Result<&'static [Word<u64>]> {
    let len = count * size_of::<Word<u64>>();
    let (prot, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice overlaps nothing.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    // SAFETY: the mapping is page-aligned, as long as the slice, never unmapped, and zero is a valid word.
    Ok(unsafe { std::slice::from_raw_parts(start.cast::<Word<u64>>(), count) })
}

/// Starts a child that runs `life` and dies with this process. The caller has one thread only, so that
/// the child may do everything that its parent may.
pub(crate) fn fork(life: impl FnOnce() -> i32) -> Result<i32> {
    let parent = std::process::id();
    // SAFETY: the calling process has one thread, so no lock is left behind in the child.
    match unsafe { libc::fork() } {
        -1 => Err(Error::last_os_error()),
        0 => {
            // SAFETY: takes an integer and touches no memory.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // SAFETY: as before. The parent is to be first when it wants to run.
            unsafe { libc::nice(5) };
            let orphan = nix::unistd::getppid().as_raw().unsigned_abs() != parent;
            let guarded = std::panic::AssertUnwindSafe(life);
            let code = if orphan { 1 } else { std::panic::catch_unwind(guarded).unwrap_or(101) };
            // SAFETY: ends this process without running what belongs to its parent.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(pid),
    }
}

/// Sends a signal to a child of this process.
pub(crate) fn send(pid: i32, signal: Signal) -> Result<()> {
    Ok(signal::kill(Pid::from_raw(pid), signal)?)
}

/// Waits until a child has ended and takes its remains away.
pub(crate) fn wait(pid: i32) -> Result<Ended> {
    let mut status = 0;
    // SAFETY: `status` is writable for the call.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {
        let error = Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(if libc::WIFSIGNALED(status) {
        Ended::Signal(libc::WTERMSIG(status))
    } else {
        Ended::Exit(libc::WEXITSTATUS(status))
    })
}

/// Waits until a child that was sent SIGSTOP has stopped. False when it has ended instead; its remains
/// stay.
pub(crate) fn wait_stopped(pid: i32) -> Result<bool> {
    let id = libc::id_t::try_from(pid).map_err(Error::other)?;
    // SAFETY: zero is a valid value of this plain C structure.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
    // SAFETY: `info` is writable for the call.
    if unsafe { libc::waitid(libc::P_PID, id, &raw mut info, options) } != 0 {
        return Err(Error::last_os_error());
    }
    Ok(info.si_code == libc::CLD_STOPPED)
}

/// Lets this process run before all that are not real-time; false where that is not allowed.
pub(crate) fn real_time(priority: i32) -> bool {
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: `parameters` is readable for the call.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) == 0 }
}

/// Keeps this process on one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    // SAFETY: zero is a valid value of this plain C structure.
    let mut cores: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a bit of a local structure; positions outside it are ignored.
    unsafe { libc::CPU_SET(core, &mut cores) };
    // SAFETY: `cores` is readable and as long as stated.
    let failed =
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const cores) };
    if failed == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

/// The fine monotonic clock, nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
    })
}
