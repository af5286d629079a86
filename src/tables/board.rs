//! Notices: named bytes that any process publishes and all read. The last writer wins.
//!
//! A notice has two sheets, and a word that names the current one. A writer fills the other sheet, the head of
//! that sheet with a check over everything, and then swaps the word: a writer that dies before leaves the old
//! sheet as it was. Two writers at once may fill the same sheet; what they mix does not agree with its check, so
//! readers take the other sheet, and the next writer fills the spoilt one again rather than the one that can
//! still be read. Nobody waits. A writer that finds that another one was faster begins again.
//!
//! Of two that publish at once one may be lost. A writer that is stopped in the middle for so long that another
//! publishes, and then goes on, spoils at most 64 words of that notice, finds out, and publishes its own; until
//! then readers see the notice before.
//!
//! **Damage.** Any words are a sheet whose check does not agree. Lengths are cut to the sheet.

use crate::layout::{BoardWord, IdentityWord};
use crate::primitives::{Contended, mix};
use crate::sync::{Bits, Ordering, Word};

/// How often a writer looks whether another one has published meanwhile, in words.
const LOOK: usize = if cfg!(loom) { 1 } else { 64 };
/// Rounds of a writer that others are faster than.
const ROUNDS: u32 = 16;
/// Rounds of a reader that finds both sheets being written.
const READS: u32 = 4;

/// One sheet with its head.
#[derive(Clone, Copy)]
pub struct Sheet<'a> {
    /// Bytes.
    pub length: &'a Word<u64>,
    /// When it was published, microseconds since the clock base.
    pub published_us: &'a Word<u64>,
    /// When it is no longer shown; 0 = never.
    pub expires_us: &'a Word<u64>,
    /// Mix of all the others, of the bytes and of the notice's identity.
    pub check: &'a Word<u64>,
    /// The bytes, eight to a word.
    pub words: &'a [Word<u64>],
}

/// A notice.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Whose it is.
    pub identity: IdentityWord,
    /// Which sheet is the current one.
    pub current: &'a Word<BoardWord>,
    /// Both.
    pub sheets: [Sheet<'a>; 2],
}

/// A notice as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What was published.
    pub bytes: Vec<u8>,
    /// When, microseconds since the clock base.
    pub published_us: u64,
    /// When it is no longer shown, microseconds since the clock base; 0 = never.
    pub expires_us: u64,
}

impl Notice {
    /// Whether it may be shown at that moment.
    pub fn is_shown(&self, now_us: u64) -> bool {
        self.expires_us == 0 || now_us < self.expires_us
    }
}

/// The check so far, with one more word.
fn fold(hash: u64, word: u64) -> u64 {
    mix(hash ^ word).wrapping_add(hash)
}

fn begun(identity: IdentityWord, length: u64, published_us: u64, expires_us: u64) -> u64 {
    [length, published_us, expires_us].into_iter().fold(mix(identity.bits()), fold)
}

/// The words of some bytes, the last one filled up with zeroes.
fn pack(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks(8).map(|bytes| {
        let mut packed = [0_u8; 8];
        packed[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(packed)
    })
}

impl Sheet<'_> {
    /// What stands on it, if it is whole.
    fn read(&self, identity: IdentityWord) -> Option<Notice> {
        // SYNC notice-complete, notice-follows: Acquire throughout. Whoever meets a word of a later notice then also
        // sees that the sheet was not the current one when it was written.
        let check = self.check.load(Ordering::Acquire);
        let [length, published_us, expires_us] =
            [self.length, self.published_us, self.expires_us].map(|w| w.load(Ordering::Acquire));
        let len = usize::try_from(length).ok().filter(|&len| len <= 8 * self.words.len())?;
        let mut bytes = Vec::with_capacity(8 * len.div_ceil(8));
        let mut hash = begun(identity, length, published_us, expires_us);
        for word in &self.words[..len.div_ceil(8)] {
            let word = word.load(Ordering::Acquire);
            hash = fold(hash, word);
            bytes.extend(word.to_le_bytes());
        }
        bytes.truncate(len);
        (mix(hash) == check).then_some(Notice { bytes, published_us, expires_us })
    }

    /// Fills it, unless `disturbed` says that it is of no use; false = it was.
    fn write(
        &self,
        identity: IdentityWord,
        notice: (&[u8], u64, u64),
        disturbed: impl Fn() -> bool,
    ) -> bool {
        let (bytes, published_us, expires_us) = notice;
        let length = bytes.len() as u64;
        let mut hash = begun(identity, length, published_us, expires_us);
        // SYNC notice-follows: Release, after the swap that made the other sheet the current one.
        for (number, (word, packed)) in self.words.iter().zip(pack(bytes)).enumerate() {
            if number.is_multiple_of(LOOK) && disturbed() {
                return false;
            }
            word.store(packed, Ordering::Release);
            hash = fold(hash, packed);
        }
        self.length.store(length, Ordering::Release);
        self.published_us.store(published_us, Ordering::Release);
        self.expires_us.store(expires_us, Ordering::Release);
        // SYNC notice-complete.
        self.check.store(mix(hash), Ordering::Release);
        true
    }
}

