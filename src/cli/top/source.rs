//! What is watched, as the screen tells it.

use crate::cli::follow::Followed;
use crate::inspect::live::{Frame, Wanted, Watcher};

/// A region that is followed, and what it was at the last look.
pub(super) struct Source {
    followed: Followed,
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
    /// Watches a region.
    pub(super) fn new(followed: Followed) -> Self {
        Self { followed, watcher: Watcher::default() }
    }

    /// Its name, for people.
    pub(super) fn name(&self) -> &str {
        self.followed.name()
    }

    /// Looks, if there is something to look at.
    pub(super) fn look(&mut self, wanted: &Wanted<'_>) -> Seen {
        match self.followed.now() {
            Ok(region) => {
                let frame = Some(self.watcher.look_for(region, wanted));
                let removed = self.followed.was_removed();
                let notice = removed
                    .then(|| format!("{} was removed; whoever has it open goes on", self.name()));
                Seen { frame, notice }
            }
            Err(why) => {
                Seen { frame: None, notice: Some(format!("this is the last that was seen: {why}")) }
            }
        }
    }
}
