//! What is foreseen against what is then decided, over random states.

use super::*;
use crate::clock::FakeClock;
use crate::config::Capacity;
use crate::engine::Engine;
use crate::engine::admission::{Answer, Demand, Rule};
use crate::engine::quota::Limiter;
use crate::engine::sliding::SlidingLimiter;
use crate::engine::slots::{Grant, SlotAsk};
use crate::engine::windows::Ask;
use crate::engine::{admission::Refusal, windows};
use crate::error::OpError;
use crate::layout::{ClaimWord, CounterWord, IdentityWord, WorkerState};
use crate::region::{Vantage, create_heap};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

/// Longer than a process waits before it looks for the dead again.
const REST_NS: u64 = 60_000_000;
const SUBJECTS: [&str; 2] = ["{user:a}", "{team:b}"];
const WINDOWS: [&str; 2] = ["{user:a}:window", "{team:b}:window"];
const REQUESTS: [&str; 2] = ["{user:a}:requests", "{team:b}:requests"];
const TOKENS: [&str; 2] = ["{user:a}:tokens", "{team:b}:tokens"];
const SLOTS: [&str; 2] = ["{user:a}:max_parallel_requests", "{team:b}:max_parallel_requests"];
const NAMES: [&str; 2] = ["a", "b"];

/// A region in use, and a worker that does not do what is asked about.
struct Ground {
    engine: Engine,
    clock: FakeClock,
    rates: [Limiter; 2],
    sliding: [SlidingLimiter; 3],
    next_slot: u64,
    next_row: usize,
    open: Vec<String>,
    is_small: bool,
}

/// One thing that happens. Numbers choose.
#[derive(Debug, Clone, Copy)]
struct Step {
    what: u8,
    key: usize,
    which: usize,
    amount: u64,
}

fn steps(count: Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let step = (0_u8..25, 0_usize..2, 0_usize..6, prop_oneof![0_u64..12, any::<u64>()]);
    let step = step.prop_map(|(what, key, which, amount)| Step { what, key, which, amount });
    prop::collection::vec(step, count)
}

impl Ground {
    fn new(is_small: bool) -> Self {
        let clock = FakeClock::at(1_000_000_000_000);
        // In the small one all keys have the same places, and few chunks.
        let (keys, lease_chunks) = if is_small { (40, 4) } else { (1_024, 64) };
        let capacity = Capacity { keys, lease_chunks, workers: 12, deployments: 8 };
        let engine = Engine::new(create_heap(capacity, Box::new(clock.clone())).expect("heap"));
        let rate = |name, per_minute, burst| {
            engine.limiter(name, Quota::new(per_minute, burst).expect("valid"))
        };
        let sliding = |limit, window_s| {
            engine.sliding_limiter("", SlidingLimit::new(limit, window_s).expect("valid"))
        };
        let rates = [rate("", 60, 6), rate("slow", 7, 3)];
        let sliding = [sliding(9, 60), sliding((1 << 40) - 1, 1), sliding(1, 7)];
        Self {
            rates,
            sliding,
            clock,
            engine,
            next_slot: 0,
            next_row: 4,
            open: Vec::new(),
            is_small,
        }
    }

    fn region(&self) -> &Region {
        self.engine.region()
    }

    fn bucket(&self, kind: KeyKind, domain: u64, bytes: &[u8]) -> Option<&Bucket> {
        let (identity, probe) = keys::identify(self.region(), kind, domain, bytes);
        let (table, _) = self.region().key_buckets();
        index::find(table, probe, identity).map(|slot| &table[slot])
    }

    fn any_bucket(&self, step: Step) -> Option<&Bucket> {
        let used =
            |bucket: &&Bucket| index::key_of(bucket.identity.load(Ordering::Relaxed)).is_some();
        let used: Vec<_> = self.region().buckets().iter().filter(used).collect();
        used.get(usize::try_from(step.amount >> 8).unwrap_or(0) % used.len().max(1)).copied()
    }

