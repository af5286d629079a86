//! `fl-shm feature`: moves a feature's switch, or forgets its errors, as a worker could.

use super::by_hand::{self, Consent};
use super::outcome::{Failure, Outcome, nothing_found};
use super::select::{self, Select};
use crate::engine::features::NAMES;
use crate::layout::{FlagMode, HandCommand};
use clap::Args;
use clap::builder::PossibleValuesParser;
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct Feature {
    /// Which.
    #[arg(value_parser = PossibleValuesParser::new(NAMES))]
    pub(super) name: String,
    /// true, false, canary:10 or rollout:25; own = each worker follows its own configuration.
    #[arg(required_unless_present = "reset_errors", value_parser = switch)]
    pub(super) value: Option<Switch>,
    /// Forget its errors: an open breaker closes.
    #[arg(long)]
    pub(super) reset_errors: bool,
    #[command(flatten)]
    pub(super) select: Select,
    #[command(flatten)]
    pub(super) consent: Consent,
}

/// Where a switch is moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    /// Each worker follows its own configuration.
    Own,
    /// So many percent of what it is used for.
    Percent(u64),
}

fn switch(text: &str) -> Result<Switch, String> {
    let refused = || "use true, false, canary:10, rollout:25 or own".to_string();
    match text {
        "own" => Ok(Switch::Own),
        "true" | "on" | "yes" | "1" => Ok(Switch::Percent(100)),
        "false" | "off" | "no" | "0" => Ok(Switch::Percent(0)),
        "canary" => Ok(Switch::Percent(10)),
        _ => text
            .strip_prefix("canary:")
            .or_else(|| text.strip_prefix("rollout:"))
            .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|number| number.parse().ok())
            .filter(|&percent| percent <= 100)
            .map(Switch::Percent)
            .ok_or_else(refused),
    }
}

/// `fl-shm feature`
pub(super) fn feature(arguments: &Feature, out: &mut impl Write) -> Outcome {
    let Some(chosen) = select::choose(&arguments.select)? else {
        return nothing_found();
    };
    let looked_at = chosen.look()?;
    by_hand::permit("feature", &looked_at, &chosen)?;
    let Some(number) = NAMES.iter().position(|&name| name == arguments.name) else {
        return Err(Failure::Message(format!("{} is no feature", arguments.name)));
    };
    let engine = if arguments.consent.yes {
        let engine = by_hand::open(&looked_at, &chosen)?;
        by_hand::note(&engine, None, HandCommand::Feature);
        Some(engine)
    } else {
        None
    };
    let (region, name) = (chosen.name(), &arguments.name);
    if let Some(value) = arguments.value {
        let (mode, percent, said) = match value {
            Switch::Own => (FlagMode::Own, 0, "each worker's own configuration".to_string()),
            Switch::Percent(0) => (FlagMode::Off, 0, "off".to_string()),
            Switch::Percent(100) => (FlagMode::On, 0, "on".to_string()),
            Switch::Percent(percent) => (FlagMode::Percent, percent, format!("{percent}%")),
        };
        let set = engine.as_ref().map(|engine| engine.set_flag(number, mode, percent));
        let verb = if set.is_some() { "is switched to" } else { "would be switched to" };
        writeln!(out, "region {region}: {name} {verb} {said}")?;
    }
    if arguments.reset_errors {
        let reset = engine.as_ref().map(|engine| engine.reset_feature(number));
        let verb = if reset.is_some() { "are forgotten" } else { "would be forgotten" };
        writeln!(out, "region {region}: errors of {name} {verb}")?;
    }
    arguments.consent.end(out)
}
