//! The eight limiter scripts as methods: `(keys, args) -> list`, with the scripts' replies.

use super::convert::{number, numbers, script_key, script_keys, unsigned};
use super::errors::OutOfRangeError;
use super::region::Region;
use crate::engine::Engine;
use crate::engine::slots::{Grant, SlotAsk};
use crate::engine::windows::{Ask, Verdict};
use pyo3::prelude::*;
use pyo3::types::PyList;
use std::sync::Arc;

/// Every second key, paired with the one after it.
fn pairs(keys: &[String]) -> PyResult<Vec<(&str, &str)>> {
    if !keys.len().is_multiple_of(2) {
        return Err(OutOfRangeError::new_err(format!(
            "{} keys are no (window, counter) pairs",
            keys.len()
        )));
    }
    Ok(keys.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect())
}

fn expect_len<T>(args: &[T], wanted: usize) -> PyResult<()> {
    if args.len() == wanted {
        return Ok(());
    }
    Err(OutOfRangeError::new_err(format!("{} arguments, expected {wanted}", args.len())))
}

/// LiteLLM's limiter scripts, answered from a region.
#[pyclass(frozen, module = "fast_litellm._rust")]
pub(super) struct LimiterScripts {
    engine: Arc<Engine>,
}

#[pymethods]
impl LimiterScripts {
    #[new]
    fn new(region: &Bound<'_, Region>) -> Self {
        Self { engine: region.get().engine() }
    }

