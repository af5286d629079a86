//! A region as Prometheus text: the families that the workers themselves export, without the name of any key.

use crate::engine::{features, measure, quota};
use crate::inspect::overview::Overview;
use crate::inspect::{DeploymentReport, FeatureReport};
use crate::region::Region;
use crate::tables::histograms::{Snapshot, upper_ns};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Result, Write};

const PREFIX: &str = "fast_litellm_";

/// The region's counters, with what their families say.
const COUNTERS: [(&str, &str); 26] = [
    ("window_charged", "Charges to anchored windows that were admitted."),
    ("window_denied", "Charges to anchored windows that were refused."),
    ("window_refunded", "Charges that were taken back."),
    ("lease_acquired", "Concurrency slots acquired."),
    ("lease_released", "Concurrency slots released by their holders."),
    ("lease_denied", "Concurrency slots refused because all were held."),
    ("lease_reaped", "Concurrency slots freed because their holder was dead."),
    ("lease_expired", "Concurrency slots freed because they outlived their time to live."),
    ("table_full", "Operations that found no room in the region."),
    ("contended", "Operations that ran out of tries."),
    ("corrected", "Impossible values met in the region and corrected."),
    ("fallbacks", "Operations done without the region."),
    ("registrations", "Registrations of processes."),
    ("workers_reaped", "Rows of dead workers that were reaped."),
    ("admitted", "Admissions over several limits that were granted."),
    ("refused", "Admissions over several limits that were refused."),
    ("refunds_dropped", "Refunds that came too late to be given."),
    ("overflow_denied", "Keys refused because there was no room for them."),
    ("overflow_shared", "Operations on keys without room that shared a bucket with others."),
    ("overflow_local", "Operations on keys without room that were decided per worker."),
    ("keys_reclaimed", "Idle keys whose records were given up."),
    ("chunks_reclaimed", "Idle chunks of concurrency slots that were given up."),
    ("misplaced", "Charges that met a record which changed hands, and were made again."),
    ("events", "Events recorded."),
    ("cooldowns", "Cooldowns of deployments begun."),
    ("uncounted", "Calls sent to deployments without being counted in flight."),
];

/// A sample's number.
#[derive(Debug, Clone, Copy)]
enum Number {
    Whole(u64),
    Float(f64),
}

impl std::fmt::Display for Number {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(value) => write!(out, "{value}"),
            Self::Float(value) => out.write_str(&decimal(*value)),
        }
    }
}

/// A number as Python writes it, which the limits of buckets are labels as: `0.5`, `1e-06`.
fn decimal(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => format!("{value:?}"),
    }
}

#[allow(clippy::cast_precision_loss, reason = "Prometheus has floats only")]
fn float(value: u64) -> f64 {
    value as f64
}

/// Nanoseconds as seconds.
fn seconds(ns: u64) -> Number {
    Number::Float(float(ns) / 1e9)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Names and values.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes families.
struct Writer<'w, W> {
    out: &'w mut W,
}

impl<W: Write> Writer<'_, W> {
    fn begin(&mut self, name: &str, kind: Kind, help: &str) -> Result<()> {
        let (total, kind) = match kind {
            Kind::Counter => ("_total", "counter"),
            Kind::Gauge => ("", "gauge"),
            Kind::Histogram => ("", "histogram"),
        };
        writeln!(self.out, "# HELP {PREFIX}{name}{total} {help}")?;
        writeln!(self.out, "# TYPE {PREFIX}{name}{total} {kind}")
    }

    fn sample(&mut self, name: &str, labels: &Labels<'_>, value: Number) -> Result<()> {
        write!(self.out, "{PREFIX}{name}")?;
        for (number, (label, text)) in labels.iter().enumerate() {
            let begin = if number == 0 { "{" } else { "," };
            let text = text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
            write!(self.out, "{begin}{label}=\"{text}\"")?;
        }
        let end = if labels.is_empty() { "" } else { "}" };
        writeln!(self.out, "{end} {value}")
    }

    fn family<'a>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a>, Number)>,
    ) -> Result<()> {
        self.begin(name, kind, help)?;
        let full = if kind == Kind::Counter { format!("{name}_total") } else { name.to_string() };
        samples.into_iter().try_for_each(|(labels, value)| self.sample(&full, &labels, value))
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> Result<()> {
        self.family(name, Kind::Gauge, help, [(Vec::new(), Number::Whole(value))])
    }
}

