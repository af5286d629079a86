//! Using a region that somebody else made: gates in a fixed order, each with its own refusal. Nothing
//! behind a gate is looked at before the gate has been passed.

use super::backing::{Backing, BackingKind};
use super::mapping::Mapping;
use super::{Region, Sections, host};
use crate::clock::{Clock, MonotonicClock};
use crate::config::Capacity;
use crate::error::AttachError;
use crate::layout::{self, BYTE_ORDER, HEADER_LEN, Header, MAGIC, SectionRow, State};
use crate::sync::Ordering;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Attaches to a named region for use.
pub fn attach_file(path: &Path) -> Result<Region, AttachError> {
    let open = |source| AttachError::Open { path: path.to_path_buf(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
        .map_err(open)?;
    let meta = file.metadata().map_err(open)?;
    if !meta.is_file() {
        return Err(AttachError::NotAFile { path: path.to_path_buf() });
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(AttachError::Mode { found: mode });
    }
    let backing = Backing {
        kind: BackingKind::File,
        path: Some(path.to_path_buf()),
        file: None,
        fallbacks: Vec::new(),
    };
    attach(file, backing, Access::Use)
}

/// Attaches for looking only: the mapping cannot be written, and a region of another namespace is
/// accepted, because nothing is decided from it.
pub fn attach_read_only(path: &Path) -> Result<Region, AttachError> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path)
        .map_err(|source| AttachError::Open { path: path.to_path_buf(), source })?;
    let backing = Backing {
        kind: BackingKind::File,
        path: Some(path.to_path_buf()),
        file: None,
        fallbacks: Vec::new(),
    };
    attach(file, backing, Access::Look)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Use,
    Look,
}

fn attach(file: File, mut backing: Backing, access: Access) -> Result<Region, AttachError> {
    let meta = file.metadata().map_err(AttachError::Map)?;
    if access == Access::Use {
        let expected = nix::unistd::geteuid().as_raw();
        if meta.uid() != expected {
            return Err(AttachError::Owner { found: meta.uid(), expected });
        }
    }
    if meta.len() < HEADER_LEN {
        return Err(AttachError::TooShort { found: meta.len(), expected: HEADER_LEN });
    }
    // Only the header is mapped until it has been believed.
    let head = Mapping::of_file_read_only(&file, HEADER_LEN).map_err(AttachError::Map)?;
    let clock = MonotonicClock;
    check_identity(head.header())?;
    check_host(head.header(), &clock, access)?;
    let sections = check_lengths(head.header(), meta.len())?;
    let map = match access {
        Access::Use => Mapping::of_file,
        Access::Look => Mapping::of_file_read_only,
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
    Ok(Region::new(mapping, &sections, backing, Box::new(clock)))
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
    let capacity =
        Capacity::checked(stored.keys.into(), stored.lease_chunks.into(), stored.workers.into())
            .and_then(|checked| checked.with_deployments(stored.deployments.into()))
            .ok()
            .filter(|checked| *checked == stored)
            .ok_or(AttachError::Sections {
                what: "capacity",
                found: stored.keys,
                expected: Capacity::default().keys,
            })?;
    let sections = Sections::of(capacity);
    if sections.total_len() != stated {
        return Err(AttachError::Length { found: stated, expected: sections.total_len() });
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
