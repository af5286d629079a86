//! `AdvancedRouter`, and the calls to the deployments that it chooses.

use super::convert::{Whole, script_key};
use super::deployment::{Entry, Id, Origin, Prices, id_text};
use super::errors::{OutOfRangeError, UnavailableError};
use super::place_cache::PlaceCache;
use super::region::{Region, shared_engine};
use crate::clock;
use crate::engine::Engine;
use crate::engine::calls::{CooldownRule, Taken};
use crate::engine::health::{Cause, Departure, Flight, Found};
use crate::engine::routing::Strategy;
use crate::engine::sampling::Timed;
use crate::error::OpError;
use crate::layout::{CounterWord, FailureKind};
use crate::primitives::cooldown::{Begun, MAX_MS};
use crate::region::fork_generation;
use crate::sync::{Ordering, Word};
use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySet, PyString, PyType};
use std::sync::Arc;

/// Chooses among deployments by what all workers know of them.
///
/// A deployment is a dict as in a LiteLLM `model_list`: `model_name`, `litellm_params` (with `model`) and
/// `model_info`, whose `id` tells it apart. Without an id it is told apart by a hash of `model_name` and
/// `litellm_params` under the region's secret: the same in all workers that share the region.
///
/// Args:
///     strategy: `simple_shuffle` (at random: by `weight`, else by `rpm`, else by `tpm`, as LiteLLM does),
///         `least_busy` (fewest calls in flight), `latency_based` (lowest average latency, after each was
///         tried) or `cost_based` (lowest price of a token, in and out); LiteLLM's names for them are known
///         too. Among equals, one at random.
///     region: a region other than the process's own.
///     allowed_fails: so many failures in a row are allowed. Default: more than half of at least five calls
///         within the minute.
///     cooldown_s: for how long a deployment is left out that fails too often, or that has an alternative
///         and says that it is out of quota (429), unpaid (402), that the credentials are wrong (401) or the
///         model unknown (404). 0 = never.
///
/// Raises:
///     OutOfRangeError (a ValueError): no such strategy, or a number out of range.
///     RegionError: no region exists and none can be created.
#[pyclass(frozen, subclass, module = "fast_litellm")]
pub(super) struct AdvancedRouter {
    engine: Arc<Engine>,
    strategy: Strategy,
    rule: CooldownRule,
    places: PlaceCache,
    lone: LoneDeployments,
    timed: Timed,
}

/// Series of the choices.
const CHOICE: &str = "rust_router.get_available_deployment";

fn strategy(name: &str) -> PyResult<Strategy> {
    Strategy::parse(name).ok_or_else(|| {
        let all = Strategy::ALL.map(Strategy::name).join(", ");
        OutOfRangeError::new_err(format!("strategy {name:?} is unknown: use one of {all}"))
    })
}

/// Seconds as milliseconds, rounded up.
fn milliseconds(name: &str, seconds: f64, least: f64) -> PyResult<u64> {
    #[allow(clippy::cast_precision_loss, reason = "31 days are exact")]
    let most = (MAX_MS / 1_000) as f64;
    if !(least..=most).contains(&seconds) {
        return Err(OutOfRangeError::new_err(format!(
            "{name}={seconds}: use seconds from {least} to {most}"
        )));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    let ms = (seconds * 1_000.0).ceil() as u64;
    Ok(ms)
}

/// A measurement in seconds as microseconds.
fn microseconds(name: &str, seconds: f64) -> PyResult<u64> {
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(OutOfRangeError::new_err(format!(
            "{name}={seconds}: use seconds of at least 0"
        )));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float cast saturates"
    )]
    let us = (seconds * 1e6).round() as u64;
    Ok(us)
}

/// What the region could not do, with the settings that matter for deployments.
fn unavailable(error: OpError) -> PyErr {
    match error {
        OpError::TableFull => UnavailableError::new_err(
            "the region has no room for another deployment or its counters: raise \
             FAST_LITELLM_SHM_DEPLOYMENTS or FAST_LITELLM_SHM_KEYS and restart",
        ),
        error => error.into(),
    }
}

