//! The region that is watched: it may end, be replaced, or be overwritten while somebody looks at it.

use crate::cli::select::{self, Chosen, Select};
use crate::inspect::live::{Frame, Wanted, Watcher};
use crate::layout::{MAGIC, VERSION_MAJOR, fingerprint};
use crate::region::{Region, discover};
use crate::sync::Ordering;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A region, as long as there is one of that name.
pub(super) struct Source {
    pub(super) name: String,
    /// Where it can be opened, and what stood there then.
    path: PathBuf,
    id: (u64, u64),
    /// Whether it was found through a process, not by the name of its file.
    live: bool,
    /// `None` = it has ended, or cannot be read any more.
    region: Option<Region>,
    watcher: Watcher,
}

/// What one look found.
#[derive(Debug)]
pub(super) struct Seen {
    /// `None` = what was seen before is the latest.
    pub(super) frame: Option<Frame>,
    /// What is wrong, or not as it was.
    pub(super) notice: Option<String>,
}

impl Source {
    /// Watches a region that was opened.
    pub(super) fn new(chosen: &Chosen, region: Region) -> Self {
        let (path, live) = match chosen {
            Chosen::Live(found) => (found.path.clone(), true),
            Chosen::File(path, _) => (path.clone(), false),
        };
        let opened = region.backing().file.as_ref().and_then(|file| file.metadata().ok());
        Self {
            name: chosen.name().to_string(),
            id: opened.map(|meta| (meta.dev(), meta.ino())).unwrap_or_default(),
            path,
            live,
            region: Some(region),
            watcher: Watcher::default(),
        }
    }

    /// Looks, if it still is there; else looks for another one of its name.
    pub(super) fn look(&mut self, wanted: &Wanted<'_>) -> Seen {
        let mut notice = self.stands().err();
        if notice.is_some() {
            self.region = None;
        }
        if self.region.is_none() {
            match self.find() {
                Ok(()) => notice = None,
                Err(why) => notice = Some(why),
            }
        }
        let frame = self.region.as_ref().map(|region| self.watcher.look_for(region, wanted));
        if self.region.is_some() && !self.live && at(&self.path).is_none() {
            notice = Some(format!("{} was removed; whoever has it open goes on", self.name));
        }
        Seen { frame, notice }
    }

    /// Whether the region is there and is what it was.
    fn stands(&mut self) -> Result<(), String> {
        let Some(region) = &self.region else { return Ok(()) };
        // Its length first: to read behind the end of a file that was cut would end this process.
        let meta = std::fs::metadata(&self.path).ok();
        let same = meta.as_ref().filter(|meta| (meta.dev(), meta.ino()) == self.id);
        if same.is_some_and(|meta| meta.len() < region.len()) {
            return Err("it was cut".into());
        }
        if !is_whole(region) {
            return Err("it was overwritten".into());
        }
        if same.is_none() && self.live {
            let other = discover().into_iter().find(|found| found.id == self.id);
            self.path = other.ok_or("its last process has ended")?.path;
        } else if same.is_none() && meta.is_some() {
            return Err("another file has its name".into());
        }
        Ok(())
    }

    /// Opens the only region of the same name.
    fn find(&mut self) -> Result<(), String> {
        let chosen = if self.live {
            let mut found = discover();
            found.retain(|found| found.name == self.name);
            match (found.pop(), found.len()) {
                (Some(found), 0) => Chosen::Live(found),
                (None, _) => {
                    return Err("its last process has ended: this is the last that was seen; it goes on when \
                                a region of this name is there again"
                        .into());
                }
                (Some(_), others) => {
                    let count = others + 1;
                    return Err(format!(
                        "it has ended, and {count} regions have its name now: quit, and choose one by --pid"
                    ));
                }
            }
        } else {
            let select = Select { region: None, pid: None, file: Some(self.path.clone()) };
            let chosen = select::choose(&select).ok().flatten();
            chosen.ok_or_else(|| format!("{} is gone", self.name))?
        };
        let region = chosen.look().map_err(|error| {
            format!("this is the last that was seen; what is there now cannot be read: {error}")
        })?;
        let watcher = std::mem::take(&mut self.watcher);
        *self = Self { watcher, ..Self::new(&chosen, region) };
        Ok(())
    }
}

/// What stands at a path: device and inode.
fn at(path: &Path) -> Option<(u64, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// Whether what made the region one of ours still stands in it.
fn is_whole(region: &Region) -> bool {
    let get = |word: &crate::sync::Word<u64>| word.load(Ordering::Relaxed);
    let header = region.header();
    get(&header.magic) == MAGIC
        && get(&header.version) >> 32 == u64::from(VERSION_MAJOR)
        && get(&header.fingerprint) == fingerprint()
        && get(&header.total_len) == region.len()
}
