//! How a command ends.

use super::NOTHING;
use crate::error::AttachError;
use crate::tables::names::printable;
use serde::Serialize;
use std::io::{BufWriter, ErrorKind, Write};
use std::os::fd::AsFd;

/// Why a command stopped.
pub(super) enum Failure {
    /// Nobody reads any more.
    Closed,
    /// For standard error.
    Message(String),
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        Self::Message(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Message(error.to_string()),
        }
    }
}

/// A command's exit code.
pub(super) type Outcome = Result<u8, Failure>;

/// Says something on standard error. Whether anybody reads it makes no difference to what the command answers.
pub(super) fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "fl-shm: {}", printable(message));
}

/// The end of a command that needs a region when there is none.
#[allow(clippy::unnecessary_wraps, reason = "a command ends with it")]
pub(super) fn nothing_found() -> Outcome {
    say("no live region that you may see; is the proxy running?");
    Ok(NOTHING)
}

/// Standard output, in large writes: nothing is written at the end of a line only because it is one.
pub(super) fn standard_output() -> std::io::Result<impl Write> {
    let file = std::fs::File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    Ok(BufWriter::with_capacity(1 << 16, file))
}

/// Prints a value in one line.
pub(super) fn json(out: &mut impl Write, value: &impl Serialize) -> Result<(), Failure> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(writeln!(out)?)
}
