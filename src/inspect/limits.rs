//! Keys with their limits.

use super::{LimitReport, RecordPlace, Usage, get, key_of};
use crate::clock::Instant;
use crate::layout::{Bucket, CounterWord, GcraWord, IdentityWord, KeyKind, SlidingWord, section};
use crate::primitives::amount::{Amount, DECIMALS};
use crate::primitives::gcra::{self, Quota};
use crate::primitives::sliding::{self, SlidingLimit};
use crate::primitives::window::{self, Pair};
use crate::region::Region;
use crate::sync::{Bits, Ordering, Word};
use crate::tables::names;
use std::collections::BTreeMap;

/// Times that a record is read again because it has changed meanwhile.
const LOOKS: usize = 3;

/// All keys, in memory that was used before.
pub(super) fn limits(
    region: &Region,
    held: &BTreeMap<u64, u64>,
    room: Vec<LimitReport>,
) -> Vec<LimitReport> {
    let held = |position| held.get(&(position as u64 + 1)).copied().unwrap_or(0);
    let mut reports = room;
    reports.clear();
    let buckets = || region.written(section::BUCKETS, region.buckets());
    reports.reserve(buckets().filter(|(_, bucket)| key_of(&bucket.identity).is_some()).count());
    let report = |(position, _)| limit(region, position, held(position));
    reports.extend(buckets().filter_map(report));
    reports
}

/// The key in one bucket, of which so many slots are held; `None` = there is none.
pub(super) fn limit(region: &Region, position: usize, held: u64) -> Option<LimitReport> {
    let Look { key, bucket, moving, .. } = look(region, position)?;
    let mut report = report(key, &bucket, held, region.now(), moving)?;
    report.place = RecordPlace { slot: position, identity: get(&bucket.identity).bits() };
    Some(report)
}

/// A key's record as it was at one moment.
pub(super) struct Look {
    /// Its redacted name.
    pub(super) key: String,
    pub(super) kind: KeyKind,
    /// A copy of the record.
    pub(super) bucket: Bucket,
    /// It changed under every look.
    pub(super) moving: bool,
}

/// The key in one bucket; `None` = there is none.
pub(super) fn look(region: &Region, position: usize) -> Option<Look> {
    let bucket = region.buckets().get(position)?;
    let kind = |bucket: &Bucket| {
        let kind = key_of(&bucket.identity).and_then(|key| KeyKind::from_raw(key.kind()))?;
        (kind != KeyKind::Tally).then_some(kind)
    };
    kind(bucket)?;
    let mut seen = copy(bucket);
    for again in (0..LOOKS).rev() {
        let key = key_name(region, position);
        let next = copy(bucket);
        let moving = words(&seen) != words(&next);
        if !moving || again == 0 {
            return Some(Look { key, kind: kind(&seen)?, bucket: seen, moving });
        }
        seen = next;
    }
    None
}

/// How much of its tightest limit the key in a bucket has used, percent; `None` = it has no limit, or there is no
/// key.
pub(super) fn used_pct(bucket: &Bucket, held: u64, now: Instant) -> Option<f64> {
    report(String::new(), &copy(bucket), held, now, false)?.used_pct
}

fn report(
    key: String,
    bucket: &Bucket,
    held: u64,
    now: Instant,
    moving: bool,
) -> Option<LimitReport> {
    let kind = key_of(&bucket.identity).and_then(|key| KeyKind::from_raw(key.kind()))?;
    let mut report = LimitReport {
        key,
        kind: kind.name(),
        allowed: get(&bucket.allowed),
        denied: get(&bucket.denied),
        moving,
        ..LimitReport::default()
    };
    match kind {
        KeyKind::Gcra => gcra_report(&mut report, bucket, now),
        KeyKind::Window => {
            window_report(&mut report, bucket, now);
            let limit = get(&bucket.lease).limit();
            if limit > 0 || held > 0 {
                report.parallel = Some(usage(i64::try_from(held).unwrap_or(i64::MAX), limit));
            }
        }
        KeyKind::Counter => {
            let pair = Pair { window: None, counter: &bucket.requests };
            report.resets_in_s = get(&bucket.requests).loose_left(now.s());
            let used = window::read(pair, now.s());
            if get(&bucket.limits).tokens() == u64::from(DECIMALS) {
                report.spent = used.map(|units| Amount::from_units(units).to_f64());
            } else {
                report.requests = used.map(|used| usage(used, 0));
            }
        }
        KeyKind::Sliding => sliding_report(&mut report, bucket, now),
        KeyKind::Tally | KeyKind::Chunk | KeyKind::Named => return None,
    }
    let all = [report.requests, report.tokens, report.parallel];
    report.used_pct = all.into_iter().flatten().filter_map(Usage::percent).reduce(f64::max);
    Some(report)
}

