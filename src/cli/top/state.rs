//! What the screen shows, as a function of looks and keys.

use super::history::{History, Sample};
use super::keys::Key;
use crate::inspect::live::{Frame, Order};
use crate::inspect::{DeploymentReport, LimitReport, WorkerReport};
use regex_lite::{Regex, RegexBuilder};
use std::collections::BTreeMap;
use std::time::Duration;

/// What + and - go through.
const INTERVALS_MS: [u64; 10] =
    [100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000];
/// Orders that s goes through, and what they are called.
const ORDERS: [(Order, &str); 4] = [
    (Order::Refused, "refused/s"),
    (Order::Admitted, "admitted/s"),
    (Order::Used, "used"),
    (Order::RefusedInAll, "refused in all"),
];
/// Characters of a filter.
const LONGEST: usize = 200;

/// A part of the screen that can be scrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Keys,
    Workers,
    Deployments,
    Breakers,
    Events,
}

impl Pane {
    pub(super) const ALL: [Self; 5] =
        [Self::Keys, Self::Workers, Self::Deployments, Self::Breakers, Self::Events];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Workers => "workers",
            Self::Deployments => "deployments",
            Self::Breakers => "breakers",
            Self::Events => "events",
        }
    }

    fn next(self, steps: usize) -> Self {
        let position = Self::ALL.iter().position(|&pane| pane == self).unwrap_or(0);
        Self::ALL[(position + steps) % Self::ALL.len()]
    }
}

/// What a key asks of whoever owns the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing but drawing.
    Draw,
    /// Draw everything, whatever the terminal shows.
    Redraw,
    /// Other keys are wanted than those of the latest look, or another interval.
    Look,
    Suspend,
    Quit,
}

/// Which keys are shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) text: String,
    pattern: Option<Regex>,
}

impl Filter {
    /// A regular expression, or a part of the name; capital letters are as small ones.
    pub(super) fn new(text: &str) -> Self {
        let pattern = RegexBuilder::new(text).case_insensitive(true).build().ok();
        Self { text: text.to_lowercase(), pattern }
    }

    pub(super) fn takes(&self, name: &str) -> bool {
        self.text.is_empty()
            || self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(name))
            || name.to_lowercase().contains(&self.text)
    }
}

/// A breaker that is open.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) what: String,
    pub(super) state: &'static str,
    pub(super) errors: u64,
    pub(super) latest_s: Option<u64>,
    pub(super) switch: Option<String>,
}

/// Where a pane is scrolled to.
#[derive(Debug, Clone, Default)]
struct Cursor {
    row: usize,
    /// What is selected, since somebody moved there: it stays selected when its row is another one.
    on: Option<String>,
}

/// Everything that the screen depends on.
#[derive(Debug)]
pub(super) struct State {
    /// The region's.
    pub(super) name: String,
    pub(super) frame: Option<Frame>,
    /// The filter that its keys were chosen by.
    asked: String,
    /// What is wrong with the region, or not as it was.
    pub(super) notice: Option<String>,
    pub(super) history: History,
    pub(super) pane: Pane,
    /// Whether the pane has the whole screen.
    pub(super) alone: bool,
    pub(super) filter: Filter,
    /// A filter that is being typed.
    pub(super) prompt: Option<String>,
    pub(super) paused: bool,
    pub(super) help: bool,
    pub(super) interval: Duration,
    /// Decisions per second by row and generation.
    decisions: BTreeMap<(usize, u64), f64>,
    order: usize,
    cursors: [Cursor; Pane::ALL.len()],
    /// Rows that the pane shows at once.
    pub(super) page: usize,
}

impl State {
    pub(super) fn new(name: &str, interval: Duration) -> Self {
        Self {
            name: name.to_string(),
            frame: None,
            asked: String::new(),
            notice: None,
            history: History::default(),
            pane: Pane::Keys,
            alone: false,
            filter: Filter::default(),
            prompt: None,
            paused: false,
            help: false,
            interval,
            decisions: BTreeMap::new(),
            order: 0,
            cursors: Default::default(),
            page: 10,
        }
    }

    pub(super) fn order(&self) -> (Order, &'static str) {
        ORDERS.get(self.order).copied().unwrap_or(ORDERS[0])
    }

    /// The filter as it is typed, or as it stands.
    pub(super) fn filter(&self) -> Filter {
        self.prompt.as_deref().map_or_else(|| self.filter.clone(), Filter::new)
    }

    /// Keys of the region that the filter takes; `None` = it is another one than at the latest look.
    pub(super) fn matching(&self) -> Option<u64> {
        let frame = self.frame.as_ref().filter(|_| self.asked == self.filter().text)?;
        Some(frame.matching)
    }

