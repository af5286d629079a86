//! The order of rows by some of their cells: each row's cells become bytes that are in the same order.

use super::rows::Cell;

/// Begins what a cell has become.
const PRESENT: u8 = 1;
const ABSENT: u8 = 2;
const SIGN: u64 = 1 << 63;

/// Rows that are to be brought into an order.
#[derive(Debug, Default)]
pub(super) struct Sorter {
    bytes: Vec<u8>,
    /// Where the bytes of each row end.
    ends: Vec<usize>,
}

impl Sorter {
    /// Adds a row by its cells, the most important one first, each with whether the largest come first.
    pub(super) fn add<'a>(&mut self, cells: impl Iterator<Item = (Cell<'a>, bool)>) {
        for (cell, largest_first) in cells {
            // The first byte stays as it is: what is absent comes last in either direction.
            let value = self.bytes.len() + 1;
            encode(&mut self.bytes, cell);
            if largest_first {
                self.bytes.iter_mut().skip(value).for_each(|byte| *byte = !*byte);
            }
        }
        self.ends.push(self.bytes.len());
    }

    /// Numbers of the first so many rows in their order. Those that are alike stay as they were.
    pub(super) fn first(&self, wanted: usize) -> Vec<usize> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        let mut rows: Vec<Sorted<'_>> = begins
            .zip(&self.ends)
            .enumerate()
            .map(|(number, (begin, &end))| Sorted::new(&self.bytes[begin..end], number))
            .collect();
        if wanted < rows.len() {
            rows.select_nth_unstable(wanted);
            rows.truncate(wanted);
        }
        rows.sort_unstable();
        rows.into_iter().map(|row| row.number).collect()
    }
}

/// A row's bytes: most comparisons need the first few only, which are at hand.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sorted<'a> {
    first: u128,
    rest: &'a [u8],
    number: usize,
}

impl<'a> Sorted<'a> {
    fn new(bytes: &'a [u8], number: usize) -> Self {
        let length = bytes.len().min(16);
        let mut first = [0; 16];
        first[..length].copy_from_slice(&bytes[..length]);
        Self { first: u128::from_be_bytes(first), rest: &bytes[length..], number }
    }
}

fn encode(bytes: &mut Vec<u8>, cell: Cell<'_>) {
    let number = match cell {
        Cell::Absent => return bytes.push(ABSENT),
        Cell::Text(text) => {
            bytes.push(PRESENT);
            // The end is less than any character, also than one that is zero.
            for &byte in text.as_bytes() {
                bytes.push(byte);
                if byte == 0 {
                    bytes.push(0xff);
                }
            }
            return bytes.extend_from_slice(&[0, 0]);
        }
        Cell::Bool(value) => value.into(),
        Cell::Unsigned(value) => value,
        Cell::Signed(value) => value.cast_unsigned() ^ SIGN,
        Cell::Float(value) => {
            let bits = value.to_bits();
            if bits & SIGN == 0 { bits | SIGN } else { !bits }
        }
    };
    bytes.push(PRESENT);
    bytes.extend_from_slice(&number.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Ordering;

    /// One row of a text and a number, either of which may be absent.
    type Row = (Option<String>, Option<f64>);

    /// The order that is meant, in so many words.
    fn order(own: &Row, other: &Row, largest_first: [bool; 2]) -> Ordering {
        fn of<T>(
            own: Option<&T>,
            other: Option<&T>,
            largest_first: bool,
            compare: impl Fn(&T, &T) -> Ordering,
        ) -> Ordering {
            match (own, other) {
                (Some(own), Some(other)) if largest_first => compare(other, own),
                (Some(own), Some(other)) => compare(own, other),
                (own, other) => own.is_none().cmp(&other.is_none()),
            }
        }
        let texts = of(own.0.as_ref(), other.0.as_ref(), largest_first[0], String::cmp);
        let numbers = || of(own.1.as_ref(), other.1.as_ref(), largest_first[1], f64::total_cmp);
        texts.then_with(numbers)
    }

    fn sorted(rows: &[Row], largest_first: [bool; 2], wanted: usize) -> Vec<usize> {
        let mut sorter = Sorter::default();
        for (text, number) in rows {
            let text = text.as_deref().map_or(Cell::Absent, Cell::Text);
            let number = number.map_or(Cell::Absent, Cell::Float);
            sorter.add([text, number].into_iter().zip(largest_first));
        }
        sorter.first(wanted)
    }

    proptest! {
        #[test]
        fn rows_come_in_the_order_of_their_cells(
            rows in prop::collection::vec(
                (prop::option::of("[\0-\u{2}ab]{0,20}"), prop::option::of(any::<f64>())), 0..20),
            largest_first in any::<[bool; 2]>(),
            wanted in 0_usize..25,
        ) {
            let mut expected: Vec<usize> = (0..rows.len()).collect();
            expected.sort_by(|&own, &other| order(&rows[own], &rows[other], largest_first));
            expected.truncate(wanted);
            prop_assert_eq!(sorted(&rows, largest_first, wanted), expected);
        }
    }

    #[test]
    fn numbers_are_in_their_order() {
        let numbers = [
            [Cell::Unsigned(9), Cell::Unsigned(10), Cell::Unsigned(u64::MAX)],
            [Cell::Signed(i64::MIN), Cell::Signed(-1), Cell::Signed(0)],
            [Cell::Float(-2.0), Cell::Float(-1.5), Cell::Float(0.5)],
            [Cell::Bool(false), Cell::Bool(true), Cell::Absent],
        ];
        for cells in numbers {
            let mut sorter = Sorter::default();
            cells.iter().rev().for_each(|cell| sorter.add([(*cell, false)].into_iter()));
            assert_eq!(sorter.first(3), [2, 1, 0], "{cells:?}");
        }
    }
}
