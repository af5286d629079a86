//! Forked children that answer in lines of text and die with the test.

use super::operations::Effect;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// One end of a conversation.
pub(crate) struct Channel {
    stream: BufReader<UnixStream>,
}

impl Channel {
    fn new(stream: UnixStream) -> Self {
        Self { stream: BufReader::with_capacity(256, stream) }
    }

    pub(crate) fn send(&mut self, line: &str) -> Result<(), String> {
        let line = format!("{}\n", line.replace('\n', " / "));
        self.stream.get_mut().write_all(line.as_bytes()).map_err(|error| format!("send: {error}"))
    }

    /// The next line; what the other side reports as an error is one.
    pub(crate) fn receive(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(|error| format!("receive: {error}"))?;
        let line = line.strip_suffix('\n').ok_or("the process ended without an answer")?;
        line.strip_prefix("error: ").map_or_else(|| Ok(line.to_string()), |text| Err(text.into()))
    }

    pub(crate) fn send_effect(&mut self, effect: Effect) -> Result<(), String> {
        self.send(&effect.map(|count| count.to_string()).join(" "))
    }

    pub(crate) fn receive_effect(&mut self) -> Result<Effect, String> {
        let line = self.receive()?;
        let counts: Vec<i64> = line.split(' ').filter_map(|count| count.parse().ok()).collect();
        counts.try_into().map_err(|_| format!("not an effect: {line}"))
    }
}

/// A forked child; killed and waited for when dropped.
pub(crate) struct Child {
    pub(crate) pid: Pid,
    pub(crate) channel: Channel,
}

/// Between making a channel and closing the child's end of it no other test may fork: its child would
/// keep that end open, and a death would go unnoticed.
static FORKING: Mutex<()> = Mutex::new(());

impl Child {
    /// Forks; the child runs `body`, reports its error if there is one, and ends.
    pub(crate) fn fork(
        body: impl FnOnce(&mut Channel) -> Result<(), String>,
    ) -> Result<Self, String> {
        let forking = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
        let (ours, theirs) = UnixStream::pair().map_err(|error| format!("socketpair: {error}"))?;
        // SAFETY: the child touches nothing that another thread may have locked: it allocates (the C
        // library's own fork handlers see to that), uses the region, and ends without any clean-up.
        match unsafe { fork() }.map_err(|error| format!("fork: {error}"))? {
            ForkResult::Parent { child } => {
                drop(theirs);
                drop(forking);
                Ok(Self { pid: child, channel: Channel::new(ours) })
            }
            ForkResult::Child => {
                drop(ours);
                be_a_child(body, Channel::new(theirs))
            }
        }
    }

    /// Kills the process and waits until it is a zombie: dead, but its pid still taken.
    pub(crate) fn kill(&self) -> Result<(), String> {
        kill(self.pid, Signal::SIGKILL).map_err(|error| format!("kill: {error}"))?;
        waitid(Id::Pid(self.pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
            .map(drop)
            .map_err(|error| format!("waitid: {error}"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        while let Ok(status) = waitpid(self.pid, None) {
            if matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
                return;
            }
        }
    }
}

fn be_a_child(body: impl FnOnce(&mut Channel) -> Result<(), String>, mut channel: Channel) -> ! {
    let _ = set_pdeathsig(Signal::SIGKILL);
    let done = catch_unwind(AssertUnwindSafe(|| body(&mut channel)));
    let done = done.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("no message")))
    });
    if let Err(error) = &done {
        let _ = channel.send(&format!("error: {error}"));
    }
    // SAFETY: ends the process at once; nothing of the test may run twice.
    unsafe { libc::_exit(i32::from(done.is_err())) }
}
