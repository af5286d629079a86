//! The master: one thread that forks workers, kills and stops them at random, waits for them, reaps them
//! or leaves that to the others, and after each epoch has everything judged.

use crate::admission::sliding_limiters;
use crate::control::Control;
use crate::crowd::{SCENES, Scene};
use crate::entry::{Answer, Op};
use crate::flights::statuses;
use crate::judge::{Fault, Faults, Judge, Reach, Reading, Rest, Room, Snapshot};
use crate::limits::{COUNTERS, CROWD_COUNTER, NEW_KEYS, SEATS, SLIDING, SLOTS, VARYING};
use crate::log::Log;
use crate::mix::Mix;
use crate::process::{self, Ended, monotonic_ns};
use crate::quiet;
use crate::random::Random;
use crate::sabotage::Sabotage;
use crate::worker::{self, Life, RESERVE};
use fast_litellm::clock::MonotonicClock;
use fast_litellm::config::{Capacity, Overflow};
use fast_litellm::engine::sliding::SlidingLimiter;
use fast_litellm::engine::{Counter, Engine};
use fast_litellm::inspect::counters;
use fast_litellm::region::{BackingKind, Placement, create};
use fast_litellm::sync::Ordering;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::time::Duration;

/// Lines of one seat's log.
pub(crate) const LINES: usize = 1 << 18;
/// Kills between two judgements, unless the logs are full before.
const EPOCH_KILLS: u64 = 2_000;
/// Kills in a region without room, which is judged once.
const CROWDED_KILLS: u64 = 400;
/// Keys of a region: so few that new ones find room only where idle ones are given up.
const KEYS: i128 = 1 << 11;
/// GCRA keys after which a region is replaced by a new one.
const REGION_KEYS: u64 = 1 << 14;
/// Rows of the worker table: few enough that dead workers fill it when nobody reaps.
const ROWS: i128 = 24;
/// Workers killed in a round, on average.
const VICTIMS: u64 = 4;
/// Longest pause between two rounds, microseconds.
const PAUSE_US: u64 = 4_000;
/// Longest time a worker is stopped, microseconds.
const STOP_US: u64 = 40_000;
/// A run that has not reached every limit may go on for so long, nanoseconds.
const REACH_NS: u64 = 60_000_000_000;

/// What all runs share.
pub(crate) struct Stage {
    /// One log for each seat.
    pub(crate) logs: Vec<Log>,
    /// Shared words.
    pub(crate) control: Control,
    /// Epochs so far; lines of the log carry it.
    pub(crate) epoch: u64,
}

/// What to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Orders {
    /// How many workers to kill.
    pub(crate) kills: u64,
    /// For everything random but the instants of the kills.
    pub(crate) seed: u64,
    /// What is broken on purpose.
    pub(crate) sabotage: Option<Sabotage>,
    /// Whether to go on until every limit was reached: with at most as many kills again, or for a minute if
    /// that is longer.
    pub(crate) reach: bool,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Faults found.
    pub(crate) faults: Faults,
    /// Figures by name.
    pub(crate) figures: BTreeMap<&'static str, u64>,
    /// How near the limits the workers came.
    pub(crate) reach: Reach,
}

impl Outcome {
    fn count(&mut self, name: &'static str, by: u64) {
        *self.figures.entry(name).or_default() += by;
    }
}

/// A worker's place.
#[derive(Clone, Copy, Default)]
struct Seat {
    pid: i32,
    /// When the stop ends; 0 = it is not stopped.
    stopped_until: u64,
}

/// The master at work.
pub(crate) struct Master<'a> {
    stage: &'a mut Stage,
    orders: Orders,
    random: Random,
    scene: Scene,
    regions: usize,
    engine: Engine,
    judge: Judge,
    seats: [Seat; SEATS],
    lives: u64,
    kills: u64,
    sums: Vec<u64>,
    snapshots: Vec<Snapshot>,
    outcome: Outcome,
}