/// A record that nobody else can change.
fn copy(bucket: &Bucket) -> Bucket {
    Bucket {
        identity: Word::new(bucket.identity.load(Ordering::Acquire)),
        requests: Word::new(get(&bucket.requests)),
        tokens: Word::new(get(&bucket.tokens)),
        window: Word::new(bucket.window.load(Ordering::Acquire)),
        lease: Word::new(get(&bucket.lease)),
        limits: Word::new(get(&bucket.limits)),
        allowed: Word::new(get(&bucket.allowed)),
        denied: Word::new(get(&bucket.denied)),
    }
}

fn words(bucket: &Bucket) -> [u64; 8] {
    [
        get(&bucket.identity).bits(),
        get(&bucket.requests).bits(),
        get(&bucket.tokens).bits(),
        get(&bucket.window).bits(),
        get(&bucket.lease).bits(),
        get(&bucket.limits).bits(),
        get(&bucket.allowed),
        get(&bucket.denied),
    ]
}

pub(super) fn key_name(region: &Region, slot: usize) -> String {
    region.names().get(slot).and_then(names::read).unwrap_or_else(|| {
        let identity = region.buckets().get(slot).map(|bucket| get(&bucket.identity));
        format!("#{:013x}", identity.map_or(0, IdentityWord::hash))
    })
}

fn usage(used: i64, limit: u64) -> Usage {
    Usage { used, limit: (limit > 0).then_some(limit) }
}

fn gcra_report(report: &mut LimitReport, bucket: &Bucket, now: Instant) {
    let limits = get(&bucket.limits);
    let rate = |value| u32::try_from(value).unwrap_or(0);
    let Some(quota) = Quota::new(rate(limits.requests()), rate(limits.tokens())) else {
        return;
    };
    let word = GcraWord::from_bits(get(&bucket.requests).bits());
    let remaining = gcra::remaining(word, now.us(), quota);
    let used = i64::from(quota.burst()) - i64::try_from(remaining).unwrap_or(i64::MAX);
    report.requests = Some(usage(used.max(0), u64::from(quota.burst())));
    report.remaining = Some(remaining);
    report.retry_after_ms = Some(gcra::retry_after_us(word, now.us(), quota, 1).div_ceil(1_000));
}

fn sliding_report(report: &mut LimitReport, bucket: &Bucket, now: Instant) {
    let limits = get(&bucket.limits);
    let Some(limit) = SlidingLimit::new(limits.requests(), limits.tokens()) else {
        return;
    };
    let word = SlidingWord::from_bits(get(&bucket.requests).bits());
    let remaining = sliding::remaining(word, now.us(), limit);
    let used = limits.requests().saturating_sub(remaining);
    report.window_s = Some(limits.tokens());
    report.requests = Some(usage(i64::try_from(used).unwrap_or(i64::MAX), limits.requests()));
    report.remaining = Some(remaining);
    let wait_us = sliding::retry_after_us(word, now.us(), limit, 1);
    report.retry_after_ms = Some(wait_us.div_ceil(1_000));
}

fn window_report(report: &mut LimitReport, bucket: &Bucket, now: Instant) {
    let limits = get(&bucket.limits);
    let state = bucket.window.load(Ordering::Acquire);
    let left = state.left(now.s(), u64::MAX);
    report.window_s = (state.size_s() > 0).then(|| state.size_s());
    report.resets_in_s = left;
    let read = |counter: &Word<CounterWord>, limit| {
        let pair = Pair { window: Some(&bucket.window), counter };
        let used = window::read(pair, now.s());
        (used.is_some_and(|used| used != 0) || limit > 0).then(|| usage(used.unwrap_or(0), limit))
    };
    report.requests = read(&bucket.requests, limits.requests());
    report.tokens = read(&bucket.tokens, limits.tokens());
}
