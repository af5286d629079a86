//! Reads conditions: words first, then what they mean.

use super::{Filter, Is, Number, Order, Pattern, Test};
use crate::cli::columns::{Column, Columns, Kind, Unit};
use regex_lite::Regex;
use std::fmt::Display;

/// Parentheses and `not`s within each other.
const DEPTH: usize = 64;

/// What to do about a condition that cannot be read.
const REMEDY: &str = "write it like used_pct > 80 and key ~ \"^team\"";

#[derive(Debug, Clone, PartialEq)]
enum Token {
    /// A column, `and`, `or`, `not`, `true` or `false`.
    Word(String),
    /// Digits with what follows them immediately.
    Number(String),
    Text(String),
    /// An operator or a parenthesis.
    Sign(&'static str),
}

impl Token {
    fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(own) if own.eq_ignore_ascii_case(word))
    }

    /// As it is called in a message.
    fn name(&self) -> String {
        match self {
            Self::Word(text) | Self::Number(text) => format!("{text:?}"),
            Self::Text(text) => format!("the text {text:?}"),
            Self::Sign(sign) => format!("{sign:?}"),
        }
    }
}

/// A token and the number of its first character, from 1.
type Placed = (usize, Token);

fn wrong<T>(at: usize, what: impl Display) -> Result<T, String> {
    Err(format!("at character {at}: {what}"))
}

/// Longer ones come before those that they begin with.
const SIGNS: [&str; 11] = ["==", "=", "!=", "!~", "<=", "<", ">=", ">", "~", "(", ")"];

fn tokens(text: &str) -> Result<Vec<Placed>, String> {
    let mut found = Vec::new();
    let (mut rest, mut at) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let taken = if first.is_whitespace() {
            first.len_utf8()
        } else if first == '"' || first == '\'' {
            let (len, text) = quoted(rest, first).ok_or_else(|| {
                format!("at character {at}: the quote {first} is not closed; close it with another {first}")
            })?;
            found.push((at, Token::Text(text)));
            len
        } else if let Some(&sign) = SIGNS.iter().find(|&&sign| rest.starts_with(sign)) {
            found.push((at, Token::Sign(if sign == "==" { "=" } else { sign })));
            sign.len()
        } else if first.is_ascii_digit() || matches!(first, '-' | '+' | '.') {
            let len = number_length(rest);
            found.push((at, Token::Number(rest[..len].to_string())));
            len
        } else if first.is_alphabetic() || first == '_' {
            let end = |c: char| !(c.is_alphanumeric() || c == '_' || c == '.');
            let len = rest.find(end).unwrap_or(rest.len());
            found.push((at, Token::Word(rest[..len].to_string())));
            len
        } else {
            return wrong(at, format_args!("{first:?} means nothing here; {REMEDY}"));
        };
        at += rest[..taken].chars().count();
        rest = &rest[taken..];
    }
    Ok(found)
}

/// Length of a text in quotes, and what it says; `None` = it has no end. A backslash before a quote or a backslash
/// stands for the latter, and before anything else for itself, so that patterns need no doubled ones.
fn quoted(text: &str, quote: char) -> Option<(usize, String)> {
    let mut said = String::new();
    let mut rest = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = rest.next() {
        match c {
            _ if c == quote => return Some((at + c.len_utf8(), said)),
            '\\' => match rest.next_if(|&(_, next)| next == '\\' || next == quote) {
                Some((_, escaped)) => said.push(escaped),
                None => said.push(c),
            },
            _ => said.push(c),
        }
    }
    None
}

/// Length of a number and of the unit or whatever else is written to it. A sign may follow an exponent's `e` only.
fn number_length(text: &str) -> usize {
    let mut before = None;
    for (at, c) in text.char_indices() {
        let exponent = matches!(before, Some('e' | 'E'))
            && text[..at].trim_start_matches(['-', '+']).starts_with(|c: char| c.is_ascii_digit())
            && text[at + c.len_utf8()..].starts_with(|c: char| c.is_ascii_digit());
        let goes_on = c.is_alphanumeric() || matches!(c, '.' | '_' | '%' | 'µ');
        if !(goes_on || matches!(c, '-' | '+') && (at == 0 || exponent)) {
            return at;
        }
        before = Some(c);
    }
    text.len()
}

