//! What a region holds in sums, for programs that look at it every few seconds: without keys, so that it has no
//! names of users and takes the same time however many there are limits for.

use super::{
    DeploymentReport, FeatureReport, HeaderReport, SCHEMA, WorkerReport, deployments, features,
    holdings, region, stats, workers,
};
use crate::region::Region;
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything that is not about a key; series are read by the one who wants their buckets.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The region itself.
    pub header: HeaderReport,
    /// Registered processes.
    pub workers: Vec<WorkerReport>,
    /// Concurrency slots that are held: of keys, deployments and jobs.
    pub leases_held: u64,
    /// Health of deployments.
    pub deployments: Vec<DeploymentReport>,
    /// Errors and switches of accelerated features.
    pub features: Vec<FeatureReport>,
    /// Counters summed over all workers.
    pub stats: BTreeMap<&'static str, u64>,
}

impl Overview {
    /// Reads a region.
    pub fn of(region: &Region) -> Self {
        let prove = workers::prover(region);
        let held = holdings::holdings(region, &prove);
        Self {
            schema: SCHEMA,
            header: region::header(region),
            workers: workers::worker_reports(region, &prove, &held.by_owner),
            leases_held: held.by_owner.values().fold(0, |sum, held| sum.saturating_add(*held)),
            deployments: deployments::deployments(region, &held.by_key),
            features: features::features(region),
            stats: stats::stats(region),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FakeClock;
    use crate::config::Capacity;
    use crate::engine::Engine;
    use crate::engine::slots::SlotAsk;
    use crate::inspect::Report;
    use crate::region::create_heap;

    #[test]
    fn it_says_what_the_report_says_and_names_no_key() {
        let capacity = Capacity::checked(1024, 64, 16).unwrap();
        let clock = FakeClock::at(1_000_000_000_000);
        let engine = Engine::new(create_heap(capacity, Box::new(clock)).unwrap());
        let key = "{api_key:secretly}:max_parallel_requests";
        let slot = |slot_id| SlotAsk { key, limit: 5, ttl_s: 60, slot_id };
        for slot_id in ["a", "b"] {
            engine.acquire_all(&[slot(slot_id)]).unwrap();
        }
        let _flight = engine.depart("gpt", None).unwrap();
        engine.feature_error(2);
        let overview = Overview::of(engine.region());
        assert_eq!(overview.leases_held, 3);
        let text = serde_json::to_value(&overview).unwrap();
        let report = serde_json::to_value(Report::of(engine.region())).unwrap();
        for part in ["schema", "header", "workers", "deployments", "features", "stats"] {
            assert_eq!(text[part], report[part], "{part}");
        }
        assert!(report.to_string().contains("secret") && !text.to_string().contains("secret"));
    }
}
