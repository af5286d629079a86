//! `SimpleRateLimiter`.

use super::convert::{Whole, key_bytes};
use super::errors::OutOfRangeError;
use super::place_cache::PlaceCache;
use super::region::{Region, shared_engine};
use crate::engine::Engine;
use crate::engine::quota::Limiter;
use crate::engine::sampling::Timed;
use crate::error::OpError;
use crate::primitives::gcra::{Decision, Quota};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use std::sync::Arc;

/// The key of requests that name none.
const DEFAULT_KEY: &[u8] = b"default";
/// Series of the checks that are explained.
const CHECK: &str = "rust_rate_limiter.check_rate_limit";
/// What a caller is told to wait when the region could not decide, milliseconds.
const UNDECIDED_RETRY_MS: u64 = 1_000;

/// Limits requests per minute, exactly, over all workers that share the region.
///
/// The algorithm is GCRA (a token bucket in one word): up to `burst` requests at once, and
/// `requests_per_minute` on average; in any stretch of T minutes never more than
/// `burst + requests_per_minute * T + 1`. Two limiters share the quota of a key only if they agree in
/// rate, burst and name.
///
/// Args:
///     requests_per_minute: 1 to 60,000,000.
///     burst: requests that may arrive at once. Default: a tenth of the rate, but at least five, or the
///         whole rate when that is lower.
///     name: set it to keep limiters of one rate apart.
///     region: a region other than the process's own.
///
/// Raises:
///     OutOfRangeError (a ValueError): rate or burst out of range.
///     RegionError: no region exists and none can be created.
#[pyclass(frozen, subclass, module = "fast_litellm")]
pub(super) struct SimpleRateLimiter {
    engine: Arc<Engine>,
    limiter: Limiter,
    places: PlaceCache,
    timed: Timed,
}

fn quota(requests_per_minute: i128, burst: Option<i128>) -> PyResult<Quota> {
    let burst = burst.unwrap_or_else(|| (requests_per_minute / 10).max(requests_per_minute.min(5)));
    let both = u32::try_from(requests_per_minute).ok().zip(u32::try_from(burst).ok());
    both.and_then(|(rate, burst)| Quota::new(rate, burst)).ok_or_else(|| {
        OutOfRangeError::new_err(format!(
            "requests_per_minute={requests_per_minute} with burst={burst}: use a rate of 1 to {} and a \
             burst of at least 1 that the rate earns within a year",
            Quota::MAX_PER_MINUTE
        ))
    })
}

