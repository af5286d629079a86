//! Records as rows of cells, one for each of their columns, without building a tree of each record.

use super::columns::Columns;
use serde::Serialize;
use serde::ser::{
    Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple, Serializer,
};
use std::fmt::{Display, Error, Formatter, Write};

/// One value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cell<'a> {
    Absent,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'a str),
}

/// A cell whose text lies in a text that many share.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) enum Kept {
    #[default]
    Absent,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text {
        from: usize,
        to: usize,
    },
}

impl Kept {
    pub(super) fn cell(self, texts: &str) -> Cell<'_> {
        match self {
            Self::Absent => Cell::Absent,
            Self::Bool(value) => Cell::Bool(value),
            Self::Unsigned(value) => Cell::Unsigned(value),
            Self::Signed(value) => Cell::Signed(value),
            Self::Float(value) => Cell::Float(value),
            Self::Text { from, to } => Cell::Text(texts.get(from..to).unwrap_or_default()),
        }
    }
}

/// One row: a record, or a record with one element of its list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a> {
    cells: &'a [Kept],
    texts: &'a str,
}

impl<'a> Row<'a> {
    pub(super) fn cell(&self, column: usize) -> Cell<'a> {
        self.cells.get(column).map_or(Cell::Absent, |kept| kept.cell(self.texts))
    }
}

/// Turns records into rows, one after the other, in memory that it uses again.
#[derive(Debug)]
pub(super) struct Rows<'c> {
    columns: &'c Columns,
    texts: String,
    /// What the record itself has.
    own: Vec<Kept>,
    /// What each element of its list has, one after the other.
    listed: Vec<Kept>,
    /// The present element, from 1; 0 = outside the list.
    element: usize,
    /// Name of the present field, with those of the objects that it is in.
    path: String,
    /// Where the column of the next field is expected.
    next: usize,
}

impl<'c> Rows<'c> {
    pub(super) fn new(columns: &'c Columns) -> Self {
        Self {
            columns,
            texts: String::new(),
            own: Vec::new(),
            listed: Vec::new(),
            element: 0,
            path: String::new(),
            next: 0,
        }
    }

    /// Reads a record; returns the number of its rows, which is that of its list's elements, and at least 1.
    pub(super) fn read(&mut self, record: &(impl Serialize + ?Sized)) -> usize {
        self.texts.clear();
        self.own.clear();
        self.own.extend(self.columns.iter().map(|column| column.default));
        self.listed.clear();
        self.path.clear();
        (self.element, self.next) = (0, 0);
        // Records have nothing that cannot be a cell.
        let _ = record.serialize(&mut *self);
        let width = self.columns.len().max(1);
        for elements in self.listed.chunks_mut(width) {
            for ((cell, own), column) in elements.iter_mut().zip(&self.own).zip(self.columns.iter())
            {
                if !column.listed {
                    *cell = *own;
                }
            }
        }
        (self.listed.len() / width).max(1)
    }

    /// One of the rows of the record that was read last.
    pub(super) fn row(&self, number: usize) -> Row<'_> {
        let width = self.columns.len();
        let from = number.saturating_mul(width);
        let cells = self.listed.get(from..from.saturating_add(width)).unwrap_or(&self.own);
        Row { cells: if self.listed.is_empty() { &self.own } else { cells }, texts: &self.texts }
    }

    /// Number of the column that the present field is.
    fn column(&mut self) -> Option<usize> {
        let is =
            |number: usize| self.columns.get(number).is_some_and(|found| found.name == self.path);
        // Fields come in the order of the columns, but some are absent, and a list has several elements.
        let all = self.columns.len();
        let found = (self.next..all).chain(0..self.next.min(all)).find(|&number| is(number))?;
        self.next = found + 1;
        Some(found)
    }

    fn put(&mut self, kept: Kept) {
        let Some(column) = self.column() else { return };
        let from = self.element.checked_sub(1).map(|element| element * self.columns.len());
        let cell = match from {
            Some(from) => self.listed.get_mut(from + column),
            None => self.own.get_mut(column),
        };
        if let Some(cell) = cell {
            *cell = kept;
        }
    }

    fn field(&mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let outside = self.path.len();
        if outside > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let done = value.serialize(&mut *self);
        self.path.truncate(outside);
        done
    }
}

/// What cannot be a cell.
type Never = Impossible<(), Error>;

