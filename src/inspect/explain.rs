//! Whether a request would be admitted now, by each limit of its keys, and which of them decides: what
//! [`crate::engine::foresight`] says, for people and programs.

use super::known::are_ambiguous;
use super::limits::{self, Look};
use super::search::{Hit, Match, Table, Wanted, name_of, search};
use super::{SCHEMA, get, key_of, workers};
use crate::clock::Instant;
use crate::engine::foresight::{self, Dead, Entry, Home, Outlook, Verdict};
use crate::engine::health;
use crate::engine::keys::{Key, leases_of};
use crate::engine::subject::Part;
use crate::layout::{Bucket, KeyKind};
use crate::primitives::gcra::Quota;
use crate::primitives::sliding::SlidingLimit;
use crate::region::Region;
use crate::tables::index;
use crate::tables::leases::Leases;
use serde::Serialize;

/// Whether one request would be admitted.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Explanation {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The region's name.
    pub region: String,
    /// Now, Unix milliseconds, as the region counts them.
    pub at_ms: u64,
    /// What was asked for: requests of a rate, units of a sliding window, tokens of a window.
    pub cost: u64,
    /// True when a limit of what was asked for would admit it, none would refuse it, and something was found under
    /// every name. What some limits would answer may be unknown all the same.
    pub admitted: bool,
    /// The limit that decides, by its place among `limits`: of those that refuse, the one that refuses longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decides: Option<usize>,
    /// Microseconds until all of them would admit it if nobody else came; absent when that is never, or depends on a
    /// slot that is released.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_us: Option<u64>,
    /// The same in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Each limit. Those of a deployment are its cooldown and its requests in flight.
    pub limits: Vec<LimitOutlook>,
    /// Names under which several things are shown that cannot be told apart: each of them is here, and decides.
    pub ambiguous: Vec<String>,
    /// Names under which no limit and no deployment is known.
    pub unknown: Vec<String>,
}

/// What one limit would answer.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct LimitOutlook {
    /// Its redacted name, or `#` and its hash while the name is not written.
    pub key: String,
    /// `#` and its hash; absent for a key without a record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `key`: its identity is that of the key; `name`: it is shown under that name; `related`: it is counted with the
    /// key, for one of its models, tags or servers, and does not decide; `shared`: keys without room share it.
    #[serde(rename = "match")]
    pub matched: &'static str,
    /// `rate`, `sliding`, `requests`, `tokens`, `parallel`, `counter`, `cooldown` or `in_flight`.
    pub limit_of: &'static str,
    /// What is asked of it.
    pub cost: u64,
    /// Used of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<i64>,
    /// Of how many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// How many are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
    /// `admits`, `refuses`, or `unknown`: there is nothing by which it could be told.
    pub answer: &'static str,
    /// Why, or what to know about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Microseconds until it would admit the request if nobody else came; absent when it admits it, never will, or
    /// waits for a release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_us: Option<u64>,
    /// The same in Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// True when its record changed under every look.
    #[serde(skip_serializing_if = "super::records::is_false")]
    pub moving: bool,
    #[serde(skip)]
    rank: u64,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// Requests of a rate, units of a sliding window, tokens of a window.
    pub cost: u64,
    /// Seconds that a slot may be held before others take it; 0 = for ever.
    pub slot_ttl_s: u64,
}

