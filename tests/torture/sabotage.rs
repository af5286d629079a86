//! Broken engines, to show that the judges notice: the workers use a sound one and lie about it, or the
//! master leaves something behind.

use crate::admission::sliding_limiters;
use crate::crowd::Scene;
use crate::entry::{Answer, Op};
use crate::judge::Fault;
use crate::limits::{
    ADMISSIONS, BUNDLES, COUNTERS, Counter, DEPLOYMENTS, SLIDING, SLOT_BUNDLES, SLOTS, Want,
    rate_of,
};
use crate::random::Random;
use fast_litellm::config::Overflow;
use fast_litellm::engine::Engine;
use fast_litellm::engine::slots::SlotAsk;
use fast_litellm::layout::{Bucket, FailureKind};
use fast_litellm::primitives::gcra::Quota;
use fast_litellm::sync::{Bits, Ordering};
use fast_litellm::tables::index;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// A refused GCRA request is admitted.
    Quota,
    /// A refused charge is admitted.
    Window,
    /// A refused slot of a fixed limit is held.
    Slots,
    /// A refused slot of a limit that moves is held.
    Varying,
    /// An admitted charge is charged twice.
    Charge,
    /// The master holds a slot that it never gives back.
    Leak,
    /// The last dead workers are not reaped.
    Row,
    /// What a key owes is forgotten, as if it had been given up.
    Forget,
    /// A key has two records.
    Twin,
    /// A refused request to a sliding window is admitted.
    Sliding,
    /// What a sliding window admitted is charged twice.
    SlidingTwice,
    /// A refused admission is granted.
    Admission,
    /// What a cancelled admission gave back is charged again.
    Cancel,
    /// A refused call to a deployment is sent.
    Flight,
    /// A cooldown is ended as soon as it was begun.
    Cooldown,
    /// A result is counted twice.
    Result,
    /// What is refused to keys that share one state for want of room is admitted.
    Shared,
    /// What a worker refuses to a key without room is admitted.
    Local,
    /// A key without room is let through.
    Deny,
}

impl Sabotage {
    /// All of them, each with the fault that must be found.
    pub(crate) const ALL: [(Self, Fault); 19] = [
        (Self::Quota, Fault::OverAdmitted),
        (Self::Window, Fault::OverAdmitted),
        (Self::Slots, Fault::OverAdmitted),
        (Self::Varying, Fault::OverAdmitted),
        (Self::Charge, Fault::UnderAdmitted),
        (Self::Leak, Fault::Leaked),
        (Self::Row, Fault::Unreclaimed),
        (Self::Forget, Fault::OverAdmitted),
        (Self::Twin, Fault::Duplicate),
        (Self::Sliding, Fault::OverAdmitted),
        (Self::SlidingTwice, Fault::UnderAdmitted),
        (Self::Admission, Fault::OverAdmitted),
        (Self::Cancel, Fault::UnderAdmitted),
        (Self::Flight, Fault::OverAdmitted),
        (Self::Cooldown, Fault::Unseen),
        (Self::Result, Fault::WrongStatistics),
        (Self::Shared, Fault::OverAdmitted),
        (Self::Local, Fault::OverAdmitted),
        (Self::Deny, Fault::OverAdmitted),
    ];

    /// Where it shows.
    pub(crate) fn scene(self) -> Scene {
        match self {
            Self::Shared => Scene::Crowded(Overflow::Shared),
            Self::Local => Scene::Crowded(Overflow::Local),
            Self::Deny => Scene::Crowded(Overflow::Deny),
            _ => Scene::Usual,
        }
    }

