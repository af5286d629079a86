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
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "fl-shm", &mut script);
    // Where a command is found and where it is completed, clap_complete 4.6 has different names for one with a
    // hyphen, and bash would complete nothing behind the first word.
    let script = String::from_utf8_lossy(&script).replace("fl__subcmd__shm", "fl__shm");
    out.write_all(script.as_bytes()).map_err(Failure::from)?;
    Ok(OK)
}
