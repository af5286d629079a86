//! Words that the master, its workers and the watchdog share.

use crate::limits::{SEATS, SLOTS, VARYING};
use crate::process::shared_words;
use fast_litellm::sync::{Ordering, Word};

/// The words. Every one is a number of its own.
#[derive(Clone, Copy)]
pub(crate) struct Control {
    words: &'static [Word<u64>],
}

const PIDS: usize = 8;
const LIMITS: usize = PIDS + SEATS;
const WORDS: usize = LIMITS + SLOTS.len();

impl Control {
    /// Words of a new run.
    pub(crate) fn new() -> std::io::Result<Self> {
        let control = Self { words: shared_words(WORDS)? };
        for (slots, limit) in SLOTS.iter().enumerate() {
            control.limit(slots).store(limit.limit.unwrap_or(VARYING[0]), Ordering::Relaxed);
        }
        Ok(control)
    }

    /// Rounds of the master.
    pub(crate) fn rounds(&self) -> &'static Word<u64> {
        &self.words[0]
    }

    /// Workers killed.
    pub(crate) fn kills(&self) -> &'static Word<u64> {
        &self.words[1]
    }

    /// GCRA keys made so far.
    pub(crate) fn frontier(&self) -> &'static Word<u64> {
        &self.words[2]
    }

    /// Which run, epoch and step the master is in, for the watchdog.
    pub(crate) fn epoch(&self) -> &'static Word<u64> {
        &self.words[3]
    }

    /// A word for whoever measures.
    pub(crate) fn probe(&self, which: usize) -> &'static Word<u64> {
        &self.words[4 + which]
    }

    /// The process in a seat; 0 = none.
    pub(crate) fn pid(&self, seat: usize) -> &'static Word<u64> {
        &self.words[PIDS + seat]
    }

    /// The present limit of a key's slots.
    pub(crate) fn limit(&self, slots: usize) -> &'static Word<u64> {
        &self.words[LIMITS + slots]
    }
}
