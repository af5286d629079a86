//! What becomes of a call to a deployment: what it took, why it failed, and whether the deployment is cooled down
//! for that.

use super::Engine;
use super::health::{Cause, Failures};
use crate::error::OpError;
use crate::layout::{CounterWord, FailureKind};

/// Length of the window in which successes, failures and tokens are counted, seconds.
pub const WINDOW_S: u64 = 60;
/// Calls in the window from which on a share of failures says something.
const SHARE_OF: u64 = 5;
/// Calls in the window from which on a deployment without alternatives is cooled down, if all of them failed.
const HOPELESS: u64 = 1_000;

/// What a successful call took, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Taken {
    /// Tokens, in and out.
    pub tokens: i64,
    /// Money.
    pub cost: f64,
    /// Latency in microseconds.
    pub latency_us: Option<u64>,
    /// Time to the first token in microseconds.
    pub first_token_us: Option<u64>,
}

/// Words of error messages, without spaces, and what they mean. The first that is found counts.
const PHRASES: [(&[&str], FailureKind); 6] = [
    (&["ratelimit", "toomanyrequests", "quota"], FailureKind::RateLimited),
    (&["timeout", "timedout", "deadlineexceeded"], FailureKind::Timeout),
    (
        &["unauthorized", "authentication", "forbidden", "permissiondenied", "apikey"],
        FailureKind::Authentication,
    ),
    (&["notfound", "doesnotexist"], FailureKind::NotFound),
    (
        &[
            "badrequest",
            "invalidrequest",
            "unprocessable",
            "contentpolicy",
            "contextwindow",
            "contextlength",
        ],
        FailureKind::BadRequest,
    ),
    (
        &["internalserver", "serviceunavailable", "badgateway", "servererror", "overloaded"],
        FailureKind::Server,
    ),
];
/// Tried after the others, which mention it in passing.
const NO_CONNECTION: [&str; 4] = ["connect", "unreachable", "brokenpipe", "nameresolution"];

impl<'a> Cause<'a> {
    /// From an HTTP status, which says most; else from what an error says of itself.
    pub fn new(status: Option<u64>, text: &'a str) -> Self {
        if let Some(status) = status {
            return Self { kind: FailureKind::from_status(status), status, text };
        }
        let plain: String =
            text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        let says = |words: &[&str]| words.iter().any(|word| plain.contains(word));
        let kind = PHRASES.iter().find(|(words, _)| says(words)).map(|&(_, kind)| kind);
        if let Some(kind) = kind {
            return Self { kind, status: 0, text };
        }
        if let Some(status) = status_in(text) {
            return Self { kind: FailureKind::from_status(status), status, text };
        }
        let kind = if says(&NO_CONNECTION) { FailureKind::Connection } else { FailureKind::Other };
        Self { kind, status: 0, text }
    }

    /// An operator's.
    pub fn manual(text: &'a str) -> Self {
        Self { kind: FailureKind::Manual, status: 0, text }
    }
}

/// The first number in a text that may be the status of a failure.
fn status_in(text: &str) -> Option<u64> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.len() == 3)
        .filter_map(|word| word.parse().ok())
        .find(|status| (400..600).contains(status))
}

/// When a deployment that fails is cooled down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CooldownRule {
    /// So many failures in a row are allowed; `None` = half of at least five calls within the minute.
    pub allowed_fails: Option<u64>,
    /// For how long, milliseconds; 0 = never.
    pub for_ms: u64,
}

impl CooldownRule {
    /// Whether a failure calls for a cooldown. Of a deployment without alternatives only if there is no hope:
    /// without it, every request would fail for certain.
    pub fn calls_for_one(&self, failure: &Cause<'_>, counts: &Failures, alone: bool) -> bool {
        let Failures { in_window, successes, in_a_row } = *counts;
        // What is wrong with a request is not wrong with the deployment.
        let requests_fault = failure.status == 403
            || failure.kind == FailureKind::BadRequest && failure.status != 402;
        if self.for_ms == 0 || requests_fault {
            return false;
        }
        if alone {
            return successes == 0 && in_window >= HOPELESS;
        }
        let for_certain = failure.status == 402
            || matches!(
                failure.kind,
                FailureKind::RateLimited | FailureKind::Authentication | FailureKind::NotFound
            );
        for_certain
            || match self.allowed_fails {
                Some(allowed) => in_a_row > allowed,
                None => in_window + successes >= SHARE_OF && in_window > successes,
            }
    }
}

/// What calls to a deployment have used.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Used {
    /// Tokens in the present window.
    pub tokens: i64,
    /// Money since the first call, for at most half a year.
    pub cost: f64,
}

impl Engine {
    /// Records a success with what it took.
    ///
    /// # Errors
    /// `TableFull` or `Contended` when it cannot be recorded, at least not completely.
    pub fn call_succeeded(&self, id: &str, taken: &Taken) -> Result<(), OpError> {
        self.deployment_succeeded(id, WINDOW_S, taken.latency_us, taken.first_token_us)?;
        if taken.tokens > 0 {
            self.add(&tokens_key(id), taken.tokens, WINDOW_S)?;
        }
        if taken.cost > 0.0 {
            self.spend(&cost_key(id), taken.cost, CounterWord::MAX_TTL_S)?;
        }
        Ok(())
    }

    /// Records a failure, and cools the deployment down if the rule says so. True = it is cooled down for it.
    ///
    /// # Errors
    /// `TableFull` or `Contended` when it cannot be recorded.
    pub fn call_failed(
        &self,
        id: &str,
        failure: &Cause<'_>,
        rule: &CooldownRule,
        alone: bool,
    ) -> Result<bool, OpError> {
        let counts = self.deployment_failed(id, WINDOW_S, failure.kind, failure.status)?;
        let cools = rule.calls_for_one(failure, &counts, alone);
        if cools {
            self.cool_down(id, rule.for_ms, failure)?;
        }
        Ok(cools)
    }

