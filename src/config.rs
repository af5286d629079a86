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

/// What one capacity may be, and what sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// Name for people.
    pub(crate) what: &'static str,
    /// The setting's environment variable.
    pub(crate) setting: &'static str,
    low: u64,
    high: u64,
    multiple_of: u64,
}

const KEYS: Range = Range {
    what: "key capacity",
    setting: "FAST_LITELLM_SHM_KEYS",
    low: 1_000,
    high: 1 << 24,
    multiple_of: 1,
};
const LEASE_CHUNKS: Range = Range {
    what: "chunk capacity",
    setting: "FAST_LITELLM_SHM_LEASE_CHUNKS",
    low: 64,
    high: 1 << 20,
    multiple_of: 8,
};
const WORKERS: Range = Range {
    what: "worker capacity",
    setting: "FAST_LITELLM_SHM_WORKERS",
    low: 4,
    high: OwnerTag::MAX_ROWS as u64,
    multiple_of: 1,
};
const DEPLOYMENTS: Range = Range {
    what: "deployment capacity",
    setting: "FAST_LITELLM_SHM_DEPLOYMENTS",
    low: 64,
    high: 1 << 16,
    multiple_of: 8,
};

impl Range {
    fn contains(&self, value: u64) -> bool {
        (self.low..=self.high).contains(&value) && value.is_multiple_of(self.multiple_of)
    }

    /// The nearest that may be to a setting of at least `low`: what is too little or no multiple is rounded up.
    fn checked(&self, value: i128, low: u64) -> Result<u64, CreateError> {
        let given = u64::try_from(value).ok().filter(|value| (low..=self.high).contains(value));
        let rounded = given.map(|value| value.max(self.low).next_multiple_of(self.multiple_of));
        rounded.ok_or_else(|| CreateError::Setting {
            name: self.setting,
            value: value.to_string(),
            expected: format!("{low} to {}", self.high),
        })
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.multiple_of {
            1 => write!(f, "{} to {}", self.low, self.high),
            of => write!(f, "a multiple of {of} from {} to {}", self.low, self.high),
        }
    }
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
            keys: KEYS.checked(keys, 1)?,
            lease_chunks: LEASE_CHUNKS.checked(lease_chunks, 1)?,
            workers: WORKERS.checked(workers, WORKERS.low)?,
            ..Self::default()
        })
    }

    /// The same with room for so many deployments.
    pub fn with_deployments(self, deployments: i128) -> Result<Self, CreateError> {
        Ok(Self { deployments: DEPLOYMENTS.checked(deployments, 1)?, ..self })
    }

    /// The first capacity that no creator can have chosen, with its value.
    pub(crate) fn fault(&self) -> Option<(Range, u64)> {
        let Self { keys, lease_chunks, workers, deployments } = *self;
        [(KEYS, keys), (LEASE_CHUNKS, lease_chunks), (WORKERS, workers), (DEPLOYMENTS, deployments)]
            .into_iter()
            .find(|(range, value)| !range.contains(*value))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_are_rounded_up_and_bounded() {
        let capacity = Capacity::checked(1_000_001, 100, 8).unwrap().with_deployments(65).unwrap();
        assert_eq!((capacity.keys, capacity.buckets()), (1_000_001, 1_500_008));
        assert_eq!((capacity.lease_chunks, capacity.deployments), (104, 72));
        assert_eq!((capacity.fault(), Capacity::default().fault()), (None, None));
        let least = Capacity::checked(1, 1, 4).unwrap().with_deployments(1).unwrap();
        let most = Capacity::checked(1 << 24, 1 << 20, 1 << 10).unwrap();
        let most = most.with_deployments(1 << 16).unwrap();
        assert_eq!((least.fault(), most.fault()), (None, None));
        for (wrong, what, value) in [
            (Capacity { keys: 999, ..least }, "key capacity", 999),
            (Capacity { keys: u64::MAX, ..least }, "key capacity", u64::MAX),
            (Capacity { lease_chunks: 65, ..least }, "chunk capacity", 65),
            (Capacity { lease_chunks: 1 << 60, ..least }, "chunk capacity", 1 << 60),
            (Capacity { workers: 3, ..least }, "worker capacity", 3),
            (Capacity { workers: 1_025, ..least }, "worker capacity", 1_025),
            (Capacity { deployments: 56, ..least }, "deployment capacity", 56),
            (Capacity { deployments: 65, ..least }, "deployment capacity", 65),
        ] {
            let (range, found) = wrong.fault().unwrap();
            assert_eq!((range.what, found), (what, value));
        }
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
