//! Keys as arguments.

use super::outcome::Failure;
use crate::inspect::search::Wanted;
use clap::Args;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::io::BufRead;

/// What LiteLLM's own keys begin with.
const SECRET: &str = "sk-";

/// Which keys.
#[derive(Debug, Clone, Args)]
pub(super) struct Keys {
    /// A key as the program or LiteLLM knows it ({user:alice}, user:alice, sk-...), or as `inspect` shows it, or
    /// `#` and its hash; - reads them from standard input, one a line, so that no secret stands in `ps`.
    #[arg(value_name = "KEY")]
    pub(super) keys: Vec<String>,
}

impl Keys {
    /// All of them, those from standard input where the `-` is.
    pub(super) fn wanted(&self) -> Result<Vec<Wanted>, Failure> {
        let mut wanted = Vec::new();
        for key in &self.keys {
            if key != "-" {
                wanted.push(meant(key));
                continue;
            }
            for line in std::io::stdin().lock().lines() {
                let line = line.map_err(|error| {
                    Failure::Message(format!("cannot read keys from standard input: {error}"))
                })?;
                let line = line.trim_end_matches('\r');
                if !line.is_empty() {
                    wanted.push(meant(line));
                }
            }
        }
        if wanted.is_empty() {
            let message = "there is no key: give one, or one a line on standard input";
            return Err(Failure::Message(message.to_string()));
        }
        Ok(wanted)
    }
}

/// What is meant by a key. LiteLLM counts an API key under its SHA-256.
fn meant(key: &str) -> Wanted {
    let wanted = Wanted::new(key);
    if !key.starts_with(SECRET) {
        return wanted;
    }
    let mut token = String::with_capacity(64);
    for byte in Sha256::digest(key.as_bytes()) {
        let _ = write!(token, "{byte:02x}");
    }
    wanted.counted_as(token)
}
