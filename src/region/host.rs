//! What the kernel says about this host and its processes. Linux first; elsewhere the answers are
//! `None` or "unknown", which never counts as dead.

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// Whether a process is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It runs, sleeps or is stopped.
    Alive,
    /// It is gone, a zombie, or its pid belongs to a younger process.
    Dead,
    /// It cannot be told from here; treated as alive.
    Unknown,
}

/// State letter and start time (clock ticks since boot) of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// `R`, `S`, `T`, `Z` and so on.
    pub state: u8,
    /// Threads, the first one included; 0 when it is gone.
    pub threads: u64,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
}

/// Reads `/proc/<pid>/stat`; `None` where it cannot be read.
pub fn process_stat(pid: i32) -> Option<ProcessStat> {
    parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The command name in parentheses may hold anything, parentheses and newlines included: what counts
/// begins after the last one.
fn parse_stat(text: &[u8]) -> Option<ProcessStat> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    // The state is field 3, num_threads field 20 and starttime field 22.
    let threads = fields.nth(20 - 4)?.parse().ok()?;
    let start_ticks = fields.nth(22 - 21)?.parse().ok()?;
    Some(ProcessStat { state, threads, start_ticks })
}

/// Start time of this process; 0 = unknown.
pub fn own_start_ticks() -> u64 {
    std::fs::read("/proc/self/stat")
        .ok()
        .and_then(|text| parse_stat(&text))
        .map_or(0, |stat| stat.start_ticks)
}

/// Whether `/proc` numbers processes as this process does. It does not in a pid namespace that has not
/// mounted its own, and then says nothing about anybody's life.
fn proc_is_ours() -> bool {
    std::fs::read_link("/proc/self")
        .ok()
        .and_then(|link| link.to_str()?.parse::<u32>().ok())
        .is_some_and(|pid| pid == std::process::id())
}

/// Whether the process `pid` that started at `start` still lives. `start` answers "can this process
/// be the one?" for the start time found, so that callers with only some bits of it can ask too.
pub fn liveness(pid: i32, start: impl Fn(u64) -> bool) -> Liveness {
    if pid <= 0 {
        return Liveness::Dead;
    }
    match kill(Pid::from_raw(pid), None) {
        Err(Errno::ESRCH) => return Liveness::Dead,
        Ok(()) | Err(Errno::EPERM) => {}
        Err(_) => return Liveness::Unknown,
    }
    if !proc_is_ours() {
        return Liveness::Unknown;
    }
    match process_stat(pid) {
        Some(stat) if !start(stat.start_ticks) => Liveness::Dead,
        // A zombie whose other threads still run is the first thread of a living process.
        Some(stat) if matches!(stat.state, b'Z' | b'X') && stat.threads <= 1 => Liveness::Dead,
        Some(_) => Liveness::Alive,
        // Somebody has that pid, but who it is is hidden from us.
        None => Liveness::Unknown,
    }
}

/// The kernel's boot id; zeroes where there is none.
pub fn boot_id() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let half = |range: std::ops::Range<usize>| {
        digits.get(range).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0)
    };
    [half(0..16), half(16..32)]
}

/// Inode of a namespace of this process (`pid`, `time`); 0 = unknown.
pub fn namespace(kind: &str) -> u64 {
    std::fs::read_link(format!("/proc/self/ns/{kind}"))
        .ok()
        .and_then(|link| {
            let text = link.to_str()?;
            text.split_once('[')?.1.strip_suffix(']')?.parse().ok()
        })
        .unwrap_or(0)
}

/// Sixteen random bytes.
pub fn random_seed() -> std::io::Result<[u64; 2]> {
    use std::io::Read;
    let mut bytes = [0_u8; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let (high, low) = bytes.split_at(8);
    let word = |half: &[u8]| half.iter().fold(0_u64, |word, &byte| word << 8 | u64::from(byte));
    Ok([word(high), word(low)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_with_hostile_names_are_parsed() {
        let line = b"42 (a) R 1) \n(x) S 7 1 1 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 1\n";
        let expected = ProcessStat { state: b'S', threads: 1, start_ticks: 987_654 };
        assert_eq!(parse_stat(line), Some(expected));
        assert_eq!(parse_stat(b""), None);
        assert_eq!(parse_stat(b"42 (x"), None);
        assert_eq!(parse_stat(b"42 (x) S 1 2"), None);
    }

    #[test]
    fn this_process_is_alive_and_an_impostor_is_not() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let own = own_start_ticks();
        assert_eq!(liveness(pid, |start| start == own), Liveness::Alive);
        assert_eq!(liveness(pid, |start| start == own + 1), Liveness::Dead);
        assert_eq!(liveness(0, |_| true), Liveness::Dead);
        assert_eq!(liveness(-1, |_| true), Liveness::Dead);
    }

    #[test]
    fn a_killed_child_is_dead_while_still_a_zombie() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start = process_stat(pid).unwrap().start_ticks;
        assert_eq!(liveness(pid, |found| found == start), Liveness::Alive);
        child.kill().unwrap();
        while process_stat(pid).is_some_and(|stat| stat.state != b'Z') {
            std::thread::yield_now();
        }
        assert_eq!(liveness(pid, |found| found == start), Liveness::Dead);
        child.wait().unwrap();
        assert_eq!(liveness(pid, |found| found == start), Liveness::Dead);
    }
}
