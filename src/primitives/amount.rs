//! Amounts of money in a counter: fixed point, millionths, rounded so that no charge is ever lost.
//!
//! A counter has 38 bits, so an amount reaches 137,438.95 either way and stays there; a limit above that is
//! never reached, so it refuses at the end of the range. A charge is rounded up to the next millionth and a
//! refund down: after a million charges at most one unit too much is counted, and never too little.

use crate::layout::CounterWord;

/// Digits behind the point.
pub const DECIMALS: u32 = 6;
const UNITS: f64 = 1e6;

/// An amount in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Amount(i64);

impl Amount {
    /// Largest amount.
    pub const MAX: Self = Self(CounterWord::MAX);

    /// Rounds away from zero if positive and towards zero if negative, and saturates; `None` for what is not
    /// a number.
    pub fn from_f64(value: f64) -> Option<Self> {
        if value.is_nan() {
            return None;
        }
        // What is a multiple of a millionth but for the binary fraction must not be rounded up.
        let scaled = value * UNITS;
        let nearest = scaled.round();
        let exact = (scaled - nearest).abs() <= scaled.abs() * f64::EPSILON * 2.0;
        let units = if exact { nearest } else { scaled.ceil() };
        #[allow(clippy::cast_possible_truncation, reason = "a float cast saturates")]
        let units = units as i64;
        Some(Self::from_units(units))
    }

    /// From a counter's value.
    pub fn from_units(units: i64) -> Self {
        Self(units.clamp(CounterWord::MIN, CounterWord::MAX))
    }

    /// As a counter's value.
    pub fn units(self) -> i64 {
        self.0
    }

    /// As a number.
    #[allow(clippy::cast_precision_loss, reason = "38 bits fit into a float")]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / UNITS
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn charges_round_up_and_refunds_down() {
        let units = |value| Amount::from_f64(value).map(Amount::units);
        assert_eq!(units(0.000_001), Some(1));
        assert_eq!(units(0.000_000_15), Some(1));
        assert_eq!(units(-0.000_000_15), Some(0));
        assert_eq!(units(0.1), Some(100_000));
        assert_eq!(units(0.1 + 0.2), Some(300_000));
        assert_eq!(units(f64::NAN), None);
        assert_eq!(units(f64::INFINITY), Some(CounterWord::MAX));
        assert_eq!(units(-1e300), Some(CounterWord::MIN));
        assert_eq!(units(-0.0), Some(0));
    }

    proptest! {
        #[test]
        fn what_is_written_in_millionths_is_kept(units in -100_000_000_000_i64..100_000_000_000) {
            let amount = Amount::from_units(units);
            prop_assert_eq!(Amount::from_f64(amount.to_f64()), Some(amount));
        }

        #[test]
        fn never_too_little(value in 0.0..100_000.0_f64) {
            let amount = Amount::from_f64(value).expect("a number").to_f64();
            prop_assert!(amount >= value * (1.0 - 1e-15) && amount <= value + 1.1e-6, "{}", amount);
        }
    }
}