    /// The answer that the worker notes instead of the true one, now and then.
    pub(crate) fn bend(
        self,
        engine: &Engine,
        op: Op,
        answer: Answer,
        random: &mut Random,
    ) -> Answer {
        let refused = answer == Answer::Refused;
        match (self, op) {
            (Self::Quota | Self::Shared, Op::Check { .. }) if refused && random.one_in(8) => {
                Answer::Admitted(0)
            }
            (Self::Deny, Op::Check { .. }) if random.one_in(1_000) => Answer::Admitted(0),
            (Self::Forget, Op::Check { key }) if refused && random.one_in(8) => {
                forget(engine, key);
                answer
            }
            (Self::Slots | Self::Varying, Op::Acquire { bundle, .. }) if refused => {
                let slots = SLOT_BUNDLES[bundle][0];
                let varying = SLOTS[slots].limit.is_none();
                let wanted = varying == (self == Self::Varying);
                if wanted { Answer::Admitted(0) } else { answer }
            }
            (Self::Window, Op::Charge { bundle, .. }) if refused && random.one_in(8) => {
                forged(engine, bundle).unwrap_or(answer)
            }
            (Self::Charge, Op::Charge { bundle, cost }) if !refused && random.one_in(8) => {
                let counter = &COUNTERS[BUNDLES[bundle][0]];
                let _ = engine.add(counter.key, counter.amount(cost), counter.size_s);
                answer
            }
            (Self::Sliding, Op::Slide { key, .. }) if refused && random.one_in(8) => {
                Answer::Admitted(engine.now().s() / SLIDING[key].window_s)
            }
            (Self::SlidingTwice, Op::Slide { key, cost }) if !refused => {
                let cost = SLIDING[key].amount(cost).unsigned_abs();
                let limiter = &sliding_limiters(engine)[key];
                let _ = engine.check_sliding(limiter, SLIDING[key].key.as_bytes(), cost);
                answer
            }
            (Self::Admission, Op::Admit { bundle, .. }) if refused && random.one_in(8) => {
                let start_s =
                    windows(bundle).next().map_or(Some(0), |counter| start(engine, counter));
                start_s.map_or(answer, Answer::Admitted)
            }
            (Self::Cancel, Op::Cancel { bundle, cost, .. }) => {
                for counter in windows(bundle) {
                    let _ = engine.add(counter.key, counter.amount(cost), counter.size_s);
                }
                answer
            }
            // Always: what a worker decides for itself is judged by what one life admits to one key, and
            // lives are short.
            (Self::Local, Op::Check { .. }) | (Self::Flight, Op::Depart { .. }) if refused => {
                Answer::Admitted(0)
            }
            (Self::Cooldown, Op::Cool { deployment, .. }) => {
                let _ = engine.end_cooldown(DEPLOYMENTS[deployment].0);
                answer
            }
            (Self::Result, Op::Count { deployment, failed: true }) => {
                let id = DEPLOYMENTS[deployment].0;
                let _ = engine.deployment_failed(id, 2, FailureKind::Server, 500);
                answer
            }
            _ => answer,
        }
    }

    /// What the master leaves behind before it looks at the region.
    pub(crate) fn leave_behind(self, engine: &Engine) {
        if self == Self::Leak {
            let ask = SlotAsk { key: SLOTS[3].key, limit: 40, ttl_s: 0, slot_id: "forgotten" };
            let _ = engine.acquire_all(&[ask]);
        }
        if self == Self::Twin {
            let (buckets, _) = engine.region().key_buckets();
            let load = |bucket: &Bucket| bucket.identity.load(Ordering::Acquire);
            let key = buckets.iter().map(load).find(|&identity| index::key_of(identity).is_some());
            let free = buckets.iter().find(|&bucket| index::key_of(load(bucket)).is_none());
            if let (Some(key), Some(free)) = (key, free) {
                free.identity.store(key, Ordering::Release);
            }
        }
    }
}

/// Brings the quota of a key to zero.
fn forget(engine: &Engine, key: usize) {
    let rate = rate_of(key);
    let place = Quota::new(rate.per_minute, rate.burst).and_then(|quota| {
        engine.place(&engine.limiter("", quota), format!("quota-{key}").as_bytes()).ok()
    });
    if let Some(place) = place {
        engine.region().buckets()[place.slot].requests.store(Bits::from_bits(0), Ordering::SeqCst);
    }
}

/// An admission to the windows that are open now.
fn forged(engine: &Engine, bundle: usize) -> Option<Answer> {
    let start = |&counter: &usize| start(engine, &COUNTERS[counter]);
    let starts: Option<Vec<u64>> = BUNDLES[bundle].iter().map(start).collect();
    starts.map(Answer::charged)
}

/// When the window of a counter started that is open now, by the region's clock.
fn start(engine: &Engine, counter: &Counter) -> Option<u64> {
    let start = engine.value(counter.window)?;
    u64::try_from(start).ok()?.checked_sub(engine.region().wall_s(0))
}

/// The counters of an admission.
fn windows(bundle: usize) -> impl Iterator<Item = &'static Counter> {
    ADMISSIONS[bundle].iter().filter_map(|want| match want {
        &Want::Window(counter) => Some(&COUNTERS[counter]),
        _ => None,
    })
}
