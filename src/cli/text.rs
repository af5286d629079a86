//! Records for people: a table for each section, whose columns are those that have something to say.

use super::columns::{Column, Columns, Kind, Unit};
use super::machine::Part;
use super::output::{bytes, duration};
use super::rows::{Cell, Row};
use super::sections::Shape;
use super::view::Plan;
use crate::tables::names::printable;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{Error, IsTerminal, Result, Write};

/// Where text goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    /// Columns and lines of the terminal; `None` = it is none.
    size: Option<(usize, usize)>,
    colour: bool,
}

impl Screen {
    /// That of standard output.
    pub(super) fn of_output() -> Self {
        if !std::io::stdout().is_terminal() {
            return Self { size: None, colour: false };
        }
        let size = ratatui::crossterm::terminal::size().unwrap_or((80, 24));
        let set = |name, wanted: &dyn Fn(&std::ffi::OsStr) -> bool| {
            std::env::var_os(name).is_some_and(|value| wanted(&value))
        };
        let plain =
            set("NO_COLOR", &|value| !value.is_empty()) || set("TERM", &|value| value == "dumb");
        Self { size: Some((size.0.max(1).into(), size.1.max(2).into())), colour: !plain }
    }

    /// Shows a text in the place of the one before, as far as it fits; without a terminal below it.
    pub(super) fn redraw(self, out: &mut impl Write, text: &str, again: bool) -> Result<()> {
        let Some((_, height)) = self.size else {
            let blank = if again { "\n" } else { "" };
            return write!(out, "{blank}{text}");
        };
        // Only the first one clears what others have left: the rest does not flicker.
        out.write_all(if again { b"\x1b[H" } else { b"\x1b[2J\x1b[H" })?;
        let lines: Vec<&str> = text.lines().collect();
        let fits = lines.len() < height;
        let shown = if fits { lines.len() } else { height - 2 };
        for line in lines.iter().take(shown) {
            writeln!(out, "{line}\x1b[K")?;
        }
        if !fits {
            writeln!(out, "… and {} more lines: use --top\x1b[K", lines.len() - shown)?;
        }
        write!(out, "\x1b[J")
    }
}

const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// How a value stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colour {
    None,
    Yellow,
    Red,
}

impl Colour {
    fn of(column: &Column, cell: Cell<'_>) -> Self {
        match (cell, column.unit) {
            (Cell::Text("dead" | "open"), _) => Self::Red,
            (Cell::Float(used), Unit::Percent) if used >= 100.0 => Self::Red,
            (Cell::Float(used), Unit::Percent) if used >= 80.0 => Self::Yellow,
            (Cell::Bool(false), _) if column.name.ends_with("healthy") => Self::Red,
            _ => Self::None,
        }
    }

    /// What turns it on.
    fn begin(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Yellow => "\x1b[33m",
            Self::Red => "\x1b[31m",
        }
    }
}

/// A section with its title. `named` = it was asked for by its name, so that it is shown although it is empty.
pub(super) fn section(
    text: &mut String,
    screen: Screen,
    title: &str,
    part: &Part<'_>,
    named: bool,
) -> std::fmt::Result {
    let table = Table::of(part);
    if table.rows == 0 && !named {
        return Ok(());
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let (bold, plain) = if screen.colour { (BOLD, PLAIN) } else { ("", "") };
    writeln!(text, "{bold}{title}{plain}")?;
    match table.rows {
        0 => writeln!(text, "  none")?,
        1 if part.shape == Shape::One => table.write_upright(text)?,
        _ => table.write(text, screen),
    }
    if part.picks.more > 0 {
        writeln!(text, "  … and {} more", part.picks.more)?;
    }
    Ok(())
}

/// Records under a title.
pub(super) fn list<T: Serialize + JsonSchema>(
    out: &mut impl Write,
    title: &str,
    records: &[T],
) -> Result<()> {
    let plan = Plan::everything(Columns::of::<T>());
    let part = Part::of("", records, &plan);
    let mut text = String::new();
    self::section(&mut text, Screen::of_output(), title, &part, true).map_err(Error::other)?;
    out.write_all(text.as_bytes())
}

/// One column of a table: one of the records, or what is used with its limit.
struct Shown<'c> {
    column: &'c Column,
    number: usize,
    /// Number of the limit's column.
    limit: Option<usize>,
    head: String,
    width: usize,
}

