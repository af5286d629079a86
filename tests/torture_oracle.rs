//! The judges of `tests/torture` on logs made by hand: what is just allowed passes, one more does not.

#![allow(dead_code, reason = "the workers use the rest")]

#[path = "torture/crowd.rs"]
mod crowd;
#[path = "torture/entry.rs"]
mod entry;
#[path = "torture/judge/mod.rs"]
mod judge;
#[path = "torture/limits.rs"]
mod limits;

use crowd::{SCENES, Scene};
use entry::{Answer, End, Entry, Op};
use fast_litellm::config::Overflow;
use judge::{BEGAN, Fault, Faults, Judge, Reach, Reading, Rest, Room, Snapshot, Status};
use limits::{
    ADMISSIONS, BUNDLES, COUNTERS, DEPLOYMENTS, HOT, SEATS, SLIDING, SLOT_BUNDLES, SLOTS, Slots,
    Want,
};
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
    judge.judge(logs, snapshots, &Rest::default(), 1_000_000_000, faults);
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
    fn operations_keep_their_bits(kind in 0_u8..17, small: u8, middle: u16, large: u32) {
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
            6 => Op::Death,
            7 => Op::Slide { key: small.into(), cost: middle.into() },
            8 => Op::Admit { bundle: small.into(), cost: middle.into() },
            9 => Op::Finish { bundle: small.into(), admitted: large as usize },
            10 => Op::Cancel {
                bundle: small.into(),
                cost: middle.into(),
                admitted: large as usize,
            },
            12 => Op::Depart { deployment: small.into() },
            13 => Op::Arrive { deployment: small.into(), departed: large as usize },
            14 => Op::Count { deployment: small.into(), failed: large % 2 == 0 },
            15 => Op::Cool { deployment: small.into(), for_ms: middle.into() },
            16 => Op::Look { deployment: small.into() },
            _ => Op::Settle {
                bundle: small.into(),
                cost: (middle & 0xff).into(),
                used: (middle >> 8).into(),
                admitted: large as usize,
            },
        };
        prop_assert_eq!(Op::from_word(op.to_word()), Some(op));
        let answer = Answer::Admitted(u64::from(large));
        prop_assert_eq!(Answer::from_word(answer.to_word()), answer);
        prop_assert_eq!(Answer::Admitted(u64::from(middle)).late(u64::from(large)).to_word() >> 22, u64::from(large));
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
        judge.judge([log.into_iter()], vec![], &Rest::default(), now_us, &mut faults);
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
fn a_counter_is_never_above_its_limit_and_what_is_owed() {
    let Want::Window(counter) = ADMISSIONS[COUNTED][1] else { panic!("a counter") };
    let limit = COUNTERS[counter].limit;
    // What nobody knows the window of may be in it, but not above its limit.
    let unknown = || (0..2 * limit).map(|_| admitted(COUNTED, 1, 1, 9_000_000, 0));
    let finish = |n| done(Op::Finish { bundle: COUNTED, admitted: 2 * n }, 1, 1);
    let log = || unknown().enumerate().flat_map(|(n, admit)| [admit, finish(n)]);
    let above = |more: &[Entry], count| {
        let log = log().chain(more.iter().copied()).collect();
        let faults = found(&[log], &[Reading { counter, start_s: 5, count }]);
        faults.count(Fault::OverAdmitted)
    };
    assert_eq!([limit, limit + 1].map(|count| above(&[], count)), [0, 1]);
    let settle = Op::Settle { bundle: COUNTED, cost: 1, used: 4, admitted: 0 };
    for start_s in [0, 5] {
        let end = Some(End { at: 9_000_000, answer: Answer::Admitted(start_s) });
        let settled = [Entry { op: settle, begun: 8, end }];
        assert_eq!([limit + 3, limit + 4].map(|count| above(&settled, count)), [0, 1]);
    }
    let killed = [lost(settle, 8), death(9, 9_000_000)];
    assert_eq!([limit + 3, limit + 4].map(|count| above(&killed, count)), [0, 1]);
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
    let varying = |bundle: &&[usize]| SLOTS[bundle[0]].limit.is_none();
    let bundle = SLOT_BUNDLES.iter().position(varying).unwrap();
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

/// The sliding window with the middle limit, and its length in microseconds.
const SIXTY: usize = 1;

fn sliding() -> (i64, u64) {
    (SLIDING[SIXTY].limit.cast_signed(), SLIDING[SIXTY].window_s * 1_000_000)
}

/// A charge of that window, decided between these times.
fn slide(cost: i64, begun: u64, at: u64) -> Entry {
    let end = End { at, answer: Answer::Admitted(at / sliding().1) };
    Entry { op: Op::Slide { key: SIXTY, cost }, begun, end: Some(end) }
}

fn slides(count: i64, at: u64) -> impl Iterator<Item = Entry> {
    (0..count).map(move |_| slide(1, at, at))
}

#[test]
fn a_sliding_window_admits_its_limit_in_an_aligned_window() {
    let (limit, window) = sliding();
    let full: Vec<Entry> = slides(limit, window).chain(slides(limit, 3 * window)).collect();
    assert_eq!(over_admitted(std::slice::from_ref(&full)), 0);
    assert!(over_admitted(&[full, vec![slide(1, 2 * window - 2, 2 * window - 1)]]) > 0);
}

#[test]
fn what_fades_in_a_sliding_window_counts_as_long_as_it_does() {
    let (limit, window) = sliding();
    let full = || slides(limit, window);
    // Half of it has faded.
    let late = 2 * window + window / 2;
    let with = |more: Vec<Entry>| over_admitted(&[full().collect(), more]);
    assert_eq!(with(slides(limit / 2, late).collect()), 0);
    assert_eq!(with(vec![slide(limit / 2 + 1, late, late)]), 1);
    // Begun then, and perhaps decided when one more had faded.
    let end = late + window.div_ceil(limit.cast_unsigned());
    assert_eq!(with(vec![slide(limit / 2 + 1, late, end)]), 0);
    // Those before it in its window count, unless they may have come later.
    assert_eq!(with([slide(limit / 2, late, late), slide(1, late + 1, late + 1)].into()), 1);
    assert_eq!(with([slide(limit / 2, late, late + 1), slide(1, late + 1, late + 1)].into()), 0);
}

#[test]
fn no_stretch_as_long_as_a_sliding_window_admits_twice_the_limit() {
    let (limit, window) = sliding();
    // In windows that nobody knows: admissions that began before and ended after a boundary.
    let bundle = ADMISSIONS.iter().position(|wants| wants.len() == 2).unwrap();
    assert!(matches!(ADMISSIONS[bundle], [Want::Sliding(SIXTY), Want::Rate(0)]));
    let admit = |n: u64| admitted(bundle, 1, 2 * window - 1 - n, 2 * window + n, 0);
    let times = |n: i64| (0..n.cast_unsigned()).map(admit).collect::<Vec<_>>();
    assert_eq!(sliding_above(&[times(2 * limit - 1)]), 0);
    assert_eq!(sliding_above(&[times(2 * limit)]), 1);
}

/// An admission, whose slots are held from its end.
fn admitted(bundle: usize, cost: i64, begun: u64, at: u64, start_s: u64) -> Entry {
    let end = End { at, answer: Answer::Admitted(start_s).late(0) };
    Entry { op: Op::Admit { bundle, cost }, begun, end: Some(end) }
}

/// Faults about sliding windows.
fn sliding_above(logs: &[Vec<Entry>]) -> usize {
    found(logs, &[]).to_string().matches(SLIDING[SIXTY].key).count()
}

#[test]
fn at_rest_a_sliding_window_has_room_for_what_nobody_was_granted() {
    let (limit, window) = sliding();
    let room = |log: &[Entry], remaining| {
        let (mut judge, mut faults) = (Judge::default(), Faults::default());
        let now = 2 * window + window / 2;
        let room = Room { key: SIXTY, begun: now, at: now, remaining };
        let rest = Rest { rooms: vec![room], ..Rest::default() };
        judge.judge([log.iter().copied()], vec![], &rest, now, &mut faults);
        [Fault::UnderAdmitted, Fault::OverAdmitted].map(|fault| faults.count(fault))
    };
    let left = (limit - 10).unsigned_abs();
    let log = [slide(10, window, window), slide(5, 2 * window, 2 * window)];
    assert_eq!([left - 1, left, left + 1].map(|left| room(&log, left)), [[1, 0], [0, 0], [0, 1]]);
    // A kill explains so much, if it came late enough.
    let killed = |died| {
        let open = lost(Op::Slide { key: SIXTY, cost: 2 }, 0);
        [&log[..], &[open, death(0, died)]].concat()
    };
    assert_eq!([left - 2, left - 3].map(|left| room(&killed(2 * window), left)[0]), [0, 1]);
    assert_eq!([left - 1, left - 2].map(|left| room(&killed(2 * window - 1), left)[0]), [0, 1]);
    assert_eq!(room(&killed(window - 1), left - 1)[0], 1);
}

/// An admission to both counters of one subject and to slots.
const COUNTED: usize = 1;

#[test]
fn what_an_admission_was_charged_is_judged_by_each_of_its_limits() {
    let Want::Window(counter) = ADMISSIONS[COUNTED][0] else { panic!("a counter") };
    let Want::Slots(slots) = ADMISSIONS[COUNTED][2] else { panic!("slots") };
    let (limit, held) = (COUNTERS[counter].limit, SLOTS[slots].limit.unwrap());
    let finish = |admitted| done(Op::Finish { bundle: COUNTED, admitted }, 5_000, 5_000);
    let admit = || admitted(COUNTED, 1, 1, 2, 5);
    let one_by_one = |n: i64| -> Vec<Entry> {
        (0..n).flat_map(|n| [admit(), finish(usize::try_from(2 * n).unwrap())]).collect()
    };
    assert_eq!(over_admitted(&[one_by_one(held.cast_signed())]), 0);
    // The judge of slots looks at instants, and all of these are held at the same one.
    assert_eq!(over_admitted(&[one_by_one(held.cast_signed() + 1)]), 1);
    let spread = |n: i64| -> Vec<Entry> {
        let entry = |n: i64| {
            let at = 10 * n.unsigned_abs();
            let admitted = usize::try_from(2 * n).unwrap();
            let finish = Op::Finish { bundle: COUNTED, admitted };
            [admitted_at(at), done(finish, (at + 1) * 1_000, (at + 1) * 1_000)]
        };
        (0..n).flat_map(entry).collect()
    };
    assert_eq!(over_admitted(&[spread(limit)]), 0);
    assert_eq!(over_admitted(&[spread(limit + 1)]), 1);
}

fn admitted_at(at: u64) -> Entry {
    admitted(COUNTED, 1, at, at, 5)
}

#[test]
fn what_an_admission_gave_back_makes_room_and_what_it_owes_takes_it() {
    let Want::Window(counter) = ADMISSIONS[COUNTED][1] else { panic!("a counter") };
    let at = |corrections: &[Entry], count| {
        let reading = Reading { counter, start_s: 5, count };
        let log = [&[admitted(COUNTED, 5, 1, 2, 5)], corrections].concat();
        let faults = found(&[log], &[reading]);
        [Fault::UnderAdmitted, Fault::OverAdmitted].map(|fault| faults.count(fault))
    };
    let exactly = |corrections: &[Entry], count| {
        let around = [count - 1, count, count + 1].map(|count| at(corrections, count));
        around == [[0, 1], [0, 0], [1, 0]]
    };
    let cancel = Op::Cancel { bundle: COUNTED, cost: 5, admitted: 0 };
    let settle = |used| Op::Settle { bundle: COUNTED, cost: 5, used, admitted: 0 };
    let settled = |used, start_s| {
        let end = End { at: 9_000_000, answer: Answer::Admitted(start_s) };
        Entry { op: settle(used), begun: 8, end: Some(end) }
    };
    assert!(exactly(&[], 5));
    assert!(exactly(&[done(cancel, 8, 9)], 0));
    assert!(exactly(&[settled(2, 0)], 2));
    assert!(exactly(&[settled(9, 5)], 9));
    // In another window, and in an unknown one.
    assert!(exactly(&[settled(9, 7)], 5));
    assert_eq!([4, 5, 9, 10].map(|n| at(&[settled(9, 0)], n)), [[0, 1], [0, 0], [0, 0], [1, 0]]);
    // Killed meanwhile: perhaps.
    let killed = [lost(cancel, 8), death(9, 9_000_000)];
    assert_eq!([0, 5, 6].map(|n| at(&killed, n)), [[0, 0], [0, 0], [1, 0]]);
    let killed = [lost(settle(9), 8), death(9, 9_000_000)];
    assert_eq!([4, 5, 9, 10].map(|n| at(&killed, n)), [[0, 1], [0, 0], [0, 0], [1, 0]]);
}

#[test]
fn a_cancelled_admission_frees_its_slots_quota_and_sliding_window() {
    let bundle = 0;
    assert!(matches!(
        ADMISSIONS[bundle],
        [Want::Rate(_), Want::Sliding(SIXTY), .., Want::Slots(2)]
    ));
    let [Want::Rate(rate), _, _, _, Want::Slots(slots)] = ADMISSIONS[bundle] else {
        panic!("a quota and slots")
    };
    let burst = i64::from(HOT[*rate].burst);
    let held = SLOTS[*slots].limit.unwrap().cast_signed();
    let (limit, _) = sliding();
    let times = |n: i64, cost, end: &dyn Fn(usize) -> Entry| -> u64 {
        let each = |n: usize| [admitted(bundle, cost, 1, 2, 0), end(2 * n)];
        let log = (0..usize::try_from(n).unwrap()).flat_map(each).collect();
        found(&[log], &[]).count(Fault::OverAdmitted)
    };
    let cancel = |cost| move |admitted| done(Op::Cancel { bundle, cost, admitted }, 1, 9);
    let finish = |admitted| done(Op::Finish { bundle, admitted }, 1, 9);
    assert_eq!(times(held + burst + limit, 1, &cancel(1)), 0);
    assert_eq!(times(burst, 1, &finish), 0);
    assert_eq!(times(burst + 1, 1, &finish), 1);
    let cost = limits::MAX_COST;
    assert!(limit / cost < burst);
    assert_eq!(times(limit / cost, cost, &finish), 0);
    assert!(times(limit / cost + 1, cost, &finish) > 0);
    assert_eq!(times(limit / cost + 1, cost, &cancel(cost)), 0);
}

fn depart(from: u64) -> Entry {
    done(Op::Depart { deployment: 0 }, from, from + 1)
}

#[test]
fn as_many_calls_as_the_limit_pass_and_one_more_does_not() {
    assert_eq!(DEPLOYMENTS[0].1, 2);
    let arrive = |at| done(Op::Arrive { deployment: 0, departed: 0 }, at, at + 1);
    let logs = |first: Vec<Entry>| over_admitted(&[first, vec![depart(20)], vec![depart(50)]]);
    assert_eq!(logs(vec![]), 0);
    assert_eq!(logs(vec![depart(10)]), 1);
    assert_eq!(logs(vec![depart(10), arrive(40)]), 0);
    assert_eq!(logs(vec![depart(10), arrive(52)]), 1);
    assert_eq!(logs(vec![depart(10), death(40, 0)]), 0);
}

/// A cooldown of so many milliseconds, and a look that found none.
fn cool(for_ms: u64, begun_ms: u64, at_ms: u64, first: bool) -> Entry {
    let end = End { at: at_ms * 1_000, answer: Answer::Admitted(u64::from(first) * BEGAN) };
    Entry { op: Op::Cool { deployment: 0, for_ms }, begun: begun_ms * 1_000, end: Some(end) }
}

fn free(begun_ms: u64, at_ms: u64) -> Entry {
    done(Op::Look { deployment: 0 }, begun_ms * 1_000, at_ms * 1_000)
}

#[test]
fn whoever_looks_while_a_cooldown_certainly_runs_sees_it() {
    let unseen = |logs: &[Vec<Entry>]| found(logs, &[]).count(Fault::Unseen);
    let cooled = || vec![cool(50, 100, 102, true)];
    let looks = |begun, at| unseen(&[cooled(), vec![free(begun, at)]]);
    assert_eq!((looks(103, 103), looks(103, 149)), (1, 1));
    // Before it, perhaps before it, perhaps after it.
    assert_eq!((looks(90, 99), looks(102, 110), looks(103, 150)), (0, 0, 0));
    // Exactly one begins it, and a longer one counts.
    let second = |first| unseen(&[cooled(), vec![cool(200, 110, 111, first)]]);
    assert_eq!((second(false), second(true)), (0, 1));
    let longer = |at| unseen(&[cooled(), vec![cool(200, 110, 111, false), free(120, at)]]);
    assert_eq!((longer(309), longer(310)), (1, 0));
    // Killed before it was answered: perhaps.
    let op = Op::Cool { deployment: 0, for_ms: 50 };
    assert_eq!(unseen(&[vec![lost(op, 100_000), death(0, 102_000), free(110, 110)]]), 0);
}

#[test]
fn at_rest_a_deployment_says_what_was_logged() {
    let at = |log: &[Entry], left_ms, totals| {
        let (mut judge, mut faults) = (Judge::default(), Faults::default());
        let times = (110_000, 112_000);
        let statuses = vec![Status { deployment: 0, times, left_ms, totals }];
        let rest = Rest { statuses, ..Rest::default() };
        judge.judge([log.iter().copied()], vec![], &rest, 112_000, &mut faults);
        [Fault::Unseen, Fault::UnderAdmitted, Fault::WrongStatistics].map(|f| faults.count(f))
    };
    let cooled = [cool(50, 100, 102, true)];
    let left = [37, 38, 42, 43].map(|left_ms| at(&cooled, left_ms, [0, 0]));
    assert_eq!(left, [[1, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0]]);
    let op = Op::Cool { deployment: 0, for_ms: 50 };
    let killed = [lost(op, 100_000), death(0, 104_000)];
    assert_eq!([0, 44, 45].map(|left_ms| at(&killed, left_ms, [0, 0])[1]), [0, 0, 1]);
    let count = |failed| Op::Count { deployment: 0, failed };
    let log =
        [done(count(true), 1, 2), done(count(false), 1, 2), lost(count(true), 3), death(4, 5)];
    let wrong = |successes, failures| at(&log, 0, [successes, failures])[2];
    assert_eq!([wrong(1, 0), wrong(1, 1), wrong(1, 2), wrong(1, 3)], [1, 0, 0, 1]);
    assert_eq!([wrong(0, 1), wrong(2, 1)], [1, 1]);
}

#[test]
fn keys_without_room_share_one_quota_or_have_one_in_each_life() {
    let rate = limits::CROWD_RATE;
    let (burst, members) = (u64::from(rate.burst), 3);
    let logs = |key: &dyn Fn(u64) -> usize| {
        let checks = |of: u64| {
            let check = |n| done(Op::Check { key: key(of + n % members) }, 7, 7);
            (0..burst).map(check).collect::<Vec<_>>()
        };
        over_admitted(&[checks(0), checks(members)])
    };
    // All of them together, one in each life, two lives in one.
    assert_eq!(logs(&|_| limits::CROWD_KEYS), 1);
    assert_eq!(logs(&|of| limits::CROWD_KEYS + 1 + usize::try_from(of).unwrap()), 0);
    let one = |of: u64| limits::CROWD_KEYS + 1 + usize::from(of > 1_000);
    assert_eq!(logs(&one), 1);
}

#[test]
fn the_policy_decides_about_keys_without_room() {
    let judged = |scene: Scene, entry: Entry| {
        let (mut judge, mut faults) = (Judge::default(), Faults::default());
        judge_epoch(&mut judge, &[vec![entry]], vec![], &mut faults);
        scene.judge(&judge.tally, &mut faults);
        [Fault::OverAdmitted, Fault::Unexpected].map(|fault| faults.count(fault))
    };
    let check = Op::Check { key: limits::CROWD_KEYS };
    let admitted = || done(check, 1, 1);
    let end = End { at: 1, answer: Answer::Failed(1) };
    let without_room = || Entry { op: check, begun: 1, end: Some(end) };
    for scene in SCENES {
        let (over, unexpected) = match scene {
            Scene::Crowded(Overflow::Deny) => ([1, 0], [0, 0]),
            Scene::Crowded(_) => ([0, 0], [0, 1]),
            Scene::Usual => ([0, 0], [0, 0]),
        };
        assert_eq!((judged(scene, admitted()), judged(scene, without_room())), (over, unexpected));
    }
}

#[test]
fn what_one_region_reached_stays_reached() {
    let one = |numbers: &[u64]| Reach { overflowed: numbers.to_vec(), ..Reach::default() };
    let mut reach = Reach::default();
    for region in [one(&[5_000, 0, 0]), one(&[]), one(&[0, 5_000, 0])] {
        reach.join(&region);
    }
    assert_eq!(reach.overflowed, [5_000, 5_000, 0]);
    let untested = reach.untested();
    assert!(untested.len() == 1 && untested[0].contains("Local"), "{untested:?}");
}