    /// What calls to a deployment have used.
    pub fn used(&self, id: &str) -> Used {
        Used {
            tokens: self.value(&tokens_key(id)).unwrap_or(0),
            cost: self.spent(&cost_key(id)).unwrap_or(0.0),
        }
    }
}

fn tokens_key(id: &str) -> String {
    format!("deployment_tokens:{id}")
}

fn cost_key(id: &str) -> String {
    format!("deployment_cost:{id}")
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;

    const DEFAULT: CooldownRule = CooldownRule { allowed_fails: None, for_ms: 5_000 };
    const ERROR: Cause<'static> =
        Cause { kind: FailureKind::Server, status: 500, text: "it failed" };

    fn kind(text: &str) -> FailureKind {
        Cause::new(None, text).kind
    }

    #[test]
    fn errors_are_told_apart_by_what_they_say() {
        for (text, wanted) in [
            ("RateLimitError", FailureKind::RateLimited),
            ("Rate limit reached, retry in 500 ms", FailureKind::RateLimited),
            ("HTTP/1.1 429", FailureKind::RateLimited),
            ("ConnectTimeout", FailureKind::Timeout),
            ("Request timed out after 404 ms", FailureKind::Timeout),
            ("Incorrect API key provided", FailureKind::Authentication),
            ("Error code: 401", FailureKind::Authentication),
            ("The model `gpt-9` does not exist", FailureKind::NotFound),
            ("status=404", FailureKind::NotFound),
            ("BadRequestError", FailureKind::BadRequest),
            ("503", FailureKind::Server),
            ("Internal Server Error", FailureKind::Server),
            ("ConnectionRefusedError", FailureKind::Connection),
            ("took 14290 units of 4290", FailureKind::Other),
            ("é 42é", FailureKind::Other),
            ("", FailureKind::Other),
        ] {
            assert_eq!(kind(text), wanted, "{text}");
        }
        assert_eq!(Cause::new(None, "Error code: 402 - pay").status, 402);
        let told = Cause::new(Some(429), "timeout");
        assert_eq!((told.kind, told.status), (FailureKind::RateLimited, 429));
    }

    #[test]
    fn a_deployment_cools_down_at_once_only_for_what_will_not_pass() {
        let first = Failures { in_window: 1, successes: 0, in_a_row: 1 };
        for (status, at_once) in [
            (429, true),
            (401, true),
            (402, true),
            (404, true),
            (400, false),
            (403, false),
            (408, false),
            (422, false),
            (500, false),
            (503, false),
        ] {
            let failure = Cause::new(Some(status), "");
            assert_eq!(DEFAULT.calls_for_one(&failure, &first, false), at_once, "{status}");
            assert!(!DEFAULT.calls_for_one(&failure, &first, true), "{status} alone");
            let never = CooldownRule { for_ms: 0, ..DEFAULT };
            assert!(!never.calls_for_one(&failure, &first, false), "{status} never");
        }
    }

    #[test]
    fn a_share_of_failures_or_a_row_of_them_cools_down() {
        let counts = |in_window, successes, in_a_row| Failures { in_window, successes, in_a_row };
        let cools = |counts| DEFAULT.calls_for_one(&ERROR, &counts, false);
        assert!(!cools(counts(4, 0, 4)) && cools(counts(5, 0, 5)) && cools(counts(3, 2, 1)));
        assert!(!cools(counts(5, 5, 5)));
        let rule = CooldownRule { allowed_fails: Some(2), ..DEFAULT };
        let cools = |counts| rule.calls_for_one(&ERROR, &counts, false);
        assert!(!cools(counts(9, 0, 2)) && cools(counts(9, 90, 3)));
        let alone = |counts| DEFAULT.calls_for_one(&ERROR, &counts, true);
        assert!(!alone(counts(999, 0, 999)) && alone(counts(1_000, 0, 1)));
        assert!(!alone(counts(1_000, 1, 1)));
    }

    #[test]
    fn what_calls_take_is_counted() {
        let (engine, clock) = engine();
        let taken = Taken { tokens: 30, cost: 0.25, latency_us: Some(2_000), first_token_us: None };
        for _ in 0..3 {
            engine.call_succeeded("gpt", &taken).unwrap();
        }
        assert_eq!(engine.used("gpt"), Used { tokens: 90, cost: 0.75 });
        assert_eq!(engine.health("gpt").unwrap().latency_us, Some(2_000));
        clock.advance_s(WINDOW_S);
        assert_eq!(engine.used("gpt"), Used { tokens: 0, cost: 0.75 });
        assert_eq!(engine.used("never seen"), Used::default());
    }

    #[test]
    fn failures_cool_down_for_as_long_as_the_rule_says() {
        let (engine, clock) = engine();
        let fail = |alone| engine.call_failed("gpt", &ERROR, &DEFAULT, alone).unwrap();
        assert_eq!([false; 4].map(fail), [false; 4]);
        assert!(!fail(true) && engine.cooldown_left_ms("gpt") == 0);
        assert!(fail(false));
        assert_eq!(engine.cooldown_left_ms("gpt"), 5_000);
        assert_eq!(engine.health("gpt").unwrap().cooldown_reason, FailureKind::Server);
        clock.advance_s(5);
        assert_eq!(engine.cooldown_left_ms("gpt"), 0);
    }
}
