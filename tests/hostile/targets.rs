//! What the fuzz targets do with their bytes. The tests do the same with the corpus.

use super::damage;
use super::drive::{Caller, KEYS, Limiters, Operation};
use super::ground::{Ground, SECTIONS, fresh_file, put, smallest};
use super::source::Source;
use super::steps;
use fast_litellm::clock::FakeClock;
use fast_litellm::engine::Engine;
use fast_litellm::inspect::Report;
use fast_litellm::inspect::explain::{Explanation, Question};
use fast_litellm::inspect::known::Known;
use fast_litellm::inspect::search::Wanted;
use fast_litellm::region::{Region, attach_open};
use fast_litellm::verify::{MAX_FINDINGS, count, verify};
use std::os::unix::fs::FileExt;

/// Bytes of the header and the section table.
const TABLES: usize = 256 + 10 * 32;
/// Steps of one input.
const STEPS: usize = 200;

/// Reads all of a region in every way there is.
pub fn look(region: &Region) {
    let most = steps::look(region.len());
    let report = steps::within(most, || Report::of(region));
    assert!(serde_json::to_string(&report).is_ok_and(|text| text.len() > 2));
    let names = ["a", "{user:a}", "(keys without room)"].map(Wanted::new);
    let known = steps::within(2 * most, || Known::of(region, "", &names));
    assert!(serde_json::to_string(&known).is_ok_and(|text| text.len() > 2));
    let question = Question { cost: u64::MAX, slot_ttl_s: 600 };
    let told = steps::within(2 * most, || Explanation::of(region, "", &names, question));
    assert!(serde_json::to_string(&told).is_ok_and(|text| text.len() > 2));
    let findings = steps::within(most, || verify(region));
    assert!(findings.len() <= MAX_FINDINGS);
    let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
    // Both walk the same records; keys that stand twice are on the longer list only.
    let counted = steps::within(most, || count(region)).all();
    assert!(counted <= told.len() as u64 || told.len() == MAX_FINDINGS);
}

/// Bytes for header and section table of a small region's file: the first byte chooses whether they take the
/// place of what is there or change some words of it, and whether the file has another length.
pub fn attach(bytes: &[u8]) {
    let mut source = Source::Bytes(bytes);
    let clock = FakeClock::at(1_000_000_000_000);
    let file = fresh_file(smallest(), &clock);
    let mode = source.byte();
    if mode & 1 == 0 {
        while !source.is_over() {
            let at = 8 * (source.below(TABLES / 8) as u64);
            let mut old = [0; 8];
            file.read_exact_at(&mut old, at).expect("inside");
            let old = u64::from_le_bytes(old);
            let new = if source.byte() & 1 == 0 { source.number() } else { old ^ source.number() };
            put(&file, at, new);
        }
    } else if let Source::Bytes(rest) = source {
        file.write_all_at(&rest[..rest.len().min(TABLES)], 0).expect("inside");
    }
    let most = steps::look(file.metadata().expect("open").len());
    let again = || {
        let file = file.try_clone().expect("open");
        steps::within(most, || attach_open(file, Box::new(clock.clone())))
    };
    match again() {
        Err(refusal) => assert!(refusal.to_string().starts_with("region")),
        Ok(region) => {
            look(&region);
            drive(&Engine::new(region), &clock, &mut Source::Seeded(1), 30);
            assert!(again().is_ok(), "nothing that is written later closes a gate");
        }
    }
}

fn drive(engine: &Engine, clock: &FakeClock, source: &mut Source<'_>, steps: usize) {
    let limiters = Limiters::of(engine);
    let mut caller = Caller::new(engine, &limiters);
    for _ in 0..steps {
        caller.run(&Operation::any(source, &KEYS));
        clock.advance_ns(source.number() % 3_000_000_000);
    }
}

/// Bytes that choose operations, damage and the passing of time, in turn.
pub fn operations(bytes: &[u8]) {
    let mut source = Source::Bytes(bytes);
    let ground = Ground::new();
    let limiters = Limiters::of(&ground.engine);
    let mut caller = Caller::new(&ground.engine, &limiters);
    for _ in 0..STEPS {
        if source.is_over() {
            break;
        }
        match source.byte() % 8 {
            0 | 1 => damage::once(&ground, &mut source),
            2 => ground.clock.advance_ns(source.number() % (400 * 86_400 * 1_000_000_000)),
            _ => {
                caller.run(&Operation::any(&mut source, &KEYS));
            }
        }
    }
    look(ground.region());
}

/// Bytes for the sections of a region that has been in use: pieces of up to 255 bytes, each behind the
/// number of its section and of its word.
pub fn inspect(bytes: &[u8]) {
    let mut source = Source::Bytes(bytes);
    let ground = Ground::new();
    drive(&ground.engine, &ground.clock, &mut Source::Seeded(7), 40);
    while !source.is_over() {
        let (offset, stride, records) = ground.section(source.one_of(&SECTIONS));
        let len = stride * records;
        let at = 8 * (source.below(usize::try_from(len / 8).expect("small")) as u64);
        let room = usize::try_from(len - at).expect("small");
        let piece = usize::from(source.byte()).min(room);
        let piece: Vec<u8> = (0..piece).map(|_| source.byte()).collect();
        ground.put_bytes(offset + at, &piece);
    }
    look(ground.region());
}
