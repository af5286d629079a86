//! What a worker does with admissions over several limits, and which of them it holds.

use crate::entry::{Answer, Op};
use crate::limits::{ADMISSIONS, COUNTERS, HOT, MAX_COST, SLIDING, SLOTS, Want};
use crate::random::Random;
use fast_litellm::engine::Engine;
use fast_litellm::engine::admission::{self, Demand, Receipt, Rule};
use fast_litellm::engine::quota::{Limiter, Place};
use fast_litellm::engine::sliding::SlidingLimiter;
use fast_litellm::engine::subject::Subject;
use fast_litellm::error::OpError;
use fast_litellm::primitives::gcra::Quota;
use fast_litellm::primitives::sliding::SlidingLimit;

/// A worker admits no more while it holds so many.
const MOST_GRANTED: usize = 12;

/// The admissions of one life.
pub(crate) struct Admissions<'a> {
    engine: &'a Engine,
    /// Of the hot keys, with their names.
    rates: Vec<(Limiter, String)>,
    /// Of the sliding keys.
    pub(crate) sliding: Vec<SlidingLimiter>,
    /// Where the keys of each bundle were found the last time.
    places: [Places; ADMISSIONS.len()],
    granted: Vec<Granted>,
    base_s: u64,
}

type Places = [Option<Place>; admission::MAX_LIMITS];

struct Granted {
    /// Of its line in the log.
    position: usize,
    bundle: usize,
    cost: i64,
    places: Places,
    receipts: [Receipt; admission::MAX_LIMITS],
    settled: bool,
}