/// Cells as text, row by row.
struct Table<'c> {
    shown: Vec<Shown<'c>>,
    texts: String,
    /// Length of each cell in bytes, and how it stands out.
    cells: Vec<(u32, Colour)>,
    rows: usize,
}

impl<'c> Table<'c> {
    fn of(part: &'c Part<'_>) -> Self {
        let columns = &part.plan.columns;
        let records = part.records.as_ref();
        let shown = if let Some(numbers) = &part.plan.shown {
            chosen(columns, numbers)
        } else {
            let mut has = vec![false; columns.len()];
            let _ = part.picks.in_place().rows(records, columns, |row, _| {
                for (number, (has, column)) in has.iter_mut().zip(columns.iter()).enumerate() {
                    *has |= row.cell(number) != column.default.cell("");
                }
                Ok::<(), std::fmt::Error>(())
            });
            telling(columns, &has)
        };
        let mut table = Self { shown, texts: String::new(), cells: Vec::new(), rows: 0 };
        let _ = part.picks.rows(records, columns, |row, new| {
            table.add(row, new);
            Ok::<(), std::fmt::Error>(())
        });
        table
    }

    /// Adds a row. What the record itself has is said in its first row only.
    fn add(&mut self, row: Row<'_>, new: bool) {
        self.rows += 1;
        for shown in &mut self.shown {
            let begin = self.texts.len();
            let cell = row.cell(shown.number);
            if new || shown.column.listed {
                let limit = shown.limit.map_or(Cell::Absent, |limit| row.cell(limit));
                let _ = write_cell(&mut self.texts, shown.column, cell);
                if limit != Cell::Absent {
                    self.texts.push('/');
                    let _ = write_cell(&mut self.texts, shown.column, limit);
                }
            }
            let written = &self.texts[begin..];
            let width = if written.is_ascii() { written.len() } else { written.chars().count() };
            shown.width = shown.width.max(width);
            let length = u32::try_from(written.len()).unwrap_or(u32::MAX);
            self.cells.push((length, Colour::of(shown.column, cell)));
        }
    }

    /// Cells from left to right, with their columns.
    fn cells(&self) -> impl Iterator<Item = (&Shown<'c>, &str, Colour)> {
        let mut rest = self.texts.as_str();
        self.cells.iter().zip(self.shown.iter().cycle()).map(move |(&(length, colour), shown)| {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let (text, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
            rest = after;
            (shown, text, colour)
        })
    }

    /// One record, a column a line.
    fn write_upright(&self, text: &mut String) -> std::fmt::Result {
        let widest = self.shown.iter().map(|shown| shown.head.chars().count()).max().unwrap_or(0);
        for (shown, cell, _) in self.cells() {
            writeln!(text, "  {:widest$}  {cell}", shown.head.to_lowercase())?;
        }
        Ok(())
    }

    fn write(&self, text: &mut String, screen: Screen) {
        let (bold, plain) = if screen.colour { (BOLD, PLAIN) } else { ("", "") };
        let limit = screen.size.map_or(usize::MAX, |(width, _)| width);
        let mut line = Line { text, limit, width: 0, pending: 0 };
        line.text.push_str(bold);
        for shown in &self.shown {
            line.cell(&shown.head, Colour::None, shown);
        }
        line.text.push_str(plain);
        line.end();
        let columns = self.shown.len();
        for (number, (shown, cell, colour)) in self.cells().enumerate() {
            line.cell(cell, if screen.colour { colour } else { Colour::None }, shown);
            if (number + 1) % columns == 0 {
                line.end();
            }
        }
    }
}

/// A line that ends where the terminal ends.
struct Line<'t> {
    text: &'t mut String,
    limit: usize,
    width: usize,
    /// Blanks that are written only when something follows.
    pending: usize,
}

