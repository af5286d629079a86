//! `fl-shm`: looks at live regions from another process, through a mapping that cannot be written. Only
//! `reap --yes` and `feature` open one for writing.

mod args;
mod commands;
mod feature;
mod output;
mod reap;
mod select;

use args::{Arguments, Command};
use clap::Parser;
use std::io::Write;

/// Worked.
const OK: u8 = 0;
/// Nothing to show.
const NOTHING: u8 = 1;
/// Bad arguments, a region that cannot be read, or one that must be left alone.
const ERROR: u8 = 2;

/// Runs the command line (program name first) and returns its exit code: 0 = done, 1 = no region was
/// found, 2 = error or refused. Data goes to standard output, messages to standard error; a reader that
/// closes the pipe early is no error.
pub fn run(arguments: Vec<String>) -> u8 {
    let parsed = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ERROR } else { OK };
        }
    };
    let mut out = std::io::stdout().lock();
    let done = match &parsed.command {
        Command::Ls(ls) => commands::ls(ls, &mut out),
        Command::Inspect(inspect) => commands::inspect(inspect, &mut out),
        Command::Reap(reap) => reap::reap(reap, &mut out),
        Command::Feature(feature) => feature::feature(feature, &mut out),
    };
    let flushed = out.flush();
    match done.and_then(|code| flushed.map(|()| code).map_err(Into::into)) {
        Ok(code) => code,
        Err(commands::Failure::Closed) => OK,
        Err(commands::Failure::Message(message)) => {
            let _ = writeln!(std::io::stderr(), "fl-shm: {message}");
            ERROR
        }
    }
}
