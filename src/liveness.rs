//! Who a process is and whether it lives, as far as a region can record it. Knows no operating system, so
//! that a model checker can stand in for one; `region::Vantage` asks the kernel.

/// Whether a process is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// It runs, sleeps or is stopped.
    Alive,
    /// It is gone, a zombie, or its pid belongs to a younger process.
    Dead,
    /// It cannot be told from here; treated as alive.
    Unknown,
}

/// A process as it registers: what a later proof of its death will need.
///
/// Numbers that would mean something else in the region's namespaces are 0, from the first instant that
/// anybody can see them: a wrong number that is corrected a moment later is a wrong proof in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Process id in the region's pid namespace; 0 = not known there, so that nobody can prove it dead.
    pub pid: u32,
    /// Start time in clock ticks since boot, as the region's time namespace counts them; 0 = unknown, so
    /// that the age of whoever has the pid proves nothing.
    pub start_ticks: u64,
    /// Inode of its pid namespace, for people; 0 = unknown.
    pub pid_namespace: u64,
}
