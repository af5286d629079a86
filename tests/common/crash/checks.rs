//! What holds whatever happened: nothing is lost, nothing is given twice, everything is usable again.

use super::operations::{AMOUNTS, ENDLESS, Effect, Operation, signed, sum};
use super::process::Child;
use super::stage::Stage;
use fast_litellm::clock::{Clock as _, MonotonicClock};
use fast_litellm::config::Overflow;
use fast_litellm::engine::slots::SlotAsk;
use fast_litellm::inspect::Report;
use fast_litellm::layout::{LeaseWord, OwnerTag, TagWord, WorkerState};
use fast_litellm::region::host;
use fast_litellm::sync::Ordering;
use fast_litellm::verify::{Severity, verify};
use std::collections::{BTreeMap, BTreeSet};

/// What keys are called.
const NAMES: [&str; 16] = [
    "quota",
    "sliding",
    "user:u",
    "team:t",
    "spend:team",
    "bystander",
    "user:bystander",
    "(keys without room)",
    "deployment",
    "gpt:introduced",
    "routing",
    "job",
    "notice",
    "pool",
    "endpoint",
    "elsewhere",
];
/// What others are called, with a number behind.
const OTHERS: [&str; 3] = ["filler:", "idle:", "usurper:"];
/// Operations after which every key must have its name.
const NUDGES: usize = 64;

/// Fails with a message unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($message:tt)+) => {
        if !$holds {
            return Err(format!($($message)+));
        }
    };
}

/// How things stood before the operation.
#[derive(Default)]
pub(crate) struct Before {
    /// What was taken, dead processes' things not counted.
    pub(crate) taken: Effect,
    bystanders: [i64; 4],
    stats: BTreeMap<&'static str, u64>,
}

const BYSTANDER: &str = "{user:bystander}:requests";
const BYSTANDER_SLOTS: &str = "{user:bystander}:max_parallel_requests";
const STRANGER: &str = "{user:stranger}:requests";
const STRANGER_SLOTS: &str = "{user:stranger}:max_parallel_requests";

impl Before {
    /// Gives keys that no operation names a state of their own.
    pub(crate) fn invite_bystanders(stage: &Stage) -> Result<(), String> {
        let engine = &stage.engine;
        let failed = |error: fast_litellm::error::OpError| error.to_string();
        let ask = SlotAsk { key: BYSTANDER_SLOTS, limit: 4, ttl_s: 0, slot_id: "bystander" };
        for _ in 0..2 {
            engine.check(&stage.slow, b"bystander").map_err(failed)?;
        }
        engine.hit_all(&[("{user:bystander}:window", BYSTANDER)], 3600).map_err(failed)?;
        engine.acquire_all(&[ask]).map_err(failed)?;
        engine.add("bystander", 7, 3600).map_err(failed).map(drop)
    }

    /// How things stand now, seen by another process: whoever looks may also reap.
    pub(crate) fn of(stage: &Stage, operation: &Operation) -> Result<Self, String> {
        let stats = Report::of(stage.region()).stats;
        let mut child = Child::fork(|channel| {
            stage.engine.reap_dead();
            channel.send_effect((operation.resource.taken)(stage))?;
            bystanders(stage).into_iter().try_for_each(|count| channel.send(&count.to_string()))
        })?;
        let taken = child.channel.receive_effect()?;
        let mut bystanders = [0; 4];
        for count in &mut bystanders {
            let line = child.channel.receive()?;
            *count = line.parse().map_err(|_| format!("not a count: {line}"))?;
        }
        Ok(Self { taken, bystanders, stats })
    }
}

fn bystanders(stage: &Stage) -> [i64; 4] {
    let engine = &stage.engine;
    [
        signed(engine.remaining(&stage.slow, b"bystander")),
        engine.value(BYSTANDER).unwrap_or(-1),
        engine.count_slots(BYSTANDER_SLOTS, 0).map_or(-1, signed),
        engine.value("bystander").unwrap_or(-1),
    ]
}

/// The smallest and the largest that may be taken.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) low: Effect,
    pub(crate) high: Effect,
}

