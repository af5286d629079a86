//! A worker's log: append-only words that outlive it. An operation is written down before it is done and
//! completed by one store afterwards, so a kill leaves at most one line open, the last. A line that was
//! refused is counted and written over: it changed nothing.

use crate::entry::{Answer, End, Entry, Op};
use crate::process::shared_words;
use fast_litellm::sync::{Ordering, Word};
use std::sync::atomic::compiler_fence;

const BEGUN: u64 = 1;
const DONE: u64 = 2;
const REFUSED: u64 = 3;
/// Words of a line: head, operation, begin, end, answer.
const WIDTH: usize = 5;

/// The log of one seat. All processes that ever sit there write it, one after the other.
#[derive(Clone, Copy)]
pub(crate) struct Log {
    next: &'static Word<u64>,
    refused: &'static Word<u64>,
    lines: &'static [Word<u64>],
}

impl Log {
    /// An empty log with room for so many lines.
    pub(crate) fn new(lines: usize) -> std::io::Result<Self> {
        let words = shared_words(2 + lines * WIDTH)?;
        Ok(Self { next: &words[0], refused: &words[1], lines: &words[2..] })
    }

    /// Empties it. Lines of other epochs do not count as written, so nothing needs to be erased.
    pub(crate) fn rewind(&self) {
        self.next.store(0, Ordering::Relaxed);
        self.refused.store(0, Ordering::Relaxed);
    }

    /// Operations that were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Lines written.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.next.load(Ordering::Acquire)).unwrap_or(usize::MAX)
    }

    /// How many more lines it takes.
    pub(crate) fn room(&self) -> usize {
        (self.lines.len() / WIDTH).saturating_sub(self.len())
    }

    /// Notes what is about to be done. Returns the position of the line.
    pub(crate) fn begin(&self, epoch: u64, op: Op, at: u64) -> usize {
        let position = self.len();
        let line = self.line(position);
        line[1].store(op.to_word(), Ordering::Relaxed);
        line[2].store(at, Ordering::Relaxed);
        line[0].store(epoch << 8 | BEGUN, Ordering::Release);
        // A kill comes between two instructions: only the compiler could move the operation up here.
        compiler_fence(Ordering::SeqCst);
        position
    }

    /// Notes how it ended.
    pub(crate) fn commit(&self, position: usize, at: u64, answer: Answer) {
        compiler_fence(Ordering::SeqCst);
        let line = self.line(position);
        let epoch = line[0].load(Ordering::Relaxed) & !0xff;
        if answer == Answer::Refused {
            line[0].store(epoch | REFUSED, Ordering::Release);
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        line[3].store(at, Ordering::Relaxed);
        line[4].store(answer.to_word(), Ordering::Relaxed);
        line[0].store(epoch | DONE, Ordering::Release);
        self.next.store(position as u64 + 1, Ordering::Release);
    }

    /// After its writer's death: takes what it had begun into the log. True if that was left open.
    pub(crate) fn settle(&self, epoch: u64) -> bool {
        let position = self.len();
        let head = self.line(position)[0].load(Ordering::Acquire);
        if head == epoch << 8 | BEGUN || head == epoch << 8 | DONE {
            self.next.store(position as u64 + 1, Ordering::Release);
        }
        head == epoch << 8 | BEGUN
    }

    /// What its writer is doing; of use while that is stopped.
    pub(crate) fn under_way(&self, epoch: u64) -> Option<Op> {
        let line = self.line(self.len());
        let begun = line[0].load(Ordering::Acquire) == epoch << 8 | BEGUN;
        begun.then(|| Op::from_word(line[1].load(Ordering::Relaxed))).flatten()
    }

    /// All lines, in the order in which they were begun.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        let lines = self.lines.chunks_exact(WIDTH).take(self.len());
        lines.map(|line| {
            let [head, op, begun, end, answer] =
                std::array::from_fn(|word| line[word].load(Ordering::Acquire));
            let op = Op::from_word(op).expect("a line is written by `begin` only");
            let done = || End { at: end, answer: Answer::from_word(answer) };
            Entry { op, begun, end: (head & 0xff == DONE).then(done) }
        })
    }

    fn line(&self, position: usize) -> &'static [Word<u64>] {
        &self.lines[position * WIDTH..][..WIDTH]
    }
}
