//! `fl-shm explain`: whether a request would be admitted now, and which limit decides.

use super::keys::Keys;
use super::outcome::{Outcome, json, nothing_found, say};
use super::select::{self, Select};
use super::{NOTHING, OK, output, text};
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
        say(&format!("{name}: {message}"));
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
        let partly = found.limits.iter().any(|limit| limit.answer == "unknown");
        let said = match (found.admitted, partly) {
            (true, false) => "admitted",
            (true, true) => "admitted, as far as it can be told",
            (false, _) => "not known",
        };
        writeln!(out, "{said}")?;
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
            // Rounded up: a little before it would still be refused.
            format!("for {}, until {}", text::wait(us), text::moment(until_ms.div_ceil(1_000)))
        }
        _ => limit.reason.clone().unwrap_or_default(),
    }
}