/// All families of a region.
pub(super) fn write(out: &mut impl Write, region: &Region) -> Result<()> {
    let mut writer = Writer { out };
    let overview = Overview::of(region);
    sizes(&mut writer, &overview)?;
    breakers(&mut writer, &overview.features)?;
    deployments(&mut writer, &overview.deployments)?;
    for (counter, count) in &overview.stats {
        let help = COUNTERS.iter().find(|(name, _)| name == counter).map_or("", |(_, help)| help);
        writer.family(counter, Kind::Counter, help, [(Vec::new(), Number::Whole(*count))])?;
    }
    let totals = quota::limiter_totals(region, None);
    let decided = [("allowed", totals.allowed), ("denied", totals.denied)];
    let help = "Checks of SimpleRateLimiter and check_rate_limit.";
    let samples = decided.map(|(result, count)| (vec![("result", result)], Number::Whole(count)));
    writer.family("limiter_checks", Kind::Counter, help, samples)?;
    writer.gauge("limiter_keys", "Keys of SimpleRateLimiter.", totals.keys)?;
    operations(&mut writer, region)
}

fn sizes<W: Write>(writer: &mut Writer<'_, W>, overview: &Overview) -> Result<()> {
    let header = &overview.header;
    let states = ["alive", "dead", "unknown"].map(|state| {
        let count = overview.workers.iter().filter(|worker| worker.alive == state).count();
        (vec![("state", state)], Number::Whole(count as u64))
    });
    let help = "Processes that are registered, and the one that made the region.";
    writer.family("workers", Kind::Gauge, help, states)?;
    writer.gauge("leases_held", "Concurrency slots that are held.", overview.leases_held)?;
    writer.gauge("keys", "Keys in the region.", header.keys)?;
    writer.gauge("keys_capacity", "Keys that the region has room for.", header.key_capacity)?;
    writer.gauge("lease_chunks", "Chunks of 32 concurrency slots in use.", header.chunks)?;
    let help = "Chunks that there is room for.";
    writer.gauge("lease_chunks_capacity", help, header.chunk_capacity)?;
    writer.gauge("region_bytes", "Size of the region.", header.size)?;
    writer.gauge("region_age_seconds", "Time since the region was created.", header.age_s)
}

fn breakers<W: Write>(writer: &mut Writer<'_, W>, reports: &[FeatureReport]) -> Result<()> {
    // Only those that ever had an error or whose switch was moved are reported.
    let name = |report: &FeatureReport| {
        report.name.map_or_else(|| format!("feature_{}", report.feature), str::to_string)
    };
    let found: BTreeMap<String, &FeatureReport> =
        reports.iter().map(|report| (name(report), report)).collect();
    let unknown = found.keys().map(String::as_str).filter(|name| !features::NAMES.contains(name));
    let all: Vec<&str> = features::NAMES.into_iter().chain(unknown).collect();
    let samples = |of: fn(&FeatureReport) -> u64| {
        let value = |name: &str| Number::Whole(found.get(name).map_or(0, |report| of(report)));
        all.iter().map(|&name| (vec![("feature", name)], value(name))).collect::<Vec<_>>()
    };
    let errors = samples(|report| report.errors_total);
    writer.family("feature_errors", Kind::Counter, "Errors of a feature.", errors)?;
    let help = "Errors that its breaker remembers.";
    writer.family("feature_recent_errors", Kind::Gauge, help, samples(|report| report.errors))?;
    let open = samples(|report| u64::from(report.breaker == "open"));
    let help = "1 = switched off because of its errors.";
    writer.family("feature_breaker_open", Kind::Gauge, help, open)
}

/// Names of their own for deployments whose names redaction has made alike.
fn names(reports: &[DeploymentReport]) -> Vec<String> {
    let taken: BTreeSet<&str> = reports.iter().map(|report| report.deployment.as_str()).collect();
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let own = |report: &'_ DeploymentReport, number: &mut u64| {
        *number += 1;
        loop {
            let own = format!("{}#{number}", report.deployment);
            match *number {
                1 => return report.deployment.clone(),
                _ if !taken.contains(own.as_str()) => return own,
                _ => *number += 1,
            }
        }
    };
    reports.iter().map(|report| own(report, seen.entry(&report.deployment).or_default())).collect()
}

/// A number of a deployment, where it has one.
type Field<'a> = &'a dyn Fn(&DeploymentReport) -> Option<Number>;

