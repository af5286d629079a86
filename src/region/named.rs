//! A region under a path: attached to, made, or made anew where what is there is stale.
//!
//! Whoever uses a region's file holds a shared lock on it, which ends with its last process, however that ends.
//! What nobody holds and does not fit this boot, these namespaces or this build can be of no use to anybody.

use super::attach::{Access, believed, open_own};
use super::backing::{identity, names};
use super::family::Turn;
use super::{Placement, Region, attach_file, create, dump, family};
use crate::clock::MonotonicClock;
use crate::config::{Capacity, Overflow};
use crate::error::{AttachError, CreateError, OpenError};
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

/// How often is looked, and how long paused: some 10 s. Who is stopped while it removes a stale file, or makes
/// one, must not keep the others from starting.
const ROUNDS: usize = 5_000;
const PAUSE: Duration = Duration::from_millis(2);
/// Many that find a stale file hold it for an instant each: if it is still held after some 0.5 s, others use it.
const ROUNDS_IN_USE: usize = 250;
/// Strangers that are making theirs may have taken what memory there is, until all but one of them give up.
const ROUNDS_FULL: usize = 30;

/// How a named region was come by.
#[derive(Debug)]
pub enum Opening {
    /// It was there.
    Attached,
    /// Nothing was there, but that member of the family uses what was.
    Joined(i32),
    /// Nothing was there.
    Created,
    /// What was there was stale, for this reason.
    Replaced(AttachError),
}

/// Attaches to the region at `path`, or makes it when nothing is there, or nothing but a stale one.
///
/// A file that was removed while it is used (systemd's `RemoveIPC` does that) still is the region of this
/// process's family, whose `heads` are those of [`family::join_or_create`].
pub fn open_named(
    path: &Path,
    heads: &[i32],
    force: bool,
    capacity: Capacity,
    overflow: Overflow,
) -> Result<(Region, Opening), OpenError> {
    // Before its region, so that no other member can see that and not whose it is.
    let kin = family::declare(heads, &mut Vec::new());
    let (mut region, opening) = open(path, heads, kin.last(), || {
        let placement = Placement::Named { path: path.to_path_buf(), force };
        let region = create(&placement, capacity, Box::new(MonotonicClock))?;
        region.set_overflow(overflow);
        Ok(region)
    })?;
    region.kin = kin;
    Ok((region, opening))
}

