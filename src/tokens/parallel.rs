//! Many texts, or a very long one, by several threads.

use super::Encoding;
use super::kinds::Kinds;
use super::split::Text;
use std::thread::Builder;

/// Fewer bytes than this for each thread, and starting it costs more than it saves.
const PART: usize = 1 << 16;

/// Never more threads than this.
const MOST_THREADS: usize = 64;

/// A result of each text, in their order. Every thread takes every so manyth text, so that neighbours of one size are
/// shared out; what a thread was to do that cannot be started is done here.
pub fn of_each<T: Sync + ?Sized, R: Send>(
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
    /// Appends the tokens of a text, as `encode_ordinary` does, by several threads if it is very long.
    pub fn encode_ordinary_by(&self, threads: usize, text: &str, tokens: &mut Vec<u32>) {
        let parts = parts_of(text, threads.min(text.len() / PART));
        if parts.len() == 1 {
            return self.encode_ordinary(text, tokens);
        }
        let of_parts = of_each(&parts, text.len(), threads, |part| {
            let mut tokens = Vec::new();
            self.encode_ordinary(part, &mut tokens);
            tokens
        });
        of_parts.iter().for_each(|part| tokens.extend_from_slice(part));
    }

    /// Tokens of a text, as `count` tells, by several threads if it is very long.
    pub fn count_by(&self, threads: usize, text: &str) -> usize {
        let parts = parts_of(text, threads.min(text.len() / PART));
        of_each(&parts, text.len(), threads, |part| self.count(part)).iter().sum()
    }
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
                let (mut whole, mut by_parts) = (Vec::new(), Vec::new());
                encoding.encode_ordinary(text, &mut whole);
                encoding.encode_ordinary_by(4, text, &mut by_parts);
                assert_eq!(whole, by_parts, "{name}");
                assert_eq!(encoding.count_by(4, text), whole.len());
            }
        }
    }
}
