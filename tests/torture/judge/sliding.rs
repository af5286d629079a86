//! Sliding windows: no more than the limit in an aligned window, at most twice the limit less one in any
//! stretch as long, and nothing admitted for which the algorithm had no room. At rest the key has room for
//! what nobody was granted.

use super::{Fault, Faults};
use crate::entry::Effect;
use crate::limits::{MAX_COST, SLIDING, Sliding};
use std::collections::BTreeMap;

/// What a key could be charged at rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Which key.
    pub(crate) key: usize,
    /// When, microseconds: before and after.
    pub(crate) begun: u64,
    /// After.
    pub(crate) at: u64,
    /// How much.
    pub(crate) remaining: u64,
}

/// Judges all keys with sliding windows.
#[derive(Default)]
pub(crate) struct SlidingJudge {
    keys: [Key; SLIDING.len()],
}

#[derive(Default)]
struct Key {
    charges: Vec<Charge>,
    /// What was perhaps charged in some window, and when that was surely over.
    perhaps: Vec<(u64, u64)>,
    /// The last window that was counted as full.
    counted: Option<u64>,
    full: u64,
}

#[derive(Debug, Clone, Copy)]
struct Charge {
    /// Seat and position of its line: many have the same times.
    line: (usize, usize),
    begun: u64,
    at: u64,
    /// The window, if it is certain.
    window: Option<u64>,
    /// What was certainly left of it.
    kept: u64,
    /// What was perhaps left of it.
    most: u64,
}

impl SlidingJudge {
    /// Notes what was done.
    pub(crate) fn done(&mut self, line: (usize, usize), effect: Effect, begun: u64, at: u64) {
        match effect {
            Effect::Slide { key, amount, window } => {
                let (kept, most) = (amount.unsigned_abs(), amount.unsigned_abs());
                self.keys[key].charges.push(Charge { line, begun, at, window, kept, most });
            }
            Effect::OweSliding { .. } => self.perhaps(effect, at),
            _ => {}
        }
    }

    /// Notes what was perhaps done, at `at` at the latest.
    pub(crate) fn perhaps(&mut self, effect: Effect, at: u64) {
        if let Effect::Slide { key, amount, .. } | Effect::OweSliding { key, amount } = effect {
            self.keys[key].perhaps.push((amount.unsigned_abs(), at));
        }
    }

    /// Only so much is left of the charge of an admission of this epoch; perhaps, unless `surely`.
    pub(crate) fn keep(&mut self, line: (usize, usize), key: usize, kept: i64, surely: bool) {
        let of = |charge: &&mut Charge| charge.line == line;
        if let Some(charge) = self.keys[key].charges.iter_mut().rev().find(of) {
            charge.kept = charge.kept.min(kept.unsigned_abs());
            if surely {
                charge.most = charge.most.min(kept.unsigned_abs());
            }
        }
    }

    /// Decides about all keys.
    pub(crate) fn close(&mut self, rooms: &[Room], now_us: u64, faults: &mut Faults) {
        for (key, state) in self.keys.iter_mut().enumerate() {
            state.charges.sort_unstable_by_key(|charge| (charge.at, charge.begun));
            state.judge(key, faults);
            for room in rooms.iter().filter(|room| room.key == key) {
                state.compare(room, faults);
            }
            let since = now_us.saturating_sub(3 * window_us(key));
            state.charges.retain(|charge| charge.at >= since);
            state.perhaps.retain(|&(_, at)| at >= since);
        }
    }

    /// Of each key, how many windows were charged until there was no more room.
    pub(crate) fn full(&self) -> Vec<u64> {
        self.keys.iter().map(|key| key.full).collect()
    }
}

impl Key {
    fn judge(&mut self, key: usize, faults: &mut Faults) {
        let (name, limit) = (SLIDING[key].key, SLIDING[key].limit);
        let mut above = |what: &str, admitted: u64, of: u64| {
            faults.add(Fault::OverAdmitted, || format!("{name}, {what}: {admitted} of {of}"));
        };
        let sums = self.sums();
        for (window, &sum) in &sums {
            if sum > limit {
                above(&format!("window {window}"), sum, limit);
            }
        }
        let (from, most) = self.fullest_stretch(window_us(key));
        if most >= 2 * limit {
            above(&format!("the window after {from} us"), most, 2 * limit - 1);
        }
        for (window, weight) in self.weights(key, &sums) {
            if weight > limit {
                above(&format!("with what fades, window {window}"), weight, limit);
            }
            let owed = self.perhaps.iter().filter(|&&(_, at)| at / window_us(key) == window);
            let weight = weight + owed.map(|&(amount, _)| amount).sum::<u64>();
            if weight + MAX_COST.unsigned_abs() > limit
                && self.counted.is_none_or(|last| last < window)
            {
                self.counted = Some(window);
                self.full += 1;
            }
        }
    }