impl Line<'_> {
    fn cell(&mut self, cell: &str, colour: Colour, shown: &Shown<'_>) {
        let length = if cell.is_ascii() { cell.len() } else { cell.chars().count() };
        let fill = shown.width.saturating_sub(length);
        let right = shown.column.kind != Kind::Text && shown.column.kind != Kind::Bool;
        self.pending += 2 + if right { fill } else { 0 };
        if !cell.is_empty() {
            self.push(cell, length, colour);
        }
        if !right {
            self.pending += fill;
        }
    }

    fn push(&mut self, cell: &str, length: usize, colour: Colour) {
        let room = self.limit.saturating_sub(self.width + self.pending);
        self.width += self.pending + length;
        if room == 0 {
            return;
        }
        self.text.extend(std::iter::repeat_n(' ', self.pending));
        self.pending = 0;
        self.text.push_str(colour.begin());
        if length <= room {
            self.text.push_str(cell);
        } else {
            self.text.extend(cell.chars().take(room - 1));
            self.text.push('…');
        }
        if colour != Colour::None {
            self.text.push_str(PLAIN);
        }
    }

    fn end(&mut self) {
        self.text.push('\n');
        (self.width, self.pending) = (0, 0);
    }
}

/// The columns that were asked for.
fn chosen<'c>(columns: &'c Columns, numbers: &[usize]) -> Vec<Shown<'c>> {
    let shown = numbers.iter().filter_map(|&number| Some((number, columns.get(number)?)));
    headed(shown.map(|(number, column)| (number, column, None)).collect())
}

/// The columns that have a value somewhere; what is used stands with its limit.
fn telling<'c>(columns: &'c Columns, has: &[bool]) -> Vec<Shown<'c>> {
    let of = |name: &str, end: &str| name.strip_suffix(end).map(str::to_string);
    let partner = |column: &Column, end: &str, other: &str| {
        columns.position(&format!("{}{other}", of(&column.name, end)?))
    };
    let tells = |(number, column): (usize, &Column)| {
        has.get(number).is_some_and(|&has| has && !column.detail)
            && partner(column, ".limit", ".used").is_none()
    };
    let shown = columns.iter().enumerate().filter(|&column| tells(column));
    headed(
        shown
            .map(|(number, column)| (number, column, partner(column, ".used", ".limit")))
            .collect(),
    )
}

/// Gives columns their headings: their names without the units, which the values have, as long as they differ.
fn headed(shown: Vec<(usize, &Column, Option<usize>)>) -> Vec<Shown<'_>> {
    let heads: Vec<String> = shown.iter().map(|(_, column, limit)| head(column, *limit)).collect();
    let unique = |head: &String| heads.iter().filter(|other| *other == head).count() == 1;
    let heads: Vec<String> = heads
        .iter()
        .zip(&shown)
        .map(|(head, (_, column, _))| if unique(head) { head.clone() } else { upper(&column.name) })
        .collect();
    let shown = shown.into_iter().zip(heads).map(|((number, column, limit), head)| Shown {
        width: head.chars().count(),
        head,
        column,
        number,
        limit,
    });
    shown.collect()
}

fn upper(name: &str) -> String {
    name.replace(['_', '.'], " ").to_uppercase()
}