impl Explanation {
    /// What all these would answer together, as for one request that has all of them for keys.
    pub fn of(region: &Region, name: &str, wanted: &[Wanted], question: Question) -> Self {
        let dead = Dead::of(region, workers::prover(region));
        let (mut limits, mut ambiguous, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for one in wanted {
            let hits = search(region, one);
            let looks = Asked { region, question, dead: &dead, part: one.part() };
            let before = limits.len();
            limits.extend(hits.iter().flat_map(|hit| looks.outlooks(hit)));
            if limits[before..].iter().all(|limit| limit.matched == Match::Related.name()) {
                limits.extend(looks.without_room(one));
            }
            if limits.len() == before {
                unknown.push(one.shown());
            }
            if are_ambiguous(&hits) {
                ambiguous.push(one.shown());
            }
        }
        let ranks = limits.iter().enumerate().map(|(place, limit)| (limit.rank, place));
        let ranks = ranks.filter(|&(rank, _)| rank > 0);
        // Of several the first.
        let decides = ranks.max_by_key(|&(rank, place)| (rank, std::cmp::Reverse(place)));
        let decides = decides.map(|(_, place)| place);
        let admits = |limit: &LimitOutlook| {
            limit.answer == "admits" && limit.matched != Match::Related.name()
        };
        let waits = decides.and_then(|place| limits[place].retry_after_us);
        Self {
            schema: SCHEMA,
            region: name.to_string(),
            at_ms: unix_ms(region, region.now(), 0),
            cost: question.cost,
            admitted: decides.is_none() && unknown.is_empty() && limits.iter().any(admits),
            decides,
            retry_after_us: waits,
            until_ms: decides.and_then(|place| limits[place].until_ms),
            limits,
            ambiguous,
            unknown,
        }
    }
}

/// A moment of the region's clock, so much later, in Unix milliseconds; not before it.
fn unix_ms(region: &Region, now: Instant, later_us: u64) -> u64 {
    let us = now.us().saturating_add(later_us);
    region.wall_s(0).saturating_mul(1_000).saturating_add(us.div_ceil(1_000))
}

/// How long a verdict is waited for; the longest decides.
fn rank(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::Admits => 0,
        // As an admission asks them: slots last.
        Verdict::UntilReleased => 1,
        Verdict::RefusesFor(us) => us.saturating_add(1),
        Verdict::Never | Verdict::NoRoom => u64::MAX,
    }
}

/// One name that was asked for.
struct Asked<'a> {
    region: &'a Region,
    question: Question,
    dead: &'a Dead,
    part: Option<Part>,
}

