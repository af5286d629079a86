//! The memory object behind a region: a sealed memfd, a file on tmpfs, or anonymous shared memory.

use super::mapping::{Mapping, file_system_type};
use crate::error::CreateError;
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;

/// Kind of memory object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum BackingKind {
    /// Sealed memfd: nobody can truncate it, and `/dev/shm` need not exist.
    Memfd = 1,
    /// File on tmpfs.
    File = 2,
    /// Anonymous shared memory: children share it, inspectors cannot reach it.
    Anonymous = 3,
    /// Private memory of one process.
    Heap = 4,
}

impl BackingKind {
    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memfd => "memfd",
            Self::File => "file",
            Self::Anonymous => "anonymous",
            Self::Heap => "heap",
        }
    }

    /// Decodes the header's number.
    pub fn from_raw(raw: u64) -> Option<Self> {
        [Self::Memfd, Self::File, Self::Anonymous, Self::Heap]
            .into_iter()
            .find(|&kind| kind as u64 == raw)
    }
}

/// The memory object of a mapped region. The open file is kept: inspectors reach the region through it.
#[derive(Debug)]
pub struct Backing {
    /// Its kind.
    pub kind: BackingKind,
    /// Its open file.
    pub file: Option<File>,
    /// Its path, when it has a name that outlives its processes.
    pub path: Option<PathBuf>,
    /// Why the preferred kinds were not used; empty when the first choice worked.
    pub fallbacks: Vec<String>,
}

/// Where a new region may live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Inherited by children: memfd, else a nameless tmpfs file in one of these directories, else
    /// anonymous memory.
    Inherited {
        /// Name shown by tools.
        name: String,
        /// Kinds to try, in order.
        kinds: Vec<BackingKind>,
        /// Directories for the tmpfs file.
        directories: Vec<PathBuf>,
    },
    /// A named file, for processes that do not fork from one parent.
    Named {
        /// Its path.
        path: PathBuf,
        /// Accept a file system that is not tmpfs.
        force: bool,
    },
}

impl Placement {
    /// The usual inherited placement.
    pub fn inherited(name: &str) -> Self {
        Self::Inherited {
            name: name.to_string(),
            kinds: vec![BackingKind::Memfd, BackingKind::File, BackingKind::Anonymous],
            directories: vec![
                PathBuf::from("/dev/shm"),
                PathBuf::from("/run"),
                PathBuf::from("/tmp"),
            ],
        }
    }
}

/// Obtains memory of `len` zero bytes of an inherited kind, trying each in turn.
pub(crate) fn inherited(
    name: &str,
    kinds: &[BackingKind],
    directories: &[PathBuf],
    len: u64,
) -> Result<(Mapping, Backing), CreateError> {
    let mut fallbacks = Vec::new();
    for &kind in kinds {
        let tried = match kind {
            BackingKind::Memfd => memfd(name, len),
            BackingKind::File => nameless_file(name, directories, len, &mut fallbacks),
            BackingKind::Anonymous => Mapping::anonymous(len).map(|mapping| (mapping, None)),
            BackingKind::Heap => Mapping::heap(len).map(|mapping| (mapping, None)),
        };
        match tried {
            Ok((mapping, file)) => {
                return Ok((mapping, Backing { kind, file, path: None, fallbacks }));
            }
            Err(error) => fallbacks.push(format!("{}: {error}", kind.name())),
        }
    }
    Err(CreateError::Backing {
        place: fallbacks.join("; "),
        len,
        source: std::io::ErrorKind::OutOfMemory.into(),
        remedy: "allow memfd_create or provide a writable tmpfs such as /dev/shm",
    })
}

type Made = (Mapping, Option<File>);

