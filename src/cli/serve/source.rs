//! What is looked at, as it is sent.

use crate::cli::follow::Followed;
use crate::cli::prom;
use crate::inspect::live::Watcher;
use crate::inspect::{Report, SCHEMA};
use crate::region::Region;
use hyper::body::Bytes;
use serde::Serialize;

/// Keys that a look shows.
const HOTTEST: usize = 200;

/// A region that is followed, and what it was at the last look.
pub(super) struct Source {
    followed: Followed,
    watcher: Watcher,
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
    /// Looks at a region.
    pub(super) fn new(followed: Followed) -> Self {
        Self { followed, watcher: Watcher::default() }
    }

    /// A frame of it.
    pub(super) fn frame(&mut self) -> Seen {
        self.see(|region, watcher| watcher.look(region, HOTTEST))
    }

    /// All of it.
    pub(super) fn report(&mut self) -> Seen {
        self.see(|region, _| Report::of(region))
    }

    /// Its metrics, as Prometheus text.
    pub(super) fn metrics(&mut self) -> Seen {
        let mut text = Vec::new();
        let written = self.followed.now().map(|region| prom::write(&mut text, region).is_ok());
        match written {
            Ok(there) => Seen { there, text: text.into() },
            Err(problem) => self.gone(&problem),
        }
    }

    fn see<T: Serialize>(&mut self, look: impl FnOnce(&Region, &mut Watcher) -> T) -> Seen {
        let seen = self.followed.now().map(|region| look(region, &mut self.watcher));
        match seen {
            Ok(seen) => {
                let named = Named { region: self.followed.name(), seen: &seen };
                Seen { there: true, text: json(&named) }
            }
            Err(problem) => self.gone(&problem),
        }
    }

    /// What is said while there is nothing to look at.
    fn gone(&self, problem: &str) -> Seen {
        let gone = Gone { schema: SCHEMA, region: self.followed.name(), problem };
        Seen { there: false, text: json(&gone) }
    }
}