    /// A worker dies that holds slots of a key.
    fn dies_holding(&mut self, step: Step) {
        let Some(row) = self.region().workers().get(self.next_row) else { return };
        let state = if step.which == 5 { WorkerState::Dead } else { WorkerState::Live };
        row.claim.store(ClaimWord::new(state as u64, 4_000_000, 1, 1), Ordering::SeqCst);
        let dead = OwnerTag::new(u32::try_from(self.next_row).unwrap(), 1).unwrap();
        self.next_row += 1;
        let me = self.engine.me().unwrap().raw();
        let now_s = self.engine.now().s();
        (0..=step.which).for_each(|_| done(self.acquire(step)));
        let mut left = step.which;
        for holder in self.region().chunks().iter().flat_map(|chunk| &chunk.holders) {
            let word = holder.load(Ordering::SeqCst);
            if left > 0 && word.owner() == me {
                holder.store(LeaseWord::new(dead.raw(), now_s, 0), Ordering::SeqCst);
                left -= 1;
            }
        }
    }

    fn slot_limit(step: Step) -> i64 {
        [1, 3, 33, 40, 2, 100][step.which]
    }

    fn acquire(&mut self, step: Step) -> Result<Grant, OpError> {
        let slot_id = self.next_slot.to_string();
        self.next_slot += 1;
        let limit = Self::slot_limit(step);
        let ask = SlotAsk { key: SLOTS[step.key], limit, ttl_s: ttl_s(step), slot_id: &slot_id };
        let granted = self.engine.acquire_all(&[ask]);
        self.open.push(slot_id);
        granted
    }

    fn run(&mut self, step: Step) {
        let Step { what, key, which, amount } = step;
        let (engine, small) = (&self.engine, amount % 8);
        let signed_small = i64::try_from(small).unwrap();
        match what {
            0 | 1 => done(engine.check_cost(&self.rates[which % 2], NAMES[key].as_bytes(), small)),
            2 | 3 => {
                let limiter = &self.sliding[which % 3];
                let cost = if which > 3 { amount } else { small };
                done(engine.check_sliding(limiter, NAMES[key].as_bytes(), cost));
            }
            4 | 5 => done(engine.admit_all(&[batch_ask(step, 4, signed_small)])),
            6 => done(engine.hit_all(&[(WINDOWS[key], REQUESTS[key])], [60, 5][which % 2])),
            7 => done(engine.add(TOKENS[key], signed_small - 5, 60)),
            8 => done(engine.add(NAMES[key], signed_small, small)),
            9 | 10 => done(self.acquire(step)),
            11 => {
                let slot = self.open.pop().unwrap_or_default();
                let _ = SLOTS.map(|key| engine.release(key, &slot));
            }
            12 => self.dies_holding(step),
            13 => done(engine.reap_dead()),
            14 => {
                // More was used than was reserved: debt.
                let mut demands = [
                    Demand::new(NAMES[key], Rule::Rate(&self.rates[which % 2]), 1),
                    Demand::new(NAMES[key], Rule::Sliding(&self.sliding[which % 3]), 1),
                ];
                if engine.admit(&mut demands) == Ok(Answer::Granted) {
                    let _ = engine.settle(&mut demands, &[small * 2, amount]);
                }
            }
            15 => self.clock.advance_ns(amount % 3_000_000_000),
            17 => self.clock.advance_ns(amount % 100_000_000_000),
            18 => engine.forget(WINDOWS[key]),
            19 => engine.region().set_overflow(Overflow::ALL[which % 3]),
            20 if which > 3 => {
                (0..small * 12).for_each(|n| done(engine.add(&format!("crowd:{n}"), 1, 600)));
            }
            21 => {
                // Chunks that are all held.
                (0..small).for_each(|n| done(engine.depart(&format!("crowd:{n}"), None)));
            }
            22..24 => self.damage(step),
            // Slots are too old from their last second on.
            24 => self.clock.advance_s([20, 1, 60][which % 3]),
            _ => {}
        }
    }

