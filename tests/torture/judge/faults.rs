//! What was found wrong.

use std::collections::BTreeMap;

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// More was admitted than a limit allows.
    OverAdmitted,
    /// A counter holds more than what was admitted and what kills can explain.
    UnderAdmitted,
    /// A slot is held by nobody who lives.
    Leaked,
    /// A row of a dead worker was not given back.
    Unreclaimed,
    /// A key stands in the table twice.
    Duplicate,
    /// A cooldown that was begun is not seen by somebody.
    Unseen,
    /// A hint is wrong although its key has been used.
    WrongHint,
    /// A sum of statistics went backwards, or something undamaged was corrected.
    WrongStatistics,
    /// Something that cannot happen: an error, a worker that ended by itself.
    Unexpected,
    /// A limit was never reached, so nothing is known about it.
    Untested,
}

/// Faults found, counted, with the first few of each kind in words.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    found: BTreeMap<Fault, (u64, Vec<String>)>,
}

impl Faults {
    const SHOWN: usize = 5;

    /// Counts one.
    pub(crate) fn add(&mut self, fault: Fault, text: impl FnOnce() -> String) {
        let (count, texts) = self.found.entry(fault).or_default();
        *count += 1;
        if texts.len() < Self::SHOWN {
            texts.push(text());
        }
    }

    /// How many of a kind.
    pub(crate) fn count(&self, fault: Fault) -> u64 {
        self.found.get(&fault).map_or(0, |(count, _)| *count)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (fault, (count, texts)) in &self.found {
            writeln!(f, "{fault:?}: {count}")?;
            for text in texts {
                writeln!(f, "  {text}")?;
            }
        }
        Ok(())
    }
}
