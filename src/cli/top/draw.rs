//! Draws a state: one line that says what is looked at, plots, panes, and what the keys do.

use super::panes::{self, per_s, short};
use super::state::{Pane, State};
use super::table::put;
use super::theme::{DIM, HEAD, SELECTED, Theme, plain};
use crate::cli::output::{bytes, duration};
use crate::inspect::live::Frame;
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Widget};

/// From this width on, two panes stand side by side.
const WIDE: u16 = 76;
/// From this height of what is left for panes on, all of them are shown.
const HIGH: u16 = 16;
const BARS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
const HELP: [(&str, &str); 12] = [
    ("q Esc Ctrl-C", "quit"),
    ("Tab, left, right", "next pane"),
    ("up, down, j, k", "select a row; it stays selected when it moves"),
    ("PgUp PgDn Home End", "scroll"),
    ("z Enter", "this pane alone, or all of them"),
    ("s", "sort: refused/s, admitted/s, used, refused in all"),
    ("/", "show only keys whose name matches: a regular expression or a part"),
    ("p Space", "pause"),
    ("+ -", "look less or more often"),
    ("Ctrl-L", "draw everything again"),
    ("Ctrl-Z", "suspend"),
    ("?", "this help"),
];

/// Where what stands.
#[derive(Debug, Default)]
struct Places {
    title: Rect,
    notice: Rect,
    rates: Rect,
    plots: Vec<(usize, Rect)>,
    panes: Vec<(Pane, Rect)>,
    hints: Rect,
}

/// Takes rows from the top of what is left.
fn top(rest: &mut Rect, rows: u16) -> Rect {
    let rows = rows.min(rest.height);
    let taken = Rect { height: rows, ..*rest };
    *rest = Rect { y: rest.y + rows, height: rest.height - rows, ..*rest };
    taken
}

/// Two parts side by side, a column between them.
fn halves(area: Rect) -> [Rect; 2] {
    let left = area.width.saturating_sub(1) / 2;
    let right = area.width.saturating_sub(left + 1);
    [Rect { width: left, ..area }, Rect { x: area.x + left + 1, width: right, ..area }]
}

fn places(state: &State, area: Rect) -> Places {
    let mut rest = area;
    let mut places = Places { title: top(&mut rest, 1), ..Places::default() };
    if rest.height >= 4 || (rest.height >= 1 && state.prompt.is_some()) {
        rest.height -= 1;
        places.hints = Rect { y: rest.bottom(), height: 1, ..rest };
    }
    if let Some(notice) = &state.notice {
        let lines = wrapped(notice, usize::from(area.width)).len();
        let most = (rest.height / 4).max(1);
        places.notice = top(&mut rest, u16::try_from(lines).unwrap_or(most).min(most));
    }
    if rest.height >= 4 {
        places.rates = top(&mut rest, 1);
    }
    if rest.height >= 11 {
        let rows = if rest.height >= 28 { 6 } else { 3 };
        if area.width >= 60 {
            places.plots = halves(top(&mut rest, rows)).into_iter().enumerate().collect();
        } else if rest.height >= 14 {
            places.plots = vec![(0, top(&mut rest, 2)), (1, top(&mut rest, 2))];
        }
    }
    if state.alone || area.width < WIDE || rest.height < HIGH {
        places.panes = vec![(state.pane, rest)];
        return places;
    }
    let (middle, bottom) = ((rest.height / 4).max(5), (rest.height / 5).max(4));
    let high = rest.height - middle - bottom;
    let keys = top(&mut rest, high);
    let [workers, deployments] = halves(top(&mut rest, middle));
    let [breakers, events] = halves(rest);
    let areas = [keys, workers, deployments, breakers, events];
    places.panes = Pane::ALL.into_iter().zip(areas).collect();
    places
}

/// Rows that the selected pane shows at once.
pub(super) fn page(state: &State, area: Rect) -> usize {
    let places = places(state, area);
    let found = places.panes.iter().find(|(pane, _)| *pane == state.pane);
    found.map_or(1, |(_, area)| usize::from(area.height.saturating_sub(2).max(1)))
}

/// Draws everything.
pub(super) fn draw(state: &State, area: Rect, buffer: &mut Buffer, theme: Theme) {
    if area.is_empty() {
        return;
    }
    let places = places(state, area);
    title(state, places.title, buffer, theme);
    notice(state, places.notice, buffer, theme);
    if let Some(frame) = &state.frame {
        rates(frame, places.rates, buffer, theme);
        for (which, area) in places.plots {
            plot(state, which, area, buffer, theme);
        }
    }
    for (pane, area) in places.panes {
        let mut area = area;
        head(state, pane, top(&mut area, 1), buffer, theme);
        panes::draw(state, pane, area, buffer, theme);
    }
    hints(state, places.hints, buffer, theme);
    if state.help {
        help(area, buffer);
    }
    theme.apply(buffer);
}

