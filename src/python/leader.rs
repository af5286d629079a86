//! `Leader`: at most one process of a host leads a job.

use super::convert::key_text;
use super::errors::OutOfRangeError;
use super::region::{Region, shared_engine};
use crate::engine::Engine;
use crate::engine::leader::Term;
use pyo3::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};

/// Leadership of a job that only one process of the host should do.
///
/// The process that acquires it leads until it releases it, ends, or does not acquire it again for `ttl_s`
/// seconds; then the next one to ask leads. Acquiring it again while leading renews it.
///
/// Args:
///     job: name of the job.
///     ttl_s: seconds after which a leader that has stopped is no longer waited for; one that has died is
///         not waited for at all.
///     region: a region other than the process's own.
///
/// Raises:
///     OutOfRangeError (a ValueError): `ttl_s` is below one second.
///     RegionError: no region exists and none can be created.
#[pyclass(frozen, module = "fast_litellm")]
pub(super) struct Leader {
    engine: Arc<Engine>,
    job: String,
    ttl_s: u64,
    term: Mutex<Option<Term>>,
}

impl Leader {
    fn term(&self) -> std::sync::MutexGuard<'_, Option<Term>> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Leader {
    #[new]
    #[pyo3(signature = (job, *, ttl_s = 30.0, region = None))]
    fn new(
        py: Python<'_>,
        job: &Bound<'_, PyAny>,
        ttl_s: f64,
        region: Option<&Bound<'_, Region>>,
    ) -> PyResult<Self> {
        if !(1.0..=31_536_000.0).contains(&ttl_s) {
            return Err(OutOfRangeError::new_err(format!("ttl_s={ttl_s}: use 1 to 31,536,000")));
        }
        let engine = match region {
            Some(region) => region.get().engine(),
            None => shared_engine(py)?,
        };
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was checked"
        )]
        let ttl_s = ttl_s.ceil() as u64;
        Ok(Self { engine, job: key_text(job)?.into_owned(), ttl_s, term: Mutex::new(None) })
    }

    /// Leads, or goes on leading. False = another process does.
    fn acquire(&self) -> PyResult<bool> {
        let mut term = self.term();
        *term = self.engine.lead(&self.job, self.ttl_s)?;
        Ok(term.is_some())
    }

    /// Whether this process leads now. Renews nothing.
    #[getter]
    fn leads(&self) -> bool {
        self.term().as_ref().is_some_and(|term| self.engine.still_leads(term))
    }

    /// Number of the leadership, larger for each new one; None = this process does not lead.
    #[getter]
    fn term_number(&self) -> Option<u64> {
        self.term().as_ref().filter(|term| self.engine.still_leads(term)).map(Term::number)
    }

    /// Lets another process lead. False = this one did not.
    fn release(&self) -> bool {
        self.term().take().is_some_and(|term| self.engine.resign(&term))
    }

    /// Process id of whoever leads, and for how many seconds; None = nobody.
    fn holder(&self) -> Option<(i32, u64)> {
        self.engine.leader(&self.job).map(|leader| (leader.pid, leader.held_s))
    }
}
