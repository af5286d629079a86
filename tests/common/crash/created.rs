//! A process is killed while it creates a named region.

use super::harness::Watch;
use super::operations::{Effect, NONE, Operation, PLAIN};
use super::stage::{Stage, capacity, named};
use super::tracee::{Guard, Stop};
use super::victim::Victim;
use fast_litellm::clock::MonotonicClock;
use fast_litellm::inspect::Report;
use fast_litellm::region::{attach_file, create};

fn create_named(stage: &Stage) -> Effect {
    let capacity = capacity().expect("valid");
    let region = create(&named(&stage.path), capacity, Box::new(MonotonicClock)).expect("creates");
    // Unmapped memory could no longer be followed.
    std::mem::forget(region);
    NONE
}

/// Removes what a killed creator has left beside the final name, and says how much that was.
fn drafts(stage: &Stage) -> Result<usize, String> {
    let folder = stage.path.parent().ok_or("no folder")?;
    let name = stage.path.file_name().and_then(|name| name.to_str()).ok_or("no name")?;
    let files = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
    let drafts: Vec<_> = files
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .filter(|file| file.starts_with(&format!("{name}.")))
        .collect();
    for draft in &drafts {
        std::fs::remove_file(folder.join(draft)).map_err(|error| error.to_string())?;
    }
    Ok(drafts.len())
}

/// Kills a creator at its stop number `n`; `None` = it is done by then. Returns whether there was a region
/// under the name, and how many drafts beside it.
fn creator_killed_at(
    stage: &Stage,
    creator: &Operation,
    n: usize,
) -> Result<Option<(bool, usize)>, String> {
    let mut victim = Victim::start(stage, creator)?;
    victim.tracee.guard(Guard::Writes)?;
    for _ in 0..n {
        match victim.tracee.run_to_syscall()? {
            Stop::Marker => return Ok(None),
            Stop::Access(_) => victim.tracee.pass()?,
            Stop::Syscall | Stop::Instruction => {}
        }
    }
    victim.child.kill()?;
    drop(victim);
    let there = stage.path.exists();
    if !there {
        let again = create(&named(&stage.path), capacity()?, Box::new(MonotonicClock));
        again.map_err(|error| format!("cannot be created again: {error}"))?;
    }
    let region = attach_file(&stage.path).map_err(|error| format!("incomplete: {error}"))?;
    let report = Report::of(&region);
    std::fs::remove_file(&stage.path).map_err(|error| error.to_string())?;
    if report.header.keys > 0 || !report.workers.is_empty() {
        return Err(format!("not as new: {:?}", report.header));
    }
    Ok(Some((there, drafts(stage)?)))
}

/// Kills a creator wherever it may be.
pub(crate) fn test() {
    let watch = Watch::start();
    let creator =
        Operation { name: "create", before: |_| NONE, run: create_named, maps: true, ..PLAIN };
    let stage = Stage::of(&creator).expect("a stage");
    let (mut complete, mut left, mut stops) = (Vec::new(), 0, 0);
    for n in 0.. {
        let killed = creator_killed_at(&stage, &creator, n);
        match killed.unwrap_or_else(|error| panic!("killed at stop {n}: {error}")) {
            None => break,
            Some((there, drafts)) => {
                complete.push(there);
                left += usize::from(drafts > 0);
                stops += 1;
            }
        }
    }
    println!("create by name: killed at {stops} stops, {:.2} s", watch.seconds());
    assert_eq!(left, 0, "leave something beside the name");
    assert!(
        complete.is_sorted() && complete.first() == Some(&false) && complete.last() == Some(&true)
    );
}
