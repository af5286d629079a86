//! Making a region: memory, header, section table, and `state` last.

use super::backing::{
    self, Backing, BackingKind, Placement, hold, identity, is_memory_file_system, link_nameless,
    new_nameless_file, new_private_file, reserve,
};
use super::mapping::{Mapping, file_system_type};
use super::{Region, Sections, host};
use crate::clock::{Clock, wall_ns};
use crate::config::Capacity;
use crate::error::CreateError;
use crate::layout::{self, BYTE_ORDER, Header, MAGIC, SectionRow, State};
use crate::sync::Ordering;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Creates a region and returns it ready for use.
///
/// A named region appears under its path complete or not at all. `Err` with
/// [`std::io::ErrorKind::AlreadyExists`] inside [`CreateError::Backing`] means that somebody else was
/// first and the path can be attached to.
pub fn create(
    placement: &Placement,
    capacity: Capacity,
    clock: Box<dyn Clock>,
) -> Result<Region, CreateError> {
    let sections = Sections::of(capacity);
    match placement {
        Placement::Inherited { name, kinds, directories } => {
            let (mapping, backing) =
                backing::inherited(name, kinds, directories, sections.total_len())?;
            publish(&mapping, &sections, backing.kind, &*clock)?;
            Ok(Region::new(mapping, &sections, backing, clock))
        }
        Placement::Named { path, force } => named(path, *force, &sections, clock),
    }
}

/// Creates a region in private memory.
pub fn create_heap(capacity: Capacity, clock: Box<dyn Clock>) -> Result<Region, CreateError> {
    let kinds = vec![BackingKind::Heap];
    let placement = Placement::Inherited { name: String::new(), kinds, directories: Vec::new() };
    create(&placement, capacity, clock)
}

fn named(
    path: &Path,
    force: bool,
    sections: &Sections,
    clock: Box<dyn Clock>,
) -> Result<Region, CreateError> {
    let len = sections.total_len();
    let failed = |source: std::io::Error| CreateError::Backing {
        place: path.display().to_string(),
        len,
        remedy: match source.raw_os_error() {
            Some(libc::ENOSPC) => {
                "make room, enlarge /dev/shm (docker run --shm-size) or lower FAST_LITELLM_SHM_KEYS"
            }
            Some(libc::ENOENT) => "create the directory or set FAST_LITELLM_SHM to another path",
            _ => "set FAST_LITELLM_SHM to a path this user can create on tmpfs",
        },
        source,
    };
    let made = |file: &File, link: &dyn Fn() -> std::io::Result<()>| {
        if !force && !is_memory_file_system(file).map_err(failed)? {
            let found = file_system_type(file).map_err(failed)?;
            return Err(CreateError::NotTmpfs { path: path.to_path_buf(), found });
        }
        reserve(file, len).map_err(failed)?;
        let mapping = Mapping::of_file(file, len).map_err(failed)?;
        publish(&mapping, sections, BackingKind::File, &*clock)?;
        hold(file).map_err(failed)?;
        // A link, unlike a new name, never replaces what is there.
        link().map_err(failed)?;
        Ok(mapping)
    };
    let nameless = new_nameless_file(path).map(|file| {
        let mapping = made(&file, &|| link_nameless(&file, path))?;
        Ok((file, mapping))
    });
    let (file, mapping) = match nameless {
        Some(Ok(made)) => made,
        Some(Err(error)) if is_decided(&error) => return Err(error),
        // It cannot be had, or cannot be named, here: by one that a kill between leaves behind.
        _ => {
            let unique = backing::unique().map_err(CreateError::Random)?;
            let mut draft = path.as_os_str().to_owned();
            draft.push(format!(".{unique:016x}"));
            let draft = Path::new(&draft);
            let file = new_private_file(draft).map_err(failed)?;
            let mapping = made(&file, &|| std::fs::hard_link(draft, path));
            let _ = std::fs::remove_file(draft);
            (file, mapping?)
        }
    };
    let backing = Backing {
        kind: BackingKind::File,
        file: Some(under_its_path(file, path)),
        path: Some(path.to_path_buf()),
        fallbacks: Vec::new(),
    };
    Ok(Region::new(mapping, sections, backing, clock))
}

