//! Calls to the kernel that only tests need. Those that fail for want of privileges return the error, the
//! others panic.

use fast_litellm::region::host::process_stat;
use std::ffi::CStr;
use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::{FromRawFd, RawFd};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

fn checked(result: libc::c_long) -> Result<libc::c_long> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// Polls until `done`, for as long as the test may take.
pub(crate) fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// As [`until`], without pausing in between.
pub(crate) fn until_now(mut done: impl FnMut() -> bool) {
    while !done() {
        std::hint::spin_loop();
    }
}

pub(crate) fn alarm(seconds: u32) {
    // SAFETY: no pointers.
    unsafe { libc::alarm(seconds) };
}

/// Ends this process at once, without the destructors and handlers that belong to its parent.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: never returns, touches nothing.
    unsafe { libc::_exit(code) }
}

/// The child's pid, or `None` in the child, which does not outlive its parent.
pub(crate) fn fork() -> Option<i32> {
    let parent = std::process::id();
    // SAFETY: this process has one other thread, the harness's, which waits and holds no lock.
    let pid = checked(unsafe { libc::fork() }.into()).expect("forks");
    after_fork(parent, pid)
}

/// As [`fork`], straight to the kernel, with the pid to have in this namespace and in those above it.
pub(crate) fn fork_as(pids: &[i32]) -> Result<Option<i32>> {
    // SAFETY: zero is valid for this plain structure of integers.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = u64::try_from(libc::SIGCHLD).expect("positive");
    arguments.set_tid = pids.as_ptr() as u64;
    arguments.set_tid_size = pids.len() as u64;
    let parent = std::process::id();
    // SAFETY: the arguments outlive the call; without a stack of its own the child gets a copy of ours.
    let pid = checked(unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>())
    })?;
    Ok(after_fork(parent, pid))
}

fn after_fork(parent: u32, pid: libc::c_long) -> Option<i32> {
    if pid == 0 {
        end_with_parent();
        // SAFETY: no pointers.
        let seen = unsafe { libc::getppid() };
        // 0 = in another namespace. Anybody else is an heir: the parent ended before the line above.
        if seen != 0 && u32::try_from(seen) != Ok(parent) {
            exit(libc::EIO);
        }
        return None;
    }
    Some(i32::try_from(pid).expect("a pid"))
}

fn end_with_parent() {
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Runs `body` in a child and returns the error that it met, or `EIO` when it ended in another way.
pub(crate) fn in_child(body: impl FnOnce() -> Result<()>) -> Result<()> {
    let Some(pid) = fork() else {
        let code = body().map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0);
        exit(code);
    };
    match wait(pid) {
        Some(0) => Ok(()),
        code => Err(Error::from_raw_os_error(code.unwrap_or(libc::EIO))),
    }
}

/// Runs `body` in a child that `enter` takes elsewhere.
pub(crate) fn elsewhere(enter: impl FnOnce() -> Result<()>, body: impl FnOnce()) {
    let Some(pid) = fork() else {
        // The harness above must not run on in this process.
        let ended = std::panic::catch_unwind(AssertUnwindSafe(|| {
            enter().expect("allowed: the test has tried");
            body();
        }));
        exit(i32::from(ended.is_err()));
    };
    assert_eq!(wait(pid), Some(0));
}

pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: no pointers.
    checked(unsafe { libc::kill(pid, signal) }.into()).expect("a process of ours");
}

/// Waits for a child's end; its exit code, or `None` when a signal ended it.
pub(crate) fn wait(pid: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: the status outlives the call.
    checked(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) }.into()).expect("a child");
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

/// Stops a child; it is stopped when this returns.
pub(crate) fn stop(pid: i32) {
    kill(pid, libc::SIGSTOP);
    wait_for_stop(pid);
}

fn wait_for_stop(pid: i32) {
    let mut status = 0;
    let flags = libc::WUNTRACED | libc::__WALL;
    // SAFETY: the status outlives the call.
    checked(unsafe { libc::waitpid(pid, &raw mut status, flags) }.into()).expect("a child");
    assert!(libc::WIFSTOPPED(status), "{status:#x}");
}

/// Stops a child as a debugger does.
pub(crate) fn trace(pid: i32) -> Result<()> {
    let null = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests take no address and no data.
    checked(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, null, null) })?;
    // SAFETY: as above.
    checked(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, pid, null, null) })?;
    wait_for_stop(pid);
    Ok(())
}

