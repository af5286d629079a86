//! The screen as text: what looks and keys make of it.

use super::draw;
use super::keys::Key;
use super::state::{Action, Pane, State};
use super::theme::Theme;
use crate::clock::{Clock, FakeClock};
use crate::config::Capacity;
use crate::engine::Engine;
use crate::engine::health::Cause;
use crate::engine::slots::SlotAsk;
use crate::engine::windows::Ask;
use crate::inspect::live::{Frame, Wanted, Watcher};
use crate::layout::FailureKind;
use crate::primitives::gcra::Quota;
use crate::region::create_heap;
use ratatui::buffer::{Buffer, Cell};
use ratatui::layout::Rect;
use std::time::Duration;

const PLAIN: Theme = Theme { colour: false, unicode: true };

/// A region with something of everything, and time that passes when it is told to.
struct World {
    engine: Engine,
    clock: FakeClock,
    watcher: Watcher,
}

impl World {
    fn new() -> Self {
        let clock = FakeClock::at(1_000_000_000_000);
        let capacity = Capacity::checked(1024, 64, 16).unwrap();
        let engine = Engine::new(create_heap(capacity, Box::new(clock.clone())).unwrap());
        Self { engine, clock, watcher: Watcher::default() }
    }

    fn check(&self, key: &str, times: u32) {
        let limiter = self.engine.limiter("", Quota::new(60, 10).unwrap());
        assert!((0..times).all(|_| self.engine.check(&limiter, key.as_bytes()).is_ok()));
    }

    /// A second of a busy proxy.
    fn second(&self) {
        self.clock.advance_s(1);
        self.check("sk-hot", 30);
        self.check("sk-calm", 2);
        let ask = |part, amount, limit| Ask {
            window: "{team:red}:window",
            counter: if part == 0 { "{team:red}:requests" } else { "{team:red}:tokens" },
            limit,
            amount,
            size_s: 60,
        };
        self.engine.admit_all(&[ask(0, 1, 20), ask(1, 250, 9_000)]).unwrap();
    }

    fn trouble(&self) {
        let slot = |slot_id| SlotAsk {
            key: "{user:alice}:max_parallel_requests",
            limit: 2,
            ttl_s: 600,
            slot_id,
        };
        for slot_id in ["a", "b", "c"] {
            self.engine.acquire_all(&[slot(slot_id)]).unwrap();
        }
        let cause =
            Cause { kind: FailureKind::RateLimited, status: 429, text: "too many requests" };
        self.engine.cool_down("azure/gpt-4o", 42_000, &cause).unwrap();
        self.engine.deployment_succeeded("openai/gpt-4o", 60, Some(9), None).unwrap();
        assert_eq!((0..12).map(|_| self.engine.feature_error(0)).max(), Some(12));
    }

    fn look(&mut self) -> Frame {
        let wanted = Wanted { hottest: super::HOTTEST, ..Wanted::default() };
        let mut frame = self.watcher.look_for(self.engine.region(), &wanted);
        // Of this process, and of the day.
        frame.at_ms = 1_700_000_000_000 + self.clock.now_ns() / 1_000_000;
        (frame.header.creator_pid, frame.header.size) = (4_242, 6 << 20);
        frame.header.layout = "9.9".into();
        for (worker, pid) in frame.workers.iter_mut().zip(5_000..) {
            worker.pid = pid;
            worker.role = "worker";
        }
        frame
    }
}

fn busy() -> State {
    let mut world = World::new();
    let mut state = State::new("proxy", Duration::from_secs(1));
    world.trouble();
    for _ in 0..30 {
        state.take(world.look());
        world.second();
    }
    let mut frame = world.look();
    // What cannot be made within one process: somebody who died and somebody nobody knows of.
    let mut dead = frame.workers[0].clone();
    (dead.pid, dead.alive, dead.row, dead.leases) = (5_001, "dead", 9, 1);
    frame.workers[0].leases = 1;
    frame.workers.push(dead);
    frame.leases_held += 1;
    state.take(frame);
    state
}

fn drawn(state: &State, width: u16, height: u16, theme: Theme) -> Buffer {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    draw::draw(state, area, &mut buffer, theme);
    buffer
}

fn text(state: &State, width: u16, height: u16) -> String {
    let buffer = drawn(state, width, height, PLAIN);
    let cells: Vec<&str> = buffer.content.iter().map(Cell::symbol).collect();
    let lines = cells.chunks(usize::from(width)).map(|row| row.concat().trim_end().to_string());
    lines.collect::<Vec<_>>().join("\n")
}

fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        state.key(match key {
            '\n' => Key::Enter,
            '\t' => Key::Tab,
            key => Key::Char(key),
        });
    }
}

#[test]
fn a_small_screen_shows_the_selected_pane() {
    insta::assert_snapshot!("small", text(&busy(), 60, 16));
}

#[test]
fn a_usual_screen() {
    insta::assert_snapshot!("usual", text(&busy(), 80, 24));
}

#[test]
fn a_large_screen_shows_all() {
    insta::assert_snapshot!("large", text(&busy(), 140, 45));
}