fn deployments<W: Write>(writer: &mut Writer<'_, W>, reports: &[DeploymentReport]) -> Result<()> {
    let names = names(reports);
    let whole = |value: u64| Some(Number::Float(float(value)));
    let scaled =
        |value: Option<u64>, unit: f64| value.map(|value| Number::Float(float(value) * unit));
    let fields: [(&str, Kind, &str, Field<'_>); 7] = [
        ("in_flight", Kind::Gauge, "Calls in flight to a deployment.", &|of| whole(of.in_flight)),
        ("cooldown_seconds", Kind::Gauge, "Time until a deployment's cooldown ends.", &|of| {
            scaled(Some(of.cooldown_ms), 1e-3)
        }),
        ("successes", Kind::Counter, "Successful calls to a deployment.", &|of| {
            whole(of.successes_total)
        }),
        ("failures", Kind::Counter, "Failed calls to a deployment.", &|of| {
            whole(of.failures_total)
        }),
        ("failures_in_a_row", Kind::Gauge, "Failures since the last success.", &|of| {
            whole(of.failures_in_a_row)
        }),
        ("latency_seconds", Kind::Gauge, "Average latency of a deployment.", &|of| {
            scaled(of.latency_us, 1e-6)
        }),
        (
            "first_token_seconds",
            Kind::Gauge,
            "Average time to the first token of a deployment.",
            &|of| scaled(of.first_token_us, 1e-6),
        ),
    ];
    for (name, kind, help, value) in fields {
        let samples = reports.iter().zip(&names);
        let samples = samples
            .filter_map(|(report, own)| Some((vec![("deployment", own.as_str())], value(report)?)));
        writer.family(&format!("deployment_{name}"), kind, help, samples)?;
    }
    Ok(())
}

/// A number of a series.
type OfSeries = fn(&Snapshot) -> Number;

fn operations<W: Write>(writer: &mut Writer<'_, W>, region: &Region) -> Result<()> {
    let mut all = measure::all_measured(region);
    all.retain(|(_, series)| series.errors > 0 || series.count > 0);
    let split = |name: &str| {
        let (component, operation) = name.split_once('.').unwrap_or((name, ""));
        (component.to_string(), operation.to_string())
    };
    let mut all: Vec<_> = all.into_iter().map(|(name, series)| (split(&name), series)).collect();
    all.sort_by(|(own, _), (other, _)| own.cmp(other));
    let name = "operation_duration_seconds";
    let help = "Time that operations took. Of fast_litellm's own ones only a part is timed.";
    writer.begin(name, Kind::Histogram, help)?;
    for ((component, operation), series) in &all {
        let labels = vec![("component", component.as_str()), ("operation", operation.as_str())];
        histogram(writer, name, &labels, series)?;
    }
    let fields: [(&str, Kind, &str, OfSeries); 4] = [
        ("duration_max_seconds", Kind::Gauge, "The longest operation.", |of| seconds(of.max_ns)),
        ("errors", Kind::Counter, "Timed operations that failed.", |of| Number::Whole(of.errors)),
        ("input_bytes", Kind::Counter, "Bytes that operations were given.", |of| {
            Number::Whole(of.input_bytes)
        }),
        ("output_bytes", Kind::Counter, "Bytes that operations gave.", |of| {
            Number::Whole(of.output_bytes)
        }),
    ];
    for (name, kind, help, value) in fields {
        let samples = all.iter().map(|((component, operation), series)| {
            let labels = vec![("component", component.as_str()), ("operation", operation.as_str())];
            (labels, value(series))
        });
        writer.family(&format!("operation_{name}"), kind, help, samples)?;
    }
    Ok(())
}

/// A bucket for each power of two, and one for all.
fn histogram<W: Write>(
    writer: &mut Writer<'_, W>,
    name: &str,
    labels: &Labels<'_>,
    series: &Snapshot,
) -> Result<()> {
    let mut below = 0_u64;
    let bucket = format!("{name}_bucket");
    for (number, count) in series.counts.iter().enumerate() {
        below = below.saturating_add(*count);
        if number % 4 == 3 && number + 1 < series.counts.len() {
            let le = decimal(float(upper_ns(number)) / 1e9);
            let labels = labels.iter().copied().chain([("le", le.as_str())]).collect();
            writer.sample(&bucket, &labels, Number::Whole(below))?;
        }
    }
    let infinite = labels.iter().copied().chain([("le", "+Inf")]).collect();
    writer.sample(&bucket, &infinite, Number::Whole(series.count))?;
    writer.sample(&format!("{name}_sum"), labels, seconds(series.sum_ns))?;
    writer.sample(&format!("{name}_count"), labels, Number::Whole(series.count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        let numbers = [1.28e-7, 1.023e-6, 0.0001, 0.5, 3.0, 1e15, 1e16, 1.5e22];
        let expected = [
            "1.28e-07",
            "1.023e-06",
            "0.0001",
            "0.5",
            "3.0",
            "1000000000000000.0",
            "1e+16",
            "1.5e+22",
        ];
        assert_eq!(numbers.map(decimal), expected);
    }

    #[test]
    fn every_counter_has_a_help() {
        let known = crate::inspect::counters().map(|(name, _)| name);
        assert_eq!(known, COUNTERS.map(|(name, _)| name));
    }
}
