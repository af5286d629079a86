//! The region of this process's family: of the process that started it as one of its workers, or of other
//! workers that the same process started, or their workers.
//!
//! There is no registry that could be stale: a family's region is found through the descriptors of its members,
//! as [`super::discover`] does. A member keeps the `/proc/<pid>/fd` of each of its heads open, which tells it from
//! a program that a head, or a worker, has just started. Those who start together take turns, by a lock on the
//! topmost head's: only that one's user can open it, it ends with its processes, and leaves nothing behind.

use super::backing::{folder_of, identity, label};
use super::{Found, Obstacle, Placement, Region, attach_live, create, discover, host};
use crate::clock::MonotonicClock;
use crate::config::{Capacity, Overflow};
use crate::error::{AttachError, CreateError};
use crate::tables::names::printable;
use std::fs::{File, TryLockError};
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often members ask whether it is their turn, and how long they pause: some 10 s. Making a region takes
/// milliseconds; who is stopped in the middle of it must not keep the others from starting.
const ATTEMPTS: u32 = 5_000;
const PAUSE: Duration = Duration::from_millis(2);
/// Members end while they are looked at.
const ROUNDS: usize = 3;

/// Where a process got its region from.
#[derive(Debug)]
pub struct Kinship {
    /// The member of the family whose region it is; `None` = this process made one.
    pub joined: Option<i32>,
    /// Why regions of the family, or the family itself, could not be used; empty = the family shares one.
    pub obstacles: Vec<String>,
}

/// Joins the region called `name` of a family, or makes one for it.
///
/// `heads` = the processes that started this one and its siblings, nearest first; they and those of their
/// descendants that name them as heads are the family. So is what this process has started as its workers.
/// `marks` = parts of the command lines (each argument ended by a zero byte) of workers that were not forked but
/// started as programs: if such a one cannot be looked at, that is an obstacle.
pub fn join_or_create(
    heads: &[i32],
    marks: &[Vec<u8>],
    name: &str,
    placement: &Placement,
    capacity: Capacity,
    overflow: Overflow,
) -> Result<(Region, Kinship), CreateError> {
    let mut obstacles = Vec::new();
    let heads = visible(heads, &mut obstacles);
    let kin = declare(&heads, &mut obstacles);
    // Nobody's worker takes turns with its own, whose topmost head it is.
    let own = if heads.is_empty() { File::open(directory_of(own_pid())).ok() } else { None };
    let turn = kin.last().or(own.as_ref()).and_then(|head| Turn::take(head, &mut obstacles));
    let mut refused = Vec::new();
    let joined = join(&heads, marks, &printable(&label(name)), None, &mut refused);
    let made = match joined {
        // Who shares the family's has got over what was in the way of looking for it.
        Some((region, pid)) => Ok((region, Kinship { joined: Some(pid), obstacles: refused })),
        None => create(placement, capacity, Box::new(MonotonicClock)).map(|region| {
            region.set_overflow(overflow);
            obstacles.append(&mut refused);
            if !heads.is_empty() && region.backing().file.is_none() {
                let kind = region.backing().kind.name();
                obstacles.push(format!("memory of the kind {kind} can only be inherited"));
            }
            (region, Kinship { joined: None, obstacles })
        }),
    };
    drop(turn);
    made.map(|(mut region, kinship)| {
        region.kin = kin;
        (region, kinship)
    })
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}

fn directory_of(pid: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/fd"))
}

/// The heads as far as `/proc` shows them, and they are who started this process: their numbers would be others'
/// in one of another pid namespace, and are when a head has ended and a process that is younger has its number.
fn visible(heads: &[i32], obstacles: &mut Vec<String>) -> Vec<i32> {
    if heads.is_empty() {
        return Vec::new();
    }
    if let Some(obstacle) = Obstacle::of_proc() {
        obstacles.push(format!("they cannot be found: {obstacle}"));
        return Vec::new();
    }
    let own = host::own_start_ticks();
    let is_younger =
        |&head: &i32| host::process_stat(head).is_some_and(|stat| stat.start_ticks > own);
    let Some(place) = heads.iter().position(is_younger) else {
        return heads.to_vec();
    };
    // What comes after it was found through it.
    let (trusted, others) = heads.split_at(place);
    obstacles.extend(others.first().map(|head| {
        format!("process {head}, which started it, has ended, and another has its number")
    }));
    trusted.to_vec()
}

/// Names the heads as this process's: to be kept open as long as it uses their family's region.
pub(super) fn declare(heads: &[i32], obstacles: &mut Vec<String>) -> Vec<File> {
    let mut declared = Vec::new();
    for head in visible(heads, obstacles) {
        match File::open(directory_of(head)) {
            Ok(directory) => declared.push(directory),
            Err(error) => {
                obstacles.push(format!("cannot look at process {head}, which started it: {error}"));
            }
        }
    }
    declared
}

