//! `fl-shm cooldown clear`: ends cooldowns of deployments.

use super::by_hand::{self, Consent, Words};
use super::outcome::{Failure, Outcome, json, nothing_found};
use super::select::{self, Select};
use super::{NOTHING, output};
use crate::engine::quota::Place;
use crate::inspect::known::Found;
use crate::inspect::search::{Hit, Match, Table, Wanted, all};
use crate::inspect::{DeploymentReport, Report, SCHEMA, Section};
use crate::layout::HandCommand;
use crate::region::Region;
use crate::sync::Bits;
use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
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
    let hits = if clear.all {
        Some(all_of(&region))
    } else {
        by_hand::meant(&region, &wanted, is_deployment, &WORDS)?
    };
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
    all(region).filter(is_deployment).collect()
}

const WORDS: Words = Words {
    things: "deployments",
    certain: "id",
    unknown: "no deployment is known under that name, so nothing was changed: try fl-shm inspect \
              deployments",
};

fn is_deployment(hit: &Hit) -> bool {
    hit.table == Table::Deployments
}

/// Those of them that are cooled down, from one look at all.
fn cooled_down(region: &Region, hits: &[Hit]) -> Vec<Found<DeploymentReport>> {
    let all = Report::only(region, |section| section == Section::Deployments).deployments;
    let cooled = all.into_iter().filter(|report| report.cooldown_ms > 0);
    let mut cooled: BTreeMap<u64, DeploymentReport> =
        cooled.map(|report| (report.id, report)).collect();
    let found = |hit: &Hit| {
        let record = cooled.remove(&hit.identity.bits())?;
        Some(Found { id: hit.id(), matched: Match::Key.name(), record })
    };
    hits.iter().filter_map(found).collect()
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
    writeln!(out, "\n{what} {count} cooldown{}", output::plural(count))
}
