//! `fl-shm top`: what is going on in a region, on a screen of its own.

mod draw;
mod history;
mod keys;
mod panes;
mod source;
mod state;
mod table;
mod terminal;
mod theme;

use super::follow::Followed;
use super::outcome::{Failure, Outcome, nothing_found};
use super::select::{self, Select};
use super::{ERROR, OK};
use crate::clock::fine_ns;
use crate::inspect::live::Wanted;
use clap::Args;
use nix::sys::signal::Signal;
use ratatui::layout::Rect;
use source::Source;
use state::{Action, State};
use std::io::Write;
use std::time::Duration;
use terminal::{Event, Input, Screen};
use theme::Theme;

/// Keys that can be scrolled through.
const HOTTEST: usize = 200;
/// Who asks for other keys does not wait longer than this.
const SOON: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct Top {
    #[command(flatten)]
    pub(super) select: Select,
    /// How often to look: 250ms, 1s, 2m, or a number of seconds.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub(super) interval: Duration,
    /// Print one screen as text, of two looks that far apart, and end; for scripts and mails. As large as COLUMNS and
    /// LINES say, else 140 by 45.
    #[arg(long)]
    pub(super) once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0)];
    let (number, unit) = units
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))
        .unwrap_or((text, 1.0));
    match number.trim().parse::<f64>().map(|number| number * unit) {
        Ok(seconds) if (0.01..=3_600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("use 10ms to 60m, e.g. 500ms, 2s or 1.5".into()),
    }
}

/// `fl-shm top`
pub(super) fn top(arguments: &Top, out: &mut impl Write) -> Outcome {
    if arguments.once {
        return once(arguments, out);
    }
    if let Some(obstacle) = terminal::obstacle(|name| std::env::var_os(name)) {
        return Err(Failure::Message(obstacle));
    }
    let Some(chosen) = select::choose(&arguments.select)? else {
        return nothing_found();
    };
    let mut source = Source::new(Followed::open(&chosen)?);
    let mut state = State::new(source.name(), arguments.interval);
    let mut input = Input::new()?;
    let screen = Screen::new(out)?;
    watch(&mut source, &mut state, &mut input, screen)
}

/// `fl-shm top --once`
fn once(arguments: &Top, out: &mut impl Write) -> Outcome {
    let Some(chosen) = select::choose(&arguments.select)? else {
        return nothing_found();
    };
    let mut followed = Followed::open(&chosen)?;
    // Time stands still in a dump: there is nothing to wait for.
    let dump = followed.same().map_err(Failure::Message)?.moment().is_some();
    let looks = if dump { 1 } else { 2 };
    let mut source = Source::new(followed);
    let mut state = State::new(source.name(), arguments.interval);
    for left in (0..looks).rev() {
        let seen = source.look(&Wanted { hottest: HOTTEST, order: state.order().0, name: None });
        state.notice = seen.notice;
        if let Some(frame) = seen.frame {
            state.take(frame);
        }
        if left > 0 {
            std::thread::sleep(arguments.interval);
        }
    }
    let size = |name, usual| {
        let text = std::env::var(name).unwrap_or_default();
        text.parse().ok().filter(|size| (1..=1_000).contains(size)).unwrap_or(usual)
    };
    // The last line tells which keys there are.
    let area = Rect::new(0, 0, size("COLUMNS", 140), size("LINES", 45).saturating_add(1));
    let theme = Theme { colour: false, ..Theme::of(|name| std::env::var_os(name)) };
    let screen = draw::text(&state, area, theme);
    let shown: Vec<&str> = screen.lines().take(usize::from(area.height) - 1).collect();
    writeln!(out, "{}", shown.join("\n").trim_end())?;
    Ok(OK)
}

/// Until somebody ends it.
fn watch<W: Write>(
    source: &mut Source,
    state: &mut State,
    input: &mut Input,
    mut screen: Screen<W>,
) -> Outcome {
    let theme = Theme::of(|name| std::env::var_os(name));
    let mut looks = Looks { next_ns: 0, last_ns: 0 };
    loop {
        if !state.paused && looks.are_due() {
            looks.begin();
            let filter = state.filter();
            let takes = |name: &str| filter.takes(name);
            let name = (!filter.text.is_empty()).then_some(&takes as &dyn Fn(&str) -> bool);
            let seen = source.look(&Wanted { hottest: HOTTEST, order: state.order().0, name });
            state.notice = seen.notice;
            if let Some(frame) = seen.frame {
                state.take(frame);
            }
            looks.end(state.interval);
        }
        state.page = draw::page(state, screen.area());
        screen.draw(|area, buffer| draw::draw(state, area, buffer, theme))?;
        let longest = if state.paused { Duration::MAX } else { looks.left() };
        let keys = match input.wait(longest)? {
            Event::Keys(keys) => keys,
            Event::Late | Event::Resized => continue,
            Event::Continued => {
                screen.retake()?;
                continue;
            }
            Event::Ending(signal) => return Ok(end(screen, signal)),
            Event::HungUp => {
                drop(screen);
                return Err(Failure::Message("the terminal is gone".into()));
            }
        };
        for key in keys {
            match state.key(key) {
                Action::Draw => {}
                Action::Redraw => screen.forget()?,
                Action::Look => looks.hasten(state.interval),
                Action::Suspend => screen.suspend()?,
                Action::Quit => return Ok(OK),
            }
        }
    }
}

/// Ends by a signal, or with the code that a shell gives for it where it is ignored.
fn end<W: Write>(screen: Screen<W>, signal: Signal) -> u8 {
    screen.end_by(signal);
    u8::try_from(128 + signal as i32).unwrap_or(ERROR)
}

/// When to look.
struct Looks {
    next_ns: u64,
    last_ns: u64,
}

impl Looks {
    fn are_due(&self) -> bool {
        fine_ns() >= self.next_ns
    }

    fn begin(&mut self) {
        self.last_ns = fine_ns();
    }

    /// No more than half of the time is for looking.
    fn end(&mut self, interval: Duration) {
        let now_ns = fine_ns();
        let rest = now_ns.saturating_add(now_ns.saturating_sub(self.last_ns));
        self.next_ns = rest.max(self.last_ns.saturating_add(ns(interval)));
    }

    /// Another interval, or another wish.
    fn hasten(&mut self, interval: Duration) {
        self.next_ns = self.last_ns.saturating_add(ns(interval.min(SOON)));
    }

    fn left(&self) -> Duration {
        Duration::from_nanos(self.next_ns.saturating_sub(fine_ns()))
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
