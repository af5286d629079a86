//! The region of this process's family: of the process that started it as one of its workers, or of other
//! workers that the same process started.
//!
//! There is no registry that could be stale: a family's region is found through the descriptors of its members,
//! as [`super::discover`] does. Siblings that start together take turns, by a lock on their parent's
//! `/proc/<pid>/fd`: only the parent's user can open that, it ends with the parent, and leaves nothing behind.

use super::backing::label;
use super::{Found, Obstacle, Placement, Region, attach_live, create, discover, host};
use crate::clock::MonotonicClock;
use crate::config::Capacity;
use crate::error::{AttachError, CreateError};
use crate::tables::names::printable;
use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::time::Duration;

/// How often siblings ask whether it is their turn, and how long they pause: some 10 s. Making a region takes
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
/// `heads` = the processes that started this one and its siblings, nearest first; they and their children are the
/// family. Without any it just makes a region.
pub fn join_or_create(
    heads: &[i32],
    name: &str,
    placement: &Placement,
    capacity: Capacity,
) -> Result<(Region, Kinship), CreateError> {
    let mut obstacles = Vec::new();
    let heads = visible(heads, &mut obstacles);
    let turn = heads.first().and_then(|&head| take_turn(head, &mut obstacles));
    let joined = join(heads, &printable(&label(name)), &mut obstacles);
    let made = match joined {
        Some((region, pid)) => Ok((region, Some(pid))),
        None => create(placement, capacity, Box::new(MonotonicClock)).map(|region| (region, None)),
    };
    // Said aloud: a child that another thread forked meanwhile has the descriptor, too.
    if let Some(turn) = turn {
        let _ = turn.unlock();
    }
    made.map(|(region, joined)| (region, Kinship { joined, obstacles }))
}

/// The heads as far as `/proc` shows them: their numbers would be others' in one of another pid namespace.
fn visible<'a>(heads: &'a [i32], obstacles: &mut Vec<String>) -> &'a [i32] {
    match Obstacle::of_proc() {
        Some(obstacle) if !heads.is_empty() => {
            obstacles.push(format!("they cannot be found: {obstacle}"));
            &[]
        }
        _ => heads,
    }
}

/// Waits for the siblings that are at it; `None` with an obstacle where they cannot be waited for.
fn take_turn(head: i32, obstacles: &mut Vec<String>) -> Option<File> {
    let path = PathBuf::from(format!("/proc/{head}/fd"));
    let directory = match File::open(&path) {
        Ok(directory) => directory,
        Err(error) => {
            obstacles.push(format!("cannot look at process {head}, which started it: {error}"));
            return None;
        }
    };
    for _ in 0..ATTEMPTS {
        match directory.try_lock() {
            Ok(()) => return Some(directory),
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            Err(TryLockError::Error(error)) => {
                obstacles.push(format!("cannot lock {}: {error}", path.display()));
                return None;
            }
        }
    }
    obstacles.push(format!("another worker of process {head} does not finish making the region"));
    None
}

/// The region of that name of a family, for who does not make one otherwise.
pub(super) fn find(heads: &[i32], name: &str) -> Option<(Region, i32)> {
    join(visible(heads, &mut Vec::new()), name, &mut Vec::new())
}

/// Attaches to the oldest member's region of that name, as `discover` has it, that this process can use.
fn join(heads: &[i32], name: &str, obstacles: &mut Vec<String>) -> Option<(Region, i32)> {
    if heads.is_empty() {
        return None;
    }
    for _ in 0..ROUNDS {
        let mut gone = false;
        let mut refused = Vec::new();
        for found in regions_of(heads, name) {
            let pid = found.pids.first().copied().unwrap_or(0);
            match attach_live(&found) {
                Ok(region) => {
                    obstacles.append(&mut refused);
                    return Some((region, pid));
                }
                Err(AttachError::Replaced { .. }) => gone = true,
                Err(error) => refused.push(format!("process {pid} has one, but {error}")),
            }
        }
        if !gone {
            obstacles.append(&mut refused);
            return None;
        }
    }
    obstacles.push("those that have one keep ending".to_string());
    None
}

fn regions_of(heads: &[i32], name: &str) -> Vec<Found> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut members = heads.to_vec();
    members.extend(host::children_of(heads));
    members.sort_unstable();
    members.dedup();
    members.retain(|&pid| pid != own);
    let mut found = discover::discover_in(members);
    found.retain(|region| region.name == name);
    found
}