fn head(column: &Column, limit: Option<usize>) -> String {
    let full = column.name.as_str();
    let name = if column.listed { full.split_once('.').map_or(full, |(_, own)| own) } else { full };
    let without = |end: &str| name.strip_suffix(end).unwrap_or(name);
    match column.unit {
        _ if limit.is_some() => upper(without(".used")),
        Unit::Duration(_) => upper(name.rsplit_once('_').map_or(name, |(name, _)| name)),
        Unit::Percent => upper(without("_pct")),
        Unit::PerSecond => format!("{}/S", upper(without("_per_s"))),
        _ => upper(name),
    }
}

fn write_cell(text: &mut String, column: &Column, cell: Cell<'_>) -> std::fmt::Result {
    match (cell, column.unit) {
        (Cell::Absent | Cell::Text(""), _) => text.push('-'),
        (Cell::Bool(value), _) => write!(text, "{value}")?,
        // Names have no control characters, but nothing that is shown may have any.
        (Cell::Text(value), _) => text.push_str(&printable(value)),
        (Cell::Unsigned(value), Unit::Duration(ns)) => span(text, value, ns)?,
        (Cell::Unsigned(value), Unit::Bytes) => text.push_str(&bytes(value)),
        (Cell::Unsigned(value), Unit::Moment) => text.push_str(&moment(value)),
        (Cell::Unsigned(value), Unit::Percent) => write!(text, "{value}%")?,
        (Cell::Float(value), Unit::Percent) => write!(text, "{value:.1}%")?,
        (Cell::Unsigned(value), _) => digits(text, value),
        (Cell::Signed(value), _) => write!(text, "{value}")?,
        (Cell::Float(value), Unit::PerSecond) if value < 9.95 => write!(text, "{value:.2}")?,
        (Cell::Float(value), Unit::PerSecond) => write!(text, "{value:.1}")?,
        // As it is, to the millionth.
        (Cell::Float(value), _) => write!(text, "{}", (value * 1e6).round() / 1e6)?,
    }
    Ok(())
}

/// A whole number: most cells are some.
fn digits(text: &mut String, value: u64) {
    let mut rest = value;
    let mut digits = [b'0'; 20];
    let mut begin = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit += u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        begin -= 1;
        if rest == 0 {
            break;
        }
    }
    text.extend(digits.iter().skip(begin).map(|&digit| char::from(digit)));
}

/// A duration of so many units of so many nanoseconds.
fn span(text: &mut String, value: u64, unit_ns: u64) -> std::fmt::Result {
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let ns = value as f64 * unit_ns as f64;
    match value.saturating_mul(unit_ns) {
        0 => text.push('0'),
        _ if unit_ns == 1_000_000_000 => text.push_str(&duration(value)),
        1..1_000 => write!(text, "{value}ns")?,
        1_000..1_000_000 => write!(text, "{:.1}us", ns / 1e3)?,
        1_000_000..1_000_000_000 => write!(text, "{:.1}ms", ns / 1e6)?,
        1_000_000_000..60_000_000_000 => write!(text, "{:.1}s", ns / 1e9)?,
        all => text.push_str(&duration(all / 1_000_000_000)),
    }
    Ok(())
}

/// A wait of so many microseconds, in whole seconds rounded up once it lasts some.
pub(super) fn wait(us: u64) -> String {
    let mut text = String::new();
    let (value, unit_ns) =
        if us < 10_000_000 { (us, 1_000) } else { (us.div_ceil(1_000_000), 1_000_000_000) };
    let _ = span(&mut text, value, unit_ns);
    text
}

