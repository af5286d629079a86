//! `CoreBPE`: an encoding of tiktoken by the core, in place of the class of that name in tiktoken's own extension.

use crate::tokens::Encoding;
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList};
use std::collections::HashSet;

/// Texts of so many bytes are worked on with the interpreter free for other threads.
const FREE_FROM: usize = 4_096;

/// Does the work, with the interpreter free for other threads if it is long.
#[inline]
pub(super) fn free_if_long<R: Send>(
    py: Python<'_>,
    bytes: usize,
    work: impl FnOnce() -> R + Send,
) -> R {
    if bytes < FREE_FROM { work() } else { py.detach(work) }
}

/// An encoding of tiktoken. What looks like a special token in a text is text, unless it is allowed.
///
/// Its tables are loaded when the first of its name is made: with the interpreter held, because a fork meanwhile
/// would leave the child waiting for ever. Texts of 4,096 bytes and more are worked on without it.
///
/// Args:
///     name: one of cl100k_base, gpt2, o200k_base, o200k_harmony, p50k_base, p50k_edit, r50k_base.
///
/// Raises:
///     ValueError: there is no encoding of that name.
#[pyclass(frozen, module = "fast_litellm")]
pub(super) struct CoreBPE {
    encoding: Encoding,
}

/// Tokens below this are kept as objects: making them anew for each list takes longer than finding the tokens.
const KEPT: usize = 1 << 16;

static NUMBERS: PyOnceLock<Vec<Py<PyInt>>> = PyOnceLock::new();

fn list<'py>(py: Python<'py>, tokens: &[u32]) -> PyResult<Bound<'py, PyList>> {
    let kept = || (0..KEPT).map(|token| PyInt::new(py, token).unbind()).collect();
    let numbers = NUMBERS.get_or_init(py, kept);
    let number = |&token: &u32| match numbers.get(token as usize) {
        Some(kept) => kept.bind(py).clone(),
        None => PyInt::new(py, token),
    };
    PyList::new(py, tokens.iter().map(number))
}

/// Tokens from Python: any sequence of numbers, a list in less time than others.
struct Tokens(Vec<u32>);

impl<'py> FromPyObject<'_, 'py> for Tokens {
    type Error = PyErr;

    fn extract(tokens: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match tokens.cast::<PyList>() {
            Ok(list) => list.iter().map(|token| token.extract()).collect::<PyResult<_>>(),
            Err(_) => tokens.extract(),
        }
        .map(Self)
    }
}

#[pymethods]
impl CoreBPE {
    #[new]
    fn new(name: &str) -> PyResult<Self> {
        let unknown = || {
            let names: Vec<&str> = Encoding::names().collect();
            PyValueError::new_err(format!("no encoding {name:?}: use one of {}", names.join(", ")))
        };
        let encoding = Encoding::named(name).ok_or_else(unknown)?;
        Ok(Self { encoding })
    }

