//! Byte pair encoding: the tokens of a text, in the encodings of tiktoken. It has nothing to do with the region.
//!
//! A text is split into pieces (`split`), and each piece into tokens (`merge`), most of them found whole (`recent`,
//! `word`). The tokens themselves come from tiktoken-rs; the special ones stand in `definition`.

#![allow(
    clippy::inline_always,
    reason = "of what is done for every few bytes, a call would be half"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "words are cut into the fields that they are made of"
)]

mod by_rank;
mod definition;
mod kinds;
mod merge;
mod pairs;
mod parallel;
mod recent;
mod special;
mod split;
mod trie;
mod vocabulary;
mod window;
mod word;

use definition::{Definition, VOCABULARIES};
use kinds::Kinds;
use merge::{Bench, merge};
use recent::{Few, Recent};
use special::SpecialTokens;
use split::{Gpt2, Gpt4, Gpt4o, Rules, Split, Text};
use std::cell::RefCell;
use std::collections::HashSet;
use tiktoken_rs::tokenizer::{Tokenizer, get_tokenizer};
use vocabulary::Vocabulary;
use word::{LONGEST, Word};

/// No token.
const NONE: u32 = u32::MAX;

/// What tokens are put into: a list, or a mere count.
trait Sink {
    fn few(&mut self, few: Few);
    fn many(&mut self, tokens: &[u32]);
}

impl Sink for Vec<u32> {
    #[inline(always)]
    fn few(&mut self, few: Few) {
        self.push(few.at(0));
        if few.len() > 1 {
            self.push(few.at(1));
            if few.len() > 2 {
                self.push(few.at(2));
            }
        }
    }

    fn many(&mut self, tokens: &[u32]) {
        self.extend_from_slice(tokens);
    }
}

/// How many tokens there are.
struct Count(usize);

impl Sink for Count {
    #[inline(always)]
    fn few(&mut self, few: Few) {
        self.0 += few.len();
    }

    fn many(&mut self, tokens: &[u32]) {
        self.0 += tokens.len();
    }
}

/// What a thread keeps for one vocabulary.
struct Memory {
    recent: Recent,
    bench: Bench,
}

/// By the vocabulary's number.
type Memories = [Option<Box<Memory>>; VOCABULARIES];

thread_local! {
    static MEMORIES: RefCell<Memories> = const { RefCell::new([const { None }; VOCABULARIES]) };
}

/// One encoding, with its tables.
#[derive(Clone, Copy)]
pub struct Encoding {
    definition: &'static Definition,
    kinds: &'static Kinds,
    vocabulary: &'static Vocabulary,
    special: &'static SpecialTokens,
}

/// A number that is no token of the encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Invalid token for decoding: {0}")]
pub struct UnknownToken(pub u32);

impl std::fmt::Debug for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Encoding").field(&self.name()).finish()
    }
}

