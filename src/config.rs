//! How large a region is.

use crate::error::CreateError;
use crate::layout::OwnerTag;

/// Capacities of a region, fixed when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Keys; a power of two from 1,024 to 8,388,608.
    pub keys: u64,
    /// Chunks of 32 concurrency slots; a power of two from 64 to 1,048,576.
    pub lease_chunks: u64,
    /// Rows of the worker table, row 0 included; 4 to 1,024.
    pub workers: u64,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { keys: 1 << 16, lease_chunks: 1 << 13, workers: 256 }
    }
}

impl Capacity {
    /// Rounds up to powers of two and checks every range.
    pub fn checked(keys: i128, lease_chunks: i128, workers: i128) -> Result<Self, CreateError> {
        Ok(Self {
            keys: round("FAST_LITELLM_SHM_KEYS", keys, 1 << 10, 1 << 23)?,
            lease_chunks: round("FAST_LITELLM_SHM_LEASE_CHUNKS", lease_chunks, 1 << 6, 1 << 20)?,
            workers: within("FAST_LITELLM_SHM_WORKERS", workers, 4, OwnerTag::MAX_ROWS.into())?,
        })
    }
}

fn within(name: &'static str, value: i128, low: u64, high: u64) -> Result<u64, CreateError> {
    u64::try_from(value).ok().filter(|value| (low..=high).contains(value)).ok_or_else(|| {
        CreateError::Setting {
            name,
            value: value.to_string(),
            expected: format!("{low} to {high}"),
        }
    })
}

fn round(name: &'static str, value: i128, low: u64, high: u64) -> Result<u64, CreateError> {
    Ok(within(name, value, 1, high)?.next_power_of_two().max(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_are_rounded_up_and_bounded() {
        let capacity = Capacity::checked(1_000_000, 100, 8).unwrap();
        assert_eq!((capacity.keys, capacity.lease_chunks), (1 << 20, 128));
        for (keys, chunks, workers) in [
            (0, 64, 8),
            (-1, 64, 8),
            (1 << 24, 64, 8),
            (1024, 0, 8),
            (1024, 64, 2),
            (i128::MAX, 64, 8),
        ] {
            let message = Capacity::checked(keys, chunks, workers).unwrap_err().to_string();
            assert!(message.contains("FAST_LITELLM_SHM_"), "{message}");
        }
    }
}
