//! Regions in which keys find no room, and what is certain there.
//!
//! All buckets belong to keys that owe for minutes, so no other key ever finds one. Under `shared` all of
//! them together are one key. Under `local` each worker has its own quotas, but slots stay exact, because
//! they are leases of the key itself. Under `deny` nothing is ever admitted.

use crate::judge::{Fault, Faults};
use fast_litellm::config::Overflow;
use fast_litellm::engine::Engine;
use fast_litellm::primitives::gcra::Quota;
use fast_litellm::sync::Ordering;
use fast_litellm::tables::index;
use std::collections::BTreeMap;

/// What kind of region it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// With room for all keys that are in use.
    Usual,
    /// Without room, under that policy.
    Crowded(Overflow),
}

/// Scenes of one region after the other.
pub(crate) const SCENES: [Scene; 6] = [
    Scene::Usual,
    Scene::Crowded(Overflow::Shared),
    Scene::Usual,
    Scene::Crowded(Overflow::Local),
    Scene::Usual,
    Scene::Crowded(Overflow::Deny),
];

/// Keys of the crowd.
pub(crate) const CROWD: u64 = 32;
/// What each key that fills the table owes, minutes.
const OWED: u32 = 10;

impl Scene {
    /// Its policy, if keys find no room.
    pub(crate) fn policy(self) -> Option<Overflow> {
        match self {
            Self::Usual => None,
            Self::Crowded(policy) => Some(policy),
        }
    }

    /// Prepares a fresh region.
    pub(crate) fn set(self, engine: &Engine) {
        let Some(policy) = self.policy() else { return };
        let quota = Quota::new(1, OWED).expect("a valid rate");
        let limiter = engine.limiter("ballast", quota);
        let (buckets, _) = engine.region().key_buckets();
        let mut number = 0_u64;
        let free = |bucket: &fast_litellm::layout::Bucket| {
            index::key_of(bucket.identity.load(Ordering::Acquire)).is_none()
        };
        while buckets.iter().any(free) {
            for _ in 0..1_000 {
                let key = format!("ballast-{number}");
                let _ = engine.check_cost(&limiter, key.as_bytes(), OWED.into());
                number += 1;
            }
        }
        // Only now, so that no ballast lies in what keys without room share.
        engine.region().set_overflow(policy);
    }

    /// Decides about what was answered in all.
    pub(crate) fn judge(self, tally: &BTreeMap<&'static str, u64>, faults: &mut Faults) {
        let count = |names: &[&str]| names.iter().filter_map(|name| tally.get(name)).sum::<u64>();
        match self.policy() {
            Some(Overflow::Deny) => {
                let admitted = ["quota_admitted", "window_admitted", "sliding_admitted"];
                let admitted = count(&admitted) + count(&["slots_acquired"]);
                if admitted > 0 {
                    faults.add(Fault::OverAdmitted, || {
                        format!("{admitted} admitted without room, and the policy is to deny")
                    });
                }
            }
            Some(policy) => {
                let refused = count(&["no_room_for_a_key"]);
                if refused > 0 {
                    faults.add(Fault::Unexpected, || {
                        format!("{refused} keys found no room, and the policy is {policy:?}")
                    });
                }
            }
            None => {}
        }
    }
}