impl Bounds {
    pub(crate) fn exactly(taken: Effect) -> Self {
        Self { low: taken, high: taken }
    }

    /// From `from` to `from` and any part of `effect`.
    pub(crate) fn part_of(from: Effect, effect: Effect) -> Self {
        Self {
            low: sum(from, effect.map(|count| count.min(0))),
            high: sum(from, effect.map(|count| count.max(0))),
        }
    }

    /// Only for those amounts; any others may be taken.
    pub(crate) fn of(self, amounts: [bool; AMOUNTS]) -> Self {
        let only =
            |bounds: Effect, any| std::array::from_fn(|n| if amounts[n] { bounds[n] } else { any });
        Self { low: only(self.low, i64::MIN), high: only(self.high, i64::MAX) }
    }

    fn check(self, taken: Effect) -> Result<(), String> {
        let within = (0..AMOUNTS).all(|n| (self.low[n]..=self.high[n]).contains(&taken[n]));
        ensure!(within, "taken are {taken:?}, not {:?} to {:?}", self.low, self.high);
        Ok(())
    }
}

/// Checks everything in a process that finds a victim's last state. Returns what it found taken.
pub(crate) fn after_death(
    stage: &Stage,
    operation: &Operation,
    victim: i32,
    bounds: Bounds,
) -> Result<Effect, String> {
    let resource = operation.resource;
    let report = sane_report(stage, operation)?;
    is_reported_dead(&report, victim)?;
    stage.engine.reap_dead();
    everybody_lives(stage, &sane_report(stage, operation)?)?;
    let taken = (resource.taken)(stage);
    bounds.check(taken)?;
    let again = sum((operation.before)(stage), (operation.run)(stage));
    let now = (resource.taken)(stage);
    ensure!(now == sum(taken, again), "{taken:?} and {again:?} again are {now:?}");
    up_to_the_limit(stage, operation, now, now)?;
    leases_can_be_found(stage, operation)?;
    nobody_else_noticed(stage)?;
    rows_are_free(stage)?;
    names_appear(stage, operation)?;
    sane_report(stage, operation)?;
    let findings = verify(stage.region());
    ensure!(findings.is_empty(), "does not verify: {findings:?}");
    Ok(taken)
}

/// Checks what holds while everybody lives.
pub(crate) fn alive(stage: &Stage, operation: &Operation, bounds: Bounds) -> Result<(), String> {
    everybody_lives(stage, &sane_report(stage, operation)?)?;
    let taken = (operation.resource.taken)(stage);
    bounds.check(taken)?;
    up_to_the_limit(stage, operation, taken, bounds.high)?;
    leases_can_be_found(stage, operation)?;
    nobody_else_noticed(stage)
}

/// Checks what holds when a victim that was stopped, went on and finished is dead after all.
pub(crate) fn alone_again(
    stage: &Stage,
    operation: &Operation,
    victim: i32,
    bounds: Bounds,
) -> Result<(), String> {
    is_reported_dead(&Report::of(stage.region()), victim)?;
    stage.engine.reap_dead();
    everybody_lives(stage, &sane_report(stage, operation)?)?;
    bounds.check((operation.resource.taken)(stage))
}

/// The report, in which statistics have not gone back and no more slots are held than allowed.
fn sane_report(stage: &Stage, operation: &Operation) -> Result<Report, String> {
    let report = Report::of(stage.region());
    serde_json::to_string(&report).map_err(|error| error.to_string())?;
    let damage =
        verify(stage.region()).into_iter().find(|found| found.severity == Severity::Damage);
    ensure!(damage.is_none(), "{damage:?}");
    for (name, &before) in &stage.before.stats {
        let now = report.stats.get(name).copied().unwrap_or(0);
        ensure!(now >= before, "statistics: {name} fell from {before} to {now}");
    }
    for limit in &report.limits {
        let Some((held, Some(most))) = limit.parallel.map(|usage| (usage.used, usage.limit)) else {
            continue;
        };
        // Under a lowered limit a slot is claimed before the others are counted.
        let most = signed(most) + i64::from(operation.overhang);
        ensure!(held <= most, "{}: {held} slots are held, {most} allowed", limit.key);
    }
    Ok(report)
}

