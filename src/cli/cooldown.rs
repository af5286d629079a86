//! `fl-shm cooldown clear`: ends cooldowns of deployments.

use super::by_hand::{self, Consent};
use super::outcome::{Failure, Outcome, json, nothing_found, say};
use super::select::{self, Select};
use super::{NOTHING, output};
use crate::engine::quota::Place;
use crate::inspect::known::{Found, Known};
use crate::inspect::search::{Hit, Match, Table, Wanted, all, search};
use crate::inspect::{DeploymentReport, SCHEMA};
use crate::layout::HandCommand;
use crate::region::Region;
use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct Cooldown {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// End cooldowns, so that the deployments are used again at once.
    Clear(Clear),
}

#[derive(Debug, Args)]
struct Clear {
    /// Their ids, or their names as `inspect` shows them, or `#` and their hashes.
    #[arg(value_name = "DEPLOYMENT", required_unless_present = "all")]
    deployments: Vec<String>,
    /// All deployments that are cooled down.
    #[arg(long, conflicts_with = "deployments")]
    all: bool,
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    consent: Consent,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which cooldowns are ended.
#[derive(Serialize, JsonSchema)]
pub(super) struct Plan<'a> {
    /// `fl-shm/1`.
    schema: &'static str,
    /// The region's name.
    region: &'a str,
    /// Those that are cooled down.
    deployments: Vec<Found<DeploymentReport>>,
    /// Cooldowns that were ended; absent when nothing was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    cleared: Option<u64>,
}

/// `fl-shm cooldown`
pub(super) fn cooldown(arguments: &Cooldown, out: &mut impl Write) -> Outcome {
    let Action::Clear(clear) = &arguments.action;
    let wanted: Vec<Wanted> = clear.deployments.iter().map(|text| Wanted::new(text)).collect();
    let Some(chosen) = select::choose(&clear.select)? else {
        return nothing_found();
    };
    let region = chosen.look()?;
    by_hand::permit("cooldown clear", &region, &chosen)?;
    let hits = if clear.all { Some(all_of(&region)) } else { named(&region, &wanted)? };
    let Some(hits) = hits else { return Ok(NOTHING) };
    let deployments = cooled_down(&region, &hits);
    let mut plan = Plan { schema: SCHEMA, region: chosen.name(), deployments, cleared: None };
    if clear.consent.yes {
        let engine = by_hand::open(&region, &chosen)?;
        if clear.all {
            by_hand::note(&engine, None, HandCommand::ClearCooldown);
        }
        let mut cleared = 0;
        for hit in &hits {
            if !clear.all {
                by_hand::note(&engine, Some(hit.identity), HandCommand::ClearCooldown);
            }
            let place = Place { slot: hit.slot, identity: hit.identity };
            let ended = engine.end_cooldown_at(place);
            cleared += u64::from(ended.map_err(|error| Failure::Message(error.to_string()))?);
        }
        plan.cleared = Some(cleared);
    }
    if clear.json {
        json(out, &plan)?;
    } else {
        show(out, &plan)?;
    }
    clear.consent.end(out)
}

fn all_of(region: &Region) -> Vec<Hit> {
    all(region).filter(|hit| hit.table == Table::Deployments).collect()
}

/// The deployments that are meant; `None` = one of them is not known.
fn named(region: &Region, wanted: &[Wanted]) -> Result<Option<Vec<Hit>>, Failure> {
    let (mut all, mut complete) = (Vec::new(), true);
    for one in wanted {
        let mut hits = search(region, one);
        hits.retain(|hit| hit.table == Table::Deployments);
        let by_name = hits.iter().filter(|hit| hit.matched == Match::Name);
        let ids: Vec<String> = by_name.map(Hit::id).collect();
        if ids.len() > 1 {
            let message = format!(
                "several deployments are shown as {}: name those that you mean by {}",
                one.shown(),
                ids.join(", ")
            );
            return Err(Failure::Message(message));
        }
        if hits.is_empty() {
            complete = false;
            let message = "no deployment is known under that name, so nothing was changed: try fl-shm inspect \
                           deployments";
            say(&format!("{}: {message}", one.shown()));
        }
        all.extend(hits);
    }
    Ok(complete.then_some(all))
}

fn cooled_down(region: &Region, hits: &[Hit]) -> Vec<Found<DeploymentReport>> {
    let wanted: Vec<Wanted> = hits.iter().map(|hit| Wanted::new(&hit.id())).collect();
    let known = Known::of(region, "", &wanted).asked.into_iter();
    let found = known.flat_map(|answer| answer.deployments);
    found.filter(|found| found.record.cooldown_ms > 0).collect()
}

fn show(out: &mut impl Write, plan: &Plan<'_>) -> std::io::Result<()> {
    if plan.deployments.is_empty() && plan.cleared.unwrap_or(0) == 0 {
        return writeln!(out, "region {}: none of them is cooled down", plan.region);
    }
    let rows = plan.deployments.iter().map(|found| {
        let deployment = &found.record;
        vec![
            deployment.deployment.clone(),
            found.id.clone(),
            output::duration(deployment.cooldown_ms.div_ceil(1_000)),
            deployment.cooldown_reason.unwrap_or("-").to_string(),
            deployment.cooldown_text.clone().unwrap_or_else(|| "-".to_string()),
        ]
    });
    output::table(out, &["DEPLOYMENT", "ID", "LEFT", "WHY", "CAUSE"], rows)?;
    let (what, count) = match plan.cleared {
        Some(cleared) => ("ended", cleared),
        None => ("would end", plan.deployments.len() as u64),
    };
    writeln!(out, "\n{what} {count} cooldown{}", if count == 1 { "" } else { "s" })
}
