//! `TokenCounter`: texts are counted by the core, without the interpreter where they are long.

use super::convert::Whole;
use super::encodings::free_if_long;
use super::errors::OutOfRangeError;
use crate::tokens::Encoding;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::borrow::Cow;

/// Counts tokens exactly as tiktoken does.
///
/// Args:
///     model_max_tokens: tokens that an input may have where nothing is known of the model, at least 1.
///
/// Raises:
///     OutOfRangeError (a ValueError): `model_max_tokens` is below 1.
#[pyclass(frozen, subclass, module = "fast_litellm")]
pub(super) struct TokenCounter {
    model_max_tokens: u64,
}

/// The text; lone surrogates count as the replacement character, as in tiktoken.
fn text_of<'a>(text: &'a Bound<'_, PyAny>) -> PyResult<Cow<'a, str>> {
    let text = text.cast::<PyString>().map_err(|_| {
        let kind = text.get_type().name().map_or_else(|_| "?".to_string(), |name| name.to_string());
        PyTypeError::new_err(format!("text must be a str, not {kind}"))
    })?;
    if let Ok(text) = text.to_str() {
        return Ok(Cow::Borrowed(text));
    }
    let bytes = text.call_method1("encode", ("utf-16", "surrogatepass"))?;
    bytes.call_method1("decode", ("utf-16", "replace"))?.extract().map(Cow::Owned)
}

#[pymethods]
#[allow(clippy::unused_self, reason = "methods of an object, in Python")]
impl TokenCounter {
    #[new]
    #[pyo3(signature = (model_max_tokens = Whole(4_096)), text_signature = "(model_max_tokens=4096)")]
    fn new(model_max_tokens: Whole) -> PyResult<Self> {
        let checked = u64::try_from(model_max_tokens.0).ok().filter(|&tokens| tokens > 0);
        let model_max_tokens = checked.ok_or_else(|| {
            OutOfRangeError::new_err(format!(
                "model_max_tokens={}: use at least 1",
                model_max_tokens.0
            ))
        })?;
        Ok(Self { model_max_tokens })
    }

    /// Tokens of a text, as tiktoken counts it for the model; what looks like a special token is text.
    ///
    /// A model that is not OpenAI's is counted with `cl100k_base`, which is what LiteLLM falls back to.
    ///
    /// Args:
    ///     text: any str.
    ///     model: a name as LiteLLM knows it, with or without its provider. Default: `cl100k_base`.
    #[pyo3(signature = (text, model = None))]
    fn count_tokens(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyAny>,
        model: Option<&str>,
    ) -> PyResult<usize> {
        let encoding = Encoding::of_model(model);
        let text = text_of(text)?;
        Ok(free_if_long(py, text.len(), || encoding.count(&text)))
    }

    /// Tokens of each text, as `count_tokens` counts them. Long batches are counted by several threads.
    ///
    /// Args:
    ///     texts: a list of str.
    ///     model: as for `count_tokens`.
    ///     threads: at most so many. Default: one for each core.
    #[pyo3(signature = (texts, model = None, *, threads = None))]
    fn count_tokens_batch(
        &self,
        py: Python<'_>,
        texts: &Bound<'_, PyAny>,
        model: Option<&str>,
        threads: Option<usize>,
    ) -> PyResult<Vec<usize>> {
        if texts.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("texts must be a list of str, not a str"));
        }
        let encoding = Encoding::of_model(model);
        let held = texts.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        let texts = held.iter().map(text_of).collect::<PyResult<Vec<_>>>()?;
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = threads.unwrap_or_else(cores);
        let bytes = texts.iter().map(|text| text.len()).sum();
        Ok(free_if_long(py, bytes, || encoding.count_all(&texts, threads)))
    }

    /// Tokens that an input may have where nothing is known of the model.
    #[getter]
    fn model_max_tokens(&self) -> u64 {
        self.model_max_tokens
    }
}
