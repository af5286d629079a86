//! Every public operation of the engine, chosen by a source and told as text.

use super::source::Source;
use super::steps::{self, Size};
use fast_litellm::config::Overflow;
use fast_litellm::engine::Engine;
use fast_litellm::engine::admission::{Answer, Demand, Rule};
use fast_litellm::engine::calls::{CooldownRule, Taken};
use fast_litellm::engine::features::BREAKER;
use fast_litellm::engine::health::{Cause, Cooldown, Departure, Flight};
use fast_litellm::engine::leader::Term;
use fast_litellm::engine::pool::{Connection, Pool, Settings};
use fast_litellm::engine::quota::{Limiter, Place};
use fast_litellm::engine::routing::Strategy;
use fast_litellm::engine::sampling::Timed;
use fast_litellm::engine::sliding::SlidingLimiter;
use fast_litellm::engine::slots::SlotAsk;
use fast_litellm::engine::subject::Part;
use fast_litellm::engine::windows::Ask;
use fast_litellm::error::OpError;
use fast_litellm::layout::{FailureKind, FlagMode, HandCommand, IdentityWord};
use fast_litellm::primitives::breaker;
use fast_litellm::primitives::gcra::Quota;
use fast_litellm::primitives::sliding::SlidingLimit;
use fast_litellm::sync::{Bits, Ordering};
use fast_litellm::tables::connections::{Ended, Keep};
use fast_litellm::tables::index;
use std::convert::Infallible;

/// Names of keys. A key's number chooses the same row everywhere.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
/// Timed only if somebody has switched it on, which is not before all of it has been tried.
static TIMED: Timed = Timed::new("a");
/// Bytes of notices; the last is too long.
const LENGTHS: [usize; 4] = [0, 100, 131_072, 131_073];
const TEXTS: [&str; 3] = [
    "",
    "no more",
    "Bearer 0123456789abcdef is not known, and this goes on for longer than a record can hold it: it is cut, and what comes then is not seen",
];
pub const SUBJECTS: [&str; 4] = ["{user:a}", "{user:b}", "{team:c}", "{tag:d}"];
const WINDOWS: [&str; 4] =
    ["{user:a}:window", "{user:b}:window", "{team:c}:window", "{tag:d}:window"];
const REQUESTS: [&str; 4] =
    ["{user:a}:requests", "{user:b}:requests", "{team:c}:requests", "{tag:d}:requests"];
const TOKENS: [&str; 4] =
    ["{user:a}:tokens", "{user:b}:tokens", "{team:c}:tokens", "{tag:d}:tokens"];
pub const SLOTS: [&str; 4] = [
    "{user:a}:max_parallel_requests",
    "{user:b}:max_parallel_requests",
    "{team:c}:max_parallel_requests",
    "{tag:d}:max_parallel_requests",
];
const OWN: [&str; 4] = ["spend:a", "spend:b", "spend:c", "spend:d"];
const IDS: [&str; 8] = ["0", "1", "2", "3", "4", "5", "6", "7"];
/// Limits of slots: in one chunk, at its end, and over several.
const SLOT_LIMITS: [i64; 6] = [1, 3, 32, 40, 100, -1];
/// How long a slot may be held, seconds.
pub const TTL_S: u64 = 600;
/// Length of all anchored windows.
pub const WINDOW_S: u64 = 60;
/// Admissions of one key that are kept for later.
const OPEN: usize = 8;

/// Keys.
pub const KEYS: [usize; 4] = [0, 1, 2, 3];

/// The limiters that the operations use.
pub struct Limiters {
    pub rates: [Limiter; 2],
    pub sliding: [SlidingLimiter; 2],
}

impl Limiters {
    pub fn of(engine: &Engine) -> Self {
        let rate = |name, per_minute, burst| {
            engine.limiter(name, Quota::new(per_minute, burst).expect("valid"))
        };
        let sliding = |name, limit, window_s| {
            engine.sliding_limiter(name, SlidingLimit::new(limit, window_s).expect("valid"))
        };
        Self {
            rates: [rate("", 60, 6), rate("slow", 1, 3)],
            sliding: [sliding("", 20, 60), sliding("large", (1 << 40) - 1, 1)],
        }
    }
}

/// One operation with what it is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Operation {
    number: usize,
    /// The key it concerns.
    pub key: usize,
    other: usize,
    which: usize,
    amount: u64,
    id: usize,
}

