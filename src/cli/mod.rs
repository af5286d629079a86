//! `fl-shm`: looks at live regions from another process, through a mapping that cannot be written. Only
//! commands with `--yes` open one for writing, see [`by_hand`].

mod by_hand;
mod columns;
mod completions;
mod cooldown;
mod diff;
mod doctor;
mod dump;
mod explain;
mod feature;
mod filter;
mod follow;
mod get;
mod inspect;
mod keys;
mod leases;
mod ls;
mod machine;
mod man;
mod order;
mod outcome;
mod output;
mod prom;
mod reap;
mod reset;
mod rows;
mod schema;
mod sections;
mod select;
mod serve;
mod text;
mod top;
mod verify;
mod view;

use clap::{Parser, Subcommand};
use outcome::Failure;
use std::ffi::OsString;
use std::io::Write;

/// Look at the shared state of preforked workers, and free what the dead among them own.
#[derive(Debug, Parser)]
#[command(name = "fl-shm", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the live regions of this host that you may see.
    Ls(ls::Ls),
    /// Show what a region holds.
    Inspect(inspect::Inspect),
    /// Show who holds which concurrency slots, and which of them may be lost.
    ///
    /// Exit code: 0 = done; 1 = --suspect found some, or there is no region; 2 = error.
    Leases(leases::Leases),
    /// Describe what the commands print as JSON, the columns of records, or the region's layout.
    Schema(schema::Schemas),
    /// Watch a region live: hottest keys, refusals, workers, cooldowns, breakers and events.
    ///
    /// Needs a terminal; ? shows the keys. Exit code: 0 = somebody quit; 1 = no region; 2 = error.
    Top(top::Top),
    /// Copy a region into a file, to be looked at later and elsewhere with --file.
    ///
    /// Time stands still in it, and it says which workers were alive. What is published on the board is left
    /// out: it may be secret.
    Dump(dump::Dump),
    /// Check every record of a region against what can have been written there.
    ///
    /// A live region is clean, also where workers were killed. Exit code: 0 = clean, or only what heals by
    /// itself; 1 = damage, or no region; 2 = error.
    Verify(verify::Verify),
    /// Say what may go wrong with this host's regions, or already does, and what helps.
    ///
    /// Exit code: 0 = no problem; 1 = one or more; 2 = error.
    Doctor(doctor::Doctor),
    /// Say what changed between two dumps, or since a dump.
    ///
    /// Exit code: 0 = nothing; 1 = something, or they are of two regions; 2 = error.
    Diff(diff::Diff),
    /// Show all that is known under a name: limits, slots, deployments, pools, jobs, notices.
    ///
    /// A key is confirmed by its hash, so that another one that looks the same when it is redacted is not taken
    /// for it. Exit code: 0 = something is known of each; 1 = not, or no region; 2 = error.
    Get(get::Get),
    /// Say whether a request would be admitted now, which limit decides, and until when it refuses.
    ///
    /// Several keys are asked together, as for one request that all of them limit. Nothing is charged. Exit code:
    /// 0 = admitted; 1 = refused, no such key, or no region; 2 = error.
    Explain(explain::Explain),
    /// Forget what keys were charged, as if they had never been used.
    ///
    /// Counters, windows and rates are forgotten; slots stay held, and what was counted stays counted. Exit code:
    /// 0 = done; 1 = no such key, or no region; 2 = refused, with the reason.
    Reset(reset::Reset),
    /// End cooldowns of deployments.
    ///
    /// Exit code: 0 = done, or there was nothing to do; 1 = no such deployment, or no region; 2 = refused, with the
    /// reason.
    Cooldown(cooldown::Cooldown),
    /// Free the rows and concurrency slots of workers that are proven dead.
    ///
    /// Every worker does the same when it finds no free slot. Workers that are stopped, or whose death
    /// cannot be proven from here, keep what they own. Exit code: 0 = done, or there was nothing to do;
    /// 1 = no region; 2 = refused, with the reason.
    Reap(reap::Reap),
    /// Move a feature's switch for all workers, or forget its errors, while they run.
    ///
    /// Workers follow within a second. One that was started with the feature off goes on without it until
    /// it is started anew. Exit code: 0 = done; 1 = no region; 2 = refused, with the reason.
    Feature(feature::Feature),
    /// Show a region live in a browser: keys, deployments, workers and events with plots.
    ///
    /// Prints the address and serves until SIGINT or SIGTERM. Only this machine can reach it, unless --host
    /// says otherwise, which needs a token in the environment variable `FL_SHM_TOKEN`. It changes nothing. Exit
    /// code: 0 = ended; 1 = no region; 2 = it cannot listen there, or the region cannot be read.
    Serve(serve::Serve),
    /// Print what makes a shell complete this command line.
    ///
    /// For bash: source <(fl-shm completions bash), or into a file in
    /// ~/.local/share/bash-completion/completions.
    Completions(completions::Completions),
    /// Print the manual page, or write one for each command.
    Man(man::Manual),
}

/// Worked.
const OK: u8 = 0;
/// Nothing to show.
const NOTHING: u8 = 1;
/// Bad arguments, a region that cannot be read, or one that must be left alone.
const ERROR: u8 = 2;

/// Runs the command line (program name first) and returns its exit code: 0 = done, 1 = no region was
/// found, 2 = error or refused. Data goes to standard output, messages to standard error; a reader that
/// closes the pipe early is no error.
pub fn run(arguments: Vec<OsString>) -> u8 {
    crate::region::end_when_memory_is_lost();
    let parsed = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ERROR } else { OK };
        }
    };
    let mut out = match outcome::standard_output() {
        Ok(out) => out,
        Err(error) => {
            outcome::say(&format!("standard output cannot be used: {error}"));
            return ERROR;
        }
    };
    let done = match &parsed.command {
        Command::Ls(ls) => ls::ls(ls, &mut out),
        Command::Inspect(inspect) => inspect::inspect(inspect, &mut out),
        Command::Leases(leases) => leases::leases(leases, &mut out),
        Command::Schema(schema) => schema::schemas(schema, &mut out),
        Command::Top(top) => top::top(top, &mut out),
        Command::Dump(dump) => dump::dump(dump, &mut out),
        Command::Verify(verify) => verify::verify(verify, &mut out),
        Command::Doctor(doctor) => doctor::doctor(doctor, &mut out),
        Command::Diff(diff) => diff::diff(diff, &mut out),
        Command::Get(get) => get::get(get, &mut out),
        Command::Explain(explain) => explain::explain(explain, &mut out),
        Command::Reset(reset) => reset::reset(reset, &mut out),
        Command::Cooldown(cooldown) => cooldown::cooldown(cooldown, &mut out),
        Command::Reap(reap) => reap::reap(reap, &mut out),
        Command::Feature(feature) => feature::feature(feature, &mut out),
        Command::Serve(serve) => serve::serve(serve, &mut out),
        Command::Completions(completions) => completions::completions(completions, &mut out),
        Command::Man(manual) => man::man(manual, &mut out),
    };
    let flushed = out.flush();
    match done.and_then(|code| flushed.map(|()| code).map_err(Into::into)) {
        Ok(code) => code,
        Err(Failure::Closed) => OK,
        Err(Failure::Message(message)) => {
            outcome::say(&message);
            ERROR
        }
    }
}