impl<'r, 'c> Serializer for &'r mut Rows<'c> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Fields<'r, 'c>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Never;

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.put(Kept::Bool(value));
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Error> {
        self.put(Kept::Signed(value));
        Ok(())
    }

    fn serialize_u8(self, value: u8) -> Result<(), Error> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Error> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Error> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Error> {
        self.put(Kept::Unsigned(value));
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        self.put(Kept::Float(value));
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        let from = self.texts.len();
        self.texts.push_str(value);
        self.put(Kept::Text { from, to: self.texts.len() });
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Error> {
        Err(Error)
    }

    fn serialize_none(self) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.field(variant, value)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Never, Error> {
        Err(Error)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Never, Error> {
        Err(Error)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Fields<'r, 'c>, Error> {
        Ok(Fields { outside: self.path.len(), rows: self })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Error> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Never, Error> {
        Err(Error)
    }
}

/// A list: each element has cells of its own.
impl SerializeSeq for &mut Rows<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.element = self.listed.len() / self.columns.len().max(1) + 1;
        self.listed.extend(self.columns.iter().map(|column| column.default));
        let done = value.serialize(&mut **self);
        self.element = 0;
        done
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

impl SerializeTuple for &mut Rows<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

impl SerializeStruct for &mut Rows<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.field(name, value)
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

/// A map, which a record is when it has the fields of another one among its own.
#[derive(Debug)]
pub(super) struct Fields<'r, 'c> {
    rows: &'r mut Rows<'c>,
    /// Length of the path without the present field.
    outside: usize,
}

/// A key, which can be written when it is a text or a number.
struct Key<'a, K: ?Sized>(&'a K);

impl<K: Serialize + ?Sized> Display for Key<'_, K> {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result<(), Error> {
        self.0.serialize(out)
    }
}

impl SerializeMap for Fields<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<K: Serialize + ?Sized>(&mut self, key: &K) -> Result<(), Error> {
        let dot = if self.outside > 0 { "." } else { "" };
        write!(self.rows.path, "{dot}{}", Key(key))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let done = value.serialize(&mut *self.rows);
        self.rows.path.truncate(self.outside);
        done
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::JsonSchema;
    use serde::Serialize;

    #[derive(Serialize, JsonSchema)]
    struct Inner {
        used: i64,
        #[serde(skip_serializing_if = "Option::is_none")]
        limit: Option<u64>,
    }

    #[derive(Serialize, JsonSchema)]
    struct More {
        made: u64,
    }

    #[derive(Serialize, JsonSchema)]
    struct Element {
        name: &'static str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        #[schemars(extend("default" = false))]
        healthy: bool,
    }

    #[derive(Serialize, JsonSchema)]
    struct Record {
        name: String,
        inner: Option<Inner>,
        #[serde(flatten)]
        more: More,
        list: Vec<Element>,
        share: Option<f64>,
    }

    fn rows_of(record: &Record) -> Vec<Vec<String>> {
        let columns = Columns::of::<Record>();
        let mut rows = Rows::new(&columns);
        // The second time shows that nothing is left of the first.
        rows.read(record);
        let count = rows.read(record);
        let shown =
            |row: Row<'_>| (0..columns.len()).map(|n| format!("{:?}", row.cell(n))).collect();
        (0..count).map(|number| shown(rows.row(number))).collect()
    }

    fn record(list: Vec<Element>, limit: Option<u64>) -> Record {
        let inner = Some(Inner { used: -3, limit });
        Record { name: "n".into(), inner, more: More { made: 7 }, list, share: Some(0.5) }
    }

    #[test]
    fn a_record_without_a_list_is_one_row() {
        let columns = Columns::of::<Record>();
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let all =
            ["name", "inner.used", "inner.limit", "made", "list.name", "list.healthy", "share"];
        assert_eq!(names, all);
        let cells = [
            "Text(\"n\")",
            "Signed(-3)",
            "Absent",
            "Unsigned(7)",
            "Absent",
            "Bool(false)",
            "Float(0.5)",
        ];
        assert_eq!(rows_of(&record(vec![], None)), [cells]);
        let nothing = Record { inner: None, ..record(vec![], None) };
        assert_eq!(rows_of(&nothing)[0][1..3], ["Absent", "Absent"]);
        assert_eq!(rows_of(&record(vec![], Some(9)))[0][2], "Unsigned(9)");
    }

    #[test]
    fn each_element_of_a_list_is_a_row_with_what_the_record_has() {
        let list = ["a", "b"].map(|name| Element { name, healthy: name == "b" });
        let rows = rows_of(&record(list.into(), Some(9)));
        let own = |row: &[String]| [&row[..4], &row[6..]].concat();
        assert_eq!(own(&rows[0]), own(&rows[1]));
        let expected = ["Text(\"n\")", "Signed(-3)", "Unsigned(9)", "Unsigned(7)", "Float(0.5)"];
        assert_eq!(own(&rows[0]), expected);
        assert_eq!(rows[0][4..6], ["Text(\"a\")", "Bool(false)"]);
        assert_eq!(rows[1][4..6], ["Text(\"b\")", "Bool(true)"]);
    }
}
