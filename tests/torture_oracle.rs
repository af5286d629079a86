//! The judges of `tests/torture` on logs made by hand: what is just allowed passes, one more does not.

#![allow(dead_code, reason = "the workers use the rest")]

#[path = "torture/entry.rs"]
mod entry;
#[path = "torture/judge/mod.rs"]
mod judge;
#[path = "torture/limits.rs"]
mod limits;

use entry::{Answer, End, Entry, Op};
use judge::{Fault, Faults, Judge, Reading, Snapshot};
use limits::{BUNDLES, COUNTERS, HOT, SEATS, SLOT_BUNDLES, SLOTS, Slots};
use proptest::prelude::*;

/// A finished line.
fn done(op: Op, begun: u64, at: u64) -> Entry {
    Entry { op, begun, end: Some(End { at, answer: Answer::Admitted(0) }) }
}

/// A line that a kill left open.
fn lost(op: Op, begun: u64) -> Entry {
    Entry { op, begun, end: None }
}

/// The end of a life, begun at `begun` and certain at `died_us` of the region's clock.
fn death(begun: u64, died_us: u64) -> Entry {
    let answer = Answer::Admitted(died_us);
    Entry { op: Op::Death, begun, end: Some(End { at: begun, answer }) }
}

fn charge(bundle: usize, cost: i64, start_s: u64) -> Entry {
    let starts = BUNDLES[bundle].iter().map(|_| start_s);
    let answer = Answer::charged(starts);
    Entry { op: Op::Charge { bundle, cost }, begun: 1, end: Some(End { at: 2, answer }) }
}

/// What is found in these logs, one for each seat, and in counters read at the end.
fn found(logs: &[Vec<Entry>], readings: &[Reading]) -> Faults {
    let lines = std::array::from_fn(|seat| logs.get(seat).map_or(0, Vec::len));
    let end = Snapshot { readings: readings.to_vec(), lines, under_way: Vec::new() };
    found_with(logs, vec![end])
}

fn found_with(logs: &[Vec<Entry>], snapshots: Vec<Snapshot>) -> Faults {
    let (mut judge, mut faults) = (Judge::default(), Faults::default());
    judge_epoch(&mut judge, logs, snapshots, &mut faults);
    faults
}

fn judge_epoch(
    judge: &mut Judge,
    logs: &[Vec<Entry>],
    snapshots: Vec<Snapshot>,
    faults: &mut Faults,
) {
    let logs = logs.iter().map(|log| log.iter().copied());
    judge.judge(logs, snapshots, 1_000_000_000, faults);
}

fn over_admitted(logs: &[Vec<Entry>]) -> u64 {
    let faults = found(logs, &[]);
    assert_eq!(faults.is_empty(), faults.count(Fault::OverAdmitted) == 0, "{faults}");
    faults.count(Fault::OverAdmitted)
}

/// Burst and emission interval of the hot key 1.
fn key_one() -> (u64, u64) {
    (u64::from(HOT[1].burst), 60_000_000 / u64::from(HOT[1].per_minute))
}

fn checks(times: impl Iterator<Item = (u64, u64)>) -> Vec<Entry> {
    times.map(|(begun, at)| done(Op::Check { key: 1 }, begun, at)).collect()
}

#[test]
fn a_burst_and_the_rate_pass_and_one_request_more_does_not() {
    let (burst, interval_us) = key_one();
    let allowed = |extra: u64| {
        let burst = (0..burst + extra).map(|_| (1_000, 1_000));
        let later = (1..200).map(|n| (1_000 + n * interval_us, 1_000 + n * interval_us));
        over_admitted(&[checks(burst.chain(later))])
    };
    assert_eq!((allowed(0), allowed(1)), (0, 1));
}

#[test]
fn requests_of_all_workers_count_together() {
    let (burst, _) = key_one();
    let mut logs: Vec<Vec<Entry>> = (0..burst).map(|_| checks([(7, 7)].into_iter())).collect();
    assert_eq!(over_admitted(&logs), 0);
    logs.push(checks([(7, 7)].into_iter()));
    assert_eq!(over_admitted(&logs), 1);
}

