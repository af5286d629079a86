//! The encodings by their names: how each splits, which tokens it has, and which special ones.

use super::special::SpecialTokens;
use super::split::Rules;
use super::vocabulary::Vocabulary;
use std::sync::OnceLock;
use tiktoken_rs::tokenizer::Tokenizer;
use tiktoken_rs::{CoreBPE, cl100k_base, o200k_base, p50k_base, r50k_base};

/// Vocabularies, of which some encodings share one.
pub(super) const VOCABULARIES: usize = 4;

/// What an encoding is.
pub(super) struct Definition {
    /// Its name in tiktoken.
    pub(super) name: &'static str,
    pub(super) rules: Rules,
    source: &'static Source,
    special: fn() -> Vec<(String, u32)>,
    loaded: OnceLock<SpecialTokens>,
}

/// Where a vocabulary comes from.
struct Source {
    /// One of `VOCABULARIES`.
    number: usize,
    /// Behind its last rank.
    ranks: u32,
    /// A rank that is no token of it.
    hole: Option<u32>,
    read: fn() -> CoreBPE,
    loaded: OnceLock<Vocabulary>,
}

const END_OF_TEXT: &str = "<|endoftext|>";

const CARRIED: &str = "tiktoken-rs carries its tables";

static CL100K: Source = Source::new(0, 100_256, None, || cl100k_base().expect(CARRIED));
static O200K: Source = Source::new(1, 199_998, None, || o200k_base().expect(CARRIED));
// What it adds to r50k comes behind that one's special token.
static P50K: Source = Source::new(2, 50_281, Some(50_256), || p50k_base().expect(CARRIED));
static R50K: Source = Source::new(3, 50_256, None, || r50k_base().expect(CARRIED));

static DEFINITIONS: [Definition; 7] = [
    Definition::new("cl100k_base", Rules::Gpt4, &CL100K, || {
        named(&[
            (END_OF_TEXT, 100_257),
            ("<|fim_prefix|>", 100_258),
            ("<|fim_middle|>", 100_259),
            ("<|fim_suffix|>", 100_260),
            ("<|endofprompt|>", 100_276),
        ])
    }),
    Definition::new("gpt2", Rules::Gpt2, &R50K, || named(&[(END_OF_TEXT, 50_256)])),
    Definition::new("o200k_base", Rules::Gpt4o, &O200K, o200k_special),
    Definition::new("o200k_harmony", Rules::Gpt4o, &O200K, harmony_special),
    Definition::new("p50k_base", Rules::Gpt2, &P50K, || named(&[(END_OF_TEXT, 50_256)])),
    Definition::new("p50k_edit", Rules::Gpt2, &P50K, || {
        named(&[
            (END_OF_TEXT, 50_256),
            ("<|fim_prefix|>", 50_281),
            ("<|fim_middle|>", 50_282),
            ("<|fim_suffix|>", 50_283),
        ])
    }),
    Definition::new("r50k_base", Rules::Gpt2, &R50K, || named(&[(END_OF_TEXT, 50_256)])),
];

fn named(tokens: &[(&str, u32)]) -> Vec<(String, u32)> {
    tokens.iter().map(|&(text, token)| (text.to_string(), token)).collect()
}

fn o200k_special() -> Vec<(String, u32)> {
    named(&[(END_OF_TEXT, 199_999), ("<|endofprompt|>", 200_018)])
}

/// Those of gpt-oss: what o200k has, some with a name, and the rest of the numbers reserved. 200018 has two names.
fn harmony_special() -> Vec<(String, u32)> {
    let with_a_name = [
        ("<|startoftext|>", 199_998),
        ("<|return|>", 200_002),
        ("<|constrain|>", 200_003),
        ("<|channel|>", 200_005),
        ("<|start|>", 200_006),
        ("<|end|>", 200_007),
        ("<|message|>", 200_008),
        ("<|call|>", 200_012),
    ];
    let reserved = (200_000..201_088)
        .filter(|token| with_a_name.iter().all(|(_, named)| named != token))
        .map(|token| (format!("<|reserved_{token}|>"), token));
    o200k_special().into_iter().chain(named(&with_a_name)).chain(reserved).collect()
}

impl Source {
    const fn new(number: usize, ranks: u32, hole: Option<u32>, read: fn() -> CoreBPE) -> Self {
        Self { number, ranks, hole, read, loaded: OnceLock::new() }
    }

    fn load(&self) -> Vocabulary {
        let core = (self.read)();
        let tokens: Vec<Vec<u8>> = (0..self.ranks)
            .map(|rank| {
                if self.hole == Some(rank) {
                    Vec::new()
                } else {
                    core.decode_bytes(&[rank]).expect("it has all of them")
                }
            })
            .collect();
        Vocabulary::new(&tokens)
    }
}

impl Definition {
    const fn new(
        name: &'static str,
        rules: Rules,
        source: &'static Source,
        special: fn() -> Vec<(String, u32)>,
    ) -> Self {
        Self { name, rules, source, special, loaded: OnceLock::new() }
    }

    /// That of an encoding by its name in tiktoken.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        DEFINITIONS.iter().find(|definition| definition.name == name)
    }

    /// The names of all encodings.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        DEFINITIONS.iter().map(|definition| definition.name)
    }

    /// That which tiktoken-rs has for a model.
    pub(super) fn of(tokenizer: Tokenizer) -> &'static Self {
        let name = match tokenizer {
            Tokenizer::O200kHarmony => "o200k_harmony",
            Tokenizer::O200kBase => "o200k_base",
            Tokenizer::Cl100kBase => "cl100k_base",
            Tokenizer::P50kBase => "p50k_base",
            Tokenizer::P50kEdit => "p50k_edit",
            Tokenizer::R50kBase | Tokenizer::Gpt2 => "r50k_base",
        };
        Self::named(name).expect("each of these names is one")
    }

    /// Its tokens, loaded when they are wanted for the first time.
    pub(super) fn vocabulary(&self) -> &'static Vocabulary {
        self.source.loaded.get_or_init(|| self.source.load())
    }

    /// Which of all vocabularies it has.
    pub(super) fn vocabulary_number(&self) -> usize {
        self.source.number
    }

    /// Its special tokens.
    pub(super) fn special(&'static self) -> &'static SpecialTokens {
        self.loaded.get_or_init(|| SpecialTokens::new((self.special)()))
    }
}
