//! Records for programs: JSON, a record a line, and CSV.

use super::outcome::Failure;
use super::rows::{Cell, Row};
use super::sections::{List, Records, Shape};
use super::view::{Picks, Plan};
use crate::inspect::{Report, SCHEMA, Section};
use schemars::JsonSchema;
use serde::Serialize;
use std::io::Write;

/// Bytes that are collected before they are written.
const CHUNK: usize = 1 << 16;

/// Records of one kind and what is shown of them.
pub(super) struct Part<'a> {
    pub(super) name: &'static str,
    /// Its field in JSON.
    pub(super) field: &'static str,
    pub(super) shape: Shape,
    pub(super) records: Box<dyn Records + 'a>,
    pub(super) plan: &'a Plan,
    pub(super) picks: Picks,
}

/// Collects what is written, so that each write is a large one.
struct Chunks<'w, W> {
    bytes: Vec<u8>,
    out: &'w mut W,
}

impl<'w, W: Write> Chunks<'w, W> {
    fn new(out: &'w mut W) -> Self {
        Self { bytes: Vec::with_capacity(CHUNK + (CHUNK >> 2)), out }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.write_all(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}

fn text(out: &mut Vec<u8>, text: &str) -> Result<(), Failure> {
    Ok(serde_json::to_writer(out, text).map_err(std::io::Error::from)?)
}

fn value(out: &mut Vec<u8>, cell: Cell<'_>) -> Result<(), Failure> {
    let done = match cell {
        Cell::Absent => return Ok(()),
        Cell::Bool(value) => serde_json::to_writer(out, &value),
        Cell::Unsigned(value) => serde_json::to_writer(out, &value),
        Cell::Signed(value) => serde_json::to_writer(out, &value),
        Cell::Float(value) => serde_json::to_writer(out, &value),
        Cell::Text(value) => serde_json::to_writer(out, value),
    };
    Ok(done.map_err(std::io::Error::from)?)
}

/// The chosen columns of a row as an object.
fn object(out: &mut Vec<u8>, plan: &Plan, shown: &[usize], row: Row<'_>) -> Result<(), Failure> {
    out.push(b'{');
    let begin = out.len();
    for &number in shown {
        let cell = row.cell(number);
        if let (Some(column), false) = (plan.columns.get(number), cell == Cell::Absent) {
            if out.len() > begin {
                out.push(b',');
            }
            text(out, &column.name)?;
            out.push(b':');
            value(out, cell)?;
        }
    }
    out.push(b'}');
    Ok(())
}

impl<'a> Part<'a> {
    /// What a plan shows of a report's section.
    pub(super) fn new(section: Section, report: &'a Report, plan: &'a Plan) -> Self {
        let records = section.records(report);
        let picks = plan.pick(records.as_ref());
        let (name, field, shape) = (section.name(), section.field(), section.shape());
        Self { name, field, shape, records, plan, picks }
    }

    /// What a plan shows of some records.
    pub(super) fn of<T: Serialize + JsonSchema>(
        name: &'static str,
        records: &'a [T],
        plan: &'a Plan,
    ) -> Self {
        let records = Box::new(List::new(records));
        let picks = plan.pick(records.as_ref());
        Self { name, field: name, shape: Shape::Many, records, plan, picks }
    }

    /// Its objects, one after the other: records, or rows where columns are chosen.
    fn objects(
        &self,
        bytes: &mut Vec<u8>,
        mut next: impl FnMut(&mut Vec<u8>) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        let records = self.records.as_ref();
        if let Some(shown) = &self.plan.shown {
            return self.picks.rows(records, &self.plan.columns, |row, _| {
                next(bytes)?;
                object(bytes, self.plan, shown, row)
            });
        }
        for record in self.picks.records(records) {
            next(bytes)?;
            records.write(record, bytes).map_err(std::io::Error::from)?;
        }
        Ok(())
    }
}

/// One object with the sections.
pub(super) fn json(out: &mut impl Write, parts: &[Part<'_>]) -> Result<(), Failure> {
    let mut chunks = Chunks::new(out);
    write!(chunks.bytes, "{{\"schema\":\"{SCHEMA}\"")?;
    for part in parts {
        let totals = part.shape == Shape::Totals && part.plan.shown.is_none();
        if totals {
            totals_of(&mut chunks.bytes, part)?;
            continue;
        }
        let begin = chunks.bytes.len();
        let one = part.shape == Shape::One && part.plan.shown.is_none();
        write!(chunks.bytes, ",\"{}\":{}", part.field, if one { "" } else { "[" })?;
        let Chunks { bytes, out } = &mut chunks;
        let mut first = true;
        part.objects(bytes, |bytes| {
            if !std::mem::take(&mut first) {
                bytes.push(b',');
            }
            if bytes.len() >= CHUNK {
                out.write_all(bytes)?;
                bytes.clear();
            }
            Ok(())
        })?;
        if !one {
            chunks.bytes.push(b']');
        } else if first {
            chunks.bytes.truncate(begin);
        }
    }
    chunks.bytes.extend_from_slice(b"}\n");
    Ok(chunks.flush()?)
}

/// Totals by name, and how fast they grow where that is known.
fn totals_of(out: &mut Vec<u8>, part: &Part<'_>) -> Result<(), Failure> {
    let columns = &part.plan.columns;
    let number = |name| columns.find(name).map_err(Failure::Message);
    let counter = number("counter")?;
    for (field, column) in [("", number("total")?), ("_per_s", number("per_s")?)] {
        let begin = out.len();
        write!(out, ",\"{}{field}\":{{", part.field)?;
        let empty = out.len();
        part.picks.rows(part.records.as_ref(), columns, |row, _| {
            let (Cell::Text(name), cell) = (row.cell(counter), row.cell(column)) else {
                return Ok(());
            };
            if cell == Cell::Absent {
                return Ok(());
            }
            if out.len() > empty {
                out.push(b',');
            }
            text(out, name)?;
            out.push(b':');
            value(out, cell)
        })?;
        if out.len() == empty && !field.is_empty() {
            out.truncate(begin);
        } else {
            out.push(b'}');
        }
    }
    Ok(())
}

/// A record a line, each with its section and, where there are several looks, when it was.
pub(super) fn ndjson(
    out: &mut impl Write,
    parts: &[Part<'_>],
    at_ms: Option<u64>,
) -> Result<(), Failure> {
    let mut chunks = Chunks::new(out);
    for part in parts {
        let at_ms = at_ms.map(|at_ms| format!(",\"at_ms\":{at_ms}")).unwrap_or_default();
        let begin = format!("{{\"section\":\"{}\"{at_ms}", part.name);
        let Chunks { bytes, out } = &mut chunks;
        let mut last = None;
        part.objects(bytes, |bytes| {
            join(bytes, last.take());
            if bytes.len() >= CHUNK {
                out.write_all(bytes)?;
                bytes.clear();
            }
            bytes.extend_from_slice(begin.as_bytes());
            last = Some(bytes.len());
            Ok(())
        })?;
        join(&mut chunks.bytes, last);
    }
    Ok(chunks.flush()?)
}

/// Makes one object of what was begun before `at` and the object that was written there, and ends its line.
fn join(bytes: &mut Vec<u8>, at: Option<usize>) {
    let Some(at) = at else { return };
    if bytes.get(at + 1) == Some(&b'}') {
        bytes.remove(at);
    } else if let Some(brace) = bytes.get_mut(at) {
        *brace = b',';
    }
    bytes.push(b'\n');
}

/// Rows with a heading, which is left out of later looks.
pub(super) fn csv(
    out: &mut impl Write,
    part: &Part<'_>,
    at_ms: Option<u64>,
    heading: bool,
) -> Result<(), Failure> {
    let failed = |error: csv::Error| match error.into_kind() {
        csv::ErrorKind::Io(error) => Failure::from(error),
        other => Failure::Message(format!("{other:?}")),
    };
    let columns = &part.plan.columns;
    let all: Vec<usize> = (0..columns.len()).collect();
    let shown = part.plan.shown.as_ref().unwrap_or(&all);
    let mut csv = csv::WriterBuilder::new().buffer_capacity(CHUNK).from_writer(out);
    if heading {
        let names = shown.iter().filter_map(|&number| columns.get(number));
        let names = names.map(|column| column.name.as_str());
        csv.write_record(at_ms.map(|_| "at_ms").into_iter().chain(names)).map_err(failed)?;
    }
    let mut field = Vec::new();
    part.picks.rows(part.records.as_ref(), columns, |row, _| {
        if let Some(at_ms) = at_ms {
            csv.write_field(at_ms.to_string()).map_err(failed)?;
        }
        for &number in shown {
            if let Cell::Text(text) = row.cell(number) {
                csv.write_field(text).map_err(failed)?;
            } else {
                field.clear();
                value(&mut field, row.cell(number))?;
                csv.write_field(&field).map_err(failed)?;
            }
        }
        csv.write_record(None::<&[u8]>).map_err(failed)
    })?;
    Ok(csv.flush()?)
}