#[test]
fn a_request_counts_only_where_it_certainly_was() {
    let (burst, interval_us) = key_one();
    // Begun at the burst, but perhaps decided as late as its quota was earned again.
    let slow = (1_000, 1_000 + interval_us);
    let burst = (0..burst).map(|_| (1_000, 1_000));
    assert_eq!(over_admitted(&[checks(burst.clone().chain([slow]))]), 0);
    let slow = (1_000, 1_000 + interval_us - 1);
    assert_eq!(over_admitted(&[checks(burst.chain([slow]))]), 1);
}

#[test]
fn a_quota_spans_epochs() {
    let (burst, _) = key_one();
    let half = |n: u64| vec![checks((0..n).map(|_| (50, 60)))];
    let (mut judge, mut faults) = (Judge::default(), Faults::default());
    judge_epoch(&mut judge, &half(burst - 1), vec![], &mut faults);
    judge_epoch(&mut judge, &half(1), vec![], &mut faults);
    assert!(faults.is_empty(), "{faults}");
    judge_epoch(&mut judge, &half(1), vec![], &mut faults);
    assert_eq!(faults.count(Fault::OverAdmitted), 1);
}

proptest! {
    /// Against all intervals, one by one.
    #[test]
    fn the_fullest_interval_is_found(
        requests in prop::collection::vec((0_u64..100_000, 0_u64..30_000), 1..40),
    ) {
        let (burst, interval_us) = key_one();
        let times: Vec<(u64, u64)> = requests.iter().map(|&(at, took)| (at, at + took)).collect();
        let above = times.iter().any(|&(from, _)| times.iter().any(|&(_, to)| {
            let inside = times.iter().filter(|&&(begun, ended)| begun >= from && ended <= to);
            inside.count() as u64 * interval_us > burst * interval_us + to.saturating_sub(from)
        }));
        prop_assert_eq!(over_admitted(&[checks(times.into_iter())]) > 0, above);
    }

    #[test]
    fn operations_keep_their_bits(kind in 0_u8..7, small: u8, middle: u16, large: u32) {
        let op = match kind {
            0 => Op::Check { key: large as usize },
            1 => Op::Charge { bundle: small.into(), cost: middle.into() },
            2 => Op::Refund {
                counter: small.into(),
                amount: middle.into(),
                start_s: large.into(),
            },
            3 => Op::Acquire {
                bundle: small.into(),
                limit: middle.into(),
                at_s: large.into(),
            },
            4 => Op::Release { slots: small.into(), acquired: large as usize },
            5 => Op::Leave,
            _ => Op::Death,
        };
        prop_assert_eq!(Op::from_word(op.to_word()), Some(op));
        let answer = Answer::Admitted(u64::from(large));
        prop_assert_eq!(Answer::from_word(answer.to_word()), answer);
        let answer = Answer::Failed(u64::from(middle));
        prop_assert_eq!(Answer::from_word(answer.to_word()), answer);
    }
}

/// The bundle of the first counter alone would do; this is the first with one counter.
const ONE: usize = 1;

fn limit_of_one() -> (usize, i64) {
    let counter = BUNDLES[ONE][0];
    (counter, COUNTERS[counter].limit)
}

#[test]
fn a_full_window_passes_and_one_charge_more_does_not() {
    let (_, limit) = limit_of_one();
    let charges = |n: i64, start_s| (0..n).map(move |_| charge(ONE, 1, start_s));
    let two_windows: Vec<Entry> = charges(limit, 5).chain(charges(limit, 7)).collect();
    assert_eq!(over_admitted(std::slice::from_ref(&two_windows)), 0);
    assert_eq!(over_admitted(&[two_windows, vec![charge(ONE, 1, 5)]]), 1);
}

#[test]
fn a_full_window_is_counted_at_once_and_once() {
    let (counter, limit) = limit_of_one();
    let (mut judge, mut faults) = (Judge::default(), Faults::default());
    let now_us = 6_000_000;
    let mut full = |amount: i64, start_s| {
        let log: Vec<Entry> = (0..amount).map(|_| charge(ONE, 1, start_s)).collect();
        judge.judge([log.into_iter()], vec![], now_us, &mut faults);
        judge.reach().full_windows[counter]
    };
    assert_eq!(full(limit - limits::MAX_COST, 5), 0);
    assert_eq!(full(1, 5), 1);
    assert_eq!(full(1, 5), 1);
    assert_eq!(full(limit, 6), 2);
}

