//! A region that is looked at for long: it may end, be replaced, be overwritten or be cut meanwhile.

use super::select::{self, Chosen, Select};
use crate::error::AttachError;
use crate::layout::{MAGIC, VERSION_MAJOR, fingerprint};
use crate::region::{Region, discover, identity};
use crate::sync::{Ordering, Word};
use std::fs::metadata;
use std::path::{Path, PathBuf};

/// A region, as long as there is one of that name.
pub(super) struct Followed {
    name: String,
    /// The file, where the region was chosen by it.
    file: Option<PathBuf>,
    /// Where it can be opened, and what stood there when it was.
    path: PathBuf,
    id: (u64, u64),
    /// `None` = it has ended, or cannot be read any more.
    region: Option<Region>,
}

impl Followed {
    /// Opens what was chosen.
    pub(super) fn open(chosen: &Chosen) -> Result<Self, AttachError> {
        Ok(Self::new(chosen, chosen.look()?))
    }

    /// Follows a region that was opened.
    fn new(chosen: &Chosen, region: Region) -> Self {
        let (path, file) = match chosen {
            Chosen::Live(found) => (found.path.clone(), None),
            Chosen::File(path, _) => (path.clone(), Some(path.clone())),
        };
        let opened = region.backing().file.as_ref().and_then(|file| file.metadata().ok());
        Self {
            name: chosen.name().to_string(),
            file,
            path,
            id: opened.map(|meta| identity(&meta)).unwrap_or_default(),
            region: Some(region),
        }
    }

    /// Its name, for people.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The region, if it still stands; else another one of its name. To be asked before each look, and what it
    /// returns not to be kept for the next.
    pub(super) fn now(&mut self) -> Result<&Region, String> {
        if self.region.is_some() && self.stands().is_err() {
            self.region = None;
        }
        if self.region.is_none() {
            let chosen = self.choose()?;
            *self = Self::open(&chosen)
                .map_err(|error| format!("what is there now cannot be read: {error}"))?;
        }
        self.region.as_ref().ok_or_else(|| "it has ended".into())
    }

    /// The same region as long as it stands, and why it does not.
    pub(super) fn same(&mut self) -> Result<&Region, String> {
        self.stands()?;
        self.region.as_ref().ok_or_else(|| "it has ended".into())
    }

    /// Whether the file that it was chosen by is no longer there; others have the region open.
    pub(super) fn was_removed(&self) -> bool {
        self.file.as_ref().is_some_and(|file| *file != self.path)
    }

    /// Whether the region is there and is what it was.
    fn stands(&mut self) -> Result<(), String> {
        let Some(region) = &self.region else { return Ok(()) };
        if self.file.as_deref().and_then(at).is_some_and(|(id, _)| id != self.id) {
            return Err("another file has its name".into());
        }
        // Its length first: to read behind the end of a file that was cut would end this process.
        let here = at(&self.path).filter(|(id, _)| *id == self.id);
        let len = if let Some((_, len)) = here {
            len
        } else {
            // The process that it was opened through has ended, or its file was removed, and others still use it.
            let other = discover().into_iter().find(|found| found.id == self.id);
            let other = other.ok_or_else(|| gone(&self.name))?;
            self.path = other.path;
            other.len
        };
        if len < region.len() {
            return Err("it was cut".into());
        }
        if is_whole(region) { Ok(()) } else { Err("it was overwritten".into()) }
    }

    /// The only region of the same name.
    fn choose(&self) -> Result<Chosen, String> {
        if let Some(file) = &self.file {
            let select = Select { region: None, pid: None, file: Some(file.clone()) };
            return select::choose(&select).ok().flatten().ok_or_else(|| gone(&self.name));
        }
        let mut found = discover();
        found.retain(|found| found.name == self.name);
        match (found.pop(), found.len()) {
            (Some(found), 0) => Ok(Chosen::Live(found)),
            (None, _) => Err(gone(&self.name)),
            (Some(_), others) => {
                let (count, name) = (others + 1, &self.name);
                Err(format!("it has ended, and {count} regions are named {name:?} now"))
            }
        }
    }
}

