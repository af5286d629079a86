//! Money spent under a key, over all workers: a counter with an expiry, in millionths.

use super::Engine;
use super::subject::{Part, Subject};
use crate::error::OpError;
use crate::layout::PairWord;
use crate::primitives::amount::{Amount, DECIMALS};
use crate::sync::Ordering;

impl Engine {
    /// Adds to what was spent under `key`; the sum is forgotten `ttl_s` seconds after the first addition.
    /// Returns the new sum.
    ///
    /// # Errors
    /// `OutOfRange` when the amount is not a number, or the key is a limiter's subject.
    pub fn spend(&self, key: &str, amount: f64, ttl_s: u64) -> Result<f64, OpError> {
        let amount = Amount::from_f64(amount).ok_or(OpError::OutOfRange)?;
        if Subject::parse(key).part != Part::Own {
            return Err(OpError::OutOfRange);
        }
        let sum = self.add(key, amount.units(), ttl_s)?;
        if let Some(found) = self.known_subject(Subject::parse(key)) {
            // For inspectors, who would show units.
            let decimals = PairWord::new(0, u64::from(DECIMALS));
            if found.bucket.limits.load(Ordering::Relaxed) != decimals {
                found.bucket.limits.store(decimals, Ordering::Relaxed);
            }
        }
        Ok(Amount::from_units(sum).to_f64())
    }

    /// What was spent under `key`; `None` = nothing, or it is forgotten.
    pub fn spent(&self, key: &str) -> Option<f64> {
        let sum = self.value(key)?;
        Some(Amount::from_units(sum).to_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::engine;
    use super::*;

    #[test]
    fn spending_adds_up_and_is_forgotten() {
        let (engine, clock) = engine();
        assert_eq!(engine.spent("provider:openai"), None);
        for _ in 0..1_000 {
            engine.spend("provider:openai", 0.001_234, 3_600).unwrap();
        }
        assert_eq!(engine.spent("provider:openai"), Some(1.234));
        assert_eq!(engine.spend("provider:openai", -0.234, 3_600), Ok(1.0));
        clock.advance_s(3_600);
        assert_eq!(engine.spent("provider:openai"), None);
        assert_eq!(engine.spend("x", f64::NAN, 60), Err(OpError::OutOfRange));
        assert_eq!(engine.spend("{a:b}:tokens", 1.0, 60), Err(OpError::OutOfRange));
    }
}
