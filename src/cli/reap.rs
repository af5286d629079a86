//! `fl-shm reap`: frees what the dead own, as any worker would.

use super::by_hand::{self, Consent};
use super::outcome::{Failure, Outcome, json, nothing_found};
use super::select::{self, Select};
use super::{output, text};
use crate::engine::Reaped;
use crate::inspect::{LeaseReport, Report, SCHEMA, Section, WorkerReport};
use crate::layout::HandCommand;
use crate::region::{Obstacle, Region};
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct Reap {
    #[command(flatten)]
    pub(super) select: Select,
    #[command(flatten)]
    pub(super) consent: Consent,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// What the dead own.
#[derive(Serialize, JsonSchema)]
pub(super) struct Plan<'a> {
    schema: &'static str,
    region: &'a str,
    workers: Vec<WorkerReport>,
    leases: Vec<LeaseReport>,
    /// Absent when nothing was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    freed: Option<Reaped>,
}

impl<'a> Plan<'a> {
    fn of(region: &Region, name: &'a str) -> Self {
        let Report { mut workers, mut leases, .. } =
            Report::only(region, |section| matches!(section, Section::Workers | Section::Leases));
        workers.retain(|worker| worker.alive == "dead");
        leases.retain(|lease| lease.owner == "dead");
        Self { schema: SCHEMA, region: name, workers, leases, freed: None }
    }

    fn size(&self) -> Reaped {
        Reaped {
            workers: self.workers.len() as u64,
            slots: self.leases.iter().map(|lease| lease.held).sum(),
        }
    }
}

/// `fl-shm reap`
pub(super) fn reap(arguments: &Reap, out: &mut impl Write) -> Outcome {
    // Without it nobody could be found, either.
    if let Some(obstacle) = Obstacle::of_proc() {
        return Err(Failure::Message(obstacle.to_string()));
    }
    let Some(chosen) = select::choose(&arguments.select)? else {
        return nothing_found();
    };
    let looked_at = chosen.look()?;
    by_hand::permit("reap", &looked_at, &chosen)?;
    let plan = if arguments.consent.yes {
        let engine = by_hand::open(&looked_at, &chosen)?;
        by_hand::note(&engine, None, HandCommand::Reap);
        let plan = Plan::of(engine.region(), chosen.name());
        Plan { freed: Some(engine.reap_all()), ..plan }
    } else {
        Plan::of(&looked_at, chosen.name())
    };
    if arguments.json {
        json(out, &plan)?;
    } else {
        show(out, &plan)?;
    }
    arguments.consent.end(out)
}

fn show(out: &mut impl Write, plan: &Plan<'_>) -> std::io::Result<()> {
    let size = plan.size();
    let freed = plan.freed.unwrap_or_default();
    if size == Reaped::default() && freed == size {
        return writeln!(out, "region {}: the dead own nothing", plan.region);
    }
    writeln!(out, "region {}: owned by the dead", plan.region)?;
    if !plan.workers.is_empty() {
        writeln!(out)?;
        text::list(out, "workers", &plan.workers)?;
    }
    if !plan.leases.is_empty() {
        writeln!(out)?;
        text::list(out, "leases", &plan.leases)?;
    }
    let (what, size) = plan.freed.map_or(("would free", size), |freed| ("freed", freed));
    writeln!(
        out,
        "\n{what} {} worker row{} and {} slot{}",
        size.workers,
        output::plural(size.workers),
        size.slots,
        output::plural(size.slots)
    )
}