impl Encoding {
    /// The names of all encodings.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Definition::names()
    }

    /// An encoding by its name in tiktoken; `None` = there is no such one.
    ///
    /// Loads its tables when they are wanted for the first time, some tenths of a second.
    pub fn named(name: &str) -> Option<Self> {
        Definition::named(name).map(Self::new)
    }

    /// With all its tables: nothing is left to be made by a count, in whose midst another thread may fork.
    fn new(definition: &'static Definition) -> Self {
        Self {
            definition,
            kinds: Kinds::get(),
            vocabulary: definition.vocabulary(),
            special: definition.special(),
        }
    }

    /// The encoding of a model; of one that is unknown, or that has a tokenizer of its own, `cl100k_base`, as
    /// LiteLLM does. A provider before the name (`azure/gpt-4o`) is passed over.
    pub fn of_model(model: Option<&str>) -> Self {
        let known = model.and_then(|model| {
            let name = model.rsplit_once('/').map_or(model, |(_provider, name)| name);
            get_tokenizer(model).or_else(|| get_tokenizer(name))
        });
        Self::new(Definition::of(known.unwrap_or(Tokenizer::Cl100kBase)))
    }

    /// Its name in tiktoken.
    pub fn name(&self) -> &'static str {
        self.definition.name
    }

    /// Appends the tokens of a text. What looks like a special token is text like any other.
    pub fn encode_ordinary(&self, text: &str, tokens: &mut Vec<u32>) {
        // English has a token for some five bytes.
        tokens.reserve(text.len() / 4);
        self.pour(text, tokens);
    }

    /// Tokens of a text. What looks like a special token is text like any other.
    pub fn count(&self, text: &str) -> usize {
        let mut count = Count(0);
        self.pour(text, &mut count);
        count.0
    }

    /// Appends the tokens of a text, of which the special tokens that are allowed stand for themselves.
    pub fn encode(&self, text: &str, allowed: &HashSet<&str>, tokens: &mut Vec<u32>) {
        let mut rest = text;
        while let Some(found) = self.special.first(rest, allowed) {
            self.encode_ordinary(&rest[..found.start], tokens);
            tokens.push(found.token);
            rest = &rest[found.end..];
        }
        self.encode_ordinary(rest, tokens);
    }

    /// Appends the tokens of bytes that are one piece, whatever is in them.
    pub fn encode_piece(&self, piece: &[u8], tokens: &mut Vec<u32>) {
        if !piece.is_empty() {
            self.with_memory(|memory| {
                tokens.extend_from_slice(merge(self.vocabulary, piece, &mut memory.bench));
            });
        }
    }

    /// The token that is just these bytes, a special one among them.
    pub fn token(&self, bytes: &[u8]) -> Option<u32> {
        match self.vocabulary.exact(bytes) {
            NONE => self.special.token(std::str::from_utf8(bytes).ok()?),
            token => Some(token),
        }
    }

    /// The bytes of a token, a special one among them.
    pub fn bytes(&self, token: u32) -> Result<&'static [u8], UnknownToken> {
        let bytes = self.vocabulary.bytes(token);
        if !bytes.is_empty() {
            return Ok(bytes);
        }
        self.special.text(token).map(str::as_bytes).ok_or(UnknownToken(token))
    }

    /// The bytes of tokens, one after the other.
    pub fn decode(&self, tokens: &[u32]) -> Result<Vec<u8>, UnknownToken> {
        let mut bytes = Vec::with_capacity(tokens.len() * 4);
        for &token in tokens {
            bytes.extend_from_slice(self.bytes(token)?);
        }
        Ok(bytes)
    }

    /// All tokens that are not special with their bytes, by rank.
    pub fn tokens(&self) -> impl Iterator<Item = (u32, &'static [u8])> {
        let vocabulary = self.vocabulary;
        (0..vocabulary.ranks())
            .map(|token| (token, vocabulary.bytes(token)))
            .filter(|(_, bytes)| !bytes.is_empty())
    }

    /// The special tokens, in no order.
    pub fn special_tokens(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.special.all()
    }

    fn with_memory<R>(&self, work: impl FnOnce(&mut Memory) -> R) -> R {
        MEMORIES.with_borrow_mut(|memories| {
            let memory = memories[self.definition.vocabulary_number()].get_or_insert_with(|| {
                Box::new(Memory { recent: Recent::new(), bench: Bench::new() })
            });
            let done = work(memory);
            memory.bench.tidy();
            done
        })
    }

    fn pour(&self, text: &str, sink: &mut impl Sink) {
        let text = Text::new(text, self.kinds);
        self.with_memory(|memory| match self.definition.rules {
            Rules::Gpt2 => self.pour_by::<Gpt2>(&text, sink, memory),
            Rules::Gpt4 => self.pour_by::<Gpt4>(&text, sink, memory),
            Rules::Gpt4o => self.pour_by::<Gpt4o>(&text, sink, memory),
        });
    }

    fn pour_by<S: Split>(&self, text: &Text<'_>, sink: &mut impl Sink, memory: &mut Memory) {
        let (bytes, vocabulary) = (text.bytes(), self.vocabulary);
        let mut at = 0;
        while let Some(end) = text.piece::<S>(at) {
            if end - at <= LONGEST {
                let word = Word::of(bytes, at, end);
                let few = memory.recent.get(word, || {
                    let token = vocabulary.word(word, &bytes[at..end]);
                    if token != NONE {
                        return Some(Few::one(token));
                    }
                    Few::new(merge(vocabulary, &bytes[at..end], &mut memory.bench))
                });
                match few {
                    Some(few) => sink.few(few),
                    // Too many to be remembered, and just made.
                    None => sink.many(memory.bench.tokens()),
                }
            } else {
                sink.many(merge(vocabulary, &bytes[at..end], &mut memory.bench));
            }
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(name: &str) -> Encoding {
        Encoding::named(name).unwrap()
    }

    fn ids(encoding: &Encoding, text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        encoding.encode_ordinary(text, &mut tokens);
        assert_eq!(encoding.count(text), tokens.len(), "{text:?}");
        assert_eq!(encoding.decode(&tokens).unwrap(), text.as_bytes());
        tokens
    }

    #[test]
    fn models_have_their_encodings() {
        let name = |model| Encoding::of_model(Some(model)).name();
        assert_eq!(name("gpt-4"), "cl100k_base");
        assert_eq!(name("gpt-4o-2024-05-13"), "o200k_base");
        assert_eq!(name("azure/gpt-4o"), "o200k_base");
        assert_eq!(name("claude-3-opus"), "cl100k_base");
        assert_eq!(Encoding::of_model(None).name(), "cl100k_base");
        assert!(Encoding::named("no_such_base").is_none());
    }

    #[test]
    fn known_tokens() {
        let gpt4 = encoding("cl100k_base");
        assert_eq!(ids(&gpt4, "Hello, world!"), [9906, 11, 1917, 0]);
        assert!(ids(&gpt4, "").is_empty());
        assert_eq!(ids(&gpt4, "<|endoftext|>").len(), 7, "as text, not as the special token");
    }

    #[test]
    fn special_tokens_stand_for_themselves_where_they_are_allowed() {
        let gpt4 = encoding("cl100k_base");
        let mut tokens = Vec::new();
        let text = "a<|<|endoftext|><|fim_prefix|> <|no|><|endoftext|>";
        gpt4.encode(text, &HashSet::from(["<|endoftext|>", "<|unknown|>"]), &mut tokens);
        let ends = tokens.iter().filter(|&&token| token == 100_257).count();
        assert_eq!(ends, 2);
        assert!(!tokens.contains(&100_258));
        assert_eq!(gpt4.decode(&tokens).unwrap(), text.as_bytes());
    }

    #[test]
    fn tokens_have_their_bytes() {
        let gpt3 = encoding("p50k_base");
        assert_eq!(gpt3.token(b"<|endoftext|>"), Some(50_256));
        assert_eq!(gpt3.bytes(50_256), Ok(&b"<|endoftext|>"[..]));
        assert_eq!(gpt3.token(b" hello"), Some(23_748));
        assert_eq!(gpt3.token(b"\xff\xff\xff"), None);
        assert_eq!(gpt3.decode(&[50_281]), Err(UnknownToken(50_281)));
        assert_eq!(gpt3.tokens().count(), 50_280);
    }

    #[test]
    fn a_piece_has_no_ends_within() {
        let gpt4 = encoding("cl100k_base");
        let mut tokens = Vec::new();
        gpt4.encode_piece(b"", &mut tokens);
        assert!(tokens.is_empty());
        gpt4.encode_piece(b"\xff\xfe hello", &mut tokens);
        assert_eq!(gpt4.decode(&tokens).unwrap(), b"\xff\xfe hello");
    }
}