/// A deployment that a caller named.
struct Named {
    id: String,
    alone: bool,
}

#[pymethods]
impl AdvancedRouter {
    #[new]
    #[pyo3(signature = (strategy = "simple_shuffle", *, region = None, allowed_fails = None, cooldown_s = 5.0))]
    fn new(
        py: Python<'_>,
        strategy: &str,
        region: Option<&Bound<'_, Region>>,
        allowed_fails: Option<Whole>,
        cooldown_s: f64,
    ) -> PyResult<Self> {
        let strategy = self::strategy(strategy)?;
        let allowed_fails = allowed_fails.map(|Whole(fails)| {
            u64::try_from(fails).map_err(|_| {
                OutOfRangeError::new_err(format!(
                    "allowed_fails={fails}: use a number of at least 0"
                ))
            })
        });
        let rule = CooldownRule {
            allowed_fails: allowed_fails.transpose()?,
            for_ms: milliseconds("cooldown_s", cooldown_s, 0.0)?,
        };
        let engine = match region {
            Some(region) => region.get().engine(),
            None => shared_engine(py)?,
        };
        let (places, lone) = (PlaceCache::new(), LoneDeployments::new());
        Ok(Self { engine, strategy, rule, places, lone, timed: Timed::new(CHOICE) })
    }

