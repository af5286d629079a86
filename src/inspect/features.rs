//! Breakers and switches of features.

use super::{FeatureReport, get};
use crate::engine::features;
use crate::layout::FlagMode;
use crate::region::Region;

pub(super) fn features(region: &Region) -> Vec<FeatureReport> {
    let now_s = region.now().s();
    let report = |(feature, record): (usize, &crate::layout::Feature)| {
        let breaker = get(&record.breaker);
        let errors_total = get(&record.errors_total);
        let flag = get(&record.flag);
        let mode = FlagMode::from_raw(flag.mode());
        (errors_total > 0 || mode != FlagMode::Own).then(|| FeatureReport {
            feature,
            name: features::NAMES.get(feature).copied(),
            breaker: if breaker.errors() < features::BREAKER.threshold { "closed" } else { "open" },
            errors: breaker.errors(),
            errors_total,
            last_s: now_s.saturating_sub(breaker.last_s()),
            switch: mode.name(),
            percent: (mode == FlagMode::Percent).then(|| flag.percent()),
        })
    };
    region.features().iter().enumerate().filter_map(report).collect()
}