fn is_reported_dead(report: &Report, victim: i32) -> Result<(), String> {
    let state = host::process_stat(victim).map(|stat| stat.state);
    ensure!(matches!(state, None | Some(b'Z')), "process {victim} is not dead: {state:?}");
    let row = report.workers.iter().find(|worker| worker.pid == victim && worker.alive != "dead");
    ensure!(row.is_none(), "the dead process is not reported as dead: {row:?}");
    Ok(())
}

/// No row and no slot is a dead process's, and every row names its process fully.
fn everybody_lives(stage: &Stage, report: &Report) -> Result<(), String> {
    let namespace = host::namespace("pid");
    for worker in &report.workers {
        ensure!(worker.alive == "alive", "a row was not reaped: {worker:?}");
        let row = &stage.region().workers()[worker.row];
        let found = row.start_ticks.load(Ordering::Relaxed);
        let start = host::process_stat(worker.pid).map_or(0, |stat| stat.start_ticks);
        ensure!(found == start, "{worker:?}: start time {found} instead of {start}");
        let found = row.pid_namespace.load(Ordering::Relaxed);
        ensure!(found == namespace, "{worker:?}: namespace {found} instead of {namespace}");
    }
    for lease in &report.leases {
        ensure!(lease.owner == "alive", "a slot was not reaped: {lease:?}");
    }
    Ok(())
}

/// Who takes whatever is left never gets more than that, and all of it if nothing else can be `charged`.
fn up_to_the_limit(
    stage: &Stage,
    operation: &Operation,
    taken: Effect,
    charged: Effect,
) -> Result<(), String> {
    let Some(limits) = operation.limits else {
        return Ok(());
    };
    let drained = (operation.resource.drain)(stage, limits);
    let total = sum(taken, drained);
    let fair = (0..AMOUNTS).all(|n| {
        let least = limits[n].saturating_sub(charged[n] - taken[n]);
        limits[n] == ENDLESS || (least..=limits[n]).contains(&total[n])
    });
    ensure!(fair, "{taken:?} and then {drained:?} are not the limits {limits:?}");
    Ok(())
}

/// Every slot that is held under a slot id can be found by that: its tag is there.
fn leases_can_be_found(stage: &Stage, operation: &Operation) -> Result<(), String> {
    if !operation.resource.has_slot_ids() {
        return Ok(());
    }
    for (number, chunk) in stage.region().chunks().iter().enumerate() {
        for (slot, (holder, tag)) in chunk.holders.iter().zip(&chunk.tags).enumerate() {
            let held = holder.load(Ordering::Relaxed) != LeaseWord::default();
            let lost = held && tag.load(Ordering::Relaxed).hash() == 0;
            ensure!(!lost, "slot {slot} of chunk {number} is held without a tag");
        }
    }
    Ok(())
}

/// One slot that this process holds.
pub(crate) struct OwnLease {
    chunk: usize,
    slot: usize,
    word: LeaseWord,
    tag: TagWord,
}

/// All slots that this process holds and uses: idle ones are anybody's.
pub(crate) fn own_leases(stage: &Stage) -> Vec<OwnLease> {
    let me = stage.engine.me().map(OwnerTag::raw);
    let mut leases = Vec::new();
    for (chunk, record) in stage.region().chunks().iter().enumerate() {
        for (slot, (holder, tag)) in record.holders.iter().zip(&record.tags).enumerate() {
            let (word, tag) = (holder.load(Ordering::Relaxed), tag.load(Ordering::Relaxed));
            if Some(word.owner()) == me && word.idle() == 0 {
                leases.push(OwnLease { chunk, slot, word, tag });
            }
        }
    }
    leases
}

/// Nobody has taken a slot from its holder, or has changed what it is found by.
pub(crate) fn leases_stand(stage: &Stage, leases: &[OwnLease]) -> Result<(), String> {
    for &OwnLease { chunk, slot, word, tag } in leases {
        let record = &stage.region().chunks()[chunk];
        let now = record.holders[slot].load(Ordering::Relaxed);
        ensure!(now == word, "slot {slot} of chunk {chunk} was taken from its holder: {now:?}");
        let now = record.tags[slot].load(Ordering::Relaxed);
        ensure!(now == tag, "slot {slot} of chunk {chunk} has another tag than its holder gave it");
    }
    Ok(())
}

