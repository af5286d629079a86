//! The latest events.

use super::deployments::deployment_name;
use super::leaders::job_name;
use super::limits::key_name;
use super::{EventReport, key_of};
use crate::config::Overflow;
use crate::engine::features;
use crate::layout::{
    EventKind, FailureKind, FlagMode, FlagWord, HandCommand, IdentityWord, KeyKind, OwnerTag,
    PairWord, section,
};
use crate::region::Region;
use crate::sync::Bits;
use crate::tables::{events, index};
use std::collections::BTreeMap;

/// Events that a report shows.
const EVENTS: usize = 50;

pub(super) fn events(region: &Region) -> Vec<EventReport> {
    reports(region, recent(region, EVENTS).collect())
}

/// The latest of those that are about one of these.
pub(super) fn events_about(region: &Region, subjects: &[IdentityWord]) -> Vec<EventReport> {
    let concerns = |entry: &events::Entry| {
        index::key_of(entry.subject).is_some_and(|subject| subjects.contains(&subject))
    };
    reports(region, recent(region, usize::MAX).filter(concerns).take(EVENTS).collect())
}

fn recent(region: &Region, count: usize) -> impl Iterator<Item = events::Entry> {
    events::recent(region.events(), &region.header().event_head, count)
}

fn reports(region: &Region, entries: Vec<events::Entry>) -> Vec<EventReport> {
    let now_us = region.now().us();
    let named = names(region, &entries);
    let report = |entry: events::Entry| EventReport {
        number: entry.number,
        age_s: now_us.saturating_sub(entry.at_us) / 1_000_000,
        event: entry.known_kind().map_or("unknown", EventKind::name),
        row: entry.owner.map(OwnerTag::row),
        subject: index::key_of(entry.subject).map(|key| {
            let name = named.get(&key.bits()).cloned();
            name.unwrap_or_else(|| format!("#{:013x}", key.hash()))
        }),
        detail: entry.known_kind().map(|kind| detail(kind, entry.a, entry.b)),
        a: entry.a,
        b: entry.b,
    };
    entries.into_iter().map(report).collect()
}

/// Names of what events are about, as far as it is still known.
fn names(region: &Region, entries: &[events::Entry]) -> BTreeMap<u64, String> {
    let subjects = entries.iter().filter_map(|entry| index::key_of(entry.subject));
    let mut wanted: BTreeMap<u64, Option<String>> =
        subjects.map(|key| (key.bits(), None)).collect();
    let mut give = |key: Option<u64>, name: &dyn Fn() -> String| {
        if let Some(place) = key.and_then(|key| wanted.get_mut(&key)) {
            place.get_or_insert_with(name);
        }
    };
    for (_, record) in region.written(section::DEPLOYMENTS, region.deployments()) {
        give(key_of(&record.identity).map(Bits::bits), &|| deployment_name(record));
    }
    for job in region.jobs() {
        give(key_of(&job.identity).map(Bits::bits), &|| job_name(job));
    }
    if wanted.values().any(Option::is_none) {
        for (slot, bucket) in region.written(section::BUCKETS, region.buckets()) {
            let key = key_of(&bucket.identity).map(Bits::bits);
            if let Some(place) = key.and_then(|key| wanted.get_mut(&key)) {
                place.get_or_insert_with(|| key_name(region, slot));
            }
        }
    }
    wanted.into_iter().filter_map(|(key, name)| Some((key, name?))).collect()
}

/// The two details of an event in words.
fn detail(kind: EventKind, a: u64, b: u64) -> String {
    let feature = |number: u64| {
        let name = usize::try_from(number).ok().and_then(|number| features::NAMES.get(number));
        name.map_or_else(|| format!("feature {number}"), ToString::to_string)
    };
    let seconds = |ms: u64| format!("{}.{:03} s", ms / 1_000, ms % 1_000);
    let failure = |raw| {
        let known = FailureKind::ALL.into_iter().find(|&kind| kind as u64 == raw);
        known.map_or("unknown", FailureKind::name)
    };
    let pair = |raw| {
        let pair = PairWord::from_bits(raw);
        format!("{}/{}", pair.requests(), pair.tokens())
    };
    match kind {
        EventKind::CooldownBegun => format!("for {}: {}", seconds(a), failure(b)),
        EventKind::CooldownCleared => format!("{} early", seconds(a)),
        EventKind::WorkerReaped => format!("process {a}: {b} slots freed"),
        EventKind::BreakerOpened => format!("{}: {b} errors", feature(a)),
        EventKind::BreakerClosed if b == 0 => format!("{}: a probe succeeded", feature(a)),
        EventKind::BreakerClosed => format!("{}: by hand", feature(a)),
        EventKind::TableFull => format!("section {a}, {b} records"),
        EventKind::Overflowed => {
            let kind = KeyKind::from_raw(b).map_or("unknown", KeyKind::name);
            format!("{}: a {kind} key", Overflow::from_raw(a).name())
        }
        EventKind::KeyReclaimed => format!("{a} operations admitted, {b} refused"),
        EventKind::FlagChanged => format!("{}: {}", feature(a), switch(FlagWord::from_bits(b))),
        EventKind::OverflowChanged => {
            format!("{} to {}", Overflow::from_raw(a).name(), Overflow::from_raw(b).name())
        }
        EventKind::RegionAdopted => format!("process {b}, epoch {a}"),
        EventKind::LimitsChanged => format!("{} to {}", pair(a), pair(b)),
        EventKind::Corrected => format!("{a:#x} to {b:#x}"),
        EventKind::LeaderBegan => format!("process {b}, term {a}"),
        EventKind::ByHand => {
            format!("user {a}: {}", HandCommand::from_raw(b).map_or("unknown", HandCommand::name))
        }
    }
}

fn switch(word: FlagWord) -> String {
    match FlagMode::from_raw(word.mode()) {
        FlagMode::Own => "each worker's own configuration".to_string(),
        FlagMode::Percent => format!("{}%", word.percent()),
        mode => mode.name().to_string(),
    }
}
