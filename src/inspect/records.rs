//! The records of a report, and their form in JSON.

use crate::engine::pool;
use serde::Serialize;

/// The region.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct HeaderReport {
    /// Layout version.
    pub layout: String,
    /// Kind of memory.
    pub backing: &'static str,
    /// Bytes.
    pub size: u64,
    /// Process that created it.
    pub creator_pid: u64,
    /// Unix seconds.
    pub created_at: u64,
    /// Seconds since it was created.
    pub age_s: u64,
    /// Times it was adopted by another process than a child.
    pub epoch: u64,
    /// Keys it has room for.
    pub key_capacity: u64,
    /// Keys in it.
    pub keys: u64,
    /// Chunks of 32 concurrency slots it has room for.
    pub chunk_capacity: u64,
    /// Chunks in use.
    pub chunks: u64,
    /// Rows of the worker table.
    pub worker_capacity: u64,
    /// False when the region's process ids mean nothing here: `alive` is then unknown.
    pub same_pid_namespace: bool,
    /// When it was copied, Unix seconds; absent where this is the region itself and not a dump.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dumped_at: Option<u64>,
}

/// One registered process.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct WorkerReport {
    /// Row of the worker table.
    pub row: usize,
    /// Registration of that row.
    pub generation: u64,
    /// Process id.
    pub pid: i32,
    /// `creator` (the master under `gunicorn --preload`) or `worker`.
    pub role: &'static str,
    /// `alive`, `dead` or `unknown`.
    pub alive: &'static str,
    /// Seconds since it registered.
    pub age_s: u64,
    /// Concurrency slots it holds.
    pub leases: u64,
    /// Window and slot decisions it took, over all holders of the row.
    pub decisions: u64,
    /// Decisions in a second, between two looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decisions_per_s: Option<f64>,
}

/// A counter and its limit.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Usage {
    /// Used.
    pub used: i64,
    /// Of what; absent where no limit has been seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl Usage {
    /// How much is used, percent; `None` without a limit.
    pub fn percent(self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss, reason = "one decimal is kept")]
        let percent =
            |limit: u64| (self.used.max(0) as f64 * 1_000.0 / limit as f64).round() / 10.0;
        self.limit.map(percent)
    }
}

/// Where a key's record is, and of which key it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordPlace {
    /// Number of the record.
    pub slot: usize,
    /// The key's identity.
    pub identity: u64,
}

/// One key.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct LimitReport {
    /// Its redacted name, or `#` and its hash while the name is not written.
    pub key: String,
    /// `window`, `gcra`, `sliding` or `counter`.
    pub kind: &'static str,
    /// Length of its window in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_s: Option<u64>,
    /// Seconds until its window is over, or its counter expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resets_in_s: Option<u64>,
    /// Requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<Usage>,
    /// Tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Usage>,
    /// Concurrency slots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<Usage>,
    /// `counter` of money: what was spent, in the caller's currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spent: Option<f64>,
    /// `gcra` and `sliding`: requests that would be admitted now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// `gcra` and `sliding`: milliseconds until one would be admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// How much of its tightest limit is used, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used_pct: Option<f64>,
    /// Operations admitted since the key is known.
    pub allowed: u64,
    /// Operations refused since the key is known.
    pub denied: u64,
    /// Operations admitted in a second, between two looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_per_s: Option<f64>,
    /// Operations refused in a second, between two looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied_per_s: Option<f64>,
    /// True when its record changed under every look, so that its numbers may not be of one moment.
    #[serde(skip_serializing_if = "is_false")]
    #[cfg_attr(feature = "cli", schemars(extend("default" = false)))]
    pub moving: bool,
    /// Its record, by which two looks are compared.
    #[serde(skip)]
    pub place: RecordPlace,
}

/// Slots of one owner under one key.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct LeaseReport {
    /// Redacted name of the key, deployment, job, pool or endpoint.
    pub key: String,
    /// Which of these it is: `key`, `deployment`, `job`, `pool` or `endpoint`.
    pub of: &'static str,
    /// Row of the owner.
    pub row: u32,
    /// Process id of the owner; absent when it is no longer registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// `alive`, `dead` or `unknown`.
    pub owner: &'static str,
    /// Slots held.
    pub held: u64,
    /// Those of them that are kept without being used: of idle connections.
    #[serde(skip_serializing_if = "is_none")]
    #[cfg_attr(feature = "cli", schemars(extend("default" = 0)))]
    pub idle: u64,
    /// Seconds that the oldest in use has been held; an endpoint's in its latest use, a job's since it was renewed.
    pub oldest_s: u64,
    /// What lease chunks call the holder, by which those that are shown alike are told apart.
    #[serde(skip)]
    pub key_slot: u64,
}

/// One job that is led.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct LeaderReport {
    /// Redacted name of the job.
    pub job: String,
    /// Row of the leader.
    pub row: u32,
    /// Process id of the leader; absent when it is no longer registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// `alive`, `dead` or `unknown`.
    pub owner: &'static str,
    /// Number of its term; absent while it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// Seconds that it has led.
    pub held_s: u64,
    /// Seconds since it last renewed its lease.
    pub renewed_s: u64,
}

/// One connection pool.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct PoolReport {
    /// Its redacted name.
    pub pool: String,
    /// Connections, idle ones included.
    pub connections: u64,
    /// Those of them that are kept without being used.
    pub idle: u64,
    /// Most that there may be, as far as a limit has been seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What happened.
    #[serde(flatten)]
    pub counts: pool::Counts,
    /// Its endpoints.
    pub endpoints: Vec<EndpointReport>,
}