    /// Its strategy, by this package's name.
    #[getter]
    fn strategy(&self) -> &'static str {
        self.strategy.name()
    }

    /// Chooses a deployment of a model.
    ///
    /// Deployments that are cooled down are left out. Changes nothing: tell with `start` that the deployment
    /// is called. Of deployments of other models only the `model_name` is read.
    ///
    /// Args:
    ///     model_list: list of deployments.
    ///     model: the `model_name` that is wanted.
    ///     blocked_models: deployments with such a `model_name`, `litellm_params.model` or id are left out.
    ///
    /// Returns:
    ///     The dict of the list; None when no deployment of that name is left.
    ///
    /// Raises:
    ///     ValueError: a deployment lacks something; the message names its index and what it is.
    ///     OutOfRangeError (a ValueError): a weight, rate or price is not a finite number of at least 0.
    ///     TypeError: a value of another type than described.
    #[pyo3(signature = (model_list, model, blocked_models = None))]
    fn get_available_deployment<'py>(
        &self,
        model_list: &Bound<'py, PyAny>,
        model: &Bound<'py, PyString>,
        blocked_models: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let choose = || self.choose(model_list, model, blocked_models);
        self.engine.timed(&self.timed, choose, PyResult::is_err)
    }

    /// Tells that a deployment is called: it is counted as in flight until the call is ended.
    ///
    /// A call is ended by `success` or `failure`, or by leaving its `with` block; one that is dropped without is
    /// given back and counted as neither, and so is that of a process that dies.
    ///
    /// Args:
    ///     deployment: its dict, or its id.
    ///     max_parallel: at most so many calls may be in flight to it, over all workers. Default: no limit.
    ///
    /// Returns:
    ///     The call; None when `max_parallel` calls are in flight.
    ///
    /// Raises:
    ///     UnavailableError: the region has no room for the deployment.
    #[pyo3(signature = (deployment, *, max_parallel = None))]
    fn start(
        &self,
        deployment: &Bound<'_, PyAny>,
        max_parallel: Option<Whole>,
    ) -> PyResult<Option<Call>> {
        let limit = max_parallel.map(|Whole(limit)| {
            u64::try_from(limit).map_err(|_| {
                OutOfRangeError::new_err(format!(
                    "max_parallel={limit}: use a number of at least 0"
                ))
            })
        });
        let Named { id, alone } = self.named(deployment)?;
        let departure = self.engine.depart(&id, limit.transpose()?).map_err(unavailable)?;
        let Departure::Sent(flight) = departure else { return Ok(None) };
        Ok(Some(Call {
            engine: self.engine.clone(),
            rule: self.rule,
            id,
            alone,
            flight,
            forks: fork_generation(),
            started_ns: clock::fine_ns(),
            ended: Word::new(0),
        }))
    }

    /// Leaves a deployment out for a while, in all workers.
    ///
    /// Args:
    ///     deployment: its dict, or its id.
    ///     seconds: for how long; more than 0, up to 31 days.
    ///     reason: for people.
    ///
    /// Returns:
    ///     Whether this call began the cooldown; False when one was running, which may last longer now.
    #[pyo3(signature = (deployment, seconds, reason = ""))]
    fn cool_down(
        &self,
        deployment: &Bound<'_, PyAny>,
        seconds: f64,
        reason: &str,
    ) -> PyResult<bool> {
        let for_ms = milliseconds("seconds", seconds, 0.001)?;
        let Named { id, .. } = self.named(deployment)?;
        let why = Cause::manual(reason);
        let begun = self.engine.cool_down(&id, for_ms, &why).map_err(unavailable)?;
        Ok(begun == Begun::First)
    }

    /// Ends a deployment's cooldown, in all workers. Returns False when there was none.
    fn end_cooldown(&self, deployment: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Named { id, .. } = self.named(deployment)?;
        self.engine.end_cooldown(&id).map_err(unavailable)
    }

    /// What all workers know of a deployment; None when nothing is known.
    ///
    /// Returns:
    ///     `in_flight` (int), `cooldown_s` (float: seconds left, 0 = it is not cooled down), `cooldown_reason`
    ///     (str or None), `requests`, `successes`, `failures`, `tokens` (int: in a minute that begins with the
    ///     first), `failures_in_a_row`, `successes_total`, `failures_total` (int), `cost_total` (float: each
    ///     call's cost rounded up to a millionth, for at most half a year), `latency_s`, `first_token_s`
    ///     (float: moving averages, or None), `last_failure` (None, or a dict of `kind` (str), `status` (int or
    ///     None) and `age_s` (int)).
    fn health<'py>(
        &self,
        py: Python<'py>,
        deployment: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Named { id, .. } = self.named(deployment)?;
        self.engine.reap_flights(self.engine.now());
        let Some(health) = self.engine.health(&id) else { return Ok(None) };
        let used = self.engine.used(&id);
        let seconds = |us: u64| std::time::Duration::from_micros(us).as_secs_f64();
        let cooled = health.cooldown_ms > 0;
        let answer = PyDict::new(py);
        answer.set_item("in_flight", health.in_flight)?;
        answer.set_item("cooldown_s", seconds(health.cooldown_ms * 1_000))?;
        answer.set_item("cooldown_reason", cooled.then(|| health.cooldown_reason.name()))?;
        answer.set_item("requests", health.successes + health.failures)?;
        answer.set_item("successes", health.successes)?;
        answer.set_item("failures", health.failures)?;
        answer.set_item("tokens", used.tokens)?;
        answer.set_item("failures_in_a_row", health.failures_in_a_row)?;
        answer.set_item("successes_total", health.successes_total)?;
        answer.set_item("failures_total", health.failures_total)?;
        answer.set_item("cost_total", used.cost)?;
        answer.set_item("latency_s", health.latency_us.map(seconds))?;
        answer.set_item("first_token_s", health.first_token_us.map(seconds))?;
        let last = health.last_failure.map(|(kind, status, age_s)| {
            let failure = PyDict::new(py);
            failure.set_item("kind", kind.name())?;
            failure.set_item("status", (status != 0).then_some(status))?;
            failure.set_item("age_s", age_s)?;
            Ok::<_, PyErr>(failure)
        });
        answer.set_item("last_failure", last.transpose()?)?;
        Ok(Some(answer))
    }

    /// The id that a deployment is told apart by.
    fn deployment_id(&self, deployment: &Bound<'_, PyAny>) -> PyResult<String> {
        Ok(self.named(deployment)?.id)
    }
}