    /// Adds 1 to each counter: keys are (window, counter) pairs, args `now` (the region's own clock is
    /// used instead) and `window_size`; replies window start (text) and count of each pair.
    fn batch_rate_limiter<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
        args: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (keys, args) = (script_keys(keys)?, numbers(args)?);
        expect_len(&args, 2)?;
        let counts = self.engine.hit_all(&pairs(&keys)?, unsigned(args[1]))?;
        let reply = PyList::empty(py);
        for count in counts {
            reply.append(count.window_start.to_string())?;
            reply.append(count.count)?;
        }
        Ok(reply)
    }

    /// Reads values: texts, or None for what does not exist. There are no args.
    #[pyo3(signature = (keys, args = None))]
    fn batch_counter_read(
        &self,
        keys: &Bound<'_, PyAny>,
        args: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Vec<Option<String>>> {
        let _ = args;
        let keys = script_keys(keys)?;
        Ok(keys.iter().map(|key| self.engine.value(key).map(|value| value.to_string())).collect())
    }

    /// Adds to all counters or to none: keys are (window, counter) pairs, args limit, increment, ttl and
    /// window size of each; replies `[0, count, window start, ...]` or `[1, position, count, limit]`.
    fn check_and_increment_by_n(
        &self,
        keys: &Bound<'_, PyAny>,
        args: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<i64>> {
        let (keys, args) = (script_keys(keys)?, numbers(args)?);
        let pairs = pairs(&keys)?;
        expect_len(&args, pairs.len() * 4)?;
        let asks: Vec<Ask<'_>> = pairs
            .iter()
            .zip(args.chunks_exact(4))
            .map(|(&(window, counter), args)| Ask {
                window,
                counter,
                limit: args[0],
                amount: args[1],
                size_s: unsigned(args[3]),
            })
            .collect();
        Ok(match self.engine.admit_all(&asks)? {
            Verdict::Admitted(counts) => std::iter::once(0)
                .chain(counts.into_iter().flat_map(|count| {
                    [count.count, i64::try_from(count.window_start).unwrap_or(i64::MAX)]
                }))
                .collect(),
            Verdict::Refused { position, count, limit } => {
                vec![1, i64::try_from(position + 1).unwrap_or(i64::MAX), count, limit]
            }
        })
    }

    /// Adds to counters whose window still is the expected one: keys are (window, counter) pairs, args
    /// expected start, increment and ttl of each; replies 1 and the new, or 0 and the present value.
    fn window_guarded_token_increment(
        &self,
        keys: &Bound<'_, PyAny>,
        args: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<i64>> {
        let keys = script_keys(keys)?;
        let args = args.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        let pairs = pairs(&keys)?;
        expect_len(&args, pairs.len() * 3)?;
        let mut reply = Vec::with_capacity(args.len());
        for (&(window, counter), args) in pairs.iter().zip(args.chunks_exact(3)) {
            // Starts are compared as text: only the exact decimal number is a window start.
            let expected = args[0].str()?;
            let text = expected.to_str()?;
            let expected = text.parse::<u64>().ok().filter(|start| start.to_string() == text);
            let outcome =
                self.engine.adjust_if_window(window, counter, expected, number(&args[1])?)?;
            reply.extend(match outcome {
                Ok(count) => [1, count],
                Err(count) => [0, count],
            });
        }
        Ok(reply)
    }

    /// Adds to counters: args increment and ttl of each key; replies the new values as texts.
    fn token_increment(
        &self,
        keys: &Bound<'_, PyAny>,
        args: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<String>> {
        let (keys, args) = (script_keys(keys)?, numbers(args)?);
        expect_len(&args, keys.len() * 2)?;
        let mut reply = Vec::with_capacity(keys.len());
        for (key, args) in keys.iter().zip(args.chunks_exact(2)) {
            let ttl = if args[1] > 0 { unsigned(args[1]) } else { u64::MAX };
            reply.push(self.engine.add(key, args[0], ttl)?.to_string());
        }
        Ok(reply)
    }

    /// Acquires a slot under every key or under none: args limit, ttl and slot id of each; replies
    /// `[0, in flight, ...]` or `[1, position, in flight, limit]`.
    fn parallel_acquire(
        &self,
        keys: &Bound<'_, PyAny>,
        args: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<i64>> {
        let keys = script_keys(keys)?;
        let args = args.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        expect_len(&args, keys.len() * 3)?;
        let ids = args
            .chunks_exact(3)
            .map(|args| script_key(&args[2].str()?.into_any()))
            .collect::<PyResult<Vec<_>>>()?;
        let asks = keys
            .iter()
            .zip(args.chunks_exact(3))
            .zip(&ids)
            .map(|((key, args), slot_id)| {
                let (limit, ttl_s) = (number(&args[0])?, unsigned(number(&args[1])?));
                Ok(SlotAsk { key, limit, ttl_s, slot_id })
            })
            .collect::<PyResult<Vec<_>>>()?;
        let int = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        Ok(match self.engine.acquire_all(&asks)? {
            Grant::Held(counts) => std::iter::once(0).chain(counts.into_iter().map(int)).collect(),
            Grant::Refused { position, in_flight, limit } => {
                vec![1, int(position as u64 + 1), int(in_flight), limit]
            }
        })
    }

    /// Releases one slot under every key: args the slot id of each; replies what is still held.
    fn parallel_release(
        &self,
        keys: &Bound<'_, PyAny>,
        args: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<u64>> {
        let keys = script_keys(keys)?;
        let ids = args
            .try_iter()?
            .map(|id| script_key(&id?.str()?.into_any()))
            .collect::<PyResult<Vec<_>>>()?;
        expect_len(&ids, keys.len())?;
        keys.iter().zip(&ids).map(|(key, id)| Ok(self.engine.release(key, id)?)).collect()
    }

    /// Whether this process holds a slot with that id under the key.
    fn holds_slot(&self, key: &Bound<'_, PyAny>, slot_id: &Bound<'_, PyAny>) -> PyResult<bool> {
        Ok(self.engine.holds_slot(&script_key(key)?, &script_key(&slot_id.str()?.into_any())?))
    }

    /// Counts held slots: args the ttl of each key.
    fn parallel_count(
        &self,
        keys: &Bound<'_, PyAny>,
        args: &Bound<'_, PyAny>,
    ) -> PyResult<Vec<u64>> {
        let (keys, ttls) = (script_keys(keys)?, numbers(args)?);
        expect_len(&ttls, keys.len())?;
        let count =
            |(key, &ttl): (&String, &i64)| Ok(self.engine.count_slots(key, unsigned(ttl))?);
        keys.iter().zip(&ttls).map(count).collect()
    }

    /// One limiter key's value: a window's start (Unix seconds), a counter, or the slots held (those older
    /// than `slot_ttl` seconds do not count once the limit is reached); None = does not exist.
    #[pyo3(signature = (key, slot_ttl = 3_600))]
    fn value(&self, key: &Bound<'_, PyAny>, slot_ttl: u64) -> PyResult<Option<i64>> {
        use crate::engine::subject::{Part, Subject};
        let key = script_key(key)?;
        if Subject::parse(&key).part == Part::Slots {
            let held = self.engine.in_flight(&key, slot_ttl)?;
            return Ok(i64::try_from(held).ok().filter(|&held| held > 0));
        }
        Ok(self.engine.value(&key))
    }

    /// Adds to one counter; returns the new value.
    fn add(&self, key: &Bound<'_, PyAny>, amount: &Bound<'_, PyAny>, ttl: u64) -> PyResult<i64> {
        Ok(self.engine.add(&script_key(key)?, number(amount)?, ttl)?)
    }

    /// Adds to an amount of money that is forgotten `ttl` seconds after the first addition; returns the sum.
    fn spend(&self, key: &Bound<'_, PyAny>, amount: f64, ttl: u64) -> PyResult<f64> {
        Ok(self.engine.spend(&script_key(key)?, amount, ttl)?)
    }

    /// An amount of money; None = nothing was spent, or it is forgotten.
    fn spent(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
        Ok(self.engine.spent(&script_key(key)?))
    }

    /// Counts refusals that LiteLLM decided, for display: subjects in braces.
    fn note_refusals(&self, subjects: &Bound<'_, PyAny>) -> PyResult<()> {
        for subject in script_keys(subjects)? {
            self.engine.note_refusal(&subject);
        }
        Ok(())
    }

    /// Remembers a subject's limits for display: `subject` in braces, requests and tokens per window, 0 =
    /// none.
    fn note_limits(
        &self,
        subject: &Bound<'_, PyAny>,
        requests: &Bound<'_, PyAny>,
        tokens: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let (requests, tokens) = (unsigned(number(requests)?), unsigned(number(tokens)?));
        Ok(self.engine.note_limits(&script_key(subject)?, requests, tokens)?)
    }

    /// Removes what is known of one limiter key.
    fn forget(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        self.engine.forget(&script_key(key)?);
        Ok(())
    }
}
