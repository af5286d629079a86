//! How large a region is.

use crate::error::CreateError;
use crate::layout::OwnerTag;

/// Capacities of a region, fixed when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Keys that surely find room; 1,000 to 16,777,216.
    pub keys: u64,
    /// Chunks of 32 concurrency slots; a multiple of 8 from 64 to 1,048,576.
    pub lease_chunks: u64,
    /// Rows of the worker table, row 0 included; 4 to 1,024.
    pub workers: u64,
    /// Deployments whose health is kept; a multiple of 8 from 64 to 65,536.
    pub deployments: u64,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { keys: 1 << 16, lease_chunks: 1 << 13, workers: 256, deployments: 1 << 10 }
    }
}

impl Capacity {
    /// Checks every range, and rounds up what must be a multiple.
    pub fn checked(keys: i128, lease_chunks: i128, workers: i128) -> Result<Self, CreateError> {
        Ok(Self {
            keys: within("FAST_LITELLM_SHM_KEYS", keys, 1, 1 << 24)?.max(1_000),
            lease_chunks: groups("FAST_LITELLM_SHM_LEASE_CHUNKS", lease_chunks, 1 << 20)?,
            workers: within("FAST_LITELLM_SHM_WORKERS", workers, 4, OwnerTag::MAX_ROWS.into())?,
            ..Self::default()
        })
    }

    /// The same with room for so many deployments.
    pub fn with_deployments(self, deployments: i128) -> Result<Self, CreateError> {
        let deployments = groups("FAST_LITELLM_SHM_DEPLOYMENTS", deployments, 1 << 16)?;
        Ok(Self { deployments, ..self })
    }

    /// The nearest that a creator may have chosen.
    pub(crate) fn nearest(&self) -> Self {
        let groups = |value: u64, high| value.clamp(64, high).next_multiple_of(8);
        Self {
            keys: self.keys.clamp(1_000, 1 << 24),
            lease_chunks: groups(self.lease_chunks, 1 << 20),
            workers: self.workers.clamp(4, OwnerTag::MAX_ROWS.into()),
            deployments: groups(self.deployments, 1 << 16),
        }
    }

    /// Buckets that the keys are spread over: half as many again as there may be keys, so that each finds
    /// one in the few places where it looks.
    pub fn buckets(&self) -> u64 {
        (self.keys + self.keys / 2).next_multiple_of(8)
    }
}

/// What happens to a key for which the region has no room: every place it may stand in holds a key that is
/// in use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u64)]
pub enum Overflow {
    /// The operation fails, and its caller decides.
    #[default]
    Deny = 0,
    /// All such keys of one limiter share one state: nobody gets more than one key may have.
    Shared = 1,
    /// Each worker decides for itself, in its own memory: up to as many times the limit as there are
    /// workers.
    Local = 2,
}

impl Overflow {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Deny, Self::Shared, Self::Local];

    /// Decodes the header's number; what is unknown here denies.
    pub fn from_raw(raw: u64) -> Self {
        Self::ALL.into_iter().find(|&policy| policy as u64 == raw).unwrap_or_default()
    }

    /// As the setting is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Shared => "shared",
            Self::Local => "local",
        }
    }

    /// Reads the setting.
    pub fn parse(text: &str) -> Result<Self, CreateError> {
        Self::ALL.into_iter().find(|policy| policy.name() == text).ok_or_else(|| {
            CreateError::Setting {
                name: "FAST_LITELLM_SHM_OVERFLOW",
                value: text.to_string(),
                expected: "deny, shared or local".to_string(),
            }
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

fn groups(name: &'static str, value: i128, high: u64) -> Result<u64, CreateError> {
    Ok(within(name, value, 1, high)?.next_multiple_of(8).max(64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_are_rounded_up_and_bounded() {
        let capacity = Capacity::checked(1_000_001, 100, 8).unwrap().with_deployments(65).unwrap();
        assert_eq!((capacity.keys, capacity.buckets()), (1_000_001, 1_500_008));
        assert_eq!((capacity.lease_chunks, capacity.deployments), (104, 72));
        assert_eq!(capacity.nearest(), capacity);
        let odd = Capacity { keys: 3, lease_chunks: 1 << 60, workers: 0, deployments: 65 };
        let most = Capacity::checked(1, 1 << 20, 4).unwrap().with_deployments(65).unwrap();
        assert_eq!(odd.nearest(), most);
        assert!(capacity.with_deployments(0).is_err());
        for (keys, chunks, workers) in [
            (0, 64, 8),
            (-1, 64, 8),
            ((1 << 24) + 1, 64, 8),
            (1024, 0, 8),
            (1024, 64, 2),
            (i128::MAX, 64, 8),
        ] {
            let message = Capacity::checked(keys, chunks, workers).unwrap_err().to_string();
            assert!(message.contains("FAST_LITELLM_SHM_"), "{message}");
        }
    }
}
