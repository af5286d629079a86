//! Deployments as LiteLLM's `model_list` has them: dictionaries, with what is read of them and what is wrong with
//! them.

use super::convert::script_key;
use super::errors::OutOfRangeError;
use crate::engine::Engine;
use crate::engine::routing::Metric;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

/// Price of a token in each direction where none is known, as LiteLLM assumes it: dearer than any known one.
const UNKNOWN_PRICE: f64 = 5.0;
/// Hash domain of deployments without an id.
const NAMELESS: u64 = 0x6e61_6d65;
/// How deep `litellm_params` may be nested.
const MAX_DEPTH: u32 = 16;

/// Where a deployment was found, for messages.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// In the list of models.
    Listed(usize),
    /// It was given by itself.
    Given,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Listed(index) => write!(f, "model_list[{index}]"),
            Self::Given => write!(f, "deployment"),
        }
    }
}

/// A deployment's dictionary.
pub(super) struct Entry<'py> {
    origin: Origin,
    dict: Bound<'py, PyDict>,
    pub(super) model_name: Bound<'py, PyString>,
}

/// What a deployment is told apart by.
pub(super) enum Id<'py> {
    /// Its `model_info.id`.
    Given(Bound<'py, PyString>),
    /// It has none; a hash of what it is.
    Hash(u64),
}

fn kind_of(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "?".to_string(), |name| name.to_string())
}

impl<'py> Entry<'py> {
    /// Reads what every deployment must have to be compared with a model's name.
    #[inline]
    pub(super) fn new(value: &Bound<'py, PyAny>, origin: Origin) -> PyResult<Self> {
        let entry = value.cast::<PyDict>().map_err(|_| {
            PyTypeError::new_err(format!("{origin} must be a dict, not {}", kind_of(value)))
        })?;
        let py = value.py();
        let name = entry.get_item(intern!(py, "model_name"))?.filter(|name| !name.is_none());
        let name = name.ok_or_else(|| missing(origin, "model_name"))?;
        let model_name = name.cast_into::<PyString>().map_err(|error| {
            let kind = kind_of(&error.into_inner());
            PyTypeError::new_err(format!("{origin}: model_name must be a str, not {kind}"))
        })?;
        Ok(Self { origin, dict: entry.clone(), model_name })
    }

    /// One of its dictionaries; `None` = there is none.
    #[inline]
    fn part(&self, name: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let part = self.dict.get_item(name)?.filter(|part| !part.is_none());
        part.map(|part| {
            part.cast_into::<PyDict>().map_err(|error| {
                let kind = kind_of(&error.into_inner());
                PyTypeError::new_err(format!("{}: {name} must be a dict, not {kind}", self.origin))
            })
        })
        .transpose()
    }

