//! What has changed between two reports of a region, per second. Counts that went back are of a record that was
//! given up or reset meanwhile, and have no rate; a record that is new has counted everything since.

use super::Report;
use std::collections::BTreeMap;
use std::time::Duration;

/// So many in so many seconds; 0 in no time.
pub(super) fn per_second(count: u64, seconds: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "counts of one interval")]
    let count = count as f64;
    if seconds > 0.0 { count / seconds } else { 0.0 }
}

/// Changes per second over some time.
#[derive(Clone, Copy)]
struct Span(f64);

impl Span {
    fn rate(self, before: u64, now: u64) -> Option<f64> {
        let rate = |count: u64| (per_second(count, self.0) * 1_000.0).round() / 1_000.0;
        now.checked_sub(before).map(rate)
    }
}

impl Report {
    /// Tells rates since an earlier report of the same region; none when no time has passed since.
    pub fn add_rates(&mut self, before: &Self) {
        let passed = Duration::from_micros(self.at_us.saturating_sub(before.at_us)).as_secs_f64();
        if passed > 0.0 {
            self.add(Span(passed), Some(before));
        }
    }

    /// Tells rates over all the time since the region was created.
    pub fn add_rates_since_start(&mut self) {
        let passed = Duration::from_secs(self.header.age_s.max(1)).as_secs_f64();
        self.add(Span(passed), None);
    }

    fn add(&mut self, span: Span, before: Option<&Self>) {
        // Both are in the order of their places.
        let mut old = before.map_or(&[][..], |before| &before.limits).iter().peekable();
        for limit in &mut self.limits {
            while old.next_if(|old| old.place.slot < limit.place.slot).is_some() {}
            let (allowed, denied) = old
                .next_if(|old| old.place == limit.place)
                .map_or((0, 0), |old| (old.allowed, old.denied));
            let rates = span.rate(allowed, limit.allowed).zip(span.rate(denied, limit.denied));
            (limit.allowed_per_s, limit.denied_per_s) = rates.unzip();
        }
        // The counters of a row go on when another process has it.
        let old = before.map_or(&[][..], |before| &before.workers).iter();
        let old: BTreeMap<_, _> = old.map(|worker| (worker.row, worker.decisions)).collect();
        for worker in &mut self.workers {
            let before = old.get(&worker.row).copied().unwrap_or(0);
            worker.decisions_per_s = span.rate(before, worker.decisions);
        }
        let old = before.map_or(&[][..], |before| &before.deployments).iter();
        let old: BTreeMap<_, _> = old.map(|old| (old.id, old)).collect();
        for deployment in &mut self.deployments {
            let (successes, failures) = old
                .get(&deployment.id)
                .map_or((0, 0), |old| (old.successes_total, old.failures_total));
            deployment.successes_per_s = span.rate(successes, deployment.successes_total);
            deployment.failures_per_s = span.rate(failures, deployment.failures_total);
        }
        let rate = |(&name, &total): (&&'static str, &u64)| {
            let before = before.and_then(|before| before.stats.get(name)).copied().unwrap_or(0);
            Some((name, span.rate(before, total)?))
        };
        self.stats_per_s = Some(self.stats.iter().filter_map(rate).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::engine::slots::SlotAsk;
    use crate::engine::tests::engine;
    use crate::inspect::tests::check;

    use crate::sync::Ordering;

    fn limits(report: &Report) -> BTreeMap<&str, (Option<f64>, Option<f64>)> {
        let rates = |limit: &super::super::LimitReport| (limit.allowed_per_s, limit.denied_per_s);
        report.limits.iter().map(|limit| (limit.key.as_str(), rates(limit))).collect()
    }

    #[test]
    fn counts_are_compared_record_by_record() {
        let (engine, clock) = engine();
        for n in 0..300 {
            check(&engine, &format!("idle {n}"), 1);
        }
        check(&engine, "busy", 4);
        engine.deployment_succeeded("gpt", 60, Some(9), None).unwrap();
        let before = Report::of(engine.region());
        assert_eq!((before.limits[0].allowed_per_s, before.stats_per_s.is_none()), (None, true));
        clock.advance_ns(2_000_000_000);
        check(&engine, "busy", 11);
        check(&engine, "new", 3);
        for _ in 0..4 {
            engine.deployment_succeeded("gpt", 60, Some(9), None).unwrap();
        }
        let key = "{user:u}:max_parallel_requests";
        engine.acquire_all(&[SlotAsk { key, limit: 5, ttl_s: 60, slot_id: "x" }]).unwrap();
        let mut now = Report::of(engine.region());
        now.add_rates(&before);
        let rates = limits(&now);
        assert_eq!(rates["busy"], (Some(3.0), Some(2.5)));
        assert_eq!(rates["new"], (Some(1.5), Some(0.0)));
        assert_eq!(rates["idle 7"], (Some(0.0), Some(0.0)));
        assert_eq!(now.deployments[0].successes_per_s, Some(2.0));
        assert_eq!(now.deployments[0].failures_per_s, Some(0.0));
        let taken = now.stats_per_s.as_ref().unwrap()["lease_acquired"];
        assert!((taken - 0.5).abs() < 1e-9, "{taken}");
        assert_eq!(now.workers[0].decisions_per_s, Some(0.5));
        let mut same = now.clone();
        same.limits.iter_mut().for_each(|limit| limit.allowed_per_s = None);
        same.add_rates(&now);
        assert_eq!(limits(&same)["busy"].0, None, "no time has passed");
    }

    #[test]
    fn counts_that_went_back_have_no_rate() {
        let (engine, clock) = engine();
        check(&engine, "reset", 8);
        let before = Report::of(engine.region());
        let bucket = &engine.region().buckets()[before.limits[0].place.slot];
        bucket.allowed.store(2, Ordering::Relaxed);
        clock.advance_s(1);
        let mut now = Report::of(engine.region());
        now.add_rates(&before);
        assert_eq!(limits(&now)["reset"], (None, None));
    }

    #[test]
    fn since_the_start_is_all_that_was_counted() {
        let (engine, clock) = engine();
        check(&engine, "k", 8);
        clock.advance_s(16);
        let mut now = Report::of(engine.region());
        now.add_rates_since_start();
        assert_eq!(limits(&now)["k"], (Some(0.5), Some(0.0)));
    }
}
