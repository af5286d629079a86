//! Reports as text.

use super::inspect::Section;
use crate::inspect::{
    DeploymentReport, EventReport, FeatureReport, LeaderReport, LeaseReport, LimitReport,
    NoticeReport, PoolReport, Report, Usage, WorkerReport,
};
use std::io::{Result, Write};

/// Columns padded to their widest cell; the last one is not padded.
pub(super) fn table(
    out: &mut impl Write,
    head: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> Result<()> {
    let rows: Vec<Vec<String>> =
        std::iter::once(head.iter().map(ToString::to_string).collect()).chain(rows).collect();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// `2d03h`, `4h05m`, `6m07s` or `8s`.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match seconds {
        86_400.. => format!("{days}d{hours:02}h"),
        3_600.. => format!("{hours}h{minutes:02}m"),
        60.. => format!("{minutes}m{:02}s", seconds % 60),
        _ => format!("{seconds}s"),
    }
}

/// `16.0M` or `12K`.
pub(super) fn bytes(count: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mebibytes = count as f64 / f64::from(1 << 20);
    if count >= 1 << 20 { format!("{mebibytes:.1}M") } else { format!("{}K", count >> 10) }
}

fn usage(usage: Option<Usage>) -> String {
    match usage {
        None => "-".to_string(),
        Some(Usage { used, limit: Some(limit) }) => format!("{used}/{limit}"),
        Some(Usage { used, limit: None }) => used.to_string(),
    }
}

fn limit_row(limit: &LimitReport) -> Vec<String> {
    let seconds = |value: Option<u64>| value.map_or_else(|| "-".to_string(), duration);
    vec![
        limit.key.clone(),
        limit.kind.to_string(),
        seconds(limit.window_s),
        usage(limit.requests),
        usage(limit.tokens),
        usage(limit.parallel),
        seconds(limit.resets_in_s.or(limit.retry_after_ms.map(|ms| ms.div_ceil(1_000)))),
        limit.allowed.to_string(),
        limit.denied.to_string(),
    ]
}

/// A report's chosen sections.
pub(super) fn report(
    out: &mut impl Write,
    name: &str,
    report: &Report,
    wanted: &dyn Fn(Section) -> bool,
) -> Result<()> {
    if wanted(Section::Header) {
        let header = &report.header;
        writeln!(
            out,
            "region {name}: {} {}, layout {}, made by pid {} {} ago; {} of {} keys, {} of {} lease chunks",
            header.backing,
            bytes(header.size),
            header.layout,
            header.creator_pid,
            duration(header.age_s),
            header.keys,
            header.key_capacity,
            header.chunks,
            header.chunk_capacity,
        )?;
        if let Some(at) = header.dumped_at {
            writeln!(
                out,
                "a dump, copied {} after it was made",
                duration(at.saturating_sub(header.created_at))
            )?;
        }
        if !header.same_pid_namespace {
            writeln!(
                out,
                "of another pid namespace: whether workers live cannot be told from here"
            )?;
        }
    }
    if wanted(Section::Workers) {
        writeln!(out, "\nworkers")?;
        let rows = report.workers.iter().map(|worker| {
            vec![
                worker.pid.to_string(),
                worker.role.to_string(),
                worker.alive.to_string(),
                duration(worker.age_s),
                worker.leases.to_string(),
                worker.decisions.to_string(),
            ]
        });
        table(out, &["  PID", "ROLE", "STATE", "AGE", "SLOTS HELD", "DECISIONS"], indent(rows))?;
    }
    if wanted(Section::Limits) {
        writeln!(out, "\nlimits")?;
        let head = [
            "  KEY",
            "KIND",
            "WINDOW",
            "REQUESTS",
            "TOKENS",
            "PARALLEL",
            "RESETS IN",
            "ALLOWED",
            "DENIED",
        ];
        table(out, &head, indent(report.limits.iter().map(limit_row)))?;
    }
    if wanted(Section::Leases) {
        leases(out, &report.leases)?;
    }
    if wanted(Section::Leaders) && !report.leaders.is_empty() {
        leaders(out, &report.leaders)?;
    }
    if wanted(Section::Deployments) && !report.deployments.is_empty() {
        deployments(out, &report.deployments)?;
    }
    if wanted(Section::Pools) && !report.pools.is_empty() {
        pools(out, &report.pools)?;
    }
    if wanted(Section::Notices) && !report.notices.is_empty() {
        notices(out, &report.notices)?;
    }
    if wanted(Section::Events) && !report.events.is_empty() {
        events(out, "events, newest first", &report.events)?;
    }
    if wanted(Section::Stats) {
        writeln!(out, "\nstatistics")?;
        let moved = report.stats.iter().filter(|&(_, &value)| value > 0);
        let rows = moved.map(|(name, value)| vec![(*name).to_string(), value.to_string()]);
        table(out, &["  COUNTER", "TOTAL"], indent(rows))?;
        for feature in &report.features {
            writeln!(out, "  {}", feature_line(feature))?;
        }
    }
    Ok(())
}