pub(super) fn parse(text: &str, columns: &Columns) -> Result<Filter, String> {
    let tokens = tokens(text)?;
    let end = text.chars().count() + 1;
    let mut parser = Parser { tokens: tokens.into_iter().peekable(), end, columns, depth: 0 };
    let filter = parser.any()?;
    match parser.tokens.next() {
        None => Ok(filter),
        Some((at, token)) => wrong(
            at,
            format_args!("{} is not expected here; join comparisons with and, or", token.name()),
        ),
    }
}

struct Parser<'c> {
    tokens: std::iter::Peekable<std::vec::IntoIter<Placed>>,
    /// Where the text ends.
    end: usize,
    columns: &'c Columns,
    depth: usize,
}

impl Parser<'_> {
    fn takes(&mut self, wanted: impl FnOnce(&Token) -> bool) -> Option<Placed> {
        self.tokens.next_if(|(_, token)| wanted(token))
    }

    fn next(&mut self, wanted: &str) -> Result<Placed, String> {
        let end = self.end;
        self.tokens
            .next()
            .ok_or_else(|| format!("at character {end}: {wanted} is missing; {REMEDY}"))
    }

    fn any(&mut self) -> Result<Filter, String> {
        let mut several = vec![self.all()?];
        while self.takes(|token| token.is_word("or")).is_some() {
            several.push(self.all()?);
        }
        Ok(if several.len() == 1 { several.remove(0) } else { Filter::Any(several) })
    }

    fn all(&mut self) -> Result<Filter, String> {
        let mut several = vec![self.one()?];
        while self.takes(|token| token.is_word("and")).is_some() {
            several.push(self.one()?);
        }
        Ok(if several.len() == 1 { several.remove(0) } else { Filter::All(several) })
    }

    fn one(&mut self) -> Result<Filter, String> {
        let (at, token) = self.next("a column")?;
        let inner = token.is_word("not") || token == Token::Sign("(");
        if !inner {
            return Ok(Filter::Test(self.comparison(at, token)?));
        }
        self.depth += 1;
        if self.depth > DEPTH {
            return wrong(at, format_args!("more than {DEPTH} levels; write it with fewer"));
        }
        let found = if token == Token::Sign("(") {
            let inside = self.any()?;
            match self.next("\")\"")? {
                (_, Token::Sign(")")) => inside,
                (at, other) => {
                    let what =
                        format!("{} is not expected here; close the parenthesis", other.name());
                    return wrong(at, what);
                }
            }
        } else {
            Filter::Not(Box::new(self.one()?))
        };
        self.depth -= 1;
        Ok(found)
    }

    fn comparison(&mut self, at: usize, token: Token) -> Result<Test, String> {
        let Token::Word(name) = token else {
            return wrong(at, format_args!("{} is no column; {REMEDY}", token.name()));
        };
        let number = self.columns.find(&name).or_else(|message| wrong(at, message))?;
        let Some(column) = self.columns.get(number) else {
            return wrong(at, "there is no such column");
        };
        let is_operator =
            |token: &Token| matches!(token, Token::Sign(sign) if !"()".contains(sign));
        let is = match self.takes(is_operator) {
            Some((at, Token::Sign(operator))) => {
                let (value_at, value) = self.next("a value")?;
                is(column, (at, operator), (value_at, value))?
            }
            _ if column.kind == Kind::Bool => Is::Bool { equal: true, value: true },
            _ => {
                let at = self.tokens.peek().map_or(self.end, |&(at, _)| at);
                let what = "an operator is missing; use = != < <= > >= ~ or !~";
                return wrong(at, format_args!("{what} after {name}"));
            }
        };
        Ok(Test { column: number, name, is })
    }
}

