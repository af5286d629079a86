//! The only file that calls `fast_litellm`: when its interface changes, this file follows.

use crate::Failure;
use fast_litellm::clock::{Clock, FakeClock, MonotonicClock};
use fast_litellm::config::Capacity;
use fast_litellm::engine::Engine;
use fast_litellm::engine::admission::{Answer, Demand, Rule};
use fast_litellm::engine::quota::{Limiter, Place};
use fast_litellm::engine::subject::Part as Counter;
use fast_litellm::error::OpError;
use fast_litellm::layout::{GcraWord, section};
use fast_litellm::primitives::gcra::{self, Decision, Quota};
use fast_litellm::region::{Placement, create};
use fast_litellm::sync::Word;

/// What an operation that could not be decided adds to a sum of admissions, so that none goes unnoticed.
pub(crate) const FAILED: u64 = 1 << 40;

/// An engine on a region in shared memory.
pub(crate) struct Ours {
    engine: Engine,
}

/// A limit and the keys that it counts.
pub(crate) struct Rate(Limiter);

/// Where a key is, for a caller that remembers it.
#[derive(Clone, Copy)]
pub(crate) struct At(Place);

/// A part of the region, by the address range it has here.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Ours {
    /// With the clock that it has in use.
    pub(crate) fn new(keys: u64) -> Result<Self, Failure> {
        Self::with_clock(keys, Box::new(MonotonicClock))
    }

    /// With a clock that stands still, to see what reading the clock costs.
    pub(crate) fn frozen(keys: u64) -> Result<Self, Failure> {
        Self::with_clock(keys, Box::new(FakeClock::at(1_000_000_000_000)))
    }

    fn with_clock(keys: u64, clock: Box<dyn Clock>) -> Result<Self, Failure> {
        let capacity = Capacity::checked(keys.into(), 1 << 10, 1 << 10)?;
        let region = create(&Placement::inherited("engine-bench"), capacity, clock)?;
        Ok(Self { engine: Engine::new(region) })
    }

    /// A limit that a measurement does not reach.
    pub(crate) fn open(&self) -> Result<Rate, Failure> {
        self.rate(Quota::MAX_PER_MINUTE, u32::MAX)
    }

    /// A limit that the first operation uses up.
    pub(crate) fn shut(&self) -> Result<Rate, Failure> {
        self.rate(1, 1)
    }

    fn rate(&self, per_minute: u32, burst: u32) -> Result<Rate, Failure> {
        let quota = Quota::new(per_minute, burst).ok_or("the quota is out of range")?;
        Ok(Rate(self.engine.limiter("", quota)))
    }

    /// 1 = admitted, 0 = refused, [`FAILED`] = neither.
    #[inline]
    pub(crate) fn check(&self, rate: &Rate, key: &[u8]) -> u64 {
        weigh(self.engine.check(&rate.0, key))
    }

    pub(crate) fn place(&self, rate: &Rate, key: &[u8]) -> Result<At, Failure> {
        Ok(At(self.engine.place(&rate.0, key)?))
    }

    /// As [`Self::check`], for a key whose place is known.
    #[inline]
    pub(crate) fn check_at(&self, rate: &Rate, at: At) -> u64 {
        self.engine.check_at(&rate.0, at.0).map_or(FAILED, weigh)
    }

    /// Three limits and one lease, all far from full, in one call; then the lease is given back. With `places`
    /// the keys are looked up where they were found the last time, as for a caller who keeps its demands.
    #[inline]
    pub(crate) fn admission(&self, request: &Request, places: Option<&Places>) -> u64 {
        let mut demands = request.demands();
        if let Some(places) = places {
            demands.iter_mut().zip(places.0).for_each(|(demand, place)| demand.place = Some(place));
        }
        match self.engine.admit(&mut demands) {
            Ok(Answer::Granted) => self.engine.finish(&mut demands),
            Ok(Answer::Refused(_)) => return 0,
            Err(_) => return FAILED,
        }
        1
    }

    /// Where an admission's keys are.
    pub(crate) fn places(&self, request: &Request) -> Result<Places, Failure> {
        let mut demands = request.demands();
        self.engine.admit(&mut demands)?;
        self.engine.finish(&mut demands);
        let place = |demand: &Demand<'_>| demand.place.ok_or("an admission finds its keys");
        let places = demands.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        Ok(Places(places.try_into().map_err(|_| "four demands")?))
    }

    /// Frees what this process holds in the region; for a forked child that is about to exit.
    pub(crate) fn leave(&self) {
        self.engine.leave();
    }

    /// The sections of the region that grow with its keys.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let region = self.engine.region();
        let base = std::ptr::from_ref(region.header()).addr();
        let to_usize = |value: u64| usize::try_from(value).unwrap_or(0);
        let part = |(id, name)| {
            let section = region.sections().iter().find(|section| section.id == id)?;
            let start = base + to_usize(section.span.offset);
            Some(Part { name, start, len: to_usize(section.stride * section.span.count) })
        };
        let names = [(section::BUCKETS, "buckets"), (section::NAMES, "names")];
        names.into_iter().filter_map(part).collect()
    }
}

#[inline]
fn weigh(result: Result<Decision, OpError>) -> u64 {
    match result {
        Ok(Decision::Allowed { .. }) => 1,
        Ok(Decision::Denied { .. }) => 0,
        Err(_) => FAILED,
    }
}

/// The keys of one admission: an API key, its user and its team; the lease is the API key's.
pub(crate) struct Request([String; 3]);

/// Where they are, for a caller that remembers it.
pub(crate) struct Places([Place; 4]);

impl Request {
    pub(crate) fn new(client: usize) -> Self {
        Self([
            format!("{{api_key:0123456789abcdef0123456789abcde{client}}}"),
            format!("{{user:user-00000{client}}}"),
            format!("{{team:team-0{client}}}"),
        ])
    }

    #[inline]
    fn demands(&self) -> [Demand<'_>; 4] {
        let [key, user, team] = &self.0;
        let requests = Rule::Window { part: Counter::Requests, limit: 1 << 36, size_s: 3_600 };
        let slots = Rule::Slots { limit: 1_000, ttl_s: 3_600 };
        [
            Demand::new(key, requests, 1),
            Demand::new(user, requests, 1),
            Demand::new(team, requests, 1),
            Demand::new(key, slots, 1),
        ]
    }
}

/// The decision alone: one word, a time that is passed in, no region.
pub(crate) struct Bare {
    word: Word<GcraWord>,
    quota: Quota,
}

impl Bare {
    pub(crate) fn new(open: bool) -> Result<Self, Failure> {
        let (per_minute, burst) = if open { (Quota::MAX_PER_MINUTE, u32::MAX) } else { (1, 1) };
        let quota = Quota::new(per_minute, burst).ok_or("the quota is out of range")?;
        Ok(Self { word: Word::new(GcraWord::default()), quota })
    }

    #[inline]
    pub(crate) fn charge(&self, now_us: u64) -> u64 {
        match gcra::charge(&self.word, now_us, self.quota, 1, &mut false) {
            Ok(Decision::Allowed { .. }) => 1,
            Ok(Decision::Denied { .. }) => 0,
            Err(_) => FAILED,
        }
    }
}