impl<'a> Place<'a> {
    fn sheet(&self, number: u64) -> &Sheet<'a> {
        &self.sheets[usize::from(number & 1 == 1)]
    }

    /// Publishes bytes, which must fit a sheet.
    ///
    /// Linearization point: the swap of the word that names the current sheet.
    pub fn publish(
        &self,
        bytes: &[u8],
        published_us: u64,
        expires_us: u64,
    ) -> Result<(), Contended> {
        for _ in 0..ROUNDS {
            let seen = self.current.load(Ordering::Acquire);
            let readable = self.sheet(seen.sheet()).read(self.identity).is_some();
            let target = if readable { seen.sheet() ^ 1 } else { seen.sheet() };
            let disturbed = || self.current.load(Ordering::Acquire) != seen;
            let notice = (bytes, published_us, expires_us);
            if !self.sheet(target).write(self.identity, notice, disturbed) {
                continue;
            }
            let next = BoardWord::new(target, seen.writes().wrapping_add(1));
            let swap =
                self.current.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed);
            if swap.is_ok() {
                return Ok(());
            }
        }
        Err(Contended)
    }

    /// The latest notice that is whole, shown or not; `None` = there is none. Reads only.
    pub fn read(&self) -> Option<Notice> {
        for _ in 0..READS {
            let seen = self.current.load(Ordering::Acquire);
            if seen == BoardWord::default() {
                return None;
            }
            if let Some(notice) = self.sheet(seen.sheet()).read(self.identity) {
                return Some(notice);
            }
            // It is spoilt, or another one is current by now.
            if self.current.load(Ordering::Acquire) == seen
                && let Some(notice) = self.sheet(seen.sheet() ^ 1).read(self.identity)
            {
                return Some(notice);
            }
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::layout::KeyKind;
    use crate::tables::index;
    use proptest::prelude::*;

    const WORDS: usize = 200;

    struct Heap {
        current: Word<BoardWord>,
        heads: [[Word<u64>; 4]; 2],
        words: [Vec<Word<u64>>; 2],
    }

    impl Heap {
        fn new() -> Self {
            let word = || Word::new(0);
            Self {
                current: Word::new(BoardWord::default()),
                heads: [(); 2].map(|()| [(); 4].map(|()| word())),
                words: [(); 2].map(|()| (0..WORDS).map(|_| word()).collect()),
            }
        }

        fn of(&self, key: u64) -> Place<'_> {
            let sheet = |number: usize| {
                let [length, published_us, expires_us, check] = &self.heads[number];
                Sheet { length, published_us, expires_us, check, words: &self.words[number] }
            };
            let identity = index::identity(KeyKind::Named, key << 13);
            Place { identity, current: &self.current, sheets: [sheet(0), sheet(1)] }
        }

        fn place(&self) -> Place<'_> {
            self.of(1)
        }

        fn shows(&self) -> Option<Vec<u8>> {
            self.place().read().map(|notice| notice.bytes)
        }
    }

    #[test]
    fn the_last_writer_wins() {
        let board = Heap::new();
        assert_eq!(board.shows(), None);
        for text in ["one", "", "a longer notice than the first", "two"] {
            board.place().publish(text.as_bytes(), 5, 9).unwrap();
            let bytes = text.as_bytes().to_vec();
            assert_eq!(
                board.place().read(),
                Some(Notice { bytes, published_us: 5, expires_us: 9 })
            );
        }
        assert_eq!(board.of(2).read(), None, "what stands there is another notice's");
        let notice = board.place().read().unwrap();
        assert!(notice.is_shown(8) && !notice.is_shown(9));
    }

    /// Wherever a writer dies, the notice before can be read, and the next one can be published.
    #[test]
    fn a_writer_that_dies_leaves_the_notice_before() {
        let (old, new) = (vec![7_u8; 1_000], vec![9_u8; 1_200]);
        for words in (0..=150).step_by(if cfg!(miri) { 75 } else { 1 }) {
            let board = Heap::new();
            board.place().publish(&[1], 1, 0).unwrap();
            board.place().publish(&old, 2, 0).unwrap();
            let seen = board.current.load(Ordering::Relaxed);
            let target = usize::from(seen.sheet() == 0);
            for (word, packed) in board.words[target].iter().zip(pack(&new)).take(words) {
                word.store(packed, Ordering::Relaxed);
            }
            assert_eq!(board.shows().as_ref(), Some(&old));
            board.place().publish(&new, 3, 0).unwrap();
            assert_eq!(board.shows().as_ref(), Some(&new));
        }
    }

    /// A spoilt sheet is the one that is written again, so that a writer that dies then leaves the other.
    #[test]
    fn a_spoilt_sheet_hides_nothing_but_itself() {
        let board = Heap::new();
        board.place().publish(b"the first", 1, 0).unwrap();
        board.place().publish(b"the second", 2, 0).unwrap();
        let spoilt = usize::from(board.current.load(Ordering::Relaxed).sheet() == 1);
        board.words[spoilt][0].store(99, Ordering::Relaxed);
        assert_eq!(board.shows().unwrap(), b"the first");
        board.place().publish(b"the third", 3, 0).unwrap();
        assert_eq!(board.shows().unwrap(), b"the third");
        let other = board.place().sheets[1 - spoilt].read(board.place().identity);
        assert_eq!(other.unwrap().bytes, b"the first");
    }

    #[test]
    fn threads_that_publish_and_read_never_meet_a_mixture() {
        let rounds = if cfg!(miri) { 3 } else { 2_000 };
        let board = Heap::new();
        std::thread::scope(|scope| {
            for thread in 0..3_u8 {
                let board = &board;
                scope.spawn(move || {
                    for round in 0..rounds {
                        let byte = thread * 80 + u8::try_from(round % 80).unwrap();
                        let bytes = vec![byte; 100 + usize::from(byte) * 5];
                        let _ = board.place().publish(&bytes, u64::from(byte), 0);
                        let Some(seen) = board.place().read() else { continue };
                        let first = u64::from(seen.bytes[0]);
                        assert!(seen.bytes.iter().all(|&byte| u64::from(byte) == first));
                        assert_eq!(seen.bytes.len() as u64, 100 + first * 5);
                        assert_eq!(seen.published_us, first);
                    }
                });
            }
        });
        assert!(board.shows().is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes in prop::collection::vec(any::<u8>(), 0..8 * WORDS)) {
            let board = Heap::new();
            board.place().publish(&bytes, 1, 0).unwrap();
            prop_assert_eq!(board.shows(), Some(bytes));
        }

        #[test]
        fn any_words_are_read(current: u64, head: [u64; 4], length in 0_u64..4_000, cut: bool) {
            let board = Heap::new();
            board.current.store(BoardWord::from_bits(current), Ordering::Relaxed);
            for (word, bits) in board.heads[usize::from(current & 1 == 1)].iter().zip(head) {
                word.store(bits, Ordering::Relaxed);
            }
            if cut {
                board.heads[0][0].store(length, Ordering::Relaxed);
            }
            prop_assert_eq!(board.shows(), None);
            board.place().publish(b"again", 1, 0).unwrap();
            prop_assert_eq!(board.shows().unwrap(), b"again");
        }
    }
}