/// A region in a memfd, as a preforking master makes it.
pub(crate) fn new_engine(scene: Scene) -> Engine {
    let keys = if scene == Scene::Usual { KEYS } else { 1 };
    let capacity = Capacity::checked(keys, 64, ROWS).expect("a valid capacity");
    let mut placement = Placement::inherited("torture");
    if let Placement::Inherited { kinds, .. } = &mut placement {
        *kinds = vec![BackingKind::Memfd];
    }
    let region = create(&placement, capacity, Box::new(MonotonicClock)).expect("a memfd");
    let engine = Engine::new(region);
    scene.set(&engine);
    engine
}

/// The fine clock at second 0 of the region. Both monotonic clocks count from the same instant.
fn base_ns(engine: &Engine) -> u64 {
    engine.region().header().clock_base_ns.load(Ordering::Relaxed)
}

impl<'a> Master<'a> {
    /// A master with a fresh region.
    pub(crate) fn new(stage: &'a mut Stage, orders: Orders) -> Self {
        stage.control.frontier().store(0, Ordering::Relaxed);
        let scene = orders.sabotage.map_or(Scene::Usual, Sabotage::scene);
        let engine = new_engine(scene);
        Self {
            scene,
            regions: 0,
            stage,
            orders,
            random: Random::new(orders.seed),
            judge: Judge::new(base_ns(&engine)),
            engine,
            seats: [Seat::default(); SEATS],
            lives: 0,
            kills: 0,
            sums: vec![0; counters().len()],
            snapshots: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    /// Kills as many workers as it was told. `progress` is called after each epoch.
    pub(crate) fn run(mut self, mut progress: impl FnMut(&Outcome)) -> Outcome {
        let begun = monotonic_ns();
        while self.kills < self.orders.kills || self.must_go_on(begun) {
            self.epoch();
            self.outcome.figures.insert("kills", self.kills);
            self.outcome.figures.insert("milliseconds", (monotonic_ns() - begun) / 1_000_000);
            progress(&self.outcome);
            if !self.outcome.faults.is_empty() {
                break;
            }
            let used_up = self.stage.control.frontier().load(Ordering::Relaxed) > REGION_KEYS;
            if used_up || self.scene != Scene::Usual && self.orders.sabotage.is_none() {
                self.renew_region();
            }
        }
        self.close_region();
        self.outcome
    }

    /// How much comes of so many kills depends on the machine: a limit may not have been reached yet.
    fn must_go_on(&self, begun: u64) -> bool {
        let in_bounds = self.kills < 2 * self.orders.kills || monotonic_ns() - begun < REACH_NS;
        let mut reach = self.outcome.reach.clone();
        reach.join(&self.judge.reach());
        self.orders.reach && in_bounds && !reach.untested().is_empty()
    }

    fn close_region(&mut self) {
        let judge = std::mem::take(&mut self.judge);
        self.outcome.reach.join(&judge.reach());
        for (name, count) in judge.tally {
            let decided = !matches!(name, "lost" | "deaths");
            self.outcome.count("decisions", if decided { count } else { 0 });
            self.outcome.count(name, count);
        }
        for ((name, _), sum) in counters().into_iter().zip(&self.sums) {
            if matches!(
                name,
                "lease_expired"
                    | "lease_reaped"
                    | "workers_reaped"
                    | "table_full"
                    | "contended"
                    | "keys_reclaimed"
                    | "misplaced"
            ) {
                self.outcome.count(name, *sum);
            }
        }
        self.outcome.count("regions", 1);
    }

    fn renew_region(&mut self) {
        self.close_region();
        self.stage.control.frontier().store(0, Ordering::Relaxed);
        self.sums.fill(0);
        self.regions += 1;
        self.scene = SCENES[self.regions % SCENES.len()];
        self.engine = new_engine(self.scene);
        self.judge = Judge::new(base_ns(&self.engine));
    }

    /// Kills until the epoch is full, then everybody, and has everything judged.
    fn epoch(&mut self) {
        self.stage.epoch += 1;
        self.stage.control.epoch().store(self.stage.epoch, Ordering::Relaxed);
        self.stage.logs.iter().for_each(Log::rewind);
        for seat in 0..SEATS {
            self.start(seat);
        }
        // A broken engine is judged often, so that little is enough.
        let kills = match (self.orders.sabotage, self.scene) {
            (Some(_), _) => 30,
            (None, Scene::Crowded(_)) => CROWDED_KILLS,
            (None, Scene::Usual) => EPOCH_KILLS,
        };
        let ordered = self.orders.kills.saturating_sub(self.kills);
        let kills = if ordered > 0 { kills.min(ordered) } else { kills };
        let end = self.kills + kills.saturating_sub(SEATS as u64);
        while self.kills < end && self.stage.logs.iter().all(|log| log.room() > 2 * RESERVE) {
            self.round();
        }
        self.await_work();
        self.bury(&(0..SEATS).collect::<Vec<_>>());
        self.judge();
    }

    /// Waits until each worker has done something: the last of an epoch die at work.
    fn await_work(&self) {
        let done = |log: &Log| log.len() as u64 + log.refused();
        let before: Vec<u64> = self.stage.logs.iter().map(done).collect();
        for (seat, (log, before)) in self.stage.logs.iter().zip(before).enumerate() {
            while self.seats[seat].stopped_until == 0 && log.room() > RESERVE && done(log) == before
            {
                std::thread::yield_now();
            }
        }
    }

    /// Kills some, replaces them, stops one, lets others go on.
    fn round(&mut self) {
        self.stage.control.rounds().fetch_add(1, Ordering::Relaxed);
        let mut victims: Vec<usize> =
            (0..SEATS).filter(|_| self.random.below(SEATS as u64) < VICTIMS).collect();
        self.wake(&mut victims);
        // Mostly the others are stopped meanwhile: then nobody has to wait for a processor to die on.
        let paused = if self.random.one_in(4) { Vec::new() } else { self.pause_others(&victims) };
        self.bury(&victims);
        if !paused.is_empty() && self.random.one_in(4) {
            self.take_snapshot();
        }
        if self.random.one_in(2) {
            self.engine.reap_dead();
        }
        for seat in victims {
            self.start(seat);
        }
        for seat in paused {
            process::send(self.seats[seat].pid, Signal::SIGCONT).expect("a living child");
        }
        self.change_limits();
        if self.random.one_in(3) {
            let seat = self.random.index(SEATS);
            self.stop(seat);
        }
        if self.random.one_in(16) {
            self.compare_sums();
        }
        // How long the workers are left alone is part of what is random.
        let pause = Duration::from_micros(self.random.below(PAUSE_US) / 2);
        std::thread::sleep(pause);
        self.stage.control.frontier().fetch_add(NEW_KEYS, Ordering::Relaxed);
        std::thread::sleep(pause);
    }

    fn pause_others(&self, victims: &[usize]) -> Vec<usize> {
        let others = |seat: &usize| !victims.contains(seat) && self.seats[*seat].stopped_until == 0;
        let others: Vec<usize> = (0..SEATS).filter(others).collect();
        for &seat in &others {
            process::send(self.seats[seat].pid, Signal::SIGSTOP).expect("a living child");
        }
        others
    }

    /// Lets those go on whose stop is over. One in four never does.
    fn wake(&mut self, victims: &mut Vec<usize>) {
        let now = monotonic_ns();
        for seat in 0..SEATS {
            let stopped = self.seats[seat];
            if stopped.stopped_until == 0 || stopped.stopped_until > now || victims.contains(&seat)
            {
                continue;
            }
            if self.random.one_in(4) {
                victims.push(seat);
            } else {
                process::send(stopped.pid, Signal::SIGCONT).expect("a living child");
                self.seats[seat].stopped_until = 0;
            }
        }
    }

    fn stop(&mut self, seat: usize) {
        if self.seats[seat].stopped_until == 0 {
            process::send(self.seats[seat].pid, Signal::SIGSTOP).expect("a living child");
            let spell_us = 1_000 + self.random.below(STOP_US);
            self.seats[seat].stopped_until = monotonic_ns() + spell_us * 1_000;
            self.outcome.count("stops", 1);
        }
    }

    /// Puts a new worker into a seat.
    fn start(&mut self, seat: usize) {
        self.lives += 1;
        let (engine, control) = (&self.engine, self.stage.control);
        let (log, epoch, sabotage) =
            (self.stage.logs[seat], self.stage.epoch, self.orders.sabotage);
        let mut random = Random::new(self.orders.seed ^ self.lives << 8);
        let (scene, life) = (self.scene, self.lives);
        let name = format!("{epoch}.{life}");
        let pid = process::fork(move || {
            let mix = Mix::new(engine, control, Random::new(random.word()), scene, (life, name));
            Life { engine, mix, log, epoch, base_ns: base_ns(engine), sabotage, random }.run()
        });
        let pid = pid.expect("room for another process");
        control.pid(seat).store(u64::from(pid.unsigned_abs()), Ordering::Relaxed);
        self.seats[seat] = Seat { pid, stopped_until: 0 };
    }

    /// Kills the workers in these seats and waits until they are dead.
    fn bury(&mut self, victims: &[usize]) {
        let begun: Vec<u64> = victims
            .iter()
            .map(|&seat| {
                let now = monotonic_ns();
                process::send(self.seats[seat].pid, Signal::SIGKILL).expect("a child");
                now
            })
            .collect();
        for (&seat, begun) in victims.iter().zip(begun) {
            let ended = process::wait(self.seats[seat].pid).expect("a child");
            if ended != Ended::Signal(libc::SIGKILL) {
                self.outcome.faults.add(Fault::Unexpected, || {
                    format!("the worker in seat {seat} ended by itself: {ended:?}")
                });
            }
            self.note_death(seat, begun);
        }
        self.kills += victims.len() as u64;
        self.stage.control.kills().store(self.kills, Ordering::Relaxed);
    }

    fn note_death(&mut self, seat: usize, begun: u64) {
        let (log, epoch) = (self.stage.logs[seat], self.stage.epoch);
        let stopped = self.seats[seat].stopped_until != 0;
        self.outcome.count("kills_while_stopped", u64::from(stopped));
        self.outcome.count("kills_in_an_operation", u64::from(log.settle(epoch)));
        let position = log.begin(epoch, Op::Death, begun);
        log.commit(position, monotonic_ns(), Answer::Admitted(self.engine.now().us()));
        self.stage.control.pid(seat).store(0, Ordering::Relaxed);
        self.seats[seat] = Seat::default();
    }

    /// Lowers or raises a limit that moves.
    fn change_limits(&mut self) {
        let slots = self.random.index(SLOTS.len());
        if SLOTS[slots].limit.is_none() && self.random.one_in(4) {
            let limit = VARYING[self.random.index(VARYING.len())];
            self.stage.control.limit(slots).store(limit, Ordering::Relaxed);
        }
    }

    /// Sums over all rows never go backwards, whoever died.
    fn compare_sums(&mut self) {
        for ((name, counter), before) in counters().into_iter().zip(&mut self.sums) {
            let now = self.engine.total(counter);
            if now < *before {
                self.outcome.faults.add(Fault::WrongStatistics, || {
                    format!("{name} went back from {before} to {now}")
                });
            }
            *before = now;
        }
    }

    /// Everybody is dead: what do the logs and the region say?
    fn judge(&mut self) {
        self.take_snapshot();
        let rest = Rest { rooms: self.rooms(), statuses: statuses(&self.engine) };
        let usual = self.orders.sabotage.is_none() && self.scene == Scene::Usual;
        if usual && self.random.one_in(2) {
            self.let_an_heir_take_all();
        }
        if self.orders.sabotage != Some(Sabotage::Row) {
            self.engine.reap_dead();
        }
        if let Some(sabotage) = self.orders.sabotage {
            sabotage.leave_behind(&self.engine);
        }
        self.compare_sums();
        quiet::examine(&self.engine, self.scene, &mut self.outcome.faults);
        for log in &self.stage.logs {
            self.outcome.count("refused", log.refused());
            self.outcome.count("decisions", log.refused());
        }
        let logs = self.stage.logs.iter().map(Log::entries);
        let snapshots = std::mem::take(&mut self.snapshots);
        self.outcome.count("snapshots", snapshots.len() as u64);
        let now_us = self.engine.now().us();
        self.judge.judge(logs, snapshots, &rest, now_us, &mut self.outcome.faults);
        self.scene.judge(&self.judge.tally, &mut self.outcome.faults);
        let overflowed: [Counter; 3] =
            [|row| &row.overflow_denied, |row| &row.overflow_shared, |row| &row.overflow_local];
        let total = |policy: Overflow| match self.scene.policy() {
            Some(present) if present == policy => self.engine.total(overflowed[policy as usize]),
            _ => 0,
        };
        self.judge.overflowed = Overflow::ALL.into_iter().map(total).collect();
        self.outcome.count("epochs", 1);
    }

    /// A worker that nobody reaps for gets every slot that the dead have left.
    fn let_an_heir_take_all(&mut self) {
        let engine = &self.engine;
        let pid = process::fork(|| i32::from(!worker::inherits(engine)));
        let ended = process::wait(pid.expect("room for another process")).expect("a child");
        if ended != Ended::Exit(0) {
            self.outcome.faults.add(Fault::Unreclaimed, || {
                format!("without the master a worker does not get all slots: {ended:?}")
            });
        }
        self.outcome.count("heirs", 1);
    }

    /// Notes all counters, and what is going on, when nobody runs.
    fn take_snapshot(&mut self) {
        let mut under_way = Vec::new();
        for (seat, log) in self.seats.iter().zip(&self.stage.logs) {
            if seat.pid == 0 {
                continue;
            }
            if !process::wait_stopped(seat.pid).expect("a child") {
                // It ended by itself: the next burial tells.
                return;
            }
            under_way.extend(log.under_way(self.stage.epoch));
        }
        let lines = std::array::from_fn(|seat| self.stage.logs[seat].len());
        self.snapshots.push(Snapshot { readings: self.readings(), lines, under_way });
    }

    /// What the sliding windows have room for.
    fn rooms(&self) -> Vec<Room> {
        let limiters = sliding_limiters(&self.engine);
        let room = |(key, limiter): (usize, &SlidingLimiter)| {
            let begun = self.engine.now().us();
            let remaining = self.engine.remaining_sliding(limiter, SLIDING[key].key.as_bytes());
            Room { key, begun, at: self.engine.now().us(), remaining }
        };
        limiters.iter().enumerate().map(room).collect()
    }

    /// The counters of all windows that are open now.
    fn readings(&self) -> Vec<Reading> {
        let base_s = self.engine.region().wall_s(0);
        let read = |(number, counter): (usize, &crate::limits::Counter)| {
            let start = self.engine.value(counter.window)?;
            let count = self.engine.value(counter.key).unwrap_or(0);
            // Still open, so that the value is of this window.
            (self.engine.value(counter.window) == Some(start)).then(|| {
                let start_s = u64::try_from(start).unwrap_or(0).saturating_sub(base_s);
                Reading { counter: number, start_s, count }
            })
        };
        // Without room every subject is found where the crowd's is.
        let usual = self.scene == Scene::Usual;
        let known = |&(number, _): &(usize, _)| usual || number == CROWD_COUNTER;
        COUNTERS.iter().enumerate().filter(known).filter_map(read).collect()
    }
}
