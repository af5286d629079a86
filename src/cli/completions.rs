//! `fl-shm completions`: what makes a shell complete the command line.

use super::outcome::{Failure, Outcome};
use super::{Arguments, OK};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// Of which shell.
    #[arg(value_enum)]
    pub(super) shell: Shell,
}

/// `fl-shm completions`
pub(super) fn completions(arguments: &Completions, out: &mut impl Write) -> Outcome {
    // The generator gives up with a panic when what it writes to is closed.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "fl-shm", &mut script);
    out.write_all(&script).map_err(Failure::from)?;
    Ok(OK)
}
