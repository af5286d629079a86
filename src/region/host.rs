//! What the kernel says about this host and its processes. Linux first; elsewhere the answers are
//! `None` or 0, which means unknown.

/// What `/proc/<pid>/stat` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// `R`, `S`, `T`, `Z` and so on.
    pub state: u8,
    /// Process id of its parent.
    pub parent: i32,
    /// The kernel's flags (`PF_...`).
    pub flags: u64,
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
    // The state is field 3, ppid field 4, flags field 9, num_threads field 20 and starttime field 22.
    let parent = fields.next()?.parse().ok()?;
    let flags = fields.nth(9 - 5)?.parse().ok()?;
    let threads = fields.nth(20 - 10)?.parse().ok()?;
    let start_ticks = fields.nth(22 - 21)?.parse().ok()?;
    Some(ProcessStat { state, parent, flags, threads, start_ticks })
}

/// `PF_EXITING`, `PF_FORKNOEXEC`.
const EXITING: u64 = 0x4;
const FORKED: u64 = 0x40;

/// Whether a process lives, and is the program that forked it still, or has one of the `marks` in its command line,
/// in which each argument is ended by a zero byte. That much can be seen of any user's.
pub fn may_be_worker(pid: i32, marks: &[Vec<u8>]) -> bool {
    let Some(stat) = process_stat(pid) else {
        return false;
    };
    if stat.flags & EXITING != 0 || matches!(stat.state, b'Z' | b'X') {
        return false;
    }
    stat.flags & FORKED != 0 || is_marked(pid, marks)
}

fn is_marked(pid: i32, marks: &[Vec<u8>]) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let has = |mark: &[u8]| !mark.is_empty() && line.windows(mark.len()).any(|part| part == mark);
    marks.iter().any(|mark| has(mark))
}

/// The processes that exist, as far as `/proc` shows them.
pub fn processes() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Whether this process has children, as far as the kernel says so without being asked about all processes.
/// None of them is waited for.
pub fn has_children() -> bool {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::wait::{Id, WaitPidFlag, waitid};
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::All, flags) != Err(nix::errno::Errno::ECHILD)
    }
    #[cfg(not(target_os = "linux"))]
    true
}

/// What some processes have started, and what those have, as far as it is not orphaned.
pub fn descendants_of(ancestors: &[i32]) -> Vec<i32> {
    let parents: Vec<(i32, i32)> =
        processes().filter_map(|pid| Some((pid, process_stat(pid)?.parent))).collect();
    let mut found = ancestors.to_vec();
    let mut next = 0;
    while let Some(&ancestor) = found.get(next) {
        let children = parents.iter().filter(|&&(_, parent)| parent == ancestor);
        for &(pid, _) in children {
            if !found.contains(&pid) {
                found.push(pid);
            }
        }
        next += 1;
    }
    found.split_off(ancestors.len())
}

/// Start time of this process; 0 = unknown.
pub fn own_start_ticks() -> u64 {
    std::fs::read("/proc/self/stat")
        .ok()
        .and_then(|text| parse_stat(&text))
        .map_or(0, |stat| stat.start_ticks)
}

/// What is mounted at `/proc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcMount {
    /// It numbers processes as this process does.
    Ours,
    /// It is of another pid namespace, and says nothing about whoever has a pid in this one.
    Foreign,
    /// Nothing that knows this process.
    Missing,
}

/// Whose processes `/proc` shows. In a pid namespace that has not mounted its own it is the parent's.
pub fn proc_mount() -> ProcMount {
    let link = std::fs::read_link("/proc/self").ok();
    let Some(pid) = link.and_then(|link| link.to_str()?.parse::<u32>().ok()) else {
        return ProcMount::Missing;
    };
    let ours = match std::fs::read("/proc/self/status") {
        Ok(status) => same_numbers(&status, std::process::id()).unwrap_or(true),
        Err(_) => false,
    };
    if ours && pid == std::process::id() { ProcMount::Ours } else { ProcMount::Foreign }
}

/// Whether the pids in a `status` file are those of its process's own namespace. `NSpid` lists the
/// process's pid in each namespace from that of the mount down to its own: one number if they are the
/// same, and only then; equal numbers alone may be a coincidence. `None` = the kernel does not say.
fn same_numbers(status: &[u8], own: u32) -> Option<bool> {
    let line = status.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"NSpid:"))?;
    let mut pids = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    Some(pids.next()?.parse() == Ok(own) && pids.next().is_none())
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
        let (flags, start_ticks) = (4_194_304, 987_654);
        let expected = ProcessStat { state: b'S', parent: 7, flags, threads: 1, start_ticks };
        assert_eq!(parse_stat(line), Some(expected));
        assert_eq!(parse_stat(b""), None);
        assert_eq!(parse_stat(b"42 (x"), None);
        assert_eq!(parse_stat(b"42 (x) S 1 2"), None);
    }

    /// The tests are started by an exec, and so is a child, whose arguments are what it is told.
    #[test]
    fn what_became_another_program_is_a_worker_by_its_arguments_alone() {
        use std::process::{Command, Stdio};
        let marks: Vec<Vec<u8>> =
            [b"\0--worker\0".as_slice(), b"fork_server.main", b""].map(<[u8]>::to_vec).into();
        let may_be_worker = |pid: i32| may_be_worker(pid, &marks);
        let is_worker = |argument: &str| {
            let mut command = Command::new("cat");
            let mut child =
                command.args(["--", "-", argument]).stdin(Stdio::piped()).spawn().unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            // Its arguments come last.
            while std::fs::read(format!("/proc/{pid}/cmdline")).unwrap().is_empty() {
                std::thread::yield_now();
            }
            let found = may_be_worker(pid);
            child.kill().unwrap();
            while process_stat(pid).unwrap().state != b'Z' {
                std::thread::yield_now();
            }
            assert!(!may_be_worker(pid));
            child.wait().unwrap();
            assert!(!may_be_worker(pid));
            found
        };
        assert!(is_worker("--worker"));
        assert!(!is_worker("--workers"));
        assert!(is_worker("run fork_server.main()"));
    }

    #[test]
    fn proc_is_of_this_namespace_only_if_it_knows_one_pid() {
        let status = |line: &str| format!("Name:\tNSpid:\t7\nPid:\t7\n{line}\nThreads:\t1\n");
        let ours = |line: &str| same_numbers(status(line).as_bytes(), 7);
        assert_eq!(ours("NSpid:\t7"), Some(true));
        assert_eq!(ours("NSpid:\t7\t7"), Some(false));
        assert_eq!(ours("NSpid:\t8"), Some(false));
        assert_eq!(ours("NSpid:"), None);
        assert_eq!(ours("NSsid:\t7"), None);
        assert_eq!(proc_mount(), ProcMount::Ours);
    }
}
