//! `fl-shm feature`: moves a feature's switch, or forgets its errors, as a worker could.

use super::OK;
use super::outcome::{Failure, Outcome, nothing_found};
use super::reap::refusal;
use super::select::{self, Select};
use crate::engine::Engine;
use crate::engine::features::NAMES;
use crate::layout::FlagMode;
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
    if let Some(reason) = refusal("feature", &chosen.look()?, &chosen)? {
        return Err(Failure::Message(reason));
    }
    let Some(number) = NAMES.iter().position(|&name| name == arguments.name) else {
        return Err(Failure::Message(format!("{} is no feature", arguments.name)));
    };
    let engine = Engine::unregistered(chosen.open()?);
    let (region, name) = (chosen.name(), &arguments.name);
    if let Some(value) = arguments.value {
        let (mode, percent, said) = match value {
            Switch::Own => (FlagMode::Own, 0, "follows each worker's own configuration".into()),
            Switch::Percent(0) => (FlagMode::Off, 0, "is off".into()),
            Switch::Percent(100) => (FlagMode::On, 0, "is on".into()),
            Switch::Percent(percent) => (FlagMode::Percent, percent, format!("is at {percent}%")),
        };
        let said: String = said;
        engine.set_flag(number, mode, percent);
        writeln!(out, "region {region}: {name} {said}")?;
    }
    if arguments.reset_errors {
        engine.reset_feature(number);
        writeln!(out, "region {region}: errors of {name} are forgotten")?;
    }
    Ok(OK)
}
