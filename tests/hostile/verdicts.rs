//! What `verify` finds, and what it does not: nothing in a region in full use, and every kind of damage.

use super::damage;
use super::drive::{Caller, KEYS, Limiters, Operation, WINDOW_S};
use super::ground::{Ground, offset_of, smallest};
use super::source::Source;
use fast_litellm::config::Capacity;
use fast_litellm::engine::Engine;
use fast_litellm::engine::health::Cause;
use fast_litellm::engine::slots::SlotAsk;
use fast_litellm::engine::windows::Ask;
use fast_litellm::layout::section::{
    BOARD, BUCKETS, DEPLOYMENTS, EVENTS, FEATURES, HISTOGRAMS, JOBS, LEASES, NAMES, SERIES, STATS,
    WORKERS,
};
use fast_litellm::layout::{FailureKind, IdentityWord, KeyKind};
use fast_litellm::primitives::gcra::Quota;
use fast_litellm::primitives::sliding::SlidingLimit;
use fast_litellm::sync::{Ordering, Word};
use fast_litellm::tables::index;
use fast_litellm::verify::Severity::{self, Damage, Harmless};
use fast_litellm::verify::{Counts, MAX_FINDINGS, count, verify};

/// Everything at once, by several threads, in a table that is too small, with workers that come and go.
#[test]
fn a_region_in_full_use_verifies_clean() {
    let ground = Ground::new();
    let limiters = Limiters::of(&ground.engine);
    let done = Word::new(0_u64);
    let is_done = || done.load(Ordering::Relaxed) == 1;
    let enough = || {
        ground.engine.total(|row| &row.keys_reclaimed) > 100
            && ground.engine.total(|row| &row.registrations) > 10
    };
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (ground, limiters) = (&ground, &limiters);
            scope.spawn(move || {
                let mut caller = Caller::new(&ground.engine, limiters);
                let mut source = Source::Seeded(seed);
                while !is_done() {
                    caller.run(&Operation::keyed(&mut source, &KEYS));
                    ground.clock.advance_ns(source.number() % 50_000_000);
                }
            });
        }
        scope.spawn(|| crowd(&ground, &is_done));
        scope.spawn(|| come_and_go(&ground, &is_done));
        for round in 0..20_000 {
            // However fast the machine is, all of it must have happened.
            if round >= 150 && enough() {
                break;
            }
            let findings = verify(ground.region());
            if !findings.is_empty() {
                done.store(1, Ordering::Relaxed);
                panic!("{findings:#?}");
            }
        }
        done.store(1, Ordering::Relaxed);
    });
    assert_eq!(verify(ground.region()), []);
    assert_eq!(ground.attach().expect("sound").findings(), Some(Counts::default()));
    assert_eq!(ground.region().findings(), Some(Counts::default()), "it was attached to");
    assert!(enough());
}

/// More keys than there is room for.
fn crowd(ground: &Ground, is_done: &impl Fn() -> bool) {
    let limiter = ground.engine.limiter("crowd", Quota::new(6_000, 1).expect("valid"));
    let sliding = ground.engine.sliding_limiter("crowd", SlidingLimit::new(1, 1).expect("valid"));
    for number in (0_u64..).take_while(|_| !is_done()) {
        let key = format!("{}", number % 5_000);
        let _ = ground.engine.check(&limiter, key.as_bytes());
        let _ = ground.engine.check_sliding(&sliding, key.as_bytes(), 1);
        let _ = ground.engine.add(&key, 1, 1);
    }
}

fn come_and_go(ground: &Ground, is_done: &impl Fn() -> bool) {
    while !is_done() {
        let engine = Engine::new(ground.attach().expect("sound"));
        let key = "{come:and-go}:max_parallel_requests";
        for slot_id in ["1", "2"] {
            let _ = engine.acquire_all(&[SlotAsk { key, limit: 3, ttl_s: 0, slot_id }]);
        }
        let _ = engine.release(key, "1");
        engine.leave();
    }
}

