//! Why a deployment is cooled down: for how long, the HTTP status, and a short text.
//!
//! A cause is rewritten by any process at any time, and its writer may die in the middle. Duration and
//! status are one word that carries a hash of its cooldown, so they are whole and of that cooldown or not
//! shown. The text is words that are stored one by one, and a head with a check over all of them, over the
//! first word and over the cooldown: a text that two writers met in, or one that belongs to another cooldown
//! or another deployment, does not agree with it and is not shown. Nobody waits, and nobody repairs: the next
//! cooldown brings its own.
//!
//! **Damage.** Any words are a cause that does not agree, or one that reads as any other would. Lengths are
//! cut to the record, and the duration to what the cooldown's end allows.

use super::names::{pack, shown, truncate};
use crate::layout::{CauseWord, CooldownWord, IdentityWord, TEXT_BYTES, TextWord};
use crate::primitives::mix;
use crate::sync::{Bits, Ordering, Word};

/// Characters of a secret that may be shown.
const SHOWN: usize = 6;
/// From this length on, a run that is not made of words is taken for a secret.
const SECRET_LEN: usize = 20;
/// From this length on, letters among digits are no version or size (`v1`, `4o`, `70b`).
const TOKEN_LEN: usize = 5;
/// Digits that may be a date or a number.
const DIGITS: usize = 8;
const MARK_MASK: u64 = (1 << 22) - 1;

/// The words of one cause.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Duration and status.
    pub cause: &'a Word<CauseWord>,
    /// Length and check of the text.
    pub head: &'a Word<TextWord>,
    /// UTF-8, eight bytes to a word.
    pub text: &'a [Word<u64>],
}

/// What a cause is of: one cooldown of one deployment.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// The deployment.
    pub identity: IdentityWord,
    /// Its cooldown, as it was swapped in.
    pub cooldown: CooldownWord,
}

/// A cause as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Milliseconds that the cooldown lasts.
    pub for_ms: u64,
    /// HTTP status, 0 = none.
    pub status: u64,
    /// The text; `None` = none was given, or it is not whole.
    pub text: Option<String>,
}

/// Writes the cause of a cooldown. The text is expected to have been [masked](mask).
pub fn write(place: Place<'_>, subject: Subject, for_ms: u64, status: u64, text: &str) {
    let text = &text.as_bytes()[..text.len().min(8 * place.text.len())];
    let cause = CauseWord::new(for_ms, status.min(1_023), mark(subject));
    let head = TextWord::new(text.len() as u64, check(subject, cause, text.len(), pack(text)));
    // Relaxed: what does not belong together does not agree.
    place.cause.store(cause, Ordering::Relaxed);
    for (word, packed) in place.text.iter().zip(pack(text)) {
        word.store(packed, Ordering::Relaxed);
    }
    // SYNC cause-complete: Release pairs with the Acquire of `read`.
    place.head.store(head, Ordering::Release);
}

/// The cause of that cooldown; `None` = it is not written, or is another one's.
pub fn read(place: Place<'_>, subject: Subject) -> Option<Known> {
    // SYNC cause-complete.
    let head = place.head.load(Ordering::Acquire);
    let cause = place.cause.load(Ordering::Relaxed);
    if cause.mark() != mark(subject) {
        return None;
    }
    let len = usize::try_from(head.length()).unwrap_or(0).min(8 * place.text.len());
    let words = place.text.iter().take(len.div_ceil(8)).map(|word| word.load(Ordering::Relaxed));
    let words: Vec<u64> = words.collect();
    let whole = len > 0 && check(subject, cause, len, words.iter().copied()) == head.check();
    let text = whole.then(|| {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).take(len).collect();
        shown(bytes)
    });
    Some(Known { for_ms: cause.for_ms(), status: cause.status(), text })
}

fn mark(subject: Subject) -> u64 {
    mix(subject.identity.bits() ^ mix(subject.cooldown.bits())) & MARK_MASK
}

fn check(subject: Subject, cause: CauseWord, len: usize, words: impl Iterator<Item = u64>) -> u64 {
    let first = [subject.identity.bits(), subject.cooldown.bits(), cause.bits()];
    let fold = |hash: u64, word| mix(hash ^ word).wrapping_add(hash);
    mix(first.into_iter().chain(words).fold(len as u64, fold)) >> 8
}

