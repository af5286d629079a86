//! A process under ptrace that is stopped at every instruction, or before every access to the region.
//!
//! Accesses are found by the page tables: the region's pages are made unreadable or unwritable in the
//! tracee, so the kernel stops it at each instruction that would touch them, before that has had any
//! effect. To let one pass, the pages are opened for exactly that instruction. The calls of `mprotect` are
//! the tracer's, made in the tracee's name while it is stopped.

use super::process::Child;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// Bytes of a page.
const PAGE: u64 = super::stage::PAGE as u64;

/// `syscall`, as two bytes read from memory.
const SYSCALL: u64 = 0x050f;

/// The error of a tracee that is no more.
pub(crate) const ENDED: &str = "the tracee has ended";

/// Which accesses to the region stop the tracee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// None.
    Open,
    /// Those that write, failed swaps included.
    Writes,
    /// All.
    Accesses,
    /// All to the page at that offset.
    Page(u64),
}

impl Guard {
    fn protection(self) -> u64 {
        let bits = match self {
            Self::Open => libc::PROT_READ | libc::PROT_WRITE,
            Self::Writes => libc::PROT_READ,
            Self::Accesses | Self::Page(_) => libc::PROT_NONE,
        };
        u64::from(bits.unsigned_abs())
    }
}

/// Why the tracee is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It has executed one instruction.
    Instruction,
    /// It is about to access shared memory, at that offset.
    Access(u64),
    /// It is about to enter a system call, or has just returned from it.
    Syscall,
    /// It has reached a marker.
    Marker,
}

enum Event {
    Trap,
    Syscall,
    Marker,
    Fault(u64),
}

/// Shared memory as the tracee sees it.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    /// Address.
    pub(crate) start: u64,
    /// Bytes, whole pages.
    pub(crate) len: u64,
    /// What its first byte is called.
    pub(crate) offset: u64,
}

/// What a tracee that was stopped at the entry of a system call will do there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// It is not in one.
    No,
    /// Map so many bytes, to be shared.
    Map(u64),
    /// Something else.
    Other,
}

/// A stopped process and where the region lies in it.
pub(crate) struct Tracee {
    pid: Pid,
    ranges: Vec<Range>,
    guard: Guard,
    /// Address of a `syscall` instruction.
    gate: u64,
    inside: Inside,
}

fn failed(what: &str) -> impl Fn(nix::errno::Errno) -> String + '_ {
    move |error| format!("{what}: {error}")
}

impl Tracee {
    /// Takes a child that called `traceme` at its first marker; `ranges` are what can be guarded.
    pub(crate) fn at_marker(pid: Pid, ranges: Vec<Range>) -> Result<Self, String> {
        let mut tracee = Self { pid, ranges, guard: Guard::Open, gate: 0, inside: Inside::No };
        if !matches!(tracee.wait()?, Event::Marker) {
            return Err("not at its marker".to_string());
        }
        let options = Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACESYSGOOD;
        ptrace::setoptions(pid, options).map_err(failed("setoptions"))?;
        // The marker is a system call, and the tracee stands right behind it.
        tracee.gate = ptrace::getregs(pid).map_err(failed("getregs"))?.rip - 2;
        let word = ptrace::read(pid, tracee.gate as ptrace::AddressType).map_err(failed("read"))?;
        if word.cast_unsigned() & 0xffff != SYSCALL {
            return Err(format!("no system call at {:#x}: {word:#x}", tracee.gate));
        }
        Ok(tracee)
    }