fn receipts(demands: &[Demand<'_>]) -> [Receipt; admission::MAX_LIMITS] {
    std::array::from_fn(|n| demands.get(n).map_or_else(Receipt::default, |demand| demand.receipt))
}

/// The limiters of all sliding keys.
pub(crate) fn sliding_limiters(engine: &Engine) -> Vec<SlidingLimiter> {
    let limiter = |sliding: &crate::limits::Sliding| {
        let limit = SlidingLimit::new(sliding.limit, sliding.window_s).expect("a valid limit");
        engine.sliding_limiter("", limit)
    };
    SLIDING.iter().map(limiter).collect()
}

impl<'a> Admissions<'a> {
    /// None yet.
    pub(crate) fn new(engine: &'a Engine) -> Self {
        let rate = |(key, rate): (usize, &crate::limits::Rate)| {
            let quota = Quota::new(rate.per_minute, rate.burst).expect("a valid rate");
            (engine.limiter("", quota), format!("quota-{key}"))
        };
        Self {
            engine,
            rates: HOT.iter().enumerate().map(rate).collect(),
            sliding: sliding_limiters(engine),
            places: Default::default(),
            granted: Vec::new(),
            base_s: engine.region().wall_s(0),
        }
    }

    /// What to do next: admit, or correct, give back or finish what was admitted.
    pub(crate) fn pick(&mut self, random: &mut Random) -> Op {
        let full = self.granted.len() >= MOST_GRANTED;
        if self.granted.is_empty() || !full && random.one_in(2) {
            let cost = 1 + random.below(MAX_COST.cast_unsigned()).cast_signed();
            return Op::Admit { bundle: random.index(ADMISSIONS.len()), cost };
        }
        let granted = &self.granted[random.index(self.granted.len())];
        let &Granted { position: admitted, bundle, cost, settled, .. } = granted;
        match random.below(4) {
            0 if !settled => Op::Cancel { bundle, cost, admitted },
            1 if !settled => {
                let used = if random.one_in(8) {
                    cost + 1 + random.below(MAX_COST.cast_unsigned()).cast_signed()
                } else {
                    random.below(cost.cast_unsigned() + 1).cast_signed()
                };
                Op::Settle { bundle, cost, used, admitted }
            }
            _ => Op::Finish { bundle, admitted },
        }
    }

    /// Forgets all, after the process has given everything back.
    pub(crate) fn clear(&mut self) {
        self.granted.clear();
    }

    /// Meets all limits of a bundle or none.
    pub(crate) fn admit(
        &mut self,
        bundle: usize,
        cost: i64,
        position: usize,
    ) -> Result<Answer, OpError> {
        let mut places = self.places[bundle];
        let mut demands = self.demands(bundle, cost, &places);
        let before = self.window(bundle);
        let answer = self.engine.admit(&mut demands)?;
        let start_s = self.start_s(bundle, before);
        for (place, demand) in places.iter_mut().zip(&demands) {
            *place = demand.place;
        }
        let receipts = receipts(&demands);
        self.places[bundle] = places;
        if answer != admission::Answer::Granted {
            return Ok(Answer::Refused);
        }
        self.granted.push(Granted { position, bundle, cost, places, receipts, settled: false });
        Ok(Answer::Admitted(start_s))
    }

    /// Does one of the other operations.
    pub(crate) fn correct(&mut self, op: Op) -> Result<Answer, OpError> {
        let (Op::Finish { bundle, admitted }
        | Op::Cancel { bundle, admitted, .. }
        | Op::Settle { bundle, admitted, .. }) = op
        else {
            return Ok(Answer::Refused);
        };
        let at = |granted: &Granted| granted.position == admitted;
        let at = self.granted.iter().position(at).expect("it was picked from here");
        let Granted { cost, places, receipts: given, .. } = self.granted[at];
        let mut demands = self.demands(bundle, cost, &places);
        for (demand, receipt) in demands.iter_mut().zip(given) {
            demand.receipt = receipt;
        }
        let mut start_s = 0;
        match op {
            Op::Cancel { .. } => self.engine.cancel(&mut demands),
            Op::Settle { used, .. } => {
                let of = |want: &Want| want.used(used).unsigned_abs();
                let used: Vec<u64> = ADMISSIONS[bundle].iter().map(of).collect();
                let before = self.window(bundle);
                self.engine.settle(&mut demands, &used)?;
                start_s = self.start_s(bundle, before);
            }
            _ => self.engine.finish(&mut demands),
        }
        if matches!(op, Op::Settle { .. }) {
            let receipts = receipts(&demands);
            self.granted[at].receipts = receipts;
            self.granted[at].settled = true;
        } else {
            self.granted.swap_remove(at);
        }
        Ok(Answer::Admitted(start_s))
    }

    fn demands(&self, bundle: usize, cost: i64, places: &Places) -> Vec<Demand<'_>> {
        let demand = |(&want, &place): (&Want, &Option<Place>)| {
            let (key, rule) = match want {
                Want::Rate(key) => (self.rates[key].1.as_str(), Rule::Rate(&self.rates[key].0)),
                Want::Sliding(key) => (SLIDING[key].key, Rule::Sliding(&self.sliding[key])),
                Want::Window(counter) => {
                    let counter = &COUNTERS[counter];
                    let Subject { name, part } = Subject::parse(counter.key);
                    let limit = counter.limit.unsigned_abs();
                    (name, Rule::Window { part, limit, size_s: counter.size_s })
                }
                Want::Slots(slots) => {
                    let slots = &SLOTS[slots];
                    let (limit, ttl_s) = (slots.limit.unwrap_or(0), slots.ttl_s.unwrap_or(0));
                    (Subject::parse(slots.key).name, Rule::Slots { limit, ttl_s })
                }
            };
            let mut demand = Demand::new(key, rule, want.amount(cost).unsigned_abs());
            demand.place = place;
            demand
        };
        ADMISSIONS[bundle].iter().zip(places).map(demand).collect()
    }

    /// The second, and the open window of a bundle then; its counters are of one subject.
    fn window(&self, bundle: usize) -> (u64, Option<i64>) {
        let now_s = self.engine.now().s();
        let counter = |want: &Want| match want {
            &Want::Window(counter) => Some(&COUNTERS[counter]),
            _ => None,
        };
        let counter = ADMISSIONS[bundle].iter().find_map(counter);
        (now_s, counter.and_then(|counter| self.engine.value(counter.window)))
    }

    /// What was charged meanwhile was charged to this window; 0 = nobody knows. Within one second no more
    /// than one opens.
    fn start_s(&self, bundle: usize, (begun_s, before): (u64, Option<i64>)) -> u64 {
        let (_, after) = self.window(bundle);
        let certain = before == after || before.is_none() && self.engine.now().s() == begun_s;
        let start = after.filter(|_| certain).and_then(|start| u64::try_from(start).ok());
        start.and_then(|start| start.checked_sub(self.base_s)).unwrap_or(0)
    }
}