/// A text as it may be shown: of whatever may be a secret its first six characters and `..`, control
/// characters as spaces, cut to what a record holds.
///
/// Secrets are runs of letters, digits and `-_+/.` that have a part which begins with `sk-`, that follow
/// `Bearer` or the `:` or `=` of a key, token, secret or password, or that are 20 characters or longer and not
/// made of words, numbers and versions.
pub fn mask(text: &str) -> String {
    let is_run = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '/' | '.');
    let mut shown = String::with_capacity(TEXT_BYTES);
    let mut rest = text;
    let mut before = Before::default();
    while !rest.is_empty() && shown.len() < TEXT_BYTES {
        let (run, after) = rest.split_at(rest.find(|c| !is_run(c)).unwrap_or(rest.len()));
        let hide = run.len() > SHOWN && (before.announces() || is_secret(run));
        shown.push_str(run.get(..SHOWN).filter(|_| hide).unwrap_or(run));
        if hide {
            shown.push_str("..");
        }
        if !run.is_empty() {
            before = Before { run, assigned: false };
        }
        let (gap, next) = after.split_at(after.find(is_run).unwrap_or(after.len()));
        before.assigned |= gap.contains([':', '=']);
        let room = TEXT_BYTES.saturating_sub(shown.len());
        shown.extend(gap.chars().take(room).map(|c| if c.is_control() { ' ' } else { c }));
        rest = next;
    }
    truncate(&mut shown, TEXT_BYTES);
    shown
}

/// The run before another.
#[derive(Default)]
struct Before<'a> {
    run: &'a str,
    /// With `:` or `=` after it.
    assigned: bool,
}

impl Before<'_> {
    /// Whether it says that a secret follows.
    fn announces(&self) -> bool {
        let run = self.run.to_ascii_lowercase();
        let names = ["key", "token", "secret", "password", "authorization"];
        run == "bearer" || self.assigned && names.iter().any(|name| run.ends_with(name))
    }
}

fn is_secret(run: &str) -> bool {
    let part_begins = |c: char| matches!(c, '/' | '.' | '+');
    let mut parts = run.split(|c: char| part_begins(c) || matches!(c, '-' | '_'));
    run.split(part_begins).any(|part| part.starts_with("sk-"))
        || run.len() >= SECRET_LEN && parts.any(|part| !is_word(part))
}

