//! `fl-shm inspect`: what a region holds, section by section.

use super::columns::Columns;
use super::follow::Followed;
use super::outcome::{Failure, Outcome, nothing_found};
use super::select::{self, Select};
use super::text::{self, Screen};
use super::view::{Plan, View};
use super::{OK, machine, prom};
use crate::inspect::{Report, Section};
use crate::region::Region;
use clap::Args;
use std::io::Write;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// Which parts to show; all by default.
    #[arg(value_enum, value_name = "SECTION")]
    pub(super) sections: Vec<Section>,
    #[command(flatten)]
    pub(super) select: Select,
    #[command(flatten)]
    pub(super) format: Format,
    /// Print the text that Prometheus reads, as the workers export it: the whole region, without any key.
    #[arg(long, conflicts_with_all = ["json", "ndjson", "csv", "rate", "since_start"])]
    pub(super) prom: bool,
    #[command(flatten)]
    pub(super) view: View,
    /// Print again every so many seconds until interrupted.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = interval)]
    pub(super) watch: Option<f64>,
    /// With --watch: stop after so many times.
    #[arg(long, requires = "watch")]
    pub(super) count: Option<u64>,
    /// Show changes per second between two looks, which are a second or what --watch says apart.
    #[arg(long)]
    pub(super) rate: bool,
    /// Show changes per second over all the time since the region was made.
    #[arg(long, conflicts_with = "rate")]
    pub(super) since_start: bool,
}

/// How records are printed.
#[derive(Debug, Clone, Copy, Args)]
#[group(multiple = false)]
pub(super) struct Format {
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(super) json: bool,
    /// Print JSON, one record a line.
    #[arg(long)]
    pub(super) ndjson: bool,
    /// Print comma-separated values with a heading.
    #[arg(long)]
    pub(super) csv: bool,
}

impl Format {
    /// Whether it is for people.
    pub(super) fn is_text(self) -> bool {
        !(self.json || self.ndjson || self.csv)
    }
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.01..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err(format!("{text:?} is no interval: use 0.01 to 86400 seconds")),
    }
}

impl Inspect {
    /// The sections that are shown, in the order of all.
    fn sections(&self) -> Vec<Section> {
        let wanted =
            |section: &Section| self.sections.is_empty() || self.sections.contains(section);
        Section::ALL.into_iter().filter(wanted).collect()
    }

    /// Why its options do not fit each other.
    fn refusal(&self) -> Option<String> {
        let one = |option: &str| {
            format!(
                "{option} is about the records of one section: say which, e.g. fl-shm inspect limits {option}"
            )
        };
        if self.prom {
            let given = (!self.sections.is_empty()).then_some("SECTION").or(self.view.given())?;
            return Some(format!("--prom prints the whole region: leave {given} away"));
        }
        let needs = self.view.given().or(self.format.csv.then_some("--csv"))?;
        (self.sections().len() != 1).then(|| one(needs))
    }

    fn plans(&self, sections: &[Section]) -> Result<Vec<Plan>, Failure> {
        // Only the records that change while nobody looks are worth a line each.
        let moved = View { filter: Some("total > 0".into()), ..View::default() };
        let plan = |&section: &Section| {
            let quiet = self.format.is_text() && self.view.given().is_none();
            let view = if quiet && section == Section::Stats { &moved } else { &self.view };
            view.plan(Columns::of_section(section))
        };
        sections.iter().map(plan).collect()
    }
}

/// `fl-shm inspect`
pub(super) fn inspect(arguments: &Inspect, out: &mut impl Write) -> Outcome {
    if let Some(refusal) = arguments.refusal() {
        return Err(Failure::Message(refusal));
    }
    let sections = arguments.sections();
    let plans = arguments.plans(&sections)?;
    let Some(chosen) = select::choose(&arguments.select)? else {
        return nothing_found();
    };
    let mut followed = Followed::open(&chosen)?;
    let look =
        |region: &Region, old| Report::again(region, |section| sections.contains(&section), old);
    let pause = Duration::from_secs_f64(arguments.watch.unwrap_or(1.0));
    let mut before = None;
    if arguments.rate {
        before = Some(look(still(&mut followed)?, Report::default()));
    }
    let mut spare = Report::default();
    if before.is_some() {
        std::thread::sleep(pause);
    }
    let printer = Printer { arguments, name: chosen.name(), sections: &sections, plans: &plans };
    let mut times = 0_u64;
    loop {
        let region = still(&mut followed)?;
        if arguments.prom {
            if times > 0 {
                writeln!(out)?;
            }
            prom::write(out, region)?;
        } else {
            let mut report = look(region, std::mem::take(&mut spare));
            if let Some(before) = &before {
                report.add_rates(before);
            }
            if arguments.since_start {
                report.add_rates_since_start();
            }
            printer.print(out, &report, times > 0)?;
            spare = match &mut before {
                Some(before) => std::mem::replace(before, report),
                None => report,
            };
        }
        out.flush()?;
        times += 1;
        if arguments.watch.is_none() || arguments.count == Some(times) {
            return Ok(OK);
        }
        std::thread::sleep(pause);
    }
}

/// The region that was chosen, as long as it stands.
fn still(followed: &mut Followed) -> Result<&Region, Failure> {
    let name = followed.name().to_string();
    let ended = |why| Failure::Message(format!("{name} cannot be looked at any longer: {why}"));
    followed.same().map_err(ended)
}

/// What is printed of each look.
struct Printer<'a> {
    arguments: &'a Inspect,
    name: &'a str,
    sections: &'a [Section],
    plans: &'a [Plan],
}

impl Printer<'_> {
    fn print(&self, out: &mut impl Write, report: &Report, again: bool) -> Result<(), Failure> {
        let parts: Vec<machine::Part<'_>> = self
            .sections
            .iter()
            .zip(self.plans)
            .map(|(&section, plan)| machine::Part::new(section, report, plan))
            .collect();
        let format = self.arguments.format;
        let at_ms = self.arguments.watch.map(|_| report.at_ms);
        match &parts[..] {
            _ if format.json => machine::json(out, &parts),
            _ if format.ndjson => machine::ndjson(out, &parts, at_ms),
            [part] if format.csv => machine::csv(out, part, at_ms, !again),
            _ => self.text(out, &parts, again),
        }
    }

    fn text(
        &self,
        out: &mut impl Write,
        parts: &[machine::Part<'_>],
        again: bool,
    ) -> Result<(), Failure> {
        let screen = Screen::of_output();
        let named = !self.arguments.sections.is_empty();
        let mut shown = String::new();
        for (&section, part) in self.sections.iter().zip(parts) {
            let title = match section {
                Section::Header => format!("region {}", self.name),
                Section::Events if part.plan.is_in_order() => "events, newest first".to_string(),
                _ => part.name.to_string(),
            };
            text::section(&mut shown, screen, &title, part, named)
                .map_err(|error| Failure::Message(error.to_string()))?;
        }
        if self.arguments.watch.is_some() {
            screen.redraw(out, &shown, again)?;
        } else {
            out.write_all(shown.as_bytes())?;
        }
        Ok(())
    }
}
