//! The region that is looked at: it may end while it is served, and another of its name may come.

use crate::cli::outcome::Failure;
use crate::cli::prom;
use crate::cli::select::Chosen;
use crate::inspect::Report;
use crate::inspect::live::Watcher;
use crate::region::{Found, Region, discover};
use hyper::body::Bytes;
use serde::Serialize;
use std::fs::metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Keys that a look shows.
const HOTTEST: usize = 200;

/// A region, or why there is none now.
pub(super) struct Source {
    name: String,
    /// The file, where the region was chosen by it.
    file: Option<PathBuf>,
    found: Result<Open, String>,
}

struct Open {
    region: Region,
    watcher: Watcher,
    /// Where it was opened, and what was there.
    path: PathBuf,
    id: (u64, u64),
}

/// What a look at a region that is not there has to say.
#[derive(Serialize)]
struct Gone<'a> {
    schema: &'static str,
    region: &'a str,
    problem: &'a str,
}

/// What is seen, with the region's name.
#[derive(Serialize)]
struct Named<'a, T> {
    region: &'a str,
    #[serde(flatten)]
    seen: &'a T,
}

/// One look.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Whether the region was there.
    pub(super) there: bool,
    /// JSON on one line, or metrics.
    pub(super) text: Bytes,
}

/// Strings and numbers only: there is nothing that could not be written.
fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

impl Source {
    /// Opens what was chosen.
    pub(super) fn open(chosen: &Chosen) -> Result<Self, Failure> {
        let name = chosen.name().to_string();
        let file = match chosen {
            Chosen::Live(_) => None,
            Chosen::File(path, _) => Some(path.clone()),
        };
        let found = Open::new(chosen).map_err(Failure::Message)?;
        Ok(Self { name, file, found: Ok(found) })
    }

    /// A frame of it.
    pub(super) fn frame(&mut self) -> Seen {
        self.see(|open| open.watcher.look(&open.region, HOTTEST))
    }

    /// All of it.
    pub(super) fn report(&mut self) -> Seen {
        self.see(|open| Report::of(&open.region))
    }

    /// Its metrics, as Prometheus text.
    pub(super) fn metrics(&mut self) -> Seen {
        let region = match self.opened() {
            Ok(open) => &open.region,
            Err(gone) => return gone,
        };
        let mut text = Vec::new();
        let there = prom::write(&mut text, region).is_ok();
        Seen { there, text: text.into() }
    }

    fn see<T: Serialize>(&mut self, look: impl FnOnce(&mut Open) -> T) -> Seen {
        let seen = match self.opened() {
            Ok(open) => look(open),
            Err(gone) => return gone,
        };
        Seen { there: true, text: json(&Named { region: &self.name, seen: &seen }) }
    }

    /// The region, or what is said while there is none.
    fn opened(&mut self) -> Result<&mut Open, Seen> {
        self.follow();
        let (schema, region) = (crate::inspect::SCHEMA, &self.name);
        self.found
            .as_mut()
            .map_err(|problem| Seen { there: false, text: json(&Gone { schema, region, problem }) })
    }

    /// Goes after the region if it is not where it was.
    fn follow(&mut self) {
        if self.found.as_ref().is_ok_and(Open::is_there) {
            return;
        }
        let chosen = self.choose();
        // The process that it was opened through may have ended, and others still use it.
        if let (Ok(Chosen::Live(found)), Ok(open)) = (&chosen, &mut self.found)
            && found.id == open.id
        {
            open.path.clone_from(&found.path);
            return;
        }
        self.found = chosen.and_then(|chosen| Open::new(&chosen));
    }

    fn choose(&self) -> Result<Chosen, String> {
        if let Some(file) = &self.file {
            return Ok(Chosen::File(file.clone(), self.name.clone()));
        }
        let mut named: Vec<Found> =
            discover().into_iter().filter(|found| found.name == self.name).collect();
        let same = |found: &Found| self.found.as_ref().is_ok_and(|open| open.id == found.id);
        if let Some(position) = named.iter().position(same) {
            return Ok(Chosen::Live(named.swap_remove(position)));
        }
        match (named.pop(), named.len()) {
            (Some(found), 0) => Ok(Chosen::Live(found)),
            (None, _) => Err(format!("no process uses the region {:?} any more", self.name)),
            (_, more) => Err(format!("{} regions are named {:?}", more + 1, self.name)),
        }
    }
}

impl Open {
    fn new(chosen: &Chosen) -> Result<Self, String> {
        let path = match chosen {
            Chosen::Live(found) => found.path.clone(),
            Chosen::File(path, _) => path.clone(),
        };
        let region = chosen.look().map_err(|error| error.to_string())?;
        let file = region.backing().file.as_ref();
        let meta = file.and_then(|file| file.metadata().ok()).ok_or("the region has no file")?;
        let id = (meta.dev(), meta.ino());
        Ok(Self { region, watcher: Watcher::default(), path, id })
    }

    fn is_there(&self) -> bool {
        metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.id)
    }
}
