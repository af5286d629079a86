//! How many tokens a text is, in the encodings of tiktoken. It has nothing to do with the region.

use std::panic::{AssertUnwindSafe, catch_unwind};
use tiktoken_rs::tokenizer::{Tokenizer, get_tokenizer};
use tiktoken_rs::{
    CoreBPE, cl100k_base_singleton, o200k_base_singleton, o200k_harmony_singleton,
    p50k_base_singleton, p50k_edit_singleton, r50k_base_singleton,
};

/// Texts of fewer bytes together are counted by the calling thread alone: starting others costs more.
const PARALLEL_FROM: usize = 1 << 16;

/// Never more threads than this.
const MOST_THREADS: usize = 64;

/// One encoding, with its tables.
#[derive(Clone, Copy)]
pub struct Encoding {
    tables: &'static CoreBPE,
    name: &'static str,
}

impl std::fmt::Debug for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Encoding").field(&self.name).finish()
    }
}

/// A text on which the encoding's splitter gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a text of {bytes} bytes cannot be split into tokens; count it in parts")]
pub struct Unsplittable {
    /// Its length.
    pub bytes: usize,
}

impl Encoding {
    /// The encoding of a model; of one that is unknown, or that has a tokenizer of its own, `cl100k_base`, as
    /// LiteLLM does. A provider before the name (`azure/gpt-4o`) is passed over.
    ///
    /// Loads its tables when they are wanted for the first time, some tenths of a second.
    pub fn of_model(model: Option<&str>) -> Self {
        let known = model.and_then(|model| {
            let name = model.rsplit_once('/').map_or(model, |(_provider, name)| name);
            get_tokenizer(model).or_else(|| get_tokenizer(name))
        });
        let (tables, name) = match known.unwrap_or(Tokenizer::Cl100kBase) {
            Tokenizer::O200kHarmony => (o200k_harmony_singleton(), "o200k_harmony"),
            Tokenizer::O200kBase => (o200k_base_singleton(), "o200k_base"),
            Tokenizer::Cl100kBase => (cl100k_base_singleton(), "cl100k_base"),
            Tokenizer::P50kBase => (p50k_base_singleton(), "p50k_base"),
            Tokenizer::P50kEdit => (p50k_edit_singleton(), "p50k_edit"),
            Tokenizer::R50kBase | Tokenizer::Gpt2 => (r50k_base_singleton(), "r50k_base"),
        };
        Self { tables, name }
    }

    /// Its name in tiktoken.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Tokens of a text. What looks like a special token is text like any other.
    pub fn count(self, text: &str) -> Result<u64, Unsplittable> {
        // The splitter backtracks, and gives up with a panic on what is too much for it.
        catch_unwind(AssertUnwindSafe(|| self.tables.encode_ordinary(text).len() as u64))
            .map_err(|_| Unsplittable { bytes: text.len() })
    }

    /// Tokens of each text, counted by several threads where that is quicker.
    pub fn count_all(self, texts: &[&str], threads: usize) -> Result<Vec<u64>, Unsplittable> {
        let bytes: usize = texts.iter().map(|text| text.len()).sum();
        let threads = threads.min(MOST_THREADS).min(bytes / PARALLEL_FROM + 1).min(texts.len());
        if threads <= 1 {
            return texts.iter().map(|text| self.count(text)).collect();
        }
        // Every thread takes every so manyth text, so that neighbours of one size are shared out.
        let part = |first: usize| -> Result<Vec<u64>, Unsplittable> {
            texts.iter().skip(first).step_by(threads).map(|text| self.count(text)).collect()
        };
        let parts: Vec<_> = std::thread::scope(|scope| {
            let others: Vec<_> =
                (1..threads).map(|first| scope.spawn(move || part(first))).collect();
            let mine = part(0);
            let theirs =
                others.into_iter().map(|other| other.join().unwrap_or(Err(Unsplittable { bytes })));
            std::iter::once(mine).chain(theirs).collect::<Result<_, _>>()
        })?;
        Ok((0..texts.len()).map(|at| parts[at % threads][at / threads]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_their_encodings() {
        let name = |model| Encoding::of_model(Some(model)).name();
        assert_eq!(name("gpt-4"), "cl100k_base");
        assert_eq!(name("gpt-4o-2024-05-13"), "o200k_base");
        assert_eq!(name("azure/gpt-4o"), "o200k_base");
        assert_eq!(name("claude-3-opus"), "cl100k_base");
        assert_eq!(Encoding::of_model(None).name(), "cl100k_base");
    }

    #[test]
    fn known_counts() {
        let gpt4 = Encoding::of_model(Some("gpt-4"));
        assert_eq!(gpt4.count("Hello, world!"), Ok(4));
        assert_eq!(gpt4.count(""), Ok(0));
        assert_eq!(gpt4.count("<|endoftext|>"), Ok(7), "as text, not as the special token");
    }

    #[test]
    fn what_the_splitter_cannot_do_is_an_error() {
        let spaces = " ".repeat(3_000_000) + "x";
        let counted = Encoding::of_model(None).count(&spaces);
        assert_eq!(counted, Err(Unsplittable { bytes: 3_000_001 }));
    }

    #[test]
    fn threads_change_nothing() {
        let encoding = Encoding::of_model(None);
        let texts: Vec<String> = (0..40).map(|n| "some words ".repeat(n * 40)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let one_by_one = encoding.count_all(&texts, 1);
        assert_eq!(encoding.count_all(&texts, 3), one_by_one);
        assert_eq!(one_by_one.unwrap()[7], encoding.count(texts[7]).unwrap());
        assert_eq!(encoding.count_all(&[], 4), Ok(vec![]));
    }
}