#[pymethods]
impl SimpleRateLimiter {
    #[new]
    #[pyo3(
        signature = (requests_per_minute = Whole(60), *, burst = None, name = "", region = None),
        text_signature = "(requests_per_minute=60, *, burst=None, name='', region=None)",
    )]
    fn new(
        py: Python<'_>,
        requests_per_minute: Whole,
        burst: Option<Whole>,
        name: &str,
        region: Option<&Bound<'_, Region>>,
    ) -> PyResult<Self> {
        let quota = quota(requests_per_minute.0, burst.map(|burst| burst.0))?;
        let engine = match region {
            Some(region) => region.get().engine(),
            None => shared_engine(py)?,
        };
        let limiter = engine.limiter(name, quota);
        Ok(Self { engine, limiter, places: PlaceCache::new(), timed: Timed::new(CHECK) })
    }

    /// Charges one request to `key` and tells whether it is admitted.
    ///
    /// Refuses, and counts it, when the region has no room for the key. Never blocks; safe from any
    /// thread and from an event loop.
    #[pyo3(signature = (key = None))]
    fn is_allowed(&self, key: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        Ok(matches!(self.decide(key)?, Ok(Decision::Allowed { .. })))
    }

    /// Charges one request to `key` and explains the answer.
    ///
    /// Returns:
    ///     `allowed` (bool), `reason` ("ok", "rate_limited", "table_full" or "contended"),
    ///     `remaining_requests` (int: would be admitted now), `retry_after_ms` (int, or None when
    ///     allowed).
    #[pyo3(signature = (key = None))]
    fn check<'py>(
        &self,
        py: Python<'py>,
        key: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (allowed, reason, remaining, retry_ms) = match self.decide_timed(key)? {
            Ok(Decision::Allowed { spare_us, .. }) => {
                (true, "ok", self.limiter.quota().requests_in(spare_us), None)
            }
            Ok(Decision::Denied { retry_after_us }) => {
                (false, "rate_limited", 0, Some(retry_after_us.div_ceil(1_000)))
            }
            Err(OpError::Contended) => (false, "contended", 0, Some(UNDECIDED_RETRY_MS)),
            Err(_) => (false, "table_full", 0, Some(UNDECIDED_RETRY_MS)),
        };
        let answer = PyDict::new(py);
        answer.set_item(intern!(py, "allowed"), allowed)?;
        answer.set_item(intern!(py, "reason"), reason)?;
        answer.set_item(intern!(py, "remaining_requests"), remaining)?;
        answer.set_item(intern!(py, "retry_after_ms"), retry_ms)?;
        Ok(answer)
    }

    /// Requests that `key` could make right now. Charges nothing.
    #[pyo3(signature = (key = None))]
    fn get_remaining(&self, key: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
        Ok(match key {
            Some(key) => self.engine.remaining(&self.limiter, &key_bytes(key)?),
            None => self.engine.remaining(&self.limiter, DEFAULT_KEY),
        })
    }

    /// What this limiter's rate has seen, over all workers and since the region was created.
    ///
    /// Returns:
    ///     `requests_per_minute`, `burst`, `total_checks`, `allowed_count`, `denied_count`,
    ///     `active_keys` (keys ever seen with this rate and burst).
    fn get_stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let quota = self.limiter.quota();
        let totals = py.detach(|| self.engine.limiter_totals(Some(quota)));
        let stats = PyDict::new(py);
        stats.set_item("requests_per_minute", quota.per_minute())?;
        stats.set_item("burst", quota.burst())?;
        stats.set_item("total_checks", totals.checks())?;
        stats.set_item("allowed_count", totals.allowed)?;
        stats.set_item("denied_count", totals.denied)?;
        stats.set_item("active_keys", totals.keys)?;
        Ok(stats)
    }

    /// Requests per minute.
    #[getter]
    fn requests_per_minute(&self) -> u32 {
        self.limiter.quota().per_minute()
    }

    /// Requests that may arrive at once.
    #[getter]
    fn burst(&self) -> u32 {
        self.limiter.quota().burst()
    }
}

impl SimpleRateLimiter {
    /// Decides, and is timed now and then: a decision that the region could not take has failed.
    #[inline]
    fn decide_timed(&self, key: Option<&Bound<'_, PyAny>>) -> PyResult<Result<Decision, OpError>> {
        let failed = |answer: &PyResult<Result<_, _>>| !matches!(answer, Ok(Ok(_)));
        self.engine.timed(&self.timed, || self.decide(key), failed)
    }

    #[inline]
    fn decide(&self, key: Option<&Bound<'_, PyAny>>) -> PyResult<Result<Decision, OpError>> {
        let Some(key) = key.filter(|key| !key.is_none()) else {
            return Ok(self.engine.check(&self.limiter, DEFAULT_KEY));
        };
        if key.is_exact_instance_of::<PyString>() {
            let hash = key.hash()?.cast_unsigned() as u64;
            let known = self.places.get(hash);
            if let Some(answer) = known.and_then(|at| self.engine.check_at(&self.limiter, at)) {
                return Ok(answer);
            }
            match self.engine.place(&self.limiter, &key_bytes(key)?) {
                Err(error) => return Ok(Err(error)),
                Ok(place) => {
                    self.places.insert(hash, place);
                    if let Some(answer) = self.engine.check_at(&self.limiter, place) {
                        return Ok(answer);
                    }
                }
            }
        }
        Ok(self.engine.check(&self.limiter, &key_bytes(key)?))
    }
}

/// Does nothing with a string: the floor under every call, for benchmarks.
#[pyfunction]
#[pyo3(signature = (key, /))]
pub(super) fn noop(key: &str) -> bool {
    !key.is_empty()
}