    /// Its `litellm_params`.
    #[inline]
    pub(super) fn params(&self) -> PyResult<Bound<'py, PyDict>> {
        let part = self.part(intern!(self.dict.py(), "litellm_params"))?;
        part.ok_or_else(|| missing(self.origin, "litellm_params"))
    }

    /// `litellm_params.model`.
    #[inline]
    pub(super) fn provider_model(
        &self,
        params: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let model = params.get_item(intern!(self.dict.py(), "model"))?;
        model
            .filter(|model| !model.is_none())
            .ok_or_else(|| missing(self.origin, "litellm_params.model"))
    }

    fn info(&self) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.part(intern!(self.dict.py(), "model_info"))
    }

    /// What it is told apart by.
    #[inline]
    pub(super) fn id(&self, engine: &Engine, params: &Bound<'py, PyDict>) -> PyResult<Id<'py>> {
        let py = self.dict.py();
        let id = match self.info()? {
            Some(info) => info.get_item(intern!(py, "id"))?.filter(|id| !id.is_none()),
            None => None,
        };
        match id {
            Some(id) => Ok(Id::Given(id_text(id, self.origin)?)),
            None => Ok(Id::Hash(self.digest(engine, params)?)),
        }
    }

    /// The same for the same name and parameters, in whatever order they are, for all who use the region: a hash
    /// under the region's secret, from which nobody else learns a credential.
    fn digest(&self, engine: &Engine, params: &Bound<'py, PyDict>) -> PyResult<u64> {
        let mut bytes = Vec::with_capacity(256);
        let mut digest = Digest { engine, origin: self.origin, bytes: &mut bytes };
        digest.write(&self.model_name, 0)?;
        digest.write(params, 0)?;
        Ok(engine.region().hash(NAMELESS, &bytes))
    }

    /// A number that it is chosen by. 0 = it has none.
    #[inline]
    pub(super) fn metric(
        &self,
        params: &Bound<'py, PyDict>,
        metric: Metric,
        prices: &mut Prices<'py>,
    ) -> PyResult<f64> {
        let py = self.dict.py();
        let name = match metric {
            Metric::Weight => intern!(py, "weight"),
            Metric::Rpm => intern!(py, "rpm"),
            Metric::Tpm => intern!(py, "tpm"),
            Metric::Cost => return self.price(params, prices),
        };
        Ok(self.number(params, "litellm_params", name)?.unwrap_or(0.0))
    }

    #[inline]
    fn number(
        &self,
        part: &Bound<'py, PyDict>,
        part_name: &str,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Option<f64>> {
        let Some(value) = part.get_item(name)?.filter(|value| !value.is_none()) else {
            return Ok(None);
        };
        let number = value.extract::<f64>().ok();
        // The value is not shown where it is no number: it may be a secret in the wrong place.
        let number = number.filter(|number| number.is_finite() && *number >= 0.0).ok_or_else(|| {
            let origin = self.origin;
            let found = if value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>() {
                value.to_string()
            } else {
                format!("a {}", kind_of(&value))
            };
            OutOfRangeError::new_err(format!(
                "{origin}: {part_name}.{name} is {found}: use a finite number of at least 0, or leave it out"
            ))
        })?;
        Ok(Some(number))
    }

    /// What a token costs, in and out: its own prices, else those that LiteLLM knows for its model.
    fn price(&self, params: &Bound<'py, PyDict>, prices: &mut Prices<'py>) -> PyResult<f64> {
        let py = self.dict.py();
        let names = [intern!(py, "input_cost_per_token"), intern!(py, "output_cost_per_token")];
        let mut own = [None, None];
        for (own, name) in own.iter_mut().zip(names) {
            *own = self.number(params, "litellm_params", name)?;
        }
        if let [Some(input), Some(output)] = own {
            return Ok(input + output);
        }
        let info = self.info()?;
        if let Some(info) = &info {
            for (own, name) in own.iter_mut().zip(names) {
                if own.is_none() {
                    *own = self.number(info, "model_info", name)?;
                }
            }
        }
        if own.contains(&None) {
            let known = self.known_prices(params, info.as_ref(), prices)?;
            own = [own[0].or(known[0]), own[1].or(known[1])];
        }
        Ok(own[0].unwrap_or(UNKNOWN_PRICE) + own[1].unwrap_or(UNKNOWN_PRICE))
    }

    /// Prices that LiteLLM knows: of the base model if it is named, else of the model.
    fn known_prices(
        &self,
        params: &Bound<'py, PyDict>,
        info: Option<&Bound<'py, PyDict>>,
        prices: &mut Prices<'py>,
    ) -> PyResult<[Option<f64>; 2]> {
        let py = self.dict.py();
        let Some(known) = prices.known(py)? else { return Ok([None, None]) };
        let base = intern!(py, "base_model");
        let of_info = info.map(|info| info.get_item(base)).transpose()?.flatten();
        let of_params = params.get_item(base)?;
        let model = self.provider_model(params)?;
        for name in [of_info, of_params, Some(model)].into_iter().flatten() {
            if !name.is_instance_of::<PyString>() {
                continue;
            }
            let Some(row) = known.get_item(&name)? else { continue };
            let Ok(row) = row.cast_into::<PyDict>() else { continue };
            let price = |name: &Bound<'py, PyString>| {
                Ok::<_, PyErr>(row.get_item(name)?.and_then(|price| price.extract::<f64>().ok()))
            };
            let found = [
                price(intern!(py, "input_cost_per_token"))?,
                price(intern!(py, "output_cost_per_token"))?,
            ];
            if found != [None, None] {
                return Ok(found);
            }
        }
        Ok([None, None])
    }

    /// Whether any of its names is among `blocked`.
    pub(super) fn is_blocked(
        &self,
        id: &Id<'py>,
        provider_model: &Bound<'py, PyAny>,
        blocked: &Bound<'py, PyAny>,
    ) -> PyResult<bool> {
        if blocked.contains(&self.model_name)? || blocked.contains(provider_model)? {
            return Ok(true);
        }
        match id {
            Id::Given(id) => blocked.contains(id),
            Id::Hash(hash) => blocked.contains(self.nameless(*hash)?),
        }
    }

    /// The id of a deployment that has none: its model's name and the hash.
    pub(super) fn nameless(&self, hash: u64) -> PyResult<String> {
        Ok(format!("{}#{hash:016x}", script_key(&self.model_name)?))
    }

    /// Its id as text.
    pub(super) fn id_text(&self, id: &Id<'py>) -> PyResult<String> {
        match id {
            Id::Given(id) => script_key(id),
            Id::Hash(hash) => self.nameless(*hash),
        }
    }
}

fn missing(origin: Origin, what: &str) -> PyErr {
    PyValueError::new_err(format!(
        "{origin} has no {what}: a deployment is a dict with model_name and litellm_params, which has model"
    ))
}

