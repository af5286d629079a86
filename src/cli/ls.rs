//! `fl-shm ls`: the regions of this host.

use super::outcome::{Outcome, json, say};
use super::{NOTHING, OK, output};
use crate::inspect::{Report, Section};
use crate::region::{Found, attach_read_only, discover, orphans};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Listed {
    name: String,
    path: PathBuf,
    pids: Vec<i32>,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    layout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<u64>,
    alive: usize,
    dead: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Listed {
    fn remark(&self) -> Option<String> {
        let remark = "nobody uses it: its processes have ended";
        self.pids.is_empty().then(|| remark.to_string())
    }
}

/// `None` = it has ended since it was found.
fn listed(found: Found) -> Option<Listed> {
    let mut listed = Listed {
        name: found.name,
        path: found.path.clone(),
        pids: found.pids,
        size: found.len,
        layout: None,
        age_s: None,
        keys: None,
        alive: 0,
        dead: 0,
        problem: None,
    };
    match attach_read_only(&found.path) {
        Ok(region) => {
            let report = Report::only(&region, |section| section == Section::Workers);
            listed.alive = report.workers.iter().filter(|worker| worker.alive == "alive").count();
            listed.dead = report.workers.iter().filter(|worker| worker.alive == "dead").count();
            listed.layout = Some(report.header.layout);
            listed.age_s = Some(report.header.age_s);
            listed.keys = Some(report.header.keys);
        }
        Err(error) if error.is_gone() => return None,
        Err(error) => listed.problem = Some(error.to_string()),
    }
    Some(listed)
}

/// `fl-shm ls`
pub(super) fn ls(arguments: &Ls, out: &mut impl Write) -> Outcome {
    let live = discover();
    let orphans = orphans(&live);
    let regions: Vec<Listed> = live.into_iter().chain(orphans).filter_map(listed).collect();
    let any = regions.iter().any(|region| !region.pids.is_empty());
    if arguments.json {
        json(out, &regions)?;
    } else if regions.is_empty() {
        say("no live region that you may see");
    } else {
        let rows = regions.iter().map(|region| {
            vec![
                region.name.clone(),
                region.pids.first().map_or_else(|| "-".into(), ToString::to_string),
                region.age_s.map_or_else(|| "-".into(), output::duration),
                output::bytes(region.size),
                region.layout.clone().unwrap_or_else(|| "-".into()),
                region.keys.map_or_else(|| "-".into(), |keys| keys.to_string()),
                format!("{} alive, {} dead", region.alive, region.dead),
                region.problem.clone().or_else(|| region.remark()).unwrap_or_default(),
            ]
        });
        let head = ["REGION", "PID", "AGE", "SIZE", "LAYOUT", "KEYS", "WORKERS", ""];
        output::table(out, &head, rows)?;
    }
    Ok(if any { OK } else { NOTHING })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_since_it_was_found_is_not_listed() {
        let found = |path: &str| Found {
            name: "gone".into(),
            path: path.into(),
            pids: vec![1],
            id: (0, 0),
            len: 4096,
        };
        assert!(listed(found("/proc/self/fd/99999")).is_none());
        assert!(listed(found("/dev/null")).is_some_and(|listed| listed.problem.is_some()));
    }
}
