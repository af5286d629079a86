//! `fl-shm feature`: moves a feature's switch, or forgets its errors, as a worker could.

use super::OK;
use super::args::{Feature, Switch};
use super::commands::{Failure, Outcome, nothing_found};
use super::reap::refusal;
use super::select;
use crate::engine::Engine;
use crate::engine::features::NAMES;
use crate::layout::FlagMode;
use std::io::Write;

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
