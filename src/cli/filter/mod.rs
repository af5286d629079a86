//! Conditions on rows, as `--filter` takes them.
//!
//! ```text
//! condition   := all ("or" all)*
//! all         := one ("and" one)*
//! one         := "not" one | "(" condition ")" | comparison
//! comparison  := column operator value | column              (the latter: of true or false)
//! operator    := "=" | "!=" | "<" | "<=" | ">" | ">=" | "~" | "!~"
//! value       := number [unit] | text in quotes | true | false
//! ```
//!
//! A column without a value is not equal to anything, not less, not greater, and matches nothing. `!=` and `!~`
//! say the contrary of `=` and `~`, so that they are true of it, as is `not`.

mod parse;

use super::columns::Columns;
use super::rows::{Cell, Row};
use regex_lite::Regex;
use std::cmp::Ordering;
use std::fmt::{Display, Formatter, Result as Written};

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Filter {
    /// One of them is enough.
    Any(Vec<Filter>),
    /// All of them are needed.
    All(Vec<Filter>),
    Not(Box<Filter>),
    Test(Test),
}

/// What one column must be like.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Test {
    column: usize,
    /// Its name, to be written.
    name: String,
    is: Is,
}

/// A comparison; negations are of what they deny.
#[derive(Debug, Clone, PartialEq)]
enum Is {
    Number(Order, Number),
    Text { equal: bool, text: String },
    Like { like: bool, pattern: Pattern },
    Bool { equal: bool, value: bool },
}

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    /// Whether it holds for a value that compares so with the one asked for; `None` = there is no value.
    fn holds(self, found: Option<Ordering>) -> bool {
        match self {
            Self::Equal => found == Some(Ordering::Equal),
            Self::NotEqual => found != Some(Ordering::Equal),
            Self::Less => found == Some(Ordering::Less),
            Self::LessOrEqual => found.is_some_and(Ordering::is_le),
            Self::Greater => found == Some(Ordering::Greater),
            Self::GreaterOrEqual => found.is_some_and(Ordering::is_ge),
        }
    }

    fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// A number in the column's unit; whole ones are compared exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Number {
    Whole(i128),
    Float(f64),
}

impl Number {
    fn of(cell: Cell<'_>) -> Option<Self> {
        match cell {
            Cell::Unsigned(value) => Some(Self::Whole(value.into())),
            Cell::Signed(value) => Some(Self::Whole(value.into())),
            Cell::Float(value) => Some(Self::Float(value)),
            Cell::Absent | Cell::Bool(_) | Cell::Text(_) => None,
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "compared with a number that is not whole")]
    fn float(self) -> f64 {
        match self {
            Self::Whole(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(own), Self::Whole(other)) => Some(own.cmp(&other)),
            _ => self.float().partial_cmp(&other.float()),
        }
    }
}

/// A regular expression that knows how it was written.
#[derive(Debug, Clone)]
struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Filter {
    /// Reads a condition on these columns. The message of a refusal has the character at which it is wrong.
    pub(super) fn parse(text: &str, columns: &Columns) -> Result<Self, String> {
        parse::parse(text, columns)
    }

    /// Whether a row meets it.
    pub(super) fn matches(&self, row: Row<'_>) -> bool {
        match self {
            Self::Any(several) => several.iter().any(|one| one.matches(row)),
            Self::All(several) => several.iter().all(|one| one.matches(row)),
            Self::Not(one) => !one.matches(row),
            Self::Test(test) => test.matches(row.cell(test.column)),
        }
    }

    /// How tightly it is bound when it is written; what is bound less tightly needs parentheses.
    fn strength(&self) -> u8 {
        match self {
            Self::Any(_) => 0,
            Self::All(_) => 1,
            Self::Not(_) => 2,
            Self::Test(_) => 3,
        }
    }

    fn write_within(&self, strength: u8, out: &mut Formatter<'_>) -> Written {
        if self.strength() < strength { write!(out, "({self})") } else { write!(out, "{self}") }
    }
}

impl Test {
    fn matches(&self, cell: Cell<'_>) -> bool {
        match (&self.is, cell) {
            (Is::Number(order, asked), _) => {
                order.holds(Number::of(cell).and_then(|found| found.compare(*asked)))
            }
            (Is::Text { equal, text }, _) => *equal == (cell == Cell::Text(text)),
            (Is::Like { like, pattern }, Cell::Text(found)) => *like == pattern.0.is_match(found),
            (Is::Like { like, .. }, _) => !like,
            (Is::Bool { equal, value }, _) => *equal == (cell == Cell::Bool(*value)),
        }
    }
}

impl Display for Filter {
    fn fmt(&self, out: &mut Formatter<'_>) -> Written {
        let (several, word) = match self {
            Self::Any(several) => (several, " or "),
            Self::All(several) => (several, " and "),
            Self::Not(one) => {
                out.write_str("not ")?;
                return one.write_within(self.strength(), out);
            }
            Self::Test(test) => return write!(out, "{test}"),
        };
        for (number, one) in several.iter().enumerate() {
            if number > 0 {
                out.write_str(word)?;
            }
            one.write_within(self.strength() + 1, out)?;
        }
        Ok(())
    }
}

impl Display for Test {
    fn fmt(&self, out: &mut Formatter<'_>) -> Written {
        out.write_str(&self.name)?;
        match &self.is {
            Is::Number(order, Number::Whole(value)) => write!(out, " {} {value}", order.symbol()),
            Is::Number(order, Number::Float(value)) => write!(out, " {} {value:?}", order.symbol()),
            Is::Text { equal: true, text } => write!(out, " = {}", Quoted(text)),
            Is::Text { equal: false, text } => write!(out, " != {}", Quoted(text)),
            Is::Like { like: true, pattern } => write!(out, " ~ {}", Quoted(pattern.0.as_str())),
            Is::Like { like: false, pattern } => write!(out, " !~ {}", Quoted(pattern.0.as_str())),
            Is::Bool { equal: true, value } => write!(out, " = {value}"),
            Is::Bool { equal: false, value } => write!(out, " != {value}"),
        }
    }
}

/// A text as the parser takes it.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> Written {
        write!(out, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

#[cfg(test)]
mod tests;