/// A moment by its Unix seconds, as UTC.
pub(super) fn moment(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    if days > 3_000_000 {
        return unix_s.to_string();
    }
    // Years that begin with March have their leap day at their end; 400 of them have 146,097 days.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) =
        (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::View;
    use crate::inspect::{LimitReport, Usage};

    fn limits() -> Vec<LimitReport> {
        let limit = |key: &str, used, used_pct| LimitReport {
            key: key.into(),
            kind: "window",
            requests: Some(Usage { used, limit: (used > 1).then_some(20) }),
            used_pct,
            ..LimitReport::default()
        };
        vec![limit("team:\u{7}ö", 19, Some(95.0)), limit("b", 1, None)]
    }

    fn shown(view: &View, screen: Screen) -> Vec<String> {
        let limits = limits();
        let plan = view.plan(Columns::of::<LimitReport>()).ok().unwrap();
        let part = Part::of("limits", &limits, &plan);
        let mut text = String::new();
        section(&mut text, screen, "limits", &part, true).unwrap();
        text.lines().map(str::to_string).collect()
    }

    const PIPE: Screen = Screen { size: None, colour: false };

    #[test]
    fn only_columns_with_values_are_shown_and_numbers_stand_right() {
        assert_eq!(
            shown(&View::default(), PIPE),
            [
                "limits",
                "  KEY      KIND    REQUESTS   USED  ALLOWED  DENIED",
                "  team:?ö  window     19/20  95.0%        0       0",
                "  b        window         1      -        0       0",
            ]
        );
    }

    #[test]
    fn a_terminal_cuts_lines_and_has_colours() {
        let narrow = Screen { size: Some((32, 5)), colour: false };
        let lines = shown(&View::default(), narrow);
        assert_eq!(lines[1], "  KEY      KIND    REQUESTS   U…");
        assert!(lines.iter().all(|line| line.chars().count() <= 32), "{lines:?}");
        let coloured = Screen { size: Some((80, 5)), colour: true };
        assert_eq!(shown(&View::default(), coloured)[2].matches("\x1b[33m95.0%\x1b[0m").count(), 1);
    }

    #[test]
    fn chosen_columns_stand_as_they_were_asked_for() {
        let columns = ["requests.limit", "key"].map(str::to_string).to_vec();
        let view = View { columns, sort: Some("key".into()), top: Some(1), ..View::default() };
        let expected = ["limits", "  REQUESTS LIMIT  KEY", "               -  b", "  … and 1 more"];
        assert_eq!(shown(&view, PIPE), expected);
    }

    #[test]
    fn a_terminal_is_drawn_over() {
        let drawn = |screen: Screen, text: &str, again| {
            let mut out = Vec::new();
            screen.redraw(&mut out, text, again).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(drawn(PIPE, "a\n", true), "\na\n");
        let screen = Screen { size: Some((80, 4)), colour: false };
        assert_eq!(drawn(screen, "a\n", true), "\x1b[Ha\x1b[K\n\x1b[J");
        assert_eq!(
            drawn(screen, "1\n2\n3\n4\n5\n", false),
            "\x1b[2J\x1b[H1\x1b[K\n2\x1b[K\n… and 3 more lines: use --top\x1b[K\n\x1b[J"
        );
    }

    #[test]
    fn numbers_for_people() {
        let span_of = |value, unit| {
            let mut text = String::new();
            span(&mut text, value, unit).unwrap();
            text
        };
        assert_eq!(span_of(90, 1_000_000_000), "1m30s");
        assert_eq!(
            ["0", "999ns", "1.5us"],
            [(0, 1), (999, 1), (1_500, 1)].map(|(v, u)| span_of(v, u))
        );
        assert_eq!([span_of(12_345, 1_000), span_of(61_000, 1_000_000)], ["12.3ms", "1m01s"]);
        assert_eq!([1, 2_500_000, 10_000_001].map(wait), ["1.0us", "2.5s", "11s"]);
        for value in [0, 9, 10, 1_024, u64::MAX] {
            let mut text = String::new();
            digits(&mut text, value);
            assert_eq!(text, value.to_string());
        }
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(951_782_399), "2000-02-28 23:59:59 UTC");
        assert_eq!(moment(951_868_800), "2000-03-01 00:00:00 UTC");
        assert_eq!(moment(1_709_210_096), "2024-02-29 12:34:56 UTC");
        assert_eq!(moment(u64::MAX), u64::MAX.to_string());
    }
}
