//! Hostile bytes.
#![allow(unreachable_pub, dead_code, reason = "x")]
#[path = "hostile/mod.rs"]
mod hostile;

use fast_litellm::inspect::Report;
use fast_litellm::verify::verify;
use hostile::damage;
use hostile::drive::{Caller, KEYS, Limiters, Operation};
use hostile::ground::Ground;
use hostile::source::Source;

#[test]
fn probe() {
    for seed in std::env::var("FROM").map_or(0, |v| v.parse().unwrap())
        ..std::env::var("TO").map_or(200, |v| v.parse().unwrap())
    {
        let ground = Ground::new();
        let limiters = Limiters::of(&ground.engine);
        let mut caller = Caller::new(&ground.engine, &limiters);
        let mut source = Source::Seeded(seed);
        for _ in 0..300 {
            let op = Operation::any(&mut source, &KEYS);
            caller.run(&op);
            ground.clock.advance_ns(source.number() % 3_000_000_000);
        }
        let f = verify(ground.region());
        assert!(f.is_empty(), "{seed} {f:?}");
        for _ in 0..50 {
            damage::once(&ground, &mut source);
        }
        let f = verify(ground.region());
        if seed < 3 {
            for x in &f {
                println!("{x}");
            }
        }
        serde_json::to_string(&Report::of(ground.region())).unwrap();
        for _ in 0..100 {
            let op = Operation::any(&mut source, &KEYS);
            let r = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| caller.run(&op)));
            if r.is_err() {
                println!("seed {seed}: {op:?} {}", op.name());
                break;
            }
            ground.clock.advance_ns(source.number() % 3_000_000_000);
        }
    }
}

#[test]
fn targets() {
    for seed in 0..300_u64 {
        let mut source = Source::Seeded(seed);
        let bytes: Vec<u8> = (0..source.below(3000)).map(|_| source.byte()).collect();
        println!("{seed}");
        hostile::targets::attach(&bytes);
        hostile::targets::operations(&bytes);
        hostile::targets::inspect(&bytes);
    }
}
