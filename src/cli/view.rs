//! Which of a section's records are shown, in which order, and which of their columns.

use super::columns::Columns;
use super::filter::Filter;
use super::order::Sorter;
use super::outcome::Failure;
use super::rows::{Row, Rows};
use super::sections::Records;
use clap::Args;

#[derive(Debug, Clone, Default, Args)]
pub(super) struct View {
    /// Only records of which this is true.
    #[arg(
        long,
        value_name = "CONDITION",
        help = "Only records of which this is true, e.g. 'used_pct > 80 and key ~ \"^team\"'",
        long_help = "Only records of which this is true, e.g. 'used_pct > 80 and key ~ \"^team\"'.\n\n\
            Columns are compared with numbers (durations may have a unit: 90s, 10m), texts in quotes, and true or \
            false by = != < <= > >=, and texts with a regular expression by ~ and !~. Comparisons are joined with \
            and, or, not and parentheses. A column without a value is true of != and !~ only"
    )]
    pub(super) filter: Option<String>,
    /// In the order of this column; -COLUMN or COLUMN:desc = the largest first; several with commas.
    ///
    /// Records without a value come last.
    #[arg(long, value_name = "COLUMN[:desc]", allow_hyphen_values = true)]
    pub(super) sort: Option<String>,
    /// Only the first so many.
    #[arg(long, value_name = "N")]
    pub(super) top: Option<usize>,
    /// Only these columns, in this order; all = every one that there is.
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub(super) columns: Vec<String>,
}

impl View {
    /// The first of its options that was given; they need columns, and so a single section.
    pub(super) fn given(&self) -> Option<&'static str> {
        [
            (self.filter.is_some(), "--filter"),
            (self.sort.is_some(), "--sort"),
            (self.top.is_some(), "--top"),
            (!self.columns.is_empty(), "--columns"),
        ]
        .into_iter()
        .find_map(|(given, name)| given.then_some(name))
    }

    /// What it means for records of these columns.
    pub(super) fn plan(&self, columns: Columns) -> Result<Plan, Failure> {
        let refused = |option: &str, value: &str, message: &str| {
            Failure::Message(format!("{option} {value:?}: {message}"))
        };
        let filter = self.filter.as_ref().map(|text| {
            Filter::parse(text, &columns).map_err(|message| refused("--filter", text, &message))
        });
        let sort = self.sort.as_ref().map(|text| {
            let keys = text.split(',').map(|key| Key::parse(key, &columns));
            keys.collect::<Result<_, _>>().map_err(|message| refused("--sort", text, &message))
        });
        let mut shown = Vec::new();
        for name in &self.columns {
            if name == "all" {
                shown.extend(0..columns.len());
            } else {
                let found = columns.find(name);
                shown.push(found.map_err(|message| refused("--columns", name, &message))?);
            }
        }
        Ok(Plan {
            filter: filter.transpose()?,
            sort: sort.transpose()?.unwrap_or_default(),
            top: self.top.unwrap_or(usize::MAX),
            shown: (!self.columns.is_empty()).then_some(shown),
            columns,
        })
    }
}

/// A column to be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    column: usize,
    largest_first: bool,
}

impl Key {
    fn parse(text: &str, columns: &Columns) -> Result<Self, String> {
        let (name, largest_first) = match (text.strip_prefix('-'), text.rsplit_once(':')) {
            (Some(name), _) | (_, Some((name, "desc"))) => (name, true),
            (_, Some((name, "asc"))) => (name, false),
            (_, Some((_, other))) => {
                return Err(format!("{other:?} is no direction; use asc or desc"));
            }
            _ => (text, false),
        };
        Ok(Self { column: columns.find(name)?, largest_first })
    }
}

/// What is to be shown of some records.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) columns: Columns,
    pub(super) filter: Option<Filter>,
    sort: Vec<Key>,
    top: usize,
    /// Numbers of the columns that were asked for; `None` = none in particular.
    pub(super) shown: Option<Vec<usize>>,
}

/// One row of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pick {
    pub(super) record: usize,
    row: usize,
}

/// Rows that are shown.
#[derive(Debug, Default)]
pub(super) struct Picks {
    /// `None` = all of them, as they come.
    picked: Option<Vec<Pick>>,
    /// How many more there would be without `--top`.
    pub(super) more: usize,
}

impl Plan {
    /// All records with whatever they have.
    pub(super) fn everything(columns: Columns) -> Self {
        Self { columns, filter: None, sort: Vec::new(), top: usize::MAX, shown: None }
    }

    /// Whether records are shown in the order in which they come.
    pub(super) fn is_in_order(&self) -> bool {
        self.sort.is_empty()
    }

    /// Chooses among the records.
    pub(super) fn pick(&self, records: &dyn Records) -> Picks {
        if self.filter.is_none() && self.sort.is_empty() && self.top == usize::MAX {
            return Picks::default();
        }
        let mut rows = Rows::new(&self.columns);
        let mut picked = Vec::new();
        let mut sorter = (!self.sort.is_empty()).then(Sorter::default);
        for record in 0..records.len() {
            for row in 0..records.read(record, &mut rows) {
                let cells = rows.row(row);
                if self.filter.as_ref().is_none_or(|filter| filter.matches(cells)) {
                    picked.push(Pick { record, row });
                    if let Some(sorter) = &mut sorter {
                        sorter.add(
                            self.sort.iter().map(|key| (cells.cell(key.column), key.largest_first)),
                        );
                    }
                }
            }
        }
        if let Some(sorter) = sorter {
            let order = sorter.first(self.top).into_iter();
            let more = picked.len().saturating_sub(self.top);
            let picked = order.filter_map(|number| picked.get(number).copied()).collect();
            return Picks { picked: Some(picked), more };
        }
        let more = picked.len().saturating_sub(self.top);
        picked.truncate(self.top);
        Picks { picked: Some(picked), more }
    }
}

impl Picks {
    /// Whether nothing of these records is shown.
    pub(super) fn is_empty(&self, records: &dyn Records) -> bool {
        self.picked.as_ref().map_or(records.len() == 0, Vec::is_empty)
    }

    /// Every row that is shown. The first row of a record that was not the present one is marked.
    pub(super) fn rows<E>(
        &self,
        records: &dyn Records,
        columns: &Columns,
        mut show: impl FnMut(Row<'_>, bool) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rows = Rows::new(columns);
        let Some(picked) = &self.picked else {
            for record in 0..records.len() {
                for row in 0..records.read(record, &mut rows) {
                    show(rows.row(row), row == 0)?;
                }
            }
            return Ok(());
        };
        let mut present = None;
        for pick in picked {
            let new = present != Some(pick.record);
            if new {
                records.read(pick.record, &mut rows);
                present = Some(pick.record);
            }
            show(rows.row(pick.row), new)?;
        }
        Ok(())
    }

    /// The same rows in the order in which the records lie in memory, where the order does not matter.
    pub(super) fn in_place(&self) -> Self {
        let mut picked = self.picked.clone();
        if let Some(picked) = &mut picked {
            picked.sort_unstable();
        }
        Self { picked, more: self.more }
    }

    /// Every record that has a row that is shown, once, where the first of them is.
    pub(super) fn records(&self, records: &dyn Records) -> Vec<usize> {
        let Some(picked) = &self.picked else {
            return (0..records.len()).collect();
        };
        let mut seen = vec![false; records.len()];
        let first = |pick: &&Pick| {
            seen.get_mut(pick.record).is_some_and(|seen| !std::mem::replace(seen, true))
        };
        picked.iter().filter(first).map(|pick| pick.record).collect()
    }
}
