//! The mix of operations: which one a worker does next, and how. A new operation of the engine is added
//! here, with its line in `entry.rs` and its keys in `limits.rs`.

use crate::admission::Admissions;
use crate::control::Control;
use crate::crowd::{CROWD, Scene};
use crate::entry::{Answer, Op};
use crate::flights::Flights;
use crate::limits::{
    BUNDLES, CHURN, CHURN_WIDTH, COUNTERS, CROWD_KEYS, CROWD_RATE, HOT, MAX_COST, NEW_KEYS,
    REFUNDED, RETURNING, Rate, SLIDING, SLOT_BUNDLES, SLOTS, Slots, rate_of,
};
use crate::random::Random;
use fast_litellm::config::Overflow;
use fast_litellm::engine::Engine;
use fast_litellm::engine::quota::Limiter;
use fast_litellm::engine::slots::{Grant, SlotAsk};
use fast_litellm::engine::windows::{Ask, Verdict};
use fast_litellm::error::OpError;
use fast_litellm::primitives::gcra::{Decision, Quota};
use fast_litellm::primitives::sliding;
use fast_litellm::sync::Ordering;
use std::borrow::Cow;
use std::ops::Range;

/// A worker acquires no more while it holds so many slots.
const MOST_HELD: usize = 24;
/// Charges remembered for being taken back, and one in so many is: a window that has much taken back is
/// never seen full.
const MOST_CHARGED: usize = 32;
const REFUNDS: u64 = 16;
const HOT_KEYS: usize = HOT.len();

/// One worker's operations.
pub(crate) struct Mix<'a> {
    engine: &'a Engine,
    control: Control,
    random: Random,
    scene: Scene,
    life: u64,
    /// Of the hot keys, of the crowd, and last of all others.
    limiters: Vec<Limiter>,
    /// Distinguishes slot ids of this life.
    name: String,
    /// Key of the slots, and where the log says that they were acquired.
    held: Vec<(usize, usize)>,
    /// Counter, amount and window of charges that may be taken back.
    charged: Vec<(usize, i64, u64)>,
    admissions: Admissions<'a>,
    flights: Flights<'a>,
    /// The member of the crowd that the present operation is about.
    present: u64,
    base_s: u64,
    /// The newest key that it has checked.
    newest: usize,
    /// It gives a slot back once in so many times; the more, the more it holds.
    appetite: u64,
}

impl<'a> Mix<'a> {
    /// The operations of one life.
    pub(crate) fn new(
        engine: &'a Engine,
        control: Control,
        mut random: Random,
        scene: Scene,
        (life, name): (u64, String),
    ) -> Self {
        let limiter = |rate: Rate| {
            let quota = Quota::new(rate.per_minute, rate.burst).expect("a valid rate");
            engine.limiter("", quota)
        };
        let limiters = HOT.into_iter().chain([CROWD_RATE, CHURN]).map(limiter).collect();
        let base_s = engine.region().wall_s(0);
        let (held, charged) = (Vec::new(), Vec::new());
        let appetite = 2 + random.below(3);
        let newest = newest_key(control);
        let (admissions, flights) = (Admissions::new(engine), Flights::new(engine));
        Self {
            engine,
            scene,
            life,
            control,
            random,
            limiters,
            name,
            held,
            charged,
            admissions,
            flights,
            base_s,
            newest,
            appetite,
            present: 0,
        }
    }

    /// What to do next. New keys come first: all workers that run then insert the same key at once.
    pub(crate) fn pick(&mut self) -> Op {
        if let Some(policy) = self.scene.policy() {
            return self.crowded(policy);
        }
        if self.newest < newest_key(self.control) {
            self.newest += 1;
            return Op::Check { key: self.newest };
        }
        match self.random.below(5_500) {
            0 => Op::Leave,
            1..1_000 => Op::Check { key: self.random.index(HOT.len()) },
            1_000..1_700 => self.churn(),
            1_700..2_500 => self.charge(),
            2_500..2_700 => match self.charged.pop() {
                Some((counter, amount, start_s)) => Op::Refund { counter, amount, start_s },
                None => self.charge(),
            },
            2_700..4_000 => self.slots(0..SLOT_BUNDLES.len() - 1),
            4_000..4_300 => {
                Op::Slide { key: self.random.index(SLIDING.len() - 1), cost: self.cost() }
            }
            4_300..5_000 => self.admissions.pick(&mut self.random),
            _ => self.flights.pick(&mut self.random),
        }
    }

