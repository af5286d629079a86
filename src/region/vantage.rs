//! Whose life this process can judge: pids and start times mean something only inside the namespaces
//! that they were read in, and `/proc` only where it is of the reader's own pid namespace.
//!
//! A proof of death is one of three: nobody has the pid; its process is a zombie without other threads;
//! its process started at another time. Whatever else is found, or cannot be found, is no proof. See
//! `docs/adr/0009-proof-of-death.md`.

use super::host::{self, ProcMount};
use crate::layout::Header;
use crate::liveness::{Liveness, Process};
use crate::sync::Ordering;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// Namespaces are a matter of Linux; elsewhere all processes share one of each.
const HAS_NAMESPACES: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// How this process sees the processes of one region. Valid until the process forks.
#[derive(Debug, Clone, Copy)]
pub struct Vantage {
    region_pids: u64,
    own_pids: u64,
    region_times: u64,
    own_times: u64,
    proc: ProcMount,
}

/// Why this process cannot judge all processes of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// Nothing is mounted there, or nothing that knows this process.
    #[error("/proc is not mounted, so that nobody's death can be proven: mount -t proc proc /proc")]
    NoProc,
    /// It is of another pid namespace.
    #[error(
        "/proc numbers processes as another pid namespace does: mount -t proc proc /proc (or \
         unshare --mount-proc)"
    )]
    OtherProc,
    /// The creator could not tell.
    #[error(
        "the region's creator did not know its pid namespace, so that its process ids mean nothing \
         for sure: mount /proc where it starts"
    )]
    NobodysPids,
    /// Its process ids mean something else here.
    #[error(
        "the region is of another {kind} namespace ({found}, here {expected}), where its processes \
         cannot be told apart from others: run this there, e.g. with nsenter"
    )]
    Namespace {
        /// `pid` or `time`.
        kind: &'static str,
        /// The region's.
        found: u64,
        /// Ours.
        expected: u64,
    },
}

impl Obstacle {
    /// What is wrong with this process's `/proc`; `None` = nothing.
    pub fn of_proc() -> Option<Self> {
        Self::of_mount(host::proc_mount())
    }

    fn of_mount(proc: ProcMount) -> Option<Self> {
        match proc {
            ProcMount::Ours => None,
            ProcMount::Missing => Some(Self::NoProc),
            ProcMount::Foreign => Some(Self::OtherProc),
        }
    }
}

impl Vantage {
    /// This process's view of a region with that header.
    pub fn of(header: &Header) -> Self {
        Self {
            region_pids: header.pid_namespace.load(Ordering::Relaxed),
            own_pids: host::namespace("pid"),
            region_times: header.time_namespace.load(Ordering::Relaxed),
            own_times: host::namespace("time"),
            proc: host::proc_mount(),
        }
    }

    /// Whether the region's pids are this process's. Two unknown namespaces need not be the same one.
    fn same_pids(self) -> bool {
        self.region_pids == self.own_pids && (self.own_pids != 0 || !HAS_NAMESPACES)
    }

    /// Whether start times read here compare with the region's: the kernel shifts what it shows by the
    /// reader's time namespace. Kernels without such namespaces say 0 everywhere.
    fn same_starts(self) -> bool {
        self.region_times == self.own_times
    }

    /// What keeps this process from judging; `None` = nothing.
    pub fn obstacle(self) -> Option<Obstacle> {
        if let Some(obstacle) = Obstacle::of_mount(self.proc) {
            return Some(obstacle);
        }
        if HAS_NAMESPACES && self.region_pids == 0 {
            return Some(Obstacle::NobodysPids);
        }
        let kinds = [
            ("pid", self.same_pids(), self.region_pids, self.own_pids),
            ("time", self.same_starts(), self.region_times, self.own_times),
        ];
        let (kind, _, found, expected) = kinds.into_iter().find(|&(_, same, ..)| !same)?;
        Some(Obstacle::Namespace { kind, found, expected })
    }

    /// This process, as it has to register in the region. Where nobody can judge, because the region's
    /// own namespace is unknown, the pid is kept: people want to see it.
    pub fn own(self) -> Process {
        let pid_counts = self.same_pids() || self.region_pids == 0;
        Process {
            pid: if pid_counts { std::process::id() } else { 0 },
            start_ticks: if self.same_starts() { host::own_start_ticks() } else { 0 },
            pid_namespace: self.own_pids,
        }
    }

