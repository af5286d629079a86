//! A region under a path: attached to, made, or made anew where what is there is stale.
//!
//! Whoever uses a region's file holds a shared lock on it, which ends with its last process, however that ends.
//! What nobody holds and does not fit this boot, these namespaces or this build can be of no use to anybody.

use super::attach::{Access, believed, open_own};
use super::backing::{identity, names};
use super::{Placement, Region, attach_file, create, dump, family};
use crate::clock::MonotonicClock;
use crate::config::{Capacity, Overflow};
use crate::error::{AttachError, CreateError, OpenError};
use std::fs::TryLockError;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

/// Who loses a race attaches to the winner's, but many that look at a stale file at once hold it while they look:
/// some 0.5 s. More would mean that others use it, or that it comes and goes.
const ROUNDS: usize = 250;
const PAUSE: Duration = Duration::from_millis(2);

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
    let (mut region, opening) = open(path, heads, force, capacity, overflow)?;
    region.kin = kin;
    Ok((region, opening))
}

fn open(
    path: &Path,
    heads: &[i32],
    force: bool,
    capacity: Capacity,
    overflow: Overflow,
) -> Result<(Region, Opening), OpenError> {
    let placement = Placement::Named { path: path.to_path_buf(), force };
    let mut opening = Opening::Created;
    let mut in_use = None;
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
                Ok(true) => opening = Opening::Replaced(error),
                Ok(false) => {
                    // By others that cannot use it either, or it is a new one of somebody who was faster.
                    in_use = Some(error);
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(_) => return Err(refused(path, error)),
            },
            Err(error) => return Err(refused(path, error)),
        }
        match create(&placement, capacity, Box::new(MonotonicClock)) {
            Ok(region) => {
                region.set_overflow(overflow);
                return Ok((region, opening));
            }
            Err(CreateError::Backing { source, .. })
                if source.kind() == ErrorKind::AlreadyExists => {}
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

/// Removes the file at `path` if nobody uses it. `Ok(false)` = somebody does.
fn retire(path: &Path) -> std::io::Result<bool> {
    let file = open_own(path).map_err(std::io::Error::other)?;
    let len = file.metadata()?.len();
    // A dump is kept on purpose.
    if !matches!(dump::moment_of(&file, path, len), Ok(None)) {
        return Err(ErrorKind::InvalidData.into());
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Somebody may have been faster, and have ended: what was refused is not there any more.
    let header = believed(&file, len, Access::Use, &MonotonicClock);
    if !names(path, &file) || !header.is_err_and(|error| is_of_another_time(&error)) {
        return Ok(false);
    }
    std::fs::remove_file(path)?;
    Ok(true)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::layout::Header;
    use std::fs::File;
    use std::mem::offset_of;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_has_taken_the_place_of_a_stale_file_is_kept_though_nobody_uses_it() {
        let path = Path::new("/dev/shm").join(format!("fl-shm-named-{}", std::process::id()));
        let capacity = Capacity::checked(1024, 64, 4).unwrap();
        let made = || open_named(&path, &[], true, capacity, Overflow::Deny).unwrap();
        drop(made());
        assert!(!retire(&path).unwrap());
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[7; 8], offset_of!(Header, pid_namespace) as u64).unwrap();
        let stale = made();
        assert!(matches!(stale.1, Opening::Replaced(AttachError::Namespace { .. })));
        assert!(!retire(&path).unwrap());
        drop(stale);
        std::fs::remove_file(&path).unwrap();
    }
}