/// Ends a child with `kill -9` and leaves it a zombie.
pub(crate) fn kill_unwaited(pid: i32) {
    kill(pid, libc::SIGKILL);
    zombie(pid);
}

/// Waits for a child's end without taking it away.
pub(crate) fn zombie(pid: i32) {
    // SAFETY: zero is valid for this plain structure.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let id = libc::id_t::try_from(pid).expect("a pid");
    let flags = libc::WEXITED | libc::WNOWAIT;
    // SAFETY: the structure outlives the call.
    checked(unsafe { libc::waitid(libc::P_PID, id, &raw mut info, flags) }.into())
        .expect("a child");
}

/// Ends the calling thread alone; of the first one a zombie remains while others run.
pub(crate) fn end_thread() -> ! {
    // SAFETY: nothing of this thread is used by the others.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("the thread has ended")
}

pub(crate) fn state(pid: i32) -> char {
    process_stat(pid).map_or(' ', |stat| char::from(stat.state))
}

pub(crate) fn start(pid: i32) -> u64 {
    process_stat(pid).expect("a process").start_ticks
}

/// Waits until a new process would get another start time than the one given.
pub(crate) fn let_the_clock_tick(start: u64) {
    until(|| {
        let pid = fork().unwrap_or_else(|| exit(0));
        zombie(pid);
        let later = self::start(pid) > start;
        wait(pid);
        later
    });
}

pub(crate) fn set_name(name: &CStr) {
    // SAFETY: the name outlives the call.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Becomes another user, for good.
pub(crate) fn become_user(id: u32) -> Result<()> {
    // SAFETY: no pointers.
    checked(unsafe { libc::setresgid(id, id, id) }.into())?;
    // SAFETY: no pointers.
    checked(unsafe { libc::setresuid(id, id, id) }.into())?;
    // The kernel forgets the signal with the identity.
    end_with_parent();
    Ok(())
}

/// A user that owns nothing.
pub(crate) const NOBODY: u32 = 65_534;

/// Becomes [`NOBODY`], who must be somebody else.
pub(crate) fn become_nobody() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err(Error::from_raw_os_error(libc::EPERM));
    }
    become_user(NOBODY)
}

pub(crate) fn unshare(flags: i32) -> Result<()> {
    // SAFETY: no pointers.
    checked(unsafe { libc::unshare(flags) }.into())?;
    Ok(())
}

fn mount(what: &CStr, place: &CStr, kind: &CStr, flags: libc::c_ulong, data: &CStr) -> Result<()> {
    let (what, place, kind, data) =
        (what.as_ptr(), place.as_ptr(), kind.as_ptr(), data.as_ptr().cast());
    // SAFETY: all strings outlive the call.
    checked(unsafe { libc::mount(what, place, kind, flags, data) }.into())?;
    Ok(())
}

/// A mount namespace of this process alone, in which something else is mounted at `/proc`.
pub(crate) fn mount_over_proc(kind: &CStr, options: &CStr) -> Result<()> {
    unshare(libc::CLONE_NEWNS)?;
    mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, c"")?;
    mount(kind, c"/proc", kind, 0, options)
}

/// Goes on in a child of this process, as the first process of a pid namespace. `/proc` stays as it is.
/// This process ends with the child, as the child ended.
pub(crate) fn enter_pid_namespace() -> Result<()> {
    unshare(libc::CLONE_NEWPID)?;
    go_on_in_child();
    Ok(())
}

/// Goes on in a child in a time namespace in which the machine was booted that much earlier.
pub(crate) fn enter_time_namespace(seconds: u32) -> Result<()> {
    unshare(libc::CLONE_NEWTIME)?;
    std::fs::write("/proc/self/timens_offsets", format!("boottime {seconds} 0\n"))?;
    go_on_in_child();
    Ok(())
}

fn go_on_in_child() {
    if let Some(pid) = fork() {
        exit(wait(pid).unwrap_or(libc::EIO));
    }
}

/// A pipe that programs started from here do not inherit: its ends to read from and to write to.
pub(crate) fn pipe() -> (File, File) {
    let mut ends: [RawFd; 2] = [0; 2];
    // SAFETY: the array outlives the call.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: fresh descriptors that nobody else owns.
    ends.map(|end| unsafe { File::from_raw_fd(end) }).into()
}