/// A region with one record of each kind in use, and nothing wrong with it.
fn furnished() -> Ground {
    let ground = Ground::new();
    let engine = &ground.engine;
    let rate = engine.limiter("", Quota::new(60, 6).expect("valid"));
    engine.check(&rate, b"k").expect("room");
    let sliding = engine.sliding_limiter("", SlidingLimit::new(20, 60).expect("valid"));
    engine.check_sliding(&sliding, b"k", 1).expect("room");
    let (window, counter) = ("{user:a}:window", "{user:a}:tokens");
    let ask = Ask { window, counter, limit: 10, amount: 1, size_s: WINDOW_S };
    engine.admit_all(&[ask]).expect("room");
    let key = "{user:a}:max_parallel_requests";
    engine.acquire_all(&[SlotAsk { key, limit: 3, ttl_s: 0, slot_id: "x" }]).expect("room");
    engine.add("spend:a", 1, 60).expect("room");
    engine.deployment_succeeded("a", WINDOW_S, Some(1_000), Some(10)).expect("room");
    engine.deployment_failed("a", WINDOW_S, FailureKind::Server, 500).expect("room");
    let cause = Cause { kind: FailureKind::Server, status: 503, text: "the provider is away" };
    engine.cool_down("a", 5_000, &cause).expect("room");
    engine.deployment_scored("a", 40).expect("room");
    let series = engine.series("routing").expect("room");
    engine.measure(series, 1_000);
    engine.lead("a", 60).expect("room").expect("nobody leads");
    engine.publish("a", b"what all are to know", 60).expect("room");
    engine.feature_error(1);
    assert_eq!(verify(ground.region()), []);
    ground
}

/// Which record of a section.
#[derive(Clone, Copy)]
enum Which {
    /// Its number.
    At(usize),
    /// The one in which a key of that kind stands.
    Key(KeyKind),
    /// One that was never used.
    Unused,
}

impl Which {
    fn find(self, ground: &Ground, id: u64) -> usize {
        let kind = |record: usize| {
            let word = fast_litellm::sync::Bits::from_bits(ground.word(ground.at(id, record)));
            index::key_of(word).map(IdentityWord::kind)
        };
        let (_, _, count) = ground.section(id);
        let mut records = 0..usize::try_from(count).expect("small");
        let found = match self {
            Self::At(record) => Some(record),
            Self::Key(wanted) => records.find(|&record| kind(record) == Some(wanted as u64)),
            Self::Unused => records.rfind(|&record| ground.word(ground.at(id, record)) == 0),
        };
        found.expect("such a record")
    }
}

type Case = (u64, Which, &'static str, u64, Severity, &'static str);