fn feature_line(feature: &FeatureReport) -> String {
    let name = feature.name.map_or_else(|| feature.feature.to_string(), str::to_string);
    let switch = match (feature.switch, feature.percent) {
        ("own", _) => String::new(),
        (_, Some(percent)) => format!(", switched to {percent}% for all workers"),
        (switch, None) => format!(", switched {switch} for all workers"),
    };
    let latest = match feature.errors_total {
        0 => String::new(),
        _ => format!(", latest {} ago", duration(feature.last_s)),
    };
    format!(
        "feature {name}: breaker {}, {} errors since reset, {} in all{latest}{switch}",
        feature.breaker, feature.errors, feature.errors_total,
    )
}

fn deployments(out: &mut impl Write, deployments: &[DeploymentReport]) -> Result<()> {
    writeln!(out, "\ndeployments")?;
    let milliseconds = |us: Option<u64>| {
        us.map_or_else(|| "-".to_string(), |us| format!("{}ms", us.div_ceil(1_000)))
    };
    let rows = deployments.iter().map(|deployment| {
        let cooldown = deployment.cooldown_reason.map_or_else(
            || "-".to_string(),
            |why| {
                let status = deployment.cooldown_status.map(|status| format!(" {status}"));
                let left = duration(deployment.cooldown_ms.div_ceil(1_000));
                let lasts = duration(deployment.cooldown_for_ms.unwrap_or(0).div_ceil(1_000));
                format!("{left} of {lasts} ({why}{})", status.unwrap_or_default())
            },
        );
        vec![
            deployment.deployment.clone(),
            deployment.in_flight.to_string(),
            cooldown,
            deployment.successes.to_string(),
            deployment.failures.to_string(),
            deployment.last_failure.unwrap_or("-").to_string(),
            milliseconds(deployment.latency_us),
            milliseconds(deployment.first_token_us),
            deployment.cooldown_text.clone().unwrap_or_else(|| "-".to_string()),
        ]
    });
    let head = [
        "  DEPLOYMENT",
        "IN FLIGHT",
        "COOLDOWN",
        "OK",
        "FAILED",
        "LAST FAILURE",
        "LATENCY",
        "FIRST TOKEN",
        "CAUSE",
    ];
    table(out, &head, indent(rows))
}

pub(super) fn events(out: &mut impl Write, title: &str, events: &[EventReport]) -> Result<()> {
    writeln!(out, "\n{title}")?;
    let rows = events.iter().map(|event| {
        vec![
            format!("{} ago", duration(event.age_s)),
            event.event.to_string(),
            event.subject.clone().unwrap_or_else(|| "-".to_string()),
            event.a.to_string(),
            event.b.to_string(),
        ]
    });
    table(out, &["  WHEN", "EVENT", "SUBJECT", "A", "B"], indent(rows))
}

fn leaders(out: &mut impl Write, leaders: &[LeaderReport]) -> Result<()> {
    writeln!(out, "\nleaders")?;
    let rows = leaders.iter().map(|leader| {
        vec![
            leader.job.clone(),
            leader.pid.map_or_else(|| "-".to_string(), |pid| pid.to_string()),
            leader.owner.to_string(),
            leader.term.map_or_else(|| "-".to_string(), |term| term.to_string()),
            duration(leader.held_s),
            format!("{} ago", duration(leader.renewed_s)),
        ]
    });
    table(out, &["  JOB", "PID", "STATE", "TERM", "LEADS SINCE", "RENEWED"], indent(rows))
}