/// Whether a part of a run is a word, a number or a version rather than a piece of a token.
fn is_word(part: &str) -> bool {
    let count = |kind: fn(&u8) -> bool| part.as_bytes().iter().filter(|byte| kind(byte)).count();
    let (digits, capitals) = (count(u8::is_ascii_digit), count(u8::is_ascii_uppercase));
    let digits_only = digits == part.len() && digits <= DIGITS;
    // Of letters only: all capitals, or as many as begin words.
    let letters = digits == 0 && (capitals == part.len() || 3 * capitals <= part.len().max(3));
    part.len() < TOKEN_LEN || digits_only || letters && part.len() < 2 * SECRET_LEN
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::layout::KeyKind;
    use crate::tables::index;
    use proptest::prelude::*;

    struct Words {
        cause: Word<CauseWord>,
        head: Word<TextWord>,
        text: [Word<u64>; 16],
    }

    impl Words {
        fn new() -> Self {
            Self {
                cause: Word::new(CauseWord::default()),
                head: Word::new(TextWord::default()),
                text: std::array::from_fn(|_| Word::new(0)),
            }
        }

        fn place(&self) -> Place<'_> {
            Place { cause: &self.cause, head: &self.head, text: &self.text }
        }
    }

    fn subject(deployment: u64, until_ms: u64) -> Subject {
        Subject {
            identity: index::identity(KeyKind::Named, deployment << 13),
            cooldown: CooldownWord::new(until_ms, 1, 1),
        }
    }

    fn known(for_ms: u64, status: u64, text: &str) -> Known {
        let text = (!text.is_empty()).then(|| text.to_string());
        Known { for_ms, status, text }
    }

    #[test]
    fn a_cause_is_its_own_cooldowns_only() {
        let words = Words::new();
        assert_eq!(read(words.place(), subject(1, 5_000)), None);
        write(words.place(), subject(1, 5_000), 4_000, 429, "no more");
        assert_eq!(read(words.place(), subject(1, 5_000)), Some(known(4_000, 429, "no more")));
        assert_eq!(read(words.place(), subject(1, 5_001)), None);
        assert_eq!(read(words.place(), subject(2, 5_000)), None);
        write(words.place(), subject(1, 6_000), 1_000, 0, "");
        assert_eq!(read(words.place(), subject(1, 6_000)), Some(known(1_000, 0, "")));
        assert_eq!(read(words.place(), subject(1, 5_000)), None);
    }

    /// Every state that a writer that dies leaves: duration and status are those of the cooldown, and the text
    /// is whole or not there.
    #[test]
    fn a_writer_that_dies_leaves_no_mixture() {
        let (old, new) = ("the provider had enough of it", "another provider is on holiday now");
        let end = Words::new();
        write(end.place(), subject(1, 9_000), 8_000, 503, new);
        for stored in 0..=new.len().div_ceil(8) {
            let words = Words::new();
            write(words.place(), subject(1, 5_000), 4_000, 429, old);
            words.cause.store(end.cause.load(Ordering::Relaxed), Ordering::Relaxed);
            for (word, new) in words.text.iter().zip(&end.text).take(stored) {
                word.store(new.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            let found = read(words.place(), subject(1, 9_000));
            assert_eq!(found, Some(known(8_000, 503, "")), "{stored} words");
            assert_eq!(read(words.place(), subject(1, 5_000)), None);
        }
    }

    #[test]
    fn no_text_shows_a_secret() {
        for (text, shown) in [
            (
                "Incorrect API key provided: sk-proj-abcdefgh. You can find your API key",
                "Incorrect API key provided: sk-pro.. You can find your API key",
            ),
            ("litellm.RateLimitError: RateLimitError: OpenAIException", ""),
            ("insufficient_quota_exceeded for gpt-4o-mini-2024-07-18 in org", ""),
            ("POST https://api.openai.com/v1/chat/completions: timed out", ""),
            ("ContentPolicyViolationError in anthropic.claude-3-5-sonnet-20241022-v2", ""),
            ("key=hunter2-plain", "key=hunter.."),
            ("'api_key': 'hunter2-plain'", "'api_key': 'hunter..'"),
            ("Authorization: Bearer abcdefgh", "Authorization: Bearer abcdef.."),
            ("max_tokens: 4096, password", ""),
            (
                "hash 88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b!",
                "hash 88dc28..!",
            ),
            ("id 550e8400-e29b-41d4-a716-446655440000", "id 550e84.."),
            ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "wJalrX.."),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "eyJhbG.."),
            ("two\nlines\0\u{1b}[31m", "two lines  [31m"),
            ("", ""),
        ] {
            assert_eq!(mask(text), if shown.is_empty() { text } else { shown });
        }
    }

    proptest! {
        #[test]
        fn any_text_is_cut_and_comes_back(text in "\\PC{0,200}", for_ms: u32, status in 0_u64..1_024) {
            let (words, shown) = (Words::new(), mask(&text));
            prop_assert!(shown.len() <= TEXT_BYTES && !shown.chars().any(char::is_control));
            write(words.place(), subject(1, 9), for_ms.into(), status, &shown);
            let found = read(words.place(), subject(1, 9));
            prop_assert_eq!(found, Some(known(for_ms.into(), status, &shown)));
        }

        #[test]
        fn a_long_token_is_never_shown(before in "[a-z ]{0,20}", token in "[0-9a-f]{32,64}", after in "[ ,.a-z]{0,9}") {
            let text = format!("{before} {token} {after}");
            prop_assume!(token.bytes().any(|byte| byte.is_ascii_digit()));
            prop_assert!(!mask(&text).contains(&token[..=SHOWN]));
        }

        #[test]
        fn any_words_are_read(cause: u64, head: u64, text: [u64; 16], marked: bool) {
            let words = Words::new();
            words.head.store(TextWord::from_bits(head), Ordering::Relaxed);
            for (word, bits) in words.text.iter().zip(text) {
                word.store(bits, Ordering::Relaxed);
            }
            let word = CauseWord::from_bits(cause);
            let word = if marked {
                CauseWord::new(word.for_ms(), word.status(), mark(subject(1, 9)))
            } else {
                word
            };
            words.cause.store(word, Ordering::Relaxed);
            let found = read(words.place(), subject(1, 9));
            prop_assert!(!marked || found == Some(known(word.for_ms(), word.status(), "")));
        }
    }
}