#[test]
fn the_help_names_every_key() {
    let mut state = busy();
    press(&mut state, "?");
    insta::assert_snapshot!("help", text(&state, 100, 20));
    press(&mut state, "s");
    assert!(!state.help && !text(&state, 100, 20).contains("regular expression"));
}

/// A tiny terminal shows less, and nothing panics, also while the region is gone, a filter is typed or help is shown.
#[test]
fn every_size_can_be_drawn() {
    let mut states = vec![State::new("nothing seen yet", Duration::from_millis(1)), busy()];
    let mut typing = busy();
    press(&mut typing, "/sk-[");
    states.push(typing);
    let mut gone = busy();
    gone.notice = Some("a long notice ".repeat(30));
    press(&mut gone, "p?");
    states.push(gone);
    let mut alone = busy();
    press(&mut alone, "z\t\tjjj");
    states.push(alone);
    let sides = [1, 2, 3, 4, 5, 7, 10, 11, 12, 16, 20, 24, 40, 59, 60, 75, 76, 80, 131, 200];
    for state in &mut states {
        for width in sides {
            for height in sides.into_iter().filter(|&height| height <= 60) {
                let buffer = drawn(state, width, height, PLAIN);
                assert_eq!(buffer.area, Rect::new(0, 0, width, height));
                assert!(draw::page(state, buffer.area) >= 1);
            }
        }
    }
    assert_eq!(text(&states[1], 1, 1), "…");
    assert_eq!(text(&states[1], 9, 1), "proxy");
    assert!(text(&states[1], 20, 3).contains("sk-hot"));
    assert!(text(&states[2], 20, 2).contains("/sk-["));
}