#[cfg(target_os = "linux")]
fn memfd(name: &str, len: u64) -> std::io::Result<Made> {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let label = format!("fl-shm:{}", label(name));
    let file = File::from(memfd_create(
        label.as_str(),
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?);
    // Made 0777 by the kernel; whoever gets hold of a descriptor can open only what is his.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.set_len(len)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok((Mapping::of_file(&file, len)?, Some(file)))
}

#[cfg(not(target_os = "linux"))]
fn memfd(_name: &str, _len: u64) -> std::io::Result<Made> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// A file without a name on the first usable tmpfs: nothing is left behind, whoever dies.
fn nameless_file(
    name: &str,
    directories: &[PathBuf],
    len: u64,
    fallbacks: &mut Vec<String>,
) -> std::io::Result<Made> {
    for directory in directories {
        match nameless_file_in(name, directory, len) {
            Ok(made) => return Ok(made),
            Err(error) => fallbacks.push(format!("file in {}: {error}", directory.display())),
        }
    }
    Err(std::io::Error::other("no usable tmpfs directory"))
}

fn nameless_file_in(name: &str, directory: &Path, len: u64) -> std::io::Result<Made> {
    let path = directory.join(format!("{PREFIX}{}-{:016x}", label(name), unique()?));
    let file = new_private_file(&path)?;
    std::fs::remove_file(&path)?;
    if !is_memory_file_system(&file)? {
        return Err(std::io::Error::other("not tmpfs"));
    }
    reserve(&file, len)?;
    Ok((Mapping::of_file(&file, len)?, Some(file)))
}

/// What the names of nameless files begin with, while they have one.
const PREFIX: &str = "fl-shm-";

/// A region's name as memory objects carry it: the kernel takes 249 bytes, and a file's name no slash.
pub(crate) fn label(name: &str) -> String {
    name.chars().take(53).map(|c| if c == '/' { '_' } else { c }).collect()
}

/// The region's name in that of a nameless file.
pub(crate) fn label_of(file_name: &str) -> Option<&str> {
    let (label, unique) = file_name.strip_prefix(PREFIX)?.rsplit_once('-')?;
    (unique.len() == 16 && unique.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(label)
}

/// Device and inode: which file it is, whatever it is called.
pub fn identity(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// The directory of a file.
pub(crate) fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Whether that is the file that `path` names now.
pub(crate) fn names(path: &Path, file: &File) -> bool {
    match (std::fs::symlink_metadata(path), file.metadata()) {
        (Ok(there), Ok(here)) => identity(&there) == identity(&here),
        _ => false,
    }
}

/// Begins to use a region's file: a shared lock, which ends with the last process that has inherited it.
pub(crate) fn hold(file: &File) -> std::io::Result<()> {
    file.try_lock_shared().map_err(Into::into)
}

pub(crate) fn unique() -> std::io::Result<u64> {
    super::host::random_seed().map(|seed| seed[0])
}

/// Creates a file that only this user can open; fails when anything is at `path`, a symlink included.
pub(crate) fn new_private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}

/// A file like that beside `path`, which has no name until it is given one: whoever is killed before leaves
/// nothing. `None` = not to be had.
#[cfg(target_os = "linux")]
pub(crate) fn new_nameless_file(path: &Path) -> Option<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC)
        .open(folder_of(path));
    file.ok().filter(|file| descriptor(file).exists())
}

/// Gives it its name, if nothing has that.
#[cfg(target_os = "linux")]
pub(crate) fn link_nameless(file: &File, path: &Path) -> std::io::Result<()> {
    use nix::fcntl::{AT_FDCWD, AtFlags};
    let flags = AtFlags::AT_SYMLINK_FOLLOW;
    nix::unistd::linkat(AT_FDCWD, &descriptor(file), AT_FDCWD, path, flags).map_err(Into::into)
}

#[cfg(target_os = "linux")]
fn descriptor(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn new_nameless_file(_path: &Path) -> Option<File> {
    None
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn link_nameless(_file: &File, _path: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

pub(crate) fn is_memory_file_system(file: &File) -> std::io::Result<bool> {
    let found = file_system_type(file)?;
    Ok(cfg!(not(target_os = "linux")) || matches!(found, TMPFS_MAGIC | RAMFS_MAGIC))
}

/// Makes every page of the file exist now: a full tmpfs is an error here and not a SIGBUS later.
pub(crate) fn reserve(file: &File, len: u64) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let bytes = i64::try_from(len).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        loop {
            match nix::fcntl::posix_fallocate(file, 0, bytes) {
                // Some kernels give up for any signal.
                Err(nix::errno::Errno::EINTR) => {}
                done => return done.map_err(Into::into),
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    file.set_len(len)
}
