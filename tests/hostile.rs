//! Regions full of bytes that nobody wrote: nothing panics, every operation returns, limits hold, and what
//! was damaged heals when `shm_layout.md` says so.
//!
//! With the feature `steps` every operation is also held to its bound, see `hostile/steps.rs`.
//!
//! Everything is chosen by seeds, so that a failure comes back. `fuzz/` chooses the same by coverage; what it
//! has found is in `tests/corpus/` and is run here.

#![allow(unreachable_pub, reason = "the modules are shared with the fuzz targets")]

#[path = "hostile/mod.rs"]
mod hostile;

use fast_litellm::engine::{Engine, health};
use fast_litellm::layout::IdentityWord;
use fast_litellm::layout::section::{BUCKETS, DEPLOYMENTS, LEASES, NAMES};
use fast_litellm::sync::{Bits, Ordering, Word};
use fast_litellm::tables::index;
use fast_litellm::tables::names::{self, Place};
use hostile::drive::{Caller, KEYS, Limiters, OPERATIONS, Operation};
use hostile::ground::{Ground, WORD};
use hostile::source::Source;
use hostile::steps::Size;
use hostile::watch::Watch;
use hostile::{damage, steps, targets};
use std::collections::HashSet;

/// The key that is damaged where only one is.
const VICTIM: usize = 0;
/// The others.
const OTHERS: [usize; 3] = [1, 2, 3];

/// Operations, and time that passes between them.
fn drive(
    ground: &Ground,
    caller: &mut Caller<'_>,
    source: &mut Source<'_>,
    watch: &Watch,
    n: usize,
) {
    for _ in 0..n {
        let operation = Operation::any(source, &KEYS);
        watch.begin(|| format!("{} {operation:?}", operation.name()));
        caller.run(&operation);
        ground.clock.advance_ns(source.number() % 3_000_000_000);
    }
}

fn each_seed(seeds: u64, test: impl Fn(&Ground, &mut Caller<'_>, &mut Source<'_>, &Watch)) {
    let watch = Watch::new();
    for seed in 0..seeds {
        let ground = Ground::new();
        let limiters = Limiters::of(&ground.engine);
        let mut caller = Caller::new(&ground.engine, &limiters);
        let told = Told(seed);
        test(&ground, &mut caller, &mut Source::Seeded(seed), &watch);
        std::mem::forget(told);
    }
}

/// Says which seed it was when a test panics.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("the seed was {}", self.0);
    }
}

#[test]
fn random_bytes_are_used_and_looked_at() {
    each_seed(60, |ground, caller, source, watch| {
        drive(ground, caller, source, watch, 60);
        // In every other round keys stand where they belong, so that their random state is met.
        let kept = damage::identities(ground);
        let kept = if source.byte() & 1 == 0 { &kept[..] } else { &[] };
        damage::scramble(ground, source, kept);
        watch.begin(|| "a look".to_string());
        targets::look(ground.region());
        let again = ground.attach().expect("the gates are in the header only");
        assert!(again.findings().is_some_and(|counts| counts.damage > 1_000));
        drive(ground, caller, source, watch, 60);
        watch.begin(|| "a newcomer".to_string());
        let size = Size::of(&again);
        let newcomer = steps::within(size.register(), || Engine::new(again));
        steps::within(size.operation("reap_dead"), || newcomer.reap_dead());
        steps::within(size.operation("leave"), || newcomer.leave());
        drive(ground, caller, source, watch, 60);
    });
}

#[test]
fn busy_regions_with_damaged_words_are_used_and_looked_at() {
    each_seed(150, |ground, caller, source, watch| {
        drive(ground, caller, source, watch, 100);
        for _ in 0..10 {
            for _ in 0..=source.byte() % 16 {
                damage::once(ground, source);
            }
            drive(ground, caller, source, watch, 20);
        }
        watch.begin(|| "a look".to_string());
        targets::look(ground.region());
        ground.attach().expect("the gates are in the header only");
    });
}

/// Another process writes what it likes while this one works.
#[test]
fn regions_that_are_written_over_in_use_are_used_and_looked_at() {
    each_seed(4, |ground, caller, source, watch| {
        drive(ground, caller, source, watch, 100);
        let done = Word::new(0_u64);
        let order = Ordering::Relaxed;
        let mut other = Source::Seeded(source.word());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while done.load(order) == 0 {
                    damage::once(ground, &mut other);
                }
            });
            for _ in 0..10 {
                drive(ground, caller, source, watch, 100);
                watch.begin(|| "a look".to_string());
                // What is found may be found once only, so nothing is compared.
                let most = steps::look(ground.len());
                steps::within(most, || fast_litellm::verify::verify(ground.region()));
                steps::within(most, || fast_litellm::inspect::Report::of(ground.region()));
                ground.attach().expect("the gates are in the header only");
            }
            done.store(1, order);
        });
    });
}

/// Offsets and lengths of all records in use that are not those of the other keys in an undamaged twin:
/// everything that is the victim's, and what its damage has left.
fn victims_records(ground: &Ground, twin: &Ground) -> Vec<(u64, u64)> {
    let others = others_keys(twin);
    let mut records = Vec::new();
    for (id, len) in [(BUCKETS, 64), (LEASES, 576), (DEPLOYMENTS, 768)] {
        let (_, stride, count) = ground.section(id);
        assert_eq!(stride, len);
        for record in 0..usize::try_from(count).expect("small") {
            let at = ground.at(id, record);
            let word = IdentityWord::from_bits(ground.word(at));
            let key = index::key_of(word).map(Bits::bits);
            if word != IdentityWord::default() && key.is_none_or(|key| !others.contains(&key)) {
                records.push((at, len));
                if id == BUCKETS {
                    records.push((ground.at(NAMES, record), 96));
                }
            }
        }
    }
    records
}