    /// Decisions of a worker per second, if it was there at the look before.
    pub(super) fn decisions_per_s(&self, worker: &WorkerReport) -> Option<f64> {
        self.decisions.get(&(worker.row, worker.generation)).copied()
    }

    /// Shows another look.
    pub(super) fn take(&mut self, frame: Frame) {
        if frame.since_s > 0.0 {
            self.history.add(Sample {
                at_ms: frame.at_ms,
                since_s: frame.since_s,
                per_s: [frame.rates.admitted_per_s, frame.rates.denied_per_s],
            });
        }
        let before = self.frame.as_ref().map_or(&[][..], |frame| &frame.workers);
        let per_s = |worker: &WorkerReport| {
            let identity = (worker.row, worker.generation);
            let old = before.iter().find(|old| (old.row, old.generation) == identity)?;
            let count = worker.decisions.checked_sub(old.decisions)?;
            #[allow(clippy::cast_precision_loss, reason = "counts of one interval")]
            let per_s = count as f64 / frame.since_s;
            Some((identity, per_s))
        };
        let workers = frame.workers.iter().filter(|_| frame.since_s > 0.0);
        self.decisions = workers.filter_map(per_s).collect();
        self.frame = Some(frame);
        self.asked = self.filter().text;
        for pane in Pane::ALL {
            self.follow(pane);
        }
    }

    /// What a key does.
    pub(super) fn key(&mut self, key: Key) -> Action {
        match key {
            Key::Ctrl('c') => return Action::Quit,
            Key::Ctrl('z') => return Action::Suspend,
            Key::Ctrl('l') => return Action::Redraw,
            _ => {}
        }
        if self.prompt.is_some() {
            return self.typed(key);
        }
        if std::mem::take(&mut self.help) {
            return if key == Key::Char('q') { Action::Quit } else { Action::Draw };
        }
        match key {
            Key::Char('q') | Key::Escape => return Action::Quit,
            Key::Char('?' | 'h') => self.help = true,
            Key::Char('/') => self.prompt = Some(String::new()),
            Key::Char('p' | ' ') => {
                self.paused = !self.paused;
                return Action::Look;
            }
            Key::Char('s') => {
                self.order = (self.order + 1) % ORDERS.len();
                self.follow(Pane::Keys);
                return Action::Look;
            }
            Key::Char('+') => return self.change_interval(true),
            Key::Char('-') => return self.change_interval(false),
            Key::Char('z') | Key::Enter => self.alone = !self.alone,
            Key::Tab | Key::Right => self.pane = self.pane.next(1),
            Key::BackTab | Key::Left => self.pane = self.pane.next(Pane::ALL.len() - 1),
            Key::Up | Key::Char('k') => self.move_by(1, false),
            Key::Down | Key::Char('j') => self.move_by(1, true),
            Key::PageUp => self.move_by(self.page, false),
            Key::PageDown => self.move_by(self.page, true),
            Key::Home | Key::Char('g') => self.move_by(usize::MAX, false),
            Key::End | Key::Char('G') => self.move_by(usize::MAX, true),
            Key::Char(_) | Key::Ctrl(_) | Key::Backspace => {}
        }
        Action::Draw
    }

    fn typed(&mut self, key: Key) -> Action {
        let Some(mut text) = self.prompt.take() else { return Action::Draw };
        match key {
            Key::Enter => self.filter = Filter::new(&text),
            Key::Escape => {}
            Key::Backspace => {
                // Nothing left to delete ends it.
                self.prompt = text.pop().map(|_| text);
            }
            Key::Ctrl('u') => self.prompt = Some(String::new()),
            Key::Char(character) if text.chars().count() < LONGEST => {
                text.push(character);
                self.prompt = Some(text);
            }
            _ => self.prompt = Some(text),
        }
        self.follow(Pane::Keys);
        Action::Look
    }

    fn change_interval(&mut self, longer: bool) -> Action {
        let steps = INTERVALS_MS.map(Duration::from_millis);
        let next = if longer {
            steps.iter().find(|&&step| step > self.interval)
        } else {
            steps.iter().rev().find(|&&step| step < self.interval)
        };
        self.interval = next.copied().unwrap_or(self.interval);
        Action::Look
    }

    /// The selected row of a pane; meaningless in one without rows.
    pub(super) fn row(&self, pane: Pane) -> usize {
        self.cursors[pane as usize].row
    }

    fn move_by(&mut self, rows: usize, down: bool) {
        let names = self.names(self.pane);
        let cursor = &mut self.cursors[self.pane as usize];
        let to =
            if down { cursor.row.saturating_add(rows) } else { cursor.row.saturating_sub(rows) };
        cursor.row = to.min(names.len().saturating_sub(1));
        // On the first row nobody has chosen anything yet.
        cursor.on = names.get(cursor.row).filter(|_| cursor.row > 0).cloned();
    }

