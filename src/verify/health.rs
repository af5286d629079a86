//! Deployments: what is known of their health, against the clock.

use super::identities::{Standing, judge};
use super::keys::counter;
use super::{Notes, Walk, first_nonzero, get, leases, names};
use crate::clock::Instant;
use crate::layout::{
    Deployment, EwmaWord, FailureKind, FailureWord, KeyKind, SAMPLES, SampleWord, TEXT_BYTES,
    WindowWord, section,
};
use crate::primitives::{cooldown, ewma};
use crate::sync::{Bits, Word};
use crate::tables::names::Place;

/// A sample's second has so many values.
const SECONDS: u64 = 1 << 24;

impl Walk<'_> {
    pub(super) fn deployments(&mut self) {
        let region = self.region;
        self.each(section::DEPLOYMENTS, region.deployments(), |_, record, now, notes| {
            let identity = get(&record.identity);
            let words = words_of(record);
            if get(&record.identity) != identity {
                return;
            }
            notes.zeroes("reserved", &record.reserved);
            match judge(identity, &[KeyKind::Named], notes) {
                Standing::Nobody => return,
                Standing::Never => {
                    if let Some(found) = first_nonzero(words) {
                        notes.damage("identity", found, "all zeroes: never used; health was lost");
                    }
                    return;
                }
                Standing::Key(_) => {}
            }
            let name = Place { head: &record.name_head, bytes: &record.name };
            names::examine("name", name, notes);
            leases::limits(region, get(&record.lease), notes);
            words_in_time(record, now, notes);
            let totals = [
                ("successes_total", &record.successes_total),
                ("failures_total", &record.failures_total),
                ("failures_in_a_row", &record.failures_in_a_row),
            ];
            for (field, word) in totals {
                notes.plausible(field, get(word));
            }
            samples("latencies", &record.latencies, now, notes);
            samples("first_tokens", &record.first_tokens, now, notes);
            samples("scores", &record.scores, now, notes);
            cause(record, notes);
        });
    }
}

/// All words but the identity and those that are reserved.
fn words_of(record: &Deployment) -> impl Iterator<Item = u64> {
    let numbers = [
        &record.successes_total,
        &record.failures_total,
        &record.latency_head,
        &record.first_token_head,
        &record.failures_in_a_row,
        &record.score_head,
    ];
    let mut words = vec![
        get(&record.lease).bits(),
        get(&record.cooldown).bits(),
        get(&record.window).bits(),
        get(&record.successes).bits(),
        get(&record.failures).bits(),
        get(&record.last_failure).bits(),
        get(&record.latency).bits(),
        get(&record.first_token).bits(),
        get(&record.name_head).bits(),
        get(&record.cause).bits(),
        get(&record.cause_head).bits(),
    ];
    words.extend(numbers.into_iter().chain(&record.name).chain(&record.cause_text).map(get));
    let samples = record.latencies.iter().chain(&record.first_tokens).chain(&record.scores);
    words.extend(samples.map(|word| get(word).bits()));
    words.into_iter()
}

fn words_in_time(record: &Deployment, now: &dyn Fn() -> Instant, notes: &mut Notes) {
    let (cooldown, window) = (get(&record.cooldown), get(&record.window));
    let (successes, failures) = (get(&record.successes), get(&record.failures));
    let (failure, latency) = (get(&record.last_failure), get(&record.latency));
    let first_token = get(&record.first_token);
    let now = now();
    if window.start_s() > now.s() {
        notes.harmless("window", window, "a window that has begun");
    } else if window.size_s() == 0 && window != WindowWord::default() {
        notes.harmless("window", window, "a length");
    }
    counter("successes", successes, window, now, notes);
    counter("failures", failures, window, now, notes);
    if cooldown.until_ms() > (now.us() / 1_000).saturating_add(cooldown::MAX_MS) {
        notes.harmless("cooldown", cooldown, "at most 31 days ahead");
    }
    if !known(cooldown.reason()) {
        notes.harmless("cooldown", cooldown, "a reason that is known");
    }
    if failure != FailureWord::default() && (failure.at_s() > now.s() || !known(failure.kind())) {
        notes.harmless("last_failure", failure, "a failure of the past");
    }
    for (field, word) in [("latency", latency), ("first_token", first_token)] {
        let none = word.samples() == 0 && word != EwmaWord::default();
        if none || word.samples() > ewma::MAX_LENGTH {
            notes.harmless(field, word, "1 to 128 samples");
        }
    }
}

/// A cause or a text that does not agree is what a killed writer leaves, and is not shown.
fn cause(record: &Deployment, notes: &mut Notes) {
    let (cause, head) = (get(&record.cause), get(&record.cause_head));
    if cause.for_ms() > cooldown::MAX_MS {
        notes.harmless("cause", cause, "at most 31 days");
    }
    if head.length() > TEXT_BYTES as u64 {
        notes.harmless("cause_head", head, "at most 128 bytes");
    }
}

fn known(kind: u64) -> bool {
    FailureKind::from_raw(kind) as u64 == kind
}

fn samples(
    field: &'static str,
    slots: &[Word<SampleWord>; SAMPLES],
    now: &dyn Fn() -> Instant,
    notes: &mut Notes,
) {
    let samples: [SampleWord; SAMPLES] = std::array::from_fn(|slot| get(&slots[slot]));
    let now_s = now().s();
    for word in samples.into_iter().filter(|&word| word != SampleWord::default()) {
        if word.value_us() == 0 {
            notes.harmless(field, word, "at least a microsecond");
        } else if now_s < SECONDS && word.at_s() > now_s {
            notes.harmless(field, word, "a second of the past");
        }
    }
}
