//! The sections of a report.

/// A part of a report that can be read by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Section {
    /// The region itself.
    Header,
    /// Registered processes.
    Workers,
    /// Keys with their limits.
    Limits,
    /// Held concurrency slots by owner and key.
    Leases,
    /// Who leads which job.
    Leaders,
    /// Health of deployments.
    Deployments,
    /// Connection pools.
    Pools,
    /// Errors and switches of accelerated features.
    #[cfg_attr(feature = "cli", value(alias = "features"))]
    Breakers,
    /// What is published on the board.
    Notices,
    /// The latest events.
    Events,
    /// Counters summed over all workers.
    Stats,
    /// Measured durations.
    Series,
}

impl Section {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 12] = [
        Self::Header,
        Self::Workers,
        Self::Limits,
        Self::Leases,
        Self::Leaders,
        Self::Deployments,
        Self::Pools,
        Self::Breakers,
        Self::Notices,
        Self::Events,
        Self::Stats,
        Self::Series,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Workers => "workers",
            Self::Limits => "limits",
            Self::Leases => "leases",
            Self::Leaders => "leaders",
            Self::Deployments => "deployments",
            Self::Pools => "pools",
            Self::Breakers => "breakers",
            Self::Notices => "notices",
            Self::Events => "events",
            Self::Stats => "stats",
            Self::Series => "series",
        }
    }

    /// Its field in the report.
    pub fn field(self) -> &'static str {
        match self {
            // A feature's report says more than what its breaker is at.
            Self::Breakers => "features",
            _ => self.name(),
        }
    }
}
