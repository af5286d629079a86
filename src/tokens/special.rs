//! Special tokens: a text has none unless it is allowed to.

use std::collections::{HashMap, HashSet};

const OPENING: &str = "<|";
const CLOSING: &[u8] = b"|>";

/// Those of one encoding. Each text begins with `<|` and ends with `|>`, neither of which is in between.
pub(super) struct SpecialTokens {
    by_text: HashMap<String, u32>,
    by_token: HashMap<u32, String>,
    /// Bytes of the longest one.
    longest: usize,
}

/// A special token in a text.
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) token: u32,
}

impl SpecialTokens {
    /// Of two texts for one token the first is what it stands for.
    pub(super) fn new(tokens: Vec<(String, u32)>) -> Self {
        let longest = tokens.iter().map(|(text, _)| text.len()).max().unwrap_or(0);
        let mut by_token = HashMap::new();
        for (text, token) in &tokens {
            by_token.entry(*token).or_insert_with(|| text.clone());
        }
        Self { by_text: tokens.into_iter().collect(), by_token, longest }
    }

    /// The token that has this text.
    pub(super) fn token(&self, text: &str) -> Option<u32> {
        self.by_text.get(text).copied()
    }

    /// The text of a token.
    pub(super) fn text(&self, token: u32) -> Option<&str> {
        self.by_token.get(&token).map(String::as_str)
    }

    /// All of them, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, u32)> {
        self.by_text.iter().map(|(text, &token)| (text.as_str(), token))
    }

    /// The first one in a text that is allowed.
    pub(super) fn first(&self, text: &str, allowed: &HashSet<&str>) -> Option<Found> {
        if allowed.is_empty() {
            return None;
        }
        text.match_indices(OPENING).find_map(|(start, _)| {
            let rest = &text.as_bytes()[start..];
            let within = rest.get(OPENING.len()..rest.len().min(self.longest))?;
            let inner = within.windows(CLOSING.len()).position(|two| two == CLOSING)?;
            let end = start + OPENING.len() + inner + CLOSING.len();
            let found = &text[start..end];
            let token = self.token(found)?;
            allowed.contains(found).then_some(Found { start, end, token })
        })
    }
}