impl Operation {
    /// Any operation on any of these keys.
    pub fn any(source: &mut Source<'_>, keys: &[usize]) -> Self {
        Self::of(usize::from(source.byte()) % OPERATIONS.len(), source, keys)
    }

    /// An operation that concerns its keys only.
    pub fn keyed(source: &mut Source<'_>, keys: &[usize]) -> Self {
        let keyed = OPERATIONS.iter().position(|&(name, _)| name == FIRST_OF_ALL);
        let keyed = keyed.expect("it is in the list");
        Self::of(usize::from(source.byte()) % keyed, source, keys)
    }

    fn of(number: usize, source: &mut Source<'_>, keys: &[usize]) -> Self {
        Self {
            number,
            key: source.one_of(keys),
            other: source.one_of(keys),
            which: usize::from(source.byte()),
            amount: source.number(),
            id: usize::from(source.byte()) % IDS.len(),
        }
    }

    /// The operation's name, as the engine has it.
    pub fn name(&self) -> &'static str {
        OPERATIONS[self.number].0
    }

    fn small(&self) -> u64 {
        self.amount % 4
    }

    #[allow(clippy::cast_possible_wrap, reason = "any number will do")]
    fn signed(&self) -> i64 {
        self.amount as i64
    }

    fn slot_limit(&self) -> i64 {
        SLOT_LIMITS[self.which % SLOT_LIMITS.len()]
    }

    fn ask(&self, key: usize) -> SlotAsk<'static> {
        SlotAsk { key: SLOTS[key], limit: self.slot_limit(), ttl_s: TTL_S, slot_id: IDS[self.id] }
    }

    fn counter(&self) -> (&'static str, Part) {
        if self.which.is_multiple_of(2) {
            (REQUESTS[self.key], Part::Requests)
        } else {
            (TOKENS[self.key], Part::Tokens)
        }
    }
}

/// A caller of the engine, with what it must remember between operations.
pub struct Caller<'a> {
    pub engine: &'a Engine,
    limiters: &'a Limiters,
    open: Vec<Vec<Demand<'a>>>,
    places: Vec<(usize, Place)>,
    flights: Vec<(usize, Flight)>,
    probes: Vec<(usize, breaker::Probe)>,
    terms: Vec<Term>,
    connections: Vec<Connection>,
}

type Run = for<'a> fn(&mut Caller<'a>, &Operation) -> String;

/// The first operation that concerns more than its keys.
const FIRST_OF_ALL: &str = "limiter_totals";

fn told(result: impl std::fmt::Debug) -> String {
    format!("{result:?}")
}

/// Does what answers nothing.
fn silent(operation: impl FnOnce()) -> String {
    operation();
    String::new()
}

