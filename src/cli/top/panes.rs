//! The parts of the screen that can be scrolled.

use super::state::{Broken, Pane, State};
use super::table::{Column, Table};
use super::theme::{DIM, Theme, plain};
use crate::cli::output::{duration, plural};
use crate::inspect::{DeploymentReport, EventReport, LimitReport, Usage, WorkerReport};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// Cells of a bar.
const BAR: u32 = 8;

/// Draws the rows of a pane, or says why there are none.
pub(super) fn draw(state: &State, pane: Pane, area: Rect, buffer: &mut Buffer, theme: Theme) {
    let (row, focused) = (state.row(pane), state.pane == pane);
    let empty = |text: &'static str, buffer: &mut Buffer| {
        super::table::put(buffer, area.x, area.y, &Line::styled(text, DIM), area.width);
    };
    let Some(frame) = state.frame.as_ref().filter(|_| !area.is_empty()) else { return };
    match pane {
        Pane::Keys => {
            let rows = state.keys();
            match (rows.is_empty(), state.filter().text.is_empty()) {
                (true, true) => empty("no key has a limit yet", buffer),
                (true, false) => empty("no key matches the filter", buffer),
                _ => Table { columns: keys(theme), rows: &rows, row, focused }.draw(area, buffer),
            }
        }
        Pane::Workers => {
            let rows = state.workers();
            if rows.is_empty() {
                return empty("no worker has registered", buffer);
            }
            Table { columns: workers(state, theme), rows: &rows, row, focused }.draw(area, buffer);
        }
        Pane::Deployments => {
            let rows = state.deployments();
            if rows.is_empty() {
                return empty("no deployment is known", buffer);
            }
            Table { columns: deployments(theme), rows: &rows, row, focused }.draw(area, buffer);
        }
        Pane::Breakers => {
            let rows = state.breakers();
            if rows.is_empty() {
                return empty("all are closed", buffer);
            }
            Table { columns: breakers(theme), rows: &rows, row, focused }.draw(area, buffer);
        }
        Pane::Events => {
            let rows: Vec<&EventReport> = frame.events.iter().collect();
            if rows.is_empty() {
                return empty("nothing happened yet", buffer);
            }
            Table { columns: events(&frame.workers), rows: &rows, row, focused }.draw(area, buffer);
        }
    }
}

/// What a pane says beside its name.
pub(super) fn summary(state: &State, pane: Pane) -> String {
    let Some(frame) = &state.frame else { return String::new() };
    match pane {
        Pane::Keys => {
            let (shown, order) = (state.keys().len(), state.order().1);
            let filter = state.filter();
            let of = state.matching().map(|all| format!(" of {all}")).unwrap_or_default();
            let matching = if filter.text.is_empty() {
                String::new()
            } else {
                format!(" that match {:?}", plain(&filter.text))
            };
            format!("{shown}{of}{matching}, most {order} first")
        }
        Pane::Workers => {
            let held =
                frame.workers.iter().fold(0_u64, |sum, each| sum.saturating_add(each.leases));
            let others = match frame.leases_held.saturating_sub(held) {
                0 => String::new(),
                others => format!(", {others} by processes that are gone"),
            };
            format!("{} slots held{others}", frame.leases_held)
        }
        Pane::Deployments => {
            let cooled = frame.deployments.iter().filter(|each| each.cooldown_ms > 0).count();
            format!("{cooled} of {} cooled down", frame.deployments.len())
        }
        Pane::Breakers => {
            let open = state.breakers().iter().filter(|each| each.state != "closed").count();
            format!("{open} open")
        }
        Pane::Events => {
            let count = frame.events.len();
            format!("the latest {count} event{}", plural(count as u64))
        }
    }
}

/// How many rows a pane has.
pub(super) fn rows(state: &State, pane: Pane) -> usize {
    match pane {
        Pane::Keys => state.keys().len(),
        Pane::Workers => state.workers().len(),
        Pane::Deployments => state.deployments().len(),
        Pane::Breakers => state.breakers().len(),
        Pane::Events => state.frame.as_ref().map_or(0, |frame| frame.events.len()),
    }
}

