//! Many texts, or very long ones, by several threads.

use super::kinds::Kinds;
use super::split::Text;
use super::{Encoding, UnknownToken};
use std::collections::HashSet;
use std::thread::Builder;

/// Fewer bytes than this for each thread, and starting it costs more than it saves.
const PART: usize = 1 << 16;

/// Never more threads than this.
const MOST_THREADS: usize = 64;

/// A result of each text, in their order. Every thread takes every so manyth text, so that neighbours of one size are
/// shared out; what a thread was to do that cannot be started is done here.
fn of_each<T: Sync + ?Sized, R: Send>(
    texts: &[&T],
    bytes: usize,
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let threads = threads.min(MOST_THREADS).min(bytes / PART + 1).min(texts.len());
    if threads <= 1 {
        return texts.iter().map(|text| work(text)).collect();
    }
    let part = |first: usize| -> Vec<R> {
        texts.iter().skip(first).step_by(threads).map(|text| work(text)).collect()
    };
    let part = &part;
    let mut parts: Vec<_> = std::thread::scope(|scope| {
        let start = |first| {
            Builder::new().spawn_scoped(scope, move || part(first)).map_err(|_unstarted| first)
        };
        let others: Vec<_> = (1..threads).map(start).collect();
        let mine = part(0);
        let theirs = others.into_iter().map(|other| match other {
            Ok(other) => other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(first) => part(first),
        });
        std::iter::once(mine).chain(theirs).map(Vec::into_iter).collect()
    });
    let next = |at: usize| parts[at % threads].next().expect("each thread did all of its texts");
    (0..texts.len()).map(next).collect()
}

/// A long text in about so many parts, none of which tokens would reach across.
fn parts_of(text: &str, parts: usize) -> Vec<&str> {
    let size = text.len() / parts.max(1) + 1;
    let characters = Text::new(text, Kinds::get());
    let (mut found, mut start) = (Vec::new(), 0);
    while let Some(cut) = (start + size..text.len()).find(|&at| characters.is_cut(at)) {
        found.push(&text[start..cut]);
        start = cut;
    }
    found.push(&text[start..]);
    found
}

impl Encoding {
    /// Tokens of each text, as `count` tells, by at most so many threads. Very long texts are shared out as well.
    pub fn count_all(&self, texts: &[&str], threads: usize) -> Vec<usize> {
        shared_out(texts, threads, |part| self.count(part), |count, more| *count += more)
    }

    /// The tokens of each text, as `encode` has them, by at most so many threads. Very long texts are shared out as
    /// well, unless special tokens are allowed, which might be cut.
    pub fn encode_all(
        &self,
        texts: &[&str],
        allowed: &HashSet<&str>,
        threads: usize,
    ) -> Vec<Vec<u32>> {
        let encode = |text: &str| {
            let mut tokens = Vec::new();
            self.encode(text, allowed, &mut tokens);
            tokens
        };
        if allowed.is_empty() {
            shared_out(texts, threads, encode, |tokens, more| tokens.extend_from_slice(&more))
        } else {
            of_each(texts, texts.iter().map(|text| text.len()).sum(), threads, encode)
        }
    }

    /// The bytes of each list of tokens, as `decode` has them, by at most so many threads.
    pub fn decode_all(
        &self,
        batch: &[&[u32]],
        threads: usize,
    ) -> Vec<Result<Vec<u8>, UnknownToken>> {
        let bytes = batch.iter().map(|tokens| size_of_val(*tokens)).sum();
        of_each(batch, bytes, threads, |tokens| self.decode(tokens))
    }
}

/// A result of each text, joined of those of its parts.
fn shared_out<R: Send>(
    texts: &[&str],
    threads: usize,
    work: impl Fn(&str) -> R + Sync,
    join: impl Fn(&mut R, R),
) -> Vec<R> {
    let bytes = texts.iter().map(|text| text.len()).sum();
    let of_texts: Vec<Vec<&str>> =
        texts.iter().map(|text| parts_of(text, threads.min(text.len() / PART))).collect();
    let mut results = of_each(&of_texts.concat(), bytes, threads, work).into_iter();
    of_texts
        .iter()
        .map(|parts| {
            let mut next = || results.next().expect("each part has a result");
            let mut result = next();
            parts[1..].iter().for_each(|_| join(&mut result, next()));
            result
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_change_no_order() {
        let texts: Vec<String> = (0..40).map(|n| "some words ".repeat(n * 40)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let lens: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        for threads in [0, 1, 3, 100] {
            assert_eq!(of_each(&texts, 1 << 30, threads, str::len), lens);
        }
        assert_eq!(of_each(&[], 0, 4, str::len), [0; 0]);
    }

    #[test]
    fn a_long_text_in_parts_has_the_same_tokens() {
        let english = "It isn't 12345 o'clock, but THE-END:\r\n\n  (see below)  ".repeat(6_000);
        let chinese = "\u{4f60}\u{597d}\u{ff0c}\u{4e16}\u{754c}\u{3002}\u{301}x".repeat(20_000);
        let unbroken = "x".repeat(300_000);
        for name in ["cl100k_base", "o200k_base", "r50k_base"] {
            let encoding = Encoding::named(name).unwrap();
            for (text, parts) in [(&english, 4), (&chinese, 4), (&unbroken, 1)] {
                assert_eq!(parts_of(text, 4).len(), parts);
                let mut whole = Vec::new();
                encoding.encode_ordinary(text, &mut whole);
                let texts = ["", text, "a b", text];
                let counts = [0, whole.len(), 2, whole.len()];
                assert_eq!(encoding.count_all(&texts, 4), counts, "{name}");
                for allowed in [HashSet::new(), HashSet::from(["<|endoftext|>"])] {
                    let encoded = encoding.encode_all(&texts, &allowed, 4);
                    assert_eq!(encoded.iter().map(Vec::len).collect::<Vec<_>>(), counts);
                    assert!(encoded[1] == whole && encoded[3] == whole, "{name}");
                }
            }
        }
    }
}