impl Asked<'_> {
    fn outlooks(&self, hit: &Hit) -> Vec<LimitOutlook> {
        let mut found = match hit.table {
            Table::Keys => self.of_key(hit),
            Table::Deployments => self.of_deployment(hit),
            Table::Endpoints | Table::Jobs | Table::Notices => Vec::new(),
        };
        for limit in &mut found {
            limit.key = name_of(self.region, hit);
            limit.id = Some(hit.id());
            limit.matched = hit.matched.name();
            if hit.matched == Match::Related {
                limit.rank = 0;
            }
        }
        found
    }

    fn of_key(&self, hit: &Hit) -> Vec<LimitOutlook> {
        let Some(look) = limits::look(self.region, hit.slot) else { return Vec::new() };
        // After the words: none of them can be of a later moment.
        let now = self.region.now();
        let mut found = match look.kind {
            KeyKind::Gcra => vec![self.rate(&look.bucket, now)],
            KeyKind::Sliding => vec![self.sliding(&look.bucket, hit, now)],
            KeyKind::Window => self.window(&look, hit, now),
            _ => vec![self.counter(&look.bucket, now)],
        };
        for limit in &mut found {
            limit.moving = look.moving;
        }
        found
    }

    fn rate(&self, bucket: &Bucket, now: Instant) -> LimitOutlook {
        let limits = get(&bucket.limits);
        let narrow = |value| u32::try_from(value).unwrap_or(0);
        let quota = Quota::new(narrow(limits.requests()), narrow(limits.tokens()));
        let Some(quota) = quota else { return self.undecided("rate", "its rate is not known") };
        let outlook = foresight::rate(bucket, quota, self.question.cost, now);
        let limit = u64::from(quota.burst());
        let per_minute = quota.per_minute();
        let mut told = self.told("rate", self.question.cost, limit, outlook, now);
        if outlook.verdict == Verdict::Admits && told.reason.is_none() {
            told.reason = Some(format!("{per_minute} a minute, {limit} at once"));
        }
        told
    }

    fn sliding(&self, bucket: &Bucket, hit: &Hit, now: Instant) -> LimitOutlook {
        let limits = get(&bucket.limits);
        let shown = || SlidingLimit::new(limits.requests(), limits.tokens());
        let Some(limit) = hit.sliding.or_else(shown) else {
            return self.undecided("sliding", "its limit is not known");
        };
        let outlook = foresight::sliding(bucket, limit, self.question.cost, now);
        let mut told = self.told("sliding", self.question.cost, limit.limit(), outlook, now);
        told.reason = told.reason.or_else(|| Some(format!("window of {} s", limit.window_s())));
        told
    }

    fn counter(&self, bucket: &Bucket, now: Instant) -> LimitOutlook {
        let count = get(&bucket.requests);
        let used = count.loose_left(now.s()).map_or(0, |_| count.count());
        let reason = "who counts here compares by itself";
        LimitOutlook { used: Some(used), ..self.undecided("counter", reason) }
    }

    fn window(&self, look: &Look, hit: &Hit, now: Instant) -> Vec<LimitOutlook> {
        let (bucket, limits) = (&look.bucket, get(&look.bucket.limits));
        let asked = |part| self.part.is_none_or(|only| only == part);
        let length_s = get(&bucket.window).size_s();
        let (size_s, known) = (length_s.max(1), length_s > 0);
        let mut found = Vec::new();
        for (part, name, limit, cost) in [
            (Part::Requests, "requests", limits.requests(), 1),
            (Part::Tokens, "tokens", limits.tokens(), self.question.cost),
        ] {
            if !asked(part) {
                continue;
            }
            let outlook = foresight::window(bucket, part, (limit, size_s), cost, Entry::Batch, now);
            if limit > 0 {
                let mut told = self.told(name, cost, limit, outlook, now);
                told.reason =
                    told.reason.or_else(|| known.then(|| format!("window of {size_s} s")));
                found.push(told);
            } else if outlook.used != 0 || self.part == Some(part) {
                let reason = "no limit has been seen";
                let used = Some(outlook.used);
                found.push(LimitOutlook { cost, used, ..self.undecided(name, reason) });
            }
        }
        let limit = get(&bucket.lease).limit();
        let shown = &self.region.buckets()[hit.slot];
        let key = Key { slot: hit.slot, identity: hit.identity, bucket: shown };
        let leases = leases_of(self.region, &key);
        if asked(Part::Slots) && (limit > 0 || leases.count() > 0 || self.part.is_some()) {
            found.push(self.slots("parallel", &leases, limit, self.question.slot_ttl_s, now));
        }
        if found.is_empty() {
            found.push(self.undecided("requests", "no limit has been seen"));
        }
        found
    }

    fn slots(
        &self,
        name: &'static str,
        leases: &Leases<'_>,
        limit: u64,
        ttl_s: u64,
        now: Instant,
    ) -> LimitOutlook {
        let outlook = foresight::slots(self.region, leases, limit, ttl_s, self.dead, now);
        if limit == 0 {
            let used = Some(outlook.used);
            return LimitOutlook { used, ..self.undecided(name, "no limit has been seen") };
        }
        let mut told = self.told(name, 1, limit, outlook, now);
        if outlook.abandoned > 0 {
            let (many, s) = (outlook.abandoned, if outlook.abandoned == 1 { "" } else { "s" });
            told.reason = Some(match outlook.verdict {
                Verdict::Admits => {
                    format!("{many} slot{s} of the dead, or held too long, can be taken")
                }
                _ => format!("too many are held, even without {many} of the dead or held too long"),
            });
        }
        told
    }

    fn of_deployment(&self, hit: &Hit) -> Vec<LimitOutlook> {
        let Some(record) = self.region.deployments().get(hit.slot) else { return Vec::new() };
        let identity = key_of(&record.identity).filter(|&key| index::is(key, hit.identity));
        let Some(identity) = identity else { return Vec::new() };
        let cooldown = health::cooldown_of(record, identity, || self.region.now());
        let now = self.region.now();
        let verdict = cooldown.as_ref().map_or(Verdict::Admits, |cooldown| {
            let left_us = (cooldown.until_ms * 1_000).saturating_sub(now.us());
            if left_us == 0 { Verdict::Admits } else { Verdict::RefusesFor(left_us) }
        });
        let mut first = self.answered("cooldown", 1, verdict, now);
        first.reason = cooldown.map(|cooldown| {
            let status = Some(cooldown.status).filter(|&status| status > 0);
            let status = status.map(|status| format!(" {status}")).unwrap_or_default();
            let text = cooldown.text.map(|text| format!(": {text}")).unwrap_or_default();
            format!("{}{status}{text}", cooldown.kind.name())
        });
        let limits = &record.lease;
        let limit = get(limits).limit();
        let leases = Leases {
            chunks: self.region.chunks(),
            key: identity,
            key_slot: health::key_slot(hit.slot),
            limits,
            nonce: index::nonce,
        };
        let mut found = vec![first];
        if limit > 0 {
            found.push(self.slots("in_flight", &leases, limit, 0, now));
        }
        found
    }

    /// What decides about a limiter's key that has no record: nothing while there is room for one.
    fn without_room(&self, wanted: &Wanted) -> Vec<LimitOutlook> {
        let now = self.region.now();
        let subjects = wanted.subjects();
        let is_key = wanted.part().is_some() || wanted.is_subject();
        let Some(subject) = subjects.first().filter(|_| is_key) else { return Vec::new() };
        let home = foresight::home(self.region, KeyKind::Window, 0, subject.as_bytes(), now);
        let named = |limit: LimitOutlook| LimitOutlook { key: wanted.shown(), ..limit };
        match home {
            Home::Own | Home::Shared(None) => Vec::new(),
            Home::Shared(Some(slot)) => {
                let identity = self.region.buckets().get(slot).and_then(|b| key_of(&b.identity));
                let Some(identity) = identity else { return Vec::new() };
                let hit =
                    Hit { table: Table::Keys, slot, identity, matched: Match::Key, sliding: None };
                let shared = |limit| LimitOutlook { matched: "shared", ..named(limit) };
                self.outlooks(&hit).into_iter().map(shared).collect()
            }
            Home::Local => {
                let reason = "there is no room for the key: each worker decides for itself";
                vec![named(self.undecided("requests", reason))]
            }
            Home::Nowhere => {
                let mut limit = self.answered("requests", 1, Verdict::NoRoom, now);
                limit.reason = Some("there is no room for the key".to_string());
                vec![named(limit)]
            }
        }
    }

    fn answered(
        &self,
        limit_of: &'static str,
        cost: u64,
        verdict: Verdict,
        now: Instant,
    ) -> LimitOutlook {
        let retry_after_us = match verdict {
            Verdict::RefusesFor(us) => Some(us),
            _ => None,
        };
        let reason = match verdict {
            Verdict::Never => Some("it costs more than the limit"),
            Verdict::UntilReleased => Some("until a slot is released"),
            Verdict::NoRoom => Some("there is no room for a slot in the region"),
            Verdict::Admits | Verdict::RefusesFor(_) => None,
        };
        LimitOutlook {
            key: String::new(),
            id: None,
            matched: Match::Key.name(),
            limit_of,
            cost,
            used: None,
            limit: None,
            left: None,
            answer: if verdict == Verdict::Admits { "admits" } else { "refuses" },
            reason: reason.map(str::to_string),
            retry_after_us,
            until_ms: retry_after_us.map(|us| unix_ms(self.region, now, us)),
            moving: false,
            rank: rank(verdict),
        }
    }

    fn undecided(&self, limit_of: &'static str, reason: &str) -> LimitOutlook {
        let cost = self.question.cost;
        let answered = self.answered(limit_of, cost, Verdict::Admits, self.region.now());
        LimitOutlook { answer: "unknown", reason: Some(reason.to_string()), ..answered }
    }

    fn told(
        &self,
        limit_of: &'static str,
        cost: u64,
        limit: u64,
        outlook: Outlook,
        now: Instant,
    ) -> LimitOutlook {
        let answered = self.answered(limit_of, cost, outlook.verdict, now);
        let corrects =
            "what stands there cannot be: the next request corrects it, and counts from then on";
        LimitOutlook {
            used: Some(outlook.used),
            limit: Some(limit),
            left: Some(outlook.left),
            reason: answered
                .reason
                .clone()
                .or_else(|| outlook.corrects.then(|| corrects.to_string())),
            ..answered
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FakeClock;
    use crate::config::{Capacity, Overflow};
    use crate::engine::Engine;
    use crate::engine::health::Cause;
    use crate::engine::slots::SlotAsk;
    use crate::engine::tests::engine;
    use crate::engine::windows::Ask;
    use crate::layout::FailureKind;
    use crate::region::create_heap;

    fn explain(engine: &Engine, names: &[&str], cost: u64) -> Explanation {
        let wanted: Vec<Wanted> = names.iter().map(|name| Wanted::new(name)).collect();
        Explanation::of(engine.region(), "", &wanted, Question { cost, slot_ttl_s: 0 })
    }

    /// The answers by what they limit.
    fn told(explanation: &Explanation) -> Vec<(&str, &str)> {
        explanation.limits.iter().map(|limit| (limit.limit_of, limit.answer)).collect()
    }

    fn charge(engine: &Engine, subject: &str, requests: i64, tokens: i64) {
        let [window, one, two] =
            ["window", "requests", "tokens"].map(|part| format!("{subject}:{part}"));
        let ask =
            |counter, limit, amount| Ask { window: &window, counter, limit, amount, size_s: 60 };
        engine.admit_all(&[ask(&one, 3, requests), ask(&two, 100, tokens)]).unwrap();
    }

    #[test]
    fn of_all_limits_the_one_that_refuses_longest_decides() {
        let (engine, clock) = engine();
        charge(&engine, "{user:a}", 1, 60);
        let slots = "{user:a}:max_parallel_requests";
        let ask = SlotAsk { key: slots, limit: 1, ttl_s: 0, slot_id: "x" };
        engine.acquire_all(&[ask]).unwrap();
        engine.check(&engine.limiter("", Quota::new(60, 1).unwrap()), b"k").unwrap();
        clock.advance_ns(250_000_000);
        let all = explain(&engine, &["user:a"], 50);
        let answers = [("requests", "admits"), ("tokens", "refuses"), ("parallel", "refuses")];
        assert_eq!(told(&all), answers);
        assert_eq!((all.admitted, all.decides, all.limits[0].cost), (false, Some(1), 1));
        let wait_us = all.retry_after_us.unwrap();
        assert!((58_000_000..=60_000_000).contains(&wait_us), "{wait_us}");
        // Both are whole milliseconds, none of them too early.
        let later_ms = all.until_ms.unwrap() - all.at_ms;
        assert!((wait_us / 1_000..=wait_us.div_ceil(1_000)).contains(&later_ms), "{later_ms}");
        // 50 requests at once are more than the rate ever admits.
        let all = explain(&engine, &["user:a", "k"], 50);
        assert_eq!((told(&all)[3], all.decides), (("rate", "refuses"), Some(3)));
        assert_eq!((all.retry_after_us, all.until_ms), (None, None));
        // One is refused by the rate for less than a second, and by nothing for longer.
        let all = explain(&engine, &["user:a", "k"], 1);
        assert_eq!((all.decides, all.retry_after_us), (Some(3), Some(750_000)));
    }

    #[test]
    fn slots_decide_when_nothing_else_refuses() {
        let (engine, _) = engine();
        let slots = "{user:a}:max_parallel_requests";
        let ask = SlotAsk { key: slots, limit: 1, ttl_s: 0, slot_id: "x" };
        engine.acquire_all(&[ask]).unwrap();
        let full = explain(&engine, &["user:a"], 1);
        assert_eq!((told(&full), full.decides), (vec![("parallel", "refuses")], Some(0)));
        assert_eq!((full.retry_after_us, full.until_ms), (None, None));
        assert_eq!(full.limits[0].reason.as_deref(), Some("until a slot is released"));
        engine.release(slots, "x").unwrap();
        let free = explain(&engine, &["user:a"], 1);
        assert_eq!((free.admitted, free.decides, free.limits[0].left), (true, None, Some(1)));
    }

    #[test]
    fn a_part_that_was_asked_for_decides_alone_and_what_is_related_does_not() {
        let (engine, _) = engine();
        charge(&engine, "{user:a}", 3, 10);
        assert!(!explain(&engine, &["{user:a}"], 1).admitted);
        let tokens = explain(&engine, &["{user:a}:tokens"], 90);
        assert_eq!((told(&tokens), tokens.admitted), (vec![("tokens", "admits")], true));
        assert!(!explain(&engine, &["{user:a}:tokens"], 91).admitted);
        let hash = "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b";
        charge(&engine, &format!("{{api_key:{hash}}}"), 1, 1);
        charge(&engine, &format!("{{model_per_key:{hash}:gpt}}"), 3, 1);
        let key = explain(&engine, &[hash], 1);
        let related: Vec<_> =
            key.limits.iter().filter(|limit| limit.matched == "related").collect();
        assert_eq!((related.len(), related[0].answer, key.admitted), (2, "refuses", true));
    }

    #[test]
    fn a_deployment_in_cooldown_is_refused_until_it_is_over() {
        let (engine, clock) = engine();
        let cause = Cause { kind: FailureKind::RateLimited, status: 429, text: "no more" };
        engine.cool_down("gpt", 5_000, &cause).unwrap();
        clock.advance_ns(1_234_567_000);
        let cool = explain(&engine, &["gpt"], 1);
        assert_eq!(cool.limits[0].reason.as_deref(), Some("rate_limited 429: no more"));
        let wait_us = cool.retry_after_us.unwrap();
        clock.advance_ns((wait_us - 1) * 1_000);
        assert!(engine.cooldown_left_ms("gpt") > 0 && !explain(&engine, &["gpt"], 1).admitted);
        clock.advance_ns(1_000);
        assert!(engine.cooldown_left_ms("gpt") == 0 && explain(&engine, &["gpt"], 1).admitted);
        let _flight = engine.depart("gpt", Some(1)).unwrap();
        let full = explain(&engine, &["gpt"], 1);
        assert_eq!(told(&full), [("cooldown", "admits"), ("in_flight", "refuses")]);
    }

    #[test]
    fn a_name_that_is_not_known_is_not_admitted_and_a_key_without_room_is_decided() {
        let (engine, _) = engine();
        let unknown = explain(&engine, &["{user:nobody}"], 1);
        assert_eq!((unknown.admitted, unknown.unknown), (false, vec!["user:nobody".to_string()]));
        // A counter's reader compares it with what only it knows.
        engine.add("c", 1, 600).unwrap();
        let counted = explain(&engine, &["c"], 1);
        assert_eq!((counted.limits[0].answer, counted.admitted), ("unknown", false));
        let clock = FakeClock::at(1_000_000_000_000);
        let capacity = Capacity { keys: 40, lease_chunks: 8, workers: 4, deployments: 8 };
        let engine = Engine::new(create_heap(capacity, Box::new(clock)).unwrap());
        for n in 0..100 {
            let _ = engine.add(&format!("c{n}"), 1, 600);
        }
        let refused = explain(&engine, &["{user:a}"], 1);
        assert_eq!((told(&refused), refused.admitted), (vec![("requests", "refuses")], false));
        engine.region().set_overflow(Overflow::Local);
        assert_eq!(told(&explain(&engine, &["{user:a}"], 1)), [("requests", "unknown")]);
        engine.region().set_overflow(Overflow::Shared);
        assert!(explain(&engine, &["{user:a}"], 1).limits.is_empty());
        (0..3).for_each(|_| charge(&engine, "{user:b}", 1, 1));
        let shared = explain(&engine, &["{user:a}"], 1);
        assert_eq!((shared.limits[0].matched, shared.admitted), ("shared", false));
        assert_eq!(told(&shared)[0], ("requests", "refuses"));
    }
}