fn keys<'a>(theme: Theme) -> Vec<Column<'a, &'a LimitReport>> {
    let total = |count: u64| Line::raw(short(count));
    vec![
        Column::left("KEY", 14, 0, |key: &&LimitReport| Line::raw(plain(&key.key))),
        Column::left("USED", 14, 3, move |key: &&LimitReport| used(key, theme)),
        Column::right("REFUSED/S", 9, 1, move |key: &&LimitReport| {
            let style = if key.denied_per_s > Some(0.0) { theme.bad() } else { Style::new() };
            Line::styled(key.denied_per_s.map_or_else(|| "-".into(), per_s), style)
        }),
        Column::right("ADMITTED/S", 10, 2, |key: &&LimitReport| {
            Line::raw(key.allowed_per_s.map_or_else(|| "-".into(), per_s))
        }),
        Column::right("RESETS IN", 9, 4, |key: &&LimitReport| Line::raw(resets(key))),
        Column::right("REQUESTS", 13, 5, |key: &&LimitReport| Line::raw(usage(key.requests))),
        Column::right("TOKENS", 15, 6, |key: &&LimitReport| Line::raw(usage(key.tokens))),
        Column::right("SLOTS", 9, 7, |key: &&LimitReport| Line::raw(usage(key.parallel))),
        Column::right("REFUSED", 8, 8, move |key: &&LimitReport| total(key.denied)),
        Column::right("ADMITTED", 8, 9, move |key: &&LimitReport| total(key.allowed)),
        Column::left("KIND", 7, 10, |key: &&LimitReport| Line::raw(key.kind)),
    ]
}

fn workers(state: &State, theme: Theme) -> Vec<Column<'_, &WorkerReport>> {
    vec![
        Column::left("PID", 8, 0, |worker: &&WorkerReport| Line::raw(worker.pid.to_string())),
        Column::left("STATE", 7, 1, move |worker: &&WorkerReport| {
            let style = match worker.alive {
                "alive" => theme.good(),
                "dead" => theme.bad(),
                _ => theme.warning(),
            };
            Line::styled(worker.alive, style)
        }),
        Column::right("SLOTS", 6, 2, |worker: &&WorkerReport| Line::raw(short(worker.leases))),
        Column::right("DECISIONS/S", 11, 4, |worker: &&WorkerReport| {
            Line::raw(state.decisions_per_s(worker).map_or_else(|| "-".into(), per_s))
        }),
        Column::right("AGE", 7, 3, |worker: &&WorkerReport| Line::raw(duration(worker.age_s))),
        Column::left("ROLE", 7, 5, |worker: &&WorkerReport| Line::raw(worker.role)),
    ]
}

fn deployments<'a>(theme: Theme) -> Vec<Column<'a, &'a DeploymentReport>> {
    let name = |each: &&DeploymentReport| Line::raw(plain(&each.deployment));
    vec![
        Column::left("DEPLOYMENT", 12, 0, name),
        Column::right("BACK IN", 7, 1, move |each: &&DeploymentReport| match each.cooldown_ms {
            0 => Line::styled("-", DIM),
            left => Line::styled(duration(left.div_ceil(1_000)), theme.warning()),
        }),
        Column::left("WHY", 16, 2, |each: &&DeploymentReport| Line::raw(why(each))),
        Column::right("FLYING", 6, 3, |each: &&DeploymentReport| Line::raw(short(each.in_flight))),
        Column::right("FAILED", 6, 4, |each: &&DeploymentReport| Line::raw(short(each.failures))),
        Column::right("OK", 6, 5, |each: &&DeploymentReport| Line::raw(short(each.successes))),
        Column::left("", 10, 6, |each: &&DeploymentReport| {
            Line::raw(each.cooldown_text.as_deref().map(plain).unwrap_or_default())
        }),
    ]
}

fn breakers<'a>(theme: Theme) -> Vec<Column<'a, Broken>> {
    vec![
        Column::left("WHAT", 14, 0, |each: &Broken| Line::raw(plain(&each.what))),
        Column::left("BREAKER", 7, 1, move |each: &Broken| {
            let style = if each.state == "closed" { theme.good() } else { theme.bad() };
            Line::styled(each.state, style)
        }),
        Column::right("ERRORS", 6, 2, |each: &Broken| Line::raw(short(each.errors))),
        Column::right("LATEST", 10, 3, |each: &Broken| Line::raw(ago(each.latest_s))),
        Column::left("", 12, 4, |each: &Broken| Line::raw(each.switch.clone().unwrap_or_default())),
    ]
}

