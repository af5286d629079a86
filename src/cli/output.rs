//! Text for people.

use crate::tables::names::printable;
use std::io::{Result, Write};

/// Columns padded to their widest cell; the last one is not padded.
pub(super) fn table(
    out: &mut impl Write,
    head: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> Result<()> {
    let head_row = head.iter().map(ToString::to_string).collect();
    let shown = |row: Vec<String>| row.iter().map(|cell| printable(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head_row).chain(rows.map(shown)).collect();
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

/// What makes a noun that many.
pub(super) fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `1.5G`, `16.0M`, `12K` or `8B`.
pub(super) fn bytes(count: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let mebibytes = count as f64 / f64::from(1 << 20);
    match count {
        0..1_024 => format!("{count}B"),
        1_024..0x10_0000 => format!("{}K", count >> 10),
        0x10_0000..0x4000_0000 => format!("{mebibytes:.1}M"),
        _ => format!("{:.1}G", mebibytes / 1_024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([8, 67, 3_900, 183_600].map(duration), ["8s", "1m07s", "1h05m", "2d03h"]);
        assert_eq!([11, 4096, 16 << 20].map(bytes), ["11B", "4K", "16.0M"]);
    }
}
