//! Jobs: leaders that are registered, terms of the past.

use super::identities::{Standing, judge};
use super::{Walk, first_nonzero, get, leases, names};
use crate::layout::{KeyKind, section};
use crate::sync::Bits;
use crate::tables::names::Place;

impl Walk<'_> {
    pub(super) fn jobs(&mut self) {
        let region = self.region;
        self.each(section::JOBS, region.jobs(), |_, job, now, notes| {
            let identity = get(&job.identity);
            let (limits, term, since) = (get(&job.lease), get(&job.term), get(&job.since));
            let head = get(&job.name_head);
            if get(&job.identity) != identity {
                return;
            }
            match judge(identity, &[KeyKind::Named], notes) {
                Standing::Nobody => {}
                Standing::Never => {
                    let words = [limits.bits(), term.bits(), since.bits(), head.bits()];
                    if let Some(found) = first_nonzero(words) {
                        notes.damage("identity", found, "all zeroes: never used; a job was lost");
                    }
                }
                Standing::Key(_) => {
                    names::examine("name", Place { head: &job.name_head, bytes: &job.name }, notes);
                    leases::limits(region, limits, notes);
                    if since.began_s() > now().s() {
                        notes.harmless("since", since, "a second of the past");
                    }
                }
            }
        });
    }
}