/// Everything as text, a line for each of the screen's.
pub(super) fn text(state: &State, area: Rect, theme: Theme) -> String {
    let mut buffer = Buffer::empty(area);
    draw(state, area, &mut buffer, theme);
    let cells: Vec<&str> = buffer.content.iter().map(Cell::symbol).collect();
    let lines = cells.chunks(usize::from(area.width.max(1)));
    let lines = lines.map(|row| row.concat().trim_end().to_string());
    lines.collect::<Vec<_>>().join("\n")
}

/// As many parts as there is room for, the first in any case.
fn parts(area: Rect, buffer: &mut Buffer, parts: Vec<Span<'static>>) {
    let mut line = Line::default();
    for part in parts {
        let gap = if line.spans.is_empty() { "" } else { "  " };
        if !gap.is_empty() && line.width() + 2 + part.width() > usize::from(area.width) {
            continue;
        }
        line.push_span(Span::raw(gap));
        line.push_span(part);
    }
    put(buffer, area.x, area.y, &line, area.width);
}

fn title(state: &State, area: Rect, buffer: &mut Buffer, theme: Theme) {
    let mut shown = vec![Span::styled(plain(&state.name), theme.accent())];
    if state.notice.is_some() {
        shown.push(Span::styled("see below", theme.bad()));
    }
    if state.paused {
        shown.push(Span::styled("PAUSED", theme.warning()));
    }
    if let Some(Frame { header, at_ms, .. }) = &state.frame {
        shown.extend([
            Span::raw(format!("pid {}", header.creator_pid)),
            Span::raw(format!("up {}", duration(header.age_s))),
            Span::raw(format!("{} of {} keys", header.keys, header.key_capacity)),
            Span::raw(format!("layout {}", header.layout)),
            Span::raw(format!("{} {}", header.backing, bytes(header.size))),
            Span::raw(clock(*at_ms)),
            Span::raw(format!("{} of {} chunks", header.chunks, header.chunk_capacity)),
        ]);
    }
    parts(area, buffer, shown);
}

/// Time of day, UTC.
fn clock(at_ms: u64) -> String {
    let seconds = at_ms / 1_000;
    format!("{:02}:{:02}:{:02} UTC", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60)
}

/// Words in lines of that width.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let long = |line: &String| line.chars().count() + 1 + word.chars().count() > width;
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if !long(line) => line.extend([" ", word]),
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

/// As many lines as there is room for.
fn notice(state: &State, area: Rect, buffer: &mut Buffer, theme: Theme) {
    let Some(text) = &state.notice else { return };
    let lines = wrapped(&plain(text), usize::from(area.width));
    for (place, text) in area.rows().zip(lines) {
        put(buffer, place.x, place.y, &Line::styled(text, theme.bad()), place.width);
    }
}

fn rates(frame: &Frame, area: Rect, buffer: &mut Buffer, theme: Theme) {
    if area.is_empty() {
        return;
    }
    let alive = |state: &str| frame.workers.iter().filter(|worker| worker.alive == state).count();
    let when = |wrong: bool, style: Style| if wrong { style } else { Style::new() };
    let rate = |rate: f64| if frame.since_s > 0.0 { per_s(rate) } else { "-".into() };
    let (now, dead) = (&frame.rates, alive("dead"));
    parts(
        area,
        buffer,
        vec![
            Span::raw(format!("admitted {}/s", rate(now.admitted_per_s))),
            Span::styled(
                format!("refused {}/s", rate(now.denied_per_s)),
                when(now.denied_per_s > 0.0, theme.bad()),
            ),
            Span::styled(
                format!("workers {} alive, {dead} dead", alive("alive")),
                when(dead > 0, theme.bad()),
            ),
            Span::raw(format!("slots {} held", short(frame.leases_held))),
            Span::raw(format!("{}/s taken", rate(now.slots_acquired_per_s))),
            Span::styled(
                format!("{}/s refused", rate(now.slots_denied_per_s)),
                when(now.slots_denied_per_s > 0.0, theme.bad()),
            ),
            Span::styled(
                format!("cooldowns {}/s", rate(now.cooldowns_per_s)),
                when(now.cooldowns_per_s > 0.0, theme.warning()),
            ),
            Span::styled(
                format!("no room {}/s", rate(now.no_room_per_s)),
                when(now.no_room_per_s > 0.0, theme.warning()),
            ),
        ],
    );
}

