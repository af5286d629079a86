//! The same check over more and more keys, in random order: what cache misses cost.

use crate::Failure;
use crate::governed::{self, CoarseClock, Keyed};
use crate::measure::{Case, Expect, Plan, measure};
use crate::ours::Ours;
use crate::report::{Table, latencies};
use serde_json::json;
use std::collections::BTreeMap;
use std::hint::black_box;

/// A key of 16 bytes, e.g. `key-000000012345`.
pub(crate) type Key = [u8; 16];

/// Keys, and for how many our region has room: the default, as many as needed, and four times as many.
const SIZES: [(usize, usize); 5] = [
    (1, 1 << 16),
    (1_000, 1 << 16),
    (100_000, 1 << 17),
    (1_000_000, 1 << 20),
    (1_000_000, 1 << 22),
];
/// Accesses before the sequence repeats.
const SEQUENCE: usize = 1 << 20;

/// The `n`-th key.
pub(crate) fn key(n: usize) -> Key {
    let mut key = *b"key-000000000000";
    key.copy_from_slice(format!("key-{n:012}").as_bytes());
    key
}

/// Evenly distributed numbers, the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let scaled = (u128::from(value ^ (value >> 31)) * bound as u128) >> 64;
        usize::try_from(scaled).unwrap_or(0)
    }
}

/// Goes round and round.
struct Cycle<'a, T> {
    items: &'a [T],
    next: usize,
}

impl<'a, T> Cycle<'a, T> {
    fn new(items: &'a [T]) -> Self {
        Self { items, next: 0 }
    }

    #[inline]
    fn next(&mut self) -> &'a T {
        let item = &self.items[self.next];
        self.next = if self.next + 1 == self.items.len() { 0 } else { self.next + 1 };
        item
    }
}

fn table(size: usize, room: usize, rounds: usize) -> Result<Table, Failure> {
    let ours = Ours::new(room as u64)?;
    let rate = ours.open()?;
    let quanta = Keyed::new(true, governed::quanta());
    let coarse = Keyed::new(true, CoarseClock);
    for key in (0..size).map(key) {
        ours.check(&rate, &key);
        quanta.check(&key);
        coarse.check(&key);
    }
    // Keys lie in the order of their use, so that reading them misses no cache and costs all the same.
    let mut random = Random::new();
    let sequence: Vec<Key> = (0..SEQUENCE).map(|_| key(random.below(size))).collect();
    let places =
        sequence.iter().map(|key| ours.place(&rate, key)).collect::<Result<Vec<_>, _>>()?;
    let admitted = Expect::Admitted;
    let mut keys = std::array::from_fn::<_, 4, _>(|_| Cycle::new(&sequence)).into_iter();
    let mut keys = || keys.next().ok_or("a sequence for every contender");
    let (mut for_empty, mut for_ours, mut for_quanta, mut for_coarse) =
        (keys()?, keys()?, keys()?, keys()?);
    let mut places = Cycle::new(&places);
    let empty = Case::new("loop", admitted, || u64::from(black_box(for_empty.next())[0] != 0));
    let cases = vec![
        Case::new("ours, by place", admitted, || ours.check_at(&rate, *black_box(places.next()))),
        Case::new("ours, by key", admitted, || ours.check(&rate, black_box(for_ours.next()))),
        Case::new("governor keyed, quanta clock", admitted, || {
            quanta.check(black_box(for_quanta.next()))
        })
        .against("ours, by key"),
        Case::new("governor keyed, our coarse clock", admitted, || {
            coarse.check(black_box(for_coarse.next()))
        })
        .against("ours, by key"),
    ];
    let warm = (2 * size as u64).clamp(2_000, 100_000);
    let plan = Plan { batches: 2_000, warm, ..Plan::hot(rounds) };
    let measured = measure(empty, cases, &plan)?;
    let (keys, room) = (grouped(size), grouped(room));
    let keys = if size == 1 { "1 key".to_string() } else { format!("{keys} keys") };
    let title = format!("{keys} in random order, admitted; our region has room for {room}");
    Ok(latencies(title, &measured, Vec::new()))
}

/// `1,000,000` for 1000000.
pub(crate) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let cut = |(position, digit): (usize, char)| {
        let comma = position > 0 && (digits.len() - position).is_multiple_of(3);
        if comma { vec![',', digit] } else { vec![digit] }
    };
    digits.chars().enumerate().flat_map(cut).collect()
}

pub(crate) fn run(rounds: usize) -> Result<Vec<Table>, Failure> {
    let mut tables: Vec<Table> = Vec::new();
    let mut hot: BTreeMap<String, f64> = BTreeMap::new();
    for (size, room) in SIZES {
        eprintln!("measuring: {} keys", grouped(size));
        let mut table = table(size, room, rounds)?;
        table.columns.insert(1, "x hot");
        for (row, figure) in
            table.rows.iter_mut().zip(table.figures.as_array_mut().into_iter().flatten())
        {
            let p50 = figure["ns"]["p50"].as_f64().unwrap_or(f64::NAN);
            let base = *hot.entry(row[0].clone()).or_insert(p50);
            row.insert(1, format!("{:.1}", p50 / base));
            figure["times_hot"] = json!(p50 / base);
        }
        tables.push(table);
    }
    if let Some(last) = tables.last_mut() {
        last.notes = vec![
            "`x hot`: p50 divided by that of the same contender with one key".to_string(),
            "our region has its size from the start, and half as many buckets again as room; governor's map \
         grows by itself"
            .to_string(),
            "governor's keys are 16 plain bytes, its best case: no pointer to follow".to_string(),
        ];
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_distinct_and_random_numbers_cover_the_range() {
        assert_eq!(&key(12_345), b"key-000000012345");
        let mut random = Random::new();
        let mut seen = [0; 8];
        (0..8_000).for_each(|_| seen[random.below(8)] += 1);
        assert!(seen.iter().all(|count| (800..1_200).contains(count)), "{seen:?}");
    }

    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
