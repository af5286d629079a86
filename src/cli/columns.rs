//! The flat columns of a kind of record, as the schema of its JSON form declares them.

use super::rows::Kept;
use crate::inspect::{Report, Section};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// What a column's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Integer,
    Number,
    Bool,
}

impl Kind {
    /// For people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Bool => "true or false",
        }
    }
}

/// What a column's numbers count, as the end of its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Plain,
    /// A duration, in so many nanoseconds.
    Duration(u64),
    Percent,
    Bytes,
    /// In a second.
    PerSecond,
    /// Seconds since 1970.
    Moment,
}

impl Unit {
    fn of(name: &str) -> Self {
        let last = name.rsplit('.').next().unwrap_or(name);
        let ends = |unit: &str| last.ends_with(unit);
        match last {
            "bytes" | "size" => Self::Bytes,
            "percent" => Self::Percent,
            _ if ends("_bytes") => Self::Bytes,
            _ if ends("_pct") => Self::Percent,
            _ if ends("_per_s") => Self::PerSecond,
            _ if ends("_at") => Self::Moment,
            _ if ends("_s") => Self::Duration(1_000_000_000),
            _ if ends("_ms") => Self::Duration(1_000_000),
            _ if ends("_us") => Self::Duration(1_000),
            _ if ends("_ns") => Self::Duration(1),
            _ => Self::Plain,
        }
    }

    /// For people; nothing where a number is only a number.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Duration(1) => "nanoseconds",
            Self::Duration(1_000) => "microseconds",
            Self::Duration(1_000_000) => "milliseconds",
            Self::Duration(_) => "seconds",
            Self::Percent => "percent",
            Self::Bytes => "bytes",
            Self::PerSecond => "per second",
            Self::Moment => "Unix seconds",
        }
    }
}

/// One column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    /// Its name in JSON, with a dot between the name of an object and that of its field.
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    /// What its values mean.
    pub(super) about: String,
    /// It belongs to a list in the record, whose elements make a row each.
    pub(super) listed: bool,
    /// Its value where JSON leaves it out.
    pub(super) default: Kept,
    /// Text has it only when it is asked for.
    pub(super) detail: bool,
}

/// All columns of a record, in the order in which it declares them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Columns(Vec<Column>);

impl Columns {
    /// Those of a section's records.
    pub(super) fn of_section(section: Section) -> Self {
        section.records(&Report::default()).columns()
    }

    /// Those of a record.
    pub(super) fn of<T: JsonSchema>() -> Self {
        let settings = SchemaSettings::draft2020_12()
            .for_serialize()
            .with(|settings| settings.inline_subschemas = true);
        let schema = settings.into_generator().into_root_schema_for::<T>();
        let mut columns = Self(Vec::new());
        if let Some(object) = schema.as_object() {
            columns.add_fields("", object, false);
        }
        columns
    }

    fn add_fields(&mut self, path: &str, object: &Map<String, Value>, listed: bool) {
        let fields = object.get("properties").and_then(Value::as_object);
        for (name, field) in fields.into_iter().flatten() {
            if let Some(field) = field.as_object() {
                self.add_field(format!("{path}{name}"), field, listed);
            }
        }
    }

    fn add_field(&mut self, name: String, field: &Map<String, Value>, listed: bool) {
        let described = field.get("description").and_then(Value::as_str);
        // An optional object is this object or null.
        let choices = field.get("anyOf").and_then(Value::as_array);
        let inner = choices.and_then(|choices| choices.iter().find_map(as_object)).unwrap_or(field);
        if inner.contains_key("properties") {
            return self.add_fields(&format!("{name}."), inner, listed);
        }
        if let Some(elements) = inner.get("items").and_then(as_object) {
            return self.add_fields(&format!("{name}."), elements, true);
        }
        let is = |kind: &str| match inner.get("type") {
            Some(Value::String(only)) => only == kind,
            Some(Value::Array(several)) => several.iter().any(|one| one == kind),
            _ => false,
        };
        let kind = match () {
            () if is("integer") => Kind::Integer,
            () if is("number") => Kind::Number,
            () if is("boolean") => Kind::Bool,
            () => Kind::Text,
        };
        let about = described.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let default = match field.get("default") {
            Some(Value::Bool(value)) => Kept::Bool(*value),
            Some(Value::Number(value)) => value.as_u64().map_or(Kept::Absent, Kept::Unsigned),
            _ => Kept::Absent,
        };
        let detail = field.contains_key("x-detail");
        self.0.push(Column { unit: Unit::of(&name), name, kind, about, listed, default, detail });
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Column> {
        self.0.iter()
    }

    pub(super) fn get(&self, number: usize) -> Option<&Column> {
        self.0.get(number)
    }

    /// Number of the column of that name.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|column| column.name == name)
    }

    /// Number of the column of that name, or what to say when there is none.
    pub(super) fn find(&self, name: &str) -> Result<usize, String> {
        self.position(name).ok_or_else(|| {
            let known: Vec<&str> = self.iter().map(|column| column.name.as_str()).collect();
            format!("there is no column {name:?}; use one of {}", known.join(", "))
        })
    }
}

fn as_object(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object().filter(|object| object.get("type").is_none_or(|kind| kind != "null"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::{LimitReport, PoolReport};

    #[test]
    fn nested_fields_are_columns_in_declared_order() {
        let columns = Columns::of::<LimitReport>();
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names[..4], ["key", "kind", "window_s", "resets_in_s"]);
        assert_eq!(names[4..7], ["requests.used", "requests.limit", "tokens.used"]);
        let column = |name: &str| columns.get(columns.find(name).unwrap()).unwrap();
        assert_eq!(column("key").kind, Kind::Text);
        assert_eq!(
            (column("used_pct").kind, column("used_pct").unit),
            (Kind::Number, Unit::Percent)
        );
        assert_eq!(column("retry_after_ms").unit, Unit::Duration(1_000_000));
        assert_eq!(column("allowed_per_s").unit, Unit::PerSecond);
        assert_eq!((column("moving").kind, column("denied").kind), (Kind::Bool, Kind::Integer));
        assert!(columns.iter().all(|column| !column.about.is_empty() && !column.listed));
        assert!(columns.find("nonsense").unwrap_err().contains("requests.used, requests.limit"));
    }

    #[test]
    fn flattened_and_listed_fields_are_columns() {
        let columns = Columns::of::<PoolReport>();
        let column = |name: &str| columns.get(columns.find(name).unwrap()).unwrap();
        assert!(!column("created").listed && column("endpoints.healthy").listed);
    }
}
