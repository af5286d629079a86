//! Broken engines, to show that the judges notice: the workers use a sound one and lie about it, or the
//! master leaves something behind.

use crate::entry::{Answer, Op};
use crate::judge::Fault;
use crate::limits::{BUNDLES, COUNTERS, SLOT_BUNDLES, SLOTS, rate_of};
use crate::random::Random;
use fast_litellm::engine::Engine;
use fast_litellm::engine::slots::SlotAsk;
use fast_litellm::layout::Bucket;
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
}

impl Sabotage {
    /// All of them, each with the fault that must be found.
    pub(crate) const ALL: [(Self, Fault); 9] = [
        (Self::Quota, Fault::OverAdmitted),
        (Self::Window, Fault::OverAdmitted),
        (Self::Slots, Fault::OverAdmitted),
        (Self::Varying, Fault::OverAdmitted),
        (Self::Charge, Fault::UnderAdmitted),
        (Self::Leak, Fault::Leaked),
        (Self::Row, Fault::Unreclaimed),
        (Self::Forget, Fault::OverAdmitted),
        (Self::Twin, Fault::Duplicate),
    ];

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
            (Self::Quota, Op::Check { .. }) if refused && random.one_in(8) => Answer::Admitted(0),
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
    let base_s = engine.region().wall_s(0);
    let start = |&counter: &usize| {
        let start = engine.value(COUNTERS[counter].window)?;
        u64::try_from(start).ok()?.checked_sub(base_s)
    };
    let starts: Option<Vec<u64>> = BUNDLES[bundle].iter().map(start).collect();
    starts.map(Answer::charged)
}
