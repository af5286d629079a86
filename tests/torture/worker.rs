//! The life of a worker: note what comes next, do it, note how it ended, until somebody kills it.

use crate::entry::Op;
use crate::limits::{DEPLOYMENTS, SLOTS};
use crate::log::Log;
use crate::mix::Mix;
use crate::process::monotonic_ns;
use crate::random::Random;
use crate::sabotage::Sabotage;
use fast_litellm::engine::Engine;
use fast_litellm::engine::health::Departure;
use fast_litellm::engine::slots::{Grant, SlotAsk};

/// Lines that are left free at the end of a log: for the worker's last one and for its death.
pub(crate) const RESERVE: usize = 8;

/// One life in one seat.
pub(crate) struct Life<'a> {
    /// The region.
    pub(crate) engine: &'a Engine,
    /// Its operations.
    pub(crate) mix: Mix<'a>,
    /// Where they are noted.
    pub(crate) log: Log,
    /// Present epoch of the log.
    pub(crate) epoch: u64,
    /// The fine clock at second 0 of the region, nanoseconds.
    pub(crate) base_ns: u64,
    /// What it lies about.
    pub(crate) sabotage: Option<Sabotage>,
    /// When it lies.
    pub(crate) random: Random,
}

impl Life<'_> {
    /// Lives until it is killed.
    pub(crate) fn run(mut self) -> i32 {
        while self.log.room() > RESERVE {
            let op = self.mix.pick();
            let position = self.log.begin(self.epoch, op, time(self.engine, op));
            let mut answer = self.mix.perform(op, position);
            if let Some(sabotage) = self.sabotage {
                answer = sabotage.bend(self.engine, op, answer, &mut self.random);
            }
            let at = time(self.engine, op);
            if matches!(op, Op::Admit { .. }) {
                answer = answer.late(monotonic_ns() - self.base_ns - at * 1_000);
            }
            self.log.commit(position, at, answer);
        }
        // The log is full: the master is about to end the epoch.
        loop {
            nix::unistd::pause();
        }
    }
}

/// How long a worker tries to get all slots of the dead, nanoseconds. It looks for dead workers at most
/// every 50 ms.
const INHERIT_NS: u64 = 10_000_000_000;

/// Acquires every slot of all keys with a fixed limit and of all deployments, which only dead workers hold, and
/// gives them back.
/// False when that does not succeed in time.
pub(crate) fn inherits(engine: &Engine) -> bool {
    let end = monotonic_ns() + INHERIT_NS;
    let held = |key: &str, limit: u64, slot_id: &str| {
        let ask = SlotAsk { key, limit: limit.cast_signed(), ttl_s: 0, slot_id };
        while !matches!(engine.acquire_all(&[ask]), Ok(Grant::Held(_))) {
            if monotonic_ns() > end {
                return false;
            }
            std::thread::yield_now();
        }
        true
    };
    let fixed = SLOTS.iter().filter_map(|slots| Some((slots.key, slots.limit?)));
    let all = |(key, limit)| (0..limit).all(|slot| held(key, limit, &format!("heir-{slot}")));
    let sent = |&(id, limit): &(&str, u64)| {
        (0..limit).all(|_| {
            while !matches!(engine.depart(id, Some(limit)), Ok(Departure::Sent(_))) {
                if monotonic_ns() > end {
                    return false;
                }
                std::thread::yield_now();
            }
            true
        })
    };
    let inherited = fixed.into_iter().all(all) && DEPLOYMENTS.iter().all(sent);
    engine.leave();
    inherited
}

/// Now, by the clock that such operations are judged by.
fn time(engine: &Engine, op: Op) -> u64 {
    if op.by_region_clock() { engine.now().us() } else { monotonic_ns() }
}
