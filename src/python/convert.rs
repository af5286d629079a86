//! Python values as core arguments.

use super::errors::OutOfRangeError;
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use std::borrow::Cow;

/// The bytes of a key. Any `str` is a key, also one that UTF-8 cannot encode (lone surrogates).
#[inline]
pub(super) fn key_bytes<'a>(key: &'a Bound<'_, PyAny>) -> PyResult<Cow<'a, [u8]>> {
    let text = key.cast::<PyString>().map_err(|_| {
        let kind = key.get_type().name().map_or_else(|_| "?".to_string(), |name| name.to_string());
        PyTypeError::new_err(format!("key must be a str or None, not {kind}"))
    })?;
    match text.to_str() {
        Ok(text) => Ok(Cow::Borrowed(text.as_bytes())),
        Err(_) => surrogates(text).map(Cow::Owned),
    }
}

#[cold]
fn surrogates(text: &Bound<'_, PyString>) -> PyResult<Vec<u8>> {
    let bytes = text.call_method1("encode", ("utf-8", "surrogatepass"))?;
    Ok(bytes.cast::<PyBytes>()?.as_bytes().to_vec())
}

/// Limiter keys as text; what UTF-8 cannot encode is escaped, so that two keys never become one.
pub(super) fn script_keys(keys: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    keys.try_iter()?.map(|key| script_key(&key?)).collect()
}

/// A name as text, borrowed where it can be; what UTF-8 cannot encode is escaped.
pub(super) fn key_text<'a>(name: &'a Bound<'_, PyAny>) -> PyResult<Cow<'a, str>> {
    match name.cast::<PyString>()?.to_str() {
        Ok(text) => Ok(Cow::Borrowed(text)),
        Err(_) => script_key(name).map(Cow::Owned),
    }
}

/// One limiter key as text.
pub(super) fn script_key(key: &Bound<'_, PyAny>) -> PyResult<String> {
    let text = key.cast::<PyString>()?;
    match text.to_str() {
        Ok(text) => Ok(text.to_string()),
        Err(_) => text
            .call_method1("encode", ("utf-8", "backslashreplace"))?
            .call_method1("decode", ("utf-8",))?
            .extract(),
    }
}

/// A script argument: scripts take integers, floats and their decimal text alike. A fraction of a token
/// is rounded up, so that a limit is never exceeded by rounding.
pub(super) fn number(value: &Bound<'_, PyAny>) -> PyResult<i64> {
    if let Ok(number) = value.extract::<i64>() {
        return Ok(number);
    }
    let float = match value.extract::<f64>() {
        Ok(float) => float,
        Err(_) => value.str()?.to_str()?.trim().parse::<f64>().map_err(|_| not_a_number(value))?,
    };
    if !float.is_finite() {
        return Err(not_a_number(value));
    }
    #[allow(clippy::cast_possible_truncation, reason = "saturating is what is wanted")]
    Ok(float.ceil() as i64)
}

fn not_a_number(value: &Bound<'_, PyAny>) -> PyErr {
    OutOfRangeError::new_err(format!("{value} is not a finite number"))
}

/// All script arguments.
pub(super) fn numbers(values: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
    values.try_iter()?.map(|value| number(&value?)).collect()
}

/// A whole number of any size; what even 128 bits cannot hold is the largest or smallest that they can, so
/// that range checks name the setting instead of Python's limits.
#[derive(Clone, Copy)]
pub(super) struct Whole(pub(super) i128);

impl<'a, 'py> FromPyObject<'a, 'py> for Whole {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        match value.extract::<i128>() {
            Ok(whole) => Ok(Self(whole)),
            Err(error) if error.is_instance_of::<PyOverflowError>(value.py()) => {
                Ok(Self(if value.lt(0)? { i128::MIN } else { i128::MAX }))
            }
            Err(error) => Err(error),
        }
    }
}

/// A length of time or a limit; anything below zero is zero.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