/// All operations by their names.
pub const OPERATIONS: [(&str, Run); 103] = [
    ("check", |c, o| told(c.engine.check(c.rate(o), NAMES[o.key].as_bytes()))),
    ("check_cost", |c, o| told(c.engine.check_cost(c.rate(o), NAMES[o.key].as_bytes(), o.amount))),
    ("place", |c, o| c.place(o)),
    ("check_at", |c, o| c.check_at(o)),
    ("reset_at", |c, o| {
        let name = NAMES[o.key].as_bytes();
        told(c.engine.place(c.rate(o), name).map(|place| c.engine.reset_at(place)))
    }),
    ("remaining", |c, o| told(c.engine.remaining(c.rate(o), NAMES[o.key].as_bytes()))),
    ("check_sliding", |c, o| {
        told(c.engine.check_sliding(c.sliding(o), NAMES[o.key].as_bytes(), o.amount))
    }),
    ("check_sliding", |c, o| {
        told(c.engine.check_sliding(c.sliding(o), NAMES[o.key].as_bytes(), o.small()))
    }),
    ("remaining_sliding", |c, o| {
        told(c.engine.remaining_sliding(c.sliding(o), NAMES[o.key].as_bytes()))
    }),
    ("hit_all", |c, o| {
        let pairs = [(WINDOWS[o.key], o.counter().0), (WINDOWS[o.other], TOKENS[o.other])];
        told(c.engine.hit_all(&pairs, WINDOW_S))
    }),
    ("note_refusal", |c, o| silent(|| c.engine.note_refusal(SUBJECTS[o.key]))),
    ("note_limits", |c, o| told(c.engine.note_limits(SUBJECTS[o.key], o.amount, o.small()))),
    ("admit_all", |c, o| {
        let ask = |key, limit, amount| Ask {
            window: WINDOWS[key],
            counter: if key == o.key { o.counter().0 } else { TOKENS[key] },
            limit,
            amount,
            size_s: WINDOW_S,
        };
        let small = i64::try_from(o.small()).unwrap_or(0);
        told(c.engine.admit_all(&[ask(o.key, 10, small), ask(o.other, 100, 1)]))
    }),
    ("admit_all", |c, o| {
        let (limit, amount) = (o.signed(), i64::from(u32::MAX));
        let (window, counter) = (WINDOWS[o.key], o.counter().0);
        told(c.engine.admit_all(&[Ask { window, counter, limit, amount, size_s: WINDOW_S }]))
    }),
    ("adjust_if_window", |c, o| {
        let (window, counter) = (WINDOWS[o.key], o.counter().0);
        let start = c.engine.value(window).and_then(|start| u64::try_from(start).ok());
        told(c.engine.adjust_if_window(window, counter, start, o.signed()))
    }),
    ("adjust_if_window", |c, o| {
        let (window, counter) = (WINDOWS[o.key], o.counter().0);
        told(c.engine.adjust_if_window(window, counter, Some(o.amount), -1))
    }),
    ("add", |c, o| told(c.engine.add(o.counter().0, o.signed(), o.amount))),
    ("add", |c, o| told(c.engine.add(OWN[o.key], o.signed(), o.amount))),
    ("value", |c, o| {
        let keys = [WINDOWS[o.key], REQUESTS[o.key], TOKENS[o.key], OWN[o.key]];
        told(keys.map(|key| c.engine.value(key)))
    }),
    ("forget", |c, o| {
        let keys = [WINDOWS[o.key], REQUESTS[o.key], TOKENS[o.key], OWN[o.key]];
        silent(|| c.engine.forget(keys[o.which % keys.len()]))
    }),
    ("spend", |c, o| {
        #[allow(clippy::cast_precision_loss, reason = "any amount will do")]
        let amount = o.signed() as f64 / 1e4;
        told(c.engine.spend(OWN[o.key], amount, TTL_S))
    }),
    ("spent", |c, o| told(c.engine.spent(OWN[o.key]))),
    ("acquire_all", |c, o| told(c.engine.acquire_all(&[o.ask(o.key)]))),
    ("acquire_all", |c, o| told(c.engine.acquire_all(&[o.ask(o.key), o.ask(o.other)]))),
    ("release", |c, o| told(c.engine.release(SLOTS[o.key], IDS[o.id]))),
    ("holds_slot", |c, o| told(c.engine.holds_slot(SLOTS[o.key], IDS[o.id]))),
    ("count_slots", |c, o| told(c.engine.count_slots(SLOTS[o.key], o.small() * TTL_S))),
    ("in_flight", |c, o| told(c.engine.in_flight(SLOTS[o.key], o.small() * TTL_S))),
    ("admit", |c, o| c.admit(o)),
    ("admit", |c, o| c.admit(o)),
    ("cancel", |c, o| c.cancel(o)),
    ("finish", |c, o| c.finish(o)),
    ("settle", |c, o| c.settle(o)),
    ("depart", |c, o| c.depart(o, None)),
    ("depart", |c, o| c.depart(o, u64::try_from(o.slot_limit()).ok())),
    ("arrive", |c, o| c.arrive(o)),
    ("deployment_succeeded", |c, o| {
        let first = (o.id > 3).then_some(o.small());
        told(c.engine.deployment_succeeded(NAMES[o.key], WINDOW_S, Some(o.amount), first))
    }),
    ("deployment_failed", |c, o| {
        let kind = FailureKind::from_status(o.amount);
        told(c.engine.deployment_failed(NAMES[o.key], WINDOW_S, kind, o.amount))
    }),
    ("cool_down", |c, o| {
        let kind = FailureKind::RateLimited;
        let cause = Cause { kind, status: o.amount, text: TEXTS[o.which % TEXTS.len()] };
        told(c.engine.cool_down(NAMES[o.key], o.amount, &cause))
    }),
    ("end_cooldown", |c, o| told(c.engine.end_cooldown(NAMES[o.key]))),
    ("end_cooldown_at", |c, o| {
        let known = c.engine.known_deployment(NAMES[o.key]).map(|found| found.place());
        told(known.map(|place| c.engine.end_cooldown_at(place)))
    }),
    ("cooldown_left_ms", |c, o| told(c.engine.cooldown_left_ms(NAMES[o.key]))),
    ("cooldown", |c, o| {
        let found = c.engine.cooldown(NAMES[o.key]);
        let adds_up = |c: &Cooldown| {
            c.began_ms + c.for_ms == c.until_ms && c.left_ms <= c.for_ms && c.left_ms > 0
        };
        assert!(found.as_ref().is_none_or(adds_up), "{found:?}");
        told(found)
    }),
    ("scores_within", |c, o| told(c.engine.scores_within(NAMES[o.key], o.which, o.amount))),
    ("first_tokens_within", |c, o| {
        told(c.engine.first_tokens_within(NAMES[o.key], o.which, o.amount))
    }),
    ("known_deployment", |c, o| told(c.engine.known_deployment(NAMES[o.key]).is_some())),
    ("deployment_at", |c, o| {
        let known = c.engine.known_deployment(NAMES[o.key]).map(|found| found.place());
        told(known.map(|place| c.engine.deployment_at(place).is_some()))
    }),
    ("introduce", |c, o| told(c.engine.introduce(NAMES[o.key], TEXTS[o.which % TEXTS.len()]))),
    ("deployment_scored", |c, o| told(c.engine.deployment_scored(NAMES[o.key], o.amount))),
    ("scores", |c, o| told(c.engine.scores(NAMES[o.key], o.which))),
    ("flights_to", |c, o| told(c.engine.flights_to(NAMES[o.key]))),
    ("health", |c, o| told(c.engine.health(NAMES[o.key]))),
    ("lead", |c, o| {
        let led = c.engine.lead(NAMES[o.key], o.small());
        if let Ok(Some(term)) = led {
            c.terms = vec![term];
        }
        // Numbers of terms depend on who has led before.
        told(led.map(|term| term.is_some()))
    }),
    ("still_leads", |c, _| told(c.terms.last().map(|term| c.engine.still_leads(term)))),
    ("resign", |c, _| told(c.terms.pop().map(|term| c.engine.resign(&term)))),
    ("leader", |c, o| told(c.engine.leader(NAMES[o.key]).map(|leader| leader.pid))),
    ("publish", |c, o| {
        let bytes = vec![o.amount.to_le_bytes()[0]; LENGTHS[o.which % LENGTHS.len()]];
        told(c.engine.publish(NAMES[o.key], &bytes, o.small()))
    }),
    ("notice", |c, o| {
        let found = c.engine.notice(NAMES[o.key]);
        let whole = |bytes: &Vec<u8>| {
            LENGTHS.contains(&bytes.len()) && bytes.windows(2).all(|pair| pair[0] == pair[1])
        };
        assert!(
            found.as_ref().is_none_or(whole),
            "a mixture of {:?} bytes",
            found.map(|b| b.len())
        );
        told(found.map(|bytes| bytes.len()))
    }),
    // From here on operations concern more than their keys.
    (FIRST_OF_ALL, |c, o| {
        let quota = c.rate(o).quota();
        told([None, Some(quota)].map(|rate| c.engine.limiter_totals(rate).checks()))
    }),
    ("reset_at", |c, o| {
        let buckets = c.engine.region().buckets();
        let slot = usize::try_from(o.amount).unwrap_or(0) % buckets.len();
        let identity = index::key_of(buckets[slot].identity.load(Ordering::Relaxed));
        let place = identity.map(|identity| Place { slot, identity });
        told(place.map(|place| c.engine.reset_at(place)))
    }),
    ("reset_at", |c, o| {
        // A place that may not be.
        let slot = usize::try_from(o.amount).unwrap_or(usize::MAX);
        let identity = IdentityWord::from_bits(o.amount | 2);
        told(c.engine.reset_at(Place { slot, identity }))
    }),
    ("reset_all", |c, _| told(c.engine.reset_all())),
    ("note_by_hand", |c, o| {
        let subject = IdentityWord::from_bits(o.amount);
        let command = HandCommand::ALL[o.which % HandCommand::ALL.len()];
        silent(|| c.engine.note_by_hand((o.id > 3).then_some(subject), 1_000, command))
    }),
    ("call_succeeded", |c, o| {
        #[allow(clippy::cast_precision_loss, reason = "any number will do")]
        let cost = o.amount as f64 / 1e6;
        let first_token_us = o.which.is_multiple_of(3).then_some(o.amount);
        let latency_us = Some(o.amount);
        let taken = Taken { tokens: o.signed(), cost, latency_us, first_token_us };
        told(c.engine.call_succeeded(NAMES[o.key], &taken))
    }),
    ("call_failed", |c, o| {
        let cause = Cause::new(Some(o.amount), TEXTS[o.which % TEXTS.len()]);
        let rule = CooldownRule { allowed_fails: Some(o.small()), for_ms: o.amount };
        told(c.engine.call_failed(NAMES[o.key], &cause, &rule, o.which.is_multiple_of(2)))
    }),
    ("used", |c, o| told(c.engine.used(NAMES[o.key]))),
    ("selection", |c, o| {
        let mut selection = c.engine.selection(Strategy::ALL[o.which % Strategy::ALL.len()]);
        for (position, name) in NAMES.iter().enumerate() {
            let known = c.engine.known_deployment(name);
            let offered: Result<(), Infallible> =
                selection.offer(position, known.as_ref(), |_| Ok(1.0));
            offered.expect("cannot fail");
        }
        // Which one is left to chance.
        told(selection.chosen().is_some())
    }),
    ("pool", |c, o| {
        let keep = Keep { idle_s: o.amount, age_s: o.small() };
        let settings = Settings { max_per_endpoint: o.amount, max_total: o.small(), keep };
        told(c.engine.pool(NAMES[o.key], settings).is_ok())
    }),
    ("connect", |c, o| {
        let Ok(pool) = c.pool() else { return "no pool".to_string() };
        let connected = c.engine.connect(&pool, NAMES[o.key]);
        if let Ok(Some(connection)) = connected {
            c.connections.truncate(OPEN);
            c.connections.insert(0, connection);
        }
        told(connected.map(|connection| connection.is_some()))
    }),
    ("connect_at", |c, o| {
        let Ok(pool) = c.pool() else { return "no pool".to_string() };
        let place = c.engine.endpoint_place(&pool, NAMES[o.key]);
        told(place.map(|place| c.engine.connect_at(&pool, place).is_some()))
    }),
    ("endpoint_place", |c, o| {
        told(c.pool().map(|pool| c.engine.endpoint_place(&pool, NAMES[o.key]).is_ok()))
    }),
    ("return_connection", |c, o| c.end(o, Engine::return_connection)),
    ("remove_connection", |c, o| c.end(o, Engine::remove_connection)),
    ("connection_is_healthy", |c, o| {
        let seen = c.any_connection(o).zip(c.pool().ok());
        told(seen.map(|(connection, pool)| c.engine.connection_is_healthy(&pool, &connection)))
    }),
    ("report_connection", |c, o| {
        let cause = Cause::new(Some(o.amount), TEXTS[o.which % TEXTS.len()]);
        let cause = o.id.is_multiple_of(3).then_some(&cause);
        let seen = c.any_connection(o).zip(c.pool().ok());
        told(seen.map(|(connection, pool)| c.engine.report_connection(&pool, &connection, cause)))
    }),
    ("sweep_pool", |c, _| told(c.pool().map(|pool| c.engine.sweep_pool(&pool)))),
    ("pool_stats", |c, _| told(c.pool().map(|pool| c.engine.pool_stats(&pool).counts))),
    ("reap_flights", |c, _| silent(|| c.engine.reap_flights(c.engine.now()))),
    ("feature_error", |c, o| told(c.engine.feature_error(o.which % 20))),
    ("feature_errors", |c, o| told(c.engine.feature_errors(o.which % 20))),
    ("feature_standing", |c, o| told(c.engine.feature_standing(o.which % 20, BREAKER))),
    ("feature_admits", |c, o| {
        let admitted = c.engine.feature_admits(o.which % 20, BREAKER);
        if let breaker::Admission::Probe(probe) = admitted {
            c.probes = vec![(o.which % 20, probe)];
        }
        told(admitted)
    }),
    ("feature_recovered", |c, _| {
        let probe = c.probes.pop();
        told(probe.map(|(feature, probe)| c.engine.feature_recovered(feature, probe)))
    }),
    ("reset_feature", |c, o| silent(|| c.engine.reset_feature(o.which % 20))),
    ("flag", |c, o| told(c.engine.flag(o.which % 20))),
    ("set_flag", |c, o| {
        silent(|| c.engine.set_flag(o.which % 20, FlagMode::from_raw(o.amount), o.amount >> 8))
    }),
    ("series", |c, o| told(c.engine.series(NAMES[o.key]))),
    ("measure", |c, o| {
        told(c.engine.series(NAMES[o.key]).map(|series| c.engine.measure(series, o.amount)))
    }),
    ("measure_failure", |c, o| {
        told(c.engine.series(NAMES[o.key]).map(|series| c.engine.measure_failure(series)))
    }),
    ("measure_bytes", |c, o| {
        let bytes = |series| c.engine.measure_bytes(series, o.amount, 1);
        told(c.engine.series(NAMES[o.key]).map(bytes))
    }),
    ("timed", |c, _| told(c.engine.timed(&TIMED, || 7, |_| true))),
    ("series_at", |c, o| told(c.engine.series_at(o.which).is_some())),
    ("measured", |c, o| {
        let all = c.engine.series(NAMES[o.key]).map(|series| c.engine.measured(series));
        told(all.map(|all| (all.mean_ns(), all.quantile_ns(0.5), all.cumulative(4).count())))
    }),
    ("all_measured", |c, _| told(c.engine.all_measured().len())),
    ("recent_events", |c, o| {
        told(c.engine.recent_events(o.which).map(|entry| entry.known_kind()).collect::<Vec<_>>())
    }),
    ("reap_dead", |c, _| told(c.engine.reap_dead())),
    ("reap_all", |c, _| told(c.engine.reap_all())),
    ("leave", |c, _| silent(|| c.engine.leave())),
    ("me", |c, _| told(c.engine.me())),
    ("count", |c, _| silent(|| c.engine.count(|row| &row.fallbacks))),
    ("total", |c, _| told(c.engine.total(|row| &row.window_charged))),
    ("limiter", |c, _| told(Limiters::of(c.engine).rates)),
    ("set_overflow", |c, o| {
        silent(|| c.engine.region().set_overflow(Overflow::ALL[o.which % Overflow::ALL.len()]))
    }),
];

