//! Using a region that somebody else made: gates in a fixed order, each with its own refusal. Nothing
//! behind a gate is looked at before the gate has been passed.

use super::backing::{Backing, BackingKind, hold, identity, names};
use super::mapping::Mapping;
use super::{Found, Region, Sections, dump, host};
use crate::clock::{Clock, MonotonicClock};
use crate::config::Capacity;
use crate::error::AttachError;
use crate::layout::{self, BYTE_ORDER, HEADER_LEN, Header, MAGIC, SectionRow, State};
use crate::sync::Ordering;
use crate::verify;
use std::fs::{File, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Attaches to a named region for use.
pub fn attach_file(path: &Path) -> Result<Region, AttachError> {
    let file = open_own(path)?;
    let replaced = || AttachError::Replaced { path: path.to_path_buf() };
    // Whoever only looks at what it cannot use must not seem to use it.
    let len = file.metadata().map_err(AttachError::Map)?.len();
    believed(&file, len, Access::Use, &MonotonicClock)?;
    hold(&file).map_err(|_| replaced())?;
    if !names(path, &file) {
        return Err(replaced());
    }
    attach(file, unchecked(path), Access::Use, Box::new(MonotonicClock))
}

/// Opens what may be a region of this user's under its own name, and nothing else.
pub(super) fn open_own(path: &Path) -> Result<File, AttachError> {
    let file = open(path, true, libc::O_NOFOLLOW)?;
    let meta = regular(&file, path)?;
    check_owner(&meta)?;
    check_mode(&meta)?;
    Ok(file)
}

/// Attaches to a live region for use, through a descriptor of one of its processes. The same gates as for
/// a named one; but what stands at that path now must be what was found there, because the process may
/// have ended and its pid and descriptor be another's.
pub fn attach_live(found: &Found) -> Result<Region, AttachError> {
    let replaced = || AttachError::Replaced { path: found.path.clone() };
    // A descriptor's path is a link that must be followed.
    let file = open(&found.path, true, 0).map_err(|error| match error {
        AttachError::Open { source, .. } if source.kind() == ErrorKind::NotFound => replaced(),
        error => error,
    })?;
    let meta = regular(&file, &found.path)?;
    if identity(&meta) != found.id {
        return Err(replaced());
    }
    check_mode(&meta)?;
    hold(&file).map_err(|_| replaced())?;
    attach(file, unchecked(&found.path), Access::Use, Box::new(MonotonicClock))
}

/// Attaches for use to an open file, by a clock of the caller's: the gates that come after a path's. For
/// harnesses that make time pass.
pub fn attach_open(file: File, clock: Box<dyn Clock>) -> Result<Region, AttachError> {
    let backing =
        Backing { kind: BackingKind::File, path: None, file: None, fallbacks: Vec::new() };
    attach(file, backing, Access::Use, clock)
}

/// Attaches for looking only: the mapping cannot be written, and a region of another namespace is
/// accepted, because nothing is decided from it. So is a dump, wherever it was made: time stands still in it.
pub fn attach_read_only(path: &Path) -> Result<Region, AttachError> {
    let file = open(path, false, 0)?;
    let meta = regular(&file, path)?;
    match dump::moment_of(&file, path, meta.len())? {
        None => attach(file, unchecked(path), Access::Look, Box::new(MonotonicClock)),
        Some((moment, len)) => {
            let clock = Box::new(moment.clock());
            let mut region = map(file, unchecked(path), len, Access::Dump, clock)?;
            region.moment = Some(moment);
            Ok(region)
        }
    }
}

fn open(path: &Path, write: bool, flags: libc::c_int) -> Result<File, AttachError> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(flags | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
        .map_err(|source| AttachError::Open { path: path.to_path_buf(), source })
}

fn regular(file: &File, path: &Path) -> Result<Metadata, AttachError> {
    let open = |source| AttachError::Open { path: path.to_path_buf(), source };
    let meta = file.metadata().map_err(open)?;
    if meta.is_file() { Ok(meta) } else { Err(AttachError::NotAFile { path: path.to_path_buf() }) }
}

fn check_owner(meta: &Metadata) -> Result<(), AttachError> {
    let expected = nix::unistd::geteuid().as_raw();
    if meta.uid() == expected {
        Ok(())
    } else {
        Err(AttachError::Owner { found: meta.uid(), expected })
    }
}

fn check_mode(meta: &Metadata) -> Result<(), AttachError> {
    let found = meta.mode() & 0o7777;
    if found & 0o077 != 0 { Err(AttachError::Mode { found }) } else { Ok(()) }
}

/// The backing as it looks before the header has been read.
fn unchecked(path: &Path) -> Backing {
    let path = Some(path.to_path_buf());
    Backing { kind: BackingKind::File, path, file: None, fallbacks: Vec::new() }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Use,
    Look,
    /// At what was copied from another host, perhaps.
    Dump,
}

fn attach(
    file: File,
    backing: Backing,
    access: Access,
    clock: Box<dyn Clock>,
) -> Result<Region, AttachError> {
    let meta = file.metadata().map_err(AttachError::Map)?;
    if access == Access::Use {
        check_owner(&meta)?;
    }
    map(file, backing, meta.len(), access, clock)
}

/// A file's header, mapped alone, once what it says of itself and of its host is believed.
pub(super) fn believed(
    file: &File,
    len: u64,
    access: Access,
    clock: &dyn Clock,
) -> Result<Mapping, AttachError> {
    if len < HEADER_LEN {
        return Err(AttachError::TooShort { found: len, expected: HEADER_LEN });
    }
    let head = Mapping::of_file_read_only(file, HEADER_LEN).map_err(AttachError::Map)?;
    check_identity(head.header())?;
    if access != Access::Dump {
        check_host(head.header(), clock, access)?;
    }
    Ok(head)
}

/// The gates behind the file's: of the `len` bytes at its beginning.
fn map(
    file: File,
    mut backing: Backing,
    len: u64,
    access: Access,
    clock: Box<dyn Clock>,
) -> Result<Region, AttachError> {
    let head = believed(&file, len, access, &*clock)?;
    let sections = check_lengths(head.header(), len)?;
    let map = match access {
        Access::Use => Mapping::of_file,
        Access::Look | Access::Dump => Mapping::of_file_read_only,
    };
    let mapping = map(&file, sections.total_len()).map_err(AttachError::Map)?;
    check_sections(&mapping, &sections)?;
    if let Some(kind) = BackingKind::from_raw(mapping.header().backing.load(Ordering::Relaxed)) {
        backing.kind = kind;
    }
    if access == Access::Use {
        mapping.header().epoch.fetch_add(1, Ordering::Relaxed);
    }
    backing.file = Some(file);
    let mut region = Region::new(mapping, &sections, backing, clock);
    // Nothing is refused for what is found: limits go on, and each damaged word is met by its own rule.
    region.findings = (access == Access::Use).then(|| verify::count(&region));
    Ok(region)
}

fn check_identity(header: &Header) -> Result<(), AttachError> {
    let get = |word: &crate::sync::Word<u64>| word.load(Ordering::Relaxed);
    let magic = get(&header.magic);
    if magic != MAGIC {
        return Err(AttachError::Magic { found: magic, expected: MAGIC });
    }
    let byte_order = get(&header.byte_order);
    if byte_order != BYTE_ORDER {
        return Err(AttachError::ByteOrder { found: byte_order, expected: BYTE_ORDER });
    }
    let version = get(&header.version);
    let (major, minor) = (version >> 32, version & u64::from(u32::MAX));
    let (our_major, our_minor) =
        (u64::from(layout::VERSION_MAJOR), u64::from(layout::VERSION_MINOR));
    if major != our_major || minor > our_minor {
        return Err(AttachError::Version {
            found: format!("{major}.{minor}"),
            expected: format!("{our_major}.{our_minor}"),
        });
    }
    let fingerprint = get(&header.fingerprint);
    if fingerprint != layout::fingerprint() {
        return Err(AttachError::Fingerprint {
            found: fingerprint,
            expected: layout::fingerprint(),
        });
    }
    // SYNC region-ready: Acquire pairs with the Release of `publish`.
    let state = header.state.load(Ordering::Acquire);
    if state != State::Ready as u64 {
        return Err(AttachError::NotReady { found: state });
    }
    Ok(())
}

fn check_host(header: &Header, clock: &dyn Clock, access: Access) -> Result<(), AttachError> {
    let get = |word: &crate::sync::Word<u64>| word.load(Ordering::Relaxed);
    let found = [get(&header.boot_id_high), get(&header.boot_id_low)];
    let expected = host::boot_id();
    if found != expected {
        let text = |id: [u64; 2]| format!("{:016x}{:016x}", id[0], id[1]);
        return Err(AttachError::Boot { found: text(found), expected: text(expected) });
    }
    if get(&header.clock_id) != clock.id() {
        return Err(AttachError::Clock { found: get(&header.clock_id), expected: clock.id() });
    }
    if access == Access::Look {
        return Ok(());
    }
    for (kind, found) in
        [("pid", get(&header.pid_namespace)), ("time", get(&header.time_namespace))]
    {
        let expected = host::namespace(kind);
        if found != expected {
            return Err(AttachError::Namespace { kind, found, expected });
        }
    }
    Ok(())
}

fn check_lengths(header: &Header, object_len: u64) -> Result<Sections, AttachError> {
    let get = |word: &crate::sync::Word<u64>| word.load(Ordering::Relaxed);
    let stated = get(&header.total_len);
    if stated != object_len {
        return Err(AttachError::Length { found: object_len, expected: stated });
    }
    let stored = Capacity {
        keys: get(&header.key_capacity),
        lease_chunks: get(&header.chunk_capacity),
        workers: get(&header.worker_capacity),
        deployments: get(&header.deployment_capacity),
    };
    if let Some((range, found)) = stored.fault() {
        let (what, setting, allowed) = (range.what, range.setting, range.to_string());
        return Err(AttachError::Capacity { what, setting, found, allowed });
    }
    let sections = Sections::of(stored);
    if sections.total_len() != stated {
        let expected = sections.total_len();
        return Err(AttachError::Capacities { found: stated, expected, stored });
    }
    Ok(sections)
}

fn check_sections(mapping: &Mapping, sections: &Sections) -> Result<(), AttachError> {
    let count = mapping.header().section_count.load(Ordering::Relaxed);
    let rows: &[SectionRow] = mapping.records(sections.table());
    if count != rows.len() as u64 {
        let expected = rows.len() as u64;
        return Err(AttachError::Sections { what: "section count", found: count, expected });
    }
    for (row, section) in rows.iter().zip(sections.iter()) {
        let fields = [
            ("section number", row.id.load(Ordering::Relaxed), section.id),
            ("section offset", row.offset.load(Ordering::Relaxed), section.span.offset),
            ("section stride", row.stride.load(Ordering::Relaxed), section.stride),
            ("section record count", row.count.load(Ordering::Relaxed), section.span.count),
        ];
        for (what, found, expected) in fields {
            if found != expected {
                return Err(AttachError::Sections { what, found, expected });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use crate::region::{Placement, create};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;

    fn region(kinds: Vec<BackingKind>) -> Region {
        let mut placement = Placement::inherited("attach");
        if let Placement::Inherited { kinds: wanted, .. } = &mut placement {
            *wanted = kinds;
        }
        let capacity = Capacity::checked(1024, 64, 4).unwrap();
        create(&placement, capacity, Box::new(MonotonicClock)).unwrap()
    }

    /// As `discover` would find it through this process.
    fn found(file: &File) -> Found {
        let meta = file.metadata().unwrap();
        Found {
            name: String::new(),
            path: format!("/proc/self/fd/{}", file.as_raw_fd()).into(),
            pids: Vec::new(),
            id: identity(&meta),
            len: meta.len(),
        }
    }

    #[test]
    fn a_live_region_of_either_kind_is_shared_through_a_descriptor() {
        for kind in [BackingKind::Memfd, BackingKind::File] {
            let region = region(vec![kind]);
            let again = attach_live(&found(region.backing().file.as_ref().unwrap())).unwrap();
            again.stats()[0].contended.store(7, Ordering::Relaxed);
            assert_eq!(region.stats()[0].contended.load(Ordering::Relaxed), 7);
            assert_eq!(region.header().epoch.load(Ordering::Relaxed), 1);
            assert_eq!(again.backing().kind, kind);
        }
    }

    #[test]
    fn what_has_taken_the_place_of_a_region_is_refused() {
        let region = region(vec![BackingKind::Memfd]);
        let file = region.backing().file.as_ref().unwrap();
        let other = Found { id: (1, 1), ..found(file) };
        assert!(matches!(attach_live(&other), Err(AttachError::Replaced { .. })));
        let closed = Found { path: "/proc/self/fd/99999".into(), ..found(file) };
        assert!(matches!(attach_live(&closed), Err(AttachError::Replaced { .. })));
        let device = File::open("/dev/null").unwrap();
        assert!(matches!(attach_live(&found(&device)), Err(AttachError::NotAFile { .. })));
    }

    #[test]
    fn a_file_that_others_can_open_or_truncate_is_refused() {
        let region = region(vec![BackingKind::File]);
        let file = region.backing().file.as_ref().unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(attach_live(&found(file)), Err(AttachError::Mode { found: 0o640 })));
        let flags = nix::sys::memfd::MFdFlags::empty();
        let other = File::from(nix::sys::memfd::memfd_create("fl-shm:x", flags).unwrap());
        other.set_len(HEADER_LEN).unwrap();
        assert!(matches!(attach_live(&found(&other)), Err(AttachError::Mode { .. })));
        other.set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(attach_live(&found(&other)), Err(AttachError::Magic { .. })));
    }
}
