//! Finding the live regions of this host through the processes that hold them open.
//!
//! Every process of a region keeps its file open, so `/proc/<pid>/fd` names it as long as anybody
//! lives: there is no registry that could be stale. Who has it open for reading only looks at it and is none
//! of them. Only the caller's own processes are visible, unless the caller is root.

use super::backing::{identity, label_of};
use super::host::{process_stat, processes};
use crate::tables::names::printable;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// One live region.
#[derive(Debug, Clone)]
pub struct Found {
    /// Name given by its creator, or the path of its file, as [`printable`] has it.
    pub name: String,
    /// Where it can be opened: `/proc/<pid>/fd/<n>` of one of its processes.
    pub path: PathBuf,
    /// Processes that hold it open, oldest first.
    pub pids: Vec<i32>,
    /// Device and inode, its identity.
    pub id: (u64, u64),
    /// Bytes.
    pub len: u64,
}

/// All live regions that this user can see, oldest process first.
pub fn discover() -> Vec<Found> {
    discover_in(processes().collect())
}

/// Those of one process; others that use them are not looked for.
pub fn discover_of(pid: i32) -> Vec<Found> {
    discover_in(vec![pid])
}

/// Those of some processes.
pub(super) fn discover_in(mut pids: Vec<i32>) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    // Asked once for each: processes end meanwhile, and an order that changes while it is made panics.
    pids.sort_by_cached_key(|&pid| process_stat(pid).map_or(u64::MAX, |stat| stat.start_ticks));
    for pid in pids {
        let folder = format!("/proc/{pid}/fd");
        for fd in entries(&folder) {
            let path = PathBuf::from(format!("{folder}/{fd}"));
            let Some(name) = region_name(&path).filter(|_| is_writable(&path)) else {
                continue;
            };
            let Ok(meta) = std::fs::metadata(&path) else {
                continue;
            };
            let id = identity(&meta);
            match found.iter_mut().find(|region| region.id == id) {
                Some(region) if region.pids.contains(&pid) => {}
                Some(region) => region.pids.push(pid),
                None => found.push(Found { name, path, pids: vec![pid], id, len: meta.len() }),
            }
        }
    }
    found
}

/// Where named regions usually are.
const MEMORY_FILES: &str = "/dev/shm";

/// Files of regions that no process holds open, below `/dev/shm`, as far as this user can open them: left by
/// processes that have ended. `live` = what [`discover`] found.
pub fn orphans(live: &[Found]) -> Vec<Found> {
    let paths = entries(MEMORY_FILES).map(|name| PathBuf::from(format!("{MEMORY_FILES}/{name}")));
    let orphan = |path: PathBuf| {
        has_magic(&path).filter(|&ours| ours)?;
        let meta = std::fs::symlink_metadata(&path).ok()?;
        let id = identity(&meta);
        let alone = meta.is_file() && !live.iter().any(|region| region.id == id);
        let name = printable(&path.display().to_string()).into_owned();
        alone.then(|| Found { name, path, pids: Vec::new(), id, len: meta.len() })
    };
    let mut found: Vec<Found> = paths.filter_map(orphan).collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

fn entries(folder: &str) -> impl Iterator<Item = String> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// The region's name if the descriptor is one: a memfd of ours, or a file that begins with our magic.
///
/// Who made it chose the name: it is not shown as it is to a terminal of somebody else.
fn region_name(path: &std::path::Path) -> Option<String> {
    let target = std::fs::read_link(path).ok()?;
    let text = target.to_str()?;
    if let Some(rest) = text.strip_prefix("/memfd:fl-shm:") {
        return Some(printable(rest.strip_suffix(" (deleted)").unwrap_or(rest)).into_owned());
    }
    let kept = text.strip_suffix(" (deleted)");
    if let Some(label) = kept.and_then(|file| label_of(file.rsplit('/').next()?)) {
        return Some(printable(label).into_owned());
    }
    // A named one may have been removed under its users. Most descriptors are no files but "socket:[1234]" and
    // the like.
    let name = kept.unwrap_or(text);
    let is_ours = || has_magic(path).is_some_and(|ours| ours);
    (name.starts_with('/') && is_ours()).then(|| printable(name).into_owned())
}

/// Whether the descriptor is open for writing, which the link to it says.
fn is_writable(path: &std::path::Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|link| link.mode() & 0o200 != 0)
}

/// Opens only what can be a named region at all: a private file of whole pages.
fn has_magic(path: &std::path::Path) -> Option<bool> {
    use std::io::Read;
    let meta = std::fs::metadata(path).ok()?;
    if !meta.is_file() || meta.mode() & 0o7777 != 0o600 || meta.len() == 0 || meta.len() % 4096 != 0
    {
        return None;
    }
    let mut magic = [0_u8; 8];
    std::fs::File::open(path).ok()?.read_exact(&mut magic).ok()?;
    Some(u64::from_le_bytes(magic) == crate::layout::MAGIC)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::clock::MonotonicClock;
    use crate::config::Capacity;
    use crate::region::{Placement, attach_read_only, create};
    use std::os::fd::AsRawFd;

    #[test]
    fn who_only_looks_is_no_process_of_the_region() {
        let capacity = Capacity::checked(1024, 64, 4).unwrap();
        let made = create(&Placement::inherited("looked-at"), capacity, Box::new(MonotonicClock));
        let made = made.unwrap();
        let found = || {
            let mut found = discover_of(i32::try_from(std::process::id()).unwrap());
            found.retain(|found| found.name == "looked-at");
            found
        };
        let fd = made.backing().file.as_ref().unwrap().as_raw_fd();
        let looking = attach_read_only(format!("/proc/self/fd/{fd}").as_ref()).unwrap();
        assert!(found().len() == 1 && found()[0].path.ends_with(fd.to_string()));
        drop(made);
        assert!(found().is_empty());
        drop(looking);
    }

    /// Whoever is root looks at everybody's.
    #[test]
    fn a_name_cannot_steer_the_terminal() {
        let name = "n\x1b]0;\u{9b}31m\x07\nü\u{202e}gpj";
        let capacity = Capacity::checked(64, 64, 4).unwrap();
        let _made =
            create(&Placement::inherited(name), capacity, Box::new(MonotonicClock)).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let names: Vec<String> = discover_of(own).into_iter().map(|found| found.name).collect();
        assert!(names.contains(&"n?]0;?31m??ü?gpj".to_string()), "{names:?}");
    }
}