/// Whether an admission is one of that key's.
fn concern(demands: &[Demand<'_>], key: usize) -> bool {
    demands.iter().any(|demand| [NAMES[key], SUBJECTS[key]].contains(&demand.key))
}

/// Keeps what a key was given, and of each key no more than the latest.
fn keep<T>(kept: &mut Vec<(usize, T)>, key: usize, given: T) {
    kept.insert(0, (key, given));
    let mut of_key = 0;
    kept.retain(|(other, _)| {
        of_key += usize::from(*other == key);
        *other != key || of_key <= OPEN
    });
}

impl<'a> Caller<'a> {
    pub fn new(engine: &'a Engine, limiters: &'a Limiters) -> Self {
        Self {
            engine,
            limiters,
            open: Vec::new(),
            places: Vec::new(),
            flights: Vec::new(),
            probes: Vec::new(),
            terms: Vec::new(),
            connections: Vec::new(),
        }
    }

    /// Does it; returns what it answered.
    pub fn run(&mut self, operation: &Operation) -> String {
        let size = Size::of(self.engine.region());
        // To register takes more steps than most operations, and comes with any of them.
        #[cfg(feature = "steps")]
        steps::within(size.register(), || self.engine.me());
        steps::within(size.operation(operation.name()), || {
            OPERATIONS[operation.number].1(self, operation)
        })
    }

    fn rate(&self, operation: &Operation) -> &'a Limiter {
        &self.limiters.rates[operation.which % 2]
    }

    fn sliding(&self, operation: &Operation) -> &'a SlidingLimiter {
        &self.limiters.sliding[operation.which % 2]
    }

    fn place(&mut self, operation: &Operation) -> String {
        let place = self.engine.place(self.rate(operation), NAMES[operation.key].as_bytes());
        if let Ok(place) = place {
            keep(&mut self.places, operation.key, place);
        }
        told(place.is_ok())
    }

    fn check_at(&mut self, operation: &Operation) -> String {
        let kept = self.places.iter().find(|(key, _)| *key == operation.key);
        told(kept.map(|&(_, place)| self.engine.check_at(&self.limiters.rates[0], place)))
    }

    /// A pool in which endpoints and the pool are full soon.
    fn pool(&self) -> Result<Pool, OpError> {
        let keep = Keep { idle_s: TTL_S, age_s: 0 };
        self.engine.pool("pool", Settings { max_per_endpoint: 3, max_total: 40, keep })
    }

    /// One that was handed out, or that nobody was.
    fn any_connection(&self, operation: &Operation) -> Option<Connection> {
        let Operation { amount, which, id, .. } = *operation;
        let made_up = format!("#{:x}.{id:x}.{:x}.{which:x}", which * 2, amount & 0xffff_ffff);
        let known = self.connections.get(id).copied();
        known.or_else(|| Connection::parse(&made_up))
    }

    fn end(
        &mut self,
        operation: &Operation,
        end: fn(&Engine, &Pool, &Connection) -> Ended,
    ) -> String {
        let seen = self.any_connection(operation).zip(self.pool().ok());
        told(seen.map(|(connection, pool)| end(self.engine, &pool, &connection)))
    }

    fn depart(&mut self, operation: &Operation, limit: Option<u64>) -> String {
        let departed = self.engine.depart(NAMES[operation.key], limit);
        if let Ok(Departure::Sent(flight)) = departed {
            keep(&mut self.flights, operation.key, flight);
        }
        told(departed.map(|departure| departure == Departure::Full))
    }

    fn arrive(&mut self, operation: &Operation) -> String {
        let position = self.flights.iter().position(|(key, _)| *key == operation.key);
        let flight = position.map(|position| self.flights.remove(position));
        told(flight.map(|(_, flight)| self.engine.arrive(&flight)))
    }

    fn demands(&self, operation: &Operation) -> Vec<Demand<'a>> {
        let (key, cost) = (operation.key, operation.small());
        let (_, part) = operation.counter();
        let limit = u64::try_from(operation.slot_limit()).unwrap_or(0);
        let mut demands = vec![
            Demand::new(SUBJECTS[key], Rule::Slots { limit, ttl_s: TTL_S }, 1),
            Demand::new(NAMES[key], Rule::Rate(self.rate(operation)), cost),
            Demand::new(NAMES[key], Rule::Sliding(self.sliding(operation)), cost),
            Demand::new(SUBJECTS[key], Rule::Window { part, limit: 50, size_s: WINDOW_S }, cost),
        ];
        demands.rotate_left(operation.id % 4);
        demands.truncate(1 + operation.which % 4);
        demands
    }

    fn admit(&mut self, operation: &Operation) -> String {
        let mut demands = self.demands(operation);
        let answer = match self.engine.admit(&mut demands) {
            Ok(Answer::Granted) => {
                let left: Vec<u64> = demands.iter().map(Demand::remaining).collect();
                self.open.push(demands);
                told(left)
            }
            Ok(Answer::Refused(refusal)) => told(refusal),
            Err(error) => told(error),
        };
        // Of each key by itself: what is admitted for one must not end what was admitted for another.
        let mine = |demands: &Vec<Demand<'_>>| concern(demands, operation.key);
        if self.open.iter().filter(|demands| mine(demands)).count() > OPEN
            && let Some(oldest) = self.open.iter().position(mine)
        {
            self.engine.cancel(&mut self.open.remove(oldest));
        }
        answer
    }

    /// The latest admission of that key.
    fn latest(&mut self, operation: &Operation) -> Option<Vec<Demand<'a>>> {
        let position = self.open.iter().rposition(|demands| concern(demands, operation.key))?;
        Some(self.open.remove(position))
    }

    fn cancel(&mut self, operation: &Operation) -> String {
        let Some(mut demands) = self.latest(operation) else { return String::new() };
        silent(|| self.engine.cancel(&mut demands))
    }

    fn finish(&mut self, operation: &Operation) -> String {
        let Some(mut demands) = self.latest(operation) else { return String::new() };
        silent(|| self.engine.finish(&mut demands))
    }

    fn settle(&mut self, operation: &Operation) -> String {
        let Some(mut demands) = self.latest(operation) else { return String::new() };
        let used: Vec<u64> = demands.iter().map(|_| operation.amount).collect();
        let settled = self.engine.settle(&mut demands, &used);
        self.engine.finish(&mut demands);
        told(settled)
    }
}
