//! `fl-shm dump`: copies a region into a file.

use super::outcome::{Failure, Outcome, nothing_found};
use super::select::{self, Select};
use super::{OK, output};
use crate::inspect;
use crate::region;
use clap::Args;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Dump {
    /// The file, which must not be there yet. Only you can read it.
    output: PathBuf,
    #[command(flatten)]
    select: Select,
}

/// `fl-shm dump`
pub(super) fn dump(arguments: &Dump, out: &mut impl Write) -> Outcome {
    let Some(chosen) = select::choose(&arguments.select)? else {
        return nothing_found();
    };
    let region = chosen.look()?;
    let path = &arguments.output;
    let failed = |error: std::io::Error, remedy: &str| {
        Failure::Message(format!("cannot write {}: {error}; {remedy}", path.display()))
    };
    // A dump of a dump stays of the same moment.
    let moment = region.moment().cloned();
    let moment = moment.unwrap_or_else(|| inspect::moment(&region, chosen.name()));
    let file = File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| failed(error, "choose another path"))?;
    if let Err(error) = region::dump(&region, &moment, &file) {
        let _ = std::fs::remove_file(path);
        return Err(failed(error, "it was removed again: choose a place with more room"));
    }
    let size = output::bytes(region.len());
    writeln!(out, "region {}: {size} copied to {}", chosen.name(), path.display())?;
    Ok(OK)
}
