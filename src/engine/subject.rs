//! What a limiter key names: a subject and one of its words.
//!
//! LiteLLM's limiter calls its state `{api_key:<hash>}:window`, `...:requests`, `...:tokens` and
//! `...:max_parallel_requests`. The part in braces is the subject; its four words live in one bucket.
//! Any other key is a counter of its own.

use super::Engine;
use super::keys::Key;
use crate::error::OpError;
use crate::layout::{CounterWord, KeyKind, PairWord, WindowWord};
use crate::primitives::window::PairOf;
use crate::sync::Word;
use crate::tables::index::Held;
use crate::tables::names::redact;

/// One of a subject's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// When its window started.
    Window,
    /// Its request counter.
    Requests,
    /// Its token counter.
    Tokens,
    /// Its concurrency slots.
    Slots,
    /// Not a subject's word: the key is a counter of its own.
    Own,
}

impl Part {
    /// The limit that concerns this counter; 0 = unknown.
    pub fn limit(self, limits: PairWord) -> u64 {
        if self == Self::Tokens { limits.tokens() } else { limits.requests() }
    }
}

/// A counter of a key's bucket, with its window.
pub(super) type HeldPair<'a> = PairOf<Held<'a, WindowWord>, Held<'a, CounterWord>>;

/// A parsed key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// What the bucket is found by.
    pub name: &'a str,
    /// Which of its words.
    pub part: Part,
}

impl<'a> Subject<'a> {
    /// Parses a limiter key. Never fails: what is no subject is a counter of its own.
    pub fn parse(key: &'a str) -> Self {
        if let Some((name, suffix)) = key.rsplit_once(':')
            && name.starts_with('{')
            && name.ends_with('}')
        {
            let part = match suffix {
                "window" => Part::Window,
                "requests" => Part::Requests,
                "tokens" => Part::Tokens,
                "max_parallel_requests" => Part::Slots,
                _ => {
                    return Self { name: key, part: Part::Own };
                }
            };
            return Self { name, part };
        }
        Self { name: key, part: Part::Own }
    }

    fn kind(self) -> KeyKind {
        if self.part == Part::Own { KeyKind::Counter } else { KeyKind::Window }
    }
}

impl Engine {
    /// The subject's slot, inserted if needed.
    pub(super) fn subject(&self, subject: Subject<'_>) -> Result<Key<'_>, OpError> {
        let label = || redact(subject.name);
        self.key(subject.kind(), 0, subject.name.as_bytes(), label)
    }

    /// The subject's slot if it is known.
    pub(super) fn known_subject(&self, subject: Subject<'_>) -> Option<Key<'_>> {
        self.existing(subject.kind(), 0, subject.name.as_bytes())
    }

    /// What subjects without room share, if there have been any.
    pub(super) fn shared_subject(&self) -> Option<Key<'_>> {
        self.shared_key(KeyKind::Window, 0)
    }
}

impl<'a> Key<'a> {
    /// The window word of a subject.
    pub(super) fn window(&self) -> &'a Word<WindowWord> {
        &self.bucket.window
    }

    /// The counter that `part` names, with the window it belongs to; `None` for a part that is none.
    pub(super) fn pair(&self, part: Part) -> Option<HeldPair<'a>> {
        let (window, counter) = match part {
            Part::Requests => (true, self.state()),
            Part::Tokens => (true, self.held(|bucket| &bucket.tokens)),
            Part::Own => (false, self.state()),
            Part::Window | Part::Slots => return None,
        };
        // A window once opened may have been charged by others.
        let window = window.then(|| self.held(|bucket| &bucket.window).for_good());
        Some(PairOf { window, counter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limiter_keys_are_told_apart_from_everything_else() {
        let subject = |key| {
            let subject = Subject::parse(key);
            (subject.name, subject.part)
        };
        assert_eq!(subject("{api_key:a}:window"), ("{api_key:a}", Part::Window));
        assert_eq!(
            subject("{model_per_key:a:b:c}:tokens"),
            ("{model_per_key:a:b:c}", Part::Tokens)
        );
        assert_eq!(subject("{user:u}:max_parallel_requests"), ("{user:u}", Part::Slots));
        assert_eq!(subject("{user:u}:other"), ("{user:u}:other", Part::Own));
        assert_eq!(subject("user:u:requests"), ("user:u:requests", Part::Own));
        assert_eq!(subject("{user:x}:window:requests"), ("{user:x}:window:requests", Part::Own));
        assert_eq!(subject(""), ("", Part::Own));
    }
}
