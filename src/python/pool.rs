//! `SimpleConnectionPool`: connections counted over all workers.

use super::convert::{Whole, key_text};
use super::errors::{OutOfRangeError, UnavailableError};
use super::place_cache::PlaceCache;
use super::region::{Region, shared_engine};
use super::router::what_it_says;
use crate::engine::Engine;
use crate::engine::health::Cause;
use crate::engine::pool::{Connection, EndpointStats, Pool, Settings};
use crate::error::OpError;
use crate::tables::connections::Keep;
use crate::tables::names::redact_endpoint;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most connections that a setting may ask for.
const MOST: i128 = 65_535;
/// Longest time to keep one, seconds.
const LONGEST_S: f64 = 31_536_000.0;
/// Characters of a malformed id that are shown.
const SHOWN: usize = 120;

/// Connections to endpoints, limited over all workers that share the region.
///
/// The pool hands out ids; opening and closing what they stand for is the caller's. Both limits hold over all
/// workers, connections that are kept idle included. A worker gets its own idle connections back, the one it used
/// last first. Where all are held, idle ones make room, also for other workers; one that is in use never does. What a
/// worker held is free once it has ended or was killed.
///
/// An id is text that begins with the endpoint, without what may be secret in it, and ends with `.` and the number
/// of its use. What is before that stays the same as long as the connection lasts, so sockets may be kept by it:
/// `connection_id.rpartition(".")[0]`.
///
/// Args:
///     pool_name: pools of one name are one, in all workers.
///     max_per_endpoint: connections to one endpoint, 1 to 65,535. Default: `FAST_LITELLM_POOL_MAX_PER_ENDPOINT`, or 10.
///     max_total: connections in all, 1 to 65,535. Default: `FAST_LITELLM_POOL_MAX_TOTAL`, or 100.
///     idle_timeout_s: seconds that an idle connection is kept, rounded up; 0 = without end. Default:
///         `FAST_LITELLM_POOL_IDLE_TIMEOUT_S`, or 300.
///     max_age_s: seconds after which a connection is not kept any longer, rounded up; 0 = without end. Default:
///         `FAST_LITELLM_POOL_MAX_AGE_S`, or 3,600.
///     region: a region other than the process's own.
///
/// Raises:
///     OutOfRangeError (a ValueError): a setting is out of range.
///     ConfigError (a ValueError): an environment variable is malformed.
///     RegionError: no region exists and none can be created.
///     UnavailableError: the region has no room for the pool.
#[pyclass(frozen, subclass, module = "fast_litellm")]
pub(super) struct SimpleConnectionPool {
    engine: Arc<Engine>,
    pool: Pool,
    name: String,
    places: PlaceCache,
}

/// A limit from an argument, or as it is configured.
fn limit(name: &str, value: i128) -> PyResult<u64> {
    let fits = u64::try_from(value).ok().filter(|_| (1..=MOST).contains(&value));
    fits.ok_or_else(|| OutOfRangeError::new_err(format!("{name}={value}: use 1 to 65,535")))
}

fn seconds(name: &str, value: f64) -> PyResult<u64> {
    if !(0.0..=LONGEST_S).contains(&value) {
        let message = format!("{name}={value}: use 0 (without end) to 31,536,000 seconds");
        return Err(OutOfRangeError::new_err(message));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was checked"
    )]
    let whole = value.ceil() as u64;
    Ok(whole)
}

fn text<'a>(what: &str, value: &'a Bound<'_, PyAny>) -> PyResult<std::borrow::Cow<'a, str>> {
    key_text(value).map_err(|_| {
        let kind =
            value.get_type().name().map_or_else(|_| "?".to_string(), |name| name.to_string());
        PyTypeError::new_err(format!("{what} must be a str, not {kind}"))
    })
}

#[inline]
fn parse(id: &Bound<'_, PyAny>) -> PyResult<Connection> {
    if let Ok(id) = id.cast::<PyString>()
        && let Ok(text) = id.to_str()
        && let Some(connection) = Connection::parse(text)
    {
        return Ok(connection);
    }
    Err(not_an_id(id))
}

#[cold]
fn not_an_id(id: &Bound<'_, PyAny>) -> PyErr {
    match text("connection_id", id) {
        Ok(text) => {
            let shown: String = redact_endpoint(&text).chars().take(SHOWN).collect();
            PyValueError::new_err(format!(
                "connection_id={shown:?} is no id: pass one as get_connection returned it"
            ))
        }
        Err(error) => error,
    }
}

