//! The terminal: it is taken for a screen of our own, and given back whatever happens.

use super::keys::{Key, Keys};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::unistd::Pid;
use ratatui::Terminal;
use ratatui::backend::{Backend, ClearType, CrosstermBackend, WindowSize};
use ratatui::buffer::{Buffer, Cell};
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::style::{Attribute, SetAttribute};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{execute, terminal};
use ratatui::layout::{Position, Rect, Size};
use std::ffi::OsString;
use std::io::{IsTerminal, PipeReader, Read, Result, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The size of a terminal that does not tell it.
const UNKNOWN: Size = Size { width: 80, height: 24 };
/// An Esc that is followed by nothing for so long is a key.
const ESCAPE: Duration = Duration::from_millis(30);
/// A process that does not end so soon after it was told to is stuck, and ends without giving the screen back.
const GRACE: Duration = Duration::from_secs(2);
/// What ends the process, once the terminal has been given back.
const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];

/// Whether the terminal is ours now.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Why there can be no screen; `None` = there can.
pub(super) fn obstacle(variable: impl Fn(&str) -> Option<OsString>) -> Option<String> {
    let remedy = "use fl-shm inspect, with --watch to see it again and again";
    if !stdout().is_terminal() {
        return Some(format!("top needs a terminal, and its output is none: {remedy}"));
    }
    if !stdin().is_terminal() {
        return Some(format!("top needs a terminal, and its input is none: {remedy}"));
    }
    let kind = variable("TERM").unwrap_or_default();
    if kind.is_empty() || kind == "dumb" {
        let kind = kind.to_string_lossy();
        return Some(format!(
            "top needs a terminal whose cursor it can move, and TERM is {kind:?}: set TERM, or {remedy}"
        ));
    }
    None
}

fn take(out: &mut impl Write) -> Result<()> {
    TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(out, EnterAlternateScreen, Hide)
}

/// Does nothing if it has been given back already.
fn give_back(out: &mut impl Write) -> Result<()> {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return Ok(());
    }
    let shown = execute!(out, SetAttribute(Attribute::Reset), LeaveAlternateScreen, Show);
    disable_raw_mode()?;
    shown
}

/// A panic's message is for the terminal as it was.
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let _ = give_back(&mut stdout());
            before(panic);
        }));
    });
}

/// Collects what is drawn, so that it is written at once, and not at all if drawing ends early. Never asks the
/// terminal anything: the answer would come between the keys.
struct Pending<W> {
    out: W,
    bytes: Vec<u8>,
}

impl<W> Pending<W> {
    fn commands(&mut self) -> CrosstermBackend<&mut Vec<u8>> {
        CrosstermBackend::new(&mut self.bytes)
    }
}

impl<W: Write> Backend for Pending<W> {
    type Error = std::io::Error;

    fn draw<'a, I: Iterator<Item = (u16, u16, &'a Cell)>>(&mut self, content: I) -> Result<()> {
        self.commands().draw(content)
    }

    fn hide_cursor(&mut self) -> Result<()> {
        self.commands().hide_cursor()
    }

    fn show_cursor(&mut self) -> Result<()> {
        self.commands().show_cursor()
    }

    fn get_cursor_position(&mut self) -> Result<Position> {
        Ok(Position::ORIGIN)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> Result<()> {
        self.commands().set_cursor_position(position)
    }

    fn clear(&mut self) -> Result<()> {
        self.commands().clear()
    }

    fn clear_region(&mut self, part: ClearType) -> Result<()> {
        self.commands().clear_region(part)
    }

    fn size(&self) -> Result<Size> {
        let size = terminal::size().map(|(width, height)| Size { width, height });
        Ok(size.ok().filter(|size| size.width > 0 && size.height > 0).unwrap_or(UNKNOWN))
    }

    fn window_size(&mut self) -> Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size()?, pixels: Size::default() })
    }

    fn flush(&mut self) -> Result<()> {
        let written = self.out.write_all(&self.bytes).and_then(|()| self.out.flush());
        self.bytes.clear();
        written
    }
}

/// The terminal while it is ours.
pub(super) struct Screen<W: Write> {
    terminal: Terminal<Pending<W>>,
}

impl<W: Write> Screen<W> {
    /// Takes the terminal.
    pub(super) fn new(mut out: W) -> Result<Self> {
        give_back_on_panic();
        if let Err(error) = take(&mut out) {
            let _ = give_back(&mut out);
            return Err(error);
        }
        Ok(Self { terminal: Terminal::new(Pending { out, bytes: Vec::new() })? })
    }

    fn out(&mut self) -> &mut W {
        &mut self.terminal.backend_mut().out
    }

    /// Draws what has changed.
    pub(super) fn draw(&mut self, draw: impl FnOnce(Rect, &mut Buffer)) -> Result<()> {
        self.terminal.draw(|frame| draw(frame.area(), frame.buffer_mut()))?;
        Ok(())
    }

    pub(super) fn area(&self) -> Rect {
        self.terminal.size().map(Rect::from).unwrap_or_default()
    }

    /// What the terminal shows is not what was drawn.
    pub(super) fn forget(&mut self) -> Result<()> {
        self.terminal.clear()
    }

    /// Takes the terminal again after others have used it.
    pub(super) fn retake(&mut self) -> Result<()> {
        // The shell has changed its modes; they are ours again only if they were not thought to be.
        let _ = disable_raw_mode();
        if TAKEN.load(Ordering::SeqCst) {
            enable_raw_mode()?;
        } else {
            take(self.out())?;
        }
        self.forget()
    }

    /// Gives the terminal back and stops, with all processes of the job, until the job is continued.
    pub(super) fn suspend(&mut self) -> Result<()> {
        give_back(self.out())?;
        let stopped = kill(Pid::from_raw(0), Signal::SIGTSTP);
        self.retake()?;
        Ok(stopped?)
    }

