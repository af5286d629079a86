//! The commands that only look.

use super::args::{Inspect, Ls, Section};
use super::{NOTHING, OK, output, select};
use crate::error::AttachError;
use crate::inspect::Report;
use crate::region::{Found, attach_read_only, discover};
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Why a command stopped.
pub(super) enum Failure {
    /// Nobody reads any more.
    Closed,
    /// For standard error.
    Message(String),
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        Self::Message(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Message(error.to_string()),
        }
    }
}

/// A command's exit code.
pub(super) type Outcome = Result<u8, Failure>;

#[derive(Serialize)]
struct Listed {
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

fn listed(found: Found) -> Listed {
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
            let report = Report::of(&region);
            listed.alive = report.workers.iter().filter(|worker| worker.alive == "alive").count();
            listed.dead = report.workers.iter().filter(|worker| worker.alive == "dead").count();
            listed.layout = Some(report.header.layout);
            listed.age_s = Some(report.header.age_s);
            listed.keys = Some(report.header.keys);
        }
        Err(error) => listed.problem = Some(error.to_string()),
    }
    listed
}

/// `fl-shm ls`
pub(super) fn ls(arguments: &Ls, out: &mut impl Write) -> Outcome {
    let regions: Vec<Listed> = discover().into_iter().map(listed).collect();
    if arguments.json {
        json(out, &regions)?;
    } else if regions.is_empty() {
        writeln!(std::io::stderr(), "fl-shm: no live region that you may see")?;
    } else {
        let rows = regions.iter().map(|region| {
            vec![
                region.name.clone(),
                region.pids.first().map_or_else(String::new, ToString::to_string),
                region.age_s.map_or_else(|| "-".into(), output::duration),
                output::bytes(region.size),
                region.layout.clone().unwrap_or_else(|| "-".into()),
                region.keys.map_or_else(|| "-".into(), |keys| keys.to_string()),
                format!("{} alive, {} dead", region.alive, region.dead),
                region.problem.clone().unwrap_or_default(),
            ]
        });
        let head = ["REGION", "PID", "AGE", "SIZE", "LAYOUT", "KEYS", "WORKERS", ""];
        output::table(out, &head, rows)?;
    }
    Ok(if regions.is_empty() { NOTHING } else { OK })
}

/// `fl-shm inspect`
pub(super) fn inspect(arguments: &Inspect, out: &mut impl Write) -> Outcome {
    let Some(chosen) = select::choose(&arguments.select)? else {
        return nothing_found();
    };
    let region = chosen.look()?;
    let mut times = 0_u64;
    loop {
        let report = Report::of(&region);
        if arguments.json {
            json(out, &selected(&report, &arguments.sections)?)?;
        } else {
            if times > 0 {
                writeln!(out)?;
            }
            output::report(out, chosen.name(), &report, &|section| {
                arguments.sections.is_empty() || arguments.sections.contains(&section)
            })?;
        }
        out.flush()?;
        times += 1;
        let Some(seconds) = arguments.watch.filter(|_| arguments.count != Some(times)) else {
            return Ok(OK);
        };
        std::thread::sleep(Duration::from_secs_f64(seconds));
    }
}

/// The end of a command that needs a region when there is none.
pub(super) fn nothing_found() -> Outcome {
    let message = "fl-shm: no live region that you may see; is the proxy running?";
    writeln!(std::io::stderr(), "{message}")?;
    Ok(NOTHING)
}

pub(super) fn json(out: &mut impl Write, value: &impl Serialize) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(writeln!(out)?)
}

/// The report's object with the chosen sections only; its schema always stays.
fn selected(report: &Report, sections: &[Section]) -> Result<serde_json::Value, Failure> {
    let mut value =
        serde_json::to_value(report).map_err(|error| Failure::Message(error.to_string()))?;
    if let (Some(object), false) = (value.as_object_mut(), sections.is_empty()) {
        let keep = |name: &str| match name {
            "schema" => true,
            "header" => sections.contains(&Section::Header),
            "workers" => sections.contains(&Section::Workers),
            "limits" => sections.contains(&Section::Limits),
            "leases" => sections.contains(&Section::Leases),
            "leaders" => sections.contains(&Section::Leaders),
            "deployments" => sections.contains(&Section::Deployments),
            "pools" => sections.contains(&Section::Pools),
            "notices" => sections.contains(&Section::Notices),
            "events" => sections.contains(&Section::Events),
            _ => sections.contains(&Section::Stats),
        };
        object.retain(|name, _| keep(name));
    }
    Ok(value)
}
