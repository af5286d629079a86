//! What damage does to the key that it hits, and when it is over: the table in `shm_layout.md`, section 13.

use super::drive::{TTL_S, WINDOW_S};
use super::ground::Ground;
use super::source::Source;
use fast_litellm::engine::health::Cause;
use fast_litellm::engine::slots::{Grant, SlotAsk};
use fast_litellm::engine::windows::{Ask, Verdict};
use fast_litellm::layout::section::{BUCKETS, DEPLOYMENTS, FEATURES, LEASES, NAMES, WORKERS};
use fast_litellm::layout::{CounterWord, FailureKind, LeaseWord};
use fast_litellm::primitives::gcra::{self, Quota};
use fast_litellm::primitives::sliding::{self, SlidingLimit};
use fast_litellm::sync::Bits;

const SLOTS: &str = "{user:a}:max_parallel_requests";
const LIMIT: i64 = 10;
const DAY_S: u64 = 86_400;

/// A damaged word: of any kind, or one bit off.
fn damaged(word: u64, source: &mut Source<'_>) -> u64 {
    match source.byte() % 3 {
        0 => word ^ 1 << (source.byte() % 64),
        1 => source.number(),
        _ => source.word(),
    }
}

/// Damages fields of a record.
fn hit(ground: &Ground, source: &mut Source<'_>, id: u64, record: usize, fields: &[&str]) {
    for field in fields {
        let at = ground.field(id, record, field);
        ground.put(at, damaged(ground.word(at), source));
    }
}

/// Position of the only record of a table that is in use.
fn only(ground: &Ground, id: u64) -> usize {
    let (_, _, count) = ground.section(id);
    let used: Vec<usize> = (0..usize::try_from(count).expect("small"))
        .filter(|&record| ground.word(ground.at(id, record)) != 0)
        .collect();
    assert_eq!(used.len(), 1);
    used[0]
}