    /// A state that nobody can have written, or one of long ago.
    fn damage(&self, step: Step) {
        let subject = self.bucket(KeyKind::Window, 0, SUBJECTS[step.key].as_bytes());
        let chosen = if step.what == 22 { subject } else { self.any_bucket(step) };
        let Some(bucket) = chosen else { return };
        let now = self.engine.now();
        let kind = KeyKind::from_raw(bucket.identity.load(Ordering::Relaxed).kind());
        let word = match (kind, step.which) {
            (_, 0) => step.amount,
            (Some(KeyKind::Gcra), _) => GcraWord::new(now.us() + (step.amount >> 30), 3).bits(),
            (Some(KeyKind::Sliding), which) => {
                let number = now.us() / 60_000_000 + which as u64 - 1;
                SlidingWord::new(number, step.amount % 12, step.amount >> 60).bits()
            }
            _ => {
                let start_s = now.s() + (step.amount >> 57) + step.which as u64 % 2;
                bucket.window.store(WindowWord::new(start_s, 60), Ordering::SeqCst);
                CounterWord::of_window(start_s, (step.amount % 12).cast_signed() - 4).bits()
            }
        };
        bucket.requests.store(CounterWord::from_bits(word), Ordering::SeqCst);
    }

    fn dead(&self) -> Dead {
        Dead::of(self.region(), workers::prover(Vantage::of(self.region().header())))
    }

    /// Moves time so that this process looks for the dead.
    fn rest(&self) {
        self.clock.advance_ns(REST_NS);
    }
}

/// Whatever it answered.
fn done<T>(_: T) {}

fn ttl_s(step: Step) -> u64 {
    [0, 20][step.which % 2]
}

fn part(step: Step) -> Part {
    [Part::Requests, Part::Tokens][step.which % 2]
}

fn batch_ask(step: Step, limit: i64, amount: i64) -> Ask<'static> {
    let counter = [REQUESTS, TOKENS][step.which % 2][step.key];
    Ask { window: WINDOWS[step.key], counter, limit, amount, size_s: 60 }
}

/// What a decision says of one limit.
fn told<T>(result: Result<T, OpError>, verdict: impl FnOnce(T) -> Verdict) -> Verdict {
    match result {
        Ok(decision) => verdict(decision),
        Err(OpError::TableFull | OpError::LeasesFull) => Verdict::NoRoom,
        Err(error) => panic!("{error}"),
    }
}

fn of_admission(answer: Answer) -> Verdict {
    match answer {
        Answer::Granted => Verdict::Admits,
        Answer::Refused(Refusal { retry_after_us: None, .. }) => Verdict::UntilReleased,
        Answer::Refused(Refusal { retry_after_us: Some(us), .. }) => Verdict::after(us),
    }
}

impl Ground {
    /// The outlook of a limit of a key, wherever the key would be decided. `None` = each process decides.
    fn outlook(
        &self,
        kind: KeyKind,
        domain: u64,
        bytes: &[u8],
        look: impl FnOnce(&Bucket, usize, IdentityWord) -> Outlook,
    ) -> Option<Verdict> {
        let (identity, probe) = keys::identify(self.region(), kind, domain, bytes);
        let (table, _) = self.region().key_buckets();
        let fresh = Bucket::zeroed();
        let (slot, identity, bucket) = if let Some(slot) = index::find(table, probe, identity) {
            (slot, identity, &table[slot])
        } else {
            match home(self.region(), kind, domain, bytes, self.engine.now()) {
                Home::Own | Home::Shared(None) => (usize::MAX, identity, &fresh),
                Home::Shared(Some(slot)) => {
                    let (identity, _) =
                        keys::identify(self.region(), kind, domain, keys::SHARED_KEY);
                    (slot, identity, &self.region().buckets()[slot])
                }
                Home::Local => return None,
                Home::Nowhere => return Some(Verdict::NoRoom),
            }
        };
        Some(look(bucket, slot, identity).verdict)
    }

