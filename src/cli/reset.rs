//! `fl-shm reset`: forgets what keys were charged.

use super::by_hand::{self, Consent, Words};
use super::keys::Keys;
use super::outcome::{Failure, Outcome, json, nothing_found};
use super::select::{self, Select};
use super::{NOTHING, output};
use crate::engine::Engine;
use crate::engine::quota::Place;
use crate::engine::reset::is_charged;
use crate::inspect::known::{Found, Known};
use crate::inspect::search::{Hit, Match, Table, Wanted};
use crate::inspect::{LimitReport, SCHEMA, Usage};
use crate::layout::HandCommand;
use crate::region::Region;
use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct Reset {
    #[command(flatten)]
    keys: Keys,
    /// All keys of the region.
    #[arg(long, conflicts_with = "keys")]
    all: bool,
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    consent: Consent,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is forgotten.
#[derive(Serialize, JsonSchema)]
pub(super) struct Plan<'a> {
    /// `fl-shm/1`.
    schema: &'static str,
    /// The region's name.
    region: &'a str,
    /// The keys; absent with `--all`.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<Found<LimitReport>>>,
    /// Keys that were reset; absent when nothing was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<u64>,
}

/// `fl-shm reset`
pub(super) fn reset(arguments: &Reset, out: &mut impl Write) -> Outcome {
    let wanted = if arguments.all { Vec::new() } else { arguments.keys.wanted()? };
    let Some(chosen) = select::choose(&arguments.select)? else {
        return nothing_found();
    };
    let region = chosen.look()?;
    by_hand::permit("reset", &region, &chosen)?;
    let Some(hits) = by_hand::meant(&region, &wanted, is_meant, &WORDS)? else {
        return Ok(NOTHING);
    };
    let keys = (!arguments.all).then(|| reports(&region, &hits));
    let mut plan = Plan { schema: SCHEMA, region: chosen.name(), keys, reset: None };
    if arguments.consent.yes {
        let engine = by_hand::open(&region, &chosen)?;
        plan.reset = Some(do_it(&engine, arguments.all, &hits)?);
    }
    if arguments.json {
        json(out, &plan)?;
    } else {
        show(out, &plan)?;
    }
    arguments.consent.end(out)
}

const WORDS: Words = Words {
    things: "keys",
    certain: "key",
    unknown: "no key is known under that name, so nothing was reset: try fl-shm get",
};

/// Whether something is a key that can be reset, and not only counted with the one that was named.
fn is_meant(hit: &Hit) -> bool {
    hit.table == Table::Keys && is_charged(hit.identity) && hit.matched != Match::Related
}

/// What is known of the keys, as it is forgotten.
fn reports(region: &Region, hits: &[Hit]) -> Vec<Found<LimitReport>> {
    let wanted: Vec<Wanted> = hits.iter().map(|hit| Wanted::new(&hit.id())).collect();
    let known = Known::of(region, "", &wanted);
    known.asked.into_iter().flat_map(|answer| answer.limits).collect()
}

fn do_it(engine: &Engine, all: bool, hits: &[Hit]) -> Result<u64, Failure> {
    let failed = |error: crate::error::OpError| Failure::Message(format!("{error}; try again"));
    if all {
        by_hand::note(engine, None, HandCommand::Reset);
        return engine.reset_all().map_err(failed);
    }
    let mut reset = 0;
    for hit in hits {
        by_hand::note(engine, Some(hit.identity), HandCommand::Reset);
        let place = Place { slot: hit.slot, identity: hit.identity };
        reset += u64::from(engine.reset_at(place).map_err(failed)?);
    }
    Ok(reset)
}

fn show(out: &mut impl Write, plan: &Plan<'_>) -> std::io::Result<()> {
    let usage = |usage: Option<Usage>| match usage {
        None => "-".to_string(),
        Some(Usage { used, limit: Some(limit) }) => format!("{used}/{limit}"),
        Some(Usage { used, limit: None }) => used.to_string(),
    };
    if let Some(keys) = &plan.keys {
        let rows = keys.iter().map(|found| {
            let key = &found.record;
            vec![
                key.key.clone(),
                found.id.clone(),
                key.kind.to_string(),
                usage(key.requests),
                usage(key.tokens),
            ]
        });
        output::table(out, &["KEY", "ID", "KIND", "REQUESTS", "TOKENS"], rows)?;
        writeln!(out)?;
    }
    match (plan.reset, &plan.keys) {
        (Some(count), _) => writeln!(out, "reset {count} key{}", output::plural(count)),
        (None, Some(keys)) => {
            let count = keys.len() as u64;
            writeln!(out, "would reset {count} key{}", output::plural(count))
        }
        (None, None) => writeln!(out, "would reset all keys of region {}", plan.region),
    }
}