#[test]
fn every_counter_of_a_bundle_is_judged() {
    // The tokens of bundle 0 are above their limit long before its requests.
    let cost = limits::MAX_COST;
    let tokens = COUNTERS[BUNDLES[0][1]].limit;
    let charges = |n: i64| (0..n).map(|_| charge(0, cost, 5)).collect::<Vec<_>>();
    assert_eq!(over_admitted(&[charges(tokens / cost)]), 0);
    assert_eq!(over_admitted(&[charges(tokens / cost + 1)]), 1);
}

#[test]
fn what_was_or_may_have_been_taken_back_makes_room() {
    let (counter, limit) = limit_of_one();
    let refund = Op::Refund { counter, amount: 1, start_s: 5 };
    let full: Vec<Entry> = (0..=limit).map(|_| charge(ONE, 1, 5)).collect();
    let with = |more: &[Entry]| over_admitted(&[[&full[..], more].concat()]);
    assert_eq!(with(&[]), 1);
    assert_eq!(with(&[done(refund, 1, 2)]), 0);
    assert_eq!(with(&[lost(refund, 1), death(9, 9)]), 0);
    let late = End { at: 2, answer: Answer::Refused };
    assert_eq!(with(&[Entry { op: refund, begun: 1, end: Some(late) }]), 1);
}

#[test]
fn a_counter_may_hold_what_kills_explain_and_no_more() {
    let (counter, _) = limit_of_one();
    let reading = |count| [Reading { counter, start_s: 5, count }];
    let op = Op::Charge { bundle: ONE, cost: 1 };
    let killed = vec![charge(ONE, 1, 5), lost(op, 1), death(9, 5_000_000)];
    let logs = [killed.clone()];
    assert!(found(&logs, &reading(1)).is_empty());
    assert!(found(&logs, &reading(2)).is_empty());
    assert_eq!(found(&logs, &reading(3)).count(Fault::UnderAdmitted), 1);
    assert_eq!(found(&logs, &reading(0)).count(Fault::OverAdmitted), 1);
    // It was dead before this window began.
    let logs = [[&killed[..2], &[death(9, 4_999_999)]].concat()];
    assert_eq!(found(&logs, &reading(2)).count(Fault::UnderAdmitted), 1);
}

#[test]
fn a_snapshot_is_compared_with_the_lines_that_were_finished_then() {
    let (counter, _) = limit_of_one();
    let logs = [vec![charge(ONE, 1, 5), charge(ONE, 1, 5)], vec![charge(ONE, 1, 5)]];
    let mut lines = [0; SEATS];
    lines[..2].copy_from_slice(&[1, 1]);
    let at = |count, under_way: &[Op]| {
        let readings = vec![Reading { counter, start_s: 5, count }];
        let snapshot = Snapshot { readings, lines, under_way: under_way.to_vec() };
        let faults = found_with(&logs, vec![snapshot]);
        [Fault::UnderAdmitted, Fault::OverAdmitted].map(|fault| faults.count(fault))
    };
    assert_eq!([1, 2, 3].map(|count| at(count, &[])), [[0, 1], [0, 0], [1, 0]]);
    let charging = [Op::Charge { bundle: ONE, cost: 1 }];
    assert_eq!([1, 2, 3, 4].map(|count| at(count, &charging)), [[0, 1], [0, 0], [0, 0], [1, 0]]);
    let refunding = [Op::Refund { counter, amount: 1, start_s: 5 }];
    assert_eq!([0, 1, 2, 3].map(|count| at(count, &refunding)), [[0, 1], [0, 0], [0, 0], [1, 0]]);
}

/// Bundle of the slots with limit 3, and of those with a limit that moves.
const THREE: usize = 1;

fn acquire(from: u64) -> Entry {
    done(Op::Acquire { bundle: THREE, limit: 0, at_s: 0 }, from, from + 1)
}

fn release(acquired: usize, at: u64) -> Entry {
    done(Op::Release { slots: SLOT_BUNDLES[THREE][0], acquired }, at, at + 1)
}

#[test]
fn as_many_slots_as_the_limit_pass_and_one_more_does_not() {
    assert_eq!(SLOTS[SLOT_BUNDLES[THREE][0]].limit, Some(3));
    let mut logs = vec![vec![acquire(10)], vec![acquire(20), acquire(30)]];
    assert_eq!(over_admitted(&logs), 0);
    logs.push(vec![acquire(40)]);
    assert_eq!(over_admitted(&logs), 1);
}