    /// What is foreseen of that limit, and what is then decided.
    fn compare(&mut self, step: Step) -> (Option<Verdict>, Verdict) {
        let Step { key, which, amount, .. } = step;
        let now = self.engine.now();
        let name = NAMES[key];
        let cost = if which == 5 { amount } else { amount % 8 };
        match step.what % 6 {
            0 => {
                let limiter = self.rates[which % 2].clone();
                let domain = crate::engine::quota::domain(
                    self.region(),
                    ["", "slow"][which % 2],
                    limiter.quota(),
                );
                let foreseen = self.outlook(KeyKind::Gcra, domain, name.as_bytes(), |b, _, _| {
                    rate(b, limiter.quota(), cost, now)
                });
                let decided = self.engine.check_cost(&limiter, name.as_bytes(), cost);
                let verdict = |decision| match decision {
                    gcra::Decision::Allowed { .. } => Verdict::Admits,
                    gcra::Decision::Denied { retry_after_us } => Verdict::after(retry_after_us),
                };
                (foreseen, told(decided, verdict))
            }
            1 => {
                let limiter = self.sliding[which % 3].clone();
                let domain = crate::engine::sliding::domain(self.region(), "", limiter.limit());
                let foreseen =
                    self.outlook(KeyKind::Sliding, domain, name.as_bytes(), |b, _, _| {
                        sliding(b, limiter.limit(), cost, now)
                    });
                let decided = self.engine.check_sliding(&limiter, name.as_bytes(), cost);
                let verdict = |decision| match decision {
                    sliding::Decision::Allowed { .. } => Verdict::Admits,
                    sliding::Decision::Denied { retry_after_us } => Verdict::after(retry_after_us),
                };
                (foreseen, told(decided, verdict))
            }
            2 => {
                let limit = 4;
                let amount = signed(cost);
                let foreseen =
                    self.outlook(KeyKind::Window, 0, SUBJECTS[key].as_bytes(), |b, _, _| {
                        window(b, part(step), (limit, 60), cost, Entry::Batch, now)
                    });
                let decided = self.engine.admit_all(&[batch_ask(step, signed(limit), amount)]);
                let verdict = |decided| match (decided, foreseen) {
                    (windows::Verdict::Admitted(_), _) => Verdict::Admits,
                    // It is not told how long.
                    (_, Some(Verdict::RefusesFor(us))) => Verdict::RefusesFor(us),
                    _ => Verdict::Never,
                };
                (foreseen, told(decided, verdict))
            }
            3 => {
                let rule = Rule::Window { part: part(step), limit: 4, size_s: 60 };
                let foreseen =
                    self.outlook(KeyKind::Window, 0, SUBJECTS[key].as_bytes(), |b, _, _| {
                        window(b, part(step), (4, 60), cost, Entry::Admission, now)
                    });
                let decided = self.engine.admit(&mut [Demand::new(SUBJECTS[key], rule, cost)]);
                (foreseen, told(decided, of_admission))
            }
            _ => {
                let limit = u64::try_from(Self::slot_limit(step)).unwrap();
                let dead = self.dead();
                let region = self.region();
                let foreseen = self.outlook(
                    KeyKind::Window,
                    0,
                    SUBJECTS[key].as_bytes(),
                    |b, slot, identity| {
                        let leases = keys::leases_of(region, &Key { slot, identity, bucket: b });
                        slots(region, &leases, limit, ttl_s(step), &dead, now)
                    },
                );
                let decided = if step.what % 6 == 4 {
                    told(self.acquire(step), |grant| match grant {
                        Grant::Held(_) => Verdict::Admits,
                        Grant::Refused { .. } => Verdict::UntilReleased,
                    })
                } else {
                    let rule = Rule::Slots { limit, ttl_s: ttl_s(step) };
                    told(
                        self.engine.admit(&mut [Demand::new(SUBJECTS[key], rule, 1)]),
                        of_admission,
                    )
                };
                (foreseen, decided)
            }
        }
    }
}

/// How often each verdict was foreseen, for the test of the test.
type Seen = BTreeMap<&'static str, u64>;

fn name(verdict: Option<Verdict>) -> &'static str {
    match verdict {
        Some(Verdict::Admits) => "admits",
        Some(Verdict::RefusesFor(_)) => "refuses for a time",
        Some(Verdict::Never) => "never",
        Some(Verdict::UntilReleased) => "until released",
        Some(Verdict::NoRoom) => "no room",
        None => "local",
    }
}

