//! How long it takes from a worker's death until somebody else holds its slot: measured, not judged.

use crate::control::Control;
use crate::crowd::Scene;
use crate::limits::SEATS;
use crate::master::new_engine;
use crate::mix::Mix;
use crate::process::{self, monotonic_ns};
use crate::random::Random;
use fast_litellm::engine::Engine;
use fast_litellm::engine::slots::{Grant, SlotAsk};
use fast_litellm::sync::Ordering;
use nix::sys::signal::Signal;

const KEY: &str = "{key:probe}:max_parallel_requests";
/// Words of the probe: the round, the round in which the holder holds, the round in which the heir has
/// got the slot, and when.
const ROUND: usize = 0;
const HELD: usize = 1;
const TAKEN: usize = 2;
const TAKEN_AT: usize = 3;

/// Who finds out that the holder is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaper {
    /// The master, as soon as it has waited for it.
    Master,
    /// A worker that wants the slot and is refused.
    Helper,
}

/// Times it so often, under the load of the usual workers: from the return of `waitpid` to the acquire
/// that got the slot, nanoseconds. 0 where that came first.
pub(crate) fn measure(control: Control, times: u64, seed: u64, reaper: Reaper) -> Vec<u64> {
    let engine = new_engine(Scene::Usual);
    let mut others: Vec<i32> = (2..SEATS as u64)
        .map(|number| {
            let random = Random::new(seed ^ number);
            process::fork(|| {
                load(Mix::new(&engine, control, random, Scene::Usual, (number, number.to_string())))
            })
        })
        .collect::<std::io::Result<_>>()
        .expect("room for more processes");
    control.probe(HELD).store(0, Ordering::SeqCst);
    control.probe(TAKEN).store(0, Ordering::SeqCst);
    if reaper == Reaper::Helper {
        others.push(process::fork(|| inherit(&engine, control)).expect("room for a process"));
    }
    let waits = (1..=times).map(|round| {
        control.probe(ROUND).store(round, Ordering::SeqCst);
        let holder = process::fork(|| hold(&engine, control, round)).expect("room for a process");
        await_round(control, HELD, round);
        process::send(holder, Signal::SIGKILL).expect("a child");
        process::wait(holder).expect("a child");
        let dead_at = monotonic_ns();
        match reaper {
            Reaper::Master => {
                engine.reap_dead();
                while !acquire(&engine) {}
                control.probe(TAKEN_AT).store(monotonic_ns(), Ordering::SeqCst);
                engine.release(KEY, "probe").expect("a known key");
            }
            Reaper::Helper => await_round(control, TAKEN, round),
        }
        control.probe(TAKEN_AT).load(Ordering::SeqCst).saturating_sub(dead_at)
    });
    let waits = waits.collect();
    for pid in others {
        process::send(pid, Signal::SIGKILL).expect("a child");
        process::wait(pid).expect("a child");
    }
    waits
}

fn acquire(engine: &Engine) -> bool {
    let ask = SlotAsk { key: KEY, limit: 1, ttl_s: 0, slot_id: "probe" };
    matches!(engine.acquire_all(&[ask]), Ok(Grant::Held(_)))
}

fn await_round(control: Control, word: usize, round: u64) {
    while control.probe(word).load(Ordering::SeqCst) != round {
        std::thread::yield_now();
    }
}

/// Takes the slot and waits for death.
fn hold(engine: &Engine, control: Control, round: u64) -> i32 {
    while !acquire(engine) {
        std::thread::yield_now();
    }
    control.probe(HELD).store(round, Ordering::SeqCst);
    loop {
        nix::unistd::pause();
    }
}

/// Wants the slot as soon as it is held, and gives it back.
fn inherit(engine: &Engine, control: Control) -> i32 {
    for round in 1.. {
        await_round(control, HELD, round);
        while !acquire(engine) {}
        control.probe(TAKEN_AT).store(monotonic_ns(), Ordering::SeqCst);
        let _ = engine.release(KEY, "probe");
        control.probe(TAKEN).store(round, Ordering::SeqCst);
    }
    0
}

/// What the other workers do meanwhile.
fn load(mut mix: Mix<'_>) -> i32 {
    let mut number = 0;
    loop {
        let op = mix.pick();
        mix.perform(op, number);
        number += 1;
    }
}
