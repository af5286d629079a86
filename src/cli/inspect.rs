//! `fl-shm inspect`: what a region holds, section by section.

use super::outcome::{Failure, Outcome, json, nothing_found};
use super::select::{self, Select};
use super::{OK, output};
use crate::inspect::Report;
use clap::{Args, ValueEnum};
use std::io::Write;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// Which parts to show; all by default.
    #[arg(value_enum)]
    pub(super) sections: Vec<Section>,
    #[command(flatten)]
    pub(super) select: Select,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(super) json: bool,
    /// Print again every so many seconds until interrupted.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = interval)]
    pub(super) watch: Option<f64>,
    /// With --watch: stop after so many times.
    #[arg(long, requires = "watch")]
    pub(super) count: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Section {
    Header,
    Workers,
    Limits,
    Leases,
    Leaders,
    Deployments,
    Pools,
    Notices,
    Events,
    Stats,
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err(format!("{text:?} is no interval: use 0.01 to 86400 seconds")),
    }
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