/// The turn of one member to make the region, until this is dropped.
pub(super) struct Turn<'a> {
    directory: &'a File,
}

impl<'a> Turn<'a> {
    /// Waits for the others that are at it, by a head's directory. `None`, with an obstacle, where they cannot be
    /// waited for.
    pub(super) fn take(directory: &'a File, obstacles: &mut Vec<String>) -> Option<Self> {
        for _ in 0..ATTEMPTS {
            match directory.try_lock() {
                Ok(()) => return Some(Self { directory }),
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                Err(TryLockError::Error(error)) => {
                    obstacles.push(format!("cannot wait for the others: {error}"));
                    return None;
                }
            }
        }
        obstacles.push("another worker does not finish making the region".to_string());
        None
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Said aloud: a child that another thread forked meanwhile has the descriptor, too.
        let _ = self.directory.unlock();
    }
}

/// The region of the file `path` that a family uses, if that is not the one with the id `here`.
pub(super) fn find(heads: &[i32], path: &Path, here: Option<(u64, u64)>) -> Option<(Region, i32)> {
    let heads = visible(heads, &mut Vec::new());
    let name = resolved(path);
    join(&heads, &[], &printable(&name.to_string_lossy()), here, &mut Vec::new())
}

/// A file's path as the kernel tells that of an open one.
fn resolved(path: &Path) -> PathBuf {
    match (folder_of(path).canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_path_buf(),
    }
}

/// Attaches to the oldest member's region of that name that this process can use; to none if that is `here`.
/// Why others could not be used, or may not have been seen, is `refused`.
fn join(
    heads: &[i32],
    marks: &[Vec<u8>],
    name: &str,
    here: Option<(u64, u64)>,
    refused: &mut Vec<String>,
) -> Option<(Region, i32)> {
    for _ in 0..ROUNDS {
        let mut gone = false;
        refused.clear();
        // All processes are looked at only before one is made.
        let (regions, overlooked) = regions_of(heads, marks, name, here.is_none());
        for found in regions {
            if here == Some(found.id) {
                return None;
            }
            let pid = found.pids.first().copied().unwrap_or(0);
            match attach_live(&found) {
                Ok(region) => return Some((region, pid)),
                Err(AttachError::Replaced { .. }) => gone = true,
                Err(error) => refused.push(format!("process {pid} has one, but {error}")),
            }
        }
        if !gone {
            refused.extend(overlooked);
            return None;
        }
    }
    refused.push("processes that have one end while they are looked at".to_string());
    None
}

/// The family's regions of that name; if there are none, why some may have been overlooked.
fn regions_of(
    heads: &[i32],
    marks: &[Vec<u8>],
    name: &str,
    thorough: bool,
) -> (Vec<Found>, Option<String>) {
    if heads.is_empty() && !host::has_children() {
        return (Vec::new(), None);
    }
    let own = own_pid();
    let mut tops = heads.to_vec();
    tops.push(own);
    let directories: Vec<PathBuf> = tops.iter().copied().map(directory_of).collect();
    let mut hidden = Vec::new();
    let mut names_a_head = |pid: i32| match descriptors(pid, &directories) {
        Ok(naming) => !naming.is_empty(),
        Err(error) => {
            if error.kind() == ErrorKind::PermissionDenied {
                hidden.push((pid, error));
            }
            false
        }
    };
    let descendants = host::descendants_of(&tops);
    let mut members = descendants.clone();
    members.retain(|&pid| names_a_head(pid));
    // A head's region is found without a name. Of one that cannot even be opened [`declare`] tells.
    for &head in heads.iter().filter(|&&head| File::open(directory_of(head)).is_ok()) {
        names_a_head(head);
    }
    members.extend(&tops);
    let regions = |pids: &[i32]| {
        let mut pids = pids.to_vec();
        pids.sort_unstable();
        pids.dedup();
        pids.retain(|&pid| pid != own);
        let mut found = discover::discover_in(pids);
        found.retain(|region| region.name == name);
        found
    };
    let mut found = regions(&members);
    if found.is_empty() && thorough {
        let others = host::processes().filter(|pid| !descendants.contains(pid));
        found = regions(&orphans(others, &directories));
    }
    let overlooked = if found.is_empty() { overlooked(hidden, &members, marks) } else { None };
    (found, overlooked)
}