/// Whether another kind of file would meet the same.
fn is_decided(error: &CreateError) -> bool {
    use std::io::ErrorKind::{AlreadyExists, StorageFull};
    match error {
        CreateError::Backing { source, .. } => {
            matches!(source.kind(), AlreadyExists | StorageFull)
        }
        _ => true,
    }
}

/// The same file opened by its final name, under which inspectors then find it; the file as it is should
/// the name be somebody else's by now.
fn under_its_path(file: File, path: &Path) -> File {
    let again = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path);
    let id = |file: &File| file.metadata().map(|meta| identity(&meta)).ok();
    match again {
        Ok(again) if id(&again) == id(&file) && hold(&again).is_ok() => again,
        _ => file,
    }
}

/// Writes the header and the section table into zeroed memory.
fn publish(
    mapping: &Mapping,
    sections: &Sections,
    kind: BackingKind,
    clock: &dyn Clock,
) -> Result<(), CreateError> {
    let header = mapping.header();
    let seed = host::random_seed().map_err(CreateError::Random)?;
    identify(header, seed);
    set_clock(header, clock);
    let set = |word: &crate::sync::Word<u64>, value| word.store(value, Ordering::Relaxed);
    set(&header.backing, kind as u64);
    set(&header.total_len, sections.total_len());
    set(&header.worker_capacity, sections.capacity().workers);
    set(&header.key_capacity, sections.capacity().keys);
    set(&header.chunk_capacity, sections.capacity().lease_chunks);
    set(&header.deployment_capacity, sections.capacity().deployments);
    let rows: &[SectionRow] = mapping.records(sections.table());
    set(&header.section_count, rows.len() as u64);
    for (row, section) in rows.iter().zip(sections.iter()) {
        set(&row.id, section.id);
        set(&row.offset, section.span.offset);
        set(&row.stride, section.stride);
        set(&row.count, section.span.count);
    }
    // SYNC region-ready: Release pairs with the Acquire of `attach`'s state check.
    header.state.store(State::Ready as u64, Ordering::Release);
    Ok(())
}

fn identify(header: &Header, seed: [u64; 2]) {
    let set = |word: &crate::sync::Word<u64>, value| word.store(value, Ordering::Relaxed);
    let version = u64::from(layout::VERSION_MAJOR) << 32 | u64::from(layout::VERSION_MINOR);
    let boot_id = host::boot_id();
    set(&header.magic, MAGIC);
    set(&header.version, version);
    set(&header.fingerprint, layout::fingerprint());
    set(&header.byte_order, BYTE_ORDER);
    set(&header.boot_id_high, boot_id[0]);
    set(&header.boot_id_low, boot_id[1]);
    set(&header.pid_namespace, host::namespace("pid"));
    set(&header.time_namespace, host::namespace("time"));
    set(&header.seed_high, seed[0]);
    set(&header.seed_low, seed[1]);
    set(&header.creator_uid, u64::from(nix::unistd::geteuid().as_raw()));
    set(&header.creator_pid, u64::from(std::process::id()));
    set(&header.creator_start, host::own_start_ticks());
}

/// The base is placed so that a whole second of the region's clock is a whole second of wall time:
/// limits that are named by a Unix second then convert exactly. It also lies one second back, so that
/// no stored second is ever zero.
fn set_clock(header: &Header, clock: &dyn Clock) {
    const SECOND: u64 = 1_000_000_000;
    let wall = wall_ns();
    let back = wall % SECOND + SECOND;
    let now = clock.now_ns();
    let base = now.saturating_sub(back);
    header.clock_id.store(clock.id(), Ordering::Relaxed);
    header.clock_base_ns.store(base, Ordering::Relaxed);
    header.wall_base_s.store((wall - back) / SECOND, Ordering::Relaxed);
}