/// Section, record, field that is set, to what, and the finding: how bad, and at which field.
fn cases() -> Vec<Case> {
    use Which::{At, Key, Unused};
    let (gcra, window) = (Key(KeyKind::Gcra), Key(KeyKind::Window));
    let (counter, sliding) = (Key(KeyKind::Counter), Key(KeyKind::Sliding));
    let (chunk, named) = (Key(KeyKind::Chunk), Key(KeyKind::Named));
    vec![
        (WORKERS, At(0), "claim", 1, Damage, "claim"),
        (WORKERS, At(2), "claim", 1, Damage, "claim"),
        (WORKERS, At(2), "claim", 3 | 5 << 42, Damage, "claim"),
        (WORKERS, At(2), "claim", 7 << 2, Harmless, "claim"),
        (WORKERS, At(2), "registered_s", 1 << 40, Harmless, "registered_s"),
        (WORKERS, At(1), "start_ticks", 1 << 60, Harmless, "start_ticks"),
        (WORKERS, At(3), "reserved", 1, Damage, "reserved"),
        (STATS, At(1), "contended", 1 << 60, Damage, "contended"),
        (STATS, At(1), "reserved", 1, Damage, "reserved"),
        (FEATURES, At(1), "breaker", u64::MAX, Harmless, "breaker"),
        (FEATURES, At(1), "flag", 3 | 101 << 2, Harmless, "flag"),
        (FEATURES, At(1), "errors_total", u64::MAX, Damage, "errors_total"),
        (FEATURES, At(1), "reserved", 1, Damage, "reserved"),
        (BUCKETS, gcra, "identity", 2, Damage, "identity"),
        (BUCKETS, gcra, "identity", 2 | 7 << 2, Damage, "identity"),
        (BUCKETS, gcra, "identity", 0, Damage, "identity"),
        (BUCKETS, gcra, "identity", 5 << 5 | 7 << 13, Harmless, "identity"),
        (BUCKETS, gcra, "identity", 1, Harmless, "identity"),
        (BUCKETS, gcra, "requests", u64::MAX >> 16, Harmless, "requests"),
        (BUCKETS, gcra, "allowed", u64::MAX, Damage, "allowed"),
        (BUCKETS, sliding, "requests", 60_000, Harmless, "requests"),
        (BUCKETS, counter, "requests", u64::MAX, Harmless, "requests"),
        (BUCKETS, window, "window", u64::from(u32::MAX) | 60 << 32, Harmless, "window"),
        (BUCKETS, window, "window", 1, Harmless, "window"),
        (BUCKETS, window, "tokens", 1 << 37 | 2 << 38, Harmless, "tokens"),
        (BUCKETS, window, "tokens", 1 << 60, Harmless, "tokens"),
        (BUCKETS, window, "lease", u64::MAX >> 12, Harmless, "lease"),
        (BUCKETS, Unused, "denied", 1, Damage, "identity"),
        (LEASES, chunk, "identity", 2, Damage, "identity"),
        (LEASES, chunk, "identity", 0, Damage, "identity"),
        (LEASES, chunk, "hint", 1 << 32, Harmless, "hint"),
        (LEASES, chunk, "key_slot", 1 << 20, Harmless, "key_slot"),
        (LEASES, chunk, "key_slot", 1, Harmless, "key_slot"),
        (LEASES, chunk, "ordinal", u64::MAX, Harmless, "ordinal"),
        (LEASES, chunk, "ordinal", 1, Harmless, "key_slot"),
        (LEASES, chunk, "held", 1 << 40, Harmless, "held"),
        (LEASES, chunk, "reserved", 1, Damage, "reserved"),
        (LEASES, chunk, "holders", 7, Harmless, "holders"),
        (LEASES, chunk, "holders", 0xffff_ffff, Harmless, "holders"),
        (LEASES, chunk, "holders", 1 | 1 << 10 | 0xffff_ffff << 32, Damage, "holders"),
        (LEASES, Unused, "tags", 1, Damage, "identity"),
        (NAMES, Unused, "head", 2, Harmless, "head"),
        (DEPLOYMENTS, named, "identity", 2, Damage, "identity"),
        (DEPLOYMENTS, named, "cooldown", u64::MAX >> 24, Harmless, "cooldown"),
        (DEPLOYMENTS, named, "cooldown", 99 << 40, Harmless, "cooldown"),
        (DEPLOYMENTS, named, "window", u64::MAX, Harmless, "window"),
        (DEPLOYMENTS, named, "successes", 1 << 60, Harmless, "successes"),
        (DEPLOYMENTS, named, "failures", 1 << 60, Harmless, "failures"),
        (DEPLOYMENTS, named, "last_failure", 1 << 63, Harmless, "last_failure"),
        (DEPLOYMENTS, named, "last_failure", 99, Harmless, "last_failure"),
        (DEPLOYMENTS, named, "latency", 7, Harmless, "latency"),
        (DEPLOYMENTS, named, "first_token", 200 << 40, Harmless, "first_token"),
        (DEPLOYMENTS, named, "lease", u64::MAX >> 12, Harmless, "lease"),
        (DEPLOYMENTS, named, "failures_in_a_row", u64::MAX, Damage, "failures_in_a_row"),
        (DEPLOYMENTS, named, "successes_total", u64::MAX, Damage, "successes_total"),
        (DEPLOYMENTS, named, "latencies", 1 << 40, Harmless, "latencies"),
        (DEPLOYMENTS, named, "first_tokens", u64::MAX, Harmless, "first_tokens"),
        (DEPLOYMENTS, named, "scores", u64::MAX, Harmless, "scores"),
        (DEPLOYMENTS, named, "cause", u64::MAX, Harmless, "cause"),
        (DEPLOYMENTS, named, "cause_head", 129, Harmless, "cause_head"),
        (DEPLOYMENTS, named, "name", 1, Harmless, "name"),
        (DEPLOYMENTS, named, "reserved", 1, Damage, "reserved"),
        (DEPLOYMENTS, Unused, "window", 1, Damage, "identity"),
        (SERIES, named, "identity", 3 | 1 << 2, Damage, "identity"),
        (SERIES, named, "errors", u64::MAX, Damage, "errors"),
        (SERIES, named, "name_head", 2 | 200 << 2, Harmless, "name"),
        (SERIES, Unused, "errors", 1, Damage, "identity"),
        (SERIES, Unused, "output_bytes", 1, Damage, "identity"),
        (JOBS, named, "identity", 2, Damage, "identity"),
        (JOBS, named, "lease", u64::MAX >> 12, Harmless, "lease"),
        (JOBS, named, "since", u64::MAX, Harmless, "since"),
        (JOBS, named, "name", 1, Harmless, "name"),
        (JOBS, Unused, "term", 1, Damage, "identity"),
        (BOARD, named, "identity", 2, Damage, "identity"),
        (BOARD, named, "lengths", 131_073, Harmless, "lengths"),
        (BOARD, named, "published_us", u64::MAX, Harmless, "published_us"),
        (BOARD, named, "name", 1, Harmless, "name"),
        (BOARD, named, "reserved", 1, Damage, "reserved"),
        (BOARD, Unused, "current", 1, Damage, "identity"),
        (HISTOGRAMS, Unused, "max_ns", 1, Damage, "max_ns"),
        (EVENTS, At(0), "sequence", 2, Harmless, "sequence"),
        (EVENTS, At(0), "sequence", 1 + 4_096, Harmless, "sequence"),
        (EVENTS, At(0), "a", 77, Harmless, "check"),
    ]
}