/// Other keys are as they were, and keys that were never used are unused.
fn nobody_else_noticed(stage: &Stage) -> Result<(), String> {
    let (now, before) = (stage.at_first(bystanders), stage.before.bystanders);
    // Where time is real (a named region), a quota earns while the test runs.
    let real_time = stage.region().header().clock_id.load(Ordering::Relaxed) == MonotonicClock.id();
    let earned = real_time && now[0] >= before[0] && now[1..] == before[1..];
    ensure!(now == before || earned, "other keys changed from {before:?} to {now:?}");
    let engine = &stage.engine;
    let full = u64::from(stage.limiter.quota().burst());
    // Keys without room share a state, those that were never used as well.
    let shared = stage.region().overflow() == Overflow::Shared;
    let unused = shared
        || engine.remaining(&stage.limiter, b"stranger") == full
            && engine.value(STRANGER).is_none()
            && engine.count_slots(STRANGER_SLOTS, 0) == Ok(0)
            && engine.value("stranger").is_none()
            && engine.feature_errors(0) == 0;
    ensure!(unused, "a key that was never used is not in its default state");
    Ok(())
}

/// Every row but those of the living is free, and the first free one is given to the next process.
fn rows_are_free(stage: &Stage) -> Result<(), String> {
    stage.engine.leave();
    let taken: BTreeSet<usize> =
        Report::of(stage.region()).workers.iter().map(|worker| worker.row).collect();
    let rows = stage.region().workers();
    for (number, row) in rows.iter().enumerate().skip(1).filter(|(n, _)| !taken.contains(n)) {
        let state = WorkerState::from_raw(row.claim.load(Ordering::Relaxed).state());
        ensure!(state == WorkerState::Free, "row {number} is {state:?}");
    }
    let free = (1..rows.len()).find(|number| !taken.contains(number));
    let next = stage.engine.me().map(|owner| owner.row() as usize);
    ensure!(next == free, "the next process gets row {next:?}, not {free:?}");
    Ok(())
}

/// After some more operations every key has a name, and no two keys have the same.
fn names_appear(stage: &Stage, operation: &Operation) -> Result<(), String> {
    let mut nameless = Vec::new();
    for _ in 0..NUDGES {
        let report = Report::of(stage.region());
        let keys = report.limits.iter().map(|limit| (&*limit.key, limit.kind));
        let deployments = report.deployments.iter().map(|found| (&*found.deployment, "deployment"));
        let series = report.series.iter().map(|found| (&*found.series, "series"));
        let jobs = report.leaders.iter().map(|found| (&*found.job, "job"));
        let notices = report.notices.iter().map(|found| (&*found.notice, "notice"));
        let pools = report.pools.iter().map(|found| (&*found.pool, "pool"));
        let endpoints = report.pools.iter().flat_map(|found| &found.endpoints);
        let endpoints = endpoints.map(|found| (&*found.endpoint, "endpoint"));
        let keys = keys.chain(deployments).chain(series).chain(jobs).chain(notices);
        let keys = keys.chain(pools).chain(endpoints);
        let keys: Vec<_> = keys.collect();
        let different: BTreeSet<_> = keys.iter().collect();
        ensure!(different.len() == keys.len(), "a key is twice in the table: {keys:?}");
        nameless = keys
            .iter()
            .filter(|(key, _)| key.starts_with('#'))
            .map(|(key, kind)| format!("{kind} {key}"))
            .collect();
        if nameless.is_empty() {
            let right = |key: &str| {
                let other = OTHERS.iter().any(|other| key.contains(other));
                other || NAMES.contains(&key) || key == stage.rival
            };
            let wrong = keys.iter().find(|(key, _)| !right(key));
            ensure!(wrong.is_none(), "a key has a wrong name: {wrong:?}");
            return Ok(());
        }
        (operation.resource.nudge)(stage);
    }
    Err(format!("without a name after {NUDGES} more operations: {}", nameless.join(", ")))
}
