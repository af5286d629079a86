//! Notices: nobody reads a mixture of two, and one of those that publish is read in the end.

use crate::layout::{BoardWord, KeyKind};
use crate::sync::Word;
use crate::tables::board::{Place, Sheet};
use crate::tables::index;
use loom::sync::Arc;
use loom::thread;

/// Sheets of two words, so that a mixture is possible.
struct Board {
    current: Word<BoardWord>,
    heads: [[Word<u64>; 4]; 2],
    words: [[Word<u64>; 2]; 2],
}

const OLD: &[u8] = b"the notice befor";
const FIRST: &[u8] = b"first-one-of-two";
const SECOND: &[u8] = b"second-of-the-tw";

impl Board {
    fn with_old() -> Arc<Self> {
        let word = || Word::new(0);
        let board = Self {
            current: Word::new(BoardWord::default()),
            heads: [(); 2].map(|()| [(); 4].map(|()| word())),
            words: [(); 2].map(|()| [(); 2].map(|()| word())),
        };
        board.place().publish(OLD, 1, 0).expect("nobody is faster");
        Arc::new(board)
    }

    fn place(&self) -> Place<'_> {
        let sheet = |number: usize| {
            let [length, published_us, expires_us, check] = &self.heads[number];
            Sheet { length, published_us, expires_us, check, words: &self.words[number] }
        };
        let identity = index::identity(KeyKind::Named, 1 << 13);
        Place { identity, current: &self.current, sheets: [sheet(0), sheet(1)] }
    }

    fn read(&self) -> Option<Vec<u8>> {
        self.place().read().map(|notice| notice.bytes)
    }
}

/// One publishes twice, so that the sheet that is being read is written.
///
/// Mutation `notice-without-check`.
#[test]
fn loom_board_no_mixture_is_read() {
    super::bounded(2, || {
        let board = Board::with_old();
        let other = board.clone();
        let thread = thread::spawn(move || {
            let publish = |bytes| other.place().publish(bytes, 1, 0).is_ok();
            publish(FIRST) && publish(SECOND)
        });
        let seen = board.read().expect("one of them can be read");
        assert!([OLD, FIRST, SECOND].contains(&&seen[..]), "{seen:?}");
        assert!(thread.join().expect("joins"));
        assert_eq!(board.read().as_deref(), Some(SECOND));
    });
}

/// Two publish, and what is left is one of theirs.
///
/// Mutation `notice-blind-store`.
#[test]
fn loom_board_of_two_that_publish_one_is_left() {
    super::bounded(2, || {
        let board = Board::with_old();
        let other = board.clone();
        let thread = thread::spawn(move || other.place().publish(FIRST, 1, 0).is_ok());
        let mine = board.place().publish(SECOND, 1, 0).is_ok();
        let theirs = thread.join().expect("joins");
        assert!(mine && theirs);
        let seen = board.read().expect("one is there");
        assert!(seen == FIRST || seen == SECOND, "{seen:?}");
    });
}

/// One publishes and another reads: the old notice or the new one, at any instant.
///
/// Mutation `notice-over-the-current`.
#[test]
fn loom_board_the_old_notice_can_be_read_until_the_new_one_can() {
    super::bounded(2, || {
        let board = Board::with_old();
        let other = board.clone();
        let thread = thread::spawn(move || other.place().publish(FIRST, 1, 0).is_ok());
        let seen = board.read().expect("one of them can be read");
        assert!(seen == OLD || seen == FIRST, "{seen:?}");
        assert!(thread.join().expect("joins"));
        assert_eq!(board.read().as_deref(), Some(FIRST));
    });
}