impl AdvancedRouter {
    fn choose<'py>(
        &self,
        model_list: &Bound<'py, PyAny>,
        model: &Bound<'py, PyString>,
        blocked_models: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let listed;
        let list = if let Ok(list) = model_list.cast_exact::<PyList>() {
            list
        } else {
            listed = as_list(model_list)?;
            &listed
        };
        let blocked = blocked_models.map(blocked_names).transpose()?.flatten();
        let mut selection = self.engine.selection(self.strategy);
        let mut prices = Prices::default();
        let mut named = 0_u32;
        for index in 0..list.len() {
            let item = list.get_item(index)?;
            let entry = Entry::new(&item, Origin::Listed(index))?;
            if !entry.model_name.is(model) && !entry.model_name.as_any().eq(model)? {
                continue;
            }
            named += 1;
            let params = entry.params()?;
            let provider_model = entry.provider_model(&params)?;
            let id = entry.id(&self.engine, &params)?;
            if let Some(blocked) = &blocked
                && entry.is_blocked(&id, &provider_model, blocked)?
            {
                continue;
            }
            let known = self.find(&entry, &id)?;
            selection.offer(index, known.as_ref(), |metric| {
                entry.metric(&params, metric, &mut prices)
            })?;
        }
        let Some(index) = selection.chosen() else { return Ok(None) };
        let chosen = list.get_item(index)?;
        let entry = Entry::new(&chosen, Origin::Listed(index))?;
        let id = entry.id(&self.engine, &entry.params()?)?;
        self.lone.note(hash_of(&id)?, named == 1);
        Ok(Some(chosen))
    }

    /// What the region knows of a deployment, through the place where it was the last time.
    #[inline]
    fn find(&self, entry: &Entry<'_>, id: &Id<'_>) -> PyResult<Option<Found<'_>>> {
        let hash = hash_of(id)?;
        let remembered = self.places.get(hash).and_then(|place| self.engine.deployment_at(place));
        if remembered.is_some() {
            return Ok(remembered);
        }
        let text = match id {
            Id::Given(id) => id.to_str().ok(),
            Id::Hash(_) => None,
        };
        let found = match text {
            Some(text) => self.engine.known_deployment(text),
            None => self.engine.known_deployment(&entry.id_text(id)?),
        };
        if let Some(found) = &found {
            self.places.insert(hash, found.place());
        }
        Ok(found)
    }

    /// The deployment that a caller named by its dict or its id.
    fn named(&self, deployment: &Bound<'_, PyAny>) -> PyResult<Named> {
        if deployment.is_instance_of::<PyDict>() {
            let entry = Entry::new(deployment, Origin::Given)?;
            let id = entry.id(&self.engine, &entry.params()?)?;
            let alone = self.lone.is_alone(hash_of(&id)?);
            return Ok(Named { id: entry.id_text(&id)?, alone });
        }
        let id = id_text(deployment.clone(), Origin::Given)?;
        let alone = self.lone.is_alone(text_hash(&id)?);
        Ok(Named { id: script_key(&id)?, alone })
    }
}

/// A number for an id, by which its place is remembered.
#[inline]
fn hash_of(id: &Id<'_>) -> PyResult<u64> {
    Ok(match id {
        Id::Given(id) => text_hash(id)?,
        Id::Hash(hash) => *hash,
    })
}

/// Python's hash of a text, whatever a class of it calls its hash.
#[inline]
fn text_hash(text: &Bound<'_, PyString>) -> PyResult<u64> {
    let hash = if text.is_exact_instance_of::<PyString>() {
        text.hash()
    } else {
        PyString::new(text.py(), &script_key(text)?).hash()
    };
    Ok(hash?.cast_unsigned() as u64)
}

fn as_list<'py>(model_list: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    if model_list.is_instance_of::<PyString>() || model_list.is_instance_of::<PyDict>() {
        let kind = model_list.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "model_list must be a list of dicts, not {kind}"
        )));
    }
    let items: Vec<_> = model_list.try_iter()?.collect::<PyResult<_>>()?;
    PyList::new(model_list.py(), items)
}

/// The names that are left out; `None` = none.
fn blocked_names<'py>(names: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if names.is_instance_of::<PyString>() || names.is_instance_of::<PyDict>() {
        let kind = names.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "blocked_models must be a list of strings, not a {kind}"
        )));
    }
    let set = PySet::empty(names.py())?;
    for name in names.try_iter()? {
        set.add(name?)?;
    }
    Ok((!set.is_empty()).then(|| set.into_any()))
}

