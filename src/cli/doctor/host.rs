//! What a host gives to regions.

use super::Check;
use crate::cli::output::bytes;
use crate::config::Capacity;
use crate::region::{Found, Obstacle, Sections, attach_read_only, orphans};
use crate::sync::Ordering;
use nix::sys::statvfs::statvfs;
use nix::time::{ClockId, clock_getres};

/// `live` = the regions of this host.
pub(super) fn checks(live: &[Found]) -> Vec<Check> {
    let here = [kernel(), Some(proc()), clock(), memory_files(), memory_limit()];
    here.into_iter().flatten().chain([regions(live)]).chain(left_behind(live)).collect()
}

fn kernel() -> Option<Check> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let version = text.trim().to_string();
    let mut numbers = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let remedy = "memfd needs Linux 3.17: regions are files in /dev/shm instead";
    Some(if found >= (3, 17) {
        Check::ok("kernel", version)
    } else {
        Check::note("kernel", version, remedy)
    })
}

fn proc() -> Check {
    match Obstacle::of_proc() {
        None => Check::ok("/proc", "numbers processes as this process does"),
        Some(obstacle) => Check::problem("/proc", obstacle.to_string(), "mount it here"),
    }
}

/// Limits are decided by the kernel's coarse clock.
fn clock() -> Option<Check> {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).ok()?;
    let tick_us = tick.tv_sec() * 1_000_000 + tick.tv_nsec() / 1_000;
    let found = format!("ticks every {} ms", tick_us.div_euclid(1_000));
    Some(if tick_us <= 10_000 {
        Check::ok("clock", found)
    } else {
        Check::note("clock", found, "limits are exact to one tick: a kernel of 100 Hz or more")
    })
}

fn memory_files() -> Option<Check> {
    let found = statvfs("/dev/shm").ok()?;
    let block = found.fragment_size();
    let free = found.blocks_available().saturating_mul(block);
    let all = found.blocks().saturating_mul(block);
    let wanted = Sections::of(Capacity::default()).total_len();
    let said = format!("{} of {} free", bytes(free), bytes(all));
    let remedy = format!(
        "a region of default size takes up to {}; one that is a file needs the room here (docker run \
         --shm-size, or a smaller FAST_LITELLM_SHM_KEYS); a memfd does not",
        bytes(wanted)
    );
    Some(if free >= wanted {
        Check::ok("/dev/shm", said)
    } else {
        Check::note("/dev/shm", said, remedy)
    })
}

/// Limit and use of memory, where the container's are: with version 2 of control groups, and with version 1.
const MEMORY: [[&str; 2]; 2] = [
    ["memory.max", "memory.current"],
    ["memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"],
];
/// Version 1 says so much where there is no limit.
const UNLIMITED: u64 = 1 << 60;

/// Shared memory counts as memory of the container.
fn memory_limit() -> Option<Check> {
    let number = |file: &str| -> Option<u64> {
        std::fs::read_to_string(format!("/sys/fs/cgroup/{file}")).ok()?.trim().parse().ok()
    };
    let found = MEMORY.iter().find_map(|[limit, used]| Some((number(limit)?, number(used)?)));
    let (limit, used) = found.filter(|&(limit, _)| limit < UNLIMITED)?;
    let left = limit.saturating_sub(used);
    let wanted = Sections::of(Capacity::default()).total_len();
    let found = format!("{} of {} left", bytes(left), bytes(limit));
    let remedy = format!("a region of default size may grow to {}: raise the limit", bytes(wanted));
    Some(if left >= wanted {
        Check::ok("memory limit", found)
    } else {
        Check::note("memory limit", found, remedy)
    })
}

/// Several masters on one host are fine; several workers of one master with a region each are not.
fn regions(live: &[Found]) -> Check {
    match (live.len(), siblings(live)) {
        (0, _) => Check::note(
            "regions",
            "no live region that you may see",
            "is the proxy running, and as this user? As root all are seen",
        ),
        (count, None) => Check::ok("regions", format!("{count} live")),
        (_, Some((parent, count))) => Check::problem(
            "regions",
            format!("{count} workers of process {parent} have a region each"),
            "limits are that many times too high: start gunicorn with --preload, or set \
             FAST_LITELLM_SHM to one path for all workers",
        ),
    }
}

/// The parent of several workers that made a region each, and how many did.
fn siblings(live: &[Found]) -> Option<(i32, usize)> {
    let parents: Vec<i32> = live.iter().filter_map(master_of).collect();
    let count = |parent: i32| parents.iter().filter(|&&other| other == parent).count();
    parents.iter().map(|&parent| (parent, count(parent))).find(|&(_, count)| count > 1)
}

/// The parent of the process that made a region, where it is a worker: forked without another program being
/// started, or spawned by Python's multiprocessing. A shell or a supervisor is no master.
fn master_of(found: &Found) -> Option<i32> {
    let region = attach_read_only(&found.path).ok()?;
    let pid = i32::try_from(region.header().creator_pid.load(Ordering::Relaxed)).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    let command = |pid: i32| std::fs::read(format!("/proc/{pid}/cmdline")).ok();
    let own = command(pid).filter(|own| !own.is_empty())?;
    let spawned = String::from_utf8_lossy(&own).contains("multiprocessing");
    (spawned || command(parent)? == own).then_some(parent)
}

fn left_behind(live: &[Found]) -> Option<Check> {
    let found = orphans(live);
    let names: Vec<&str> = found.iter().map(|region| region.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        Check::note(
            "left behind",
            names.join(", "),
            "nobody uses these files: the next start with that path goes on with their state, or \
             remove them",
        )
    })
}