/// An id is text; LiteLLM takes whole numbers for their decimals, too.
pub(super) fn id_text(id: Bound<'_, PyAny>, origin: Origin) -> PyResult<Bound<'_, PyString>> {
    let wrong = |found: &str| {
        PyTypeError::new_err(format!("{origin}: the id must be a str or an int, not {found}"))
    };
    let id = match id.cast_into::<PyString>() {
        Ok(id) => id,
        Err(error) => {
            let id = error.into_inner();
            if !id.is_instance_of::<PyInt>() || id.is_instance_of::<PyBool>() {
                return Err(wrong(&kind_of(&id)));
            }
            id.str()?
        }
    };
    if id.is_truthy()? { Ok(id) } else { Err(wrong("an empty str")) }
}

/// LiteLLM's prices, looked up when the first is needed.
#[derive(Default)]
pub(super) enum Prices<'py> {
    /// Not looked up yet.
    #[default]
    Unasked,
    /// There are none: LiteLLM has not been imported, and is not for this.
    Unknown,
    /// LiteLLM's `model_cost`.
    Known(Bound<'py, PyDict>),
}

impl<'py> Prices<'py> {
    fn known(&mut self, py: Python<'py>) -> PyResult<Option<&Bound<'py, PyDict>>> {
        if matches!(self, Self::Unasked) {
            let modules = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
            let litellm = modules.cast::<PyDict>()?.get_item(intern!(py, "litellm"))?;
            let costs = litellm.and_then(|litellm| litellm.getattr(intern!(py, "model_cost")).ok());
            let costs = costs.and_then(|costs| costs.cast_into::<PyDict>().ok());
            *self = costs.map_or(Self::Unknown, Self::Known);
        }
        Ok(if let Self::Known(costs) = self { Some(costs) } else { None })
    }
}

/// Writes values down, so that two are written alike only if they are alike.
struct Digest<'a> {
    engine: &'a Engine,
    origin: Origin,
    bytes: &'a mut Vec<u8>,
}

impl Digest<'_> {
    fn text(&mut self, tag: u8, text: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend((text.len() as u64).to_le_bytes());
        self.bytes.extend(text);
    }

    fn write(&mut self, value: &Bound<'_, PyAny>, depth: u32) -> PyResult<()> {
        if depth > MAX_DEPTH {
            return Err(self.needs_an_id("litellm_params are nested too deeply"));
        }
        if let Ok(text) = value.cast::<PyString>() {
            match text.to_str() {
                Ok(text) => self.text(b's', text.as_bytes()),
                Err(_) => self.text(b'e', script_key(text)?.as_bytes()),
            }
        } else if value.is_none() {
            self.bytes.push(b'n');
        } else if let Ok(truth) = value.cast::<PyBool>() {
            self.bytes.extend([b'b', u8::from(truth.is_true())]);
        } else if value.is_instance_of::<PyInt>() {
            match value.extract::<i64>() {
                Ok(number) => {
                    self.bytes.push(b'i');
                    self.bytes.extend(number.to_le_bytes());
                }
                Err(_) => self.text(b'I', value.str()?.to_str()?.as_bytes()),
            }
        } else if let Ok(number) = value.cast::<PyFloat>() {
            self.bytes.push(b'f');
            self.bytes.extend(number.extract::<f64>()?.to_bits().to_le_bytes());
        } else if let Ok(dict) = value.cast::<PyDict>() {
            self.write_dict(dict, depth)?;
        } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
            self.bytes.push(b'l');
            for item in value.try_iter()? {
                self.write(&item?, depth + 1)?;
            }
            self.bytes.push(b'.');
        } else {
            let kind = kind_of(value);
            return Err(self.needs_an_id(&format!("litellm_params hold a {kind}")));
        }
        Ok(())
    }

    /// The items by their hashes, in the order of those.
    fn write_dict(&mut self, dict: &Bound<'_, PyDict>, depth: u32) -> PyResult<()> {
        let start = self.bytes.len();
        let mut items = Vec::with_capacity(dict.len());
        // A copy: what writes a number down may be a program of the caller's, which may change the dictionary.
        for (key, value) in dict.copy()?.iter() {
            self.write(&key, depth + 1)?;
            self.write(&value, depth + 1)?;
            items.push(self.engine.region().hash(NAMELESS, &self.bytes[start..]));
            self.bytes.truncate(start);
        }
        items.sort_unstable();
        self.bytes.push(b'd');
        self.bytes.extend((items.len() as u64).to_le_bytes());
        self.bytes.extend(items.into_iter().flat_map(u64::to_le_bytes));
        Ok(())
    }

    fn needs_an_id(&self, why: &str) -> PyErr {
        PyValueError::new_err(format!(
            "{} has no model_info.id, and none can be made, because its {why}: give it one",
            self.origin
        ))
    }
}