/// Which of the deployments chosen last are the only ones of their model. What is not known has alternatives.
struct LoneDeployments {
    entries: Box<[Word<u64>]>,
}

impl LoneDeployments {
    const ENTRIES: usize = 1 << 10;

    fn new() -> Self {
        Self { entries: (0..Self::ENTRIES).map(|_| Word::new(0)).collect() }
    }

    fn entry(&self, hash: u64) -> &Word<u64> {
        #[allow(clippy::cast_possible_truncation, reason = "only the low bits count")]
        let at = hash as usize & (Self::ENTRIES - 1);
        &self.entries[at]
    }

    /// A lone one leaves its hash, with a bit set so that it is never 0.
    fn note(&self, hash: u64, alone: bool) {
        let (entry, mark) = (self.entry(hash), hash | 1 << 63);
        let seen = entry.load(Ordering::Relaxed);
        if alone && seen != mark {
            entry.store(mark, Ordering::Relaxed);
        } else if !alone && seen == mark {
            entry.store(0, Ordering::Relaxed);
        }
    }

    fn is_alone(&self, hash: u64) -> bool {
        self.entry(hash).load(Ordering::Relaxed) == hash | 1 << 63
    }
}

/// A call to a deployment, from `AdvancedRouter.start`. It is in flight until it is ended, which happens once:
/// whoever ends it again is told False, and nothing is counted.
#[pyclass(frozen, module = "fast_litellm")]
pub(super) struct Call {
    engine: Arc<Engine>,
    rule: CooldownRule,
    id: String,
    alone: bool,
    flight: Flight,
    /// The fork generation of the process that made it: a child's copy is not its to end.
    forks: u64,
    started_ns: u64,
    ended: Word<u64>,
}

#[pymethods]
impl Call {
    /// Ends the call as a success.
    ///
    /// Args:
    ///     tokens: tokens it took, in and out.
    ///     cost: what it cost.
    ///     first_token_s: seconds to the first token.
    ///     latency_s: seconds it took. Default: those since `start`.
    ///
    /// Returns:
    ///     False when it had been ended before.
    ///
    /// Raises:
    ///     OutOfRangeError (a ValueError): a number out of range; the call goes on.
    ///     UnavailableError: the region has no room to count it; the call is ended.
    #[pyo3(signature = (tokens = None, cost = None, first_token_s = None, latency_s = None))]
    fn success(
        &self,
        tokens: Option<Whole>,
        cost: Option<f64>,
        first_token_s: Option<f64>,
        latency_s: Option<f64>,
    ) -> PyResult<bool> {
        let tokens = tokens.map_or(0, |tokens| tokens.0);
        let tokens = i64::try_from(tokens)
            .ok()
            .filter(|tokens| (0..=CounterWord::MAX).contains(tokens))
            .ok_or_else(|| {
                let most = CounterWord::MAX;
                OutOfRangeError::new_err(format!("tokens={tokens}: use a number from 0 to {most}"))
            })?;
        let cost = cost.unwrap_or(0.0);
        if !cost.is_finite() || cost < 0.0 {
            return Err(OutOfRangeError::new_err(format!(
                "cost={cost}: use a number of at least 0"
            )));
        }
        let latency_us = match latency_s {
            Some(seconds) => microseconds("latency_s", seconds)?,
            None => clock::fine_ns().saturating_sub(self.started_ns) / 1_000,
        };
        let first_token_us = first_token_s.map(|seconds| microseconds("first_token_s", seconds));
        let first_token_us = first_token_us.transpose()?;
        if !self.end() {
            return Ok(false);
        }
        let taken = Taken { tokens, cost, latency_us: Some(latency_us), first_token_us };
        self.engine.call_succeeded(&self.id, &taken).map_err(unavailable)?;
        Ok(true)
    }