    /// Puts a pane's selection where its row is now.
    fn follow(&mut self, pane: Pane) {
        let names = self.names(pane);
        let cursor = &mut self.cursors[pane as usize];
        let found = cursor.on.as_ref().and_then(|on| names.iter().position(|name| name == on));
        cursor.row = found.unwrap_or(cursor.row).min(names.len().saturating_sub(1));
    }

    /// What a pane's rows are told apart by.
    fn names(&self, pane: Pane) -> Vec<String> {
        match pane {
            Pane::Keys => {
                self.keys().iter().map(|key| format!("{} {}", key.kind, key.key)).collect()
            }
            Pane::Workers => {
                let name = |worker: &&WorkerReport| format!("{} {}", worker.row, worker.generation);
                self.workers().iter().map(name).collect()
            }
            Pane::Deployments => {
                self.deployments().iter().map(|deployment| deployment.deployment.clone()).collect()
            }
            Pane::Breakers => self.breakers().into_iter().map(|breaker| breaker.what).collect(),
            Pane::Events => {
                let events = self.frame.iter().flat_map(|frame| &frame.events);
                events.map(|event| event.number.to_string()).collect()
            }
        }
    }

    /// Keys that are shown, in their order.
    pub(super) fn keys(&self) -> Vec<&LimitReport> {
        let filter = self.filter();
        let keys = self.frame.iter().flat_map(|frame| &frame.hottest);
        let mut keys: Vec<_> = keys.filter(|key| filter.takes(&key.key)).collect();
        let measure = |key: &LimitReport| {
            let per_s = |value: Option<f64>| value.unwrap_or(0.0);
            let rest =
                [per_s(key.denied_per_s), per_s(key.allowed_per_s), key.used_pct.unwrap_or(-1.0)];
            #[allow(clippy::cast_precision_loss, reason = "to be compared only")]
            let first = match self.order().0 {
                Order::Refused => 0.0,
                Order::Admitted => rest[1],
                Order::Used => rest[2],
                Order::RefusedInAll => key.denied as f64,
            };
            [first, rest[0], rest[1], rest[2]]
        };
        keys.sort_by(|one, other| {
            let pairs = measure(other).into_iter().zip(measure(one));
            pairs.fold(std::cmp::Ordering::Equal, |order, (other, one)| {
                order.then(other.total_cmp(&one))
            })
        });
        keys
    }

    /// The dead first, then those that hold most.
    pub(super) fn workers(&self) -> Vec<&WorkerReport> {
        let mut workers: Vec<_> = self.frame.iter().flat_map(|frame| &frame.workers).collect();
        workers.sort_by_key(|worker| {
            (worker.alive != "dead", std::cmp::Reverse(worker.leases), worker.row)
        });
        workers
    }

    /// Those that are cooled down first, the longest first; then by name.
    pub(super) fn deployments(&self) -> Vec<&DeploymentReport> {
        let deployments = self.frame.iter().flat_map(|frame| &frame.deployments);
        let mut deployments: Vec<_> = deployments.collect();
        deployments.sort_by(|one, other| {
            let left = other.cooldown_ms.cmp(&one.cooldown_ms);
            left.then_with(|| one.deployment.cmp(&other.deployment))
        });
        deployments
    }

    /// Features and endpoints whose breakers are open, then features that are switched for all workers.
    pub(super) fn breakers(&self) -> Vec<Broken> {
        let Some(frame) = &self.frame else { return Vec::new() };
        let feature = |feature: &crate::inspect::FeatureReport| {
            let open = feature.breaker != "closed";
            let switch = match (feature.switch, feature.percent) {
                ("own", _) => None,
                (_, Some(percent)) => Some(format!("switched to {percent}%")),
                (switch, None) => Some(format!("switched {switch}")),
            };
            (open || switch.is_some()).then(|| Broken {
                what: feature.name.map_or_else(
                    || format!("feature {}", feature.feature),
                    |name| format!("feature {name}"),
                ),
                state: feature.breaker,
                errors: feature.errors,
                latest_s: (feature.errors_total > 0).then_some(feature.last_s),
                switch,
            })
        };
        let endpoints = frame.pools.iter().flat_map(|pool| {
            pool.endpoints.iter().filter(|endpoint| !endpoint.healthy).map(|endpoint| Broken {
                what: format!("pool {}: {}", pool.pool, endpoint.endpoint),
                state: "open",
                errors: endpoint.failures_in_a_row,
                latest_s: endpoint.last_failure_s,
                switch: None,
            })
        });
        let mut breakers: Vec<_> =
            frame.features.iter().filter_map(feature).chain(endpoints).collect();
        breakers.sort_by_key(|breaker| breaker.state == "closed");
        breakers
    }
}