impl Ground {
    fn check(&mut self, asked: Step, seen: &mut Seen) -> Result<(), TestCaseError> {
        self.rest();
        let (foreseen, decided) = self.compare(asked);
        *seen.entry(name(foreseen)).or_default() += 1;
        let Some(foreseen) = foreseen else { return Ok(()) };
        prop_assert_eq!(foreseen, decided);
        let Verdict::RefusesFor(us) = foreseen else { return Ok(()) };
        // A key that shares a bucket for want of room may find some meanwhile.
        if us > 60_000_000 || self.is_small {
            return Ok(());
        }
        // Refused until then, admitted then, by what is foreseen and by what is decided.
        for (advance_us, admits) in [(us - 1, false), (1, true)] {
            self.clock.advance_ns(advance_us * 1_000);
            let (foreseen, decided) = self.compare(asked);
            prop_assert_eq!((foreseen, decided == Verdict::Admits), (Some(decided), admits));
        }
        Ok(())
    }
}

/// So many random states of a region, with what was foreseen in them.
fn search(cases: u32, small: bool) -> Seen {
    let seen = RefCell::new(Seen::new());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let states = (steps(20..120), steps(6..16));
    let found = TestRunner::new(config).run(&states, |(before, asked)| {
        let mut ground = Ground::new(small);
        for step in before {
            ground.run(step);
        }
        asked.into_iter().try_for_each(|step| ground.check(step, &mut seen.borrow_mut()))
    });
    found.unwrap_or_else(|error| panic!("{error}"));
    seen.into_inner()
}

#[test]
fn what_is_foreseen_is_what_is_decided() {
    let cases = if cfg!(miri) { 2 } else { 250 };
    let mut seen = search(cases, false);
    for (verdict, times) in search(cases, true) {
        *seen.entry(verdict).or_default() += times;
    }
    // Every answer was met.
    let enough = seen.len() == 6 && seen.values().all(|&times| times >= 3);
    assert!(cfg!(miri) || enough, "{seen:?}");
    eprintln!("{seen:?}");
}

/// In a region with few chunks: slots of a key are found by giving up those of others, if they are of the dead.
#[test]
fn room_for_slots_is_made_where_the_dead_held_them() {
    let clock = FakeClock::at(1_000_000_000_000);
    let capacity = Capacity { keys: 40, lease_chunks: 8, workers: 12, deployments: 8 };
    let engine = Engine::new(create_heap(capacity, Box::new(clock.clone())).expect("heap"));
    let region = engine.region();
    let held = |key: &str, slot_id: &str| {
        let ask = SlotAsk { key, limit: 33, ttl_s: 9, slot_id };
        matches!(engine.acquire_all(&[ask]), Ok(Grant::Held(_)))
    };
    let foreseen_with = |name: &str, ttl_s: u64| {
        clock.advance_ns(REST_NS);
        let (identity, probe) = keys::identify(region, KeyKind::Window, 0, name.as_bytes());
        let slot = index::find(region.key_buckets().0, probe, identity);
        let bucket = Bucket::zeroed();
        let bucket = slot.map_or(&bucket, |slot| &region.buckets()[slot]);
        let key = Key { slot: slot.unwrap_or(usize::MAX), identity, bucket };
        let dead = Dead::of(region, workers::prover(Vantage::of(region.header())));
        slots(region, &keys::leases_of(region, &key), 33, ttl_s, &dead, engine.now())
    };
    let foreseen = |name: &str| foreseen_with(name, 9);
    // One chunk full of the key's own slots, all others with one of somebody else.
    (0..32).for_each(|n| assert!(held(SLOTS[0], &n.to_string())));
    let others = (0..7).filter(|n| held(&format!("{{other:{n}}}:max_parallel_requests"), "x"));
    assert_eq!(others.count(), 7);
    assert_eq!(foreseen(SUBJECTS[0]).verdict, Verdict::UntilReleased);
    assert!(!held(SLOTS[0], "32"));
    assert_eq!(foreseen(SUBJECTS[1]).verdict, Verdict::NoRoom);
    // Too old is for each key to say of its own slots.
    clock.advance_s(9);
    let me = engine.me().unwrap().raw();
    let now_s = engine.now().s();
    let own = region.chunks().iter().find(|chunk| held_in(chunk) == 32).expect("the key's");
    let age_s = now_s - own.holders[0].load(Ordering::SeqCst).acquired_s();
    assert_eq!(foreseen_with(SUBJECTS[0], age_s).verdict, Verdict::Admits);
    assert_eq!(foreseen_with(SUBJECTS[0], age_s + 2).verdict, Verdict::UntilReleased);
    for holder in &own.holders {
        holder.store(LeaseWord::new(me, now_s, 0), Ordering::SeqCst);
    }
    assert_eq!(foreseen(SUBJECTS[0]).verdict, Verdict::UntilReleased);
    assert!(!held(SLOTS[0], "32"));
    // Nor is that changed by somebody's death who held none of them.
    let claim = ClaimWord::new(WorkerState::Live as u64, 4_000_000, 1, 1);
    region.workers()[8].claim.store(claim, Ordering::SeqCst);
    assert_eq!(foreseen(SUBJECTS[0]).verdict, Verdict::UntilReleased);
    assert!(!held(SLOTS[0], "32"));
    // Those of others pass to a worker that dies.
    let dead = OwnerTag::new(9, 1).unwrap();
    region.workers()[9].claim.store(claim, Ordering::SeqCst);
    for chunk in region.chunks().iter().filter(|chunk| held_in(chunk) == 1) {
        let holder =
            chunk.holders.iter().find(|holder| holder.load(Ordering::SeqCst).owner() == me);
        holder.unwrap().store(LeaseWord::new(dead.raw(), now_s, 0), Ordering::SeqCst);
    }
    // A key that holds nothing is not decided where there is no room; who is full looks for the dead.
    assert_eq!(foreseen(SUBJECTS[1]).verdict, Verdict::NoRoom);
    assert_eq!(foreseen(SUBJECTS[0]).verdict, Verdict::Admits);
    assert_eq!(
        engine.acquire_all(&[SlotAsk { key: SLOTS[1], limit: 33, ttl_s: 9, slot_id: "x" }]),
        Err(OpError::LeasesFull)
    );
    assert!(held(SLOTS[0], "32"));
}

