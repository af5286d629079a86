//! What all commands have in common that change a region: they say what they would do, need `--yes`, and leave an
//! event with who ran them.

use super::OK;
use super::outcome::{Failure, Outcome, say};
use super::select::Chosen;
use crate::engine::Engine;
use crate::inspect::search::{Hit, Match, Wanted, search};
use crate::layout::{HandCommand, IdentityWord};
use crate::region::{Obstacle, Region, Vantage};
use clap::Args;
use nix::unistd::{Gid, Uid, getuid, setegid, seteuid};
use std::fs::Metadata;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

/// Whether to do it.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Consent {
    /// Only say what would be done.
    #[arg(long, conflicts_with = "yes")]
    pub(super) dry_run: bool,
    /// Do it.
    #[arg(long)]
    pub(super) yes: bool,
}

impl Consent {
    /// The end of a command that has said, or done, what there is to do.
    pub(super) fn end(self, out: &mut impl Write) -> Outcome {
        if self.yes || self.dry_run {
            return Ok(OK);
        }
        // Nothing was done, also where nobody reads what would be.
        let _ = out.flush();
        let message = "nothing was changed: --yes does it, --dry-run only says what would be done";
        Err(Failure::Message(message.to_string()))
    }
}

/// Who owns the region's memory; `None` = it has no file.
fn owner_of(region: &Region) -> Result<Option<Metadata>, Failure> {
    Ok(region.backing().file.as_ref().map(std::fs::File::metadata).transpose()?)
}

/// Whether this process may change the region by that command, or the reason why not.
pub(super) fn permit(command: &str, region: &Region, chosen: &Chosen) -> Result<(), Failure> {
    // What nobody may change comes first.
    if region.moment().is_some() {
        let message = format!(
            "{} is a dump, which stays as it is: run fl-shm {command} on a live region",
            chosen.place()
        );
        return Err(Failure::Message(message));
    }
    let own = Uid::effective();
    let owner = owner_of(region)?.map(|meta| meta.uid()).filter(|&owner| owner != own.as_raw());
    if let Some(owner) = owner.filter(|_| !own.is_root()) {
        return Err(Failure::Message(format!(
            "the region belongs to user {owner}, this process runs as {own}: run it as that user, \
             e.g. sudo -u '#{owner}' fl-shm {command}"
        )));
    }
    let Some(obstacle) = Vantage::of(region.header()).obstacle() else { return Ok(()) };
    Err(Failure::Message(match (obstacle, chosen.pid()) {
        (Obstacle::Namespace { .. }, Some(pid)) => format!("{obstacle} --target {pid} --all"),
        _ => obstacle.to_string(),
    }))
}

/// Opens a region for changing it, as its owner: root takes on the owner's ids for the rest of the process, because
/// nobody else may write what is his.
pub(super) fn open(region: &Region, chosen: &Chosen) -> Result<Engine, Failure> {
    let owner = owner_of(region)?.filter(|meta| meta.uid() != Uid::effective().as_raw());
    if let Some(owner) = owner {
        // The group first: without being root it could not be changed.
        let (uid, gid) = (owner.uid(), owner.gid());
        let become_owner = setegid(Gid::from_raw(gid)).and_then(|()| seteuid(Uid::from_raw(uid)));
        become_owner.map_err(|error| {
            Failure::Message(format!(
                "cannot act for user {uid}, whose region it is: {error}; run it as that user, \
                 e.g. sudo -u '#{uid}' fl-shm"
            ))
        })?;
        return Ok(Engine::unregistered(chosen.open_again(region)?));
    }
    Ok(Engine::unregistered(chosen.open()?))
}

/// Leaves an event: the user who ran this, also where it acts for another one.
pub(super) fn note(engine: &Engine, subject: Option<IdentityWord>, command: HandCommand) {
    engine.note_by_hand(subject, getuid().as_raw(), command);
}

/// What can be named, in words.
pub(super) struct Words {
    /// Several of them.
    pub(super) things: &'static str,
    /// What tells one for certain.
    pub(super) certain: &'static str,
    /// What is said after a name that none has.
    pub(super) unknown: &'static str,
}

/// What is meant by the names, each thing once; `None` = one of them is not known, which has been said.
pub(super) fn meant(
    region: &Region,
    wanted: &[Wanted],
    counts: impl Fn(&Hit) -> bool,
    words: &Words,
) -> Result<Option<Vec<Hit>>, Failure> {
    let (mut all, mut complete) = (Vec::<Hit>::new(), true);
    for one in wanted {
        let mut hits = search(region, one);
        hits.retain(&counts);
        let by_name = hits.iter().filter(|hit| hit.matched == Match::Name);
        let ids: Vec<String> = by_name.map(Hit::id).collect();
        if ids.len() > 1 {
            let Words { things, certain, .. } = words;
            return Err(Failure::Message(format!(
                "several {things} are shown as {} and cannot be told apart: name those that you mean by {}, or give \
                 the {certain} itself",
                one.shown(),
                ids.join(", ")
            )));
        }
        if hits.is_empty() {
            complete = false;
            say(&format!("{}: {}", one.shown(), words.unknown));
        }
        let known = |hit: &Hit| all.iter().any(|other| other.slot == hit.slot);
        let new: Vec<Hit> = hits.into_iter().filter(|hit| !known(hit)).collect();
        all.extend(new);
    }
    Ok(complete.then_some(all))
}