/// Identities of the keys, chunks and deployments that are not the victim's.
fn others_keys(ground: &Ground) -> HashSet<u64> {
    let region = ground.region();
    let key = |word: &Word<IdentityWord>| index::key_of(word.load(Ordering::Relaxed));
    let mine = |name: Option<String>| {
        let name = name.expect("every key is named");
        ["a", "slow/a", "large/a", "user:a", "spend:a"].contains(&name.as_str())
    };
    let mut keys = HashSet::new();
    let mut key_slots = HashSet::new();
    for (slot, bucket) in region.buckets().iter().enumerate() {
        if let Some(key) = key(&bucket.identity) {
            if mine(names::read(&region.names()[slot])) {
                key_slots.insert(slot as u64 + 1);
            } else {
                keys.insert(key.bits());
            }
        }
    }
    for (slot, record) in region.deployments().iter().enumerate() {
        if let Some(key) = key(&record.identity) {
            if mine(names::read(Place { head: &record.name_head, bytes: &record.name })) {
                key_slots.insert(health::key_slot(slot));
            } else {
                keys.insert(key.bits());
            }
        }
    }
    for chunk in region.chunks() {
        if let Some(key) = key(&chunk.identity)
            && !key_slots.contains(&chunk.key_slot.load(Ordering::Relaxed))
        {
            keys.insert(key.bits());
        }
    }
    keys
}

/// Damages a record, but for what would make it another key's: a zero, which ends searches, or a copy.
fn damage_record(ground: &Ground, source: &mut Source<'_>, (start, len): (u64, u64)) {
    for _ in 0..=source.byte() % 4 {
        let at = start + WORD * source.below(usize::try_from(len / WORD).expect("small")) as u64;
        let word = match source.byte() % 4 {
            0 => ground.word(at) ^ 1 << (source.byte() % 64),
            1 => source.number(),
            2 => u64::MAX,
            _ => source.word(),
        };
        let is_identity = at == start && len != 96;
        if !(is_identity && IdentityWord::from_bits(word) == IdentityWord::default()) {
            ground.put(at, word);
        }
    }
}

/// Whatever stands in one key's records, all answers for other keys are those of an undamaged region.
#[test]
fn damage_to_one_key_changes_nothing_for_the_others() {
    let watch = Watch::new();
    let (mut compared, mut damaged) = (0_u64, 0_u64);
    for seed in 0..60 {
        let told = Told(seed);
        let grounds = [Ground::new(), Ground::new()];
        let limiters = [0, 1].map(|at: usize| Limiters::of(&grounds[at].engine));
        let mut callers = [0, 1].map(|at: usize| Caller::new(&grounds[at].engine, &limiters[at]));
        let mut source = Source::Seeded(seed);
        for round in 0..400 {
            let keys: &[usize] = if source.byte() % 4 == 0 { &[VICTIM] } else { &OTHERS };
            let operation = Operation::keyed(&mut source, keys);
            watch.begin(|| format!("{} {operation:?}", operation.name()));
            let answers = [0, 1].map(|at: usize| callers[at].run(&operation));
            if operation.key != VICTIM || round < 100 {
                assert_eq!(answers[0], answers[1], "{} {operation:?}", operation.name());
                compared += 1;
            }
            let pause = source.number() % 3_000_000_000;
            for ground in &grounds {
                ground.clock.advance_ns(pause);
            }
            if round >= 100 && round % 20 == 0 {
                for record in victims_records(&grounds[0], &grounds[1]) {
                    damage_record(&grounds[0], &mut source, record);
                    damaged += 1;
                }
            }
        }
        std::mem::forget(told);
    }
    assert!(compared > 15_000 && damaged > 1_000, "{compared} {damaged}");
}

type Target = fn(&[u8]);

#[test]
fn the_corpus_of_the_fuzzer_is_run() {
    let watch = Watch::new();
    let targets: [(&str, Target); 3] = [
        ("attach", targets::attach),
        ("operations", targets::operations),
        ("inspect", targets::inspect),
    ];
    for (name, run) in targets {
        let folder = format!("{}/tests/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(&folder).expect("a corpus for every target");
        let mut paths: Vec<_> = files.map(|file| file.expect("readable").path()).collect();
        paths.sort();
        assert!(paths.len() > 3, "{folder} is nearly empty");
        for path in paths {
            watch.begin(|| path.display().to_string());
            eprintln!("{}", path.display());
            run(&std::fs::read(&path).expect("readable"));
        }
    }
}

/// The list of operations is complete: a new one is driven, or this fails.
#[test]
fn every_public_operation_is_driven() {
    // What takes a region, or tells about the process and not about the region.
    const OTHERS: [&str; 5] = ["new", "unregistered", "region", "now", "stats"];
    let folder = format!("{}/src/engine", env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for file in std::fs::read_dir(folder).expect("the engine's sources") {
        let path = file.expect("readable").path();
        // What is in folders are tests.
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(path).expect("readable");
        let blocks = text.split("\nimpl Engine {").skip(1);
        for block in blocks.filter_map(|rest| rest.split("\n}\n").next()) {
            let functions = block.split("\n    pub fn ").skip(1);
            let name = |rest: &str| rest.split(['(', '<']).next().map(str::to_string);
            found.extend(functions.filter_map(name));
        }
    }
    assert!(found.len() > 40, "{found:?}");
    for name in found {
        let driven = OTHERS.contains(&name.as_str())
            || name == "sliding_limiter"
            || OPERATIONS.iter().any(|(known, _)| *known == name);
        assert!(driven, "Engine::{name} is not in tests/hostile/drive.rs");
    }
}