#[pymethods]
impl SimpleConnectionPool {
    #[new]
    #[pyo3(signature = (pool_name = "default", *, max_per_endpoint = None, max_total = None, idle_timeout_s = None, max_age_s = None, region = None))]
    fn new(
        py: Python<'_>,
        pool_name: &str,
        max_per_endpoint: Option<Whole>,
        max_total: Option<Whole>,
        idle_timeout_s: Option<f64>,
        max_age_s: Option<f64>,
        region: Option<&Bound<'_, Region>>,
    ) -> PyResult<Self> {
        let configured = py.import("fast_litellm._config")?.getattr("PoolSettings")?;
        let configured = configured.call_method0("from_environment")?;
        let most = |name: &str, given: Option<Whole>| {
            let value = given.map_or_else(|| configured.getattr(name)?.extract(), Ok)?;
            limit(name, value.0)
        };
        let longest = |name: &str, given: Option<f64>| {
            let value = given.map_or_else(|| configured.getattr(name)?.extract(), Ok)?;
            seconds(name, value)
        };
        let settings = Settings {
            max_per_endpoint: most("max_per_endpoint", max_per_endpoint)?,
            max_total: most("max_total", max_total)?,
            keep: Keep {
                idle_s: longest("idle_timeout_s", idle_timeout_s)?,
                age_s: longest("max_age_s", max_age_s)?,
            },
        };
        let engine = match region {
            Some(region) => region.get().engine(),
            None => shared_engine(py)?,
        };
        let pool = engine.pool(pool_name, settings).map_err(|error| match error {
            OpError::TableFull => {
                let most = engine.region().endpoints().len();
                UnavailableError::new_err(format!(
                    "the region has no room for another pool: pools and their endpoints are {most} at most"
                ))
            }
            error => error.into(),
        })?;
        Ok(Self { engine, pool, name: pool_name.to_string(), places: PlaceCache::new() })
    }

    /// Hands out a connection to `endpoint`, or None when as many as may be are in use, here or in other workers.
    ///
    /// Whether the endpoint is healthy does not matter: it recovers by being used. None is also what a region
    /// without room for another endpoint or worker gives; both are counted as `refused`.
    fn get_connection<'py>(
        &self,
        py: Python<'py>,
        endpoint: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyString>>> {
        let name = text("endpoint", endpoint)?;
        let Ok(Some(connection)) = self.connect(endpoint, &name)? else { return Ok(None) };
        Ok(Some(PyString::new(py, &connection.id(&name))))
    }

    /// Gives a connection back: it is kept idle, for this worker first.
    ///
    /// One that has been given back before, or is another worker's (also a parent's, after a fork), is left alone
    /// and counted as `stale_returns`.
    ///
    /// Args:
    ///     connection_id: as `get_connection` returned it.
    ///     success: how the endpoint behaved, see `report`; a connection that failed is closed instead of kept.
    ///         None = nothing is said of it.
    ///     error: the exception or a text, from which the kind of failure is told.
    ///
    /// Raises:
    ///     ValueError: `connection_id` is no id.
    #[pyo3(signature = (connection_id, success = None, error = None))]
    fn return_connection(
        &self,
        connection_id: &Bound<'_, PyAny>,
        success: Option<bool>,
        error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let connection = parse(connection_id)?;
        if let Some(success) = success {
            self.tell(&connection, success, error);
        }
        match success {
            Some(false) => self.engine.remove_connection(&self.pool, &connection),
            _ => self.engine.return_connection(&self.pool, &connection),
        };
        Ok(())
    }

    /// Takes a connection out of the pool, in use or idle, and frees its place. One that is not this worker's is left
    /// alone and counted as `stale_returns`.
    ///
    /// Raises:
    ///     ValueError: `connection_id` is no id.
    fn remove_connection(&self, connection_id: &Bound<'_, PyAny>) -> PyResult<()> {
        let connection = parse(connection_id)?;
        self.engine.remove_connection(&self.pool, &connection);
        Ok(())
    }

    /// Tells how the endpoint of a connection behaved, for all workers: three failures in a row make it unhealthy, one
    /// success, or half a minute without a failure, make it healthy.
    ///
    /// Args:
    ///     connection_id: as `get_connection` returned it; it may have been given back.
    ///     success: whether it did what was asked of it.
    ///     error: the exception or a text, from which the kind of failure is told.
    ///
    /// Returns:
    ///     False when the connection is not this worker's, or has been handed out again since; nothing was counted.
    ///
    /// Raises:
    ///     ValueError: `connection_id` is no id.
    #[pyo3(signature = (connection_id, success, error = None))]
    fn report(
        &self,
        connection_id: &Bound<'_, PyAny>,
        success: bool,
        error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        Ok(self.tell(&parse(connection_id)?, success, error))
    }