#[test]
fn a_slot_is_free_from_the_begin_of_its_release() {
    let others = || vec![acquire(10), acquire(20)];
    // The fourth was granted while the release was under way.
    let logs = [others(), vec![acquire(30), release(0, 40)], vec![acquire(40)]];
    assert_eq!(over_admitted(&logs), 0);
    let logs = [others(), vec![acquire(30), release(0, 42)], vec![acquire(40)]];
    assert_eq!(over_admitted(&logs), 1);
    let open = lost(Op::Release { slots: SLOT_BUNDLES[THREE][0], acquired: 0 }, 40);
    assert_eq!(over_admitted(&[others(), vec![acquire(30), open], vec![acquire(40)]]), 0);
}

#[test]
fn a_release_frees_only_its_own_slot() {
    let logs = |acquired| [vec![acquire(10), acquire(20), acquire(30), release(acquired, 40)]];
    let fourth = vec![acquire(50)];
    assert_eq!(over_admitted(&[logs(1)[0].clone(), fourth.clone()]), 0);
    assert_eq!(over_admitted(&[logs(9)[0].clone(), fourth]), 1);
}

#[test]
fn slots_end_with_their_holder_and_not_with_another() {
    let four = |first: Vec<Entry>, second: Vec<Entry>| {
        over_admitted(&[first, second, vec![acquire(20), acquire(21)], vec![acquire(40)]])
    };
    assert_eq!(four(vec![acquire(10), death(35, 0)], vec![]), 0);
    assert_eq!(four(vec![acquire(10), done(Op::Leave, 35, 36)], vec![]), 0);
    assert_eq!(four(vec![acquire(10)], vec![acquire(11), death(45, 0)]), 1);
    assert_eq!(four(vec![acquire(10), death(45, 0)], vec![death(35, 0)]), 1);
}

#[test]
fn a_slot_past_its_time_may_be_somebody_elses() {
    let brief = |bundle: &&[usize]| SLOTS[bundle[0]].ttl_s.is_some();
    let bundle = SLOT_BUNDLES.iter().position(brief).unwrap();
    let Slots { limit, ttl_s, .. } = SLOTS[SLOT_BUNDLES[bundle][0]];
    let (limit, ttl_s) = (limit.unwrap(), ttl_s.unwrap());
    let second = 1_000_000_000;
    let acquire = |from: u64| done(Op::Acquire { bundle, limit: 0, at_s: 7 }, from, from + 1);
    let full: Vec<Entry> = (0..limit).map(|n| acquire(7 * second + n * 10)).collect();
    let end = (7 + ttl_s) * second;
    assert_eq!(over_admitted(&[full.clone(), vec![acquire(end - 2)]]), 1);
    assert_eq!(over_admitted(&[full, vec![acquire(end)]]), 0);
}

#[test]
fn a_limit_that_moves_admits_nobody_above_it() {
    let bundle = SLOT_BUNDLES.len() - 1;
    assert_eq!(SLOTS[SLOT_BUNDLES[bundle][0]].limit, None);
    let entry = |limit, from, at| done(Op::Acquire { bundle, limit, at_s: 0 }, from, at);
    let six: Vec<Entry> = (0..6).map(|n| entry(6, n * 10, n * 10 + 1)).collect();
    let with = |last| over_admitted(&[six.clone(), vec![last]]);
    assert_eq!(with(entry(7, 100, 101)), 0);
    assert_eq!(with(entry(6, 100, 101)), 1);
    // The sixth came while this one was decided: it need not have been seen.
    assert_eq!(with(entry(6, 50, 60)), 0);
    assert_eq!(with(entry(5, 50, 60)), 1);
}

#[test]
fn errors_that_cannot_happen_are_faults() {
    let failed = |error| {
        let end = End { at: 2, answer: Answer::Failed(error) };
        let entry = Entry { op: Op::Check { key: 0 }, begun: 1, end: Some(end) };
        found(&[vec![entry]], &[]).count(Fault::Unexpected)
    };
    assert_eq!([1, 2, 3, 4, 5].map(failed), [0, 0, 1, 1, 1]);
}
