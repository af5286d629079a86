//! Which region a command is about.

use super::outcome::Failure;
use crate::error::AttachError;
use crate::region::{
    Found, Region, attach_file, attach_live, attach_read_only, discover, discover_of, moment_in,
};
use crate::tables::names::printable;
use clap::Args;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// Which region; needed only when there are several.
#[derive(Debug, Clone, Args)]
pub(super) struct Select {
    /// The region of this name, as `fl-shm ls` prints it (environment: `FL_SHM_REGION`).
    #[arg(long, conflicts_with_all = ["pid", "file"])]
    pub(super) region: Option<String>,
    /// The region that this process uses.
    #[arg(long, conflicts_with = "file")]
    pub(super) pid: Option<i32>,
    /// The region or dump in this file (environment: `FL_SHM_FILE`).
    #[arg(long)]
    pub(super) file: Option<PathBuf>,
}

impl Select {
    /// Whether one was asked for, by argument or environment.
    pub(super) fn is_given(&self) -> bool {
        let select = self.or_environment();
        select.region.is_some() || select.pid.is_some() || select.file.is_some()
    }

    /// Itself, or what the environment says where nothing was typed.
    fn or_environment(&self) -> Self {
        if self.region.is_some() || self.pid.is_some() || self.file.is_some() {
            return self.clone();
        }
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let file = variable("FL_SHM_FILE").map(PathBuf::from);
        let region = variable("FL_SHM_REGION").filter(|_| file.is_none());
        let region = region.map(|name| name.to_string_lossy().into_owned());
        Self { region, pid: None, file }
    }
}

/// The region that was asked for, not yet opened.
pub(super) enum Chosen {
    /// Found through a process that uses it.
    Live(Found),
    /// Named by its file; perhaps nobody uses it any more.
    File(PathBuf, String),
}

impl Chosen {
    /// Its name, for people.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Live(found) => &found.name,
            Self::File(_, name) => name,
        }
    }

    /// Its name, or the path that it was chosen by.
    pub(super) fn place(&self) -> String {
        match self {
            Self::Live(found) => found.name.clone(),
            Self::File(path, _) => path.display().to_string(),
        }
    }

    /// A process that uses it, if that is known.
    pub(super) fn pid(&self) -> Option<i32> {
        match self {
            Self::Live(found) => found.pids.first().copied(),
            Self::File(..) => None,
        }
    }

    /// Opens it without being able to change it.
    pub(super) fn look(&self) -> Result<Region, AttachError> {
        match self {
            Self::Live(found) => attach_read_only(&found.path),
            Self::File(path, _) => attach_read_only(path),
        }
    }

    /// Opens it for use.
    pub(super) fn open(&self) -> Result<Region, AttachError> {
        match self {
            Self::Live(found) => attach_live(found),
            Self::File(path, _) => attach_file(path),
        }
    }

    /// As [`Self::open`], for a process that looked at it with more rights than it has left: the file that it has
    /// open may no longer be within its reach by another process's descriptor.
    pub(super) fn open_again(&self, looked_at: &Region) -> Result<Region, AttachError> {
        match (self, &looked_at.backing().file) {
            (Self::Live(found), Some(file)) => {
                let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
                attach_live(&Found { path, ..found.clone() })
            }
            _ => self.open(),
        }
    }
}

/// Finds it; `None` = there is none at all.
pub(super) fn choose(select: &Select) -> Result<Option<Chosen>, Failure> {
    let select = &select.or_environment();
    if let Some(path) = &select.file {
        let own = || printable(&path.display().to_string()).into_owned();
        let name = moment_in(path).map_or_else(own, |moment| moment.name);
        return Ok(Some(Chosen::File(path.clone(), name)));
    }
    let mut found = select.pid.map_or_else(discover, discover_of);
    if let Some(name) = &select.region {
        let printed = printable(name);
        found.retain(|region| region.name == printed);
        if found.is_empty() {
            return Err(Failure::Message(format!(
                "no live region is named {name:?}: try fl-shm ls"
            )));
        }
    }
    if let (Some(pid), true) = (select.pid, found.is_empty()) {
        let message = format!("process {pid} uses no region that you may see: try fl-shm ls");
        return Err(Failure::Message(message));
    }
    if found.len() > 1 {
        let name = |region: &Found| {
            let pid = region.pids.first().copied().unwrap_or(0);
            format!("{} (--pid {pid})", region.name)
        };
        let names: Vec<String> = found.iter().map(name).collect();
        let message = format!("several regions are live, choose one: {}", names.join(", "));
        return Err(Failure::Message(message));
    }
    Ok(found.pop().map(Chosen::Live))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MonotonicClock;
    use crate::config::Capacity;
    use crate::inspect;
    use crate::region::{Placement, create, dump};

    #[test]
    fn what_a_dump_calls_itself_cannot_steer_the_terminal() {
        let path = std::env::temp_dir().join(format!("fl-select-{}", std::process::id()));
        let capacity = Capacity::checked(64, 64, 4).unwrap();
        let made = create(&Placement::inherited("d"), capacity, Box::new(MonotonicClock)).unwrap();
        let file = std::fs::File::create(&path).unwrap();
        dump(&made, &inspect::moment(&made, "\x1b[2Jd"), &file).unwrap();
        let select = Select { region: None, pid: None, file: Some(path.clone()) };
        let chosen = choose(&select).ok().flatten().unwrap();
        assert_eq!(chosen.name(), "?[2Jd");
        std::fs::remove_file(path).unwrap();
    }
}