    /// Gives the terminal back, and ends as the signal would have.
    pub(super) fn end_by(mut self, signal: Signal) {
        let _ = give_back(self.out());
        die_of(signal);
    }
}

impl<W: Write> Drop for Screen<W> {
    fn drop(&mut self) {
        let _ = give_back(self.out());
    }
}

/// Returns if the signal is ignored.
fn die_of(signal: Signal) {
    let mut mask = SigSet::empty();
    mask.add(signal);
    let _ = mask.thread_unblock();
    let _ = raise(signal);
}

/// What happened.
#[derive(Debug)]
pub(super) enum Event {
    Keys(Vec<Key>),
    /// The terminal has another size, or it was another's for a while.
    Continued,
    Resized,
    /// The process is to end.
    Ending(Signal),
    /// Nobody can type any more.
    HungUp,
    /// Nothing.
    Late,
}

/// Keys and signals.
pub(super) struct Input {
    keys: Keys,
    signals: PipeReader,
}

impl Input {
    /// From now on, signals come as events.
    pub(super) fn new() -> Result<Self> {
        let mut mask = SigSet::empty();
        let others = [Signal::SIGCONT, Signal::SIGWINCH];
        ENDING.into_iter().chain(others).for_each(|signal| mask.add(signal));
        mask.thread_block()?;
        let (signals, sender) = std::io::pipe()?;
        let wait = move || forward(mask, sender);
        std::thread::Builder::new().name("fl-shm-signals".into()).spawn(wait)?;
        Ok(Self { keys: Keys::default(), signals })
    }

    /// What happens next, but at most after so long.
    pub(super) fn wait(&mut self, longest: Duration) -> Result<Event> {
        let longest = if self.keys.is_waiting() { ESCAPE.min(longest) } else { longest };
        let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX);
        let (keyboard, signals) = (stdin(), &self.signals);
        let mut waiting = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(keyboard.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waiting, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [signal, key] = waiting.map(|one| one.revents().unwrap_or(PollFlags::empty()));
        if !signal.is_empty() {
            return self.signal();
        }
        if key.is_empty() {
            return Ok(self.keys.settle().map_or(Event::Late, |key| Event::Keys(vec![key])));
        }
        let mut bytes = [0; 1_024];
        match nix::unistd::read(keyboard.as_fd(), &mut bytes) {
            Ok(0) => Ok(Event::HungUp),
            Ok(length) => Ok(Event::Keys(self.keys.read(bytes.get(..length).unwrap_or_default()))),
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(Event::Late),
            Err(_) => Ok(Event::HungUp),
        }
    }

    fn signal(&mut self) -> Result<Event> {
        let mut number = [0];
        self.signals.read_exact(&mut number)?;
        Ok(match Signal::try_from(i32::from(number[0])) {
            Ok(Signal::SIGCONT) => Event::Continued,
            Ok(signal) if ENDING.contains(&signal) => Event::Ending(signal),
            _ => Event::Resized,
        })
    }
}

/// Waits for signals, in a thread of its own.
fn forward(mask: SigSet, mut sender: impl Write) {
    while let Ok(signal) = mask.wait() {
        let number = u8::try_from(signal as i32).unwrap_or(0);
        if sender.write_all(&[number]).is_err() && !ENDING.contains(&signal) {
            return;
        }
        if ENDING.contains(&signal) {
            std::thread::sleep(GRACE);
            // The terminal does not take what is written, it seems; its modes can be set all the same.
            let _ = disable_raw_mode();
            die_of(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn what_is_no_terminal_is_told() {
        // The harness has none, as a rule; the rest is tested with one.
        if !stdout().is_terminal() {
            let told = obstacle(|_| Some("xterm".into())).unwrap();
            assert!(told.starts_with("top needs a terminal, and its output is none"), "{told}");
        }
    }

    #[test]
    fn what_was_drawn_by_halves_is_not_written() {
        let mut out = Vec::new();
        let mut pending = Pending { out: &mut out, bytes: Vec::new() };
        pending.hide_cursor().unwrap();
        pending.flush().unwrap();
        pending.show_cursor().unwrap();
        drop(pending);
        assert_eq!(out, b"\x1b[?25l");
    }

    /// Is run in a terminal by the test below.
    #[test]
    #[ignore = "panics"]
    fn panics_while_the_terminal_is_taken() {
        let mut screen = Screen::new(stdout()).unwrap();
        let style = ratatui::style::Style::new();
        screen.draw(|_, buffer| buffer.set_string(0, 0, "DRAWN", style)).unwrap();
        screen.draw(|_, _| panic!("MESSAGE")).unwrap();
    }

    /// `script` gives it a terminal; `stty` tells the modes that the next program finds.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        let name = "cli::top::terminal::tests::panics_while_the_terminal_is_taken";
        let itself = std::env::current_exe().unwrap();
        let inner = format!("'{}' --ignored --exact {name} --nocapture; stty -a", itself.display());
        let script = Command::new("script")
            .args(["-qec", &inner, "/dev/null"])
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .output();
        let Ok(done) = script else { return };
        let text = String::from_utf8_lossy(&done.stdout);
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("no {what:?} in {text:?}"));
        let order =
            ["\x1b[?1049h", "DRAWN", "\x1b[?1049l", "\x1b[?25h", "MESSAGE", "speed"].map(at);
        assert!(order.is_sorted(), "{order:?} in {text:?}");
        let modes: Vec<&str> = text[at("speed")..].split_whitespace().collect();
        assert!(modes.contains(&"icanon") && modes.contains(&"echo"), "{modes:?}");
    }
}
