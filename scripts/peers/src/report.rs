//! The answer: tables for people, the same figures as JSON.

use crate::measure::{Case, Figures};
use serde_json::{Value, json};

/// One table with what has to be known to read it.
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) notes: Vec<String>,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) figures: Value,
}

impl Table {
    pub(crate) fn print(&self) {
        println!("\n{}", self.title);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(String::len);
            cells.chain(self.columns.get(column).map(|name| name.len())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: Vec<&str>| {
            let padded = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                // Names and verdicts to the left, figures to the right.
                let left = column == 0 || self.columns[column].is_empty();
                if left { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            println!("  {}", padded.collect::<Vec<_>>().join("  ").trim_end());
        };
        line(self.columns.clone());
        for row in &self.rows {
            line(row.iter().map(String::as_str).collect());
        }
        for note in &self.notes {
            println!("  * {note}");
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "title": self.title, "notes": self.notes, "figures": self.figures })
    }
}

/// How many times `ours` the other one is, and the words for it; `gain` > 1 means that ours is better.
pub(crate) fn verdict(gain: f64) -> (String, String) {
    let words = if gain < 1.0 { "we lose" } else { "" };
    (format!("{gain:.2}x"), words.to_string())
}

/// Columns of [`latencies`].
const COLUMNS: [&str; 9] =
    ["ns per operation", "p50", "p99", "rounds", "1: p50", "1: p99", "1: p99.9", "/ ours", ""];

/// The usual table: one line per contender, peers with their ratio to ours.
pub(crate) fn latencies(
    title: impl Into<String>,
    measured: &[(Case<'_>, Figures)],
    notes: Vec<String>,
) -> Table {
    let ours = |name: &str| measured.iter().find(|(case, _)| case.name == name);
    let mut rows = Vec::new();
    let mut figures = Vec::new();
    for (case, found) in measured {
        let gain = case
            .against
            .as_deref()
            .and_then(ours)
            .map(|(_, counterpart)| found.p50 / counterpart.p50);
        let (ratio, words) = gain.map(verdict).unwrap_or_default();
        let single = &found.single;
        rows.push(vec![
            case.name.clone(),
            format!("{:.1}", found.p50),
            format!("{:.1}", found.p99),
            format!("{:.1}-{:.1}", found.range.0, found.range.1),
            format!("{:.0}", single.p50),
            format!("{:.0}", single.p99),
            format!("{:.0}", single.p999),
            ratio,
            words,
        ]);
        figures.push(json!({
            "name": case.name, "against": case.against, "peer_over_ours": gain, "ns": found,
        }));
    }
    let figures = Value::Array(figures);
    Table { title: title.into(), notes, columns: COLUMNS.to_vec(), rows, figures }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_faster_peer_is_called_so() {
        assert_eq!(verdict(0.5), ("0.50x".to_string(), "we lose".to_string()));
        assert_eq!(verdict(2.0), ("2.00x".to_string(), String::new()));
    }
}