    /// Ends the call as a failure, and cools the deployment down if it has failed too often.
    ///
    /// Args:
    ///     status: the HTTP status. Default: the exception's `status_code` or that of its `response`.
    ///     error: the exception or a text, from which the kind of failure is told where there is no status.
    ///
    /// Returns:
    ///     False when it had been ended before.
    ///
    /// Raises:
    ///     OutOfRangeError (a ValueError): a status that is none; the call goes on.
    ///     UnavailableError: the region has no room to count it; the call is ended.
    #[pyo3(signature = (status = None, error = None))]
    fn failure(&self, status: Option<Whole>, error: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let status = status.map(|Whole(status)| {
            u64::try_from(status).ok().filter(|status| (100..=999).contains(status)).ok_or_else(
                || {
                    OutOfRangeError::new_err(format!(
                        "status={status}: use an HTTP status, or None"
                    ))
                },
            )
        });
        let status = status.transpose()?;
        if !self.end() {
            return Ok(false);
        }
        self.fail(status, error).map_err(unavailable)?;
        Ok(true)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// A normal end is a success, an exception a failure; but for exceptions that end the program or cancel the
    /// call, which say nothing about the deployment.
    fn __exit__(
        &self,
        kind: Option<&Bound<'_, PyType>>,
        error: Option<&Bound<'_, PyAny>>,
        _traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        // What cannot be counted for want of room is counted as that by the engine, and must not hide an error.
        match kind {
            None if self.end() => {
                let latency_us = clock::fine_ns().saturating_sub(self.started_ns) / 1_000;
                let taken = Taken { latency_us: Some(latency_us), ..Taken::default() };
                let _ = self.engine.call_succeeded(&self.id, &taken);
            }
            Some(kind) if self.end() && kind.is_subclass_of::<PyException>()? => {
                let _ = self.fail(None, error);
            }
            _ => {}
        }
        Ok(false)
    }

    /// The id of its deployment.
    #[getter]
    fn deployment_id(&self) -> &str {
        &self.id
    }
}

impl Call {
    /// Ends it. False = it had been ended, or it is a parent's.
    fn end(&self) -> bool {
        if self.forks != fork_generation() || self.ended.swap(1, Ordering::Relaxed) != 0 {
            return false;
        }
        self.engine.arrive(&self.flight);
        true
    }

    fn fail(&self, status: Option<u64>, error: Option<&Bound<'_, PyAny>>) -> Result<bool, OpError> {
        let (told, text) = error.map_or((None, String::new()), what_it_says);
        let failure = Cause::new(status.or(told), &text);
        self.engine.call_failed(&self.id, &failure, &self.rule, self.alone)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end();
    }
}

/// The status that an error has, and what it says of itself: what it is called first.
pub(super) fn what_it_says(error: &Bound<'_, PyAny>) -> (Option<u64>, String) {
    if let Ok(text) = error.cast::<PyString>() {
        return (None, script_key(text).unwrap_or_default());
    }
    let py = error.py();
    let status = |value: &Bound<'_, PyAny>| {
        let status = value.getattr(intern!(py, "status_code")).ok()?.extract::<u64>().ok()?;
        (100..=999).contains(&status).then_some(status)
    };
    let told = status(error).or_else(|| status(&error.getattr(intern!(py, "response")).ok()?));
    let name = |kind: &Bound<'_, PyAny>| {
        let kind = kind.cast::<PyType>().ok()?;
        Some(kind.name().ok()?.to_string())
    };
    let mut text = String::new();
    // Libraries name their errors by what happened, but not always the most special one.
    if let Ok(kinds) =
        error.get_type().getattr(intern!(py, "__mro__")).and_then(|mro| mro.try_iter())
    {
        for kind in kinds.flatten().filter_map(|kind| name(&kind)) {
            if matches!(kind.as_str(), "Exception" | "BaseException" | "object" | "OSError") {
                break;
            }
            text.push_str(&kind);
            text.push(' ');
        }
    }
    // Only where the names say nothing: a message may mention anything.
    if Cause::new(None, &text).kind == FailureKind::Other
        && let Ok(message) = error.str()
    {
        text = script_key(&message).unwrap_or_default();
    }
    (told, text)
}