/// Each pool, and below it its endpoints.
fn pools(out: &mut impl Write, pools: &[PoolReport]) -> Result<()> {
    writeln!(out, "\nconnection pools")?;
    let used = |connections: u64, idle: u64, limit| {
        let used = i64::try_from(connections).unwrap_or(i64::MAX);
        [
            (connections.saturating_sub(idle)).to_string(),
            idle.to_string(),
            usage(Some(Usage { used, limit })),
        ]
    };
    let rows = pools.iter().flat_map(|pool| {
        let [active, idle, total] = used(pool.connections, pool.idle, pool.limit);
        let counts = &pool.counts;
        let first = vec![
            pool.pool.clone(),
            active,
            idle,
            total,
            "-".to_string(),
            format!(
                "{} made, {} reused, {} refused, {} taken over, {} expired, {} stale",
                counts.created,
                counts.reused,
                counts.refused,
                counts.taken_over,
                counts.expired,
                counts.stale_returns
            ),
        ];
        let endpoints = pool.endpoints.iter().map(move |endpoint| {
            let [active, idle, total] = used(endpoint.connections, endpoint.idle, endpoint.limit);
            let health = if endpoint.healthy { "healthy" } else { "unhealthy" };
            let last = endpoint.last_failure.map(|kind| format!(", the last {kind}"));
            let failures =
                format!("{} failures{}", endpoint.failures_total, last.unwrap_or_default());
            vec![
                format!("  {}", endpoint.endpoint),
                active,
                idle,
                total,
                health.to_string(),
                failures,
            ]
        });
        std::iter::once(first).chain(endpoints)
    });
    table(out, &["  POOL", "ACTIVE", "IDLE", "TOTAL", "HEALTH", "SINCE THE START"], indent(rows))
}

fn notices(out: &mut impl Write, notices: &[NoticeReport]) -> Result<()> {
    writeln!(out, "\nnotices")?;
    let cell = |value: Option<String>| value.unwrap_or_else(|| "-".to_string());
    let rows = notices.iter().map(|notice| {
        vec![
            notice.notice.clone(),
            cell(notice.bytes.map(|bytes| bytes.to_string())),
            cell(notice.age_s.map(|age_s| format!("{} ago", duration(age_s)))),
            cell(notice.expires_in_s.map(duration)),
            notice.published.to_string(),
        ]
    });
    table(out, &["  NOTICE", "BYTES", "PUBLISHED", "EXPIRES IN", "TIMES"], indent(rows))
}

/// Slots held by owner and key.
pub(super) fn leases(out: &mut impl Write, leases: &[LeaseReport]) -> Result<()> {
    writeln!(out, "\nslots held")?;
    let rows = leases.iter().map(|lease| {
        vec![
            lease.pid.map_or_else(|| "-".to_string(), |pid| pid.to_string()),
            lease.owner.to_string(),
            lease.held.to_string(),
            lease.idle.to_string(),
            duration(lease.oldest_s),
            lease.key.clone(),
        ]
    });
    table(out, &["  PID", "OWNER", "SLOTS", "IDLE", "OLDEST", "KEY"], indent(rows))
}

/// Rows that dead workers still have.
pub(super) fn dead_workers(out: &mut impl Write, workers: &[WorkerReport]) -> Result<()> {
    writeln!(out, "\nworkers")?;
    let rows = workers.iter().map(|worker| {
        vec![
            worker.pid.to_string(),
            worker.row.to_string(),
            duration(worker.age_s),
            worker.leases.to_string(),
        ]
    });
    table(out, &["  PID", "ROW", "AGE", "SLOTS HELD"], indent(rows))
}

fn indent(rows: impl Iterator<Item = Vec<String>>) -> impl Iterator<Item = Vec<String>> {
    rows.map(|mut row| {
        if let Some(first) = row.first_mut() {
            first.insert_str(0, "  ");
        }
        row
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([8, 67, 3_900, 183_600].map(duration), ["8s", "1m07s", "1h05m", "2d03h"]);
        assert_eq!([4096, 16 << 20].map(bytes), ["4K", "16.0M"]);
    }
}