/// One endpoint of a pool.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct EndpointReport {
    /// Its redacted name.
    pub endpoint: String,
    /// Connections, idle ones included.
    pub connections: u64,
    /// Those of them that are kept without being used.
    pub idle: u64,
    /// Most that there may be, as far as a limit has been seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// False after three failures in a row, until one success or half a minute without a failure.
    pub healthy: bool,
    /// Failures in a row that are not yet forgotten.
    #[cfg_attr(feature = "cli", schemars(extend("x-detail" = true)))]
    pub failures_in_a_row: u64,
    /// Failures since it is known.
    pub failures_total: u64,
    /// Kind of the latest failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<&'static str>,
    /// Its HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "cli", schemars(extend("x-detail" = true)))]
    pub last_status: Option<u64>,
    /// Seconds since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "cli", schemars(extend("x-detail" = true)))]
    pub last_failure_s: Option<u64>,
}

/// One notice. Its bytes may be secret and are not reported.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct NoticeReport {
    /// Its redacted name.
    pub notice: String,
    /// Bytes; absent when no sheet is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Seconds since it was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_s: Option<u64>,
    /// Seconds that it is still shown, 0 = it is over; absent when it always is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
    /// How often something was published under the name.
    pub published: u64,
}

/// Errors of one feature.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct FeatureReport {
    /// Number of the feature.
    pub feature: usize,
    /// What it is called; absent for a number of no feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'static str>,
    /// Its breaker: `closed` or `open`, which it is until a probe succeeds or it is reset.
    pub breaker: &'static str,
    /// Errors since the last reset.
    pub errors: u64,
    /// Errors since the region was created.
    pub errors_total: u64,
    /// Seconds since the latest error.
    pub last_s: u64,
    /// Its switch: `own` (each process follows its own configuration), `off`, `on` or `percent`.
    pub switch: &'static str,
    /// With the switch at `percent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u64>,
}

/// One deployment.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct DeploymentReport {
    /// Its redacted name, or `#` and its hash while the name is not written.
    pub deployment: String,
    /// Requests in flight.
    pub in_flight: u64,
    /// Milliseconds that it is still cooled down; 0 = it is not.
    pub cooldown_ms: u64,
    /// Why it is cooled down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown_reason: Option<&'static str>,
    /// Milliseconds that the cooldown was meant to last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "cli", schemars(extend("x-detail" = true)))]
    pub cooldown_for_ms: Option<u64>,
    /// HTTP status of what caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown_status: Option<u64>,
    /// What was said of it, with secrets masked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown_text: Option<String>,
    /// Successes in the present window.
    pub successes: u64,
    /// Failures in the present window.
    pub failures: u64,
    /// Failures since the latest success.
    #[cfg_attr(feature = "cli", schemars(extend("x-detail" = true)))]
    pub failures_in_a_row: u64,
    /// Successes since it is known.
    #[cfg_attr(feature = "cli", schemars(extend("x-detail" = true)))]
    pub successes_total: u64,
    /// Failures since it is known.
    #[cfg_attr(feature = "cli", schemars(extend("x-detail" = true)))]
    pub failures_total: u64,
    /// Kind of the latest failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<&'static str>,
    /// Its HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "cli", schemars(extend("x-detail" = true)))]
    pub last_status: Option<u64>,
    /// Seconds since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "cli", schemars(extend("x-detail" = true)))]
    pub last_failure_s: Option<u64>,
    /// Average latency in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// Average time to the first token in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_us: Option<u64>,
    /// Latest score, in millionths of its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score_us: Option<u64>,
    /// Successes in a second, between two looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub successes_per_s: Option<f64>,
    /// Failures in a second, between two looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures_per_s: Option<f64>,
    /// Its identity, by which two looks are compared.
    #[serde(skip)]
    pub id: u64,
}

/// One series of measurements.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct SeriesReport {
    /// Its name.
    pub series: String,
    /// Values.
    pub count: u64,
    /// Failed operations.
    pub errors: u64,
    /// Average in nanoseconds.
    pub mean_ns: u64,
    /// Median in nanoseconds, at most a quarter too large.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Largest value.
    pub max_ns: u64,
    /// Bytes that the operations were given, as far as it was told.
    pub input_bytes: u64,
    /// Bytes that they gave.
    pub output_bytes: u64,
}

/// One counter, summed over all workers.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct StatReport {
    /// Its name.
    pub counter: &'static str,
    /// What it has counted since the region was created.
    pub total: u64,
    /// In a second, between two looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_s: Option<f64>,
}

/// One event.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct EventReport {
    /// Its number, from 0.
    pub number: u64,
    /// Seconds since it happened.
    pub age_s: u64,
    /// What happened; see `shm_layout.md`.
    pub event: &'static str,
    /// Row of the worker that recorded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u32>,
    /// Name of the deployment or job that it is about, or `#` and a key's hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What its details say, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// First detail.
    #[cfg_attr(feature = "cli", schemars(extend("x-detail" = true)))]
    pub a: u64,
    /// Second detail.
    #[cfg_attr(feature = "cli", schemars(extend("x-detail" = true)))]
    pub b: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
pub(super) fn is_false(flag: &bool) -> bool {
    !*flag
}