fn is(column: &Column, operator: (usize, &str), value: Placed) -> Result<Is, String> {
    let (name, (operator_at, operator), (value_at, value)) = (&column.name, operator, value);
    let order = match operator {
        "=" => Some(Order::Equal),
        "!=" => Some(Order::NotEqual),
        "<" => Some(Order::Less),
        "<=" => Some(Order::LessOrEqual),
        ">" => Some(Order::Greater),
        ">=" => Some(Order::GreaterOrEqual),
        _ => None,
    };
    let equal = operator == "=";
    match (column.kind, order, value) {
        (Kind::Text, Some(Order::Equal | Order::NotEqual), Token::Text(text)) => {
            Ok(Is::Text { equal, text })
        }
        (Kind::Text, None, Token::Text(text)) => {
            let pattern = Regex::new(&text).or_else(|error| {
                wrong(value_at, format_args!("{text:?} is no regular expression: {error}"))
            })?;
            Ok(Is::Like { like: operator == "~", pattern: Pattern(pattern) })
        }
        (Kind::Text, Some(Order::Equal | Order::NotEqual) | None, other) => {
            let example = format!("{name} {operator} \"abc\"");
            wrong(
                value_at,
                format_args!("{name} is text, {} is not; quote it: {example}", other.name()),
            )
        }
        (Kind::Text, Some(_), _) => {
            wrong(operator_at, format_args!("{name} is text; use = != ~ or !~, not {operator}"))
        }
        (Kind::Integer | Kind::Number, Some(order), Token::Number(text)) => {
            Ok(Is::Number(order, number(column, &text).or_else(|what| wrong(value_at, what))?))
        }
        (Kind::Integer | Kind::Number, Some(_), other) => {
            let example = format!("{name} {operator} 80");
            wrong(
                value_at,
                format_args!("{name} is a number, {} is not; write {example}", other.name()),
            )
        }
        (Kind::Integer | Kind::Number, None, _) => {
            let what = format!("{name} is a number; use = != < <= > or >=, not {operator}");
            wrong(operator_at, what)
        }
        (Kind::Bool, Some(Order::Equal | Order::NotEqual), Token::Word(word))
            if word == "true" || word == "false" =>
        {
            Ok(Is::Bool { equal, value: word == "true" })
        }
        (Kind::Bool, ..) => wrong(
            operator_at,
            format_args!("{name} is true or false; write {name} = true or {name} = false"),
        ),
    }
}

/// Durations, in nanoseconds. `m` is a minute there, and a mebibyte, as `M`, of bytes.
const DURATIONS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

const BYTES: [(&str, u64); 4] = [("B", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30)];

/// The number that is written, in the column's unit.
fn number(column: &Column, text: &str) -> Result<Number, String> {
    // The longest number that it begins with; what follows is the unit.
    let lengths = (1..=text.len()).rev().filter(|&length| text.is_char_boundary(length));
    let plain = |part: &str| part.ends_with(|c: char| c.is_ascii_digit() || c == '.');
    let read = |length| {
        let part: &str = &text[..length];
        let whole = part.parse().ok().map(Number::Whole);
        let float = || part.parse().ok().filter(|value: &f64| value.is_finite()).map(Number::Float);
        let found = plain(part).then(|| whole.or_else(float)).flatten()?;
        Some((found, &text[length..]))
    };
    let Some((number, unit)) = lengths.into_iter().find_map(read) else {
        return Err(format!("{text:?} is no number; write one like 80, 2.5 or 10m"));
    };
    let named = |units: &[(&str, u64)]| {
        units.iter().find(|&&(name, _)| name == unit).map(|&(_, factor)| factor)
    };
    let name = &column.name;
    let found = match column.unit {
        _ if unit.is_empty() => Ok(number),
        Unit::Duration(own) => {
            named(&DURATIONS).map(|factor| scaled(number, factor, own)).ok_or_else(|| {
                format!("{unit:?} is no unit of {name}, a duration; use ns, us, ms, s, m, h or d")
            })
        }
        Unit::Bytes => named(&BYTES).map(|factor| scaled(number, factor, 1)).ok_or_else(|| {
            format!("{unit:?} is no unit of {name}, which is in bytes; use B, K, M or G")
        }),
        Unit::Percent if unit == "%" => Ok(number),
        Unit::Percent => Err(format!("{unit:?} is no unit of {name}; use % or none")),
        Unit::Plain | Unit::PerSecond | Unit::Moment => {
            Err(format!("{name} has no unit {unit:?}; write the number without one"))
        }
    };
    found.and_then(|number| {
        let finite = number.float().is_finite();
        if finite { Ok(number) } else { Err(format!("{text:?} is too large; write a smaller one")) }
    })
}

/// A number times one unit over another.
#[allow(clippy::cast_precision_loss, reason = "the units are small powers of ten")]
fn scaled(number: Number, factor: u64, unit: u64) -> Number {
    if let Number::Whole(value) = number {
        let product = value.checked_mul(factor.into());
        if let Some(product) = product.filter(|product| product % i128::from(unit) == 0) {
            return Number::Whole(product / i128::from(unit));
        }
    }
    Number::Float(number.float() * (factor as f64 / unit as f64))
}