#[test]
fn every_kind_of_damage_is_found_where_it_is() {
    for (id, which, field, value, severity, reported) in cases() {
        let ground = furnished();
        let record = which.find(&ground, id);
        let at = ground.field(id, record, field);
        assert_ne!(ground.word(at), value, "{id} {field}: nothing is changed");
        ground.put(at, value);
        let findings = verify(ground.region());
        let found = findings.iter().any(|finding| {
            (finding.index, finding.severity, finding.field) == (record, severity, reported)
        });
        assert!(found, "{id} {record} {field} = {value:#x}: {findings:?}");
        assert!(findings.iter().all(|finding| finding.to_string().contains(", expected ")));
        // What goes with it is about the same key, nothing else.
        assert!(findings.len() <= 3, "{id} {record} {field} = {value:#x}: {findings:?}");
    }
}

#[test]
fn every_word_of_the_header_that_changed_is_found() {
    let harmless_or_free = ["epoch", "event_head", "creator_uid", "creator_start"];
    let by_gates = ["boot_id_high", "boot_id_low", "pid_namespace", "time_namespace"];
    for field in fast_litellm::layout::records()[0].fields.iter().map(|field| field.name) {
        if harmless_or_free.contains(&field) || by_gates.contains(&field) {
            continue;
        }
        let ground = furnished();
        let at = offset_of("Header", field);
        ground.put(at, ground.word(at) ^ 1 << 40);
        let findings = verify(ground.region());
        assert!(findings.iter().any(|finding| finding.field == field), "{field}: {findings:?}");
    }
    let ground = furnished();
    ground.put(256 + 3 * 32 + 8, 0);
    let findings = verify(ground.region());
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].section, findings[0].index), ("section table", 3));
}

