//! Buckets: the state of each key against its kind and against the clock.

use super::identities::{Standing, judge};
use super::{Notes, Walk, first_nonzero, get};
use crate::clock::Instant;
use crate::layout::{
    Bucket, CounterWord, GcraWord, KeyKind, LeaseLimits, PairWord, SlidingWord, WindowWord, section,
};
use crate::primitives::gcra::Quota;
use crate::sync::Bits;

/// What stands among the keys.
const KEYS: [KeyKind; 4] = [KeyKind::Gcra, KeyKind::Window, KeyKind::Counter, KeyKind::Sliding];
/// What stands among those that keys without room share.
const SHARED: [KeyKind; 5] =
    [KeyKind::Gcra, KeyKind::Window, KeyKind::Counter, KeyKind::Sliding, KeyKind::Tally];
/// No quota takes longer than a year to earn, and none owes more than that again.
const TWO_YEARS_US: u64 = 2 * 365 * 86_400 * 1_000_000;
/// A counter's tag counts so many seconds before it begins again.
const TAG_SPAN_S: u64 = 1 << 25;
/// A sliding window's number counts so many windows before it begins again.
const NUMBER_SPAN: u64 = 1 << 16;

/// The words of a bucket.
struct State {
    requests: CounterWord,
    tokens: CounterWord,
    window: WindowWord,
    lease: LeaseLimits,
    limits: PairWord,
    allowed: u64,
    denied: u64,
}

impl State {
    fn of(bucket: &Bucket) -> Self {
        Self {
            requests: get(&bucket.requests),
            tokens: get(&bucket.tokens),
            window: get(&bucket.window),
            lease: get(&bucket.lease),
            limits: get(&bucket.limits),
            allowed: get(&bucket.allowed),
            denied: get(&bucket.denied),
        }
    }

    fn bits(&self) -> [u64; 7] {
        [
            self.requests.bits(),
            self.tokens.bits(),
            self.window.bits(),
            self.lease.bits(),
            self.limits.bits(),
            self.allowed,
            self.denied,
        ]
    }
}

impl Walk<'_> {
    pub(super) fn buckets(&mut self) {
        let region = self.region;
        let keys = region.key_buckets().0.len();
        let slots = region.chunks().len() as u64 * crate::layout::CHUNK_SLOTS as u64;
        self.each(section::BUCKETS, region.buckets(), |index, bucket, now, notes| {
            let identity = get(&bucket.identity);
            let state = State::of(bucket);
            if get(&bucket.identity) != identity {
                return;
            }
            let kinds: &[KeyKind] = if index < keys { &KEYS } else { &SHARED };
            match judge(identity, kinds, notes) {
                // A slot that was given up may hold what a charge left that came too late.
                Standing::Nobody => {}
                Standing::Never => {
                    if let Some(found) = first_nonzero(state.bits()) {
                        notes.damage("identity", found, "all zeroes: never used; a key was lost");
                    }
                }
                Standing::Key(key) => {
                    let now = now();
                    match KeyKind::from_raw(key.kind()) {
                        Some(KeyKind::Gcra) => gcra(&state, now, notes),
                        Some(KeyKind::Sliding) => sliding(&state, now, notes),
                        Some(KeyKind::Counter) => {
                            loose_counter("requests", state.requests, now, notes);
                        }
                        Some(KeyKind::Window) => window(&state, slots, now, notes),
                        _ => {}
                    }
                    notes.plausible("allowed", state.allowed);
                    notes.plausible("denied", state.denied);
                }
            }
        });
    }
}

/// A TAT further ahead than two bursts; without known limits, than any quota gets.
fn gcra(state: &State, now: Instant, notes: &mut Notes) {
    let word = GcraWord::from_bits(state.requests.bits());
    let rate = |value: u64| u32::try_from(value).unwrap_or(0);
    let most_us = Quota::new(rate(state.limits.requests()), rate(state.limits.tokens()))
        .map_or(TWO_YEARS_US, Quota::most_ahead_us);
    if word.tat_us() > now.us().saturating_add(most_us) {
        notes.harmless("requests", word, "a TAT at most two bursts ahead");
    }
}

/// A window after the present one. Once the numbers have come round it cannot be told.
fn sliding(state: &State, now: Instant, notes: &mut Notes) {
    let word = SlidingWord::from_bits(state.requests.bits());
    let number = now.us().checked_div(state.limits.tokens().saturating_mul(1_000_000));
    if number.is_some_and(|number| number < NUMBER_SPAN && word.window() > number) {
        notes.harmless("requests", word, "a window that has begun");
    }
}

fn window(state: &State, slots: u64, now: Instant, notes: &mut Notes) {
    let open = state.window;
    if open.start_s() > now.s() {
        notes.harmless("window", open, "a window that has begun");
    } else if open.size_s() == 0 && open != WindowWord::default() {
        notes.harmless("window", open, "a length");
    }
    counter("requests", state.requests, open, now, notes);
    counter("tokens", state.tokens, open, now, notes);
    if state.lease.high_water() > slots {
        notes.harmless("lease", state.lease, "a high water within the table");
    }
}

/// A counter that may belong to a window.
pub(super) fn counter(
    field: &'static str,
    word: CounterWord,
    window: WindowWord,
    now: Instant,
    notes: &mut Notes,
) {
    if word.loose() == 1 {
        loose_counter(field, word, now, notes);
        return;
    }
    let counts =
        window.left(now.s(), u64::MAX).is_some() && word.in_window(window.start_s()).is_some();
    if counts && word.count() < 0 {
        notes.harmless(field, word, "a count of at least 0");
    }
    if now.s() < TAG_SPAN_S && word.tag() > now.s() {
        notes.harmless(field, word, "of a window that has begun");
    }
}

/// A counter with an expiry of its own: further away than any is set, as far as its tag can tell.
fn loose_counter(field: &'static str, word: CounterWord, now: Instant, notes: &mut Notes) {
    if word.loose() == 0 {
        return;
    }
    let furthest_s = now.s().saturating_add(CounterWord::MAX_TTL_S);
    if furthest_s < TAG_SPAN_S && word.tag() > furthest_s {
        notes.harmless(field, word, "an expiry within 194 days");
    } else if word.loose_left(now.s()).is_some() && word.count() < 0 {
        notes.harmless(field, word, "a count of at least 0");
    }
}
