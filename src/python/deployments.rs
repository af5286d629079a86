//! Deployments: what all workers know of them.

use super::convert::key_text;
use super::errors::OutOfRangeError;
use super::region::Region;
use crate::engine::Engine;
use crate::engine::health::{Cause, Departure, Flight as CoreFlight};
use crate::layout::FailureKind;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Longest time that is told in microseconds, seconds: some 11 days.
const LONGEST_S: f64 = 1e6;

/// A request on its way to a deployment; counted until it is ended, or dropped.
#[pyclass(frozen, module = "fast_litellm._rust")]
pub(super) struct Flight {
    engine: Arc<Engine>,
    inner: CoreFlight,
    ended: AtomicBool,
}

#[pymethods]
impl Flight {
    /// Ends it. Does nothing the second time.
    fn end(&self) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            self.engine.arrive(&self.inner);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.end();
    }
}

/// The deployments of a region, by id.
#[pyclass(frozen, module = "fast_litellm._rust")]
pub(super) struct Deployments {
    engine: Arc<Engine>,
}

#[pymethods]
impl Deployments {
    #[new]
    fn new(region: &Bound<'_, Region>) -> Self {
        Self { engine: region.get().engine() }
    }

    /// Shows a deployment as `label`, redacted, instead of as its id.
    fn introduce(&self, deployment: &Bound<'_, PyAny>, label: &str) -> PyResult<()> {
        Ok(self.engine.introduce(&key_text(deployment)?, label)?)
    }

    /// Counts a request as in flight; None = `limit` are already.
    #[pyo3(signature = (deployment, limit = None))]
    fn depart(
        &self,
        deployment: &Bound<'_, PyAny>,
        limit: Option<u64>,
    ) -> PyResult<Option<Flight>> {
        Ok(match self.engine.depart(&key_text(deployment)?, limit)? {
            Departure::Full => None,
            Departure::Sent(flight) => Some(Flight {
                engine: Arc::clone(&self.engine),
                inner: flight,
                ended: AtomicBool::new(false),
            }),
        })
    }

    /// Counts a success, with what was measured in seconds. Successes and failures are counted by windows
    /// of `window_s` seconds.
    #[pyo3(signature = (deployment, latency_s = None, first_token_s = None, window_s = 60))]
    fn succeeded(
        &self,
        deployment: &Bound<'_, PyAny>,
        latency_s: Option<f64>,
        first_token_s: Option<f64>,
        window_s: u64,
    ) -> PyResult<()> {
        let latency = latency_s.map(|s| micros("latency_s", s)).transpose()?;
        let first_token = first_token_s.map(|s| micros("first_token_s", s)).transpose()?;
        let id = key_text(deployment)?;
        Ok(self.engine.deployment_succeeded(&id, window_s, latency, first_token)?)
    }

    /// Counts a failure: its HTTP status (0 = none), or its kind, "timeout" or "connection", where the
    /// status does not tell. Returns the failures in the present window.
    #[pyo3(signature = (deployment, status = 0, kind = "", window_s = 60))]
    fn failed(
        &self,
        deployment: &Bound<'_, PyAny>,
        status: u64,
        kind: &str,
        window_s: u64,
    ) -> PyResult<u64> {
        let id = key_text(deployment)?;
        let failures =
            self.engine.deployment_failed(&id, window_s, kind_of(kind, status), status)?;
        Ok(failures.in_window)
    }

    /// Records a measurement in the unit of whoever routes by it, seconds if it is a time.
    fn scored(&self, deployment: &Bound<'_, PyAny>, score: f64) -> PyResult<()> {
        Ok(self.engine.deployment_scored(&key_text(deployment)?, micros("score", score)?)?)
    }

    /// At most `n` of the latest scores of the last `max_age_s` seconds, oldest first.
    #[pyo3(signature = (deployment, n, max_age_s = 3_600))]
    fn scores(
        &self,
        deployment: &Bound<'_, PyAny>,
        n: usize,
        max_age_s: u64,
    ) -> PyResult<Vec<f64>> {
        Ok(oldest_first(self.engine.scores_within(&key_text(deployment)?, n, max_age_s)))
    }

    /// At most `n` of the latest times to the first token of the last `max_age_s` seconds, in seconds,
    /// oldest first.
    #[pyo3(signature = (deployment, n, max_age_s = 3_600))]
    fn first_tokens(
        &self,
        deployment: &Bound<'_, PyAny>,
        n: usize,
        max_age_s: u64,
    ) -> PyResult<Vec<f64>> {
        Ok(oldest_first(self.engine.first_tokens_within(&key_text(deployment)?, n, max_age_s)))
    }

    /// Cools a deployment down for so many seconds, or longer than it is. True for the one call that
    /// began the cooldown.
    #[pyo3(signature = (deployment, seconds, status = 0, text = "", kind = ""))]
    fn cool_down(
        &self,
        deployment: &Bound<'_, PyAny>,
        seconds: f64,
        status: u64,
        text: &str,
        kind: &str,
    ) -> PyResult<bool> {
        use crate::primitives::cooldown::Begun;
        let for_ms = micros("seconds", seconds)?.div_ceil(1_000);
        let cause = Cause { kind: kind_of(kind, status), status, text };
        Ok(self.engine.cool_down(&key_text(deployment)?, for_ms, &cause)? == Begun::First)
    }

    /// The cooldown that runs: `seconds` (in all), `left` (of them), `status` (HTTP, 0 = none), `text`,
    /// `kind`; None = there is none.
    fn cooldown<'py>(
        &self,
        py: Python<'py>,
        deployment: &Bound<'_, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(cooldown) = self.engine.cooldown(&key_text(deployment)?) else { return Ok(None) };
        let shown = PyDict::new(py);
        shown.set_item("seconds", seconds_of_ms(cooldown.for_ms))?;
        shown.set_item("left", seconds_of_ms(cooldown.left_ms))?;
        shown.set_item("status", cooldown.status)?;
        shown.set_item("text", cooldown.text.unwrap_or_default())?;
        shown.set_item("kind", cooldown.kind.name())?;
        Ok(Some(shown))
    }

    /// Ends a cooldown. False = there was none.
    fn end_cooldown(&self, deployment: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.engine.end_cooldown(&key_text(deployment)?)?)
    }

    /// Requests in flight, about, over all workers; those of a dead one count until it is reaped.
    fn in_flight(&self, deployment: &Bound<'_, PyAny>) -> PyResult<u64> {
        Ok(self.engine.flights_to(&key_text(deployment)?))
    }
}

fn kind_of(kind: &str, status: u64) -> FailureKind {
    match kind {
        "timeout" => FailureKind::Timeout,
        "connection" => FailureKind::Connection,
        _ => FailureKind::from_status(status),
    }
}

fn oldest_first(newest_first: Vec<u64>) -> Vec<f64> {
    newest_first.into_iter().rev().map(seconds_of_us).collect()
}

#[allow(clippy::cast_precision_loss, reason = "a float is what Python gets")]
fn seconds_of_us(us: u64) -> f64 {
    us as f64 / 1e6
}

#[allow(clippy::cast_precision_loss, reason = "a float is what Python gets")]
fn seconds_of_ms(ms: u64) -> f64 {
    ms as f64 / 1e3
}

/// Seconds in microseconds, rounded up; what is longer than can be told is cut.
fn micros(name: &str, seconds: f64) -> PyResult<u64> {
    if seconds.is_nan() || seconds < 0.0 {
        return Err(OutOfRangeError::new_err(format!("{name}={seconds}: use 0 or more")));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the longest"
    )]
    Ok((seconds.min(LONGEST_S) * 1e6).ceil() as u64)
}