#[test]
fn a_record_that_was_copied_is_found() {
    for (id, kind) in [(BUCKETS, KeyKind::Gcra), (LEASES, KeyKind::Chunk)] {
        let ground = furnished();
        let from = Which::Key(kind).find(&ground, id);
        // The first that was never used; the last buckets are a table of their own.
        let to = (0..64).find(|&record| ground.word(ground.at(id, record)) == 0).expect("room");
        let (_, stride, _) = ground.section(id);
        let copy = ground.read(ground.at(id, from), stride);
        ground.put_bytes(ground.at(id, to), &copy);
        let findings = verify(ground.region());
        let twice = |at: usize| {
            findings.iter().any(|finding| {
                let one = finding.expected == "a key that stands in one slot only";
                finding.index == at && finding.severity == Damage && one
            })
        };
        assert!(twice(from.max(to)), "{findings:?}");
        // Whoever attaches counts all but that.
        let counted = ground.attach().expect("sound").findings().expect("counted");
        assert!(counted.all() < findings.len() as u64);
    }
}

/// In a table of more than 64 chunks not every place is one of a key's.
#[test]
fn leases_where_nobody_looks_for_them_are_found() {
    let capacity = Capacity { lease_chunks: 512, ..smallest() };
    let ground = Ground::of(capacity);
    let key = "{user:a}:max_parallel_requests";
    let ask = SlotAsk { key, limit: 3, ttl_s: 0, slot_id: "x" };
    ground.engine.acquire_all(&[ask]).expect("room");
    assert_eq!(verify(ground.region()), []);
    let from = Which::Key(KeyKind::Chunk).find(&ground, LEASES);
    let (_, stride, _) = ground.section(LEASES);
    let record = ground.read(ground.at(LEASES, from), stride);
    let place = "a place of that key; its leases are not found here";
    let elsewhere = (0..512).filter(|&to| {
        ground.put_bytes(ground.at(LEASES, from), &[0; 576]);
        ground.put_bytes(ground.at(LEASES, to), &record);
        let found = verify(ground.region()).iter().any(|finding| {
            (finding.index, finding.severity, finding.expected) == (to, Damage, place)
        });
        ground.put_bytes(ground.at(LEASES, to), &[0; 576]);
        found
    });
    // Eight groups of eight; some may coincide.
    let elsewhere = elsewhere.count();
    assert!((512 - 64..512 - 8).contains(&elsewhere), "{elsewhere}");
}

/// A histogram's largest value is never below what it has counted.
#[test]
fn a_histogram_that_contradicts_itself_is_found() {
    let ground = furnished();
    let (_, _, count) = ground.section(HISTOGRAMS);
    let max = |row: usize| ground.field(HISTOGRAMS, row, "max_ns");
    let row = (0..usize::try_from(count).expect("small")).find(|&row| ground.word(max(row)) != 0);
    ground.put(max(row.expect("measured")), 3);
    let findings = verify(ground.region());
    assert_eq!(findings.len(), 1);
    assert_eq!((findings[0].field, findings[0].severity), ("max_ns", Damage));
}

/// Bounded, whatever it finds.
#[test]
fn no_more_is_kept_than_anybody_reads() {
    let ground = furnished();
    damage::scramble(&ground, &mut Source::Seeded(1), &[]);
    assert_eq!(verify(ground.region()).len(), MAX_FINDINGS);
    assert!(count(ground.region()).all() > MAX_FINDINGS as u64);
}