fn open(
    path: &Path,
    heads: &[i32],
    head: Option<&File>,
    make: impl Fn() -> Result<Region, CreateError>,
) -> Result<(Region, Opening), OpenError> {
    let mut opening = Opening::Created;
    let (mut in_use, mut rounds_in_use, mut rounds_full) = (None, 0, 0);
    let (mut turn, mut has_waited) = (None, false);
    for _ in 0..ROUNDS {
        match attach_file(path) {
            Ok(region) => {
                // The family's may have been removed, and this be what another server has made since.
                let here = region.backing().file.as_ref().and_then(|file| file.metadata().ok());
                let here = here.as_ref().map(identity);
                return Ok(match family::find(heads, path, here) {
                    Some((familys, pid)) => (familys, Opening::Joined(pid)),
                    // Who has removed a stale one says so, though somebody else was faster in making it anew.
                    None if matches!(opening, Opening::Replaced(_)) => (region, opening),
                    None => (region, Opening::Attached),
                });
            }
            Err(AttachError::Open { source, .. }) if source.kind() == ErrorKind::NotFound => {
                if let Some((region, pid)) = family::find(heads, path, None) {
                    // Or a sibling has just made it.
                    let there = region.backing().file.as_ref().is_some_and(|it| names(path, it));
                    let opening = if there { Opening::Attached } else { Opening::Joined(pid) };
                    return Ok((region, opening));
                }
            }
            Err(AttachError::Replaced { .. }) => {
                std::thread::sleep(PAUSE);
                continue;
            }
            Err(error) if is_of_another_time(&error) => match retire(path) {
                Ok(Retired::Removed) => opening = Opening::Replaced(error),
                Ok(held) => {
                    in_use = Some(error);
                    rounds_in_use = if held == Retired::InUse { rounds_in_use + 1 } else { 0 };
                    if rounds_in_use == ROUNDS_IN_USE {
                        break;
                    }
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(_) => return Err(refused(path, error)),
            },
            Err(error) => return Err(refused(path, error)),
        }
        // One of a family makes it while the others wait: if each made one, for which there is one name, that would
        // be too much for a small `/dev/shm`.
        if !has_waited {
            has_waited = true;
            turn = head.and_then(|head| Turn::take(head, &mut Vec::new()));
            if turn.is_some() {
                continue;
            }
        }
        match make() {
            Ok(region) => return Ok((region, opening)),
            Err(CreateError::Backing { source, .. })
                if source.kind() == ErrorKind::AlreadyExists => {}
            Err(CreateError::Backing { source, .. })
                if source.kind() == ErrorKind::StorageFull
                    && rounds_full < ROUNDS_FULL
                    && turn.is_none() =>
            {
                rounds_full += 1;
                // Each for another time, or they would meet again.
                std::thread::sleep(PAUSE * (8 + std::process::id() % 32));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let path = path.to_path_buf();
    Err(match in_use {
        Some(source) => OpenError::InUse { path, source },
        None => OpenError::ComesAndGoes { path },
    })
}

fn refused(path: &Path, source: AttachError) -> OpenError {
    OpenError::Refused { path: path.to_path_buf(), source }
}

/// Whether it was a sound region once, elsewhere or before. What is damaged is left for somebody to look at.
fn is_of_another_time(error: &AttachError) -> bool {
    matches!(
        error,
        AttachError::Version { .. }
            | AttachError::Fingerprint { .. }
            | AttachError::Boot { .. }
            | AttachError::Clock { .. }
            | AttachError::Namespace { .. }
    )
}

/// What became of a stale file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retired {
    Removed,
    /// By others that cannot use it either; or it is a new one of somebody who was faster.
    LookedAt,
    /// By others that can use it, as far as an instant tells.
    InUse,
}

/// Removes the file at `path` if nobody uses it.
fn retire(path: &Path) -> std::io::Result<Retired> {
    let file = open_own(path).map_err(std::io::Error::other)?;
    let len = file.metadata()?.len();
    // A dump is kept on purpose.
    if !matches!(dump::moment_of(&file, path, len), Ok(None)) {
        return Err(ErrorKind::InvalidData.into());
    }
    match file.try_lock() {
        Ok(()) => {}
        // Whoever removes it has it alone, and whoever uses it does not.
        Err(TryLockError::WouldBlock) => {
            let is_shared = file.try_lock_shared().is_ok();
            return Ok(if is_shared { Retired::InUse } else { Retired::LookedAt });
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Somebody may have been faster, and have ended: what was refused is not there any more.
    let header = believed(&file, len, Access::Use, &MonotonicClock);
    if !names(path, &file) || !header.is_err_and(|error| is_of_another_time(&error)) {
        return Ok(Retired::LookedAt);
    }
    std::fs::remove_file(path)?;
    Ok(Retired::Removed)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::layout::Header;
    use std::mem::offset_of;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_has_taken_the_place_of_a_stale_file_is_kept_though_nobody_uses_it() {
        let path = Path::new("/dev/shm").join(format!("fl-shm-named-{}", std::process::id()));
        let capacity = Capacity::checked(1024, 64, 4).unwrap();
        let made = || open_named(&path, &[], true, capacity, Overflow::Deny).unwrap();
        drop(made());
        assert_ne!(retire(&path).unwrap(), Retired::Removed);
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[7; 8], offset_of!(Header, pid_namespace) as u64).unwrap();
        let stale = made();
        assert!(matches!(stale.1, Opening::Replaced(AttachError::Namespace { .. })));
        assert_ne!(retire(&path).unwrap(), Retired::Removed);
        drop(stale);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn who_is_slow_in_removing_a_stale_file_is_waited_for() {
        let path = Path::new("/dev/shm").join(format!("fl-shm-slow-{}", std::process::id()));
        let capacity = Capacity::checked(1024, 64, 4).unwrap();
        let made = || open_named(&path, &[], true, capacity, Overflow::Deny).unwrap().1;
        made();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[7; 8], offset_of!(Header, pid_namespace) as u64).unwrap();
        file.try_lock().unwrap();
        let slow = std::thread::spawn(move || {
            // Longer than what is in use is looked at.
            std::thread::sleep(PAUSE * 2 * u32::try_from(ROUNDS_IN_USE).unwrap());
            drop(file);
        });
        assert!(matches!(made(), Opening::Replaced(AttachError::Namespace { .. })));
        slow.join().unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