#[test]
fn nothing_is_said_by_colour_alone() {
    let state = busy();
    let colourful = drawn(&state, 120, 40, Theme { colour: true, unicode: true });
    let plain = drawn(&state, 120, 40, PLAIN);
    let symbols = |buffer: &Buffer| {
        buffer.content.iter().map(|cell| cell.symbol().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(symbols(&colourful), symbols(&plain));
    let reset = |cell: &Cell| (cell.fg, cell.bg) == Default::default();
    assert!(plain.content.iter().all(reset) && !colourful.content.iter().all(reset));
    let ascii = drawn(&state, 120, 40, Theme { colour: false, unicode: false });
    assert!(ascii.content.iter().all(|cell| cell.symbol().is_ascii()));
}

#[test]
fn s_changes_the_order() {
    let mut world = World::new();
    let mut state = State::new("proxy", Duration::from_secs(1));
    world.check("a", 90);
    world.clock.advance_s(7);
    world.check("d", 4);
    world.look();
    world.clock.advance_s(1);
    world.check("b", 12);
    for _ in 0..20 {
        world.check("c", 1);
        world.clock.advance_s(1);
    }
    world.check("d", 9);
    state.take(world.look());
    let mut found = Vec::new();
    for _ in 0..5 {
        let keys: Vec<&str> = state.keys().iter().map(|key| key.key.as_str()).collect();
        found.push((state.order().1, keys.concat()));
        assert_eq!(state.key(Key::Char('s')), Action::Look);
    }
    let found: Vec<_> = found.iter().map(|(order, keys)| (*order, keys.as_str())).collect();
    assert_eq!(
        found,
        [
            ("refused/s", "bcda"),
            ("admitted/s", "cbda"),
            ("used", "dbca"),
            ("refused in all", "abcd"),
            ("refused/s", "bcda"),
        ]
    );
}

#[test]
fn a_filter_is_typed_kept_or_dropped() {
    let mut state = busy();
    let keys = |state: &State| state.keys().iter().map(|key| key.key.clone()).collect::<Vec<_>>();
    let all = keys(&state).len();
    press(&mut state, "/^SK");
    assert_eq!((keys(&state).len(), state.filter.text.as_str()), (2, ""));
    assert!(text(&state, 80, 24).contains("/^SK"));
    // q is a letter here, and no longer one after Enter.
    press(&mut state, "q");
    assert_eq!((keys(&state).len(), state.prompt.as_deref()), (0, Some("^SKq")));
    assert!(text(&state, 80, 24).contains("no key matches the filter"));
    state.key(Key::Backspace);
    press(&mut state, "\n");
    assert_eq!((keys(&state).len(), state.filter.text.as_str()), (2, "^sk"));
    assert!(text(&state, 80, 24).contains("2 that match \"^sk\""));
    // No regular expression, but a part of no name.
    press(&mut state, "/[");
    assert_eq!(keys(&state).len(), 0);
    state.key(Key::Escape);
    assert_eq!((keys(&state).len(), state.prompt.as_deref()), (2, None));
    press(&mut state, "/\n");
    assert_eq!(keys(&state).len(), all);
    assert_eq!(state.key(Key::Char('q')), Action::Quit);
}

#[test]
fn a_selected_row_stays_selected_where_it_goes() {
    let mut world = World::new();
    let mut state = State::new("proxy", Duration::from_secs(1));
    (0..30).for_each(|n| world.check(&format!("key-{n:02}"), 1));
    state.take(world.look());
    assert_eq!(state.row(Pane::Keys), 0);
    for _ in 0..3 {
        state.key(Key::Down);
    }
    let selected = state.keys()[3].key.clone();
    world.clock.advance_s(1);
    world.check(&selected, 5);
    state.take(world.look());
    assert_eq!((state.row(Pane::Keys), state.keys()[0].key.as_str()), (0, selected.as_str()));
    state.page = 12;
    for (key, row) in [
        (Key::PageDown, 12),
        (Key::PageDown, 24),
        (Key::PageDown, 29),
        (Key::PageUp, 17),
        (Key::Up, 16),
        (Key::End, 29),
        (Key::Down, 29),
        (Key::Home, 0),
        (Key::Up, 0),
    ] {
        state.key(key);
        assert_eq!(state.row(Pane::Keys), row, "{key:?}");
    }
    // The end of the list is seen when it is selected.
    state.key(Key::End);
    let last = state.keys()[29].key.clone();
    assert!(text(&state, 80, 14).contains(&last));
}

#[test]
fn tab_goes_through_the_panes() {
    let mut state = busy();
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(state.pane);
        state.key(Key::Tab);
    }
    assert_eq!(seen[..5], Pane::ALL);
    assert_eq!(seen[5], Pane::Keys);
    state.key(Key::BackTab);
    state.key(Key::BackTab);
    assert_eq!(state.pane, Pane::Events);
    let seen = text(&state, 60, 12);
    assert!(seen.contains("cooldown_begun") && !seen.contains("sk-hot"), "{seen}");
}

#[test]
fn other_keys_change_what_is_looked_at() {
    let mut state = State::new("proxy", Duration::from_secs(1));
    for (key, action, interval_ms) in [
        ('+', Action::Look, 2_000),
        ('-', Action::Look, 1_000),
        ('-', Action::Look, 500),
        ('p', Action::Look, 500),
        ('x', Action::Draw, 500),
    ] {
        assert_eq!(state.key(Key::Char(key)), action);
        assert_eq!(state.interval, Duration::from_millis(interval_ms));
    }
    assert!(state.paused && text(&state, 80, 24).contains("PAUSED"));
    for (key, times, interval_ms) in [('+', 20, 60_000), ('-', 20, 100)] {
        assert!((0..times).all(|_| state.key(Key::Char(key)) == Action::Look));
        assert_eq!(state.interval, Duration::from_millis(interval_ms));
    }
    for (key, action) in [
        (Key::Ctrl('z'), Action::Suspend),
        (Key::Ctrl('l'), Action::Redraw),
        (Key::Ctrl('c'), Action::Quit),
        (Key::Escape, Action::Quit),
    ] {
        assert_eq!(state.key(key), action);
    }
    press(&mut state, "/a");
    assert_eq!(state.key(Key::Ctrl('c')), Action::Quit);
}

#[test]
fn what_ended_says_so_and_shows_the_last() {
    let mut state = busy();
    state.notice = Some("its last process has ended".into());
    let seen = text(&state, 80, 24);
    assert!(seen.contains("its last process has ended") && seen.contains("sk-hot"), "{seen}");
    let narrow = text(&state, 20, 24);
    assert!(narrow.contains("\nits last process has\nended\n"), "{narrow}");
}

#[test]
fn intervals_are_told_in_the_usual_units() {
    let parsed = |text: &str| super::interval(text).map(|time| time.as_millis()).ok();
    let texts = ["1s", "250ms", "0.5", "2m", "1.5s", "", "s", "5ms", "2h", "-1s", "nan", "1e9s"];
    let expected = [Some(1_000), Some(250), Some(500), Some(120_000), Some(1_500)];
    assert_eq!(texts.map(parsed)[..5], expected);
    assert_eq!(texts.map(parsed)[5..], [None; 7]);
}

/// Whatever stands in a region can be shown, and moves neither the cursor nor the panes.
#[test]
fn a_region_of_random_bytes_is_shown() {
    let mut state = 0x0dd0_beef_1234_5678_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..5 {
        let mut world = World::new();
        world.trouble();
        let mut state = State::new("\x1b[2Jproxy\u{202e}", Duration::from_secs(1));
        state.take(world.look());
        crate::inspect::tests::scramble(world.engine.region(), &mut random);
        for keys in ["", "ss", "/7\n", "z", "\t", "\t", "\t", "\tG"] {
            world.clock.advance_s(1);
            let wanted = Wanted { hottest: super::HOTTEST, ..Wanted::default() };
            state.take(world.watcher.look_for(world.engine.region(), &wanted));
            press(&mut state, keys);
            for (width, height) in [(1, 1), (30, 9), (80, 24), (200, 60)] {
                let buffer = drawn(&state, width, height, PLAIN);
                let control = |cell: &Cell| cell.symbol().contains(char::is_control);
                assert!(!buffer.content.iter().any(control));
            }
        }
    }
}