fn held_in(chunk: &crate::layout::LeaseChunk) -> usize {
    chunk
        .holders
        .iter()
        .filter(|holder| holder.load(Ordering::SeqCst) != LeaseWord::default())
        .count()
}

/// Below zero, where nothing gets but damage, a counter has room for more than its limit, for batches only.
#[test]
fn a_counter_below_zero_is_asked_in_two_ways() {
    let clock = FakeClock::at(1_000_000_000_000);
    let capacity = Capacity::checked(1_024, 64, 16).expect("valid");
    let engine = Engine::new(create_heap(capacity, Box::new(clock)).expect("heap"));
    engine.hit_all(&[(WINDOWS[0], REQUESTS[0])], 60).unwrap();
    let (identity, probe) =
        keys::identify(engine.region(), KeyKind::Window, 0, SUBJECTS[0].as_bytes());
    let table = engine.region().key_buckets().0;
    let bucket = &table[index::find(table, probe, identity).expect("used")];
    let start_s = bucket.window.load(Ordering::Relaxed).start_s();
    bucket.tokens.store(CounterWord::of_window(start_s, -5), Ordering::Relaxed);
    let foreseen = |entry| window(bucket, Part::Tokens, (4, 60), 6, entry, engine.now());
    let (batch, admission) = (foreseen(Entry::Batch), foreseen(Entry::Admission));
    assert_eq!((batch.used, batch.left, batch.verdict), (-5, 9, Verdict::Admits));
    assert_eq!(admission.verdict, Verdict::Never);
    let rule = Rule::Window { part: Part::Tokens, limit: 4, size_s: 60 };
    let never = Answer::Refused(Refusal { position: 0, retry_after_us: Some(NEVER) });
    assert_eq!(engine.admit(&mut [Demand::new(SUBJECTS[0], rule, 6)]), Ok(never));
    let (window, counter) = (WINDOWS[0], TOKENS[0]);
    let ask = Ask { window, counter, limit: 4, amount: 6, size_s: 60 };
    assert!(matches!(engine.admit_all(&[ask]), Ok(windows::Verdict::Admitted(_))));
}