    /// Its name in tiktoken.
    #[getter]
    fn name(&self) -> &'static str {
        self.encoding.name()
    }

    /// Its special tokens by their text.
    #[getter]
    fn special_tokens<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let tokens = PyDict::new(py);
        for (text, token) in self.encoding.special_tokens() {
            tokens.set_item(text, token)?;
        }
        Ok(tokens)
    }

    /// All tokens that are not special, by their bytes.
    fn mergeable_ranks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let ranks = PyDict::new(py);
        for (token, bytes) in self.encoding.tokens() {
            ranks.set_item(PyBytes::new(py, bytes), token)?;
        }
        Ok(ranks)
    }

    /// The bytes of all tokens that are not special, sorted.
    fn token_byte_values<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        let mut tokens: Vec<&[u8]> = self.encoding.tokens().map(|(_, bytes)| bytes).collect();
        tokens.sort_unstable();
        tokens.into_iter().map(|bytes| PyBytes::new(py, bytes)).collect()
    }

    /// The tokens of a text.
    ///
    /// Raises:
    ///     UnicodeEncodeError: it has lone surrogates.
    fn encode_ordinary<'py>(&self, py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyList>> {
        list(py, &self.ordinary(py, text))
    }

    /// How many tokens a text has.
    ///
    /// Raises:
    ///     UnicodeEncodeError: it has lone surrogates.
    fn count_ordinary(&self, py: Python<'_>, text: &str) -> usize {
        free_if_long(py, text.len(), || self.encoding.count(text))
    }

    /// The tokens of a text, in which the special tokens that are allowed stand for themselves.
    ///
    /// Raises:
    ///     UnicodeEncodeError: it has lone surrogates.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        allowed_special: HashSet<PyBackedStr>,
    ) -> PyResult<Bound<'py, PyList>> {
        list(py, &self.with_special(py, text, &allowed_special))
    }

    /// What `encode` returns, as 32-bit numbers in the machine's order.
    fn encode_to_tiktoken_buffer<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        allowed_special: HashSet<PyBackedStr>,
    ) -> Bound<'py, PyBytes> {
        PyBytes::new(py, bytemuck::cast_slice(&self.with_special(py, text, &allowed_special)))
    }

    /// What `encode` returns for each text, by several threads if they are long.
    ///
    /// Args:
    ///     threads: at most so many.
    ///
    /// Raises:
    ///     UnicodeEncodeError: one of them has lone surrogates.
    fn encode_batch<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<PyBackedStr>,
        allowed_special: HashSet<PyBackedStr>,
        threads: usize,
    ) -> PyResult<Vec<Bound<'py, PyList>>> {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let allowed = allowed_special.iter().map(AsRef::as_ref).collect();
        let bytes = texts.iter().map(|text| text.len()).sum();
        let encode = || self.encoding.encode_all(&texts, &allowed, threads);
        let encoded = free_if_long(py, bytes, encode);
        encoded.iter().map(|tokens| list(py, tokens)).collect()
    }

    /// How many tokens each text has, by several threads if they are long.
    fn count_batch(&self, py: Python<'_>, texts: Vec<PyBackedStr>, threads: usize) -> Vec<usize> {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let bytes = texts.iter().map(|text| text.len()).sum();
        free_if_long(py, bytes, || self.encoding.count_all(&texts, threads))
    }

    /// The tokens of bytes that are taken as one piece, whatever is in them.
    fn encode_single_piece<'py>(
        &self,
        py: Python<'py>,
        piece: &[u8],
    ) -> PyResult<Bound<'py, PyList>> {
        let mut tokens = Vec::new();
        self.encoding.encode_piece(piece, &mut tokens);
        list(py, &tokens)
    }

    /// The token that is just these bytes, a special one among them.
    ///
    /// Raises:
    ///     KeyError: there is none.
    fn encode_single_token(&self, py: Python<'_>, piece: &[u8]) -> PyResult<u32> {
        let unknown = || PyKeyError::new_err(PyBytes::new(py, piece).unbind());
        self.encoding.token(piece).ok_or_else(unknown)
    }

    /// The bytes of tokens, one after the other.
    ///
    /// Raises:
    ///     KeyError: a number is no token.
    fn decode_bytes<'py>(&self, py: Python<'py>, tokens: Tokens) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = free_if_long(py, tokens.0.len(), || self.encoding.decode(&tokens.0))?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// What `decode_bytes` returns for each list of tokens, by several threads if they are long.
    fn decode_batch<'py>(
        &self,
        py: Python<'py>,
        batch: Vec<Tokens>,
        threads: usize,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let batch: Vec<&[u32]> = batch.iter().map(|tokens| tokens.0.as_slice()).collect();
        let bytes = batch.iter().map(|tokens| size_of_val(*tokens)).sum();
        let decoded = free_if_long(py, bytes, || self.encoding.decode_all(&batch, threads));
        decoded.into_iter().map(|bytes| Ok(PyBytes::new(py, &bytes?))).collect()
    }

    /// The bytes of a token, a special one among them.
    ///
    /// Raises:
    ///     KeyError: the number is no token.
    fn decode_single_token_bytes<'py>(
        &self,
        py: Python<'py>,
        token: u32,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let unknown = |_| PyKeyError::new_err(token.to_string());
        Ok(PyBytes::new(py, self.encoding.bytes(token).map_err(unknown)?))
    }
}

impl CoreBPE {
    fn ordinary(&self, py: Python<'_>, text: &str) -> Vec<u32> {
        free_if_long(py, text.len(), || {
            let mut tokens = Vec::new();
            self.encoding.encode_ordinary(text, &mut tokens);
            tokens
        })
    }

    fn with_special(&self, py: Python<'_>, text: &str, allowed: &HashSet<PyBackedStr>) -> Vec<u32> {
        if allowed.is_empty() {
            return self.ordinary(py, text);
        }
        let allowed = allowed.iter().map(AsRef::as_ref).collect();
        free_if_long(py, text.len(), || {
            let mut tokens = Vec::new();
            self.encoding.encode(text, &allowed, &mut tokens);
            tokens
        })
    }
}
