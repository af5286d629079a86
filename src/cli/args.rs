//! What can be typed.

use crate::engine::features::NAMES;
use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Look at the shared state of preforked workers, and free what the dead among them own.
#[derive(Debug, Parser)]
#[command(name = "fl-shm", version, about)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the live regions of this host that you may see.
    Ls(Ls),
    /// Show what a region holds.
    Inspect(Inspect),
    /// Free the rows and concurrency slots of workers that are proven dead.
    ///
    /// Every worker does the same when it finds no free slot. Workers that are stopped, or whose death
    /// cannot be proven from here, keep what they own. Exit code: 0 = done, or there was nothing to do;
    /// 1 = no region; 2 = refused, with the reason.
    Reap(Reap),
    /// Move a feature's switch for all workers, or forget its errors, while they run.
    ///
    /// Workers follow within a second. One that was started with the feature off goes on without it until
    /// it is started anew. Exit code: 0 = done; 1 = no region; 2 = refused, with the reason.
    Feature(Feature),
}

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

#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

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

#[derive(Debug, Args)]
pub(super) struct Reap {
    #[command(flatten)]
    pub(super) select: Select,
    /// Only say what would be freed.
    #[arg(long, conflicts_with = "yes")]
    pub(super) dry_run: bool,
    /// Do it.
    #[arg(long)]
    pub(super) yes: bool,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Which region; needed only when there are several.
#[derive(Debug, Args)]
pub(super) struct Select {
    /// The region of this name, as `fl-shm ls` prints it.
    #[arg(long, conflicts_with_all = ["pid", "file"])]
    pub(super) region: Option<String>,
    /// The region that this process uses.
    #[arg(long, conflicts_with = "file")]
    pub(super) pid: Option<i32>,
    /// The region in this file.
    #[arg(long)]
    pub(super) file: Option<PathBuf>,
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