fn events(workers: &[WorkerReport]) -> Vec<Column<'_, &EventReport>> {
    let by = |event: &&EventReport| {
        let row = event.row?;
        let worker = workers.iter().find(|worker| u32::try_from(worker.row) == Ok(row));
        Some(worker.map_or_else(|| format!("row {row}"), |worker| worker.pid.to_string()))
    };
    vec![
        Column::left("AGE", 6, 0, |event: &&EventReport| Line::raw(duration(event.age_s))),
        Column::left("EVENT", 16, 0, |event: &&EventReport| Line::raw(event.event)),
        Column::left("ABOUT", 14, 1, |event: &&EventReport| {
            Line::raw(event.subject.as_deref().map_or_else(|| "-".into(), plain))
        }),
        Column::left("BY", 8, 2, move |event: &&EventReport| {
            Line::raw(by(event).unwrap_or_else(|| "-".into()))
        }),
        Column::left("DETAIL", 16, 3, |event: &&EventReport| {
            Line::raw(event.detail.as_deref().map(plain).unwrap_or_default())
        }),
    ]
}

/// How much of its tightest limit a key has used; `~` = its numbers may not be of one moment.
fn used(key: &LimitReport, theme: Theme) -> Line<'static> {
    let Some(percent) = key.used_pct else { return Line::raw("-") };
    let moving = if key.moving { "~" } else { "" };
    let text = if percent < 1_000.0 { format!("{percent:.0}%") } else { ">999%".into() };
    let style = theme.used(percent);
    Line::from(vec![
        Span::styled(bar(percent), style),
        Span::styled(format!("{:>6}", format!("{moving}{text}")), style),
    ])
}

/// Eighths of a cell are told apart.
fn bar(percent: f64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (percent.clamp(0.0, 100.0) / 100.0 * f64::from(BAR * 8)).round();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 64")]
    let eighths = eighths as usize;
    let width = BAR as usize;
    let bar = format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8]);
    format!("{bar:<width$}")
}

fn resets(key: &LimitReport) -> String {
    let left = key.resets_in_s.or(key.retry_after_ms.map(|ms| ms.div_ceil(1_000)));
    left.map_or_else(|| "-".into(), duration)
}

fn usage(usage: Option<Usage>) -> String {
    match usage {
        None => "-".into(),
        Some(Usage { used, limit }) => {
            let used = u64::try_from(used).map_or_else(|_| used.to_string(), short);
            limit.map_or_else(|| used.clone(), |limit| format!("{used}/{}", short(limit)))
        }
    }
}

fn why(deployment: &DeploymentReport) -> String {
    let Some(reason) = deployment.cooldown_reason else { return "-".into() };
    let status = deployment.cooldown_status.map(|status| format!(" {status}"));
    format!("{reason}{}", status.unwrap_or_default())
}

fn ago(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "-".into(), |seconds| format!("{} ago", duration(seconds)))
}

/// A count in six characters at most, as long as it is below a million billions.
pub(super) fn short(count: u64) -> String {
    const UNITS: [(u64, char); 4] =
        [(1_000_000_000_000, 'T'), (1_000_000_000, 'G'), (1_000_000, 'M'), (1_000, 'k')];
    if count < 100_000 {
        return count.to_string();
    }
    let (unit, name) = UNITS.into_iter().find(|&(unit, _)| count >= unit).unwrap_or((1, ' '));
    match count / unit {
        whole @ 100.. => format!("{whole}{name}"),
        whole => format!("{whole}.{}{name}", count % unit * 10 / unit),
    }
}

/// A rate: one decimal where it matters.
pub(super) fn per_s(rate: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    match rate {
        0.0 => "0".into(),
        ..100.0 => format!("{rate:.1}"),
        _ => short(rate.round() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let counts = [0, 99_999, 100_000, 1_234_567, 999_999_999, 5_000_000_000, u64::MAX];
        let shown = ["0", "99999", "100k", "1.2M", "999M", "5.0G", "18446744T"];
        assert_eq!(counts.map(short), shown);
        let rates = [0.0, 0.04, 12.34, 99.96, 250.4, 1e300, f64::INFINITY, f64::NAN];
        let shown = ["0", "0.0", "12.3", "100.0", "250", "18446744T", "18446744T", "0"];
        assert_eq!(rates.map(per_s), shown);
    }

    #[test]
    fn bars_grow_with_what_is_used() {
        let bars = [-5.0, 0.0, 1.0, 50.0, 63.0, 100.0, 400.0, f64::NAN].map(bar);
        let shown = ["", "", "▏", "████", "█████", "████████", "████████", ""];
        assert_eq!(bars, shown.map(|bar| format!("{bar:<8}")));
    }
}