    /// Whether the process `pid` of the region still lives. `start` answers "can this process be the
    /// one?" for the start time found, so that callers with only some bits of it can ask too.
    pub fn liveness(self, pid: i32, start: impl Fn(u64) -> bool) -> Liveness {
        // Signal 0 to pid 0 or below would ask about whole groups.
        // Under Miri nobody can be asked about.
        if pid <= 0 || !self.same_pids() || cfg!(miri) {
            return Liveness::Unknown;
        }
        match kill(Pid::from_raw(pid), None) {
            Err(Errno::ESRCH) => return Liveness::Dead,
            Ok(()) | Err(Errno::EPERM) => {}
            Err(_) => return Liveness::Unknown,
        }
        if self.proc != ProcMount::Ours {
            return Liveness::Unknown;
        }
        match host::process_stat(pid) {
            // A zombie whose other threads still run is the first thread of a living process.
            Some(stat) if matches!(stat.state, b'Z' | b'X') && stat.threads <= 1 => Liveness::Dead,
            Some(stat) if self.same_starts() && !start(stat.start_ticks) => Liveness::Dead,
            Some(_) => Liveness::Alive,
            // Somebody has that pid, but who it is is hidden from us.
            None => Liveness::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Vantage {
        Vantage {
            region_pids: 7,
            own_pids: 7,
            region_times: 8,
            own_times: 8,
            proc: host::proc_mount(),
        }
    }

    fn own_pid() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    #[test]
    fn this_process_is_alive_and_an_impostor_is_not() {
        let own = host::own_start_ticks();
        assert_eq!(here().liveness(own_pid(), |start| start == own), Liveness::Alive);
        assert_eq!(here().liveness(own_pid(), |start| start == own + 1), Liveness::Dead);
    }

    #[test]
    fn numbers_that_are_no_pid_prove_nothing() {
        for pid in [0, -1, i32::MIN] {
            assert_eq!(here().liveness(pid, |_| false), Liveness::Unknown);
        }
    }

    #[test]
    fn a_killed_child_is_dead_while_still_a_zombie() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start = host::process_stat(pid).unwrap().start_ticks;
        assert_eq!(here().liveness(pid, |found| found == start), Liveness::Alive);
        child.kill().unwrap();
        while host::process_stat(pid).is_some_and(|stat| stat.state != b'Z') {
            std::thread::yield_now();
        }
        assert_eq!(here().liveness(pid, |found| found == start), Liveness::Dead);
        child.wait().unwrap();
        assert_eq!(here().liveness(pid, |found| found == start), Liveness::Dead);
    }

    #[test]
    fn nothing_is_proven_across_pid_namespaces_or_without_knowing_them() {
        for (region_pids, own_pids) in [(7, 9), (0, 7), (7, 0), (0, 0)] {
            let view = Vantage { region_pids, own_pids, ..here() };
            assert_eq!(view.liveness(4_000_000, |_| false), Liveness::Unknown);
            assert!(view.obstacle().is_some());
        }
        assert_eq!(here().obstacle(), None);
    }

    #[test]
    fn start_times_are_not_compared_across_time_namespaces() {
        let view = Vantage { own_times: 9, ..here() };
        assert_eq!(view.liveness(own_pid(), |_| false), Liveness::Alive);
        assert_eq!(view.liveness(4_194_304, |_| true), Liveness::Dead);
        assert_eq!((view.own().pid, view.own().start_ticks), (std::process::id(), 0));
    }

    #[test]
    fn without_a_proc_of_its_own_only_absence_is_a_proof() {
        for proc in [ProcMount::Missing, ProcMount::Foreign] {
            let view = Vantage { proc, ..here() };
            assert_eq!(view.liveness(own_pid(), |_| false), Liveness::Unknown);
            assert_eq!(view.liveness(4_194_304, |_| true), Liveness::Dead);
            assert!(view.obstacle().is_some());
        }
    }

    #[test]
    fn a_process_registers_only_what_the_region_can_understand() {
        let start = host::own_start_ticks();
        assert_eq!((here().own().pid, here().own().start_ticks), (std::process::id(), start));
        assert_eq!(Vantage { own_pids: 9, ..here() }.own().pid, 0);
        assert_eq!(Vantage { region_pids: 0, ..here() }.own().pid, std::process::id());
    }
}