    /// Something that the crowd does. What each worker decides for itself is judged by worker and key; where
    /// that is a matter of windows, it is left out.
    fn crowded(&mut self, policy: Overflow) -> Op {
        let local = policy == Overflow::Local;
        match self.random.below(2_000) {
            0 => Op::Leave,
            1..1_200 if local => {
                // Few of them: lives are short, and each key has its quota anew in each life.
                let of_life = (self.life % (1 << 20) + 1) * CROWD + self.random.below(CROWD / 8);
                Op::Check { key: CROWD_KEYS + usize::try_from(of_life).unwrap_or(0) }
            }
            1..400 => Op::Check { key: CROWD_KEYS },
            400..800 if !local => Op::Charge { bundle: BUNDLES.len() - 1, cost: self.cost() },
            800..1_200 if !local => Op::Slide { key: SLIDING.len() - 1, cost: self.cost() },
            _ => self.slots(SLOT_BUNDLES.len() - 1..SLOT_BUNDLES.len()),
        }
    }

    /// Which of the crowd's keys it is. Slots must be found again, and where they are exact for each key all
    /// workers use the same.
    fn member(&mut self, op: Op, position: usize) -> u64 {
        let local = self.scene == Scene::Crowded(Overflow::Local);
        match op {
            Op::Check { key } if local => key as u64 % CROWD,
            Op::Acquire { .. } | Op::Release { .. } if local => 0,
            Op::Acquire { .. } => position as u64 % CROWD,
            Op::Release { acquired, .. } => acquired as u64 % CROWD,
            _ => self.random.below(CROWD),
        }
    }

