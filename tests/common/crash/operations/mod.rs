//! The operations, and what others may do in the middle of one. A new operation is one more entry of a table
//! in one of these modules, each with the resource that its operations take of.

mod admission;
mod board;
mod connections;
mod features;
mod health;
mod jobs;
mod measures;
mod overflow;
mod quotas;
mod room;
mod sliding;
mod slots;
mod windows;
mod workers;

use super::stage::Stage;
use fast_litellm::engine::Engine;
use fast_litellm::engine::quota::Place;
use fast_litellm::inspect::search::{Hit, Wanted, search};

pub(crate) use windows::SPEND;

/// Amounts that a resource has.
pub(crate) const AMOUNTS: usize = 4;

/// What something took of each of a resource's amounts; negative = it gave back.
pub(crate) type Effect = [i64; AMOUNTS];

pub(crate) const NONE: Effect = [0; AMOUNTS];

/// The limit of an amount that has none.
pub(crate) const ENDLESS: i64 = i64::MAX;

/// Something that a process does, and what it took by that.
pub(crate) type Step = fn(&Stage) -> Effect;

pub(crate) fn sum(a: Effect, b: Effect) -> Effect {
    std::array::from_fn(|n| a[n] + b[n])
}

/// Where the region is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// Inherited memory, with a clock that stands still.
    Inherited,
    /// The same with few buckets, in any of which every key may stand.
    Small,
    /// A named file, with the kernel's clock.
    Named,
}

/// What somebody else does while the victim is stopped.
pub(crate) struct Meanwhile {
    pub(crate) name: &'static str,
    pub(crate) step: Step,
    /// It may end what was taken before, or what the victim takes: time passes, or a key is forgotten.
    pub(crate) forgetful: bool,
}

/// One operation.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) home: Home,
    /// What has happened before, by the parent or by processes that are gone.
    pub(crate) scene: fn(&Stage),
    /// What the victim has done before.
    pub(crate) before: Step,
    /// The operation. Says what it did, by the engine's answer.
    pub(crate) run: Step,
    /// What it says when nobody meets it.
    pub(crate) does: Effect,
    pub(crate) resource: &'static Resource,
    /// Most that may be taken of the resource.
    pub(crate) limits: Option<Effect>,
    /// It ends what was taken before.
    pub(crate) forgetful: bool,
    /// What it may take and give back again on its way.
    pub(crate) transient: Effect,
    /// What somebody else does after so many of the victim's writes, so that it takes a way of its own.
    pub(crate) disturbance: Option<(usize, Step)>,
    /// Slots above the limit are in use, so one more may be claimed for an instant.
    pub(crate) overhang: bool,
    /// It maps the region itself, so it is followed from write to write and not by instructions.
    pub(crate) maps: bool,
    /// What others do while it is stopped and goes on afterwards.
    pub(crate) meanwhile: &'static [Meanwhile],
}

/// Does nothing, and takes of nothing.
pub(crate) const PLAIN: Operation = Operation {
    name: "",
    home: Home::Inherited,
    scene: |_| {},
    before: joined,
    run: |_| NONE,
    does: NONE,
    resource: &NOTHING,
    limits: None,
    forgetful: false,
    transient: NONE,
    disturbance: None,
    overhang: false,
    maps: false,
    meanwhile: &[],
};

/// Nothing.
static NOTHING: Resource =
    Resource { taken: |_| NONE, drain: |_, _| NONE, nudge: |_| {}, owned: STAYS };

/// One kind of thing that can be taken, in several amounts.
pub(crate) struct Resource {
    /// What is taken now, by what the engine says.
    pub(crate) taken: fn(&Stage) -> Effect,
    /// Takes what is left up to these limits, as requests would, and says how much that was.
    pub(crate) drain: fn(&Stage, Effect) -> Effect,
    /// One more operation on each key, which is admitted.
    pub(crate) nudge: fn(&Stage),
    /// Which amounts a process took are free again once the process is dead.
    pub(crate) owned: [bool; AMOUNTS],
}

/// Nothing, or all, that a process took is free again once the process is dead.
const STAYS: [bool; AMOUNTS] = [false; AMOUNTS];
const OWNED: [bool; AMOUNTS] = [true; AMOUNTS];

impl Resource {
    /// Whether its slots are held under slot ids, by which they must be found again.
    pub(crate) fn has_slot_ids(&self) -> bool {
        std::ptr::eq(self, &raw const slots::LEASES)
    }

    /// What stays of an effect once the process is dead.
    pub(crate) fn lasting(&self, effect: Effect) -> Effect {
        std::array::from_fn(|n| if self.owned[n] { 0 } else { effect[n] })
    }
}

/// Every operation.
pub(crate) fn all() -> impl Iterator<Item = &'static Operation> {
    let tables = [
        quotas::OPERATIONS,
        sliding::OPERATIONS,
        windows::OPERATIONS,
        slots::OPERATIONS,
        admission::OPERATIONS,
        room::OPERATIONS.as_flattened(),
        overflow::OPERATIONS,
        workers::OPERATIONS,
        features::OPERATIONS,
        health::OPERATIONS,
        jobs::OPERATIONS,
        board::OPERATIONS,
        connections::OPERATIONS,
        measures::OPERATIONS,
    ];
    tables.into_iter().flatten()
}

fn times(stage: &Stage, times: u32, step: Step) {
    for _ in 0..times {
        step(stage);
    }
}

fn later(stage: &Stage, step: Step) -> Effect {
    stage.clock.advance_s(61);
    step(stage)
}

/// Registers.
fn joined(stage: &Stage) -> Effect {
    stage.engine.me();
    NONE
}

/// Runs `step` and says what it changed of the counters.
fn change(stage: &Stage, resource: &Resource, step: impl FnOnce(&Engine)) -> Effect {
    let before = (resource.taken)(stage);
    step(&stage.engine);
    let after = (resource.taken)(stage);
    std::array::from_fn(|n| after[n] - before[n])
}

pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Finds the key that is shown under that name, for [`reset`].
fn mark(stage: &Stage, name: &str) -> Effect {
    let found = search(stage.region(), &Wanted::new(name));
    let place = |hit: &Hit| Place { slot: hit.slot, identity: hit.identity };
    stage.place.set(found.first().map(place));
    joined(stage)
}

/// Forgets what the key was charged that was found.
fn reset(stage: &Stage, resource: &Resource) -> Effect {
    let place = stage.place.get().expect("it was found");
    change(stage, resource, |engine| assert!(engine.reset_at(place).expect("decides")))
}

/// More than any limit here: whoever is admitted so often is admitted for ever.
const TOO_MANY: i64 = 200;

/// How often `once` succeeds before it does not.
fn until_refused(mut once: impl FnMut(i64) -> bool) -> i64 {
    (0..TOO_MANY).find(|&n| !once(n)).unwrap_or(TOO_MANY)
}