/// Members among processes that are not the heads' descendants: what stood between has ended, as a fork server may.
///
/// These may be anybody's, so a number is not enough: a dead head's directory is still called as that of whoever has
/// its number now, and its descriptor may have been inherited since.
fn orphans(pids: impl Iterator<Item = i32>, heads: &[PathBuf]) -> Vec<i32> {
    let id_of = |path: &PathBuf| std::fs::metadata(path).ok().as_ref().map(identity);
    // Whoever keeps a directory keeps its inode number.
    let ids: Vec<(u64, u64)> = heads.iter().filter_map(id_of).collect();
    let is_head = |it: &PathBuf| id_of(it).is_some_and(|id| ids.contains(&id)) && !is_listing(it);
    let names_a_head =
        |pid: i32| descriptors(pid, heads).is_ok_and(|naming| naming.iter().any(is_head));
    pids.filter(|&pid| names_a_head(pid)).collect()
}

/// The descriptors of a process that are called as one of these directories, which it has [`declare`]d then.
///
/// Root that may not trace others can list their descriptors and not see what they are.
fn descriptors(pid: i32, directories: &[PathBuf]) -> std::io::Result<Vec<PathBuf>> {
    let mut naming = Vec::new();
    for entry in std::fs::read_dir(directory_of(pid))? {
        let path = entry?.path();
        match std::fs::read_link(&path) {
            Ok(link) if directories.contains(&link) => naming.push(path),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(naming)
}

/// Whether a descriptor was opened to list a directory, as monitors do for a moment; not that of [`declare`].
fn is_listing(descriptor: &Path) -> bool {
    let flags = || {
        let folder = descriptor.parent()?.with_file_name("fdinfo");
        let text = std::fs::read_to_string(folder.join(descriptor.file_name()?)).ok()?;
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
        libc::c_int::from_str_radix(flags.trim(), 8).ok()
    };
    flags().is_none_or(|flags| flags & libc::O_DIRECTORY != 0)
}

/// What to say of processes that cannot be looked at, if there are workers among them, as far as that can be seen
/// from outside: some that keep their secrets (`PR_SET_DUMPABLE`), or have changed their user.
fn overlooked(mut hidden: Vec<(i32, Error)>, members: &[i32], marks: &[Vec<u8>]) -> Option<String> {
    let worker = |pid: i32| members.contains(&pid) || host::may_be_worker(pid, marks);
    // What a program of its own forks is that program's.
    let of_workers = |pid: i32| {
        let above = |&pid: &i32| host::process_stat(pid).map(|stat| stat.parent);
        let mut line = std::iter::successors(Some(pid), above).take_while(|&pid| worker(pid));
        line.any(|pid| members.contains(&pid))
    };
    // Many have ended since.
    hidden.retain(|&(pid, _)| of_workers(pid));
    let ((pid, error), others) = hidden.split_first()?;
    let others = match others.len() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    Some(format!("cannot look at process {pid}{others}, which may have a region: {error}"))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn pid_of(child: &Child) -> i32 {
        i32::try_from(child.id()).unwrap()
    }

    /// A process that is surely younger than this one, as far as clock ticks tell. It ends when it is waited for.
    fn younger() -> Child {
        loop {
            let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
            let start = host::process_stat(pid_of(&child)).unwrap().start_ticks;
            if start > host::own_start_ticks() {
                return child;
            }
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_younger_process_has_the_number_of_a_head_and_nothing_is_found_through_it() {
        let mut child = younger();
        let head = i32::try_from(std::os::unix::process::parent_id()).unwrap();
        let seen = |heads: &[i32]| {
            let mut obstacles = Vec::new();
            let seen = visible(heads, &mut obstacles);
            assert_eq!(declare(heads, &mut Vec::new()).len(), seen.len());
            assert_eq!(obstacles.len(), heads.len().saturating_sub(seen.len()).min(1));
            (seen, obstacles.pop().unwrap_or_default())
        };
        assert_eq!(seen(&[head]).0, [head]);
        let (trusted, obstacle) = seen(&[pid_of(&child), head]);
        assert!(trusted.is_empty());
        assert!(obstacle.starts_with(&format!("process {}, which started it", child.id())));
        assert_eq!(seen(&[head, pid_of(&child), head]).0, [head]);
        child.wait().unwrap();
    }

    #[test]
    fn who_keeps_a_heads_directory_is_found_and_who_lists_it_is_not() {
        let mut child = younger();
        let directory = directory_of(pid_of(&child));
        let found = || orphans(host::processes(), std::slice::from_ref(&directory));
        let listing = std::fs::read_dir(&directory).unwrap();
        assert!(found().is_empty());
        drop(listing);
        let kept = File::open(&directory).unwrap();
        assert_eq!(found(), [own_pid()]);
        drop(kept);
        assert!(found().is_empty());
        child.wait().unwrap();
    }
}