fn rounds(test: impl Fn(&Ground, &mut Source<'_>)) {
    for seed in 0..120 {
        test(&Ground::new(), &mut Source::Seeded(seed));
    }
}

#[test]
fn a_rate_admits_one_burst_at_most_and_is_itself_after_two() {
    rounds(|ground, source| {
        let limiter = ground.engine.limiter("", Quota::new(60, 6).expect("valid"));
        let admitted = || {
            let check = |_: &u64| {
                let answer = ground.engine.check(&limiter, b"k");
                matches!(answer, Ok(gcra::Decision::Allowed { .. }))
            };
            (0..20).filter(check).count()
        };
        let place = ground.engine.place(&limiter, b"k").expect("room");
        assert_eq!(admitted(), 6);
        hit(ground, source, BUCKETS, place.slot, &["requests", "tokens", "window", "limits"]);
        assert!(admitted() <= 6);
        ground.clock.advance_s(2 * 6);
        assert_eq!(admitted(), 6);
    });
}

#[test]
fn a_sliding_window_admits_its_limit_at_most_and_is_itself_after_two() {
    rounds(|ground, source| {
        let limiter = ground.engine.sliding_limiter("", SlidingLimit::new(20, 60).expect("valid"));
        let admitted = || {
            let check = |_: &u64| {
                let answer = ground.engine.check_sliding(&limiter, b"k", 1);
                matches!(answer, Ok(sliding::Decision::Allowed { .. }))
            };
            (0..40).filter(check).count()
        };
        assert_eq!(admitted(), 20);
        let fields = ["requests", "tokens", "window", "limits"];
        hit(ground, source, BUCKETS, only(ground, BUCKETS), &fields);
        assert!(admitted() <= 20);
        ground.clock.advance_s(2 * 60);
        assert_eq!(admitted(), 20);
    });
}

/// Admissions of one token each, of 40 asked for.
fn tokens(ground: &Ground) -> usize {
    let ask = Ask {
        window: "{user:a}:window",
        counter: "{user:a}:tokens",
        limit: LIMIT,
        amount: 1,
        size_s: WINDOW_S,
    };
    let admit = |_: &u64| matches!(ground.engine.admit_all(&[ask]), Ok(Verdict::Admitted(_)));
    (0..40).filter(admit).count()
}

#[test]
fn a_window_admits_its_limit_at_most_unless_its_count_is_negative_and_is_itself_after_one() {
    rounds(|ground, source| {
        assert_eq!(tokens(ground), 10);
        let bucket = only(ground, BUCKETS);
        hit(ground, source, BUCKETS, bucket, &["requests", "tokens", "window", "limits"]);
        let count = CounterWord::from_bits(ground.word(ground.field(BUCKETS, bucket, "tokens")));
        assert!(tokens(ground) <= 10 || count.count() < 0);
        ground.clock.advance_s(WINDOW_S);
        assert_eq!(tokens(ground), 10);
    });
}

#[test]
fn a_counter_of_its_own_lasts_no_longer_than_194_days() {
    rounds(|ground, source| {
        assert_eq!(ground.engine.add("spend:a", 5, 60), Ok(5));
        hit(ground, source, BUCKETS, only(ground, BUCKETS), &["requests", "window"]);
        if ground.engine.value("spend:a").is_some() {
            ground.clock.advance_s(CounterWord::MAX_TTL_S);
        }
        assert_eq!(ground.engine.value("spend:a"), None);
        assert_eq!(ground.engine.add("spend:a", 5, 60), Ok(5));
    });
}

/// How many slots can be had, each under an id that has none yet.
fn slots(ground: &Ground, from: u64) -> u64 {
    let have = |number: &u64| {
        let id = number.to_string();
        let ask = SlotAsk { key: SLOTS, limit: LIMIT, ttl_s: TTL_S, slot_id: &id };
        matches!(ground.engine.acquire_all(&[ask]), Ok(Grant::Held(_)))
    };
    (from..from + 20).filter(have).count() as u64
}

#[test]
fn hints_about_slots_change_nothing() {
    rounds(|ground, source| {
        assert_eq!(slots(ground, 0), 10);
        let chunk = only(ground, LEASES);
        hit(ground, source, LEASES, chunk, &["hint", "key_slot", "ordinal", "held"]);
        hit(ground, source, BUCKETS, only(ground, BUCKETS), &["lease"]);
        assert_eq!(slots(ground, 100), 0);
        for id in 0..10_u64 {
            ground.engine.release(SLOTS, &id.to_string()).expect("known");
        }
        assert_eq!(ground.engine.count_slots(SLOTS, 0), Ok(0));
        assert_eq!(slots(ground, 200), 10);
    });
}

#[test]
fn slots_of_nobody_are_free_and_those_of_somebody_after_their_time() {
    rounds(|ground, source| {
        assert_eq!(slots(ground, 0), 10);
        let first = ground.field(LEASES, only(ground, LEASES), "holders");
        let me = ground.engine.me().expect("a row").raw();
        let now_s = ground.engine.now().s();
        for slot in 0..10 {
            let word = match source.byte() % 3 {
                0 => LeaseWord::new(me, now_s.saturating_sub(u64::from(source.byte())), 0).bits(),
                _ => damaged(ground.word(first + 8 * slot), source) & !0xffff_fc00,
            };
            ground.put(first + 8 * slot, word);
        }
        assert!(slots(ground, 100) <= 10);
        ground.clock.advance_s(TTL_S);
        assert_eq!(slots(ground, 200), 10);
    });
}

#[test]
fn a_breaker_is_tried_again_after_its_rest() {
    use fast_litellm::engine::features::{BREAKER, BREAKER_REST_S};
    use fast_litellm::primitives::breaker::Admission;
    rounds(|ground, source| {
        ground.engine.feature_error(1);
        hit(ground, source, FEATURES, 1, &["breaker", "errors_total"]);
        assert!(ground.engine.feature_error(1) >= 1);
        // A time of the next hour is believed, any other one is gone now.
        ground.clock.advance_s(3_600 + BREAKER_REST_S);
        let admitted = ground.engine.feature_admits(1, BREAKER);
        assert!(!matches!(admitted, Admission::Open { .. }), "{admitted:?}");
    });
}

#[test]
fn a_cooldown_is_over_when_it_is_ended() {
    rounds(|ground, source| {
        ground.engine.cool_down("a", 1_000, &Cause::of(FailureKind::Server)).expect("room");
        hit(ground, source, DEPLOYMENTS, only(ground, DEPLOYMENTS), &["cooldown"]);
        assert!(ground.engine.cooldown_left_ms("a") <= 31 * DAY_S * 1_000);
        ground.engine.end_cooldown("a").expect("not contended");
        assert_eq!(ground.engine.cooldown_left_ms("a"), 0);
    });
}

#[test]
fn a_name_is_written_again_by_whoever_uses_the_key() {
    rounds(|ground, source| {
        let limiter = ground.engine.limiter("", Quota::new(60, 6).expect("valid"));
        let slot = ground.engine.place(&limiter, b"the key").expect("room").slot;
        hit(ground, source, NAMES, slot, &["head", "bytes"]);
        for _ in 0..64 {
            ground.engine.check(&limiter, b"the key").expect("room");
        }
        let report = fast_litellm::inspect::Report::of(ground.region());
        assert!(report.limits.iter().any(|limit| limit.key == "the key"), "{:?}", report.limits);
    });
}

/// What it held counts as nobody's; from then on the limit holds again.
#[test]
fn a_worker_whose_row_is_damaged_registers_again() {
    rounds(|ground, source| {
        assert_eq!(slots(ground, 0), 10);
        let row = usize::try_from(ground.engine.me().expect("a row").row()).expect("small");
        hit(ground, source, WORKERS, row, &["claim", "start_ticks", "pid_namespace"]);
        assert!(slots(ground, 100) <= 10);
        assert_eq!(slots(ground, 200), 0);
        assert_eq!(ground.engine.count_slots(SLOTS, 0), Ok(10));
    });
}