    fn wait(&self) -> Result<Event, String> {
        match waitpid(self.pid, None).map_err(failed("waitpid"))? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => Ok(Event::Trap),
            WaitStatus::Stopped(_, Signal::SIGSTOP) => Ok(Event::Marker),
            WaitStatus::PtraceSyscall(_) => Ok(Event::Syscall),
            WaitStatus::Stopped(_, Signal::SIGSEGV) => {
                let info = ptrace::getsiginfo(self.pid).map_err(failed("getsiginfo"))?;
                // SAFETY: the signal is SIGSEGV, whose information has an address.
                let address = unsafe { info.si_addr() } as u64;
                Ok(Event::Fault(address))
            }
            WaitStatus::Exited(..) => Err(ENDED.to_string()),
            other => Err(format!("the tracee is {other:?}")),
        }
    }

    fn offset(&self, address: u64) -> Result<u64, String> {
        let inside = |range: &&Range| (range.start..range.start + range.len).contains(&address);
        let range = self.ranges.iter().find(inside);
        range
            .map(|range| address - range.start + range.offset)
            .ok_or(format!("crashed at address {address:#x}"))
    }

    /// Says which accesses stop from now on.
    pub(crate) fn guard(&mut self, guard: Guard) -> Result<(), String> {
        if guard == self.guard {
            return Ok(());
        }
        if let Guard::Page(offset) = self.guard {
            self.protect(&Self::pages(&self.ranges, offset), Guard::Open)?;
            self.guard = Guard::Open;
            return self.guard(guard);
        }
        if let Guard::Page(offset) = guard {
            self.guard(Guard::Open)?;
            self.protect(&Self::pages(&self.ranges, offset), guard)?;
        } else {
            self.protect(&self.ranges, guard)?;
        }
        self.guard = guard;
        Ok(())
    }

    /// The page at an offset, wherever it is mapped.
    fn pages(ranges: &[Range], offset: u64) -> Vec<Range> {
        let page = offset - offset % PAGE;
        let inside = |range: &&Range| (range.offset..range.offset + range.len).contains(&page);
        let part = |range: &Range| {
            let start = range.start + (page - range.offset);
            Range { start, len: PAGE, offset: page }
        };
        ranges.iter().filter(inside).map(part).collect()
    }

    fn protect(&self, ranges: &[Range], guard: Guard) -> Result<(), String> {
        let saved = ptrace::getregs(self.pid).map_err(failed("getregs"))?;
        for &Range { start, len, .. } in ranges {
            let mut call = saved;
            call.rip = self.gate;
            call.rax = libc::SYS_mprotect.unsigned_abs();
            (call.rdi, call.rsi, call.rdx) = (start, len, guard.protection());
            // Not inside a system call that would have to be begun again.
            call.orig_rax = u64::MAX;
            ptrace::setregs(self.pid, call).map_err(failed("setregs"))?;
            self.trap()?;
            let result = ptrace::getregs(self.pid).map_err(failed("getregs"))?.rax;
            if result != 0 {
                return Err(format!("mprotect: {}", result.cast_signed()));
            }
        }
        ptrace::setregs(self.pid, saved).map_err(failed("setregs"))
    }

    /// Executes one instruction that must not stop for another reason.
    fn trap(&self) -> Result<(), String> {
        ptrace::step(self.pid, None).map_err(failed("step"))?;
        match self.wait()? {
            Event::Trap => Ok(()),
            Event::Fault(address) => Err(format!("crashed at address {address:#x}")),
            Event::Syscall | Event::Marker => Err("an unexpected stop".to_string()),
        }
    }

    /// Executes one instruction, or stops before it because it would access shared memory.
    pub(crate) fn step(&mut self) -> Result<Stop, String> {
        ptrace::step(self.pid, None).map_err(failed("step"))?;
        match self.wait()? {
            Event::Trap => Ok(Stop::Instruction),
            Event::Syscall => Ok(Stop::Syscall),
            Event::Marker => Ok(Stop::Marker),
            Event::Fault(address) => self.offset(address).map(Stop::Access),
        }
    }

    /// Executes the instruction that the tracee was stopped before.
    pub(crate) fn pass(&mut self) -> Result<(), String> {
        let guard = self.guard;
        self.guard(Guard::Open)?;
        self.trap()?;
        self.guard(guard)
    }

    /// As [`Self::pass`]; tells whether the instruction writes.
    pub(crate) fn pass_and_tell(&mut self) -> Result<bool, String> {
        let guard = self.guard;
        self.guard(Guard::Writes)?;
        let writes = matches!(self.step()?, Stop::Access(_));
        if writes {
            self.pass()?;
        }
        self.guard(guard)?;
        Ok(writes)
    }

    /// Runs to the next access or marker.
    pub(crate) fn run(&mut self) -> Result<Stop, String> {
        loop {
            let stop = self.run_to_syscall()?;
            if stop != Stop::Syscall {
                return Ok(stop);
            }
        }
    }

    /// Runs to the next access, marker, or end or beginning of a system call. What the tracee maps
    /// meanwhile to share it is taken for the region, and guarded from the first instant.
    pub(crate) fn run_to_syscall(&mut self) -> Result<Stop, String> {
        ptrace::syscall(self.pid, None).map_err(failed("syscall"))?;
        match self.wait()? {
            Event::Syscall => self.syscall().map(|()| Stop::Syscall),
            Event::Marker => {
                self.inside = Inside::No;
                Ok(Stop::Marker)
            }
            Event::Fault(address) => self.offset(address).map(Stop::Access),
            Event::Trap => Err("an unexpected trap".to_string()),
        }
    }

    fn syscall(&mut self) -> Result<(), String> {
        let mut regs = ptrace::getregs(self.pid).map_err(failed("getregs"))?;
        if self.inside != Inside::No {
            // Errors are the highest addresses.
            if let (Inside::Map(len), 0..0xffff_ffff_ffff_f000) = (self.inside, regs.rax) {
                let range = Range { start: regs.rax, len, offset: 0 };
                if let Guard::Page(offset) = self.guard {
                    self.protect(&[range], Guard::Open)?;
                    self.protect(&Self::pages(&[range], offset), self.guard)?;
                }
                self.ranges.push(range);
            }
            self.inside = Inside::No;
            return Ok(());
        }
        let flag = |value: u64, bit: i32| value & u64::from(bit.unsigned_abs()) != 0;
        let maps = regs.orig_rax == libc::SYS_mmap.unsigned_abs()
            && flag(regs.rdx, libc::PROT_WRITE)
            && flag(regs.r10, libc::MAP_SHARED);
        self.inside = if maps { Inside::Map(regs.rsi) } else { Inside::Other };
        if maps {
            regs.rdx = self.guard.protection();
            ptrace::setregs(self.pid, regs).map_err(failed("setregs"))?;
        }
        Ok(())
    }

    /// Lets it go on without a stop until the next marker.
    pub(crate) fn run_to_marker(&mut self) -> Result<(), String> {
        self.guard(Guard::Open)?;
        ptrace::cont(self.pid, None).map_err(failed("cont"))?;
        match self.wait()? {
            Event::Marker => Ok(()),
            Event::Fault(address) => Err(format!("crashed at address {address:#x}")),
            Event::Trap | Event::Syscall => Err("an unexpected stop".to_string()),
        }
    }

    /// Lets it go on for good.
    pub(crate) fn let_go(&self) -> Result<(), String> {
        ptrace::cont(self.pid, None).map_err(failed("cont"))
    }
}

/// Whether this process may trace its children; if not, why.
pub(crate) fn permitted() -> Result<(), String> {
    let mut child = Child::fork(|channel| {
        ptrace::traceme().map_err(|error| format!("traceme: {error}"))?;
        raise(Signal::SIGSTOP).map_err(|error| format!("raise: {error}"))?;
        channel.receive().map(drop)
    })?;
    match waitpid(child.pid, None).map_err(failed("waitpid"))? {
        WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
        _ => return child.channel.receive().map(drop),
    }
    ptrace::step(child.pid, None).map_err(failed("step"))?;
    match waitpid(child.pid, None).map_err(failed("waitpid"))? {
        WaitStatus::Stopped(_, Signal::SIGTRAP) => Ok(()),
        other => Err(format!("a single step ends with {other:?}")),
    }
}