    /// A key, or that of the crowd's present member in its place.
    fn named<'k>(&self, key: &'k str) -> Cow<'k, str> {
        match self.scene {
            Scene::Usual => key.into(),
            Scene::Crowded(_) => key.replace('0', &self.present.to_string()).into(),
        }
    }

    fn cost(&mut self) -> i64 {
        1 + self.random.below(MAX_COST.cast_unsigned()).cast_signed()
    }

    /// One of the newest keys, or one that returns; those are the same for all workers.
    fn churn(&mut self) -> Op {
        if self.random.one_in(4) {
            let round = self.control.frontier().load(Ordering::Relaxed) / NEW_KEYS;
            let mut choice = Random::new(round * RETURNING + self.random.below(RETURNING));
            return Op::Check { key: HOT.len() + choice.index(self.newest - HOT.len()) };
        }
        Op::Check { key: self.newest - self.random.index(CHURN_WIDTH) }
    }

    fn charge(&mut self) -> Op {
        Op::Charge { bundle: self.random.index(BUNDLES.len() - 1), cost: self.cost() }
    }

    fn slots(&mut self, bundles: Range<usize>) -> Op {
        let full = self.held.len() >= MOST_HELD;
        if !self.held.is_empty() && (full || self.random.one_in(self.appetite)) {
            let (slots, acquired) = self.held.swap_remove(self.random.index(self.held.len()));
            return Op::Release { slots, acquired };
        }
        let bundle = bundles.start + self.random.index(bundles.len());
        let limit = self.control.limit(SLOT_BUNDLES[bundle][0]).load(Ordering::Relaxed);
        Op::Acquire { bundle, limit, at_s: self.engine.now().s() }
    }

    /// Does it. `position` is that of its line in the log.
    pub(crate) fn perform(&mut self, op: Op, position: usize) -> Answer {
        self.try_to(op, position).unwrap_or_else(|error| Answer::Failed(number_of(error)))
    }

    fn try_to(&mut self, op: Op, position: usize) -> Result<Answer, OpError> {
        if self.scene != Scene::Usual {
            self.present = self.member(op, position);
        }
        Ok(match op {
            Op::Check { key } => self.check(key)?,
            Op::Charge { bundle, cost } => self.admit(bundle, cost)?,
            Op::Refund { counter, amount, start_s } => {
                let counter = &COUNTERS[counter];
                let start = Some(self.base_s + start_s);
                let done =
                    self.engine.adjust_if_window(counter.window, counter.key, start, -amount)?;
                if done.is_ok() { Answer::Admitted(0) } else { Answer::Refused }
            }
            Op::Acquire { bundle, limit, .. } => self.acquire(bundle, limit, position)?,
            Op::Release { slots, acquired } => {
                let id = self.slot_id(acquired);
                self.engine.release(&self.named(SLOTS[slots].key), &id)?;
                Answer::Admitted(0)
            }
            Op::Slide { key, cost } => self.slide(key, cost)?,
            Op::Admit { bundle, cost } => self.admissions.admit(bundle, cost, position)?,
            Op::Finish { .. } | Op::Cancel { .. } | Op::Settle { .. } => {
                self.admissions.correct(op)?
            }
            Op::Depart { .. }
            | Op::Arrive { .. }
            | Op::Count { .. }
            | Op::Cool { .. }
            | Op::Look { .. } => self.flights.perform(op, position)?,
            Op::Leave => {
                self.held.clear();
                self.admissions.clear();
                self.flights.clear();
                self.engine.leave();
                Answer::Admitted(0)
            }
            Op::Death => Answer::Refused,
        })
    }

    fn check(&self, key: usize) -> Result<Answer, OpError> {
        let (limiter, name) = match key {
            CROWD_KEYS.. => (&self.limiters[HOT_KEYS], format!("crowd-{}", self.present)),
            ..HOT_KEYS => (&self.limiters[key], format!("quota-{key}")),
            _ => (&self.limiters[HOT_KEYS + 1], format!("quota-{key}")),
        };
        debug_assert_eq!(limiter.quota().per_minute(), rate_of(key).per_minute);
        let decision = self.engine.check(limiter, name.as_bytes())?;
        let allowed = matches!(decision, Decision::Allowed { .. });
        Ok(if allowed { Answer::Admitted(0) } else { Answer::Refused })
    }

    fn slide(&self, key: usize, cost: i64) -> Result<Answer, OpError> {
        let (sliding, limiter) = (&SLIDING[key], &self.admissions.sliding[key]);
        let cost = sliding.amount(cost).unsigned_abs();
        let name = self.named(sliding.key);
        Ok(match self.engine.check_sliding(limiter, name.as_bytes(), cost)? {
            sliding::Decision::Allowed { window, .. } => Answer::Admitted(window),
            sliding::Decision::Denied { .. } => Answer::Refused,
        })
    }

    fn admit(&mut self, bundle: usize, cost: i64) -> Result<Answer, OpError> {
        let counters = BUNDLES[bundle];
        let names = |&counter: &usize| {
            let counter = &COUNTERS[counter];
            (self.named(counter.window), self.named(counter.key))
        };
        let names: Vec<_> = counters.iter().map(names).collect();
        let asks = names.iter().zip(counters).map(|((window, key), &counter)| {
            let counter = &COUNTERS[counter];
            let (limit, size_s, amount) = (counter.limit, counter.size_s, counter.amount(cost));
            Ask { window, counter: key, limit, amount, size_s }
        });
        let asks: Vec<Ask<'_>> = asks.collect();
        let Verdict::Admitted(counts) = self.engine.admit_all(&asks)? else {
            return Ok(Answer::Refused);
        };
        let starts = counts.iter().map(|count| count.window_start - self.base_s);
        if bundle == REFUNDED && self.charged.len() < MOST_CHARGED && self.random.one_in(REFUNDS) {
            let of = counters.iter().zip(&asks).zip(starts.clone());
            self.charged.extend(of.map(|((&counter, ask), start)| (counter, ask.amount, start)));
        }
        Ok(Answer::charged(starts))
    }

    fn acquire(&mut self, bundle: usize, limit: u64, position: usize) -> Result<Answer, OpError> {
        let id = self.slot_id(position);
        let wanted = SLOT_BUNDLES[bundle];
        let names: Vec<_> = wanted.iter().map(|&slots| self.named(SLOTS[slots].key)).collect();
        let asks = names.iter().zip(wanted).map(|(key, &slots)| {
            let Slots { limit: fixed, ttl_s, .. } = &SLOTS[slots];
            let limit = fixed.unwrap_or(limit).cast_signed();
            SlotAsk { key, limit, ttl_s: ttl_s.unwrap_or(0), slot_id: &id }
        });
        let asks: Vec<SlotAsk<'_>> = asks.collect();
        if !matches!(self.engine.acquire_all(&asks)?, Grant::Held(_)) {
            return Ok(Answer::Refused);
        }
        self.held.extend(wanted.iter().map(|&slots| (slots, position)));
        Ok(Answer::Admitted(0))
    }

    fn slot_id(&self, position: usize) -> String {
        format!("{}.{position}", self.name)
    }
}

/// The newest GCRA key.
fn newest_key(control: Control) -> usize {
    let frontier = control.frontier().load(Ordering::Relaxed);
    HOT.len() + CHURN_WIDTH + usize::try_from(frontier).unwrap_or(0)
}

/// Errors as numbers; those that may happen here come first.
fn number_of(error: OpError) -> u64 {
    match error {
        OpError::TableFull => 1,
        OpError::WorkersFull => 2,
        OpError::Contended => 3,
        OpError::LeasesFull => 4,
        OpError::OutOfRange => 5,
        _ => 6,
    }
}
