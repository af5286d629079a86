//! Core errors as Python exceptions.

use crate::error::{CreateError, OpError, OpenError};
use crate::tokens::UnknownToken;
use pyo3::exceptions::{PyException, PyKeyError, PyValueError};
use pyo3::prelude::*;

pyo3::create_exception!(
    fast_litellm._rust,
    RegionError,
    PyException,
    "The shared region cannot be created or attached to; the message names the remedy."
);
pyo3::create_exception!(
    fast_litellm._rust,
    UnavailableError,
    PyException,
    "The operation cannot be decided: a table of the region is full or a key too contended."
);
pyo3::create_exception!(
    fast_litellm._rust,
    OutOfRangeError,
    PyValueError,
    "A value is outside the range of the operation."
);

impl From<CreateError> for PyErr {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Setting { .. } => OutOfRangeError::new_err(error.to_string()),
            _ => RegionError::new_err(error.to_string()),
        }
    }
}

impl From<OpenError> for PyErr {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Create(error) => error.into(),
            _ => RegionError::new_err(error.to_string()),
        }
    }
}

impl From<OpError> for PyErr {
    fn from(error: OpError) -> Self {
        match error {
            OpError::OutOfRange | OpError::TooLarge => OutOfRangeError::new_err(error.to_string()),
            _ => UnavailableError::new_err(error.to_string()),
        }
    }
}

impl From<UnknownToken> for PyErr {
    fn from(error: UnknownToken) -> Self {
        PyKeyError::new_err(error.to_string())
    }
}