/// Admissions (0) or refusals (1) over the last minutes.
fn plot(state: &State, which: usize, area: Rect, buffer: &mut Buffer, theme: Theme) {
    let mut area = area;
    let line = top(&mut area, 1);
    let columns = state.history.columns(area.width);
    let values: Vec<Option<f64>> = columns
        .per_s
        .iter()
        .map(|column| column.and_then(|both| both.get(which).copied()))
        .collect();
    let most = values.iter().flatten().copied().fold(0.0, f64::max);
    let (name, style) =
        if which == 0 { ("admitted/s", theme.good()) } else { ("refused/s", theme.bad()) };
    let span = duration(columns.step_s * u64::from(area.width));
    let text = format!(" up to {} in {span}", per_s(most));
    let title = Line::from(vec![Span::styled(name, HEAD), Span::styled(text, DIM)]);
    put(buffer, line.x, line.y, &title, line.width);
    let levels = u32::from(area.height) * 8;
    for (x, value) in (area.x..area.right()).zip(values) {
        let Some(value) = value else { continue };
        // What is not nothing is seen.
        let part = if most > 0.0 { (value / most * f64::from(levels)).ceil() } else { 0.0 };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let mut level = (part as usize).min(levels as usize);
        for y in (area.y..area.bottom()).rev() {
            let here = level.min(8);
            level -= here;
            let bottom = y + 1 == area.bottom();
            let symbol = if bottom && here == 0 { "·" } else { BARS[here] };
            let style = if here == 0 { DIM } else { style };
            buffer.set_stringn(x, y, symbol, 1, style);
        }
    }
}

/// A pane's rule, with its name and what is seen of it.
fn head(state: &State, pane: Pane, area: Rect, buffer: &mut Buffer, theme: Theme) {
    if area.is_empty() {
        return;
    }
    let focused = state.pane == pane;
    let style = if focused { theme.accent() } else { DIM };
    let rule = "─".repeat(usize::from(area.width));
    buffer.set_stringn(area.x, area.y, rule, usize::from(area.width), style);
    if area.width < 4 {
        return;
    }
    let name = if focused { theme.accent().patch(HEAD) } else { HEAD };
    let room = area.width - 2;
    let mut text = vec![Span::raw(" "), Span::styled(pane.name(), name), Span::raw(" ")];
    let mut summary = panes::summary(state, pane);
    let rows = panes::rows(state, pane);
    if focused && rows > 0 {
        summary = format!("{}/{rows}: {summary}", state.row(pane) + 1);
    }
    if !summary.is_empty() {
        text.push(Span::raw(format!("{summary} ")));
    }
    put(buffer, area.x + 1, area.y, &Line::from(text), room);
}

fn hints(state: &State, area: Rect, buffer: &mut Buffer, theme: Theme) {
    if area.is_empty() {
        return;
    }
    if let Some(text) = &state.prompt {
        // The end of what is typed is seen.
        let typed: Vec<char> = plain(text).chars().collect();
        let skip = typed.len().saturating_sub(usize::from(area.width).saturating_sub(2));
        let typed: String = typed.get(skip..).unwrap_or_default().iter().collect();
        let line = Line::from(vec![
            Span::styled("/", theme.accent()),
            Span::raw(typed),
            Span::styled(" ", SELECTED),
            Span::styled("  Enter: keep it, Esc: as before", DIM),
        ]);
        buffer.set_line(area.x, area.y, &line, area.width);
        return;
    }
    let hint = |key: &str, what: &str| Span::raw(format!("{key} {what}"));
    parts(
        area,
        buffer,
        vec![
            hint("q", "quit"),
            hint("?", "help"),
            hint("Tab", "pane"),
            hint("s", "sort"),
            hint("/", "filter"),
            hint("p", if state.paused { "go on" } else { "pause" }),
            hint("+-", &format!("every {}", interval(state.interval))),
            hint("z", if state.alone { "all panes" } else { "this pane" }),
        ],
    );
}

fn interval(interval: std::time::Duration) -> String {
    match interval.as_millis() {
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms @ ..1_000 => format!("{ms}ms"),
        _ => format!("{:.1}s", interval.as_secs_f64()),
    }
}

fn help(area: Rect, buffer: &mut Buffer) {
    let width = |text: &str| u16::try_from(text.chars().count()).unwrap_or(u16::MAX);
    let keys = HELP.iter().map(|(keys, _)| width(keys)).max().unwrap_or(0);
    let texts = HELP.iter().map(|(_, what)| width(what)).max().unwrap_or(0);
    let wanted = Rect {
        width: keys + texts + 4,
        height: u16::try_from(HELP.len()).unwrap_or(0) + 2,
        ..Rect::default()
    };
    let (width, height) = (wanted.width.min(area.width), wanted.height.min(area.height));
    let (x, y) = (area.x + (area.width - width) / 2, area.y + (area.height - height) / 2);
    let place = Rect { x, y, width, height };
    Clear.render(place, buffer);
    buffer.set_style(place, SELECTED);
    for (line, (keys_text, what)) in place.rows().skip(usize::from(height > 2)).zip(HELP) {
        let text = format!(" {keys_text:<width$}  {what}", width = usize::from(keys));
        put(buffer, line.x, line.y, &Line::raw(text), line.width);
    }
}