    /// What is certainly charged in each window.
    fn sums(&self) -> BTreeMap<u64, u64> {
        let mut sums = BTreeMap::new();
        for charge in &self.charges {
            if let Some(window) = charge.window {
                *sums.entry(window).or_default() += charge.kept;
            }
        }
        sums
    }

    /// The most in a stretch as long as a window, and where that begins.
    fn fullest_stretch(&self, window_us: u64) -> (u64, u64) {
        let mut by_begin: Vec<&Charge> = self.charges.iter().collect();
        by_begin.sort_unstable_by_key(|charge| charge.begun);
        let fullest = by_begin.iter().enumerate().map(|(number, first)| {
            let end = first.begun + window_us;
            let near = by_begin[number..].iter().take_while(|charge| charge.begun < end);
            let inside = near.filter(|charge| charge.at < end).map(|charge| charge.kept);
            (first.begun, inside.sum())
        });
        fullest.max_by_key(|&(_, sum)| sum).unwrap_or_default()
    }

    /// Of each window the heaviest charge: with itself, what was certainly charged before, and what was left
    /// of the window before at the most favourable instant.
    fn weights(&self, key: usize, sums: &BTreeMap<u64, u64>) -> BTreeMap<u64, u64> {
        // By window: what ended by when, summed up.
        let mut ended: BTreeMap<u64, Vec<(u64, u64)>> = BTreeMap::new();
        for charge in &self.charges {
            let Some(window) = charge.window else { continue };
            let ended = ended.entry(window).or_default();
            let before = ended.last().map_or(0, |&(_, sum)| sum);
            ended.push((charge.at, before + charge.kept));
        }
        let mut weights = BTreeMap::new();
        for charge in &self.charges {
            let Some(window) = charge.window else { continue };
            let ended = &ended[&window];
            let before = ended.partition_point(|&(at, _)| at < charge.begun);
            let before = before.checked_sub(1).map_or(0, |last| ended[last].1);
            let previous = window.checked_sub(1).and_then(|window| sums.get(&window));
            let faded = faded(previous.copied().unwrap_or(0), charge.at, window_us(key));
            // A charge that was taken back had room once, which nobody knows any more.
            let weight = if charge.kept > 0 { faded + before + charge.kept } else { 0 };
            let heaviest = weights.entry(window).or_default();
            *heaviest = weight.max(*heaviest);
        }
        weights
    }

    fn compare(&self, room: &Room, faults: &mut Faults) {
        let &Room { key, begun, at, remaining } = room;
        let (window_us, Sliding { key: name, limit, .. }) = (window_us(key), &SLIDING[key]);
        let now = begun / window_us;
        if now != at / window_us || now == 0 {
            return;
        }
        let certain = |window| self.sums().get(&window).copied().unwrap_or(0);
        // What may be in one of several windows weighs most in the last of them.
        let most = |window: u64| {
            let last = |charge: &Charge| charge.window.unwrap_or(charge.at / window_us);
            let charged = self.charges.iter().filter(|charge| last(charge) == window);
            let perhaps = self.perhaps.iter().filter(|&&(_, at)| at / window_us == window);
            charged.map(|charge| charge.most).sum::<u64>()
                + perhaps.map(|&(amount, _)| amount).sum::<u64>()
        };
        let least = limit.saturating_sub(faded(most(now - 1), begun, window_us) + most(now));
        let most = limit.saturating_sub(faded(certain(now - 1), at, window_us) + certain(now));
        let text = || format!("{name}: room for {remaining}, logged for {least} to {most}");
        if remaining < least {
            faults.add(Fault::UnderAdmitted, text);
        } else if remaining > most {
            faults.add(Fault::OverAdmitted, text);
        }
    }
}

fn window_us(key: usize) -> u64 {
    SLIDING[key].window_s * 1_000_000
}

/// What of the window before still counts at an instant.
fn faded(previous: u64, at_us: u64, window_us: u64) -> u64 {
    (previous * (window_us - at_us % window_us)).div_ceil(window_us)
}
