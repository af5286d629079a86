//! `fl-shm explain`: whether a request would be admitted now, and which limit decides.

use super::keys::Keys;
use super::outcome::{Outcome, json, nothing_found};
use super::select::{self, Select};
use super::{NOTHING, OK, output};
use crate::inspect::explain::{Explanation, LimitOutlook, Question};
use clap::Args;
use std::io::{Result, Write};

#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    keys: Keys,
    /// What the request costs: requests of a rate, units of a sliding window, tokens of a window.
    #[arg(long, default_value_t = 1, value_name = "N")]
    cost: u64,
    /// Seconds after which a held slot may be taken, as the program says; 0 = never.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    slot_ttl: u64,
    #[command(flatten)]
    select: Select,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `fl-shm explain`
pub(super) fn explain(arguments: &Explain, out: &mut impl Write) -> Outcome {
    let wanted = arguments.keys.wanted()?;
    let Some(chosen) = select::choose(&arguments.select)? else {
        return nothing_found();
    };
    let question = Question { cost: arguments.cost, slot_ttl_s: arguments.slot_ttl };
    let found = Explanation::of(&chosen.look()?, chosen.name(), &wanted, question);
    if arguments.json {
        json(out, &found)?;
    } else {
        show(out, &found)?;
    }
    out.flush()?;
    for name in &found.unknown {
        let message = "no limit and no deployment is known; a first request is admitted unless it costs more than \
                       its limit";
        writeln!(std::io::stderr(), "fl-shm: {name}: {message}")?;
    }
    Ok(if found.admitted { OK } else { NOTHING })
}

fn show(out: &mut impl Write, found: &Explanation) -> Result<()> {
    let decides = found.decides.and_then(|place| found.limits.get(place));
    if let Some(limit) = decides {
        writeln!(out, "refused by {} {}: {}", limit.key, what(limit), until(limit))?;
    } else if found.limits.is_empty() {
        return Ok(());
    } else {
        writeln!(out, "{}", if found.admitted { "admitted" } else { "not known" })?;
    }
    for name in &found.ambiguous {
        writeln!(out, "several are shown as {name} and cannot be told apart: ask by # and hash")?;
    }
    writeln!(out)?;
    let number = |value: Option<String>| value.unwrap_or_else(|| "-".to_string());
    let rows = found.limits.iter().map(|limit| {
        let refuses = limit.answer == "refuses";
        let why = limit.reason.clone().filter(|_| !refuses || limit.retry_after_us.is_some());
        let until = Some(until(limit)).filter(|_| refuses);
        let related = (limit.matched == "related").then(|| "does not decide".to_string());
        let said = [until, why, related];
        vec![
            limit.key.clone(),
            limit.id.clone().unwrap_or_else(|| "-".to_string()),
            what(limit),
            number(limit.used.map(|used| used.to_string())),
            number(limit.limit.map(|limit| limit.to_string())),
            number(limit.left.map(|left| left.to_string())),
            limit.cost.to_string(),
            format!("{}{}", limit.answer, if limit.moving { " ~" } else { "" }),
            said.into_iter().flatten().collect::<Vec<_>>().join("; "),
        ]
    });
    let head = ["KEY", "ID", "LIMIT OF", "USED", "LIMIT", "LEFT", "COST", "ANSWER", ""];
    output::table(out, &head, rows)
}

/// What it limits, for people.
fn what(limit: &LimitOutlook) -> String {
    limit.limit_of.replace('_', " ")
}

/// How long a limit refuses.
fn until(limit: &LimitOutlook) -> String {
    match (limit.retry_after_us, limit.until_ms) {
        (Some(us), Some(until_ms)) => {
            format!("for {}.{:06} s, until {}", us / 1_000_000, us % 1_000_000, utc(until_ms))
        }
        _ => limit.reason.clone().unwrap_or_default(),
    }
}

/// Unix milliseconds as `2023-11-14T22:13:20.000Z`.
fn utc(ms: u64) -> String {
    let (days, rest) = (ms / 86_400_000, ms % 86_400_000);
    // Years begin in March, so that the day that comes and goes is the last one.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (hours, minutes, ms) = (rest / 3_600_000, rest / 60_000 % 60, rest % 60_000);
    format!(
        "{:04}-{month:02}-{of_month:02}T{hours:02}:{minutes:02}:{:02}.{:03}Z",
        era * 400 + year + next,
        ms / 1_000,
        ms % 1_000
    )
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn moments_for_people() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(utc(1_709_251_199_001), "2024-02-29T23:59:59.001Z");
        assert_eq!(utc(1_700_000_000_000), "2023-11-14T22:13:20.000Z");
        assert_eq!(utc(4_102_444_799_000), "2099-12-31T23:59:59.000Z");
    }
}