    /// Whether a connection is this worker's, in use or idle, its time is not over, and its endpoint is healthy.
    ///
    /// Raises:
    ///     ValueError: `connection_id` is no id.
    fn health_check(&self, connection_id: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.engine.connection_is_healthy(&self.pool, &parse(connection_id)?))
    }

    /// Closes idle connections of all workers whose time is over, and frees what dead workers held. What is over is
    /// never handed out, cleaned up or not.
    fn cleanup(&self, py: Python<'_>) {
        // A process for which the worker table has no room keeps no connections, and that has been counted.
        let _ = py.detach(|| self.engine.sweep_pool(&self.pool));
    }

    /// What the pool is like, over all workers.
    ///
    /// Returns:
    ///     `total_connections` (int: `active_connections` and `idle_connections`), `max_total_connections`,
    ///     `max_connections_per_endpoint` (int), `endpoints` (dict: by the endpoint without what may be secret in it,
    ///     `active`, `idle`, `total`, `failures_in_a_row`, `failures` (int), `healthy` (bool), `last_failure` (None, or
    ///     a dict of `kind`, `status` and `age_s`)), and since the region was created `created`, `reused`, `refused`,
    ///     `expired`, `taken_over` and `stale_returns` (int).
    fn get_stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let found = py.detach(|| self.engine.pool_stats(&self.pool));
        let settings = self.pool.settings();
        let stats = PyDict::new(py);
        stats.set_item("total_connections", found.active + found.idle)?;
        stats.set_item("active_connections", found.active)?;
        stats.set_item("idle_connections", found.idle)?;
        stats.set_item("max_total_connections", settings.max_total)?;
        stats.set_item("max_connections_per_endpoint", settings.max_per_endpoint)?;
        let endpoints = PyDict::new(py);
        // Endpoints that differ in what is not shown share a name, and need one each.
        let mut times: BTreeMap<&str, u64> = BTreeMap::new();
        for endpoint in &found.endpoints {
            let seen = times.entry(&endpoint.endpoint).or_insert(0);
            let name = loop {
                *seen += 1;
                let name = match *seen {
                    1 => endpoint.endpoint.clone(),
                    n => format!("{} ({n})", endpoint.endpoint),
                };
                if !endpoints.contains(&name)? {
                    break name;
                }
            };
            endpoints.set_item(name, told(py, endpoint)?)?;
        }
        stats.set_item("endpoints", endpoints)?;
        for (name, count) in [
            ("created", found.counts.created),
            ("reused", found.counts.reused),
            ("refused", found.counts.refused),
            ("expired", found.counts.expired),
            ("taken_over", found.counts.taken_over),
            ("stale_returns", found.counts.stale_returns),
        ] {
            stats.set_item(name, count)?;
        }
        Ok(stats)
    }

    /// Name of the pool.
    #[getter]
    fn pool_name(&self) -> &str {
        &self.name
    }
}

fn told<'py>(py: Python<'py>, endpoint: &EndpointStats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("active", endpoint.active)?;
    dict.set_item("idle", endpoint.idle)?;
    dict.set_item("total", endpoint.active + endpoint.idle)?;
    dict.set_item("healthy", endpoint.healthy)?;
    dict.set_item("failures_in_a_row", endpoint.failures_in_a_row)?;
    dict.set_item("failures", endpoint.failures_total)?;
    let last = endpoint.last_failure.map(|(kind, status, age_s)| {
        let last = PyDict::new(py);
        last.set_item("kind", kind.name())?;
        last.set_item("status", (status > 0).then_some(status))?;
        last.set_item("age_s", age_s)?;
        Ok::<_, PyErr>(last)
    });
    dict.set_item("last_failure", last.transpose()?)?;
    Ok(dict)
}

impl SimpleConnectionPool {
    #[inline]
    fn connect(
        &self,
        endpoint: &Bound<'_, PyAny>,
        name: &str,
    ) -> PyResult<Result<Option<Connection>, OpError>> {
        if endpoint.is_exact_instance_of::<PyString>() {
            let hash = endpoint.hash()?.cast_unsigned() as u64;
            let known = self.places.get(hash);
            if let Some(answer) = known.and_then(|at| self.engine.connect_at(&self.pool, at)) {
                return Ok(answer);
            }
            if let Ok(place) = self.engine.endpoint_place(&self.pool, name) {
                self.places.insert(hash, place);
            }
        }
        Ok(self.engine.connect(&self.pool, name))
    }

    fn tell(
        &self,
        connection: &Connection,
        success: bool,
        error: Option<&Bound<'_, PyAny>>,
    ) -> bool {
        let told = |cause: Option<&Cause<'_>>| {
            self.engine.report_connection(&self.pool, connection, cause).unwrap_or(false)
        };
        if success {
            return told(None);
        }
        let (status, said) = error.map_or((None, String::new()), what_it_says);
        let cause = Cause::new(status, &said);
        told(Some(&cause))
    }
}