fn gone(name: &str) -> String {
    format!("no process uses the region {name:?} any more")
}

/// What stands at a path: device and inode, and how long it is.
fn at(path: &Path) -> Option<((u64, u64), u64)> {
    let meta = metadata(path).ok()?;
    Some((identity(&meta), meta.len()))
}

/// Whether what made the region one of ours still stands in it.
fn is_whole(region: &Region) -> bool {
    let get = |word: &Word<u64>| word.load(Ordering::Relaxed);
    let header = region.header();
    get(&header.magic) == MAGIC
        && get(&header.version) >> 32 == u64::from(VERSION_MAJOR)
        && get(&header.fingerprint) == fingerprint()
        && get(&header.total_len) == region.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MonotonicClock;
    use crate::config::Capacity;
    use crate::region::{Placement, create};
    use std::fs::{OpenOptions, remove_file, rename};
    use std::os::unix::fs::FileExt;

    /// A file with a region that this process has open, and one who follows it by its path.
    fn followed(name: &str) -> (PathBuf, Region, Followed) {
        let path = std::env::temp_dir().join(format!("fl-follow-{name}-{}", std::process::id()));
        let region = made(&path);
        let chosen = Chosen::File(path.clone(), "f".into());
        let followed = Followed::open(&chosen).unwrap();
        (path, region, followed)
    }

    fn made(path: &Path) -> Region {
        let _ = remove_file(path);
        let placement = Placement::Named { path: path.to_path_buf(), force: true };
        create(&placement, Capacity::default(), Box::new(MonotonicClock)).unwrap()
    }

    #[test]
    fn what_was_cut_is_never_read() {
        let (path, _region, mut followed) = followed("cut");
        followed.now().unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert_eq!(followed.same().err().as_deref(), Some("it was cut"));
        assert!(followed.now().is_err_and(|why| why.contains("cannot be read")));
        remove_file(path).unwrap();
    }

    #[test]
    fn what_was_overwritten_is_read_again_when_it_is_whole() {
        let (path, _region, mut followed) = followed("overwritten");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[0], 0).unwrap();
        assert_eq!(followed.same().err().as_deref(), Some("it was overwritten"));
        assert!(followed.now().is_err_and(|why| why.contains("cannot be read")));
        file.write_all_at(&MAGIC.to_le_bytes(), 0).unwrap();
        assert!(followed.now().is_ok() && !followed.was_removed());
        remove_file(path).unwrap();
    }

    #[test]
    fn what_was_removed_is_read_as_long_as_somebody_uses_it_and_cut_even_then() {
        let (path, region, mut followed) = followed("removed");
        let moved = path.with_extension("moved");
        rename(&path, &moved).unwrap();
        assert!(followed.now().is_ok() && followed.was_removed());
        OpenOptions::new().write(true).open(&moved).unwrap().set_len(4_096).unwrap();
        assert_eq!(followed.same().err().as_deref(), Some("it was cut"));
        assert!(followed.now().is_err_and(|why| why.contains("cannot open")));
        remove_file(moved).unwrap();
        drop(region);
    }

    #[test]
    fn another_file_of_its_name_is_the_next() {
        let (path, region, mut followed) = followed("another");
        let next = made(&path);
        assert_eq!(followed.same().err().as_deref(), Some("another file has its name"));
        let seed = |region: &Region| region.header().seed_high.load(Ordering::Relaxed);
        let seen = followed.now().unwrap();
        assert_eq!(seed(seen), seed(&next));
        assert_ne!(seed(seen), seed(&region));
        // Nobody has it open any more, and it is not what it was chosen by.
        remove_file(&path).unwrap();
        drop(next);
        assert!(followed.same().is_err_and(|why| why.starts_with("no process uses the region")));
    }
}
